//! Which segments are compacted, and which of them become one.

use std::ops::Range;

use crate::types::{Compaction, Offset};

/// A sealed segment, as far as a plan is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Its first offset.
    pub(crate) base: Offset,
    /// One past its last offset: where the next segment begins.
    pub(crate) next: Offset,
    /// Its length.
    pub(crate) bytes: u64,
    /// The time it counts as, in milliseconds since the epoch.
    pub(crate) newest_ms: i64,
}

/// What of a log may be compacted now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cleanable {
    /// Segments that no compaction has seen as a whole, and that may be.
    pub(crate) dirty: Range<usize>,
    /// Their bytes.
    pub(crate) dirty_bytes: u64,
    /// Bytes of the segments before them.
    pub(crate) clean_bytes: u64,
    /// The time of the oldest of them.
    pub(crate) oldest_ms: Option<i64>,
}

/// What may be compacted of these segments, of which everything before `cleaned` was.
pub(crate) fn cleanable(
    parts: &[Part],
    cleaned: Offset,
    compaction: &Compaction,
    now_ms: i64,
) -> Cleanable {
    let lag = i64::try_from(compaction.min_lag_ms).unwrap_or(i64::MAX);
    let first = parts.partition_point(|part| part.next <= cleaned);
    let young = |part: &Part| lag > 0 && part.newest_ms > now_ms.saturating_sub(lag);
    let count = parts[first..].iter().position(young).unwrap_or(parts.len() - first);
    let dirty = first..first + count;
    let bytes = |parts: &[Part]| parts.iter().map(|part| part.bytes).sum();
    Cleanable {
        dirty_bytes: bytes(&parts[dirty.clone()]),
        clean_bytes: bytes(&parts[..first]),
        oldest_ms: parts[dirty.clone()].iter().map(|part| part.newest_ms).min(),
        dirty,
    }
}

impl Cleanable {
    /// The dirty part of what may be compacted, in percent, rounded down.
    pub(crate) fn dirty_percent(&self) -> u8 {
        let all = self.dirty_bytes + self.clean_bytes;
        (self.dirty_bytes * 100).checked_div(all).unwrap_or(0) as u8
    }
}

/// Whether it is worth while.
pub(crate) fn is_due(cleanable: &Cleanable, compaction: &Compaction, now_ms: i64) -> bool {
    if cleanable.dirty.is_empty() {
        return false;
    }
    let late = |oldest: i64| {
        let most = compaction.max_lag_ms.and_then(|most| i64::try_from(most).ok());
        most.is_some_and(|most| now_ms.saturating_sub(oldest) > most)
    };
    cleanable.dirty_percent() >= compaction.min_dirty_percent
        || cleanable.oldest_ms.is_some_and(late)
}

/// Neighbours that become one segment: together not larger than `segment_bytes`, and within the reach of an index.
pub(crate) fn groups(parts: &[Part], segment_bytes: u64) -> Vec<Range<usize>> {
    let mut out: Vec<Range<usize>> = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (at, part) in parts.iter().enumerate() {
        let far = part.next.get() - parts[start].base.get() > i64::from(i32::MAX);
        if at > start && (bytes + part.bytes > segment_bytes || far) {
            out.push(start..at);
            (start, bytes) = (at, 0);
        }
        bytes += part.bytes;
    }
    if start < parts.len() {
        out.push(start..parts.len());
    }
    out
}
