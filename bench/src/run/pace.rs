//! Time as the measuring loop sees it: real, or simulated for those who check the method.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// A sleep ends up to this much late; before a due time the loop looks at the clock instead.
const SLEEP_LATE: Duration = Duration::from_micros(80);

/// Nanoseconds since the run began.
pub trait Pace {
    /// Now.
    fn now(&self) -> u64;

    /// How long the target may sleep when something is due in `ns`.
    fn may_sleep(&self, ns: u64) -> Duration;

    /// When that was.
    fn of(&self, at: Instant) -> u64;
}

/// The monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Real(pub Instant);

impl Pace for Real {
    fn now(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }

    fn may_sleep(&self, ns: u64) -> Duration {
        Duration::from_nanos(ns).saturating_sub(SLEEP_LATE)
    }

    fn of(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.0).as_nanos() as u64
    }
}

/// Time that passes only when the target waits.
#[derive(Clone, Debug, Default)]
pub struct Simulated(pub Rc<Cell<u64>>);

impl Pace for Simulated {
    fn now(&self) -> u64 {
        self.0.get()
    }

    fn may_sleep(&self, ns: u64) -> Duration {
        Duration::from_nanos(ns)
    }

    fn of(&self, _: Instant) -> u64 {
        self.0.get()
    }
}
