//! Where in a log an offset is: the segment, and a place in it to begin to look from.

use crate::error::ReadError;
use crate::journal::LogId;
use crate::log::begun_by;
use crate::segment::Segment;
use crate::shard::Context;
use crate::shard::lookup_cache::Stamp;
use crate::types::{Isolation, Offset, Pos, Watermarks};

use super::known::known;
use super::lookup;

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
    /// Where the next segment begins, or the log's end.
    pub(crate) next: Offset,
    /// Where to begin to look: a batch begins there, if the index is right.
    pub(crate) pos: Pos,
    /// The segment's length in bytes, once it is known.
    pub(crate) end: Option<Pos>,
    /// Whether a seal says that this is the end, and that all before it belongs to the segment.
    pub(crate) sealed: bool,
    /// Where batches are is remembered only if nothing was forgotten since.
    pub(crate) stamp: Stamp,
    pub(crate) source: Source,
}

/// One past the last offset that may be read.
pub(super) fn bound(marks: Watermarks, isolation: Isolation) -> Offset {
    match isolation {
        Isolation::Durable => marks.durable,
        Isolation::Dirty => marks.dirty,
    }
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
    let now = state.time.ns;
    let Some(log) = state.log(id) else { return Err(ReadError::Closed) };
    let marks = log.watermarks();
    let bound = bound(marks, isolation);
    let out_of_range = ReadError::OutOfRange { asked: offset, start: marks.log_start, end: bound };
    if offset < marks.log_start || offset > bound {
        return Err(out_of_range);
    }
    log.note_reader(offset, now);
    if offset == bound {
        return Ok(None);
    }
    let stamp = cx.files.lookups().stamp();
    let tail_base = log.tail[0].base();
    if offset < tail_base {
        let at = begun_by(&log.sealed, offset);
        let Some(at) = at.checked_sub(1) else { return Err(out_of_range) };
        let sealed = log.sealed[at];
        let next = log.sealed.get(at + 1).map_or(tail_base, |next| next.base);
        return Ok(Some(Place {
            base: sealed.base,
            limit: next.min(bound),
            next,
            pos: Pos::ZERO,
            end: sealed.end,
            sealed: false,
            stamp,
            source: Source::Sealed,
        }));
    }
    let at = log.tail.iter().rposition(|segment| segment.base() <= offset).unwrap_or(0);
    let next = log.tail.get(at + 1).map_or(marks.dirty, Segment::base);
    let segment = &log.tail[at];
    Ok(Some(Place {
        base: segment.base(),
        limit: next.min(bound),
        next,
        pos: segment.index.floor(offset),
        end: Some(segment.end()),
        sealed: false,
        stamp,
        source: Source::Tail,
    }))
}

/// The place from which to look for `offset` in its segment: by the index and, where a lookup has been before, the
/// batch itself.
///
/// # Errors
/// As [`known`] and [`super::lookup::floor`].
pub(crate) async fn seek(
    cx: &Context,
    id: LogId,
    place: Place,
    offset: Offset,
) -> Result<Place, ReadError> {
    // What compaction left of the offsets may begin behind it.
    let noted = cx.files.lookups().batch((id, place.base), offset);
    let noted = noted.filter(|batch| batch.first <= offset).map(|batch| batch.pos);
    match noted {
        Some(pos) if place.source == Source::Sealed => {
            Ok(Place { pos, ..known(cx, id, place).await? })
        }
        Some(pos) => Ok(Place { pos, ..place }),
        None => seek_by_index(cx, id, place, offset).await,
    }
}

/// As [`seek`], by the index alone.
///
/// # Errors
/// As [`seek`].
pub(super) async fn seek_by_index(
    cx: &Context,
    id: LogId,
    place: Place,
    offset: Offset,
) -> Result<Place, ReadError> {
    if place.source == Source::Tail {
        return Ok(place);
    }
    let place = known(cx, id, place).await?;
    let pos = lookup::floor(cx, id, place.base, offset).await?;
    Ok(Place { pos: if place.end.is_some_and(|end| pos < end) { pos } else { Pos::ZERO }, ..place })
}
