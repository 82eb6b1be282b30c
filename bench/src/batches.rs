//! Batches of an exact size, made of the payload through the engine's own builder, as an embedder makes them.

use anyhow::{Context, Result};
use ringmain::batch::{Batch, BatchBuilder};

use crate::clock::now_ms;
use crate::onebatch::{BATCH_BYTES, KEY_BYTES, VALUE_BYTES};
use crate::payload::Cursor;

/// Up to this size a batch is one record.
const ONE_RECORD_BYTES_MAX: usize = 4 << 10;

/// Bytes of the batches on a [`Shelf`].
const SHELF_BYTES: usize = 16 << 20;

/// Longest line taken whole; a longer one is cut, so that lengths below stay two bytes long.
const LINE_BYTES_MAX: usize = 2 << 10;

/// Bytes of a record that are not its value: length (2), attributes, timestamp delta, key length, value length
/// (2) and header count, but for the offset delta.
const FRAME_BYTES: usize = 2 + 1 + 1 + 1 + 2 + 1;

/// Least room for the record that fills a batch: from here on its lengths take two bytes each.
const LAST_BYTES_MIN: usize = 100;

/// A batch of exactly `bytes` in the memory of `buffer`: one record if it is small, else a line a record and the
/// last one as long as it takes.
///
/// # Errors
/// If the builder refuses it, which it does not for sizes between 175 bytes and its own limit.
pub fn fill(buffer: Vec<u8>, bytes: usize, client: u32, cursor: &mut Cursor<'_>) -> Result<Batch> {
    let now = now_ms() as i64;
    let mut builder = BatchBuilder::reuse(buffer);
    if bytes == BATCH_BYTES {
        let (mut key, mut value) = ([0; KEY_BYTES], [0; VALUE_BYTES]);
        key[1..].copy_from_slice(&client.to_be_bytes());
        cursor.fill(&mut value);
        builder.add(now, Some(&key), Some(&value))?;
    } else if bytes <= ONE_RECORD_BYTES_MAX {
        let mut value = [0; ONE_RECORD_BYTES_MAX];
        let value = &mut value[..last_value(&builder, bytes)];
        cursor.fill(value);
        builder.add(now, None, Some(value))?;
    } else {
        lines(&mut builder, bytes, now, cursor)?;
    }
    let batch = builder.build()?;
    assert_eq!(batch.as_bytes().len(), bytes, "exact, so that arms of one size are comparable");
    Ok(batch)
}

fn lines(
    builder: &mut BatchBuilder,
    bytes: usize,
    now: i64,
    cursor: &mut Cursor<'_>,
) -> Result<()> {
    loop {
        let line = cursor.line();
        let line = &line[..line.len().min(LINE_BYTES_MAX)];
        // The widest offset delta is three bytes: a batch has fewer than a million records.
        if builder.encoded_bytes() + FRAME_BYTES + 3 + line.len() + LAST_BYTES_MIN > bytes {
            break;
        }
        builder.add(now, None, Some(line))?;
    }
    let mut value = [0; 2 * LINE_BYTES_MAX];
    let value = &mut value[..last_value(builder, bytes)];
    cursor.fill(value);
    builder.add(now, None, Some(value)).context("the last record")
}

/// How long the value is that fills a batch.
fn last_value(builder: &BatchBuilder, bytes: usize) -> usize {
    let offset_delta = match builder.len() {
        0..64 => 1,
        64..8192 => 2,
        _ => 3,
    };
    bytes - builder.encoded_bytes() - FRAME_BYTES - offset_delta
}

/// Batches, all different, that are copied and not built anew, so that one core of clients keeps up with a device of
/// several gigabytes a second.
pub struct Shelf {
    batches: Vec<Batch>,
    next: usize,
}

impl Shelf {
    /// Batches of exactly `bytes` each, `SHELF_BYTES` together.
    ///
    /// # Errors
    /// As [`fill`].
    pub fn new(bytes: usize, cursor: &mut Cursor<'_>) -> Result<Self> {
        let batch = |_| fill(Vec::new(), bytes, 0, cursor);
        let batches = (0..SHELF_BYTES / bytes).map(batch).collect::<Result<_>>()?;
        Ok(Self { batches, next: 0 })
    }

    /// The next one, in the memory of `buffer`.
    pub fn take(&mut self, buffer: Vec<u8>) -> Batch {
        let batch = self.batches[self.next].copy_in(buffer);
        self.next = (self.next + 1) % self.batches.len();
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Payload;

    #[test]
    fn every_size_of_the_plan_is_met_exactly() {
        let payload = Payload::generated(1 << 20);
        let mut cursor = payload.cursor(1);
        let mut buffer = Vec::new();
        for _ in 0..200 {
            for bytes in [BATCH_BYTES, 1024, 64 << 10, 512 << 10] {
                let batch = fill(buffer, bytes, 7, &mut cursor).expect("built");
                assert_eq!(batch.as_bytes().len(), bytes);
                let one = batch.record_count() == 1;
                assert_eq!(one, bytes <= ONE_RECORD_BYTES_MAX);
                buffer = batch.into_bytes();
            }
        }
    }

    #[test]
    fn the_same_lines_do_not_come_again_in_the_next_batch() {
        let payload = Payload::generated(1 << 20);
        let mut cursor = payload.cursor(0);
        let mut batch = || fill(Vec::new(), 64 << 10, 0, &mut cursor).expect("built").into_bytes();
        let (first, second) = (batch(), batch());
        assert_ne!(first[61..], second[61..]);
    }

    #[test]
    fn a_shelf_gives_intact_batches_that_differ() {
        let payload = Payload::generated(1 << 20);
        let mut shelf = Shelf::new(512 << 10, &mut payload.cursor(0)).expect("built");
        let mut seen = std::collections::HashSet::new();
        for _ in 0..SHELF_BYTES / (512 << 10) {
            let batch = shelf.take(Vec::new()).into_bytes();
            assert_eq!(batch.len(), 512 << 10);
            assert!(seen.insert(batch), "the same batch again");
        }
    }
}
