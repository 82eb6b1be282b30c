//! Closes files of partitions that are idle, least recently used first, so that more partitions than the system
//! allows open files can be served. A file is closed only after a good flush: an error of the device must reach
//! the descriptor that wrote.

use crate::command::{Disk, FileHandle, Op};
use crate::journal::LogId;
use crate::limits::IDLE_CLOSED_AT_ONCE;
use crate::log::{Access, Log};

use super::Context;
use super::state::{Errand, State};

/// Makes room for one more open file.
pub(crate) async fn make_room(cx: &Context) {
    if cx.state.borrow().files_open < cx.state.borrow().settings.tail_files_max() {
        return;
    }
    if close_idle(cx).await == 0 {
        // Idle, but not flushed: a checkpoint does that. It may want the very file that is to be opened, so that
        // nobody waits for it here; the reserve holds meanwhile.
        cx.state.borrow_mut().errand(Errand::Checkpoint);
    }
}

/// Closes some of the files that nobody needs. Returns how many.
async fn close_idle(cx: &Context) -> usize {
    let closing = {
        let mut state = cx.state.borrow_mut();
        let mut idle: Vec<(u64, LogId)> = state
            .logs
            .iter()
            .flatten()
            .filter(|log| is_idle(log))
            .map(|log| (log.used_ns, log.identity.id))
            .collect();
        let count = idle.len().min(IDLE_CLOSED_AT_ONCE);
        if count > 0 {
            idle.select_nth_unstable(count - 1);
        }
        idle.truncate(count);
        let files: Vec<FileHandle> =
            idle.iter().filter_map(|(_, id)| take_file(&mut state, *id)).collect();
        files
    };
    let count = closing.len();
    for file in closing {
        // Flushed: there is nothing left that a failed close could lose.
        drop(cx.disk.run(Op::Close { file }).await);
    }
    count
}

fn take_file(state: &mut State, id: LogId) -> Option<FileHandle> {
    let file = state.log(id)?.active().file.take()?;
    state.files_open -= 1;
    Some(file)
}

fn is_idle(log: &Log) -> bool {
    let Some(segment) = log.tail.front() else { return false };
    log.tail.len() == 1
        && log.access == Access::Open
        && !(log.queued || log.gathering || log.flushing || log.pointing)
        && (log.writes_in_flight, log.readers) == (0, 0)
        && segment.file.is_some()
        && segment.entry_durable
        && !segment.preparing
        && segment.is_flushed()
}
