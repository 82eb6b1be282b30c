//! The measuring loop: sends what is due, takes what has ended, and writes both down.
//!
//! One thread. Latency counts from the time a batch was due, whatever kept it from being sent; what was due and could
//! not be sent until the end counts as at least as late as the end. Nothing is allocated once buffers have grown.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ringmain::DiskTimes;
use serde::{Deserialize, Serialize};

use super::backend::{Completion, Instance, Request};
use super::consumers::AckTimes;
use super::kill::Teller;
use super::ledger::{Entry, Ledger};
use super::machine::{Machine, Moment};
use super::maker::Maker;
use super::pace::Pace;
use super::profiler::Profiler;
use super::recorder::{Recorder, Tick};
use super::result::Server;
use super::schedule::Schedule;
use super::workload::Workload;
use crate::clients::SILENCE_MAX;
use crate::clock::now_ms;
use crate::histogram::Latencies;
use crate::interrupt;

/// Batches sent in a row before acks are looked for.
const SENT_IN_A_ROW: u32 = 32;

/// How long before the measured time the machine's counters are read, so that reading them delays nothing in it.
const COUNTERS_BEFORE_NS: u64 = 20_000_000;

/// Longest the target may sleep at once: the user may want to stop.
const SLEEP_MAX_NS: u64 = 100_000_000;

/// When things happen, in nanoseconds from the beginning.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The count begins.
    pub from: u64,
    /// It ends.
    pub until: u64,
    /// How long an interval of the log is.
    pub interval: u64,
    /// Bytes of batches after which the repeat ends early: the disk would be full.
    pub bytes_max: u64,
}

impl Times {
    /// As the workload says; at least eight intervals, of at most a second.
    pub fn of(workload: &Workload, bytes_max: u64) -> Self {
        let ns = |time: Duration| time.as_nanos() as u64;
        let (warmup, seconds) = (ns(workload.warmup.0), ns(workload.seconds.0));
        let interval = (seconds / 8).clamp(1, 1_000_000_000);
        Self { from: warmup, until: warmup + seconds, interval, bytes_max }
    }
}

/// Why a repeat ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ended {
    /// Its time was over.
    Whole,
    /// The user stopped it.
    Interrupted,
    /// The disk would have been full.
    DiskFull,
}

/// Where batches' time went.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PhaseTimes {
    /// From due to sent.
    pub queue: Latencies,
    /// From sent to written, where it is known.
    pub write: Latencies,
    /// From written to flushed, where it is known.
    pub flush: Latencies,
    /// From there to the ack.
    pub ack: Latencies,
    /// Whether `write` and `flush` are those of whole operations, which batches share.
    #[serde(default)]
    pub shared: bool,
}

impl PhaseTimes {
    /// Takes over what a backend's operations took between two moments.
    fn add_shared(&mut self, before: &[DiskTimes], after: &[DiskTimes]) {
        for (before, after) in before.iter().zip(after) {
            self.shared = true;
            self.write.add(&after.writes.since(&before.writes));
            self.flush.add(&after.flushes.since(&before.flushes));
            self.flush.add(&after.durable_writes.since(&before.durable_writes));
        }
    }
}

/// What a repeat came to; its latencies are with the recorder.
#[derive(Debug, Serialize, Deserialize)]
pub struct Measured {
    /// Why it ended.
    pub ended: Ended,
    /// Phases.
    pub phases: PhaseTimes,
    /// Records acked in the measured time.
    pub records: u64,
    /// Bytes of their batches.
    pub bytes: u64,
    /// Records due in the measured time; none in a closed loop.
    pub due_records: Option<u64>,
    /// The measured time.
    pub elapsed: Duration,
    /// All that was acked. Once it was read back nobody needs it any more.
    #[serde(skip)]
    pub ledger: Ledger,
    /// The share of the measured time in which the thread did not wait.
    pub busy: f64,
    /// Time of making and sending a record.
    pub overhead_ns: f64,
    /// What the machine did.
    pub server: Server,
}

/// What a repeat works with.
pub struct Tools<'a, P> {
    /// The workload.
    pub workload: &'a Workload,
    /// Where batches go.
    pub instance: &'a mut dyn Instance,
    /// Where they come from.
    pub maker: Maker<'a>,
    /// Where latencies go.
    pub recorder: &'a Recorder,
    /// What time it is.
    pub pace: P,
    /// The machine.
    pub machine: Machine,
    /// When batches were acked, for consumers.
    pub acks: Option<Arc<AckTimes>>,
    /// Who is told of each ack, if this process is to be killed.
    pub teller: Option<Teller<'a>>,
    /// Who is told when the measured time begins and ends.
    pub profiler: Option<&'a Profiler>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Flight {
    producer: u32,
    partition: u32,
    sequence: u64,
    intended: u64,
    sent: u64,
    bytes: u64,
}

struct Line {
    /// When batches are due; nothing in a closed loop.
    schedule: Option<Schedule>,
    free: Vec<u32>,
    /// Whether it is due and waits for a place in flight.
    blocked: bool,
}

impl Line {
    fn due(&self, now: u64) -> u64 {
        self.schedule.as_ref().map_or(now, |schedule| schedule.due().as_nanos() as u64)
    }
}

/// A repeat under way.
struct Repeat<'a, P> {
    tools: Tools<'a, P>,
    times: Times,
    lines: Vec<Line>,
    due: BinaryHeap<Reverse<(u64, u32)>>,
    flights: Vec<Flight>,
    buffers: Vec<Vec<u8>>,
    in_flight: u32,
    now: u64,
    last_ack: u64,
    tick: Tick,
    tick_from: u64,
    phases: PhaseTimes,
    records: u64,
    bytes: u64,
    bytes_sent: u64,
    due_batches: u64,
    ledger: Ledger,
    waited: u64,
    making: u64,
    made: u64,
    before: Option<Before>,
}

/// What was counted before the measured time.
struct Before {
    moment: Moment,
    at: Instant,
    disk: Vec<DiskTimes>,
}

/// Runs a repeat.
///
/// # Errors
/// If a request fails, or the target falls silent.
pub fn measure<P: Pace>(tools: Tools<'_, P>, times: Times) -> Result<Measured> {
    Repeat::new(tools, times).run()
}

impl<'a, P: Pace> Repeat<'a, P> {
    fn new(tools: Tools<'a, P>, times: Times) -> Self {
        let workload = tools.workload;
        let line = |producer: u32| {
            let slots = producer * workload.in_flight..(producer + 1) * workload.in_flight;
            let schedule = Schedule::of(workload, producer);
            Line { schedule, free: slots.rev().collect(), blocked: false }
        };
        let lines: Vec<Line> = (0..workload.producers).map(line).collect();
        let due = lines.iter().zip(0..).map(|(line, nth)| Reverse((line.due(0), nth))).collect();
        let slots = workload.slots() as usize;
        let ledger = Ledger::new(workload.partitions, workload.producers);
        Self {
            lines,
            due,
            flights: vec![Flight::default(); slots],
            buffers: vec![Vec::new(); slots],
            in_flight: 0,
            now: 0,
            last_ack: 0,
            tick: Tick::default(),
            tick_from: times.from,
            phases: PhaseTimes::default(),
            records: 0,
            bytes: 0,
            bytes_sent: 0,
            due_batches: 0,
            ledger,
            waited: 0,
            making: 0,
            made: 0,
            before: None,
            times,
            tools,
        }
    }

    fn run(mut self) -> Result<Measured> {
        let mut done = Vec::with_capacity(self.flights.len());
        let mut ended = Ended::Whole;
        if self.times.from < 2 * COUNTERS_BEFORE_NS {
            self.read_counters()?;
        }
        self.now = self.tools.pace.now();
        self.last_ack = self.now;
        while self.now < self.times.until {
            if interrupt::asked() {
                ended = Ended::Interrupted;
            } else if self.bytes_sent >= self.times.bytes_max {
                ended = Ended::DiskFull;
            }
            if ended != Ended::Whole {
                self.times.until = self.now;
                self.times.from = self.times.from.min(self.now);
                break;
            }
            if self.before.is_none() && self.now + COUNTERS_BEFORE_NS >= self.times.from {
                self.read_counters()?;
            }
            while self.now >= self.tick_from + self.times.interval {
                self.end_tick(self.tick_from + self.times.interval, true)?;
            }
            self.send_due()?;
            self.take(&mut done)?;
        }
        if let Some(profiler) = self.tools.profiler {
            profiler.end()?;
        }
        self.end_tick(self.times.until, true)?;
        self.drain(&mut done)?;
        self.count_unsent();
        self.end_tick(self.now, false)?;
        Ok(self.measured(ended))
    }

    fn read_counters(&mut self) -> Result<()> {
        let counters = self.tools.instance.counters();
        let disk = self.tools.instance.disk_times();
        self.before =
            Some(Before { moment: self.tools.machine.now(counters), at: Instant::now(), disk });
        if let Some(profiler) = self.tools.profiler {
            profiler.begin()?;
        }
        Ok(())
    }

    fn end_tick(&mut self, at: u64, inside: bool) -> Result<()> {
        if at <= self.tick_from && inside {
            return Ok(());
        }
        self.tick.start = Duration::from_nanos(self.tick_from - self.times.from);
        self.tick.length = Duration::from_nanos(at.saturating_sub(self.tick_from));
        self.tick.inside = inside;
        self.tick_from = at.max(self.tick_from);
        self.tools.recorder.swap(&mut self.tick)
    }

    fn send_due(&mut self) -> Result<()> {
        for _ in 0..SENT_IN_A_ROW {
            let Some(&Reverse((due, producer))) = self.due.peek() else { break };
            if due > self.now || due >= self.times.until {
                break;
            }
            self.due.pop();
            let line = &mut self.lines[producer as usize];
            let Some(slot) = line.free.pop() else {
                line.blocked = true;
                continue;
            };
            if let Some(schedule) = &mut line.schedule {
                schedule.advance();
            }
            self.send(producer, slot, due)?;
            let next = self.lines[producer as usize].due(self.now);
            self.due.push(Reverse((next, producer)));
        }
        Ok(())
    }

    fn send(&mut self, producer: u32, slot: u32, due: u64) -> Result<()> {
        let begin = self.now;
        let buffer = std::mem::take(&mut self.buffers[slot as usize]);
        let made = self.tools.maker.make(producer, buffer, now_ms() as i64)?;
        let sent = self.tools.pace.now();
        let bytes = made.batch.as_bytes().len() as u64;
        let (partition, sequence) = (made.partition, made.sequence);
        self.flights[slot as usize] =
            Flight { producer, partition, sequence, intended: due, sent, bytes };
        self.tools.instance.submit(Request { slot, partition, batch: made.batch });
        self.in_flight += 1;
        self.bytes_sent += bytes;
        self.now = self.tools.pace.now();
        self.making += self.now - begin;
        self.made += 1;
        self.due_batches += u64::from((self.times.from..self.times.until).contains(&due));
        Ok(())
    }

    /// Takes what has ended; waits for it if nothing else is to be done.
    fn take(&mut self, done: &mut Vec<Completion>) -> Result<()> {
        let next = self.due.peek().map_or(u64::MAX, |Reverse((due, _))| *due);
        let next = next.min(self.times.until.max(self.now)).min(self.now + SLEEP_MAX_NS);
        self.poll(done, next.saturating_sub(self.now))
    }

    fn poll(&mut self, done: &mut Vec<Completion>, ns: u64) -> Result<()> {
        let begin = self.now;
        let sleep = self.tools.pace.may_sleep(ns);
        self.tools.instance.poll(sleep, done).context("the backend is broken")?;
        self.now = self.tools.pace.now();
        let idle = done.is_empty() || !sleep.is_zero();
        if idle && begin >= self.times.from && begin < self.times.until {
            self.waited += self.now.min(self.times.until) - begin;
        }
        if done.is_empty() {
            let silent = Duration::from_nanos(self.now - self.last_ack);
            if self.in_flight > 0 && silent > SILENCE_MAX {
                bail!("{} batches in flight, and no ack in {SILENCE_MAX:?}", self.in_flight);
            }
            if self.in_flight == 0 {
                self.last_ack = self.now;
            }
            return Ok(());
        }
        self.last_ack = self.now;
        for completion in done.drain(..) {
            self.ack(completion)?;
        }
        if let Some(teller) = &mut self.tools.teller {
            teller.flush().context("the parent is gone")?;
        }
        Ok(())
    }

    fn ack(&mut self, completion: Completion) -> Result<()> {
        let Flight { producer, partition, sequence, intended, sent, bytes } =
            self.flights[completion.slot as usize];
        let acked = completion.result.with_context(|| {
            format!("batch {sequence} of producer {producer} to partition {partition}")
        })?;
        let records = self.tools.workload.batch_records;
        let offset = acked.base_offset;
        self.buffers[completion.slot as usize] = acked.buffer;
        self.in_flight -= 1;
        let entry = Entry { partition, producer, sequence, offset, records };
        self.ledger.acked(entry);
        if let Some(teller) = &mut self.tools.teller {
            teller.acked(entry);
        }
        if let Some(acks) = &self.tools.acks {
            acks.acked(partition, offset, self.now);
        }
        let window = self.times.from..self.times.until;
        if window.contains(&self.now) {
            self.records += u64::from(records);
            self.bytes += bytes;
            self.tick.records += u64::from(records);
        }
        if window.contains(&intended) {
            self.tick.corrected.record(self.now - intended);
            self.tick.uncorrected.record(self.now - sent);
            let mut since = sent;
            self.phases.queue.record(sent - intended);
            for (at, phase) in
                [(acked.written, &mut self.phases.write), (acked.flushed, &mut self.phases.flush)]
            {
                if let Some(at) = at.map(|at| self.tools.pace.of(at).clamp(since, self.now)) {
                    phase.record(at - since);
                    since = at;
                }
            }
            self.phases.ack.record(self.now - since);
        }
        let line = &mut self.lines[producer as usize];
        line.free.push(completion.slot);
        if std::mem::take(&mut line.blocked) {
            self.due.push(Reverse((line.due(self.now), producer)));
        }
        Ok(())
    }

    /// Waits until nothing is in flight.
    fn drain(&mut self, done: &mut Vec<Completion>) -> Result<()> {
        while self.in_flight > 0 {
            self.poll(done, SLEEP_MAX_NS)?;
        }
        Ok(())
    }

    /// What was due and never sent is as late as the end, at least: a target that stands still at the end must not
    /// get away with it.
    fn count_unsent(&mut self) {
        for line in &mut self.lines {
            let Some(schedule) = &mut line.schedule else { continue };
            loop {
                let due = schedule.due().as_nanos() as u64;
                if due >= self.times.until {
                    break;
                }
                if due >= self.times.from {
                    self.tick.corrected.record(self.now.saturating_sub(due));
                    self.due_batches += 1;
                }
                schedule.advance();
            }
        }
    }

    fn measured(mut self, ended: Ended) -> Measured {
        let counters = self.tools.instance.counters();
        let after = self.tools.machine.now(counters);
        let elapsed = self.times.until - self.times.from;
        let server = self.before.as_ref().map(|Before { moment, at, .. }| {
            self.tools.machine.between(moment, &after, at.elapsed(), self.bytes)
        });
        if let Some(Before { disk, .. }) = &self.before {
            self.phases.add_shared(disk, &self.tools.instance.disk_times());
        }
        let records = u64::from(self.tools.workload.batch_records);
        let open = self.lines.iter().any(|line| line.schedule.is_some());
        Measured {
            ended,
            phases: self.phases,
            records: self.records,
            bytes: self.bytes,
            due_records: open.then_some(self.due_batches * records),
            elapsed: Duration::from_nanos(elapsed),
            ledger: self.ledger,
            busy: 1.0 - self.waited as f64 / elapsed.max(1) as f64,
            overhead_ns: self.making as f64 / (self.made * records).max(1) as f64,
            server: server.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
#[path = "measure/tests.rs"]
mod tests;
