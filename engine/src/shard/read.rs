//! Reads whole batches back: from memory where they are, else from the segment's file.

use crate::batch::validate_stored;
use crate::buffers::{CHUNK_BYTES_MAX, Chunk, PAGE_BYTES};
use crate::command::{Disk, Done, FileHandle, Op, OpenMode};
use crate::error::{Fault, ReadError};
use crate::files::{open, read_small};
use crate::format::batch_header::{BatchHeader, HEADER_BYTES};
use crate::format::index::OffsetEntry;
use crate::format::names;
use crate::index::floor;
use crate::journal::LogId;
use crate::limits::BATCH_BYTES_MAX;
use crate::types::{Isolation, Offset, Pos};

use super::Context;
use super::state::Errand;

/// Where a segment's bytes are.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// In the tail: what is not in the file is in memory.
    Tail { file: Option<FileHandle> },
    /// In a file of its own.
    Sealed { file: Option<FileHandle> },
}

/// A place in a log to read from.
#[derive(Clone, Copy, Debug)]
struct Place {
    base: Offset,
    /// One past the segment's last offset: where the next segment begins, or the isolation bound.
    limit: Offset,
    /// Where to begin to look.
    pos: Pos,
    end: Option<Pos>,
    source: Source,
}

/// Reads batches from the one that holds `offset` on, up to `max_bytes`, at least one. Empty at the log's end.
pub(crate) async fn read(
    cx: &Context,
    id: LogId,
    offset: Offset,
    max_bytes: usize,
    isolation: Isolation,
) -> Result<Vec<u8>, ReadError> {
    let _reader = Reader::new(cx, id);
    let mut out = Vec::new();
    let mut next = offset;
    loop {
        let Some(place) = locate(cx, id, next, isolation)? else { return Ok(out) };
        let place = seek(cx, id, place, next).await?;
        let before = out.len();
        next = collect((cx, id), place, (offset, next), max_bytes, &mut out).await?;
        // On to the next segment only if this one is used up and there is room.
        let more = next >= place.limit && out.len() < max_bytes;
        if !more || (out.len() == before && !out.is_empty()) {
            return Ok(out);
        }
    }
}

fn locate(
    cx: &Context,
    id: LogId,
    offset: Offset,
    isolation: Isolation,
) -> Result<Option<Place>, ReadError> {
    let mut state = cx.state.borrow_mut();
    let Some(log) = state.log(id) else { return Err(ReadError::Closed) };
    let marks = log.watermarks();
    let bound = match isolation {
        Isolation::Durable => marks.durable,
        Isolation::Dirty => marks.dirty,
    };
    if offset < marks.log_start || offset > bound {
        return Err(ReadError::OutOfRange { asked: offset, start: marks.log_start, end: bound });
    }
    if offset == bound {
        return Ok(None);
    }
    let tail_base = log.tail[0].base();
    if offset < tail_base {
        let at = log.sealed.partition_point(|sealed| sealed.base <= offset);
        let Some(at) = at.checked_sub(1) else {
            return Err(ReadError::OutOfRange {
                asked: offset,
                start: marks.log_start,
                end: bound,
            });
        };
        let sealed = log.sealed[at];
        let limit = log.sealed.get(at + 1).map_or(tail_base, |next| next.base);
        return Ok(Some(Place {
            base: sealed.base,
            limit: limit.min(bound),
            pos: Pos::ZERO,
            end: sealed.end,
            source: Source::Sealed { file: sealed.file },
        }));
    }
    let at = log.tail.iter().rposition(|segment| segment.base() <= offset).unwrap_or(0);
    let limit = log.tail.get(at + 1).map_or(bound, super::super::segment::Segment::base);
    let segment = &log.tail[at];
    Ok(Some(Place {
        base: segment.base(),
        limit: limit.min(bound),
        pos: segment.index.floor(offset),
        end: Some(segment.end()),
        source: Source::Tail { file: segment.file },
    }))
}

/// Opens a sealed segment and finds the place in its index.
async fn seek(cx: &Context, id: LogId, place: Place, offset: Offset) -> Result<Place, ReadError> {
    let Source::Sealed { file } = place.source else { return Ok(place) };
    let io = |error: std::io::Error| ReadError::Disk(Fault::new("reading a segment", &error));
    let (dir, direct) = {
        let mut state = cx.state.borrow_mut();
        let direct = state.settings.direct;
        let Some(log) = state.log(id) else { return Err(ReadError::Closed) };
        (log.identity.dir.clone(), direct)
    };
    let file = if let Some(file) = file {
        file
    } else {
        let path = dir.join(names::segment(place.base));
        let mode = OpenMode { read_only: true, direct, ..OpenMode::default() };
        open(&cx.disk, &path, mode).await.map_err(io)?
    };
    let end = match place.end {
        Some(end) => end,
        None => match cx.disk.run(Op::Length { file }).await.map_err(io)? {
            Done::Length(length) => Pos::new(length.min(i32::MAX as u64)),
            _ => unreachable!("a length gives a length"),
        },
    };
    let file = keep_open(cx, id, place.base, file, end).await;
    let index = dir.join(names::index(place.base));
    let bytes = read_small(&cx.disk, &cx.arena(), &index).await.map_err(io)?.unwrap_or_default();
    let mut entries: Vec<OffsetEntry> = Vec::with_capacity(bytes.len() / 8);
    for chunk in bytes.chunks_exact(8) {
        let Ok(chunk) = <[u8; 8]>::try_from(chunk) else { break };
        // A doubtful index is no evidence: what is good of it still shortens the way.
        let Some(entry) = OffsetEntry::decode(chunk, entries.last().copied()) else { break };
        entries.push(entry);
    }
    let pos = floor(&entries, place.base, offset).min(end);
    Ok(Place { pos, end: Some(end), source: Source::Sealed { file: Some(file) }, ..place })
}

/// Keeps one sealed segment open for reading; another one that was is closed. Returns the file to read: the one that
/// is kept.
async fn keep_open(
    cx: &Context,
    id: LogId,
    base: Offset,
    file: FileHandle,
    end: Pos,
) -> FileHandle {
    let mut kept = file;
    let closing = {
        let mut state = cx.state.borrow_mut();
        let Some(log) = state.log(id) else { return file };
        let mut closing = Vec::new();
        for sealed in &mut log.sealed {
            if sealed.base == base {
                sealed.end = Some(end);
                // Another read may have opened it meanwhile, and is using what it opened.
                kept = *sealed.file.get_or_insert(file);
                closing.extend((kept != file).then_some(file));
            } else {
                // Another read of it may be under way: files are closed only by a lone reader.
                closing.extend((log.readers == 1).then(|| sealed.file.take()).flatten());
            }
        }
        closing
    };
    for file in closing {
        drop(cx.disk.run(Op::Close { file }).await);
    }
    kept
}

/// Gathers whole batches from a place on. Returns the offset that comes next.
async fn collect(
    (cx, id): (&Context, LogId),
    place: Place,
    (asked, from): (Offset, Offset),
    max_bytes: usize,
    out: &mut Vec<u8>,
) -> Result<Offset, ReadError> {
    // An index is no evidence: if what it points at is no batch at or before the offset, begin at the beginning.
    let mut begin = place.pos;
    let mut pos = begin;
    let mut next = from;
    let end = place.end.unwrap_or(pos);
    let mut buffer = Bytes { start: pos, bytes: Vec::new() };
    while next < place.limit && pos < end {
        let damaged = ReadError::Damaged { asked, segment: place.base, pos: pos.get() };
        let head = end.since(pos).min(HEADER_BYTES as u64) as usize;
        let want = max_bytes.clamp(PAGE_BYTES, BATCH_BYTES_MAX);
        fill(cx, id, place, &mut buffer, (pos, head, want, end)).await?;
        let header = BatchHeader::decode(buffer.from(pos)).ok();
        let header = header.filter(|header| {
            let bytes = header.batch_bytes();
            bytes <= BATCH_BYTES_MAX && bytes as u64 <= end.since(pos)
        });
        let offsets = header.and_then(|header| header.offsets());
        if pos == begin && pos > Pos::ZERO && offsets.is_none_or(|(base, _)| base > from) {
            (begin, pos) = (Pos::ZERO, Pos::ZERO);
            continue;
        }
        let (Some(header), Some((base, last))) = (header, offsets) else { return Err(damaged) };
        let bytes = header.batch_bytes();
        if base >= place.limit {
            return Ok(place.limit);
        }
        let after = pos.plus(bytes as u64);
        if last < from {
            pos = after;
            continue;
        }
        if !out.is_empty() && out.len() + bytes > max_bytes {
            return Ok(next);
        }
        fill(cx, id, place, &mut buffer, (pos, bytes, want, end)).await?;
        let batch = &buffer.from(pos)[..bytes];
        if validate_stored(batch).is_err() {
            return Err(damaged);
        }
        out.extend_from_slice(batch);
        next = last.plus(1);
        pos = after;
    }
    Ok(if pos >= end { place.limit.max(next) } else { next })
}

/// Consecutive bytes of a segment.
struct Bytes {
    start: Pos,
    bytes: Vec<u8>,
}

impl Bytes {
    fn from(&self, pos: Pos) -> &[u8] {
        &self.bytes[pos.since(self.start) as usize..]
    }

    fn has(&self, pos: Pos, len: usize) -> bool {
        pos >= self.start && self.start.plus(self.bytes.len() as u64) >= pos.plus(len as u64)
    }
}

/// Makes `len` bytes at `pos` available, and up to `want` if they are cheap.
async fn fill(
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
        let place = open_tail(cx, id, place).await;
        let memory = memory_base(cx, id, place);
        let file_end = memory.filter(|base| *base > pos).map_or(to, |base| base.min(to));
        from_file(cx, place, (pos, file_end), &mut buffer.bytes).await?;
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

/// The place with its tail segment's file open: it may have been closed because it was idle.
async fn open_tail(cx: &Context, id: LogId, place: Place) -> Place {
    let Source::Tail { file: None } = place.source else { return place };
    {
        let mut state = cx.state.borrow_mut();
        if let Some(segment) = state.segment(id, place.base)
            && segment.file.is_none()
            && !std::mem::replace(&mut segment.preparing, true)
        {
            state.errands.push_back(Errand::Prepare(id, place.base));
        }
    }
    loop {
        let progress = {
            let mut state = cx.state.borrow_mut();
            match state.segment(id, place.base) {
                Some(segment) if segment.file.is_none() && segment.preparing => {}
                _ => break,
            }
            state.progress.notified()
        };
        progress.await;
    }
    let file = cx.state.borrow_mut().segment(id, place.base).and_then(|segment| segment.file);
    Place { source: Source::Tail { file }, ..place }
}

/// Reads `pos..to` of a segment's file, as far as it goes.
async fn from_file(
    cx: &Context,
    place: Place,
    (pos, to): (Pos, Pos),
    out: &mut Vec<u8>,
) -> Result<(), ReadError> {
    let (Source::Tail { file } | Source::Sealed { file }) = place.source;
    let Some(file) = file else {
        return Err(ReadError::Disk(Fault { operation: "reading a segment", errno: libc::EBADF }));
    };
    let mut at = pos.floor(PAGE_BYTES as u64);
    while at < to {
        let bytes = to.since(at).min(CHUNK_BYTES_MAX as u64) as usize;
        let buf = chunk_to_read(cx, bytes).ok_or(ReadError::Overloaded)?;
        let bytes = bytes.next_multiple_of(PAGE_BYTES).min(buf.capacity());
        let chunk = crate::files::read_into(&cx.disk, file, (at.get(), bytes), buf).await;
        let chunk =
            chunk.map_err(|error| ReadError::Disk(Fault::new("reading a segment", &error)))?;
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

/// Memory for `bytes` of a file, or for fewer where there is not so much. Bytes of segments that are in their files
/// give way; beyond that a reader has no claim on the budget.
fn chunk_to_read(cx: &Context, bytes: usize) -> Option<Chunk> {
    let arena = cx.arena();
    if let Some(chunk) = arena.chunk(bytes) {
        return Some(chunk);
    }
    cx.state.borrow_mut().trim_all();
    let mut bytes = bytes.next_power_of_two();
    loop {
        match arena.chunk(bytes) {
            None if bytes > PAGE_BYTES => bytes /= 2,
            chunk => return chunk,
        }
    }
}

/// Where the segment's bytes in memory begin; `None` if it is not in the tail any more.
fn memory_base(cx: &Context, id: LogId, place: Place) -> Option<Pos> {
    let Source::Tail { .. } = place.source else { return None };
    cx.state.borrow_mut().segment(id, place.base).map(|segment| segment.window.base())
}

fn from_memory(
    cx: &Context,
    id: LogId,
    place: Place,
    (from, to): (Pos, Pos),
    out: &mut Vec<u8>,
) -> bool {
    let Source::Tail { .. } = place.source else { return false };
    let mut state = cx.state.borrow_mut();
    let Some(segment) = state.segment(id, place.base) else { return false };
    if segment.window.base() > from || segment.window.end() < to {
        return false;
    }
    segment.window.visit(from, to, |bytes| out.extend_from_slice(bytes));
    true
}

/// Counts a use of a log's files under way, so that they stay open.
pub(crate) struct Reader {
    cx: Context,
    id: LogId,
}

impl Reader {
    pub(crate) fn new(cx: &Context, id: LogId) -> Self {
        if let Some(log) = cx.state.borrow_mut().log(id) {
            log.readers += 1;
        }
        Self { cx: cx.clone(), id }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.cx.state.borrow_mut();
        if let Some(log) = state.log(self.id) {
            log.readers -= 1;
        }
        // A truncation waits for the last one.
        state.progress.notify();
    }
}

/// Reads whole batches into a buffer of a fixed capacity.
pub(crate) async fn read_into(
    cx: &Context,
    id: LogId,
    offset: Offset,
    buffer: &mut Vec<u8>,
    isolation: Isolation,
) -> Result<usize, ReadError> {
    let given = buffer.capacity();
    let batches = read(cx, id, offset, given, isolation).await?;
    if batches.len() > given {
        return Err(ReadError::BufferTooSmall { needed: batches.len(), given });
    }
    buffer.extend_from_slice(&batches);
    Ok(batches.len())
}
