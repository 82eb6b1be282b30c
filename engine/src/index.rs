//! The sparse index of a segment: by offset to a position, by timestamp to an offset.
//!
//! An index is derived data, never evidence: a lookup gives a place from which to scan, and any doubt is
//! settled by rebuilding from the log. Semantics are Kafka's (`OffsetIndex`, `TimeIndex`): an entry
//! names the *last* offset of a batch and where the batch begins.

use std::ops::Range;

use crate::format::index::{OffsetEntry, TimeEntry};
use crate::types::{Offset, Pos};

/// What an index keeps of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Indexed {
    /// Last offset of the batch.
    pub(crate) last: Offset,
    /// Where the batch begins.
    pub(crate) pos: Pos,
    /// The batch's length in bytes.
    pub(crate) bytes: u32,
    /// The batch's largest timestamp, in milliseconds since the epoch.
    pub(crate) max_timestamp: i64,
}

/// The largest timestamp so far, and the last offset, relative, of the batch that had it first.
pub(crate) type Latest = Option<(i64, u32)>;

/// The first of a range of entries for which `is_before` does not hold, its end if there is none; those for which it
/// holds come first. As `slice::partition_point`, of entries that have to be fetched.
///
/// # Errors
/// What `is_before` fails with.
pub(crate) fn try_partition_point<E>(
    entries: Range<u32>,
    mut is_before: impl FnMut(u32) -> Result<bool, E>,
) -> Result<u32, E> {
    let Range { start: mut low, end: mut high } = entries;
    while low < high {
        let middle = low.midpoint(high);
        if is_before(middle)? {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

/// The index of a segment that is being written or rebuilt.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    base: Offset,
    interval: u64,
    since: u64,
    offsets: Vec<OffsetEntry>,
    times: Vec<TimeEntry>,
    newest: Latest,
}

impl Index {
    /// An empty index with an entry every `interval` bytes.
    pub(crate) fn new(base: Offset, interval: u32) -> Self {
        Self {
            base,
            interval: interval.into(),
            since: 0,
            offsets: Vec::new(),
            times: Vec::new(),
            newest: None,
        }
    }

    /// An index that goes on from these entries.
    pub(crate) fn restore(
        base: Offset,
        interval: u32,
        offsets: Vec<OffsetEntry>,
        times: Vec<TimeEntry>,
    ) -> Self {
        let newest = times.last().map(|entry| (entry.timestamp, entry.relative_offset));
        // The batch that comes next was indexed before, so it is again.
        let since = u64::from(interval) + 1;
        Self { base, interval: interval.into(), since, offsets, times, newest }
    }

    /// Takes note of the next batch.
    pub(crate) fn push(&mut self, batch: Indexed) {
        let relative = (batch.last.get() - self.base.get()) as u32;
        // Records without a timestamp have -1: they are not found by time.
        let newer = batch.max_timestamp >= 0
            && self.newest.is_none_or(|(timestamp, _)| batch.max_timestamp > timestamp);
        if newer {
            self.newest = Some((batch.max_timestamp, relative));
        }
        if self.since > self.interval {
            self.offsets.push(OffsetEntry { relative_offset: relative, pos: batch.pos });
            self.push_time();
            self.since = 0;
        }
        self.since += u64::from(batch.bytes);
    }

    fn push_time(&mut self) {
        let Some((timestamp, relative)) = self.newest else { return };
        if self.times.last().is_none_or(|last| timestamp > last.timestamp) {
            self.times.push(TimeEntry { timestamp, relative_offset: relative });
        }
    }

    /// The latest timestamp of its batches, in milliseconds since the epoch; -1 if none has one.
    pub(crate) fn latest_ms(&self) -> i64 {
        self.newest.map_or(-1, |(timestamp, _)| timestamp)
    }

    /// Adds the last time entry, as at a roll or a clean shutdown.
    pub(crate) fn finish(&mut self) {
        self.push_time();
    }

    /// Where to begin a scan for `offset`.
    pub(crate) fn floor(&self, offset: Offset) -> Pos {
        let relative = offset.get() - self.base.get();
        let before = |entry: &OffsetEntry| i64::from(entry.relative_offset) <= relative;
        self.pos_before(before)
    }

    /// The first batch it has with a last offset of `offset` or above.
    pub(crate) fn ceil(&self, offset: Offset) -> Option<Pos> {
        let relative = offset.get() - self.base.get();
        let before = |entry: &OffsetEntry| i64::from(entry.relative_offset) < relative;
        self.pos_behind(before)
    }

    /// The last batch it has at `pos` or before it.
    pub(crate) fn floor_pos(&self, pos: Pos) -> Pos {
        self.pos_before(|entry| entry.pos <= pos)
    }

    fn pos_before(&self, before: impl FnMut(&OffsetEntry) -> bool) -> Pos {
        let at = self.offsets.partition_point(before);
        at.checked_sub(1).map_or(Pos::ZERO, |at| self.offsets[at].pos)
    }

    /// The first batch it has behind `pos`.
    pub(crate) fn after(&self, pos: Pos) -> Option<Pos> {
        self.pos_behind(|entry| entry.pos <= pos)
    }

    fn pos_behind(&self, before: impl FnMut(&OffsetEntry) -> bool) -> Option<Pos> {
        let at = self.offsets.partition_point(before);
        self.offsets.get(at).map(|entry| entry.pos)
    }

    /// Bytes on disk of `.index` and `.timeindex`.
    pub(crate) fn encode(&self) -> (Vec<u8>, Vec<u8>) {
        let offsets = self.offsets.iter().flat_map(|entry| entry.encode()).collect();
        let times = self.times.iter().flat_map(|entry| entry.encode()).collect();
        (offsets, times)
    }

    /// Bytes on disk of both indexes for what lies before `pos`, where the batch at `next` begins.
    pub(crate) fn encode_before(&self, pos: Pos, next: Offset) -> (Vec<u8>, Vec<u8>) {
        let limit = (next.get() - self.base.get()) as u32;
        let offsets = self.offsets.iter().take_while(|entry| entry.pos < pos);
        let times = self.times.iter().filter(|entry| entry.relative_offset < limit);
        (
            offsets.flat_map(|entry| entry.encode()).collect(),
            times.flat_map(|entry| entry.encode()).collect(),
        )
    }

    /// What was known of timestamps so far.
    pub(crate) fn latest(&self) -> Latest {
        self.newest
    }

    /// Forgets the newest batch, which began at `pos`, before which `latest` was known.
    pub(crate) fn take_back(&mut self, pos: Pos, latest: Latest) {
        let keep = self.offsets.partition_point(|entry| entry.pos < pos);
        if keep < self.offsets.len() {
            self.offsets.truncate(keep);
            // Whatever comes in its place is indexed as it was.
            self.since = self.interval + 1;
        }
        let known = latest.map_or(i64::MIN, |(timestamp, _)| timestamp);
        self.times.retain(|entry| entry.timestamp <= known);
        self.newest = latest;
    }

    /// The largest timestamp not above `timestamp` that has an entry, and the last offset of the batch that has it: all
    /// up to there are not above it.
    pub(crate) fn time_floor(&self, timestamp: i64) -> Option<(i64, Offset)> {
        let at = self.times.partition_point(|entry| entry.timestamp <= timestamp).checked_sub(1)?;
        let TimeEntry { timestamp, relative_offset } = self.times[at];
        Some((timestamp, self.base.plus(relative_offset)))
    }
}
