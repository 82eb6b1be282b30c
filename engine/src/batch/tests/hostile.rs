//! Batches that were damaged, cut, or made to hurt.

use proptest::prelude::*;

use super::*;

/// Everything a reader does with bytes, within `limits`. Returns how many records came out whole.
fn read_all(bytes: &[u8], limits: &Limits) -> usize {
    let _ = validate(bytes, limits);
    let _ = validate_stored(bytes);
    let mut records = 0;
    for batch in batches(bytes).flatten() {
        let count = batch.header().record_count as usize;
        let Ok(iterator) = batch.records_within(limits) else { continue };
        let whole = iterator.take_while(Result::is_ok).inspect(|record| {
            let headers = record.as_ref().unwrap().headers();
            assert_eq!(headers.len(), headers.count());
        });
        let whole = whole.count();
        assert!(whole <= count, "never more records than announced");
        records += whole;
    }
    records
}

#[test]
fn every_changed_byte_is_noticed_or_harmless() {
    let batch = sample(Compression::None);
    for codec in CODECS {
        let good = recoded(&batch, codec);
        let records = offsets_and_values(&good).unwrap();
        for at in 0..good.len() {
            for mask in 1..=u8::MAX {
                let mut bad = good.clone();
                bad[at] ^= mask;
                let harmless = at < BATCH_LENGTH_AT || (LEADER_EPOCH_AT..16).contains(&at);
                let verdict = validate(&bad, &Limits::default());
                assert_eq!(verdict.is_ok(), harmless, "{codec:?}, byte {at} ^ {mask:02x}");
                if harmless {
                    assert_eq!(bad[16..], good[16..]);
                } else {
                    assert!(validate_stored(&bad).is_err(), "{codec:?}, byte {at} ^ {mask:02x}");
                }
            }
        }
        let mut elsewhere = good.clone();
        set_base_offset(&mut elsewhere, Offset::new(9));
        let moved: Vec<_> =
            records.into_iter().map(|(offset, value)| (offset + 9, value)).collect();
        assert_eq!(offsets_and_values(&elsewhere).unwrap(), moved);
    }
}

#[test]
fn every_truncation_and_every_excess_is_an_error() {
    let batch = sample(Compression::None);
    for codec in CODECS {
        let good = recoded(&batch, codec);
        for len in 0..good.len() {
            assert!(validate(&good[..len], &Limits::default()).is_err(), "{len} bytes");
            assert!(validate_stored(&good[..len]).is_err(), "{len} bytes");
            assert_eq!(offsets_and_values(&good[..len]).is_err(), len > 0, "{len} bytes");
        }
        let longer = [&good[..], &[0]].concat();
        let excess = validate(&longer, &Limits::default());
        assert!(matches!(excess, Err(BatchError::Size { .. })), "{excess:?}");
    }
}

#[test]
fn a_cut_stream_under_a_right_checksum_is_an_error() {
    let batch = sample(Compression::None);
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let good = recoded(&batch, codec);
        for len in HEADER_BYTES..good.len() {
            let header = BatchHeader { attributes: Attributes::new(codec), ..batch.header() };
            let cut = craft(header, &good[HEADER_BYTES..len]);
            assert!(offsets_and_values(&cut).is_err(), "{codec:?}, {len} bytes");
        }
    }
}

#[test]
fn a_decompression_bomb_is_refused() {
    let max = 1024 * 1024;
    let limits = Limits { decompressed_bytes: max, ..Limits::default() };
    let zeros = vec![0; 8 * max];
    let header = sample(Compression::None).header();
    let framed = |compression| {
        let mut bytes = zeros.clone();
        codec::compress(compression, &mut bytes, 0).unwrap();
        bytes
    };
    let snappy = snap::raw::Encoder::new().compress_vec(&zeros).unwrap();
    let length = (snappy.len() as u32).to_be_bytes();
    let xerial = [&b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01"[..], &length, &snappy].concat();
    for (codec, bomb) in [
        (Codec::Gzip, gzip(&zeros)),
        (Codec::Snappy, snappy),
        (Codec::Snappy, xerial),
        (Codec::Lz4, framed(Compression::Lz4)),
        (Codec::Zstd, framed(Compression::Zstd { level: 3 })),
    ] {
        assert!(bomb.len() < max, "{codec:?}: a bomb is small");
        let bytes = craft(BatchHeader { attributes: Attributes::new(codec), ..header }, &bomb);
        let view = BatchView::new(&bytes).unwrap();
        let refused = view.records_within(&limits).map(|_| ());
        let bound = matches!(
            refused,
            Err(BatchError::Codec { source: CodecError::TooLarge { max: m }, .. }) if m == max
        );
        assert!(bound, "{codec:?}: {refused:?}");
        let enough = Limits { decompressed_bytes: zeros.len(), ..limits };
        assert!(view.records_within(&enough).is_ok(), "{codec:?}: exactly the bound is allowed");
        let short = Limits { decompressed_bytes: zeros.len() - 1, ..limits };
        let view = BatchView::new(&bytes).unwrap();
        assert!(view.records_within(&short).is_err(), "{codec:?}: one byte more is not");
    }
}

#[test]
fn an_announced_size_is_not_believed() {
    let header = sample(Compression::None).header();
    // Snappy that announces 255 MiB, within the default bound, in ten bytes.
    let snappy = [0x80, 0x80, 0xc0, 0x7f, 0, 0, 0, 0, 0, 0];
    let bytes =
        craft(BatchHeader { attributes: Attributes::new(Codec::Snappy), ..header }, &snappy);
    let refused = BatchView::new(&bytes).unwrap().records().map(|_| ());
    let frame = matches!(refused, Err(BatchError::Codec { source: CodecError::Frame, .. }));
    assert!(frame, "{refused:?}");
    // zstd: magic, a window of 2 GiB, nothing.
    let zstd = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x00, 0x00, 0x00];
    let bytes = craft(BatchHeader { attributes: Attributes::new(Codec::Zstd), ..header }, &zstd);
    let refused = BatchView::new(&bytes).unwrap().records().map(|_| ());
    let window = matches!(refused, Err(BatchError::Codec { source: CodecError::Zstd { .. }, .. }));
    assert!(window, "{refused:?}");
}

#[test]
fn a_codec_works_after_it_failed() {
    let batch = sample(Compression::None);
    let expected = offsets_and_values(batch.as_bytes()).unwrap();
    for codec in CODECS {
        let good = recoded(&batch, codec);
        let mut bad = good.clone();
        let last = bad.len() - 1;
        bad[HEADER_BYTES + 5..last].fill(0xa5);
        assert!(offsets_and_values(&signed(bad)).is_err(), "{codec:?}");
        assert_eq!(offsets_and_values(&good).unwrap(), expected, "{codec:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        read_all(&bytes, &Limits::default());
    }

    #[test]
    fn random_sections_under_a_right_checksum_never_panic(
        section in prop::collection::vec(any::<u8>(), 0..400),
        bits in 0_i16..8,
        record_count in -1_i32..60,
        last_offset_delta in prop::sample::select(vec![-1, 0, 5, 59, i32::MAX]),
    ) {
        let header = BatchHeader {
            attributes: Attributes::from_bits(bits),
            record_count,
            last_offset_delta,
            ..sample(Compression::None).header()
        };
        let limits = Limits { decompressed_bytes: 64 * 1024, ..Limits::default() };
        read_all(&craft(header, &section), &limits);
    }

    #[test]
    fn damaged_streams_under_a_right_checksum_never_panic(
        seed in prop::collection::vec(any::<u8>(), 1..2000),
        repeats in 1_usize..40,
        codec in prop::sample::select(CODECS.to_vec()),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut builder = BatchBuilder::new();
        for _ in 0..repeats {
            builder.add(1, Some(&seed[..seed.len() / 2]), Some(&seed)).unwrap();
        }
        let mut bytes = recoded(&builder.build().unwrap(), codec);
        prop_assert_eq!(read_all(&bytes, &Limits::default()), repeats);
        let section = &mut bytes[HEADER_BYTES..];
        for (at, byte) in damage {
            let at = at.index(section.len());
            section[at] = byte;
        }
        let limits = Limits { decompressed_bytes: 256 * 1024, ..Limits::default() };
        read_all(&signed(bytes), &limits);
    }

    #[test]
    fn any_records_come_back(
        records in prop::collection::vec(
            (
                -1_i64..i64::MAX,
                prop::option::of(prop::collection::vec(any::<u8>(), 0..80)),
                prop::option::of(prop::collection::vec(any::<u8>(), 0..300)),
                prop::collection::vec(
                    (".{0,5}", prop::option::of(prop::collection::vec(any::<u8>(), 0..9))),
                    0..4,
                ),
            ),
            1..40,
        ),
        compression in prop::sample::select(
            vec![Compression::None, Compression::Lz4, Compression::Zstd { level: 3 }]
        ),
    ) {
        let mut builder = BatchBuilder::new().compression(compression);
        for (timestamp, key, value, headers) in &records {
            let headers: Vec<_> = headers
                .iter()
                .map(|(key, value)| Header { key: key.as_bytes(), value: value.as_deref() })
                .collect();
            builder
                .add_with_headers(*timestamp, key.as_deref(), value.as_deref(), &headers)
                .unwrap();
        }
        let batch = builder.build().unwrap();
        prop_assert!(strict(batch.as_bytes()).is_ok());
        let view = BatchView::new(batch.as_bytes()).unwrap();
        let mut read = view.records().unwrap();
        for (timestamp, key, value, headers) in &records {
            let record = read.next().unwrap().unwrap();
            prop_assert_eq!(record.timestamp, *timestamp);
            prop_assert_eq!((record.key, record.value), (key.as_deref(), value.as_deref()));
            let expected = headers.iter().map(|(key, value)| (key.as_bytes(), value.as_deref()));
            prop_assert!(record.headers().map(|it| (it.key, it.value)).eq(expected));
        }
        prop_assert!(read.next().is_none());
    }
}
