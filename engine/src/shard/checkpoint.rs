//! Frees journal space: writes back what old groups hold, flushes it, and lets the groups go.
//!
//! Runs in the background from half a journal on, so that an append does not wait for it. The crash schedule
//! stands in `docs/durability.md`; the order here is what it proves: write, flush, release, announce.

use std::collections::{BTreeMap, VecDeque};

use crate::command::{Disk, FileHandle, Op};
use crate::defects::{self, Defect};
use crate::error::Fault;
use crate::journal::{LogId, Reference};
use crate::limits::{CHECKPOINT_AGE_NS, CHECKPOINT_SYNCS_IN_FLIGHT, CHECKPOINT_WRITES_IN_FLIGHT};
use crate::log::Access;
use crate::types::{Offset, Pos};

use super::Context;
use super::groups::Forced;
use super::prepare::fence;
use super::read::Syncing;
use super::state::State;
use crate::local::join_bounded;

/// How much of the journal a checkpoint frees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// The older three quarters: what comes after completes most of their last blocks.
    Older,
    /// All that is durable now.
    All,
    /// Groups up to this sequence.
    UpTo(u64),
}

#[derive(Clone, Copy, Debug)]
struct Item {
    log: LogId,
    segment: Offset,
    need: Pos,
    /// The log's count of truncations when the item was made: afterwards it is void.
    cuts: u32,
}

enum Status {
    /// Written as far as needed, or nothing to be done.
    Done,
    /// The log is fenced: the journal must go on holding its bytes.
    Stuck,
    /// A write was begun or is in flight.
    Waiting,
}

/// One checkpoint. Returns whether anything was freed.
pub(crate) async fn checkpoint(cx: Context, extent: Extent) -> bool {
    let until = {
        let state = cx.state.borrow();
        match extent {
            Extent::Older => state.journal.older_part(3, 4),
            Extent::All => Some(state.journal.durable_sequence()),
            Extent::UpTo(sequence) => Some(sequence),
        }
    };
    let Some(until) = until else { return false };
    let began = cx.state.borrow().time.ns;
    let mut carried: Vec<LogId> = Vec::new();
    // A padded tail may still be needed after the whole blocks: twice is enough, the bound is for safety.
    for _ in 0..16 {
        // What is known to be stuck first: it needs room in the journal, of which appends leave less by the hour.
        let fenced = fenced(&cx.state.borrow(), until, &carried);
        if !carry(&cx, until, &fenced).await {
            return false;
        }
        carried.extend(fenced);
        let items = collect(&cx.state.borrow(), until, &carried);
        if items.is_empty() {
            break;
        }
        let stuck = write_back(&cx, items.clone()).await;
        if !carry(&cx, until, &stuck).await {
            return false;
        }
        carried.extend(stuck);
        if !defects::is(Defect::FreeBeforeFlush) {
            flush(&cx, &items).await;
        }
        if cx.state.borrow().journal.fault().is_some() {
            return false;
        }
    }
    let mut state = cx.state.borrow_mut();
    let state = &mut *state;
    let logs = &mut state.logs;
    let freed = state.journal.release(|sequence, reference| {
        is_flushed(logs[reference.log.0 as usize].as_deref(), reference)
            || defects::is(Defect::FreeBeforeFlush)
            // Later groups are those that carry it.
            || sequence <= until && carried.contains(&reference.log)
    });
    state.stats.checkpoints += 1;
    state.stats.checkpoint_ns += state.time.ns - began;
    freed
}

/// Writes groups back once they are old, so that an idle partition's tail does not stay in the journal and a
/// recovery finds little.
pub(crate) async fn age(cx: Context) {
    loop {
        let (seen, now) = {
            let state = cx.state.borrow();
            (state.journal.durable_sequence(), state.time.ns)
        };
        cx.tasks.sleep_until(now + CHECKPOINT_AGE_NS).await;
        if !take_turn(&cx).await {
            break;
        }
        checkpoint(cx.clone(), Extent::UpTo(seen)).await;
        let mut state = cx.state.borrow_mut();
        state.after_checkpoint(true);
        if state.journal.needed_bytes() == 0 || state.closing {
            break;
        }
    }
    cx.state.borrow_mut().stop_aging();
}

/// Waits until no checkpoint is running, and claims to be the one that is. `false` if the journal failed.
pub(crate) async fn take_turn(cx: &Context) -> bool {
    loop {
        let progress = {
            let mut state = cx.state.borrow_mut();
            if state.journal.fault().is_some() {
                return false;
            }
            if !state.checkpointing {
                state.checkpointing = true;
                return true;
            }
            state.progress.notified()
        };
        progress.await;
    }
}

fn is_flushed(log: Option<&crate::log::Log>, reference: Reference) -> bool {
    let Some(log) = log else { return true };
    log.tail
        .iter()
        .find(|segment| segment.base() == reference.segment)
        .is_none_or(|segment| segment.flushed() >= reference.end && !segment.rewriting)
}

/// Fenced logs of which needed groups hold bytes that are not flushed.
fn fenced(state: &State, until: u64, carried: &[LogId]) -> Vec<LogId> {
    let mut found: Vec<LogId> = Vec::new();
    state.journal.visit_needed(until, |reference| {
        let Some(log) = state.logs[reference.log.0 as usize].as_deref() else { return };
        let known = carried.contains(&reference.log) || found.last() == Some(&reference.log);
        let stuck = !known && matches!(log.access, Access::Fenced(_));
        if stuck && !is_flushed(Some(log), reference) && !found.contains(&reference.log) {
            found.push(reference.log);
        }
    });
    found
}

fn collect(state: &State, until: u64, carried: &[LogId]) -> VecDeque<Item> {
    let mut needs: BTreeMap<(LogId, Offset), Pos> = BTreeMap::new();
    state.journal.visit_needed(until, |reference| {
        let log = state.logs[reference.log.0 as usize].as_deref();
        // A truncation writes and flushes its block itself, and the image stays until then.
        let rewriting = log.is_some_and(|log| log.tail.iter().any(|s| s.rewriting));
        if !rewriting && !carried.contains(&reference.log) && !is_flushed(log, reference) {
            let need = needs.entry((reference.log, reference.segment)).or_default();
            *need = (*need).max(reference.end);
        }
    });
    let item = |((log, segment), need): ((LogId, Offset), Pos)| {
        let cuts = state.logs[log.0 as usize].as_deref().map_or(0, |log| log.cuts);
        Item { log, segment, need, cuts }
    };
    needs.into_iter().map(item).collect()
}

/// Brings every item's bytes into its file. Returns the logs that can not be written.
async fn write_back(cx: &Context, mut waiting: VecDeque<Item>) -> Vec<LogId> {
    let mut begun: VecDeque<Item> = VecDeque::new();
    let mut stuck = Vec::new();
    loop {
        let progress = {
            let mut state = cx.state.borrow_mut();
            while begun.front().is_some_and(|item| is_written(&mut state, item)) {
                begun.pop_front();
            }
            for _ in 0..waiting.len().min(CHECKPOINT_WRITES_IN_FLIGHT * 4) {
                if state.writes.in_flight() >= CHECKPOINT_WRITES_IN_FLIGHT {
                    break;
                }
                let Some(item) = waiting.pop_front() else { break };
                match write_item(&mut state, &item) {
                    Status::Done => begun.push_back(item),
                    Status::Stuck => stuck.push(item.log),
                    Status::Waiting => waiting.push_back(item),
                }
            }
            if waiting.is_empty() && begun.is_empty() {
                return stuck;
            }
            if state.journal.fault().is_some() {
                return stuck;
            }
            state.progress.notified()
        };
        progress.await;
    }
}

fn is_written(state: &mut State, item: &Item) -> bool {
    let Some(log) = state.log(item.log) else { return true };
    if matches!(log.access, Access::Fenced(_)) || log.cuts != item.cuts {
        return true;
    }
    log.segment(item.segment).is_none_or(|segment| segment.written.done() >= item.need)
}

fn write_item(state: &mut State, item: &Item) -> Status {
    let block = state.settings.shape.block;
    let Some(log) = state.log(item.log) else { return Status::Done };
    if matches!(log.access, Access::Fenced(_)) {
        return Status::Stuck;
    }
    if log.cuts != item.cuts {
        return Status::Done;
    }
    let Some(segment) = log.segment(item.segment) else { return Status::Done };
    if segment.written.done() >= item.need {
        if segment.flushable() < item.need {
            // A tail written under `os`: it is padded for good once the journal holds all of it.
            if segment.file.is_some() && segment.may_pad() {
                state.write_tail(item.log, item.segment, true);
            } else {
                segment.journal_goal = segment.journal_goal.max(segment.end());
                state.look_at(item.log);
            }
        }
        return Status::Done;
    }
    if segment.file.is_none() || !segment.may_write() {
        return Status::Waiting;
    }
    let whole = segment.whole_end(segment.claimed());
    if whole > segment.write_issued() {
        state.write(item.log, item.segment, whole, false);
        let Some(segment) = state.segment(item.log, item.segment) else { return Status::Done };
        return if segment.write_issued() >= item.need { Status::Done } else { Status::Waiting };
    }
    if segment.write_issued() >= item.need {
        return Status::Done;
    }
    let in_last_block = item.need.since(segment.write_issued()) < block;
    if in_last_block && segment.may_pad() {
        return if state.write_tail(item.log, item.segment, true) {
            Status::Done
        } else {
            Status::Waiting
        };
    }
    Status::Waiting
}

/// Has the journal hold again what can not be written back, so that its older groups can go. `false` if the journal
/// failed.
async fn carry(cx: &Context, until: u64, stuck: &[LogId]) -> bool {
    if stuck.is_empty() {
        return true;
    }
    let last = {
        let mut state = cx.state.borrow_mut();
        let mut again = Vec::new();
        state.journal.visit_needed(until, |reference| {
            if stuck.contains(&reference.log) {
                again.push(Reference { claims: false, ..reference });
            }
        });
        let state = &mut *state;
        again.retain(|r| !is_flushed(state.logs[r.log.0 as usize].as_deref(), *r));
        again.into_iter().map(|r| state.force(Forced::Carry(r))).last()
    };
    match last {
        Some(last) => wait_for_forced(cx, last).await,
        None => true,
    }
}

/// Waits until a forced entry is durable. `false` if the journal failed.
pub(crate) async fn wait_for_forced(cx: &Context, number: u64) -> bool {
    loop {
        let progress = {
            let state = cx.state.borrow();
            if state.is_forced(number) {
                return true;
            }
            if state.journal.fault().is_some() {
                return false;
            }
            state.progress.notified()
        };
        progress.await;
    }
}

/// Flushes the items' files: one by one, or by one flush of the device where that covers them.
async fn flush(cx: &Context, items: &VecDeque<Item>) {
    let mut files: Vec<FileHandle> = Vec::new();
    // What to flush, and by which of the files' flushes.
    let mut targets: Vec<(Item, usize, Pos)> = Vec::new();
    {
        let mut state = cx.state.borrow_mut();
        let device = state.settings.global_flush.then_some(state.journal_file);
        for item in items {
            if let Some(log) = state.log(item.log)
                && log.cuts == item.cuts
                && !matches!(log.access, Access::Fenced(_))
                && let Some(segment) = log.segment(item.segment)
                && let Some(file) = segment.file
            {
                let by = device.filter(|_| segment.overwrites).unwrap_or(file);
                let at =
                    if device == Some(by) { files.iter().position(|f| *f == by) } else { None };
                let at = at.unwrap_or_else(|| {
                    files.push(by);
                    files.len() - 1
                });
                targets.push((*item, at, segment.flushable()));
            }
        }
    }
    // The files stay open, and are not cut, until the flush has ended.
    let users: Vec<Syncing> =
        targets.iter().map(|(item, ..)| Syncing::new(cx, item.log, item.segment)).collect();
    let syncs = files.iter().map(|file| {
        let sync = cx.disk.run(Op::Sync { file: *file, data_only: true });
        async move { sync.await.map(drop) }
    });
    let results = join_bounded(CHECKPOINT_SYNCS_IN_FLIGHT, syncs).await;
    cx.state.borrow_mut().stats.flushes += results.len() as u64;
    for (item, at, reached) in targets {
        if let Err(error) = &results[at] {
            fence(cx, item.log, Fault::new("flushing a segment", error));
            continue;
        }
        let mut state = cx.state.borrow_mut();
        if let Some(log) = state.log(item.log) {
            log.finish_flush(item.segment, reached);
        }
        state.settle(item.log);
    }
    drop(users);
}
