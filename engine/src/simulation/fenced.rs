//! Partitions that a fault has closed: what was acknowledged stays in the journal until the directory is opened again.

use super::oracle::End;
use super::workload::{Shared, batch, disk, plans, reopen, survives};
use super::world::{Setup, World, name};
use crate::error::AppendError;
use crate::handle::LogHandle;
use crate::ring::Wait;
use crate::ring::sim::{Effect, Fault, OpKind, SimDisk, SimOptions};
use crate::shard::state::Errand;
use crate::types::{Durability, Pos, Prepare};

const SEGMENT: &str = "topic-0/00000000000000000000.log";

fn rig(setup: &Setup) -> (SimDisk, Shared, World<SimDisk>, [LogHandle; 2]) {
    let disk = disk(SimOptions { completions_per_enter: 1, ..SimOptions::default() });
    let oracle = Shared::default();
    let mut world = reopen(&disk, setup, &oracle, End::Power);
    let logs = ["topic", "zother"].map(|topic| world.log(&name(topic)).unwrap());
    (disk, oracle, world, logs)
}

fn everywhere(disk: &SimDisk, setup: &Setup, oracle: &Shared) {
    for plan in plans(disk.steps()) {
        survives(disk, setup, oracle, plan);
    }
}

fn put(world: &mut World<SimDisk>, log: &LogHandle, bytes: usize) -> Result<(), AppendError> {
    let id = world.oracle.borrow_mut().id();
    world.append(log, id, batch(id, 1, bytes)).unwrap().map(drop)
}

/// Acknowledged batches in the journal; the first write or flush of their file fails; the journal turns again and
/// again under another partition's appends.
fn fenced(fault: &Fault, durability: Durability, padded: bool) {
    let setup = Setup { direct_bytes: 1 << 20, durability, ..Setup::default() };
    let (disk, oracle, mut world, [log, other]) = rig(&setup);
    for n in 1..=5 {
        put(&mut world, &log, 800 * n).unwrap();
    }
    if padded {
        // So that the block's beginning is in the file, and the journal holds its image anew.
        world.run(log.checkpoint()).unwrap().unwrap();
        put(&mut world, &log, 300).unwrap();
        put(&mut world, &log, 9000).unwrap();
    }
    disk.inject(fault.clone());
    let turns =
        |world: &World<SimDisk>| world.context(0).state.borrow().stats.journal_bytes / (4 << 20);
    let mut checked = 0;
    while turns(&world) < 5 {
        put(&mut world, &other, 60_000).unwrap();
        if turns(&world) > checked {
            checked += 1;
            assert_eq!(disk.faults_hit(), 1, "{fault:?}");
            let refused = put(&mut world, &log, 100);
            assert!(matches!(refused, Err(AppendError::Fenced(_))), "{refused:?}");
            everywhere(&disk, &setup, &oracle);
        }
    }
}

#[test]
fn a_fenced_partition_lives_in_the_journal_until_it_is_opened_again() {
    for padded in [false, true] {
        for durability in [Durability::Dsync, Durability::Fdatasync] {
            for kind in [OpKind::Write, OpKind::Sync] {
                let fault = Fault::nth(kind, SEGMENT, 1, libc::EIO);
                fenced(&fault, durability, padded);
                fenced(&fault.landed(), durability, padded);
            }
        }
    }
}

#[test]
fn a_journal_full_of_a_fenced_partition_fails_and_keeps_it() {
    let setup = Setup { direct_bytes: 1 << 20, prepare: Prepare::Fallocate, ..Setup::default() };
    let (disk, oracle, mut world, [log, other]) = rig(&setup);
    put(&mut world, &log, 500).unwrap();
    put(&mut world, &other, 500).unwrap();
    // The checkpoint waits for the first write while the journal fills; then a later one fails.
    let slow = Fault::nth(OpKind::Write, SEGMENT, 1, 0);
    disk.inject(Fault { effect: Effect::Delay { ns: 400_000_000 }, ..slow });
    disk.inject(Fault::nth(OpKind::Write, SEGMENT, 6, libc::EIO));
    let ready = log.prepare(8 << 20);
    world.run(ready).unwrap().unwrap();
    for _ in 0..80 {
        let id = world.oracle.borrow_mut().id();
        world.send(&log, id, batch(id, 1, 50_000));
        world.turn(Wait::Forever).unwrap();
    }
    world.settle().unwrap();
    assert_eq!(disk.faults_hit(), 2);
    for _ in 0..100 {
        // Taken or refused, and nobody waits for ever.
        let id = world.oracle.borrow_mut().id();
        world.send(&other, id, batch(id, 1, 50_000));
        world.settle().unwrap();
    }
    everywhere(&disk, &setup, &oracle);
}

#[test]
fn the_image_of_a_truncation_stays_until_its_block_is_flushed() {
    let setup = Setup { direct_bytes: 1 << 20, ..Setup::default() };
    let (disk, oracle, mut world, [log, other]) = rig(&setup);
    for n in 1..=4 {
        put(&mut world, &log, 700 * n).unwrap();
    }
    let slow = Fault::nth(OpKind::Truncate, SEGMENT, 1, 0);
    disk.inject(Fault { effect: Effect::Delay { ns: 60_000_000 }, ..slow });
    world.truncate(&log, 1);
    let cx = world.context(0);
    let (mut held, mut seen, mut released) = (false, disk.steps(), 0);
    while world.waiting() > 0 {
        if world.waiting() == 1 {
            let id = world.oracle.borrow_mut().id();
            world.send(&other, id, batch(id, 1, 3000));
        }
        world.turn(Wait::Forever).unwrap();
        let mut state = cx.state.borrow_mut();
        state.errand(Errand::Checkpoint);
        let mut images = 0;
        state.journal.visit_needed(u64::MAX, |reference| {
            let cut = batch(1, 1, 700).as_bytes().len() as u64;
            images += u32::from(!reference.claims && reference.end == Pos::new(cut));
        });
        let rewriting = state.logs[0].as_ref().is_some_and(|log| log.tail[0].rewriting);
        assert!(!held || images > 0 || !rewriting, "the image is gone before its block is flushed");
        held |= images > 0;
        released = released.max(state.stats.checkpoints);
        drop(state);
        if disk.steps() > seen + 20 {
            seen = disk.steps();
            everywhere(&disk, &setup, &oracle);
        }
        let done = oracle.borrow_mut().track(log.name()).cutting.is_none();
        if done {
            break;
        }
    }
    assert!(held && released > 3, "checkpoints ran while the block was rewritten");
    world.settle().unwrap();
    everywhere(&disk, &setup, &oracle);
}
