//! How far apart two cores are: what a cache line takes from one to the other and back.
//!
//! Cores that share a last-level cache take 30 to 150 ns, cores of two chiplets or sockets 200 to 700. The host of a
//! virtual machine may move its cores, and then a log, which hands every request from a client's core to its own and
//! the ack back, is another one. Two figures taken at different distances do not compare logs.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::cores::{Cores, Pinned};
use crate::stats::median;

/// A round trip from which on two cores are called far apart: those below it share a last-level cache.
pub const FAR_NS: f64 = 200.0;

/// Round trips timed together, and how often; the median of them counts. A millisecond at most as a rule.
const TRIPS: u32 = 200;
const BATCHES: usize = 9;

/// Looks at the line before the core is given away: only where both threads share one after all.
const LOOKS_MAX: u32 = 500;

/// A cache line of its own, with its neighbour, which is fetched along with it.
#[repr(align(128))]
struct Line(AtomicU32);

impl Line {
    fn wait_for(&self, value: u32) {
        let mut looks = 0;
        while self.0.load(Ordering::Acquire) != value {
            looks += 1;
            if looks < LOOKS_MAX {
                std::hint::spin_loop();
            } else {
                thread::yield_now();
            }
        }
    }

    fn put(&self, value: u32) {
        self.0.store(value, Ordering::Release);
    }
}

/// Nanoseconds of a round trip between the clients' core and the disk's, now. `None` if they are one.
pub fn round_trip_ns(cores: Cores) -> Option<f64> {
    if cores.clients == cores.disk {
        return None;
    }
    let line = Line(AtomicU32::new(0));
    let trips = TRIPS * BATCHES as u32;
    thread::scope(|scope| {
        // Odd numbers go there, even ones come back.
        scope.spawn(|| {
            let _pinned = Pinned::to(cores.disk);
            for trip in 0..=trips {
                line.wait_for(2 * trip + 1);
                line.put(2 * trip + 2);
            }
        });
        let _pinned = Pinned::to(cores.clients);
        let there_and_back = |trip: u32| {
            line.put(2 * trip + 1);
            line.wait_for(2 * trip + 2);
        };
        // Until the other thread runs.
        there_and_back(0);
        let batch = |nth: u32| {
            let begin = Instant::now();
            (1..=TRIPS).for_each(|trip| there_and_back(nth * TRIPS + trip));
            begin.elapsed().as_nanos() as f64 / f64::from(TRIPS)
        };
        median((0..BATCHES as u32).map(batch))
    })
}

/// How far the cores were apart while something was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Under one cache, or not known.
    Near,
    /// On two chiplets or sockets.
    Far,
    /// They were moved meanwhile.
    Moved,
}

/// Round trips before and after something was measured; none where it is done on one core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RoundTrips {
    /// Before, in nanoseconds.
    pub before: Option<f64>,
    /// After, in nanoseconds.
    pub after: Option<f64>,
}

impl RoundTrips {
    /// Measures `thing` with the cores' distance before and after it.
    pub fn around<T>(cores: Cores, thing: impl FnOnce() -> T) -> (T, Self) {
        let before = round_trip_ns(cores);
        let done = thing();
        (done, Self { before, after: round_trip_ns(cores) })
    }

    /// How far the cores were apart.
    pub fn reach(self) -> Reach {
        let far = |trip: Option<f64>| trip.is_some_and(|ns| ns >= FAR_NS);
        match (far(self.before), far(self.after)) {
            (false, false) => Reach::Near,
            (true, true) => Reach::Far,
            _ => Reach::Moved,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_round_trip_takes_time_and_needs_two_cores() {
        let cores = Cores::near(Path::new("."));
        assert_eq!(round_trip_ns(Cores { clients: cores.disk, ..cores }), None);
        if cores.clients != cores.disk {
            assert!(round_trip_ns(cores).expect("two cores") > 1.0);
        }
    }

    #[test]
    fn cores_that_were_moved_are_neither_near_nor_far() {
        let reach = |before, after| RoundTrips { before, after }.reach();
        assert_eq!(reach(Some(64.0), Some(28.0)), Reach::Near);
        assert_eq!(reach(Some(325.0), Some(330.0)), Reach::Far);
        assert_eq!(reach(Some(64.0), Some(325.0)), Reach::Moved);
        assert_eq!(reach(None, None), Reach::Near);
    }
}
