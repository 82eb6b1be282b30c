//! The only place that knows the kernel. A [`Ring`] takes operations and hands back completions.
//!
//! Three implementations: [`uring`] (the product), [`sync`] (threads with plain system calls: the loud
//! fallback where io_uring is forbidden) and `sim` (a simulated disk, for tests).

pub mod backend;
mod call;
mod enter;
mod files;
mod inflight;
pub mod interrupts;
pub mod limits;
mod namespace;
mod net;
pub mod probe;
pub mod setup;
mod slots;
mod sqe;
pub mod sync;
mod task;
#[cfg(test)]
mod tests;
pub mod uring;
mod wake;

use std::io;
use std::time::Duration;

use crate::buffers::Arena;
use crate::command::{Completion, Op};

pub use net::Sockets;
pub use net::trial::{Trial, try_paths};

#[doc(hidden)]
pub mod sim;

/// How long [`Ring::enter`] may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    No,
    /// Until a completion, a wake-up, or this much time has passed.
    AtMost(Duration),
    /// Until a completion or a wake-up.
    Forever,
}

/// What a ring counts, since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingStats {
    /// Calls into the kernel to submit or wait.
    pub enters: u64,
    /// Operations submitted.
    pub submitted: u64,
    /// Operations that were continued after a short transfer or retried after EAGAIN / EINTR.
    pub continued: u64,
    /// Bytes given to write operations.
    pub write_bytes: u64,
    /// Flushes asked for: durable writes and syncs.
    pub flushes: u64,
    /// Times the thread went to sleep.
    pub sleeps: u64,
}

/// Wakes a ring that sleeps in [`Ring::enter`], from any thread.
pub trait Wake: Send + Sync {
    /// Makes the current or the next sleep end at once. Costs no system call while the ring is awake.
    fn wake(&self);
}

/// One thread's way to the disk and to its sockets.
pub trait Ring {
    /// Registers what it can of the arena's memory with the kernel; returns how many bytes, from the
    /// arena's beginning, are registered. Call once, before the first operation.
    fn register(&mut self, arena: &Arena) -> u64;

    /// Queues an operation. It starts at the latest with the next [`Ring::enter`].
    ///
    /// # Panics
    /// If `in_flight()` is `capacity()`: the caller bounds what it starts.
    fn push(&mut self, token: u64, op: Op);

    /// Operations pushed whose completion has not been taken.
    fn in_flight(&self) -> usize;

    /// The most operations in flight.
    fn capacity(&self) -> usize;

    /// Submits what is queued and, if no completion is there to be taken, sleeps as `wait` allows.
    ///
    /// # Errors
    /// Only if the ring itself is broken. Failed operations are completions.
    fn enter(&mut self, wait: Wait) -> io::Result<()>;

    /// Takes one completion, if there is one.
    fn pop(&mut self) -> Option<Completion>;

    /// The ring's sockets; `None` if it knows files alone. They end the sleep of [`Ring::enter`] as files do, and do
    /// not count as in flight: a socket has room for what is asked of it.
    fn sockets(&mut self) -> Option<&mut Sockets> {
        None
    }

    /// A handle that ends this ring's sleep from other threads.
    fn waker(&self) -> std::sync::Arc<dyn Wake>;

    /// What has been counted so far.
    fn stats(&self) -> RingStats;
}
