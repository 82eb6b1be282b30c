//! One partition: its segments, its watermarks and who waits for what. A state machine that takes requests and
//! completions and says what to do next; it never touches a file and never sleeps.
//!
//! # Invariants
//! - `log_start <= durable <= next`.
//! - Acks are given in order of offset, and an ack under `group` only when every earlier byte of the partition,
//!   in every segment, is on stable storage, and the segment's directory entry too.
//! - A fenced log never acknowledges again.

use std::collections::VecDeque;
use std::path::PathBuf;

use crate::buffers::Arena;
use crate::error::{AppendError, Fault};
use crate::index::{Index, Indexed};
use crate::journal::LogId;
use crate::segment::Segment;
use crate::types::{FlushPolicy, Incarnation, Offset, PartitionName, Pos, Watermarks};
use crate::window::NoMemory;

use keep::Keep;

pub(crate) mod ahead;
pub(crate) mod history;
pub(crate) mod keep;
pub(crate) mod plan;
mod sealed;
mod tail;
mod waiting;

pub(crate) use sealed::{Derived, Sealed, begun_by};
pub(crate) use waiting::{Ended, Ticket};

use history::Cuts;
use waiting::{Need, Waiting};

/// Whether the log takes appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// It does.
    Open,
    /// A fault closed it.
    Fenced(Fault),
    /// Recovery found damage.
    Damaged,
    /// The disk is full: until space can be prepared again.
    Full,
    /// A truncation is under way.
    Cutting,
}

/// Where an offset's bytes begin: or, at a segment's end, one past its last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The offset.
    pub(crate) offset: Offset,
    /// The segment's base.
    pub(crate) segment: Offset,
    /// The position in it.
    pub(crate) pos: Pos,
}

/// What does not change while a log is open.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The log within its shard.
    pub(crate) id: LogId,
    /// Its name.
    pub(crate) name: PartitionName,
    /// Its life.
    pub(crate) incarnation: Incarnation,
    /// Its directory.
    pub(crate) dir: PathBuf,
}

/// Numbers that every log of an engine shares.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Bytes of a block.
    pub(crate) block: u64,
    /// Roll before a segment grows beyond this.
    pub(crate) segment_bytes: u64,
    /// Roll when a segment's first batch is older than this, in milliseconds.
    pub(crate) roll_ms: u64,
    /// Bytes between index entries.
    pub(crate) index_interval: u32,
}

/// An append as it reaches the log.
#[derive(Debug)]
pub(crate) struct Append<'a> {
    /// The encoded batch, validated.
    pub(crate) bytes: &'a [u8],
    /// Its records, at least one.
    pub(crate) records: u32,
    /// Its CRC, as in its header.
    pub(crate) crc: u32,
    /// The latest of its timestamps.
    pub(crate) max_timestamp: i64,
    /// Whom to tell.
    pub(crate) ticket: Ticket,
    /// The offset and leader epoch it must get, from those who replicate.
    pub(crate) at: Option<(Offset, i32)>,
}

/// A partition's log.
#[derive(Debug)]
pub(crate) struct Log {
    /// Name, directory, incarnation.
    pub(crate) identity: Identity,
    pub(crate) shape: Shape,
    /// The flush policy in force.
    pub(crate) policy: FlushPolicy,
    /// Whether appends are taken.
    pub(crate) access: Access,
    /// Segments before the tail, oldest first.
    pub(crate) sealed: Vec<Sealed>,
    /// Segments that are not all in their files for good; the last one is active.
    pub(crate) tail: VecDeque<Segment>,
    next: Offset,
    durable: Mark,
    log_start: Offset,
    epoch: i32,
    /// Bytes appended since the log was opened.
    appended_bytes: u64,
    /// Where its end was taken back.
    pub(crate) taken_back: Cuts,
    /// Fetches that wait for this log to move.
    pub(crate) watchers: u32,
    /// How often its end was taken back, and where it begins, as the fetches that wait know it.
    pub(crate) told: (u64, Offset),
    /// Whether the shard has it in its queue of logs that have moved under fetches.
    pub(crate) moved: bool,
    /// Whether reads that begin wait: a truncation waits for the last one under way.
    pub(crate) barred: bool,
    /// Leader epochs and the offset each began at.
    pub(crate) epochs: Vec<(i32, Offset)>,
    /// Whether they have changed since they were written to the partition's checkpoint.
    pub(crate) epochs_unsaved: bool,
    waiting: VecDeque<Waiting>,
    /// Whether the shard has it in its queue of logs with work.
    pub(crate) queued: bool,
    /// Whether it waits for a place in a journal group.
    pub(crate) gathering: bool,
    /// Writes of this log in flight.
    pub(crate) writes_in_flight: u32,
    /// Whether a flush procedure is running.
    pub(crate) flushing: bool,
    /// Whether a segment's preparation waits for space on the disk, or for files to be closed.
    pub(crate) stalled: bool,
    /// Whether it is being deleted: nothing waits for space on the disk on its behalf.
    pub(crate) deleting: bool,
    /// Whether a procedure is finishing rolled segments, one after the other.
    pub(crate) sealing: bool,
    /// When it was last appended to, in monotonic nanoseconds.
    pub(crate) used_ns: u64,
    /// Reads and flushes of files under way: the files are neither cut nor replaced.
    pub(crate) readers: u32,
    /// How often the tail was replaced by a truncation.
    pub(crate) cuts: u32,
    /// Batches appended and bytes, since the last interval flush began.
    pub(crate) unflushed: Unflushed,
    /// Up to where recovery need not look, as last persisted.
    pub(crate) recovery_point: Offset,
    /// Whether a procedure brings it forward, or writes other small files of the partition: one at a time.
    pub(crate) pointing: bool,
    /// Bytes appended since the recovery point was persisted.
    pub(crate) since_recovery_point: u64,
    /// What is kept of it, and what keeps it so.
    pub(crate) keep: Keep,
    /// When it was looked at last whether the recovery point can be brought forward, in monotonic nanoseconds.
    pub(crate) pointed_ns: Option<u64>,
    /// When somebody last read from its tail, or looked for something in it.
    pub(crate) read_ns: Option<u64>,
}

/// What an `interval` policy counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Unflushed {
    /// When the first unflushed append came, in monotonic nanoseconds.
    pub(crate) since_ns: Option<u64>,
    /// Bytes.
    pub(crate) bytes: u64,
    /// Records.
    pub(crate) messages: u64,
}

impl Log {
    /// A log with a tail of one active segment.
    pub(crate) fn new(
        identity: Identity,
        shape: Shape,
        policy: FlushPolicy,
        (sealed, active): (Vec<Sealed>, Segment),
        bounds: (Offset, Offset),
    ) -> Self {
        let (log_start, next) = bounds;
        assert!(log_start <= next, "a log starts before it ends");
        let durable = Mark { offset: next, segment: active.base(), pos: active.end() };
        Self {
            identity,
            shape,
            policy,
            access: Access::Open,
            sealed,
            tail: VecDeque::from([active]),
            next,
            durable,
            log_start,
            epoch: 0,
            appended_bytes: 0,
            taken_back: Cuts::default(),
            watchers: 0,
            told: (0, log_start),
            moved: false,
            barred: false,
            epochs: Vec::new(),
            epochs_unsaved: false,
            waiting: VecDeque::new(),
            queued: false,
            gathering: false,
            writes_in_flight: 0,
            flushing: false,
            stalled: false,
            deleting: false,
            sealing: false,
            used_ns: 0,
            readers: 0,
            cuts: 0,
            unflushed: Unflushed::default(),
            recovery_point: next,
            pointing: false,
            since_recovery_point: 0,
            keep: Keep::default(),
            pointed_ns: None,
            read_ns: None,
        }
    }

    /// The partition's bounds now.
    pub(crate) fn watermarks(&self) -> Watermarks {
        Watermarks { log_start: self.log_start, durable: self.durable.offset, dirty: self.next }
    }

    /// Where its durable records end.
    pub(crate) fn durable_end(&self) -> Mark {
        self.durable
    }

    /// Where its records end.
    pub(crate) fn end(&self) -> Mark {
        let active = self.tail.back().expect("a log has an active segment");
        Mark { offset: self.next, segment: active.base(), pos: active.end() }
    }

    /// Bytes appended since the log was opened, up to a mark that lies in the tail.
    pub(crate) fn bytes_before(&self, mark: Mark) -> u64 {
        let behind = |segment: &Segment| {
            let begin = if segment.base() == mark.segment { mark.pos } else { Pos::ZERO };
            segment.end().since(begin)
        };
        let later = self.tail.iter().filter(|segment| segment.base() >= mark.segment);
        // What was there before counts as less than nothing: the numbers are only compared.
        self.appended_bytes.wrapping_sub(later.map(behind).sum())
    }

    /// The newest leader's epoch.
    pub(crate) fn epoch(&self) -> i32 {
        self.epoch
    }

    /// Lets the log begin at `offset`. Returns the segments that lie wholly before it, which are its own no more.
    pub(crate) fn raise_start(&mut self, offset: Offset) -> Vec<Sealed> {
        assert!(offset <= self.durable.offset, "only what is durable is deleted");
        self.log_start = self.log_start.max(offset);
        let bases = self.sealed.iter().map(|s| s.base).chain([self.tail[0].base()]);
        let gone = bases.skip(1).take_while(|next| *next <= self.log_start).count();
        // Of the epochs before the start, the last one goes on behind it.
        let before = self.epochs.partition_point(|(_, start)| *start <= self.log_start);
        if before > 1 {
            self.epochs.drain(..before - 1);
            self.epochs_unsaved = true;
        }
        self.sealed.drain(..gone).collect()
    }

    /// Appends that wait for their ack.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether an append waits for what only the journal can do, whatever the policy is now.
    pub(crate) fn waits_for_journal(&self) -> bool {
        self.waiting.iter().any(|waiting| waiting.need == Need::Durable)
            || !self.waiting.is_empty() && self.tail.iter().any(Segment::needs_image)
    }

    /// Sets the epochs as recovery found them.
    pub(crate) fn restore_epochs(&mut self, epochs: Vec<(i32, Offset)>) {
        self.epoch = epochs.last().map_or(0, |(epoch, _)| *epoch);
        self.epochs_unsaved = !epochs.is_empty();
        self.epochs = epochs;
    }

    /// A sealed segment, and the base offset of the one behind it.
    pub(crate) fn sealed_at(&mut self, base: Offset) -> Option<(&mut Sealed, Offset)> {
        let at = begun_by(&self.sealed, base).checked_sub(1)?;
        if self.sealed[at].base != base {
            return None;
        }
        let following = self.sealed.get(at + 1).map_or(self.tail[0].base(), |next| next.base);
        Some((&mut self.sealed[at], following))
    }

    /// Whether the batch needs a new segment.
    pub(crate) fn must_roll(&mut self, append: &Append<'_>, now_ms: i64) -> bool {
        let (shape, next) = (self.shape, self.next);
        let last = next.plus(append.records - 1).get();
        let active = self.active();
        if active.end() == Pos::ZERO {
            return false;
        }
        let full = active.end().get() + append.bytes.len() as u64 > shape.segment_bytes;
        let far = last - active.base().get() > i64::from(i32::MAX);
        let old = active.first_ms.is_some_and(|first| {
            now_ms.saturating_sub(first) > i64::try_from(shape.roll_ms).unwrap_or(i64::MAX)
        });
        full || far || old
    }

    /// Whether another segment may be begun: those that are not sealed hold memory, and each step looks at all of them.
    pub(crate) fn may_roll(&self) -> bool {
        self.tail.len() < crate::limits::TAIL_SEGMENTS_MAX
    }

    /// Begins a new active segment at the next offset. Whether a procedure that seals is to be begun, too.
    pub(crate) fn roll(&mut self) -> bool {
        let (next, shape) = (self.next, self.shape);
        let active = self.active();
        assert!(active.base() < next, "only a segment with records is rolled");
        active.rolled = true;
        active.index.finish();
        let index = Index::new(next, shape.index_interval);
        self.tail.push_back(Segment::new(next, shape.block, index));
        !std::mem::replace(&mut self.sealing, true)
    }

    /// Checks whether an append can be taken at all.
    pub(crate) fn check(&self, append: &Append<'_>) -> Result<(), AppendError> {
        match self.access {
            Access::Open => {}
            Access::Fenced(fault) => return Err(AppendError::Fenced(fault)),
            Access::Damaged => return Err(AppendError::Damaged),
            Access::Full => return Err(AppendError::DiskFull),
            Access::Cutting => return Err(AppendError::Truncated),
        }
        let limit = self.shape.segment_bytes.min(crate::limits::BATCH_BYTES_MAX as u64) as usize;
        if append.bytes.len() > limit {
            return Err(AppendError::TooLarge { bytes: append.bytes.len(), limit });
        }
        if let Some((offset, epoch)) = append.at {
            if offset != self.next {
                return Err(AppendError::WrongOffset { next: self.next, asked: offset });
            }
            if epoch < self.epoch {
                return Err(AppendError::StaleEpoch { current: self.epoch, asked: epoch });
            }
        }
        Ok(())
    }

    /// Takes an append that was checked: assigns its offsets and puts its bytes into memory. On `Err` nothing has
    /// changed.
    pub(crate) fn append(
        &mut self,
        arena: &Arena,
        append: &Append<'_>,
        now_ms: i64,
    ) -> Result<(), NoMemory> {
        let base = self.next;
        self.active().window.reserve(arena, append.bytes.len())?;
        self.enter_epoch(append.at.map_or(self.epoch, |(_, epoch)| epoch));
        let epoch = self.epoch;
        let records = append.records;
        let bytes = append.bytes.len() as u32;
        let last = base.plus(records - 1);
        let active = self.active();
        active.first_ms.get_or_insert(now_ms);
        active.newest_ms = active.newest_ms.max(keep::counts_as(append.max_timestamp, now_ms));
        let pos = active.end();
        let max_timestamp = append.max_timestamp;
        let before = active.index.latest();
        active.index.push(Indexed { last, pos, bytes, max_timestamp });
        active.mark(pos, base);
        active.append(append.bytes, append.crc, (base, epoch));
        let (segment, end) = (active.base(), active.end());
        self.next = last.plus(1);
        self.appended_bytes = self.appended_bytes.wrapping_add(bytes.into());
        self.since_recovery_point += u64::from(bytes);
        self.unflushed.bytes += u64::from(bytes);
        self.unflushed.messages += u64::from(records);
        let need = if self.policy == FlushPolicy::Group { Need::Durable } else { Need::Written };
        self.waiting.push_back(Waiting {
            segment,
            end,
            base,
            next: self.next,
            need,
            ticket: append.ticket,
            buffer: Vec::new(),
            before,
        });
        Ok(())
    }

    /// The memory of the batch just taken, which goes back with its ack.
    pub(crate) fn keep_buffer(&mut self, mut buffer: Vec<u8>) {
        let newest = self.waiting.back_mut().expect("an append waits for its ack");
        buffer.clear();
        newest.buffer = buffer;
    }

    fn enter_epoch(&mut self, epoch: i32) {
        // Not by the newest epoch alone: a cut removes the line of an epoch that goes on. One that has been 0 from the
        // beginning needs no line.
        let last = self.epochs.last().map_or(0, |(last, _)| *last);
        if epoch > last {
            self.epoch = epoch;
            self.epochs.push((epoch, self.next));
            self.epochs_unsaved = true;
        }
    }

    /// A flush of a segment's file has ended well: what had been written when it began is on stable storage. Not once
    /// the log is fenced: after a failed write or flush another that succeeds says nothing of what the first one lost.
    pub(crate) fn finish_flush(&mut self, base: Offset, reached: Pos) {
        if matches!(self.access, Access::Fenced(_)) {
            return;
        }
        if let Some(segment) = self.segment(base) {
            segment.finish_flush(reached);
        }
    }

    /// All records before the mark are on stable storage.
    pub(crate) fn raise_durable(&mut self, mark: Mark) {
        assert!(mark.offset <= self.next, "only what was appended becomes durable");
        // At one offset the later segment: what lies before it may leave the tail, and be compacted.
        let place = |mark: &Mark| (mark.offset, mark.segment);
        if place(&mark) > place(&self.durable) {
            self.durable = mark;
        }
    }

    /// Closes the log for appends after a fault and ends every waiting append with its outcome unknown.
    pub(crate) fn fence(&mut self, fault: Fault, mut ended: impl FnMut(Ended)) {
        if matches!(self.access, Access::Fenced(_)) {
            return;
        }
        self.access = Access::Fenced(fault);
        while let Some(lost) = self.waiting.pop_front() {
            let result = Err(AppendError::Unknown(fault));
            ended(Ended { ticket: lost.ticket, soon: None, result, buffer: lost.buffer });
        }
    }

    /// Takes back appends of which no byte was claimed or written: the disk is full, and they are ended with
    /// `error`. An append that is partly on its way stays.
    pub(crate) fn take_back(&mut self, error: &AppendError, mut ended: impl FnMut(Ended)) {
        if self.writes_in_flight > 0 {
            return;
        }
        while let Some(last) = self.waiting.back() {
            let (segment, end, base) = (last.segment, last.end, last.base);
            let latest = last.before;
            let before = self.waiting.iter().rev().nth(1);
            let start = before.filter(|b| b.segment == segment).map(|b| b.end);
            let active = self.active();
            let touched = active.claimed().max(active.written.done()).max(active.write_issued());
            let Some(start) = start.or((active.base() == base).then_some(Pos::ZERO)) else { break };
            if active.base() != segment || active.end() != end || start < touched {
                break;
            }
            active.window.truncate(start);
            active.index.take_back(start, latest);
            active.forget_from(start);
            self.next = base;
            self.appended_bytes = self.appended_bytes.wrapping_sub(end.since(start));
            // Nobody was told that they are in the log, but a reader may have seen them.
            self.taken_back.record(base);
            self.epochs.retain(|(_, start)| *start < base);
            self.epochs_unsaved = true;
            let Some(gone) = self.waiting.pop_back() else { break };
            ended(Ended {
                ticket: gone.ticket,
                soon: None,
                result: Err(error.clone()),
                buffer: gone.buffer,
            });
        }
    }

    /// Cuts the log's end back to `next`, where the active segment now ends; what waited above is ended.
    pub(crate) fn cut(&mut self, next: Offset, mut ended: impl FnMut(Ended)) {
        self.next = next;
        self.taken_back.record(next);
        if next < self.durable.offset {
            self.durable = self.end();
        }
        self.recovery_point = self.recovery_point.min(next);
        self.epochs.retain(|(_, start)| *start < next);
        self.epochs_unsaved = true;
        self.end_waiting(&AppendError::Truncated, &mut ended);
    }

    /// Ends every append that waits.
    pub(crate) fn end_waiting(&mut self, error: &AppendError, mut ended: impl FnMut(Ended)) {
        while let Some(gone) = self.waiting.pop_front() {
            let result = Err(error.clone());
            ended(Ended { ticket: gone.ticket, soon: None, result, buffer: gone.buffer });
        }
    }
}
