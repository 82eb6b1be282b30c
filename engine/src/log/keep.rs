//! What is kept of a log: which segments retention lets go of, and what a segment's age is. Pure: the shard's
//! procedures (`shard/keep.rs`, `shard/compact.rs`) do it.

use crate::compaction::Part;
use crate::error::Fault;
use crate::types::{Offset, Retention};

/// The state of a log's retention and compaction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keep {
    /// What is in force.
    pub(crate) retention: Retention,
    /// Whether it was set for this log alone.
    pub(crate) own: bool,
    /// Whether the partition's file says that there may be gaps in it.
    pub(crate) compacted: bool,
    /// Compaction has seen everything before this.
    pub(crate) cleaned: Offset,
    /// Segments before the log's start whose files are still there.
    pub(crate) stale: Vec<Offset>,
    /// Whether a procedure moves the log's start, or its segments' files.
    pub(crate) moving: bool,
    /// Whether a procedure compacts it.
    pub(crate) compacting: bool,
    /// Whether a compaction waits for its turn, or has it.
    pub(crate) queued: bool,
    /// Whether a compaction has one of its segments open.
    pub(crate) reading: bool,
    /// Whether it is to be looked at once more when the procedure at it is done.
    pub(crate) again: bool,
    /// Counts twice for each swap of compacted files: odd while one is under way.
    pub(crate) swaps: u32,
    /// Segments deleted by retention or on demand.
    pub(crate) segments_deleted: u64,
    /// Bytes of files that were removed, or made smaller.
    pub(crate) bytes_freed: u64,
    /// Compactions that ended well.
    pub(crate) compactions: u64,
    /// What failed last; `None` once all is well again.
    pub(crate) fault: Option<Fault>,
}

impl Keep {
    /// Whether anything is to be looked at from time to time.
    pub(crate) fn wants_looks(&self) -> bool {
        let Retention { bytes, ms, compact } = self.retention;
        bytes.is_some() || ms.is_some() || compact.is_some() || !self.stale.is_empty()
    }

    /// Whether no procedure of retention or compaction is at it.
    pub(crate) fn is_idle(&self) -> bool {
        !self.moving && !self.compacting
    }
}

/// The time that a batch counts as: its latest timestamp, but never later than when it was appended, and that time if
/// it has none. So a timestamp from the future pins nothing.
pub(crate) fn counts_as(max_timestamp: i64, appended_ms: i64) -> i64 {
    if max_timestamp < 0 { appended_ms } else { max_timestamp.min(appended_ms) }
}

/// Whether something of this age is past the bound in time.
pub(crate) fn is_old(newest_ms: i64, retention: &Retention, now_ms: i64) -> bool {
    let bound = retention.ms.and_then(|ms| i64::try_from(ms).ok());
    bound.is_some_and(|ms| now_ms.saturating_sub(newest_ms) > ms)
}

/// How many of a log's sealed segments, oldest first, are to go. `behind` are the bytes of the segments behind them.
pub(crate) fn expired(parts: &[Part], behind: u64, retention: &Retention, now_ms: i64) -> usize {
    let mut left = behind + parts.iter().map(|part| part.bytes).sum::<u64>();
    let goes = |part: &Part| {
        left -= part.bytes;
        is_old(part.newest_ms, retention, now_ms)
            || retention.bytes.is_some_and(|bytes| left >= bytes)
    };
    // From the oldest one on, up to the first that stays.
    parts.iter().map(goes).take_while(|goes| *goes).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(of: &[(u64, i64)]) -> Vec<Part> {
        let part = |(at, (bytes, newest_ms)): (usize, &(u64, i64))| Part {
            base: Offset::new(at as i64),
            next: Offset::new(at as i64 + 1),
            bytes: *bytes,
            newest_ms: *newest_ms,
        };
        of.iter().enumerate().map(part).collect()
    }

    fn bytes(bytes: u64) -> Retention {
        Retention { bytes: Some(bytes), ..Retention::default() }
    }

    fn ms(ms: u64) -> Retention {
        Retention { ms: Some(ms), ..Retention::default() }
    }

    #[test]
    fn what_is_left_has_at_least_the_bytes_that_are_kept() {
        let parts = parts(&[(100, 0), (50, 0), (30, 0)]);
        for (keep, goes) in [(0, 3), (20, 3), (21, 2), (50, 2), (51, 1), (100, 1), (101, 0)] {
            assert_eq!(expired(&parts, 20, &bytes(keep), 0), goes, "{keep}");
        }
        assert_eq!(expired(&parts, 20, &Retention::default(), i64::MAX), 0);
    }

    #[test]
    fn segments_go_when_all_in_them_is_old_and_none_before_an_older_one_stays() {
        let parts = parts(&[(1, 100), (1, 300), (1, 200)]);
        for (now, goes) in [(200, 0), (201, 1), (400, 1), (401, 3)] {
            assert_eq!(expired(&parts, 0, &ms(100), now), goes, "at {now}");
        }
        assert_eq!(expired(&parts, 0, &ms(u64::MAX), i64::MAX), 0);
        let either = Retention { bytes: Some(2), ..ms(100) };
        assert_eq!(expired(&parts, 0, &either, 0), 1);
    }

    #[test]
    fn a_timestamp_from_the_future_pins_nothing() {
        assert_eq!(counts_as(i64::MAX, 1000), 1000);
        assert_eq!(counts_as(900, 1000), 900);
        assert_eq!(counts_as(-1, 1000), 1000, "no timestamp: the time of the append");
    }
}
