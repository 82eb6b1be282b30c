//! What a log should do next: the choice between the journal, a durable write to the segment, a plain
//! write, and waiting.

use super::{Access, Log};
use crate::limits::{DIRECT_GATHER_BYTES, WRITE_BACK_BYTES};
use crate::segment::Segment;
use crate::types::{FlushPolicy, Offset, Pos};

/// A step of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Put unclaimed bytes up to `end` into the next journal group.
    Journal {
        /// The segment.
        segment: Offset,
        /// One past the last byte.
        end: Pos,
    },
    /// Write whole blocks up to `end`.
    Write {
        /// The segment.
        segment: Offset,
        /// One past the last byte, a block boundary.
        end: Pos,
        /// Who waits for it.
        purpose: Purpose,
    },
    /// Write the padded last block (policies `os` and `interval`).
    WriteTail {
        /// The segment.
        segment: Offset,
    },
    /// Bytes were written that no flush covered; flush before the next durable claim.
    Flush,
    /// Nothing can be done before something in flight ends, space is prepared, or more arrives.
    Wait,
}

/// Who waits for a segment write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Somebody waits until it is written: appends under `os`, a durable write behind it, a seal.
    Written,
    /// Appends under `group` wait until it is durable: it claims its bytes.
    Durable,
    /// The journal, for its room. It holds the bytes, so there is no hurry.
    WriteBack,
}

/// What bears on the choice, beside the log itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// From this many unclaimed bytes on, a group goes straight to its segment.
    pub(crate) direct_bytes: u64,
    /// Whether direct durable writes may be used at all (a test or a benchmark arm may force them).
    pub(crate) force_direct: bool,
}

/// Whether a step may follow from it that the journal took bytes of this segment, or holds them now. Where a group has
/// one small batch of each of many logs there is none, and nobody need look at their logs again.
pub(crate) fn may_go_on(policy: FlushPolicy, segment: &Segment) -> bool {
    policy != FlushPolicy::Group
        || segment.rolled
        || segment.end() > segment.claimed()
        || segment.unwritten_claimed() >= WRITE_BACK_BYTES
}

impl Log {
    /// The next step, if the log has work. Called again after each step is carried out. `may_write_back`: whether that
    /// may be a write that nobody waits for.
    pub(crate) fn step(&self, bounds: Bounds, may_write_back: bool) -> Step {
        if matches!(self.access, Access::Fenced(_) | Access::Damaged) {
            return Step::Wait;
        }
        for segment in &self.tail {
            let step = if self.policy == FlushPolicy::Group {
                self.step_durable(segment, bounds, may_write_back)
            } else {
                self.step_written(segment)
            };
            if step != Step::Wait {
                return step;
            }
            // A later segment's bytes flow at once; only their acks wait.
        }
        Step::Wait
    }

    fn step_durable(&self, segment: &Segment, bounds: Bounds, may_write_back: bool) -> Step {
        let base = segment.base();
        if segment.needs_flush() {
            return if self.flushing { Step::Wait } else { Step::Flush };
        }
        let unclaimed = segment.unclaimed();
        let end = segment.claimed().plus(unclaimed);
        let whole = segment.whole_end(end);
        let direct_bytes = if bounds.force_direct { 1 } else { bounds.direct_bytes };
        let direct = segment.file.is_some()
            && segment.may_write()
            && !segment.needs_image()
            && whole > segment.claimed()
            && whole.since(segment.claimed()) >= direct_bytes;
        let journaled = segment.claimed().floor(self.shape.block);
        let behind = journaled.get().saturating_sub(segment.write_issued().get());
        // What the journal holds is written first. While much of it is yet to be, the journal takes these bytes too:
        // better than to have them wait behind it.
        let is_near = behind <= WRITE_BACK_BYTES || bounds.force_direct;
        if unclaimed > 0 && direct && is_near {
            if behind > 0 {
                return Step::Write { segment: base, end: journaled, purpose: Purpose::Written };
            }
            // A second group goes out behind the first only once it has as many bytes: two halves, one in flight and
            // one gathering, keep the device busy with the fewest flushes.
            let in_flight = segment.claimed().since(segment.durable.done());
            if whole.since(segment.claimed()) >= in_flight.min(DIRECT_GATHER_BYTES) {
                return Step::Write { segment: base, end: whole, purpose: Purpose::Durable };
            }
            return Step::Wait;
        }
        let unwritten = segment.unwritten_claimed();
        let write = |purpose| Step::Write {
            segment: base,
            end: segment.whole_end(segment.claimed()),
            purpose,
        };
        let writable = segment.file.is_some() && segment.may_write();
        // At once, group or no group: what piles up meanwhile would stand in the way of the groups behind it.
        if may_write_back && writable && !segment.rolled && unwritten >= WRITE_BACK_BYTES {
            return write(Purpose::WriteBack);
        }
        // What is left of a large group rides with the next one while one is in flight.
        if unclaimed > 0 && segment.durable_writes() == 0 {
            return Step::Journal { segment: base, end };
        }
        // No more bytes come to a rolled segment, and its seal waits for these.
        if writable && segment.rolled && unwritten > 0 {
            return write(Purpose::Written);
        }
        Step::Wait
    }

    fn step_written(&self, segment: &Segment) -> Step {
        let base = segment.base();
        if segment.needs_image() {
            // The padded tail is durable: its block is rewritten only under an image in the journal.
            let block_end = segment.claimed().ceil(self.shape.block);
            let end = segment.claimed().plus(segment.unclaimed()).min(block_end);
            return if end > segment.claimed() {
                Step::Journal { segment: base, end }
            } else {
                Step::Wait
            };
        }
        if segment.journal_goal > segment.claimed() && !segment.needs_flush() {
            return Step::Journal { segment: base, end: segment.journal_goal };
        }
        if segment.file.is_none() || !segment.may_write() {
            return Step::Wait;
        }
        let whole = segment.whole_end(segment.end());
        let idle = segment.written.unfinished() == 0;
        if whole > segment.write_issued() {
            let bytes = whole.since(segment.write_issued());
            if idle || bytes >= DIRECT_GATHER_BYTES {
                return Step::Write { segment: base, end: whole, purpose: Purpose::Written };
            }
            return Step::Wait;
        }
        let tail = segment.end() > segment.written.done() && segment.end() > whole;
        if tail && idle && segment.end().ceil(self.shape.block) <= segment.prepared {
            return Step::WriteTail { segment: base };
        }
        Step::Wait
    }
}

#[cfg(test)]
#[path = "plan/tests.rs"]
mod tests;
