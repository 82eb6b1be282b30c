//! Consumers that read at the tail while producers write: how long after its ack a batch is in a consumer's hands.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use ringmain::batch::batches;

use super::backend::Reader;
use crate::histogram::Latencies;

/// Ack times kept, all partitions together.
const TIMES: usize = 1 << 18;

/// Most and fewest of them for one partition.
const TIMES_OF_ONE_MAX: usize = 1 << 12;
const TIMES_OF_ONE_MIN: usize = 4;

/// Bytes of a fetch.
const FETCH_BYTES: usize = 1 << 20;

/// How long a consumer that found nothing waits before it asks again: part of every fetch latency.
const POLL: Duration = Duration::from_micros(200);

/// When batches were acked, by the measuring thread for the consumers: a short ring a partition.
#[derive(Debug)]
pub struct AckTimes {
    begin: Instant,
    slots: Box<[AckTime]>,
    each: usize,
    records: i64,
}

#[derive(Debug)]
struct AckTime {
    offset: AtomicI64,
    ns: AtomicU64,
}

/// Whether and when a batch was acked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// The measuring thread has not seen the ack yet: the consumer was faster.
    NotYet,
    /// Then; or, where the ring has gone round since, not later.
    At(u64),
}

impl AckTimes {
    /// For batches of `records` records in `partitions` partitions; times count from `begin`.
    pub fn new(begin: Instant, partitions: u32, records: u32) -> Self {
        let each = TIMES / partitions as usize;
        let each = each.clamp(TIMES_OF_ONE_MIN, TIMES_OF_ONE_MAX);
        let slot = || AckTime { offset: AtomicI64::new(-1), ns: AtomicU64::new(0) };
        let slots = (0..each * partitions as usize).map(|_| slot()).collect();
        Self { begin, slots, each, records: i64::from(records) }
    }

    fn slot(&self, partition: u32, offset: i64) -> &AckTime {
        let nth = (offset / self.records) as usize % self.each;
        &self.slots[partition as usize * self.each + nth]
    }

    /// Notes an ack, so many nanoseconds after the beginning.
    pub fn acked(&self, partition: u32, offset: i64, ns: u64) {
        let slot = self.slot(partition, offset);
        slot.ns.store(ns, Ordering::Relaxed);
        slot.offset.store(offset, Ordering::Release);
    }

    fn seen(&self, partition: u32, offset: i64) -> Seen {
        let slot = self.slot(partition, offset);
        let there = slot.offset.load(Ordering::Acquire);
        if there < offset { Seen::NotYet } else { Seen::At(slot.ns.load(Ordering::Relaxed)) }
    }
}

/// Consumers at work.
pub struct Consumers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<Latencies>>>,
}

impl Consumers {
    /// Starts one for each reader; partitions are dealt out among them. Batches acked before `from` has
    /// passed do not count.
    ///
    /// # Errors
    /// If a thread can't be started.
    pub fn start(
        readers: Vec<Box<dyn Reader>>,
        times: &Arc<AckTimes>,
        partitions: u32,
        from: Duration,
    ) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let count = readers.len() as u32;
        let mut threads = Vec::new();
        for (nth, reader) in (0..).zip(readers) {
            let (times, stop) = (Arc::clone(times), Arc::clone(&stop));
            let mine = (nth..partitions).step_by(count as usize).map(|p| (p, 0)).collect();
            let from_ns = from.as_nanos() as u64;
            let mut tail = Tail { reader, mine, times, from_ns, latencies: Latencies::new() };
            let thread = thread::Builder::new().name(format!("consumer-{nth}"));
            let thread = thread.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if !tail.round()? {
                        thread::park_timeout(POLL);
                    }
                }
                Ok(tail.latencies)
            });
            threads.push(thread.context("cannot start a thread")?);
        }
        Ok(Self { stop, threads })
    }

    /// Ends them, and gives the time from ack to hand of all batches.
    ///
    /// # Errors
    /// If one could not read.
    pub fn finish(self) -> Result<Latencies> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Latencies::new();
        for thread in self.threads {
            all.merge(&thread.join().map_err(|_| anyhow!("a consumer panicked"))??);
        }
        Ok(all)
    }
}

struct Tail {
    reader: Box<dyn Reader>,
    /// Its partitions, and the next offset of each.
    mine: Vec<(u32, i64)>,
    times: Arc<AckTimes>,
    from_ns: u64,
    latencies: Latencies,
}

impl Tail {
    /// Asks every partition once; whether there was anything.
    fn round(&mut self) -> Result<bool> {
        let mut found = false;
        let mut bytes = Vec::with_capacity(FETCH_BYTES);
        for (partition, next) in &mut self.mine {
            bytes.clear();
            let fetched = self.reader.fetch(*partition, *next, FETCH_BYTES, &mut bytes);
            fetched.with_context(|| format!("a consumer of partition {partition} at {next}"))?;
            let now = self.times.begin.elapsed().as_nanos() as u64;
            for batch in batches(&bytes) {
                let batch = batch.context("a consumer was given a damaged batch")?;
                found = true;
                let at = match self.times.seen(*partition, batch.base_offset().get()) {
                    Seen::NotYet => now,
                    Seen::At(ns) => ns,
                };
                if at >= self.from_ns {
                    self.latencies.record(now.saturating_sub(at));
                }
                *next = batch.last_offset().get() + 1;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ack_time_is_found_as_long_as_the_ring_has_not_gone_round_and_never_overstates_after() {
        let begin = Instant::now();
        let times = AckTimes::new(begin, 1, 10);
        let at = |ms: u64| ms * 1_000_000;
        times.acked(0, 0, at(1));
        times.acked(0, 10, at(2));
        assert_eq!(times.seen(0, 10), Seen::At(2_000_000));
        assert_eq!(times.seen(0, 20), Seen::NotYet);
        let round = 10 * times.each as i64;
        times.acked(0, round, at(9));
        // The batch at 0 was acked before: from 9 ms on is less than it waited, never more.
        assert_eq!(times.seen(0, 0), Seen::At(9_000_000));
    }
}
