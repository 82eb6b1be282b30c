//! Makes batches: the generator's inner loop. Allocates nothing once every buffer has seen its largest batch.

use anyhow::{Context, Result};
use ringmain::batch::{Batch, BatchBuilder, Compression};

use super::draw::{KeyDraw, SizeDraw};
use super::workload::{BATCH_BYTES_MAX, RECORD_BYTES_MAX, Workload};
use crate::oracle::{STAMP_BYTES, Stamp};
use crate::payload::{Cursor, Payload};
use crate::random::Random;

/// Room for a record's frame and key, beside its value.
const FRAME_BYTES: usize = 64;

/// A batch, and what it stands for.
#[derive(Debug)]
pub struct Made {
    /// Where it goes.
    pub partition: u32,
    /// The number of its first record among the producer's records of that partition.
    pub sequence: u64,
    /// The batch.
    pub batch: Batch,
}

/// Makes the batches of all producers.
pub struct Maker<'a> {
    producers: Box<[Producer<'a>]>,
    /// The next record's number, by producer and partition.
    sequences: Box<[u64]>,
    sizes: SizeDraw,
    keys: KeyDraw,
    compression: Compression,
    records: u32,
    partitions: u32,
    value: Box<[u8]>,
}

struct Producer<'a> {
    cursor: Cursor<'a>,
    random: Random,
    /// The next partition, where there are no keys.
    partition: u32,
}

impl<'a> Maker<'a> {
    /// For a repeat of `workload`; every repeat has other sizes and keys.
    ///
    /// # Errors
    /// A usage error if a file of sizes can't be read.
    pub fn new(workload: &Workload, payload: &'a Payload, repeat: u32) -> Result<Self> {
        let producer = |nth: u32| Producer {
            cursor: payload.cursor(nth as usize + repeat as usize * 7919),
            random: Random::new(
                workload.seed.wrapping_add(u64::from(nth) << 32 | u64::from(repeat)),
            ),
            partition: nth % workload.partitions,
        };
        let lanes = workload.producers as usize * workload.partitions as usize;
        Ok(Self {
            producers: (0..workload.producers).map(producer).collect(),
            sequences: vec![0; lanes].into(),
            sizes: SizeDraw::new(&workload.record_bytes)?,
            keys: KeyDraw::new(workload.keys),
            compression: workload.codec.0,
            records: workload.batch_records,
            partitions: workload.partitions,
            value: vec![0; RECORD_BYTES_MAX as usize].into(),
        })
    }

    /// The next batch of `producer`, in the memory of `buffer`.
    ///
    /// # Errors
    /// If the builder refuses it.
    pub fn make(&mut self, producer: u32, buffer: Vec<u8>, now_ms: i64) -> Result<Made> {
        let Producer { cursor, random, partition } = &mut self.producers[producer as usize];
        let first = self.keys.next(random);
        let to = first.map_or(*partition, |key| key % self.partitions);
        *partition = (*partition + 1) % self.partitions;
        let lane = &mut self.sequences[producer as usize * self.partitions as usize + to as usize];
        let sequence = *lane;
        let mut builder = BatchBuilder::reuse(buffer).compression(self.compression);
        let mut key = first;
        for nth in 0..u64::from(self.records) {
            let room =
                (BATCH_BYTES_MAX as usize).saturating_sub(builder.encoded_bytes() + FRAME_BYTES);
            let bytes = match &self.sizes {
                SizeDraw::Lines => {
                    let line = cursor.line();
                    // A batch that is full holds no more than the stamps of what is left.
                    let bytes = line.len().min(room.saturating_sub(STAMP_BYTES));
                    self.value[STAMP_BYTES..STAMP_BYTES + bytes].copy_from_slice(&line[..bytes]);
                    STAMP_BYTES + bytes
                }
                SizeDraw::Of(draw) => {
                    let bytes = draw.next(random).min(room).max(STAMP_BYTES);
                    cursor.fill(&mut self.value[STAMP_BYTES..bytes]);
                    bytes
                }
            };
            let value = &mut self.value[..bytes];
            Stamp { producer, sequence: sequence + nth }.put(value);
            let key_bytes = key.map(|key| u64::from(key).to_be_bytes());
            builder.add(now_ms, key_bytes.as_ref().map(<[u8; 8]>::as_slice), Some(value))?;
            key = key.and_then(|_| self.keys.next_of(random, to, self.partitions));
        }
        let batch = builder.build().context("a batch of the workload can't be built")?;
        *lane += u64::from(self.records);
        Ok(Made { partition: to, sequence, batch })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use ringmain::batch::batches;

    use super::*;

    fn made(workload: &Workload) -> Vec<Made> {
        let payload = Payload::generated(1 << 20);
        let mut maker = Maker::new(workload, &payload, 0).expect("a maker");
        let producers = (0..workload.producers).cycle();
        producers
            .take(20)
            .map(|producer| maker.make(producer, Vec::new(), 7).expect("made"))
            .collect()
    }

    #[test]
    fn every_record_is_stamped_in_its_producers_order() {
        let text = "producers = 2\npartitions = 3\nbatch-records = 10\nrecord-bytes = \"100..200\"";
        let mut next = std::collections::HashMap::new();
        for (nth, made) in
            made(&Workload::from_toml(text).expect("a workload")).into_iter().enumerate()
        {
            let producer = nth as u32 % 2;
            let next = next.entry((producer, made.partition)).or_insert(0);
            assert_eq!(made.sequence, *next);
            let bytes = made.batch.into_bytes();
            for batch in batches(&bytes) {
                for record in batch.expect("whole").records().expect("readable") {
                    let value = record.expect("whole").value.expect("a value");
                    assert!((100..=200).contains(&value.len()));
                    assert_eq!(Stamp::of(value), Some(Stamp { producer, sequence: *next }));
                    *next += 1;
                }
            }
        }
    }

    #[test]
    fn no_two_batches_are_alike_and_a_seed_replays() {
        let workload = Workload::from_toml("record-bytes = 64\nkeys = \"zipf:50\"\npartitions = 4");
        let workload = workload.expect("a workload");
        let bytes =
            |made: Vec<Made>| made.into_iter().map(|m| m.batch.into_bytes()).collect::<Vec<_>>();
        let (first, again) = (bytes(made(&workload)), bytes(made(&workload)));
        assert_eq!(first, again);
        assert_eq!(first.iter().collect::<HashSet<_>>().len(), first.len());
    }
}
