//! Damage, failed operations and want of space or memory, each told truthfully.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::rc::Rc;

use super::oracle::End;
use super::workload::{Shared, batch, plans, reopen, rig, survives};
use super::world::{Setup, World, name, recover_on};
use crate::batch::{Batch, BatchBuilder};
use crate::buffers::Arena;
use crate::command::{Disk, Op};
use crate::defects::{self, Defect};
use crate::error::AppendError;
use crate::format::batch_header::set_base_offset;
use crate::handle::{LogHandle, block_on};
use crate::journal::group::{Entry, FILE_HEADER_BLOCKS, Group, GroupHeader, GroupWriter};
use crate::limits::TORN_WINDOW_BYTES;
use crate::recovery::Cut;
use crate::ring::Wait;
use crate::ring::sim::{CrashPlan, Effect, Fault, OpKind, SimDisk, When};
use crate::types::{Durability, FlushPolicy, Offset, Pos, Prepare};

const SEGMENT: &str = "data/topic-0/00000000000000000000.log";

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

/// A record whose value holds `inner` from byte `pad` on.
fn embedding(id: u64, pad: usize, inner: &[u8]) -> Batch {
    let mut value = vec![0x55; pad];
    value.extend_from_slice(inner);
    value.resize(value.len() + 3000, 0x66);
    let mut builder = BatchBuilder::new();
    builder.add(id as i64, None, Some(&value)).expect("fits");
    builder.build().expect("a batch")
}

fn find(bytes: &[u8], inner: &[u8]) -> usize {
    bytes.windows(inner.len()).rposition(|window| window == inner).expect("the embedded bytes")
}

/// What recovery finds of `topic` when one file holds `bytes`: its next offset.
fn next_with(disk: &SimDisk, setup: &Setup, path: &str, bytes: &[u8]) -> i64 {
    let fork = disk.fork();
    fork.crash(CrashPlan::DropAll);
    fork.set_file_bytes(path, bytes);
    let opened = recover_on(&fork, setup).unwrap().unwrap();
    assert_eq!(opened.report.damage, []);
    opened.partitions[0].next.get()
}

/// A batch that would be the next one.
fn impostor(offset: i64) -> Vec<u8> {
    let mut bytes = batch(777, 1, 300).as_bytes().to_vec();
    set_base_offset(&mut bytes, Offset::new(offset));
    bytes
}

/// Torn tails of a segment right at an embedded batch. Returns where the embedded one begins.
fn embedded_in_a_segment(pad: usize) -> usize {
    let setup = Setup::default();
    let (disk, _, mut world, log) = rig(&setup);
    let inner = impostor(1);
    world.append(&log, 1, batch(1, 1, 700)).unwrap().unwrap();
    world.append(&log, 2, embedding(2, pad, &inner)).unwrap().unwrap();
    close_without_marks(&disk, world);
    let whole = disk.file_bytes(SEGMENT).unwrap();
    let (outer, at) = (batch(1, 1, 700).as_bytes().len(), find(&whole, &inner));
    assert_eq!(next_with(&disk, &setup, SEGMENT, &whole), 2);
    let mut torn = vec![whole[..at].to_vec(), whole[..at + inner.len()].to_vec()];
    for lost in [outer..at, outer..outer + 61, at + inner.len()..whole.len(), at - 1..at] {
        let mut bytes = whole.clone();
        bytes[lost].fill(0);
        torn.push(bytes);
    }
    for bytes in torn {
        assert_eq!(next_with(&disk, &setup, SEGMENT, &bytes), 1, "pad {pad}");
    }
    at
}

/// The group that would come next in the journal, with a batch that would be the next one: right in all that a
/// client can know, which the random part of the epoch is not. Or a copy of the last one, right in all.
fn false_group(disk: &SimDisk, copied: bool) -> Vec<u8> {
    let journal = disk.file_bytes("data/journal-0").unwrap();
    let groups = (FILE_HEADER_BLOCKS as usize * 4096..journal.len()).step_by(4096);
    let groups = groups.filter_map(|at| Some((at, Group::parse(&journal[at..], 4096)?)));
    let (start, last) = groups.max_by_key(|(_, group)| group.header.sequence).expect("a group");
    let (real, bytes) = last.entries().next().expect("an entry");
    let data = impostor(1);
    let pos = Pos::new(real.pos.get() + bytes.len() as u64);
    let entry = Entry { pos, bytes: data.len() as u32, ..real };
    let header = GroupHeader {
        epoch: last.header.epoch ^ 1,
        sequence: last.header.sequence + 1,
        previous_epoch: last.header.epoch ^ 1,
        previous_crc: last.header.crc(),
        ..last.header
    };
    if copied {
        return journal[start..start + last.header.group_bytes(4096) as usize].to_vec();
    }
    let arena = Arena::new(1 << 20);
    let mut writer = GroupWriter::new(arena.chunk(4096).unwrap(), std::iter::once(entry));
    writer.append(&data);
    writer.finish(header, 4096).0.to_vec()
}

/// The same of a journal, which holds a whole group in a value.
fn embedded_in_the_journal(pad: usize, copied: bool) -> usize {
    let setup = Setup { direct_bytes: 1 << 20, ..Setup::default() };
    let (disk, oracle, mut world, log) = rig(&setup);
    world.append(&log, 1, batch(1, 1, 700)).unwrap().unwrap();
    let inner = false_group(&disk, copied);
    let mut seen = disk.steps();
    assert!(world.send(&log, 2, embedding(2, pad, &inner)));
    while world.waiting() > 0 {
        world.turn(Wait::Forever).unwrap();
        if disk.steps() > seen {
            seen = disk.steps();
            everywhere(&disk, &setup, &oracle);
            for seed in 0..6 {
                survives(&disk, &setup, &oracle, CrashPlan::Torn(seed));
            }
        }
    }
    let whole = disk.file_bytes("data/journal-0").unwrap();
    let at = find(&whole, &inner);
    assert_eq!(next_with(&disk, &setup, "data/journal-0", &whole), 2);
    let first = (at - 61 - pad) / 4096 * 4096;
    let end = at + inner.len();
    for lost in [first..at, at - 1..at, end..end + 1, end..end + 4096, first..first + 64] {
        let mut bytes = whole.clone();
        bytes[lost.clone()].fill(0);
        let next = next_with(&disk, &setup, "data/journal-0", &bytes);
        assert_eq!(next, 1, "pad {pad}: {lost:?} lost, {at} to {end} embedded");
    }
    at
}

#[test]
fn a_value_that_embeds_a_batch_is_no_evidence() {
    let forged = |pad| embedded_in_the_journal(pad, false);
    let copied = |pad| embedded_in_the_journal(pad, true);
    for embedded in [&embedded_in_a_segment as &dyn Fn(usize) -> usize, &forged, &copied] {
        let at = embedded(8192);
        for unit in [512, 4096] {
            let aligned = 8192 + unit - at % unit;
            assert_eq!(embedded(aligned) % unit, 0);
            embedded(aligned - 1);
        }
        embedded(0);
    }
}

/// Two batches, and a third one, `last`, of a length that all have.
fn three(setup: &Setup, last: u64) -> (SimDisk, World<SimDisk>) {
    let (disk, _, mut world, log) = rig(setup);
    for id in [1, 2, last] {
        world.append(&log, id, batch(id, 1, 9000)).unwrap().unwrap();
    }
    (disk, world)
}

/// No mixture of two files' sectors makes a third batch.
fn unmixed(disk: &SimDisk, setup: &Setup, path: &str, new: &[u8], old: &[u8]) {
    assert_eq!(next_with(disk, setup, path, new), 3);
    assert_eq!(next_with(disk, setup, path, old), 3);
    let differs = |at: &usize| new.get(*at) != old.get(*at);
    let first = (0..new.len()).find(differs).expect("they differ") / 512;
    let last = (0..new.len()).rfind(differs).expect("they differ") / 512;
    for cut in first + 1..=last {
        for (head, body) in [(new, old), (old, new)] {
            let mixed = [&head[..cut * 512], &body[cut * 512..]].concat();
            assert_eq!(next_with(disk, setup, path, &mixed), 2, "{path} mixed at {cut}");
        }
    }
}

#[test]
fn a_stale_body_under_a_torn_header_is_not_taken() {
    let setup = Setup::default();
    let journaled = Setup { direct_bytes: 1 << 20, ..Setup::default() };
    let files = [3, 4].map(|last| {
        let (disk, world) = three(&setup, last);
        close_without_marks(&disk, world);
        (disk.file_bytes(SEGMENT).unwrap(), disk)
    });
    let [(new, disk), (old, _)] = files;
    unmixed(&disk, &setup, SEGMENT, &new, &old);
    let path = "data/journal-0";
    let [(new, world), (old, _)] = [3, 4].map(|last| {
        let (disk, world) = three(&journaled, last);
        (disk.file_bytes(path).unwrap(), (disk, world))
    });
    unmixed(&world.0, &journaled, path, &new, &old);
}

#[test]
fn a_failed_flush_whose_bytes_landed_is_void() {
    let setup = Setup { direct_bytes: 8192, ..Setup::default() };
    let setup = Setup { durability: Durability::Fdatasync, ..setup };
    for (path, bytes) in [(SEGMENT, 20_000), ("data/journal-0", 500)] {
        for nth in 1..=4 {
            let (disk, oracle, mut world, log) = rig(&setup);
            world.append(&log, 1, batch(1, 1, bytes)).unwrap().unwrap();
            let hit = disk.faults_hit();
            disk.inject(Fault::nth(OpKind::Sync, path, nth, libc::EIO).landed());
            let mut id = 2;
            while disk.faults_hit() == hit {
                assert!(id < 40, "{path}: no flush number {nth}");
                for _ in 0..2 {
                    world.send(&log, id, batch(id, 1, bytes));
                    id += 1;
                }
                world.settle().unwrap();
            }
            let durable = world.marks(&name("topic")).durable;
            let refused = world.append(&log, id, batch(id, 1, bytes)).unwrap();
            assert!(matches!(refused, Err(AppendError::Fenced(_))), "{path} {nth}: {refused:?}");
            assert!(durable < Offset::new(id as i64 - 1), "{path} {nth}: acknowledged");
            drop(world);
            disk.clear_faults();
            everywhere(&disk, &setup, &oracle);
        }
    }
}

/// Changes the policy, with power cuts on the way.
fn switch(
    (disk, setup, oracle): (&SimDisk, &Setup, &Shared),
    world: &mut World<SimDisk>,
    (log, policy): (&LogHandle, FlushPolicy),
) {
    let done = log.set_flush_policy(policy);
    world.spawn(async move { done.await.expect("switched") });
    while world.waiting() > 0 {
        world.turn(Wait::Forever).unwrap();
        everywhere(disk, setup, oracle);
    }
    if policy == FlushPolicy::Group {
        let mut oracle = oracle.borrow_mut();
        let track = oracle.track(log.name());
        track.durable = track.acked;
    }
    everywhere(disk, setup, oracle);
}

#[test]
fn a_policy_switch_survives_a_power_cut() {
    for sizes in [[300, 900, 5000], [40_000, 100, 25_000], [4096, 9000, 70_000]] {
        let relaxed = Setup { policy: FlushPolicy::Os, direct_bytes: 16_384, ..Setup::default() };
        let (disk, oracle, mut world, log) = rig(&relaxed);
        let rigged = (&disk, &relaxed, &oracle);
        for (id, bytes) in (1..).zip(sizes) {
            world.append(&log, id, batch(id, 1, bytes)).unwrap().unwrap();
        }
        switch(rigged, &mut world, (&log, FlushPolicy::Group));
        for (id, bytes) in (11..).zip(sizes) {
            world.append(&log, id, batch(id, 1, bytes)).unwrap().unwrap();
            let acked = oracle.borrow_mut().track(log.name()).acked;
            oracle.borrow_mut().track(log.name()).durable = acked;
            everywhere(&disk, &relaxed, &oracle);
        }
        switch(rigged, &mut world, (&log, FlushPolicy::Os));
        for (id, bytes) in (21..).zip(sizes) {
            world.append(&log, id, batch(id, 1, bytes)).unwrap().unwrap();
            everywhere(&disk, &relaxed, &oracle);
        }
        assert_eq!(oracle.borrow_mut().track(log.name()).acked, 9);
        assert!(oracle.borrow_mut().track(log.name()).durable >= 6);
        switch(rigged, &mut world, (&log, FlushPolicy::Group));
    }
}

/// Rolls, with slow flushes of the directory, and a power cut after every step.
fn rolls() {
    let setup = Setup { segment_bytes: 64 << 10, direct_bytes: 8192, ..Setup::default() };
    let (disk, oracle, mut world, log) = rig(&setup);
    world.append(&log, 1, batch(1, 1, 100)).unwrap().unwrap();
    let slow = Fault::nth(OpKind::Sync, "data/topic-0", 1, 0).when(When::From(1));
    disk.inject(Fault { effect: Effect::Delay { ns: 20_000_000 }, ..slow });
    for id in 2..=8 {
        assert!(world.send(&log, id, batch(id, 1, 20_000)));
    }
    let mut seen = disk.steps();
    while world.waiting() > 0 {
        world.turn(Wait::Forever).unwrap();
        if disk.steps() > seen {
            seen = disk.steps();
            survives(&disk, &setup, &oracle, CrashPlan::DropAll);
            survives(&disk, &setup, &oracle, CrashPlan::Random(seen));
        }
    }
    assert!(disk.faults_hit() > 0 && disk.exists("data/topic-0/00000000000000000004.log"));
    assert_eq!(world.marks(&name("topic")).durable, Offset::new(8));
}

#[test]
fn a_roll_is_acknowledged_only_with_its_directory_entry() {
    rolls();
    let defective = || defects::with(Defect::AckBeforeEntry, rolls);
    assert!(catch_unwind(AssertUnwindSafe(defective)).is_err(), "the test can fail");
}

#[test]
fn a_full_disk_refuses_and_recovers_by_itself() {
    for (prepare, bytes) in [(Prepare::Prezero, 20_000), (Prepare::Fallocate, 900)] {
        let setup = Setup { prepare, direct_bytes: 8192, ..Setup::default() };
        let (disk, oracle, mut world, log) = rig(&setup);
        let other = world.log(&name("zother")).unwrap();
        world.append(&log, 1, batch(1, 1, bytes)).unwrap().unwrap();
        world.append(&other, 2, batch(2, 1, bytes)).unwrap().unwrap();
        let ready = other.prepare(200_000);
        world.run(ready).unwrap().unwrap();
        disk.set_capacity_bytes(disk.used_bytes());
        let mut ids = 3..;
        let mut append = |world: &mut World<SimDisk>, log: &LogHandle| {
            let id = ids.next().unwrap();
            world.append(log, id, batch(id, 1, bytes)).unwrap()
        };
        let end = (0..500).find_map(|_| append(&mut world, &log).err());
        assert_eq!(end, Some(AppendError::DiskFull));
        for _ in 0..5 {
            append(&mut world, &other).unwrap();
            assert_eq!(append(&mut world, &log), Err(AppendError::DiskFull));
        }
        disk.set_capacity_bytes(1 << 30);
        everywhere(&disk, &setup, &oracle);
        let back = (0..100).find_map(|_| {
            let until = world.clock_ns() + 10_000_000;
            while world.clock_ns() < until {
                world.turn(Wait::Forever).unwrap();
            }
            append(&mut world, &log).ok()
        });
        assert!(back.is_some(), "appends are taken again");
        for _ in 0..5 {
            append(&mut world, &log).unwrap();
        }
        everywhere(&disk, &setup, &oracle);
    }
}

/// Appends, a checkpoint and rolls, with a fault. Whether it hit.
fn with_fault(fault: Fault, alone: bool) -> bool {
    let (nth, path) = (fault.when, fault.path_suffix.clone());
    let setup = Setup { segment_bytes: 64 << 10, direct_bytes: 8192, ..Setup::default() };
    let setup = Setup { durability: Durability::Fdatasync, ..setup };
    let (disk, oracle, mut world, log) = rig(&setup);
    let other = world.log(&name("zother")).unwrap();
    disk.inject(fault);
    for id in 1..=12 {
        world.send(&log, 2 * id, batch(2 * id, 1, 15_000));
        world.send(&other, 2 * id + 1, batch(2 * id + 1, 1, 500));
        world.settle().unwrap();
        if id == 6 {
            let written = log.checkpoint();
            drop(world.run(written).unwrap());
        }
    }
    let hit = disk.faults_hit() > 0;
    if alone || !hit {
        let marks = world.marks(&name("zother"));
        assert_eq!(marks.durable, Offset::new(12), "{path} {nth:?}: others go on");
    }
    disk.clear_faults();
    let broken = world.close().unwrap();
    assert!(hit || broken.is_ok());
    survives(&disk, &setup, &oracle, CrashPlan::DropAll);
    survives(&disk, &setup, &oracle, CrashPlan::Torn(disk.steps()));
    hit
}

#[test]
fn every_failed_operation_is_told_truthfully() {
    let mut hits = 0;
    for (kind, path, alone) in [
        (OpKind::Sync, "topic-0/00000000000000000000.log", true),
        (OpKind::Sync, "data/topic-0", true),
        (OpKind::Sync, "journal-0", false),
        (OpKind::Write, "topic-0/00000000000000000000.log", true),
        (OpKind::Write, "journal-0", false),
        (OpKind::Write, ".tmp", false),
        (OpKind::Open, "topic-0/00000000000000000004.log", true),
        (OpKind::Open, "data/topic-0", true),
        (OpKind::Allocate, "topic-0/00000000000000000004.log", true),
        (OpKind::Truncate, "topic-0/00000000000000000000.log", true),
        (OpKind::Rename, "", false),
    ] {
        for nth in 1..=8 {
            let fault = Fault::nth(kind, path, nth, libc::EIO);
            let fault = if nth % 2 == 0 { fault.landed() } else { fault };
            if !with_fault(fault, alone) {
                assert!(nth > 1, "{kind:?} of {path} never happens");
                break;
            }
            hits += 1;
        }
    }
    assert!(hits > 20, "only {hits}");
}
