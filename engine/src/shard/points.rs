//! Recovery points of a data directory: up to where each partition need not be looked at after a crash. Shared by
//! all shards, persisted in Kafka's `recovery-point-offset-checkpoint`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::Fault;
use crate::files::{sync_directory, write_small};
use crate::format::checkpoint::{EpochStart, encode_epochs, encode_offsets};
use crate::format::names;
use crate::journal::LogId;
use crate::limits::{MARK_BYTES, POINTS_RETRY_NS, RECOVERY_STRIDE_BYTES};
use crate::types::{Offset, PartitionName};

use super::Context;
use super::prepare::fence;

#[derive(Debug, Default)]
struct Table {
    points: BTreeMap<PartitionName, Offset>,
    changed: bool,
    writing: bool,
    /// First offsets that are not their first segment's: as recovery found them, without those of deleted partitions.
    starts: BTreeMap<PartitionName, Offset>,
    starts_changed: bool,
    /// Up to where logs were compacted.
    cleaned: BTreeMap<PartitionName, Offset>,
    cleaned_changed: bool,
    /// A partition is gone, and the files may still speak of it.
    stale: bool,
}

/// What is to be written: a file's name and its text.
type Texts = Vec<(&'static str, String)>;

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

    /// The partition begins at `offset`, as its checkpoint says by now.
    pub(crate) fn restore_start(&self, name: PartitionName, offset: Offset) {
        self.lock().starts.insert(name, offset);
    }

    /// The partition begins at `offset`, or where its first segment does. Returns what was said before.
    pub(crate) fn set_start(&self, name: PartitionName, offset: Option<Offset>) -> Option<Offset> {
        let mut table = self.lock();
        let was = match offset {
            Some(offset) => table.starts.insert(name, offset),
            None => table.starts.remove(&name),
        };
        if was != offset {
            (table.changed, table.starts_changed) = (true, true);
        }
        was
    }

    /// Compaction has seen all before `offset`, as its checkpoint says by now.
    pub(crate) fn restore_cleaned(&self, name: PartitionName, offset: Offset) {
        self.lock().cleaned.insert(name, offset);
    }

    /// Compaction has seen all before `offset`.
    pub(crate) fn set_cleaned(&self, name: PartitionName, offset: Offset) {
        let mut table = self.lock();
        if table.cleaned.insert(name, offset) != Some(offset) {
            (table.changed, table.cleaned_changed) = (true, true);
        }
    }

    /// What was compacted behind `offset` is cut off.
    pub(crate) fn lower_cleaned(&self, name: &PartitionName, offset: Offset) {
        let mut table = self.lock();
        if let Some(cleaned) = table.cleaned.get_mut(name)
            && *cleaned > offset
        {
            *cleaned = offset;
            (table.changed, table.cleaned_changed) = (true, true);
        }
    }

    /// The partition is gone.
    pub(crate) fn remove(&self, name: &PartitionName) {
        let mut table = self.lock();
        let point = table.points.remove(name).is_some();
        let start = table.starts.remove(name).is_some();
        let cleaned = table.cleaned.remove(name).is_some();
        table.changed |= point || start || cleaned;
        table.starts_changed |= start;
        table.cleaned_changed |= cleaned;
        table.stale |= point || start || cleaned;
    }

    /// Whether a checkpoint on disk may speak of a partition that is gone: to one made anew under its name.
    pub(crate) fn is_stale(&self) -> bool {
        self.lock().stale
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

    /// What is to be persisted, if there is something and nobody is at it. [`Points::end_write`] must follow.
    fn begin_write(&self) -> Option<Texts> {
        let mut table = self.lock();
        if !table.changed || table.writing {
            return None;
        }
        let entries = |of: &BTreeMap<PartitionName, Offset>| {
            let entries: Vec<_> = of.iter().map(|(name, offset)| (name.clone(), *offset)).collect();
            encode_offsets(&entries)
        };
        let mut texts = vec![(names::RECOVERY_POINTS, entries(&table.points))];
        if table.starts_changed {
            texts.push((names::LOG_STARTS, entries(&table.starts)));
        }
        if table.cleaned_changed {
            texts.push((names::CLEANED, entries(&table.cleaned)));
        }
        table.changed = false;
        table.writing = true;
        Some(texts)
    }

    /// The text was written, or not.
    fn end_write(&self, written: bool) {
        let mut table = self.lock();
        table.writing = false;
        if !written {
            table.changed = true;
        } else if !table.changed {
            table.stale = false;
            table.starts_changed = false;
            table.cleaned_changed = false;
        }
    }
}

/// Brings a log's recovery point forward to a batch boundary that is flushed: first the indexes and leader epochs up to
/// it, then the point.
pub(crate) async fn advance(cx: Context, id: LogId) {
    let found = {
        let mut state = cx.state.borrow_mut();
        let Some(log) = state.log(id) else { return };
        let (name, dir) = (log.identity.name.clone(), log.identity.dir.clone());
        let was = log.recovery_point;
        let first = &mut log.tail[0];
        let base = first.base();
        // A rolled segment's point comes with its seal.
        let mark = if first.rolled { None } else { first.flushed_mark() };
        let mark = mark.filter(|(_, offset)| *offset > was);
        mark.map(|(pos, offset)| {
            let (offsets, times) = log.tail[0].index.encode_before(pos, offset);
            log.since_recovery_point = log.tail[0].end().since(pos);
            let files = [
                (dir.join(names::index(base)), offsets),
                (dir.join(names::time_index(base)), times),
            ];
            (name, dir, files, offset)
        })
    };
    if let Some((name, dir, files, offset)) = found {
        match persist_indexes(&cx, id, dir, files).await {
            Ok(()) => {
                if let Some(log) = cx.state.borrow_mut().log(id) {
                    log.recovery_point = log.recovery_point.max(offset);
                }
                cx.points.set(name, offset);
                // A failure costs only a longer recovery: it is tried again with the next point.
                let _ = write(&cx).await;
            }
            // The point stays where it is, and is tried again after some more has been appended.
            Err(fault) if fault.may_pass() => {
                if let Some(log) = cx.state.borrow_mut().log(id) {
                    log.since_recovery_point = RECOVERY_STRIDE_BYTES - MARK_BYTES;
                }
            }
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
    id: LogId,
    dir: PathBuf,
    files: [(PathBuf, Vec<u8>); 2],
) -> Result<(), Fault> {
    let arena = cx.arena();
    save_epochs(cx, id).await?;
    for (path, bytes) in files {
        let written = write_small(&cx.disk, &arena, path, &bytes).await;
        written.map_err(|e| Fault::new("writing an index", &e))?;
    }
    let synced = sync_directory(&cx.disk, dir).await;
    synced.map_err(|e| Fault::new("flushing a directory", &e))
}

/// Writes the partition's leader epochs if they have changed. The directory's flush is the caller's, and that nobody
/// else writes the partition's small files.
pub(crate) async fn save_epochs(cx: &Context, id: LogId) -> Result<(), Fault> {
    let (path, text) = {
        let mut state = cx.state.borrow_mut();
        let Some(log) = state.log(id) else { return Ok(()) };
        if !std::mem::take(&mut log.epochs_unsaved) {
            return Ok(());
        }
        let epochs = log.epochs.iter();
        let entries: Vec<EpochStart> = epochs
            .map(|(epoch, start_offset)| EpochStart { epoch: *epoch, start_offset: *start_offset })
            .collect();
        (log.identity.dir.join(names::EPOCHS), encode_epochs(&entries))
    };
    let written = write_small(&cx.disk, &cx.arena(), path, text.as_bytes()).await;
    if written.is_err()
        && let Some(log) = cx.state.borrow_mut().log(id)
    {
        log.epochs_unsaved = true;
    }
    written.map_err(|e| Fault::new("writing leader epochs", &e))
}

/// Persists the table, if it has changed and no other shard is at it.
pub(crate) async fn write(cx: &Context) -> Result<(), Fault> {
    let Some(texts) = cx.points.begin_write() else { return Ok(()) };
    let dir = cx.state.borrow().dir.clone();
    let arena = cx.arena();
    let mut written = Ok(());
    for (name, text) in texts {
        if written.is_ok() {
            written = write_small(&cx.disk, &arena, dir.join(name), text.as_bytes()).await;
        }
    }
    if written.is_ok() {
        written = sync_directory(&cx.disk, dir).await;
    }
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
