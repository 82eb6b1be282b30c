//! Cuts a log's end back, exactly across a crash.
//!
//! The order is the proof: all that stays is in its files and flushed; then the journal says that what it held of
//! the partition is void, and holds the image of the block that is about to be rewritten; then the files are
//! cut. Until then a crash finds the log as it was; from then on nothing that was cut can come back.

use std::io;

use crate::command::{Disk, FileHandle, Op, OpenMode};
use crate::defects::{self, Defect};
use crate::error::{ControlError, Fault};
use crate::files::{open, sync_directory};
use crate::format::names;
use crate::index::{Index, Indexed};
use crate::journal::{LogId, Reference};
use crate::log::Access;
use crate::log::keep::counts_as;
use crate::recovery::scan::{BatchScanner, Scanned};
use crate::segment::{Reopened, Segment};
use crate::types::{Offset, Pos};

use super::Context;
use super::attach::checkpoint_log;
use super::checkpoint::wait_for_forced;
use super::flush::until;
use super::groups::Forced;
use super::points;
use super::prepare::fence;
use super::seal::segment_files;
use super::state::{State, tell};

/// Cuts the log back to `offset`, where a batch begins.
pub(crate) async fn truncate(cx: &Context, id: LogId, offset: Offset) -> Result<(), ControlError> {
    begin(cx, id, offset)?;
    let cuts = |state: &mut State| state.log(id).map(|log| log.cuts);
    let before = cuts(&mut cx.state.borrow_mut());
    let result = run(cx, id, offset).await;
    if let Err(ControlError::Disk(fault)) = &result {
        // On a full disk the log stays as it was, unless the cut has begun.
        let begun = cuts(&mut cx.state.borrow_mut()) != before;
        if begun || !fault.may_pass() {
            fence(cx, id, *fault);
        }
    }
    let mut state = cx.state.borrow_mut();
    if let Some(log) = state.log(id)
        && log.access == Access::Cutting
    {
        log.access = Access::Open;
    }
    state.look_at(id);
    state.progress.notify();
    result
}

fn begin(cx: &Context, id: LogId, offset: Offset) -> Result<(), ControlError> {
    let mut state = cx.state.borrow_mut();
    let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
    match log.access {
        Access::Open | Access::Full => {}
        Access::Cutting => return Err(ControlError::Busy),
        Access::Fenced(_) | Access::Damaged => return Err(ControlError::ReadOnly),
    }
    let marks = log.watermarks();
    if offset < marks.log_start || offset > marks.dirty {
        let (start, end) = (marks.log_start, marks.dirty);
        return Err(ControlError::OutOfRange { asked: offset, start, end });
    }
    log.access = Access::Cutting;
    Ok(())
}

async fn run(cx: &Context, id: LogId, offset: Offset) -> Result<(), ControlError> {
    let io = |error: io::Error| ControlError::Disk(Fault::new("truncating", &error));
    checkpoint_log(cx, id).await?;
    quiesce(cx, id, false).await?;
    let (base, dir) = {
        let mut state = cx.state.borrow_mut();
        let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
        let marks = log.watermarks();
        if offset < marks.log_start {
            // Deleted meanwhile.
            let (start, end) = (marks.log_start, marks.dirty);
            return Err(ControlError::OutOfRange { asked: offset, start, end });
        }
        if offset == log.watermarks().dirty {
            return Ok(());
        }
        let bases = log
            .sealed
            .iter()
            .map(|s| s.base)
            .chain(log.tail.iter().map(super::super::segment::Segment::base));
        let base = bases.rev().find(|base| *base <= offset).unwrap_or(offset);
        (base, log.identity.dir.clone())
    };
    let direct = cx.state.borrow().settings.direct;
    let path = dir.join(names::segment(base));
    let mode = OpenMode { direct, ..OpenMode::default() };
    let file = open(&cx.disk, &path, mode).await.map_err(io)?;
    let Some((index, cut)) = find(cx, file, (base, offset)).await.map_err(io)? else {
        cx.disk.run(Op::Close { file }).await.map_err(io)?;
        let mut state = cx.state.borrow_mut();
        let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
        let marks = log.watermarks();
        let (start, end) = (marks.log_start, marks.dirty);
        return Err(ControlError::OutOfRange { asked: offset, start, end });
    };
    lower_point(cx, id, offset).await?;
    let segment = replace(cx, id, (base, offset), (index, cut, file)).await?;
    void_journal(cx, id, base, cut).await?;
    set_aside(cx, &dir, segment).await.map_err(io)?;
    rewrite(cx, id, base, (file, cut)).await.map_err(io)
}

/// Waits until nothing of the log is on its way and, with `alone`, nobody reads its files.
async fn quiesce(cx: &Context, id: LogId, alone: bool) -> Result<(), ControlError> {
    let alone = alone && !defects::is(Defect::CutUnderReaders);
    until(cx, id, |state| {
        state.log(id).is_none_or(|log| {
            log.writes_in_flight == 0
                && (log.readers == 0 || !alone)
                && !log.flushing
                && log.keep.is_idle()
                && !log.pointing
                && log.waiting() == 0
                && log.tail.len() == 1
                && log.tail.iter().all(|s| !s.preparing && s.is_flushed())
        })
    })
    .await
}

/// While it is there, fetches that begin wait.
struct Bar<'a>(&'a Context, LogId);

impl<'a> Bar<'a> {
    fn begin(cx: &'a Context, id: LogId) -> Self {
        let bar = Self(cx, id);
        bar.set(true);
        bar
    }

    fn set(&self, barred: bool) {
        let mut state = self.0.state.borrow_mut();
        if let Some(log) = state.log(self.1) {
            log.barred = barred;
        }
        state.progress.notify();
    }
}

impl Drop for Bar<'_> {
    fn drop(&mut self) {
        self.set(false);
    }
}

/// Walks the segment to the batch that begins at `offset`. `None` if none does.
async fn find(
    cx: &Context,
    file: FileHandle,
    (base, offset): (Offset, Offset),
) -> io::Result<Option<(Index, Pos)>> {
    let length = cx.disk.run(Op::Length { file }).await?.into_length();
    let interval = cx.state.borrow().settings.shape.index_interval;
    let mut index = Index::new(base, interval);
    let arena = cx.arena();
    let mut scanner = BatchScanner::new(&cx.disk, &arena, file, 0, length);
    let (mut end, mut next) = (0, base);
    while let Scanned::Batch(pos, header) = scanner.next().await? {
        let Some((first, last)) = header.offsets() else { break };
        if first >= offset {
            scanner.finish().await;
            // Offsets that compaction took away belong to no batch.
            return Ok((next <= offset).then_some((index, Pos::new(pos))));
        }
        let bytes = header.batch_bytes() as u32;
        let max_timestamp = header.max_timestamp;
        index.push(Indexed { last, pos: Pos::new(pos), bytes, max_timestamp });
        end = pos + u64::from(bytes);
        next = last.plus(1);
    }
    scanner.finish().await;
    // The offset is where the next segment begins, or behind what compaction left.
    Ok((next <= offset).then_some((index, Pos::new(end))))
}

/// The recovery point comes down before anything is cut: recovery must not look behind the new end.
async fn lower_point(cx: &Context, id: LogId, offset: Offset) -> Result<(), ControlError> {
    {
        let mut state = cx.state.borrow_mut();
        let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
        log.recovery_point = log.recovery_point.min(offset);
        cx.points.set(log.identity.name.clone(), log.recovery_point);
        cx.points.lower_cleaned(&log.identity.name, offset);
        log.keep.cleaned = log.keep.cleaned.min(offset);
    }
    points::persist(cx).await.map_err(ControlError::Disk)
}

/// Puts a segment that ends at the cut in the tail's place. Returns the bases of those that come after it.
async fn replace(
    cx: &Context,
    id: LogId,
    (base, offset): (Offset, Offset),
    (index, cut, file): (Index, Pos, FileHandle),
) -> Result<Vec<Offset>, ControlError> {
    let block = cx.state.borrow().settings.shape.block;
    let was = Reopened { end: cut, prepared: cut.ceil(block) };
    let newest_ms = counts_as(index.latest_ms(), cx.state.borrow().time.wall_ms);
    let mut segment = Segment::reopen(base, block, index, was);
    segment.entry_durable = true;
    segment.newest_ms = newest_ms;
    segment.file = Some(file);
    // Space is not prepared before the cut is done, and the journal keeps the image.
    segment.preparing = true;
    segment.rewriting = true;
    let start = cut.floor(block);
    if start < cut {
        let arena = cx.arena();
        let io = |error| ControlError::Disk(Fault::new("reading the new tail", &error));
        let read = crate::files::read_at(&cx.disk, &arena, file, start.get(), block as usize);
        let tail = read.await.map_err(io)?;
        let no_memory = || io(io::Error::from_raw_os_error(libc::ENOMEM));
        let bytes = cut.since(start) as usize;
        segment.window.reserve(&arena, bytes).map_err(|_| no_memory())?;
        segment.window.append(&tail[..bytes]);
    }
    // Reads and checkpoints may have begun meanwhile: nothing runs between this look and the exchange. There is an end
    // to the reads, because those that begin now wait.
    let bar = Bar::begin(cx, id);
    quiesce(cx, id, true).await?;
    let (later, closing) = {
        let mut state = cx.state.borrow_mut();
        let inbox = state.inbox.clone();
        let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
        let closing: Vec<FileHandle> = log.tail.iter().filter_map(|s| s.file).collect();
        let bases = log
            .sealed
            .iter()
            .map(|s| s.base)
            .chain(log.tail.iter().map(super::super::segment::Segment::base));
        let later: Vec<Offset> = bases.filter(|later| *later > base).collect();
        log.sealed.retain(|sealed| sealed.base < base);
        log.tail.clear();
        log.cuts += 1;
        log.tail.push_back(segment);
        log.cut(offset, |ended| tell(&inbox, ended));
        // What stays is flushed, what goes is void: no group is needed for either.
        state.journal.void(id);
        state.files_open = state.files_open + 1 - closing.len();
        state.note_moved(id);
        (later, closing)
    };
    for base in later.iter().chain([&base]) {
        cx.files.forget(id, *base);
    }
    drop(bar);
    for file in closing {
        drop(cx.disk.run(Op::Close { file }).await);
    }
    Ok(later)
}

/// Voids what the journal holds of the partition, and has it hold the image of the new tail's block.
async fn void_journal(cx: &Context, id: LogId, base: Offset, cut: Pos) -> Result<(), ControlError> {
    let last = {
        let mut state = cx.state.borrow_mut();
        let block = state.settings.shape.block;
        let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
        let incarnation = log.identity.incarnation;
        let mut last = state.force(Forced::Ignore(incarnation));
        let start = cut.floor(block);
        if start < cut {
            let image = Reference { log: id, segment: base, start, end: cut, claims: false };
            last = state.force(Forced::Carry(image));
        }
        last
    };
    if wait_for_forced(cx, last).await {
        return Ok(());
    }
    let fault = cx.state.borrow().journal.fault();
    Err(fault.map_or(ControlError::ReadOnly, ControlError::Disk))
}

/// Renames the segments behind the cut, durably, then removes them.
async fn set_aside(cx: &Context, dir: &std::path::Path, later: Vec<Offset>) -> io::Result<()> {
    let mut gone = Vec::new();
    // From the last one backwards: whatever a crash leaves is without a gap.
    for base in later.into_iter().rev() {
        for from in segment_files(dir, base) {
            let to = dir.join(format!(
                "{}{}",
                from.file_name().unwrap_or_default().to_string_lossy(),
                names::DELETED
            ));
            match cx.disk.run(Op::Rename { from, to: to.clone() }).await {
                Ok(_) => gone.push(to),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        sync_directory(&cx.disk, dir.to_path_buf()).await?;
    }
    for path in gone {
        cx.disk.run(Op::Unlink { path }).await?;
    }
    Ok(())
}

/// Cuts the file, zeroes the rest of its last block, and flushes.
async fn rewrite(
    cx: &Context,
    id: LogId,
    base: Offset,
    (file, cut): (FileHandle, Pos),
) -> io::Result<()> {
    let (block, dir) = {
        let mut state = cx.state.borrow_mut();
        let block = state.settings.shape.block;
        let Some(log) = state.log(id) else { return Ok(()) };
        (block, log.identity.dir.clone())
    };
    for derived in segment_files(&dir, base).into_iter().skip(1) {
        match cx.disk.run(Op::Unlink { path: derived }).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    // A seal of what is about to be cut would call that damage.
    sync_directory(&cx.disk, dir.clone()).await?;
    let end = cut.ceil(block);
    cx.disk.run(Op::Truncate { file, len: end.get() }).await?;
    cx.disk.run(Op::Sync { file, data_only: false }).await?;
    let start = cut.floor(block);
    if start < cut {
        let data = {
            let mut state = cx.state.borrow_mut();
            let mut chunk = crate::files::memory(&state.arena, block as usize);
            let Some(segment) = state.segment(id, base) else { return Ok(()) };
            segment.window.visit(start, cut, |bytes| chunk.append(bytes));
            chunk.append_zeros(block as usize - chunk.len());
            chunk.slice(0..block as usize)
        };
        cx.disk.run(Op::Write { file, pos: start.get(), data, durable: false }).await?;
        cx.disk.run(Op::Sync { file, data_only: false }).await?;
    }
    sync_directory(&cx.disk, dir).await?;
    let mut state = cx.state.borrow_mut();
    if let Some(segment) = state.segment(id, base) {
        segment.preparing = false;
        segment.rewriting = false;
    }
    Ok(())
}
