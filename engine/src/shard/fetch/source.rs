//! The bytes of a log's segments, in memory or in files: wherever they are when they are asked for.

use crate::error::ReadError;
use crate::format::batch_header::{BatchHeader, HEADER_BYTES};
use crate::journal::LogId;
use crate::limits::{BATCH_BYTES_MAX, HEADER_READ_BYTES};
use crate::segment::Segment;
use crate::shard::Context;
use crate::shard::lookup_cache::{Extent, Memo, Part, Stamp};
use crate::shard::read::known::know;
use crate::shard::read::lookup;
use crate::shard::read::source::from_file;
use crate::shard::state::State;
use crate::types::{Offset, Pos};

/// Looks that a read takes at where its bytes are: they may go from memory to the file, and on into a sealed one.
const LOOKS_MAX: usize = 8;

/// Headers that one fetch remembers: one that goes through a segment without its index displaces little.
const REMEMBERED_MAX: usize = 64;

/// A batch by its header alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) base: Offset,
    pub(super) last: Offset,
    /// One past its last byte.
    pub(super) end: Pos,
}

impl From<Extent> for Seen {
    fn from(extent: Extent) -> Self {
        let Extent { first, last, pos, bytes } = extent;
        Self { base: first, last, end: pos.plus(bytes.into()) }
    }
}

/// A log's segments.
pub(super) struct Segments<'a> {
    cx: &'a Context,
    id: LogId,
    ahead: Ahead,
    remembered: usize,
}

/// What was read ahead for headers.
struct Ahead {
    segment: Offset,
    from: Pos,
    bytes: Vec<u8>,
    /// From before it was read.
    stamp: Stamp,
}

impl Ahead {
    fn has(&self, base: Offset, from: Pos, to: Pos) -> bool {
        let end = self.from.plus(self.bytes.len() as u64);
        self.segment == base && self.from <= from && end >= to
    }
}

impl<'a> Segments<'a> {
    pub(super) fn new(cx: &'a Context, id: LogId) -> Self {
        let stamp = cx.files.lookups().stamp();
        let ahead = Ahead { segment: Offset::ZERO, from: Pos::ZERO, bytes: Vec::new(), stamp };
        Self { cx, id, ahead, remembered: 0 }
    }

    pub(super) fn with<T>(&self, look: impl FnOnce(&mut State, LogId) -> T) -> T {
        look(&mut self.cx.state.borrow_mut(), self.id)
    }

    /// One past the segment's last byte; of a file that no shutdown cut to its data, one past the last there can be.
    /// And whether a seal says so: then all of it belongs to the segment.
    pub(super) async fn end(&self, base: Offset) -> Result<(Pos, bool), ReadError> {
        let tail = self.with(|state, id| state.segment(id, base).map(|segment| segment.end()));
        match tail {
            Some(end) => Ok((end, false)),
            None => know(self.cx, self.id, base).await.map(|known| (known.end, known.sealed)),
        }
    }

    /// Where the next segment begins; `None` of the last one.
    pub(super) fn following(&self, base: Offset) -> Option<Offset> {
        self.with(|state, id| {
            let log = state.log(id)?;
            let sealed = log.sealed.iter().map(|sealed| sealed.base);
            let mut bases = sealed.chain(log.tail.iter().map(Segment::base));
            bases.find(|other| *other > base)
        })
    }

    /// Where to begin a scan for `offset`.
    pub(super) async fn floor(&self, base: Offset, offset: Offset) -> Result<Pos, ReadError> {
        let tail = |state: &mut State, id| Some(state.segment(id, base)?.index.floor(offset));
        match self.with(tail) {
            Some(pos) => Ok(pos),
            None => lookup::floor(self.cx, self.id, base, offset).await,
        }
    }

    /// The first batch that the index has with a last offset of `offset` or above.
    pub(super) async fn ceil(
        &self,
        base: Offset,
        offset: Offset,
    ) -> Result<Option<Pos>, ReadError> {
        let tail = |state: &mut State, id| Some(state.segment(id, base)?.index.ceil(offset));
        match self.with(tail) {
            Some(pos) => Ok(pos),
            None => lookup::ceil(self.cx, self.id, base, offset).await,
        }
    }

    /// The last batch that the index has at `pos` or before it.
    pub(super) async fn floor_pos(&self, base: Offset, pos: Pos) -> Result<Pos, ReadError> {
        let tail = |state: &mut State, id| Some(state.segment(id, base)?.index.floor_pos(pos));
        match self.with(tail) {
            Some(pos) => Ok(pos),
            None => lookup::floor_pos(self.cx, self.id, base, pos).await,
        }
    }

    /// The first batch that the index has behind `pos`.
    pub(super) async fn next_indexed(
        &self,
        base: Offset,
        pos: Pos,
    ) -> Result<Option<Pos>, ReadError> {
        let tail = |state: &mut State, id| Some(state.segment(id, base)?.index.after(pos));
        match self.with(tail) {
            Some(pos) => Ok(pos),
            None => lookup::after(self.cx, self.id, base, pos).await,
        }
    }

    /// The index led to no batch that it can have meant: a sealed segment's is written anew.
    pub(super) fn doubt(&self, base: Offset) {
        if self.with(|state, id| state.segment(id, base).is_none()) {
            lookup::doubt(self.cx, self.id, base);
        }
    }

    /// The batch at `pos`, by its header. `None` if there can be none that ends at `end` or before.
    pub(super) async fn batch(
        &mut self,
        base: Offset,
        (pos, end): (Pos, Pos),
    ) -> Result<Option<Seen>, ReadError> {
        if end.since(pos) < HEADER_BYTES as u64 {
            return Ok(None);
        }
        let sealed = self.is_sealed(base);
        if sealed && let Some(known) = self.cx.files.lookups().one((self.id, base), Part::At(pos)) {
            let seen = Seen::from(known);
            return Ok((seen.end <= end).then_some(seen));
        }
        let head_end = pos.plus(HEADER_BYTES as u64);
        let mut head = Vec::with_capacity(HEADER_BYTES);
        if !self.with(|state, id| state.read_memory(id, base, (pos, head_end), &mut head)) {
            if !self.ahead.has(base, pos, head_end) {
                let stamp = self.cx.files.lookups().stamp();
                let to = pos.plus(HEADER_READ_BYTES).min(end);
                let mut bytes = Vec::with_capacity(to.since(pos) as usize);
                self.read(base, (pos, to), &mut bytes).await?;
                self.ahead = Ahead { segment: base, from: pos, bytes, stamp };
            }
            let at = pos.since(self.ahead.from) as usize;
            head.extend_from_slice(&self.ahead.bytes[at..][..HEADER_BYTES]);
        }
        let Ok(header) = BatchHeader::decode(&head) else { return Ok(None) };
        let bytes = header.batch_bytes();
        if bytes > BATCH_BYTES_MAX || bytes as u64 > end.since(pos) {
            return Ok(None);
        }
        let Some((first, last)) = header.offsets() else { return Ok(None) };
        let seen = Seen { base: first, last, end: pos.plus(bytes as u64) };
        if sealed {
            self.remember(base, Part::At(pos), (pos, seen));
        }
        Ok(Some(seen))
    }

    /// Whether it is not, or no more, one of the tail.
    fn is_sealed(&self, base: Offset) -> bool {
        self.with(|state, id| state.segment(id, base).is_none())
    }

    /// The batch that begins at `offset`, if a fetch ended before it not long ago.
    pub(super) fn known_from(&self, base: Offset, offset: Offset) -> Option<(Pos, Seen)> {
        let known = self.cx.files.lookups().one((self.id, base), Part::From(offset))?;
        self.is_sealed(base).then(|| (known.pos, Seen::from(known)))
    }

    /// A fetch ends before this batch, and the next one begins with it.
    pub(super) fn ends_before(&mut self, base: Offset, (pos, seen): (Pos, Seen)) {
        if self.is_sealed(base) {
            self.remembered = 0;
            self.remember(base, Part::From(seen.base), (pos, seen));
        }
    }

    /// Remembers a batch of a sealed segment, unless anything was forgotten since it was read.
    fn remember(&mut self, base: Offset, part: Part, (pos, seen): (Pos, Seen)) {
        if self.remembered == REMEMBERED_MAX {
            return;
        }
        self.remembered += 1;
        let bytes = seen.end.since(pos) as u32;
        let extent = Extent { first: seen.base, last: seen.last, pos, bytes };
        let memo = (Memo::Batch(extent), self.ahead.stamp);
        self.cx.files.lookups().put((self.id, base), part, memo);
    }

    /// Appends the bytes `from..to` of a segment to `out`.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] if the file is shorter than it was; what is there is in `out`.
    pub(super) async fn read(
        &self,
        base: Offset,
        (from, to): (Pos, Pos),
        out: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        let begin = out.len();
        for _ in 0..LOOKS_MAX {
            let at = from.plus((out.len() - begin) as u64);
            if self.with(|state, id| state.read_memory(id, base, (at, to), out)) {
                return Ok(());
            }
            let memory = |state: &mut State, id| state.segment(id, base).map(|s| s.window.base());
            let until = self.with(memory).filter(|memory| *memory > at).map_or(to, |m| m.min(to));
            from_file(self.cx, self.id, base, (at, until), out).await?;
            if from.plus((out.len() - begin) as u64) >= to {
                return Ok(());
            }
        }
        let pos = from.get() + (out.len() - begin) as u64;
        Err(ReadError::Damaged { asked: base, segment: base, pos })
    }
}
