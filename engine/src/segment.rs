//! A segment that is being written: its bytes in memory and how far they are claimed, written, flushed and
//! durable.
//!
//! # The block rule
//! *A segment block is written when it is complete, or while the journal holds its whole image.* Durable
//! bytes then never depend on an un-torn rewrite, and two writes in flight never share a block.
//! [`Segment::begin_write`] asserts it.

use std::collections::VecDeque;

use crate::command::FileHandle;
use crate::defects::{self, Defect};
use crate::format::batch_header::{ATTRIBUTES_AT, HEADER_BYTES, set_base_offset, set_leader_epoch};
use crate::format::crc::{combine, crc32c_append};
use crate::frontier::Frontier;
use crate::index::Index;
use crate::limits::{COMBINE_FROM_BYTES, MARK_BYTES, PREPARE_BYTES_MIN};
use crate::types::{Offset, Pos};
use crate::window::Window;

/// A block whose durable bytes were written padded, and whose image the journal may have let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Padded {
    block: Pos,
    until: Pos,
}

/// A segment with bytes that are not all in its file for good.
#[derive(Debug)]
pub(crate) struct Segment {
    base: Offset,
    block: u64,
    /// Bytes in memory; its end is the segment's end.
    pub(crate) window: Window,
    /// The sparse index.
    pub(crate) index: Index,
    /// How far bytes are on stable storage, by whatever way.
    pub(crate) durable: Frontier,
    /// How far bytes are in the file (or the page cache).
    pub(crate) written: Frontier,
    /// Bytes before this are durable or on their way: in a journal group or a durable write.
    claimed: Pos,
    /// The block at which the next write begins.
    write_issued: Pos,
    tail_write: bool,
    durable_writes: u32,
    padded: Option<Padded>,
    flushed: Frontier,
    /// Batch boundaries, sparse: where a recovery could begin.
    marks: VecDeque<(Pos, Offset)>,
    /// CRC-32C of the bytes before `summed`; `None` if the segment was reopened.
    crc: Option<u32>,
    summed: Pos,
    /// Whether all of its file is written extents that this opening prepared: then a flush of the device alone
    /// makes overwrites durable.
    pub(crate) overwrites: bool,
    /// Whether a procedure has begun to seal it.
    pub(crate) seal_begun: bool,
    /// Whether its file is cut to its data and has its indexes and seal.
    pub(crate) sealed: bool,
    /// How much space is readied at first, by the rate of the segment before it.
    pub(crate) first_bytes: u64,
    /// An embedder wants space ready up to here.
    pub(crate) prepare_goal: Pos,
    /// A flush wants the bytes before this in the journal, whatever the policy.
    pub(crate) journal_goal: Pos,
    /// Space before this is ready to be written.
    pub(crate) prepared: Pos,
    /// Flushes of its file under way.
    pub(crate) syncing: u32,
    /// The open file; `None` until it is made, or while it is closed.
    pub(crate) file: Option<FileHandle>,
    /// Whether the file's directory entry is on stable storage.
    pub(crate) entry_durable: bool,
    /// Whether a procedure is preparing space.
    pub(crate) preparing: bool,
    /// Whether a truncation is zeroing the rest of its last block: the journal holds the image until that is flushed.
    pub(crate) rewriting: bool,
    /// Whether the log has rolled past it.
    pub(crate) rolled: bool,
    /// When its first batch came, by the engine's clock.
    pub(crate) first_ms: Option<i64>,
    /// The time it counts as for retention, in milliseconds since the epoch.
    pub(crate) newest_ms: i64,
}

/// What is known of a segment's file when it is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reopened {
    /// Where its data ends.
    pub(crate) end: Pos,
    /// Space that is ready.
    pub(crate) prepared: Pos,
}

impl Segment {
    /// A segment that begins with `base`, with no file yet.
    pub(crate) fn new(base: Offset, block: u64, index: Index) -> Self {
        Self::reopen(base, block, index, Reopened { end: Pos::ZERO, prepared: Pos::ZERO })
    }

    /// A segment whose bytes up to `end` are in its file for good. If `end` is inside a block, the bytes of that
    /// block must be appended to the window next, by [`Segment::load_tail`].
    pub(crate) fn reopen(base: Offset, block: u64, index: Index, was: Reopened) -> Self {
        let start = was.end.floor(block);
        let padded = (start < was.end && !defects::is(Defect::ForgetPadding))
            .then_some(Padded { block: start, until: was.end });
        Self {
            base,
            block,
            window: Window::new(start, block),
            index,
            durable: Frontier::new(was.end),
            written: Frontier::new(was.end),
            claimed: was.end,
            write_issued: start,
            tail_write: false,
            durable_writes: 0,
            padded,
            flushed: Frontier::new(was.end),
            marks: VecDeque::new(),
            crc: (was.end == Pos::ZERO).then_some(0),
            summed: was.end,
            overwrites: was.end == Pos::ZERO && was.prepared == Pos::ZERO,
            seal_begun: false,
            sealed: false,
            first_bytes: PREPARE_BYTES_MIN,
            prepare_goal: Pos::ZERO,
            journal_goal: Pos::ZERO,
            prepared: was.prepared,
            syncing: 0,
            file: None,
            entry_durable: false,
            preparing: false,
            rewriting: false,
            rolled: false,
            first_ms: None,
            newest_ms: 0,
        }
    }

    /// The offset of its first record.
    pub(crate) fn base(&self) -> Offset {
        self.base
    }

    /// One past its last byte.
    pub(crate) fn end(&self) -> Pos {
        self.window.end()
    }

    /// Bytes before this are in a journal group, in a durable write, or durable.
    pub(crate) fn claimed(&self) -> Pos {
        self.claimed
    }

    /// Bytes before this are in the file on stable storage.
    pub(crate) fn flushed(&self) -> Pos {
        self.flushed.done()
    }

    /// Takes note of a batch that begins at `pos`, if the last note is far enough back.
    pub(crate) fn mark(&mut self, pos: Pos, base: Offset) {
        let last = self.marks.back().map_or(Pos::ZERO, |(pos, _)| *pos);
        if pos.since(last) >= MARK_BYTES {
            self.marks.push_back((pos, base));
        }
    }

    /// What was appended from `pos` on was taken back.
    pub(crate) fn forget_from(&mut self, pos: Pos) {
        while self.marks.back().is_some_and(|(marked, _)| *marked >= pos) {
            self.marks.pop_back();
        }
        if pos < self.summed {
            self.crc = (pos == Pos::ZERO).then_some(0);
            self.summed = pos;
        }
        if pos == Pos::ZERO {
            self.first_ms = None;
        }
    }

    /// The last noted batch boundary that is flushed. Earlier ones are forgotten.
    pub(crate) fn flushed_mark(&mut self) -> Option<(Pos, Offset)> {
        let flushed = self.flushed.done();
        let count = self.marks.partition_point(|(pos, _)| *pos <= flushed);
        self.marks.drain(..count.saturating_sub(1));
        (count > 0).then(|| self.marks[0])
    }

    /// Puts an encoded batch into memory, for which room was reserved, with its base offset and leader epoch. `crc`
    /// is the batch's own, as in its header. The batch itself stays as it is: to write to memory that another
    /// core has just filled, and will fill again, costs more than to copy it.
    pub(crate) fn append(&mut self, batch: &[u8], crc: u32, (base, epoch): (Offset, i32)) {
        let (head, records) =
            batch.split_first_chunk::<HEADER_BYTES>().expect("a batch has a header");
        let mut head = *head;
        set_base_offset(&mut head, base);
        set_leader_epoch(&mut head, epoch);
        let covered = batch.len() - ATTRIBUTES_AT;
        if covered >= COMBINE_FROM_BYTES {
            // The producer has summed the bytes: no need to read them all again.
            self.sum_to(self.end());
            let sum = self.crc.map(|sum| crc32c_append(sum, &head[..ATTRIBUTES_AT]));
            self.crc = sum.map(|sum| combine(sum, crc, covered as u64));
            self.summed = self.end().plus(batch.len() as u64);
        }
        self.window.append(&head);
        self.window.append(records);
    }

    /// Adds the bytes before `end` to the checksum of the whole file: many small batches at once.
    fn sum_to(&mut self, end: Pos) {
        if end > self.summed
            && let Some(mut sum) = self.crc
        {
            self.window.visit(self.summed, end, |bytes| sum = crc32c_append(sum, bytes));
            self.crc = Some(sum);
        }
        self.summed = self.summed.max(end);
    }

    /// The checksum of the whole file, if it is known.
    pub(crate) fn crc(&mut self) -> Option<u32> {
        self.sum_to(self.end());
        self.crc
    }

    /// Where the next write begins, a block boundary.
    pub(crate) fn write_issued(&self) -> Pos {
        self.write_issued
    }

    /// Whether every byte is on stable storage, in the file itself.
    pub(crate) fn is_flushed(&self) -> bool {
        self.flushed.done() == self.end()
    }

    /// Where the next journal entry begins: at the first unclaimed byte, or at its block's beginning where the
    /// bytes before it in the block are on disk only as a padded tail.
    pub(crate) fn journal_start(&self) -> Pos {
        match self.padded {
            Some(padded) if padded.until == self.claimed => padded.block,
            _ => self.claimed,
        }
    }

    /// Bytes up to `end` go into a journal group. Returns where its entry begins.
    pub(crate) fn claim_journal(&mut self, end: Pos) -> Pos {
        let start = self.journal_start();
        assert!(end > self.claimed, "a claim has bytes");
        assert!(end <= self.end(), "only appended bytes are claimed");
        self.sum_to(end);
        self.durable.issue(start, end);
        self.claimed = end;
        start
    }

    /// Whether the block at which the next write begins may be written at all now.
    pub(crate) fn may_write(&self) -> bool {
        let exposed = self.padded.is_some_and(|padded| {
            padded.block == self.write_issued && self.durable.done() <= padded.until
        });
        !self.tail_write && !exposed
    }

    /// Whether the last block's durable bytes are in the file alone, as a padded tail.
    pub(crate) fn is_exposed(&self) -> bool {
        self.padded.is_some_and(|padded| padded.until == self.claimed)
    }

    /// Whether the journal must take the first block before it may be written: the padded tail that was left by a
    /// checkpoint or a reopening.
    pub(crate) fn needs_image(&self) -> bool {
        self.padded.is_some_and(|padded| padded.until == self.claimed && self.end() > padded.until)
    }

    /// One past the last whole block of appended and prepared bytes, at most `limit`.
    pub(crate) fn whole_end(&self, limit: Pos) -> Pos {
        self.end().min(limit).min(self.prepared).floor(self.block)
    }

    /// A write of whole blocks `write_issued..end` begins; with `durable` it claims its bytes.
    pub(crate) fn begin_write(&mut self, end: Pos, durable: bool) -> Pos {
        let start = self.write_issued;
        assert!(self.may_write(), "the block rule: an exposed block is not rewritten");
        assert_eq!(end, end.floor(self.block), "the block rule: whole blocks");
        assert!(start < end, "a write has bytes");
        assert!(end <= self.end(), "the block rule: only complete blocks");
        assert!(end <= self.prepared, "space is prepared before it is written");
        self.sum_to(end);
        self.write_issued = end;
        self.padded = self.padded.filter(|padded| padded.block >= end);
        self.written.issue(start, end);
        if durable {
            assert!(start <= self.claimed, "no byte is passed over");
            self.durable.issue(start, end);
            self.flushed.issue(start, end);
            self.durable_writes += 1;
            self.claimed = self.claimed.max(end);
        }
        start
    }

    /// A write of the partial last block, padded with zeros, begins. Returns its bytes' range.
    ///
    /// With `releases_image` the journal holds the block's image and may let it go once the write is flushed.
    /// Without, none of the block's bytes is counted durable (policies `os` and `interval`), or the journal
    /// keeps the image of those that are.
    pub(crate) fn begin_tail_write(&mut self, releases_image: bool) -> (Pos, Pos) {
        let start = self.write_issued;
        let end = if releases_image { self.claimed } else { self.end() };
        assert!(self.may_write(), "the block rule: an exposed block is not rewritten");
        assert!(end.since(start) < self.block, "only the last block is padded");
        assert!(start < end, "a write has bytes");
        assert!(start.plus(self.block) <= self.prepared, "space is prepared before it is written");
        if releases_image {
            assert_eq!(self.durable.done(), end, "the block rule: the journal holds its image");
            if !defects::is(Defect::ForgetPadding) {
                self.padded = Some(Padded { block: start, until: end });
            }
        } else {
            assert!(
                self.padded.is_none_or(|padded| self.durable.done() > padded.until),
                "the block rule: the journal holds what is durable of the block"
            );
        }
        self.sum_to(end);
        self.tail_write = true;
        self.written.issue(start, end);
        (start, end)
    }

    /// A write has landed. `durable` as it was begun.
    pub(crate) fn finish_write(&mut self, start: Pos, end: Pos, durable: bool) {
        if end != end.floor(self.block) {
            self.tail_write = false;
        }
        self.written.finish(start, end);
        if !durable && defects::is(Defect::AckPlainWrites) {
            self.durable.advance_to(self.written.done().floor(self.block));
        }
        if durable {
            self.durable_writes -= 1;
            self.durable.finish(start, end);
            self.flushed.finish(start, end);
        }
    }

    /// What had been written when a flush began is on stable storage. `whole` as [`Segment::flushable`] said.
    pub(crate) fn finish_flush(&mut self, whole: Pos) {
        let later = defects::is(Defect::CountLaterWrites);
        let whole = if later { self.written.done().max(whole) } else { whole };
        self.flushed.advance_to(whole);
        self.durable.advance_to(whole);
        self.claimed = self.claimed.max(whole);
    }

    /// How far a flush that begins now reaches: whole blocks, and the padded tail if the journal may let go of its
    /// image. (Without that the tail may be rewritten, so that it counts only by its image in the journal.)
    pub(crate) fn flushable(&self) -> Pos {
        let written = self.written.done();
        match self.padded {
            Some(padded) if padded.until == written => written,
            _ if self.rolled && written == self.end() => written,
            _ => written.floor(self.block),
        }
    }

    /// Whether a padded tail write that lets the journal go is possible: everything claimed is durable, and written
    /// but for a part of one block. Bytes behind that wait for the journal, which may wait for this very write.
    pub(crate) fn may_pad(&self) -> bool {
        let end = self.claimed;
        self.durable.done() == end
            && self.write_issued < end
            && end.since(self.write_issued) < self.block
            && self.may_write()
            && self.written.unfinished() == 0
            // Zeros must not go over bytes that were written and acknowledged under another policy.
            && self.written.done() <= end
            && self.padded.is_none_or(|padded| padded.until < end)
            && self.write_issued.plus(self.block) <= self.prepared
    }

    /// Memory before this may be given back: what the journal holds stays until the segment has it on stable
    /// storage, so that the journal can hold it anew if the segment's file fails.
    pub(crate) fn releasable(&self) -> Pos {
        let flushed = self.flushed.done();
        if self.claimed > flushed { flushed.min(self.written.done()) } else { self.written.done() }
    }

    /// Durable writes in flight.
    pub(crate) fn durable_writes(&self) -> u32 {
        self.durable_writes
    }

    /// Claimed bytes that no write has taken.
    pub(crate) fn unwritten_claimed(&self) -> u64 {
        let whole = self.whole_end(self.claimed);
        if whole > self.write_issued { whole.since(self.write_issued) } else { 0 }
    }

    /// Unclaimed bytes that are prepared.
    pub(crate) fn unclaimed(&self) -> u64 {
        let end = self.end().min(self.prepared.max(self.claimed));
        end.since(self.claimed)
    }

    /// Whether bytes were written (under `os` or `interval`) that nothing made durable yet: the next durable claim
    /// must wait for a flush.
    pub(crate) fn needs_flush(&self) -> bool {
        self.write_issued > self.claimed
    }
}
