//! Goes over a segment's batches from a place on, by their headers.

use crate::error::{Alteration, ReadError};
use crate::format::batch_header::{BatchHeader, HEADER_BYTES};
use crate::journal::LogId;
use crate::limits::BATCH_BYTES_MAX;
use crate::shard::Context;
use crate::shard::lookup_cache::Extent;
use crate::types::{Offset, Pos};

use super::locate::{Place, Source};
use super::lookup;
use super::source::{Bytes, fill};

/// A walk under way.
pub(super) struct Walk<'a> {
    cx: &'a Context,
    id: LogId,
    place: Place,
    /// The first batch must begin at this offset or before: else the place was wrong.
    from: Offset,
    /// What is read at once, in bytes.
    want: usize,
    buffer: Bytes,
    pos: Pos,
    /// Where the walk began.
    begin: Pos,
    /// The next batch's first offset is at least this.
    next: Offset,
}

impl<'a> Walk<'a> {
    /// A walk from the place on, which lies before the batch that holds `from`. Reads `want` bytes at once.
    pub(super) fn new(
        cx: &'a Context,
        id: LogId,
        place: Place,
        (from, want): (Offset, usize),
    ) -> Self {
        let (pos, next) = (place.pos, place.base);
        let buffer = Bytes { start: pos, bytes: Vec::new() };
        Self { cx, id, place, from, want, buffer, pos, begin: pos, next }
    }

    /// The next batch before the place's limit, not yet validated; `None` at the segment's end.
    ///
    /// # Errors
    /// [`ReadError::Damaged`] or [`ReadError::Altered`] if none stands where one must.
    pub(super) async fn next(&mut self) -> Result<Option<(Extent, BatchHeader)>, ReadError> {
        let end = self.place.end.unwrap_or(self.pos);
        loop {
            if self.pos >= end || self.next >= self.place.limit {
                return Ok(None);
            }
            let head = end.since(self.pos).min(HEADER_BYTES as u64) as usize;
            let range = (self.pos, head, self.want, end);
            fill(self.cx, self.id, self.place, &mut self.buffer, range).await?;
            let header = BatchHeader::decode(self.buffer.from(self.pos)).ok();
            let header = header.filter(|header| {
                let bytes = header.batch_bytes();
                bytes <= BATCH_BYTES_MAX && bytes as u64 <= end.since(self.pos)
            });
            let batch = header.and_then(|header| header.offsets().map(|offsets| (header, offsets)));
            // An index is no evidence: if it points at no batch at or before the offset, begin at the beginning.
            let first = self.pos == self.begin && self.pos > Pos::ZERO;
            if first && batch.is_none_or(|(_, (base, _))| base > self.from || base < self.next) {
                if self.place.source == Source::Sealed {
                    lookup::doubt(self.cx, self.id, self.place.base);
                }
                (self.begin, self.pos) = (Pos::ZERO, Pos::ZERO);
                continue;
            }
            let Some((header, (base, last))) = batch else { return Err(self.damaged()) };
            if base < self.next || self.place.sealed && base >= self.place.next {
                let what = Alteration::Foreign { pos: self.pos.get() };
                return Err(ReadError::Altered { segment: self.place.base, what });
            }
            if base >= self.place.limit {
                return Ok(None);
            }
            let bytes = header.batch_bytes();
            let extent = Extent { first: base, last, pos: self.pos, bytes: bytes as u32 };
            self.pos = self.pos.plus(bytes as u64);
            self.next = last.plus(1);
            return Ok(Some((extent, header)));
        }
    }

    /// The bytes of the batch that came last.
    ///
    /// # Errors
    /// If they can not be read.
    pub(super) async fn bytes(&mut self, extent: Extent) -> Result<&[u8], ReadError> {
        let end = self.place.end.unwrap_or(self.pos);
        let range = (extent.pos, extent.bytes as usize, self.want, end);
        fill(self.cx, self.id, self.place, &mut self.buffer, range).await?;
        Ok(&self.buffer.from(extent.pos)[..extent.bytes as usize])
    }

    /// Says that what stands at the batch that came next, or last, is none.
    pub(super) fn damaged(&self) -> ReadError {
        self.damaged_at(self.pos)
    }

    /// As [`Walk::damaged`], of a position.
    pub(super) fn damaged_at(&self, pos: Pos) -> ReadError {
        ReadError::Damaged { asked: self.from, segment: self.place.base, pos: pos.get() }
    }
}
