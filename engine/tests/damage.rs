//! Every kind of damage is named, with its file, position and offset; a healthy directory has none.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ringmain::inspect::{DumpOptions, Item, Problem, VerifyReport, dump, verify};
use ringmain::types::Offset;
use ringmain::{Config, Engine};

use crate::support::{Dir, batch, small, verified};

/// Segments of the directory that is damaged: where their data begins in offsets, and how many there are.
const FIRST: &str = "00000000000000000000";
const SECOND: &str = "00000000000000000040";

/// A directory closed cleanly: a sealed segment of 40 records and an active one of 20.
fn closed(dir: &Path) {
    let engine = Engine::open(small(dir)).unwrap();
    let log = engine.log("orders", 0).unwrap();
    for n in 0..20 {
        log.append_at_blocking(
            Offset::new(n * 2),
            1,
            batch([n as u64 * 2, n as u64 * 2 + 1], 3000),
        )
        .unwrap();
    }
    log.roll_blocking().unwrap();
    for n in 40..60 {
        log.append_blocking(batch([n], 1000)).unwrap();
    }
    engine.close().unwrap();
}

/// A directory as a crash leaves it: journaled appends, no clean mark. Made by copying a running engine's.
fn crashed(name: &str) -> Dir {
    let dir = Dir::new(name);
    let running = dir.join("running");
    let engine = Engine::open(Config { shards: 1, ..small(&running) }).unwrap();
    let log = engine.log("orders", 0).unwrap();
    for n in 0..50 {
        log.append_blocking(batch([n], 900)).unwrap();
    }
    copy(&running, &dir.join("data"));
    dir
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if entry.file_name() != ".lock" {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn flip(path: &Path, pos: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, pos).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], pos).unwrap();
}

/// Damages a copy of the closed directory and returns what is found.
fn damaged(name: &str, damage: impl FnOnce(&Path)) -> (Dir, VerifyReport) {
    let dir = Dir::new(name);
    let data = dir.join("data");
    closed(&data);
    damage(&data);
    let report = verify(&data).unwrap();
    (dir, report)
}

fn only(report: &VerifyReport) -> &Problem {
    assert_eq!(report.problems.len(), 1, "{:#?}", report.problems);
    &report.problems[0]
}

fn segment(data: &Path, base: &str) -> PathBuf {
    data.join("orders-0").join(format!("{base}.log"))
}

/// Where the batches of a segment begin, by `dump`.
fn positions(path: &Path) -> Vec<u64> {
    let mut out = Vec::new();
    dump(path, DumpOptions::default(), |item| {
        if let Item::Batch { pos, .. } = item {
            out.push(pos);
        }
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    out
}

#[test]
fn a_healthy_directory_its_copy_and_its_partitions_have_no_problem() {
    let dir = Dir::new("healthy");
    let data = dir.join("data");
    closed(&data);
    let report = verified(&data);
    assert_eq!((report.partitions, report.segments), (1, 2));
    assert_eq!((report.batches, report.records), (40, 60));
    assert!(report.bytes > 120_000 && report.notes.is_empty(), "{report:?}");
    copy(&data, &dir.join("copy"));
    assert_eq!(verified(&dir.join("copy")), report.clone());
    assert_eq!(verified(&data.join("orders-0")).records, 60);
}

#[test]
fn journaled_bytes_count_as_recovery_would_count_them() {
    let dir = crashed("journaled");
    let data = dir.join("data");
    let report = verified(&data);
    assert_eq!(report.records, 50);
    assert!(report.journal_groups > 0);
    let before: Vec<u8> = fs::read(segment(&data, FIRST)).unwrap();
    assert_eq!(fs::read(segment(&data, FIRST)).unwrap(), before, "nothing is written");
    let engine = Engine::open(small(&data)).unwrap();
    let log = engine.log("orders", 0).unwrap();
    assert_eq!(log.watermarks_blocking().unwrap().durable.get(), 50);
}

#[test]
fn a_flipped_bit_in_a_batch_is_found_where_it_is() {
    let mut at = 0;
    let (dir, report) = damaged("flipped", |data| {
        at = positions(&segment(data, SECOND))[7];
        flip(&segment(data, SECOND), at + 500);
    });
    let problem = only(&report);
    assert_eq!(problem.path, segment(&dir.join("data"), SECOND));
    assert_eq!((problem.pos, problem.offset), (at, Some(Offset::new(47))));
    assert!(problem.what.contains("checksum"), "{problem}");
    assert_eq!(report.batches, 20 + 7, "what stands before it is counted");
}

#[test]
fn damage_in_a_sealed_segment_is_found_by_its_batch_and_its_seal() {
    let (dir, report) = damaged("sealed", |data| {
        flip(&segment(data, FIRST), 20_000);
    });
    let data = dir.join("data");
    let paths: Vec<_> = report.problems.iter().map(|problem| problem.path.clone()).collect();
    assert!(paths.contains(&segment(&data, FIRST)), "{:#?}", report.problems);
    assert!(paths.contains(&segment(&data, FIRST).with_extension("seal")));
}

#[test]
fn a_rewritten_header_field_outside_the_checksum_is_found_by_the_seal() {
    // The leader epoch is not covered by the batch's checksum, nor by any order.
    let (dir, report) = damaged("epoch", |data| flip(&segment(data, FIRST), 13));
    let problem = only(&report);
    assert_eq!(problem.path, segment(&dir.join("data"), FIRST).with_extension("seal"));
    assert_eq!(problem.offset, Some(Offset::ZERO));
}

#[test]
fn a_shortened_or_missing_segment_is_found() {
    let (dir, report) = damaged("short", |data| {
        let positions = positions(&segment(data, SECOND));
        let file = File::options().write(true).open(segment(data, SECOND)).unwrap();
        file.set_len(positions[15]).unwrap();
    });
    let partition = dir.join("data").join("orders-0");
    assert!(
        report.problems.iter().any(|p| p.path == partition && p.offset == Some(Offset::new(55))),
        "the recovery point lies behind the end: {:#?}",
        report.problems
    );
    let (_dir, report) = damaged("gone", |data| {
        fs::remove_file(segment(data, FIRST)).unwrap();
    });
    assert!(report.problems.iter().all(|p| p.what.contains("no segment")));
    assert_eq!(report.problems.len(), 3, "index, time index and seal: {:#?}", report.problems);
}

#[test]
fn a_wrong_index_entry_is_named_by_its_place_in_the_index() {
    let name = format!("{FIRST}.index");
    let (dir, report) =
        damaged("index", |data| flip(&data.join("orders-0").join(&name), 3 * 8 + 7));
    let problem = only(&report);
    assert_eq!(problem.path, dir.join("data").join("orders-0").join(&name));
    assert_eq!(problem.pos, 24);
    assert!(problem.offset.is_some());
    let name = format!("{FIRST}.timeindex");
    let (_dir, report) =
        damaged("time", |data| flip(&data.join("orders-0").join(&name), 2 * 12 + 7));
    // The flipped entry, and the one behind it, which does not grow any more.
    assert!(report.problems.iter().all(|p| p.path.ends_with(format!("orders-0/{name}"))));
    assert!(report.problems.iter().any(|p| p.pos == 24), "{:#?}", report.problems);
    let name = format!("{SECOND}.index");
    let (_dir, report) = damaged("cut", |data| {
        let path = data.join("orders-0").join(&name);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
    });
    assert!(only(&report).path.ends_with(&name));
}

#[test]
fn damaged_small_files_are_named() {
    for name in ["ringmain.meta", "ringmain.journals", "orders-0/ringmain.partition"] {
        let (dir, report) = damaged("meta", |data| flip(&data.join(name), 14));
        let path = dir.join("data").join(name);
        assert!(report.problems.iter().any(|p| p.path == path), "{name}: {:#?}", report.problems);
    }
    for name in [
        "recovery-point-offset-checkpoint",
        "orders-0/leader-epoch-checkpoint",
        &format!("orders-0/{FIRST}.seal"),
    ] {
        let (dir, report) = damaged("small", |data| {
            let bytes = fs::read(data.join(name)).unwrap();
            fs::write(data.join(name), &bytes[..bytes.len() - 1]).unwrap();
        });
        assert_eq!(only(&report).path, dir.join("data").join(name));
    }
    let (_dir, report) = damaged("foreign", |data| fs::write(data.join("notes.txt"), "x").unwrap());
    assert!(only(&report).path.ends_with("notes.txt"));
}

#[test]
fn journal_damage_is_named() {
    let dir = crashed("journal");
    let journal = dir.join("data").join("journal-0");
    let mut groups = Vec::new();
    dump(&journal, DumpOptions { records: true }, |item| {
        if let Item::Group { pos, .. } = item {
            groups.push(pos);
        }
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    assert!(groups.len() > 10, "{groups:?}");
    flip(&journal, groups[4] + 200);
    let report = verify(dir.join("data")).unwrap();
    let problem = &report.problems[0];
    assert_eq!((&problem.path, problem.pos), (&journal, groups[4]));
    assert!(problem.what.contains("group 5"), "{problem}");
    let length = fs::metadata(&journal).unwrap().len();
    File::options().write(true).open(&journal).unwrap().set_len(length / 2).unwrap();
    let report = verify(dir.join("data")).unwrap();
    assert!(report.problems.iter().any(|p| p.path == journal && p.pos == length / 2));
    fs::remove_file(&journal).unwrap();
    let report = verify(dir.join("data")).unwrap();
    assert!(report.problems.iter().any(|p| p.path == journal && p.what.contains("missing")));
}

#[test]
fn a_torn_tail_is_a_note_after_a_crash_and_damage_after_a_clean_close() {
    let tear = |data: &Path| {
        let path = segment(data, SECOND);
        let length = fs::metadata(&path).unwrap().len();
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[0xab; 300], length).unwrap();
    };
    let (dir, report) = damaged("torn", tear);
    let length = fs::metadata(segment(&dir.join("data"), SECOND)).unwrap().len() - 300;
    assert_eq!((only(&report).pos, only(&report).offset), (length, Some(Offset::new(60))));
    fs::remove_file(dir.join("data").join("ringmain.clean")).unwrap();
    let report = verified(&dir.join("data"));
    assert_eq!(report.notes.len(), 1, "{:?}", report.notes);
    assert_eq!(report.notes[0].pos, length);
    let engine = Engine::open(small(&dir.join("data"))).unwrap();
    assert_eq!(engine.recovery().cuts.len(), 1, "recovery judges alike");
}

#[test]
fn a_dump_shows_everything_and_stops_when_told() {
    let dir = Dir::new("dump");
    let data = dir.join("data");
    closed(&data);
    let (mut batches, mut records, mut seals, mut metas, mut entries) = (0, 0, 0, 0, 0);
    dump(&data, DumpOptions { records: true }, |item| {
        match item {
            Item::Batch { .. } => batches += 1,
            Item::Record(record) => {
                assert_eq!(
                    crate::support::id_of(record.value.unwrap()),
                    record.offset.get() as u64
                );
                records += 1;
            }
            Item::Seal(_) => seals += 1,
            Item::DirectoryMeta(_) | Item::PartitionMeta(_) | Item::JournalsMeta(_) => metas += 1,
            Item::OffsetEntry { .. } | Item::TimeEntry { .. } => entries += 1,
            Item::Bad { pos, what } => panic!("{pos}: {what}"),
            _ => {}
        }
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!((batches, records, seals, metas), (40, 60, 1, 3));
    assert!(entries > 20);
    let mut seen = 0;
    dump(&data, DumpOptions::default(), |_| {
        seen += 1;
        if seen == 5 {
            std::ops::ControlFlow::Break(())
        } else {
            std::ops::ControlFlow::Continue(())
        }
    })
    .unwrap();
    assert_eq!(seen, 5);
    assert!(verify(dir.join("nothing")).is_err());
    fs::write(dir.join("notes.txt"), "x").unwrap();
    assert!(dump(dir.join("notes.txt"), DumpOptions::default(), |_| panic!("foreign")).is_err());
}
