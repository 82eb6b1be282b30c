//! A record as a line of JSON: what both sides say was written, and what they find.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use ringmain::batch::{BatchView, Codec, RecordView, TimestampType};
use serde::{Deserialize, Serialize};

/// A record. Keys, values and headers are hexadecimal.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Line {
    pub(crate) partition: String,
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    pub(crate) key: Option<String>,
    pub(crate) value: Option<String>,
    pub(crate) headers: Vec<(String, Option<String>)>,
    pub(crate) codec: String,
    pub(crate) append_time: bool,
    pub(crate) transactional: bool,
    pub(crate) control: bool,
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) sequence: i32,
    pub(crate) epoch: i32,
}

/// Lines of partitions, in order of offset.
pub(crate) type Lines = BTreeMap<String, Vec<Line>>;

impl Line {
    /// The line of a record that was read.
    pub(crate) fn of(partition: &str, batch: &BatchView<'_>, record: &RecordView<'_>) -> Self {
        let header = batch.header();
        let delta = (record.offset.get() - header.base_offset) as i32;
        let codec = match batch.codec() {
            Codec::None => "none",
            Codec::Gzip => "gzip",
            Codec::Snappy => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        };
        Self {
            partition: partition.to_owned(),
            offset: record.offset.get(),
            timestamp: record.timestamp,
            key: record.key.map(hex),
            value: record.value.map(hex),
            headers: record.headers().map(|it| (hex(it.key), it.value.map(hex))).collect(),
            codec: codec.to_owned(),
            append_time: header.attributes.timestamp_type() == TimestampType::Append,
            transactional: header.attributes.is_transactional(),
            control: header.attributes.is_control(),
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            sequence: if header.base_sequence < 0 { -1 } else { header.base_sequence + delta },
            epoch: header.leader_epoch,
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = |byte: &u8| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
    bytes.iter().flat_map(digits).map(char::from).collect()
}

/// Reads lines.
pub(crate) fn load(path: &Path) -> Result<Lines, Box<dyn Error>> {
    let mut out = Lines::new();
    for text in BufReader::new(File::open(path)?).lines() {
        let line: Line = serde_json::from_str(&text?)?;
        out.entry(line.partition.clone()).or_default().push(line);
    }
    if out.is_empty() { Err(format!("{} is empty", path.display()).into()) } else { Ok(out) }
}

/// Writes lines.
pub(crate) fn save(path: &Path, lines: &Lines) -> Result<(), Box<dyn Error>> {
    let mut out = BufWriter::new(File::create(path)?);
    for line in lines.values().flatten() {
        serde_json::to_writer(&mut out, line)?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

/// Fails at the first difference, and shows it.
pub(crate) fn compare<T: std::fmt::Debug + PartialEq>(
    what: &str,
    expected: &[T],
    found: &[T],
) -> Result<(), Box<dyn Error>> {
    let pairs = expected.iter().zip(found).enumerate();
    for (at, (expected, found)) in pairs {
        if expected != found {
            let text = format!("record {at} of {what}:\nexpected {expected:?}\nfound    {found:?}");
            return Err(text.into());
        }
    }
    if expected.len() == found.len() {
        return Ok(());
    }
    Err(format!("{what}: {} records, {} were written", found.len(), expected.len()).into())
}
