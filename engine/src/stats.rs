//! What a shard counts, for its owner and for the benchmarks.

use crate::error::Fault;
use crate::ring::RingStats;
use crate::types::{Offset, Retention};

mod durations;

pub use durations::Durations;

/// Counts of one shard since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardStats {
    /// Batches appended.
    pub batches: u64,
    /// Records appended.
    pub records: u64,
    /// Bytes of batches appended.
    pub batch_bytes: u64,
    /// Journal groups written.
    pub groups: u64,
    /// Bytes written to the journal, tables and padding included.
    pub journal_bytes: u64,
    /// Bytes of batches that became durable by way of the journal.
    pub journaled_bytes: u64,
    /// Bytes written to segments, padding included.
    pub segment_bytes: u64,
    /// Durable writes that went straight to a segment.
    pub direct_writes: u64,
    /// Bytes of space readied ahead.
    pub prepared_bytes: u64,
    /// Flushes of segment files.
    pub flushes: u64,
    /// Checkpoints of the journal, and how long they took together.
    pub checkpoints: u64,
    /// Nanoseconds spent in checkpoints, from their beginning to their end.
    pub checkpoint_ns: u64,
    /// Times an append waited for memory.
    pub memory_waits: u64,
    /// Times an append waited until segments before its own were sealed: they are small for so many bytes a second.
    pub seal_waits: u64,
    /// Times a group waited for room in the journal, or for memory.
    pub journal_waits: u64,
    /// Segments deleted by retention or on demand, and replaced by compaction.
    pub segments_deleted: u64,
    /// Bytes of deleted and replaced files given back to the file system.
    pub bytes_freed: u64,
    /// Compactions that ended well.
    pub compactions: u64,
    /// Bytes of segments that compactions read through.
    pub compacted_bytes: u64,
    /// Failures of retention and compaction; nothing else depends on these.
    pub keep_faults: u64,
    /// Bytes of logs sent to sockets from the memory of tails.
    pub sent_memory_bytes: u64,
    /// Bytes of logs sent to sockets from the page cache.
    pub sent_pages_bytes: u64,
    /// Bytes of logs sent to sockets that were read past the page cache.
    pub sent_cold_bytes: u64,
    /// Bytes of sealed segments that the scrub has read.
    pub scrub_bytes: u64,
    /// Sealed segments that it has read to their end, or to what is wrong with them.
    pub scrub_segments: u64,
    /// Times it found that one is not what was sealed ([`crate::Engine::rotten`]).
    pub scrub_rotten: u64,
    /// Times it went over all of them.
    pub scrub_passes: u64,
    /// Failed operations.
    pub faults: u64,
    /// Bytes in the journal that segments do not have on stable storage yet.
    pub checkpoint_lag_bytes: u64,
    /// Bytes of the shard's memory in use.
    pub memory_used_bytes: u64,
    /// What its ring counted.
    pub ring: RingStats,
}

impl ShardStats {
    /// Bytes written to the device for each byte of batches; preparation is not in it. `None` before the first
    /// append.
    #[must_use]
    pub fn write_amplification(&self) -> Option<f64> {
        let written = self.journal_bytes + self.segment_bytes;
        (self.batch_bytes > 0).then(|| written as f64 / self.batch_bytes as f64)
    }
}

/// How long the operations took that acks of one shard waited for, since it was opened: an operation each, however many
/// appends share it, from the moment the ring had it until it ended. Operations that failed, and what no ack waits
/// for, such as the writes of a checkpoint, are not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskTimes {
    /// Writes that were not durable when they ended.
    pub writes: Durations,
    /// Flushes behind such writes, by `fdatasync`: [`Durability::Fdatasync`](crate::types::Durability::Fdatasync).
    pub flushes: Durations,
    /// Durable writes, in which write and flush are one operation:
    /// [`Durability::Dsync`](crate::types::Durability::Dsync).
    pub durable_writes: Durations,
}

/// What keeps a log as its retention says, and how that goes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Keeping {
    /// What is in force.
    pub retention: Retention,
    /// Whether that was set for this partition alone; else it is the engine's.
    pub own: bool,
    /// Compaction has seen everything before this offset.
    pub compacted_to: Offset,
    /// The part of what may be compacted that has not been, in percent; `None` without compaction.
    pub dirty_percent: Option<u8>,
    /// Segments deleted since the engine was opened.
    pub segments_deleted: u64,
    /// Bytes given back to the file system since then.
    pub bytes_freed: u64,
    /// Compactions since then.
    pub compactions: u64,
    /// What failed last, until all is well again.
    pub fault: Option<Fault>,
}
