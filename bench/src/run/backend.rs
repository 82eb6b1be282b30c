//! What can be measured: one interface, so that the same loop drives and the same check verifies all of them.
//!
//! A backend takes encoded batches (Kafka's RecordBatch v2, as the engine's builder makes them) and says when each
//! is as safe as the workload's flush policy asks. It is driven by one thread, by submission and completion, as a
//! ring is: a backend made of threads or futures keeps its own queue behind `submit`.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use ringmain::DiskTimes;
use ringmain::batch::Batch;
use serde::{Deserialize, Serialize};

use super::workload::Workload;

/// A batch on its way.
#[derive(Debug)]
pub struct Request {
    /// Where its completion is expected: below [`Workload::slots`], one request at a time each.
    pub slot: u32,
    /// Where it goes: below [`Workload::partitions`].
    pub partition: u32,
    /// The batch. Its base offset, the first eight bytes, is the backend's to fill in; the checksum does not cover it.
    pub batch: Batch,
}

/// A request that has ended.
#[derive(Debug)]
pub struct Completion {
    /// Its slot, free again.
    pub slot: u32,
    /// How it ended.
    pub result: Result<Acked>,
}

/// A batch that is as safe as was asked for.
#[derive(Debug)]
pub struct Acked {
    /// The offset of its first record. Batches of one partition get theirs in the order of their submission,
    /// from 0 on, without gaps.
    pub base_offset: i64,
    /// The batch's memory, for the next one.
    pub buffer: Vec<u8>,
    /// When its bytes were written, where the backend knows.
    pub written: Option<Instant>,
    /// When they were flushed, where the backend knows; never before `written`.
    pub flushed: Option<Instant>,
}

/// What a backend counts since it was opened. What it does not know is absent, never zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes given to the device for batches, padding and journals included, preparation apart.
    pub written_bytes: Option<u64>,
    /// Flushes, a durable write counting as one.
    pub flushes: Option<u64>,
    /// Bytes of space readied ahead.
    pub prepared_bytes: Option<u64>,
}

/// What a backend turned out to do with this workload, here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Whether it writes past the page cache.
    pub direct: bool,
    /// What an ack means, and by what calls, in a few words.
    pub ack: String,
    /// Settings of the workload that have no meaning here, and what is done instead: each becomes a warning.
    pub notes: Vec<String>,
}

/// Whether what was acked can be read back once the instance is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verifiable {
    /// All of it.
    Yes,
    /// Not; why, in words, for the report.
    No(String),
}

/// A backend: something that can be opened.
pub trait Backend {
    /// Opens it in `dir`, an empty directory of its own, with all partitions made and their space made ready.
    /// Call on a thread that is not pinned.
    ///
    /// # Errors
    /// A usage error if it can't do what the workload asks; else if something can't be made.
    fn open(&self, dir: &Path, workload: &Workload) -> Result<Box<dyn Instance>>;

    /// Opens what an instance left in `dir`, closed or killed, to read it from the files. Of what a killed one had
    /// not acked, some may be there.
    ///
    /// # Errors
    /// If it can't be opened, or nothing is kept.
    fn reopen(&self, dir: &Path, workload: &Workload) -> Result<Box<dyn Reader>>;
}

/// An open backend. All calls come from one thread, but for those of its readers.
pub trait Instance {
    /// What it does.
    fn facts(&self) -> Facts;

    /// Whether [`Backend::reopen`] gives all that was acked.
    fn verifiable(&self) -> Verifiable;

    /// Takes a request. Never waits for the disk; allocates nothing once it runs.
    fn submit(&mut self, request: Request);

    /// Hands out what has ended. With nothing to hand out it waits up to `wait`, which may be nothing; it may return
    /// earlier with nothing.
    ///
    /// # Errors
    /// If the backend is broken, so that no request will end any more.
    fn poll(&mut self, wait: Duration, done: &mut Vec<Completion>) -> Result<()>;

    /// What it has counted so far.
    fn counters(&self) -> Counters;

    /// How long the writes and flushes took that batches share, of each part of it since it was opened: where
    /// [`Acked`] does not say it batch by batch.
    fn disk_times(&self) -> Vec<DiskTimes> {
        Vec::new()
    }

    /// A reader for another thread, which ends before the instance.
    ///
    /// # Errors
    /// If it can't be made, or nothing is kept.
    fn reader(&self) -> Result<Box<dyn Reader>>;

    /// Ends it, without making anything safer than its ack said. Nothing is in flight.
    ///
    /// # Errors
    /// If something failed that no completion told.
    fn close(self: Box<Self>) -> Result<()>;
}

/// Reads what was acked.
pub trait Reader: Send {
    /// Puts whole batches of `partition` into `into`, which is empty, from the one that holds `offset` on, at least one
    /// and up to about `bytes_max`, base offsets filled in. Nothing if there is none yet. Never what was not acked.
    ///
    /// # Errors
    /// If it can't be read.
    fn fetch(
        &mut self,
        partition: u32,
        offset: i64,
        bytes_max: usize,
        into: &mut Vec<u8>,
    ) -> Result<()>;

    /// What was found damaged when it was opened, in words.
    fn damages(&self) -> Vec<String> {
        Vec::new()
    }
}
