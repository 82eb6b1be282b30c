//! Makes segment files and readies their space ahead of the bytes, so that an append is a pure overwrite and a
//! full disk is found before anything is acknowledged.

use std::cell::Cell;
use std::path::PathBuf;

use crate::buffers::CHUNK_BYTES_MAX;
use crate::command::{Disk, FileHandle, Op, OpenMode};
use crate::error::{AppendError, ControlError, Fault};
use crate::files::{sync_directory, write_small};
use crate::format::names;
use crate::journal::LogId;
use crate::limits::{
    FULL_RETRY_NS, PREPARE_AHEAD_MS, PREPARE_BYTES_MAX, PREPARE_BYTES_MIN, PREPARE_BYTES_SHARED,
    PREPARE_FIRST_BYTES_MAX, PREZERO_BYTES_AT_ONCE, PREZERO_BYTES_PER_MS_MIN, PREZERO_LOOK_NS,
    PREZERO_WRITES_IN_FLIGHT,
};
use crate::log::{Access, Shape};
use crate::segment::Segment;
use crate::types::{Offset, Pos, Prepare};

use super::Context;
use super::flush::until;
use super::idle::make_room;
use super::state::{State, tell};
use crate::local::{Permit, join_bounded};

/// How much is readied next: as much again as there is, within bounds.
fn next_bytes(segment: &Segment) -> u64 {
    segment.prepared.get().clamp(segment.first_bytes, PREPARE_BYTES_MAX)
}

/// How much is to be ready ahead of the bytes: half of what there is, within bounds.
fn ahead_bytes(segment: &Segment) -> u64 {
    (segment.prepared.get() / 2).clamp(segment.first_bytes / 2, PREPARE_BYTES_MAX)
}

/// Whether less than a quarter of what is to be ready ahead of the bytes is, with space ready up to `ready`.
fn runs_short(segment: &Segment, ready: u64) -> bool {
    ready < segment.end().get() + ahead_bytes(segment) / 4
}

/// Up to where a segment's space is to be ready: ahead of its bytes, while more come, and not behind its end.
fn wanted(prepare: Prepare, shape: Shape, segment: &Segment) -> u64 {
    let end = segment.end().ceil(shape.block).get();
    let limit = shape.segment_bytes.next_multiple_of(shape.block);
    let no_more = segment.rolled || prepare == Prepare::None;
    let ahead = if no_more { 0 } else { ahead_bytes(segment) };
    (end + ahead).min(limit).max(end).max(segment.prepare_goal.get())
}

/// Whether more space is to be readied for a segment, and nobody does so.
pub(super) fn is_wanting(prepare: Prepare, shape: Shape, segment: &Segment) -> bool {
    !segment.preparing
        && (segment.file.is_none() || wanted(prepare, shape, segment) > segment.prepared.get())
}

/// How much space the segment after one of `bytes`, filled in `ms`, gets at first: what flows in the time that
/// readying takes, so that a busy partition does not begin small again with each roll. Acks wait for it: no more
/// than they can bear.
pub(crate) fn first_bytes(bytes: u64, ms: i64) -> u64 {
    let per_ms = bytes / ms.max(1) as u64;
    let wanted = (per_ms * PREPARE_AHEAD_MS).next_power_of_two();
    wanted.clamp(PREPARE_BYTES_MIN, PREPARE_FIRST_BYTES_MAX)
}

/// What is to be readied next.
enum Job {
    Open(PathBuf),
    Extend { file: FileHandle, from: Pos, to: Pos },
    Nothing,
}

/// Opens the segment's file and readies space until there is enough ahead of its bytes.
pub(crate) async fn prepare(cx: Context, id: LogId, base: Offset) {
    loop {
        let result = match next_job(&cx, id, base) {
            Job::Nothing => break,
            Job::Open(path) => {
                if follow(&cx, id, base).await.is_err() {
                    break;
                }
                open(&cx, id, base, path).await
            }
            Job::Extend { .. } => extend(&cx, id, base).await,
        };
        if let Err(fault) = result {
            if !fault.may_pass() {
                fence(&cx, id, fault);
                break;
            }
            wait_for_space(&cx, id, fault).await;
        } else {
            let mut state = cx.state.borrow_mut();
            if let Some(log) = state.log(id)
                && log.access == Access::Full
            {
                log.access = Access::Open;
            }
            state.look_at(id);
            state.progress.notify();
        }
        let mut state = cx.state.borrow_mut();
        if state.closing || state.log(id).is_none_or(|log| log.deleting) {
            break;
        }
    }
    let mut state = cx.state.borrow_mut();
    if let Some(segment) = state.segment(id, base) {
        segment.preparing = false;
    }
    state.look_at(id);
    state.progress.notify();
}

/// The disk is full: what is not on its way is taken back, and appends are refused until a retry succeeds. While
/// there are too many open files, appends only wait.
async fn wait_for_space(cx: &Context, id: LogId, fault: Fault) {
    let inbox = cx.state.borrow().inbox.clone();
    if let Some(log) = cx.state.borrow_mut().log(id) {
        log.stalled = true;
        if matches!(log.access, Access::Open | Access::Full) && fault.is_full() {
            log.access = Access::Full;
            log.take_back(&AppendError::DiskFull, |ended| tell(&inbox, ended));
        }
    }
    cx.state.borrow_mut().note_moved(id);
    let now = cx.state.borrow().time.ns;
    cx.tasks.sleep_until(now + FULL_RETRY_NS).await;
    if let Some(log) = cx.state.borrow_mut().log(id) {
        log.stalled = false;
    }
}

/// Replaces a small file of a partition, as soon as there is space for it on the disk. Nothing but a longer recovery
/// depends on it, so that the partition goes on meanwhile.
pub(crate) async fn write_when_space(
    cx: &Context,
    id: LogId,
    path: PathBuf,
    bytes: &[u8],
) -> Result<(), Fault> {
    loop {
        let written = write_small(&cx.disk, &cx.arena(), path.clone(), bytes).await;
        let Err(error) = written else { return Ok(()) };
        wait_for_retry(cx, id, Fault::new("writing an index", &error)).await?;
    }
}

/// Waits a while if the fault may pass by itself; else, and if nobody would wait for that, gives it back.
pub(crate) async fn wait_for_retry(cx: &Context, id: LogId, fault: Fault) -> Result<(), Fault> {
    let now = {
        let mut state = cx.state.borrow_mut();
        let given_up = state.closing || state.log(id).is_none_or(|log| log.deleting);
        if !fault.may_pass() || given_up {
            return Err(fault);
        }
        state.time.ns
    };
    cx.tasks.sleep_until(now + FULL_RETRY_NS).await;
    Ok(())
}

fn next_job(cx: &Context, id: LogId, base: Offset) -> Job {
    let mut state = cx.state.borrow_mut();
    let (how, shape) = (state.settings.prepare, state.settings.shape);
    let Some(log) = state.log(id) else { return Job::Nothing };
    let writable = !matches!(log.access, Access::Fenced(_) | Access::Damaged);
    let path = log.identity.dir.join(names::segment(base));
    let Some(segment) = log.segment(base) else { return Job::Nothing };
    let Some(file) = segment.file else { return Job::Open(path) };
    if !writable {
        // Opened to be read.
        return Job::Nothing;
    }
    let end = segment.end().ceil(shape.block);
    let limit = shape.segment_bytes.next_multiple_of(shape.block);
    let wanted = wanted(how, shape, segment);
    if how == Prepare::None {
        segment.prepared = segment.prepared.max(Pos::new(limit)).max(end);
        return Job::Nothing;
    }
    if segment.prepared.get() >= wanted {
        return Job::Nothing;
    }
    let from = segment.prepared.floor(shape.block);
    let to = (from.get() + next_bytes(segment)).max(wanted).min(limit.max(end.get()));
    let to = to.min(from.get() + PREPARE_BYTES_MAX);
    Job::Extend { file, from, to: Pos::new(to).ceil(shape.block) }
}

/// Waits until the files of all segments before this one are there for good: a crash must not leave a segment, and
/// take the one in front of it.
async fn follow(cx: &Context, id: LogId, base: Offset) -> Result<(), ControlError> {
    until(cx, id, |state| {
        let Some(log) = state.log(id) else { return true };
        log.tail.iter().take_while(|segment| segment.base() < base).all(|s| s.entry_durable)
    })
    .await
}

async fn open(cx: &Context, id: LogId, base: Offset, path: PathBuf) -> Result<(), Fault> {
    make_room(cx).await;
    let direct = cx.state.borrow().settings.direct;
    let mode = OpenMode { create: true, direct, ..OpenMode::default() };
    let opened = cx.disk.run(Op::Open { path, mode }).await;
    let file = opened.map_err(|e| Fault::new("opening a segment", &e))?.into_file();
    let dir = {
        let mut state = cx.state.borrow_mut();
        let Some(log) = state.log(id) else { return Ok(()) };
        let dir = log.identity.dir.clone();
        let Some(segment) = log.segment(base) else { return Ok(()) };
        segment.file = Some(file);
        let dir = (!segment.entry_durable).then_some(dir);
        state.files_open += 1;
        dir
    };
    if let Some(dir) = dir {
        // Bytes flow meanwhile; their acks wait.
        let cx2 = cx.clone();
        let _runs_on = cx.tasks.spawn(async move {
            let synced = sync_directory(&cx2.disk, dir).await;
            match synced {
                Ok(()) => {
                    let mut state = cx2.state.borrow_mut();
                    if let Some(segment) = state.segment(id, base) {
                        segment.entry_durable = true;
                    }
                    state.settle(id);
                    state.progress.notify();
                }
                Err(error) => fence(&cx2, id, Fault::new("flushing a directory", &error)),
            }
        });
    }
    Ok(())
}

async fn extend(cx: &Context, id: LogId, base: Offset) -> Result<(), Fault> {
    let _permit = cx.preparers.acquire().await;
    // What is needed now: the queue may have been long.
    let Job::Extend { file, from, to } = next_job(cx, id, base) else { return Ok(()) };
    let len = to.since(from);
    let (how, zeros) = {
        let state = cx.state.borrow();
        (state.settings.prepare, state.zeros.clone())
    };
    let allocated = cx.disk.run(Op::Allocate { file, pos: from.get(), len }).await;
    match allocated {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
        other => drop(other.map_err(|e| Fault::new("reserving space", &e))?),
    }
    let reached = Cell::new(to);
    if how == Prepare::Prezero {
        reached.set(from);
        let pace = Pace::new(cx, (id, base), (from, to));
        let chunks = (from.get()..to.get()).step_by(CHUNK_BYTES_MAX);
        let writes = chunks.take_while(|&pos| !pace.is_over(pos)).map(|pos| {
            let bytes = (to.get() - pos).min(CHUNK_BYTES_MAX as u64) as usize;
            let data = zeros.slice(0..bytes);
            reached.set(Pos::new(pos + bytes as u64));
            let pace = &pace;
            async move {
                pace.wait(pos).await;
                let _turn = pace.turn().await;
                cx.disk.run(Op::Write { file, pos, data, durable: false }).await
            }
        });
        for written in join_bounded(PREZERO_WRITES_IN_FLIGHT, writes).await {
            written.map_err(|e| Fault::new("zeroing space", &e))?;
        }
    }
    // Now, so that a later flush of data alone finds the extents and the length on stable storage.
    let synced = cx.disk.run(Op::Sync { file, data_only: true }).await;
    synced.map_err(|e| Fault::new("flushing prepared space", &e))?;
    let mut state = cx.state.borrow_mut();
    let to = reached.get();
    state.stats.prepared_bytes += to.since(from);
    if let Some(segment) = state.segment(id, base) {
        segment.prepared = segment.prepared.max(to);
    }
    Ok(())
}

/// How fast zeros are written: by the bytes that come to the segment, so that they are there before they are needed, or
/// at a least rate if that is faster; and with no bound if somebody waits for them to end. Written as fast as the disk
/// takes them, they delay every flush meanwhile.
struct Pace<'a> {
    cx: &'a Context,
    segment: (LogId, Offset),
    from: u64,
    bytes: u64,
    begun_ns: u64,
    /// The segment's end when it began.
    end: u64,
}

impl<'a> Pace<'a> {
    fn new(cx: &'a Context, segment: (LogId, Offset), (from, to): (Pos, Pos)) -> Self {
        let mut state = cx.state.borrow_mut();
        let begun_ns = state.time.ns;
        let end = state.segment(segment.0, segment.1).map_or(0, |it| it.end().get());
        Self { cx, segment, from: from.get(), bytes: to.since(from), begun_ns, end }
    }

    /// Waits until what begins at `pos` is due.
    async fn wait(&self, pos: u64) {
        while self.due().is_some_and(|due| due < pos - self.from) {
            let now = self.cx.state.borrow().time.ns;
            self.cx.tasks.sleep_until(now + PREZERO_LOOK_NS).await;
        }
    }

    /// Whether others get their turn before what begins at `pos` is written. Many fill at the same pace, and want space
    /// at the same time: nobody's is to run out while another gets much.
    fn is_over(&self, pos: u64) -> bool {
        let mut state = self.cx.state.borrow_mut();
        let Some(segment) = state.segment(self.segment.0, self.segment.1) else { return false };
        let enough = pos - self.from >= PREPARE_BYTES_SHARED && !runs_short(segment, pos);
        enough && self.cx.preparers.is_awaited()
    }

    /// Waits for its turn to write, where many segments want zeros; not if they are urgent now.
    async fn turn(&self) -> Option<Permit> {
        let many = self.cx.preparers.is_awaited();
        let urgent = self.is_urgent(&mut self.cx.state.borrow_mut());
        if many && !urgent { Some(self.cx.zeroers.acquire().await) } else { None }
    }

    /// How many bytes are due by now; `None` if all are.
    fn due(&self) -> Option<u64> {
        let mut state = self.cx.state.borrow_mut();
        if self.cx.preparers.is_awaited() || self.is_urgent(&mut state) {
            return None;
        }
        // All of it is to be written when three quarters of what was ready before are used up.
        let ready = self.from.saturating_sub(self.end) / 4 * 3;
        let now_ns = state.time.ns;
        let end = state.segment(self.segment.0, self.segment.1)?.end().get();
        let by_bytes = end.saturating_sub(self.end).saturating_mul(self.bytes) / ready.max(1);
        let by_time = (now_ns - self.begun_ns) / 1_000_000 * PREZERO_BYTES_PER_MS_MIN;
        Some(by_bytes.max(by_time) + PREZERO_BYTES_AT_ONCE)
    }

    /// Whether somebody waits for these zeros to end, or will soon.
    fn is_urgent(&self, state: &mut State) -> bool {
        let (id, base) = self.segment;
        if state.closing {
            return true;
        }
        let Some(log) = state.log(id) else { return true };
        let open = log.access == Access::Open;
        let Some(segment) = log.segment(base) else { return true };
        // A truncation, a deletion and a seal wait for it, and who asked for space.
        !open
            || segment.rolled
            || segment.prepare_goal > segment.prepared
            || runs_short(segment, self.from)
    }
}

/// Closes a log after a fault, and tells its clients.
pub(crate) fn fence(cx: &Context, id: LogId, fault: Fault) {
    let mut state = cx.state.borrow_mut();
    let inbox = state.inbox.clone();
    if let Some(log) = state.log(id) {
        log.fence(fault, |ended| tell(&inbox, ended));
    }
    state.stats.faults += 1;
    state.progress.notify();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_segment_begins_with_what_flows_while_it_is_readied_within_bounds() {
        assert_eq!(first_bytes(1, 1000), PREPARE_BYTES_MIN);
        let (bytes, ms) = (256 << 20, 60_000);
        let flows = bytes / ms * PREPARE_AHEAD_MS;
        let first = first_bytes(bytes, ms as i64);
        assert!((flows..2 * flows).contains(&first), "{first} of {flows}");
        assert_eq!(first_bytes(1 << 30, 1000), PREPARE_FIRST_BYTES_MAX, "acks wait for it");
    }
}
