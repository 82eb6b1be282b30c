//! Recovery points of a data directory: up to where each partition need not be looked at after a crash. Shared by
//! all shards, persisted in Kafka's `recovery-point-offset-checkpoint`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::Fault;
use crate::files::{sync_directory, write_small};
use crate::format::checkpoint::encode_offsets;
use crate::format::names;
use crate::journal::LogId;
use crate::limits::POINTS_RETRY_NS;
use crate::types::{Offset, PartitionName};

use super::Context;
use super::prepare::fence;

#[derive(Debug, Default)]
struct Table {
    points: BTreeMap<PartitionName, Offset>,
    changed: bool,
    writing: bool,
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Points(Mutex<Table>);

impl Points {
    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything before `offset` is flushed, log and indexes.
    pub(crate) fn set(&self, name: PartitionName, offset: Offset) {
        let mut table = self.lock();
        if table.points.insert(name, offset) != Some(offset) {
            table.changed = true;
        }
    }

    /// The partition is gone.
    pub(crate) fn remove(&self, name: &PartitionName) {
        let mut table = self.lock();
        table.changed |= table.points.remove(name).is_some();
    }

    /// Whether some point may not be on disk yet.
    pub(crate) fn is_unwritten(&self) -> bool {
        let table = self.lock();
        table.changed || table.writing
    }

    /// Whether there is something to persist and nobody is at it.
    pub(crate) fn wants_writing(&self) -> bool {
        let table = self.lock();
        table.changed && !table.writing
    }

    /// The file's text, if there is something to persist and nobody is at it. [`Points::end_write`] must follow.
    pub(crate) fn begin_write(&self) -> Option<String> {
        let mut table = self.lock();
        if !table.changed || table.writing {
            return None;
        }
        table.changed = false;
        table.writing = true;
        let entries: Vec<_> = table.points.iter().map(|(n, o)| (n.clone(), *o)).collect();
        Some(encode_offsets(&entries))
    }

    /// The text was written, or not.
    pub(crate) fn end_write(&self, written: bool) {
        let mut table = self.lock();
        table.writing = false;
        table.changed |= !written;
    }
}

/// Brings a log's recovery point forward to a batch boundary that is flushed: first the indexes up to it, then the
/// point.
pub(crate) async fn advance(cx: Context, id: LogId) {
    let found = {
        let mut state = cx.state.borrow_mut();
        let Some(log) = state.log(id) else { return };
        let (name, dir) = (log.identity.name.clone(), log.identity.dir.clone());
        let first = &mut log.tail[0];
        let base = first.base();
        // A rolled segment's point comes with its seal.
        let mark = if first.rolled { None } else { first.flushed_mark() };
        let mark = mark.filter(|(_, offset)| *offset > log.recovery_point);
        mark.map(|(pos, offset)| {
            let (offsets, times) = log.tail[0].index.encode_before(pos, offset);
            log.recovery_point = offset;
            log.since_recovery_point = log.tail[0].end().since(pos);
            let files = [
                (dir.join(names::index(base)), offsets),
                (dir.join(names::time_index(base)), times),
            ];
            (name, dir, files, offset)
        })
    };
    if let Some((name, dir, files, offset)) = found {
        match persist_indexes(&cx, dir, files).await {
            Ok(()) => {
                cx.points.set(name, offset);
                // A failure costs only a longer recovery: it is tried again with the next point.
                let _ = write(&cx).await;
            }
            // A full disk costs only a longer recovery, too.
            Err(fault) if fault.is_full() => {}
            Err(fault) => fence(&cx, id, fault),
        }
    }
    let mut state = cx.state.borrow_mut();
    if let Some(log) = state.log(id) {
        log.pointing = false;
    }
    state.progress.notify();
}

async fn persist_indexes(
    cx: &Context,
    dir: PathBuf,
    files: [(PathBuf, Vec<u8>); 2],
) -> Result<(), Fault> {
    let arena = cx.arena();
    for (path, bytes) in files {
        let written = write_small(&cx.disk, &arena, path, &bytes).await;
        written.map_err(|e| Fault::new("writing an index", &e))?;
    }
    let synced = sync_directory(&cx.disk, dir).await;
    synced.map_err(|e| Fault::new("flushing a directory", &e))
}

/// Persists the table, if it has changed and no other shard is at it.
pub(crate) async fn write(cx: &Context) -> Result<(), Fault> {
    let Some(text) = cx.points.begin_write() else { return Ok(()) };
    let dir = cx.state.borrow().dir.clone();
    let path = dir.join(names::RECOVERY_POINTS);
    let arena = cx.arena();
    let written = match write_small(&cx.disk, &arena, path, text.as_bytes()).await {
        Ok(()) => sync_directory(&cx.disk, dir).await,
        error => error,
    };
    cx.points.end_write(written.is_ok());
    written.map_err(|e| Fault::new("writing recovery points", &e))
}

/// Waits until every point set before this call is on disk, whoever writes it.
pub(crate) async fn persist(cx: &Context) -> Result<(), Fault> {
    while cx.points.is_unwritten() {
        if cx.points.wants_writing() {
            write(cx).await?;
        } else {
            // Another shard is at it, and its thread rings no bell here.
            let now = cx.state.borrow().time.ns;
            cx.tasks.sleep_until(now + POINTS_RETRY_NS).await;
        }
    }
    Ok(())
}
