//! What was acked, and whether it is there: the bookkeeping behind `verify`.
//!
//! A record's value begins with who wrote it, its number, and a checksum. A producer numbers its records
//! of each partition from 0 without gaps and has one request in flight, so an ack of number n covers all
//! numbers below it. A child process under load reports its acks over a pipe; it is killed in mid-load, so what
//! the parent knows is a lower bound of what was acked: nothing in it may be missing.

use std::collections::HashMap;
use std::fmt;

use crc_fast::CrcAlgorithm;
use serde::{Deserialize, Serialize};

mod pipe;

pub use pipe::{Reporter, collect, run_until, run_until_killed};

/// Bytes at the beginning of each value: producer, sequence, checksum.
pub const STAMP_BYTES: usize = 4 + 8 + 4;

/// Most damages told one by one.
const EXAMPLES_MAX: usize = 20;

/// Who wrote a record, and which of its records it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stamp {
    /// The producer.
    pub producer: u32,
    /// The record's number among this producer's records of the partition.
    pub sequence: u64,
}

impl Stamp {
    /// Writes the stamp over the beginning of `value`, whose rest is final.
    ///
    /// # Panics
    /// If the value is shorter than a stamp.
    pub fn put(self, value: &mut [u8]) {
        let (stamp, rest) = value.split_at_mut(STAMP_BYTES);
        stamp[..4].copy_from_slice(&self.producer.to_le_bytes());
        stamp[4..12].copy_from_slice(&self.sequence.to_le_bytes());
        let crc = crc_of(&stamp[..12], rest);
        stamp[12..].copy_from_slice(&crc.to_le_bytes());
    }

    /// The stamp of a value, if its checksum is right.
    pub fn of(value: &[u8]) -> Option<Self> {
        let (stamp, rest) = value.split_at_checked(STAMP_BYTES)?;
        let producer = u32::from_le_bytes(stamp[..4].try_into().ok()?);
        let sequence = u64::from_le_bytes(stamp[4..12].try_into().ok()?);
        let crc = u32::from_le_bytes(stamp[12..].try_into().ok()?);
        (crc == crc_of(&stamp[..12], rest)).then_some(Self { producer, sequence })
    }
}

/// The checksum covers the stamp's own fields too: a damaged number must not pass for another record.
fn crc_of(fields: &[u8], rest: &[u8]) -> u32 {
    let mut crc = crc_fast::Digest::new(CrcAlgorithm::Crc32Iscsi);
    crc.update(fields);
    crc.update(rest);
    crc.finalize() as u32
}

/// One acked record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Where it went.
    pub partition: u32,
    /// Which record it is.
    pub stamp: Stamp,
    /// The offset the ack named.
    pub offset: i64,
}

/// What verification counts. All but `acked` must be zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Records known to be acked.
    pub acked: u64,
    /// Acked, and not there: missing, or in a partition that they were not sent to.
    pub lost: u64,
    /// There more than once.
    pub duplicated: u64,
    /// There, out of their producer's order, or not at the offset that the ack named.
    pub reordered: u64,
    /// There, with a wrong checksum, or offsets that do not rise by one.
    pub corrupt: u64,
}

impl Tally {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.lost + self.duplicated + self.reordered + self.corrupt == 0
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// Where, if it is in one partition.
    pub partition: Option<u32>,
    /// At which offset, if it is there at all.
    pub offset: Option<i64>,
    /// What.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(partition) = self.partition {
            write!(f, "partition {partition}")?;
            if let Some(offset) = self.offset {
                write!(f, " offset {offset}")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&self.what)
    }
}

/// Counts, and the first damages in words.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Findings {
    /// The counts.
    pub tally: Tally,
    /// The first damages.
    pub examples: Vec<Damage>,
}

/// Takes acks first, then all records read back, then gives its findings.
#[derive(Debug, Default)]
pub struct Checker {
    acks: HashMap<(u32, u32), Acks>,
    next_offset: HashMap<u32, i64>,
    findings: Findings,
}

/// One producer's records of one partition.
#[derive(Debug, Default)]
struct Acks {
    /// Acked offset by sequence; `NONE` where no ack is known.
    offsets: Vec<i64>,
    seen: Vec<bool>,
    /// One past the highest sequence read back.
    next: u64,
}

const NONE: i64 = -1;

/// Longest run of records of one producer that is believed: a damaged number must not ask for memory.
const SEQUENCE_MAX: u64 = 1 << 28;

impl Acks {
    fn room(&mut self, sequence: u64) {
        let len = sequence as usize + 1;
        if self.offsets.len() < len {
            self.offsets.resize(len, NONE);
            self.seen.resize(len, false);
        }
    }

    /// One past the highest acked sequence.
    fn acked_end(&self) -> usize {
        self.offsets.iter().rposition(|&offset| offset != NONE).map_or(0, |last| last + 1)
    }
}

impl Checker {
    /// Takes what one ack said.
    pub fn acked(&mut self, ack: Ack) {
        let Stamp { producer, sequence } = ack.stamp;
        assert!(sequence < SEQUENCE_MAX, "a run is shorter");
        let acks = self.acks.entry((ack.partition, producer)).or_default();
        acks.room(sequence);
        acks.offsets[sequence as usize] = ack.offset;
        self.findings.tally.acked += 1;
    }

    /// Takes a record read back. Each partition's records come in the order they were read.
    pub fn record(&mut self, partition: u32, offset: i64, value: &[u8]) {
        let next = self.next_offset.entry(partition).or_insert(offset);
        let gap = (*next != offset).then_some(*next);
        *next = offset + 1;
        if let Some(expected) = gap {
            self.findings.tally.corrupt += 1;
            self.say(partition, Some(offset), format!("offset {expected} should be here"));
        }
        let Some(stamp) = Stamp::of(value).filter(|stamp| stamp.sequence < SEQUENCE_MAX) else {
            self.findings.tally.corrupt += 1;
            return self.say(partition, Some(offset), "the record's checksum is wrong".to_owned());
        };
        self.place(partition, offset, stamp);
    }

    fn place(&mut self, partition: u32, offset: i64, stamp: Stamp) {
        let Stamp { producer, sequence } = stamp;
        let acks = self.acks.entry((partition, producer)).or_default();
        acks.room(sequence);
        let nth = sequence as usize;
        let again = acks.seen[nth];
        let late = sequence < acks.next;
        let acked_at = acks.offsets[nth];
        acks.seen[nth] = true;
        acks.next = acks.next.max(sequence + 1);
        let named = format!("record {sequence} of producer {producer}");
        if again {
            self.findings.tally.duplicated += 1;
            self.say(partition, Some(offset), format!("{named} is here again"));
        } else if late {
            self.findings.tally.reordered += 1;
            self.say(partition, Some(offset), format!("{named} comes after a later one"));
        } else if acked_at != NONE && acked_at != offset {
            self.findings.tally.reordered += 1;
            self.say(partition, Some(offset), format!("{named} was acked at offset {acked_at}"));
        }
    }

    /// Counts what is missing.
    pub fn finish(mut self) -> Findings {
        let mut acks: Vec<_> = std::mem::take(&mut self.acks).into_iter().collect();
        acks.sort_unstable_by_key(|(key, _)| *key);
        for ((partition, producer), acks) in acks {
            for sequence in 0..acks.acked_end() {
                if !acks.seen[sequence] {
                    self.findings.tally.lost += 1;
                    let what = format!("record {sequence} of producer {producer} is lost");
                    self.say(partition, None, what);
                }
            }
        }
        self.findings
    }

    fn say(&mut self, partition: u32, offset: Option<i64>, what: String) {
        if self.findings.examples.len() < EXAMPLES_MAX {
            let partition = Some(partition);
            self.findings.examples.push(Damage { partition, offset, what });
        }
    }
}

/// Checks all that was read back against all that was acked.
pub fn check<'a>(
    acks: impl IntoIterator<Item = Ack>,
    records: impl IntoIterator<Item = (u32, i64, &'a [u8])>,
) -> Findings {
    let mut checker = Checker::default();
    acks.into_iter().for_each(|ack| checker.acked(ack));
    records.into_iter().for_each(|(partition, offset, value)| {
        checker.record(partition, offset, value);
    });
    checker.finish()
}

#[cfg(test)]
#[path = "oracle/tests.rs"]
mod tests;
