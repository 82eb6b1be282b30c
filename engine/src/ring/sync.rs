//! A ring over plain system calls made by a few threads: the fallback where io_uring is forbidden, and what
//! io_uring is compared with.
//!
//! # Invariants
//! - What a job points at is owned by a slot of the ring's thread until the job's result is seen.
//! - Each slot has at most one job, so both queues stay within the ring's capacity.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::call::Call;
use super::inflight::{InFlight, Inline};
use super::net::poller::{Poller, Seen};
use super::net::{Means, NetCall, Sockets};
use super::slots::Key;
use super::wake::Sleeper;
use super::{Ring, RingStats, Wait, Wake};
use crate::buffers::Arena;
use crate::command::{Completion, Op};

/// The most operations in flight.
const OPERATIONS_MAX: usize = 4096;

/// The most threads. Each blocks in one call, so this is the depth of the disk's queue.
const WORKERS_MAX: usize = 256;

/// A call for a worker.
struct Job {
    key: Key,
    call: Call,
}

// SAFETY: the pointers in `call` lead to memory that the ring's slot owns until the worker's result is
// seen; meanwhile the ring's thread only reads what is written to files, and leaves alone what is read into.
unsafe impl Send for Job {}

#[derive(Default)]
struct Jobs {
    queue: VecDeque<Job>,
    is_closing: bool,
}

#[derive(Default)]
struct Results {
    queue: VecDeque<(Key, i32)>,
    /// What the poller saw.
    seen: Vec<Seen>,
    /// The ring's thread waits for one, or for a wake-up.
    is_awaited: bool,
}

/// What the ring's thread and the workers share.
struct Shared {
    jobs: Mutex<Jobs>,
    has_jobs: Condvar,
    results: Mutex<Results>,
    has_results: Condvar,
    sleeper: Sleeper,
}

impl Shared {
    fn work(&self) {
        while let Some(job) = self.take() {
            // SAFETY: the slot under `key` owns what the call points at until the result is seen.
            let result = unsafe { job.call.run() };
            let mut results = lock(&self.results);
            results.queue.push_back((job.key, result));
            if results.is_awaited {
                self.has_results.notify_one();
            }
        }
    }

    fn take(&self) -> Option<Job> {
        let mut jobs = lock(&self.jobs);
        loop {
            if jobs.is_closing {
                return None;
            }
            if let Some(job) = jobs.queue.pop_front() {
                return Some(job);
            }
            jobs = self.has_jobs.wait(jobs).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Shared {
    /// Takes in what the poller saw.
    fn notice(&self, seen: &mut Vec<Seen>) {
        let mut results = lock(&self.results);
        results.seen.append(seen);
        if results.is_awaited {
            self.has_results.notify_one();
        }
    }
}

impl Wake for Shared {
    fn wake(&self) {
        if self.sleeper.notify() {
            // Under the lock: between the sleeper's last look and its wait nobody gets in.
            let _results = lock(&self.results);
            self.has_results.notify_one();
        }
    }
}

/// No code under these locks can panic half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The ring. Not `Send`: it belongs to the thread that made it.
pub struct SyncRing {
    flight: InFlight,
    sockets: Sockets,
    /// Started by the first socket that waits for something.
    poller: Option<Poller>,
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Results being taken in; swapped with the shared queue.
    results: VecDeque<(Key, i32)>,
    seen: Vec<Seen>,
}

impl SyncRing {
    /// Makes a ring with so many threads, at least one.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn new(workers: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            jobs: Mutex::new(Jobs {
                queue: VecDeque::with_capacity(OPERATIONS_MAX),
                is_closing: false,
            }),
            has_jobs: Condvar::new(),
            results: Mutex::new(Results {
                queue: VecDeque::with_capacity(OPERATIONS_MAX),
                seen: Vec::new(),
                is_awaited: false,
            }),
            has_results: Condvar::new(),
            sleeper: Sleeper::default(),
        });
        let inline = Inline { cached_writes: false, truncate: false };
        let mut ring = Self {
            flight: InFlight::new(OPERATIONS_MAX, inline),
            sockets: Sockets::new(Means::default()),
            poller: None,
            shared,
            workers: Vec::new(),
            results: VecDeque::with_capacity(OPERATIONS_MAX),
            seen: Vec::new(),
        };
        for number in 0..workers.clamp(1, WORKERS_MAX) {
            let shared = ring.shared.clone();
            let worker = thread::Builder::new().name(format!("ringmain-io-{number}"));
            ring.workers.push(worker.spawn(move || shared.work())?);
        }
        Ok(ring)
    }

    /// Gives waiting operations to the workers.
    fn submit(&mut self) {
        if !self.flight.is_waiting() {
            return;
        }
        let mut count = 0;
        // The lock is not held over what `next_call` does in place.
        while let Some((key, call)) = self.flight.next_call() {
            lock(&self.shared.jobs).queue.push_back(Job { key, call });
            count += 1;
        }
        self.flight.stats.enters += 1;
        for _ in 0..count.min(self.workers.len()) {
            self.shared.has_jobs.notify_one();
        }
    }

    /// Makes the calls on sockets that do not block, and has the poller wait for the rest.
    fn serve(&mut self) -> io::Result<()> {
        while let Some((key, call)) = self.sockets.next_call(&self.flight.files) {
            match call {
                NetCall::Poll { .. } => self.watch(key.handle().0)?,
                NetCall::Cancel => self.sockets.complete(key, -libc::ECANCELED, None, false),
                call => unreachable!("threads have no means for {call:?}"),
            }
        }
        Ok(())
    }

    /// Has the poller wait for what is to be waited for on a socket, if anything is.
    fn watch(&mut self, handle: u64) -> io::Result<()> {
        let Some(polls) = self.sockets.polls(handle) else { return Ok(()) };
        let poller = match &mut self.poller {
            Some(poller) => poller,
            none => {
                let shared = self.shared.clone();
                none.insert(Poller::start(move |seen| shared.notice(seen))?)
            }
        };
        poller.watch(handle, polls)
    }

    /// Takes all results in.
    fn reap(&mut self) -> io::Result<()> {
        let mut results = lock(&self.shared.results);
        mem::swap(&mut results.queue, &mut self.results);
        mem::swap(&mut results.seen, &mut self.seen);
        drop(results);
        for (key, result) in self.results.drain(..) {
            self.flight.complete(key, result);
        }
        let mut seen = mem::take(&mut self.seen);
        for (handle, input, output) in seen.drain(..) {
            self.sockets.noticed(handle, input, output);
            self.watch(handle)?;
        }
        self.seen = seen;
        Ok(())
    }

    /// Sleeps until there is a result or a wake-up, or `time` is over. Returns whether a wake-up came.
    fn sleep(&mut self, time: Option<Duration>) -> bool {
        let shared = &*self.shared;
        if !shared.sleeper.begin() {
            return true;
        }
        self.flight.stats.enters += 1;
        self.flight.stats.sleeps += 1;
        let mut results = lock(&shared.results);
        results.is_awaited = true;
        let is_idle = |results: &mut Results| {
            results.queue.is_empty() && results.seen.is_empty() && !shared.sleeper.is_notified()
        };
        let has_results = &shared.has_results;
        let mut results = match time {
            Some(time) => {
                let waited = has_results.wait_timeout_while(results, time, is_idle);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => {
                has_results.wait_while(results, is_idle).unwrap_or_else(PoisonError::into_inner)
            }
        };
        results.is_awaited = false;
        drop(results);
        shared.sleeper.end()
    }
}

impl Ring for SyncRing {
    /// There is nothing to register memory with.
    fn register(&mut self, arena: &Arena) -> u64 {
        arena.set_registered(0);
        self.sockets.set_arena(arena);
        0
    }

    fn push(&mut self, token: u64, op: Op) {
        self.flight.push(token, op);
    }

    fn in_flight(&self) -> usize {
        self.flight.count()
    }

    fn capacity(&self) -> usize {
        self.flight.capacity()
    }

    fn enter(&mut self, wait: Wait) -> io::Result<()> {
        let end = match wait {
            Wait::AtMost(time) => Instant::now().checked_add(time),
            Wait::No | Wait::Forever => None,
        };
        let mut is_woken = false;
        loop {
            self.submit();
            self.serve()?;
            self.reap()?;
            if self.flight.is_waiting() || self.sockets.is_waiting() {
                continue;
            }
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            let is_over = wait == Wait::No || left == Some(Duration::ZERO);
            if self.flight.is_ready() || self.sockets.is_ready() || is_woken || is_over {
                return Ok(());
            }
            is_woken = self.sleep(left);
        }
    }

    fn pop(&mut self) -> Option<Completion> {
        self.flight.pop()
    }

    fn sockets(&mut self) -> Option<&mut Sockets> {
        Some(&mut self.sockets)
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.shared.clone()
    }

    fn stats(&self) -> RingStats {
        self.flight.stats
    }
}

impl Drop for SyncRing {
    /// Jobs that no worker has taken are given up; those taken are waited for.
    fn drop(&mut self) {
        let mut jobs = lock(&self.shared.jobs);
        jobs.queue.clear();
        jobs.is_closing = true;
        drop(jobs);
        self.shared.has_jobs.notify_all();
        let mut is_joined = true;
        for worker in self.workers.drain(..) {
            is_joined &= worker.join().is_ok();
        }
        for (key, result) in mem::take(&mut lock(&self.shared.results).queue) {
            self.flight.abandon(key, result);
        }
        assert!(is_joined || thread::panicking(), "workers do not panic");
    }
}

impl fmt::Debug for SyncRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SyncRing({} in flight, {} threads)", self.flight.count(), self.workers.len())
    }
}
