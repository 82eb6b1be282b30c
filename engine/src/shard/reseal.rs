//! Writes what is derived from a sealed segment anew: indexes and seal of one that has none, or whose indexes are in
//! doubt.

use std::io;
use std::path::{Path, PathBuf};

use crate::command::{Disk, FileHandle, Op, OpenMode};
use crate::files::{open, read_small, sync_directory, write_small};
use crate::format::crc::crc32c_append;
use crate::format::fixed::FixedError;
use crate::format::names;
use crate::format::seal::Seal;
use crate::index::{Index, Indexed};
use crate::journal::LogId;
use crate::log::keep::counts_as;
use crate::log::{Derived, Sealed};
use crate::recovery::scan::{BatchScanner, Scanned};
use crate::types::{Offset, Pos};

use super::Context;
use super::attach::Filing;
use super::read::Reader;
use super::state::{Errand, State};

/// Has what is derived from a sealed segment written anew, unless that is under way or was in vain.
pub(crate) fn rebuild(state: &mut State, id: LogId, base: Offset) {
    let Some(log) = state.log(id) else { return };
    let Some((sealed, _)) = log.sealed_at(base) else { return };
    if sealed.derived == Derived::Good {
        sealed.derived = Derived::Rebuilding;
        state.errands.push_back(Errand::Reseal(id, base));
    }
}

/// Reads a sealed segment as a whole, and writes its indexes and its seal.
pub(crate) async fn reseal(cx: Context, id: LogId, base: Offset) {
    let _permit = cx.resealers.acquire().await;
    // Until it is done nothing is truncated: what is sealed here must not become active meanwhile.
    let _reader = Reader::new(&cx, id);
    let Some(job) = begin(&cx, id, base) else { return };
    // Failing costs a slower lookup and a later check: the log itself is whole.
    let written = job.run(&cx, id).await.ok().flatten();
    cx.files.forget(id, base);
    let mut state = cx.state.borrow_mut();
    let Some((sealed, _)) = state.log(id).and_then(|log| log.sealed_at(base)) else { return };
    if sealed.swapped != job.swapped {
        return;
    }
    match written {
        Some(seal) => {
            let was = Sealed::with_seal(base, seal.length, seal.max_timestamp, seal.newest_ms);
            *sealed = Sealed { swapped: sealed.swapped, ..was };
        }
        None => sealed.derived = Derived::Hopeless,
    }
}

struct Job {
    dir: PathBuf,
    direct: bool,
    interval: u32,
    /// Where the segment's data ends, if that is known.
    end: Option<Pos>,
    /// Compaction may put another one in its place meanwhile, which has what belongs to it.
    swapped: u32,
    /// Compaction has gone over it: the journal may speak of other bytes at its places.
    cleaned: bool,
    /// The seal to be, as far as the log knows it.
    blank: Seal,
}

fn begin(cx: &Context, id: LogId, base_offset: Offset) -> Option<Job> {
    let mut state = cx.state.borrow_mut();
    let (direct, interval) = (state.settings.direct, state.settings.shape.index_interval);
    let log = state.log(id)?;
    let (dir, incarnation) = (log.identity.dir.clone(), log.identity.incarnation);
    // A truncation may have taken it away, or made it the active one.
    let cleaned = log.keep.cleaned;
    let (sealed, next_offset) = log.sealed_at(base_offset)?;
    if sealed.derived == Derived::Hopeless {
        return None;
    }
    let blank = Seal {
        incarnation,
        base_offset,
        next_offset,
        length: Pos::ZERO,
        crc: 0,
        newest_ms: 0,
        compacted: false,
        max_timestamp: -1,
    };
    let (end, swapped, cleaned) = (sealed.end, sealed.swapped, next_offset <= cleaned);
    Some(Job { dir, direct, interval, end, swapped, cleaned, blank })
}

impl Job {
    /// The seal that was written; `None` if the segment is damaged, or not what was sealed.
    async fn run(&self, cx: &Context, id: LogId) -> io::Result<Option<Seal>> {
        let base = self.blank.base_offset;
        let path = self.dir.join(names::seal(base));
        let was = match read_small(&cx.disk, &cx.arena(), &path).await? {
            Some(bytes) => match Seal::decode(&bytes) {
                Err(FixedError::NewerVersion { .. }) => return Ok(None),
                seal => seal.ok(),
            },
            None => None,
        };
        let (incarnation, next) = (self.blank.incarnation, self.blank.next_offset);
        let was = was.filter(|seal| seal.check(incarnation, (base, next)).is_ok());
        let path = self.dir.join(names::segment(base));
        let mode = OpenMode { direct: self.direct, ..OpenMode::default() };
        let file = open(&cx.disk, &path, mode).await?;
        let surveyed = self.survey(cx, file, was).await;
        cx.disk.run(Op::Close { file }).await?;
        let Some((seal, index)) = surveyed? else { return Ok(None) };
        // A deletion may have begun to set its files aside, or a compaction to put others there.
        let Ok(_filing) = Filing::begin(cx, id).await else { return Ok(None) };
        let now = begin(cx, id, base);
        if now.is_none_or(|now| (now.swapped, now.blank) != (self.swapped, self.blank)) {
            return Ok(None);
        }
        write(cx, &self.dir, (seal, index)).await?;
        Ok(Some(seal))
    }

    /// Reads the segment, and cuts the file to its data. `None` if it is not whole, or not what was sealed.
    async fn survey(
        &self,
        cx: &Context,
        file: FileHandle,
        was: Option<Seal>,
    ) -> io::Result<Option<(Seal, Index)>> {
        let length = cx.disk.run(Op::Length { file }).await?.into_length();
        let Seal { base_offset: base, next_offset: next, .. } = self.blank;
        let mut index = Index::new(base, self.interval);
        let mut scanner = BatchScanner::new(&cx.disk, &cx.arena(), file, 0, length);
        let (mut crc, mut end, mut after) = (0, 0, base);
        while let Scanned::Batch(pos, header) = scanner.next().await? {
            let Some((first, last)) = header.offsets() else { break };
            if first < after || first >= next {
                break;
            }
            after = last.plus(1);
            crc = crc32c_append(crc, scanner.last(&header));
            end = pos + header.batch_bytes() as u64;
            let bytes = header.batch_bytes() as u32;
            let max_timestamp = header.max_timestamp;
            index.push(Indexed { last, pos: Pos::new(pos), bytes, max_timestamp });
        }
        scanner.finish().await;
        index.finish();
        let max_timestamp = index.latest_ms();
        let now_ms = cx.state.borrow().time.wall_ms;
        let (newest_ms, compacted) = match was {
            Some(was) => (was.newest_ms, was.compacted),
            // When it was appended is not known; not later than now.
            None => (counts_as(max_timestamp, now_ms), self.cleaned),
        };
        let length_now = Pos::new(end);
        let seal =
            Seal { length: length_now, crc, newest_ms, compacted, max_timestamp, ..self.blank };
        // Rot that recovery did not look at, or another segment's bytes: nothing is cut, nothing sealed.
        if self.end.map_or(length, Pos::get) != end || was.is_some_and(|was| was != seal) {
            return Ok(None);
        }
        cx.disk.run(Op::Truncate { file, len: end }).await?;
        cx.disk.run(Op::Sync { file, data_only: false }).await?;
        Ok(Some((seal, index)))
    }
}

async fn write(cx: &Context, dir: &Path, (seal, index): (Seal, Index)) -> io::Result<()> {
    let base = seal.base_offset;
    let arena = cx.arena();
    let (offsets, times) = index.encode();
    write_small(&cx.disk, &arena, dir.join(names::index(base)), &offsets).await?;
    write_small(&cx.disk, &arena, dir.join(names::time_index(base)), &times).await?;
    write_small(&cx.disk, &arena, dir.join(names::seal(base)), &seal.encode()).await?;
    sync_directory(&cx.disk, dir.to_path_buf()).await
}
