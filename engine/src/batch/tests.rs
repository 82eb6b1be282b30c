use std::io::Write;

use super::*;
use crate::format::batch_header::{
    ATTRIBUTES_AT, BATCH_LENGTH_AT, CRC_AT, HEADER_BYTES, LEADER_EPOCH_AT, set_append_time,
    set_base_offset,
};
use crate::format::crc::crc32c;
use crate::types::Offset;

mod hostile;

const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

/// Three records: a whole one, a tombstone earlier than the first, and one with headers only.
fn sample(compression: Compression) -> Batch {
    let mut builder = BatchBuilder::new().compression(compression);
    builder.add(1_000, Some(b"key"), Some(b"value")).unwrap();
    builder.add(900, Some(b"key"), None).unwrap();
    let headers = [Header::new("h", b"1"), Header { key: b"h", value: None }];
    builder.add_with_headers(1_100, None, None, &headers).unwrap();
    builder.build().unwrap()
}

/// A batch around `section` with a right length and checksum, whatever else is in it.
fn craft(header: BatchHeader, section: &[u8]) -> Vec<u8> {
    let batch_length = (HEADER_BYTES - LEADER_EPOCH_AT + section.len()) as i32;
    let header = BatchHeader { batch_length, ..header };
    signed([&header.encode()[..], section].concat())
}

fn signed(mut batch: Vec<u8>) -> Vec<u8> {
    let crc = crc32c(&batch[ATTRIBUTES_AT..]);
    batch[CRC_AT..ATTRIBUTES_AT].copy_from_slice(&crc.to_be_bytes());
    batch
}

/// `records` (plain, encoded) in a batch of any codec, those we do not write included.
fn recoded(batch: &Batch, codec: Codec) -> Vec<u8> {
    let records = &batch.as_bytes()[HEADER_BYTES..];
    let section = match codec {
        Codec::None => records.to_vec(),
        Codec::Gzip => gzip(records),
        Codec::Snappy => snap::raw::Encoder::new().compress_vec(records).unwrap(),
        Codec::Lz4 | Codec::Zstd => {
            let compression = match codec {
                Codec::Lz4 => Compression::Lz4,
                _ => Compression::Zstd { level: 3 },
            };
            let mut bytes = records.to_vec();
            codec::compress(compression, &mut bytes, 0).unwrap();
            bytes
        }
    };
    craft(BatchHeader { attributes: Attributes::new(codec), ..batch.header() }, &section)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

type OffsetAndValue = (i64, Option<Vec<u8>>);

fn offsets_and_values(bytes: &[u8]) -> Result<Vec<OffsetAndValue>, BatchError> {
    let mut seen = Vec::new();
    for batch in batches(bytes) {
        for record in batch?.records()? {
            let record = record?;
            seen.push((record.offset.get(), record.value.map(<[u8]>::to_vec)));
        }
    }
    Ok(seen)
}

fn strict(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
    validate(bytes, &Limits::default())
}

#[test]
fn built_bytes_are_those_of_the_specification() {
    let mut builder = BatchBuilder::new();
    builder.add(1_700_000_000_000, Some(b"key"), Some(b"value")).unwrap();
    let headers = [Header::new("h", b"v"), Header { key: b"n", value: None }];
    builder.add_with_headers(1_700_000_000_100, None, None, &headers).unwrap();
    let mut batch = builder.build().unwrap().into_bytes();
    set_base_offset(&mut batch, Offset::new(5));
    let golden = "00000000000000050000004fffffffff02466abe820000000000010000018bcfe56800\
                  0000018bcfe56864ffffffffffffffffffffffffffff000000021c000000066b65790a\
                  76616c7565001c00c8010201010402680276026e01";
    let digits: Vec<u8> = golden.bytes().filter(u8::is_ascii_hexdigit).collect();
    let golden: Vec<u8> = digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    assert_eq!(batch, golden);
}

#[test]
fn a_record_comes_back_as_it_went_in() {
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd { level: 1 }] {
        let mut bytes = sample(compression).into_bytes();
        set_base_offset(&mut bytes, Offset::new(70));
        let view = BatchView::new(&bytes).unwrap();
        assert_eq!((view.base_offset().get(), view.last_offset().get()), (70, 72));
        assert_eq!(view.codec(), compression.codec());
        for _ in 0..2 {
            let records: Vec<_> = view.records().unwrap().map(Result::unwrap).collect();
            let times: Vec<_> = records.iter().map(|it| (it.offset.get(), it.timestamp)).collect();
            assert_eq!(times, [(70, 1_000), (71, 900), (72, 1_100)]);
            assert_eq!(
                (records[0].key, records[0].value),
                (Some(&b"key"[..]), Some(&b"value"[..]))
            );
            assert_eq!((records[1].key, records[1].value), (Some(&b"key"[..]), None));
            let headers: Vec<_> = records[2].headers().map(|it| (it.key, it.value)).collect();
            assert_eq!(headers, [(&b"h"[..], Some(&b"1"[..])), (b"h", None)]);
        }
    }
}

#[test]
fn a_built_batch_is_one_that_is_accepted() {
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd { level: 19 }] {
        let batch = sample(compression);
        assert_eq!(strict(batch.as_bytes()).unwrap(), batch.header());
        assert_eq!(Batch::from_bytes(batch.as_bytes().to_vec()).unwrap(), batch);
        assert_eq!(batch.record_count(), 3);
        assert_eq!(batch.header().max_timestamp, 1_100);
        assert_eq!((batch.header().leader_epoch, batch.header().producer_id), (-1, -1));
    }
}

#[test]
fn the_producer_is_named() {
    let producer = Producer { id: 1 << 40, epoch: 3, base_sequence: 77 };
    let mut builder = BatchBuilder::new().producer(producer);
    builder.add(-1, None, None).unwrap();
    let header = builder.build().unwrap().header();
    assert_eq!((header.producer_id, header.producer_epoch), (producer.id, producer.epoch));
    assert_eq!((header.base_sequence, header.max_timestamp), (77, -1));
}

#[test]
fn a_builder_goes_on_after_a_refused_record() {
    let mut builder = BatchBuilder::new();
    let big = vec![0; crate::limits::RECORD_BYTES_MAX / 2];
    builder.add(1, None, Some(&big)).unwrap();
    let before = builder.encoded_bytes();
    let full = builder.add(1, None, Some(&vec![0; 8 * 1024 * 1024]));
    assert!(matches!(full, Err(BatchError::Full { .. })), "{full:?}");
    let huge = builder.add(1, Some(&big), Some(&big));
    assert!(matches!(huge, Err(BatchError::RecordTooLarge { .. })), "{huge:?}");
    let headers = vec![Header::new("", b""); crate::limits::RECORD_HEADERS_MAX as usize + 1];
    let many = builder.add_with_headers(1, None, None, &headers);
    assert!(matches!(many, Err(BatchError::RecordTooLarge { .. })), "{many:?}");
    let early = builder.add(-2, None, None);
    assert!(matches!(early, Err(BatchError::Timestamp { timestamp: -2 })), "{early:?}");
    assert_eq!((builder.encoded_bytes(), builder.len()), (before, 1));
    builder.add(2, None, None).unwrap();
    assert_eq!(strict(builder.build().unwrap().as_bytes()).unwrap().record_count, 2);
    assert!(matches!(BatchBuilder::new().build(), Err(BatchError::Empty)));
}

#[test]
fn the_largest_record_has_a_batch_of_its_own() {
    let mut builder = BatchBuilder::new();
    let value = vec![7; crate::limits::RECORD_BYTES_MAX - 13];
    builder.add(0, None, Some(&value)).unwrap();
    let batch = builder.build().unwrap();
    strict(batch.as_bytes()).unwrap();
    let smaller = Limits { batch_bytes: batch.as_bytes().len() - 1, ..Limits::default() };
    let refused = validate(batch.as_bytes(), &smaller);
    assert!(matches!(refused, Err(BatchError::TooLarge { .. })), "{refused:?}");
}

#[test]
fn memory_is_kept_from_batch_to_batch() {
    let mut memory = Vec::with_capacity(4096);
    let (start, capacity) = (memory.as_ptr(), memory.capacity());
    for _ in 0..3 {
        let mut builder = BatchBuilder::reuse(memory);
        builder.add(1, None, Some(&[1; 1000])).unwrap();
        memory = builder.build().unwrap().into_bytes();
        assert_eq!((memory.as_ptr(), memory.capacity()), (start, capacity));
    }
}

#[test]
fn an_append_refuses_what_a_log_may_hold() {
    let batch = sample(Compression::None);
    let records = batch.as_bytes()[HEADER_BYTES..].to_vec();
    let header = batch.header();

    let gaps = craft(BatchHeader { last_offset_delta: 9, ..header }, &records);
    assert!(matches!(strict(&gaps), Err(BatchError::Count { .. })));
    assert_eq!(validate_stored(&gaps).unwrap().record_count, 3);
    assert_eq!(BatchView::new(&gaps).unwrap().last_offset().get(), 9);

    let control = BatchHeader { attributes: Attributes::from_bits(0x20), ..header };
    let control = craft(control, &records);
    assert!(matches!(strict(&control), Err(BatchError::Control)));
    validate_stored(&control).unwrap();

    for compressed in [0, 3] {
        let attributes = Attributes::from_bits(compressed);
        let emptied = craft(BatchHeader { record_count: 0, attributes, ..header }, &[]);
        assert!(matches!(strict(&emptied), Err(BatchError::Count { .. })));
        assert_eq!(offsets_and_values(&emptied).unwrap(), []);
    }
}

#[test]
fn compaction_gaps_inside_a_batch_are_read_as_they_are() {
    let batch = sample(Compression::None);
    let mut records = &batch.as_bytes()[HEADER_BYTES..];
    let first = records.len();
    crate::format::record::RawRecord::decode(&mut records, 9).unwrap();
    let first = first - records.len();
    let rest = &batch.as_bytes()[HEADER_BYTES + first..];
    let gaps = craft(BatchHeader { record_count: 2, base_offset: 40, ..batch.header() }, rest);
    assert_eq!(offsets_and_values(&gaps).unwrap(), [(41, None), (42, None)]);
}

#[test]
fn headers_that_contradict_themselves_are_refused_by_name() {
    use BatchError::{Count, Offsets, TooManyRecords, UnknownCodec};
    let batch = sample(Compression::None);
    let records = &batch.as_bytes()[HEADER_BYTES..];
    let with = |change: fn(&mut BatchHeader)| {
        let mut header = batch.header();
        change(&mut header);
        let bytes = craft(header, records);
        (strict(&bytes), validate_stored(&bytes))
    };
    for bits in 5..8 {
        let attributes = Attributes::from_bits(bits);
        let bytes = craft(BatchHeader { attributes, ..batch.header() }, records);
        assert!(matches!(strict(&bytes), Err(UnknownCodec { .. })));
        assert!(matches!(validate_stored(&bytes), Err(UnknownCodec { .. })));
    }
    let (append, stored) = with(|it| it.record_count = 4);
    assert!(matches!((append, stored), (Err(Count { .. }), Err(Count { .. }))));
    let (append, stored) = with(|it| it.record_count = -1);
    assert!(matches!((append, stored), (Err(Count { .. }), Err(Count { .. }))));
    let (append, stored) = with(|it| it.last_offset_delta = -1);
    assert!(matches!((append, stored), (Err(Count { .. }), Err(Offsets { .. }))));
    let (append, stored) = with(|it| it.base_offset = -1);
    assert!(matches!((append, stored), (Ok(_), Err(Offsets { .. }))));
    let (_, stored) = with(|it| it.base_offset = i64::MAX - 2);
    assert!(matches!(stored, Err(Offsets { .. })));
    let (append, _) = with(|it| {
        it.attributes = Attributes::new(Codec::Lz4);
        it.record_count = i32::MAX;
        it.last_offset_delta = i32::MAX - 1;
    });
    assert!(matches!(append, Err(TooManyRecords { .. })), "a claim that takes all offsets");
}

#[test]
fn records_that_contradict_their_batch_are_refused_by_name() {
    let batch = sample(Compression::None);
    let records = &batch.as_bytes()[HEADER_BYTES..];
    let refused = |section: &[u8], count: i32| {
        let last_offset_delta = count - 1;
        let header = BatchHeader { record_count: count, last_offset_delta, ..batch.header() };
        let bytes = craft(header, section);
        (strict(&bytes).unwrap_err(), offsets_and_values(&bytes).unwrap_err())
    };
    let both = refused(&[records, &[0]].concat(), 3);
    assert!(matches!(both, (BatchError::Trailing { bytes: 1 }, BatchError::Trailing { bytes: 1 })));
    let (append, read) = refused(records, 4);
    assert!(matches!(append, BatchError::Record { index: 3, .. }), "{append}");
    assert!(matches!(read, BatchError::Record { index: 3, .. }), "{read}");
    let mut disorder = records.to_vec();
    disorder[3] = 2;
    let (append, read) = refused(&disorder, 3);
    assert!(matches!(append, BatchError::OffsetDelta { index: 0, offset_delta: 1 }), "{append}");
    assert!(matches!(read, BatchError::OffsetDelta { index: 1, offset_delta: 1 }), "{read}");
}

#[test]
fn records_of_an_appended_time_batch_have_that_time() {
    let mut bytes = sample(Compression::Lz4).into_bytes();
    set_append_time(&mut bytes, 5_000);
    let view = BatchView::new(&bytes).unwrap();
    assert!(view.records().unwrap().all(|record| record.unwrap().timestamp == 5_000));
}

#[test]
fn every_codec_is_read() {
    let batch = sample(Compression::None);
    let expected = offsets_and_values(batch.as_bytes()).unwrap();
    assert_eq!(expected.len(), 3);
    for codec in CODECS {
        let bytes = recoded(&batch, codec);
        assert_eq!(strict(&bytes).unwrap().attributes.codec(), Some(codec));
        assert_eq!(offsets_and_values(&bytes).unwrap(), expected, "{codec:?}");
    }
}

#[test]
fn batches_follow_one_another_and_end_at_the_first_bad_one() {
    let good = sample(Compression::None).into_bytes();
    let two = [&good[..], &good[..]].concat();
    assert_eq!(batches(&two).map(Result::unwrap).count(), 2);
    assert_eq!(batches(&[]).count(), 0);

    let mut iterator = batches(&two[..two.len() - 1]);
    assert!(iterator.next().is_some_and(|it| it.is_ok()));
    assert!(matches!(iterator.next(), Some(Err(BatchError::Size { .. }))));
    assert_eq!(iterator.pos(), good.len());
    assert!(iterator.next().is_none());

    let mut iterator = batches(&[0; 4096]);
    assert!(matches!(iterator.next(), Some(Err(BatchError::Header(HeaderError::Magic { .. })))));
    assert!(iterator.next().is_none());
}

#[test]
fn an_lz4_frame_begins_as_kafkas_client_writes_it() {
    let batch = sample(Compression::Lz4);
    let frame = &batch.as_bytes()[HEADER_BYTES..];
    assert_eq!(frame[..7], [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82]);
    assert_eq!(frame[frame.len() - 4..], [0; 4]);
}
