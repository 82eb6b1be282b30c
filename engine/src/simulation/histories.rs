//! Histories that have a name, each written out.

use std::cell::RefCell;
use std::rc::Rc;

use super::oracle::End;
use super::workload::{Shared, batch, plans, reopen, rig, survives};
use super::world::{Setup, World, name, recover_on};
use crate::ring::Wait;
use crate::ring::sim::{CrashPlan, Fault, OpKind, SimDisk};
use crate::types::{FlushPolicy, Offset};

fn everywhere(disk: &SimDisk, setup: &Setup, oracle: &Shared) {
    for plan in plans(disk.steps()) {
        survives(disk, setup, oracle, plan);
    }
}

/// Turns until every client was told, with power cuts of copies after every step.
fn step(world: &mut World<SimDisk>, disk: &SimDisk, setup: &Setup) {
    let mut seen = disk.steps();
    while world.waiting() > 0 {
        world.turn(Wait::Forever).unwrap();
        if disk.steps() > seen {
            seen = disk.steps();
            let oracle = world.oracle.clone();
            everywhere(disk, setup, &oracle);
        }
    }
}

#[test]
fn a_direct_write_behind_a_journaled_block_survives() {
    let setup = Setup { direct_bytes: 8192, ..Setup::default() };
    let (disk, _, mut world, log) = rig(&setup);
    assert!(world.send(&log, 1, batch(1, 1, 700)));
    step(&mut world, &disk, &setup);
    assert!(world.send(&log, 2, batch(2, 1, 50_000)));
    step(&mut world, &disk, &setup);
}

#[test]
fn what_follows_a_truncation_is_not_mixed_with_what_was_cut() {
    let setup = Setup { direct_bytes: 8192, ..Setup::default() };
    let (disk, _, mut world, log) = rig(&setup);
    for id in 1..=3 {
        world.append(&log, id, batch(id, 1, 700)).unwrap().unwrap();
    }
    world.truncate(&log, 1);
    step(&mut world, &disk, &setup);
    assert!(world.send(&log, 4, batch(4, 1, 50_000)));
    step(&mut world, &disk, &setup);
}

#[test]
fn a_torn_group_and_its_landed_successor_are_void_for_good() {
    let setup = Setup { direct_bytes: 1 << 20, ..Setup::default() };
    let (disk, oracle, mut world, log) = rig(&setup);
    world.append(&log, 1, batch(1, 1, 700)).unwrap().unwrap();
    for id in 2..=9 {
        assert!(world.send(&log, id, batch(id, 1, 60_000)));
    }
    let mut seen = disk.steps();
    while world.waiting() > 0 {
        world.turn(Wait::Forever).unwrap();
        if disk.steps() == seen {
            continue;
        }
        seen = disk.steps();
        for plan in plans(seen) {
            let (fork, oracle) = survives(&disk, &setup, &oracle, plan);
            let mut again = reopen(&fork, &setup, &oracle, End::Power);
            let log = again.log(&name("topic")).unwrap();
            again.append(&log, 100, batch(100, 1, 900)).unwrap().unwrap();
            survives(&fork, &setup, &oracle, CrashPlan::DropAll);
        }
    }
}

#[test]
fn a_crash_during_recovery_is_harmless() {
    let setup = Setup { direct_bytes: 16_384, segment_bytes: 128 << 10, ..Setup::default() };
    let (disk, oracle, mut world, log) = rig(&setup);
    for id in 1..=12 {
        assert!(world.send(&log, id, batch(id, 1, 9000 * (id as usize % 5) + 100)));
    }
    for _ in 0..45 {
        world.turn(Wait::Forever).unwrap();
    }
    let base = disk.fork();
    base.crash(CrashPlan::Torn(7));
    crash_in_recovery(&base, &setup, &oracle, 2);
}

fn crash_in_recovery(base: &SimDisk, setup: &Setup, oracle: &Shared, depth: u32) {
    let stride = if depth == 1 { 9 } else { 1 };
    for step in (1..).step_by(stride) {
        let fork = base.fork();
        fork.crash(CrashPlan::DropAll);
        fork.crash_at_step(fork.steps() + step);
        let finished = recover_on(&fork, setup).is_ok();
        fork.crash(CrashPlan::Torn(step));
        if depth > 1 && step % 6 == 0 {
            crash_in_recovery(&fork, setup, oracle, depth - 1);
        }
        let oracle = Rc::new(RefCell::new(oracle.borrow().clone()));
        reopen(&fork, setup, &oracle, End::Power);
        if finished {
            return;
        }
    }
}

#[test]
fn recovery_ends_at_the_last_whole_batch_wherever_a_file_is_cut() {
    let setup = Setup::default();
    let (disk, oracle, mut world, log) = rig(&setup);
    for id in 1..=4 {
        world.append(&log, id, batch(id, 1, 200)).unwrap().unwrap();
    }
    assert_eq!(world.close().unwrap(), Ok(()));
    let path = "data/topic-0/00000000000000000000.log";
    let whole = disk.file_bytes(path).unwrap();
    let ends: Vec<usize> =
        oracle.borrow_mut().track(&name("topic")).sent.iter().fold(vec![0], |mut ends, sent| {
            ends.push(ends[ends.len() - 1] + sent.bytes.len());
            ends
        });
    assert_eq!(ends[4], whole.len());
    disk.set_file_bytes("data/recovery-point-offset-checkpoint", b"0\n0\n");
    for cut in 0..whole.len() {
        let fork = disk.fork();
        fork.kill(0);
        fork.set_file_bytes(path, &whole[..cut]);
        // As after a crash without a journal: the clean mark would make it corruption.
        fork.set_file_bytes("data/journal-0", &vec![0; 4 << 20]);
        let mut serial = fork.serial();
        drop(unlink(&mut serial));
        let opened = recover_on(&fork, &setup).unwrap().unwrap();
        let kept = ends.iter().filter(|end| **end <= cut).count() as i64 - 1;
        assert_eq!(opened.partitions[0].next, Offset::new(kept), "cut at {cut}");
        assert!(opened.report.damage.is_empty());
    }
}

fn unlink(disk: &mut crate::ring::sim::SerialDisk) -> std::io::Result<()> {
    use crate::command::{Disk, Op};
    let path = "data/ringmain.clean".into();
    crate::handle::block_on(disk.run(Op::Unlink { path })).map(drop)
}

#[test]
fn a_failed_write_is_never_acknowledged_and_others_go_on() {
    for nth in 1..12 {
        for landed in [false, true] {
            let setup = Setup { direct_bytes: 8192, ..Setup::default() };
            let (disk, oracle, mut world, log) = rig(&setup);
            let other = world.log(&name("zother")).unwrap();
            let fault =
                Fault::nth(OpKind::Write, "topic-0/00000000000000000000.log", nth, libc::EIO);
            disk.inject(if landed { fault.landed() } else { fault });
            for id in 1..=30 {
                world.send(&log, 2 * id, batch(2 * id, 1, 20_000));
                world.send(&other, 2 * id + 1, batch(2 * id + 1, 1, 500));
                world.settle().unwrap();
            }
            assert!(world.marks(&name("zother")).durable == Offset::new(30), "others go on");
            drop(world);
            disk.clear_faults();
            everywhere(&disk, &setup, &oracle);
        }
    }
}

#[test]
fn a_failed_journal_fences_group_appends_alone() {
    for nth in 1..6 {
        let setup = Setup::default();
        let (disk, oracle, mut world, log) = rig(&setup);
        let relaxed = world.log(&name("zother")).unwrap();
        let switch = relaxed.set_flush_policy(FlushPolicy::Os);
        world.run(switch).unwrap().unwrap();
        disk.inject(Fault::nth(OpKind::Write, "journal-0", nth, libc::EIO).landed());
        for id in 1..=10 {
            world.send(&log, 2 * id, batch(2 * id, 1, 500));
            world.send(&relaxed, 2 * id + 1, batch(2 * id + 1, 1, 500));
            world.settle().unwrap();
        }
        assert_eq!(world.marks(&name("zother")).dirty, Offset::new(10), "os goes on");
        drop(world);
        disk.clear_faults();
        everywhere(&disk, &setup, &oracle);
    }
}

#[test]
fn an_idle_shard_does_nothing() {
    let setup = Setup::default();
    let (disk, _, mut world, log) = rig(&setup);
    world.append(&log, 1, batch(1, 1, 500)).unwrap().unwrap();
    // Until the journal was written back for its age.
    while world.clock_ns() < 20_000_000_000 {
        world.turn(Wait::Forever).unwrap();
    }
    let steps = disk.steps();
    while world.clock_ns() < 60_000_000_000 {
        world.turn(Wait::Forever).unwrap();
    }
    assert_eq!(disk.steps(), steps, "nothing is asked of the disk");
}
