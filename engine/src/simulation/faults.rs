//! Damage, failed operations and want of space or memory, each told truthfully.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;

use super::oracle::{End, Oracle};
use super::workload::{batch, disk, plans, reopen, survives};
use super::world::{Setup, World, name};
use crate::batch::{Batch, BatchBuilder};
use crate::command::{Disk, Op};
use crate::error::AppendError;
use crate::format::batch_header::set_base_offset;
use crate::handle::{LogHandle, block_on};
use crate::limits::TORN_WINDOW_BYTES;
use crate::recovery::Cut;
use crate::ring::Wait;
use crate::ring::sim::{CrashPlan, Effect, Fault, OpKind, SimDisk, SimOptions, When};
use crate::types::{Durability, FlushPolicy, Offset, Prepare};

type Shared = Rc<RefCell<Oracle>>;

const SEGMENT: &str = "data/topic-0/00000000000000000000.log";

fn rig(setup: &Setup) -> (SimDisk, Shared, World<SimDisk>, LogHandle) {
    let disk = disk(SimOptions { completions_per_enter: 1, ..SimOptions::default() });
    let oracle = Shared::default();
    let mut world = reopen(&disk, setup, &oracle, End::Power);
    let log = world.log(&name("topic")).unwrap();
    (disk, oracle, world, log)
}

fn everywhere(disk: &SimDisk, setup: &Setup, oracle: &Shared) {
    for plan in plans(disk.steps()) {
        survives(disk, setup, oracle, plan);
    }
}

/// Closes, and leaves what a crash without journals leaves: segments, and nothing that speaks for them.
fn close_without_marks(disk: &SimDisk, world: World<SimDisk>) {
    assert_eq!(world.close().unwrap(), Ok(()));
    disk.set_file_bytes("data/recovery-point-offset-checkpoint", b"0\n0\n");
    disk.set_file_bytes("data/journal-0", &vec![0; 4 << 20]);
    let serial = disk.serial();
    for file in disk.files() {
        let derived = ["index", "seal"].iter().any(|end| file.ends_with(end));
        if file.ends_with("ringmain.clean") || derived {
            block_on(serial.run(Op::Unlink { path: file.into() })).unwrap();
        }
    }
    drop(serial);
    disk.crash(CrashPlan::KeepAll);
}


/// Damage took what was acknowledged behind `next`.
fn give_up(oracle: &Shared, next: i64) {
    let mut oracle = oracle.borrow_mut();
    let track = oracle.track(&name("topic"));
    (track.durable, track.acked) = (next, next);
}

/// Eight batches; the fourth is damaged, and `beyond` bytes that are no zeros lie behind the third.
fn damaged(beyond: u64) -> (SimDisk, Setup, Shared, u64) {
    let setup = Setup::default();
    let (disk, oracle, mut world, log) = rig(&setup);
    let other = world.log(&name("zother")).unwrap();
    for id in 1..=8 {
        world.append(&log, id, batch(id, 1, 100_000)).unwrap().unwrap();
    }
    world.append(&other, 100, batch(100, 1, 5000)).unwrap().unwrap();
    close_without_marks(&disk, world);
    let start = batch(1, 1, 100_000).as_bytes().len() * 3;
    let mut bytes = disk.file_bytes(SEGMENT).unwrap();
    let filler = batch(9, 1, 1 << 20).as_bytes().to_vec();
    let target = start + beyond as usize;
    for offset in 8.. {
        if bytes.len() + filler.len() > target {
            break;
        }
        let at = bytes.len();
        bytes.extend_from_slice(&filler);
        set_base_offset(&mut bytes[at..], Offset::new(offset));
    }
    bytes.resize(target, 0xaa);
    bytes[start + 5000] ^= 1;
    disk.set_file_bytes(SEGMENT, &bytes);
    (disk, setup, oracle, start as u64)
}

#[test]
fn damage_beyond_the_window_is_corruption() {
    let (disk, setup, oracle, start) = damaged(TORN_WINDOW_BYTES + 1);
    let (before, files) = (disk.file_bytes(SEGMENT).unwrap(), disk.files());
    give_up(&oracle, 3);
    for id in [200, 202] {
        let mut world = World::open(&disk, &setup, &oracle).unwrap();
        let [damage] = &world.report.damage[..] else { panic!("{:?}", world.report) };
        assert_eq!((damage.path.clone(), damage.pos), (PathBuf::from(SEGMENT), start));
        assert_eq!(damage.offset, Offset::new(3));
        assert_eq!(world.report.cuts, []);
        world.verify(End::Power).unwrap();
        let (log, other) = (world.log(&name("topic")).unwrap(), world.log(&name("zother")));
        assert_eq!(world.marks(&name("topic")).dirty, Offset::new(3));
        let refused = world.append(&log, id, batch(id, 1, 100)).unwrap();
        assert_eq!(refused, Err(AppendError::Damaged));
        world.append(&other.unwrap(), id + 1, batch(id + 1, 1, 700)).unwrap().unwrap();
        drop(world);
        disk.crash(CrashPlan::DropAll);
        assert!(disk.file_bytes(SEGMENT).unwrap() == before, "nothing is deleted");
        assert!(files.iter().all(|file| disk.exists(file)), "{files:?} {:?}", disk.files());
    }
}

#[test]
fn a_torn_tail_is_cut_and_appends_go_on() {
    let (disk, setup, oracle, pos) = damaged(TORN_WINDOW_BYTES);
    give_up(&oracle, 3);
    let mut world = reopen(&disk, &setup, &oracle, End::Power);
    let cut = Cut { path: SEGMENT.into(), pos, bytes: TORN_WINDOW_BYTES };
    assert_eq!(world.report.cuts, [cut]);
    let log = world.log(&name("topic")).unwrap();
    for id in 200..203 {
        world.append(&log, id, batch(id, 1, 70_000)).unwrap().unwrap();
    }
    assert_eq!(world.marks(&name("topic")).durable, Offset::new(6));
    everywhere(&disk, &setup, &oracle);
}

#[test]
fn a_torn_tail_voids_later_segments() {
    let setup = Setup { segment_bytes: 64 << 10, ..Setup::default() };
    let (disk, oracle, mut world, log) = rig(&setup);
    for id in 1..=9 {
        world.append(&log, id, batch(id, 1, 20_000)).unwrap().unwrap();
    }
    close_without_marks(&disk, world);
    let whole = disk.file_bytes(SEGMENT).unwrap();
    let each = batch(1, 1, 20_000).as_bytes().len();
    assert_eq!(whole.len(), 3 * each, "three batches a segment");
    let later = [3, 6].map(|base| format!("data/topic-0/{base:020}.log"));
    for (cut, torn) in [(3 * each - 1, false), (2 * each + 1, false), (2 * each, true)] {
        let fork = disk.fork();
        fork.kill(0);
        let mut bytes = whole[..cut].to_vec();
        bytes.resize(if torn { 3 * each } else { cut }, 0);
        fork.set_file_bytes(SEGMENT, &bytes);
        let oracle = Rc::new(RefCell::new(oracle.borrow().clone()));
        give_up(&oracle, 2);
        let mut world = reopen(&fork, &setup, &oracle, End::Power);
        assert_eq!(world.marks(&name("topic")).dirty, Offset::new(2), "cut at {cut}");
        for path in &later {
            assert!(!fork.exists(path) && fork.exists(format!("{path}.void")), "{path}");
        }
        survives(&fork, &setup, &oracle, CrashPlan::DropAll);
        let log = world.log(&name("topic")).unwrap();
        for id in 100..106 {
            // Segments with the names of the void ones are made again.
            world.append(&log, id, batch(id, 1, 20_000)).unwrap().unwrap();
            everywhere(&fork, &setup, &oracle);
        }
    }
}
