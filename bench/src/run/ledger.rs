//! What was acked, and whether it is there, in constant memory: a run of any length is verified whole.
//!
//! Acks of a partition add up, in any order, to a sum over (offset, producer, sequence, records) of each batch. Read
//! back, the partition's batches must come to the same sum: each is where its ack said, none more, none less. The
//! records' own stamps say what is wrong where it is wrong: a producer's numbers must rise by one in each partition.

use std::collections::HashMap;

use anyhow::{Context, Result};
use ringmain::batch::{BatchView, batches};

use super::backend::Reader;
use super::workload::Workload;
use crate::interrupt;
use crate::oracle::{Damage, Findings, Stamp, Tally};

/// Bytes of a read.
const READ_BYTES: usize = 4 << 20;

/// Ranges of missing numbers that are kept apart in a partition: beyond them, late records count as duplicates.
const GAPS_MAX: usize = 1024;

/// Most damages told one by one.
const EXAMPLES_MAX: usize = 20;

/// What was acked.
#[derive(Debug, Default)]
pub struct Ledger {
    partitions: Box<[Account]>,
    /// Records acked, by partition and producer.
    lanes: Box<[u64]>,
    producers: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Account {
    sum: u64,
    records: u64,
}

/// One acked batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it went.
    pub partition: u32,
    /// Who sent it.
    pub producer: u32,
    /// Its first record's number.
    pub sequence: u64,
    /// Its first record's offset.
    pub offset: i64,
    /// Its records.
    pub records: u32,
}

impl Entry {
    /// Well mixed, so that sums of different sets differ.
    fn mix(self) -> u64 {
        let mut z = (self.offset as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for field in [u64::from(self.producer), self.sequence, u64::from(self.records)] {
            z = (z ^ field).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z ^= z >> 29;
        }
        z
    }
}

impl Ledger {
    /// Nothing acked yet.
    pub fn new(partitions: u32, producers: u32) -> Self {
        Self {
            partitions: vec![Account::default(); partitions as usize].into(),
            lanes: vec![0; partitions as usize * producers as usize].into(),
            producers,
        }
    }

    /// Takes an ack.
    pub fn acked(&mut self, entry: Entry) {
        let account = &mut self.partitions[entry.partition as usize];
        account.sum = account.sum.wrapping_add(entry.mix());
        account.records += u64::from(entry.records);
        let lane = entry.partition as usize * self.producers as usize + entry.producer as usize;
        self.lanes[lane] += u64::from(entry.records);
    }

    /// Records acked.
    pub fn records(&self) -> u64 {
        self.partitions.iter().map(|account| account.records).sum()
    }

    /// Reads all of it back.
    ///
    /// # Errors
    /// If it can't be read, or the user stops the run. What is read and wrong is a finding.
    pub fn verify(&self, reader: &mut dyn Reader) -> Result<Findings> {
        let mut findings = begin(self.records(), reader);
        for partition in 0..self.partitions.len() as u32 {
            let mut reading = Reading::new(partition, self.producers, &mut findings);
            reading.all(reader)?;
            let lanes = partition as usize * self.producers as usize;
            let lanes = &self.lanes[lanes..lanes + self.producers as usize];
            reading.end(self.partitions[partition as usize], lanes);
        }
        Ok(findings)
    }
}

fn begin(acked: u64, reader: &dyn Reader) -> Findings {
    let mut findings = Findings::default();
    findings.tally.acked = acked;
    for what in reader.damages() {
        findings.tally.corrupt += 1;
        findings.examples.push(Damage { partition: None, offset: None, what });
    }
    findings
}

/// What a process had acked before it was killed, as far as it could tell: all of that must be there. More may be.
#[derive(Debug, Default)]
pub struct Told {
    /// Records, by partition and what the batch is.
    batches: HashMap<(u32, u64), u32>,
    records: u64,
}

impl Told {
    /// Takes an ack.
    pub fn acked(&mut self, entry: Entry) {
        self.batches.insert((entry.partition, entry.mix()), entry.records);
        self.records += u64::from(entry.records);
    }

    /// Reads all of it back.
    ///
    /// # Errors
    /// As [`Ledger::verify`].
    pub fn verify(mut self, workload: &Workload, reader: &mut dyn Reader) -> Result<Findings> {
        let mut findings = begin(self.records, reader);
        for partition in 0..workload.partitions {
            let mut reading = Reading::new(partition, workload.producers, &mut findings);
            reading.told = Some(&mut self.batches);
            reading.all(reader)?;
        }
        let lost: u64 = self.batches.values().map(|records| u64::from(*records)).sum();
        if lost > 0 {
            let partition = self.batches.keys().map(|(partition, _)| *partition).min();
            let what =
                format!("{} acked batches are not at the offset of their ack", self.batches.len());
            findings.tally.lost += lost;
            findings.examples.push(Damage { partition, offset: None, what });
        }
        Ok(findings)
    }
}

/// One partition, being read.
struct Reading<'a> {
    partition: u32,
    next_offset: i64,
    /// The number that each producer's next record should have.
    next: Vec<u64>,
    gaps: Vec<(u32, u64, u64)>,
    sum: u64,
    clean: bool,
    findings: &'a mut Findings,
    /// After a kill: what must be there. What is not in it was not acked, and may be missing.
    told: Option<&'a mut HashMap<(u32, u64), u32>>,
}

impl<'a> Reading<'a> {
    fn new(partition: u32, producers: u32, findings: &'a mut Findings) -> Self {
        let next = vec![0; producers as usize];
        Self {
            partition,
            next_offset: 0,
            next,
            gaps: Vec::new(),
            sum: 0,
            clean: true,
            findings,
            told: None,
        }
    }

    /// Reads it to its end.
    fn all(&mut self, reader: &mut dyn Reader) -> Result<()> {
        let mut bytes = Vec::with_capacity(2 * READ_BYTES);
        loop {
            interrupt::check()?;
            bytes.clear();
            let (partition, from) = (self.partition, self.next_offset);
            let fetched = reader.fetch(partition, from, READ_BYTES, &mut bytes);
            fetched.with_context(|| format!("partition {partition} from offset {from}"))?;
            if bytes.is_empty() || !self.take(&bytes) {
                return Ok(());
            }
        }
    }

    /// Takes what was fetched; false if nothing behind it can be found.
    fn take(&mut self, bytes: &[u8]) -> bool {
        for batch in batches(bytes) {
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => {
                    self.wrong(|tally| &mut tally.corrupt, 1, error.to_string());
                    return false;
                }
            };
            if batch.last_offset().get() < self.next_offset {
                self.wrong(|tally| &mut tally.corrupt, 1, "a read went backwards".to_owned());
                return false;
            }
            self.batch(&batch);
        }
        true
    }

    fn batch(&mut self, batch: &BatchView<'_>) {
        let base = batch.base_offset().get();
        if base != self.next_offset {
            let what = format!("offset {} should be here, not {base}", self.next_offset);
            self.wrong(|tally| &mut tally.corrupt, 1, what);
        }
        self.next_offset = batch.last_offset().get() + 1;
        let records = match batch.records() {
            Ok(records) => records,
            Err(error) => return self.wrong(|tally| &mut tally.corrupt, 1, error.to_string()),
        };
        let (mut first, mut count) = (None, 0);
        for record in records {
            let stamp = record.ok().and_then(|record| Stamp::of(record.value.unwrap_or_default()));
            let known = stamp.filter(|stamp| (stamp.producer as usize) < self.next.len());
            let Some(stamp) = known else {
                self.wrong(
                    |tally| &mut tally.corrupt,
                    1,
                    "the record's checksum is wrong".to_owned(),
                );
                continue;
            };
            first.get_or_insert(stamp);
            count += 1;
            self.place(stamp);
        }
        let Some(Stamp { producer, sequence }) = first else { return };
        let entry =
            Entry { partition: self.partition, producer, sequence, offset: base, records: count };
        self.sum = self.sum.wrapping_add(entry.mix());
        if let Some(told) = &mut self.told {
            told.remove(&(self.partition, entry.mix()));
        }
    }

    fn place(&mut self, stamp: Stamp) {
        let Stamp { producer, sequence } = stamp;
        let next = self.next[producer as usize];
        if sequence == next {
            self.next[producer as usize] += 1;
            return;
        }
        let named = format!("record {sequence} of producer {producer}");
        if sequence > next {
            if self.gaps.len() < GAPS_MAX {
                self.gaps.push((producer, next, sequence));
            }
            self.next[producer as usize] = sequence + 1;
            if self.told.is_some() {
                // What is missing was acked, and is counted at the end, or it was not.
                return;
            }
            return self.wrong(
                |tally| &mut tally.lost,
                sequence - next,
                format!("before {named} some are missing"),
            );
        }
        let inside =
            |gap: &(u32, u64, u64)| gap.0 == producer && (gap.1..gap.2).contains(&sequence);
        if let Some(at) = self.gaps.iter().position(inside) {
            let (_, from, to) = self.gaps.swap_remove(at);
            let rest = [(producer, from, sequence), (producer, sequence + 1, to)];
            self.gaps.extend(rest.into_iter().filter(|(_, from, to)| from < to));
            self.findings.tally.lost -= u64::from(self.told.is_none());
            self.wrong(|tally| &mut tally.reordered, 1, format!("{named} comes after a later one"));
        } else {
            self.wrong(|tally| &mut tally.duplicated, 1, format!("{named} is here again"));
        }
    }

    fn end(mut self, account: Account, lanes: &[u64]) {
        for (producer, (&acked, next)) in lanes.iter().zip(self.next.clone()).enumerate() {
            if next < acked {
                let what =
                    format!("records {next} to {} of producer {producer} are lost", acked - 1);
                self.wrong(|tally| &mut tally.lost, acked - next, what);
            }
        }
        if self.clean && self.sum != account.sum {
            let what = "batches are not at the offsets that their acks named".to_owned();
            self.wrong(|tally| &mut tally.reordered, 1, what);
        }
    }

    fn wrong(&mut self, count: fn(&mut Tally) -> &mut u64, by: u64, what: String) {
        self.clean = false;
        *count(&mut self.findings.tally) += by;
        if self.findings.examples.len() < EXAMPLES_MAX {
            let (partition, offset) = (Some(self.partition), Some(self.next_offset));
            self.findings.examples.push(Damage { partition, offset, what });
        }
    }
}

#[cfg(test)]
#[path = "ledger/tests.rs"]
mod tests;
