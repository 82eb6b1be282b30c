//! Fetches on the simulated disk: what they wait for, what ends a wait, and whose bytes they give.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use super::workload::{batch, put, rig};
use super::world::{Setup, World, name};
use crate::batch::batches;
use crate::error::ReadError;
use crate::handle::LogHandle;
use crate::handle::fetch::FetchFuture;
use crate::ring::Wait;
use crate::ring::sim::SimDisk;
use crate::shard::fetch::{Fetch, Fetched, Run, locate};
use crate::types::{FlushPolicy, Isolation, Offset};

const FOREVER: Duration = Duration::MAX;

fn from(offset: i64) -> Fetch {
    Fetch { isolation: Isolation::Dirty, max_wait: FOREVER, ..Fetch::from(Offset::new(offset)) }
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut TaskContext::from_waker(Waker::noop()))
}

fn waiting(world: &World<SimDisk>) -> usize {
    world.context(0).state.borrow().fetches.waiting()
}

/// Turns until nothing moves any more: a fetch that is not ready by then waits for what nobody does.
fn settle(world: &mut World<SimDisk>) {
    for _ in 0..50 {
        world.turn(Wait::Forever).unwrap();
    }
}

/// A fetch that has nothing to give yet.
fn begin(world: &mut World<SimDisk>, log: &LogHandle, fetch: Fetch) -> FetchFuture {
    let mut future = log.fetch(fetch);
    settle(world);
    assert!(poll(&mut future).is_pending(), "there is nothing yet for {fetch:?}");
    future
}

fn offsets(fetched: &Fetched) -> (i64, i64) {
    let seen: Vec<_> = batches(&fetched.bytes)
        .map(|batch| batch.map(|b| (b.base_offset().get(), b.last_offset().get())).unwrap())
        .collect();
    assert!(seen.windows(2).all(|pair| pair[1].0 == pair[0].1 + 1), "without a gap: {seen:?}");
    (seen.first().map_or(-1, |first| first.0), seen.last().map_or(-1, |last| last.1 + 1))
}

#[test]
fn a_fetch_wakes_with_the_byte_that_makes_its_minimum() {
    let (_disk, _, mut world, log) = rig(&Setup::default());
    put(&mut world, &log, 100);
    let one = batch(1, 1, 100).as_bytes().len();
    for (min, batches_needed) in [(1, 1), (one, 1), (one + 1, 2), (3 * one, 3), (3 * one + 1, 4)] {
        let at = world.marks(log.name()).dirty.get();
        for isolation in [Isolation::Dirty, Isolation::Durable] {
            let at = world.marks(log.name()).dirty.get();
            let fetch = Fetch { min_bytes: min, isolation, ..from(at) };
            let mut future = begin(&mut world, &log, fetch);
            for sent in 1..=batches_needed {
                assert!(poll(&mut future).is_pending(), "{sent} of {batches_needed} for {min}");
                put(&mut world, &log, 100);
            }
            let fetched = world.run(future).unwrap().unwrap();
            assert_eq!(offsets(&fetched), (at, at + batches_needed), "for {min}");
            assert_eq!(fetched.next, Offset::new(at + batches_needed));
        }
        assert_eq!(world.marks(log.name()).dirty.get(), at + 2 * batches_needed);
    }
    assert_eq!(waiting(&world), 0);
}

#[test]
fn a_wait_ends_when_its_time_is_over_with_what_there_is() {
    let (_disk, _, mut world, log) = rig(&Setup::default());
    put(&mut world, &log, 100);
    for (offset, found) in [(0, (0, 1)), (1, (-1, -1))] {
        let max_wait = Duration::from_millis(30);
        let fetch = Fetch { min_bytes: 100_000, max_wait, ..from(offset) };
        let before = world.clock_ns();
        let fetched = world.run(log.fetch(fetch)).unwrap().unwrap();
        let waited = world.clock_ns() - before;
        assert!((30_000_000..33_000_000).contains(&waited), "{waited} ns");
        assert_eq!((offsets(&fetched), fetched.next), (found, Offset::new(1)));
    }
    // Nothing is waited for where there is nothing to wait for, or no time.
    for fetch in [
        Fetch { min_bytes: 0, ..from(1) },
        Fetch { max_wait: Duration::ZERO, ..from(1) },
        Fetch { max_bytes: 0, ..from(1) },
    ] {
        let fetched = world.run(log.fetch(fetch)).unwrap().unwrap();
        assert_eq!((fetched.bytes.len(), fetched.next), (0, Offset::new(1)), "{fetch:?}");
    }
}

#[test]
fn durable_fetches_never_show_what_is_not_flushed() {
    let (_disk, _, mut world, log) = rig(&Setup { policy: FlushPolicy::Os, ..Setup::default() });
    put(&mut world, &log, 100);
    assert_eq!(world.marks(log.name()).durable, Offset::ZERO, "acked by `os`, not flushed");
    let durable = Fetch { isolation: Isolation::Durable, ..from(0) };
    let mut first = begin(&mut world, &log, durable);
    // Behind the bound there is something, so that it is no error to ask for it.
    let mut second = begin(&mut world, &log, Fetch { offset: Offset::new(1), ..durable });
    let dirty = world.run(log.fetch(from(0))).unwrap().unwrap();
    assert_eq!((offsets(&dirty), dirty.marks.durable), ((0, 1), Offset::ZERO));
    world.run(log.flush()).unwrap().unwrap();
    let seen = world.run(&mut first).unwrap().unwrap();
    assert_eq!((offsets(&seen), seen.marks.durable), ((0, 1), Offset::new(1)));
    settle(&mut world);
    assert!(poll(&mut second).is_pending());
    put(&mut world, &log, 100);
    settle(&mut world);
    assert!(poll(&mut second).is_pending(), "appended is not durable");
    world.run(log.flush()).unwrap().unwrap();
    assert_eq!(offsets(&world.run(second).unwrap().unwrap()), (1, 2));
}

#[test]
fn a_dropped_fetch_frees_its_place() {
    let (_disk, _, mut world, log) = rig(&Setup::default());
    let mut futures: Vec<_> = (0..100).map(|_| log.fetch(from(0))).collect();
    // Some go before the shard has heard of them, some while they wait.
    futures.drain(..10);
    settle(&mut world);
    assert_eq!(waiting(&world), 90);
    futures.drain(..60);
    settle(&mut world);
    assert_eq!(waiting(&world), 30);
    put(&mut world, &log, 100);
    for future in futures {
        assert_eq!(offsets(&world.run(future).unwrap().unwrap()), (0, 1));
    }
    assert_eq!(waiting(&world), 0);
    assert_eq!(world.context(0).state.borrow().logs[0].as_ref().unwrap().watchers, 0);
}

#[test]
fn an_offset_out_of_range_names_the_range() {
    let (_disk, _, mut world, log) = rig(&Setup::default());
    for _ in 0..3 {
        put(&mut world, &log, 100);
    }
    let error = world.run(log.fetch(from(4))).unwrap().unwrap_err();
    let (asked, start, end) = (Offset::new(4), Offset::ZERO, Offset::new(3));
    assert_eq!(error, ReadError::OutOfRange { asked, start, end });
    assert_eq!(
        error.to_string(),
        "offset 4 is out of range: the log can be read from 0 on and ends at 3; begin at 0, or wait at 3 for what comes"
    );
}

#[test]
fn a_waiting_fetch_hears_of_a_truncation_below_it() {
    let (_disk, _, mut world, log) = rig(&Setup::default());
    for _ in 0..4 {
        put(&mut world, &log, 100);
    }
    let below = begin(&mut world, &log, from(4));
    let durable = begin(&mut world, &log, Fetch { isolation: Isolation::Durable, ..from(4) });
    let mut above = begin(&mut world, &log, Fetch { min_bytes: 1000, ..from(2) });
    world.truncate(&log, 2);
    let told = Err(ReadError::Truncated { at: Offset::new(2) });
    assert_eq!(world.run(below).unwrap(), told);
    assert_eq!(world.run(durable).unwrap(), told);
    world.settle().unwrap();
    settle(&mut world);
    assert!(poll(&mut above).is_pending(), "what it waits for is still to come");
    put(&mut world, &log, 2000);
    assert_eq!(offsets(&world.run(above).unwrap().unwrap()), (2, 3));
}

#[test]
fn deletion_and_closing_end_every_wait() {
    let (_disk, _, mut world, log) = rig(&Setup::default());
    let doomed = world.log(&name("doomed")).unwrap();
    let deleted = begin(&mut world, &doomed, from(0));
    let closed = begin(&mut world, &log, from(0));
    world.delete(doomed.name());
    assert_eq!(world.run(deleted).unwrap(), Err(ReadError::Deleted));
    world.settle().unwrap();
    assert_eq!(world.run(doomed.fetch(from(0))).unwrap(), Err(ReadError::Deleted));
    assert_eq!(waiting(&world), 1);
    let mut closed = pin!(closed);
    assert_eq!(world.close().unwrap(), Ok(()));
    assert_eq!(poll(&mut closed), Poll::Ready(Err(ReadError::Closed)));
}

#[test]
fn runs_are_whole_batches_up_to_the_bound_wherever_they_are() {
    let setup = Setup { segment_bytes: 64 << 10, ..Setup::default() };
    let (_disk, _, mut world, log) = rig(&setup);
    for n in 0..40 {
        put(&mut world, &log, 3000 + 100 * n);
    }
    settle(&mut world);
    let cx = world.context(0);
    let id = cx.state.borrow().logs[0].as_ref().unwrap().identity.id;
    for offset in 0..=40 {
        for max_bytes in [1, 5_000, 20_000, 90_000, 1 << 20] {
            let ask = Fetch { max_bytes, ..from(offset) };
            let located = world.run(locate(&cx, id, &ask)).unwrap().unwrap();
            let runs = located.runs();
            let sum: u64 = runs.iter().map(|run| length(*run)).sum();
            assert_eq!(sum, located.bytes);
            let next = located.next;
            drop(located);
            let fetched = world.run(log.fetch(Fetch { max_wait: Duration::ZERO, ..ask }));
            let fetched = fetched.unwrap().unwrap();
            assert_eq!(fetched.bytes.len() as u64, sum, "from {offset}, {max_bytes} bytes");
            assert_eq!(fetched.next, next);
            if offset < 40 {
                assert_eq!(offsets(&fetched), (offset, next.get()));
                let fits = sum <= max_bytes as u64;
                assert!(fits || next.get() == offset + 1, "more than a batch is within bounds");
                let one_more = Fetch { max_bytes: usize::MAX, ..from(next.get()) };
                if next.get() < 40 && fits {
                    let more = world.run(log.fetch(one_more)).unwrap().unwrap();
                    let first = batches(&more.bytes).next().unwrap().unwrap();
                    let with = sum as usize + first.as_bytes().len();
                    assert!(with > max_bytes, "as many as fit: from {offset}, {max_bytes} bytes");
                }
            }
        }
    }
    let all = world.run(locate(&cx, id, &Fetch { max_bytes: usize::MAX, ..from(0) }));
    let runs = all.unwrap().unwrap().runs();
    let sealed = |run: &Run| matches!(run, Run::File { sealed: true, .. });
    assert!(runs.iter().filter(|run| sealed(run)).count() >= 2, "{runs:?}");
    assert!(matches!(runs.last(), Some(Run::Memory(_))), "{runs:?}");
}

fn length(run: Run) -> u64 {
    let (Run::Memory(range) | Run::File { range, .. }) = run;
    range.to.since(range.from)
}
