//! What is known of a segment that is appended to no more.

use crate::types::{Offset, Pos};

/// A segment whose bytes are all in its file for good. What is known of it costs reading its seal, and is found out at
/// its first use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    /// The offset of its first record.
    pub(crate) base: Offset,
    /// Its length in bytes, once it is known.
    pub(crate) end: Option<Pos>,
    /// The time it counts as for retention, in milliseconds since the epoch, once it is known.
    pub(crate) newest_ms: Option<i64>,
    /// What [`super::keep::Keep::swaps`] was when compaction put it in the place of others; 0 if it never did.
    pub(crate) swapped: u32,
    /// Its largest timestamp, once it is known; -1 if no record has one.
    pub(crate) max_timestamp: Option<i64>,
    /// Whether that is what its seal says: behind its end there is nothing.
    pub(crate) has_seal: bool,
    /// Whether its indexes and its seal can be used.
    pub(crate) derived: Derived,
}

/// Indexes and seal of a sealed segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Derived {
    /// Nothing speaks against them.
    Good,
    /// Absent or in doubt: they are being written anew.
    Rebuilding,
    /// They can not be: what they are derived from is damaged, or about to be replaced.
    Hopeless,
}

impl Sealed {
    /// A segment of which nothing but the name is known.
    pub(crate) fn unknown(base: Offset) -> Self {
        Self {
            base,
            end: None,
            newest_ms: None,
            swapped: 0,
            max_timestamp: None,
            has_seal: false,
            derived: Derived::Good,
        }
    }

    /// A segment that was read from its beginning to its end.
    pub(crate) fn read(base: Offset, end: Pos, max_timestamp: i64) -> Self {
        Self { end: Some(end), max_timestamp: Some(max_timestamp), ..Self::unknown(base) }
    }

    /// A segment that was sealed just now.
    pub(crate) fn with_seal(base: Offset, end: Pos, max_timestamp: i64, newest_ms: i64) -> Self {
        let known = Self::read(base, end, max_timestamp);
        Self { has_seal: true, newest_ms: Some(newest_ms), ..known }
    }
}
