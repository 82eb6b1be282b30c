//! Kafka's checkpoint files: text, a version line `0`, a line with the number of entries, one line an
//! entry, every line ended by a newline.
//!
//! The source is Kafka's `CheckpointFile`, `OffsetCheckpointFile` and `LeaderEpochCheckpointFile`.
//! Stricter than Kafka in what it takes: one space between fields, canonical numbers, a newline at the
//! end (a cut last line would else read as a smaller offset), no entry twice. An empty file has no entries: Kafka
//! makes one when it first looks for it, and writes it when there is something to say.

use std::collections::HashSet;
use std::fmt::Write;

use thiserror::Error;

use crate::types::{Offset, PartitionName};

const VERSION: u64 = 0;

/// A checkpoint without an entry.
const EMPTY: &str = "0\n0\n";

/// Why text is no checkpoint. Lines count from 1.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CheckpointError {
    /// Not text at all.
    #[error("not UTF-8 from byte {valid_bytes} on")]
    Text {
        /// How many bytes are text.
        valid_bytes: usize,
    },
    /// The text ends before, or within, a line.
    #[error("line {line} is missing or cut")]
    Cut {
        /// Which line.
        line: usize,
    },
    /// A version that is not known.
    #[error("version {found} is not known, only 0 is")]
    Version {
        /// The version as it stands.
        found: u64,
    },
    /// A line that is not what belongs there.
    #[error("line {line} is malformed")]
    Malformed {
        /// Which line.
        line: usize,
    },
    /// More or fewer entries than announced.
    #[error("{found} entries, {announced} are announced")]
    Count {
        /// What the second line says.
        announced: u64,
        /// How many lines follow it.
        found: u64,
    },
    /// An entry that was there before, or an epoch or start offset that does not grow.
    #[error("line {line} repeats or contradicts an earlier one")]
    Order {
        /// Which line.
        line: usize,
    },
}

/// An epoch of a partition's leaders, and where it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochStart {
    /// The epoch, not negative.
    pub epoch: i32,
    /// The first offset appended in it.
    pub start_offset: Offset,
}

/// The text of a `recovery-point-offset-checkpoint` or `log-start-offset-checkpoint`: one line
/// `topic partition offset` an entry.
#[must_use]
pub fn encode_offsets(entries: &[(PartitionName, Offset)]) -> String {
    let mut text = head(entries.len());
    for (name, offset) in entries {
        line(&mut text, format_args!("{} {} {offset}", name.topic(), name.partition()));
    }
    text
}

/// Reads a `recovery-point-offset-checkpoint` or `log-start-offset-checkpoint`, in its order.
///
/// # Errors
/// [`CheckpointError`].
pub fn decode_offsets(bytes: &[u8]) -> Result<Vec<(PartitionName, Offset)>, CheckpointError> {
    let mut entries = Vec::new();
    let mut seen = HashSet::new();
    for (number, line) in entry_lines(bytes)? {
        let (name, offset) =
            offset_entry(line).ok_or(CheckpointError::Malformed { line: number })?;
        if !seen.insert(name.clone()) {
            return Err(CheckpointError::Order { line: number });
        }
        entries.push((name, offset));
    }
    Ok(entries)
}

/// The text of a `leader-epoch-checkpoint`: one line `epoch startOffset` an entry.
#[must_use]
pub fn encode_epochs(entries: &[EpochStart]) -> String {
    let mut text = head(entries.len());
    for EpochStart { epoch, start_offset } in entries {
        line(&mut text, format_args!("{epoch} {start_offset}"));
    }
    text
}

/// Reads a `leader-epoch-checkpoint`: epochs and start offsets grow from line to line.
///
/// # Errors
/// [`CheckpointError`].
pub fn decode_epochs(bytes: &[u8]) -> Result<Vec<EpochStart>, CheckpointError> {
    let mut entries: Vec<EpochStart> = Vec::new();
    for (number, line) in entry_lines(bytes)? {
        let entry = epoch_entry(line).ok_or(CheckpointError::Malformed { line: number })?;
        let grows = entries
            .last()
            .is_none_or(|last| entry.epoch > last.epoch && entry.start_offset > last.start_offset);
        if !grows {
            return Err(CheckpointError::Order { line: number });
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn head(count: usize) -> String {
    format!("{VERSION}\n{count}\n")
}

fn line(text: &mut String, entry: std::fmt::Arguments<'_>) {
    writeln!(text, "{entry}").expect("a string takes all that is written to it");
}

/// The numbered lines after the two of the head, which are checked.
fn entry_lines(bytes: &[u8]) -> Result<impl Iterator<Item = (usize, &str)>, CheckpointError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| CheckpointError::Text { valid_bytes: error.valid_up_to() })?;
    let text = if text.is_empty() { EMPTY } else { text };
    let Some(body) = text.strip_suffix('\n') else {
        return Err(CheckpointError::Cut { line: text.split('\n').count() });
    };
    let mut lines = (1..).zip(body.split('\n'));
    let mut number = |line| {
        let (_, text) = lines.next().ok_or(CheckpointError::Cut { line })?;
        canonical(text).ok_or(CheckpointError::Malformed { line })
    };
    let found = number(1)?;
    if found != VERSION {
        return Err(CheckpointError::Version { found });
    }
    let announced = number(2)?;
    let found = lines.clone().count() as u64;
    if found == announced { Ok(lines) } else { Err(CheckpointError::Count { announced, found }) }
}

fn offset_entry(line: &str) -> Option<(PartitionName, Offset)> {
    let mut fields = line.split(' ');
    let (topic, partition, value) = (fields.next()?, fields.next()?, fields.next()?);
    let name = PartitionName::new(topic, u32::try_from(canonical(partition)?).ok()?)?;
    fields.next().is_none().then_some((name, offset(value)?))
}

fn epoch_entry(line: &str) -> Option<EpochStart> {
    let (epoch, start_offset) = line.split_once(' ')?;
    let epoch = i32::try_from(canonical(epoch)?).ok()?;
    Some(EpochStart { epoch, start_offset: offset(start_offset)? })
}

fn offset(text: &str) -> Option<Offset> {
    i64::try_from(canonical(text)?).ok().map(Offset::new)
}

/// A decimal number as it is written: digits only, no leading zero.
fn canonical(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let padded = text.len() > 1 && text.starts_with('0');
    if digits && !padded { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(topic: &str, partition: u32, offset: i64) -> (PartitionName, Offset) {
        (PartitionName::new(topic, partition).unwrap(), Offset::new(offset))
    }

    #[test]
    fn text_is_kafkas() {
        let entries = [entry("orders", 0, 42), entry("a.b-c_d", 17, i64::MAX)];
        let text = "0\n2\norders 0 42\na.b-c_d 17 9223372036854775807\n";
        assert_eq!(encode_offsets(&entries), text);
        assert_eq!(decode_offsets(text.as_bytes()).as_deref(), Ok(&entries[..]));

        let entries = [(0, 0), (3, 500)]
            .map(|(epoch, start)| EpochStart { epoch, start_offset: Offset::new(start) });
        let text = "0\n2\n0 0\n3 500\n";
        assert_eq!(encode_epochs(&entries), text);
        assert_eq!(decode_epochs(text.as_bytes()).as_deref(), Ok(&entries[..]));

        assert_eq!(encode_offsets(&[]), "0\n0\n");
        for nothing in [&b"0\n0\n"[..], b""] {
            assert_eq!(decode_offsets(nothing), Ok(vec![]));
            assert_eq!(decode_epochs(nothing), Ok(vec![]));
        }
    }

    #[test]
    fn every_truncation_is_an_error() {
        let text = b"0\n2\norders 0 42\npayments 1 1234\n";
        for len in 1..text.len() {
            assert!(decode_offsets(&text[..len]).is_err(), "{len} bytes");
        }
        let text = b"0\n2\n0 0\n3 500\n";
        for len in 1..text.len() {
            assert!(decode_epochs(&text[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        use CheckpointError::{Count, Cut, Malformed, Order, Text, Version};
        for (text, error) in [
            (&b"0\n1\n\xff 0 1\n"[..], Text { valid_bytes: 4 }),
            (b"0", Cut { line: 1 }),
            (b"0\n", Cut { line: 2 }),
            (b"0\n1\na 0 1", Cut { line: 3 }),
            (b"1\n0\n", Version { found: 1 }),
            (b"00\n0\n", Malformed { line: 1 }),
            (b"0\n-1\n", Malformed { line: 2 }),
            (b"0\n2\na 0 1\n", Count { announced: 2, found: 1 }),
            (b"0\n18446744073709551615\n", Count { announced: u64::MAX, found: 0 }),
            (b"0\n1\na 0 1\n\n", Count { announced: 1, found: 2 }),
            (b"0\n1\na 0\n", Malformed { line: 3 }),
            (b"0\n1\na 0 1 2\n", Malformed { line: 3 }),
            (b"0\n1\na  0 1\n", Malformed { line: 3 }),
            (b"0\n1\na/b 0 1\n", Malformed { line: 3 }),
            (b"0\n1\na -1 1\n", Malformed { line: 3 }),
            (b"0\n1\na 0 -1\n", Malformed { line: 3 }),
            (b"0\n1\na 0 +1\n", Malformed { line: 3 }),
            (b"0\n1\na 0 9223372036854775808\n", Malformed { line: 3 }),
            (b"0\n1\na 0 1\r\n", Malformed { line: 3 }),
            (b"0\n2\na 0 1\na 0 2\n", Order { line: 4 }),
        ] {
            let text_shown = String::from_utf8_lossy(text);
            assert_eq!(decode_offsets(text), Err(error), "{text_shown:?}");
        }
    }

    #[test]
    fn epochs_and_their_starts_grow() {
        for second in ["3 501", "2 501", "4 500", "4 499"] {
            let text = format!("0\n2\n3 500\n{second}\n");
            let refused = decode_epochs(text.as_bytes());
            assert_eq!(refused, Err(CheckpointError::Order { line: 4 }), "{second}");
        }
        assert_eq!(decode_epochs(b"0\n1\n-1 0\n"), Err(CheckpointError::Malformed { line: 3 }));
    }
}
