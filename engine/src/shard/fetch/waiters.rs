//! Fetches that wait for a log to grow.
//!
//! Each waits for a goal: so many bytes appended to its log in all, or so many of them durable. They stand in one tree,
//! ordered by log, isolation and goal. A log with fetches that moves is queued once, and once a turn the shard takes
//! those from the front whose goal is reached. A log that nobody waits for costs a look at one number, and one that
//! moves under a thousand fetches costs those that it ends.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll, Waker};

use crate::error::ReadError;
use crate::journal::LogId;
use crate::limits::FETCHES_MAX;
use crate::log::Log;
use crate::shard::Context;
use crate::shard::state::State;
use crate::types::Isolation;

/// Whose fetch waits, for which bound, until how many bytes, and its number among those.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    log: LogId,
    durable: bool,
    goal: u64,
    number: u64,
}

/// A shard's fetches.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    waiting: BTreeMap<Key, Option<Waker>>,
    next_number: u64,
    /// Logs with fetches that may have moved.
    moved: VecDeque<LogId>,
    /// Fetches that have not ended, waiting or not.
    under_way: usize,
}

impl Waiters {
    /// Whether no log has moved since the shard last looked.
    pub(crate) fn are_quiet(&self) -> bool {
        self.moved.is_empty()
    }

    /// Queues the log if fetches wait for it.
    pub(crate) fn note(&mut self, log: &mut Log) {
        if log.watchers > 0 && !log.moved {
            log.moved = true;
            self.moved.push_back(log.identity.id);
        }
    }

    /// Fetches that wait.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Ends the waits from `from` up to a goal of `goal`.
    fn wake(&mut self, from: Key, to: Key) -> u32 {
        let mut woken = 0;
        while let Some((&key, _)) = self.waiting.range(from..=to).next() {
            if let Some(Some(waker)) = self.waiting.remove(&key) {
                waker.wake();
            }
            woken += 1;
        }
        woken
    }

    fn wake_log(&mut self, log: LogId) -> u32 {
        let from = Key { log, durable: false, goal: 0, number: 0 };
        let to = Key { log, durable: true, goal: u64::MAX, number: u64::MAX };
        self.wake(from, to)
    }
}

impl State {
    /// The log has moved: its bounds, or what lies between them.
    pub(crate) fn note_moved(&mut self, id: LogId) {
        if let Some(log) = self.logs.get_mut(id.0 as usize).and_then(Option::as_deref_mut) {
            self.fetches.note(log);
        }
    }

    /// Ends the waits of fetches that have what they want, or never will. Once a turn.
    pub(crate) fn wake_fetches(&mut self) {
        while let Some(id) = self.fetches.moved.pop_front() {
            let Some(log) = self.logs.get_mut(id.0 as usize).and_then(Option::as_deref_mut) else {
                continue;
            };
            log.moved = false;
            let told = (log.taken_back.count(), log.watermarks().log_start);
            let mut woken = 0;
            if log.told == told {
                for durable in [false, true] {
                    let bound = if durable { log.durable_end() } else { log.end() };
                    let goal = log.bytes_before(bound);
                    let from = Key { log: id, durable, goal: 0, number: 0 };
                    woken += self.fetches.wake(from, Key { goal, number: u64::MAX, ..from });
                }
            } else {
                log.told = told;
                woken += self.fetches.wake_log(id);
            }
            log.watchers -= woken;
        }
    }

    /// Ends every wait for the log, which is gone, or for any: each looks for itself what has happened.
    pub(crate) fn wake_fetches_of(&mut self, id: Option<LogId>) {
        let ids = match id {
            Some(id) => id.0 as usize..id.0 as usize + 1,
            None => 0..self.logs.len(),
        };
        for at in ids {
            let woken = self.fetches.wake_log(LogId(at as u32));
            if let Some(log) = self.logs[at].as_deref_mut() {
                log.watchers -= woken;
            }
        }
    }
}

/// A place among the fetches of a shard, given back when it is dropped.
pub(super) struct UnderWay(Rc<RefCell<State>>);

impl UnderWay {
    /// Takes a place.
    ///
    /// # Errors
    /// [`ReadError::Overloaded`] if there is none.
    pub(super) fn begin(cx: &Context) -> Result<Rc<Self>, ReadError> {
        let mut state = cx.state.borrow_mut();
        if state.fetches.under_way >= FETCHES_MAX {
            return Err(ReadError::Overloaded);
        }
        state.fetches.under_way += 1;
        drop(state);
        Ok(Rc::new(Self(cx.state.clone())))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.borrow_mut().fetches.under_way -= 1;
    }
}

/// Ends when the log has so many bytes below the bound, or something else has happened to it. Dropping it ends the
/// wait.
pub(super) struct Wait {
    state: Rc<RefCell<State>>,
    key: Key,
}

impl Wait {
    pub(super) fn begin(cx: &Context, id: LogId, (isolation, goal): (Isolation, u64)) -> Self {
        let mut state = cx.state.borrow_mut();
        let number = state.fetches.next_number;
        state.fetches.next_number += 1;
        let durable = isolation == Isolation::Durable;
        let key = Key { log: id, durable, goal, number };
        let closing = state.closing;
        if let Some(log) = state.log(id)
            && !closing
        {
            if log.watchers == 0 {
                log.told = (log.taken_back.count(), log.watermarks().log_start);
            }
            log.watchers += 1;
            state.fetches.waiting.insert(key, None);
            // It may have moved since the fetch has looked.
            state.note_moved(id);
        }
        drop(state);
        Self { state: cx.state.clone(), key }
    }
}

impl Future for Wait {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let mut state = self.state.borrow_mut();
        let Some(waker) = state.fetches.waiting.get_mut(&self.key) else { return Poll::Ready(()) };
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut state = self.state.borrow_mut();
        if state.fetches.waiting.remove(&self.key).is_some()
            && let Some(log) = state.log(self.key.log)
        {
            log.watchers -= 1;
        }
    }
}
