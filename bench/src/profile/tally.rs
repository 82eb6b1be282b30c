//! What perf saw, added up: stacks on a processor and off it, threads, areas and functions.
//!
//! On a processor a sample stands for its period. Off it, perf takes a stack at every n-th time a thread leaves, and
//! writes down every leaving and every return: the times are exact, thread by thread, and the stacks share them out.

use std::collections::{BTreeMap, HashMap};

use super::area::{Area, krate};
use super::script::{At, Event, Frame};

/// The event whose stacks are those of threads that leave their processor.
pub const WAITS: &str = "context-switches";

/// Frame of time in which a thread could have run.
const PREEMPTED: &str = "waits for a processor";

/// Frame of time off a processor of which no stack was taken.
const NO_STACK: &str = "no stack";

/// Below these, a stack is the standard library's way to the thread's function.
const ROOTS: [&str; 2] = ["ringmain::", "ringmain_bench::"];

/// A weight and how many samples it is of.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Share {
    /// Nanoseconds, cycles, or seconds off a processor.
    pub weight: f64,
    /// Samples.
    pub samples: u64,
}

impl Share {
    fn add(&mut self, weight: f64) {
        self.weight += weight;
        self.samples += 1;
    }
}

/// A function by itself, without what it calls.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Function {
    /// Its name, or that of its file in brackets.
    pub symbol: String,
    /// Crate or library.
    pub krate: String,
    /// The area of what it was called for.
    pub area: Area,
}

/// A thread's, or all threads' of a name, time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Thread {
    /// On a processor, in the unit of the samples.
    pub on: f64,
    /// Seconds asleep.
    pub asleep: f64,
    /// Seconds in which it could have run.
    pub preempted: f64,
    /// How often it left a processor.
    pub switches: u64,
}

/// All of it.
#[derive(Debug, Default)]
pub struct Tally {
    /// Stacks on a processor, folded: outermost first, with semicolons between.
    pub on: BTreeMap<String, f64>,
    /// Stacks off it, in seconds.
    pub off: BTreeMap<String, f64>,
    /// By area.
    pub areas: BTreeMap<Area, Share>,
    /// By function.
    pub functions: HashMap<Function, Share>,
    /// What threads slept for, in seconds.
    pub waits: BTreeMap<Area, Share>,
    /// By name.
    pub threads: BTreeMap<String, Thread>,
    /// Samples on a processor.
    pub samples: u64,
    /// Of them, those of the program on which none of our functions is: the way to it is lost.
    pub cut: u64,
    /// Events that perf had no room for.
    pub lost: u64,
    away: HashMap<u32, Away>,
    sampled: HashMap<(u32, bool), Sampled>,
    last: f64,
}

/// A thread that is off its processor, or about to be.
#[derive(Debug, Default)]
struct Away {
    stack: Option<(String, Area, u64)>,
    left: Option<(f64, bool)>,
}

/// A thread's time off a processor, and the stacks that share it.
#[derive(Debug, Default)]
struct Sampled {
    name: String,
    seconds: f64,
    stacks: HashMap<(String, Area), Share>,
}

impl Tally {
    /// Total of the samples on a processor.
    pub fn total(&self) -> f64 {
        self.areas.values().map(|share| share.weight).sum()
    }

    /// Adds an event; they come in the order of their times.
    pub fn add(&mut self, event: Event) {
        match event {
            Event::Sample { at, event, period, frames, .. } if event.starts_with(WAITS) => {
                self.last = at.time;
                let stack = folded(&name(&at.thread), &frames);
                let away = self.away.entry(at.tid).or_default();
                away.stack = Some((stack, Area::of_wait(&frames), period));
            }
            Event::Sample { at, period, frames, .. } => {
                self.last = at.time;
                self.sample(&at, period as f64, &frames);
            }
            Event::Out { at, preempted } => {
                self.last = at.time;
                self.away.entry(at.tid).or_default().left = Some((at.time, preempted));
                self.threads.entry(name(&at.thread)).or_default().switches += 1;
            }
            Event::In(at) => {
                self.last = at.time;
                self.back(&at);
            }
            Event::Lost(count) => self.lost += count,
        }
    }

    fn sample(&mut self, at: &At, weight: f64, frames: &[Frame]) {
        let name = name(&at.thread);
        let area = Area::of(frames);
        *self.on.entry(folded(&name, frames)).or_default() += weight;
        self.threads.entry(name).or_default().on += weight;
        self.areas.entry(area.clone()).or_default().add(weight);
        if let Some(leaf) = frames.first() {
            let function = Function { symbol: shown(leaf), krate: krate(leaf), area };
            self.functions.entry(function).or_default().add(weight);
        }
        self.samples += 1;
        let of_program = frames.iter().any(|frame| !frame.kernel);
        self.cut += u64::from(of_program && !frames.iter().any(is_ours));
    }

    /// A thread has a processor again. One that left before the recording began tells nothing.
    fn back(&mut self, at: &At) {
        let Some(Away { stack, left: Some((left, preempted)) }) = self.away.remove(&at.tid) else {
            return;
        };
        let seconds = (at.time - left).max(0.0);
        let name = name(&at.thread);
        let thread = self.threads.entry(name.clone()).or_default();
        *(if preempted { &mut thread.preempted } else { &mut thread.asleep }) += seconds;
        let sampled = self.sampled.entry((at.tid, preempted)).or_default();
        sampled.name = name;
        sampled.seconds += seconds;
        if let Some((stack, area, period)) = stack {
            sampled.stacks.entry((stack, area)).or_default().add(seconds * period as f64);
        }
    }

    /// Ends what is still open and shares the time off processors out.
    pub fn finish(&mut self) {
        for (tid, at) in self.away.keys().map(|tid| (*tid, self.last)).collect::<Vec<_>>() {
            let named = [false, true].map(|preempted| self.sampled.get(&(tid, preempted)));
            let Some(thread) = named.into_iter().flatten().map(|s| s.name.clone()).next() else {
                continue;
            };
            self.back(&At { thread, tid, time: at });
        }
        for ((_, preempted), Sampled { name, seconds, stacks }) in self.sampled.drain() {
            let weight: f64 = stacks.values().map(|share| share.weight).sum();
            if weight <= 0.0 {
                let frame = if preempted { PREEMPTED } else { NO_STACK };
                *self.off.entry(format!("{name};{frame}")).or_default() += seconds;
                continue;
            }
            for ((stack, area), share) in stacks {
                let seconds = share.weight * seconds / weight;
                let stack = if preempted { format!("{stack};{PREEMPTED}") } else { stack };
                *self.off.entry(stack).or_default() += seconds;
                if !preempted {
                    let wait = self.waits.entry(area).or_default();
                    wait.weight += seconds;
                    wait.samples += share.samples;
                }
            }
        }
    }
}

/// A thread's name as all of its kind have it: the kernel's workers and the fallback's are numbered.
fn name(thread: &str) -> String {
    for (beginning, kind) in [("iou-wrk-", "iou-wrk"), ("ringmain-io-", "ringmain-io")] {
        if thread.starts_with(beginning) {
            return kind.to_owned();
        }
    }
    thread.to_owned()
}

fn is_ours(frame: &Frame) -> bool {
    let path = frame.symbol.trim_start_matches(['<', '&']);
    ROOTS.iter().any(|root| path.starts_with(root))
}

fn shown(frame: &Frame) -> String {
    match (frame.symbol.as_str(), frame.object.as_str()) {
        ("", object) if object.starts_with('[') => object.to_owned(),
        ("", object) => format!("[{object}]"),
        (symbol, _) => symbol.to_owned(),
    }
}

/// A stack in a line, from the first function that is ours on. Names of the kernel end with `_[k]`, by which the flame
/// graph colours them.
fn folded(thread: &str, frames: &[Frame]) -> String {
    let outermost = frames.iter().rposition(is_ours).map_or(frames.len(), |nth| nth + 1);
    let mut line = thread.replace(';', ":");
    for frame in frames[..outermost].iter().rev() {
        line.push(';');
        line += &shown(frame).replace(';', ":");
        line += if frame.kernel { "_[k]" } else { "" };
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: f64) -> At {
        At { thread: "ringmain-0".to_owned(), tid: 7, time }
    }

    fn frame(symbol: &str, kernel: bool) -> Frame {
        Frame { symbol: symbol.to_owned(), object: "bench".to_owned(), kernel }
    }

    fn sample(time: f64, event: &str, period: u64, leaf: Frame) -> Event {
        let roots = [frame("ringmain::shard::Shard<R,C>::turn", false), frame("clone3", false)];
        let frames = std::iter::once(leaf).chain(roots).collect();
        Event::Sample { at: at(time), event: event.to_owned(), period, frames }
    }

    fn close(value: f64, expected: f64) -> bool {
        (value - expected).abs() < 1e-9
    }

    #[test]
    fn samples_on_a_processor_count_by_period_from_the_first_of_our_functions_on() {
        let mut tally = Tally::default();
        tally.add(sample(1.0, "cpu-clock", 300, frame("__memmove_avx", false)));
        tally.add(sample(1.1, "cpu-clock", 100, frame("nvme_queue_rq", true)));
        tally.finish();
        let stack = "ringmain-0;ringmain::shard::Shard<R,C>::turn;nvme_queue_rq_[k]";
        assert_eq!(tally.on.get(stack), Some(&100.0), "{:?}", tally.on);
        assert!(close(tally.total(), 400.0) && close(tally.threads["ringmain-0"].on, 400.0));
        let copies = Area { kernel: false, name: "memory copy".to_owned() };
        assert_eq!(tally.areas[&copies], Share { weight: 300.0, samples: 1 });
        let lost = vec![frame("__memmove_avx", false)];
        let event = Event::Sample { at: at(1.2), event: "cycles".into(), period: 1, frames: lost };
        tally.add(event);
        assert_eq!((tally.samples, tally.cut), (3, 1), "one with no function of ours");
    }

    #[test]
    fn sampled_stacks_share_the_exact_time_off_a_processor() {
        let mut tally = Tally::default();
        let out = |time, preempted| Event::Out { at: at(time), preempted };
        // Asleep for 1 s with a stack, 2 s without, 1 s with another; then 0.5 s able to run.
        tally.add(sample(0.9, WAITS, 3, frame("io_cqring_wait", true)));
        for event in [out(1.0, false), Event::In(at(2.0)), out(3.0, false), Event::In(at(5.0))] {
            tally.add(event);
        }
        tally.add(sample(5.9, WAITS, 1, frame("futex_wait", true)));
        for event in [out(6.0, false), Event::In(at(7.0)), out(8.0, true), Event::In(at(8.5))] {
            tally.add(event);
        }
        tally.finish();
        let thread = &tally.threads["ringmain-0"];
        assert!(close(thread.asleep, 4.0) && close(thread.preempted, 0.5), "{thread:?}");
        assert_eq!(thread.switches, 4);
        let wait = |name: &str| tally.waits[&Area { kernel: true, name: name.to_owned() }].weight;
        assert!(close(wait("io_uring"), 3.0) && close(wait("futex and eventfd"), 1.0));
        assert!(close(tally.off.values().sum(), 4.5), "{:?}", tally.off);
        assert!(close(tally.off["ringmain-0;waits for a processor"], 0.5));
    }

    #[test]
    fn a_sleep_that_outlasts_the_recording_counts_until_its_end() {
        let mut tally = Tally::default();
        for (left, back) in [(1.0, 1.5), (2.0, 0.0)] {
            tally.add(Event::Out { at: at(left), preempted: false });
            if back > 0.0 {
                tally.add(Event::In(at(back)));
            }
        }
        let other = At { thread: "other".to_owned(), tid: 8, time: 6.0 };
        tally.add(Event::In(other));
        tally.finish();
        assert!(close(tally.threads["ringmain-0"].asleep, 4.5), "{:?}", tally.threads);
    }
}
