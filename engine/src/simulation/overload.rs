//! Memory that is full: whatever was taken is acknowledged all the same, and can be read.

use std::cell::RefCell;
use std::rc::Rc;

use super::for_seeds;
use super::oracle::{End, Fate, Oracle};
use super::workload::{batch, disk, reopen};
use super::world::{Rng, Setup, name};
use crate::buffers::CHUNK_BYTES_MAX;
use crate::handle::LogHandle;
use crate::limits::{WRITE_BACK_BYTES_IN_FLIGHT, WRITE_BACKS_IN_FLIGHT};
use crate::ring::Wait;
use crate::ring::sim::SimOptions;
use crate::types::{Durability, FlushPolicy};

const TAKEN: usize = 300;

/// How many appends to a partition were acknowledged.
fn acked(oracle: &RefCell<Oracle>, log: &LogHandle) -> usize {
    let mut oracle = oracle.borrow_mut();
    oracle.track(log.name()).sent.iter().filter(|sent| sent.fate == Fate::Acked).count()
}

/// Sends until so many were taken, faster than the disk takes them. Returns how often one was refused.
fn overloaded(seed: u64, partitions: u64, policy: FlushPolicy) -> usize {
    let durability = [Durability::Dsync, Durability::Fdatasync][seed as usize % 2];
    let setup = Setup {
        memory_bytes: 8 << 20,
        segment_bytes: 1 << 20,
        policy,
        durability,
        seed,
        ..Setup::default()
    };
    let disk = disk(SimOptions { seed, ..SimOptions::default() });
    let oracle: Rc<RefCell<Oracle>> = Rc::default();
    let mut world = reopen(&disk, &setup, &oracle, End::Power);
    let logs: Vec<_> =
        (0..partitions).map(|n| world.log(&name(&format!("busy{n}"))).unwrap()).collect();
    let mut rng = Rng(seed);
    let (mut taken, mut refused) = (0, 0);
    while taken < TAKEN {
        let log = &logs[rng.below(partitions) as usize];
        let id = oracle.borrow_mut().id();
        let bytes = [50_000, 300_000, 3000][rng.below(3) as usize];
        if world.send(log, id, batch(id, 1, bytes)) {
            taken += 1;
        } else {
            refused += 1;
            world.turn(Wait::Forever).unwrap();
        }
    }
    world.settle().unwrap();
    let acked = logs.iter().map(|log| acked(&oracle, log));
    assert_eq!(acked.sum::<usize>(), taken, "seed {seed}: what was taken is acknowledged");
    for log in &logs {
        world.read_all(log).unwrap();
    }
    refused
}

#[test]
fn what_a_full_memory_took_is_acknowledged_and_can_be_read() {
    for_seeds(0..4, |seed| {
        for policy in [FlushPolicy::Group, FlushPolicy::Os] {
            for partitions in [1, 3, 40] {
                let refused = overloaded(seed, partitions, policy);
                assert!(refused > 10, "there was an overload");
            }
        }
    });
}

/// Appends come without a pause: what the journal holds goes to its file meanwhile, in pieces, and does not pile up
/// until it stands in front of a group as one.
#[test]
fn what_is_journaled_is_written_back_while_more_comes() {
    // A journal so large that no checkpoint runs.
    let setup = Setup { direct_bytes: 8 << 20, journal_bytes: 64 << 20, ..Setup::default() };
    let disk = disk(SimOptions::default());
    let oracle: Rc<RefCell<Oracle>> = Rc::default();
    let mut world = reopen(&disk, &setup, &oracle, End::Power);
    let log = world.log(&name("busy")).unwrap();
    world.run(log.prepare(32 << 20)).unwrap().unwrap();
    let (mut sent, mut behind_max, mut in_flight_max) = (0, 0, 0);
    for _ in 0..2500 {
        // So few on their way that no group is large enough to go straight to the file; but some at every turn.
        while acked(&oracle, &log) + 16 < sent {
            world.turn(Wait::Forever).unwrap();
        }
        let id = oracle.borrow_mut().id();
        assert!(world.send(&log, id, batch(id, 1, 5000)), "there is room");
        sent += 1;
        world.turn(Wait::Forever).unwrap();
        let context = world.context(0);
        let mut state = context.state.borrow_mut();
        in_flight_max = in_flight_max.max(state.writes.write_backs().1);
        let mut logs = state.logs.iter_mut().flatten();
        behind_max = behind_max.max(logs.next().unwrap().active().unwritten_claimed());
    }
    assert!(in_flight_max > 0, "nothing was written back");
    assert!(in_flight_max <= WRITE_BACK_BYTES_IN_FLIGHT + CHUNK_BYTES_MAX as u64);
    assert!(behind_max <= 2 * WRITE_BACK_BYTES_IN_FLIGHT, "{behind_max} bytes behind");
    world.settle().unwrap();
    world.read_all(&log).unwrap();
}

/// Large groups go straight to their segment, behind a small one that the journal took: they do not stay in memory
/// until the journal is half full.
#[test]
fn memory_behind_a_little_that_was_journaled_is_given_back() {
    let (journal_bytes, memory_bytes) = (64 << 20, 64 << 20);
    let setup = Setup { journal_bytes, memory_bytes, ..Setup::default() };
    let disk = disk(SimOptions::default());
    let oracle: Rc<RefCell<Oracle>> = Rc::default();
    let mut world = reopen(&disk, &setup, &oracle, End::Power);
    let log = world.log(&name("mixed")).unwrap();
    world.run(log.prepare(64 << 20)).unwrap().unwrap();
    let (mut sent, mut taken_max) = (0, 0);
    while sent < 300 {
        for bytes in [1000, 300_000] {
            let id = oracle.borrow_mut().id();
            assert!(world.send(&log, id, batch(id, 1, bytes)), "there is room");
            sent += 1;
            while acked(&oracle, &log) < sent {
                world.turn(Wait::Forever).unwrap();
            }
        }
        let context = world.context(0);
        let state = context.state.borrow();
        taken_max = taken_max.max(state.arena.bytes() - state.arena.free_bytes());
    }
    // A quarter of the arena, and of what was appended: what is read by nobody goes from an eighth on.
    assert!(taken_max < 12 << 20, "{taken_max} bytes of memory were taken");
    world.settle().unwrap();
    world.read_all(&log).unwrap();
}

/// Appends under `os` to many partitions keep writes in flight all the time: what the journal holds of another is
/// written back all the same, and its appends do not end with the journal's room.
#[test]
fn a_partition_is_written_back_beside_many_that_write_at_once() {
    let setup = Setup { memory_bytes: 32 << 20, direct_bytes: 1 << 20, ..Setup::default() };
    let disk = disk(SimOptions::default());
    let oracle: Rc<RefCell<Oracle>> = Rc::default();
    let mut world = reopen(&disk, &setup, &oracle, End::Power);
    let journaled = world.log(&name("journaled")).unwrap();
    let plain: Vec<_> = (0..WRITE_BACKS_IN_FLIGHT + 8)
        .map(|n| world.log(&name(&format!("plain{n}"))).unwrap())
        .collect();
    for log in &plain {
        world.run(log.set_flush_policy(FlushPolicy::Os)).unwrap().unwrap();
        world.run(log.prepare(8 << 20)).unwrap().unwrap();
    }
    let mut busy = 0;
    let mut sent = vec![0; plain.len()];
    let (mut turns, appends) = (0, 2 * setup.journal_bytes as usize / 100_000);
    for nth in 0..appends {
        let id = oracle.borrow_mut().id();
        assert!(world.send(&journaled, id, batch(id, 1, 100_000)), "there is room");
        while acked(&oracle, &journaled) <= nth {
            for (log, sent) in plain.iter().zip(&mut sent) {
                if acked(&oracle, log) == *sent {
                    let id = oracle.borrow_mut().id();
                    assert!(world.send(log, id, batch(id, 1, 5000)), "there is room");
                    *sent += 1;
                }
            }
            world.turn(Wait::Forever).unwrap();
            let in_flight = world.context(0).state.borrow().writes.in_flight();
            busy += usize::from(in_flight >= WRITE_BACKS_IN_FLIGHT);
            turns += 1;
            assert!(turns < 2000 * appends, "append {nth} is not acknowledged");
        }
    }
    assert!(busy * 2 > turns, "the others were busy: {busy} of {turns}");
    world.settle().unwrap();
}
