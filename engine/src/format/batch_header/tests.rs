use super::*;

/// Base offset 5, epoch 7, two records of 15 and 14 bytes; written out from the specification, the CRC
/// computed bit by bit elsewhere.
const GOLDEN: [u8; 91] = [
    0, 0, 0, 0, 0, 0, 0, 5, // baseOffset
    0, 0, 0, 0x4f, // batchLength
    0, 0, 0, 7, // partitionLeaderEpoch
    2, // magic
    0x46, 0x6a, 0xbe, 0x82, // crc
    0, 0, // attributes
    0, 0, 0, 1, // lastOffsetDelta
    0, 0, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 0x00, // baseTimestamp
    0, 0, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 0x64, // maxTimestamp
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, // producerId
    0xff, 0xff, // producerEpoch
    0xff, 0xff, 0xff, 0xff, // baseSequence
    0, 0, 0, 2, // recordsCount
    0x1c, 0, 0, 0, 0x06, b'k', b'e', b'y', 0x0a, b'v', b'a', b'l', b'u', b'e', 0, //
    0x1c, 0, 0xc8, 0x01, 0x02, 0x01, 0x01, 0x04, 2, b'h', 2, b'v', 2, b'n', 1,
];

fn golden_header() -> BatchHeader {
    BatchHeader {
        base_offset: 5,
        batch_length: 79,
        leader_epoch: 7,
        crc: 0x466a_be82,
        attributes: Attributes::new(Codec::None),
        last_offset_delta: 1,
        base_timestamp: 1_700_000_000_000,
        max_timestamp: 1_700_000_000_100,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        record_count: 2,
    }
}

#[test]
fn bytes_are_those_of_the_specification() {
    assert_eq!(BatchHeader::decode(&GOLDEN), Ok(golden_header()));
    assert_eq!(golden_header().encode(), GOLDEN[..HEADER_BYTES]);
    assert_eq!(golden_header().batch_bytes(), GOLDEN.len());
    assert_eq!(crc32c(&GOLDEN[ATTRIBUTES_AT..]), golden_header().crc);
}

#[test]
fn fields_stand_where_kafka_has_them() {
    let at = [
        (LEADER_EPOCH_AT, 12),
        (MAGIC_AT, 16),
        (CRC_AT, 17),
        (ATTRIBUTES_AT, 21),
        (LAST_OFFSET_DELTA_AT, 23),
        (BASE_TIMESTAMP_AT, 27),
        (MAX_TIMESTAMP_AT, 35),
        (PRODUCER_ID_AT, 43),
        (PRODUCER_EPOCH_AT, 51),
        (BASE_SEQUENCE_AT, 53),
        (RECORD_COUNT_AT, 57),
    ];
    assert!(at.iter().all(|(ours, kafka)| ours == kafka), "{at:?}");
}

#[test]
fn what_is_no_header_is_refused_by_name() {
    for given in 0..HEADER_BYTES {
        let short = BatchHeader::decode(&GOLDEN[..given]);
        assert_eq!(short, Err(HeaderError::Truncated { given }));
    }
    let mut old = GOLDEN;
    old[MAGIC_AT] = 1;
    assert_eq!(BatchHeader::decode(&old), Err(HeaderError::Magic { found: 1 }));
    assert_eq!(BatchHeader::decode(&[0; 4096]), Err(HeaderError::Magic { found: 0 }));
    for batch_length in [i32::MIN, -1, 0, 48] {
        let mut odd = GOLDEN;
        odd[BATCH_LENGTH_AT..LEADER_EPOCH_AT].copy_from_slice(&batch_length.to_be_bytes());
        assert_eq!(BatchHeader::decode(&odd), Err(HeaderError::Length { batch_length }));
    }
}

#[test]
fn offset_and_epoch_are_set_without_touching_the_checksum() {
    let mut batch = GOLDEN;
    set_base_offset(&mut batch, Offset::new(1 << 40));
    set_leader_epoch(&mut batch, 9);
    let header = BatchHeader::decode(&batch).unwrap();
    assert_eq!(header, BatchHeader { base_offset: 1 << 40, leader_epoch: 9, ..golden_header() });
    assert_eq!(batch[MAGIC_AT..], GOLDEN[MAGIC_AT..]);
}

#[test]
fn append_time_changes_type_time_and_checksum_and_nothing_else() {
    let mut batch = GOLDEN;
    set_append_time(&mut batch, 1_800_000_000_000);
    let header = BatchHeader::decode(&batch).unwrap();
    let expected = BatchHeader {
        attributes: Attributes::from_bits(8),
        max_timestamp: 1_800_000_000_000,
        crc: 0xcdf3_d6ad,
        ..golden_header()
    };
    assert_eq!(header, expected);
    assert_eq!(header.attributes.timestamp_type(), TimestampType::Append);
    assert_eq!(batch[HEADER_BYTES..], GOLDEN[HEADER_BYTES..]);
}

#[test]
fn append_time_does_not_bless_a_rotten_record() {
    let mut batch = GOLDEN;
    batch[70] ^= 1;
    set_append_time(&mut batch, 1_800_000_000_000);
    let header = BatchHeader::decode(&batch).unwrap();
    assert_ne!(header.crc, crc32c(&batch[ATTRIBUTES_AT..]));
}

#[test]
fn attribute_bits_are_those_of_the_specification() {
    for (bits, codec) in
        [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd].into_iter().enumerate()
    {
        assert_eq!(Attributes::from_bits(bits as i16).codec(), Some(codec));
        assert_eq!(Attributes::new(codec).bits(), bits as i16);
    }
    for bits in 5..8 {
        assert_eq!(Attributes::from_bits(bits).codec(), None);
    }
    let flags = |bits| {
        let it = Attributes::from_bits(bits);
        let append = it.timestamp_type() == TimestampType::Append;
        [append, it.is_transactional(), it.is_control(), it.has_delete_horizon()]
    };
    assert_eq!(flags(0x08), [true, false, false, false]);
    assert_eq!(flags(0x10), [false, true, false, false]);
    assert_eq!(flags(0x20), [false, false, true, false]);
    assert_eq!(flags(0x40), [false, false, false, true]);
    assert_eq!(flags(-0x80), [false; 4]);
}

#[test]
fn offsets_that_no_log_has_are_none() {
    let offsets = |base_offset, last_offset_delta| {
        BatchHeader { base_offset, last_offset_delta, ..golden_header() }.offsets()
    };
    assert_eq!(offsets(5, 1), Some((Offset::new(5), Offset::new(6))));
    assert_eq!(offsets(0, 0), Some((Offset::ZERO, Offset::ZERO)));
    assert_eq!(offsets(-1, 0), None);
    assert_eq!(offsets(0, -1), None);
    assert_eq!(
        offsets(i64::MAX - 1, 0),
        Some((Offset::new(i64::MAX - 1), Offset::new(i64::MAX - 1)))
    );
    assert_eq!(offsets(i64::MAX - 1, 1), None);
    assert_eq!(offsets(i64::MAX, 1), None);
}
