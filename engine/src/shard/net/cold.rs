//! Blocks of segments that are in neither a tail nor the page cache: read past it, kept in a bounded part of the
//! shard's memory, sent from there.
//!
//! The policy is that of S3-FIFO (Yang et al., SOSP 2023) with one bit: a block begins in *probation*, a quarter of the
//! room. Leaving it, it goes on to the *main* part if it was used by a second reader meanwhile, else out, and only its
//! name is remembered. One whose name is still remembered begins in the main part, if another reader asks for it. So a
//! reader that goes through the log once, however fast, displaces nothing but other such readers' blocks.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;

use super::super::keep::Glance;
use super::super::{Context, open_files};
use crate::buffers::{Arena, Chunk, Slice};
use crate::command::{Disk, Op};
use crate::error::{Fault, ReadError};
use crate::files::read_into;
use crate::journal::LogId;
use crate::limits::{
    COLD_AGAIN_NS, COLD_BLOCK_BYTES, COLD_BYTES_PER_S, COLD_GHOSTS_MAX, COLD_MEMORY_SHARE,
    COLD_READS_IN_FLIGHT,
};
use crate::local::{Notify, Semaphore};
use crate::types::{Offset, Pos};

/// A block of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    log: LogId,
    base: Offset,
    number: u64,
}

impl Key {
    /// The block that holds `pos`.
    pub(super) fn new(log: LogId, base: Offset, pos: Pos) -> Self {
        Self { log, base, number: pos.get() / COLD_BLOCK_BYTES as u64 }
    }

    /// Where it begins; past the last block of all, the last position there is.
    pub(super) fn start(self) -> Pos {
        Pos::new((self.number * COLD_BLOCK_BYTES as u64).min(i32::MAX as u64))
    }

    pub(super) fn next(self) -> Self {
        Self { number: self.number + 1, ..self }
    }
}

/// As what a segment's bytes are known: after a truncation or a compaction the same place may hold others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    /// How often the log was cut.
    pub(super) cuts: u64,
    /// The swap that the segment came by.
    pub(super) swapped: u32,
}

/// What is wanted of a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Want {
    /// Up to here the file has its bytes for good.
    pub(super) written: Pos,
    /// As what they are known.
    pub(super) stamp: Stamp,
    /// What is read counts only while this holds.
    pub(super) glance: Glance,
}

/// How far a block was sent, and when it was read.
#[derive(Clone, Copy, Debug)]
struct Use {
    reached: Pos,
    read_ns: u64,
}

#[derive(Debug)]
struct Block {
    data: Slice,
    stamp: Stamp,
    last: Use,
    /// A second reader used it.
    again: bool,
}

/// What is kept, and what is remembered.
#[derive(Debug, Default)]
struct Kept {
    limit: usize,
    blocks: HashMap<Key, Block>,
    probation: VecDeque<Key>,
    main: VecDeque<Key>,
    ghosts: HashMap<Key, Use>,
    ghost_order: VecDeque<Key>,
    loading: HashSet<Key>,
}

impl Kept {
    /// The block's bytes, if they are here and still the log's.
    fn get(&mut self, key: Key, stamp: Stamp) -> Option<Slice> {
        let block = self.blocks.get(&key)?;
        if block.stamp == stamp {
            return Some(block.data.clone());
        }
        self.blocks.remove(&key);
        self.probation.retain(|other| *other != key);
        self.main.retain(|other| *other != key);
        None
    }

    /// Whether these bytes, up to `from`, were sent before in the last half minute.
    fn was_sent(&self, key: Key, from: Pos, now_ns: u64) -> bool {
        let last = self.blocks.get(&key).map(|block| block.last);
        let last = last.or_else(|| self.ghosts.get(&key).copied());
        last.is_some_and(|last| from < last.reached && now_ns <= last.read_ns + COLD_AGAIN_NS)
    }

    fn insert(&mut self, key: Key, data: Slice, (stamp, now_ns): (Stamp, u64)) {
        let ghost = self.ghosts.remove(&key);
        let again = ghost.is_some_and(|last| now_ns <= last.read_ns + COLD_AGAIN_NS);
        let reached = ghost.map_or(key.start(), |last| last.reached);
        let last = Use { reached, read_ns: now_ns };
        if self.blocks.insert(key, Block { data, stamp, last, again: false }).is_none() {
            // One that a slow reader left half-way is no second reader's: it begins as it did before.
            let second = again && reached > key.start();
            if second { self.main.push_back(key) } else { self.probation.push_back(key) }
        }
        while self.blocks.len() > self.limit {
            self.evict();
        }
    }

    /// Makes room for one block. `false` if there is none.
    fn evict(&mut self) -> bool {
        loop {
            let from_probation = self.probation.len() > self.limit / 4 || self.main.is_empty();
            let part = if from_probation { &mut self.probation } else { &mut self.main };
            let Some(key) = part.pop_front() else { return false };
            let Some(block) = self.blocks.get_mut(&key) else { continue };
            if !std::mem::take(&mut block.again) {
                self.drop_block(key);
                return true;
            }
            self.main.push_back(key);
        }
    }

    fn drop_block(&mut self, key: Key) {
        let Some(block) = self.blocks.remove(&key) else { return };
        if self.ghosts.insert(key, block.last).is_none() {
            self.ghost_order.push_back(key);
        }
        // A name may stand in the order after its block came back: it is passed over.
        while self.ghost_order.len() > COLD_GHOSTS_MAX {
            if let Some(oldest) = self.ghost_order.pop_front() {
                self.ghosts.remove(&oldest);
            }
        }
    }
}

/// The blocks of a shard. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Cold {
    kept: Rc<RefCell<Kept>>,
    reads: Semaphore,
    /// Rung when a block was read, or could not be.
    loaded: Notify,
    pace: Rc<Cell<Pace>>,
}

/// What readers of cold segments leave to writers: those that keep the disk busy all the time have all of it but
/// [`COLD_BYTES_PER_S`], those that do for half of the time leave twice that, and nobody waits where nobody writes.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    /// How many of the last sends found writes under way, of [`ALWAYS`]: the later a send, the more it counts.
    busy: u64,
    /// When the next cold bytes are due.
    due_ns: u64,
}

/// Of [`Pace::busy`].
const ALWAYS: u64 = 1024;

/// Sends after which one counts less, by a factor of e.
const SENDS: u64 = 8;

impl Pace {
    /// So many bytes were sent at `now_ns`, while writes were under way or not. Until when their sender waits, if it
    /// does.
    fn sent(&mut self, bytes: usize, now_ns: u64, writing: bool) -> Option<u64> {
        self.busy =
            self.busy - self.busy.div_ceil(SENDS) + if writing { ALWAYS / SENDS } else { 0 };
        if self.busy == 0 {
            self.due_ns = now_ns;
            return None;
        }
        let takes = bytes as u64 * 1_000_000_000 / COLD_BYTES_PER_S;
        self.due_ns = self.due_ns.max(now_ns) + takes * self.busy / ALWAYS;
        Some(self.due_ns)
    }
}

impl Cold {
    /// Keeps its share of an arena of so many bytes.
    pub(crate) fn new(arena_bytes: usize) -> Self {
        let limit = (arena_bytes / COLD_MEMORY_SHARE / COLD_BLOCK_BYTES).max(2);
        let kept = Kept { limit, ..Kept::default() };
        Self {
            kept: Rc::new(RefCell::new(kept)),
            reads: Semaphore::new(COLD_READS_IN_FLIGHT),
            loaded: Notify::new(),
            pace: Rc::default(),
        }
    }

    /// Gives all memory back: writers want it.
    pub(crate) fn clear(&self) {
        let mut kept = self.kept.borrow_mut();
        while kept.evict() {}
    }

    /// The bytes of a block from its beginning, at least up to `to`.
    ///
    /// # Errors
    /// [`ReadError`], of the file; [`ReadError::Damaged`] if it ends before `to`.
    pub(super) async fn block(
        &self,
        cx: &Context,
        key: Key,
        to: Pos,
        want: Want,
    ) -> Result<Slice, ReadError> {
        let need = to.since(key.start()) as usize;
        loop {
            let loaded = self.loaded.notified();
            {
                let mut kept = self.kept.borrow_mut();
                if let Some(data) = kept.get(key, want.stamp).filter(|data| data.len() >= need) {
                    return Ok(data);
                }
                if kept.loading.insert(key) {
                    break;
                }
            }
            loaded.await;
        }
        let _loading = Loading { cold: self, key };
        let _permit = self.reads.acquire().await;
        let data = self.read(cx, key).await?;
        let data = data.slice(0..data.len().min(want.written.since(key.start()) as usize));
        if data.len() < need {
            let pos = key.start().get() + data.len() as u64;
            return Err(ReadError::Damaged { asked: key.base, segment: key.base, pos });
        }
        let now_ns = cx.state.borrow().time.ns;
        // Else it may be another segment's. Whoever asked looks at that too.
        if want.glance.holds(cx, key.log) {
            self.kept.borrow_mut().insert(key, data.clone(), (want.stamp, now_ns));
        }
        Ok(data)
    }

    /// Has the next block read while this one is sent, if nobody waits for a read.
    pub(super) fn read_ahead(&self, cx: &Context, key: Key, want: Want) {
        if key.start() >= want.written {
            return;
        }
        {
            let kept = self.kept.borrow();
            if kept.blocks.contains_key(&key) || !kept.loading.is_empty() {
                return;
            }
        }
        let (cold, cx) = (self.clone(), cx.clone());
        let tasks = cx.tasks.clone();
        let ahead = async move {
            let reader = super::super::read::Reader::new(&cx, key.log);
            // Whoever wants it is told if it cannot be had.
            drop(cold.block(&cx, key, key.start(), want).await);
            drop(reader);
        };
        drop(tasks.spawn(ahead));
    }

    async fn read(&self, cx: &Context, key: Key) -> Result<Slice, ReadError> {
        let lease = open_files::open(cx, key.log, key.base).await?;
        let buf = self.chunk(&cx.arena()).ok_or(ReadError::Overloaded)?;
        let range = (key.start().get(), COLD_BLOCK_BYTES);
        let read = read_into(&cx.disk, lease.file(), range, buf).await;
        let disk = |error| ReadError::Disk(Fault::new("reading a segment", &error));
        let chunk: Chunk = read.map_err(disk)?;
        Ok(chunk.slice(0..chunk.len()))
    }

    /// Memory for a block: the arena's, or that of the block which goes next.
    fn chunk(&self, arena: &Arena) -> Option<Chunk> {
        loop {
            if let Some(chunk) = arena.chunk(COLD_BLOCK_BYTES) {
                return Some(chunk);
            }
            if !self.kept.borrow_mut().evict() {
                return None;
            }
        }
    }

    /// So much of a block is being sent again: whether its bytes are worth a place in the page cache.
    pub(super) fn is_sent_again(&self, key: Key, from: Pos, now_ns: u64) -> bool {
        let mut kept = self.kept.borrow_mut();
        let again = kept.was_sent(key, from, now_ns);
        if again && let Some(block) = kept.blocks.get_mut(&key) {
            block.again = true;
        }
        again
    }

    /// A block was sent up to `to`.
    pub(super) fn sent(&self, key: Key, to: Pos) {
        if let Some(block) = self.kept.borrow_mut().blocks.get_mut(&key) {
            block.last.reached = block.last.reached.max(to);
        }
    }

    /// Cold bytes were sent. Until when their sender waits before it sends more.
    pub(super) fn pause(&self, cx: &Context, bytes: usize) -> Option<u64> {
        let state = cx.state.borrow();
        let mut pace = self.pace.get();
        let until = pace.sent(bytes, state.time.ns, state.writing);
        self.pace.set(pace);
        until
    }

    /// Has a block's bytes brought into the page cache, in the background.
    pub(super) async fn advise(&self, cx: &Context, key: Key) -> Result<(), ReadError> {
        let kind = (key.base, open_files::Kind::Pages);
        let Some(lease) = open_files::open_kind(cx, key.log, kind).await? else { return Ok(()) };
        let (pos, len) = (key.start().get(), COLD_BLOCK_BYTES as u32);
        let op = Op::Advise { file: lease.file(), pos, len };
        // Advice that is not taken changes nothing: the block is sent from memory.
        drop(cx.disk.run(op).await);
        Ok(())
    }
}

/// A block that is being read. Whoever waits for it looks again when this ends, however it ends.
struct Loading<'a> {
    cold: &'a Cold,
    key: Key,
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        self.cold.kept.borrow_mut().loading.remove(&self.key);
        self.cold.loaded.notify();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_block_of_the_largest_segment_has_an_end() {
        let last = Key::new(LogId(0), Offset::ZERO, Pos::new(i32::MAX as u64));
        assert!(last.start() < last.next().start());
        assert_eq!(last.next().start(), Pos::new(i32::MAX as u64));
    }

    const SHARE: u64 = (1 << 20) * 1_000_000_000 / COLD_BYTES_PER_S;

    /// How long senders of a mebibyte each wait in all, at the same time, if every `nth` finds writes under way.
    fn wait_of(pace: &mut Pace, sends: u64, nth: u64) -> u64 {
        let now_ns = pace.due_ns;
        let waits = (0..sends).map(|n| pace.sent(1 << 20, now_ns, nth > 0 && n % nth == 0));
        waits.last().flatten().map_or(0, |until| until - now_ns)
    }

    #[test]
    fn cold_bytes_are_paced_as_writers_keep_the_disk_busy() {
        let mut pace = Pace::default();
        assert_eq!(wait_of(&mut pace, 100, 0), 0, "nobody writes");
        wait_of(&mut pace, 40, 1);
        let always = wait_of(&mut pace, 100, 1);
        assert!(always > 98 * SHARE && always <= 100 * SHARE, "{always}: all readers together");
        wait_of(&mut pace, 40, 4);
        let quarter = wait_of(&mut pace, 100, 4);
        assert!(quarter > 22 * SHARE && quarter < 28 * SHARE, "{quarter}: four times the rate");
        wait_of(&mut pace, 80, 0);
        assert_eq!(wait_of(&mut pace, 1, 0), 0, "nobody writes any more");
    }

    #[test]
    fn what_was_not_sent_is_not_made_up_for() {
        let mut pace = Pace { busy: ALWAYS, due_ns: 0 };
        let late = 1_000_000_000;
        assert_eq!(pace.sent(1 << 20, late, true), Some(late + SHARE));
    }

    fn key(number: u64) -> Key {
        Key { log: LogId(0), base: Offset::ZERO, number }
    }

    fn data(arena: &Arena) -> Slice {
        let mut chunk = arena.chunk(4096).expect("room");
        chunk.append(b"block");
        chunk.slice(0..5)
    }

    fn end(key: Key) -> Pos {
        key.next().start()
    }

    /// One reader's use of a block, from its beginning to its end.
    fn read(kept: &mut Kept, arena: &Arena, key: Key, now_ns: u64) -> bool {
        let again = kept.was_sent(key, key.start(), now_ns);
        if kept.get(key, Stamp::default()).is_none() {
            kept.insert(key, data(arena), (Stamp::default(), now_ns));
        }
        let block = kept.blocks.get_mut(&key).expect("just inserted");
        block.again |= again;
        block.last.reached = end(key);
        again
    }

    #[test]
    fn readers_that_come_by_once_displace_nothing_that_is_read_again() {
        let arena = Arena::new(1 << 20);
        let mut kept = Kept { limit: 16, ..Kept::default() };
        for _ in 0..3 {
            for number in 0..8 {
                read(&mut kept, &arena, key(number), 1);
            }
        }
        for number in 100..1100 {
            assert!(!read(&mut kept, &arena, key(number), 2));
            assert!(kept.blocks.len() <= 16, "bounded");
        }
        let stayed = (0..8).filter(|n| kept.blocks.contains_key(&key(*n))).count();
        assert_eq!(stayed, 8, "a catch-up reader went by");
    }

    #[test]
    fn a_second_reading_is_told_from_the_rest_of_the_first() {
        let arena = Arena::new(1 << 20);
        let mut kept = Kept { limit: 4, ..Kept::default() };
        let first = key(1);
        kept.insert(first, data(&arena), (Stamp::default(), 5));
        let half = Pos::new(first.start().get() + 1000);
        kept.blocks.get_mut(&first).expect("there").last.reached = half;
        assert!(!kept.was_sent(first, half, 6), "the same reader goes on");
        assert!(kept.was_sent(first, first.start(), 6), "another one begins");
        for number in 10..30 {
            read(&mut kept, &arena, key(number), 7);
        }
        assert!(!kept.blocks.contains_key(&first), "it left");
        assert!(kept.was_sent(first, first.start(), 8), "and is remembered");
        assert!(!kept.was_sent(first, first.start(), 6 + COLD_AGAIN_NS), "for a while");
    }

    #[test]
    fn after_a_cut_or_a_swap_a_block_is_read_again() {
        let arena = Arena::new(1 << 20);
        let mut kept = Kept { limit: 4, ..Kept::default() };
        kept.insert(key(1), data(&arena), (Stamp::default(), 0));
        assert!(kept.get(key(1), Stamp { cuts: 1, swapped: 0 }).is_none());
        assert!(kept.probation.is_empty() && kept.blocks.is_empty());
        kept.insert(key(1), data(&arena), (Stamp::default(), 0));
        assert!(kept.get(key(1), Stamp { cuts: 0, swapped: 1 }).is_none());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let arena = Arena::new(1 << 20);
        let mut kept = Kept { limit: 2, ..Kept::default() };
        for log in 0..2 * COLD_GHOSTS_MAX as u32 {
            read(&mut kept, &arena, Key { log: LogId(log), ..key(0) }, 0);
        }
        assert_eq!(kept.ghosts.len(), COLD_GHOSTS_MAX);
        assert_eq!(kept.ghost_order.len(), COLD_GHOSTS_MAX);
    }
}
