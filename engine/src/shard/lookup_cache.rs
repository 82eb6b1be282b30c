//! What lookups remember of segments: blocks of their indexes, and where the batches of an index interval are. Bounded
//! in bytes; what was not used for longest goes first.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use crate::journal::LogId;
use crate::types::{Offset, Pos};

/// Bytes that an entry takes beside its content, about.
const OVERHEAD_BYTES: usize = 160;

/// What of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Part {
    /// A block of the index by offset.
    Offsets(u32),
    /// A block of the index by time.
    Times(u32),
    /// How many entries the two indexes have.
    Counts,
    /// The batches from a position on that the index names.
    Batches(Pos),
}

/// A batch: the last of its offsets, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Its first offset.
    pub(crate) first: Offset,
    /// Its last offset.
    pub(crate) last: Offset,
    /// Where it begins in its segment.
    pub(crate) pos: Pos,
    /// Its length.
    pub(crate) bytes: u32,
}

/// Something remembered. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) enum Memo {
    /// Entries of an index, as in the file, checked.
    Block(Rc<[u8]>),
    /// Entries of the index by offset and of that by time; `None` for one that is of no use.
    Counts([Option<u32>; 2]),
    /// Consecutive batches.
    Batches(Rc<[Extent]>),
}

impl Memo {
    fn bytes(&self) -> usize {
        OVERHEAD_BYTES
            + match self {
                Self::Block(bytes) => bytes.len(),
                Self::Counts(_) => 0,
                Self::Batches(batches) => size_of_val(&**batches),
            }
    }
}

type Segment = (LogId, Offset);

/// How much was forgotten when something was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(u64);

struct Held {
    memo: Memo,
    used: u64,
}

/// The memory of lookups of a shard.
pub(crate) struct LookupCache {
    segments: HashMap<Segment, BTreeMap<Part, Held>>,
    order: BTreeMap<u64, (Segment, Part)>,
    bytes: usize,
    bytes_max: usize,
    ticks: u64,
    forgets: u64,
}

impl LookupCache {
    /// A cache of at most so many bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            segments: HashMap::new(),
            order: BTreeMap::new(),
            bytes: 0,
            bytes_max,
            ticks: 0,
            forgets: 0,
        }
    }

    /// What is remembered of a part.
    pub(crate) fn get(&mut self, segment: Segment, part: Part) -> Option<Memo> {
        let held = self.segments.get_mut(&segment)?.get_mut(&part)?;
        self.order.remove(&held.used);
        self.ticks += 1;
        held.used = self.ticks;
        self.order.insert(held.used, (segment, part));
        Some(held.memo.clone())
    }

    /// What changes whenever something is forgotten: taken before what is to be remembered is read.
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp(self.forgets)
    }

    /// Remembers a part, unless something was forgotten since the stamp: it may be of a file that is no more.
    pub(crate) fn put(&mut self, segment: Segment, part: Part, (memo, stamp): (Memo, Stamp)) {
        if stamp != self.stamp() {
            return;
        }
        self.bytes += memo.bytes();
        self.ticks += 1;
        let held = Held { memo, used: self.ticks };
        self.order.insert(held.used, (segment, part));
        if let Some(was) = self.segments.entry(segment).or_default().insert(part, held) {
            self.order.remove(&was.used);
            self.bytes -= was.memo.bytes();
        }
        while self.bytes > self.bytes_max {
            let Some((_, (segment, part))) = self.order.pop_first() else { break };
            let parts = self.segments.get_mut(&segment).expect("what is in order is held");
            let gone = parts.remove(&part).expect("what is in order is held");
            self.bytes -= gone.memo.bytes();
            if parts.is_empty() {
                self.segments.remove(&segment);
            }
        }
    }

    /// Forgets a segment: it is cut, replaced or gone, or its indexes are in doubt.
    pub(crate) fn forget(&mut self, segment: Segment) {
        self.forgets += 1;
        for held in self.segments.remove(&segment).unwrap_or_default().into_values() {
            self.order.remove(&held.used);
            self.bytes -= held.memo.bytes();
        }
    }

    /// Forgets a log.
    pub(crate) fn forget_log(&mut self, log: LogId) {
        self.forgets += 1;
        let segments: Vec<Segment> =
            self.segments.keys().filter(|(id, _)| *id == log).copied().collect();
        for segment in segments {
            self.forget(segment);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: Segment = (LogId(0), Offset::ZERO);

    fn put(cache: &mut LookupCache, segment: Segment, part: Part, bytes: usize) {
        let stamp = cache.stamp();
        cache.put(segment, part, (Memo::Block(vec![0; bytes].into()), stamp));
    }

    #[test]
    fn what_was_used_last_stays_and_the_bytes_are_bounded() {
        let mut cache = LookupCache::new(3 * (OVERHEAD_BYTES + 100));
        for n in 0..3 {
            put(&mut cache, SEGMENT, Part::Offsets(n), 100);
        }
        assert!(cache.get(SEGMENT, Part::Offsets(0)).is_some());
        put(&mut cache, SEGMENT, Part::Times(7), 100);
        let there = |cache: &mut LookupCache, part| cache.get(SEGMENT, part).is_some();
        assert!(there(&mut cache, Part::Offsets(0)) && there(&mut cache, Part::Times(7)));
        assert!(!there(&mut cache, Part::Offsets(1)));
        put(&mut cache, SEGMENT, Part::Counts, 10_000);
        assert_eq!((cache.bytes, cache.order.len(), cache.segments.len()), (0, 0, 0));
    }

    #[test]
    fn a_part_is_replaced_and_a_segment_forgotten() {
        let mut cache = LookupCache::new(1 << 20);
        let other = (LogId(0), Offset::new(9));
        put(&mut cache, SEGMENT, Part::Counts, 50);
        put(&mut cache, SEGMENT, Part::Counts, 10);
        put(&mut cache, other, Part::Counts, 10);
        assert_eq!((cache.bytes, cache.order.len()), (2 * (OVERHEAD_BYTES + 10), 2));
        cache.forget(SEGMENT);
        assert!(cache.get(SEGMENT, Part::Counts).is_none());
        assert!(cache.get(other, Part::Counts).is_some());
        let before = cache.stamp();
        cache.forget_log(LogId(0));
        cache.put(other, Part::Counts, (Memo::Counts([None; 2]), before));
        assert_eq!((cache.bytes, cache.order.len()), (0, 0));
    }
}
