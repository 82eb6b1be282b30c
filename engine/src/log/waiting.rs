//! Appends that wait for their ack, and when the wait is over.

use crate::defects::{self, Defect};
use crate::error::AppendError;
use crate::index::Latest;
use crate::types::{Offset, Pos};

use super::{Access, Log, Mark};

/// Who is told how an append ended: a slot of the shard's acks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(pub(crate) u32);

/// What an append waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Written,
    Durable,
}

/// How many acks ahead the shard asks for the memory that the client waits at.
const SOON: usize = 6;

/// An append without its ack.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) segment: Offset,
    pub(super) end: Pos,
    pub(super) base: Offset,
    pub(super) next: Offset,
    pub(super) need: Need,
    pub(super) ticket: Ticket,
    pub(super) buffer: Vec<u8>,
    /// What the segment's index knew before: it is taken back with the append.
    pub(super) before: Latest,
}

/// An append that ended, to be told to its client.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Whom to tell.
    pub(crate) ticket: Ticket,
    /// Whom a few acks later, if they are of this log.
    pub(crate) soon: Option<Ticket>,
    /// First and last offset, or why not.
    pub(crate) result: Result<(Offset, Offset), AppendError>,
    /// The batch's memory, to go back.
    pub(crate) buffer: Vec<u8>,
}

impl Log {
    /// Hands appends whose wait is over to `ended`, in order.
    pub(crate) fn settle(&mut self, mut ended: impl FnMut(Ended)) {
        if matches!(self.access, Access::Fenced(_)) {
            return;
        }
        while let Some(front) = self.waiting.front() {
            if !self.satisfied(front) {
                break;
            }
            let Some(done) = self.waiting.pop_front() else { break };
            if done.need == Need::Durable {
                let Waiting { next: offset, segment, end: pos, .. } = done;
                self.raise_durable(Mark { offset, segment, pos });
            }
            let last = Offset::new(done.next.get() - 1);
            ended(Ended {
                ticket: done.ticket,
                soon: self.waiting.get(SOON).map(|waiting| waiting.ticket),
                result: Ok((done.base, last)),
                buffer: done.buffer,
            });
        }
    }

    fn satisfied(&self, waiting: &Waiting) -> bool {
        // A segment that left the tail is in its file for good.
        let Some(at) = self.tail.iter().position(|segment| segment.base() == waiting.segment)
        else {
            return true;
        };
        let segment = &self.tail[at];
        match waiting.need {
            // Durable by the journal is more: after a switch to `group` its bytes may be written much later.
            Need::Written => segment.written.done().max(segment.durable.done()) >= waiting.end,
            Need::Durable => {
                (segment.entry_durable || defects::is(Defect::AckBeforeEntry))
                    && segment.durable.done() >= waiting.end
                    && self.tail.iter().take(at).all(|s| {
                        s.durable.done() == s.end()
                            && (s.entry_durable || defects::is(Defect::AckBeforeEntry))
                    })
            }
        }
    }
}
