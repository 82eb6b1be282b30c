//! What one slice of one arm came to.

use std::time::Duration;

use ringmain::ShardStats;

use crate::histogram::Latencies;

/// Figures of one slice.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Latencies of the requests that ended in the measured time.
    pub latencies: Latencies,
    /// Records (for a device: writes) that ended in it.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The measured time.
    pub elapsed: Duration,
    /// What the engine did meanwhile, warm-up included; none for other targets.
    pub cost: Option<Cost>,
}

/// What an engine's shard counted over a slice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Records appended.
    pub records: u64,
    /// Bytes of batches appended.
    pub batch_bytes: u64,
    /// Bytes to the journal and to segments, preparation apart.
    pub device_bytes: u64,
    /// Bytes to the journal.
    pub journal_bytes: u64,
    /// Journal groups.
    pub groups: u64,
    /// Writes that made something durable: journal groups, and those that went straight to a segment.
    pub durable_writes: u64,
    /// Bytes of space readied while the clock ran.
    pub prepared_bytes: u64,
    /// Times an append waited for memory, or a group for the journal.
    pub waits: u64,
    /// Bytes in the journal that were not in their segments at the end.
    pub lag_bytes: u64,
    /// Size of the journal, which turns each time that many bytes were written to it.
    pub journal_size: u64,
    /// By how much resident memory grew since the engine was opened, while it was opened and while it ran.
    pub rss_bytes: u64,
}

impl Cost {
    /// What was counted between `before` and `after`.
    pub fn between(before: &ShardStats, after: &ShardStats) -> Self {
        let since = |count: fn(&ShardStats) -> u64| count(after) - count(before);
        Self {
            records: since(|s| s.records),
            batch_bytes: since(|s| s.batch_bytes),
            device_bytes: since(|s| s.journal_bytes + s.segment_bytes),
            journal_bytes: since(|s| s.journal_bytes),
            groups: since(|s| s.groups),
            durable_writes: since(|s| s.groups + s.direct_writes),
            prepared_bytes: since(|s| s.prepared_bytes),
            waits: since(|s| s.memory_waits + s.journal_waits + s.seal_waits),
            lag_bytes: after.checkpoint_lag_bytes,
            ..Self::default()
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            records: self.records + other.records,
            batch_bytes: self.batch_bytes + other.batch_bytes,
            device_bytes: self.device_bytes + other.device_bytes,
            journal_bytes: self.journal_bytes + other.journal_bytes,
            groups: self.groups + other.groups,
            durable_writes: self.durable_writes + other.durable_writes,
            prepared_bytes: self.prepared_bytes + other.prepared_bytes,
            waits: self.waits + other.waits,
            lag_bytes: self.lag_bytes.max(other.lag_bytes),
            journal_size: self.journal_size.max(other.journal_size),
            rss_bytes: self.rss_bytes.max(other.rss_bytes),
        }
    }
}

impl Sample {
    /// Nothing yet, in `elapsed`.
    pub fn empty(elapsed: Duration) -> Self {
        Self { latencies: Latencies::new(), records: 0, bytes: 0, elapsed, cost: None }
    }

    /// Records a second.
    pub fn records_per_s(&self) -> f64 {
        self.records as f64 / self.elapsed.as_secs_f64()
    }

    /// Mebibytes a second.
    pub fn mib_per_s(&self) -> f64 {
        self.bytes as f64 / self.elapsed.as_secs_f64() / f64::from(1 << 20)
    }
}
