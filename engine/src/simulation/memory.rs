//! A budget of memory that is too small for what clients want.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::for_seeds;
use super::oracle::{End, Fate, Oracle};
use super::workload::{batch, disk, reopen, survives};
use super::world::{Rng, Setup, World, name};
use crate::handle::LogHandle;
use crate::ring::Wait;
use crate::ring::sim::{CrashPlan, SimDisk, SimOptions};
use crate::types::FlushPolicy;

/// Longer than any operation takes.
const LONG: Duration = Duration::from_millis(10);

/// Turns until every client has been told. While one waits, something must be on its way: a shard that sleeps until
/// its time is up, again and again, waits for nothing.
fn settle(world: &mut World<SimDisk>) {
    let mut quiet = 0;
    while world.waiting() > 0 {
        let before = world.clock_ns();
        world.turn(Wait::AtMost(LONG)).unwrap();
        let slept = world.clock_ns() - before >= LONG.as_nanos() as u64;
        quiet = if slept { quiet + 1 } else { 0 };
        assert!(quiet < 3, "{} clients wait for nothing\n{}", world.waiting(), world.describe());
    }
}

fn bytes(rng: &mut Rng) -> usize {
    let bytes = match rng.below(40) {
        0..30 => 50 + rng.below(600),
        30..36 => rng.below(9000),
        36..38 => rng.below(100_000),
        38 => rng.below(400_000),
        _ => rng.below(1_400_000),
    };
    bytes as usize
}

/// Appends to so many partitions with memory for 256 blocks. How many batches were acknowledged, how many refused.
fn starve(seed: u64, partitions: u64, policy: FlushPolicy) -> (usize, usize) {
    let setup = Setup { memory_bytes: 2 << 20, policy, seed, ..Setup::default() };
    let disk = disk(SimOptions { seed, ..SimOptions::default() });
    let oracle: Rc<RefCell<Oracle>> = Rc::default();
    let mut world = reopen(&disk, &setup, &oracle, End::Power);
    let mut rng = Rng(seed);
    let names = (0..partitions).map(|n| name(&format!("topic{n}")));
    let logs: Vec<LogHandle> = names.map(|name| world.log(&name).unwrap()).collect();
    for _ in 0..60 {
        for _ in 0..1 + rng.below(20) {
            let log = &logs[rng.below(partitions) as usize];
            let id = world.oracle.borrow_mut().id();
            world.send(log, id, batch(id, 1, bytes(&mut rng)));
        }
        for _ in 0..rng.below(3) {
            // One that waits for its place.
            let log = logs[rng.below(partitions) as usize].clone();
            let future = log.flush();
            world.spawn(async move { drop(future.await) });
        }
        if rng.one_in(3) {
            settle(&mut world);
        }
    }
    settle(&mut world);
    // Some tail has room.
    let taken = logs.iter().any(|log| {
        let id = world.oracle.borrow_mut().id();
        world.append(log, id, batch(id, 1, 10)).unwrap().is_ok()
    });
    assert!(taken, "nothing is taken any more\n{}", world.describe());
    let (mut acked, mut refused) = (0, 0);
    for track in oracle.borrow().partitions.values() {
        acked += track.sent.iter().filter(|sent| sent.fate == Fate::Acked).count();
        refused += track.gone.len();
    }
    let (fork, oracle) = survives(&disk, &setup, &oracle, CrashPlan::DropAll);
    // More tails than there is memory for: their partitions took a new segment, and go on there.
    let again = World::open(&fork, &setup, &oracle).unwrap();
    drop(again);
    fork.crash(CrashPlan::DropAll);
    let mut again = reopen(&fork, &setup, &oracle, End::Power);
    let log = again.log(&name("topic7")).unwrap();
    again.run(log.flush()).unwrap().unwrap();
    (acked, refused)
}

#[test]
fn more_tails_than_memory_are_opened_and_read() {
    let small = Setup { memory_bytes: 2 << 20, ..Setup::default() };
    let large = Setup { memory_bytes: 64 << 20, ..small.clone() };
    let disk = disk(SimOptions::default());
    let oracle: Rc<RefCell<Oracle>> = Rc::default();
    let mut world = reopen(&disk, &large, &oracle, End::Power);
    let names: Vec<_> = (0..400).map(|n| name(&format!("topic{n}"))).collect();
    for name in &names {
        let log = world.log(name).unwrap();
        let id = world.oracle.borrow_mut().id();
        assert!(world.send(&log, id, batch(id, 1, 500)));
    }
    settle(&mut world);
    drop(world);
    for round in 0..3 {
        disk.crash(CrashPlan::DropAll);
        // All can be read, although tails hold all of the memory.
        let mut world = reopen(&disk, &small, &oracle, End::Power);
        let until = world.clock_ns() + 2_000_000_000;
        while world.clock_ns() < until {
            world.turn(Wait::AtMost(LONG)).unwrap();
        }
        let log = world.log(&names[0]).unwrap();
        let id = world.oracle.borrow_mut().id();
        world.append(&log, id, batch(id, 1, 500)).unwrap().unwrap();
        let seals = disk.files().iter().filter(|file| file.ends_with(".seal")).count();
        assert!(seals > 100, "round {round}: {seals} tails gave way");
    }
    disk.crash(CrashPlan::DropAll);
    let mut world = reopen(&disk, &large, &oracle, End::Power);
    for name in &names {
        let log = world.log(name).unwrap();
        let id = world.oracle.borrow_mut().id();
        world.append(&log, id, batch(id, 1, 500)).unwrap().unwrap();
    }
}

#[test]
fn memory_that_runs_out_never_hangs() {
    let relaxed = FlushPolicy::Interval { ms: 5, bytes: 50_000, messages: 100 };
    for_seeds(0..2, |seed| {
        for policy in [FlushPolicy::Group, FlushPolicy::Os, relaxed] {
            for partitions in [20, 200, 400] {
                let (acked, refused) = starve(seed, partitions, policy);
                assert!(acked > 50, "{partitions} {policy:?}: {acked} acknowledged");
                assert!(refused > 0, "{partitions} {policy:?}: memory did not run out");
            }
        }
    });
}
