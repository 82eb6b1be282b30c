//! Acks on their way from the child that is about to be killed to its parent: one after another, each of the same
//! size, so that all but a torn one at the end counts.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Write};

use anyhow::{Context, Result};

use crate::run::ledger::Entry;

/// Bytes of an ack: partition, producer, sequence, offset, records.
const ACK_BYTES: usize = 4 + 4 + 8 + 8 + 4;

/// The child's end.
#[derive(Debug)]
pub struct Teller<'a> {
    to: &'a File,
    bytes: Vec<u8>,
}

impl<'a> Teller<'a> {
    /// Tells to `to`, a pipe.
    pub fn new(to: &'a File) -> Self {
        Self { to, bytes: Vec::new() }
    }

    /// Adds an ack.
    pub fn acked(&mut self, entry: Entry) {
        let Entry { partition, producer, sequence, offset, records } = entry;
        self.bytes.extend_from_slice(&partition.to_le_bytes());
        self.bytes.extend_from_slice(&producer.to_le_bytes());
        self.bytes.extend_from_slice(&sequence.to_le_bytes());
        self.bytes.extend_from_slice(&offset.to_le_bytes());
        self.bytes.extend_from_slice(&records.to_le_bytes());
    }

    /// Writes what has gathered.
    ///
    /// # Errors
    /// If the parent is gone.
    pub fn flush(&mut self) -> io::Result<()> {
        let written = self.to.write_all(&self.bytes);
        self.bytes.clear();
        written
    }
}

/// The parent's end: all whole acks until the pipe is closed.
///
/// # Errors
/// If the pipe can't be read.
pub(super) fn listen(from: impl Read, mut take: impl FnMut(Entry)) -> Result<()> {
    let mut from = BufReader::new(from);
    let mut bytes = [0; ACK_BYTES];
    loop {
        match from.read_exact(&mut bytes) {
            Ok(()) => take(decode(&bytes)),
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            Err(e) => return Err(e).context("cannot read what the child tells"),
        }
    }
}

fn decode(bytes: &[u8; ACK_BYTES]) -> Entry {
    let four = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[at + i]));
    let eight = |at: usize| u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|i| bytes[at + i]));
    Entry {
        partition: four(0),
        producer: four(4),
        sequence: eight(8),
        offset: eight(16) as i64,
        records: four(24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn acks_arrive_as_they_were_told_and_a_torn_one_does_not_count() {
        let scratch = Scratch::new("teller");
        let path = scratch.path().join("told");
        let file = File::create(&path).expect("made");
        let entry = |n: u32| Entry {
            partition: n,
            producer: n + 1,
            sequence: u64::from(n) << 33,
            offset: i64::from(n) << 34,
            records: n + 2,
        };
        let mut teller = Teller::new(&file);
        (0..5).for_each(|n| teller.acked(entry(n)));
        teller.flush().expect("written");
        teller.flush().expect("nothing to write");
        let told = std::fs::read(&path).expect("readable");
        for (cut, whole) in [(0, 5), (1, 4), (ACK_BYTES, 4)] {
            let mut heard = Vec::new();
            listen(&told[..told.len() - cut], |entry| heard.push(entry)).expect("readable");
            assert_eq!(heard, (0..whole).map(entry).collect::<Vec<_>>());
        }
    }
}
