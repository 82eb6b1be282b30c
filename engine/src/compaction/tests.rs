//! Compaction against a simple model of what should be left.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::transactions::Upcoming;
use super::*;
use crate::batch::{Batch, BatchView, batches, compress_as};
use crate::format::batch_header::{Attributes, BatchHeader, Codec, HEADER_BYTES};
use crate::format::crc::crc32c;
use crate::format::record::{Header, NewRecord};
use crate::limits::COMPACTION_TRANSACTIONS_MAX;
use crate::types::{Compaction, Offset};

const DAY: i64 = 24 * 3600 * 1000;
const NOW: i64 = 1_700_000_000_000;

/// A record as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    offset: i64,
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    header: Option<Vec<u8>>,
}

#[derive(Clone, Debug)]
struct Made {
    codec: Codec,
    producer: i64,
    bits: i16,
    records: Vec<(Option<u8>, Option<Vec<u8>>, i64)>,
}

const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;

fn plain(records: &[(u8, Option<&str>)]) -> Made {
    let records = records
        .iter()
        .map(|(key, value)| (Some(*key), value.map(|value| value.as_bytes().to_vec()), NOW - DAY));
    Made { codec: Codec::None, producer: -1, bits: 0, records: records.collect() }
}

fn marker(producer: i64, commit: bool) -> Made {
    Made {
        codec: Codec::None,
        producer,
        bits: TRANSACTIONAL | CONTROL | i16::from(commit) << 8,
        records: vec![],
    }
}

/// Encodes a batch at an offset, in any codec and with any flags: more than a builder makes.
fn encode(made: &Made, base: i64) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    let control = made.bits & CONTROL != 0;
    let commit = made.bits >> 8 != 0;
    let key = [0, 0, 0, u8::from(commit)];
    let base_timestamp = made.records.first().map_or(NOW - DAY, |(.., timestamp)| *timestamp);
    let mut max_timestamp = base_timestamp;
    let mut put = |delta: i32, timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>| {
        let header = [Header { key: b"h", value: Some(&[7, 8]) }];
        let headers = if delta % 2 == 0 { &header[..] } else { &[] };
        let timestamp_delta = timestamp - base_timestamp;
        let record = NewRecord { timestamp_delta, offset_delta: delta, key, value, headers };
        record.encode(record.body_bytes().unwrap(), &mut bytes);
        max_timestamp = max_timestamp.max(timestamp);
    };
    if control {
        put(0, NOW - DAY, Some(&key), Some(&[0; 6]));
    }
    for (at, (key, value, timestamp)) in made.records.iter().enumerate() {
        let key = key.map(|key| [key; 3]);
        put(at as i32, *timestamp, key.as_ref().map(|key| &key[..]), value.as_deref());
    }
    compress_as(made.codec, &mut bytes, HEADER_BYTES).unwrap();
    let count = made.records.len().max(usize::from(control)) as i32;
    let header = BatchHeader {
        base_offset: base,
        batch_length: (bytes.len() - 12) as i32,
        leader_epoch: 3,
        crc: 0,
        attributes: Attributes::from_bits(made.bits & 0xff | made.codec as i16),
        last_offset_delta: count - 1,
        base_timestamp,
        max_timestamp,
        producer_id: made.producer,
        producer_epoch: if made.producer < 0 { -1 } else { 0 },
        base_sequence: if made.producer < 0 { -1 } else { 5 },
        record_count: count,
    };
    bytes[..HEADER_BYTES].copy_from_slice(&header.encode());
    let crc = crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn log(made: &[Made]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut next = 0;
    for made in made {
        out.extend_from_slice(&encode(made, next));
        next += made.records.len().max(usize::from(made.bits & CONTROL != 0)) as i64;
    }
    out
}

fn views(log: &[u8]) -> Vec<BatchView<'_>> {
    batches(log).collect::<Result<_, _>>().expect("whole batches")
}

/// One compaction of a whole log. Returns what is left, and where the next one begins.
fn compact_from(log: &[u8], map_bytes: usize, first_dirty: i64, now_ms: i64) -> (Vec<u8>, i64) {
    let terms = Terms { log_start: Offset::ZERO, now_ms, delete_retention_ms: DAY as u64 };
    let mut pass = Pass::new(terms, map_bytes, Offset::new(first_dirty));
    let views = views(log);
    let dirty = views.iter().filter(|view| view.last_offset().get() >= first_dirty);
    assert!(dirty.clone().all(|view| pass.upcoming.see(view)));
    let limit = pass.upcoming.bound().map_or(i64::MAX, Offset::get);
    for view in dirty {
        if view.base_offset().get() >= limit || !pass.note(view) {
            break;
        }
    }
    let mut out = Vec::new();
    for view in &views {
        if view.base_offset() >= pass.map.end() {
            out.extend_from_slice(view.as_bytes());
        } else {
            pass.rewrite(view, &mut out).unwrap();
        }
    }
    assert_eq!(pass.unreadable, 0);
    (out, pass.map.end().get())
}

fn compact(log: &[u8], now_ms: i64) -> Vec<u8> {
    compact_from(log, 1 << 20, 0, now_ms).0
}

fn read(log: &[u8]) -> Vec<Seen> {
    let mut out = Vec::new();
    for view in views(log).iter().filter(|view| !view.header().attributes.is_control()) {
        for record in view.records().unwrap() {
            let record = record.unwrap();
            out.push(Seen {
                offset: record.offset.get(),
                timestamp: record.timestamp,
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                header: record.headers().next().and_then(|h| h.value.map(<[u8]>::to_vec)),
            });
        }
    }
    out
}

fn values(log: &[u8]) -> Vec<(u8, String)> {
    let text = |value: Option<Vec<u8>>| value.map_or("-".into(), |v| String::from_utf8(v).unwrap());
    read(log).into_iter().map(|seen| (seen.key.unwrap()[0], text(seen.value))).collect()
}

fn of(pairs: &[(u8, &str)]) -> Vec<(u8, String)> {
    pairs.iter().map(|(key, value)| (*key, (*value).to_string())).collect()
}

/// What is left by the definition, with no tombstone past its horizon.
fn model(log: &[Seen], end: i64) -> Vec<Seen> {
    let mut newest: BTreeMap<&[u8], i64> = BTreeMap::new();
    for seen in log.iter().filter(|seen| seen.offset < end) {
        if let Some(key) = &seen.key {
            newest.insert(key, seen.offset);
        }
    }
    let stays = |seen: &&Seen| {
        seen.offset >= end
            || seen
                .key
                .as_deref()
                .is_some_and(|key| newest.get(key).is_none_or(|n| seen.offset >= *n))
    };
    log.iter().filter(stays).cloned().collect()
}

fn codecs() -> impl Strategy<Value = Codec> {
    prop_oneof![
        Just(Codec::None),
        Just(Codec::Gzip),
        Just(Codec::Snappy),
        Just(Codec::Lz4),
        Just(Codec::Zstd)
    ]
}

fn some_batch() -> impl Strategy<Value = Made> {
    let key = prop_oneof![1 => Just(None), 9 => (0_u8..12).prop_map(Some)];
    let value = prop_oneof![1 => Just(None), 4 => proptest::collection::vec(any::<u8>(), 0..40).prop_map(Some)];
    let record = (key, value, NOW - 2 * DAY..NOW);
    let records = proptest::collection::vec(record, 1..8);
    let producer = prop_oneof![3 => Just(-1_i64), 1 => 0_i64..3];
    (codecs(), records, producer).prop_map(|(codec, records, producer)| Made {
        codec,
        producer,
        bits: 0,
        records,
    })
}

proptest! {
    #[test]
    fn what_is_left_is_what_the_definition_says(
        made in proptest::collection::vec(some_batch(), 1..30),
        keys in prop_oneof![Just(2_usize), Just(5), Just(1000)],
        at in 0_i64..60,
    ) {
        let log = log(&made);
        let before = read(&log);
        // Slots of 24 bytes, of which four in five are used.
        let (left, end) = compact_from(&log, keys * 24 * 5 / 4 + 24, 0, NOW);
        prop_assert!(end > 0);
        prop_assert_eq!(read(&left), model(&before, end));
        // Offsets, producers and sequences of what is left are as they were, and in order.
        let was: BTreeMap<i64, BatchHeader> =
            views(&log).iter().map(|v| (v.base_offset().get(), *v.header())).collect();
        for view in views(&left) {
            let (is, was) = (view.header(), was[&view.base_offset().get()]);
            prop_assert_eq!(is.last_offset_delta, was.last_offset_delta);
            prop_assert_eq!((is.producer_id, is.base_sequence), (was.producer_id, was.base_sequence));
            prop_assert_eq!(is.leader_epoch, was.leader_epoch);
            if is.record_count > 0 {
                prop_assert_eq!(is.attributes.codec(), was.attributes.codec());
                let latest = view.records().unwrap().map(|r| r.unwrap().timestamp).max();
                prop_assert_eq!(Some(is.max_timestamp), latest);
            }
        }
        // Once more, to the same; and from anywhere, as after a lost checkpoint.
        let mut all = left.clone();
        let mut from = end;
        for _ in 0..made.len() * 8 {
            (all, from) = compact_from(&all, keys * 24 * 5 / 4 + 24, from, NOW);
        }
        let whole = i64::MAX;
        prop_assert_eq!(read(&all), model(&before, whole));
        let again = compact_from(&all, 1 << 20, at.min(from), NOW).0;
        prop_assert_eq!(read(&again), read(&all));
    }

    #[test]
    fn aborted_records_shadow_nothing(
        steps in proptest::collection::vec((0_i64..3, 0_u8..4, 0_u8..6), 1..40),
    ) {
        // Each step: a producer writes a key, commits, or aborts. What is committed, or not over, is the truth.
        let mut made = Vec::new();
        let mut open: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        let (mut offset, mut aborted) = (0_i64, Vec::new());
        let mut first_open: BTreeMap<i64, i64> = BTreeMap::new();
        for (producer, key, what) in steps {
            if what < 4 {
                let mut batch = plain(&[(key, Some("v"))]);
                (batch.producer, batch.bits) = (producer, TRANSACTIONAL);
                made.push(batch);
                open.entry(producer).or_default().push(offset);
                first_open.entry(producer).or_insert(offset);
            } else {
                made.push(marker(producer, what == 4));
                let ended = open.remove(&producer).unwrap_or_default();
                first_open.remove(&producer);
                if what != 4 {
                    aborted.extend(ended);
                }
            }
            offset += 1;
        }
        let log = log(&made);
        let (left, end) = compact_from(&log, 1 << 20, 0, NOW);
        prop_assert_eq!(end, first_open.values().min().copied().unwrap_or(offset));
        let mut truth = read(&log);
        truth.retain(|seen| !(aborted.contains(&seen.offset) && seen.offset < end));
        // Aborted ones behind the end stay where they are, for the next compaction.
        prop_assert_eq!(read(&left), model(&truth, end));
    }
}

#[test]
fn a_tombstone_stays_for_its_time_and_then_goes() {
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let mut batch = plain(&[(1, Some("a")), (2, Some("b")), (1, None)]);
        batch.codec = codec;
        let log = log(&[batch, plain(&[(3, Some("c"))])]);
        let first = compact(&log, NOW);
        assert_eq!(values(&first), of(&[(2, "b"), (1, "-"), (3, "c")]));
        let header = *views(&first)[0].header();
        assert!(header.attributes.has_delete_horizon());
        assert_eq!(header.base_timestamp, NOW + DAY, "the horizon");
        assert_eq!(header.max_timestamp, NOW - DAY, "records keep their times");
        let second = compact(&first, NOW + DAY - 1);
        assert_eq!(second, first, "not before its time, and the horizon stays");
        let third = compact(&second, NOW + DAY);
        assert_eq!(values(&third), of(&[(2, "b"), (3, "c")]));
        assert_eq!(read(&third)[0].timestamp, NOW - DAY);
        assert_eq!(views(&third)[0].header().last_offset_delta, 2, "offsets stay");
    }
}

#[test]
fn the_last_batch_of_a_producer_leaves_its_header() {
    let mut first = plain(&[(1, Some("a"))]);
    first.producer = 9;
    let mut second = plain(&[(2, Some("b"))]);
    (second.producer, second.codec) = (9, Codec::Zstd);
    let log = log(&[first, second, plain(&[(1, Some("c")), (2, Some("d"))])]);
    let now = NOW - 1;
    let left = compact(&log, now);
    assert_eq!(values(&left), of(&[(1, "c"), (2, "d")]));
    let views = views(&left);
    assert_eq!(views.len(), 2, "its first batch is gone, its last one is not");
    let header = views[0].header();
    assert_eq!((header.base_offset, header.record_count, header.producer_id), (1, 0, 9));
    assert_eq!((header.base_sequence, header.attributes.bits()), (5, 0));
    assert_eq!(compact(&left, now), left, "a header stays as it is");
    let later = compact(&left, NOW + DAY);
    assert_eq!(self::views(&later).len(), 1, "a producer that is gone for a day");
}

#[test]
fn a_marker_goes_after_its_records_and_its_horizon() {
    let mut data = plain(&[(1, Some("a"))]);
    (data.producer, data.bits) = (4, TRANSACTIONAL);
    let log = log(&[data, marker(4, true), plain(&[(1, Some("b"))])]);
    // A day later nothing but the marker speaks of the producer.
    let now = NOW + DAY;
    let first = compact(&log, now);
    let shape = |log: &[u8]| -> Vec<(i64, bool)> {
        views(log)
            .iter()
            .map(|v| (v.base_offset().get(), v.header().attributes.has_delete_horizon()))
            .collect()
    };
    assert_eq!(shape(&first), [(1, false), (2, false)], "its record was there in this pass");
    let second = compact(&first, now);
    assert_eq!(shape(&second), [(1, true), (2, false)]);
    assert_eq!(shape(&compact(&second, now + DAY - 1)), [(1, true), (2, false)]);
    assert_eq!(shape(&compact(&second, now + DAY)), [(2, false)]);
}

#[test]
fn records_that_can_not_be_decoded_stay_and_shadow_nothing() {
    let mut bytes = log(&[plain(&[(1, Some("a"))]), plain(&[(1, Some("b"))])]);
    let second = Batch::from_bytes(encode(&plain(&[(1, Some("b"))]), 0)).unwrap().as_bytes().len();
    let at = bytes.len() - second;
    // A compressed batch whose inside is no zstd: appends do not look there.
    bytes[at + 22] = Codec::Zstd as u8;
    let crc = crc32c(&bytes[at + 21..]);
    bytes[at + 17..at + 21].copy_from_slice(&crc.to_be_bytes());
    let terms = Terms { log_start: Offset::ZERO, now_ms: NOW, delete_retention_ms: 0 };
    let mut pass = Pass::new(terms, 1 << 16, Offset::ZERO);
    let mut out = Vec::new();
    for view in views(&bytes) {
        assert!(pass.note(&view));
    }
    for view in views(&bytes) {
        assert_eq!(pass.rewrite(&view, &mut out).unwrap(), Rewritten::Same);
    }
    assert_eq!((out, pass.unreadable), (bytes, 1));
}

#[test]
fn what_lies_before_the_log_start_goes() {
    let bytes = log(&[plain(&[(1, Some("a"))]), plain(&[(2, Some("b"))])]);
    let terms = Terms { log_start: Offset::new(1), now_ms: NOW, delete_retention_ms: 0 };
    let mut pass = Pass::new(terms, 1 << 16, Offset::new(1));
    let mut out = Vec::new();
    let gone =
        views(&bytes).iter().map(|view| pass.rewrite(view, &mut out).unwrap()).collect::<Vec<_>>();
    assert_eq!(gone, [Rewritten::Gone, Rewritten::Same]);
}

#[test]
fn more_transactions_than_are_kept_in_mind_end_the_look_ahead() {
    let mut upcoming = Upcoming::default();
    let mut seen = 0;
    for producer in 0.. {
        let mut batch = plain(&[(1, Some("a"))]);
        (batch.producer, batch.bits) = (producer, TRANSACTIONAL);
        let bytes = encode(&batch, producer);
        if !upcoming.see(&BatchView::new(&bytes).unwrap()) {
            break;
        }
        seen += 1;
    }
    assert_eq!(seen, COMPACTION_TRANSACTIONS_MAX - 1);
    assert_eq!(upcoming.bound(), Some(Offset::ZERO));
}

fn part(base: i64, next: i64, bytes: u64, newest_ms: i64) -> Part {
    Part { base: Offset::new(base), next: Offset::new(next), bytes, newest_ms }
}

#[test]
fn a_log_is_compacted_when_enough_of_it_is_dirty_or_something_is_late() {
    let parts = [part(0, 10, 600, 0), part(10, 20, 300, 50), part(20, 30, 100, 90)];
    let half = Compaction::default();
    let found =
        |cleaned, compaction: &Compaction| cleanable(&parts, Offset::new(cleaned), compaction, 100);
    let all = found(0, &half);
    assert_eq!((all.dirty.clone(), all.dirty_percent(), all.oldest_ms), (0..3, 100, Some(0)));
    let some = found(10, &half);
    assert_eq!((some.dirty.clone(), some.dirty_bytes, some.clean_bytes), (1..3, 400, 600));
    assert!(is_due(&all, &half, 100) && !is_due(&some, &half, 100));
    // In the middle of a segment: all of it is dirty.
    assert_eq!(found(19, &half).dirty, 1..3);
    assert!(found(30, &half).dirty.is_empty() && !is_due(&found(30, &half), &half, i64::MAX));
    let eager = Compaction { max_lag_ms: Some(49), ..half };
    assert!(is_due(&some, &eager, 100));
    assert!(!is_due(&some, &Compaction { max_lag_ms: Some(50), ..half }, 100));
    let patient = Compaction { min_lag_ms: 40, ..half };
    assert_eq!(found(0, &patient).dirty, 0..2, "the last one is too young");
    assert_eq!(found(0, &Compaction { min_lag_ms: u64::MAX, ..half }).dirty, 0..0);
}

#[test]
fn small_segments_become_one_as_far_as_size_and_index_reach() {
    let far = i64::from(i32::MAX) + 25;
    let parts = [
        part(0, 10, 60, 0),
        part(10, 20, 40, 0),
        part(20, 30, 1, 0),
        part(30, far, 1, 0),
        part(far, far + 1, 500, 0),
    ];
    assert_eq!(groups(&parts, 100), [0..2, 2..3, 3..4, 4..5]);
    assert_eq!(groups(&parts[..3], 1000), vec![0..3; 1]);
    assert_eq!(groups(&[], 100), []);
}
