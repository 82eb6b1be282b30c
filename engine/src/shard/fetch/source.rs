//! The bytes of a log's segments, in memory or in files: wherever they are when they are asked for.

use crate::error::ReadError;
use crate::format::batch_header::{BatchHeader, HEADER_BYTES};
use crate::journal::LogId;
use crate::limits::{BATCH_BYTES_MAX, HEADER_READ_BYTES};
use crate::segment::Segment;
use crate::shard::Context;
use crate::shard::read::known::know;
use crate::shard::read::lookup;
use crate::shard::read::source::from_file;
use crate::shard::state::State;
use crate::types::{Offset, Pos};

/// Looks that a read takes at where its bytes are: they may go from memory to the file, and on into a sealed one.
const LOOKS_MAX: usize = 8;

/// A batch by its header alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) base: Offset,
    pub(super) last: Offset,
    /// One past its last byte.
    pub(super) end: Pos,
}

/// A log's segments.
pub(super) struct Segments<'a> {
    cx: &'a Context,
    id: LogId,
    /// What was read ahead for headers.
    ahead: (Offset, Pos, Vec<u8>),
}

impl<'a> Segments<'a> {
    pub(super) fn new(cx: &'a Context, id: LogId) -> Self {
        Self { cx, id, ahead: (Offset::ZERO, Pos::ZERO, Vec::new()) }
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
        let head_end = pos.plus(HEADER_BYTES as u64);
        let mut head = Vec::with_capacity(HEADER_BYTES);
        if !self.with(|state, id| in_memory(state, id, base, (pos, head_end), &mut head)) {
            let (segment, from, bytes) = &self.ahead;
            let there =
                *segment == base && *from <= pos && from.plus(bytes.len() as u64) >= head_end;
            if !there {
                let to = pos.plus(HEADER_READ_BYTES).min(end);
                let mut bytes = Vec::with_capacity(to.since(pos) as usize);
                self.read(base, (pos, to), &mut bytes).await?;
                self.ahead = (base, pos, bytes);
            }
            let (_, from, bytes) = &self.ahead;
            head.extend_from_slice(&bytes[pos.since(*from) as usize..][..HEADER_BYTES]);
        }
        let Ok(header) = BatchHeader::decode(&head) else { return Ok(None) };
        let bytes = header.batch_bytes();
        if bytes > BATCH_BYTES_MAX || bytes as u64 > end.since(pos) {
            return Ok(None);
        }
        let seen = |(base, last)| Seen { base, last, end: pos.plus(bytes as u64) };
        Ok(header.offsets().map(seen))
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
            if self.with(|state, id| in_memory(state, id, base, (at, to), out)) {
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

/// Appends `from..to` of a segment in the tail to `out`, if memory holds all of it.
fn in_memory(
    state: &mut State,
    id: LogId,
    base: Offset,
    (from, to): (Pos, Pos),
    out: &mut Vec<u8>,
) -> bool {
    let Some(segment) = state.segment(id, base) else { return false };
    if segment.window.base() > from || segment.window.end() < to {
        return false;
    }
    segment.window.visit(from, to, |bytes| out.extend_from_slice(bytes));
    true
}
