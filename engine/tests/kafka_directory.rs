//! A directory that Kafka made opens, is read, is gone on with, and verifies; whatever else it may be is refused.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use kafka_protocol::records::{
    Compression, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, Record, RecordBatchEncoder,
    RecordEncodeOptions, TimestampType,
};
use ringmain::Engine;
use ringmain::batch::batches;
use ringmain::error::OpenError;
use ringmain::inspect::{FindError, Missing, Sought, find, verify};
use ringmain::types::{Isolation, Offset, PartitionName};

use crate::support::{Dir, batch, everywhere, id_of, read_all, small, value, verified};

/// A batch as Kafka's broker leaves it: of the records with these offsets, the others compacted away.
fn kafkas(offsets: &[i64], compression: Compression) -> Vec<u8> {
    let records: Vec<Record> = offsets
        .iter()
        .map(|offset| Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: 2,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            timestamp_type: TimestampType::Creation,
            offset: *offset,
            sequence: (offset - offsets[0]) as i32 - 1,
            timestamp: 1_700_000_000_000 + offset,
            key: Some(Bytes::from_static(b"key")),
            value: Some(Bytes::from(value(*offset as u64, 500))),
            headers: [].into(),
        })
        .collect();
    let mut bytes = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression };
    RecordBatchEncoder::encode(&mut bytes, &records, &options).unwrap();
    bytes.to_vec()
}

/// Two segments with gaps inside batches, between them and between the segments. Returns the offsets there are.
fn make(data: &Path) -> Vec<i64> {
    let dir = data.join("kafka.topic-3");
    fs::create_dir_all(&dir).unwrap();
    let codecs = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];
    let (mut offsets, mut next) = (Vec::new(), 100);
    for base in [100, 1000] {
        let mut segment = Vec::new();
        next = next.max(base);
        for n in 0..20 {
            let here: Vec<i64> = (0..4).map(|i| next + i).collect();
            segment.extend(kafkas(&here, codecs[n % codecs.len()]));
            offsets.extend(&here);
            // Every third batch that followed was compacted away whole.
            next += if n % 3 == 0 { 11 } else { 4 };
        }
        fs::write(dir.join(format!("{base:020}.log")), segment).unwrap();
        fs::write(dir.join(format!("{base:020}.index")), []).unwrap();
        fs::write(dir.join(format!("{base:020}.timeindex")), []).unwrap();
    }
    fs::write(dir.join("leader-epoch-checkpoint"), "0\n1\n2 100\n").unwrap();
    fs::write(dir.join("partition.metadata"), "version: 0\ntopic_id: x\n").unwrap();
    fs::write(dir.join("00000000000000001000.snapshot"), [0; 10]).unwrap();
    fs::write(data.join("meta.properties"), "version=1\n").unwrap();
    fs::write(data.join("recovery-point-offset-checkpoint"), "0\n1\nkafka.topic 3 0\n").unwrap();
    fs::write(data.join("log-start-offset-checkpoint"), "0\n0\n").unwrap();
    fs::write(data.join("cleaner-offset-checkpoint"), "0\n0\n").unwrap();
    offsets
}

#[test]
fn a_directory_that_kafka_made_opens_and_goes_on() {
    everywhere("kafka", |config| {
        fs::create_dir(&config.dir).unwrap();
        let offsets = make(&config.dir);
        let before = verified(&config.dir);
        assert_eq!((before.records, before.segments), (offsets.len() as u64, 2));
        let mut expected: Vec<i64> = offsets;
        for round in 0..2 {
            let engine = Engine::open(config.clone()).unwrap();
            let report = engine.recovery();
            assert!(report.damage.is_empty() && report.cuts.is_empty(), "{report:?}");
            let log = engine.log("kafka.topic", 3).unwrap();
            let marks = log.watermarks_blocking().unwrap();
            assert_eq!(marks.log_start.get(), 100);
            let records = read_all(&log, Offset::new(100), Isolation::Durable);
            let found: Vec<i64> = records.iter().map(|(offset, _)| *offset).collect();
            assert_eq!(found, expected);
            for (offset, bytes) in &records {
                assert_eq!(id_of(bytes), *offset as u64);
            }
            // An offset that was compacted away leads to the next one there is.
            let gap = log.read_blocking(Offset::new(105), 1, Isolation::Durable).unwrap();
            let first = batches(&gap).next().unwrap().unwrap();
            assert!(first.last_offset().get() >= 105);
            let next = marks.dirty.get();
            assert_eq!(next, expected.last().unwrap() + 1);
            let appended = log.append_blocking(batch([next as u64], 500)).unwrap();
            assert_eq!(appended.base_offset.get(), next);
            expected.push(next);
            if round == 0 {
                log.roll_blocking().unwrap();
            }
            engine.close().unwrap();
            verified(&config.dir);
        }
        for name in ["meta.properties", "kafka.topic-3/partition.metadata"] {
            assert!(config.dir.join(name).exists(), "{name} is left alone");
        }
    });
}

#[test]
fn kafkas_mark_of_a_clean_shutdown_does_not_outlive_an_opening() {
    everywhere("kafka-clean", |config| {
        fs::create_dir(&config.dir).unwrap();
        make(&config.dir);
        let mark = config.dir.join(".kafka_cleanshutdown");
        fs::write(&mark, "{\"version\":0,\"brokerEpoch\":5}").unwrap();
        let kept = ["t-0.5f3d-future", "u-1.77ab-stray", "remote-log-index-cache"];
        for name in kept {
            fs::create_dir(config.dir.join(name)).unwrap();
        }
        verified(&config.dir);
        let engine = Engine::open(config.clone()).unwrap();
        let log = engine.log("kafka.topic", 3).unwrap();
        log.append_blocking(batch([1], 500)).unwrap();
        // As a crash leaves it: Kafka must find no mark that says it need not look.
        engine.abandon();
        assert!(!mark.exists());
        for name in kept {
            assert!(config.dir.join(name).is_dir(), "{name} is left alone");
        }
        let names: Vec<_> = Engine::open(config).unwrap().partitions();
        assert_eq!(names.len(), 1, "{names:?}");
    });
}

#[test]
fn records_are_found_in_a_directory_that_kafka_made() {
    let dir = Dir::new("kafka-find");
    let data = dir.join("data");
    let offsets = make(&data);
    let name = PartitionName::new("kafka.topic", 3).unwrap();
    let look = |sought| find(&data, &name, sought).unwrap();
    let (start, last) = (Offset::new(100), *offsets.last().unwrap());
    for asked in (0..last + 3).map(Offset::new) {
        let report = look(Sought::Offset(asked));
        assert_eq!((report.start, report.end.get()), (start, last + 1));
        let found = report.found.first().map(|found| found.offset);
        let there = offsets.contains(&asked.get());
        assert_eq!(found, there.then_some(asked));
        let next = offsets.iter().copied().find(|next| *next > asked.get()).map(Offset::new);
        let expected = if there {
            None
        } else if asked < start || asked.get() > last {
            Some(Missing::OutOfRange { asked, start, end: report.end })
        } else {
            Some(Missing::Compacted { asked, next })
        };
        assert_eq!(report.missing, expected);
    }
    let report = look(Sought::Time(1_700_000_000_000 + 105));
    assert_eq!(report.found[0].offset.get(), 111, "of 104 to 110 nothing is left");
    let report = look(Sought::Key { key: b"key", records_max: 90 });
    let newest: Vec<i64> = report.found.iter().map(|found| found.offset.get()).collect();
    let expected: Vec<i64> = offsets.iter().rev().take(90).copied().collect();
    assert_eq!(newest, expected, "the newest first, of both segments");
    let report = look(Sought::Key { key: b"other", records_max: 1 });
    assert!(matches!(report.missing, Some(Missing::NoSuchKey { .. })));
    let other = PartitionName::new("kafka.topic", 4).unwrap();
    let Err(FindError::NoSuchPartition { there, .. }) = find(&data, &other, Sought::Time(0)) else {
        panic!("it is not there");
    };
    assert_eq!(there, std::slice::from_ref(&name));
    assert!(matches!(
        find(data.join("kafka.topic-3"), &name, Sought::Time(0)),
        Err(FindError::NotData(_))
    ));
}

#[test]
fn kafkas_torn_tail_is_cut_and_its_damage_is_reported() {
    let dir = Dir::new("kafka-torn");
    let data = dir.join("data");
    let offsets = make(&data);
    let last = data.join("kafka.topic-3/00000000000000001000.log");
    let mut bytes = fs::read(&last).unwrap();
    bytes.truncate(bytes.len() - 50);
    fs::write(&last, bytes).unwrap();
    let report = verify(&data).unwrap();
    assert!(report.is_healthy() && report.notes.len() == 1, "{report:?}");
    let name = PartitionName::new("kafka.topic", 3).unwrap();
    let torn = Offset::new(*offsets.last().unwrap());
    let found = find(&data, &name, Sought::Offset(torn)).unwrap();
    assert!(matches!(found.missing, Some(Missing::OutOfRange { end, .. }) if end < torn));
    assert!(found.problems.is_empty() && found.notes.len() == 1, "{found:?}");
    let engine = Engine::open(small(&data)).unwrap();
    assert_eq!(engine.recovery().cuts.len(), 1);
    let log = engine.log("kafka.topic", 3).unwrap();
    let records = read_all(&log, Offset::new(100), Isolation::Durable);
    assert_eq!(records.len(), offsets.len() - 4);
}

#[test]
fn a_directory_of_something_else_is_refused_and_left_as_it_was() {
    let dir = Dir::new("foreign");
    fs::write(dir.join("letter.txt"), "dear reader").unwrap();
    let refused = Engine::open(small(dir.path()));
    assert!(matches!(refused, Err(OpenError::Foreign { found, .. }) if found == "letter.txt"));
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["letter.txt"], "nothing was written");
    assert!(matches!(verify(dir.path()), Err(OpenError::Foreign { .. })));
}

/// A segment of one batch, such that it ends at the byte `end`, and all before is a hole: an index leads to it, as far
/// as a recovery looks.
fn long(data: &Path, end: u64) {
    let dir = data.join("kafka.topic-3");
    fs::create_dir_all(&dir).unwrap();
    let bytes = kafkas(&[7], Compression::None);
    let pos = end - bytes.len() as u64;
    let file = fs::File::create(dir.join("00000000000000000000.log")).unwrap();
    file.write_all_at(&bytes, pos).unwrap();
    let entry = [7_u32.to_be_bytes(), (pos as u32).to_be_bytes()].concat();
    fs::write(dir.join("00000000000000000000.index"), entry).unwrap();
    fs::write(dir.join("00000000000000000000.timeindex"), "").unwrap();
    fs::write(data.join("recovery-point-offset-checkpoint"), "0\n1\nkafka.topic 3 8\n").unwrap();
}

#[test]
fn a_segment_that_kafka_filled_to_the_last_position_is_read_and_not_appended_to() {
    let dir = Dir::new("kafka-long");
    let data = dir.join("data");
    long(&data, i32::MAX as u64);
    let engine = Engine::open(small(&data)).unwrap();
    assert!(engine.recovery().cuts.is_empty() && engine.recovery().damage.is_empty());
    let log = engine.log("kafka.topic", 3).unwrap();
    assert_eq!(log.append_blocking(batch([1], 10)).unwrap().base_offset, Offset::new(8));
    let names: Vec<Offset> =
        log.segments_blocking().unwrap().iter().map(|it| it.base_offset).collect();
    assert_eq!(names, [Offset::ZERO, Offset::new(8)]);
    assert_eq!(read_all(&log, Offset::new(8), Isolation::Durable).len(), 1);
    engine.close().unwrap();
    let length = fs::metadata(data.join("kafka.topic-3/00000000000000000000.log")).unwrap().len();
    assert_eq!(length, i32::MAX as u64, "it is as it was");
}

#[test]
fn a_segment_beyond_the_last_position_is_no_reason_to_fall() {
    let dir = Dir::new("kafka-too-long");
    let data = dir.join("data");
    for end in [i32::MAX as u64 + 1, i32::MAX as u64 + 5000] {
        long(&data, end);
        let engine = Engine::open(small(&data)).unwrap();
        let recovery = engine.recovery();
        assert_eq!(recovery.cuts.len() + recovery.damage.len(), 1, "{recovery:?}");
        drop(engine);
        fs::remove_dir_all(&data).unwrap();
    }
}
