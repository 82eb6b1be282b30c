//! Each deliberate defect is found by the simulator: a simulator that finds nothing proves nothing.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use super::oracle::{End, Oracle};
use super::workload::{Habits, Moments, Workload, batch, disk, draw, reopen, run, survives};
use super::world::{Setup, name};
use crate::defects::{self, Defect};
use crate::ring::Wait;
use crate::ring::sim::{CrashPlan, SimOptions};
use crate::types::{FlushPolicy, Prepare};

/// Seeds that a defect may survive at most.
const SEEDS: u64 = 24;

fn caught(defect: Defect, shape: impl Fn(&mut Setup), habits: Habits) {
    let found = (0..SEEDS).find(|seed| {
        let one = || defects::with(defect, || history(*seed, &shape, habits));
        catch_unwind(AssertUnwindSafe(one)).is_err()
    });
    let seed = found.unwrap_or_else(|| panic!("{defect:?} was not found in {SEEDS} seeds"));
    println!("{defect:?} is found by seed {seed}");
    // Without the defect the same history is sound: it was the defect that was found.
    history(seed, &shape, habits);
}

fn history(seed: u64, shape: &impl Fn(&mut Setup), habits: Habits) {
    let (mut setup, options) = draw(seed);
    setup.policy = FlushPolicy::Group;
    shape(&mut setup);
    let disk = disk(options);
    let oracle: Rc<RefCell<Oracle>> = Rc::default();
    let mut work = Workload::new(seed, habits);
    for generation in 0..3 {
        let mut world = reopen(&disk, &setup, &oracle, End::Power);
        run((&disk, &mut world), &setup, &mut work, 25, Moments::Flushes(2));
        drop(world);
        disk.crash(if generation == 0 { CrashPlan::DropAll } else { CrashPlan::Torn(seed) });
    }
    reopen(&disk, &setup, &oracle, End::Power);
}

const SMALL: Habits =
    Habits { partitions: 2, large: false, control: false, truncate: false, policies: false };
const BUSY: Habits = Habits { control: true, ..SMALL };
const CUTTING: Habits = Habits { truncate: true, ..BUSY };

fn journaled(setup: &mut Setup) {
    setup.direct_bytes = 1 << 20;
    setup.segment_bytes = 1 << 20;
}

fn rolling(setup: &mut Setup) {
    setup.segment_bytes = 64 << 10;
}

fn unsynced(setup: &mut Setup) {
    setup.global_flush = false;
    setup.prepare = Prepare::None;
}

fn relaxed(setup: &mut Setup) {
    unsynced(setup);
    setup.policy = FlushPolicy::Interval { ms: 1, bytes: 8192, messages: 10 };
}

#[test]
fn defect_replaying_stale_groups_is_found() {
    caught(Defect::ReplayStaleGroups, journaled, CUTTING);
}

/// Groups are let go by a checkpoint, a later group says so, and the power goes.
fn checkpointed() {
    let disk = disk(SimOptions { completions_per_enter: 1, ..SimOptions::default() });
    let (setup, oracle) = (Setup::default(), Rc::<RefCell<Oracle>>::default());
    let mut world = reopen(&disk, &setup, &oracle, End::Power);
    let log = world.log(&name("topic")).unwrap();
    for id in 1..=5 {
        world.append(&log, id, batch(id, 1, 300)).unwrap().unwrap();
    }
    while world.context(0).state.borrow().journal.needed_bytes() > 0 {
        world.turn(Wait::Forever).unwrap();
    }
    world.append(&log, 6, batch(6, 1, 300)).unwrap().unwrap();
    survives(&disk, &setup, &oracle, CrashPlan::DropAll);
}

#[test]
fn defect_freeing_before_the_flush_is_found() {
    let one = || defects::with(Defect::FreeBeforeFlush, checkpointed);
    assert!(catch_unwind(AssertUnwindSafe(one)).is_err(), "not found");
    checkpointed();
}

#[test]
fn defect_acking_out_of_order_is_found() {
    caught(Defect::AckOutOfOrder, journaled, SMALL);
}

#[test]
fn defect_losing_the_end_of_the_ring_is_found() {
    caught(Defect::LoseRingEnd, journaled, SMALL);
}

#[test]
fn defect_skipping_ignore_records_is_found() {
    caught(Defect::SkipIgnoreRecords, journaled, CUTTING);
}

#[test]
fn defect_forgetting_padding_is_found() {
    caught(Defect::ForgetPadding, journaled, BUSY);
}

#[test]
fn defect_acking_before_the_directory_entry_is_found() {
    caught(Defect::AckBeforeEntry, rolling, BUSY);
}

#[test]
fn defect_counting_later_writes_is_found() {
    caught(Defect::CountLaterWrites, relaxed, BUSY);
}

#[test]
fn defect_acking_plain_writes_is_found() {
    caught(Defect::AckPlainWrites, unsynced, BUSY);
}

#[test]
fn defect_accepting_the_successor_of_a_torn_group_is_found() {
    caught(Defect::AcceptSuccessor, journaled, SMALL);
}
