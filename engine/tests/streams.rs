//! Streams of records: every codec, async and blocking, and what does not decompress.

use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use kafka_protocol::records::{
    Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, Record,
    RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use ringmain::batch::{Batch, BatchError, Header};
use ringmain::format::crc::crc32c;
use ringmain::types::Offset;
use ringmain::{AfterDamage, Engine, StreamError, StreamOptions};

use crate::support::{block_on, everywhere};

const CODECS: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

/// Records as another client encodes them, five to a batch.
fn encoded(batch: i64, compression: Compression) -> Batch {
    let records: Vec<Record> = (0..5)
        .map(|n| Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            timestamp_type: TimestampType::Creation,
            offset: n,
            sequence: n as i32 - 1,
            timestamp: 1000 * batch + n,
            key: (n != 1).then(|| Bytes::from(format!("key {batch}"))),
            value: (n != 2).then(|| Bytes::from(value(batch, n))),
            headers: [("number".into(), Some(Bytes::from(n.to_string())))].into_iter().collect(),
        })
        .collect();
    let mut bytes = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression };
    RecordBatchEncoder::encode(&mut bytes, &records, &options).unwrap();
    Batch::from_bytes(bytes.to_vec()).unwrap()
}

fn value(batch: i64, n: i64) -> Vec<u8> {
    format!("value {n} of {batch} ").into_bytes().repeat(1 + 40 * n as usize)
}

/// Where the attributes of a batch are.
const ATTRIBUTES: std::ops::Range<usize> = 21..23;

/// The batch with other attributes, and the checksum that goes with them.
fn with_attributes(batch: Batch, change: impl Fn(i16) -> i16) -> Batch {
    let mut bytes = batch.into_bytes();
    let was = i16::from_be_bytes(bytes[ATTRIBUTES].try_into().unwrap());
    bytes[ATTRIBUTES].copy_from_slice(&change(was).to_be_bytes());
    let crc = crc32c(&bytes[ATTRIBUTES.start..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    Batch::from_bytes(bytes).unwrap()
}

fn check(record: &ringmain::Record) {
    let offset = record.offset().get();
    let (batch, n) = (offset / 5, offset % 5);
    assert_eq!(record.timestamp(), 1000 * batch + n);
    assert_eq!(record.key(), (n != 1).then(|| format!("key {batch}").into_bytes()).as_deref());
    assert_eq!(record.value(), (n != 2).then(|| value(batch, n)).as_deref());
    let number = n.to_string();
    let headers: Vec<_> = record.headers().collect();
    assert_eq!(headers, [Header::new("number", number.as_bytes())]);
    assert!(!record.is_control() && record.attributes() == 0);
}

#[test]
fn every_codec_is_streamed_async_and_blocking() {
    everywhere("streams", |config| {
        let engine = Engine::open(config).unwrap();
        let log = engine.log("streams", 0).unwrap();
        for batch in 0..50 {
            log.append_blocking(encoded(batch, CODECS[batch as usize % 5])).unwrap();
        }
        for (from, fetch_bytes) in [(0, 1 << 20), (7, 1), (123, 5000), (250, 1 << 20)] {
            let options = StreamOptions { fetch_bytes, ..StreamOptions::default() };
            let mut next = from;
            for record in log.records_blocking(Offset::new(from), options) {
                let record = record.unwrap();
                check(&record);
                assert_eq!(record.offset(), Offset::new(next));
                next += 1;
            }
            assert_eq!(next, 250);
            let mut stream = log.records(Offset::new(from), options);
            let count = block_on(async {
                let mut count = 0;
                while let Some(record) =
                    std::future::poll_fn(|cx| Pin::new(&mut stream).poll_next(cx)).await
                {
                    check(&record.unwrap());
                    count += 1;
                }
                count
            });
            assert_eq!((count, stream.position()), (250 - from, Offset::new(250)));
        }
    });
}

#[test]
fn a_stream_follows_and_its_records_outlive_it() {
    everywhere("streams-follow", |config| {
        let engine = Engine::open(config).unwrap();
        let log = engine.log("streams", 0).unwrap();
        let follow = StreamOptions { follow: true, ..StreamOptions::default() };
        let reader = {
            let log = log.clone();
            std::thread::spawn(move || {
                let records = log.records_blocking(Offset::ZERO, follow);
                records.take(100).map(Result::unwrap).collect::<Vec<_>>()
            })
        };
        for batch in 0..20 {
            log.append_blocking(encoded(batch, CODECS[batch as usize % 5])).unwrap();
        }
        let kept = reader.join().unwrap();
        engine.close().unwrap();
        assert_eq!(kept.len(), 100);
        kept.iter().for_each(check);
        let mut ended = log.records_blocking(Offset::ZERO, follow);
        assert!(matches!(ended.next(), Some(Err(StreamError::Read(_)))), "the engine is closed");
        assert!(ended.next().is_none());
    });
}

#[test]
fn records_that_do_not_decompress_are_told_and_can_be_passed_over() {
    everywhere("streams-hostile", |config| {
        let engine = Engine::open(config).unwrap();
        let log = engine.log("streams", 0).unwrap();
        for number in 0..8 {
            // Plain records that say they were compressed: their checksum is right.
            let codec = if number % 2 == 1 { 1 + number as i16 / 2 } else { 0 };
            let batch = encoded(number, Compression::None);
            log.append_blocking(with_attributes(batch, |was| was | codec)).unwrap();
        }
        // And an honest one that is larger than the reader wants.
        log.append_blocking(encoded(8, Compression::Zstd)).unwrap();
        let pass = StreamOptions {
            after_damage: AfterDamage::PassOver,
            decompressed_bytes: 100,
            ..StreamOptions::default()
        };
        let (mut offsets, mut told) = (Vec::new(), Vec::new());
        for record in log.records_blocking(Offset::ZERO, pass) {
            match record {
                Ok(record) => offsets.push(record.offset().get()),
                Err(StreamError::Batch { base, last, source: BatchError::Codec { .. } }) => {
                    told.push((base.get(), last.get()));
                }
                Err(error) => panic!("{error}"),
            }
        }
        let good: Vec<i64> = (0..40).filter(|offset| offset / 5 % 2 == 0).collect();
        assert_eq!(offsets, good);
        assert_eq!(told, [(5, 9), (15, 19), (25, 29), (35, 39), (40, 44)]);
        let ends: Vec<_> = log.records_blocking(Offset::ZERO, StreamOptions::default()).collect();
        assert_eq!(ends.len(), 6, "five records and the error");
        assert!(matches!(ends.last(), Some(Err(StreamError::Batch { .. }))));
    });
}
