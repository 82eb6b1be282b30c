//! Sealed segments that are not what they were.

use super::workload::{Shared, batch, put, rig};
use super::world::{Setup, World, name};
use crate::batch::batches;
use crate::command::{Disk, Op};
use crate::error::{Alteration, ReadError};
use crate::format::seal::Seal;
use crate::handle::block_on;
use crate::ring::Wait;
use crate::ring::sim::{CrashPlan, SimDisk};
use crate::shard::fetch::Fetch;
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

/// Opens a copy of the disk after `harm`: the segment that can not be read, and what became of it.
fn harmed(harm: impl FnOnce(&SimDisk)) -> Option<(i64, Alteration)> {
    let (disk, setup, _) = sealed();
    harm(&disk);
    let mut world = World::open(&disk, &setup, &Shared::default()).unwrap();
    assert!(world.report.damage.is_empty(), "nothing is read when it is opened");
    let log = world.log(&name("topic")).unwrap();
    world.run(log.append(batch(99, 1, 10))).unwrap().unwrap();
    let mut altered = None;
    for offset in 0..17 {
        let read = world.run(log.read(Offset::new(offset), 100, Isolation::Durable)).unwrap();
        match read {
            Ok(bytes) => {
                let found = batches(&bytes).next().unwrap().unwrap();
                assert!((found.base_offset()..=found.last_offset()).contains(&Offset::new(offset)));
            }
            Err(ReadError::Altered { segment, what }) => {
                assert!(altered.is_none_or(|was| was == (segment.get(), what)), "one of them");
                assert_eq!(segment.get(), offset / 3 * 3, "the rest is readable");
                altered = Some((segment.get(), what));
            }
            Err(error) => panic!("{error}"),
        }
        let fetch = Fetch { max_bytes: 1, ..Fetch::from(Offset::new(offset)) };
        match world.run(log.fetch(fetch)).unwrap() {
            Ok(fetched) => {
                let found = batches(&fetched.bytes).next().unwrap().unwrap();
                assert!((found.base_offset()..=found.last_offset()).contains(&Offset::new(offset)));
            }
            Err(ReadError::Altered { segment, .. }) => {
                assert_eq!(Some(segment.get()), altered.map(|was| was.0), "as a read says");
            }
            Err(error) => panic!("{error}"),
        }
    }
    altered
}

fn bytes(disk: &SimDisk, base: i64, end: &str) -> Vec<u8> {
    disk.file_bytes(segment(base, end)).unwrap()
}

#[test]
fn a_sealed_segment_that_is_cut_swapped_or_missing_is_found_at_its_first_use() {
    assert_eq!(harmed(|_| {}), None);
    let whole = |disk: &SimDisk, base| bytes(disk, base, "log");
    // Cut between two batches, where nothing else speaks of what is missing.
    let batch_bytes = batch(1, 1, 20_000).as_bytes().len();
    let sealed = 3 * batch_bytes as u64;
    let cut = harmed(|disk| {
        disk.set_file_bytes(segment(3, "log"), &whole(disk, 3)[..2 * batch_bytes]);
    });
    assert_eq!(cut, Some((3, Alteration::Length { found: sealed / 3 * 2, sealed })));
    let grown = harmed(|disk| {
        disk.set_file_bytes(segment(6, "log"), &[whole(disk, 6), vec![0; 10]].concat());
    });
    assert_eq!(grown, Some((6, Alteration::Length { found: sealed + 10, sealed })));
    let misplaced = harmed(|disk| {
        for end in ["log", "seal", "index"] {
            disk.set_file_bytes(segment(6, end), &bytes(disk, 3, end));
        }
    });
    assert_eq!(misplaced, Some((6, Alteration::Misplaced { sealed: Offset::new(3) })));
    // Of the same length, and with its own seal: what its batches say is all that speaks against it.
    for other in [3, 9] {
        let swapped = harmed(|disk| disk.set_file_bytes(segment(6, "log"), &whole(disk, other)));
        assert_eq!(swapped, Some((6, Alteration::Foreign { pos: 0 })), "with that of {other}");
    }
    let of_another_life = harmed(|disk| {
        let seal = Seal::decode(&bytes(disk, 9, "seal")).unwrap();
        let incarnation = Incarnation(7);
        let seal = Seal { incarnation, ..seal };
        disk.set_file_bytes(segment(9, "seal"), &seal.encode());
    });
    assert_eq!(of_another_life, Some((9, Alteration::OtherLife)));
}

#[test]
fn a_missing_segment_is_told_by_the_one_before() {
    let (disk, setup, _) = sealed();
    let path = segment(6, "log").into();
    block_on(disk.serial().run(Op::Unlink { path })).unwrap();
    let mut world = World::open(&disk, &setup, &Shared::default()).unwrap();
    let log = world.log(&name("topic")).unwrap();
    let what = Alteration::NextMissing { next: Offset::new(6) };
    for offset in [3, 5, 7] {
        let read = world.run(log.read(Offset::new(offset), 100, Isolation::Durable)).unwrap();
        assert_eq!(read, Err(ReadError::Altered { segment: Offset::new(3), what }));
    }
    for offset in [0, 9, 15] {
        let read = world.run(log.read(Offset::new(offset), 100, Isolation::Durable)).unwrap();
        assert!(!read.unwrap().is_empty(), "the rest is readable");
    }
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
    let log = world.log(&name("topic")).unwrap();
    for offset in [3, 9] {
        let read = world.run(log.read(Offset::new(offset), 100, Isolation::Durable)).unwrap();
        assert!(!read.unwrap().is_empty(), "what is intact is read without a seal");
    }
    let until = world.clock_ns() + 500_000_000;
    while world.clock_ns() < until {
        world.turn(Wait::Forever).unwrap();
    }
    assert_eq!(bytes(&disk, 3, "seal"), was);
    assert!(bytes(&disk, 9, "seal").is_empty(), "damage is not sealed");
}

#[test]
fn rot_in_a_sealed_segment_is_no_torn_tail() {
    // The journal has no more of a batch than its rest, and mends nothing.
    let setup = Setup { segment_bytes: 64 << 10, direct_bytes: 4096, ..Setup::default() };
    let (disk, _, mut world, log) = rig(&setup);
    for _ in 0..16 {
        put(&mut world, &log, 20_000);
    }
    // The last one of all is sealed, too.
    world.run(log.roll()).unwrap().unwrap();
    while (0..6).any(|nth| !disk.exists(segment(3 * nth, "seal"))) {
        world.turn(Wait::Forever).unwrap();
    }
    disk.crash(CrashPlan::KeepAll);
    // Whole, all of it is there, however much of it is looked at.
    let look = |harm: &dyn Fn(&SimDisk)| {
        let fork = disk.fork();
        fork.crash(CrashPlan::KeepAll);
        fork.set_file_bytes("data/recovery-point-offset-checkpoint", b"junk");
        harm(&fork);
        fork.crash(CrashPlan::KeepAll);
        let (files, bytes) = (fork.files(), fork.file_bytes(segment(15, "log")));
        let mut world = World::open(&fork, &setup, &Shared::default()).unwrap();
        let log = world.log(&name("topic")).unwrap();
        let end = world.marks(log.name()).dirty.get();
        for offset in 0..end {
            let read = world.run(log.read(Offset::new(offset), 1, Isolation::Durable)).unwrap();
            assert!(!read.unwrap().is_empty(), "{offset}");
        }
        assert_eq!(world.report.cuts, []);
        let log_files = |file: &&String| file.ends_with(".log") || file.ends_with(".seal");
        let missing = files.iter().filter(log_files).find(|file| !fork.exists(file));
        assert_eq!(missing, None, "nothing is set aside");
        assert_eq!(fork.file_bytes(segment(15, "log")), bytes, "nothing is cut");
        let damage: Vec<_> =
            world.report.damage.iter().map(|d| (d.path.clone(), d.offset.get())).collect();
        (end, damage)
    };
    assert_eq!(look(&|_| {}), (16, vec![]));
    for (base, pos, offset) in [(0, 100, 0), (6, 30_000, 7), (12, 59_000, 14), (15, 300, 15)] {
        let harmed = look(&|fork| fork.corrupt(segment(base, "log"), pos, 1));
        assert_eq!(harmed, (offset, vec![(segment(base, "log").into(), offset)]), "{base}");
    }
    // Cut between two batches: only the seal speaks of what is missing.
    let batch_bytes = batch(1, 1, 20_000).as_bytes().len();
    let cut = look(&|fork| {
        let whole = bytes(fork, 9, "log");
        fork.set_file_bytes(segment(9, "log"), &whole[..2 * batch_bytes]);
    });
    assert_eq!(cut, (11, vec![(segment(9, "log").into(), 11)]));
    let emptied = look(&|fork| fork.set_file_bytes(segment(15, "log"), &[]));
    assert_eq!(emptied, (15, vec![(segment(15, "log").into(), 15)]));
    // Without a seal that can be read it is said all the same.
    let both = look(&|fork| {
        fork.set_file_bytes(segment(6, "seal"), b"junk");
        fork.corrupt(segment(6, "log"), 30_000, 1);
    });
    assert_eq!(both, (7, vec![(segment(6, "log").into(), 7)]));
}
