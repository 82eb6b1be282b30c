//! Frees journal space: writes back what old groups hold, flushes it, and lets the groups go.
//!
//! Runs in the background from half a journal on, so that an append does not wait for it. The crash schedule
//! stands in `docs/durability.md`; the order here is what it proves: write, flush, release, announce.

use std::cmp::Reverse;
use std::collections::VecDeque;

use crate::command::{Disk, FileHandle, Op};
use crate::defects::{self, Defect};
use crate::error::Fault;
use crate::journal::{LogId, Reference};
use crate::limits::{CHECKPOINT_AGE_NS, CHECKPOINT_SYNCS_IN_FLIGHT, WRITE_BACKS_IN_FLIGHT};
use crate::log::plan::Purpose;
use crate::log::{Access, Log};
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
        let (fenced, items) = collect(&cx.state.borrow(), until, &carried);
        if !carry(&cx, until, &fenced).await {
            return false;
        }
        carried.extend(fenced);
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
        let state = cx.state.borrow();
        if state.journal.fault().is_some() {
            return false;
        }
        if items.iter().all(|item| is_safe(&state, item)) {
            break;
        }
    }
    let mut state = cx.state.borrow_mut();
    let state = &mut *state;
    let logs = &state.logs;
    let mut reached = BySegment::new(logs.len());
    let freed = state.journal.release(|sequence, reference| {
        let log = logs[reference.log.0 as usize].as_deref();
        let flushed = *reached.get(reference, || flushed_to(log, reference.segment));
        flushed.is_some_and(|flushed| flushed >= reference.end)
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

fn is_flushed(log: Option<&Log>, segment: Offset, end: Pos) -> bool {
    flushed_to(log, segment).is_some_and(|flushed| flushed >= end)
}

/// How far a segment is flushed: all of it if it is no longer part of a tail, and nothing counts while a truncation
/// rewrites its last block.
fn flushed_to(log: Option<&Log>, segment: Offset) -> Option<Pos> {
    let segment = log.and_then(|log| log.tail.iter().find(|s| s.base() == segment));
    segment.map_or(Some(Pos::MAX), |s| (!s.rewriting).then(|| s.flushed()))
}

/// Something for each segment that references name, found without a look at its log: there are hundreds of thousands of
/// references, of a few segments, and this fits a cache.
struct BySegment<T> {
    /// Where the newest segment of a log stands in `entries`, one further.
    newest: Vec<u32>,
    entries: Vec<(LogId, Offset, T)>,
}

impl<T> BySegment<T> {
    fn new(logs: usize) -> Self {
        Self { newest: vec![0; logs], entries: Vec::new() }
    }

    /// Of the segment that was named last of its log, unless this is another: then it is made.
    fn get(&mut self, reference: Reference, make: impl FnOnce() -> T) -> &mut T {
        let Reference { log, segment, .. } = reference;
        let place = &mut self.newest[log.0 as usize];
        let known = place.checked_sub(1).filter(|at| self.entries[*at as usize].1 == segment);
        if known.is_none() {
            self.entries.push((log, segment, make()));
            *place = self.entries.len() as u32;
        }
        &mut self.entries[*place as usize - 1].2
    }
}

/// How far needed groups up to `until` hold each segment, by log and segment.
fn needs(state: &State, until: u64) -> Vec<(LogId, Offset, Pos)> {
    let mut ends = BySegment::new(state.logs.len());
    state.journal.visit_needed(until, |reference| {
        let end = ends.get(reference, || Pos::ZERO);
        *end = (*end).max(reference.end);
    });
    let mut needs = ends.entries;
    // The furthest of each, should a log have gone from a segment to another and back.
    needs.sort_unstable_by_key(|&(log, segment, end)| (log, segment, Reverse(end)));
    needs.dedup_by_key(|&mut (log, segment, _)| (log, segment));
    needs
}

/// Fenced logs of which needed groups hold bytes that are not flushed, and what is to be written of the others. What
/// was `carried` is neither.
fn collect(state: &State, until: u64, carried: &[LogId]) -> (Vec<LogId>, VecDeque<Item>) {
    let mut fenced = Vec::new();
    let mut items = VecDeque::new();
    for (id, segment, need) in needs(state, until) {
        let Some(log) = state.logs[id.0 as usize].as_deref() else { continue };
        if is_flushed(Some(log), segment, need) || carried.contains(&id) {
            continue;
        }
        if matches!(log.access, Access::Fenced(_)) {
            if fenced.last() != Some(&id) {
                fenced.push(id);
            }
        } else if !log.tail.iter().any(|segment| segment.rewriting) {
            // A truncation writes and flushes its block itself, and the image stays until then.
            items.push_back(Item { log: id, segment, need, cuts: log.cuts });
        }
    }
    (fenced, items)
}

/// Whether the journal need not hold the item any more, as far as can be told without another look at its groups.
fn is_safe(state: &State, item: &Item) -> bool {
    let log = state.logs[item.log.0 as usize].as_deref();
    is_flushed(log, item.segment, item.need) && log.is_none_or(|log| log.cuts == item.cuts)
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
            for _ in 0..waiting.len().min(WRITE_BACKS_IN_FLIGHT * 4) {
                if !state.writes.may_write_back() {
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
        state.write(item.log, item.segment, whole, Purpose::WriteBack);
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
        again.retain(|r| !is_flushed(state.logs[r.log.0 as usize].as_deref(), r.segment, r.end));
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
