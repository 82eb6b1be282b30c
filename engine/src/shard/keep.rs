//! Retention: which of a log's oldest segments go, on demand or by bounds, and the order in which they do.
//!
//! The order is the proof: the new start is durable, then nobody is let in before it, then the names go, then the
//! content. Whatever a crash leaves of segments before the start, the next opening removes.

use std::io;
use std::path::Path;

use crate::command::{Disk, Op};
use crate::compaction::Part;
use crate::defects::{self, Defect};
use crate::error::{ControlError, Fault};
use crate::files::{read_small, sync_directory, write_small};
use crate::format::{names, retention, seal::Seal};
use crate::journal::LogId;
use crate::limits::KEEP_INTERVAL_NS;
use crate::log::keep::{self, Keep};
use crate::log::{Access, Log, Sealed};
use crate::types::{Offset, Pos, Retention};

use super::Context;
use super::attach::{self, Filing};
use super::compact::{self, Demand};
use super::flush::until;
use super::points;
use super::remove::{Remains, remove};
use super::state::{Errand, State};

/// Looks at every log that wants it, from time to time. Ends when none does.
pub(crate) async fn watch(cx: Context) {
    loop {
        let now = {
            let mut state = cx.state.borrow_mut();
            let wanting: Vec<LogId> = state
                .logs
                .iter()
                .flatten()
                .filter(|log| log.keep.wants_looks())
                .map(|log| log.identity.id)
                .collect();
            if wanting.is_empty() || state.closing {
                state.keeping = false;
                return;
            }
            for id in wanting {
                state.errand(Errand::Keep(id));
            }
            state.time.ns
        };
        cx.tasks.sleep_until(now + KEEP_INTERVAL_NS).await;
    }
}

/// Has the log looked at now, and from time to time from now on, if it wants that.
pub(crate) fn wake(cx: &Context, id: LogId) {
    let mut state = cx.state.borrow_mut();
    if !state.log(id).is_some_and(|log| log.keep.wants_looks()) {
        return;
    }
    if std::mem::replace(&mut state.keeping, true) {
        state.errand(Errand::Keep(id));
    } else {
        drop(cx.tasks.spawn(watch(cx.clone())));
    }
}

/// One look at a log: what is due is done. What fails is noted, and due again at the next look.
pub(crate) async fn look(cx: Context, id: LogId) {
    let Some(moving) = Moving::try_begin(&cx, id) else { return };
    let kept = retain(&cx, id).await;
    drop(moving);
    let well = kept.is_ok();
    note(&cx, id, kept);
    let wanted = {
        let mut state = cx.state.borrow_mut();
        let wants = |log: &mut Log| {
            log.keep.retention.compact.is_some() && !std::mem::replace(&mut log.keep.queued, true)
        };
        state.log(id).is_some_and(wants)
    };
    if !wanted {
        return;
    }
    let compacted = compact::compact(&cx, id, Demand::IfDue).await;
    if let Some(log) = cx.state.borrow_mut().log(id) {
        log.keep.queued = false;
    }
    if well || compacted.is_err() {
        note(&cx, id, compacted.map(drop));
    }
}

/// Keeps in mind how a look ended. What was put off for another procedure, or because the engine closes, is no fault.
pub(super) fn note(cx: &Context, id: LogId, result: Result<(), ControlError>) {
    let fault = match result {
        Ok(()) => None,
        Err(ControlError::Disk(fault)) => Some(fault),
        Err(ControlError::Damaged { .. }) => {
            Some(Fault { operation: "compacting", errno: libc::EIO })
        }
        Err(_) => return,
    };
    let mut state = cx.state.borrow_mut();
    state.stats.keep_faults += u64::from(fault.is_some());
    if let Some(log) = state.log(id) {
        log.keep.fault = fault;
    }
}

async fn retain(cx: &Context, id: LogId) -> Result<(), ControlError> {
    clear_stale(cx, id).await?;
    let (retention, now_ms) = {
        let mut state = cx.state.borrow_mut();
        let now_ms = state.time.wall_ms;
        let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
        (log.keep.retention, now_ms)
    };
    if retention.bytes.is_some() || retention.ms.is_some() {
        let parts = parts(cx, id).await?;
        let start = {
            let mut state = cx.state.borrow_mut();
            let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
            let count = keep::expired(&parts, bytes_behind(log, parts.len()), &retention, now_ms);
            count.checked_sub(1).map(|last| parts[last].next)
        };
        if let Some(start) = start {
            advance(cx, id, start).await?;
        }
    }
    let old = {
        let mut state = cx.state.borrow_mut();
        let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
        let lag = retention.compact.and_then(|compact| compact.max_lag_ms);
        let late = Retention { ms: lag, ..Retention::default() };
        let active = log.active();
        let first_ms = active.first_ms.unwrap_or(active.newest_ms);
        active.end() > Pos::ZERO
            && (keep::is_old(active.newest_ms, &retention, now_ms)
                || keep::is_old(first_ms, &late, now_ms))
    };
    // It goes once it is sealed.
    if old { attach::roll(cx, id) } else { Ok(()) }
}

/// Bytes of what comes behind the first `count` sealed segments.
fn bytes_behind(log: &Log, count: usize) -> u64 {
    let sealed = log.sealed.iter().skip(count).filter_map(|sealed| sealed.end).map(Pos::get);
    sealed.chain(log.tail.iter().map(|segment| segment.end().get())).sum()
}

/// The log's sealed segments, oldest first, up to the first that has no seal yet. What is not in memory is read from
/// the seals.
pub(crate) async fn parts(cx: &Context, id: LogId) -> Result<Vec<Part>, ControlError> {
    let (dir, incarnation, unknown) = {
        let mut state = cx.state.borrow_mut();
        let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
        let unknown = |sealed: &&Sealed| sealed.end.is_none() || sealed.newest_ms.is_none();
        let unknown: Vec<Offset> = log.sealed.iter().filter(unknown).map(|s| s.base).collect();
        (log.identity.dir.clone(), log.identity.incarnation, unknown)
    };
    for base in unknown {
        let path = dir.join(names::seal(base));
        let read = read_small(&cx.disk, &cx.arena(), &path).await;
        let bytes = read.map_err(|e| ControlError::Disk(Fault::new("reading a seal", &e)))?;
        let seal = bytes.and_then(|bytes| Seal::decode(&bytes).ok());
        // It is being sealed again, or is not what it was.
        let Some(seal) = seal.filter(|s| (s.incarnation, s.base_offset) == (incarnation, base))
        else {
            break;
        };
        let mut state = cx.state.borrow_mut();
        let now_ms = state.time.wall_ms;
        let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
        if let Some(sealed) = log.sealed.iter_mut().find(|sealed| sealed.base == base) {
            let newest_ms = if seal.newest_ms == 0 { now_ms } else { seal.newest_ms };
            // Compaction may have put another one in its place meanwhile.
            sealed.end.get_or_insert(seal.length);
            sealed.newest_ms.get_or_insert(newest_ms);
        }
    }
    let mut state = cx.state.borrow_mut();
    let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
    let nexts = log.sealed.iter().map(|s| s.base).chain([log.tail[0].base()]).skip(1);
    let part = |(sealed, next): (&Sealed, Offset)| {
        let (bytes, newest_ms) = (sealed.end?.get(), sealed.newest_ms?);
        Some(Part { base: sealed.base, next, bytes, newest_ms })
    };
    Ok(log.sealed.iter().zip(nexts).map_while(part).collect())
}

/// Lets the log begin at `start`, durably, and sets aside what lies wholly before it.
async fn advance(cx: &Context, id: LogId, start: Offset) -> Result<(), ControlError> {
    loop {
        let Err(fault) = persist_start(cx, id, start).await else { break };
        // A full disk has no space to say so, and this is what frees some: the names say where the log begins.
        if !fault.is_full() || !free_oldest(cx, id, start).await? {
            return Err(ControlError::Disk(fault));
        }
    }
    let gone = {
        let mut state = cx.state.borrow_mut();
        let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
        let gone = log.raise_start(start);
        state.note_moved(id);
        gone
    };
    let bases = gone.iter().map(|sealed| sealed.base).collect();
    for (base, aside) in set_aside(cx, id, bases).await? {
        drop(cx.tasks.spawn(remove(cx.clone(), (id, base), Remains::Named(aside))));
    }
    Ok(())
}

async fn persist_start(cx: &Context, id: LogId, start: Offset) -> Result<(), Fault> {
    let Some(name) = cx.state.borrow_mut().log(id).map(|log| log.identity.name.clone()) else {
        return Ok(());
    };
    let was = cx.points.set_start(name.clone(), Some(start));
    let early = defects::is(Defect::AckDeletionEarly);
    let persisted = if early { Ok(()) } else { points::persist(cx).await };
    if persisted.is_err() {
        cx.points.set_start(name, was);
    }
    persisted
}

/// Removes the oldest segment to its end, if it lies wholly before `start`. Whether it did.
async fn free_oldest(cx: &Context, id: LogId, start: Offset) -> Result<bool, ControlError> {
    let gone = {
        let mut state = cx.state.borrow_mut();
        let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
        let next = log.sealed.get(1).map_or(log.tail[0].base(), |next| next.base);
        if log.sealed.is_empty() || next > start {
            return Ok(false);
        }
        let gone = log.raise_start(next);
        state.note_moved(id);
        gone
    };
    // Each name's end is flushed before the next: no order is assumed between them.
    for base in gone.iter().map(|sealed| sealed.base) {
        for (base, aside) in set_aside(cx, id, vec![base]).await? {
            remove(cx.clone(), (id, base), Remains::Named(aside)).await;
        }
    }
    Ok(true)
}

/// Takes the names of segments that are the log's no more away, durably. Returns where their content is. What could not
/// be done is kept in mind.
async fn set_aside(
    cx: &Context,
    id: LogId,
    mut bases: Vec<Offset>,
) -> Result<Vec<(Offset, std::path::PathBuf)>, ControlError> {
    let io = |error: io::Error| ControlError::Disk(Fault::new("deleting a segment", &error));
    for base in &bases {
        cx.files.forget(id, *base);
    }
    if bases.is_empty() {
        return Ok(Vec::new());
    }
    // A segment that is just being sealed again must not get its seal behind this.
    let _filing = Filing::begin(cx, id).await?;
    let Some(dir) = cx.state.borrow_mut().log(id).map(|log| log.identity.dir.clone()) else {
        return Err(ControlError::Closed);
    };
    let mut aside = Vec::new();
    let mut result = Ok(());
    while let Some(base) = bases.first().copied() {
        match aside_one(cx, &dir, base).await {
            Ok(path) => aside.push((base, path)),
            // Somebody else removed it: that it is gone is what was wanted, and worth a word.
            Err(error) if error.kind() == io::ErrorKind::NotFound => note(cx, id, Err(io(error))),
            Err(error) => {
                result = Err(io(error));
                break;
            }
        }
        bases.remove(0);
    }
    let synced = sync_directory(&cx.disk, dir).await;
    let mut state = cx.state.borrow_mut();
    state.stats.segments_deleted += aside.len() as u64;
    if let Some(log) = state.log(id) {
        log.keep.segments_deleted += aside.len() as u64;
        log.keep.stale.extend(bases);
    }
    match result.and(synced.map_err(io)) {
        Ok(()) => Ok(aside),
        // What is aside already is removed by the next opening.
        Err(error) => Err(error),
    }
}

/// What is derived first: a segment without it is whole, it without a segment would stay for ever.
async fn aside_one(cx: &Context, dir: &Path, base: Offset) -> io::Result<std::path::PathBuf> {
    for name in [names::index(base), names::time_index(base), names::seal(base)] {
        match cx.disk.run(Op::Unlink { path: dir.join(name) }).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let to = dir.join(names::segment(base) + names::DELETED);
    cx.disk.run(Op::Rename { from: dir.join(names::segment(base)), to: to.clone() }).await?;
    Ok(to)
}

/// Takes the names of segments away that an earlier deletion left.
async fn clear_stale(cx: &Context, id: LogId) -> Result<(), ControlError> {
    let stale = {
        let mut state = cx.state.borrow_mut();
        let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
        std::mem::take(&mut log.keep.stale)
    };
    for (base, aside) in set_aside(cx, id, stale).await? {
        drop(cx.tasks.spawn(remove(cx.clone(), (id, base), Remains::Named(aside))));
    }
    Ok(())
}

/// Deletes all records before `before`. Returns where the log begins then.
pub(crate) async fn delete_records(
    cx: &Context,
    id: LogId,
    before: Offset,
) -> Result<Offset, ControlError> {
    let moving = Moving::begin(cx, id).await?;
    let marks = {
        let mut state = cx.state.borrow_mut();
        let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
        log.watermarks()
    };
    if before > marks.durable {
        let (start, end) = (marks.log_start, marks.durable);
        return Err(ControlError::OutOfRange { asked: before, start, end });
    }
    let done = if before > marks.log_start { advance(cx, id, before).await } else { Ok(()) };
    drop(moving);
    if done.is_err() {
        note(cx, id, done.clone());
        // Files that are left are tried again.
        wake(cx, id);
    }
    let start = cx.state.borrow_mut().log(id).map(|log| log.watermarks().log_start);
    let Some(start) = start else { return Err(ControlError::Closed) };
    // Once it is durable that the records are gone, files that stay behind are no failure of the call.
    if start >= before { Ok(start) } else { done.map(|()| start) }
}

/// Changes what is kept, durably; `None` for the engine's default.
pub(crate) async fn set_retention(
    cx: &Context,
    id: LogId,
    own: Option<Retention>,
) -> Result<(), ControlError> {
    let dir = {
        let mut state = cx.state.borrow_mut();
        let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
        log.identity.dir.clone()
    };
    if own.and_then(|own| own.compact).is_some_and(|compact| compact.min_dirty_percent > 100) {
        return Err(ControlError::Setting("min_dirty_percent is 0 to 100"));
    }
    {
        let io = |error: io::Error| ControlError::Disk(Fault::new("writing the retention", &error));
        let _filing = Filing::begin(cx, id).await?;
        let path = dir.join(names::RETENTION);
        match own {
            Some(own) => {
                let bytes = retention::encode(&own);
                write_small(&cx.disk, &cx.arena(), path, &bytes).await.map_err(io)?;
            }
            None => match cx.disk.run(Op::Unlink { path }).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
                _ => {}
            },
        }
        sync_directory(&cx.disk, dir).await.map_err(io)?;
        let mut state = cx.state.borrow_mut();
        let default = state.settings.retention;
        let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
        log.keep.retention = own.unwrap_or(default);
        log.keep.own = own.is_some();
    }
    wake(cx, id);
    Ok(())
}

/// Whether retention and compaction may do anything to the log now.
pub(super) fn may_keep(state: &mut State, id: LogId) -> Result<(), ControlError> {
    let closing = state.closing;
    let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
    match log.access {
        _ if closing || log.deleting => Err(ControlError::Closed),
        Access::Open | Access::Full => Ok(()),
        Access::Cutting => Err(ControlError::Busy),
        Access::Fenced(_) | Access::Damaged => Err(ControlError::ReadOnly),
    }
}

/// The right to move a log's start and its segments' files: one procedure at a time.
pub(super) struct Moving {
    cx: Context,
    id: LogId,
}

impl Moving {
    /// Waits for it.
    pub(super) async fn begin(cx: &Context, id: LogId) -> Result<Self, ControlError> {
        loop {
            until(cx, id, |state| state.log(id).is_none_or(|log| !log.keep.moving)).await?;
            let mut state = cx.state.borrow_mut();
            may_keep(&mut state, id)?;
            let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
            if !std::mem::replace(&mut log.keep.moving, true) {
                return Ok(Self { cx: cx.clone(), id });
            }
        }
    }

    /// Has it now, or whoever has it looks once more behind it.
    fn try_begin(cx: &Context, id: LogId) -> Option<Self> {
        let mut state = cx.state.borrow_mut();
        may_keep(&mut state, id).ok()?;
        let keep: &mut Keep = &mut state.log(id)?.keep;
        if std::mem::replace(&mut keep.moving, true) {
            keep.again = true;
            return None;
        }
        Some(Self { cx: cx.clone(), id })
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        let mut state = self.cx.state.borrow_mut();
        let Some(log) = state.log(self.id) else { return };
        log.keep.moving = false;
        if std::mem::take(&mut log.keep.again) {
            state.errand(Errand::Keep(self.id));
        }
        state.progress.notify();
    }
}

/// How often the files of sealed segments were swapped when a read began. What was read of them counts only if that is
/// still so when it ends: else places and lengths may be of one file and bytes of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Glance(u32);

impl Glance {
    /// Waits while a swap is under way, which takes two flushes of a directory; not for what begins in the tail.
    pub(crate) async fn begin(cx: &Context, id: LogId, offset: Offset) -> Self {
        loop {
            let progress = {
                let mut state = cx.state.borrow_mut();
                let Some(log) = state.log(id) else { return Self(0) };
                if log.keep.swaps.is_multiple_of(2) || offset >= log.tail[0].base() {
                    return Self(log.keep.swaps);
                }
                state.progress.notified()
            };
            progress.await;
        }
    }

    /// The count.
    pub(crate) fn swaps(self) -> u32 {
        self.0
    }

    /// Whether no swap has begun since.
    pub(crate) fn holds(self, cx: &Context, id: LogId) -> bool {
        cx.state.borrow_mut().log(id).is_none_or(|log| log.keep.swaps == self.0)
    }
}
