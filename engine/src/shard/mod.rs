//! One core's event loop: inbox -> logs -> ring -> acks.
//!
//! A turn takes appends from the inbox, turns what the logs hold into writes, carries operations to the ring,
//! and turns completions into acks. Cold procedures run on a local executor between turns. The shard's
//! thread owns everything; nothing is locked after the inbox.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::buffers::Arena;
use crate::clock::Clock;
use crate::command::{Completion, Op};
use crate::error::Fault;
use crate::limits::{
    COMPACTORS_MAX, EXECUTOR_BUDGET, LOOKUP_BYTES_MAX, LOOKUP_BYTES_MIN, PREPARERS_MAX,
    REMOVERS_MAX, RESEALERS_MAX, WRITES_IN_FLIGHT_MAX, ZEROERS_MAX,
};
use crate::local::Semaphore;
use crate::log::plan::Purpose;
use crate::ring::{Ring, Wait};
use crate::types::Durability;

pub(crate) mod attach;
pub(crate) mod checkpoint;
pub(crate) mod compact;
pub(crate) mod delete;
pub(crate) mod disk;
pub(crate) mod driver;
pub(crate) mod executor;
pub(crate) mod fetch;
pub(crate) mod flush;
pub(crate) mod groups;
pub(crate) mod idle;
pub(crate) mod inbox;
pub(crate) mod keep;
pub(crate) mod lookup_cache;
mod memory;
pub(crate) mod net;
pub(crate) mod open_files;
pub(crate) mod points;
pub(crate) mod prepare;
pub(crate) mod read;
mod remove;
pub(crate) mod reseal;
pub(crate) mod scrub;
pub(crate) mod seal;
pub(crate) mod shield;
pub(crate) mod state;
mod stopwatch;
mod swap;
pub(crate) mod thread;
pub(crate) mod truncate;
pub(crate) mod writes;

use checkpoint::Extent;
use disk::{NetDesk, ShardDisk};
use executor::{Executor, Spawner};
use inbox::Inbox;
use open_files::OpenFiles;
use points::Points;
use state::{Errand, Parts, State};
use writes::Token;

/// What a procedure works with. Cheap to clone; stays on the shard's thread.
#[derive(Clone)]
pub(crate) struct Context {
    /// The shard's state; never borrowed across an `await`.
    pub(crate) state: Rc<RefCell<State>>,
    /// The way to the disk.
    pub(crate) disk: ShardDisk,
    /// The way to sockets.
    pub(crate) net: NetDesk,
    /// Starts tasks and sleeps.
    pub(crate) tasks: Spawner,
    /// Servers inside the shard.
    pub(crate) services: net::Services,
    /// Segment files that are open to be read.
    pub(crate) files: OpenFiles,
    /// Blocks of cold segments.
    pub(crate) cold: net::Cold,
    /// Recovery points of the data directory.
    pub(crate) points: Arc<Points>,
    /// Bounds how many segments are prepared at once: appends and checkpoints share the device with that.
    pub(crate) preparers: Semaphore,
    /// Bounds the writes of zeros in flight that nobody waits for: appends wait behind them.
    pub(crate) zeroers: Semaphore,
    /// Bounds how many sealed segments are read as a whole at once: a directory that Kafka made has many.
    pub(crate) resealers: Semaphore,
    /// Bounds how many deleted files are cut up at once.
    pub(crate) removers: Semaphore,
    /// Bounds how many logs are compacted at once.
    pub(crate) compactors: Semaphore,
}

impl Context {
    /// The shard's memory.
    pub(crate) fn arena(&self) -> Arena {
        self.state.borrow().arena.clone()
    }
}

/// A shard: one thread's loop over a ring.
pub(crate) struct Shard<R: Ring, C: Clock> {
    ring: R,
    clock: C,
    executor: Executor,
    cx: Context,
    inbox: Arc<Inbox<Context>>,
    spin: Duration,
}

impl<R: Ring, C: Clock> Shard<R, C> {
    /// A shard over a ring with which the arena is registered.
    pub(crate) fn new(
        ring: R,
        clock: C,
        (executor, disk): (Executor, ShardDisk),
        parts: Parts,
        points: Arc<Points>,
    ) -> Self {
        let inbox = parts.inbox.clone();
        let files = {
            let lookup_bytes = parts.arena.bytes() / 16;
            let lookup_bytes = lookup_bytes.clamp(LOOKUP_BYTES_MIN, LOOKUP_BYTES_MAX);
            OpenFiles::new(disk.clone(), parts.settings.read_files_max(), lookup_bytes)
        };
        let mut state = State::new(parts);
        state.time = now(&clock);
        let tasks = executor.spawner();
        let preparers = Semaphore::new(PREPARERS_MAX);
        let zeroers = Semaphore::new(ZEROERS_MAX);
        let resealers = Semaphore::new(RESEALERS_MAX);
        let removers = Semaphore::new(REMOVERS_MAX);
        let compactors = Semaphore::new(COMPACTORS_MAX);
        let state = Rc::new(RefCell::new(state));
        let net = NetDesk::default();
        let services = net::Services::default();
        let cold = net::Cold::new(state.borrow().arena.bytes());
        let cx = Context {
            state,
            disk,
            net,
            tasks,
            services,
            files,
            cold,
            points,
            preparers,
            zeroers,
            resealers,
            removers,
            compactors,
        };
        Self { ring, clock, executor, cx, inbox, spin: Duration::ZERO }
    }

    /// Spins this long before it sleeps.
    pub(crate) fn set_spin(&mut self, spin: Duration) {
        self.spin = spin;
    }

    /// What procedures work with.
    pub(crate) fn context(&self) -> Context {
        self.cx.clone()
    }

    /// Starts a procedure.
    pub(crate) fn spawn(&self, procedure: impl Future<Output = ()> + 'static) {
        drop(self.executor.spawn(procedure));
    }

    /// One turn. Sleeps at most as `wait` allows if there is nothing to do.
    pub(crate) fn turn(&mut self, wait: Wait) -> io::Result<()> {
        let calls = {
            let mut state = self.cx.state.borrow_mut();
            state.time = now(&self.clock);
            state.stats.ring = self.ring.stats();
            let calls = state.take_mail();
            state.wake_fetches();
            calls
        };
        for call in calls {
            drop(self.executor.spawn(call(self.cx.clone())));
        }
        self.executor.fire_timers(self.cx.state.borrow().time.ns);
        self.executor.run_ready(EXECUTOR_BUDGET);
        self.cx.state.borrow_mut().pump();
        self.run_errands();
        self.push();
        if !self.spin(wait)? {
            let wait = self.allowed(wait);
            self.ring.enter(wait)?;
            self.reap();
        }
        self.cx.state.borrow_mut().stats.ring = self.ring.stats();
        Ok(())
    }

    /// Whether a turn would find nothing to do but to wait for the disk, a timer or a message.
    fn is_idle(&self) -> bool {
        let state = self.cx.state.borrow();
        !state.may_admit_now()
            && !self.executor.has_ready()
            && state.errands.is_empty()
            && !self.cx.net.has_queued()
            && state.fetches.are_quiet()
            && (state.ops.is_empty() && !self.cx.disk.has_queued() || self.is_full())
    }

    fn is_full(&self) -> bool {
        self.ring.in_flight() >= self.ring.capacity()
    }

    /// Submits, and looks for what ends or arrives for as long as the shard spins. `false` if that was in vain, or it
    /// does not spin: then it may sleep.
    fn spin(&mut self, wait: Wait) -> io::Result<bool> {
        if self.spin.is_zero() || wait == Wait::No || self.cx.state.borrow().is_short_of_memory() {
            return Ok(false);
        }
        let until = self.clock.monotonic_ns() + self.spin.as_nanos() as u64;
        let until = until.min(self.executor.next_deadline().unwrap_or(u64::MAX));
        loop {
            self.ring.enter(Wait::No)?;
            if self.reap() || !self.is_idle() || self.inbox.has_mail() {
                return Ok(true);
            }
            if self.clock.monotonic_ns() >= until {
                return Ok(false);
            }
            // The kernel's threads that end a durable write may be bound to this core: they go first.
            std::thread::yield_now();
        }
    }

    fn allowed(&self, wait: Wait) -> Wait {
        if wait == Wait::No || !self.is_idle() {
            return Wait::No;
        }
        let patience_bytes = self.cx.state.borrow().patience_bytes();
        if !self.inbox.fall_asleep(patience_bytes) {
            return Wait::No;
        }
        let now = self.cx.state.borrow().time.ns;
        let timer = self
            .executor
            .next_deadline()
            .map(|deadline| Duration::from_nanos(deadline.saturating_sub(now)));
        match (wait, timer) {
            (Wait::AtMost(most), Some(timer)) => Wait::AtMost(most.min(timer)),
            (Wait::Forever, Some(timer)) => Wait::AtMost(timer),
            (wait, _) => wait,
        }
    }

    fn push(&mut self) {
        let mut state = self.cx.state.borrow_mut();
        let now = if state.ops.is_empty() { 0 } else { self.clock.monotonic_ns() };
        while self.ring.in_flight() < self.ring.capacity() {
            let Some((token, op)) = state.ops.pop_front() else { break };
            state.watch.begin(Token::decode(token), now);
            self.ring.push(token, op);
        }
        // Procedures leave room for appends.
        while self.ring.in_flight() + WRITES_IN_FLIGHT_MAX < self.ring.capacity() {
            let Some((number, op)) = self.cx.disk.pop() else { break };
            self.ring.push(Token::Procedure(number).encode(), op);
        }
        // A group that a fault has ended is in flight for ever.
        let journaled = state.journal.fault().is_none() && state.journal.in_flight() > 0;
        state.writing = journaled || state.writes.in_flight() > 0;
        drop(state);
        net::push(&mut self.ring, &self.cx.net);
    }

    /// Takes what has ended. Returns whether anything has.
    fn reap(&mut self) -> bool {
        let is_any = net::reap(&mut self.ring, &self.cx.net);
        let Some(first) = self.ring.pop() else { return is_any };
        let now = self.clock.monotonic_ns();
        self.complete(first, now);
        while let Some(completion) = self.ring.pop() {
            self.complete(completion, now);
        }
        true
    }

    fn complete(&mut self, completion: Completion, now_ns: u64) {
        let Completion { token, result } = completion;
        let token = Token::decode(token);
        if let Token::Procedure(number) = token {
            drop(self.cx.disk.end(number, result));
            return;
        }
        let fault = |operation| result.as_ref().err().map(|e| Fault::new(operation, e));
        let mut state = self.cx.state.borrow_mut();
        let by_fdatasync = state.settings.durability == Durability::Fdatasync;
        if result.is_ok() {
            state.time(token, now_ns);
        }
        match token {
            Token::Segment(slot) => {
                let write = state.writes.get(slot);
                let fault = fault("writing a segment");
                if write.purpose == Purpose::Durable && by_fdatasync && fault.is_none() {
                    let op = Op::Sync { file: write.file, data_only: true };
                    state.ops.push_back((Token::SegmentFlush(slot).encode(), op));
                    return;
                }
                let write = state.writes.end(slot);
                state.landed(write, fault);
            }
            Token::SegmentFlush(slot) => {
                let write = state.writes.end(slot);
                state.landed(write, fault("flushing a segment"));
            }
            Token::Group(sequence) => {
                let fault = fault("writing the journal");
                if by_fdatasync && fault.is_none() {
                    let op = Op::Sync { file: state.journal_file, data_only: true };
                    state.ops.push_back((Token::GroupFlush(sequence).encode(), op));
                    return;
                }
                state.group_landed(sequence, fault);
            }
            Token::GroupFlush(sequence) => {
                state.group_landed(sequence, fault("flushing the journal"));
            }
            Token::Procedure(_) => unreachable!("handled above"),
        }
    }

    fn run_errands(&mut self) {
        loop {
            let Some(errand) = self.cx.state.borrow_mut().errands.pop_front() else { break };
            let cx = self.cx.clone();
            match errand {
                Errand::Prepare(id, base) => self.spawn(prepare::prepare(cx, id, base)),
                Errand::Flush(id) => self.spawn(async move {
                    // A failed flush has fenced the log, which its appends are told.
                    drop(flush::flush(&cx, id).await);
                }),
                Errand::Seal(id) => self.spawn(seal::seal(cx, id)),
                Errand::Reseal(id, base) => self.spawn(reseal::reseal(cx, id, base)),
                Errand::Alarm(id) => self.spawn(flush::alarm(cx, id)),
                Errand::Checkpoint => self.begin_checkpoint(),
                Errand::Point(id) => self.spawn(points::advance(cx, id)),
                Errand::Keep(id) => self.spawn(keep::look(cx, id)),
                Errand::Age => self.spawn(checkpoint::age(cx)),
            }
        }
    }

    fn begin_checkpoint(&mut self) {
        if self.cx.state.borrow().is_short_of_memory() {
            self.cx.cold.clear();
        }
        {
            let mut state = self.cx.state.borrow_mut();
            if state.checkpointing {
                return;
            }
            state.checkpointing = true;
        }
        let cx = self.cx.clone();
        self.spawn(async move {
            cx.state.borrow_mut().trim_all();
            let short = cx.state.borrow().is_short_of_memory();
            let extent = if short { Extent::All } else { Extent::Older };
            let freed = checkpoint::checkpoint(cx.clone(), extent).await;
            let mut state = cx.state.borrow_mut();
            state.after_checkpoint(freed);
            state.progress.notify();
        });
    }
}

/// Reads the clock once for a turn.
fn now(clock: &impl Clock) -> state::Time {
    state::Time { ns: clock.monotonic_ns(), wall_ms: clock.wall_ms() }
}

/// Ends what a closed shard can not do any more.
pub(crate) fn refuse_all(state: &mut State) {
    state.refuse_arrivals();
    state.inbox.refuse_all();
}
