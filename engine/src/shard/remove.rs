//! Gives the space of deleted files back, in the background: cut shorter step by step, then unlinked. The ring does not
//! carry these out on the shard's thread (the kernel's workers do), and never more than one at a time, so that neither
//! appends nor the file system's journal wait for a whole segment's blocks to be freed. Where the file system is
//! mounted with `discard`, the device is told of each step, and may carry out nothing else meanwhile.

use std::io;
use std::path::PathBuf;

use crate::command::{Disk, Done, FileHandle, Op, OpenMode};
use crate::error::{ControlError, Fault};
use crate::files::open;
use crate::format::names;
use crate::journal::LogId;
use crate::limits::{KEEP_RETRY_NS, REMOVE_ATTEMPTS_MAX, REMOVE_STEP_BYTES};
use crate::types::Offset;

use super::Context;
use super::flush::until;
use super::keep::note;

/// What is left of a segment.
#[derive(Debug)]
pub(super) enum Remains {
    /// A file set aside under this name.
    Named(PathBuf),
    /// A file that has no name any more.
    Open(FileHandle),
}

/// Removes it, once nobody reads it any more. What can not be removed the next opening removes.
pub(super) async fn remove(cx: Context, (id, base): (LogId, Offset), remains: Remains) {
    cx.files.released(id, base).await;
    // A compaction reads its segments by files of its own; it looks after each piece whether it is to go on.
    let idle = until(&cx, id, |state| state.log(id).is_none_or(|log| !log.keep.reading)).await;
    // A log that is being deleted has its directory removed as a whole.
    drop(idle);
    let _permit = cx.removers.acquire().await;
    for attempt in 1..=REMOVE_ATTEMPTS_MAX {
        let error = match cut_up(&cx, id, &remains).await {
            Ok(()) => return,
            // With its directory.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => error,
        };
        note(&cx, id, Err(ControlError::Disk(Fault::new("removing a segment", &error))));
        if attempt < REMOVE_ATTEMPTS_MAX {
            let now = cx.state.borrow().time.ns;
            cx.tasks.sleep_until(now + KEEP_RETRY_NS).await;
        }
    }
    if let Remains::Open(file) = remains {
        drop(cx.disk.run(Op::Close { file }).await);
    }
}

/// Removes the directory of a log that is no more, which nobody reads: its segments are cut up one after another. What
/// is left of it, the next opening removes.
pub(super) async fn remove_log(cx: Context, id: LogId, dir: PathBuf) {
    let listed = cx.disk.run(Op::List { path: dir.clone() }).await;
    for name in listed.map(Done::into_names).unwrap_or_default() {
        let path = dir.join(&name);
        let _permit = cx.removers.acquire().await;
        // What can not be removed alone goes with the directory.
        if names::is_of_segment(&name) {
            drop(cut_up(&cx, id, &Remains::Named(path)).await);
        } else {
            drop(cx.disk.run(Op::Unlink { path }).await);
        }
    }
    drop(cx.disk.run(Op::RemoveDir { path: dir }).await);
}

async fn cut_up(cx: &Context, id: LogId, remains: &Remains) -> io::Result<()> {
    let file = match remains {
        Remains::Open(file) => *file,
        Remains::Named(path) => open(&cx.disk, path, OpenMode::default()).await?,
    };
    let cut = shorten(cx, id, file).await;
    match remains {
        // Tried again by the same handle.
        Remains::Open(_) if cut.is_err() => return cut,
        _ => cx.disk.run(Op::Close { file }).await?,
    };
    cut?;
    if let Remains::Named(path) = remains {
        cx.disk.run(Op::Unlink { path: path.clone() }).await?;
    }
    Ok(())
}

async fn shorten(cx: &Context, id: LogId, file: FileHandle) -> io::Result<()> {
    let mut length = cx.disk.run(Op::Length { file }).await?.into_length();
    while length > 0 {
        let began = cx.state.borrow().time.ns;
        let step = length.min(REMOVE_STEP_BYTES);
        length -= step;
        cx.disk.run(Op::Truncate { file, len: length }).await?;
        let now = {
            let mut state = cx.state.borrow_mut();
            state.stats.bytes_freed += step;
            if let Some(log) = state.log(id) {
                log.keep.bytes_freed += step;
            }
            state.time.ns
        };
        // As long a pause as the step took: others have at least half of the journal's time.
        cx.tasks.sleep_until(now + (now - began)).await;
    }
    Ok(())
}
