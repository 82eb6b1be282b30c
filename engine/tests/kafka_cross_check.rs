//! Our batches against those of `kafka-protocol`, an independent implementation, both ways.

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression as TheirCompression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID,
    Record, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use ringmain::batch::{Batch, BatchBuilder, Codec, Compression, Header, batches};

const NOW_MS: i64 = 1_700_000_000_000;

/// Small records; and records of several compressor blocks, half of them noise.
fn workloads() -> [Vec<Record>; 3] {
    let small = (0..20).map(|i| record(i, Some(vec![b'v'; i as usize]))).collect();
    let text = (0..3000).map(|i| record(i, Some(format!("value number {i}").into()))).collect();
    let mut state = 1_u64;
    let mut noise = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    let large = (0..6)
        .map(|i| {
            record(i, Some((0..100_000).map(|_| if i % 2 == 0 { noise() } else { 3 }).collect()))
        })
        .collect();
    [small, text, large]
}

fn record(i: i64, value: Option<Vec<u8>>) -> Record {
    let mut record = Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
        producer_id: NO_PRODUCER_ID,
        producer_epoch: NO_PRODUCER_EPOCH,
        timestamp_type: TimestampType::Creation,
        offset: i,
        sequence: i as i32 - 1,
        timestamp: NOW_MS + i,
        key: (i % 3 != 0).then(|| Bytes::from(format!("key {i}"))),
        value: value.filter(|_| i % 7 != 1).map(Bytes::from),
        headers: [].into(),
    };
    for n in 0..i % 3 {
        let value = (n != 1).then(|| Bytes::from_static(b"header value"));
        record.headers.insert(StrBytes::from_string(format!("header {n}")), value);
    }
    record
}

fn ours(records: &[Record], compression: Compression) -> Batch {
    let mut builder = BatchBuilder::new().compression(compression);
    for record in records {
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|(key, value)| Header { key: key.as_bytes(), value: value.as_deref() })
            .collect();
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        builder.add_with_headers(record.timestamp, key, value, &headers).unwrap();
    }
    builder.build().unwrap()
}

fn theirs(records: &[Record], compression: TheirCompression) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression };
    RecordBatchEncoder::encode(&mut bytes, records, &options).unwrap();
    bytes.to_vec()
}

#[test]
fn plain_batches_are_equal_byte_for_byte() {
    for records in workloads() {
        let theirs = theirs(&records, TheirCompression::None);
        assert!(ours(&records, Compression::None).as_bytes() == theirs);
    }
}

#[test]
fn they_read_what_we_write() {
    for records in workloads() {
        for (compression, name) in [
            (Compression::None, TheirCompression::None),
            (Compression::Lz4, TheirCompression::Lz4),
            (Compression::Zstd { level: 3 }, TheirCompression::Zstd),
        ] {
            let mut bytes = Bytes::from(ours(&records, compression).into_bytes());
            let read = RecordBatchDecoder::decode(&mut bytes).unwrap();
            assert_eq!(read.compression, name);
            assert!(read.records == records, "{compression:?}");
        }
    }
}

#[test]
fn we_read_what_they_write() {
    for records in workloads() {
        for (compression, codec) in [
            (TheirCompression::None, Codec::None),
            (TheirCompression::Gzip, Codec::Gzip),
            (TheirCompression::Snappy, Codec::Snappy),
            (TheirCompression::Lz4, Codec::Lz4),
            (TheirCompression::Zstd, Codec::Zstd),
        ] {
            let batch = Batch::from_bytes(theirs(&records, compression)).unwrap();
            let view = batches(batch.as_bytes()).next().unwrap().unwrap();
            assert_eq!(view.codec(), codec);
            let mut read = view.records().unwrap();
            for expected in &records {
                let record = read.next().unwrap().unwrap();
                assert_eq!(record.offset.get(), expected.offset);
                assert_eq!(record.timestamp, expected.timestamp);
                assert_eq!(record.key, expected.key.as_deref());
                assert_eq!(record.value, expected.value.as_deref());
                let headers =
                    expected.headers.iter().map(|(key, value)| (key.as_bytes(), value.as_deref()));
                assert!(record.headers().map(|it| (it.key, it.value)).eq(headers));
            }
            assert!(read.next().is_none(), "{codec:?}");
        }
    }
}
