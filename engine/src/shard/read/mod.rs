//! Reads whole batches back: from memory where they are, else from the segment's file.

use std::io;

use crate::batch::validate_stored;
use crate::buffers::PAGE_BYTES;
use crate::error::{Fault, ReadError};
use crate::journal::LogId;
use crate::limits::BATCH_BYTES_MAX;
use crate::types::{Isolation, Offset};

use super::Context;
use super::keep::Glance;

pub(crate) mod find;
pub(crate) mod known;
pub(crate) mod locate;
pub(crate) mod lookup;
pub(super) mod source;
mod walk;

use locate::{Place, locate, seek};
use walk::Walk;

pub(super) fn disk_error(error: io::Error) -> ReadError {
    ReadError::Disk(Fault::new("reading a segment", &error))
}

/// Reads batches from the one that holds `offset` on, up to `max_bytes`, at least one. Empty at the log's end.
pub(crate) async fn read(
    cx: &Context,
    id: LogId,
    offset: Offset,
    max_bytes: usize,
    isolation: Isolation,
) -> Result<Vec<u8>, ReadError> {
    let mut out = Vec::new();
    gather((cx, id), offset, Room::AtLeastOne(max_bytes), isolation, &mut out).await?;
    Ok(out)
}

/// Reads batches into a buffer of a fixed capacity, in place of what is in it. Returns how many bytes.
pub(crate) async fn read_into(
    cx: &Context,
    id: LogId,
    offset: Offset,
    buffer: &mut Vec<u8>,
    isolation: Isolation,
) -> Result<usize, ReadError> {
    let room = Room::Fixed(buffer.capacity());
    gather((cx, id), offset, room, isolation, buffer).await?;
    Ok(buffer.len())
}

/// How many bytes of batches a reader takes.
#[derive(Clone, Copy)]
enum Room {
    /// So many, or one batch if that is longer.
    AtLeastOne(usize),
    /// So many, whatever comes.
    Fixed(usize),
}

impl Room {
    fn bytes(self) -> usize {
        let (Self::AtLeastOne(bytes) | Self::Fixed(bytes)) = self;
        bytes
    }
}

/// Puts batches into `out`, in place of what is in it.
async fn gather(
    (cx, id): (&Context, LogId),
    offset: Offset,
    room: Room,
    isolation: Isolation,
    out: &mut Vec<u8>,
) -> Result<(), ReadError> {
    let _reader = Reader::new(cx, id);
    loop {
        let glance = Glance::begin(cx, id, offset).await;
        out.clear();
        let read = gather_once((cx, id), offset, room, isolation, out).await;
        if glance.holds(cx, id) {
            return read.map_err(|error| deleted(cx, id, (offset, isolation), error));
        }
    }
}

/// What failed because the segment was deleted meanwhile.
fn deleted(
    cx: &Context,
    id: LogId,
    (asked, isolation): (Offset, Isolation),
    error: ReadError,
) -> ReadError {
    match locate(cx, id, asked, isolation) {
        Err(gone @ ReadError::OutOfRange { start, .. }) if asked < start => gone,
        _ => error.asked_for(asked),
    }
}

async fn gather_once(
    (cx, id): (&Context, LogId),
    offset: Offset,
    room: Room,
    isolation: Isolation,
    out: &mut Vec<u8>,
) -> Result<(), ReadError> {
    let mut next = offset;
    loop {
        let Some(place) = locate(cx, id, next, isolation)? else { return Ok(()) };
        let before = out.len();
        next = match collect((cx, id), place, next, room, out).await {
            Ok(next) => next,
            // What is whole is given first: the next read begins at what is not.
            Err(_) if !out.is_empty() => return Ok(()),
            Err(error) => return Err(error),
        };
        // On to the next segment only if this one is used up and there is room.
        let more = next >= place.limit && out.len() < room.bytes();
        if !more || (out.len() == before && !out.is_empty()) {
            return Ok(());
        }
    }
}

/// Gathers whole batches of a place's segment. Returns the offset that comes next; of an error, `out` has what comes
/// before it.
async fn collect(
    (cx, id): (&Context, LogId),
    place: Place,
    from: Offset,
    room: Room,
    out: &mut Vec<u8>,
) -> Result<Offset, ReadError> {
    let max_bytes = room.bytes();
    let mut next = from;
    let place = seek(cx, id, place, from).await?;
    let mut walk = Walk::new(cx, id, place, (from, max_bytes.clamp(PAGE_BYTES, BATCH_BYTES_MAX)));
    while let Some((extent, _)) = walk.next().await? {
        if extent.last < from {
            continue;
        }
        if out.len() + extent.bytes as usize > max_bytes {
            if !out.is_empty() {
                return Ok(next);
            }
            if let Room::Fixed(given) = room {
                return Err(ReadError::BufferTooSmall { needed: extent.bytes as usize, given });
            }
        }
        let damaged = walk.damaged_at(extent.pos);
        let batch = walk.bytes(extent).await?;
        if validate_stored(batch).is_err() {
            return Err(damaged);
        }
        out.extend_from_slice(batch);
        next = extent.last.plus(1);
    }
    Ok(place.limit.max(next))
}

/// Counts a use of a log's files under way: they are neither cut nor replaced, and files of the tail stay open.
pub(crate) struct Reader {
    pub(super) cx: Context,
    pub(super) id: LogId,
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

/// A flush under way of a segment of the tail: its file stays open until it has ended.
pub(crate) struct Syncing {
    reader: Reader,
    segment: Option<Offset>,
}

impl Syncing {
    pub(crate) fn new(cx: &Context, id: LogId, base: Offset) -> Self {
        let counted = cx.state.borrow_mut().segment(id, base).map(|segment| {
            segment.syncing += 1;
            base
        });
        Self { reader: Reader::new(cx, id), segment: counted }
    }
}

impl Drop for Syncing {
    fn drop(&mut self) {
        let mut state = self.reader.cx.state.borrow_mut();
        if let Some(base) = self.segment
            && let Some(segment) = state.segment(self.reader.id, base)
        {
            segment.syncing -= 1;
        }
    }
}
