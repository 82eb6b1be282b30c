//! The nouns of a log as types: an offset counts records, a position counts bytes.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A record's number in its partition, from 0. `Offset` counts records, never bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(i64);

impl Offset {
    /// The first offset of every partition.
    pub const ZERO: Self = Self(0);

    /// Makes an offset of a number that is known to be one; what comes from elsewhere is converted with `TryFrom`, or
    /// parsed.
    ///
    /// # Panics
    /// If `value` is negative: Kafka's format has no negative offsets.
    #[must_use]
    pub const fn new(value: i64) -> Self {
        assert!(value >= 0, "an offset is never negative");
        Self(value)
    }

    /// The number itself.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The offset `records` further on.
    #[must_use]
    pub const fn plus(self, records: u32) -> Self {
        Self(self.0 + records as i64)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A number or a text that is no [`Offset`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an offset is a whole number from 0 to {max}", max = i64::MAX)]
pub struct NotAnOffset;

impl TryFrom<i64> for Offset {
    type Error = NotAnOffset;

    fn try_from(value: i64) -> Result<Self, NotAnOffset> {
        if value < 0 { Err(NotAnOffset) } else { Ok(Self(value)) }
    }
}

impl FromStr for Offset {
    type Err = NotAnOffset;

    fn from_str(text: &str) -> Result<Self, NotAnOffset> {
        text.parse::<i64>().map_err(|_| NotAnOffset)?.try_into()
    }
}

/// A byte position within one segment file. `Pos` counts bytes, never records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pos(u32);

impl Pos {
    /// The first byte of a segment.
    pub const ZERO: Self = Self(0);

    /// The largest position.
    pub(crate) const MAX: Self = Self::new(i32::MAX as u64);

    /// Makes a position.
    ///
    /// # Panics
    /// If `value` is above `i32::MAX`: Kafka's index holds positions as signed 32-bit numbers.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        assert!(value <= i32::MAX as u64, "a position fits a signed 32-bit number");
        Self(value as u32)
    }

    /// The number of bytes before this position.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0 as u64
    }

    /// The position `bytes` further on.
    #[must_use]
    pub const fn plus(self, bytes: u64) -> Self {
        Self::new(self.0 as u64 + bytes)
    }

    /// The bytes from `earlier` to this position.
    ///
    /// # Panics
    /// If `earlier` lies behind this position.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        assert!(self.0 >= earlier.0, "positions run forward");
        (self.0 - earlier.0) as u64
    }

    /// This position, or the block boundary below it. `block` is a power of two.
    #[must_use]
    pub const fn floor(self, block: u64) -> Self {
        Self(self.0 & !(block as u32 - 1))
    }

    /// This position, or the block boundary above it. `block` is a power of two.
    #[must_use]
    pub const fn ceil(self, block: u64) -> Self {
        Self::new((self.0 as u64 + block - 1) & !(block - 1))
    }
}

impl fmt::Display for Pos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A life of a partition: drawn at random when its directory is made, so that bytes journaled for a
/// deleted partition never reach one re-created under its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A partition's name: topic and number, as in the directory `<topic>-<partition>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionName {
    topic: Arc<str>,
    partition: u32,
}

impl PartitionName {
    /// Longest topic name, in bytes: Kafka's own limit.
    pub const TOPIC_BYTES_MAX: usize = 249;

    /// A name, if `topic` is one that Kafka accepts: 1 to 249 of `a-z A-Z 0-9 . _ -`, not `.` or `..`.
    #[must_use]
    pub fn new(topic: &str, partition: u32) -> Option<Self> {
        let legal = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
        let ok = !topic.is_empty()
            && topic.len() <= Self::TOPIC_BYTES_MAX
            && topic != "."
            && topic != ".."
            && topic.bytes().all(legal)
            && i32::try_from(partition).is_ok();
        ok.then(|| Self { topic: topic.into(), partition })
    }

    /// The name behind a directory's name, such as `orders-17`.
    #[must_use]
    pub fn from_directory(directory: &str) -> Option<Self> {
        let (topic, number) = directory.rsplit_once('-')?;
        let canonical = number == "0" || !number.starts_with('0');
        if !canonical || !number.bytes().all(|c| c.is_ascii_digit()) {
            return None;
        }
        Self::new(topic, number.parse().ok()?)
    }

    /// The topic's name.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The partition's number within its topic.
    #[must_use]
    pub fn partition(&self) -> u32 {
        self.partition
    }
}

impl fmt::Display for PartitionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// What an ack means, per partition. Changeable at run time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlushPolicy {
    /// This and every earlier byte of the partition is on stable storage. The default.
    #[default]
    Group,
    /// Written; flushed at latest when the first of the bounds is reached.
    Interval {
        /// Longest time between a write and the beginning of its flush, in milliseconds.
        ms: u32,
        /// Most bytes written and not flushed.
        bytes: u64,
        /// Most records written and not flushed.
        messages: u64,
    },
    /// Written: in the page cache, or in direct mode completed by the device, which may still hold it
    /// in a volatile cache.
    Os,
}

/// How segment bytes reach the file system, per engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteMode {
    /// O_DIRECT: past the page cache. The default where the file system takes it.
    #[default]
    Direct,
    /// Through the page cache.
    PageCache,
}

/// How a segment's space is made ready ahead of its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prepare {
    /// Zeros are written ahead, so that an append is a pure overwrite. The default.
    #[default]
    Prezero,
    /// Space is reserved (`fallocate`), not written.
    Fallocate,
    /// Nothing: an append extends the file.
    None,
}

/// The durability primitive of a device, chosen by calibration or forced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// `RWF_DSYNC` on each write.
    Dsync,
    /// Plain writes, then one `fdatasync` for all of a round.
    Fdatasync,
}

/// The bound up to which a reader sees bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// Only what is on stable storage: nothing seen is ever taken back by a crash. The default.
    #[default]
    Durable,
    /// All that is appended.
    Dirty,
}

/// A partition's bounds at one moment. Always `log_start <= durable <= dirty`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watermarks {
    /// The first offset that is still there.
    pub log_start: Offset,
    /// One past the last offset on stable storage.
    pub durable: Offset,
    /// One past the last offset appended: the next offset.
    pub dirty: Offset,
}

/// What is kept of a partition's log. The default keeps everything. Where several bounds are set, each works by itself:
/// a record goes when any of them says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Old segments go as long as the rest has at least this many bytes. `None`: no bound.
    pub bytes: Option<u64>,
    /// A segment goes when all in it is older than this many milliseconds. A batch's time is its latest timestamp, but
    /// never later than the engine's clock was when it was appended, and that clock's time if it has no timestamp.
    /// `None`: no bound.
    pub ms: Option<u64>,
    /// Compaction by key: of each key the newest record stays. `None`: none. Records without a key go.
    pub compact: Option<Compaction>,
}

/// When a log is compacted, by Kafka's names where they exist. The default has Kafka's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// Compact when at least this part of what may be compacted has not been yet, in percent, 0 to 100
    /// (`min.cleanable.dirty.ratio`). Default 50.
    pub min_dirty_percent: u8,
    /// Segments with something younger than this many milliseconds are left alone (`min.compaction.lag.ms`).
    /// Default 0.
    pub min_lag_ms: u64,
    /// Compact, whatever the dirty part, when something that was not compacted is older than this many milliseconds
    /// (`max.compaction.lag.ms`); the active segment is rolled for it. Default `None`: no such bound.
    pub max_lag_ms: Option<u64>,
    /// How long a tombstone (a null value) stays once compaction has met it, in milliseconds
    /// (`delete.retention.ms`): the time a reader has to go from the log's start to its end without missing one.
    /// Default one day.
    pub delete_retention_ms: u64,
}

impl Default for Compaction {
    fn default() -> Self {
        Self {
            min_dirty_percent: 50,
            min_lag_ms: 0,
            max_lag_ms: None,
            delete_retention_ms: 24 * 3600 * 1000,
        }
    }
}

/// What a compaction came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Everything before this offset has been compacted.
    pub end: Offset,
    /// Segments that were gone through.
    pub segments_before: u64,
    /// Segments that are in their place.
    pub segments_after: u64,
    /// Bytes of the former.
    pub bytes_before: u64,
    /// Bytes of the latter.
    pub bytes_after: u64,
    /// Records that are gone.
    pub records_dropped: u64,
    /// How many of them because they had no key.
    pub records_without_key: u64,
    /// Batches that stay as they were because their records can not be decoded.
    pub batches_unreadable: u64,
}

/// A segment of a log, as an operator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// The offset of its first record, which compaction may have taken away.
    pub base_offset: Offset,
    /// Its length in bytes; `None` while that is not known.
    pub bytes: Option<u64>,
    /// The time it counts as for retention, in milliseconds since the epoch; `None` while that is not known.
    pub newest_ms: Option<i64>,
    /// Whether nothing is appended to it any more, and it is in its file for good.
    pub sealed: bool,
}

/// A batch that was looked up by an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchFound {
    /// Its first offset: where the log can be truncated to.
    pub first: Offset,
    /// Its last offset.
    pub last: Offset,
    /// The base offset of the segment it is in.
    pub segment: Offset,
    /// Where it begins in that segment, in bytes.
    pub pos: u64,
    /// Its length in bytes.
    pub bytes: u32,
}

/// A record that was looked up by a timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeFound {
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp, in milliseconds since the epoch.
    pub timestamp: i64,
    /// The leader epoch of its batch.
    pub leader_epoch: i32,
}
