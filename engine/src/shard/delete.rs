//! Deletes a partition: exactly across a crash, and never in part under its own name.

use std::path::PathBuf;

use crate::command::{Disk, FileHandle, Op};
use crate::error::{AppendError, ControlError, Fault};
use crate::files::sync_directory;
use crate::format::names;
use crate::journal::LogId;
use crate::log::Access;

use super::Context;
use super::checkpoint::wait_for_forced;
use super::groups::Forced;
use super::points;
use super::prepare::fence;
use super::remove::remove_log;
use super::state::tell;

/// Deletes the log. Acknowledged once no crash can bring it back: the directory's new name is durable, and what
/// the journal holds names an incarnation that is no partition's. Its content is removed behind the ack.
///
/// Until the new name is durable the journal keeps what it holds: a crash before leaves all of the partition.
pub(crate) async fn delete(cx: Context, id: LogId) -> Result<(), ControlError> {
    let dir = begin(&cx, id)?;
    quiesce(&cx, id).await?;
    let (incarnation, name, data) = {
        let mut state = cx.state.borrow_mut();
        let data = state.dir.clone();
        let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
        (log.identity.incarnation, log.identity.name.clone(), data)
    };
    let aside = data.join(format!("{name}.{:016x}{}", incarnation.0, names::DELETED));
    if let Err(error) = set_aside(&cx, (dir, aside.clone()), data).await {
        // Whether a crash brings it back can not be known: as it is, until it is deleted again.
        let fault = Fault::new("deleting", &error);
        fence(&cx, id, fault);
        return Err(ControlError::Disk(fault));
    }
    // A checkpoint may have begun to write it back meanwhile.
    quiesce(&cx, id).await?;
    cx.files.forget_log(id);
    for file in forget(&cx, id) {
        drop(cx.disk.run(Op::Close { file }).await);
    }
    // Its incarnation is unknown to recovery from now on; the record says so once more to whoever reads the journal.
    let voided = cx.state.borrow_mut().force(Forced::Ignore(incarnation));
    wait_for_forced(&cx, voided).await;
    // A partition re-created under the name must not find the recovery point of this one.
    cx.points.remove(&name);
    let _ = points::write(&cx).await;
    drop(cx.tasks.spawn(remove_log(cx.clone(), id, aside)));
    Ok(())
}

/// Renames the directory, durably.
async fn set_aside(
    cx: &Context,
    (from, to): (PathBuf, PathBuf),
    data: PathBuf,
) -> std::io::Result<()> {
    match cx.disk.run(Op::Rename { from, to }).await {
        // A deletion that failed had renamed it.
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    sync_directory(&cx.disk, data).await
}

fn begin(cx: &Context, id: LogId) -> Result<PathBuf, ControlError> {
    let mut state = cx.state.borrow_mut();
    let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
    if log.access == Access::Cutting {
        return Err(ControlError::Busy);
    }
    log.deleting = true;
    // A fenced one stays fenced: nothing may be taken for written that is not.
    if !matches!(log.access, Access::Fenced(_)) {
        log.access = Access::Cutting;
    }
    Ok(log.identity.dir.clone())
}

/// Waits until nothing of the log is on its way.
async fn quiesce(cx: &Context, id: LogId) -> Result<(), ControlError> {
    loop {
        let progress = {
            let mut state = cx.state.borrow_mut();
            let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
            let busy = log.writes_in_flight > 0
                || log.readers > 0
                || log.flushing
                || log.pointing
                || log.sealing
                || !log.keep.is_idle()
                || log.tail.iter().any(|segment| segment.preparing);
            if !busy {
                return Ok(());
            }
            state.progress.notified()
        };
        progress.await;
    }
}

/// Takes the log out of the shard. Returns its open files.
fn forget(cx: &Context, id: LogId) -> Vec<FileHandle> {
    let mut state = cx.state.borrow_mut();
    let inbox = state.inbox.clone();
    let Some(mut log) = state.logs[id.0 as usize].take() else { return Vec::new() };
    log.end_waiting(&AppendError::Truncated, |ended| tell(&inbox, ended));
    let files: Vec<FileHandle> = log.tail.iter().filter_map(|segment| segment.file).collect();
    state.files_open -= files.len();
    state.wake_fetches_of(Some(id));
    state.progress.notify();
    files
}
