//! Every offset and every timestamp is found, exactly, whatever became of the indexes.

use std::fs;
use std::path::{Path, PathBuf};

use kafka_protocol::records::{self, Record};
use ringmain::batch::{Batch, BatchBuilder, Compression, batches};
use ringmain::error::ReadError;
use ringmain::inspect::{IndexUse, Missing, Sought, find};
use ringmain::types::{Isolation, Offset, PartitionName, TimeFound};
use ringmain::{Config, Engine, LogHandle};

use crate::support::{Dir, everywhere, id_of, small, value, verified};

/// Codecs in turn: those the builder has, and those that only others write.
const CODECS: u64 = 5;

/// Timestamps that run backwards now and then, repeat, jump ahead, and are missing.
fn timestamp(id: u64) -> i64 {
    let id = id as i64;
    let late = if id % 11 == 3 { 60 } else { 0 };
    let ahead = if id % 97 == 50 { 200 } else { 0 };
    if id % 23 == 7 { -1 } else { 1_000 + id / 2 * 3 - late + ahead }
}

fn some(ids: std::ops::Range<u64>, codec: u64, bytes: usize) -> Batch {
    let others = match codec {
        3 => Some(records::Compression::Gzip),
        4 => Some(records::Compression::Snappy),
        _ => None,
    };
    if let Some(compression) = others {
        return kafkas(ids, compression, bytes);
    }
    let codecs = [Compression::None, Compression::Lz4, Compression::Zstd { level: 1 }];
    let mut builder = BatchBuilder::new().compression(codecs[codec as usize]);
    for id in ids {
        builder.add(timestamp(id), None, Some(&value(id, bytes))).unwrap();
    }
    builder.build().unwrap()
}

/// A batch as a Kafka producer makes it.
fn kafkas(ids: std::ops::Range<u64>, compression: records::Compression, bytes: usize) -> Batch {
    let first = ids.start;
    let made: Vec<Record> = ids
        .map(|id| Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: 0,
            producer_id: records::NO_PRODUCER_ID,
            producer_epoch: records::NO_PRODUCER_EPOCH,
            timestamp_type: records::TimestampType::Creation,
            offset: (id - first) as i64,
            sequence: (id - first) as i32 - 1,
            timestamp: timestamp(id),
            key: None,
            value: Some(value(id, bytes).into()),
            headers: [].into(),
        })
        .collect();
    let mut encoded = bytes::BytesMut::new();
    let options = records::RecordEncodeOptions { version: 2, compression };
    records::RecordBatchEncoder::encode(&mut encoded, &made, &options).unwrap();
    Batch::from_bytes(encoded.to_vec()).unwrap()
}

/// What the log must hold: for each record its timestamp, the first and the last offset of its batch.
#[derive(Default)]
struct Model(Vec<(i64, i64, i64)>);

impl Model {
    fn append(&mut self, log: &LogHandle, records: u64, bytes: usize) {
        let next = self.0.len() as u64;
        let codec = next % CODECS;
        log.append_blocking(some(next..next + records, codec, bytes)).unwrap();
        let (first, last) = (next as i64, (next + records - 1) as i64);
        self.0.extend((next..next + records).map(|id| (timestamp(id), first, last)));
    }

    fn at(&self, asked: i64) -> Option<(i64, i64)> {
        let at = self.0.iter().position(|(timestamp, ..)| *timestamp >= asked)?;
        Some((at as i64, self.0[at].0))
    }

    fn check(&self, log: &LogHandle) {
        self.check_every(1, log);
    }

    /// Checks every so manieth offset and timestamp.
    fn check_every(&self, stride: usize, log: &LogHandle) {
        let isolation = Isolation::Durable;
        for (offset, (_, first, last)) in self.0.iter().enumerate().step_by(stride) {
            let found = log.find_offset_blocking(Offset::new(offset as i64), isolation);
            let found = found.unwrap().unwrap_or_else(|| panic!("offset {offset}"));
            assert_eq!((found.first.get(), found.last.get()), (*first, *last));
            let read = log.read_blocking(found.first, 1, isolation).unwrap();
            assert_eq!(read.len(), found.bytes as usize);
            let read = log.read_blocking(Offset::new(offset as i64), 1, isolation).unwrap();
            let batch = batches(&read).next().unwrap().unwrap();
            assert_eq!(batch.base_offset(), found.first, "offset {offset}");
        }
        let end = Offset::new(self.0.len() as i64);
        assert_eq!(log.find_offset_blocking(end, isolation), Ok(None));
        let beyond = log.find_offset_blocking(end.plus(1), isolation);
        assert!(matches!(beyond, Err(ReadError::OutOfRange { .. })));
        let newest = self.0.iter().map(|(timestamp, ..)| *timestamp).max().unwrap();
        let asked = (900..=newest + 2).step_by(stride);
        for asked in [i64::MIN, -2, -1, 0].into_iter().chain(asked).chain([i64::MAX]) {
            let found = log.find_time_blocking(asked, isolation).unwrap();
            let found = found.map(|TimeFound { offset, timestamp, .. }| (offset.get(), timestamp));
            assert_eq!(found, self.at(asked), "the first one from {asked} on");
        }
    }

    /// Looks for every so manieth offset and timestamp in the files alone.
    fn check_files(&self, stride: usize, data: &Path) {
        let name = PartitionName::new("orders", 0).unwrap();
        let look = |sought| {
            let report = find(data, &name, sought).unwrap();
            assert_eq!((report.start.get(), report.end.get()), (0, self.0.len() as i64));
            assert!(report.problems.is_empty(), "{sought:?}: {:#?}", report.problems);
            report
        };
        for (offset, (timestamp, first, last)) in self.0.iter().enumerate().step_by(stride) {
            let report = look(Sought::Offset(Offset::new(offset as i64)));
            let [found] = &report.found[..] else { panic!("offset {offset}: {report:?}") };
            assert_eq!((found.offset.get(), found.timestamp), (offset as i64, *timestamp));
            assert_eq!(id_of(found.value.as_ref().unwrap()), offset as u64);
            assert_eq!(found.batch.base_offset, *first);
            assert_eq!(i64::from(found.batch.last_offset_delta), last - first);
            let bytes = fs::read(&found.path).unwrap();
            let there = bytes.get(found.pos as usize..).is_some_and(|bytes| {
                batches(bytes)
                    .next()
                    .is_some_and(|batch| batch.is_ok_and(|it| it.base_offset().get() == *first))
            });
            assert!(there || found.journaled, "offset {offset}");
        }
        let end = Offset::new(self.0.len() as i64);
        for asked in [end, end.plus(1000)] {
            let missing = look(Sought::Offset(asked)).missing;
            assert_eq!(missing, Some(Missing::OutOfRange { asked, start: Offset::ZERO, end }));
        }
        let newest = self.0.iter().map(|(timestamp, ..)| *timestamp).max().unwrap();
        let asked = (900..=newest + 2).step_by(stride);
        for asked_ms in [i64::MIN, -1, 0].into_iter().chain(asked).chain([i64::MAX]) {
            let report = look(Sought::Time(asked_ms));
            let found = report.found.first().map(|found| (found.offset.get(), found.timestamp));
            assert_eq!(found, self.at(asked_ms), "the first one from {asked_ms} on");
            let late = Missing::AfterEnd { asked_ms, newest_ms: Some(newest) };
            assert_eq!(report.missing, found.is_none().then_some(late));
        }
    }
}

/// A log of several segments, of small batches and larger ones, rolled in between.
fn fill(log: &LogHandle) -> Model {
    let mut model = Model::default();
    for n in 0..240_u64 {
        model.append(log, 1 + n % 4, if n % 9 == 0 { 3000 } else { 60 });
        if n % 50 == 49 {
            log.roll_blocking().unwrap();
        }
    }
    model
}

fn config(config: &Config) -> Config {
    Config { index_interval_bytes: 512, shards: 1, ..config.clone() }
}

#[test]
fn every_offset_and_every_timestamp_is_found() {
    everywhere("find", |given| {
        let config = config(&given);
        let engine = Engine::open(config.clone()).unwrap();
        let log = engine.log("orders", 0).unwrap();
        let model = fill(&log);
        model.check(&log);
        model.check(&log);
        engine.close().unwrap();
        let engine = Engine::open(config.clone()).unwrap();
        let log = engine.log("orders", 0).unwrap();
        model.check(&log);
        engine.abandon();
        model.check_files(3, &config.dir);
        Engine::open(config.clone()).unwrap().close().unwrap();
        verified(&config.dir);
        model.check_files(1, &config.dir);
    });
}

#[test]
fn nothing_is_found_beyond_the_isolation_bound() {
    everywhere("bound", |given| {
        let config = config(&given);
        let engine = Engine::open(config).unwrap();
        let log = engine.log("orders", 0).unwrap();
        log.set_flush_policy_blocking(ringmain::types::FlushPolicy::Os).unwrap();
        log.append_blocking(some(0..1, 0, 100)).unwrap();
        log.flush_blocking().unwrap();
        log.append_blocking(some(1..20, 0, 100)).unwrap();
        let marks = log.watermarks_blocking().unwrap();
        assert_eq!((marks.durable.get(), marks.dirty.get()), (1, 20));
        let asked = timestamp(12);
        assert_eq!(log.find_time_blocking(asked, Isolation::Durable), Ok(None));
        let found = log.find_time_blocking(asked, Isolation::Dirty).unwrap().unwrap();
        assert_eq!(found.offset.get(), 12);
        let at = Offset::new(12);
        assert!(log.find_offset_blocking(at, Isolation::Durable).is_err());
        assert!(log.find_offset_blocking(at, Isolation::Dirty).unwrap().is_some());
    });
}

/// The sealed segments' indexes by offset and by time, oldest first.
fn indexes(data: &Path) -> Vec<[PathBuf; 2]> {
    let dir = data.join("orders-0");
    let names = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
    let mut seals: Vec<PathBuf> = names.filter(|p| p.extension().unwrap() == "seal").collect();
    seals.sort();
    seals.into_iter().map(|p| [p.with_extension("index"), p.with_extension("timeindex")]).collect()
}

/// Harms one file of each kind, in two segments.
fn harm(data: &Path, kind: usize, how: impl Fn(&Path)) -> Vec<PathBuf> {
    let all = indexes(data);
    let harmed: Vec<PathBuf> = [1, 3].into_iter().map(|at| all[at][kind].clone()).collect();
    for path in &harmed {
        how(path);
    }
    harmed
}

fn cut(path: &Path, length: impl Fn(u64) -> u64) {
    let file = fs::File::options().write(true).open(path).unwrap();
    let whole = file.metadata().unwrap().len();
    file.set_len(length(whole)).unwrap();
}

#[test]
fn lookups_are_right_whatever_became_of_the_indexes_and_these_are_written_anew() {
    everywhere("doubt", |given| {
        let config = config(&given);
        let engine = Engine::open(config.clone()).unwrap();
        let model = fill(&engine.log("orders", 0).unwrap());
        engine.close().unwrap();
        let all = indexes(&config.dir);
        assert!(all.len() >= 4);
        let good: Vec<[Vec<u8>; 2]> =
            all.iter().map(|pair| pair.clone().map(|path| fs::read(path).unwrap())).collect();
        let entry = [8, 12];
        for kind in [0, 1] {
            let other = &good[2][kind];
            let harms: [(&str, &dyn Fn(&Path)); 8] = [
                ("gone", &|path| fs::remove_file(path).unwrap()),
                ("empty", &|path| cut(path, |_| 0)),
                ("a wrong length", &|path| cut(path, |whole| whole - 3)),
                ("cut", &|path| cut(path, |whole| whole / 2 / entry[kind] * entry[kind])),
                ("zeros behind", &|path| cut(path, |whole| whole + 5 * entry[kind])),
                ("garbage", &|path| fs::write(path, vec![0x5a; 480]).unwrap()),
                ("another's", &|path| fs::write(path, other).unwrap()),
                ("unsorted", &|path| {
                    let mut bytes = fs::read(path).unwrap();
                    let size = entry[kind] as usize;
                    bytes[..2 * size].rotate_left(size);
                    fs::write(path, bytes).unwrap();
                }),
            ];
            for (what, how) in harms {
                let harmed = harm(&config.dir, kind, how);
                model.check_files(13, &config.dir);
                let engine = Engine::open(config.clone()).unwrap();
                let log = engine.log("orders", 0).unwrap();
                model.check_every(13, &log);
                let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
                for path in &harmed {
                    let at = all.iter().position(|pair| pair.contains(path)).unwrap();
                    while fs::read(path).ok().as_ref() != Some(&good[at][kind]) {
                        let name = path.display();
                        assert!(std::time::Instant::now() < deadline, "{what}: {name}");
                        model.check_every(13, &log);
                    }
                }
                model.check_every(13, &log);
                engine.close().unwrap();
                verified(&config.dir);
            }
        }
    });
}

#[test]
fn what_is_journaled_alone_is_found_in_the_files() {
    let dir = Dir::new("find-journaled");
    let config = config(&small(&dir.join("data")));
    let engine = Engine::open(config.clone()).unwrap();
    let log = engine.log("orders", 0).unwrap();
    let mut model = Model::default();
    for _ in 0..40 {
        model.append(&log, 2, 60);
    }
    engine.abandon();
    model.check_files(1, &config.dir);
    let name = PartitionName::new("orders", 0).unwrap();
    let report = find(&config.dir, &name, Sought::Offset(Offset::new(79))).unwrap();
    assert!(report.found[0].journaled, "{report:?}");
}

#[test]
fn the_index_leads_past_all_but_one_interval_and_past_damage() {
    let dir = Dir::new("find-damage");
    let config = config(&small(&dir.join("data")));
    let engine = Engine::open(config.clone()).unwrap();
    let log = engine.log("orders", 0).unwrap();
    let mut model = Model::default();
    for _ in 0..400 {
        model.append(&log, 1, 500);
    }
    log.roll_blocking().unwrap();
    model.append(&log, 1, 500);
    engine.close().unwrap();
    let name = PartitionName::new("orders", 0).unwrap();
    let look = |sought| find(&config.dir, &name, sought).unwrap();
    let offset = |offset| look(Sought::Offset(Offset::new(offset)));
    let harmed = offset(200).found.swap_remove(0);
    let mut bytes = fs::read(&harmed.path).unwrap();
    bytes[harmed.pos as usize + 100] ^= 1;
    fs::write(&harmed.path, bytes).unwrap();

    let report = offset(390);
    assert_eq!((report.found.len(), report.problems.len()), (1, 0), "{report:?}");
    let looked = report.looked;
    assert_eq!((looked.index, looked.segments), (IndexUse::Used, 1));
    assert!(looked.batches <= 3 && looked.index_entries <= 12, "{looked:?}");
    assert!(looked.log_bytes <= 32 << 10, "{looked:?}");

    let report = offset(200);
    assert_eq!((report.found.len(), report.missing), (0, Some(Missing::Damaged)));
    assert_eq!(report.problems[0].pos, harmed.pos);
    assert_eq!(report.problems[0].offset, Some(harmed.offset));
    let newest_ms = model.0.iter().map(|(timestamp, ..)| *timestamp).max();
    let report = look(Sought::Time(i64::MAX));
    assert_eq!(report.missing, Some(Missing::AfterEnd { asked_ms: i64::MAX, newest_ms }));
    assert!(report.problems.is_empty(), "the seal knows, without a look at the damage");
    let report = look(Sought::Key { key: b"none", records_max: 1 });
    assert_eq!((report.missing, report.problems.len()), (Some(Missing::Damaged), 1));
}
