//! Retention, deletion and compaction on real directories.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use ringmain::batch::{Batch, BatchBuilder, Compression, batches};
use ringmain::error::{ControlError, ReadError};
use ringmain::types::{Compaction, Isolation, Offset, Retention};
use ringmain::{Backend, Config, Engine, Fetch, LogHandle};

use crate::support::{Dir, batch, child, everywhere, from_parent, ids, small, verified};

/// Asks until it is so; what is asked goes through the shard, which works meanwhile.
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} never came");
        std::thread::yield_now();
    }
}

fn names_in(config: &Config) -> Vec<String> {
    let entries = std::fs::read_dir(config.dir.join("kept-0")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn bytes_of(log: &LogHandle) -> u64 {
    log.segments_blocking().unwrap().iter().filter_map(|segment| segment.bytes).sum()
}

#[test]
fn retention_keeps_up_with_appends_and_readers_finish_or_are_told() {
    everywhere("retention", |config| {
        let retention = Retention { bytes: Some(4 << 20), ..Retention::default() };
        let config = Config { retention, ..config };
        let engine = Engine::open(config.clone()).unwrap();
        let log = engine.log("kept", 0).unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        let (read, told) = std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let (mut next, mut read, mut told) = (Offset::ZERO, 0, 0);
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    match log.read_blocking(next, 1 << 20, Isolation::Durable) {
                        // The oldest there is, again and again: what is deleted first.
                        Ok(bytes) => {
                            for batch in batches(&bytes) {
                                assert!(batch.unwrap().base_offset() >= next);
                                read += 1;
                            }
                        }
                        Err(ReadError::OutOfRange { asked, start, .. }) => {
                            assert!(asked == next && start > asked);
                            (next, told) = (start, told + 1);
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
                (read, told)
            });
            for id in 0..600 {
                log.append_blocking(batch([id], 64 << 10)).unwrap();
            }
            eventually("deletion", || bytes_of(&log) < (5 << 20) + (1 << 19));
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            reader.join().unwrap()
        });
        assert!(read > 0 && told > 0, "{read} batches read, {told} times told");
        assert!(bytes_of(&log) >= 4 << 20);
        let gone = |name: &String| name.ends_with(".deleted");
        eventually("space", || !names_in(&config).iter().any(gone));
        let stats: Vec<_> = engine.stats();
        let freed: u64 = stats.iter().map(|stats| stats.bytes_freed).sum();
        let start = log.watermarks_blocking().unwrap().log_start;
        assert!(freed >= 30 << 20, "{freed}");
        assert_eq!(stats.iter().map(|stats| stats.keep_faults).sum::<u64>(), 0);
        engine.close().unwrap();
        verified(&config.dir);
        let engine = Engine::open(config).unwrap();
        let log = engine.log("kept", 0).unwrap();
        assert_eq!(log.watermarks_blocking().unwrap().log_start, start);
    });
}

#[test]
fn a_large_partition_that_is_deleted_is_cut_up() {
    everywhere("delete-large", |config| {
        let config = Config { segment_bytes: 16 << 20, ..config };
        let engine = Engine::open(config.clone()).unwrap();
        let log = engine.log("kept", 0).unwrap();
        for id in 0..320 {
            log.append_blocking(batch([id], 64 << 10)).unwrap();
        }
        let written = bytes_of(&log);
        engine.delete("kept", 0).unwrap();
        // What is unlinked whole is not counted.
        let freed = || engine.stats().iter().map(|stats| stats.bytes_freed).sum::<u64>();
        eventually("space", || freed() >= written);
        let of_it = |name: &str| name.starts_with("kept-0");
        let left =
            || std::fs::read_dir(&config.dir).unwrap().map(|entry| entry.unwrap().file_name());
        eventually("its directory's end", || !left().any(|name| of_it(&name.to_string_lossy())));
        // Given up in the middle of it: the next opening removes what is left.
        let log = engine.log("kept", 0).unwrap();
        for id in 0..320 {
            log.append_blocking(batch([id], 64 << 10)).unwrap();
        }
        engine.delete("kept", 0).unwrap();
        engine.abandon();
        let engine = Engine::open(config.clone()).unwrap();
        assert!(!left().any(|name| of_it(&name.to_string_lossy())));
        assert_eq!(
            engine.log("kept", 0).unwrap().watermarks_blocking().unwrap().durable,
            Offset::ZERO
        );
        engine.close().unwrap();
        verified(&config.dir);
    });
}

#[test]
fn deleted_records_stay_deleted_and_bad_requests_change_nothing() {
    everywhere("delete-records", |config| {
        let engine = Engine::open(config.clone()).unwrap();
        let log = engine.log("kept", 0).unwrap();
        for id in 0..60 {
            log.append_blocking(batch([id], 64 << 10)).unwrap();
        }
        let far = log.delete_records_blocking(Offset::new(61));
        let (start, end) = (Offset::ZERO, Offset::new(60));
        assert_eq!(far, Err(ControlError::OutOfRange { asked: Offset::new(61), start, end }));
        assert_eq!(log.delete_records_blocking(Offset::new(37)), Ok(Offset::new(37)));
        assert_eq!(log.delete_records_blocking(Offset::new(5)), Ok(Offset::new(37)));
        let below = log.read_blocking(Offset::new(36), 100, Isolation::Durable);
        let (asked, start) = (Offset::new(36), Offset::new(37));
        assert_eq!(below, Err(ReadError::OutOfRange { asked, start, end }));
        assert_eq!(log.compact_blocking(), Err(ControlError::NoCompaction));
        let compact = Some(Compaction { min_dirty_percent: 101, ..Compaction::default() });
        let bad = log.set_retention_blocking(Some(Retention { compact, ..Retention::default() }));
        assert!(matches!(bad, Err(ControlError::Setting(_))), "{bad:?}");
        let first = log.segments_blocking().unwrap()[0].base_offset;
        assert!(first > Offset::ZERO && first <= Offset::new(37));
        engine.abandon();
        let engine = Engine::open(config.clone()).unwrap();
        let log = engine.log("kept", 0).unwrap();
        assert_eq!(log.watermarks_blocking().unwrap().log_start, Offset::new(37));
        engine.close().unwrap();
        verified(&config.dir);
    });
}

#[test]
fn files_that_can_not_be_deleted_or_are_gone_hold_nothing_up() {
    everywhere("stubborn", |config| {
        let engine = Engine::open(config.clone()).unwrap();
        let log = engine.log("kept", 0).unwrap();
        for id in 0..80 {
            log.append_blocking(batch([id], 64 << 10)).unwrap();
        }
        log.roll_blocking().unwrap();
        eventually("seals", || {
            let segments = log.segments_blocking().unwrap();
            segments.iter().filter(|segment| !segment.sealed).count() == 1
        });
        let segments = log.segments_blocking().unwrap();
        let path = |at: usize, end: &str| {
            let base = segments[at].base_offset.get();
            config.dir.join(format!("kept-0/{base:020}.log{end}"))
        };
        // One was removed by somebody else; another one's new name is a directory's.
        std::fs::remove_file(path(0, "")).unwrap();
        std::fs::create_dir(path(1, ".deleted")).unwrap();
        let to = segments[3].base_offset;
        assert_eq!(log.delete_records_blocking(to), Ok(to), "the records are gone");
        let fault = log.keeping_blocking().unwrap().fault.expect("it is told");
        assert_eq!(fault.errno, libc::EISDIR, "{fault}");
        assert!(path(1, "").exists());
        log.append_blocking(batch([80], 100)).unwrap();
        std::fs::remove_dir(path(1, ".deleted")).unwrap();
        // The next look gets there.
        let all = Retention { bytes: Some(u64::MAX), ..Retention::default() };
        log.set_retention_blocking(Some(all)).unwrap();
        eventually("deletion", || !path(1, "").exists() && !path(2, "").exists());
        eventually("wellness", || log.keeping_blocking().unwrap().fault.is_none());
        engine.close().unwrap();
        verified(&config.dir);
    });
}

/// A batch of keys, each with a value that says when it was written.
fn keyed(keys: impl IntoIterator<Item = u32>, n: u64, compression: Compression) -> Batch {
    let mut builder = BatchBuilder::new().compression(compression);
    for key in keys {
        let mut value = n.to_be_bytes().to_vec();
        value.resize(600, key as u8);
        builder.add(1_700_000_000_000, Some(&key.to_be_bytes()), Some(&value)).unwrap();
    }
    builder.build().unwrap()
}

/// The newest value of each key, and how many records there are.
fn newest(log: &LogHandle) -> (BTreeMap<u32, u64>, usize) {
    let marks = log.watermarks_blocking().unwrap();
    let (mut next, mut out, mut count) = (marks.log_start, BTreeMap::new(), 0);
    loop {
        let bytes = log.read_blocking(next, 1 << 20, Isolation::Durable).unwrap();
        if bytes.is_empty() {
            return (out, count);
        }
        for batch in batches(&bytes) {
            let batch = batch.unwrap();
            for record in batch.records().unwrap() {
                let record = record.unwrap();
                let key = u32::from_be_bytes(record.key.unwrap().try_into().unwrap());
                let n = u64::from_be_bytes(record.value.unwrap()[..8].try_into().unwrap());
                assert!(out.insert(key, n) < Some(n), "values of a key come in order");
                count += 1;
            }
            next = batch.last_offset().plus(1);
        }
    }
}

fn by_key() -> Retention {
    Retention { compact: Some(Compaction::default()), ..Retention::default() }
}

#[test]
fn compaction_keeps_the_newest_value_of_every_key() {
    everywhere("compaction", |config| {
        let config = Config { retention: by_key(), ..config };
        let engine = Engine::open(config.clone()).unwrap();
        let log = engine.log("kept", 0).unwrap();
        let codecs = [Compression::None, Compression::Lz4, Compression::Zstd { level: 3 }];
        for n in 0..300 {
            let keys = (0..40).map(|at| (n as u32 * 7 + at * 3) % 50);
            log.append_blocking(keyed(keys, n, codecs[n as usize % 3])).unwrap();
        }
        let (before, _) = newest(&log);
        log.roll_blocking().unwrap();
        eventually("compaction", || log.keeping_blocking().unwrap().compactions > 0);
        eventually("the rest", || {
            let _ = log.compact_blocking().unwrap();
            newest(&log).1 < 400
        });
        assert_eq!(newest(&log).0, before);
        assert_eq!(log.keeping_blocking().unwrap().fault, None);
        engine.close().unwrap();
        verified(&config.dir);
        let engine = Engine::open(config.clone()).unwrap();
        let log = engine.log("kept", 0).unwrap();
        assert_eq!(newest(&log).0, before);
        assert!(log.keeping_blocking().unwrap().compacted_to > Offset::ZERO, "it is remembered");
        log.append_blocking(keyed([7], 1000, Compression::None)).unwrap();
        engine.abandon();
        let engine = Engine::open(config).unwrap();
        assert_eq!(newest(&engine.log("kept", 0).unwrap()).0[&7], 1000);
    });
}

/// Every key's newest value by way of fetches.
fn newest_fetched(log: &LogHandle) -> BTreeMap<u32, u64> {
    let (mut next, mut out) = (Offset::ZERO, BTreeMap::new());
    loop {
        let ask = Fetch { min_bytes: 0, max_bytes: 300 << 10, ..Fetch::from(next) };
        let fetched = log.fetch_blocking(ask).unwrap();
        for batch in batches(&fetched.bytes) {
            for record in batch.unwrap().records().unwrap() {
                let record = record.unwrap();
                let key = u32::from_be_bytes(record.key.unwrap().try_into().unwrap());
                let n = u64::from_be_bytes(record.value.unwrap()[..8].try_into().unwrap());
                assert!(out.insert(key, n) < Some(n), "values of a key come in order");
            }
        }
        if fetched.next >= fetched.marks.durable {
            return out;
        }
        assert!(fetched.next > next, "a fetch goes forward");
        next = fetched.next;
    }
}

#[test]
fn readers_go_on_while_segments_are_swapped() {
    everywhere("swapped", |config| {
        let engine = Engine::open(Config { retention: by_key(), ..config }).unwrap();
        let log = engine.log("kept", 0).unwrap();
        for n in 0..120 {
            log.append_blocking(keyed(0..50, n, Compression::None)).unwrap();
        }
        let acked = std::sync::atomic::AtomicU64::new(119);
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for fetches in [false, true] {
                let (log, acked, done) = (&log, &acked, &done);
                scope.spawn(move || {
                    while !done.load(std::sync::atomic::Ordering::Acquire) {
                        let least = acked.load(std::sync::atomic::Ordering::Acquire);
                        let there = if fetches { newest_fetched(log) } else { newest(log).0 };
                        assert_eq!(there.len(), 50);
                        assert!(there.values().all(|n| *n >= least), "{least}: {there:?}");
                    }
                });
            }
            for n in 120..240 {
                log.append_blocking(keyed(0..50, n, Compression::None)).unwrap();
                acked.store(n, std::sync::atomic::Ordering::Release);
                if n % 20 == 0 {
                    log.roll_blocking().unwrap();
                    log.compact_blocking().unwrap();
                }
            }
            done.store(true, std::sync::atomic::Ordering::Release);
        });
        assert!(log.keeping_blocking().unwrap().compactions > 4);
    });
}

#[test]
fn a_retention_that_is_damaged_refuses_the_opening_by_name() {
    let dir = Dir::new("bad-retention");
    let config = small(&dir.join("data"));
    let engine = Engine::open(config.clone()).unwrap();
    let log = engine.log("kept", 0).unwrap();
    log.append_blocking(batch([0], 100)).unwrap();
    log.set_retention_blocking(Some(by_key())).unwrap();
    engine.close().unwrap();
    let path = config.dir.join("kept-0/ringmain.retention");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let refused = Engine::open(config.clone()).map(drop).unwrap_err().to_string();
    assert!(refused.contains("ringmain.retention"), "{refused}");
    assert!(!ringmain::inspect::verify(&config.dir).unwrap().is_healthy());
    std::fs::remove_file(&path).unwrap();
    let engine = Engine::open(config).unwrap();
    assert_eq!(ids(&engine.log("kept", 0).unwrap()), [0]);
}

fn killed(dir: &std::path::Path, round: u64) -> Config {
    let backend = if round % 3 == 2 { Backend::Sync } else { Backend::Auto };
    Config { shards: 1, segment_bytes: 256 << 10, retention: by_key(), backend, ..small(dir) }
}

/// The child's part: writes keys and compacts until it is killed, and tells each ack.
#[test]
fn compact_until_killed() {
    let Some(dir) = from_parent("RINGMAIN_DIR") else { return };
    let round: u64 = from_parent("RINGMAIN_ROUND").unwrap().parse().unwrap();
    let engine = Engine::open(killed(dir.as_ref(), round)).unwrap();
    let log = engine.log("kept", 0).unwrap();
    std::thread::scope(|scope| {
        let log = &log;
        scope.spawn(move || {
            loop {
                drop(log.compact_blocking());
            }
        });
        for n in round << 32.. {
            let keys: Vec<u32> = (0..20).map(|at| (n as u32 * 13 + at * 3) % 60).collect();
            log.append_blocking(keyed(keys.iter().copied(), n, Compression::Lz4)).unwrap();
            let line = keys.iter().fold(format!("A {n}"), |line, key| format!("{line} {key}"));
            std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
        }
    });
}

#[test]
fn sigkill_during_compaction_keeps_every_key() {
    let dir = Dir::new("sigkill-compaction");
    let data = dir.join("data");
    let mut acked: BTreeMap<u32, u64> = BTreeMap::new();
    let mut compactions = false;
    for round in 1..=10_u64 {
        let variables =
            [("RINGMAIN_DIR", data.to_str().unwrap()), ("RINGMAIN_ROUND", &round.to_string())];
        let mut command = child("keep::compact_until_killed", &variables);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut running = command.spawn().unwrap();
        let mut first = None;
        let (mut other, mut dead) = (String::new(), false);
        for line in BufReader::new(running.stderr.take().unwrap()).lines() {
            let line = line.unwrap();
            let Some(numbers) = line.strip_prefix("A ") else {
                other += &line;
                continue;
            };
            let mut numbers = numbers.split(' ').map(str::parse::<u64>);
            let Some(Ok(n)) = numbers.next() else { continue };
            let keys: Vec<_> = numbers.map_while(Result::ok).collect();
            // A line that the kill cut short says nothing.
            if keys.len() == 20 {
                acked.extend(keys.into_iter().map(|key| (key as u32, n)));
            }
            let since = *first.get_or_insert_with(Instant::now);
            if !dead && since.elapsed() > Duration::from_millis(40 * round) {
                running.kill().unwrap();
                dead = true;
            }
        }
        running.wait().unwrap();
        assert!(dead, "the child ended by itself: {other}");
        let report = ringmain::inspect::verify(&data).unwrap();
        assert!(report.is_healthy(), "round {round}: {:#?}", report.problems);
        let engine = Engine::open(killed(&data, round)).unwrap();
        let report = engine.recovery();
        assert!(report.damage.is_empty(), "{report:#?}");
        let (there, _) = newest(&engine.log("kept", 0).unwrap());
        for (key, n) in &acked {
            assert!(there.get(key) >= Some(n), "key {key}: acked {n}, found {:?}", there.get(key));
        }
        compactions |=
            engine.log("kept", 0).unwrap().keeping_blocking().unwrap().compacted_to > Offset::ZERO;
        engine.abandon();
    }
    assert!(compactions, "something was compacted");
}
