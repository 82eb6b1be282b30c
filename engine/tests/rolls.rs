//! Segments: rolled by bytes, by time and on demand, sealed, and read across.

use std::path::Path;

use ringmain::types::{FlushPolicy, Isolation, Offset};
use ringmain::{Config, Engine, LogHandle};

use crate::support::{Dir, batch, block_on, everywhere, ids, read_all, small, verified};

fn files(dir: &Path, suffix: &str) -> usize {
    let names = std::fs::read_dir(dir).unwrap();
    names
        .filter(|name| name.as_ref().unwrap().file_name().to_string_lossy().ends_with(suffix))
        .count()
}

fn append(log: &LogHandle, ids: std::ops::Range<u64>, bytes: usize) {
    for id in ids {
        log.append_blocking(batch([id], bytes)).unwrap();
    }
}

#[test]
fn a_segment_is_rolled_before_it_grows_too_large() {
    everywhere("roll-bytes", |config| {
        let engine = Engine::open(config.clone()).unwrap();
        let log = engine.log("rolled", 0).unwrap();
        append(&log, 0..60, 60_000);
        assert_eq!(ids(&log), (0..60).collect::<Vec<_>>());
        engine.close().unwrap();
        let dir = config.dir.join("rolled-0");
        assert!(files(&dir, ".log") >= 4);
        assert_eq!(files(&dir, ".seal"), files(&dir, ".log") - 1);
        for entry in std::fs::read_dir(&dir).unwrap() {
            assert!(entry.unwrap().metadata().unwrap().len() <= 1 << 20);
        }
        let report = verified(&config.dir);
        assert_eq!((report.records, report.partitions), (60, 1));
        assert!(report.notes.is_empty(), "{:?}", report.notes);
    });
}

#[test]
fn a_roll_on_demand_and_a_reopening_keep_seals_true() {
    everywhere("roll-demand", |config| {
        let dir = config.dir.join("rolled-0");
        for round in 0..4 {
            let engine = Engine::open(config.clone()).unwrap();
            let log = engine.log("rolled", 0).unwrap();
            append(&log, round * 10..round * 10 + 10, 500);
            // Twice: an empty segment is not rolled.
            log.roll_blocking().unwrap();
            log.roll_blocking().unwrap();
            engine.close().unwrap();
            verified(&config.dir);
            assert_eq!(files(&dir, ".seal"), round as usize + 1, "the last one is sealed, too");
        }
        let engine = Engine::open(config.clone()).unwrap();
        let log = engine.log("rolled", 0).unwrap();
        assert_eq!(ids(&log), (0..40).collect::<Vec<_>>());
        append(&log, 40..41, 500);
        assert_eq!(read_all(&log, Offset::new(35), Isolation::Durable).len(), 6);
    });
}

#[test]
fn a_segment_is_rolled_by_its_age() {
    everywhere("roll-time", |config| {
        let engine = Engine::open(Config { roll_ms: 1, ..config.clone() }).unwrap();
        let log = engine.log("aged", 0).unwrap();
        append(&log, 0..1, 100);
        let begun = std::time::SystemTime::now();
        while begun.elapsed().unwrap().as_millis() < 5 {
            std::thread::yield_now();
        }
        append(&log, 1..2, 100);
        assert_eq!(ids(&log), [0, 1]);
        engine.close().unwrap();
        assert_eq!(files(&config.dir.join("aged-0"), ".log"), 2);
        verified(&config.dir);
    });
}

#[test]
fn sealed_segments_are_read_by_many_at_once() {
    everywhere("sealed-reads", |config| {
        let engine = Engine::open(config).unwrap();
        let log = engine.log("sealed", 0).unwrap();
        for segment in 0..6 {
            append(&log, segment * 20..segment * 20 + 20, 3000);
            log.roll_blocking().unwrap();
        }
        append(&log, 120..125, 3000);
        std::thread::scope(|scope| {
            for reader in 0..8 {
                let log = log.clone();
                scope.spawn(move || {
                    // Each begins elsewhere, so that segments are opened and closed under each other.
                    for round in 0..30 {
                        let from = (reader * 17 + round * 23) % 125;
                        let records = read_all(&log, Offset::new(from), Isolation::Durable);
                        assert_eq!(records.len() as i64, 125 - from);
                        for (offset, bytes) in records {
                            assert_eq!(bytes, crate::support::value(offset as u64, 3000));
                        }
                    }
                });
            }
        });
    });
}

#[test]
fn segments_that_fill_faster_than_they_are_sealed_hold_up_appends_and_are_few() {
    for policy in [FlushPolicy::Os, FlushPolicy::Group] {
        fill_fast(policy);
    }
}

fn fill_fast(policy: FlushPolicy) {
    const SEGMENTS: usize = 400;
    let dir = Dir::new("roll-fast");
    let config = Config { segment_bytes: 64 << 10, ..small(&dir.join("data")) };
    let engine = Engine::open(config).unwrap();
    let log = engine.log("rolled", 0).unwrap();
    log.set_flush_policy_blocking(policy).unwrap();
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let log = log.clone();
            std::thread::spawn(move || {
                while log.segments_blocking().unwrap().len() < SEGMENTS {
                    let appends: Vec<_> =
                        (0..32).map(|id| log.try_append(batch([id], 1000)).unwrap()).collect();
                    for append in appends {
                        block_on(append).unwrap();
                    }
                }
            })
        })
        .collect();
    let mut most = 0;
    while !writers.iter().all(std::thread::JoinHandle::is_finished) {
        let segments = log.segments_blocking().unwrap();
        most = most.max(segments.iter().filter(|segment| !segment.sealed).count());
    }
    for writer in writers {
        writer.join().unwrap();
    }
    assert!(most <= 64, "{policy:?}: {most} segments at once were not sealed");
    let end = log.watermarks_blocking().unwrap().dirty.get();
    engine.close().unwrap();
    assert_eq!(verified(&dir.join("data")).records as i64, end);
}
