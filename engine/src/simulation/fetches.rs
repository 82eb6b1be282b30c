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
fn a_waiting_fetch_hears_that_its_records_were_deleted() {
    let (_disk, _, mut world, log) = rig(&Setup::default());
    for _ in 0..4 {
        put(&mut world, &log, 100);
    }
    let below = begin(&mut world, &log, Fetch { min_bytes: 100_000, ..from(2) });
    let mut above = begin(&mut world, &log, Fetch { min_bytes: 1000, ..from(3) });
    world.run(log.delete_records(Offset::new(3))).unwrap().unwrap();
    let (asked, start, end) = (Offset::new(2), Offset::new(3), Offset::new(4));
    assert_eq!(world.run(below).unwrap(), Err(ReadError::OutOfRange { asked, start, end }));
    settle(&mut world);
    assert!(poll(&mut above).is_pending(), "what it waits for is still to come");
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

/// Locates the batches of a log in sealed segments one after another. Returns where each fetch begins, and how many
/// operations of the disk all of them took.
fn locate_all(disk: &SimDisk, world: &mut World<SimDisk>, end: i64) -> (Vec<i64>, u64) {
    let cx = world.context(0);
    let id = cx.state.borrow().logs[0].as_ref().unwrap().identity.id;
    let (mut starts, mut next, before) = (Vec::new(), 0, disk.steps());
    while next < end {
        starts.push(next);
        let ask = Fetch { max_bytes: 20_000, max_wait: Duration::ZERO, ..from(next) };
        next = world.run(locate(&cx, id, &ask)).unwrap().unwrap().next.get();
    }
    (starts, disk.steps() - before)
}

#[test]
fn where_a_fetch_ended_is_remembered_for_the_next_one_and_forgotten_with_a_cut() {
    let setup = Setup { segment_bytes: 64 << 10, ..Setup::default() };
    let (disk, _, mut world, log) = rig(&setup);
    for n in 0..40 {
        put(&mut world, &log, 3000 + 100 * n);
    }
    settle(&mut world);
    let cx = world.context(0);
    let tail = cx.state.borrow().logs[0].as_ref().unwrap().tail[0].base().get();
    let (starts, first) = locate_all(&disk, &mut world, tail);
    assert!(starts.len() >= 4 && first as usize >= starts.len(), "{first} for {starts:?}");
    let again = locate_all(&disk, &mut world, tail);
    assert_eq!(again, (starts.clone(), 0), "as before, and nothing is read");
    // Where the second one began there are other bytes now.
    world.truncate(&log, starts[1]);
    world.settle().unwrap();
    for _ in 0..40 {
        put(&mut world, &log, 2000);
    }
    settle(&mut world);
    for &start in &starts {
        let ask = Fetch { max_bytes: 20_000, max_wait: Duration::ZERO, ..from(start) };
        let fetched = world.run(log.fetch(ask)).unwrap().unwrap();
        assert_eq!(offsets(&fetched), (start, fetched.next.get()));
        assert!(fetched.next.get() > start + 4, "as many as fit, of the new length");
    }
}

fn length(run: Run) -> u64 {
    let (Run::Memory(range) | Run::File { range, .. }) = run;
    range.to.since(range.from)
}

#[test]
fn an_epoch_that_is_no_longer_the_logs_is_refused() {
    let (_disk, _, mut world, log) = rig(&Setup::default());
    let put_at = |world: &mut World<SimDisk>, offset: i64, epoch: i32| {
        let id = world.oracle.borrow_mut().id();
        assert!(world.send_at(&log, id, batch(id, 1, 100), Some((offset, epoch))));
        world.settle().unwrap();
    };
    for (offset, epoch) in [(0, 3), (1, 3), (2, 5), (3, 5), (4, 5)] {
        put_at(&mut world, offset, epoch);
    }
    let seen = world.run(log.fetch(from(0))).unwrap().unwrap();
    assert_eq!((seen.leader_epoch, seen.last_epoch, seen.next), (5, Some(5), Offset::new(5)));
    let ask = |world: &mut World<SimDisk>, offset: i64, epoch: i32| {
        let fetch = Fetch { epoch: Some(epoch), max_wait: Duration::ZERO, ..from(offset) };
        world.run(log.fetch(fetch)).unwrap().map(|fetched| offsets(&fetched))
    };
    let diverged = |epoch, end| Err(ReadError::Diverged { epoch, end: Offset::new(end) });
    assert_eq!(ask(&mut world, 2, 3), Ok((2, 5)), "an epoch ended where the next one began");
    assert_eq!(ask(&mut world, 3, 3), diverged(3, 2), "what the reader has behind it is another's");
    assert_eq!(ask(&mut world, 2, 4), diverged(3, 2), "there was no such epoch");
    assert_eq!(ask(&mut world, 5, 5), Ok((-1, -1)));
    assert_eq!(ask(&mut world, 6, 5), diverged(5, 5), "behind the end");
    assert_eq!(ask(&mut world, 0, 0), Ok((0, 5)), "before the first record nothing can differ");
    assert_eq!(
        ask(&mut world, 6, -1).map_err(|e| e.to_string().contains("out of range")),
        Err(true)
    );
    // A reader waits at the end; another leader takes the log back and goes on.
    let waiting = begin(&mut world, &log, from(0).after(&seen));
    world.truncate(&log, 3);
    world.settle().unwrap();
    put_at(&mut world, 3, 7);
    put_at(&mut world, 4, 7);
    put_at(&mut world, 5, 7);
    let cut = Err(ReadError::Truncated { at: Offset::new(3) });
    assert_eq!(world.run(waiting).unwrap().map(|fetched| offsets(&fetched)), cut);
    assert_eq!(ask(&mut world, 5, 5), diverged(5, 3));
    assert_eq!(ask(&mut world, 3, 5), Ok((3, 6)));
    let again = world.run(log.fetch(Fetch { max_bytes: 1, ..from(3) })).unwrap().unwrap();
    assert_eq!((again.leader_epoch, again.last_epoch), (7, Some(7)));
    let before = world.run(log.fetch(Fetch { max_bytes: 1, ..from(0) })).unwrap().unwrap();
    assert_eq!(before.last_epoch, Some(3), "of its own last record, not the log's");
}

#[test]
fn a_mark_tells_of_cuts_below_and_of_no_other() {
    let (disk, oracle, mut world, log) = rig(&Setup::default());
    for _ in 0..6 {
        put(&mut world, &log, 100);
    }
    let one = Fetch { max_bytes: 1, ..from(0) };
    let first = world.run(log.fetch(one)).unwrap().unwrap();
    let fifth = world.run(log.fetch(Fetch { offset: Offset::new(4), ..one })).unwrap().unwrap();
    assert_eq!((first.next, fifth.next), (Offset::new(1), Offset::new(5)));
    for to in [5, 3] {
        world.truncate(&log, to);
        world.settle().unwrap();
        put(&mut world, &log, 100);
        put(&mut world, &log, 100);
        put(&mut world, &log, 100);
        let low = world.run(log.fetch(one.after(&first))).unwrap().unwrap();
        assert_eq!(offsets(&low), (1, 2), "cut above it");
        let high = world.run(log.fetch(one.after(&fifth))).unwrap();
        let told = Err(ReadError::Truncated { at: Offset::new(3) });
        let expected = if to == 5 { Ok(Offset::new(6)) } else { told };
        assert_eq!(high.map(|fetched| fetched.next), expected, "cut to {to}");
    }
    // After a restart marks say nothing: epochs do.
    assert_eq!(world.close().unwrap(), Ok(()));
    let mut world =
        super::workload::reopen(&disk, &Setup::default(), &oracle, super::oracle::End::Power);
    let log = world.log(&name("topic")).unwrap();
    let fetched = world.run(log.fetch(one.after(&fifth))).unwrap().unwrap();
    assert_eq!(offsets(&fetched), (5, 6));
}

#[test]
fn what_a_full_disk_takes_back_is_a_cut_for_those_who_saw_it() {
    let (disk, _, mut world, log) = rig(&Setup::default());
    put(&mut world, &log, 100);
    let fault =
        crate::ring::sim::Fault::nth(crate::ring::sim::OpKind::Allocate, ".log", 1, libc::ENOSPC);
    disk.inject(fault.when(crate::ring::sim::When::From(1)));
    // More than there is space ready for: it stays in memory until the disk turns out to be full.
    let ids: Vec<u64> = (0..4)
        .map(|_| {
            let id = world.oracle.borrow_mut().id();
            assert!(world.send(&log, id, batch(id, 1, 60_000)));
            id
        })
        .collect();
    let seen = world.run(log.fetch(from(1))).unwrap().unwrap();
    assert_eq!(offsets(&seen), (1, 5), "a dirty reader sees them");
    let mut waiting = log.fetch(from(0).after(&seen));
    while poll(&mut waiting).is_pending() {
        world.turn(Wait::Forever).unwrap();
        assert!(world.clock_ns() < 10_000_000_000, "the disk is full: {}", world.describe());
    }
    let first_gone = {
        let mut oracle = world.oracle.borrow_mut();
        let gone = &oracle.track(log.name()).gone;
        ids.iter().position(|id| gone.contains(id)).expect("taken back")
    };
    let at = Offset::new(1 + first_gone as i64);
    let again = world.run(log.fetch(from(0).after(&seen))).unwrap();
    assert_eq!(again, Err(ReadError::Truncated { at }));
    disk.clear_faults();
}

#[test]
fn more_fetches_than_there_are_places_are_refused_and_places_come_free() {
    use crate::limits::FETCHES_MAX;
    let (_disk, _, mut world, log) = rig(&Setup::default());
    let mut futures: Vec<_> = (0..FETCHES_MAX).map(|_| log.fetch(from(0))).collect();
    // A turn polls a bounded number of them.
    while waiting(&world) < FETCHES_MAX {
        world.turn(Wait::No).unwrap();
    }
    assert_eq!(world.run(log.fetch(from(0))).unwrap(), Err(ReadError::Overloaded));
    drop(futures.pop());
    settle(&mut world);
    futures.push(begin(&mut world, &log, from(0)));
    assert_eq!(waiting(&world), FETCHES_MAX);
    drop(futures);
    for _ in 0..2 * FETCHES_MAX / crate::limits::EXECUTOR_BUDGET {
        world.turn(Wait::No).unwrap();
    }
    assert_eq!(waiting(&world), 0);
}
