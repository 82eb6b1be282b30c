//! Bytes of a segment, from memory where they are, else from its file.

use crate::buffers::{CHUNK_BYTES_MAX, Chunk};
use crate::error::ReadError;
use crate::files::read_into;
use crate::journal::LogId;
use crate::shard::{Context, open_files};
use crate::types::{Offset, Pos};

use super::disk_error;
use super::locate::{Place, Source};

/// Consecutive bytes of a segment.
pub(super) struct Bytes {
    pub(super) start: Pos,
    pub(super) bytes: Vec<u8>,
}

impl Bytes {
    pub(super) fn from(&self, pos: Pos) -> &[u8] {
        &self.bytes[pos.since(self.start) as usize..]
    }

    fn has(&self, pos: Pos, len: usize) -> bool {
        pos >= self.start && self.start.plus(self.bytes.len() as u64) >= pos.plus(len as u64)
    }
}

/// Makes `len` bytes at `pos` available, and up to `want` if they are cheap.
pub(super) async fn fill(
    cx: &Context,
    id: LogId,
    place: Place,
    buffer: &mut Bytes,
    (pos, len, want, end): (Pos, usize, usize, Pos),
) -> Result<(), ReadError> {
    if buffer.has(pos, len) {
        return Ok(());
    }
    let to = pos.plus(want.max(len) as u64).min(end);
    buffer.start = pos;
    // Memory may be given back while the file is read, once its bytes are in the file: look again then.
    for _ in 0..8 {
        buffer.bytes.clear();
        if from_memory(cx, id, place, (pos, to), &mut buffer.bytes) {
            return Ok(());
        }
        let memory = memory_base(cx, id, place);
        let file_end = memory.filter(|base| *base > pos).map_or(to, |base| base.min(to));
        from_file(cx, id, place.base, (pos, file_end), &mut buffer.bytes).await?;
        let have = pos.plus(buffer.bytes.len() as u64);
        if buffer.bytes.len() >= len {
            return Ok(());
        }
        if from_memory(cx, id, place, (have, to), &mut buffer.bytes) {
            return Ok(());
        }
        if memory.is_none() {
            break;
        }
    }
    Err(ReadError::Damaged { asked: place.base, segment: place.base, pos: pos.get() })
}

/// Memory for so many bytes or, if there is no such chunk, the largest there is; a block at least while tails hold all
/// of the memory.
fn chunk_at_most(cx: &Context, mut bytes: usize) -> Option<Chunk> {
    let state = cx.state.borrow();
    let block = state.settings.shape.block as usize;
    loop {
        match state.arena.chunk(bytes) {
            None if bytes > block => bytes = (bytes / 2).next_multiple_of(block),
            None => return state.chunk(block),
            found => return found,
        }
    }
}

/// Reads `pos..to` of a segment's file, as far as it goes.
pub(in crate::shard) async fn from_file(
    cx: &Context,
    id: LogId,
    base: Offset,
    (pos, to): (Pos, Pos),
    out: &mut Vec<u8>,
) -> Result<(), ReadError> {
    let lease = open_files::open(cx, id, base).await?;
    let block = cx.state.borrow().settings.shape.block;
    let mut at = pos.floor(block);
    while at < to {
        let wanted = to.since(at).next_multiple_of(block).min(CHUNK_BYTES_MAX as u64) as usize;
        // A reader has no claim on more than the budget, and does with less while it is short.
        let buf = chunk_at_most(cx, wanted).ok_or(ReadError::Overloaded)?;
        let bytes = wanted.min(buf.capacity());
        let chunk = read_into(&cx.disk, lease.file(), (at.get(), bytes), buf).await;
        let chunk = chunk.map_err(disk_error)?;
        let skip = if at < pos { pos.since(at) as usize } else { 0 };
        let keep = to.since(at).min(chunk.len() as u64) as usize;
        if keep <= skip {
            break;
        }
        out.extend_from_slice(&chunk[skip..keep]);
        at = at.plus(bytes as u64);
    }
    Ok(())
}

/// Where the segment's bytes in memory begin; `None` if it is not in the tail any more.
fn memory_base(cx: &Context, id: LogId, place: Place) -> Option<Pos> {
    if place.source == Source::Sealed {
        return None;
    }
    cx.state.borrow_mut().segment(id, place.base).map(|segment| segment.window.base())
}

fn from_memory(
    cx: &Context,
    id: LogId,
    place: Place,
    (from, to): (Pos, Pos),
    out: &mut Vec<u8>,
) -> bool {
    if place.source == Source::Sealed {
        return false;
    }
    cx.state.borrow_mut().read_memory(id, place.base, (from, to), out)
}
