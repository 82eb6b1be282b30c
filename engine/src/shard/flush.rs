//! Flushes a log to stable storage on demand or by its `interval`, and changes its policy.

use crate::command::{Disk, FileHandle, Op};
use crate::error::{ControlError, Fault};
use crate::journal::LogId;
use crate::log::{Access, Unflushed};
use crate::segment::Segment;
use crate::types::{FlushPolicy, Offset, Pos};

use super::Context;
use super::prepare::fence;
use super::read::Syncing;
use super::state::{Errand, State};

/// Waits until `done` says so; `Err` if the log is fenced or gone before.
pub(crate) async fn until(
    cx: &Context,
    id: LogId,
    mut done: impl FnMut(&mut State) -> bool,
) -> Result<(), ControlError> {
    loop {
        let progress = {
            let mut state = cx.state.borrow_mut();
            if done(&mut state) {
                return Ok(());
            }
            let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
            if log.deleting {
                return Err(ControlError::Closed);
            }
            match log.access {
                Access::Fenced(fault) => return Err(ControlError::Disk(fault)),
                Access::Damaged => return Err(ControlError::ReadOnly),
                Access::Open | Access::Full | Access::Cutting => {}
            }
            if let (Some(fault), true) = (state.journal.fault(), state.closing) {
                return Err(ControlError::Disk(fault));
            }
            state.progress.notified()
        };
        progress.await;
    }
}

/// A flush of a segment's file has ended well, up to where [`Segment::flushable`] said. `Err` if the log was fenced
/// meanwhile: then it counts for nothing.
pub(crate) fn count_flush(
    cx: &Context,
    id: LogId,
    (base, reached): (Offset, Pos),
) -> Result<(), ControlError> {
    let mut state = cx.state.borrow_mut();
    let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
    if let Access::Fenced(fault) = log.access {
        return Err(ControlError::Disk(fault));
    }
    log.finish_flush(base, reached);
    state.settle(id);
    state.progress.notify();
    Ok(())
}

/// Brings every record appended before this call to stable storage.
pub(crate) async fn flush(cx: &Context, id: LogId) -> Result<(), ControlError> {
    let target = match cx.state.borrow_mut().log(id) {
        Some(log) => log.watermarks().dirty,
        None => return Err(ControlError::Closed),
    };
    until(cx, id, |state| state.log(id).is_none_or(|log| !log.flushing)).await?;
    {
        let mut state = cx.state.borrow_mut();
        let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
        if log.watermarks().durable >= target {
            return Ok(());
        }
        log.flushing = true;
        log.unflushed = Unflushed::default();
    }
    // Under `group` too: an append acknowledged before a switch raises no watermark by itself.
    let result = flush_segments(cx, id).await;
    let mut state = cx.state.borrow_mut();
    if let Some(log) = state.log(id) {
        log.flushing = false;
    }
    state.look_at(id);
    state.progress.notify();
    result
}

async fn flush_segments(cx: &Context, id: LogId) -> Result<(), ControlError> {
    let (end, ends) = {
        let mut state = cx.state.borrow_mut();
        let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
        let ends = log.tail.iter().map(|segment| (segment.base(), segment.end()));
        (log.end(), ends.collect::<Vec<(Offset, Pos)>>())
    };
    for (base, end) in ends {
        flush_segment(cx, id, base, end).await?;
    }
    let mut state = cx.state.borrow_mut();
    if let Some(log) = state.log(id) {
        log.raise_durable(end);
    }
    state.settle(id);
    Ok(())
}

/// Whether all that the flush has to cover is written: up to `end`, or, once the policy is `group`, what was begun
/// before.
fn is_flush_due(state: &mut State, id: LogId, (base, end): (Offset, Pos)) -> bool {
    let Some(log) = state.log(id) else { return true };
    let group = log.policy == FlushPolicy::Group;
    log.segment(base).is_none_or(|segment| {
        segment.written.done() >= end
            || !segment.needs_flush() && (group || segment.durable.done() >= end)
            || group && segment.written.unfinished() == 0
    })
}

async fn sync(
    cx: &Context,
    id: LogId,
    (base, file): (Offset, FileHandle),
) -> Result<(), ControlError> {
    cx.state.borrow_mut().stats.flushes += 1;
    let user = Syncing::new(cx, id, base);
    let synced = cx.disk.run(Op::Sync { file, data_only: true }).await;
    drop(user);
    synced.map(drop).map_err(|error| {
        let fault = Fault::new("flushing a segment", &error);
        fence(cx, id, fault);
        ControlError::Disk(fault)
    })
}

async fn flush_segment(
    cx: &Context,
    id: LogId,
    base: Offset,
    end: Pos,
) -> Result<(), ControlError> {
    let durable = |state: &mut State| {
        state.segment(id, base).is_none_or(|s| s.durable.done() >= end && s.entry_durable)
    };
    loop {
        until(cx, id, |state| is_flush_due(state, id, (base, end))).await?;
        let (file, reached) = {
            let mut state = cx.state.borrow_mut();
            if durable(&mut state) {
                return Ok(());
            }
            let Some(segment) = state.segment(id, base) else { return Ok(()) };
            // Nothing is written past what is claimed: the journal and durable writes do the rest.
            let file = segment.file.filter(|_| segment.written.done() > segment.claimed());
            (file, segment.flushable())
        };
        if let Some(file) = file {
            sync(cx, id, (base, file)).await?;
            count_flush(cx, id, (base, reached))?;
        }
        {
            let mut state = cx.state.borrow_mut();
            let Some(segment) = state.segment(id, base) else { return Ok(()) };
            if segment.durable.done() < end {
                // The tail may be rewritten: it counts by its image in the journal.
                segment.journal_goal = segment.journal_goal.max(end);
                if let Some(fault) = state.journal.fault() {
                    return Err(ControlError::Disk(fault));
                }
            }
            state.look_at(id);
        }
        // More may have been written meanwhile, without a flush: the journal takes nothing behind that.
        let overtaken = |state: &mut State| {
            // While those writes are in flight there is nothing to flush yet: they end the wait.
            let flushable = |s: &mut Segment| s.needs_flush() && s.written.done() > s.claimed();
            state.segment(id, base).is_some_and(flushable)
        };
        until(cx, id, |state| {
            durable(state) || overtaken(state) || state.journal.fault().is_some()
        })
        .await?;
    }
}

/// Flushes an `interval` log when its time is up.
pub(crate) async fn alarm(cx: Context, id: LogId) {
    let due = {
        let mut state = cx.state.borrow_mut();
        let Some(log) = state.log(id) else { return };
        let (FlushPolicy::Interval { ms, .. }, Some(since)) = (log.policy, log.unflushed.since_ns)
        else {
            return;
        };
        since + u64::from(ms) * 1_000_000
    };
    cx.tasks.sleep_until(due).await;
    let still = {
        let mut state = cx.state.borrow_mut();
        let now = state.time.ns;
        let Some(log) = state.log(id) else { return };
        let FlushPolicy::Interval { ms, .. } = log.policy else { return };
        match log.unflushed.since_ns {
            Some(since) if now < since + u64::from(ms) * 1_000_000 => {
                // A flush came in between; the clock runs from a later append.
                state.errand(Errand::Alarm(id));
                false
            }
            Some(_) => true,
            None => false,
        }
    };
    if still {
        // A failed flush has fenced the log, which its appends are told.
        drop(flush(&cx, id).await);
    }
}
