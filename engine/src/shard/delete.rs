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
use super::state::tell;

/// Deletes the log. Acknowledged once no crash can bring it back: the journal says that what it holds of the
/// partition is void, and the directory's new name is durable. Its content is removed behind the ack.
pub(crate) async fn delete(cx: Context, id: LogId) -> Result<(), ControlError> {
    let dir = begin(&cx, id)?;
    quiesce(&cx, id).await?;
    let (incarnation, name) = {
        let mut state = cx.state.borrow_mut();
        let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
        (log.identity.incarnation, log.identity.name.clone())
    };
    let data = cx.state.borrow().dir.clone();
    let aside = data.join(format!("{name}.{:016x}{}", incarnation.0, names::DELETED));
    let io = |error: std::io::Error| ControlError::Disk(Fault::new("deleting", &error));
    // The new name comes first: until it is durable a crash finds the partition whole, with all that the journal
    // holds of it; from then on its incarnation is unknown to recovery.
    cx.disk.run(Op::Rename { from: dir, to: aside.clone() }).await.map_err(io)?;
    for file in forget(&cx, id) {
        drop(cx.disk.run(Op::Close { file }).await);
    }
    sync_directory(&cx.disk, data).await.map_err(io)?;
    let voided = cx.state.borrow_mut().force(Forced::Ignore(incarnation));
    if !wait_for_forced(&cx, voided).await {
        let fault = cx.state.borrow().journal.fault();
        return Err(fault.map_or(ControlError::ReadOnly, ControlError::Disk));
    }
    // A partition re-created under the name must not find the recovery point of this one.
    cx.points.remove(&name);
    let _ = points::write(&cx).await;
    let disk = cx.disk.clone();
    drop(cx.tasks.spawn(async move {
        // What is left of it, the next opening removes.
        drop(disk.run(Op::RemoveDir { path: aside }).await);
    }));
    Ok(())
}

fn begin(cx: &Context, id: LogId) -> Result<PathBuf, ControlError> {
    let mut state = cx.state.borrow_mut();
    let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
    if log.access == Access::Cutting {
        return Err(ControlError::Busy);
    }
    log.access = Access::Cutting;
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
                || log.sealing > 0
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
    let mut files: Vec<FileHandle> = log.tail.iter().filter_map(|segment| segment.file).collect();
    state.files_open -= files.len();
    files.extend(log.sealed.iter().filter_map(|sealed| sealed.file));
    files
}
