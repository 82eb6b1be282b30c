//! Puts a compacted segment in the place of those it was made of, exactly across a crash. The protocol, and what each
//! step leaves behind, stands in `docs/format.md` 2.5 and `docs/durability.md` 5.6.

use std::io;
use std::path::{Path, PathBuf};

use crate::command::{Disk, FileHandle, Op, OpenMode};
use crate::compaction::Part;
use crate::defects::{self, Defect};
use crate::error::{ControlError, Fault};
use crate::files::{memory, open, sync_directory, write_small};
use crate::format::batch_header::BatchHeader;
use crate::format::crc::crc32c_append;
use crate::format::names;
use crate::format::seal::Seal;
use crate::index::{Index, Indexed};
use crate::journal::LogId;
use crate::limits::{KEEP_RETRY_NS, REMOVE_ATTEMPTS_MAX};
use crate::log::{Derived, Sealed};
use crate::types::{Incarnation, Offset, Pos};

use super::Context;
use super::attach::Filing;
use super::keep::Moving;
use super::prepare::fence;
use super::remove::{Remains, remove};

fn writing(error: &io::Error) -> ControlError {
    ControlError::Disk(Fault::new("writing a compacted segment", error))
}

/// A compacted segment that is being written.
pub(super) struct Output {
    cx: Context,
    dir: PathBuf,
    incarnation: Incarnation,
    base: Offset,
    next: Offset,
    newest_ms: i64,
    file: FileHandle,
    buffer: Vec<u8>,
    /// Bytes of the buffer that the index knows.
    noted: usize,
    written: u64,
    crc: u32,
    index: Index,
}

/// A compacted segment, whole and flushed, and not in its place yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    end: Pos,
    newest_ms: i64,
    max_timestamp: i64,
}

impl Output {
    pub(super) async fn begin(
        cx: &Context,
        id: LogId,
        group: &[Part],
    ) -> Result<Self, ControlError> {
        let (first, last) = (group[0], group[group.len() - 1]);
        let (dir, incarnation, mode, interval) = {
            let mut state = cx.state.borrow_mut();
            let mode =
                OpenMode { create: true, direct: state.settings.direct, ..OpenMode::default() };
            let interval = state.settings.shape.index_interval;
            let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
            (log.identity.dir.clone(), log.identity.incarnation, mode, interval)
        };
        let path = dir.join(names::segment(first.base) + names::CLEANING);
        let file = open(&cx.disk, &path, mode).await.map_err(|e| writing(&e))?;
        let newest_ms = group.iter().map(|part| part.newest_ms).max().unwrap_or_default();
        let output = Self {
            cx: cx.clone(),
            dir,
            incarnation,
            base: first.base,
            next: last.next,
            newest_ms,
            file,
            buffer: Vec::new(),
            noted: 0,
            written: 0,
            crc: 0,
            index: Index::new(first.base, interval),
        };
        // One that failed may have left something.
        match cx.disk.run(Op::Truncate { file, len: 0 }).await {
            Ok(_) => Ok(output),
            Err(error) => {
                output.abandon().await;
                Err(writing(&error))
            }
        }
    }

    /// Where the next batch goes; [`Output::take`] follows.
    pub(super) fn room(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Takes what was put into the room: one batch, or nothing.
    pub(super) async fn take(&mut self) -> Result<(), ControlError> {
        let new = &self.buffer[self.noted..];
        if let Ok(header) = BatchHeader::decode(new) {
            let (_, last) = header.offsets().expect("a batch that stays keeps its offsets");
            let pos = Pos::new(self.written + self.noted as u64);
            let bytes = new.len() as u32;
            let max_timestamp = header.max_timestamp;
            self.index.push(Indexed { last, pos, bytes, max_timestamp });
            self.crc = crc32c_append(self.crc, new);
        }
        self.noted = self.buffer.len();
        if self.written + self.noted as u64 > i32::MAX as u64 {
            // What stays compresses worse than it came; no index reaches further.
            let errno = libc::EFBIG;
            let fault = Fault { operation: "writing a compacted segment", errno };
            return Err(ControlError::Disk(fault));
        }
        while self.buffer.len() >= crate::buffers::CHUNK_BYTES_MAX {
            self.write(crate::buffers::CHUNK_BYTES_MAX).await?;
        }
        Ok(())
    }

    /// Writes the buffer's first bytes, padded to a block.
    async fn write(&mut self, bytes: usize) -> Result<(), ControlError> {
        let block = self.cx.state.borrow().settings.shape.block as usize;
        let padded = bytes.next_multiple_of(block);
        let mut chunk = memory(&self.cx.arena(), padded);
        chunk.append(&self.buffer[..bytes]);
        chunk.append_zeros(padded - bytes);
        let data = chunk.slice(0..padded);
        let op = Op::Write { file: self.file, pos: self.written, data, durable: false };
        self.cx.disk.run(op).await.map_err(|e| writing(&e))?;
        self.buffer.drain(..bytes);
        self.noted -= bytes;
        self.written += bytes as u64;
        Ok(())
    }

    /// Writes the rest and what belongs to it, and flushes all of it.
    pub(super) async fn finish(mut self) -> Result<Written, ControlError> {
        match self.complete().await {
            Ok(written) => Ok(written),
            Err(error) => {
                self.abandon().await;
                Err(error)
            }
        }
    }

    async fn complete(&mut self) -> Result<Written, ControlError> {
        if !self.buffer.is_empty() {
            self.write(self.buffer.len()).await?;
        }
        let (file, end) = (self.file, Pos::new(self.written));
        let disk = &self.cx.disk;
        disk.run(Op::Truncate { file, len: end.get() }).await.map_err(|e| writing(&e))?;
        if !defects::is(Defect::SwapBeforeFlush) {
            disk.run(Op::Sync { file, data_only: false }).await.map_err(|e| writing(&e))?;
        }
        self.index.finish();
        let (offsets, times) = self.index.encode();
        let seal = Seal {
            incarnation: self.incarnation,
            base_offset: self.base,
            next_offset: self.next,
            length: end,
            crc: self.crc,
            newest_ms: self.newest_ms,
            compacted: true,
            max_timestamp: self.index.latest_ms(),
        };
        let [index, time_index, sealed] =
            derived(self.base).map(|name| self.dir.join(name + names::SWAP));
        let arena = self.cx.arena();
        for (path, bytes) in
            [(index, &offsets[..]), (time_index, &times[..]), (sealed, &seal.encode()[..])]
        {
            write_small(disk, &arena, path, bytes).await.map_err(|e| writing(&e))?;
        }
        sync_directory(disk, self.dir.clone()).await.map_err(|e| writing(&e))?;
        // Flushed: a failed close loses nothing.
        drop(disk.run(Op::Close { file }).await);
        Ok(Written { end, newest_ms: self.newest_ms, max_timestamp: seal.max_timestamp })
    }

    /// Removes what was written; what can not be removed, the next opening removes.
    pub(super) async fn abandon(self) {
        drop(self.cx.disk.run(Op::Close { file: self.file }).await);
        discard(&self.cx, &self.dir, self.base).await;
    }
}

async fn discard(cx: &Context, dir: &Path, base: Offset) {
    let log = names::segment(base) + names::CLEANING;
    for name in derived(base).map(|name| name + names::SWAP).into_iter().chain([log]) {
        drop(cx.disk.run(Op::Unlink { path: dir.join(name) }).await);
    }
}

fn derived(base: Offset) -> [String; 3] {
    [names::index(base), names::time_index(base), names::seal(base)]
}

/// Has the new segment take the place of the group. Returns its length in bytes.
pub(super) async fn swap(
    cx: &Context,
    id: LogId,
    group: &[Part],
    new: Written,
) -> Result<u64, ControlError> {
    let base = group[0].base;
    let found = {
        let mut state = cx.state.borrow_mut();
        state.log(id).map(|log| log.identity.dir.clone())
    };
    let Some(dir) = found else { return Err(ControlError::Closed) };
    let moving = match begin(cx, id, group).await {
        Ok(moving) => moving,
        Err(error) => {
            discard(cx, &dir, base).await;
            return Err(error);
        }
    };
    commit(cx, id, &dir, base).await?;
    turn(cx, id);
    let swapped = place(cx, id, &dir, group).await;
    let done = swapped.is_ok();
    if done {
        exchange(cx, id, group, new);
    }
    turn(cx, id);
    drop(moving);
    for (base, remains) in swapped? {
        drop(cx.tasks.spawn(remove(cx.clone(), (id, base), remains)));
    }
    Ok(new.end.get())
}

/// The right to swap, if all of the group is still there.
async fn begin(cx: &Context, id: LogId, group: &[Part]) -> Result<Moving, ControlError> {
    let moving = Moving::begin(cx, id).await?;
    let mut state = cx.state.borrow_mut();
    let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
    let at = log.sealed.partition_point(|sealed| sealed.base < group[0].base);
    let bases = log.sealed.iter().skip(at).map(|sealed| sealed.base);
    // Retention was faster.
    if !bases.take(group.len()).eq(group.iter().map(|part| part.base)) {
        return Err(ControlError::Busy);
    }
    drop(state);
    Ok(moving)
}

/// A swap begins, or has ended: whoever reads sealed segments begins anew.
fn turn(cx: &Context, id: LogId) {
    let mut state = cx.state.borrow_mut();
    if let Some(log) = state.log(id) {
        log.keep.swaps = log.keep.swaps.wrapping_add(1);
    }
    state.progress.notify();
}

/// Makes the swap certain.
async fn commit(cx: &Context, id: LogId, dir: &Path, base: Offset) -> Result<(), ControlError> {
    let segment = dir.join(names::segment(base));
    let (from, to) = (behind(&segment, names::CLEANING), behind(&segment, names::SWAP));
    let committed = async {
        cx.disk.run(Op::Rename { from, to: to.clone() }).await?;
        sync_directory(&cx.disk, dir.to_path_buf()).await
    };
    let Err(error) = committed.await else { return Ok(()) };
    // Whether the next opening would complete it is not known: it must not, once the log has gone on.
    let undone = async {
        match cx.disk.run(Op::Unlink { path: to }).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        sync_directory(&cx.disk, dir.to_path_buf()).await
    };
    match undone.await {
        Ok(()) => discard(cx, dir, base).await,
        // The next opening may complete it after all: it must find what belongs to it.
        Err(error) => fence(cx, id, Fault::new("undoing a swap", &error)),
    }
    Err(ControlError::Disk(Fault::new("swapping a compacted segment", &error)))
}

fn behind(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Carries a certain swap out. Returns what is left of the old segments.
async fn place(
    cx: &Context,
    id: LogId,
    dir: &Path,
    group: &[Part],
) -> Result<Vec<(Offset, Remains)>, ControlError> {
    let base = group[0].base;
    // A segment that is just being sealed again must not get its seal behind this.
    let _filing = Filing::begin(cx, id).await?;
    let old = open(&cx.disk, &dir.join(names::segment(base)), OpenMode::default()).await;
    let mut attempt = 1;
    let failed = loop {
        let Err(error) = rename_all(cx, dir, group, attempt).await else { break None };
        if attempt == REMOVE_ATTEMPTS_MAX {
            break Some(Fault::new("completing a swap", &error));
        }
        attempt += 1;
        let now = cx.state.borrow().time.ns;
        cx.tasks.sleep_until(now + KEEP_RETRY_NS).await;
    };
    if let Some(fault) = failed {
        // It can not be undone any more. The next opening completes it; until then nothing may build on what is there.
        fence(cx, id, fault);
        leave_alone(cx, id, group);
        if let Ok(file) = old {
            drop(cx.disk.run(Op::Close { file }).await);
        }
        return Err(ControlError::Disk(fault));
    }
    let mut remains: Vec<(Offset, Remains)> =
        old.into_iter().map(|file| (base, Remains::Open(file))).collect();
    for part in &group[1..] {
        let aside = dir.join(names::segment(part.base) + names::DELETED);
        remains.push((part.base, Remains::Named(aside)));
    }
    Ok(remains)
}

/// Has nobody write indexes or a seal of the old segments any more, not even one who is at it: names that the new one
/// has taken, or will take at the next opening, which knows it by its seal.
fn leave_alone(cx: &Context, id: LogId, group: &[Part]) {
    let mut state = cx.state.borrow_mut();
    let Some(log) = state.log(id) else { return };
    let swaps = log.keep.swaps;
    for part in group {
        if let Some((sealed, _)) = log.sealed_at(part.base) {
            (sealed.derived, sealed.swapped) = (Derived::Hopeless, swaps);
        }
        cx.files.lookups().forget((id, part.base));
    }
}

/// Every step may have been done by an attempt before.
async fn rename_all(cx: &Context, dir: &Path, group: &[Part], attempt: u32) -> io::Result<()> {
    let base = group[0].base;
    let rename = |from: String, to: String| async move {
        passing(cx.disk.run(Op::Rename { from: dir.join(from), to: dir.join(to) }).await)
    };
    for name in derived(base) {
        rename(name.clone() + names::SWAP, name).await?;
    }
    for part in &group[1..] {
        for name in derived(part.base) {
            passing(cx.disk.run(Op::Unlink { path: dir.join(name) }).await)?;
        }
        let name = names::segment(part.base);
        rename(name.clone(), name + names::DELETED).await?;
    }
    sync_directory(&cx.disk, dir.to_path_buf()).await?;
    let to = dir.join(names::segment(base));
    let renamed = cx.disk.run(Op::Rename { from: behind(&to, names::SWAP), to }).await;
    if attempt == 1 {
        renamed?;
    } else {
        passing(renamed)?;
    }
    sync_directory(&cx.disk, dir.to_path_buf()).await
}

fn passing<T>(result: io::Result<T>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The log has the new segment instead of the group.
fn exchange(cx: &Context, id: LogId, group: &[Part], new: Written) {
    {
        let mut state = cx.state.borrow_mut();
        let Some(log) = state.log(id) else { return };
        let at = log.sealed.partition_point(|sealed| sealed.base < group[0].base);
        let Written { end, newest_ms, max_timestamp } = new;
        let sealed = Sealed::with_seal(group[0].base, end, max_timestamp, newest_ms);
        let sealed = Sealed { swapped: log.keep.swaps, ..sealed };
        log.sealed.splice(at..at + group.len(), [sealed]);
    }
    for part in group {
        cx.files.forget(id, part.base);
    }
}
