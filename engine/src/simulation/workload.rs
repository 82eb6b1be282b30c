//! Seeded work for a world: batches of all sizes, bursts, and everything else a client may ask for.

use super::oracle::{End, Fate, Oracle};
use super::world::{Place, Rng, Setup, World, name};
use crate::batch::{Batch, BatchBuilder};
use crate::handle::LogHandle;
use crate::ring::Wait;
use crate::ring::sim::{CrashPlan, FlushScope, SimDisk, SimOptions};
use crate::types::{Durability, FlushPolicy, Isolation, Offset, PartitionName, Prepare};

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

/// A batch of `records` records and about `bytes` bytes, told from all others by its base timestamp.
pub(super) fn batch(id: u64, records: u32, bytes: usize) -> Batch {
    let mut rng = Rng(id);
    let each = (bytes / records as usize).max(1);
    let mut builder = BatchBuilder::new();
    for _ in 0..records {
        let value: Vec<u8> = (0..each.div_ceil(8)).flat_map(|_| rng.next().to_ne_bytes()).collect();
        builder.add(id as i64, Some(&id.to_be_bytes()), Some(&value[..each])).expect("fits");
    }
    builder.build().expect("a batch")
}

/// What a workload may do beside appending.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habits {
    pub(super) partitions: u64,
    pub(super) large: bool,
    pub(super) control: bool,
    pub(super) truncate: bool,
    pub(super) policies: bool,
}

/// A seeded client of many partitions.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    pub(super) rng: Rng,
    habits: Habits,
    names: Vec<PartitionName>,
}

impl Workload {
    pub(super) fn new(seed: u64, habits: Habits) -> Self {
        let names = (0..habits.partitions).map(|n| name(&format!("topic{n}"))).collect();
        Self { rng: Rng(seed), habits, names }
    }

    fn size(&mut self) -> (u32, usize) {
        let records = 1 + self.rng.below(4) as u32;
        let bytes = match self.rng.below(20) {
            0..10 => self.rng.below(600),
            10..14 => self.rng.below(9000),
            14..17 => 4096 * (1 + self.rng.below(4)) - 80 + self.rng.below(40),
            17..19 => self.rng.below(120_000),
            _ if self.habits.large => self.rng.below(700_000),
            _ => self.rng.below(30_000),
        };
        (records, bytes as usize)
    }

    /// One thing that clients do.
    pub(super) fn act<P: Place>(&mut self, world: &mut World<P>) -> io::Result<()> {
        let at = self.rng.below(self.names.len() as u64) as usize;
        let name = self.names[at].clone();
        let log = world.log(&name)?;
        match self.rng.below(100) {
            0..72 => self.burst(world, &log),
            72..78 => self.read(world, &log),
            78..96 if self.habits.control => self.control(world, &log),
            96..100 if self.habits.policies => {
                let policy = match self.rng.below(3) {
                    0 => FlushPolicy::Group,
                    1 => FlushPolicy::Os,
                    _ => FlushPolicy::Interval { ms: 5, bytes: 50_000, messages: 100 },
                };
                let future = log.set_flush_policy(policy);
                world.spawn(async move { drop(future.await) });
            }
            _ => self.burst(world, &log),
        }
        Ok(())
    }

    fn burst<P: Place>(&mut self, world: &mut World<P>, log: &LogHandle) {
        for _ in 0..1 + self.rng.below(6) {
            let (records, bytes) = self.size();
            let id = world.oracle.borrow_mut().id();
            let batch = batch(id, records, bytes);
            let idle = world.waiting() == 0;
            if idle && self.rng.one_in(8) {
                let next = world.marks(log.name()).dirty.get();
                let epoch = (id / 10) as i32;
                world.send_at(log, id, batch, Some((next, epoch)));
            } else {
                world.send(log, id, batch);
            }
        }
    }

    fn read<P: Place>(&mut self, world: &mut World<P>, log: &LogHandle) {
        let end = world.marks(log.name()).durable.get();
        let from = Offset::new(self.rng.below(end as u64 + 1) as i64);
        let future = log.read(from, 1 + self.rng.below(100_000) as usize, Isolation::Durable);
        if self.rng.one_in(4) {
            // A client that gives up at once.
            return;
        }
        world.spawn(async move { drop(future.await) });
    }

    fn control<P: Place>(&mut self, world: &mut World<P>, log: &LogHandle) {
        match self.rng.below(18) {
            0..5 => {
                let future = log.flush();
                world.spawn(async move { drop(future.await) });
            }
            5..10 => {
                let future = log.roll();
                world.spawn(async move { drop(future.await) });
            }
            10..13 => {
                let future = log.checkpoint();
                world.spawn(async move { drop(future.await) });
            }
            13..15 => {
                let future = log.prepare(self.rng.below(300_000));
                world.spawn(async move { drop(future.await) });
            }
            _ if self.habits.truncate => self.truncate(world, log),
            _ => {}
        }
    }

    fn truncate<P: Place>(&mut self, world: &mut World<P>, log: &LogHandle) {
        let to = {
            let mut oracle = world.oracle.borrow_mut();
            let track = oracle.track(log.name());
            if track.cutting.is_some() {
                return;
            }
            let acked = track.sent.iter().take_while(|sent| sent.fate == Fate::Acked);
            let ends: Vec<i64> = acked
                .scan(0, |end, sent| {
                    *end += sent.records;
                    Some(*end)
                })
                .collect();
            let back = 1 + self.rng.below(12) as usize;
            ends.len().checked_sub(back).map(|at| ends[at])
        };
        if let Some(to) = to {
            world.truncate(log, to);
        }
    }
}

/// A setup drawn from a seed, and the disk that goes with it.
pub(super) fn draw(seed: u64) -> (Setup, SimOptions) {
    let mut rng = Rng(seed ^ 0x5e70);
    let direct = !rng.one_in(4);
    let prepare = match rng.below(4) {
        0 => Prepare::Fallocate,
        1 => Prepare::None,
        _ => Prepare::Prezero,
    };
    let flush_scope = match rng.below(3) {
        0 => FlushScope::OwnFile,
        1 => FlushScope::Syncs,
        _ => FlushScope::EveryFlush,
    };
    let dsync = direct && !rng.one_in(3);
    let overwrites = direct && prepare == Prepare::Prezero;
    let policy = match rng.below(5) {
        0 => FlushPolicy::Os,
        1 => FlushPolicy::Interval { ms: 3, bytes: 40_000, messages: 50 },
        _ => FlushPolicy::Group,
    };
    let setup = Setup {
        shards: 1,
        policy,
        retention: crate::types::Retention::default(),
        direct,
        durability: if dsync { Durability::Dsync } else { Durability::Fdatasync },
        prepare,
        global_flush: overwrites && flush_scope != FlushScope::OwnFile && rng.one_in(2),
        direct_bytes: [4096, 16 * 1024, 64 * 1024, 1 << 20][rng.below(4) as usize],
        segment_bytes: [64 << 10, 256 << 10, 1 << 20, 16 << 20][rng.below(4) as usize],
        journal_bytes: 4 << 20,
        memory_bytes: [8 << 20, 16 << 20][rng.below(2) as usize],
        kept_for_readers_ns: [0, 1_000_000, 10_000_000_000][seed as usize % 3],
        seed,
    };
    let options =
        SimOptions { seed, flush_scope, completions_per_enter: 1, ..SimOptions::default() };
    (setup, options)
}

/// A disk with an empty data directory.
pub(super) fn disk(options: SimOptions) -> SimDisk {
    let disk = SimDisk::with_options(options);
    disk.create_dir_all("data");
    disk
}

/// Every way a power cut may end.
pub(super) fn plans(seed: u64) -> [CrashPlan; 4] {
    [CrashPlan::DropAll, CrashPlan::KeepAll, CrashPlan::Torn(seed), CrashPlan::Random(seed)]
}

/// Cuts the power of a copy of the disk, reopens it and checks it. Returns the copy, closed to further harm.
pub(super) fn survives(
    disk: &SimDisk,
    setup: &Setup,
    oracle: &Rc<RefCell<Oracle>>,
    plan: CrashPlan,
) -> (SimDisk, Rc<RefCell<Oracle>>) {
    let fork = disk.fork();
    fork.crash(plan);
    // What failed was the machine that lost its power.
    fork.clear_faults();
    let oracle = Rc::new(RefCell::new(oracle.borrow().clone()));
    reopen(&fork, setup, &oracle, End::Power);
    (fork, oracle)
}

/// What is sent and acknowledged, as several worlds over one disk see it.
pub(super) type Shared = Rc<RefCell<Oracle>>;

/// A fresh disk that ends one operation at a time, and a world over it with one log.
pub(super) fn rig(setup: &Setup) -> (SimDisk, Shared, World<SimDisk>, LogHandle) {
    let disk = disk(SimOptions { completions_per_enter: 1, ..SimOptions::default() });
    let oracle = Shared::default();
    let mut world = reopen(&disk, setup, &oracle, End::Power);
    let log = world.log(&name("topic")).unwrap();
    (disk, oracle, world, log)
}

/// Appends one batch of a record, and waits for its ack.
pub(super) fn put(world: &mut World<SimDisk>, log: &LogHandle, bytes: usize) {
    let id = world.oracle.borrow_mut().id();
    world.append(log, id, batch(id, 1, bytes)).unwrap().unwrap();
}

/// Opens and checks a disk that nothing but crashes has harmed.
pub(super) fn reopen(
    disk: &SimDisk,
    setup: &Setup,
    oracle: &Rc<RefCell<Oracle>>,
    end: End,
) -> World<SimDisk> {
    let mut world = World::open(disk, setup, oracle).expect("the power is on");
    let report = &world.report;
    if std::env::var_os("RINGMAIN_SEED").is_some() {
        eprintln!("{report:?} of {setup:?}");
    }
    assert!(report.damage.is_empty(), "a crash is no damage: {report:?}");
    assert!(report.journal_damage.is_empty(), "a crash is no damage: {report:?}");
    assert!(report.suspects.is_empty(), "a crash is no damage: {report:?}");
    world.verify(end).expect("the power is on");
    world
}

/// Which moments of a run are followed by a power cut of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moments {
    /// After every completion, under every plan.
    Steps,
    /// After one in so many flushes, under one plan each.
    Flushes(u64),
}

/// Runs `acts` of a workload on `world` with power cuts of copies of `disk` on the way.
pub(super) fn run(
    (disk, world): (&SimDisk, &mut World<SimDisk>),
    setup: &Setup,
    work: &mut Workload,
    acts: u32,
    moments: Moments,
) {
    let mut seen = (disk.steps(), disk.flush_count());
    let mut left = acts;
    let mut turns = 0_u64;
    while left > 0 || world.waiting() > 0 {
        if left > 0 && (world.waiting() == 0 || work.rng.one_in(6)) {
            work.act(world).expect("the power is on");
            left -= 1;
        }
        let wait = if world.waiting() == 0 { Wait::No } else { Wait::Forever };
        world.turn(wait).expect("the power is on");
        turns += 1;
        assert!(turns < 100_000, "a hang: {} clients wait\n{}", world.waiting(), world.describe());
        let now = (disk.steps(), disk.flush_count());
        let oracle = world.oracle.clone();
        match moments {
            Moments::Steps if now.0 > seen.0 => {
                for plan in plans(now.0) {
                    survives(disk, setup, &oracle, plan);
                }
            }
            Moments::Flushes(n) if now.1 > seen.1 && work.rng.one_in(n) => {
                let plan = plans(now.0)[work.rng.below(4) as usize];
                survives(disk, setup, &oracle, plan);
            }
            _ => {}
        }
        seen = now;
    }
}
