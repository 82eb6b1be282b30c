//! Where in a log an offset is: the segment, and a place in it to begin to look from.

use crate::error::ReadError;
use crate::files::read_small;
use crate::format::names;
use crate::index::{decode_prefix, floor};
use crate::journal::LogId;
use crate::segment::Segment;
use crate::shard::{Context, open_files};
use crate::types::{Isolation, Offset, Pos};

use super::disk_error;

/// Where a segment's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// In the tail: what is not in the file is in memory.
    Tail,
    /// In its file.
    Sealed,
}

/// A place in a log to read from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The segment's base offset.
    pub(crate) base: Offset,
    /// One past the segment's last offset: where the next segment begins, or the isolation bound.
    pub(crate) limit: Offset,
    /// Where to begin to look: a batch begins there, if the index is right.
    pub(crate) pos: Pos,
    /// The segment's length in bytes, once it is known.
    pub(crate) end: Option<Pos>,
    pub(crate) source: Source,
}

/// The segment that holds `offset`; `None` at the isolation bound, where the log ends for the reader.
///
/// # Errors
/// [`ReadError::OutOfRange`], [`ReadError::Closed`].
pub(crate) fn locate(
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
    let out_of_range = ReadError::OutOfRange { asked: offset, start: marks.log_start, end: bound };
    if offset < marks.log_start || offset > bound {
        return Err(out_of_range);
    }
    if offset == bound {
        return Ok(None);
    }
    let tail_base = log.tail[0].base();
    if offset < tail_base {
        let at = log.sealed.partition_point(|sealed| sealed.base <= offset);
        let Some(at) = at.checked_sub(1) else { return Err(out_of_range) };
        let sealed = log.sealed[at];
        let limit = log.sealed.get(at + 1).map_or(tail_base, |next| next.base);
        return Ok(Some(Place {
            base: sealed.base,
            limit: limit.min(bound),
            pos: Pos::ZERO,
            end: sealed.end,
            source: Source::Sealed,
        }));
    }
    let at = log.tail.iter().rposition(|segment| segment.base() <= offset).unwrap_or(0);
    let limit = log.tail.get(at + 1).map_or(bound, Segment::base);
    let segment = &log.tail[at];
    Ok(Some(Place {
        base: segment.base(),
        limit: limit.min(bound),
        pos: segment.index.floor(offset),
        end: Some(segment.end()),
        source: Source::Tail,
    }))
}

/// Finds the place of an offset in a sealed segment's index.
///
/// # Errors
/// As [`open_files::open`].
pub(crate) async fn seek(
    cx: &Context,
    id: LogId,
    place: Place,
    offset: Offset,
) -> Result<Place, ReadError> {
    if place.source == Source::Tail {
        return Ok(place);
    }
    let end = match place.end {
        Some(end) => end,
        None => Pos::new(open_files::open(cx, id, place.base).await?.length().min(i32::MAX as u64)),
    };
    let dir = {
        let mut state = cx.state.borrow_mut();
        let Some(log) = state.log(id) else { return Err(ReadError::Closed) };
        if let Some(sealed) = log.sealed.iter_mut().find(|sealed| sealed.base == place.base) {
            // Compaction may have put another one in its place meanwhile.
            sealed.end.get_or_insert(end);
        }
        log.identity.dir.clone()
    };
    let index = dir.join(names::index(place.base));
    let bytes = read_small(&cx.disk, &cx.arena(), &index).await.map_err(disk_error)?;
    let entries = decode_prefix(&bytes.unwrap_or_default());
    let pos = floor(&entries, place.base, offset).min(end);
    Ok(Place { pos, end: Some(end), ..place })
}
