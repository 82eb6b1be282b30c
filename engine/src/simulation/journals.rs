//! Histories of journals: deleted partitions, damage, other people's files, many turns and more shards.

use std::cell::RefCell;
use std::rc::Rc;

use super::oracle::End;
use super::workload::{Shared, batch, disk, plans, put, reopen, survives};
use super::world::{Setup, World, name, recover_on};
use crate::command::{Disk, Op};
use crate::error::AppendError;
use crate::handle::{LogHandle, block_on};
use crate::journal::group::{ENTRY_BYTES, FILE_HEADER_BLOCKS, Group, HEADER_BYTES};
use crate::ring::Wait;
use crate::ring::sim::{CrashPlan, SimDisk, SimOptions};
use crate::types::{FlushPolicy, PartitionName};

const BLOCK: u64 = 4096;

/// Everything goes by way of the journal.
fn journaled() -> Setup {
    Setup { direct_bytes: 1 << 20, ..Setup::default() }
}

fn rig(setup: &Setup) -> (SimDisk, Shared, World<SimDisk>) {
    let disk = disk(SimOptions { completions_per_enter: 1, ..SimOptions::default() });
    let oracle = Shared::default();
    let world = reopen(&disk, setup, &oracle, End::Power);
    (disk, oracle, world)
}

fn everywhere(disk: &SimDisk, setup: &Setup, oracle: &Shared) {
    for plan in plans(disk.steps()) {
        survives(disk, setup, oracle, plan);
    }
}

/// Appends a batch of this many bytes and waits for its ack.
/// Sends a batch of this many bytes.
fn send(world: &mut World<SimDisk>, log: &LogHandle, bytes: usize) {
    let id = world.oracle.borrow_mut().id();
    world.send(log, id, batch(id, 1, bytes));
}

/// A copy of the disk after a power cut, and of what is known.
fn cut(disk: &SimDisk, oracle: &Shared, plan: CrashPlan) -> (SimDisk, Shared) {
    let fork = disk.fork();
    fork.crash(plan);
    (fork, Rc::new(RefCell::new(oracle.borrow().clone())))
}

/// One partition has all that was acknowledged, and takes more.
fn sound(world: &mut World<SimDisk>, name: &PartitionName) {
    let log = world.log(name).unwrap();
    let read = world.read_all(&log).unwrap();
    world.oracle.borrow_mut().track(name).verify(name, &read, End::Power);
    put(world, &log, 900);
}

#[test]
fn a_recreated_partition_never_sees_old_bytes() {
    let setup = journaled();
    let (disk, oracle, mut world) = rig(&setup);
    let topic = name("topic");
    let old = world.log(&topic).unwrap();
    put(&mut world, &old, 5000);
    // Its recovery point is on the disk, and is not the new one's.
    world.run(old.checkpoint()).unwrap().unwrap();
    for n in 1..=6 {
        put(&mut world, &old, 700 * n);
    }
    world.delete(&topic);
    world.settle().unwrap();
    let new = world.log(&topic).unwrap();
    everywhere(&disk, &setup, &oracle);
    for n in 1..=4 {
        send(&mut world, &new, 300 * n);
        let mut seen = disk.steps();
        while world.waiting() > 0 {
            world.turn(Wait::Forever).unwrap();
            if disk.steps() > seen {
                seen = disk.steps();
                everywhere(&disk, &setup, &oracle);
            }
        }
    }
    everywhere(&disk, &setup, &oracle);
    drop(world);
    disk.crash(CrashPlan::DropAll);
    let world = reopen(&disk, &setup, &oracle, End::Power);
    assert!(world.report.journal_groups >= 10, "{:?}: old groups were there", world.report);
}

/// After a power cut in a deletion the partition is whole or gone, and stays so.
fn whole_or_gone(disk: &SimDisk, setup: &Setup, oracle: &Shared, plan: CrashPlan) -> bool {
    let (fork, oracle) = cut(disk, oracle, plan);
    let topic = name("topic");
    let mut world = World::open(&fork, setup, &oracle).unwrap();
    let report = &world.report;
    assert!(report.damage.is_empty() && report.journal_damage.is_empty(), "{report:?}");
    let there = world.has(&topic);
    if there {
        assert!(oracle.borrow_mut().track(&topic).made, "it was deleted for good");
    } else {
        oracle.borrow_mut().track(&topic).deleted();
    }
    world.verify(End::Power).unwrap();
    drop(world);
    fork.crash(plan);
    let again = reopen(&fork, setup, &oracle, End::Power);
    assert_eq!(again.has(&topic), there);
    there
}

#[test]
fn a_crash_in_a_deletion_keeps_all_or_nothing() {
    let setup = Setup { direct_bytes: 8192, segment_bytes: 64 << 10, ..Setup::default() };
    let (disk, oracle, mut world) = rig(&setup);
    let topic = name("topic");
    let log = world.log(&topic).unwrap();
    let other = world.log(&name("zother")).unwrap();
    for n in 1..=6 {
        put(&mut world, &log, if n % 3 == 0 { 40_000 } else { 700 * n });
        put(&mut world, &other, 500);
    }
    world.delete(&topic);
    let (mut whole, mut gone, mut idle) = (0, 0, 0);
    let mut seen = disk.steps();
    while idle < 20 {
        world.turn(Wait::Forever).unwrap();
        idle += u32::from(world.waiting() == 0);
        if disk.steps() == seen {
            continue;
        }
        seen = disk.steps();
        for plan in plans(seen) {
            let there = whole_or_gone(&disk, &setup, &oracle, plan);
            whole += u32::from(there);
            gone += u32::from(!there);
        }
    }
    assert!(whole > 0 && gone > 0, "{whole} whole, {gone} gone");
    assert!(!disk.files().iter().any(|file| file.contains("topic")), "its content is removed");
    put(&mut world, &other, 500);
}

/// Where the journal's groups lie: their beginning and end in the file, and their entries.
fn groups(journal: &[u8]) -> Vec<(u64, u64, usize)> {
    let mut at = FILE_HEADER_BLOCKS * BLOCK;
    let mut out = Vec::new();
    while let Some(group) = Group::parse(&journal[at as usize..], BLOCK) {
        let end = at + group.header.group_bytes(BLOCK);
        out.push((at, end, group.entries().count()));
        at = end;
    }
    out
}

/// Opens a copy of the disk with these bytes of its journal damaged; exactly `suspects` are read-only.
fn damaged(disk: &SimDisk, oracle: &Shared, bytes: &[u64], suspects: &[&str]) {
    let (fork, oracle) = cut(disk, oracle, CrashPlan::DropAll);
    for pos in bytes {
        fork.corrupt("data/journal-0", *pos, 1);
    }
    let mut world = World::open(&fork, &journaled(), &oracle).unwrap();
    let report = &world.report;
    let mut said: Vec<String> = report.suspects.iter().map(ToString::to_string).collect();
    said.sort();
    assert_eq!(said, suspects, "{report:?}");
    assert_eq!(report.journal_damage.len(), 1, "{report:?}");
    assert!(report.journal_damage[0].path.ends_with("journal-0"));
    for topic in ["a", "b", "c", "d"] {
        let name = name(topic);
        let log = world.log(&name).unwrap();
        if suspects.contains(&name.to_string().as_str()) {
            let refused = world.append(&log, 1000, batch(1000, 1, 100)).unwrap();
            assert_eq!(refused, Err(AppendError::Damaged), "{name}");
            world.read_all(&log).unwrap();
        } else {
            sound(&mut world, &name);
        }
    }
}

#[test]
fn a_damaged_group_makes_the_partitions_it_names_read_only() {
    let (disk, oracle, mut world) = rig(&journaled());
    let logs = ["a", "b", "c", "d"].map(|topic| world.log(&name(topic)).unwrap());
    for log in &logs {
        put(&mut world, log, 300);
    }
    send(&mut world, &logs[1], 5000);
    send(&mut world, &logs[3], 5000);
    world.settle().unwrap();
    for log in logs.iter().cycle().take(8) {
        put(&mut world, log, 300);
    }
    drop(world);
    let journal = disk.file_bytes("data/journal-0").unwrap();
    let groups = groups(&journal);
    let twos: Vec<_> = groups.iter().filter(|(.., entries)| *entries == 2).collect();
    let [(start, end, _)] = twos[..] else { panic!("one group of two: {groups:?}") };
    let table = start + HEADER_BYTES as u64 + 3;
    let data = table + 2 * ENTRY_BYTES as u64;
    let second = end - (HEADER_BYTES + ENTRY_BYTES) as u64;
    let (header, trailer) = (start + 10, end - 10);
    for bytes in [[data, data + 900], [table, data], [second, data], [header, data]] {
        damaged(&disk, &oracle, &bytes, &["b-0", "d-0"]);
    }
    let all = ["a-0", "b-0", "c-0", "d-0"];
    for bytes in [[table, second], [header, second], [table, trailer], [header, trailer]] {
        damaged(&disk, &oracle, &bytes, &all);
    }
}

fn unlink(disk: &SimDisk, path: &str) {
    let path = path.into();
    block_on(disk.serial().run(Op::Unlink { path })).unwrap();
}

#[test]
fn a_missing_journal_is_said_and_the_rest_is_readable() {
    let setup = Setup::default();
    let (disk, oracle, mut world) = rig(&setup);
    let (small, large) = (world.log(&name("small")).unwrap(), world.log(&name("large")).unwrap());
    for _ in 0..3 {
        put(&mut world, &small, 500);
        put(&mut world, &large, 128 << 10);
    }
    let (fork, known) = cut(&disk, &oracle, CrashPlan::DropAll);
    unlink(&fork, "data/journal-0");
    let mut lost = World::open(&fork, &setup, &known).unwrap();
    let report = &lost.report;
    assert_eq!(report.journal_damage.len(), 1, "{report:?}");
    assert!(report.journal_damage[0].path.ends_with("journal-0"), "{report:?}");
    assert!(report.journal_damage[0].reason.starts_with("missing"), "{report:?}");
    let again = lost.log(&name("small")).unwrap();
    assert_eq!(lost.read_all(&again).unwrap(), [], "it was in the journal alone");
    let again = lost.log(&name("large")).unwrap();
    assert!(!lost.read_all(&again).unwrap().is_empty(), "what segments hold is read");
    drop(lost);
    // After a clean shutdown nothing is missed with it.
    assert_eq!(world.close().unwrap(), Ok(()));
    disk.crash(CrashPlan::DropAll);
    unlink(&disk, "data/journal-0");
    reopen(&disk, &setup, &oracle, End::Process);
}

#[test]
fn a_foreign_journal_is_set_aside() {
    let setup = Setup { shards: 2, ..journaled() };
    let (disk, oracle, mut world) = rig(&setup);
    // One on each shard.
    let logs = ["a", "b"].map(|topic| world.log(&name(topic)).unwrap());
    for log in logs.iter().cycle().take(6) {
        put(&mut world, log, 3000);
    }
    let foreign = {
        let setup = Setup { seed: 99, ..setup.clone() };
        let (disk, _, mut world) = rig(&setup);
        let log = world.log(&name("a")).unwrap();
        put(&mut world, &log, 7000);
        disk.file_bytes("data/journal-0").unwrap()
    };
    let journals = ["data/journal-0", "data/journal-1"];
    let [first, second] = journals.map(|path| disk.file_bytes(path).unwrap());

    let (fork, known) = cut(&disk, &oracle, CrashPlan::DropAll);
    fork.set_file_bytes(journals[0], &foreign);
    let mut opened = World::open(&fork, &setup, &known).unwrap();
    let report = &opened.report;
    assert_eq!(report.journal_damage.len(), 1, "{report:?}");
    assert!(report.journal_damage[0].path.ends_with("journal-0"), "{report:?}");
    assert!(report.journal_damage[0].reason.contains("another data directory"), "{report:?}");
    assert_eq!(report.journal_groups, 3, "the foreign one is not replayed");
    assert!(fork.file_bytes("data/journal-0.foreign") == Some(foreign), "it is kept");
    // "a" is on shard 1 of 2, whose journal is there.
    sound(&mut opened, &name("a"));
    drop(opened);
    fork.crash(CrashPlan::DropAll);
    let again = recover_on(&fork, &setup).unwrap().unwrap();
    assert_eq!(again.report.journal_damage, [], "it is said once");

    let (fork, known) = cut(&disk, &oracle, CrashPlan::DropAll);
    fork.set_file_bytes(journals[0], &first[..1 << 20]);
    let mut opened = World::open(&fork, &setup, &known).unwrap();
    let report = &opened.report;
    assert_eq!(report.journal_damage.len(), 1, "{report:?}");
    assert!(report.journal_damage[0].reason.contains("shorter"), "{report:?}");
    opened.verify(End::Power).unwrap();

    // Groups name partitions, whichever shard wrote them.
    let (fork, known) = cut(&disk, &oracle, CrashPlan::DropAll);
    fork.set_file_bytes(journals[0], &second);
    fork.set_file_bytes(journals[1], &first);
    reopen(&fork, &setup, &known, End::Power);
}

#[test]
fn journals_of_more_shards_are_all_replayed() {
    let many = Setup { shards: 3, ..journaled() };
    let one = journaled();
    let (disk, oracle, mut world) = rig(&many);
    let logs = ["a", "b", "c"].map(|topic| world.log(&name(topic)).unwrap());
    for log in logs.iter().cycle().take(9) {
        put(&mut world, log, 3000);
    }
    drop(world);
    disk.crash(CrashPlan::DropAll);
    // The opening with fewer shards may be cut off anywhere.
    for step in (1..).step_by(5) {
        let (fork, known) = cut(&disk, &oracle, CrashPlan::DropAll);
        fork.crash_at_step(fork.steps() + step);
        let finished = recover_on(&fork, &one).is_ok();
        fork.crash(CrashPlan::Torn(step));
        reopen(&fork, &one, &known, End::Power);
        if finished {
            break;
        }
    }
    let world = reopen(&disk, &one, &oracle, End::Power);
    assert_eq!(world.report.journal_groups, 9, "three of each");
    assert!(disk.exists("data/journal-0"));
    assert!(!disk.exists("data/journal-1") && !disk.exists("data/journal-2"));
    drop(world);
    disk.crash(CrashPlan::DropAll);
    // And back to more.
    reopen(&disk, &many, &oracle, End::Power);
}

#[test]
fn a_clean_close_leaves_nothing_to_be_recovered() {
    for policy in [FlushPolicy::Group, FlushPolicy::Os] {
        let setup = Setup { policy, segment_bytes: 128 << 10, ..Setup::default() };
        let (disk, oracle, mut world) = rig(&setup);
        for topic in ["a", "b", "c"] {
            let log = world.log(&name(topic)).unwrap();
            for bytes in [300, 100_000, 5000, 90_000, 700] {
                put(&mut world, &log, bytes);
            }
        }
        assert_eq!(world.close().unwrap(), Ok(()));
        for plan in plans(7) {
            let (fork, known) = cut(&disk, &oracle, plan);
            let world = reopen(&fork, &setup, &known, End::Process);
            let report = &world.report;
            assert!(report.clean, "{report:?}");
            let done = (report.journal_groups, report.journal_bytes, report.cuts.len());
            assert_eq!(done, (0, 0, 0), "{report:?}");
            assert!(report.scanned_bytes < 3 * 40_000, "{report:?}: the ends alone are read");
            drop(world);
            fork.crash(plan);
            let world = reopen(&fork, &setup, &known, End::Process);
            assert!(!world.report.clean, "the mark is of one closing");
        }
    }
}
