//! The only source of time in the engine.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

const NS_PER_MS: u64 = 1_000_000;

/// Tells the time. The engine never asks the operating system itself, so a simulation owns time too.
pub trait Clock: Clone + 'static {
    /// Nanoseconds since some fixed moment; never runs back. For deadlines.
    fn monotonic_ns(&self) -> u64;

    /// Milliseconds since 1970 in UTC; may jump either way. For timestamps.
    fn wall_ms(&self) -> i64;
}

/// The operating system's clocks.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time begins now.
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn monotonic_ns(&self) -> u64 {
        // 2^64 ns are 584 years.
        self.origin.elapsed().as_nanos() as u64
    }

    fn wall_ms(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => since.as_millis() as i64,
            Err(before) => -(before.duration().as_millis() as i64),
        }
    }
}

/// A clock that moves only when told to. Clones show the same time.
#[derive(Clone, Debug, Default)]
pub struct SimClock(Rc<SimTime>);

#[derive(Debug, Default)]
struct SimTime {
    monotonic_ns: Cell<u64>,
    /// Wall time at monotonic time 0.
    wall_origin_ms: Cell<i64>,
}

impl SimClock {
    /// A clock at monotonic time 0 and `wall_ms`.
    pub fn new(wall_ms: i64) -> Self {
        let clock = Self::default();
        clock.0.wall_origin_ms.set(wall_ms);
        clock
    }

    /// Moves both times on by `ns`.
    pub fn advance_ns(&self, ns: u64) {
        self.0.monotonic_ns.set(self.monotonic_ns() + ns);
    }

    /// Moves both times on to the monotonic time `ns`, or leaves them if it is past.
    pub fn advance_to_ns(&self, ns: u64) {
        self.0.monotonic_ns.set(self.monotonic_ns().max(ns));
    }

    /// Sets the wall time alone, as an operator or a time server does.
    pub fn set_wall_ms(&self, wall_ms: i64) {
        let since_origin = (self.monotonic_ns() / NS_PER_MS) as i64;
        self.0.wall_origin_ms.set(wall_ms - since_origin);
    }

    /// A clock of its own that shows the same times.
    #[must_use]
    pub fn fork(&self) -> Self {
        let fork = Self::default();
        fork.set_to(self);
        fork
    }

    /// Takes over the times of `other`, even backwards: only for a world that begins anew.
    pub fn set_to(&self, other: &Self) {
        self.0.monotonic_ns.set(other.0.monotonic_ns.get());
        self.0.wall_origin_ms.set(other.0.wall_origin_ms.get());
    }
}

impl Clock for SimClock {
    fn monotonic_ns(&self) -> u64 {
        self.0.monotonic_ns.get()
    }

    fn wall_ms(&self) -> i64 {
        self.0.wall_origin_ms.get() + (self.monotonic_ns() / NS_PER_MS) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_time_runs_forward_and_is_of_this_century() {
        let clock = SystemClock::new();
        let first = clock.monotonic_ns();
        assert!(clock.monotonic_ns() >= first);
        assert!(clock.wall_ms() > 1_600_000_000_000);
    }

    #[test]
    fn clones_of_a_simulated_clock_show_one_time() {
        let clock = SimClock::new(1_000);
        let twin = clock.clone();
        clock.advance_ns(5 * NS_PER_MS);
        assert_eq!((twin.monotonic_ns(), twin.wall_ms()), (5 * NS_PER_MS, 1_005));
        clock.advance_to_ns(NS_PER_MS);
        assert_eq!(twin.monotonic_ns(), 5 * NS_PER_MS, "time never runs back");
    }

    #[test]
    fn a_wall_clock_step_leaves_monotonic_time_alone() {
        let clock = SimClock::new(1_000);
        clock.advance_ns(7 * NS_PER_MS);
        clock.set_wall_ms(-50);
        assert_eq!((clock.monotonic_ns(), clock.wall_ms()), (7 * NS_PER_MS, -50));
    }

    #[test]
    fn a_fork_has_its_own_time() {
        let clock = SimClock::new(0);
        clock.advance_ns(3);
        let fork = clock.fork();
        clock.advance_ns(4);
        assert_eq!(fork.monotonic_ns(), 3);
    }
}
