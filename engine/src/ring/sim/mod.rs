//! A simulated disk: seeded, with a virtual clock, and worse than any real one.
//!
//! A [`SimDisk`] outlives the [`SimRing`]s opened on it, as a disk outlives processes. It has a *live* image,
//! which running processes see, and a *durable* image, which a power cut leaves.
//!
//! # The fault model
//! **Time.** An operation starts with the `enter` after its `push`, takes a time drawn from the seed, and has
//! its whole effect on the live image at the moment of its completion. Completions come out of order. A
//! read sees the live image at its completion. `enter` moves the clock: by [`SimOptions::enter_ns`] each
//! call, and when it sleeps to the next completion of any ring on the disk.
//!
//! **Writes.** A plain write is durable after a sync of its file that *started after the write had
//! completed*; a write that completes beside a sync in flight is not covered. A durable write is durable at
//! its completion, with what reading it back needs (the file's length). Overwrites past the page cache of
//! blocks that are durably part of the file also become durable when anybody flushes the device, as
//! [`FlushScope`] says; bytes in the page cache and bytes that need new metadata do not.
//!
//! **Lengths.** Extending, reserving and cutting a file is durable after a sync of the file. Of the changes
//! of one file's length that are not durable, a crash keeps a prefix. Past the kept length nothing
//! comes back. A hole, a reserved range, and a kept length without its bytes read as zeros.
//!
//! **Names.** Creating, renaming, unlinking and making directories is durable after a sync of the *parent
//! directory* that started after it. A sync of a new file or directory does not make its own name durable. Of
//! the changes of one directory that are not durable, a crash keeps a prefix; there is no order
//! between two directories, so a rename across them is two changes, and may lose both names.
//!
//! **Power cut** ([`SimDisk::crash`]). Every operation in flight is lost, or took effect without being durable.
//! Every write that is not durable is kept, lost, or torn at 512-byte sectors, each by its own draw:
//! there is no order between writes. Then the live image is the durable one, and old rings are dead.
//!
//! **Death of a process** ([`SimDisk::kill`]). A prefix of each write in flight, and some of the other operations
//! in flight, took effect. The live image stays, and what was not durable still is not.
//!
//! **Errors** ([`SimDisk::inject`]). A failed operation may have taken effect all the same. Bytes that a failed sync
//! did not flush are never flushed by a later one that succeeds.
//!
//! **Space.** A file takes space from its beginning to the last byte written or reserved, in blocks. Reserving
//! beyond the capacity fails; of an extending write the part that fits lands.
//!
//! **Rot** ([`SimDisk::corrupt`]). Bytes change where they lie.
//!
//! **Mistakes of ours** panic: direct I/O that is not aligned, two writes in flight that share a 4096-byte block
//! of a file, closing a file with operations in flight, a sleep that nothing can end.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use super::{Ring, RingStats, Wait, Wake};
use crate::buffers::Arena;
use crate::clock::{Clock, SimClock};
use crate::command::{Completion, Disk, Done, Op};

mod disk;
mod faults;
mod file;
#[cfg(test)]
mod tests;
mod volume;

use disk::{Core, State};
pub use faults::{CrashPlan, Effect, Fault, OpKind, When};

/// Wall time at which a simulation begins: 2024-01-01.
const WALL_ORIGIN_MS: i64 = 1_704_067_200_000;

/// Which flushes reach the whole device, beside their own file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum FlushScope {
    /// None: the strictest model.
    OwnFile,
    /// Syncs. As on a device where a durable write is one write past the cache (FUA).
    Syncs,
    /// Syncs and durable writes. As on a device where a durable write is a write and a flush.
    #[default]
    EveryFlush,
}

/// How long operations take: for each a time within the range, in nanoseconds.
#[derive(Clone, Debug)]
pub struct Latency {
    /// Reads.
    pub read_ns: Range<u64>,
    /// Writes that are not durable.
    pub write_ns: Range<u64>,
    /// Syncs and durable writes.
    pub flush_ns: Range<u64>,
    /// All else.
    pub metadata_ns: Range<u64>,
}

impl Latency {
    fn of(&self, op: &Op) -> Range<u64> {
        match op {
            Op::Read { .. } => self.read_ns.clone(),
            Op::Sync { .. } | Op::Write { durable: true, .. } => self.flush_ns.clone(),
            Op::Write { .. } => self.write_ns.clone(),
            _ => self.metadata_ns.clone(),
        }
    }
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            read_ns: 50_000..300_000,
            write_ns: 20_000..200_000,
            flush_ns: 100_000..1_000_000,
            metadata_ns: 10_000..200_000,
        }
    }
}

/// A simulated disk's properties.
#[derive(Clone, Debug)]
pub struct SimOptions {
    /// Draws latencies and random faults.
    pub seed: u64,
    /// Which flushes reach the whole device.
    pub flush_scope: FlushScope,
    /// Two writes in flight that share a 4096-byte block of a file panic.
    pub forbid_shared_blocks: bool,
    /// Whether files can be opened past the page cache.
    pub takes_direct: bool,
    /// Space on the disk.
    pub capacity_bytes: u64,
    /// How long operations take.
    pub latency: Latency,
    /// What a call of `enter` takes, in nanoseconds; not 0, so that a ring that only polls gets on.
    pub enter_ns: u64,
    /// The most completions of one `enter`; 1 lets a test look at the disk after each.
    pub completions_per_enter: usize,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self {
            seed: 0,
            flush_scope: FlushScope::default(),
            forbid_shared_blocks: true,
            takes_direct: true,
            capacity_bytes: u64::MAX / 2,
            latency: Latency::default(),
            enter_ns: 500,
            completions_per_enter: usize::MAX,
        }
    }
}

/// The error of [`Ring::enter`] on a [`SimRing`] whose disk has lost power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the simulated power is cut")]
pub struct PowerCut;

/// Whether `error` is a [`PowerCut`].
pub fn is_power_cut(error: &io::Error) -> bool {
    error.get_ref().and_then(|inner| inner.downcast_ref::<PowerCut>()).is_some()
}

/// A simulated disk. Clones are the same disk; [`SimDisk::fork`] makes another.
#[derive(Clone)]
pub struct SimDisk(Rc<RefCell<State>>);

/// A whole disk at one moment: see [`SimDisk::snapshot`].
#[derive(Clone)]
pub struct SimSnapshot {
    core: Core,
    clock: SimClock,
}

impl SimDisk {
    /// An empty disk with default properties.
    pub fn new(seed: u64) -> Self {
        Self::with_options(SimOptions { seed, ..SimOptions::default() })
    }

    /// An empty disk.
    pub fn with_options(options: SimOptions) -> Self {
        Self(Rc::new(RefCell::new(State::new(options, SimClock::new(WALL_ORIGIN_MS)))))
    }

    /// A new process's way to the disk, for at most `capacity` operations in flight.
    ///
    /// # Panics
    /// If the disk is a fork that was neither crashed nor killed.
    pub fn ring(&self, capacity: usize) -> SimRing {
        SimRing {
            disk: self.clone(),
            id: self.0.borrow_mut().open_ring(),
            capacity,
            wake: Arc::new(SimWake(AtomicBool::new(false))),
            stats: RingStats::default(),
            registered: false,
        }
    }

    /// Runs one operation after the other to its end: cold procedures without a shard.
    pub fn serial(&self) -> SerialDisk {
        SerialDisk(Rc::new(RefCell::new(self.ring(1))))
    }

    /// The clock that this disk moves.
    pub fn clock(&self) -> SimClock {
        self.0.borrow().clock.clone()
    }

    /// Cuts the power; see the fault model. All rings and handles are dead.
    pub fn crash(&self, plan: CrashPlan) {
        self.0.borrow_mut().crash(plan);
    }

    /// Ends all processes that use the disk, with the power on.
    pub fn kill(&self, seed: u64) {
        self.0.borrow_mut().kill(seed);
    }

    /// Another disk in the state of this one, to be crashed or killed while this one goes on. It shares
    /// all unchanged blocks, so a fork at every step of a run is cheap.
    #[must_use]
    pub fn fork(&self) -> Self {
        let state = self.0.borrow();
        let mut core = state.core.clone();
        core.adrift = state.changes_in_flight();
        Self(Rc::new(RefCell::new(State::of(core, state.clock.fork()))))
    }

    /// The disk as it is, without operations in flight.
    pub fn snapshot(&self) -> SimSnapshot {
        let state = self.0.borrow();
        let mut core = state.core.clone();
        core.volume.close_all();
        SimSnapshot { core, clock: state.clock.fork() }
    }

    /// Makes the disk what it was, with its clock, faults and counters: what is done then has the same
    /// outcome. All rings and handles are dead.
    pub fn restore(&self, snapshot: &SimSnapshot) {
        let mut state = self.0.borrow_mut();
        state.restore(snapshot.core.clone());
        state.clock.set_to(&snapshot.clock);
    }

    /// Adds a rule of what goes wrong.
    pub fn inject(&self, fault: Fault) {
        self.0.borrow_mut().core.faults.inject(fault);
    }

    /// Takes back all rules.
    pub fn clear_faults(&self) {
        self.0.borrow_mut().core.faults.clear();
    }

    /// How often a rule has hit an operation.
    pub fn faults_hit(&self) -> u64 {
        self.0.borrow().core.faults.hits
    }

    /// Sets the space on the disk.
    pub fn set_capacity_bytes(&self, bytes: u64) {
        self.0.borrow_mut().core.volume.capacity_bytes = bytes;
    }

    /// Space taken.
    pub fn used_bytes(&self) -> u64 {
        self.0.borrow().core.volume.used_bytes()
    }

    /// Operations completed on this disk, ever.
    pub fn steps(&self) -> u64 {
        self.0.borrow().core.steps
    }

    /// Syncs and durable writes that succeeded, ever.
    pub fn flush_count(&self) -> u64 {
        self.0.borrow().core.flushes
    }

    /// A hash of all completions, their order, times and outcomes.
    pub fn history(&self) -> u64 {
        self.0.borrow().core.history
    }

    /// Stops the disk once `steps()` is `step`: completions up to there can be taken and acted on; the next
    /// `enter` fails with [`PowerCut`]. The test then calls [`SimDisk::crash`].
    pub fn crash_at_step(&self, step: u64) {
        self.0.borrow_mut().cut_at_step = Some(step);
    }

    /// Whether the step of [`SimDisk::crash_at_step`] was reached and the disk not yet crashed.
    pub fn is_cut(&self) -> bool {
        self.0.borrow().is_cut()
    }

    /// A file's bytes as processes see them.
    pub fn file_bytes(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let volume = &self.0.borrow().core.volume;
        let ino = volume.find(path.as_ref(), false).ok()?;
        volume.file(ino).ok().map(file::File::bytes)
    }

    /// A file's bytes that a power cut would leave at least.
    pub fn durable_bytes(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let volume = &self.0.borrow().core.volume;
        let ino = volume.find(path.as_ref(), true).ok()?;
        volume.file(ino).ok().map(file::File::durable_bytes)
    }

    /// Whether processes see something at `path`.
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.0.borrow().core.volume.find(path.as_ref(), false).is_ok()
    }

    /// The paths of all files, sorted.
    pub fn files(&self) -> Vec<String> {
        self.0.borrow().core.volume.files()
    }

    /// Makes a file with exactly these bytes, and its directories, by hand: all that is on the disk is durable
    /// afterwards.
    ///
    /// # Panics
    /// If `path` is a directory.
    pub fn set_file_bytes(&self, path: impl AsRef<Path>, bytes: &[u8]) {
        let path = path.as_ref();
        self.create_dir_all(path.parent().unwrap_or(Path::new("")));
        let volume = &mut self.0.borrow_mut().core.volume;
        let mode = crate::command::OpenMode { create: true, ..Default::default() };
        let ino = volume.open(path, mode).expect("a path for a file");
        volume.file_mut(ino).expect("a file").set_bytes(bytes);
        volume.close(ino);
        volume.flush_all();
    }

    /// Makes a directory and all above it by hand: all that is on the disk is durable afterwards.
    ///
    /// # Panics
    /// If a file is in the way.
    pub fn create_dir_all(&self, path: impl AsRef<Path>) {
        let volume = &mut self.0.borrow_mut().core.volume;
        let mut above: Vec<&Path> = path.as_ref().ancestors().collect();
        above.reverse();
        for path in above {
            if let Err(error) = volume.make_dir(path) {
                assert_eq!(error.raw_os_error(), Some(libc::EEXIST), "{}", path.display());
            }
        }
        volume.flush_all();
    }

    /// Inverts `len` bytes at `pos`, wherever they are.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn corrupt(&self, path: impl AsRef<Path>, pos: u64, len: u64) {
        let volume = &mut self.0.borrow_mut().core.volume;
        let ino = volume.find(path.as_ref(), false).expect("a file to corrupt");
        volume.file_mut(ino).expect("a file to corrupt").corrupt(pos, len);
    }
}

struct SimWake(AtomicBool);

impl Wake for SimWake {
    fn wake(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A process's way to a [`SimDisk`].
pub struct SimRing {
    disk: SimDisk,
    id: u32,
    capacity: usize,
    wake: Arc<SimWake>,
    stats: RingStats,
    registered: bool,
}

impl SimRing {
    /// Moves the clock to the next completion of any ring, or as far as `wait` allows.
    fn sleep(&mut self, state: &mut State, wait: Wait) {
        let now_ns = state.clock.monotonic_ns();
        let until_ns = match wait {
            Wait::No => return,
            Wait::AtMost(time) => Some(now_ns.saturating_add(time.as_nanos() as u64)),
            Wait::Forever => None,
        };
        self.stats.sleeps += 1;
        match (state.next_due_ns(), until_ns) {
            (None, None) => panic!("deadlock: a sleep with nothing in flight and no time limit"),
            (Some(due_ns), None) => state.clock.advance_to_ns(due_ns),
            (None, Some(until_ns)) => state.clock.advance_to_ns(until_ns),
            (Some(due_ns), Some(until_ns)) => state.clock.advance_to_ns(due_ns.min(until_ns)),
        }
        state.run_due();
    }
}

impl Ring for SimRing {
    fn register(&mut self, arena: &Arena) -> u64 {
        assert!(!self.registered && self.stats.submitted == 0, "once, before the first operation");
        self.registered = true;
        arena.bytes() as u64
    }

    fn push(&mut self, token: u64, op: Op) {
        assert!(self.in_flight() < self.capacity, "the caller bounds what it starts");
        self.stats.submitted += 1;
        match &op {
            Op::Write { data, durable, .. } => {
                self.stats.write_bytes += data.len() as u64;
                self.stats.flushes += u64::from(*durable);
            }
            Op::Sync { .. } => self.stats.flushes += 1,
            _ => {}
        }
        self.disk.0.borrow_mut().push(self.id, token, op);
    }

    fn in_flight(&self) -> usize {
        self.disk.0.borrow().in_flight(self.id)
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn enter(&mut self, wait: Wait) -> io::Result<()> {
        let disk = self.disk.clone();
        let mut state = disk.0.borrow_mut();
        if state.is_cut() || !state.is_open(self.id) {
            return Err(io::Error::other(PowerCut));
        }
        self.stats.enters += 1;
        state.submit(self.id);
        let enter_ns = state.core.options.enter_ns;
        state.clock.advance_ns(enter_ns);
        state.run_due();
        let idle = !state.has_ready(self.id) && !state.is_cut();
        if idle && wait != Wait::No && !self.wake.0.swap(false, Ordering::Acquire) {
            self.sleep(&mut state, wait);
        }
        Ok(())
    }

    fn pop(&mut self) -> Option<Completion> {
        self.disk.0.borrow_mut().pop(self.id)
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.wake.clone()
    }

    fn stats(&self) -> RingStats {
        self.stats
    }
}

impl Drop for SimRing {
    fn drop(&mut self) {
        self.disk.0.borrow_mut().close_ring(self.id);
    }
}

/// A [`Disk`] that has finished each operation when `run` returns. After a power cut its operations never
/// end: see [`poll_once`].
#[derive(Clone)]
pub struct SerialDisk(Rc<RefCell<SimRing>>);

impl Disk for SerialDisk {
    fn run(&self, op: Op) -> impl Future<Output = io::Result<Done>> + 'static {
        let mut ring = self.0.borrow_mut();
        // An operation still in flight is one that the power cut took.
        let cut = ring.in_flight() > 0;
        if !cut {
            ring.push(0, op);
        }
        let result = loop {
            if let Some(completion) = ring.pop() {
                break Some(completion.result);
            }
            if cut || ring.enter(Wait::Forever).is_err() {
                break None;
            }
        };
        async {
            match result {
                Some(result) => result,
                None => std::future::pending().await,
            }
        }
    }
}

/// The output of a future that runs on a [`SerialDisk`] alone, or `None` if the power was cut on the way.
pub fn poll_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
