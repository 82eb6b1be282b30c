//! Lookups by offset and by time, as a server inside the engine's shard makes them, and a bare read of as many bytes
//! for comparison.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ringmain::batch::BatchBuilder;
use ringmain::serve::{Local, LocalLog};
use ringmain::types::{FlushPolicy, Isolation, Offset};
use ringmain::{Engine, LogHandle};

use crate::payload::Payload;
use crate::random::Random;
use crate::sample::Sample;

/// Bytes of an index interval: what a lookup goes through at most, and what the bare read reads.
pub const INTERVAL_BYTES: usize = 4 << 10;

/// Segments of the log.
pub const SEGMENTS: u64 = 100;

/// Batches of a segment.
const BATCHES: u64 = 40;

/// Records of a batch.
const RECORDS: u64 = 8;

/// Bytes of a record's value, so that a batch is about an index interval.
const VALUE_BYTES: usize = 500;

/// The first record's timestamp, in milliseconds since 1970; each record is a millisecond younger than the one before.
const FIRST_MS: i64 = 1_700_000_000_000;

/// All records.
const COUNT: u32 = (SEGMENTS * BATCHES * RECORDS) as u32;

/// What is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// The batch with an offset.
    Offset,
    /// The first record from a time on.
    Time,
}

/// A log to find records in.
pub struct Finds {
    log: LogHandle,
}

impl Finds {
    /// Fills `log` of `engine`, and looks each batch up once, so that what lookups remember is there.
    ///
    /// # Errors
    /// If it can't be filled or read.
    pub fn prepare(engine: &Engine, log: LogHandle, payload: &Payload) -> Result<Self> {
        log.set_flush_policy_blocking(FlushPolicy::Os)?;
        let mut cursor = payload.cursor(0);
        let (mut memory, mut value) = (Vec::new(), [0; VALUE_BYTES]);
        let mut next_ms = FIRST_MS;
        for _ in 0..SEGMENTS {
            for _ in 0..BATCHES {
                let mut batch = BatchBuilder::reuse(memory);
                for _ in 0..RECORDS {
                    cursor.fill(&mut value);
                    batch.add(next_ms, None, Some(&value))?;
                    next_ms += 1;
                }
                memory = log.append_blocking(batch.build()?)?.buffer;
            }
            log.roll_blocking()?;
        }
        log.flush_blocking()?;
        let finds = Self { log };
        let every = (0..COUNT).step_by(RECORDS as usize);
        finds.serve(engine, move |log| async move {
            for offset in every {
                look(&log, Key::Offset, offset).await?;
            }
            Ok(())
        })?;
        Ok(finds)
    }

    /// Looks up records at random, one after the other, for `measured` after `warm_up`.
    ///
    /// # Errors
    /// If one is not found.
    pub fn slice(
        &self,
        engine: &Engine,
        key: Key,
        (warm_up, measured): (Duration, Duration),
    ) -> Result<Sample> {
        self.serve(engine, move |log| async move {
            let mut random = Random::new(measured.as_nanos() as u64);
            let mut sample = Sample::empty(measured);
            let (begin, mut since) = (Instant::now(), Instant::now());
            loop {
                look(&log, key, random.below(COUNT)).await?;
                let now = Instant::now();
                if now - begin >= warm_up + measured {
                    return Ok(sample);
                }
                if now - begin >= warm_up {
                    note(&mut sample, now - since);
                }
                since = now;
            }
        })
    }

    /// Runs `task` inside the shard.
    fn serve<F, T>(
        &self,
        engine: &Engine,
        task: impl FnOnce(LocalLog) -> F + Send + 'static,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>> + 'static,
        T: Send + 'static,
    {
        let name = self.log.name().clone();
        let server = move |local: Local| async move {
            let log = local.log(name.topic(), name.partition());
            task(log.context("the log is the shard's")?).await
        };
        engine.serve(0, server)?.wait().context("the lookups' server ended")?
    }
}

async fn look(log: &LocalLog, key: Key, nth: u32) -> Result<()> {
    let isolation = Isolation::Durable;
    let offset = Offset::new(nth.into());
    let right = match key {
        Key::Offset => {
            let found = log.find_offset(offset, isolation).await?;
            found.is_some_and(|batch| (batch.first..=batch.last).contains(&offset))
        }
        Key::Time => {
            let found = log.find_time(FIRST_MS + i64::from(nth), isolation).await?;
            found.is_some_and(|record| record.offset == offset)
        }
    };
    ensure!(right, "a lookup did not find record {nth}");
    Ok(())
}

fn note(sample: &mut Sample, took: Duration) {
    sample.latencies.record(took.as_nanos() as u64);
    sample.records += 1;
    sample.bytes += INTERVAL_BYTES as u64;
}

/// Reads as many bytes as a lookup goes through, at random places of a file that is in the page cache.
///
/// # Errors
/// If it can't be read.
pub fn bare(path: &Path, (warm_up, measured): (Duration, Duration)) -> Result<Sample> {
    let file = File::open(path)?;
    let intervals = file.metadata()?.len() / INTERVAL_BYTES as u64;
    let mut buffer = [0; INTERVAL_BYTES];
    let mut random = Random::new(measured.as_nanos() as u64);
    let mut sample = Sample::empty(measured);
    let (begin, mut since) = (Instant::now(), Instant::now());
    loop {
        let at = u64::from(random.below(intervals as u32)) * INTERVAL_BYTES as u64;
        file.read_exact_at(&mut buffer, at)?;
        let now = Instant::now();
        if now - begin >= warm_up + measured {
            return Ok(sample);
        }
        if now - begin >= warm_up {
            note(&mut sample, now - since);
        }
        since = now;
    }
}
