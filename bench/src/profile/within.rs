//! This process under `perf`, started from within: what each of some things does that it does one after the other.
//!
//! Cheaper than a run of its own, and coarser: nothing is unwound, so that of the program the function is known that a
//! sample is of, and of its callers only what frame pointers tell. The kernel's callers are all known.

use anyhow::{Context, Result};

use super::perf::Abilities;
use super::recording::{self, Ended, Place};
use super::script::Event;
use super::tally::Tally;
use crate::run::profiler::Profiler;

/// Samples a second of each processor.
const FREQUENCY: &str = "1997";

/// Most that perf may write: some minutes.
const DATA_SIZE_MAX: &str = "512M";

/// A perf that is attached, and waits to be told.
pub struct Within {
    place: Place,
    perf: Ended,
    profiler: Profiler,
    /// When things began and ended, in seconds of the monotonic clock.
    spans: Vec<(f64, f64)>,
}

impl Within {
    /// Attaches perf to this process.
    ///
    /// # Errors
    /// If perf is missing or may record nothing, or the user stops the run.
    pub fn attach() -> Result<Self> {
        let abilities = Abilities::ask()?;
        let place = Place::create()?;
        let perf = recording::attach(&place, std::process::id(), &abilities, |perf| {
            perf.args(["-F", FREQUENCY, "--call-graph", "fp", "--max-size", DATA_SIZE_MAX]);
        });
        let perf = Ended(perf?);
        let attached = Profiler::attach(place.dir());
        let profiler =
            attached.with_context(|| format!("perf record {}", place.said("perf.err")))?;
        Ok(Self { place, perf, profiler, spans: Vec::new() })
    }

    /// Records what `thing` does.
    ///
    /// # Errors
    /// Those of `thing`; if the names of the threads can't be written.
    pub fn during<T>(&mut self, thing: impl FnOnce() -> Result<T>) -> Result<T> {
        let begin = monotonic_s();
        self.profiler.begin()?;
        let done = thing();
        self.profiler.end()?;
        self.spans.push((begin, monotonic_s()));
        done
    }

    /// Lends what tells perf to `thing`, who says itself which part of it counts.
    ///
    /// # Errors
    /// Those of `thing`.
    pub fn lend<T>(&mut self, thing: impl FnOnce(&Profiler) -> Result<T>) -> Result<T> {
        let begin = monotonic_s();
        let done = thing(&self.profiler);
        self.spans.push((begin, monotonic_s()));
        done
    }

    /// Ends the recording. A sum for each thing, in their order.
    ///
    /// # Errors
    /// If what perf wrote can't be read, or the user stops the run.
    pub fn read(mut self) -> Result<Vec<Tally>> {
        self.perf.interrupt().context("cannot end perf")?;
        let mut tallies: Vec<Tally> = self.spans.iter().map(|_| Tally::default()).collect();
        recording::events(&self.place, |event| {
            let Event::Sample { at, .. } = &event else { return };
            let within = |&(begin, end): &(f64, f64)| (begin..=end).contains(&at.time);
            if let Some(nth) = self.spans.iter().position(within) {
                tallies[nth].add(event);
            }
        })?;
        Ok(tallies)
    }
}

/// Seconds of the clock that perf's times are of.
fn monotonic_s() -> f64 {
    // SAFETY: all zeros is a valid `timespec`.
    let mut time: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: `time` is writable for the call's duration.
    let got = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    assert_eq!(got, 0, "every system has a monotonic clock");
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn what_each_thing_does_is_told_apart() {
        let mut within = match Within::attach() {
            Ok(within) => within,
            Err(why) => return eprintln!("skipped: {why}"),
        };
        let busy = Duration::from_millis(60);
        let spun = within.during(|| {
            let begin = Instant::now();
            let mut turns = 0_u64;
            while begin.elapsed() < busy {
                turns += 1;
            }
            Ok(turns)
        });
        assert!(spun.expect("recorded") > 0);
        // As long, and asleep: what is told apart is work, not time.
        let slept = within.during(|| {
            std::thread::sleep(busy);
            Ok(())
        });
        slept.expect("recorded");
        let tallies = within.read().expect("readable");
        let [spun, slept] = &tallies[..] else { panic!("{} tallies", tallies.len()) };
        // Of this thread alone: other tests run beside it.
        let name = std::fs::read_to_string("/proc/thread-self/comm").expect("a thread has a name");
        let on = |tally: &Tally| tally.threads.get(name.trim_end()).map_or(0.0, |it| it.on);
        assert!(on(spun) > 5e6 && on(slept) < on(spun) / 2.0, "{spun:?} {slept:?}");
    }
}
