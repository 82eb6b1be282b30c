//! How long operations took: counts by duration, in a fixed number of buckets. Recording allocates nothing.

use std::fmt;
use std::time::Duration;

/// Buckets of a doubling: each is at most 1/32 of its duration wide.
const STEP_BITS: u32 = 5;
const STEPS: usize = 1 << STEP_BITS;

/// What is shorter than 2^10 ns, about a microsecond, counts as that long.
const SHORTEST_BITS: u32 = 10;

/// What is longer than 2^36 ns, about a minute, counts as that long.
const LONGEST_BITS: u32 = 36;

const BUCKETS: usize = (LONGEST_BITS - SHORTEST_BITS) as usize * STEPS;

/// Durations of operations, counted in buckets at most 3 % wide.
#[derive(Clone, PartialEq, Eq)]
pub struct Durations(Box<[u64]>);

impl Default for Durations {
    fn default() -> Self {
        Self(vec![0; BUCKETS].into())
    }
}

impl fmt::Debug for Durations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.buckets()).finish()
    }
}

impl Durations {
    /// Counts one.
    pub(crate) fn record(&mut self, ns: u64) {
        let ns = ns.clamp(1 << SHORTEST_BITS, (1 << LONGEST_BITS) - 1);
        let doubling = ns.ilog2();
        let step = (ns >> (doubling - STEP_BITS)) as usize % STEPS;
        self.0[(doubling - SHORTEST_BITS) as usize * STEPS + step] += 1;
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Each bucket that holds something, from the shortest on: the longest duration that falls into it, so that no
    /// operation looks faster than it was, and the count.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        let counted = self.0.iter().enumerate().filter(|(_, count)| **count > 0);
        counted.map(|(nth, count)| (Duration::from_nanos(longest(nth)), *count))
    }

    /// What was counted after `earlier`, a state of the same counts.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let both = self.0.iter().zip(&*earlier.0);
        Self(both.map(|(now, before)| now.saturating_sub(*before)).collect())
    }
}

/// The longest duration of a bucket, in nanoseconds.
fn longest(bucket: usize) -> u64 {
    let (doubling, step) = ((bucket / STEPS) as u32, (bucket % STEPS) as u64);
    ((STEPS as u64 + step + 1) << (doubling + SHORTEST_BITS - STEP_BITS)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_told_at_most_a_thirtieth_too_long_and_never_too_short() {
        for ns in [1024, 1025, 1055, 2047, 2048, 99_999, 1_234_567, 7_000_000_000, (1 << 36) - 1] {
            let mut durations = Durations::default();
            durations.record(ns);
            let told: Vec<_> = durations.buckets().collect();
            assert_eq!((told.len(), told[0].1), (1, 1));
            let told = told[0].0.as_nanos() as u64;
            assert!((ns..=ns + ns / 30).contains(&told), "{ns} is told as {told}");
        }
    }

    #[test]
    fn nothing_is_too_short_or_too_long_to_count() {
        let mut durations = Durations::default();
        for ns in [0, 1, u64::MAX] {
            durations.record(ns);
        }
        assert_eq!((durations.count(), durations.buckets().count()), (3, 2));
    }

    #[test]
    fn what_came_after_a_moment_is_told_apart() {
        let mut durations = Durations::default();
        durations.record(5000);
        let before = durations.clone();
        for _ in 0..3 {
            durations.record(5000);
        }
        durations.record(1_000_000);
        let after = durations.since(&before);
        assert_eq!(after.buckets().map(|(_, count)| count).collect::<Vec<_>>(), [3, 1]);
    }
}
