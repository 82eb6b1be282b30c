//! What a reader may hold a log to: which leader wrote an offset, and where the log's end was taken back.

use std::collections::VecDeque;

use crate::limits::CUTS_KEPT_MAX;
use crate::types::Offset;

/// Where a log's end was taken back since it was opened, by truncations or because a full disk gave no room.
///
/// Of a cut nothing counts but whether a later one went deeper: what is kept is a stair of rising offsets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cuts {
    count: u64,
    /// Number and offset of each cut that no later one went below.
    stair: VecDeque<(u64, Offset)>,
}

impl Cuts {
    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The log's end was taken back to `offset`.
    pub(crate) fn record(&mut self, offset: Offset) {
        self.count += 1;
        while self.stair.back().is_some_and(|(_, before)| *before >= offset) {
            self.stair.pop_back();
        }
        self.stair.push_back((self.count, offset));
        if self.stair.len() > CUTS_KEPT_MAX
            && let Some((_, deepest)) = self.stair.pop_front()
            && let Some(oldest) = self.stair.front_mut()
        {
            // Told deeper than it was: a reader from before it begins anew without need, and none goes on wrongly.
            oldest.1 = deepest;
        }
    }

    /// The deepest of the cuts that came after the first `count`.
    pub(crate) fn since(&self, count: u64) -> Option<Offset> {
        let at = self.stair.partition_point(|(number, _)| *number <= count);
        self.stair.get(at).map(|(_, offset)| *offset)
    }
}

/// The leader's epoch in which the record at `offset` was appended. `epochs`: each with the offset it began at; before
/// the first one it was 0.
pub(crate) fn epoch_of(epochs: &[(i32, Offset)], offset: Offset) -> i32 {
    let at = epochs.partition_point(|(_, start)| *start <= offset);
    at.checked_sub(1).map_or(0, |at| epochs[at].0)
}

/// The largest epoch not above `asked`, and where it ends, in a log of `start..next`: Kafka's `endOffsetFor`. Of an
/// epoch that may have ended before the log's start no more is known than that it ended before the first one there is.
pub(crate) fn epoch_end(
    epochs: &[(i32, Offset)],
    (start, next): (Offset, Offset),
    asked: i32,
) -> (i32, Offset) {
    let after = epochs.partition_point(|(epoch, _)| *epoch <= asked);
    let end = epochs.get(after).map_or(next, |(_, begin)| *begin);
    let removed = after == 0 && epochs.first().is_some_and(|(_, begin)| *begin <= start);
    let unstated = if removed { asked } else { 0 };
    (after.checked_sub(1).map_or(unstated, |at| epochs[at].0), end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: i64) -> Offset {
        Offset::new(offset)
    }

    #[test]
    fn the_deepest_cut_since_is_found() {
        let mut cuts = Cuts::default();
        assert_eq!((cuts.count(), cuts.since(0)), (0, None));
        for offset in [50, 20, 30, 40] {
            cuts.record(at(offset));
        }
        let since: Vec<_> = (0..=4).map(|count| cuts.since(count)).collect();
        assert_eq!(since, [Some(at(20)), Some(at(20)), Some(at(30)), Some(at(40)), None]);
        cuts.record(at(25));
        assert_eq!(cuts.since(1), Some(at(20)));
        assert_eq!(cuts.since(2), Some(at(25)));
    }

    #[test]
    fn what_is_forgotten_is_told_deeper_never_shallower() {
        let mut cuts = Cuts::default();
        let total = 3 * CUTS_KEPT_MAX as u64;
        for number in 1..=total {
            cuts.record(at(number as i64));
        }
        assert_eq!(cuts.stair.len(), CUTS_KEPT_MAX);
        for count in 0..total {
            let told = cuts.since(count).expect("there were more");
            assert!(told <= at(count as i64 + 1), "{told} after {count}");
        }
        assert_eq!(cuts.since(total - 1), Some(at(total as i64)), "the newest are exact");
        assert_eq!(cuts.since(total), None);
    }

    #[test]
    fn epochs_end_where_the_next_begins() {
        let epochs = [(2, at(10)), (5, at(30))];
        let end = |asked| epoch_end(&epochs, (at(0), at(50)), asked);
        assert_eq!(end(0), (0, at(10)), "before the first line it was 0");
        assert_eq!(end(1), (0, at(10)));
        assert_eq!(end(2), (2, at(30)));
        assert_eq!(end(4), (2, at(30)));
        assert_eq!(end(5), (5, at(50)));
        assert_eq!(end(9), (5, at(50)));
        assert_eq!(epoch_end(&[], (at(0), at(7)), 3), (0, at(7)));
        assert_eq!(epoch_end(&epochs, (at(10), at(50)), 1), (1, at(10)), "it may have been there");
        let of: Vec<i32> =
            [0, 9, 10, 29, 30, 99].map(|offset| epoch_of(&epochs, at(offset))).into();
        assert_eq!(of, [0, 0, 2, 2, 5, 5]);
    }
}
