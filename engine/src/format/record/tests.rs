use super::*;

const PLAIN: &[u8] = &[0x1c, 0, 0, 0, 6, b'k', b'e', b'y', 0x0a, b'v', b'a', b'l', b'u', b'e', 0];
const HEADERS: &[u8] = &[0x1c, 0, 0xc8, 0x01, 2, 1, 1, 4, 2, b'h', 2, b'v', 2, b'n', 1];

fn decode(bytes: &[u8]) -> Result<RawRecord<'_>, RecordError> {
    RawRecord::decode(&mut &bytes[..], 100)
}

fn encode(record: &NewRecord<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    record.encode(record.body_bytes().unwrap(), &mut out);
    out
}

#[test]
fn bytes_are_those_of_the_specification() {
    let plain = NewRecord {
        timestamp_delta: 0,
        offset_delta: 0,
        key: Some(b"key"),
        value: Some(b"value"),
        headers: &[],
    };
    assert_eq!(encode(&plain), PLAIN);
    let headers = [Header::new("h", b"v"), Header { key: b"n", value: None }];
    let rich = NewRecord {
        timestamp_delta: 100,
        offset_delta: 1,
        key: None,
        value: None,
        headers: &headers,
    };
    assert_eq!(encode(&rich), HEADERS);

    let record = decode(PLAIN).unwrap();
    assert_eq!((record.key, record.value), (plain.key, plain.value));
    assert_eq!(record.headers.len(), 0);
    let record = decode(HEADERS).unwrap();
    assert_eq!((record.timestamp_delta, record.offset_delta), (100, 1));
    assert_eq!((record.key, record.value), (None, None));
    assert!(record.headers.eq(headers));
}

#[test]
fn the_shortest_record_is_as_long_as_its_limit_says() {
    let empty =
        NewRecord { timestamp_delta: 0, offset_delta: 0, key: None, value: None, headers: &[] };
    assert_eq!(encode(&empty).len(), RECORD_BYTES_MIN);
}

#[test]
fn reading_stops_at_the_end_of_the_record() {
    let both = [PLAIN, HEADERS].concat();
    let mut left = &both[..];
    RawRecord::decode(&mut left, 100).unwrap();
    assert_eq!(left, HEADERS);
    RawRecord::decode(&mut left, 100).unwrap();
    assert!(left.is_empty());
}

#[test]
fn a_header_name_may_repeat() {
    let headers = [Header::new("a", b"1"), Header::new("a", b"2"), Header::new("", b"")];
    let record = NewRecord {
        timestamp_delta: -5,
        offset_delta: 3,
        key: Some(b""),
        value: None,
        headers: &headers,
    };
    let bytes = encode(&record);
    let record = decode(&bytes).unwrap();
    assert_eq!((record.timestamp_delta, record.key), (-5, Some(&b""[..])));
    assert!(record.headers.eq(headers));
}

#[test]
fn every_truncation_is_an_error() {
    for whole in [PLAIN, HEADERS] {
        for len in 0..whole.len() {
            assert!(decode(&whole[..len]).is_err(), "{len} bytes");
        }
        // The same with an honest length: the end now cuts a field.
        for len in 1..whole.len() {
            let mut cut = whole[..len].to_vec();
            cut[0] = ((len - 1) * 2) as u8;
            assert!(decode(&cut).is_err(), "{len} bytes");
        }
    }
}

#[test]
fn lengths_and_counts_that_cannot_be_are_refused_by_name() {
    use RecordField::{HeaderKey, Key, Length};
    let with = |at: usize, byte: u8, whole: &[u8]| {
        let mut bytes = whole.to_vec();
        bytes[at] = byte;
        decode(&bytes).unwrap_err()
    };
    let length = |error| match error {
        RecordError::Length { field, length, .. } => (field, length),
        other => panic!("{other}"),
    };
    assert_eq!(length(with(0, 1, PLAIN)), (Length, -1));
    assert_eq!(length(with(4, 3, PLAIN)), (Key, -2));
    assert_eq!(length(with(4, 0x7e, PLAIN)), (Key, 63));
    assert_eq!(length(with(8, 1, HEADERS)), (HeaderKey, -1), "a header's name is never null");
    assert_eq!(with(7, 5, HEADERS), RecordError::HeaderCount { count: -3, max: 3 });
    assert_eq!(with(7, 8, HEADERS), RecordError::HeaderCount { count: 4, max: 3 });
    assert_eq!(with(7, 2, HEADERS), RecordError::Trailing { bytes: 3 });
    let few = RawRecord::decode(&mut &HEADERS[..], 1).unwrap_err();
    assert_eq!(few, RecordError::HeaderCount { count: 2, max: 1 });
}
