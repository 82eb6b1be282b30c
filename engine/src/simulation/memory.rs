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
    if partitions < 256 {
        survives(&disk, &setup, &oracle, CrashPlan::DropAll);
    }
    (acked, refused)
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
