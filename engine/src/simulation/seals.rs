//! Sealed segments that are not what they were.

use super::workload::{Shared, batch, put, rig};
use super::world::{Setup, World, name};
use crate::command::{Disk, Op};
use crate::error::AppendError;
use crate::format::seal::Seal;
use crate::handle::block_on;
use crate::ring::Wait;
use crate::ring::sim::{CrashPlan, SimDisk};
use crate::types::{Incarnation, Isolation, Offset};

fn segment(base: i64, end: &str) -> String {
    format!("data/topic-0/{base:020}.{end}")
}

/// A clean directory of five sealed segments of three batches, and an active one.
fn sealed() -> (SimDisk, Setup, Shared) {
    let setup = Setup { segment_bytes: 64 << 10, ..Setup::default() };
    let (disk, oracle, mut world, log) = rig(&setup);
    for _ in 0..16 {
        put(&mut world, &log, 20_000);
    }
    assert_eq!(world.close().unwrap(), Ok(()));
    assert!(disk.exists(segment(12, "seal")) && !disk.exists(segment(15, "seal")));
    disk.crash(CrashPlan::KeepAll);
    (disk, setup, oracle)
}

/// Opens a copy of the disk after `harm`: the partition's damage, and whether the last batch can still be read.
fn harmed(harm: impl FnOnce(&SimDisk)) -> Option<(String, u64, i64)> {
    let (disk, setup, _) = sealed();
    harm(&disk);
    let mut world = World::open(&disk, &setup, &Shared::default()).unwrap();
    let log = world.log(&name("topic")).unwrap();
    let last = world.run(log.read(Offset::new(15), 100, Isolation::Durable)).unwrap();
    assert!(!last.unwrap().is_empty(), "the rest is readable");
    let append = world.run(log.append(batch(99, 1, 10))).unwrap();
    let damage = world.report.damage.first();
    assert_eq!(append.err(), damage.map(|_| AppendError::Damaged));
    damage.map(|d| (d.path.to_string_lossy().into_owned(), d.pos, d.offset.get()))
}

fn bytes(disk: &SimDisk, base: i64, end: &str) -> Vec<u8> {
    disk.file_bytes(segment(base, end)).unwrap()
}

#[test]
fn a_sealed_segment_that_is_cut_replaced_or_missing_is_found_when_opened() {
    assert_eq!(harmed(|_| {}), None);
    let at = |base: i64, pos| Some((segment(base, "log"), pos, base));
    let whole = |disk: &SimDisk, base| bytes(disk, base, "log");
    // Cut between two batches, where nothing else speaks of what is missing.
    let batch_bytes = batch(1, 1, 20_000).as_bytes().len();
    let cut = harmed(|disk| {
        disk.set_file_bytes(segment(3, "log"), &whole(disk, 3)[..2 * batch_bytes]);
    });
    assert_eq!(cut, at(3, 2 * batch_bytes as u64));
    let grown = harmed(|disk| {
        disk.set_file_bytes(segment(6, "log"), &[whole(disk, 6), vec![0; 10]].concat());
    });
    assert_eq!(grown, at(6, 3 * batch_bytes as u64));
    let misplaced = harmed(|disk| {
        for end in ["log", "seal", "index"] {
            disk.set_file_bytes(segment(6, end), &bytes(disk, 3, end));
        }
    });
    assert_eq!(misplaced, at(6, 0));
    let missing = harmed(|disk| {
        let serial = disk.serial();
        let path = segment(6, "log").into();
        let op = Op::Unlink { path };
        block_on(serial.run(op)).unwrap();
    });
    assert_eq!(missing, at(3, 3 * batch_bytes as u64));
    let of_another_life = harmed(|disk| {
        let seal = Seal::decode(&bytes(disk, 9, "seal")).unwrap();
        let incarnation = Incarnation(7);
        let seal = Seal { incarnation, ..seal };
        disk.set_file_bytes(segment(9, "seal"), &seal.encode());
    });
    assert_eq!(of_another_life, at(9, 0));
}

#[test]
fn a_segment_without_a_seal_is_checked_and_sealed() {
    let (disk, setup, oracle) = sealed();
    let was = bytes(&disk, 3, "seal");
    for (base, junk) in [(3, &b"junk"[..]), (9, &[])] {
        disk.set_file_bytes(segment(base, "seal"), junk);
    }
    // Rot in one of them: it is not sealed as it is.
    disk.corrupt(segment(9, "log"), 30_000, 1);
    let mut world = World::open(&disk, &setup, &oracle).unwrap();
    let until = world.clock_ns() + 500_000_000;
    while world.clock_ns() < until {
        world.turn(Wait::Forever).unwrap();
    }
    assert_eq!(bytes(&disk, 3, "seal"), was);
    assert!(bytes(&disk, 9, "seal").is_empty(), "damage is not sealed");
}
