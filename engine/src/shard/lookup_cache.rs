//! What lookups and fetches remember of segments: blocks of their indexes, where the batches of an index interval are,
//! headers of batches, and where fetches ended. Bounded in bytes; what was not used for long goes first.
//!
//! A lookup among thousands of segments waits for memory more than for anything else, so that a use only leaves a mark
//! where it reads anyway. The order in which things go is that of a queue with a second chance (Corbato's clock): one
//! that was used since it was queued is queued again.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;

use crate::journal::LogId;
use crate::types::{Offset, Pos};

/// Bytes that an entry takes beside its content, about.
const OVERHEAD_BYTES: usize = 160;

/// Second chances that are given for room for one entry: then the next one goes, used or not.
const CHANCES_MAX: usize = 16;

/// Places in the queue of what was forgotten that are always borne.
const VOID_MIN: usize = 64;

/// What of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Part {
    /// A block of the index by offset.
    Offsets(u32),
    /// A block of the index by time.
    Times(u32),
    /// How many entries the two indexes have.
    Counts,
    /// Consecutive batches, the first of which holds this offset or follows it. To be got by [`LookupCache::batch`].
    Batches(Offset),
    /// The batch that begins at this offset: a fetch ended before it, and the reader's next one begins there.
    From(Offset),
    /// The batch at this position.
    At(Pos),
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
    /// Its place in the queue.
    ticket: u64,
    /// Whether it was used since it was queued.
    used: bool,
}

/// A place in the queue; void if what it names has another ticket by now, or is gone.
struct Queued {
    ticket: u64,
    segment: Segment,
    part: Part,
}

/// The memory of lookups of a shard.
pub(crate) struct LookupCache {
    segments: HashMap<Segment, BTreeMap<Part, Held>>,
    queue: VecDeque<Queued>,
    /// Places of the queue that are void.
    void: usize,
    bytes: usize,
    bytes_max: usize,
    tickets: u64,
    forgets: u64,
}

impl LookupCache {
    /// A cache of at most so many bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            segments: HashMap::new(),
            queue: VecDeque::new(),
            void: 0,
            bytes: 0,
            bytes_max,
            tickets: 0,
            forgets: 0,
        }
    }

    /// What is remembered of a part.
    pub(crate) fn get(&mut self, segment: Segment, part: Part) -> Option<Memo> {
        let held = self.segments.get_mut(&segment)?.get_mut(&part)?;
        held.used = true;
        Some(held.memo.clone())
    }

    /// The batch that holds `offset`, or the next one if compaction took that away.
    pub(crate) fn batch(&mut self, segment: Segment, offset: Offset) -> Option<Extent> {
        let parts = self.segments.get_mut(&segment)?;
        let (_, held) =
            parts.range_mut(Part::Batches(Offset::ZERO)..=Part::Batches(offset)).next_back()?;
        let Memo::Batches(batches) = &held.memo else { unreachable!("a part is of one kind") };
        let found = batches.get(batches.partition_point(|batch| batch.last < offset)).copied();
        held.used |= found.is_some();
        found
    }

    /// The one batch of [`Part::From`] or [`Part::At`].
    pub(crate) fn one(&mut self, segment: Segment, part: Part) -> Option<Extent> {
        let Some(Memo::Batches(batches)) = self.get(segment, part) else { return None };
        batches.first().copied()
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
        self.tickets += 1;
        let ticket = self.tickets;
        self.queue.push_back(Queued { ticket, segment, part });
        let held = Held { memo, ticket, used: false };
        if let Some(was) = self.segments.entry(segment).or_default().insert(part, held) {
            self.bytes -= was.memo.bytes();
            self.void += 1;
        }
        self.make_room();
        self.sweep();
    }

    fn make_room(&mut self) {
        let mut chances = 0;
        while self.bytes > self.bytes_max {
            let Some(first) = self.queue.pop_front() else { break };
            let Some(held) = find(&mut self.segments, &first) else {
                self.void -= 1;
                continue;
            };
            if std::mem::take(&mut held.used) && chances < CHANCES_MAX {
                chances += 1;
                self.queue.push_back(first);
                continue;
            }
            self.bytes -= held.memo.bytes();
            let parts = self.segments.get_mut(&first.segment).expect("it was just found");
            parts.remove(&first.part);
            if parts.is_empty() {
                self.segments.remove(&first.segment);
            }
        }
    }

    /// Keeps the queue in proportion to what is held.
    fn sweep(&mut self) {
        if self.void > VOID_MIN.max(self.queue.len() / 2) {
            let segments = &mut self.segments;
            self.queue.retain(|queued| find(segments, queued).is_some());
            self.void = 0;
        }
    }

    /// Forgets a segment: it is cut, replaced or gone, or its indexes are in doubt.
    pub(crate) fn forget(&mut self, segment: Segment) {
        self.forgets += 1;
        for held in self.segments.remove(&segment).unwrap_or_default().into_values() {
            self.bytes -= held.memo.bytes();
            self.void += 1;
        }
        self.sweep();
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

/// What a place in the queue stands for.
fn find<'a>(
    segments: &'a mut HashMap<Segment, BTreeMap<Part, Held>>,
    queued: &Queued,
) -> Option<&'a mut Held> {
    let held = segments.get_mut(&queued.segment)?.get_mut(&queued.part)?;
    (held.ticket == queued.ticket).then_some(held)
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
        // What is larger than all of it has no place.
        put(&mut cache, SEGMENT, Part::Counts, 10_000);
        assert!(!there(&mut cache, Part::Counts) && cache.bytes <= cache.bytes_max);
    }

    #[test]
    fn a_batch_is_found_by_any_offset_that_leads_to_it_and_no_other() {
        let mut cache = LookupCache::new(1 << 20);
        let extent = |(first, last): &(i64, i64)| Extent {
            first: Offset::new(*first),
            last: Offset::new(*last),
            pos: Pos::new(*first as u64 * 100),
            bytes: 100,
        };
        let mut put = |from: i64, batches: &[(i64, i64)]| {
            let stamp = cache.stamp();
            let memo = Memo::Batches(batches.iter().map(extent).collect());
            cache.put(SEGMENT, Part::Batches(Offset::new(from)), (memo, stamp));
        };
        // Compaction took 0 to 4, 8 and 9, and 20 to 29.
        put(2, &[(5, 7), (10, 12)]);
        put(30, &[(30, 30)]);
        let stamp = cache.stamp();
        cache.put(SEGMENT, Part::Counts, (Memo::Counts([None; 2]), stamp));
        let mut first = |offset| cache.batch(SEGMENT, Offset::new(offset)).map(|it| it.first.get());
        let asked = [0, 1, 2, 5, 7, 8, 10, 12, 13, 29, 30, 31];
        let found = asked.map(&mut first);
        let noted = Some::<i64>;
        let holds = [None, None, noted(5), noted(5), noted(5), noted(10), noted(10), noted(10)];
        assert_eq!(found[..8], holds);
        assert_eq!(
            found[8..],
            [None, None, noted(30), None],
            "what lies between two runs is not known"
        );
        assert_eq!(cache.batch((LogId(0), Offset::new(9)), Offset::new(10)), None);
        cache.forget(SEGMENT);
        assert_eq!(cache.batch(SEGMENT, Offset::new(5)), None);
    }

    #[test]
    fn a_part_is_replaced_and_a_segment_forgotten() {
        let mut cache = LookupCache::new(1 << 20);
        let other = (LogId(0), Offset::new(9));
        put(&mut cache, SEGMENT, Part::Counts, 50);
        put(&mut cache, SEGMENT, Part::Counts, 10);
        put(&mut cache, other, Part::Counts, 10);
        assert_eq!((cache.bytes, cache.queue.len() - cache.void), (2 * (OVERHEAD_BYTES + 10), 2));
        cache.forget(SEGMENT);
        assert!(cache.get(SEGMENT, Part::Counts).is_none());
        assert!(cache.get(other, Part::Counts).is_some());
        let before = cache.stamp();
        cache.forget_log(LogId(0));
        cache.put(other, Part::Counts, (Memo::Counts([None; 2]), before));
        assert_eq!((cache.bytes, cache.queue.len() - cache.void), (0, 0));
    }

    #[test]
    fn what_was_forgotten_leaves_no_queue_behind() {
        let mut cache = LookupCache::new(1 << 20);
        for n in 0..10_000 {
            let segment = (LogId(0), Offset::new(n % 7));
            put(&mut cache, segment, Part::Counts, 10);
            if n % 3 == 0 {
                cache.forget(segment);
            }
            let held: usize = cache.segments.values().map(BTreeMap::len).sum();
            assert_eq!(cache.queue.len() - cache.void, held);
            assert!(cache.queue.len() <= 2 * held + 2 * VOID_MIN, "{}", cache.queue.len());
        }
    }

    #[test]
    fn room_is_made_even_if_all_of_it_is_in_use() {
        let all = 4 * CHANCES_MAX as u32;
        let mut cache = LookupCache::new(all as usize * (OVERHEAD_BYTES + 10));
        for n in 0..all {
            put(&mut cache, SEGMENT, Part::Offsets(n), 10);
        }
        for n in 0..all {
            assert!(cache.get(SEGMENT, Part::Offsets(n)).is_some(), "there is room for all");
        }
        put(&mut cache, SEGMENT, Part::Offsets(all), 10);
        let held = cache.segments[&SEGMENT].len();
        assert_eq!((held, cache.queue.len()), (all as usize, all as usize));
    }
}
