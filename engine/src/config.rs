//! The settings of an engine: a dozen fields with units. All else is a constant in [`crate::limits`].

use std::path::PathBuf;

use crate::command::sockets::ReadPath;
use crate::error::OpenError;
use crate::limits::JOURNAL_BYTES_MAX;
pub use crate::ring::backend::Backend;
use crate::types::{Durability, FlushPolicy, PartitionName, Prepare, Retention, WriteMode};

/// How an engine is opened.
#[derive(Clone, Debug)]
pub struct Config {
    /// The data directory; made if absent (its parent must exist).
    pub dir: PathBuf,
    /// Shards: pinned threads with a ring and a journal each. Default: one per usable core.
    pub shards: usize,
    /// Whether shards are pinned to cores, first to one that gets most of the disk's interrupts. Default: yes.
    pub pin: bool,
    /// Memory of one shard, in bytes: groups, tails, what the journal holds for the segments. Default 256 MiB.
    pub memory_bytes: usize,
    /// Size of one shard's journal, in bytes. Default 128 MiB.
    pub journal_bytes: u64,
    /// A segment is rolled before it grows beyond this many bytes. Default 1 GiB.
    pub segment_bytes: u64,
    /// A segment is rolled when its first record is older than this, by the engine's clock. Default: 7 days.
    pub roll_ms: u64,
    /// Bytes between two entries of an index. Default 4096.
    pub index_interval_bytes: u32,
    /// The flush policy of partitions that set none. Default [`FlushPolicy::Group`].
    pub flush: FlushPolicy,
    /// What is kept of partitions that set nothing of their own. Default: everything.
    pub retention: Retention,
    /// Direct or through the page cache. Default: direct where the file system takes it.
    pub write_mode: Option<WriteMode>,
    /// How space is made ready. Default [`Prepare::Prezero`].
    pub prepare: Prepare,
    /// The durability primitive. Default: calibrated at the first opening and stored.
    pub durability: Option<Durability>,
    /// How sealed segments go to sockets. Default: what is the fastest here, measured when the first
    /// server is started and stored.
    pub read_path: Option<ReadPath>,
    /// Which ring. Default [`Backend::Auto`].
    pub backend: Backend,
    /// How long a shard spins before it sleeps, in microseconds. Default 0; more than a flush takes saves a lone client
    /// one of two wake-ups an ack, at the cost of a core.
    pub spin_us: u32,
    /// Segment files open at once, of all shards together, 16 a shard at least; beyond that those used least recently
    /// are closed. Default 0: as many as the system lets the process have, less 192 for all else. A process with more
    /// files or sockets of its own says less.
    pub files_max: usize,
    /// Bytes a second that each shard reads again of sealed segments, to find rot before a reader does
    /// ([`crate::Engine::rotten`]); 0: never. A pass over all of them begins when the engine is opened, and once a day
    /// from then on, or as soon as the one before has ended. Default 4 MiB: a terabyte in three days.
    pub scrub_bytes_per_s: u64,
    /// Partitions that are to live on a certain shard, whatever the hash says. Default: none.
    pub placement: Vec<(PartitionName, usize)>,
}

impl Config {
    /// The defaults for the data directory `dir`.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            shards: std::thread::available_parallelism().map_or(1, usize::from),
            pin: true,
            memory_bytes: 256 << 20,
            journal_bytes: 128 << 20,
            segment_bytes: 1 << 30,
            roll_ms: 7 * 24 * 3600 * 1000,
            index_interval_bytes: 4096,
            flush: FlushPolicy::Group,
            retention: Retention::default(),
            write_mode: None,
            prepare: Prepare::Prezero,
            durability: None,
            read_path: None,
            backend: Backend::Auto,
            spin_us: 0,
            files_max: 0,
            scrub_bytes_per_s: 4 << 20,
            placement: Vec::new(),
        }
    }

    /// Checks every field.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let bad = |field, value: String, range| Err(OpenError::Config { field, value, range });
        if !(1..=1024).contains(&self.shards) {
            return bad("shards", self.shards.to_string(), "1 to 1024");
        }
        if !((8 << 20)..=(1 << 40)).contains(&self.memory_bytes) {
            return bad("memory_bytes", self.memory_bytes.to_string(), "8 MiB to 1 TiB");
        }
        if !((4 << 20)..=JOURNAL_BYTES_MAX).contains(&self.journal_bytes) {
            return bad("journal_bytes", self.journal_bytes.to_string(), "4 MiB to 4 GiB");
        }
        if !((64 << 10)..=i32::MAX as u64).contains(&self.segment_bytes) {
            return bad("segment_bytes", self.segment_bytes.to_string(), "64 KiB to 2^31-1");
        }
        if !(64..=(1 << 30)).contains(&self.index_interval_bytes) {
            let value = self.index_interval_bytes.to_string();
            return bad("index_interval_bytes", value, "64 bytes to 1 GiB");
        }
        if self.roll_ms == 0 {
            return bad("roll_ms", "0".into(), "1 or more");
        }
        if let FlushPolicy::Interval { ms: 0, .. } | FlushPolicy::Interval { bytes: 0, .. } =
            self.flush
        {
            return bad("flush", format!("{:?}", self.flush), "bounds above 0");
        }
        if self.retention.compact.is_some_and(|compact| compact.min_dirty_percent > 100) {
            return bad("retention", format!("{:?}", self.retention), "percents up to 100");
        }
        Ok(())
    }
}
