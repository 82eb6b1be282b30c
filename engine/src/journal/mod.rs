//! A shard's journal: where small groups of all its partitions become durable together.
//!
//! This file is the ring of groups in memory: which space is taken, which groups are in flight, which are
//! still needed. It never touches the file; the shard writes what [`Journal::begin`] laid out and says
//! when it landed.
//!
//! # Invariants
//! - At most [`GROUPS_IN_FLIGHT_MAX`] groups are in flight, and they are durable in order of sequence: a group
//!   that lands early waits for the one before it.
//! - The space of a group is taken again only after a group that no longer names it as needed is durable.

use std::collections::VecDeque;

use crate::defects::{self, Defect};
use crate::error::Fault;
use crate::types::{Offset, Pos};

pub(crate) mod group;
pub(crate) mod replay;

use group::{FILE_HEADER_BLOCKS, GroupHeader};

/// Groups in flight at most: recovery takes damage further back than this for corruption.
pub(crate) const GROUPS_IN_FLIGHT_MAX: usize = 2;

/// Blocks kept free so that a group which frees space can always be written.
const RESERVE_BLOCKS: u64 = 8;

/// A partition within its shard, for as long as the shard runs. Never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LogId(pub(crate) u32);

/// Bytes of a segment that a group holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) log: LogId,
    pub(crate) segment: Offset,
    pub(crate) start: Pos,
    pub(crate) end: Pos,
    /// Whether the group makes the bytes durable; not if it only carries them again.
    pub(crate) claims: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    InFlight,
    Landed,
    Durable,
}

#[derive(Debug)]
struct Live {
    sequence: u64,
    first_block: u64,
    blocks: u64,
    first_reference: u64,
    references: u32,
    oldest_needed: u64,
    state: State,
}

/// The ring of groups.
#[derive(Debug)]
pub(crate) struct Journal {
    block: u64,
    blocks: u64,
    epoch: u64,
    head: u64,
    next_sequence: u64,
    previous: (u64, u32),
    live: VecDeque<Live>,
    references: VecDeque<Reference>,
    references_dropped: u64,
    oldest_needed: u64,
    needed_blocks: u64,
    announced: u64,
    fault: Option<Fault>,
}

impl Journal {
    /// An empty journal of `bytes` (file header included) in its `epoch`.
    pub(crate) fn new(bytes: u64, block: u64, epoch: u64) -> Self {
        let blocks = bytes / block - FILE_HEADER_BLOCKS;
        assert!(blocks > 4 * RESERVE_BLOCKS, "room for groups");
        Self {
            block,
            blocks,
            epoch,
            head: 0,
            next_sequence: 1,
            previous: (epoch, 0),
            live: VecDeque::with_capacity(256),
            references: VecDeque::with_capacity(4096),
            references_dropped: 0,
            oldest_needed: 1,
            needed_blocks: 0,
            announced: 1,
            fault: None,
        }
    }

    /// Its epoch: no other opening of the directory has the same.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The error that closed the journal, if one did.
    pub(crate) fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Closes the journal for good.
    pub(crate) fn fence(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }

    /// Groups whose write has not landed.
    pub(crate) fn in_flight(&self) -> usize {
        self.live.iter().rev().take_while(|live| live.state != State::Durable).count()
    }

    /// The last sequence up to which all groups are durable.
    pub(crate) fn durable_sequence(&self) -> u64 {
        self.next_sequence - 1 - self.in_flight() as u64
    }

    /// Whether freed space waits for a group that says so.
    pub(crate) fn has_unannounced(&self) -> bool {
        self.oldest_needed > self.announced
    }

    /// Bytes of groups that are still needed.
    pub(crate) fn needed_bytes(&self) -> u64 {
        self.needed_blocks * self.block
    }

    /// Bytes of the ring.
    pub(crate) fn ring_bytes(&self) -> u64 {
        self.blocks * self.block
    }

    /// The sequence up to which groups make up the older `part` of `whole` of what is needed.
    pub(crate) fn older_part(&self, part: u64, whole: u64) -> Option<u64> {
        let limit = self.needed_blocks * part / whole;
        let mut sum = 0;
        let mut last = None;
        for live in self.live.iter().filter(|live| live.sequence >= self.oldest_needed) {
            if live.state != State::Durable || sum >= limit {
                break;
            }
            sum += live.blocks;
            last = Some(live.sequence);
        }
        last
    }

    /// Where a group of `bytes` would go: a block of the ring. The reserve is left alone unless `frees`.
    pub(crate) fn room(&self, bytes: u64, frees: bool) -> Option<u64> {
        let need = bytes / self.block;
        let keep = if frees { 0 } else { RESERVE_BLOCKS };
        let Some(tail) = self.live.front().map(|live| live.first_block) else {
            return Some(if self.head + need <= self.blocks { self.head } else { 0 });
        };
        if self.head > tail {
            if self.head + need <= self.blocks
                && (tail > keep || self.head + need + keep <= self.blocks)
            {
                return Some(self.head);
            }
            return (need + keep < tail).then_some(0);
        }
        (self.head + need + keep < tail).then_some(self.head)
    }

    /// The header of the group that is to be written now; its counts and CRCs are still zero.
    pub(crate) fn header(&self) -> GroupHeader {
        GroupHeader {
            sequence: self.next_sequence,
            previous_epoch: self.previous.0,
            previous_crc: self.previous.1,
            oldest_needed: self.oldest_needed,
            ..GroupHeader::first(self.epoch)
        }
    }

    /// A group with this finished header goes out, to the block that [`Journal::room`] named. Returns its byte
    /// position in the file.
    pub(crate) fn begin(
        &mut self,
        header: &GroupHeader,
        at: u64,
        references: impl Iterator<Item = Reference>,
    ) -> u64 {
        assert!(self.in_flight() < GROUPS_IN_FLIGHT_MAX, "no more than recovery allows for");
        assert_eq!(header.sequence, self.next_sequence, "groups go out in order");
        assert!(self.fault.is_none(), "a fenced journal takes no group");
        let first_reference = self.references_dropped + self.references.len() as u64;
        self.references.extend(references);
        let total = self.references_dropped + self.references.len() as u64;
        let blocks = header.group_bytes(self.block) / self.block;
        self.live.push_back(Live {
            sequence: header.sequence,
            first_block: at,
            blocks,
            first_reference,
            references: (total - first_reference) as u32,
            oldest_needed: header.oldest_needed,
            state: State::InFlight,
        });
        self.head = at + blocks;
        self.needed_blocks += blocks;
        self.next_sequence += 1;
        self.previous = (header.epoch, header.crc());
        (FILE_HEADER_BLOCKS + at) * self.block
    }

    /// The group's write is done. Groups that are durable by that, in order, are handed to `durable`, reference by
    /// reference, each with a look at whose those so many places behind it are.
    pub(crate) fn landed(
        &mut self,
        sequence: u64,
        mut durable: impl FnMut(Reference, &dyn Fn(usize) -> Option<LogId>),
    ) {
        let settled = self.live.len() - self.in_flight();
        let live = self.live.iter_mut().rev().find(|live| live.sequence == sequence);
        let live = live.expect("only what is in flight lands");
        assert_eq!(live.state, State::InFlight, "a group lands once");
        live.state = State::Landed;
        let mut announced = self.announced;
        for live in self.live.range_mut(settled..) {
            if live.state != State::Landed {
                if defects::is(Defect::AckOutOfOrder) && live.state == State::InFlight {
                    continue;
                }
                break;
            }
            live.state = State::Durable;
            announced = announced.max(live.oldest_needed);
            let first = (live.first_reference - self.references_dropped) as usize;
            for at in first..first + live.references as usize {
                let later = |ahead| self.references.get(at + ahead).map(|next| next.log);
                durable(self.references[at], &later);
            }
        }
        self.announced = announced;
        while self.live.front().is_some_and(|live| live.sequence < announced) {
            self.live.pop_front();
        }
    }

    /// Calls `visit` with every reference in needed groups up to `sequence`.
    pub(crate) fn visit_needed(&self, sequence: u64, mut visit: impl FnMut(Reference)) {
        for live in self.live.iter().filter(|live| live.sequence >= self.oldest_needed) {
            if live.sequence > sequence {
                break;
            }
            let first = (live.first_reference - self.references_dropped) as usize;
            for reference in self.references.range(first..first + live.references as usize) {
                visit(*reference);
            }
        }
    }

    /// Nothing that groups hold of this log is needed any more.
    pub(crate) fn void(&mut self, log: LogId) {
        for reference in self.references.iter_mut().filter(|reference| reference.log == log) {
            (reference.start, reference.end) = (Pos::ZERO, Pos::ZERO);
        }
    }

    /// Groups up to `sequence` are needed no more: `flushed` has said so of each of their references, or stops at
    /// the first group of which it did not. Returns whether anything was freed.
    pub(crate) fn release(&mut self, mut flushed: impl FnMut(u64, Reference) -> bool) -> bool {
        let before = self.oldest_needed;
        for live in &mut self.live {
            if live.sequence < self.oldest_needed {
                continue;
            }
            let first = (live.first_reference - self.references_dropped) as usize;
            let range = first..first + live.references as usize;
            let free = live.state == State::Durable
                && self
                    .references
                    .range(range.clone())
                    .all(|reference| flushed(live.sequence, *reference));
            if !free {
                break;
            }
            self.references.drain(range);
            self.references_dropped += u64::from(live.references);
            live.references = 0;
            live.first_reference = self.references_dropped;
            self.needed_blocks -= live.blocks;
            self.oldest_needed = live.sequence + 1;
        }
        self.oldest_needed > before
    }
}
