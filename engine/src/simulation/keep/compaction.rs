//! Compaction under power cuts, on a full disk, and before a full journal.

use super::*;
use crate::error::{AppendError, ReadError};
use crate::format::seal::Seal;

/// Allows the log to be compacted, without a look at it: that would compact it at once.
fn allow(world: &World<SimDisk>, book: &Book) {
    book.borrow_mut().compacts = true;
    let cx = world.context(0);
    let mut state = cx.state.borrow_mut();
    let log = state.logs[0].as_mut().unwrap();
    log.keep.retention = Retention {
        compact: Some(Compaction { min_dirty_percent: 100, ..keys_only() }),
        ..log.keep.retention
    };
}

/// Segments much smaller than they may be.
fn fill_small(world: &mut World<SimDisk>, log: &LogHandle, book: &Book) {
    let mut rng = Rng(77);
    for _ in 0..8 {
        for _ in 0..3 {
            append(world, log, book, &mut rng, 6_000);
        }
        roll(world, log);
    }
    allow(world, book);
}

#[test]
fn compaction_leaves_the_newest_value_of_every_key_in_fewer_segments() {
    let (disk, setup, mut world, log, book) = rig(Retention::default());
    fill_small(&mut world, &log, &book);
    let before = segments(&disk);
    assert!(before.len() > 4, "{before:?}");
    let done = world.run(log.compact()).unwrap().unwrap().expect("something to do");
    assert!(done.segments_after < done.segments_before && done.bytes_after < done.bytes_before);
    pass(&mut world, 50);
    let after = segments(&disk);
    assert_eq!(after.len() as u64, done.segments_after + 1, "{after:?}");
    let strays = disk.files();
    assert!(!strays.iter().any(|f| f.ends_with(".deleted") || f.ends_with(".swap")), "{strays:?}");
    let marks = world.marks(log.name());
    let there = found(&mut world, &log);
    book.borrow().check(0, marks.dirty.get(), &there);
    let keys: std::collections::BTreeSet<u8> = there.iter().map(|sent| sent.1).collect();
    assert_eq!(there.len(), keys.len(), "one record a key");
    // From any offset, gaps included, a read finds the next record there is.
    for from in 0..marks.dirty.get() {
        let read = world.run(log.read(Offset::new(from), 1, Isolation::Durable)).unwrap().unwrap();
        let next = there.iter().find(|sent| sent.0 >= from).map(|sent| sent.0);
        let batch = batches(&read).next().map(|batch| batch.unwrap());
        let within = |batch: &crate::batch::BatchView<'_>| {
            let span = batch.base_offset().get()..=batch.last_offset().get();
            next.is_some_and(|next| span.contains(&next)) || span.contains(&from)
        };
        assert!(batch.as_ref().map_or(next.is_none(), within), "from {from}");
    }
    let again = world.run(log.compact()).unwrap().unwrap().expect("it is looked through");
    assert_eq!((again.records_dropped, again.bytes_after), (0, again.bytes_before));
    fill(&mut world, &log, &book, 3, 3_000);
    cut(&disk, &setup, &book);
    assert_eq!(world.close().unwrap(), Ok(()));
}

#[test]
fn a_full_disk_leaves_the_old_segments_in_force() {
    let (disk, setup, mut world, log, book) = rig(Retention::default());
    fill(&mut world, &log, &book, 30, 18_000);
    roll(&mut world, &log);
    allow(&world, &book);
    let all = segments(&disk);
    for (kind, path) in [
        (OpKind::Write, ".log.cleaned"),
        (OpKind::Sync, ".log.cleaned"),
        (OpKind::Sync, ".tmp"),
        (OpKind::Rename, ".log.cleaned"),
    ] {
        // Of the small files the last one, which is the seal.
        let nth = if path == ".tmp" { 3 } else { 1 };
        disk.inject(Fault::nth(kind, path, nth, libc::ENOSPC));
        let failed = world.run(log.compact()).unwrap();
        assert!(matches!(failed, Err(ControlError::Disk(fault)) if fault.is_full()), "{failed:?}");
        let files = disk.files();
        assert_eq!(segments(&disk), all);
        let stray = |file: &&String| file.ends_with(".cleaned") || file.ends_with(".swap");
        assert_eq!(files.iter().find(stray), None, "{path}");
        put(&mut world, &log, &book);
        cut(&disk, &setup, &book);
        disk.clear_faults();
    }
    let done = world.run(log.compact()).unwrap();
    assert!(done.unwrap().unwrap().records_dropped > 0);
}

fn crash_with_a_full_journal() {
    // Small batches, all of which are in the journal, which no checkpoint frees in this time.
    let (disk, setup, mut world, log, book) = rig(Retention::default());
    fill(&mut world, &log, &book, 150, 1_200);
    roll(&mut world, &log);
    allow(&world, &book);
    world.run(log.compact()).unwrap().unwrap().expect("something to do");
    put(&mut world, &log, &book);
    for plan in plans(3) {
        let fork = disk.fork();
        fork.crash(plan);
        let (world, _) = reopen(&fork, &setup, &book.borrow());
        assert!(world.report.journal_groups > 0, "the journal was replayed");
    }
}

#[test]
fn the_journal_is_not_laid_over_a_compacted_segment() {
    crash_with_a_full_journal();
}

#[test]
fn defect_laying_over_a_compacted_segment_is_found() {
    caught(Defect::LayOverCompacted, crash_with_a_full_journal);
}

#[test]
fn defect_swapping_before_the_flush_is_found() {
    caught(Defect::SwapBeforeFlush, || {
        let (disk, setup, mut world, log, book) = rig(Retention::default());
        fill_small(&mut world, &log, &book);
        world.run(log.compact()).unwrap().unwrap().expect("something to do");
        cut(&disk, &setup, &book);
    });
}

#[test]
fn a_swap_is_completed_or_undone_whatever_names_survive() {
    let (disk, setup, mut world, log, book) = rig(Retention::default());
    fill_small(&mut world, &log, &book);
    let before = disk.fork();
    world.run(log.compact()).unwrap().unwrap().expect("something to do");
    pass(&mut world, 50);
    // The state at the commit: what was there, and the new segment under its other names.
    let (old, new) = (segments(&before), segments(&disk));
    assert!(new.len() < old.len());
    let at = |base: i64, end: &str| format!("data/topic-0/{base:020}.{end}");
    let base = new[0];
    for names in 0..64_u32 {
        let fork = before.fork();
        fork.crash(CrashPlan::KeepAll);
        let take = |bit: u32| names & (1 << bit) != 0;
        fork.set_file_bytes(at(base, "log.swap"), &disk.file_bytes(at(base, "log")).unwrap());
        // Derived files under the old name or the new one, other segments there or gone: all are legal.
        for (bit, end) in ["index", "timeindex", "seal"].iter().enumerate() {
            let bytes = disk.file_bytes(at(base, end)).unwrap();
            let ending = if take(bit as u32) { (*end).to_string() } else { format!("{end}.swap") };
            fork.set_file_bytes(at(base, &ending), &bytes);
        }
        let serial = fork.serial();
        let gone = old.iter().skip(1).take_while(|other| new.get(1).is_none_or(|n| *other < n));
        for (bit, other) in gone.enumerate() {
            if take(3 + bit as u32) {
                for end in ["log", "index", "timeindex", "seal"] {
                    let op = crate::command::Op::Unlink { path: at(*other, end).into() };
                    drop(crate::handle::block_on(crate::command::Disk::run(&serial, op)));
                }
            }
        }
        fork.crash(CrashPlan::KeepAll);
        drop(reopen(&fork, &setup, &book.borrow()));
        let left = segments(&fork);
        assert!(left.contains(&base) && !left.contains(&old[1]), "{names:06b}: {left:?}");
    }
    // Not renamed: undone.
    let fork = before.fork();
    fork.crash(CrashPlan::KeepAll);
    fork.set_file_bytes(at(base, "log.cleaned"), &disk.file_bytes(at(base, "log")).unwrap());
    fork.set_file_bytes(at(base, "seal.swap"), &disk.file_bytes(at(base, "seal")).unwrap());
    drop(reopen(&fork, &setup, &book.borrow()));
    assert_eq!(segments(&fork), old);
    assert!(!fork.files().iter().any(|f| f.ends_with(".cleaned") || f.ends_with(".swap")));
}

#[test]
fn a_compacted_log_can_be_cut_anywhere_and_goes_on() {
    let (disk, setup, mut world, log, book) = rig(Retention::default());
    fill(&mut world, &log, &book, 30, 18_000);
    roll(&mut world, &log);
    allow(&world, &book);
    world.run(log.compact()).unwrap().unwrap().expect("something to do");
    pass(&mut world, 50);
    let there = found(&mut world, &log);
    // Into a gap between two batches.
    let read = world.run(log.read(Offset::ZERO, 1 << 20, Isolation::Durable)).unwrap().unwrap();
    let spans: Vec<(i64, i64)> = batches(&read)
        .map(|batch| batch.unwrap())
        .map(|batch| (batch.base_offset().get(), batch.last_offset().get()))
        .collect();
    let gap = spans.windows(2).find(|pair| pair[1].0 > pair[0].1 + 2).expect("a gap")[1].0 - 1;
    world.run(log.truncate_to(Offset::new(gap))).unwrap().unwrap();
    assert_eq!(world.marks(log.name()).dirty.get(), gap);
    {
        let mut book = book.borrow_mut();
        book.sent.retain(|sent| sent.0 < gap && there.contains(sent));
        book.acked.retain(|sent| sent.0 < gap && there.contains(sent));
    }
    for _ in 0..5 {
        put(&mut world, &log, &book);
        cut(&disk, &setup, &book);
    }
    // Without a recovery point all of it is looked at.
    let fork = disk.fork();
    fork.crash(CrashPlan::DropAll);
    fork.set_file_bytes("data/recovery-point-offset-checkpoint", b"junk");
    drop(reopen(&fork, &setup, &book.borrow()));
}

/// A compaction whose swap breaks off by these faults. Until the next opening every read gives what was sent, or an
/// error that says what became of the segment, and nothing is appended; the opening ends the swap, one way or the
/// other.
fn broken_off(faults: &[Fault]) {
    let (disk, setup, mut world, log, book) = rig(Retention::default());
    fill_small(&mut world, &log, &book);
    for fault in faults {
        disk.inject(fault.clone());
    }
    let failed = world.run(log.compact()).unwrap();
    assert!(matches!(failed, Err(ControlError::Disk(_))), "{faults:?}: {failed:?}");
    assert!(disk.faults_hit() >= faults.len() as u64, "{faults:?}");
    let sent: BTreeMap<i64, Sent> =
        book.borrow().sent.iter().map(|sent| (sent.0, sent.clone())).collect();
    for offset in 0..world.marks(log.name()).dirty.get() {
        let read = world.run(log.read(Offset::new(offset), 1, Isolation::Durable)).unwrap();
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(ReadError::Altered { .. } | ReadError::Damaged { .. }) => continue,
            Err(error) => panic!("{faults:?}: offset {offset}: {error}"),
        };
        for batch in batches(&bytes) {
            for record in batch.unwrap().records().unwrap() {
                let record = record.unwrap();
                let (_, key, value) = &sent[&record.offset.get()];
                assert_eq!((record.key.unwrap()[0], record.value), (*key, value.as_deref()));
            }
        }
    }
    let (batch, _) = some_batch(&mut Rng(1), 100);
    let refused = world.run(log.append(batch)).unwrap();
    assert!(matches!(refused, Err(AppendError::Fenced(_))), "{faults:?}: {refused:?}");
    cut(&disk, &setup, &book);
}

#[test]
fn a_swap_that_is_neither_finished_nor_undone_is_ended_by_the_next_opening() {
    let always = |kind, path| Fault::nth(kind, path, 1, libc::EIO).when(When::From(1));
    // Certain, and then not carried out: by the step that fails.
    for fault in [
        always(OpKind::Rename, ".index.swap"),
        always(OpKind::Rename, ".seal.swap"),
        always(OpKind::Unlink, ".timeindex"),
        always(OpKind::Rename, ".log"),
        always(OpKind::Rename, ".log.swap"),
        always(OpKind::Rename, ".log.swap").landed(),
    ] {
        broken_off(&[fault]);
    }
    // Not known to be certain, and not undone.
    broken_off(&[
        Fault::nth(OpKind::Rename, ".log.cleaned", 1, libc::EIO).landed(),
        always(OpKind::Unlink, ".log.swap"),
    ]);
}

/// A compacted log behind whose recovery point everything lies, and one of whose seals was replaced, by nothing or by
/// these bytes: what an opening makes of it.
fn with_seal(
    disk: &SimDisk,
    setup: &Setup,
    (base, bytes): (i64, Option<&[u8]>),
) -> (SimDisk, World<SimDisk>) {
    let fork = disk.fork();
    fork.crash(CrashPlan::KeepAll);
    fork.set_file_bytes("data/recovery-point-offset-checkpoint", b"junk");
    let seal = format!("data/topic-0/{base:020}.seal");
    if let Some(bytes) = bytes {
        fork.set_file_bytes(seal, bytes);
    } else {
        let unlink = crate::command::Op::Unlink { path: seal.into() };
        drop(crate::handle::block_on(crate::command::Disk::run(&fork.serial(), unlink)).unwrap());
    }
    fork.crash(CrashPlan::KeepAll);
    let world = World::open(&fork, setup, &Shared::default()).unwrap();
    (fork, world)
}

#[test]
fn a_seal_that_is_lost_or_rots_takes_nothing_of_a_compacted_log_away() {
    // All of it is still in the journal, too.
    let (disk, setup, mut world, log, book) = rig(Retention::default());
    fill_small(&mut world, &log, &book);
    let before = disk.fork();
    world.run(log.compact()).unwrap().unwrap().expect("something to do");
    pass(&mut world, 50);
    for _ in 0..3 {
        put(&mut world, &log, &book);
    }
    roll(&mut world, &log);
    put(&mut world, &log, &book);
    let bases = segments(&disk);
    assert!(bases.len() > 3, "{bases:?}");
    let seal = |disk: &SimDisk, base: i64| disk.file_bytes(format!("data/topic-0/{base:020}.seal"));
    for base in &bases[..bases.len() - 1] {
        let mut flipped = seal(&disk, *base).unwrap();
        flipped[30] ^= 4;
        for bytes in [None, Some(&b"junk"[..]), Some(&[]), Some(&flipped)] {
            let (fork, world) = with_seal(&disk, &setup, (*base, bytes));
            assert_eq!((&world.report.cuts, &world.report.damage), (&vec![], &vec![]), "{base}");
            drop(world);
            fork.crash(CrashPlan::DropAll);
            let (mut world, _) = reopen(&fork, &setup, &book.borrow());
            // In the background it gets another one.
            pass(&mut world, 500);
            drop(world);
            fork.crash(CrashPlan::DropAll);
            assert!(seal(&fork, *base).is_some_and(|found| Seal::decode(&found).is_ok()), "{base}");
            fork.set_file_bytes("data/recovery-point-offset-checkpoint", b"junk");
            drop(reopen(&fork, &setup, &book.borrow()));
        }
    }
    // The one from before the compaction speaks of another file: nothing is cut for that.
    let stale = seal(&before, bases[0]).unwrap();
    let (fork, world) = with_seal(&disk, &setup, (bases[0], Some(&stale)));
    assert_eq!((world.report.cuts.len(), world.report.damage.len()), (0, 1));
    assert_eq!(segments(&fork), bases);
}
