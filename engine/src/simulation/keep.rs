//! Retention, deletion and compaction, with the power cut after every step.

mod compaction;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use super::for_seeds;
use super::workload::{Shared, disk, draw, plans};
use super::world::{Rng, Setup, World, name};
use crate::batch::{BatchBuilder, Compression, batches};
use crate::defects::{self, Defect};
use crate::error::ControlError;
use crate::handle::LogHandle;
use crate::ring::Wait;
use crate::ring::sim::{CrashPlan, Fault, OpKind, SimDisk, SimOptions, When};
use crate::types::{Compaction, FlushPolicy, Isolation, Offset, Retention};

/// Days from the simulated clock's beginning are far away: a horizon that has passed at once, or never.
const NEVER_MS: u64 = 365 * 24 * 3600 * 1000;

/// A record as it was sent: offset, key, value.
type Sent = (i64, u8, Option<Vec<u8>>);

/// What is known of a log that is compacted and cut short at its beginning.
#[derive(Clone, Debug, Default)]
struct Ledger {
    /// Records whose append was acknowledged.
    acked: Vec<Sent>,
    /// Records that were sent, and may be there.
    sent: Vec<Sent>,
    /// The log begins here or behind it.
    start: i64,
    /// A deletion up to here was asked for, and not acknowledged.
    asked: i64,
    /// Whether retention may move the start by itself, up to what was sealed.
    retains: bool,
    compacts: bool,
    /// Whether tombstones may be gone.
    buries: bool,
}

impl Ledger {
    /// Checks what a log holds.
    fn check(&self, start: i64, end: i64, found: &[Sent]) {
        let acked = self.acked.last().map_or(0, |(offset, ..)| offset + 1);
        assert!(end >= acked, "acknowledged up to {acked}, found up to {end}");
        assert!(start >= self.start, "deleted up to {}, begins at {start}", self.start);
        if !self.retains {
            assert!(start <= self.start.max(self.asked), "begins at {start}: {self:?}");
        }
        let all: BTreeMap<i64, &Sent> = self.sent.iter().map(|sent| (sent.0, sent)).collect();
        for sent in found {
            assert_eq!(all.get(&sent.0), Some(&sent), "{} is what was sent", sent.0);
        }
        assert!(found.is_sorted_by(|a, b| a.0 < b.0), "in order, and once");
        let there: BTreeMap<i64, &Sent> = found.iter().map(|sent| (sent.0, sent)).collect();
        let mut newest: BTreeMap<u8, &Sent> = BTreeMap::new();
        for sent in self.sent.iter().filter(|sent| sent.0 < end) {
            newest.insert(sent.1, sent);
        }
        for sent in self.sent.iter().filter(|sent| sent.0 >= start && sent.0 < end) {
            let last = newest[&sent.1].0 == sent.0;
            let tombstone = sent.2.is_none();
            let must = !self.compacts || last && !(tombstone && self.buries);
            assert!(!must || there.contains_key(&sent.0), "{} is lost, {last}", sent.0);
        }
        // A value that a tombstone ended does not come back once the tombstone is gone.
        for (key, last) in newest.iter().filter(|(_, last)| last.2.is_none()) {
            if last.0 >= start && !there.contains_key(&last.0) {
                let older = found.iter().find(|sent| sent.1 == *key && sent.0 < last.0);
                assert_eq!(older, None, "a deleted value came back");
            }
        }
    }
}

type Book = Rc<RefCell<Ledger>>;

fn keys_only() -> Compaction {
    Compaction { min_dirty_percent: 0, delete_retention_ms: NEVER_MS, ..Compaction::default() }
}

/// A batch of a few records of few keys, in any codec.
fn some_batch(rng: &mut Rng, bytes: u64) -> (crate::batch::Batch, Vec<(u8, Option<Vec<u8>>)>) {
    let compression = match rng.below(3) {
        0 => Compression::None,
        1 => Compression::Lz4,
        _ => Compression::Zstd { level: 1 },
    };
    let mut builder = BatchBuilder::new().compression(compression);
    let mut records = Vec::new();
    for _ in 0..1 + rng.below(3) {
        let key = rng.below(6) as u8;
        let value = (!rng.one_in(5)).then(|| {
            let len = rng.below(bytes) / 8 + 1;
            (0..len).flat_map(|_| rng.next().to_ne_bytes()).collect::<Vec<u8>>()
        });
        builder.add(1000, Some(&[key]), value.as_deref()).unwrap();
        records.push((key, value));
    }
    (builder.build().unwrap(), records)
}

/// Appends one batch and waits for its ack, after which it is in the book.
fn append(world: &mut World<SimDisk>, log: &LogHandle, book: &Book, rng: &mut Rng, bytes: u64) {
    let (batch, records) = some_batch(rng, bytes);
    let base = world.marks(log.name()).dirty.get();
    let sent = |at: usize, (key, value): (u8, Option<Vec<u8>>)| (base + at as i64, key, value);
    let sent: Vec<Sent> = records.into_iter().enumerate().map(|(at, r)| sent(at, r)).collect();
    book.borrow_mut().sent.extend(sent.clone());
    let appended = world.run(log.append(batch)).unwrap().unwrap();
    assert_eq!(appended.base_offset.get(), base);
    book.borrow_mut().acked.extend(sent);
}

fn found(world: &mut World<SimDisk>, log: &LogHandle) -> Vec<Sent> {
    let marks = world.marks(log.name());
    let (mut next, mut out) = (marks.log_start, Vec::new());
    while next < marks.dirty {
        let read = world.run(log.read(next, 1 << 20, Isolation::Dirty)).unwrap();
        let read = read.unwrap_or_else(|e| panic!("reading {next}: {e}"));
        let mut last = None;
        for batch in batches(&read) {
            let batch = batch.unwrap();
            last = Some(batch.last_offset());
            for record in batch.records().unwrap() {
                let record = record.unwrap();
                let key = record.key.unwrap()[0];
                let sent = (record.offset.get(), key, record.value.map(<[u8]>::to_vec));
                if record.offset >= marks.log_start {
                    out.push(sent);
                }
            }
        }
        // Behind the last batch there may be offsets that compaction took away.
        let Some(last) = last else { break };
        next = last.plus(1);
    }
    out
}

/// Opens a disk, and checks what its log holds.
fn reopen(disk: &SimDisk, setup: &Setup, ledger: &Ledger) -> (World<SimDisk>, LogHandle) {
    let mut world = World::open(disk, setup, &Shared::default()).unwrap();
    let report = format!("{:?}", world.report);
    assert!(world.report.damage.is_empty() && world.report.journal_damage.is_empty(), "{report}");
    let log = world.log(&name("topic")).unwrap();
    let marks = world.marks(log.name());
    assert_eq!(marks.durable, marks.dirty);
    let found = found(&mut world, &log);
    ledger.check(marks.log_start.get(), marks.dirty.get(), &found);
    (world, log)
}

/// Cuts the power of copies of the disk, in every way, and checks each.
fn cut(disk: &SimDisk, setup: &Setup, book: &Book) {
    for plan in plans(disk.steps()) {
        let fork = disk.fork();
        fork.crash(plan);
        fork.clear_faults();
        drop(reopen(&fork, setup, &book.borrow()));
    }
}

/// Turns until the future is ready, with the power cut after every completion.
fn step_through<T>(
    (disk, world): (&SimDisk, &mut World<SimDisk>),
    setup: &Setup,
    book: &Book,
    future: impl Future<Output = T>,
) -> T {
    let mut future = std::pin::pin!(future);
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let mut seen = disk.steps();
    for _ in 0..200_000 {
        if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        world.turn(Wait::Forever).unwrap();
        if disk.steps() > seen {
            cut(disk, setup, book);
            seen = disk.steps();
        }
    }
    panic!("a hang\n{}", world.describe());
}

fn pass(world: &mut World<SimDisk>, ms: u64) {
    let until = world.clock_ns() + ms * 1_000_000;
    while world.clock_ns() < until {
        world.turn(Wait::Forever).unwrap();
    }
}

/// Small segments, and a log of its own for each test.
fn rig(retention: Retention) -> (SimDisk, Setup, World<SimDisk>, LogHandle, Book) {
    let setup = Setup { segment_bytes: 64 << 10, retention, ..Setup::default() };
    let disk = disk(SimOptions { completions_per_enter: 1, ..SimOptions::default() });
    let mut world = World::open(&disk, &setup, &Shared::default()).unwrap();
    let log = world.log(&name("topic")).unwrap();
    let Retention { bytes, ms, compact } = retention;
    let ledger = Ledger {
        retains: bytes.is_some() || ms.is_some(),
        compacts: compact.is_some(),
        ..Ledger::default()
    };
    (disk, setup, world, log, Rc::new(RefCell::new(ledger)))
}

fn compacting() -> Retention {
    Retention { compact: Some(keys_only()), ..Retention::default() }
}

fn fill(world: &mut World<SimDisk>, log: &LogHandle, book: &Book, batches: u32, bytes: u64) {
    let mut rng = Rng(batches.into());
    for _ in 0..batches {
        append(world, log, book, &mut rng, bytes);
    }
    pass(world, 20);
}

fn roll(world: &mut World<SimDisk>, log: &LogHandle) {
    world.run(log.roll()).unwrap().unwrap();
    pass(world, 20);
}

fn segments(disk: &SimDisk) -> Vec<i64> {
    let files = disk.files();
    let bases = files.iter().filter_map(|file| file.strip_prefix("data/topic-0/"));
    bases.filter_map(crate::format::names::segment_base).map(Offset::get).collect()
}

#[test]
fn keeping_survives_a_crash_at_every_step() {
    for_seeds(0..3, |seed| {
        let (drawn, options) = draw(seed);
        let mut rng = Rng(seed);
        let retention = match seed % 3 {
            0 => compacting(),
            1 => Retention { bytes: Some(50_000), ..Retention::default() },
            _ => Retention { bytes: Some(100_000), ..compacting() },
        };
        let policy = FlushPolicy::Group;
        let setup = Setup { segment_bytes: 64 << 10, policy, retention, ..drawn };
        let disk = disk(options);
        let mut world = World::open(&disk, &setup, &Shared::default()).unwrap();
        let log = world.log(&name("topic")).unwrap();
        let book: Book = Rc::default();
        book.borrow_mut().retains = retention.bytes.is_some();
        book.borrow_mut().compacts = retention.compact.is_some();
        for _ in 0..3 {
            for _ in 0..3 + rng.below(4) {
                append(&mut world, &log, &book, &mut rng, 20_000);
            }
            world.run(log.roll()).unwrap().unwrap();
            let marks = world.marks(log.name());
            let both = (&disk, &mut world);
            match rng.below(3) {
                0 => {
                    let span = marks.durable.get() - marks.log_start.get();
                    let to = marks.log_start.get() + rng.below(span as u64 / 2 + 1) as i64;
                    book.borrow_mut().asked = to;
                    let deleted = log.delete_records(Offset::new(to));
                    let start = step_through(both, &setup, &book, deleted).unwrap();
                    assert!(start.get() >= to);
                    book.borrow_mut().start = start.get();
                }
                _ if retention.compact.is_some() => {
                    let done = step_through(both, &setup, &book, log.compact());
                    assert!(matches!(done, Ok(_) | Err(ControlError::Busy)), "{done:?}");
                }
                _ => {
                    let stop = world.clock_ns() + 30_000_000;
                    let mut seen = disk.steps();
                    while world.clock_ns() < stop {
                        world.turn(Wait::Forever).unwrap();
                        if disk.steps() > seen {
                            cut(&disk, &setup, &book);
                            seen = disk.steps();
                        }
                    }
                }
            }
            let marks = world.marks(log.name());
            let found = found(&mut world, &log);
            book.borrow().check(marks.log_start.get(), marks.dirty.get(), &found);
        }
        cut(&disk, &setup, &book);
        assert_eq!(world.close().unwrap(), Ok(()));
        disk.crash(CrashPlan::KeepAll);
        drop(reopen(&disk, &setup, &book.borrow()));
    });
}

/// Deletes in the log, then cuts the power while the names go.
#[test]
fn a_deletion_is_finished_by_the_next_opening() {
    let (disk, setup, mut world, log, book) = rig(Retention::default());
    fill(&mut world, &log, &book, 30, 18_000);
    let all = segments(&disk);
    let to = all[2] + 1;
    disk.inject(Fault::nth(OpKind::Unlink, ".index", 1, libc::EROFS).when(When::From(1)));
    disk.inject(Fault::nth(OpKind::Rename, ".log", 1, libc::EROFS).when(When::From(1)));
    book.borrow_mut().asked = to;
    let start = world.run(log.delete_records(Offset::new(to))).unwrap();
    assert_eq!(start, Ok(Offset::new(to)), "gone for good, whatever becomes of the files");
    book.borrow_mut().start = to;
    assert_eq!(segments(&disk), all, "nothing can be removed");
    let keeping = world.run(log.keeping()).unwrap().unwrap();
    assert_eq!(keeping.fault.map(|fault| fault.errno), Some(libc::EROFS));
    for _ in 0..3 {
        put(&mut world, &log, &book);
    }
    for plan in plans(5) {
        let fork = disk.fork();
        fork.crash(plan);
        fork.clear_faults();
        let (mut world, _log) = reopen(&fork, &setup, &book.borrow());
        pass(&mut world, 50);
        assert!(segments(&fork)[0] == all[2], "{:?}", segments(&fork));
        assert!(!fork.files().iter().any(|file| file.ends_with(".deleted")));
    }
    // The engine that had the fault gets there by itself, too.
    disk.clear_faults();
    pass(&mut world, 31_000);
    assert_eq!(segments(&disk)[0], all[2]);
    let keeping = world.run(log.keeping()).unwrap().unwrap();
    assert_eq!((keeping.fault, keeping.segments_deleted), (None, 2));
}

fn put(world: &mut World<SimDisk>, log: &LogHandle, book: &Book) {
    let mut rng = Rng(world.clock_ns());
    append(world, log, book, &mut rng, 500);
}

#[test]
fn retention_by_bytes_and_time_deletes_what_is_past_its_bound() {
    let (disk, setup, mut world, log, book) = rig(Retention::default());
    book.borrow_mut().retains = true;
    fill(&mut world, &log, &book, 30, 18_000);
    let all = segments(&disk);
    let keep = 150_000;
    let by_bytes = Retention { bytes: Some(keep), ..Retention::default() };
    world.run(log.set_retention(Some(by_bytes))).unwrap().unwrap();
    pass(&mut world, 100);
    let left = segments(&disk);
    let bytes =
        |info: &[crate::types::SegmentInfo]| info.iter().filter_map(|s| s.bytes).sum::<u64>();
    let info = world.run(log.segments()).unwrap().unwrap();
    assert!(left.len() < all.len() && bytes(&info) >= keep, "{info:?}");
    assert!(bytes(&info[1..]) < keep, "no more than it needs: {info:?}");
    assert_eq!(world.marks(log.name()).log_start.get(), left[0]);
    // The timestamps in it are of 1970; what counts is not later than the append.
    let by_time = Retention { ms: Some(5_000), ..Retention::default() };
    world.run(log.set_retention(Some(by_time))).unwrap().unwrap();
    pass(&mut world, 200);
    let marks = world.marks(log.name());
    assert_eq!(marks.log_start, marks.dirty, "the active segment was rolled, and went too");
    put(&mut world, &log, &book);
    cut(&disk, &setup, &book);
    drop(world);
    disk.crash(CrashPlan::DropAll);
    let (mut world, log) = reopen(&disk, &setup, &book.borrow());
    let keeping = world.run(log.keeping()).unwrap().unwrap();
    assert_eq!((keeping.retention, keeping.own), (by_time, true), "it is kept across openings");
    world.run(log.set_retention(None)).unwrap().unwrap();
    let keeping = world.run(log.keeping()).unwrap().unwrap();
    assert_eq!((keeping.retention, keeping.own), (Retention::default(), false));
}

#[test]
fn a_batch_from_the_future_is_as_old_as_its_append() {
    let by_time = Retention { ms: Some(60_000), ..Retention::default() };
    let (disk, _, mut world, log, _) = rig(by_time);
    let mut builder = BatchBuilder::new();
    builder.add(i64::MAX / 2, Some(b"k"), Some(&[1; 5_000])).unwrap();
    world.run(log.append(builder.build().unwrap())).unwrap().unwrap();
    pass(&mut world, 45_000);
    assert_eq!(world.marks(log.name()).log_start, Offset::ZERO, "{:?}", disk.files());
    pass(&mut world, 60_000);
    assert_eq!(world.marks(log.name()).log_start, Offset::new(1));
}

#[test]
fn a_full_disk_is_freed_by_retention() {
    let (disk, setup, mut world, log, book) = rig(Retention::default());
    book.borrow_mut().retains = true;
    fill(&mut world, &log, &book, 30, 18_000);
    let all = segments(&disk);
    disk.inject(Fault::nth(OpKind::Write, ".tmp", 1, libc::ENOSPC).when(When::From(1)));
    let to = all[3];
    book.borrow_mut().asked = to;
    let deleted =
        step_through((&disk, &mut world), &setup, &book, log.delete_records(Offset::new(to)));
    assert_eq!(deleted, Ok(Offset::new(to)));
    assert_eq!(segments(&disk)[0], to);
    book.borrow_mut().start = to;
    // Without the checkpoint the names say where the log begins.
    cut(&disk, &setup, &book);
    let inside = world.run(log.delete_records(Offset::new(to + 1))).unwrap();
    assert!(matches!(inside, Err(ControlError::Disk(fault)) if fault.is_full()), "{inside:?}");
    assert_eq!(world.marks(log.name()).log_start.get(), to, "no whole segment could go");
}

/// The mistake must be noticed; without it the same history is sound.
fn caught(defect: Defect, history: impl Fn()) {
    let found = catch_unwind(AssertUnwindSafe(|| defects::with(defect, &history)));
    assert!(found.is_err(), "{defect:?} was not found");
    history();
}

#[test]
fn defect_acking_a_deletion_early_is_found() {
    caught(Defect::AckDeletionEarly, || {
        let (disk, setup, mut world, log, book) = rig(Retention::default());
        fill(&mut world, &log, &book, 30, 18_000);
        let to = segments(&disk)[2] + 1;
        let start = world.run(log.delete_records(Offset::new(to))).unwrap().unwrap();
        book.borrow_mut().start = start.get();
        cut(&disk, &setup, &book);
    });
}
