//! Lookups in the sparse indexes of sealed segments, by binary search through the cache of index blocks.
//!
//! An index is no evidence. Of what is read of it, each block must decode, grow and point into the segment; what it
//! leads to must be a batch that the entry can mean. In any doubt the segment is walked from its beginning, and the
//! indexes are written anew in the background.

use std::rc::Rc;

use crate::error::ReadError;
use crate::files::read_at;
use crate::format::index::{OFFSET_ENTRY_BYTES, OffsetEntry, TIME_ENTRY_BYTES, TimeEntry};
use crate::index::try_partition_point;
use crate::journal::LogId;
use crate::limits::INDEX_BLOCK_BYTES;
use crate::shard::lookup_cache::{Memo, Part};
use crate::shard::open_files::{Kind, Lease, open_kind};
use crate::shard::{Context, reseal};
use crate::types::{Offset, Pos};

use super::disk_error;

/// A sealed segment, as far as its index can be held against it.
#[derive(Clone, Copy, Debug)]
struct Target {
    base: Offset,
    /// Where the next segment begins.
    next: Offset,
    end: Option<Pos>,
}

/// `None` if there is no such sealed segment any more.
fn target(cx: &Context, id: LogId, base: Offset) -> Option<Target> {
    let mut state = cx.state.borrow_mut();
    let (sealed, next) = state.log(id)?.sealed_at(base)?;
    Some(Target { base, next, end: sealed.end })
}

/// One of the two indexes, by one of its keys.
trait Entry: Sized + Copy {
    const BYTES: usize;
    const KIND: Kind;
    /// Its place in [`Memo::Counts`].
    const AT: usize;
    fn part(block: u32) -> Part;
    fn decode(bytes: &[u8], previous: Option<Self>) -> Option<Self>;
    fn key(&self) -> i64;
    /// Whether the segment can have what it names.
    fn fits(&self, target: &Target) -> bool;
}

fn is_within(relative: u32, target: &Target) -> bool {
    target.base.plus(relative) < target.next
}

impl Entry for OffsetEntry {
    const BYTES: usize = OFFSET_ENTRY_BYTES;
    const KIND: Kind = Kind::Index;
    const AT: usize = 0;

    fn part(block: u32) -> Part {
        Part::Offsets(block)
    }

    fn decode(bytes: &[u8], previous: Option<Self>) -> Option<Self> {
        Self::decode(bytes.try_into().ok()?, previous)
    }

    fn key(&self) -> i64 {
        self.relative_offset.into()
    }

    fn fits(&self, target: &Target) -> bool {
        is_within(self.relative_offset, target) && target.end.is_none_or(|end| self.pos < end)
    }
}

/// The index by offset, gone through by position.
#[derive(Clone, Copy)]
struct ByPos(OffsetEntry);

impl Entry for ByPos {
    const BYTES: usize = OFFSET_ENTRY_BYTES;
    const KIND: Kind = Kind::Index;
    const AT: usize = 0;

    fn part(block: u32) -> Part {
        Part::Offsets(block)
    }

    fn decode(bytes: &[u8], previous: Option<Self>) -> Option<Self> {
        <OffsetEntry as Entry>::decode(bytes, previous.map(|it| it.0)).map(Self)
    }

    fn key(&self) -> i64 {
        self.0.pos.get() as i64
    }

    fn fits(&self, target: &Target) -> bool {
        self.0.fits(target)
    }
}

impl Entry for TimeEntry {
    const BYTES: usize = TIME_ENTRY_BYTES;
    const KIND: Kind = Kind::TimeIndex;
    const AT: usize = 1;

    fn part(block: u32) -> Part {
        Part::Times(block)
    }

    fn decode(bytes: &[u8], previous: Option<Self>) -> Option<Self> {
        Self::decode(bytes.try_into().ok()?, previous)
    }

    fn key(&self) -> i64 {
        self.timestamp
    }

    fn fits(&self, target: &Target) -> bool {
        is_within(self.relative_offset, target)
    }
}

/// What a search needs first.
#[derive(Clone, Copy, Debug)]
enum Miss {
    Counts,
    Block(u32),
}

const fn per_block<E: Entry>() -> u32 {
    (INDEX_BLOCK_BYTES / E::BYTES) as u32
}

/// An entry that says where a batch is.
trait Located: Entry {
    fn pos(&self) -> Pos;
}

impl Located for OffsetEntry {
    fn pos(&self) -> Pos {
        self.pos
    }
}

impl Located for ByPos {
    fn pos(&self) -> Pos {
        self.0.pos
    }
}

/// Which entry: of those in order of their keys, the last one that is not above a key, or the first one above it.
#[derive(Clone, Copy, Debug)]
enum Side {
    Before,
    Behind,
}

/// An entry by its key, by what the cache has.
fn search<E: Entry>(
    cx: &Context,
    id: LogId,
    base: Offset,
    (key, side): (i64, Side),
) -> Result<Option<E>, Miss> {
    let mut cache = cx.files.lookups();
    let Some(Memo::Counts(counts)) = cache.get((id, base), Part::Counts) else {
        return Err(Miss::Counts);
    };
    let count = counts[E::AT].unwrap_or(0);
    let mut last: Option<(u32, Rc<[u8]>)> = None;
    let mut entry = |at: u32| {
        let (block, inside) = (at / per_block::<E>(), (at % per_block::<E>()) as usize);
        if last.as_ref().is_none_or(|(last, _)| *last != block) {
            let Some(Memo::Block(bytes)) = cache.get((id, base), E::part(block)) else {
                return Err(Miss::Block(block));
            };
            last = Some((block, bytes));
        }
        let Some((_, bytes)) = &last else { unreachable!("it was just looked for") };
        // The file may have become shorter since its entries were counted.
        let bytes = bytes.get(inside * E::BYTES..).and_then(|bytes| bytes.get(..E::BYTES));
        let decoded = bytes.and_then(|bytes| E::decode(bytes, None));
        decoded.ok_or(Miss::Block(block))
    };
    // First among the blocks by their first entries, then in the last one that begins early enough.
    let block = try_partition_point(0..count.div_ceil(per_block::<E>()), |block| {
        Ok(entry(block * per_block::<E>())?.key() <= key)
    })?;
    let mut low = 0;
    if block > 0 {
        let inside = (block - 1) * per_block::<E>()..(block * per_block::<E>()).min(count);
        low = try_partition_point(inside, |at| Ok(entry(at)?.key() <= key))?;
    }
    let at = match side {
        Side::Before => low.checked_sub(1),
        Side::Behind => (low < count).then_some(low),
    };
    at.map(entry).transpose()
}

/// As [`search`], reading what the cache does not have. `None` also for an index that is of no use.
async fn find<E: Entry>(
    cx: &Context,
    id: LogId,
    base: Offset,
    asked: (i64, Side),
) -> Result<Option<E>, ReadError> {
    // Each round reads a block that the one before wanted; other lookups may push some out again meanwhile.
    for _ in 0..4 * u32::BITS {
        let miss = match search(cx, id, base, asked) {
            Ok(found) => return Ok(found),
            Err(miss) => miss,
        };
        let Some(target) = target(cx, id, base) else { return Ok(None) };
        let loaded = match miss {
            Miss::Counts => load_counts(cx, id, &target).await.map(|()| true),
            Miss::Block(block) => load::<E>(cx, id, &target, block).await,
        };
        match loaded {
            Ok(true) => {}
            // What can not be read is of no use, and no reason to fail: the segment itself shows the way.
            Err(ReadError::Disk(fault)) if !fault.may_pass() => break,
            Ok(false) => break,
            Err(error) => return Err(error),
        }
    }
    give_up(cx, id, base);
    Ok(None)
}

/// How many entries the indexes have, by their files' lengths.
async fn load_counts(cx: &Context, id: LogId, target: &Target) -> Result<(), ReadError> {
    let stamp = cx.files.lookups().stamp();
    let mut counts = [None; 2];
    for (count, (kind, bytes)) in counts
        .iter_mut()
        .zip([(Kind::Index, OFFSET_ENTRY_BYTES as u64), (Kind::TimeIndex, TIME_ENTRY_BYTES as u64)])
    {
        let Some(index) = open_kind(cx, id, (target.base, kind)).await? else { continue };
        let entries = u32::try_from(index.length() / bytes).ok();
        *count = entries.filter(|_| index.length().is_multiple_of(bytes));
        if kind == Kind::TimeIndex && !ends_as_sealed(cx, id, target.base, &index).await? {
            *count = None;
        }
    }
    cx.files.lookups().put((id, target.base), Part::Counts, (Memo::Counts(counts), stamp));
    if counts.contains(&None) {
        doubt(cx, id, target.base);
    }
    Ok(())
}

/// Whether the last entry of a time index has the segment's largest timestamp, as far as that is known: one that was
/// cut between two entries looks whole.
async fn ends_as_sealed(
    cx: &Context,
    id: LogId,
    base: Offset,
    index: &Lease,
) -> Result<bool, ReadError> {
    let sealed = cx.state.borrow_mut().log(id).and_then(|log| log.sealed_at(base).map(|it| *it.0));
    let Some(newest) = sealed.and_then(|sealed| sealed.max_timestamp) else { return Ok(true) };
    let Some(pos) = index.length().checked_sub(TIME_ENTRY_BYTES as u64) else {
        return Ok(newest < 0);
    };
    let read = read_at(&cx.disk, &cx.arena(), index.file(), pos, TIME_ENTRY_BYTES).await;
    let read = read.map_err(disk_error)?;
    let last = <TimeEntry as Entry>::decode(&read, None);
    Ok(last.is_some_and(|last| last.timestamp == newest))
}

/// Reads a block into the cache. `false` if it is none.
async fn load<E: Entry>(
    cx: &Context,
    id: LogId,
    target: &Target,
    block: u32,
) -> Result<bool, ReadError> {
    let stamp = cx.files.lookups().stamp();
    let Some(index) = open_kind(cx, id, (target.base, E::KIND)).await? else { return Ok(false) };
    let size = per_block::<E>() as usize * E::BYTES;
    let pos = u64::from(block) * size as u64;
    let bytes = read_at(&cx.disk, &cx.arena(), index.file(), pos, size).await;
    drop(index);
    let bytes = bytes.map_err(disk_error)?;
    let mut previous = None;
    for entry in bytes.chunks(E::BYTES) {
        let Some(entry) = E::decode(entry, previous).filter(|entry| entry.fits(target)) else {
            return Ok(false);
        };
        previous = Some(entry);
    }
    if previous.is_none() {
        return Ok(false);
    }
    let memo = Memo::Block(Rc::from(&bytes[..]));
    cx.files.lookups().put((id, target.base), E::part(block), (memo, stamp));
    Ok(true)
}

async fn pos<E: Located>(
    cx: &Context,
    id: LogId,
    base: Offset,
    asked: (i64, Side),
) -> Result<Option<Pos>, ReadError> {
    Ok(find::<E>(cx, id, base, asked).await?.map(|entry| entry.pos()))
}

/// The position of a batch of a sealed segment, at or before the one that holds `offset`.
///
/// # Errors
/// [`ReadError`] if nothing can be opened now; an index that can not be read is none.
pub(crate) async fn floor(
    cx: &Context,
    id: LogId,
    base: Offset,
    offset: Offset,
) -> Result<Pos, ReadError> {
    let relative = offset.get() - base.get();
    Ok(pos::<OffsetEntry>(cx, id, base, (relative, Side::Before)).await?.unwrap_or_default())
}

/// The first batch that a sealed segment's index has with a last offset of `offset` or above.
///
/// # Errors
/// As [`floor`].
pub(crate) async fn ceil(
    cx: &Context,
    id: LogId,
    base: Offset,
    offset: Offset,
) -> Result<Option<Pos>, ReadError> {
    let relative = offset.get() - base.get();
    pos::<OffsetEntry>(cx, id, base, (relative - 1, Side::Behind)).await
}

/// The last batch that a sealed segment's index has at `at` or before it; the segment's beginning if there is none.
///
/// # Errors
/// As [`floor`].
pub(crate) async fn floor_pos(
    cx: &Context,
    id: LogId,
    base: Offset,
    at: Pos,
) -> Result<Pos, ReadError> {
    Ok(pos::<ByPos>(cx, id, base, (at.get() as i64, Side::Before)).await?.unwrap_or_default())
}

/// The first batch that a sealed segment's index has behind `at`.
///
/// # Errors
/// As [`floor`].
pub(crate) async fn after(
    cx: &Context,
    id: LogId,
    base: Offset,
    at: Pos,
) -> Result<Option<Pos>, ReadError> {
    pos::<ByPos>(cx, id, base, (at.get() as i64, Side::Behind)).await
}

/// The largest timestamp not above `timestamp` that the index has, and an offset up to which all are not above it.
///
/// # Errors
/// As [`floor`].
pub(crate) async fn time_floor(
    cx: &Context,
    id: LogId,
    base: Offset,
    timestamp: i64,
) -> Result<Option<(i64, Offset)>, ReadError> {
    let entry = find::<TimeEntry>(cx, id, base, (timestamp, Side::Before)).await?;
    Ok(entry.map(|entry| (entry.timestamp, base.plus(entry.relative_offset))))
}

/// What an index led to can not be what it meant: it is written anew. Until then it is used as it is: what is wrong may
/// be the batch, and nothing but the index leads to what lies behind that.
pub(crate) fn doubt(cx: &Context, id: LogId, base: Offset) {
    reseal::rebuild(&mut cx.state.borrow_mut(), id, base);
}

/// Does without a sealed segment's indexes until they are written anew, which begins now.
fn give_up(cx: &Context, id: LogId, base: Offset) {
    {
        let mut lookups = cx.files.lookups();
        lookups.forget((id, base));
        let stamp = lookups.stamp();
        lookups.put((id, base), Part::Counts, (Memo::Counts([None; 2]), stamp));
    }
    doubt(cx, id, base);
}
