//! Closed-loop clients: futures on one thread, each with one request in flight.
//!
//! A minimal executor of its own, so that every arm pays the same small, known price for its clients: one
//! clock reading and no allocation a request. A client's readiness is one bit; wakers are two words that
//! point into memory that is never freed, so a late wake from another thread is always harmless.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::board::Board;
use crate::interrupt;
use crate::sample::Sample;

/// Without one ack for this long, the target is taken for hung.
pub const SILENCE_MAX: Duration = Duration::from_secs(20);

/// What clients send to. All calls come from the clients' thread.
pub trait Target {
    /// One request under way.
    type Fut: Future;

    /// Starts the next request of `client`.
    fn append(&mut self, client: u32) -> Self::Fut;

    /// Called once a request that was begun at an ack has left its waker and is on its way, or waits for room: what it
    /// does not need any more can be taken back, and what the next one needs can be made ready meanwhile, as a
    /// producer does that builds a batch while the one before is under way.
    fn under_way(&mut self, client: u32, request: Pin<&mut Self::Fut>) {
        let _ = (client, request);
    }

    /// Takes what a request of `client` came to.
    ///
    /// # Errors
    /// If it failed: the run ends.
    fn acked(&mut self, client: u32, output: <Self::Fut as Future>::Output) -> Result<Acked>;
}

/// What one ack stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acked {
    /// Records in it.
    pub records: u64,
    /// Encoded bytes of it.
    pub bytes: u64,
}

/// A target made of two closures, for futures whose type has no name.
pub struct Closures<A, D> {
    append: A,
    acked: D,
}

/// A target that starts a request with `append` and takes its result with `acked`.
pub fn target<Fut, A, D>(append: A, acked: D) -> Closures<A, D>
where
    Fut: Future,
    A: FnMut(u32) -> Fut,
    D: FnMut(u32, Fut::Output) -> Result<Acked>,
{
    Closures { append, acked }
}

impl<Fut, A, D> Target for Closures<A, D>
where
    Fut: Future,
    A: FnMut(u32) -> Fut,
    D: FnMut(u32, Fut::Output) -> Result<Acked>,
{
    type Fut = Fut;

    fn append(&mut self, client: u32) -> Fut {
        (self.append)(client)
    }

    fn acked(&mut self, client: u32, output: Fut::Output) -> Result<Acked> {
        (self.acked)(client, output)
    }
}

/// How long and how many.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Clients, each with one request in flight.
    pub clients: u32,
    /// Time before the count begins.
    pub warm_up: Duration,
    /// Time that counts.
    pub measured: Duration,
    /// How long the thread looks for acks before it sleeps.
    pub spin: Duration,
    /// Bytes after which the run ends early: space made ready before it. The warm-up takes at most a fifth.
    pub bytes_max: u64,
}

/// Drives `load.clients` clients against `target` on this thread, then waits until nothing is in flight.
///
/// # Errors
/// If a request fails, the target falls silent, or the user stops the run.
pub fn drive<T: Target>(target: &mut T, load: &Load, board: &'static Board) -> Result<Sample> {
    assert!(load.clients <= board.clients(), "the board has a bit for every client");
    board.enlist();
    let begin = Instant::now();
    let mut crew = Crew {
        slots: (0..load.clients).map(|_| Slot { future: None, since: begin }).collect(),
        sample: Sample::empty(load.measured),
        from: begin + load.warm_up,
        until: begin + load.warm_up + load.measured,
        in_flight: 0,
        now: begin,
        bytes: 0,
        bytes_max: load.bytes_max,
    };
    for client in 0..load.clients {
        crew.start(target, board, client);
    }
    crew.run(target, board, load.spin)?;
    crew.sample.elapsed = crew.until.duration_since(crew.from);
    Ok(crew.sample)
}

struct Slot<F> {
    /// Boxed once as a slice and never moved: the futures are pinned where they are.
    future: Option<F>,
    /// When the request was intended: at once after the last ack.
    since: Instant,
}

struct Crew<F> {
    slots: Box<[Slot<F>]>,
    sample: Sample,
    from: Instant,
    until: Instant,
    in_flight: u32,
    now: Instant,
    bytes: u64,
    bytes_max: u64,
}

impl<F: Future> Crew<F> {
    fn run<T: Target<Fut = F>>(
        &mut self,
        target: &mut T,
        board: &'static Board,
        spin: Duration,
    ) -> Result<()> {
        while self.in_flight > 0 {
            interrupt::check()?;
            let mut woken = 0_u32;
            for word in 0..self.slots.len().div_ceil(64) {
                let mut bits = board.take(word);
                woken += bits.count_ones();
                while bits != 0 {
                    let client = word as u32 * 64 + bits.trailing_zeros();
                    bits &= bits - 1;
                    self.poll(target, board, client)?;
                }
            }
            if woken == 0 && self.in_flight > 0 {
                board.wait(spin, Duration::from_millis(100));
                if self.now.elapsed() > SILENCE_MAX {
                    bail!("{} requests, and no ack in {SILENCE_MAX:?}", self.in_flight);
                }
            }
        }
        Ok(())
    }

    fn start<T: Target<Fut = F>>(&mut self, target: &mut T, board: &Board, client: u32) {
        let slot = &mut self.slots[client as usize];
        assert!(slot.future.is_none(), "one request in flight a client");
        slot.since = self.now;
        slot.future = Some(target.append(client));
        self.in_flight += 1;
        board.set(client);
    }

    fn poll<T: Target<Fut = F>>(
        &mut self,
        target: &mut T,
        board: &'static Board,
        client: u32,
    ) -> Result<()> {
        // Twice: the request that is done, and the first look of the next one, which leaves its waker.
        for started in [false, true] {
            let slot = &mut self.slots[client as usize];
            let Some(future) = slot.future.as_mut() else { return Ok(()) };
            // SAFETY: the slice is boxed and never moves, a future is only replaced by `None` after it is
            // done (which drops it in place), and `slots` gives out no other way to it.
            let mut future = unsafe { Pin::new_unchecked(future) };
            let waker = board.waker(client);
            let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(waker)) else {
                if started {
                    target.under_way(client, future);
                }
                return Ok(());
            };
            slot.future = None;
            self.in_flight -= 1;
            let now = Instant::now();
            let acked = target.acked(client, output).with_context(|| format!("client {client}"))?;
            self.count(client, now, acked);
            if now >= self.until {
                return Ok(());
            }
            let slot = &mut self.slots[client as usize];
            slot.since = now;
            slot.future = Some(target.append(client));
            self.in_flight += 1;
        }
        // Done at its first look: the others come first.
        board.set(client);
        Ok(())
    }

    fn count(&mut self, client: u32, now: Instant, acked: Acked) {
        self.now = now;
        self.bytes += acked.bytes;
        if now < self.from && self.bytes >= self.bytes_max / 5 {
            self.until -= self.from - now;
            self.from = now;
        } else if self.bytes >= self.bytes_max {
            self.until = self.until.min(now);
        }
        if now >= self.from && now < self.until {
            let since = self.slots[client as usize].since;
            self.sample.latencies.record((now - since).as_nanos() as u64);
            self.sample.records += acked.records;
            self.sample.bytes += acked.bytes;
        }
    }
}

#[cfg(test)]
#[path = "clients/tests.rs"]
mod tests;
