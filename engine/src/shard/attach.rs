//! Opens and makes a shard's partitions, and closes them cleanly.

use std::path::Path;

use crate::command::{Disk, Op, OpenMode};
use crate::error::{ControlError, Fault, OpenError};
use crate::files::{open, read_at, read_small, sync_directory, write_small};
use crate::format::meta::PartitionMeta;
use crate::format::{names, retention};
use crate::index::Index;
use crate::journal::LogId;
use crate::local::join_bounded;
use crate::log::keep::{Keep, counts_as};
use crate::log::plan::Purpose;
use crate::log::{Access, Identity, Log, Sealed};
use crate::recovery::{Active, Recovered, write_partition_meta};
use crate::segment::{Reopened, Segment};
use crate::types::{FlushPolicy, Incarnation, Offset, PartitionName, Pos, Retention};

use super::Context;
use super::flush::{count_flush, flush, until};
use super::keep;
use super::points::{self, save_epochs};
use super::read::Syncing;
use super::reseal;
use super::scrub;
use super::state::{Errand, State};

/// A partition by name, and its log on this shard.
pub(crate) type Named = Result<(PartitionName, LogId), OpenError>;

/// Takes over recovered partitions, many at once.
pub(crate) async fn attach_all(
    cx: Context,
    share: Vec<Recovered>,
    policy: FlushPolicy,
) -> Vec<Named> {
    let jobs = share.into_iter().map(|recovered| {
        let cx = cx.clone();
        async move {
            let name = recovered.identity.name.clone();
            attach(&cx, recovered, policy).await.map(|log| (name, log))
        }
    });
    let attached = join_bounded(crate::limits::RECOVERY_READERS_MAX, jobs).await;
    scrub::begin(&cx);
    attached
}

/// Makes partitions, many at once.
pub(crate) async fn create_all(
    cx: Context,
    share: Vec<(PartitionName, Incarnation)>,
    policy: FlushPolicy,
) -> Vec<Named> {
    let jobs = share.into_iter().map(|(name, incarnation)| {
        let cx = cx.clone();
        async move { create(&cx, &name, incarnation, policy).await.map(|log| (name, log)) }
    });
    join_bounded(crate::limits::CREATIONS_IN_FLIGHT, jobs).await
}

/// Takes over a recovered partition.
pub(crate) async fn attach(
    cx: &Context,
    mut recovered: Recovered,
    policy: FlushPolicy,
) -> Result<LogId, OpenError> {
    let dir = recovered.identity.dir.clone();
    let opened = reopen(cx, &recovered).await.map_err(|e| OpenError::io(&dir, "opening", e))?;
    let segment = opened.unwrap_or_else(|| roll_over(cx, &mut recovered));
    let own = own_retention(cx, &dir).await?;
    let (id, rolled) = {
        let mut state = cx.state.borrow_mut();
        let id = LogId(state.logs.len() as u32);
        let identity = Identity { id, ..recovered.identity };
        let shape = state.settings.shape;
        let default = state.settings.retention;
        let bounds = (recovered.log_start, recovered.next);
        let mut log = Log::new(identity, shape, policy, (recovered.sealed, segment), bounds);
        log.restore_epochs(recovered.epochs);
        log.keep = Keep {
            retention: own.unwrap_or(default),
            own: own.is_some(),
            compacted: recovered.compacted,
            cleaned: recovered.cleaned.unwrap_or_default(),
            stale: recovered.stale,
            ..Keep::default()
        };
        if recovered.damage.is_some() || recovered.suspect {
            log.access = Access::Damaged;
        }
        state.writes_plain |= policy != FlushPolicy::Group;
        state.logs.push(Some(Box::new(log)));
        (id, recovered.unsealed)
    };
    for base in rolled {
        // Its content is in the file for good; what is missing is only derived from it.
        reseal::rebuild(&mut cx.state.borrow_mut(), id, base);
    }
    keep::wake(cx, id);
    Ok(id)
}

/// What is kept of the partition, if that was set for it alone.
async fn own_retention(cx: &Context, dir: &Path) -> Result<Option<Retention>, OpenError> {
    let path = dir.join(names::RETENTION);
    let read = read_small(&cx.disk, &cx.arena(), &path).await;
    let Some(bytes) = read.map_err(|e| OpenError::io(&path, "reading", e))? else {
        return Ok(None);
    };
    // The default might delete what was to be kept.
    let decoded = retention::decode(&bytes);
    decoded.map(Some).map_err(|error| crate::recovery::fixed(&path, error))
}

/// More partitions than there is memory for their last blocks: one that finds none begins a new segment, which needs
/// none before it is appended to. What it has is in its file, and is sealed.
fn roll_over(cx: &Context, recovered: &mut Recovered) -> Segment {
    let shape = cx.state.borrow().settings.shape;
    let Active { base, end, ref index, .. } = recovered.active;
    let sealed = Sealed::read(base, end, index.latest_ms());
    recovered.sealed.push(sealed);
    if recovered.damage.is_none() && !recovered.suspect {
        recovered.unsealed.push(base);
    }
    Segment::new(recovered.next, shape.block, Index::new(recovered.next, shape.index_interval))
}

/// The active segment with its last, partial block in memory. `None` if there is no memory for that.
async fn reopen(cx: &Context, recovered: &Recovered) -> std::io::Result<Option<Segment>> {
    let (block, direct) = {
        let state = cx.state.borrow();
        (state.settings.shape.block, state.settings.direct)
    };
    let active = &recovered.active;
    let base = active.base;
    let index = active.index.clone();
    let was = Reopened { end: active.end, prepared: active.prepared };
    let mut segment = Segment::reopen(base, block, index, was);
    segment.entry_durable = active.exists;
    segment.newest_ms = counts_as(active.index.latest_ms(), cx.state.borrow().time.wall_ms);
    if active.end == crate::types::Pos::ZERO {
        return Ok(Some(segment));
    }
    let start = active.end.floor(block);
    let bytes = active.end.since(start) as usize;
    if segment.window.reserve(&cx.arena(), bytes).is_err() {
        return Ok(None);
    }
    let path = recovered.identity.dir.join(names::segment(base));
    let mode = OpenMode { direct, ..OpenMode::default() };
    let file = open(&cx.disk, &path, mode).await?;
    if bytes > 0 {
        let arena = cx.arena();
        let tail = read_at(&cx.disk, &arena, file, start.get(), block as usize).await?;
        segment.window.append(&tail[..bytes]);
    }
    let room = {
        let mut state = cx.state.borrow_mut();
        let room = state.files_open < state.settings.tail_files_max();
        state.files_open += usize::from(room);
        room
    };
    if room {
        segment.file = Some(file);
    } else {
        // Opened again when it is needed.
        cx.disk.run(Op::Close { file }).await?;
    }
    Ok(Some(segment))
}

/// Makes a partition's directory, durably but for its entry in the data directory, whose flush many share.
pub(crate) async fn create(
    cx: &Context,
    name: &PartitionName,
    incarnation: Incarnation,
    policy: FlushPolicy,
) -> Result<LogId, OpenError> {
    let (data, shape) = {
        let state = cx.state.borrow();
        (state.dir.clone(), state.settings.shape)
    };
    let dir = data.join(name.to_string());
    if cx.points.is_stale() {
        // Else a checkpoint might speak of one that was deleted, and of this one after the next opening.
        let forgotten = points::persist(cx).await;
        let io = |fault: Fault| std::io::Error::from_raw_os_error(fault.errno);
        forgotten.map_err(|fault| OpenError::io(&data, "writing checkpoints", io(fault)))?;
    }
    match cx.disk.run(Op::MakeDir { path: dir.clone() }).await {
        Ok(_) => {}
        // Left by a creation that failed, as on a full disk: no log is known by that name.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            refuse_segments(cx, &dir, error).await?;
        }
        Err(error) => return Err(OpenError::io(&dir, "making the partition's directory", error)),
    }
    let relaxed = policy != FlushPolicy::Group;
    let meta = PartitionMeta { incarnation, relaxed, suspect: false, compacted: false };
    write_partition_meta(&cx.disk, &cx.arena(), &dir, meta).await?;
    let mut state = cx.state.borrow_mut();
    let id = LogId(state.logs.len() as u32);
    let identity = Identity { id, name: name.clone(), incarnation, dir };
    let index = Index::new(Offset::ZERO, shape.index_interval);
    let segment = Segment::new(Offset::ZERO, shape.block, index);
    let bounds = (Offset::ZERO, Offset::ZERO);
    let mut log = Log::new(identity, shape, policy, (Vec::new(), segment), bounds);
    log.keep.retention = state.settings.retention;
    state.writes_plain |= relaxed;
    state.logs.push(Some(Box::new(log)));
    drop(state);
    keep::wake(cx, id);
    Ok(id)
}

/// A directory in the way of a new partition must hold no records.
async fn refuse_segments(cx: &Context, dir: &Path, error: std::io::Error) -> Result<(), OpenError> {
    let listed = cx.disk.run(Op::List { path: dir.to_path_buf() }).await;
    let names = listed.map_err(|e| OpenError::io(dir, "listing", e))?.into_names();
    if names.iter().any(|name| names::segment_base(name).is_some()) {
        return Err(OpenError::io(dir, "making the partition's directory", error));
    }
    Ok(())
}

/// Changes a log's flush policy. To `group` only after what came before is flushed and the recovery point says so.
pub(crate) async fn set_policy(
    cx: &Context,
    id: LogId,
    policy: FlushPolicy,
) -> Result<(), ControlError> {
    let (dir, incarnation, was) = {
        let mut state = cx.state.borrow_mut();
        let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
        if matches!(log.access, Access::Damaged | Access::Fenced(_)) {
            return Err(ControlError::ReadOnly);
        }
        (log.identity.dir.clone(), log.identity.incarnation, log.policy)
    };
    let relaxed = policy != FlushPolicy::Group;
    let was_relaxed = was != FlushPolicy::Group;
    if relaxed && !was_relaxed {
        write_relaxed(cx, id, &dir, incarnation, true).await?;
    }
    {
        let mut state = cx.state.borrow_mut();
        state.writes_plain |= relaxed;
        if let Some(log) = state.log(id) {
            log.policy = policy;
            log.unflushed = crate::log::Unflushed::default();
        }
        // Its next step is another one now.
        state.look_at(id);
    }
    if relaxed && !was_relaxed {
        // Appends taken under `group` wait for stable storage, which nothing brings about by itself now.
        flush(cx, id).await?;
    }
    if !relaxed && was_relaxed {
        flush(cx, id).await?;
        write_relaxed(cx, id, &dir, incarnation, false).await?;
    }
    cx.state.borrow_mut().look_at(id);
    Ok(())
}

/// The right to write a partition's small files, each of which is replaced by way of one temporary name.
pub(crate) struct Filing<'a>(&'a Context, LogId);

impl<'a> Filing<'a> {
    pub(crate) async fn begin(cx: &'a Context, id: LogId) -> Result<Self, ControlError> {
        until(cx, id, |state| {
            state.log(id).is_some_and(|log| !std::mem::replace(&mut log.pointing, true))
        })
        .await?;
        Ok(Self(cx, id))
    }
}

impl Drop for Filing<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.borrow_mut();
        if let Some(log) = state.log(self.1) {
            log.pointing = false;
        }
        state.progress.notify();
    }
}

async fn write_relaxed(
    cx: &Context,
    id: LogId,
    dir: &Path,
    incarnation: Incarnation,
    relaxed: bool,
) -> Result<(), ControlError> {
    let compacted = cx.state.borrow_mut().log(id).is_some_and(|log| log.keep.compacted);
    let meta = PartitionMeta { incarnation, relaxed, suspect: false, compacted };
    let _filing = Filing::begin(cx, id).await?;
    let written = write_partition_meta(&cx.disk, &cx.arena(), dir, meta).await;
    written.map_err(|error| match error {
        OpenError::Io { source, operation, .. } => {
            ControlError::Disk(Fault::new(operation, &source))
        }
        _ => ControlError::ReadOnly,
    })
}

/// Brings all of a log into its files: after it, a copy of the partition's directory alone holds every ack.
pub(crate) async fn checkpoint_log(cx: &Context, id: LogId) -> Result<(), ControlError> {
    let goals: Vec<(Offset, Pos)> = match cx.state.borrow_mut().log(id) {
        Some(log) => log.tail.iter().map(|segment| (segment.base(), segment.end())).collect(),
        None => return Err(ControlError::Closed),
    };
    for (base, end) in goals {
        while !is_in_file(&mut cx.state.borrow_mut(), id, (base, end)) {
            // A tail is padded for good only while the journal holds its image: what came meanwhile too.
            flush(cx, id).await?;
            bring_to_file(cx, id, (base, end)).await?;
        }
    }
    write_epochs(cx, id).await
}

fn is_in_file(state: &mut State, id: LogId, (base, end): (Offset, Pos)) -> bool {
    state.segment(id, base).is_none_or(|segment| segment.flushed() >= end)
}

/// Writes a segment's bytes out and flushes its file once.
async fn bring_to_file(cx: &Context, id: LogId, goal: (Offset, Pos)) -> Result<(), ControlError> {
    let (base, _) = goal;
    until(cx, id, |state| {
        if is_in_file(state, id, goal) {
            return true;
        }
        let Some(segment) = state.segment(id, base) else { return true };
        if segment.file.is_some() && segment.may_write() {
            let whole = segment.whole_end(segment.claimed());
            if whole > segment.write_issued() {
                state.write(id, base, whole, Purpose::Written);
                return false;
            } else if segment.may_pad() {
                state.write_tail(id, base, true);
                return false;
            }
        }
        segment.written.done() == segment.end() && segment.written.unfinished() == 0
    })
    .await?;
    let found = {
        let mut state = cx.state.borrow_mut();
        state.segment(id, base).and_then(|s| s.file.map(|file| (file, s.flushable())))
    };
    let Some((file, reached)) = found else { return Ok(()) };
    let user = Syncing::new(cx, id, base);
    let synced = cx.disk.run(Op::Sync { file, data_only: true }).await;
    drop(user);
    if let Err(error) = synced {
        let fault = Fault::new("flushing a segment", &error);
        super::prepare::fence(cx, id, fault);
        return Err(ControlError::Disk(fault));
    }
    count_flush(cx, id, (base, reached))
}

async fn write_epochs(cx: &Context, id: LogId) -> Result<(), ControlError> {
    let dir = match cx.state.borrow_mut().log(id) {
        Some(log) if log.epochs_unsaved => log.identity.dir.clone(),
        Some(_) => return Ok(()),
        None => return Err(ControlError::Closed),
    };
    let _filing = Filing::begin(cx, id).await?;
    save_epochs(cx, id).await.map_err(ControlError::Disk)?;
    let synced = sync_directory(&cx.disk, dir).await;
    synced.map_err(|e| ControlError::Disk(Fault::new("flushing a directory", &e)))
}

/// Closes a log cleanly: everything in its file, the file cut to its data, the indexes beside it.
pub(crate) async fn close_log(cx: &Context, id: LogId) -> Result<(), ControlError> {
    checkpoint_log(cx, id).await?;
    until(cx, id, |state| {
        state.log(id).is_none_or(|log| {
            log.tail.len() == 1
                && log.writes_in_flight == 0
                && log.readers == 0
                && !log.pointing
                && log.keep.is_idle()
                && !log.tail[0].preparing
        })
    })
    .await?;
    let io = |operation: &'static str| {
        move |error: std::io::Error| ControlError::Disk(Fault::new(operation, &error))
    };
    let (file, end, dir, files, point) = {
        let mut state = cx.state.borrow_mut();
        let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
        let (dir, name) = (log.identity.dir.clone(), log.identity.name.clone());
        let next = log.watermarks().dirty;
        let segment = log.active();
        segment.index.finish();
        let base = segment.base();
        let (offsets, times) = segment.index.encode();
        let files =
            [(dir.join(names::index(base)), offsets), (dir.join(names::time_index(base)), times)];
        let file = segment.file.take();
        let end = segment.end();
        state.files_open -= usize::from(file.is_some());
        (file, end, dir, files, (name, next))
    };
    if let Some(file) = file {
        let cut = Op::Truncate { file, len: end.get() };
        cx.disk.run(cut).await.map_err(io("cutting a segment to its data"))?;
        cx.disk.run(Op::Sync { file, data_only: false }).await.map_err(io("flushing a segment"))?;
        cx.disk.run(Op::Close { file }).await.map_err(io("closing a segment"))?;
        for (path, bytes) in files {
            let written = write_small(&cx.disk, &cx.arena(), path, &bytes).await;
            written.map_err(io("writing an index"))?;
        }
        sync_directory(&cx.disk, dir).await.map_err(io("flushing a directory"))?;
    }
    cx.points.set(point.0, point.1);
    Ok(())
}

/// Rolls a log on demand.
pub(crate) fn roll(cx: &Context, id: LogId) -> Result<(), ControlError> {
    let mut state = cx.state.borrow_mut();
    let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
    match log.access {
        Access::Open | Access::Full => {}
        Access::Cutting => return Err(ControlError::Busy),
        Access::Fenced(_) | Access::Damaged => return Err(ControlError::ReadOnly),
    }
    if log.active().end() == crate::types::Pos::ZERO {
        return Ok(());
    }
    if log.roll() {
        state.errands.push_back(Errand::Seal(id));
    }
    state.look_at(id);
    Ok(())
}

/// The same, once no more segments wait to be sealed than may.
pub(crate) async fn roll_in_turn(cx: &Context, id: LogId) -> Result<(), ControlError> {
    until(cx, id, |state| state.log(id).is_none_or(|log| log.may_roll())).await?;
    roll(cx, id)
}

/// Makes space for `bytes` more in the active segment ready.
pub(crate) async fn prepare_ahead(cx: &Context, id: LogId, bytes: u64) -> Result<(), ControlError> {
    let (base, goal) = {
        let mut state = cx.state.borrow_mut();
        let shape = state.settings.shape;
        let none = state.settings.prepare == crate::types::Prepare::None;
        let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
        let active = log.active();
        let limit = shape.segment_bytes.next_multiple_of(shape.block);
        let goal = (active.end().get() + bytes).min(limit).max(active.end().get());
        let goal = crate::types::Pos::new(goal / shape.block * shape.block);
        active.prepare_goal = active.prepare_goal.max(goal);
        if none || active.prepared >= goal {
            return Ok(());
        }
        let base = active.base();
        if !std::mem::replace(&mut active.preparing, true) {
            state.errands.push_back(Errand::Prepare(id, base));
        }
        (base, goal)
    };
    until(cx, id, |state| {
        let full = state.log(id).is_some_and(|log| log.access == Access::Full);
        full || state.segment(id, base).is_none_or(|s| s.prepared >= goal)
    })
    .await?;
    let full = cx.state.borrow_mut().log(id).is_some_and(|log| log.access == Access::Full);
    let enospc = Fault { operation: "reserving space", errno: libc::ENOSPC };
    if full { Err(ControlError::Disk(enospc)) } else { Ok(()) }
}

/// Closes every log of the shard cleanly. The first failure is told; the others are closed all the same.
pub(crate) async fn close_all(cx: Context) -> Result<(), ControlError> {
    let ids: Vec<LogId> = {
        let mut state = cx.state.borrow_mut();
        state.closing = true;
        state.wake_fetches_of(None);
        state.progress.notify();
        state.logs.iter().flatten().map(|log| log.identity.id).collect()
    };
    let jobs = ids.into_iter().map(|id| {
        let cx = cx.clone();
        async move {
            let readable_only = cx
                .state
                .borrow_mut()
                .log(id)
                .is_none_or(|log| matches!(log.access, Access::Damaged | Access::Fenced(_)));
            // What is in doubt stays so: the next opening looks at it again.
            if readable_only { Err(ControlError::ReadOnly) } else { close_log(&cx, id).await }
        }
    });
    let closed = join_bounded(crate::limits::CREATIONS_IN_FLIGHT, jobs).await;
    closed.into_iter().fold(Ok(()), Result::and)
}

/// Says that the directory was closed cleanly, once every shard has closed its logs.
pub(crate) async fn mark_clean(cx: Context) -> Result<(), ControlError> {
    let io = |error: std::io::Error| {
        ControlError::Disk(Fault::new("marking the clean shutdown", &error))
    };
    super::points::persist(&cx).await.map_err(ControlError::Disk)?;
    let dir = cx.state.borrow().dir.clone();
    let path = dir.join(names::CLEAN);
    write_small(&cx.disk, &cx.arena(), path, b"clean\n").await.map_err(io)?;
    sync_directory(&cx.disk, dir).await.map_err(io)
}
