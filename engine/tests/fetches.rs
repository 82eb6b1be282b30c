//! Fetches through the public interface: waiting ones, thousands of them, and what a drop frees.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use ringmain::batch::batches;
use ringmain::error::ReadError;
use ringmain::types::{FlushPolicy, Isolation, Offset};
use ringmain::{Config, Engine, Fetch, FetchFuture, LogHandle};

use crate::support::{batch, block_on, everywhere, id_of};

fn follow(from: i64) -> Fetch {
    Fetch { max_wait: Duration::MAX, ..Fetch::from(Offset::new(from)) }
}

#[test]
fn a_fetch_waits_on_one_thread_for_what_another_appends() {
    everywhere("fetch-waits", |config| {
        let engine = Engine::open(config).unwrap();
        let log = engine.log("fetch", 0).unwrap();
        std::thread::scope(|scope| {
            for isolation in [Isolation::Durable, Isolation::Dirty] {
                let log = log.clone();
                scope.spawn(move || {
                    let mut fetch = Fetch { isolation, ..follow(0) };
                    let mut ids = Vec::new();
                    while ids.len() < 600 {
                        let fetched = log.fetch_blocking(fetch).unwrap();
                        assert!(!fetched.bytes.is_empty(), "a wait without end ends with bytes");
                        for one in batches(&fetched.bytes) {
                            for record in one.unwrap().records().unwrap() {
                                ids.push(id_of(record.unwrap().value.unwrap()));
                            }
                        }
                        let end = match isolation {
                            Isolation::Durable => fetched.marks.durable,
                            Isolation::Dirty => fetched.marks.dirty,
                        };
                        assert!(fetched.next <= end, "never past the bound");
                        fetch = fetch.after(&fetched);
                    }
                    assert_eq!(ids, (0..600).collect::<Vec<_>>());
                });
            }
            for n in 0..200 {
                log.append_blocking(batch(n * 3..n * 3 + 3, 8000)).unwrap();
            }
        });
    });
}

#[test]
fn a_wait_that_is_over_gives_nothing_and_costs_its_time() {
    everywhere("fetch-time", |config| {
        let engine = Engine::open(config).unwrap();
        let log = engine.log("fetch", 0).unwrap();
        let began = Instant::now();
        let max_wait = Duration::from_millis(50);
        let fetched = log.fetch_blocking(Fetch { max_wait, ..follow(0) }).unwrap();
        assert!(began.elapsed() >= max_wait);
        assert_eq!((fetched.bytes.len(), fetched.next), (0, Offset::ZERO));
        let error = log.fetch_blocking(follow(1)).unwrap_err();
        let (asked, start, end) = (Offset::new(1), Offset::ZERO, Offset::ZERO);
        assert_eq!(error, ReadError::OutOfRange { asked, start, end });
    });
}

#[test]
fn closing_and_deleting_end_waits() {
    everywhere("fetch-ends", |config| {
        let engine = Engine::open(config).unwrap();
        let (one, two) = (engine.log("ends", 0).unwrap(), engine.log("ends", 1).unwrap());
        let (deleted, closed) = (one.fetch(follow(0)), two.fetch(follow(0)));
        engine.delete("ends", 0).unwrap();
        assert_eq!(block_on(deleted), Err(ReadError::Deleted));
        engine.close().unwrap();
        assert_eq!(block_on(closed), Err(ReadError::Closed));
        assert_eq!(block_on(two.fetch(follow(0))), Err(ReadError::Closed));
    });
}

/// A waker that nobody listens to.
struct Deaf;

impl Wake for Deaf {
    fn wake(self: Arc<Self>) {}
}

fn poll(future: &mut FetchFuture) -> Poll<Result<ringmain::Fetched, ReadError>> {
    let waker = Waker::from(Arc::new(Deaf));
    std::pin::Pin::new(future).poll(&mut Context::from_waker(&waker))
}

/// Ten thousand fetches that wait, over two shards and twenty logs.
fn many(engine: &Engine, each: usize) -> Vec<(LogHandle, Vec<FetchFuture>)> {
    (0..20)
        .map(|n| {
            let log = engine.log("many", n).unwrap();
            let fetch = Fetch { min_bytes: 1, ..follow(0) };
            let mut waiting: Vec<FetchFuture> = (0..each).map(|_| log.fetch(fetch)).collect();
            assert!(waiting.iter_mut().all(|future| poll(future).is_pending()));
            // Calls of a shard begin in order: they wait by now.
            log.watermarks_blocking().unwrap();
            (log, waiting)
        })
        .collect()
}

/// The child's part: other tests have engines of their own in the parent.
#[test]
fn measure_an_idle_second_of_ten_thousand_waits() {
    if crate::support::from_parent("RINGMAIN_WAITS").is_none() {
        return;
    }
    everywhere("waits", |config| {
        let engine = Engine::open(Config { shards: 2, ..config }).unwrap();
        let logs = many(&engine, 500);
        for (log, _) in &logs {
            log.checkpoint_blocking().unwrap();
        }
        let before = crate::idle::ticks();
        // What is measured is a span of time.
        std::thread::sleep(Duration::from_secs(1));
        let used = crate::idle::ticks() - before;
        assert!(used <= 5, "{used} hundredths of a second for ten thousand waits");
        // They were waiting all the while.
        for (log, waiting) in logs {
            log.append_blocking(batch([7], 100)).unwrap();
            for future in waiting {
                let fetched = block_on(future).unwrap();
                assert_eq!(fetched.next, Offset::new(1));
            }
        }
        engine.close().unwrap();
    });
}

#[test]
fn ten_thousand_waiting_fetches_use_no_processor_time() {
    let test = "fetches::measure_an_idle_second_of_ten_thousand_waits";
    let mut child = crate::support::child(test, &[("RINGMAIN_WAITS", "1")]);
    let output = child.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("waits: Sync, PageCache"), "all were measured: {told}");
}

#[test]
fn appends_to_other_logs_do_not_wake_those_who_wait() {
    everywhere("fetch-others", |config| {
        let engine = Engine::open(Config { shards: 1, ..config }).unwrap();
        let mut logs = many(&engine, 20);
        let other = engine.log("other", 0).unwrap();
        for n in 0..50 {
            other.append_blocking(batch([n], 100)).unwrap();
        }
        let pending =
            |waiting: &mut Vec<FetchFuture>| waiting.iter_mut().all(|f| poll(f).is_pending());
        assert!(logs.iter_mut().all(|(_, waiting)| pending(waiting)));
        let (log, waiting) = logs.swap_remove(3);
        log.append_blocking(batch([1], 100)).unwrap();
        for future in waiting {
            assert_eq!(block_on(future).unwrap().next, Offset::new(1));
        }
        assert!(logs.iter_mut().all(|(_, waiting)| pending(waiting)), "each log has its own");
    });
}

/// The memory of one shard that is in use, looked at until it is as expected: bytes are given back when their write has
/// ended, which may be behind the ack.
fn used_mib(engine: &Engine, is_expected: impl Fn(u64) -> bool) -> u64 {
    let mut used = 0;
    for _ in 0..500 {
        used = engine.stats()[0].memory_used_bytes >> 20;
        if is_expected(used) {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    used
}

#[test]
fn written_bytes_stay_in_memory_for_those_who_read_the_tail_and_for_nobody_else() {
    everywhere("fetch-memory", |config| {
        let (memory_bytes, segment_bytes) = (128 << 20, 128 << 20);
        let config = Config { shards: 1, memory_bytes, segment_bytes, ..config };
        let engine = Engine::open(config).unwrap();
        let log = engine.log("fetch", 0).unwrap();
        log.set_flush_policy_blocking(FlushPolicy::Os).unwrap();
        let fill = |from: u64| {
            for n in from..from + 80 {
                log.append_blocking(batch([n], 512 << 10)).unwrap();
                if n > 80 {
                    log.read_blocking(Offset::new(n as i64), 1, Isolation::Dirty).unwrap();
                }
            }
        };
        fill(0);
        let unread = used_mib(&engine, |used| used < 20);
        assert!(unread < 20, "{unread} MiB in use, of 40 written, which nobody reads");
        fill(80);
        let read = used_mib(&engine, |used| used >= 40);
        assert!(read >= 40, "{read} MiB in use, of 40 written while the tail is read");
    });
}
