//! All that is between `push` and `pop`, whoever makes the system calls: waiting to start, with the kernel,
//! and finished but not taken.

use std::collections::VecDeque;

use super::RingStats;
use super::call::Call;
use super::files::Files;
use super::slots::{Key, Slots};
use super::task::{CacheFlush, Task, Verdict};
use crate::command::{Completion, Done, FileHandle, Op};

/// Which calls a ring makes on its own thread, because its kernel cannot do better.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inline {
    /// Writes through the page cache: ext4 hands each ring write to a worker thread, which costs more
    /// than the copy. Their flush still goes through the ring.
    pub(super) cached_writes: bool,
    /// Truncations: before Linux 6.9 a ring has none.
    pub(super) truncate: bool,
}

impl Inline {
    fn takes(self, call: &Call) -> bool {
        match call {
            Call::Write { file, .. } => self.cached_writes && !file.direct,
            Call::Truncate { .. } => self.truncate,
            _ => false,
        }
    }

    fn cache_flush(self) -> CacheFlush {
        if self.cached_writes { CacheFlush::Apart } else { CacheFlush::WithWrite }
    }
}

/// The operations of a ring. Allocates at construction, for paths and for files opened.
#[derive(Debug)]
pub(super) struct InFlight {
    slots: Slots<Task>,
    /// Tasks whose next call is to be made.
    waiting: VecDeque<Key>,
    /// Completions to be taken.
    ready: VecDeque<Completion>,
    pub(super) files: Files,
    inline: Inline,
    pub(super) stats: RingStats,
}

impl InFlight {
    pub(super) fn new(capacity: usize, inline: Inline) -> Self {
        Self {
            slots: Slots::new(capacity),
            waiting: VecDeque::with_capacity(capacity),
            ready: VecDeque::with_capacity(capacity),
            files: Files::default(),
            inline,
            stats: RingStats::default(),
        }
    }

    pub(super) fn capacity(&self) -> usize {
        self.slots.capacity()
    }

    /// Pushed and not popped.
    pub(super) fn count(&self) -> usize {
        self.slots.used() + self.ready.len()
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(super) fn push(&mut self, token: u64, op: Op) {
        assert!(self.count() < self.capacity(), "the caller bounds what it starts");
        self.stats.submitted += 1;
        match &op {
            Op::Write { data, durable, .. } => {
                self.stats.write_bytes += data.len() as u64;
                self.stats.flushes += u64::from(*durable);
            }
            Op::Sync { .. } => self.stats.flushes += 1,
            _ => {}
        }
        match Task::new(token, op) {
            Ok(task) => {
                if let Some(file) = task.file() {
                    self.files.retain(file, task.closes());
                }
                let key = self.slots.insert(task);
                self.waiting.push_back(key);
            }
            Err(error) => self.ready.push_back(Completion { token, result: Err(error) }),
        }
    }

    pub(super) fn pop(&mut self) -> Option<Completion> {
        self.ready.pop_front()
    }

    /// The next call to be made for somebody. Makes those that are to be made in place on its way.
    pub(super) fn next_call(&mut self) -> Option<(Key, Call)> {
        while let Some(key) = self.waiting.pop_front() {
            let task = self.slots.get_mut(key);
            match task.call(&self.files, self.inline.cache_flush()) {
                Some(call) if self.inline.takes(&call) => {
                    // SAFETY: the slot owns what the call points at.
                    let result = unsafe { call.run() };
                    self.complete(key, result);
                }
                Some(call) => return Some((key, call)),
                None if task.is_empty() => {
                    self.over(key, Ok(0));
                }
                None => {
                    let result = task.run_in_place(&self.files);
                    let task = self.slots.remove(key);
                    if let Some(file) = task.file() {
                        self.files.release(file);
                    }
                    self.ready.push_back(Completion { token: task.token, result });
                }
            }
        }
        None
    }

    /// Takes the result of a call in. Returns the file, if it opened one.
    pub(super) fn complete(&mut self, key: Key, result: i32) -> Option<FileHandle> {
        let task = self.slots.get_mut(key);
        match task.advance(result, &self.files, self.inline.cache_flush()) {
            Verdict::Over(outcome) => self.over(key, outcome),
            Verdict::Again => {
                self.stats.continued += 1;
                self.waiting.push_back(key);
                None
            }
            Verdict::Next => {
                self.waiting.push_back(key);
                None
            }
        }
    }

    /// Takes the result of a call in when the ring is given up: the operation goes no further.
    pub(super) fn abandon(&mut self, key: Key, result: i32) {
        self.over(key, if result < 0 { Err(-result) } else { Ok(result) });
    }

    fn over(&mut self, key: Key, outcome: Result<i32, i32>) -> Option<FileHandle> {
        let task = self.slots.remove(key);
        if let Some(file) = task.file() {
            self.files.release(file);
        }
        let token = task.token;
        let result = task.finish(outcome, &mut self.files);
        let opened = if let Ok(Done::File(file)) = &result { Some(*file) } else { None };
        self.ready.push_back(Completion { token, result });
        opened
    }
}
