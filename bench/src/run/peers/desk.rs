//! Where a backend's threads lay down what has ended, for the measuring thread to take.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use anyhow::{Error, Result};

use crate::run::backend::Completion;

/// The desk of one instance.
pub(super) struct Desk {
    state: Mutex<State>,
    /// Whether the measuring thread sleeps, or is about to.
    asleep: AtomicBool,
    thread: Thread,
}

struct State {
    done: Vec<Completion>,
    broken: Option<Error>,
}

impl Desk {
    /// For the calling thread, which takes up to `slots` completions at once.
    pub(super) fn new(slots: u32) -> Self {
        let state = State { done: Vec::with_capacity(slots as usize), broken: None };
        Self { state: Mutex::new(state), asleep: AtomicBool::new(false), thread: thread::current() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lays down all of `ended`, which is empty then.
    pub(super) fn put(&self, ended: &mut Vec<Completion>) {
        self.state().done.append(ended);
        self.wake();
    }

    /// Says that no request will end any more. The first reason counts.
    pub(super) fn fail(&self, error: Error) {
        self.state().broken.get_or_insert(error);
        self.wake();
    }

    fn wake(&self) {
        // The lock orders this after the sleeper's look, if that saw nothing.
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            self.thread.unpark();
        }
    }

    /// Takes what is there; with nothing there, waits up to `wait`.
    ///
    /// # Errors
    /// What the backend broke of.
    pub(super) fn take(&self, wait: Duration, done: &mut Vec<Completion>) -> Result<()> {
        if self.gather(done)? || wait.is_zero() {
            return Ok(());
        }
        self.asleep.store(true, Ordering::SeqCst);
        if !self.gather(done)? {
            thread::park_timeout(wait);
        }
        self.asleep.store(false, Ordering::SeqCst);
        self.gather(done).map(|_| ())
    }

    fn gather(&self, done: &mut Vec<Completion>) -> Result<bool> {
        let mut state = self.state();
        done.append(&mut state.done);
        match state.broken.take() {
            Some(error) => Err(error),
            None => Ok(!done.is_empty()),
        }
    }
}
