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

/// How many of `sealed`, which are in order, begin at or before `offset`. Looks first where the segment would lie if
/// all had as many records, and outwards from there: a log's segments are much alike, and each step of a plain binary
/// search among thousands waits for memory that no cache holds.
pub(crate) fn begun_by(sealed: &[Sealed], offset: Offset) -> usize {
    let (Some(first), Some(last)) = (sealed.first(), sealed.last()) else { return 0 };
    if offset < first.base {
        return 0;
    }
    if offset >= last.base {
        return sealed.len();
    }
    let distance = |to: Offset| (to.get() - first.base.get()) as u128;
    let end = sealed.len() - 1;
    let guess = (distance(offset) * end as u128 / distance(last.base)) as usize;
    let (mut low, mut high) = (guess, guess + 1);
    let mut step = 1;
    while sealed[low].base > offset {
        (low, high) = (low.saturating_sub(step), low);
        step *= 2;
    }
    step = 1;
    while sealed[high].base <= offset {
        (low, high) = (high, (high + step).min(end));
        step *= 2;
    }
    low + 1 + sealed[low + 1..high].partition_point(|sealed| sealed.base <= offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_have_begun_as_a_plain_search_finds() {
        let even: Vec<i64> = (0..100).map(|n| 7 + n * 10).collect();
        let uneven: Vec<i64> = (0..20).map(|n| 1 << n).collect();
        for bases in [vec![], vec![5], vec![5, 6], even, uneven, vec![0, 1, 2, 3, 1_000_000]] {
            let of = |base: &i64| Sealed::unknown(Offset::new(*base));
            let sealed: Vec<Sealed> = bases.iter().map(of).collect();
            let around = bases.iter().flat_map(|base| [base - 1, *base, base + 1]);
            for offset in around.filter(|offset| *offset >= 0).chain([0, 2_000_000]) {
                let plain = bases.partition_point(|base| *base <= offset);
                assert_eq!(begun_by(&sealed, Offset::new(offset)), plain, "{offset} of {bases:?}");
            }
        }
    }
}
