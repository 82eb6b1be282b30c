//! Power cuts at every moment of seeded workloads.

use std::cell::RefCell;
use std::rc::Rc;

use super::for_seeds;
use super::oracle::{End, Oracle};
use super::workload::{Habits, Moments, Workload, disk, draw, reopen, run};
use super::world::World;
use crate::ring::sim::{CrashPlan, SimDisk, SimOptions};
use crate::types::Durability;

const ALL: Habits =
    Habits { partitions: 3, large: true, control: true, truncate: true, policies: true };

const PLAIN: Habits =
    Habits { partitions: 2, large: false, control: false, truncate: false, policies: false };

fn start(seed: u64) -> (SimDisk, super::world::Setup, Rc<RefCell<Oracle>>) {
    let (setup, options) = draw(seed);
    (disk(options), setup, Rc::default())
}

#[test]
fn acked_survives_a_crash_at_every_step() {
    for_seeds(0..6, |seed| {
        let (disk, setup, oracle) = start(seed);
        let mut world = World::open(&disk, &setup, &oracle).unwrap();
        let mut work = Workload::new(seed, PLAIN);
        run((&disk, &mut world), &setup, &mut work, 12, Moments::Steps);
    });
}

#[test]
fn a_file_system_without_direct_io_keeps_what_was_acked() {
    for_seeds(0..4, |seed| {
        let (mut setup, options) = draw(seed);
        (setup.direct, setup.global_flush) = (false, false);
        setup.durability = Durability::Fdatasync;
        let disk = disk(SimOptions { takes_direct: false, ..options });
        let oracle: Rc<RefCell<Oracle>> = Rc::default();
        let mut work = Workload::new(seed, ALL);
        for generation in 0..2 {
            let mut world = reopen(&disk, &setup, &oracle, End::Power);
            run((&disk, &mut world), &setup, &mut work, 40, Moments::Flushes(10));
            drop(world);
            disk.crash(CrashPlan::Torn(seed ^ generation));
        }
        reopen(&disk, &setup, &oracle, End::Power);
    });
}

#[test]
fn acked_survives_a_crash_at_every_flush_of_long_workloads() {
    // The last five: files closed under a reader, segments without their predecessors, a cut one sealed.
    for_seeds((100..112).chain([176, 268, 654, 1033, 1084]), |seed| {
        let (disk, setup, oracle) = start(seed);
        let mut work = Workload::new(seed, ALL);
        for generation in 0..3 {
            let mut world = reopen(&disk, &setup, &oracle, End::Power);
            run((&disk, &mut world), &setup, &mut work, 40, Moments::Flushes(40));
            drop(world);
            disk.crash(CrashPlan::Torn(seed ^ generation));
        }
        reopen(&disk, &setup, &oracle, End::Power);
    });
}
