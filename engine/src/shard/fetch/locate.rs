//! Where the bytes of a fetch are: which runs of which segments, in memory or in files, clipped at the isolation bound
//! and at whole batches.
//!
//! Payload is not read. The first batch is found from the index, by the headers of at most one interval; where the
//! bytes end is known for what the tail holds, and found from the index again where a segment is left or
//! `max_bytes` are reached. Headers of sealed segments are remembered, and which one a fetch ended before: a reader
//! that goes on begins there without a look at the index or the disk.

use crate::defects::{self, Defect};
use crate::error::{Alteration, ReadError};
use crate::journal::LogId;
use crate::limits::FETCH_BYTES_MAX;
use crate::log::history::{epoch_end, epoch_of};
use crate::log::{Access, Log, Mark, begun_by};
use crate::segment::Segment;
use crate::shard::Context;
use crate::shard::keep::Glance;
use crate::shard::read::Reader;
use crate::shard::state::State;
use crate::types::{Isolation, Offset, Pos, Watermarks};

use super::source::{Seen, Segments};
use super::{Fetch, ReadMark};

/// Consecutive bytes of one segment: whole batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// The segment.
    pub(crate) base: Offset,
    /// The first byte.
    pub(crate) from: Pos,
    /// One past the last byte.
    pub(crate) to: Pos,
}

/// A range by where its bytes are.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    /// In the window of a segment of the tail, until that gives them back.
    Memory(Range),
    /// In the segment's file. One that is not `sealed` is written with O_DIRECT beside the reader: its pages must stay
    /// out of the page cache.
    File {
        /// Where in it.
        range: Range,
        /// Whether the file changes no more, but by a truncation.
        sealed: bool,
    },
}

/// Where the bytes of a fetch are.
///
/// While it is held no truncation replaces them and no deletion closes their files: both wait for it. So hold it only
/// as long as bytes are on their way into memory or a socket's buffer, never for a peer that does not read.
pub(crate) struct Located {
    /// The ranges, in order.
    pub(crate) ranges: Vec<Range>,
    /// Their bytes. Not checked: a reader checks what it gets.
    pub(crate) bytes: u64,
    /// The offset that comes after them.
    pub(crate) next: Offset,
    /// The isolation bound they are clipped at: there is more if `next` is below.
    pub(crate) bound: Offset,
    /// Bytes appended to the log in all, up to the bound: for a wait.
    pub(crate) bound_bytes: u64,
    /// The log's bounds.
    pub(crate) marks: Watermarks,
    /// The newest leader's epoch.
    pub(crate) leader_epoch: i32,
    /// The epoch of the record before `next`.
    pub(crate) last_epoch: Option<i32>,
    /// For the reader's next fetch.
    pub(crate) mark: ReadMark,
    /// The ranges hold as long as this does, but for those of the tail.
    pub(crate) glance: Glance,
    #[cfg_attr(not(test), expect(dead_code, reason = "held for what it holds back"))]
    reader: Reader,
}

impl Located {
    /// The ranges by where their bytes are now.
    #[cfg(test)]
    pub(crate) fn runs(&self) -> Vec<Run> {
        let mut state = self.reader.cx.state.borrow_mut();
        let mut runs = Vec::with_capacity(self.ranges.len() + 1);
        for range in &self.ranges {
            let window =
                state.segment(self.reader.id, range.base).map(|segment| segment.window.base());
            let Some(window) = window else {
                runs.push(Run::File { range: *range, sealed: true });
                continue;
            };
            let split = window.clamp(range.from, range.to);
            if range.from < split {
                runs.push(Run::File { range: Range { to: split, ..*range }, sealed: false });
            }
            if split < range.to {
                runs.push(Run::Memory(Range { from: split, ..*range }));
            }
        }
        runs
    }
}

/// Finds the bytes of a fetch, without waiting for any. None at the isolation bound, and below it at least a batch.
///
/// # Errors
/// [`ReadError`]: what makes the fetch impossible, and damage where its first batch should be.
pub(crate) async fn locate(cx: &Context, id: LogId, ask: &Fetch) -> Result<Located, ReadError> {
    loop {
        admitted(cx, id).await?;
        let glance = Glance::begin(cx, id, ask.offset).await;
        let located = locate_once(cx, id, ask, glance).await;
        if glance.holds(cx, id) {
            return located.map_err(|error| deleted(cx, id, ask.offset, error));
        }
    }
}

/// What failed because the segment was deleted meanwhile.
pub(super) fn deleted(cx: &Context, id: LogId, asked: Offset, error: ReadError) -> ReadError {
    let mut state = cx.state.borrow_mut();
    let Some(log) = state.log(id) else { return error };
    let Watermarks { log_start: start, dirty: end, .. } = log.watermarks();
    if asked < start {
        return ReadError::OutOfRange { asked, start, end };
    }
    error.asked_for(asked)
}

async fn locate_once(
    cx: &Context,
    id: LogId,
    ask: &Fetch,
    glance: Glance,
) -> Result<Located, ReadError> {
    let (mut located, bound) = begin(cx, id, ask, glance)?;
    let room = ask.max_bytes.min(FETCH_BYTES_MAX) as u64;
    let mut walk = Walk { segments: Segments::new(cx, id), ask: ask.offset, bound, room };
    while located.next < located.bound {
        let found = match walk.find_at(located.next, located.bytes == 0).await {
            Ok(found) => found,
            // What is whole is given first: the next fetch begins at what is not.
            Err(_) if located.bytes > 0 => break,
            Err(error) => return Err(error),
        };
        let Some(Found { range, next, ended }) = found else { break };
        let bytes = range.to.since(range.from);
        if bytes > 0 {
            located.ranges.push(range);
        }
        located.bytes += bytes;
        walk.room = walk.room.saturating_sub(bytes);
        located.next = next;
        if !ended || walk.room == 0 {
            break;
        }
    }
    let mut state = cx.state.borrow_mut();
    if let Some(log) = state.log(id) {
        located.last_epoch = epoch_before(log, ask, located.next);
    }
    drop(state);
    Ok(located)
}

/// Waits while a truncation waits for the reads under way: else there might be no end of them.
pub(crate) async fn admitted(cx: &Context, id: LogId) -> Result<(), ReadError> {
    loop {
        let progress = {
            let mut state = cx.state.borrow_mut();
            if state.closing {
                return Err(ReadError::Closed);
            }
            let Some(log) = state.log(id) else { return Err(ReadError::Deleted) };
            if log.deleting && log.access == Access::Cutting {
                return Err(ReadError::Deleted);
            }
            if !log.barred {
                return Ok(());
            }
            state.progress.notified()
        };
        progress.await;
    }
}

/// Checks the fetch against the log, and takes what the log says of itself.
fn begin(
    cx: &Context,
    id: LogId,
    ask: &Fetch,
    glance: Glance,
) -> Result<(Located, Mark), ReadError> {
    let reader = Reader::new(cx, id);
    let mark = super::current_mark(cx, id)?;
    let mut state = cx.state.borrow_mut();
    let now = state.time.ns;
    let Some(log) = state.log(id) else { return Err(ReadError::Deleted) };
    check(log, ask, mark)?;
    log.note_reader(ask.offset, now);
    let bound = match ask.isolation {
        Isolation::Durable => log.durable_end(),
        Isolation::Dirty => log.end(),
    };
    let located = Located {
        ranges: Vec::new(),
        bytes: 0,
        next: ask.offset,
        bound: bound.offset,
        bound_bytes: log.bytes_before(bound),
        marks: log.watermarks(),
        leader_epoch: log.epoch(),
        last_epoch: None,
        mark,
        glance,
        reader,
    };
    Ok((located, bound))
}

/// Whether what the reader has, and what it asks for, is this log's.
fn check(log: &Log, ask: &Fetch, now: ReadMark) -> Result<(), ReadError> {
    let Watermarks { log_start: start, dirty: end, .. } = log.watermarks();
    let asked = ask.offset;
    // First, as Kafka has it: what was removed is no sign of another history.
    if asked < start {
        return Err(ReadError::OutOfRange { asked, start, end });
    }
    if let Some(mark) = ask.mark.filter(|_| !defects::is(Defect::ForgetCuts)) {
        if mark.incarnation != now.incarnation {
            return Err(ReadError::Truncated { at: start });
        }
        let cut = log.taken_back.since(mark.cuts).filter(|_| mark.opening == now.opening);
        if let Some(at) = cut.filter(|at| *at < asked) {
            return Err(ReadError::Truncated { at });
        }
    }
    let known = |epoch: &i32| *epoch >= 0 && !defects::is(Defect::ForgetEpochs);
    if let Some(epoch) = ask.epoch.filter(known) {
        let (known, known_end) = epoch_end(&log.epochs, (start, end), epoch);
        if known < epoch || known_end < asked {
            return Err(ReadError::Diverged { epoch: known, end: known_end });
        }
    }
    if asked > end {
        return Err(ReadError::OutOfRange { asked, start, end });
    }
    Ok(())
}

/// The epoch of the last record that a reader has who goes on at `next`.
pub(super) fn epoch_before(log: &Log, ask: &Fetch, next: Offset) -> Option<i32> {
    let before = next.get() - 1;
    if before < log.watermarks().log_start.get() {
        return ask.epoch;
    }
    Some(epoch_of(&log.epochs, Offset::new(before)))
}

/// A segment on the way.
#[derive(Clone, Copy, Debug)]
struct Place {
    base: Offset,
    /// One past its last offset, or the isolation bound.
    limit: Offset,
    /// Where its bytes up to `limit` end, if that needs no look at them.
    end: Option<Pos>,
    /// Whether all of its bytes belong to it, as its seal says.
    sealed: bool,
}

impl Place {
    /// Whether a batch of a sealed segment belongs elsewhere: another segment's bytes were put there. `after` is where
    /// it can begin at the earliest.
    fn is_foreign(&self, seen: Seen, after: Offset) -> bool {
        self.sealed && (seen.base < after || seen.last >= self.limit)
    }
}

/// What of a segment is part of the fetch.
struct Found {
    range: Range,
    next: Offset,
    /// Whether it is all of the segment below the bound.
    ended: bool,
}

struct Walk<'a> {
    segments: Segments<'a>,
    ask: Offset,
    bound: Mark,
    /// Bytes that may still be taken.
    room: u64,
}

impl Walk<'_> {
    fn damaged(&self, base: Offset, pos: Pos) -> ReadError {
        ReadError::Damaged { asked: self.ask, segment: base, pos: pos.get() }
    }

    /// Which bytes to take of the segment that holds `next`, which lies below the bound.
    async fn find_at(&mut self, next: Offset, first: bool) -> Result<Option<Found>, ReadError> {
        let place = self.segments.with(|state, id| place(state, id, (next, self.bound)))?;
        self.find(place, next, first).await
    }

    /// Which bytes of the segment to take, from the batch that holds `next` on. With `first` at least one batch.
    async fn find(
        &mut self,
        mut place: Place,
        next: Offset,
        first: bool,
    ) -> Result<Option<Found>, ReadError> {
        let (end, sealed) = match place.end {
            Some(end) => (end, false),
            None => self.segments.end(place.base).await?,
        };
        place.sealed = sealed;
        let all = |from: Pos, to: Pos| Found {
            range: Range { base: place.base, from, to },
            next: place.limit,
            ended: true,
        };
        let Some((from, batch)) = self.start(place, (next, end)).await? else {
            // Gaps that compaction left may reach to the segment's end.
            return Ok(Some(all(end, end)));
        };
        let to = from.plus(self.room.min(end.since(from)));
        if place.end == Some(to) {
            return Ok(Some(all(from, to)));
        }
        if batch.end > to {
            let one = Range { base: place.base, from, to: batch.end };
            let next = batch.last.plus(1);
            return Ok(first.then_some(Found { range: one, next, ended: next >= place.limit }));
        }
        let hop = self.segments.floor_pos(place.base, to).await?;
        let mut stop = None;
        if hop > batch.end {
            stop = self.stop(place, (hop, batch.last), (to, end)).await;
        }
        if stop.is_none() {
            // The index leads nowhere, or no further: from batch to batch.
            stop = self.stop(place, (batch.end, batch.last), (to, end)).await;
        }
        let (to, next) = stop.unwrap_or((batch.end, batch.last.plus(1)));
        Ok(Some(Found {
            range: Range { base: place.base, from, to },
            next,
            ended: next >= place.limit,
        }))
    }

    /// The first batch with an offset from `next` on. `None` if the segment has none below the limit.
    async fn start(
        &mut self,
        place: Place,
        (next, end): (Offset, Pos),
    ) -> Result<Option<(Pos, Seen)>, ReadError> {
        let known = self.segments.known_from(place.base, next);
        if let Some((pos, seen)) = known.filter(|(_, seen)| seen.end <= end) {
            return Ok(Some((pos, seen)));
        }
        let known = if next == place.base {
            Pos::ZERO
        } else {
            self.segments.floor(place.base, next).await?
        };
        // An index is no evidence: if what it points at is no batch at or before the offset, begin at the beginning.
        let mut begin = known.min(end);
        let (mut pos, mut after) = (begin, place.base);
        while pos < end {
            let seen = self.segments.batch(place.base, (pos, end)).await?;
            if pos == begin && pos > Pos::ZERO && seen.is_none_or(|seen| seen.base > next) {
                self.segments.doubt(place.base);
                (begin, pos) = (Pos::ZERO, Pos::ZERO);
                continue;
            }
            let Some(seen) = seen else {
                return self.indexed(place, pos, (next, end)).await.map(Some);
            };
            if place.is_foreign(seen, after) {
                let what = Alteration::Foreign { pos: pos.get() };
                return Err(ReadError::Altered { segment: place.base, what });
            }
            if seen.base >= place.limit {
                return Ok(None);
            }
            if seen.last >= next {
                return Ok(Some((pos, seen)));
            }
            (pos, after) = (seen.end, seen.last.plus(1));
        }
        Ok(None)
    }

    /// The batch that holds `next`, of which the index knows where it is, behind damage at `pos`.
    async fn indexed(
        &mut self,
        place: Place,
        pos: Pos,
        (next, end): (Offset, Pos),
    ) -> Result<(Pos, Seen), ReadError> {
        if let Some(known) = self.segments.ceil(place.base, next).await?
            && known > pos
            && known < end
            && let Some(seen) = self.segments.batch(place.base, (known, end)).await?
            && seen.base <= next
            && next <= seen.last
        {
            return Ok((known, seen));
        }
        Err(self.damaged(place.base, pos))
    }

    /// Where the last batch ends that begins from `hop` on and ends at `to` at latest, and the offset after it. `None`
    /// if there is no batch at `hop` that can come after `last`.
    async fn stop(
        &mut self,
        place: Place,
        (hop, mut last): (Pos, Offset),
        (to, end): (Pos, Pos),
    ) -> Option<(Pos, Offset)> {
        let mut pos = hop;
        loop {
            if pos >= end {
                return Some((pos, place.limit));
            }
            // What can not be read now is told by the fetch that begins there.
            let seen = self.segments.batch(place.base, (pos, end)).await.unwrap_or_default();
            let Some(seen) =
                seen.filter(|seen| seen.base > last && !place.is_foreign(*seen, place.base))
            else {
                // Behind it there is damage, or space that holds nothing.
                return (pos > hop).then_some((pos, last.plus(1)));
            };
            if seen.base >= place.limit {
                return Some((pos, place.limit));
            }
            if seen.end > to {
                self.segments.ends_before(place.base, (pos, seen));
                return Some((pos, seen.base));
            }
            (pos, last) = (seen.end, seen.last);
        }
    }
}

fn place(state: &mut State, id: LogId, (next, bound): (Offset, Mark)) -> Result<Place, ReadError> {
    let Some(log) = state.log(id) else { return Err(ReadError::Deleted) };
    let marks = log.watermarks();
    let tail_base = log.tail[0].base();
    let clip =
        |base: Offset, end: Option<Pos>| if base == bound.segment { Some(bound.pos) } else { end };
    if next < tail_base {
        let at = begun_by(&log.sealed, next);
        let Some(at) = at.checked_sub(1) else {
            let (start, end) = (marks.log_start, marks.dirty);
            return Err(ReadError::OutOfRange { asked: next, start, end });
        };
        let base = log.sealed[at].base;
        let following = log.sealed.get(at + 1).map_or(tail_base, |next| next.base);
        return Ok(Place {
            base,
            limit: following.min(bound.offset),
            end: clip(base, None),
            sealed: false,
        });
    }
    let at = log.tail.iter().rposition(|segment| segment.base() <= next).unwrap_or(0);
    let following = log.tail.get(at + 1).map_or(bound.offset, Segment::base);
    let segment = &log.tail[at];
    let (base, end) = (segment.base(), Some(segment.end()));
    Ok(Place { base, limit: following.min(bound.offset), end: clip(base, end), sealed: false })
}
