//! Finishes a rolled segment: all bytes into the file, flushed, the file cut to its data, indexes and seal beside
//! it.

use std::path::PathBuf;

use crate::command::{Disk, Op, OpenMode};
use crate::error::{ControlError, Fault};
use crate::format::crc::crc32c_append;
use crate::format::names;
use crate::format::seal::Seal;
use crate::index::{Index, Indexed};
use crate::journal::LogId;
use crate::local::Notified;
use crate::log::keep::counts_as;
use crate::log::{Log, Mark, Sealed};
use crate::recovery::scan::{BatchScanner, FileReader, Scanned};
use crate::types::{Offset, Pos};

use super::Context;
use super::attach::Filing;
use super::flush::{count_flush, until};
use super::points::save_epochs;
use super::prepare::{fence, wait_for_retry, write_when_space};
use super::read::Reader;
use super::state::Errand;
use crate::files::{open, sync_directory, write_small};

/// Seals a segment the log has rolled past.
pub(crate) async fn seal(cx: Context, id: LogId, base: Offset) {
    if let Err(ControlError::Disk(fault)) = try_seal(&cx, id, base).await {
        let deleting = cx.state.borrow_mut().log(id).is_none_or(|log| log.deleting);
        if !(deleting && fault.may_pass()) {
            fence(&cx, id, fault);
        }
    }
    let mut state = cx.state.borrow_mut();
    if let Some(log) = state.log(id) {
        log.sealing -= 1;
    }
    state.progress.notify();
}

async fn try_seal(cx: &Context, id: LogId, base: Offset) -> Result<(), ControlError> {
    finish_bytes(cx, id, base).await?;
    // A recovery point under way writes the same index.
    until(cx, id, |state| state.log(id).is_none_or(|log| !log.pointing)).await?;
    let crc = whole_crc(cx, id, base).await?;
    let (file, end, dir, files) = {
        let mut state = cx.state.borrow_mut();
        let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
        let dir = log.identity.dir.clone();
        let incarnation = log.identity.incarnation;
        let next = following(log, base);
        let Some(segment) = log.segment(base) else { return Ok(()) };
        let Some(file) = segment.file else { unreachable!("a written segment is open") };
        let (end, newest_ms) = (segment.end(), segment.newest_ms);
        let (offsets, times) = segment.index.encode();
        let (base_offset, next_offset, length) = (base, next, end);
        let compacted = false;
        let seal =
            Seal { incarnation, base_offset, next_offset, length, crc, newest_ms, compacted };
        let files = [
            (dir.join(names::index(base)), offsets),
            (dir.join(names::time_index(base)), times),
            (dir.join(names::seal(base)), seal.encode().to_vec()),
        ];
        (file, end, dir, files)
    };
    let io = |operation: &'static str| {
        move |error: std::io::Error| ControlError::Disk(Fault::new(operation, &error))
    };
    // Space that is still being prepared would make the file longer again.
    until(cx, id, |state| state.segment(id, base).is_none_or(|s| !s.preparing)).await?;
    let _filing = Filing::begin(cx, id).await?;
    let cut = Op::Truncate { file, len: end.get() };
    cx.disk.run(cut).await.map_err(io("cutting a segment to its data"))?;
    cx.disk.run(Op::Sync { file, data_only: false }).await.map_err(io("flushing a segment"))?;
    // The recovery point is about to pass it: what recovery does not scan must be in a file.
    epochs_when_space(cx, id).await.map_err(ControlError::Disk)?;
    for (path, bytes) in files {
        write_when_space(cx, id, path, &bytes).await.map_err(ControlError::Disk)?;
    }
    sync_directory(&cx.disk, dir).await.map_err(io("flushing a directory"))?;
    retire(cx, id, base).await;
    Ok(())
}

/// Writes the leader epochs, as soon as there is space for them.
async fn epochs_when_space(cx: &Context, id: LogId) -> Result<(), Fault> {
    loop {
        let Err(fault) = save_epochs(cx, id).await else { return Ok(()) };
        wait_for_retry(cx, id, fault).await?;
    }
}

/// The checksum of the whole file: kept while it was appended to, or read back if the segment was reopened.
async fn whole_crc(cx: &Context, id: LogId, base: Offset) -> Result<u32, ControlError> {
    let (file, end) = {
        let mut state = cx.state.borrow_mut();
        let Some(segment) = state.segment(id, base) else { return Err(ControlError::Closed) };
        if let Some(crc) = segment.crc() {
            return Ok(crc);
        }
        let Some(file) = segment.file else { unreachable!("a written segment is open") };
        (file, segment.end().get())
    };
    let mut crc = 0;
    let mut left = end;
    let arena = cx.arena();
    let mut reader = FileReader::new(&cx.disk, &arena, file, 0, end);
    let read = |error: std::io::Error| ControlError::Disk(Fault::new("reading a segment", &error));
    loop {
        let chunk = match reader.next().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => break,
            Err(error) => {
                reader.finish().await;
                return Err(read(error));
            }
        };
        let part = &chunk[..chunk.len().min(left as usize)];
        crc = crc32c_append(crc, part);
        left -= part.len() as u64;
    }
    Ok(crc)
}

fn following(log: &Log, base: Offset) -> Offset {
    let at = log.tail.iter().position(|segment| segment.base() == base);
    at.and_then(|at| log.tail.get(at + 1))
        .map_or(log.watermarks().dirty, super::super::segment::Segment::base)
}

/// Waits until every byte is in the file, and the file open, then flushes.
async fn finish_bytes(cx: &Context, id: LogId, base: Offset) -> Result<(), ControlError> {
    let mut last = Pos::ZERO;
    loop {
        until(cx, id, |state| {
            let Some(segment) = state.segment(id, base) else { return true };
            // An idle partition's file may have been closed before it was rolled: it is opened again.
            let written = segment.written.done() == segment.end();
            if written && segment.written.unfinished() == 0 && segment.file.is_some() {
                return true;
            }
            if segment.may_pad() && segment.file.is_some() {
                state.write_tail(id, base, true);
            } else {
                state.look_at(id);
            }
            false
        })
        .await?;
        let (file, reached, done) = {
            let mut state = cx.state.borrow_mut();
            let Some(segment) = state.segment(id, base) else { return Ok(()) };
            let Some(file) = segment.file else { unreachable!("a written segment is open") };
            (file, segment.flushable(), segment.is_flushed())
        };
        if done {
            break;
        }
        assert!(reached > last, "each flush of a sealed segment reaches further");
        last = reached;
        let synced = cx.disk.run(Op::Sync { file, data_only: true }).await;
        if let Err(error) = synced {
            return Err(ControlError::Disk(Fault::new("flushing a segment", &error)));
        }
        cx.state.borrow_mut().stats.flushes += 1;
        count_flush(cx, id, (base, reached))?;
    }
    // The appends into it are acknowledged only with its directory entry.
    until(cx, id, |state| state.segment(id, base).is_none_or(|s| s.entry_durable)).await
}

/// Takes sealed segments out of the tail, front first.
async fn retire(cx: &Context, id: LogId, base: Offset) {
    if let Some(segment) = cx.state.borrow_mut().segment(id, base) {
        segment.sealed = true;
    }
    while let Some(progress) = retire_front(cx, id).await {
        progress.await;
    }
}

/// As [`retire`]; what ends the flush of the next one, if one is under way: its file stays open for that.
async fn retire_front(cx: &Context, id: LogId) -> Option<Notified> {
    let mut closing = Vec::new();
    let mut point = None;
    let busy = {
        let mut state = cx.state.borrow_mut();
        let log = state.log(id)?;
        let front = |log: &mut Log| log.tail.len() > 1 && log.tail[0].sealed;
        while front(log) && log.tail[0].syncing == 0 {
            let Some(segment) = log.tail.pop_front() else { break };
            closing.extend(segment.file);
            let (end, newest_ms) = (Some(segment.end()), Some(segment.newest_ms));
            log.sealed.push(Sealed { base: segment.base(), end, newest_ms, swapped: 0 });
            // It was opened to be read while it was longer than its data.
            cx.files.forget(id, segment.base());
            // Not the active one: segments between may be rolled and not flushed.
            point = Some((log.identity.name.clone(), log.tail[0].base()));
        }
        let busy = front(log);
        let keeps = log.keep.wants_looks() && point.is_some();
        if let Some((_, offset)) = &point {
            log.recovery_point = *offset;
            log.raise_durable(Mark { offset: *offset, segment: *offset, pos: Pos::ZERO });
        }
        state.files_open -= closing.len();
        if keeps {
            state.errand(Errand::Keep(id));
        }
        state.settle(id);
        state.progress.notify();
        busy.then(|| state.progress.notified())
    };
    for file in closing {
        // Flushed already; nothing can be lost by a failed close.
        drop(cx.disk.run(Op::Close { file }).await);
    }
    if let Some((name, offset)) = point {
        cx.points.set(name, offset);
    }
    busy
}

/// Paths of a segment's files.
pub(crate) fn segment_files(dir: &std::path::Path, base: Offset) -> [PathBuf; 4] {
    [
        dir.join(names::segment(base)),
        dir.join(names::index(base)),
        dir.join(names::time_index(base)),
        dir.join(names::seal(base)),
    ]
}

/// Writes what is derived from a sealed segment that a crash left without: indexes and seal.
pub(crate) async fn reseal(cx: Context, id: LogId, base: Offset) {
    let _permit = cx.resealers.acquire().await;
    // Until it is done nothing is truncated: what is sealed here must not become active meanwhile.
    let _reader = Reader::new(&cx, id);
    // Failing costs a slower lookup and a later check: the log itself is whole.
    drop(try_reseal(&cx, id, base).await);
}

async fn try_reseal(cx: &Context, id: LogId, base: Offset) -> std::io::Result<()> {
    let (dir, incarnation, direct, interval, next, known) = {
        let mut state = cx.state.borrow_mut();
        let (direct, shape) = (state.settings.direct, state.settings.shape);
        let Some(log) = state.log(id) else { return Ok(()) };
        let sealed = log.sealed.iter().find(|sealed| sealed.base == base);
        // A truncation took it away, or made it the active one.
        let Some(known) = sealed.map(|sealed| sealed.end) else { return Ok(()) };
        let at = log.sealed.partition_point(|sealed| sealed.base <= base);
        let next = log.sealed.get(at).map_or(log.tail[0].base(), |next| next.base);
        let (dir, incarnation) = (log.identity.dir.clone(), log.identity.incarnation);
        (dir, incarnation, direct, shape.index_interval, next, known)
    };
    let path = dir.join(names::segment(base));
    let arena = cx.arena();
    let file = open(&cx.disk, &path, OpenMode { direct, ..OpenMode::default() }).await?;
    let length = cx.disk.run(Op::Length { file }).await?.into_length();
    let mut index = Index::new(base, interval);
    let mut scanner = BatchScanner::new(&cx.disk, &arena, file, 0, length);
    let (mut crc, mut end) = (0, 0);
    while let Scanned::Batch(pos, header) = scanner.next().await? {
        let Some((first, last)) = header.offsets() else { break };
        if first >= next {
            break;
        }
        crc = crc32c_append(crc, scanner.last(&header));
        end = pos + header.batch_bytes() as u64;
        let bytes = header.batch_bytes() as u32;
        let max_timestamp = header.max_timestamp;
        index.push(Indexed { last, pos: Pos::new(pos), bytes, max_timestamp });
    }
    scanner.finish().await;
    index.finish();
    // Rot below the recovery point, which recovery did not look at: nothing is cut, nothing sealed.
    if known.map_or(length, Pos::get) != end {
        return cx.disk.run(Op::Close { file }).await.map(drop);
    }
    cx.disk.run(Op::Truncate { file, len: end }).await?;
    cx.disk.run(Op::Sync { file, data_only: false }).await?;
    cx.disk.run(Op::Close { file }).await?;
    let (offsets, times) = index.encode();
    // When it was appended is not known; not later than now.
    let newest_ms = counts_as(index.latest_ms(), cx.state.borrow().time.wall_ms);
    let (base_offset, next_offset, length) = (base, next, Pos::new(end));
    let compacted = false;
    let seal = Seal { incarnation, base_offset, next_offset, length, crc, newest_ms, compacted };
    // A deletion may have begun to set its files aside.
    let Ok(_filing) = Filing::begin(cx, id).await else { return Ok(()) };
    {
        let mut state = cx.state.borrow_mut();
        let Some(log) = state.log(id) else { return Ok(()) };
        let Some(sealed) = log.sealed.iter_mut().find(|sealed| sealed.base == base) else {
            return Ok(());
        };
        (sealed.end, sealed.newest_ms) = (Some(length), Some(newest_ms));
    }
    write_small(&cx.disk, &arena, dir.join(names::index(base)), &offsets).await?;
    write_small(&cx.disk, &arena, dir.join(names::time_index(base)), &times).await?;
    write_small(&cx.disk, &arena, dir.join(names::seal(base)), &seal.encode()).await?;
    cx.files.forget(id, base);
    sync_directory(&cx.disk, dir).await
}
