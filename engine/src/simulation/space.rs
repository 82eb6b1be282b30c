//! A disk that is full when a small file is to be written: indexes, seals, checkpoints. Nothing that was asked of the
//! partition depends on them, so that it goes on, and they are written once there is space.

use std::cell::RefCell;
use std::rc::Rc;

use super::oracle::End;
use super::workload::{batch, plans, put, reopen, rig, survives};
use super::world::{Setup, World, name};
use crate::error::{AppendError, ControlError};
use crate::ring::Wait;
use crate::ring::sim::{CrashPlan, Fault, OpKind, SimDisk, When};
use crate::types::Offset;

/// Small files find no space.
fn fill(disk: &SimDisk) {
    disk.inject(Fault::nth(OpKind::Write, ".tmp", 1, libc::ENOSPC).when(When::From(1)));
}

fn pass(world: &mut World<SimDisk>, ms: u64) {
    let until = world.clock_ns() + ms * 1_000_000;
    while world.clock_ns() < until {
        world.turn(Wait::Forever).unwrap();
    }
}

fn tail(world: &World<SimDisk>) -> usize {
    world.context(0).state.borrow().logs[0].as_ref().unwrap().tail.len()
}

#[test]
fn a_full_disk_delays_a_seal_and_fences_nothing() {
    let setup = Setup { segment_bytes: 64 << 10, ..Setup::default() };
    let (disk, oracle, mut world, log) = rig(&setup);
    fill(&disk);
    for _ in 0..10 {
        put(&mut world, &log, 20_000);
    }
    pass(&mut world, 900);
    assert!(tail(&world) > 3 && disk.faults_hit() > 3, "nothing could be sealed");
    assert!(!disk.files().iter().any(|file| file.ends_with(".seal")));
    assert!(disk.files().iter().filter(|file| file.ends_with(".tmp")).count() <= 4);
    for plan in plans(7) {
        survives(&disk, &setup, &oracle, plan);
    }
    disk.clear_faults();
    pass(&mut world, 900);
    assert_eq!(tail(&world), 1, "{}", world.describe());
    let seals = disk.files().iter().filter(|file| file.ends_with(".seal")).count();
    assert_eq!(seals, 3, "{:?}", disk.files());
    put(&mut world, &log, 20_000);
    survives(&disk, &setup, &oracle, CrashPlan::DropAll);
    assert_eq!(world.close().unwrap(), Ok(()));
}

#[test]
fn a_full_disk_delays_a_recovery_point_and_fences_nothing() {
    let setup = Setup::default();
    let (disk, oracle, mut world, log) = rig(&setup);
    fill(&disk);
    for _ in 0..70 {
        put(&mut world, &log, 600_000);
    }
    assert!(disk.faults_hit() > 0, "the recovery point was due");
    disk.clear_faults();
    // The next one comes a second later at the earliest.
    pass(&mut world, 1_000);
    for _ in 0..20 {
        put(&mut world, &log, 600_000);
    }
    pass(&mut world, 100);
    let points = disk.file_bytes("data/recovery-point-offset-checkpoint").unwrap();
    let points = String::from_utf8(points).unwrap();
    assert!(points.starts_with("0\n1\ntopic 0 ") && !points.ends_with(" 0\n"), "{points}");
    survives(&disk, &setup, &oracle, CrashPlan::DropAll);
}

#[test]
fn a_full_disk_refuses_a_truncation_and_fences_nothing() {
    let setup = Setup::default();
    let (disk, oracle, mut world, log) = rig(&setup);
    for _ in 0..4 {
        put(&mut world, &log, 700);
    }
    fill(&disk);
    let refused = world.run(log.truncate_to(Offset::new(2))).unwrap();
    assert!(matches!(refused, Err(ControlError::Disk(fault)) if fault.is_full()), "{refused:?}");
    put(&mut world, &log, 700);
    assert_eq!(world.marks(log.name()).dirty, Offset::new(5));
    for plan in plans(3) {
        survives(&disk, &setup, &oracle, plan);
    }
    disk.clear_faults();
    world.truncate(&log, 2);
    world.settle().unwrap();
    put(&mut world, &log, 900);
    assert_eq!(world.marks(log.name()).dirty, Offset::new(3));
    survives(&disk, &setup, &oracle, CrashPlan::DropAll);
}

#[test]
fn a_partition_is_deleted_from_a_full_disk() {
    let setup = Setup { segment_bytes: 64 << 10, ..Setup::default() };
    let (disk, oracle, mut world, log) = rig(&setup);
    for _ in 0..3 {
        put(&mut world, &log, 20_000);
    }
    fill(&disk);
    disk.set_capacity_bytes(disk.used_bytes());
    loop {
        let id = world.oracle.borrow_mut().id();
        match world.append(&log, id, batch(id, 1, 20_000)).unwrap() {
            Ok(_) => {}
            Err(AppendError::DiskFull) => break,
            other => panic!("{other:?}"),
        }
    }
    world.delete(log.name());
    world.settle().unwrap();
    assert!(!oracle.borrow_mut().track(&name("topic")).made, "the deletion was acknowledged");
    pass(&mut world, 100);
    assert!(!disk.files().iter().any(|file| file.contains("topic")), "{:?}", disk.files());
}

#[test]
fn a_stale_epoch_is_refused_after_a_crash_as_before() {
    let setup = Setup { segment_bytes: 64 << 10, ..Setup::default() };
    let (disk, oracle, mut world, log) = rig(&setup);
    let at = |world: &mut World<SimDisk>, epoch: i32| {
        let next = world.marks(&name("topic")).dirty.get();
        let id = world.oracle.borrow_mut().id();
        assert!(world.send_at(&log, id, batch(id, 1, 20_000), Some((next, epoch))));
        world.settle().unwrap();
    };
    for epoch in [1, 1, 2, 5, 5, 7, 7, 8] {
        at(&mut world, epoch);
    }
    world.truncate(&log, 6);
    world.settle().unwrap();
    // The epoch goes on without being named.
    put(&mut world, &log, 20_000);
    at(&mut world, 9);
    let epochs = |world: &World<SimDisk>| {
        world.context(0).state.borrow().logs[0].as_ref().unwrap().epochs.clone()
    };
    let starts = [(1, 0), (2, 2), (5, 3), (7, 5), (8, 6), (9, 7)];
    let starts = starts.map(|(epoch, start)| (epoch, Offset::new(start)));
    assert_eq!(epochs(&world), starts);
    for sealed in [false, true] {
        if sealed {
            // Recovery does not scan what is sealed.
            pass(&mut world, 500);
            assert_eq!(tail(&world), 1);
        }
        for plan in plans(disk.steps()) {
            let fork = disk.fork();
            fork.crash(plan);
            let oracle = Rc::new(RefCell::new(oracle.borrow().clone()));
            let mut again = reopen(&fork, &setup, &oracle, End::Power);
            assert_eq!(epochs(&again), starts, "{plan:?}");
            let log = again.log(&name("topic")).unwrap();
            let stale = again.run(log.append_at(Offset::new(8), 8, batch(99, 1, 50))).unwrap();
            let current = 9;
            assert_eq!(stale.err(), Some(AppendError::StaleEpoch { current, asked: 8 }));
            let next = again.run(log.append_at(Offset::new(8), 9, batch(99, 1, 50))).unwrap();
            assert!(next.is_ok(), "{next:?}");
        }
    }
}
