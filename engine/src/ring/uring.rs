//! A ring over io_uring: one per thread, made by the thread that uses it.
//!
//! # Invariants
//! - What a submitted entry points at is owned by a slot until the entry's completion is seen. Nothing
//!   else ends an operation: neither a timeout, nor closing the ring.
//! - Each slot has at most one entry with the kernel, and the completion queue has twice as many places
//!   as there are slots, so files cannot make it overflow. Sockets can: the kernel then keeps completions back until
//!   there is room, and loses none.

use std::fmt;
use std::io;
use std::mem;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::squeue::Entry;
use io_uring::types::{CancelBuilder, Fd};
use io_uring::{IoUring, cqueue, opcode};

use super::enter::{Block, Entrance};
use super::files::Files;
use super::inflight::{InFlight, Inline};
use super::net::provided::{GROUP, Provided};
use super::net::{Means, NetCall, NetKey, Sockets};
use super::setup::{self, Setup};
use super::slots::Key;
use super::sqe;
use super::wake::EventWake;
use super::{Ring, RingStats, Wait, Wake};
use crate::buffers::{Arena, CHUNK_BYTES_MAX};
use crate::command::{Completion, Op};

/// Operations in flight for each entry of the submission queue. What finds the queue full waits in a list.
const OPERATIONS_PER_ENTRY: usize = 4;

/// The most memory registered with the kernel: registering touches and pins all of it.
const REGISTERED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Less than this is not worth a registration.
const REGISTERED_BYTES_MIN: usize = 1024 * 1024;

const _: () = assert!(REGISTERED_BYTES_MIN.is_multiple_of(CHUNK_BYTES_MAX));

/// Times in a row the kernel may refuse to take entries, while nothing completes, before the ring counts
/// as broken.
const REFUSALS_MAX: u32 = 1000;

/// How long to wait for a completion that makes room after a refusal.
const REFUSED_WAIT: Duration = Duration::from_millis(1);

/// How long a ring that is dropped waits for the kernel to let go of its memory. Past it the memory is
/// leaked: a disk that hangs for so long may still write into it.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(30);

/// `user_data` of the read on the wake-up descriptor. No key is that large.
const WAKE: u64 = u64::MAX;

/// `user_data` of the cancellation at the end.
const CANCEL: u64 = u64::MAX - 1;

/// What this kernel is taken to do for sockets, until it refuses.
const MEANS: Means = Means { accept: true, receive: true, send: true };

/// What a ring got from the kernel, for the engine to report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UringFacts {
    /// Names of the setup flags in force.
    pub setup_flags: Vec<&'static str>,
    /// Whether calls name the ring by a registered descriptor.
    pub ring_registered: bool,
    /// Files, by the order of their opening, that are registered; further ones are plain descriptors.
    pub files_registered_max: u32,
    /// Bytes of the arena that are registered.
    pub registered_bytes: u64,
}

/// The ring. Not `Send`: it belongs to the thread that made it.
pub struct Uring {
    /// Before `ring`: it unregisters.
    entrance: Entrance,
    ring: IoUring,
    setup: Setup,
    flight: InFlight,
    sockets: Sockets,
    /// After `ring`: the kernel reads it.
    provided: Option<Provided>,
    /// Addresses of registered memory.
    registered: Range<usize>,
    /// Keeps registered memory alive.
    arena: Option<Arena>,
    waker: Arc<EventWake>,
    /// The read on the wake-up descriptor is with the kernel.
    is_armed: bool,
    /// A read on the wake-up descriptor has completed and is not acted upon.
    is_roused: bool,
    /// Entries queued or with the kernel, the wake-up's included.
    with_kernel: u32,
}

impl Uring {
    /// Makes a ring whose submission queue has `entries` places, and which takes four times as many
    /// operations at once.
    ///
    /// # Errors
    /// What `io_uring_setup(2)` says, such as `EPERM` where io_uring is switched off. An error of kind
    /// `Unsupported` holds a [`setup::MissingFeatures`].
    pub fn new(entries: u32) -> io::Result<Self> {
        Self::with_rung(entries, 0)
    }

    /// A ring as on an older kernel: see the ladder in `setup`.
    pub(super) fn with_rung(entries: u32, rung: usize) -> io::Result<Self> {
        let (ring, setup) = setup::build(entries, rung)?;
        let params = ring.params();
        // A clamped completion queue bounds the operations too: half of it, so that it never overflows.
        let capacity =
            (entries as usize * OPERATIONS_PER_ENTRY).min(params.cq_entries() as usize / 2);
        let entrance = Entrance::new(ring.as_raw_fd(), params.is_feature_no_iowait());
        let inline = Inline { cached_writes: true, truncate: !setup.has_truncate };
        Ok(Self {
            entrance,
            ring,
            setup,
            flight: InFlight::new(capacity, inline),
            sockets: Sockets::new(MEANS),
            provided: None,
            registered: 0..0,
            arena: None,
            waker: Arc::new(EventWake::new()?),
            is_armed: false,
            is_roused: false,
            with_kernel: 0,
        })
    }

    /// What this ring got from the kernel.
    #[must_use]
    pub fn facts(&self) -> UringFacts {
        UringFacts {
            setup_flags: self.setup.flag_names(),
            ring_registered: self.entrance.is_registered(),
            files_registered_max: self.setup.files_max,
            registered_bytes: self.registered.len() as u64,
        }
    }

    /// Moves waiting operations into the submission queue while it has room.
    fn fill(&mut self) {
        let (submitter, mut queue, _) = self.ring.split();
        while !queue.is_full() {
            let Some((key, call)) = self.flight.next_call() else { break };
            if let super::call::Call::Close { file } = call
                && let Some(index) = file.fixed
            {
                // Otherwise the kernel's table would hold the file open. A failure leaves just that.
                let _kept_open = submitter.register_files_update(index, &[-1]);
            }
            let entry = sqe::entry(&call, &self.registered).user_data(key.to_u64());
            // SAFETY: the slot under `key` owns what the entry points at until its completion.
            let pushed = unsafe { queue.push(&entry) };
            assert!(pushed.is_ok(), "the queue has room");
            self.with_kernel += 1;
        }
        while !queue.is_full() {
            let Some((key, call)) = self.sockets.next_call(&self.flight.files) else { return };
            let data = if call == NetCall::Cancel { CANCEL } else { key.to_u64() };
            let entry = sqe::socket_entry(key, &call).user_data(data);
            // SAFETY: the socket's slot owns what the entry points at until its completion.
            let pushed = unsafe { queue.push(&entry) };
            assert!(pushed.is_ok(), "the queue has room");
            self.with_kernel += 1;
        }
    }

    /// Gives the kernel the buffers that came back, or does without where it takes none (before Linux 5.19).
    fn provide(&mut self) {
        let Some(pool) = self.sockets.pool().cloned().filter(|_| self.sockets.means().receive)
        else {
            return;
        };
        if self.provided.is_none() {
            let arena = self.arena.as_ref().expect("the pool's memory is the arena's");
            match Provided::register(&self.ring.submitter(), arena, &pool) {
                Ok(provided) => self.provided = Some(provided),
                Err(_without) => {
                    let means = Means { receive: false, ..self.sockets.means() };
                    self.sockets.set_means(means);
                    return;
                }
            }
        }
        if let Some(provided) = &mut self.provided
            && pool.free() > 0
        {
            self.sockets.lend(provided.publish(&pool));
        }
    }

    /// Whether calls wait for room in the submission queue.
    fn is_waiting(&self) -> bool {
        self.flight.is_waiting() || self.sockets.is_waiting()
    }

    /// Whether completions wait to be taken.
    fn is_ready(&self) -> bool {
        self.flight.is_ready() || self.sockets.is_ready()
    }

    /// Queues an entry of the ring's own. `false` if the queue is full.
    fn push_entry(&mut self, entry: &Entry) -> bool {
        // SAFETY: such entries point at nothing, or at the waker's counter, which lives until the ring is
        // drained.
        let pushed = unsafe { self.ring.submission().push(entry) }.is_ok();
        self.with_kernel += u32::from(pushed);
        pushed
    }

    /// Sees to it that a wake-up completes something. `false` if the submission queue has no room.
    fn arm(&mut self) -> bool {
        if !self.is_armed {
            let event = Fd(self.waker.event.as_raw_fd());
            let counter = self.waker.counter.as_ptr().cast();
            let read = opcode::Read::new(event, counter, size_of::<u64>() as u32);
            self.is_armed = self.push_entry(&read.build().user_data(WAKE));
        }
        self.is_armed
    }

    /// Whether the kernel has something to do or to say.
    fn is_kernel_due(&mut self) -> bool {
        let queue = self.ring.submission();
        let is_due = !queue.is_empty() || queue.cq_overflow() || queue.taskrun();
        is_due || (self.with_kernel > 0 && !self.setup.says_taskrun())
    }

    /// One call into the kernel. `Ok(false)` if it refused the entries for now.
    fn call_kernel(&mut self, block: Block) -> io::Result<bool> {
        let count = self.ring.submission().len() as u32;
        self.flight.stats.enters += 1;
        self.flight.stats.sleeps += u64::from(block != Block::No);
        match self.entrance.enter(count, block) {
            Ok(()) => Ok(true),
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR) => Ok(true),
                _ if is_passing(&error) => Ok(false),
                _ => Err(error),
            },
        }
    }

    /// Takes all completions in. Returns how many there were.
    fn reap(&mut self) -> usize {
        let (submitter, _, queue) = self.ring.split();
        let mut count = 0;
        for entry in queue {
            assert!(self.with_kernel > 0, "no completion without an entry");
            let goes_on = cqueue::more(entry.flags());
            self.with_kernel -= u32::from(!goes_on);
            count += 1;
            match entry.user_data() {
                WAKE => {
                    self.is_armed = false;
                    self.is_roused = true;
                }
                CANCEL => {}
                key => {
                    if let Some(key) = NetKey::from_u64(key) {
                        let buffer = cqueue::buffer_select(entry.flags());
                        self.sockets.complete(key, entry.result(), buffer, goes_on);
                        continue;
                    }
                    let Some(file) = self.flight.complete(Key::from_u64(key), entry.result())
                    else {
                        continue;
                    };
                    let target = self.flight.files.target(file);
                    let index = Files::index(file);
                    let fits = target.direct && index < self.setup.files_max;
                    if fits && submitter.register_files_update(index, &[target.fd]).is_ok() {
                        self.flight.files.set_fixed(file);
                    }
                }
            }
        }
        count
    }

    /// Submits and takes completions in; blocks only if `block` says so and no wake-up is pending.
    /// Returns whether the kernel took the entries, and whether a wake-up came.
    fn turn(&mut self, block: Block) -> io::Result<(bool, bool)> {
        let mut is_woken = false;
        let mut is_taken = true;
        if block != Block::No && self.waker.sleeper.begin() {
            let outcome = self.call_kernel(block);
            is_woken = self.waker.sleeper.end();
            is_taken = outcome?;
        } else {
            is_woken |= block != Block::No;
            if self.is_kernel_due() {
                is_taken = self.call_kernel(Block::No)?;
            }
        }
        let count = self.reap();
        is_woken |= mem::take(&mut self.is_roused);
        Ok((is_taken || count > 0, is_woken))
    }

    /// Drains to nothing with the kernel. `false` if that takes too long.
    fn drain(&mut self) -> bool {
        if self.with_kernel == 0 {
            return true;
        }
        // Ends the armed read, also where the kernel knows no "cancel any" (before Linux 5.19).
        self.waker.rouse();
        let cancel = opcode::AsyncCancel2::new(CancelBuilder::any()).build().user_data(CANCEL);
        let _no_room_no_cancel = self.push_entry(&cancel);
        let end = Instant::now() + DRAIN_TIME_MAX;
        while self.with_kernel > 0 {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || self.call_kernel(Block::AtMost(left)).is_err() {
                return false;
            }
            for entry in self.ring.completion() {
                let goes_on = cqueue::more(entry.flags());
                self.with_kernel -= u32::from(!goes_on);
                if entry.user_data() >= CANCEL {
                    continue;
                }
                if let Some(key) = NetKey::from_u64(entry.user_data()) {
                    self.sockets.abandon(key, entry.result(), goes_on);
                } else {
                    self.flight.abandon(Key::from_u64(entry.user_data()), entry.result());
                }
            }
        }
        true
    }

    /// After a refusal: lets something complete.
    fn make_room(&mut self) -> io::Result<()> {
        let queued = self.ring.submission().len() as u32;
        if self.with_kernel == queued {
            std::thread::yield_now();
            return Ok(());
        }
        self.flight.stats.enters += 1;
        match self.entrance.enter(0, Block::AtMost(REFUSED_WAIT)) {
            Err(error) if !is_passing(&error) => Err(error),
            _ => Ok(()),
        }
    }
}

/// Whether a call into the kernel failed in a way that the next may not.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY))
}

impl Drop for Uring {
    fn drop(&mut self) {
        let is_drained = self.drain();
        if is_drained {
            // Closing the ring does both too, but later: pinned memory would still count.
            let _closing_does_it = self.ring.submitter().unregister_buffers();
            let _closing_does_it = self.ring.submitter().unregister_buf_ring(GROUP);
            let _closing_does_it = self.ring.submitter().unregister_files();
            return;
        }
        // The kernel may still write to what the slots own.
        let inline = Inline { cached_writes: true, truncate: true };
        mem::forget(mem::replace(&mut self.flight, InFlight::new(1, inline)));
        self.sockets.leak();
        mem::forget(self.provided.take());
        mem::forget(self.arena.take());
        mem::forget(self.waker.clone());
    }
}

impl fmt::Debug for Uring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uring({} in flight, {:?})", self.flight.count(), self.facts())
    }
}

impl Ring for Uring {
    fn register(&mut self, arena: &Arena) -> u64 {
        assert!(self.arena.is_none(), "memory is registered once");
        assert_eq!(self.flight.count(), 0, "before the first operation");
        let mut bytes = arena.bytes().min(REGISTERED_BYTES_MAX);
        while bytes >= REGISTERED_BYTES_MIN {
            bytes -= bytes % CHUNK_BYTES_MAX;
            let buffers = [libc::iovec { iov_base: arena.base().cast(), iov_len: bytes }];
            // SAFETY: the range is the arena's front, and `self.arena` keeps it until the ring is gone.
            if unsafe { self.ring.submitter().register_buffers(&buffers) }.is_ok() {
                let base = arena.base().addr();
                self.registered = base..base + bytes;
                break;
            }
            bytes /= 2;
        }
        arena.set_registered(self.registered.len());
        self.sockets.set_arena(arena);
        self.arena = Some(arena.clone());
        self.registered.len() as u64
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
        let mut refusals = 0;
        loop {
            self.provide();
            self.fill();
            let is_all_queued = !self.is_waiting();
            let may_sleep = is_all_queued && !self.is_ready();
            let mut block = match (wait, end) {
                (Wait::No, _) => Block::No,
                (Wait::AtMost(_), Some(end)) => {
                    Block::AtMost(end.saturating_duration_since(Instant::now()))
                }
                (Wait::Forever | Wait::AtMost(_), _) => Block::Forever,
            };
            let is_over = matches!(block, Block::No | Block::AtMost(Duration::ZERO));
            if is_over || !may_sleep || refusals > 0 || !self.arm() {
                block = Block::No;
            }
            let (is_taken, is_woken) = self.turn(block)?;
            refusals = if is_taken { 0 } else { refusals + 1 };
            if refusals > REFUSALS_MAX {
                return Err(io::Error::from_raw_os_error(libc::EBUSY));
            }
            if !is_taken {
                self.make_room()?;
                continue;
            }
            let is_submitted = !self.is_waiting() && self.ring.submission().is_empty();
            if is_submitted && (self.is_ready() || is_woken || is_over) {
                return Ok(());
            }
        }
    }

    fn pop(&mut self) -> Option<Completion> {
        self.flight.pop()
    }

    fn sockets(&mut self) -> Option<&mut Sockets> {
        Some(&mut self.sockets)
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.waker.clone()
    }

    fn stats(&self) -> RingStats {
        self.flight.stats
    }
}
