//! Where logs begin, as a checkpoint beside them says.

use super::workload::{Shared, batch, put, rig};
use super::world::{Setup, World, name};
use crate::error::{ControlError, ReadError};
use crate::handle::LogHandle;
use crate::ring::sim::{CrashPlan, SimDisk};
use crate::types::{Isolation, Offset};

const STARTS: &str = "data/log-start-offset-checkpoint";

/// Opens as it is: what a log that begins later still holds is not what the oracle knows.
fn open(disk: &SimDisk, setup: &Setup) -> (World<SimDisk>, LogHandle) {
    let mut world = World::open(disk, setup, &Shared::default()).unwrap();
    assert!(world.report.damage.is_empty(), "{:?}", world.report);
    let log = world.log(&name("topic")).unwrap();
    (world, log)
}

fn start(world: &World<SimDisk>) -> i64 {
    world.marks(&name("topic")).log_start.get()
}

fn text(disk: &SimDisk) -> String {
    String::from_utf8(disk.durable_bytes(STARTS).unwrap()).unwrap()
}

#[test]
fn a_log_begins_where_its_checkpoint_says() {
    let setup = Setup::default();
    let (disk, _, mut world, log) = rig(&setup);
    for _ in 0..5 {
        put(&mut world, &log, 700);
    }
    assert!(!disk.exists(STARTS), "a log that begins with its first segment needs no line");
    drop(world);
    disk.crash(CrashPlan::DropAll);
    disk.set_file_bytes(STARTS, b"0\n2\ngone 0 4\ntopic 0 3\n");
    for _ in 0..2 {
        let (mut world, log) = open(&disk, &setup);
        assert_eq!((start(&world), text(&disk).as_str()), (3, "0\n1\ntopic 0 3\n"));
        let below = world.run(log.read(Offset::new(2), 100, Isolation::Durable)).unwrap();
        assert!(matches!(below, Err(ReadError::OutOfRange { .. })), "{below:?}");
        let cut = world.run(log.truncate_to(Offset::new(2))).unwrap();
        assert!(matches!(cut, Err(ControlError::OutOfRange { .. })), "{cut:?}");
        drop(world);
        disk.crash(CrashPlan::DropAll);
    }
    let (mut world, log) = open(&disk, &setup);
    world.run(log.truncate_to(Offset::new(3))).unwrap().unwrap();
    assert_eq!((start(&world), world.marks(log.name()).dirty), (3, Offset::new(3)));
    drop(world);
    disk.crash(CrashPlan::DropAll);
    assert_eq!(start(&open(&disk, &setup).0), 3);
}

#[test]
fn a_log_start_above_the_end_hides_nothing_that_comes() {
    let setup = Setup::default();
    let (disk, _, mut world, log) = rig(&setup);
    for _ in 0..3 {
        put(&mut world, &log, 700);
    }
    drop(world);
    disk.crash(CrashPlan::DropAll);
    // As it is left when a torn tail was cut off below it.
    disk.set_file_bytes(STARTS, b"0\n1\ntopic 0 6\n");
    let (mut world, log) = open(&disk, &setup);
    assert_eq!((start(&world), text(&disk).as_str()), (3, "0\n1\ntopic 0 3\n"));
    for id in 100..106 {
        world.run(log.append(batch(id, 1, 700))).unwrap().unwrap();
    }
    drop(world);
    disk.crash(CrashPlan::DropAll);
    assert_eq!(start(&open(&disk, &setup).0), 3);
}

#[test]
fn a_recreated_partition_does_not_begin_where_the_old_one_did() {
    let setup = Setup::default();
    let (disk, _, mut world, log) = rig(&setup);
    for _ in 0..5 {
        put(&mut world, &log, 700);
    }
    drop(world);
    disk.crash(CrashPlan::DropAll);
    disk.set_file_bytes(STARTS, b"0\n1\ntopic 0 3\n");
    let (mut world, _) = open(&disk, &setup);
    world.delete(&name("topic"));
    world.settle().unwrap();
    let log = world.log(&name("topic")).unwrap();
    for id in 100..105 {
        world.run(log.append(batch(id, 1, 700))).unwrap().unwrap();
    }
    drop(world);
    disk.crash(CrashPlan::DropAll);
    assert_eq!(start(&open(&disk, &setup).0), 0);
}
