//! What lookups and fetches remember of segments: blocks of their indexes, where batches are, and where fetches ended.
//! Bounded in bytes; what was not used for long goes first.
//!
//! A lookup among thousands of segments waits for memory more than for anything else. Therefore batches, of which there
//! are most, lie within their segment's tree, in numbers of four bytes, and a use only leaves a mark where it reads
//! anyway. The order in which things go is that of a queue with a second chance (Corbato's clock): one that was used
//! since it was queued is queued again. Consecutive batches that came together go together.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;

use crate::journal::LogId;
use crate::types::{Offset, Pos};

/// Bytes that a part takes beside its content, about.
const PART_BYTES: usize = 160;

/// Bytes that a run of consecutive batches takes beside them, about: its place in the queue.
const RUN_BYTES: usize = 64;

/// Bytes that a batch takes, about: its share of a node.
const BATCH_BYTES: usize = 48;

/// Bytes that a segment takes of which anything is remembered, about.
const SEGMENT_BYTES: usize = 256;

/// Second chances that are given for room for one entry: then the next one goes, used or not.
const CHANCES_MAX: usize = 16;

/// Places in the queue of what was forgotten that are always borne.
const VOID_MIN: usize = 64;

/// What of a segment, but for where its batches are, as lookups by offset ask for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Part {
    /// A block of the index by offset.
    Offsets(u32),
    /// A block of the index by time.
    Times(u32),
    /// How many entries the two indexes have.
    Counts,
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
    /// A batch.
    Batch(Extent),
}

impl Memo {
    fn bytes(&self) -> usize {
        PART_BYTES + if let Self::Block(bytes) = self { bytes.len() } else { 0 }
    }
}

type Segment = (LogId, Offset);

/// How much was forgotten when something was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(u64);

struct Held {
    memo: Memo,
    /// Whether it was used since it was queued.
    used: bool,
}

/// A batch, by offsets from its segment's base. Its last offset is its key.
struct Batch {
    /// The lowest offset that leads to it: compaction may have taken away what was before its first.
    from: u32,
    first: u32,
    pos: Pos,
    bytes: u32,
    /// Which of its segment's runs it came with, and goes with.
    run: u32,
    /// Whether it was used since its run was queued.
    used: bool,
}

impl Batch {
    /// Its key, and what is held of it; `None` if no index of the segment could name it.
    fn of(extent: &Extent, (base, from): (Offset, Offset), run: u32) -> Option<(u32, Self)> {
        let relative = |offset: Offset| u32::try_from(offset.get().checked_sub(base.get())?).ok();
        let batch = Self {
            from: relative(from)?,
            first: relative(extent.first)?,
            pos: extent.pos,
            bytes: extent.bytes,
            run,
            used: false,
        };
        Some((relative(extent.last)?, batch))
    }

    fn extent(&self, base: Offset, last: u32) -> Extent {
        let absolute = |relative: u32| Offset::new(base.get() + i64::from(relative));
        let (first, last) = (absolute(self.first), absolute(last));
        Extent { first, last, pos: self.pos, bytes: self.bytes }
    }
}

/// What is remembered of a segment.
struct Known {
    /// By the offset of their last record from the segment's base.
    batches: BTreeMap<u32, Batch>,
    parts: BTreeMap<Part, Held>,
    /// Runs that are in the queue, and the number of the last one.
    runs: usize,
    last_run: u32,
    /// Which of those that had its segment's name it is: places in the queue are of one.
    birth: u64,
}

impl Known {
    /// Its places in the queue.
    fn places(&self) -> usize {
        self.runs + self.parts.len()
    }

    fn bytes(&self) -> usize {
        let parts: usize = self.parts.values().map(|held| held.memo.bytes()).sum();
        SEGMENT_BYTES + self.runs * RUN_BYTES + self.batches.len() * BATCH_BYTES + parts
    }

    /// Adds consecutive batches, the first of which holds `from` or follows it. What is there already stays as it is.
    /// Returns the place in the queue of those that are new, and how many they are.
    fn add(
        &mut self,
        (base, mut from): (Offset, Offset),
        batches: &[Extent],
    ) -> Option<(Slot, usize)> {
        let run = self.last_run.wrapping_add(1);
        let (mut low, mut high, mut added) = (u32::MAX, 0, 0);
        for extent in batches {
            let Some((last, batch)) = Batch::of(extent, (base, from), run) else { break };
            from = extent.last.plus(1);
            if let Some(was) = self.batches.get_mut(&last) {
                was.from = was.from.min(batch.from);
                continue;
            }
            self.batches.insert(last, batch);
            (low, high, added) = (low.min(last), high.max(last), added + 1);
        }
        if added == 0 {
            return None;
        }
        self.last_run = run;
        self.runs += 1;
        Some((Slot::Run { low, high, run }, added))
    }

    /// Takes the marks of use away from what a place in the queue stands for. Whether there were any.
    fn take_used(&mut self, slot: Slot) -> bool {
        match slot {
            Slot::Part(part) => {
                self.parts.get_mut(&part).is_some_and(|held| std::mem::take(&mut held.used))
            }
            Slot::Run { low, high, run } => {
                let range = self.batches.range_mut(low..=high);
                let own = range.filter(|(_, batch)| batch.run == run);
                own.fold(false, |used, (_, batch)| std::mem::take(&mut batch.used) | used)
            }
        }
    }

    /// Removes what a place in the queue stands for. Returns its bytes.
    fn remove(&mut self, slot: Slot) -> usize {
        match slot {
            Slot::Part(part) => self.parts.remove(&part).map_or(0, |held| held.memo.bytes()),
            Slot::Run { low, high, run } => {
                let before = self.batches.len();
                let own = |(last, batch): (&u32, &Batch)| (batch.run == run).then_some(*last);
                while let Some(last) = self.batches.range(low..=high).find_map(own) {
                    self.batches.remove(&last);
                }
                self.runs -= 1;
                RUN_BYTES + (before - self.batches.len()) * BATCH_BYTES
            }
        }
    }
}

/// What of a segment goes together.
#[derive(Clone, Copy)]
enum Slot {
    Part(Part),
    /// The batches of one run, by the least and the greatest of their keys.
    Run {
        low: u32,
        high: u32,
        run: u32,
    },
}

/// A place in the queue; void if its segment was forgotten since.
struct Queued {
    segment: Segment,
    birth: u64,
    slot: Slot,
}

/// The memory of lookups of a shard.
pub(crate) struct LookupCache {
    segments: HashMap<Segment, Known>,
    queue: VecDeque<Queued>,
    /// Places of the queue that are void.
    void: usize,
    bytes: usize,
    bytes_max: usize,
    births: u64,
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
            births: 0,
            forgets: 0,
        }
    }

    /// What is remembered of a part.
    pub(crate) fn get(&mut self, segment: Segment, part: Part) -> Option<Memo> {
        let held = self.segments.get_mut(&segment)?.parts.get_mut(&part)?;
        held.used = true;
        Some(held.memo.clone())
    }

    /// The batch of [`Part::From`] or [`Part::At`].
    pub(crate) fn one(&mut self, segment: Segment, part: Part) -> Option<Extent> {
        let Some(Memo::Batch(extent)) = self.get(segment, part) else { return None };
        Some(extent)
    }

    /// The batch that holds `offset`, or the next one if compaction took that away.
    pub(crate) fn batch(&mut self, segment: Segment, offset: Offset) -> Option<Extent> {
        let base = segment.1;
        let relative = u32::try_from(offset.get().checked_sub(base.get())?).ok()?;
        let (last, batch) =
            self.segments.get_mut(&segment)?.batches.range_mut(relative..).next()?;
        if batch.from > relative {
            return None;
        }
        batch.used = true;
        Some(batch.extent(base, *last))
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
        let known = self.known(segment);
        let birth = known.birth;
        // Two looked for it at once: it is of use.
        let used = known.parts.contains_key(&part);
        match known.parts.insert(part, Held { memo, used }) {
            Some(was) => self.bytes -= was.memo.bytes(),
            None => self.queue.push_back(Queued { segment, birth, slot: Slot::Part(part) }),
        }
        self.make_room();
    }

    /// Remembers consecutive batches, the first of which holds `from` or follows it; unless something was forgotten
    /// since the stamp.
    pub(crate) fn put_batches(
        &mut self,
        segment: Segment,
        from: Offset,
        (batches, stamp): (&[Extent], Stamp),
    ) {
        if stamp != self.stamp() {
            return;
        }
        let known = self.known(segment);
        let birth = known.birth;
        if let Some((slot, added)) = known.add((segment.1, from), batches) {
            self.bytes += RUN_BYTES + added * BATCH_BYTES;
            self.queue.push_back(Queued { segment, birth, slot });
        } else if known.places() == 0 {
            self.segments.remove(&segment);
            self.bytes -= SEGMENT_BYTES;
        }
        self.make_room();
    }

    /// What is remembered of a segment, for something to be put into it.
    fn known(&mut self, segment: Segment) -> &mut Known {
        self.segments.entry(segment).or_insert_with(|| {
            self.bytes += SEGMENT_BYTES;
            self.births += 1;
            let (batches, parts) = (BTreeMap::new(), BTreeMap::new());
            Known { batches, parts, runs: 0, last_run: 0, birth: self.births }
        })
    }

    fn make_room(&mut self) {
        let mut chances = 0;
        while self.bytes > self.bytes_max {
            let Some(first) = self.queue.pop_front() else { break };
            let Some(known) = of(&mut self.segments, &first) else {
                self.void -= 1;
                continue;
            };
            if known.take_used(first.slot) && chances < CHANCES_MAX {
                chances += 1;
                self.queue.push_back(first);
                continue;
            }
            self.bytes -= known.remove(first.slot);
            if known.places() == 0 {
                self.segments.remove(&first.segment);
                self.bytes -= SEGMENT_BYTES;
            }
        }
    }

    /// Keeps the queue in proportion to what is held.
    fn sweep(&mut self) {
        if self.void > VOID_MIN.max(self.queue.len() / 2) {
            let segments = &mut self.segments;
            self.queue.retain(|queued| of(segments, queued).is_some());
            self.void = 0;
        }
    }

    /// Forgets a segment: it is cut, replaced or gone, or its indexes are in doubt.
    pub(crate) fn forget(&mut self, segment: Segment) {
        self.forgets += 1;
        if let Some(known) = self.segments.remove(&segment) {
            self.bytes -= known.bytes();
            self.void += known.places();
            self.sweep();
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

/// The segment that a place in the queue is of.
fn of<'a>(segments: &'a mut HashMap<Segment, Known>, queued: &Queued) -> Option<&'a mut Known> {
    segments.get_mut(&queued.segment).filter(|known| known.birth == queued.birth)
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
        let mut cache = LookupCache::new(SEGMENT_BYTES + 3 * (PART_BYTES + 100));
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
    fn what_two_looked_for_at_once_is_of_use() {
        let mut cache = LookupCache::new(SEGMENT_BYTES + 2 * (PART_BYTES + 100));
        for n in [0, 1, 0, 2] {
            put(&mut cache, SEGMENT, Part::Offsets(n), 100);
        }
        let there = [0, 1, 2].map(|n| cache.get(SEGMENT, Part::Offsets(n)).is_some());
        assert_eq!(there, [true, false, true]);
        assert!(cache.bytes <= cache.bytes_max);
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
            let batches: Vec<Extent> = batches.iter().map(extent).collect();
            cache.put_batches(SEGMENT, Offset::new(from), (&batches, stamp));
        };
        // Compaction took 0 to 4, 8 and 9, and 20 to 29.
        put(2, &[(5, 7), (10, 12)]);
        put(30, &[(30, 30)]);
        // Once more, by one that asked for a later offset.
        put(11, &[(10, 12)]);
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
        let bytes = 2 * (SEGMENT_BYTES + PART_BYTES + 10);
        assert_eq!((cache.bytes, cache.queue.len() - cache.void), (bytes, 2));
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
            let held: usize = cache.segments.values().map(Known::places).sum();
            assert_eq!(cache.queue.len() - cache.void, held);
            assert!(cache.queue.len() <= 2 * held + 2 * VOID_MIN, "{}", cache.queue.len());
        }
    }

    #[test]
    fn room_is_made_even_if_all_of_it_is_in_use() {
        let all = 4 * CHANCES_MAX as u32;
        let mut cache = LookupCache::new(SEGMENT_BYTES + all as usize * (PART_BYTES + 10));
        for n in 0..all {
            put(&mut cache, SEGMENT, Part::Offsets(n), 10);
        }
        for n in 0..all {
            assert!(cache.get(SEGMENT, Part::Offsets(n)).is_some(), "there is room for all");
        }
        put(&mut cache, SEGMENT, Part::Offsets(all), 10);
        let held = cache.segments[&SEGMENT].places();
        assert_eq!((held, cache.queue.len()), (all as usize, all as usize));
    }

    #[test]
    fn batches_go_with_those_they_came_with_and_a_run_in_use_stays() {
        let mut cache = LookupCache::new(SEGMENT_BYTES + 3 * (RUN_BYTES + 2 * BATCH_BYTES));
        let batch = |n: i64| {
            let first = Offset::new(n);
            Extent { first, last: first, pos: Pos::new(n as u64 * 61), bytes: 61 }
        };
        let stamp = cache.stamp();
        let put = |cache: &mut LookupCache, numbers: &[i64]| {
            let batches: Vec<Extent> = numbers.iter().copied().map(batch).collect();
            cache.put_batches(SEGMENT, Offset::new(numbers[0]), (&batches, stamp));
        };
        let there = |cache: &mut LookupCache, n| cache.batch(SEGMENT, Offset::new(n)).is_some();
        put(&mut cache, &[0, 1]);
        // One of these is there already, and stays with those it came with.
        put(&mut cache, &[1, 2, 3]);
        put(&mut cache, &[4, 5]);
        assert_eq!((cache.bytes, cache.queue.len()), (cache.bytes_max, 3));
        put(&mut cache, &[4, 5]);
        assert_eq!((cache.bytes, cache.queue.len()), (cache.bytes_max, 3), "nothing new");
        assert!(there(&mut cache, 0));
        put(&mut cache, &[6, 7]);
        let held = [0, 1, 2, 3, 4, 5, 6, 7].map(|n| there(&mut cache, n));
        assert_eq!(held, [true, true, false, false, true, true, true, true]);
        assert_eq!((cache.bytes, cache.queue.len()), (cache.bytes_max, 3));
        cache.forget(SEGMENT);
        assert_eq!((cache.bytes, cache.queue.len() - cache.void), (0, 0));
        put(&mut cache, &[0, 1]);
        assert!(cache.segments.is_empty(), "it was read before the segment was forgotten");
    }

    #[test]
    fn what_no_index_could_name_is_not_remembered() {
        let mut cache = LookupCache::new(1 << 20);
        let far = i64::from(u32::MAX);
        let extent = |first: i64, last: i64, pos: u64| Extent {
            first: Offset::new(first),
            last: Offset::new(last),
            pos: Pos::new(pos),
            bytes: 61,
        };
        let segment = (LogId(0), Offset::new(7));
        let stamp = cache.stamp();
        for batch in [extent(7, far + 8, 0), extent(6, 7, 0)] {
            cache.put_batches(segment, batch.first, (&[batch], stamp));
        }
        assert!(cache.segments.is_empty() && cache.bytes == 0);
        let last = extent(far + 7, far + 7, i32::MAX as u64);
        cache.put_batches(segment, Offset::new(far + 5), (&[last], stamp));
        assert_eq!(cache.batch(segment, Offset::new(far + 6)), Some(last));
        assert_eq!([4, 8].map(|past| cache.batch(segment, Offset::new(far + past))), [None; 2]);
        assert_eq!(cache.batch(segment, Offset::new(6)), None);
    }
}
