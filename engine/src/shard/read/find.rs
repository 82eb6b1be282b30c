//! Finds batches by offset and by time.

use crate::batch::validate_stored;
use crate::buffers::PAGE_BYTES;
use crate::error::ReadError;
use crate::journal::LogId;
use crate::limits::{LOOKUP_READ_BYTES_MAX, SEALS_IN_FLIGHT};
use crate::local::join_bounded;
use crate::log::{Derived, Sealed, begun_by};
use crate::segment::Segment;
use crate::shard::Context;
use crate::shard::keep::Glance;
use crate::shard::lookup_cache::Extent;
use crate::types::{BatchFound, Isolation, Offset, Pos};

use super::known::{know, known};
use super::locate::{Place, Source, bound, locate, seek_by_index};
use super::lookup;
use super::walk::Walk;
use super::{Reader, deleted};

/// Where the batch is that holds `offset`, or the next one if compaction took that away; `None` at the isolation bound.
///
/// # Errors
/// [`ReadError`].
pub(crate) async fn find_offset(
    cx: &Context,
    id: LogId,
    offset: Offset,
    isolation: Isolation,
) -> Result<Option<BatchFound>, ReadError> {
    let _reader = Reader::new(cx, id);
    loop {
        let glance = Glance::begin(cx, id, offset).await;
        let found = find_offset_once(cx, id, offset, isolation).await;
        if glance.holds(cx, id) {
            return found.map_err(|error| deleted(cx, id, (offset, isolation), error));
        }
    }
}

async fn find_offset_once(
    cx: &Context,
    id: LogId,
    offset: Offset,
    isolation: Isolation,
) -> Result<Option<BatchFound>, ReadError> {
    let mut offset = offset;
    while let Some(place) = locate(cx, id, offset, isolation)? {
        let noted = cx.files.lookups().batch((id, place.base), offset);
        let found = match noted {
            Some(extent) => Some(extent),
            None => scan(cx, id, seek_by_index(cx, id, place, offset).await?, offset).await?,
        };
        if let Some(Extent { first, last, pos, bytes }) = found {
            let segment = place.base;
            return Ok(Some(BatchFound { first, last, segment, pos: pos.get(), bytes }));
        }
        // Compaction took the segment's last batches.
        offset = place.limit;
    }
    Ok(None)
}

/// The batch that holds `offset`, at most an index interval behind the place. What is passed on the way is noted.
async fn scan(
    cx: &Context,
    id: LogId,
    place: Place,
    offset: Offset,
) -> Result<Option<Extent>, ReadError> {
    let mut walk = Walk::new(cx, id, place, (offset, scan_bytes(cx)));
    let interval = u64::from(cx.state.borrow().settings.shape.index_interval);
    let mut passed: Vec<Extent> = Vec::new();
    let mut far = false;
    let found = loop {
        let Some((extent, _)) = walk.next().await? else { break None };
        if passed.len() <= NOTED_BATCHES_MAX {
            passed.push(extent);
        }
        if extent.last >= offset {
            break Some(extent);
        }
        far |= extent.pos > place.pos && extent.pos.since(place.pos) > interval;
    };
    if far && place.source == Source::Sealed {
        // An entry is missing.
        lookup::doubt(cx, id, place.base);
    }
    let durable = cx.state.borrow_mut().log(id).map(|log| log.watermarks().durable);
    // What is not durable may be taken back, and another batch be put in its place. A long way was gone for want of an
    // index, which is being written.
    passed.retain(|batch| durable.is_some_and(|durable| batch.last < durable));
    if let Some(first) = passed.first().filter(|_| !far && passed.len() <= NOTED_BATCHES_MAX) {
        let from = first.first.min(offset);
        cx.files.lookups().put_batches((id, place.base), from, (&passed, place.stamp));
    }
    Ok(found)
}

/// Batches that are noted of one index interval at most: no batch is smaller than its header.
const NOTED_BATCHES_MAX: usize = LOOKUP_READ_BYTES_MAX / crate::format::batch_header::HEADER_BYTES;

/// What a lookup reads at once: an index interval, and the header behind it.
fn scan_bytes(cx: &Context) -> usize {
    let interval = cx.state.borrow().settings.shape.index_interval as usize;
    (interval + PAGE_BYTES).min(LOOKUP_READ_BYTES_MAX)
}

/// The first whole batch with an offset from `from` on whose largest timestamp is not below `timestamp`, and from which
/// offset on its records count; `None` if there is none before the isolation bound.
///
/// # Errors
/// [`ReadError`].
pub(crate) async fn find_time(
    cx: &Context,
    id: LogId,
    (from, timestamp): (Offset, i64),
    isolation: Isolation,
) -> Result<Option<(Offset, Vec<u8>)>, ReadError> {
    let _reader = Reader::new(cx, id);
    loop {
        let glance = Glance::begin(cx, id, from).await;
        let start = start(cx, id)?;
        let found = find_time_once(cx, id, (from, timestamp), isolation).await;
        // What was deleted meanwhile is looked for behind that.
        let gone = found.is_err() && start < self::start(cx, id)?;
        if glance.holds(cx, id) && !gone {
            return found;
        }
    }
}

/// Where the log begins.
fn start(cx: &Context, id: LogId) -> Result<Offset, ReadError> {
    let mut state = cx.state.borrow_mut();
    state.log(id).map(|log| log.watermarks().log_start).ok_or(ReadError::Closed)
}

async fn find_time_once(
    cx: &Context,
    id: LogId,
    (from, timestamp): (Offset, i64),
    isolation: Isolation,
) -> Result<Option<(Offset, Vec<u8>)>, ReadError> {
    let mut from = from;
    loop {
        let begin = match candidate(cx, id, (from, timestamp), isolation)? {
            Candidate::None => return Ok(None),
            Candidate::Unknown(bases) => {
                let asks = bases.into_iter().map(|base| know(cx, id, base));
                let mut known = join_bounded(SEALS_IN_FLIGHT, asks).await;
                // Of the others it need not be known yet: an answer may come before them.
                known.swap_remove(0)?;
                continue;
            }
            Candidate::Segment(begin) => begin,
        };
        let Some(place) = locate(cx, id, begin, isolation)? else { return Ok(None) };
        if let Some(batch) = search(cx, id, place, (begin, timestamp)).await? {
            return Ok(Some((begin, batch)));
        }
        from = place.limit;
    }
}

/// The next segment to be searched by time.
enum Candidate {
    /// The one that holds this offset, from which on records count.
    Segment(Offset),
    /// One of these, perhaps: their seals are to be read.
    Unknown(Vec<Offset>),
    None,
}

/// The first segment from `from` on whose largest timestamp is not below `timestamp`.
fn candidate(
    cx: &Context,
    id: LogId,
    (from, timestamp): (Offset, i64),
    isolation: Isolation,
) -> Result<Candidate, ReadError> {
    let mut state = cx.state.borrow_mut();
    let Some(log) = state.log(id) else { return Err(ReadError::Closed) };
    let marks = log.watermarks();
    let from = from.max(marks.log_start);
    if from >= bound(marks, isolation) {
        return Ok(Candidate::None);
    }
    let first = begun_by(&log.sealed, from).saturating_sub(1);
    let sealed = &log.sealed[first..];
    let old = |sealed: &Sealed| sealed.max_timestamp.is_some_and(|max| max < timestamp);
    let in_sealed = from < log.tail[0].base();
    if let Some(at) = sealed.iter().position(|sealed| !old(sealed)).filter(|_| in_sealed) {
        let unknown =
            |sealed: &&Sealed| sealed.max_timestamp.is_none() && sealed.derived == Derived::Good;
        let bases: Vec<Offset> = sealed[at..]
            .iter()
            .take(SEALS_IN_FLIGHT)
            .take_while(unknown)
            .map(|sealed| sealed.base)
            .collect();
        if bases.is_empty() {
            return Ok(Candidate::Segment(sealed[at].base.max(from)));
        }
        return Ok(Candidate::Unknown(bases));
    }
    let ends = log.tail.iter().skip(1).map(Segment::base).chain([marks.dirty]);
    let mut tail = log.tail.iter().zip(ends);
    let found = tail.find(|(segment, end)| *end > from && segment.index.latest_ms() >= timestamp);
    Ok(found.map_or(Candidate::None, |(segment, _)| Candidate::Segment(segment.base().max(from))))
}

/// Searches one segment.
async fn search(
    cx: &Context,
    id: LogId,
    place: Place,
    (from, timestamp): (Offset, i64),
) -> Result<Option<Vec<u8>>, ReadError> {
    let (mut hint, place) = begin(cx, id, place, (from, timestamp)).await?;
    let before = hint.map_or(from, |(_, offset)| offset);
    // Of the two batches that are looked at as a rule, the second one as a whole.
    let want = (2 * scan_bytes(cx)).min(LOOKUP_READ_BYTES_MAX);
    let mut walk = Walk::new(cx, id, place, (before, want));
    loop {
        let next = walk.next().await?;
        let behind = next.is_none_or(|(extent, _)| hint.is_some_and(|hint| extent.last >= hint.1));
        if let Some((latest, offset)) = hint.take_if(|_| behind)
            && next.is_none_or(|(extent, header)| {
                extent.first > offset || header.max_timestamp != latest
            })
        {
            // No such batch: what the index says of those before it is worth nothing.
            lookup::doubt(cx, id, place.base);
            walk = Walk::new(cx, id, Place { pos: Pos::ZERO, ..place }, (from, want));
            continue;
        }
        let Some((extent, header)) = next else { return Ok(None) };
        if extent.last < from || header.max_timestamp < timestamp {
            continue;
        }
        let damaged = walk.damaged_at(extent.pos);
        let batch = walk.bytes(extent).await?;
        return validate_stored(batch).map(|_| Some(batch.to_vec())).map_err(|_| damaged);
    }
}

/// Where to begin in a segment, and the time index's entry that says so: a timestamp, and the offset of the first batch
/// that has it.
async fn begin(
    cx: &Context,
    id: LogId,
    place: Place,
    (from, timestamp): (Offset, i64),
) -> Result<(Option<(i64, Offset)>, Place), ReadError> {
    if place.source == Source::Tail {
        let mut state = cx.state.borrow_mut();
        let segment = state.segment(id, place.base).expect("nothing ran since it was located");
        let hint = segment.index.time_floor(timestamp).filter(|(_, offset)| *offset > from);
        let offset = hint.map_or(from, |(_, offset)| offset);
        return Ok((hint, Place { pos: segment.index.floor(offset), ..place }));
    }
    let place = known(cx, id, place).await?;
    let hint = lookup::time_floor(cx, id, place.base, timestamp).await?;
    // One before the beginning can not be held against its batch, and is not needed.
    let hint = hint.filter(|(_, offset)| *offset > from);
    let offset = hint.map_or(from, |(_, offset)| offset);
    Ok((hint, seek_by_index(cx, id, place, offset).await?))
}
