//! A burst at ten times the consumer's pace: into a log, and straight to the consumer.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use ringmain::batch::{Batch, batches};

use super::claim::{Arm, Claim, Guard, Meter, Ready, Slice, Stage};
use super::rule::{Bound, Figure, Rule, Unit};
use crate::batches::Shelf;
use crate::clients::SILENCE_MAX;
use crate::cores::Pinned;
use crate::interrupt;
use crate::run::backend::{Completion, Instance, Reader, Request};
use crate::run::backends::backend;
use crate::run::values::BackendName;
use crate::run::workload::Flags;
use crate::sample::Sample;

/// Bytes of a batch of log lines, about a hundred of them.
const BATCH_BYTES: usize = 16 << 10;

/// Batches a second that the consumer takes.
const DRAINED_PER_S: f64 = 1000.0;

/// How much faster the burst is.
const BURST: f64 = 10.0;

/// The share of a slice that the burst lasts: what it makes is drained in less than the slice.
const BURST_SHARE: f64 = 0.8 / BURST;

/// Batches that wait between producer and consumer where there is no log.
const QUEUE: usize = 64;

/// Batches that the log's producer may have in flight.
const IN_FLIGHT: u32 = 256;

/// Bytes of a consumer's fetch.
const FETCH_BYTES: usize = 256 << 10;

/// How long a consumer that found nothing waits.
const PAUSE: Duration = Duration::from_micros(200);

/// Longest the producer sleeps: the user may want to stop.
const WAIT_MAX: Duration = Duration::from_millis(50);

/// Of the batches that were acked, those that the consumer had, in order, by the slice's end.
const DRAINED: &str = "share drained in order";

const fn rule(over: &'static str, figure: Figure, bound: Bound, when: &'static str) -> Rule {
    Rule { of: "burst_log", over, figure, bound, when }
}

pub(super) static CLAIM: Claim = Claim {
    name: "peak-shaving",
    sentence: "A log takes a burst that its consumer cannot: producers' latency stays flat, and the \
               backlog drains in order.",
    source: "The first reason that is given for a message queue between two services: it \"shaves \
             peaks\", or \"levels load\".",
    mechanism: "A producer waits for the log's ack, not for the consumer's. What the log takes is bounded \
                by its disk, far above what a consumer works off, and the backlog is bytes on a disk, \
                of which there are many. With a bounded queue in memory a full queue makes the producer \
                wait at the consumer's pace, and an unbounded one runs out of memory. What a log does \
                not do is to make the consumer faster: the backlog's records wait, and they wait long.",
    ends: "At the rate of the disk: a burst above it queues in the log as it would elsewhere. And at the \
             consumer: its records wait in the log for as long as the burst was too fast for it.",
    headline: Figure::P99,
    arms: &[
        Arm::new(
            "steady_log",
            "1,000 batches a second",
            "log",
            "a batch of 16 KiB of log lines every millisecond into a log, flush policy `group`; the consumer \
             takes 1,000 a second",
        ),
        Arm::new(
            "burst_log",
            "10,000 batches a second, for a while",
            "log",
            "the same for 8 % of the slice at ten times the rate, then nothing; the consumer as before",
        ),
        Arm::new(
            "burst_queue",
            "10,000 batches a second, for a while",
            "queue of 64",
            "the same burst into a queue of 64 batches in memory before the same consumer; a batch \
             counts as acked when the queue has it",
        ),
    ],
    rules: &[
        rule(
            "steady_log",
            Figure::P99,
            Bound::AtMost(2.0),
            "in producers' p99, a burst beside a steady load",
        ),
        rule(
            "burst_queue",
            Figure::P99,
            Bound::AtMost(0.1),
            "in producers' p99, beside a queue of 64",
        ),
        rule(
            "steady_log",
            Figure::Named(DRAINED, Unit::Plain),
            Bound::AtLeast(0.98),
            "in what is drained, in order, by the end of the slice",
        ),
    ],
    guards: &[
        Guard {
            what: "a producer that waits sends less, and its latency looks well",
            how: "batches are due by schedule, and latency counts from the time a batch was due",
        },
        Guard {
            what: "the queue acks earlier: it makes nothing durable",
            how: "it does, in the queue's favour; the log's ack is a flush",
        },
        Guard {
            what: "the consumer is not the bound",
            how: "it takes a batch every millisecond, whatever there is; no batch is taken before its time",
        },
        Guard {
            what: "records are lost or change places on the way",
            how: "the consumer checks that each batch begins where the one before ended; another \
                  order ends the experiment",
        },
        Guard {
            what: "the burst is over before the disk notices",
            how: "it is as long as a tenth of the time to drain it; a longer one is limited by the disk's \
                  rate, for which see `ringmain-bench search`",
        },
    ],
    slice: Duration::from_millis(600),
    space_bytes: 2 << 30,
    prepare,
};

fn prepare<'a>(stage: &mut Stage<'a>) -> Result<Ready<'a>> {
    let log = Rc::new(RefCell::new(Log::open(&stage.subdir("log")?)?));
    let shelf = || Shelf::new(BATCH_BYTES, &mut stage.payload.cursor(0));
    let mut ready = Ready::new();
    ready.notes.extend(log.borrow().instance.facts().notes);
    for (name, burst) in [("steady_log", 1.0), ("burst_log", BURST)] {
        let (log, mut shelf) = (log.clone(), shelf()?);
        let (meter, cores) = (stage.meter(), stage.cores);
        ready.arm(name, move |time| {
            let _pinned = Pinned::to(cores.clients);
            let (mut log, plan) = (log.borrow_mut(), Plan::of(burst, time));
            measured(&meter, || log.slice(&plan, &mut shelf))
        });
    }
    let (mut shelf, meter, cores) = (shelf()?, stage.meter(), stage.cores);
    ready.arm("burst_queue", move |time| {
        let _pinned = Pinned::to(cores.clients);
        let plan = Plan::of(BURST, time);
        measured(&meter, || through_queue(&plan, &mut shelf))
    });
    Ok(ready)
}

/// A slice with the share of its batches that was drained.
fn measured(meter: &Meter, slice: impl FnOnce() -> Result<(Sample, f64)>) -> Result<Slice> {
    let mut share = 0.0;
    let measured = meter.around(|| {
        let (sample, drained) = slice()?;
        share = drained;
        Ok(sample)
    })?;
    Ok(measured.with(DRAINED, share))
}

/// When batches are due, and when the consumer takes them.
#[derive(Clone, Copy, Debug)]
struct Plan {
    begin: Instant,
    time: Duration,
    batches: u32,
    per_s: f64,
}

impl Plan {
    /// A slice at `burst` times the consumer's rate, from now on.
    fn of(burst: f64, time: Duration) -> Self {
        let per_s = DRAINED_PER_S * burst;
        let batches = (time.as_secs_f64() * BURST_SHARE * DRAINED_PER_S * BURST) as u32;
        Self { begin: Instant::now(), time, batches, per_s }
    }

    fn due(&self, nth: u32) -> Instant {
        self.begin + Duration::from_secs_f64(f64::from(nth) / self.per_s)
    }

    /// When the consumer is done with `taken` batches.
    fn taken(&self, taken: u32) -> Instant {
        self.begin + Duration::from_secs_f64(f64::from(taken) / DRAINED_PER_S)
    }

    fn end(&self) -> Instant {
        self.begin + self.time
    }
}

fn sleep_until(at: Instant) {
    thread::sleep(at.saturating_duration_since(Instant::now()));
}

/// Producers' side of a slice.
struct Producer {
    sample: Sample,
    batches: u32,
}

impl Producer {
    fn new(plan: &Plan) -> Self {
        Self { sample: Sample::empty(plan.time), batches: 0 }
    }

    fn acked(&mut self, due: Instant, records: u32) {
        self.sample.latencies.record(due.elapsed().as_nanos() as u64);
        self.sample.records += u64::from(records);
        self.sample.bytes += BATCH_BYTES as u64;
        self.batches += 1;
    }

    fn drained(self, taken: u32) -> (Sample, f64) {
        let share = f64::from(taken) / f64::from(self.batches.max(1));
        (self.sample, share)
    }
}

/// The engine, as `run` drives it, and the batches in flight.
struct Log {
    instance: Box<dyn Instance>,
    /// When the batch in a slot was due, and its records.
    flights: Vec<(Instant, u32)>,
    free: Vec<u32>,
    buffers: Vec<Vec<u8>>,
    /// The offset behind all that was acked.
    end: i64,
}

impl Log {
    fn open(dir: &Path) -> Result<Self> {
        let flags = Flags { in_flight: Some(IN_FLIGHT), ..Flags::default() };
        let instance = backend(BackendName::Ringmain).open(dir, &flags.resolve()?)?;
        let flights = vec![(Instant::now(), 0); IN_FLIGHT as usize];
        Ok(Self { instance, flights, free: (0..IN_FLIGHT).collect(), buffers: Vec::new(), end: 0 })
    }

    fn slice(&mut self, plan: &Plan, shelf: &mut Shelf) -> Result<(Sample, f64)> {
        let (reader, from, paced) = (self.instance.reader()?, self.end, *plan);
        let consumer = thread::Builder::new().name("consumer".to_owned());
        let consumer = consumer.spawn(move || drain(reader, from, &paced))?;
        let produced = self.produce(plan, shelf);
        let taken = consumer.join().map_err(|_| anyhow!("the consumer panicked"))?;
        Ok(produced?.drained(taken?))
    }

    fn produce(&mut self, plan: &Plan, shelf: &mut Shelf) -> Result<Producer> {
        let mut producer = Producer::new(plan);
        let (mut sent, mut done) = (0, Vec::new());
        while producer.batches < plan.batches {
            interrupt::check()?;
            let due = plan.due(sent);
            if sent < plan.batches
                && Instant::now() >= due
                && let Some(slot) = self.free.pop()
            {
                let batch = shelf.take(self.buffers.pop().unwrap_or_default());
                self.flights[slot as usize] = (due, batch.record_count());
                self.instance.submit(Request { slot, partition: 0, batch });
                sent += 1;
                continue;
            }
            let wait = due.saturating_duration_since(Instant::now());
            let wait = if sent == plan.batches || wait.is_zero() { WAIT_MAX } else { wait };
            self.instance.poll(wait.min(WAIT_MAX), &mut done)?;
            for Completion { slot, result } in done.drain(..) {
                let (acked, (due, records)) = (result?, self.flights[slot as usize]);
                producer.acked(due, records);
                self.end = self.end.max(acked.base_offset + i64::from(records));
                self.buffers.push(acked.buffer);
                self.free.push(slot);
            }
            let late = Instant::now().saturating_duration_since(plan.end());
            ensure!(late < SILENCE_MAX, "no ack in {SILENCE_MAX:?}");
        }
        Ok(producer)
    }
}

/// Takes batches from the log at the consumer's pace until the slice ends. Returns how many.
fn drain(mut reader: Box<dyn Reader>, from: i64, plan: &Plan) -> Result<u32> {
    let (mut taken, mut next, mut bytes) = (0, from, Vec::new());
    while Instant::now() < plan.end() {
        bytes.clear();
        reader.fetch(0, next, FETCH_BYTES, &mut bytes)?;
        for batch in batches(&bytes) {
            let batch = batch.context("a damaged batch")?;
            let base = batch.base_offset().get();
            ensure!(base == next, "the consumer got offset {base} where {next} is due");
            sleep_until(plan.taken(taken + 1).min(plan.end()));
            if Instant::now() >= plan.end() {
                return Ok(taken);
            }
            next = batch.last_offset().get() + 1;
            taken += 1;
        }
        if bytes.is_empty() {
            thread::sleep(PAUSE);
        }
    }
    Ok(taken)
}

/// The same without a log: a full queue makes the producer wait.
fn through_queue(plan: &Plan, shelf: &mut Shelf) -> Result<(Sample, f64)> {
    let (to, from) = sync_channel::<Batch>(QUEUE);
    let paced = *plan;
    let consumer = thread::Builder::new().name("consumer".to_owned());
    let consumer = consumer.spawn(move || {
        let mut taken = 0;
        // It goes on when the slice is over, so that the producer ends.
        while from.recv().is_ok() {
            sleep_until(paced.taken(taken + 1));
            taken += 1;
        }
        taken
    })?;
    let mut producer = Producer::new(plan);
    for nth in 0..plan.batches {
        interrupt::check()?;
        let due = plan.due(nth);
        let batch = shelf.take(Vec::new());
        sleep_until(due);
        let records = batch.record_count();
        to.send(batch).context("the consumer has gone")?;
        producer.acked(due, records);
    }
    drop(to);
    let taken = consumer.join().map_err(|_| anyhow!("the consumer panicked"))?;
    Ok(producer.drained(taken))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Payload;
    use crate::scratch::Scratch;

    #[test]
    fn what_is_acked_is_drained_in_order_and_another_order_is_noticed() {
        let scratch = Scratch::new("peak-shaving");
        let payload = Payload::generated(1 << 20);
        let mut shelf = Shelf::new(BATCH_BYTES, &mut payload.cursor(0)).expect("built");
        let mut log = Log::open(scratch.path()).expect("opens");
        let begin = Instant::now();
        let plan = Plan { begin, time: Duration::from_secs(60), batches: 20, per_s: 1e6 };
        let produced = log.produce(&plan, &mut shelf).expect("acked");
        assert_eq!((produced.batches, produced.sample.records as i64), (20, log.end));
        // A plan that is over when all is drained: the twenty are taken before it ends.
        let plan = Plan { begin, time: begin.elapsed() + Duration::from_secs(2), ..plan };
        let taken = drain(log.instance.reader().expect("readable"), 0, &plan).expect("in order");
        assert_eq!(taken, 20);
        let plan = Plan { time: begin.elapsed() + Duration::from_secs(60), ..plan };
        let inside = drain(log.instance.reader().expect("readable"), 1, &plan);
        assert!(inside.expect_err("inside a batch").to_string().contains("where 1 is due"));
        let (sample, share) =
            through_queue(&Plan::of(BURST, Duration::from_millis(100)), &mut shelf)
                .expect("drained");
        assert!(sample.records > 0 && (share - 1.0).abs() < f64::EPSILON, "{share}");
    }
}
