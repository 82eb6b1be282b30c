//! Finishes rolled segments, one of a log after the other: all bytes into the file, flushed, the file cut to its data,
//! indexes and seal beside it.

use std::path::PathBuf;

use crate::command::{Disk, Op};
use crate::error::{ControlError, Fault};
use crate::format::crc::crc32c_append;
use crate::format::names;
use crate::format::seal::Seal;
use crate::journal::LogId;
use crate::local::{Notified, join_bounded};
use crate::log::{Log, Mark, Sealed};
use crate::recovery::scan::FileReader;
use crate::segment::Segment;
use crate::types::{Offset, Pos};

use super::Context;
use super::attach::Filing;
use super::flush::{count_flush, until};
use super::points::save_epochs;
use super::prepare::{fence, wait_for_retry, write_when_space};
use super::state::Errand;
use crate::files::sync_directory;

/// Seals the segments that the log has rolled past, until there is none. A log has one such procedure at a time: they
/// would wait for each other, and be woken by each other's every step.
pub(crate) async fn seal(cx: Context, id: LogId) {
    while let Some(base) = begin_next(&cx, id) {
        if let Err(ControlError::Disk(fault)) = try_seal(&cx, id, base).await {
            let deleting = cx.state.borrow_mut().log(id).is_none_or(|log| log.deleting);
            if !(deleting && fault.may_pass()) {
                fence(&cx, id, fault);
            }
        }
    }
}

/// The first segment that the log has rolled past and nobody has begun to seal. Each is begun once. With none the
/// procedure is over.
fn begin_next(cx: &Context, id: LogId) -> Option<Offset> {
    let mut state = cx.state.borrow_mut();
    // An append may wait until the one before was sealed.
    state.starved_free = None;
    state.progress.notify();
    let log = state.log(id)?;
    let next = log.tail.iter_mut().find(|segment| segment.rolled && !segment.seal_begun);
    log.sealing = next.is_some();
    let segment = next?;
    segment.seal_begun = true;
    Some(segment.base())
}

async fn try_seal(cx: &Context, id: LogId, base: Offset) -> Result<(), ControlError> {
    finish_bytes(cx, id, base).await?;
    // A recovery point under way writes the same index.
    until(cx, id, |state| state.log(id).is_none_or(|log| !log.pointing)).await?;
    let crc = whole_crc(cx, id, base).await?;
    let (file, end, dir, (indexes, seal)) = {
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
        let max_timestamp = segment.index.latest_ms();
        let seal = Seal {
            incarnation,
            base_offset,
            next_offset,
            length,
            crc,
            newest_ms,
            compacted,
            max_timestamp,
        };
        let indexes =
            [(dir.join(names::index(base)), offsets), (dir.join(names::time_index(base)), times)];
        (file, end, dir, (indexes, seal.encode()))
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
    let both = indexes
        .into_iter()
        .map(|(path, bytes)| async move { write_when_space(cx, id, path, &bytes).await });
    for written in join_bounded(2, both).await {
        written.map_err(ControlError::Disk)?;
    }
    let path = dir.join(names::seal(base));
    write_when_space(cx, id, path, &seal).await.map_err(ControlError::Disk)?;
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
    at.and_then(|at| log.tail.get(at + 1)).map_or(log.watermarks().dirty, Segment::base)
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
            let (end, newest_ms) = (segment.end(), segment.newest_ms);
            let max_timestamp = segment.index.latest_ms();
            log.sealed.push(Sealed::with_seal(segment.base(), end, max_timestamp, newest_ms));
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
