//! Segment writes in flight, by slot; and what a completion's token means.

use crate::command::FileHandle;
use crate::journal::LogId;
use crate::limits::{WRITE_BACK_BYTES_IN_FLIGHT, WRITE_BACKS_IN_FLIGHT, WRITES_IN_FLIGHT_MAX};
use crate::log::plan::Purpose;
use crate::types::{Offset, Pos};

const KIND_SHIFT: u32 = 56;
const PAYLOAD: u64 = (1 << KIND_SHIFT) - 1;

/// Whom a completion concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// An operation of a procedure.
    Procedure(u32),
    /// A segment write, by slot.
    Segment(u32),
    /// The flush after a durable segment write.
    SegmentFlush(u32),
    /// A journal group, by sequence.
    Group(u64),
    /// The flush after a group's write.
    GroupFlush(u64),
}

impl Token {
    /// As a ring carries it.
    pub(crate) fn encode(self) -> u64 {
        let (kind, payload) = match self {
            Self::Procedure(number) => (1, u64::from(number)),
            Self::Segment(slot) => (2, u64::from(slot)),
            Self::SegmentFlush(slot) => (3, u64::from(slot)),
            Self::Group(sequence) => (4, sequence & PAYLOAD),
            Self::GroupFlush(sequence) => (5, sequence & PAYLOAD),
        };
        kind << KIND_SHIFT | payload
    }

    /// What the ring gave back.
    pub(crate) fn decode(token: u64) -> Self {
        let payload = token & PAYLOAD;
        match token >> KIND_SHIFT {
            1 => Self::Procedure(payload as u32),
            2 => Self::Segment(payload as u32),
            3 => Self::SegmentFlush(payload as u32),
            4 => Self::Group(payload),
            5 => Self::GroupFlush(payload),
            _ => unreachable!("only tokens made here come back"),
        }
    }
}

/// A segment write in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InFlight {
    pub(crate) log: LogId,
    pub(crate) segment: Offset,
    pub(crate) file: FileHandle,
    pub(crate) start: Pos,
    pub(crate) end: Pos,
    pub(crate) purpose: Purpose,
}

/// Room beyond "full", for the padded tails that procedures write.
const SLACK: usize = 64;

/// Segment writes in flight at most.
pub(super) const SLOTS: usize = WRITES_IN_FLIGHT_MAX + SLACK;

/// A fixed table of segment writes in flight.
#[derive(Debug)]
pub(crate) struct Writes {
    slots: Vec<Option<InFlight>>,
    free: Vec<u32>,
    /// Of those that nobody waits for: how many, and their bytes.
    write_backs: (usize, u64),
}

impl Writes {
    pub(crate) fn new() -> Self {
        let free = (0..SLOTS as u32).rev().collect();
        Self { slots: vec![None; SLOTS], free, write_backs: (0, 0) }
    }

    /// Whether no further step should begin writes.
    pub(crate) fn is_full(&self) -> bool {
        self.free.len() <= SLACK
    }

    /// Writes in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether another write that nobody waits for may go out, however many others are in flight: appends to other logs
    /// can keep them so for ever.
    pub(crate) fn may_write_back(&self) -> bool {
        let (writes, bytes) = self.write_backs;
        writes < WRITE_BACKS_IN_FLIGHT && bytes < WRITE_BACK_BYTES_IN_FLIGHT
    }

    /// Writes in flight that nobody waits for, and their bytes.
    #[cfg(test)]
    pub(crate) fn write_backs(&self) -> (usize, u64) {
        self.write_backs
    }

    /// Takes a slot; returns the token.
    pub(crate) fn begin(&mut self, write: InFlight) -> u64 {
        if write.purpose == Purpose::WriteBack {
            self.write_backs.0 += 1;
            self.write_backs.1 += write.end.since(write.start);
        }
        let slot = self.free.pop().expect("steps stop when the table is full");
        self.slots[slot as usize] = Some(write);
        Token::Segment(slot).encode()
    }

    /// Looks at a write.
    pub(crate) fn get(&self, slot: u32) -> InFlight {
        self.slots[slot as usize].expect("a slot in flight")
    }

    /// Frees a slot.
    pub(crate) fn end(&mut self, slot: u32) -> InFlight {
        let write = self.slots[slot as usize].take().expect("a slot ends once");
        self.free.push(slot);
        if write.purpose == Purpose::WriteBack {
            self.write_backs.0 -= 1;
            self.write_backs.1 -= write.end.since(write.start);
        }
        write
    }
}
