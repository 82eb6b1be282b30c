//! Takes the histograms of each interval off the measuring thread: adds them up, writes the log, shows the live line.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

use super::hlog::{self, Interval};
use super::live::Live;
use crate::histogram::Latencies;

/// Intervals on their way to the recorder: it has as long for one as the run has for so many.
const ON_THE_WAY: usize = 4;

/// How much the rate of the second half may differ from that of the first before a repeat is not steady.
const RATE_DRIFT_MAX: f64 = 0.10;

/// The same of the median latency.
const LATENCY_DRIFT_MAX: f64 = 0.25;

/// What was measured in one interval.
#[derive(Clone, Debug, Default)]
pub struct Tick {
    /// From the intended send time.
    pub corrected: Latencies,
    /// From the actual send.
    pub uncorrected: Latencies,
    /// Records acked in it.
    pub records: u64,
    /// Its beginning, from that of the measured time.
    pub start: Duration,
    /// How long it took.
    pub length: Duration,
    /// Whether it counts for steadiness: not what is acked after the measured time.
    pub inside: bool,
}

/// All intervals together.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Recorded {
    /// From the intended send time.
    pub corrected: Latencies,
    /// From the actual send.
    pub uncorrected: Latencies,
    /// Whether the second half went as the first.
    pub steady: bool,
}

/// The recorder's end of the measuring thread.
pub struct Recorder {
    to: SyncSender<Tick>,
    back: Receiver<Tick>,
    thread: JoinHandle<Result<Recorded>>,
}

impl Recorder {
    /// Starts it. Without a path no log is written.
    ///
    /// # Errors
    /// If the thread can't be started.
    pub fn start(path: Option<&Path>, live: Live) -> Result<Self> {
        let (to, from) = sync_channel(ON_THE_WAY);
        let (give, back) = sync_channel(ON_THE_WAY);
        for _ in 0..ON_THE_WAY {
            give.try_send(Tick::default()).map_err(|_| anyhow!("the channel holds them"))?;
        }
        let path = path.map(Path::to_owned);
        let record = move || record(path.as_deref(), from, &give, live);
        let thread = thread::Builder::new().name("recorder".to_owned()).spawn(record);
        Ok(Self { to, back, thread: thread.context("cannot start a thread")? })
    }

    /// Hands an interval over and gives an empty one for the next.
    ///
    /// # Errors
    /// If the recorder has ended: [`Recorder::finish`] says why.
    pub fn swap(&self, tick: &mut Tick) -> Result<()> {
        let gone = || anyhow!("the recorder has ended");
        let empty = self.back.recv().map_err(|_| gone())?;
        self.to.send(std::mem::replace(tick, empty)).map_err(|_| gone())
    }

    /// Ends it.
    ///
    /// # Errors
    /// If the log could not be written.
    pub fn finish(self) -> Result<Recorded> {
        drop(self.to);
        self.thread.join().map_err(|_| anyhow!("the recorder panicked"))?
    }
}

fn record(
    path: Option<&Path>,
    from: Receiver<Tick>,
    give: &SyncSender<Tick>,
    mut live: Live,
) -> Result<Recorded> {
    let mut all = Recorded::default();
    let mut series = Vec::new();
    let mut take = |tick: &mut Tick| {
        all.corrected.merge(&tick.corrected);
        all.uncorrected.merge(&tick.uncorrected);
        if tick.inside && !tick.length.is_zero() {
            let rate = tick.records as f64 / tick.length.as_secs_f64();
            series.push((rate, tick.corrected.quantile(0.5) as f64));
        }
        live.show(tick);
    };
    let recycle = |mut tick: Tick| {
        tick.corrected.clear();
        tick.uncorrected.clear();
        tick.records = 0;
        // The measuring thread may be past its last interval.
        let _ = give.try_send(tick);
    };
    match path {
        None => {
            for mut tick in from {
                take(&mut tick);
                recycle(tick);
            }
        }
        Some(path) => hlog::write(path, SystemTime::now(), |add| {
            for mut tick in from {
                take(&mut tick);
                tick = written(tick, add)?;
                recycle(tick);
            }
            Ok(())
        })?,
    }
    all.steady = is_steady(&series);
    Ok(all)
}

fn written(
    tick: Tick,
    add: &mut dyn FnMut(&Interval) -> Result<(), hlog::HlogError>,
) -> Result<Tick, hlog::HlogError> {
    let Tick { corrected, uncorrected, start, length, records, inside } = tick;
    let corrected = Interval { uncorrected: false, start, length, latencies: corrected };
    let uncorrected = Interval { uncorrected: true, start, length, latencies: uncorrected };
    add(&corrected)?;
    add(&uncorrected)?;
    let (corrected, uncorrected) = (corrected.latencies, uncorrected.latencies);
    Ok(Tick { corrected, uncorrected, records, start, length, inside })
}

/// Whether the means of the second half are near those of the first. Fewer than four intervals say nothing, so they
/// are not steady.
fn is_steady(series: &[(f64, f64)]) -> bool {
    if series.len() < 4 {
        return false;
    }
    let (first, second) = series.split_at(series.len() / 2);
    let drift = |of: fn(&(f64, f64)) -> f64| {
        let mean = |half: &[(f64, f64)]| half.iter().map(of).sum::<f64>() / half.len() as f64;
        let (first, second) = (mean(first), mean(second));
        (second - first).abs() / first.max(second).max(f64::MIN_POSITIVE)
    };
    drift(|point| point.0) <= RATE_DRIFT_MAX && drift(|point| point.1) <= LATENCY_DRIFT_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_slows_down_or_gets_slower_acks_is_not_steady() {
        let of = |values: [(f64, f64); 6]| is_steady(&values);
        assert!(of([(100.0, 5.0); 6]));
        assert!(of([
            (100.0, 5.0),
            (96.0, 5.0),
            (104.0, 6.0),
            (98.0, 5.0),
            (99.0, 5.0),
            (103.0, 6.0)
        ]));
        let slower =
            [(100.0, 5.0), (100.0, 5.0), (100.0, 5.0), (80.0, 5.0), (80.0, 5.0), (80.0, 5.0)];
        assert!(!of(slower));
        assert!(!of(
            slower.map(|(rate, _)| (100.0, 500.0 / rate * if rate < 90.0 { 2.0 } else { 1.0 }))
        ));
        assert!(!is_steady(&[(100.0, 5.0); 3]), "too few say nothing");
    }

    #[test]
    fn intervals_add_up_to_all_that_was_recorded() {
        let recorder = Recorder::start(None, Live::silent()).expect("starts");
        let mut tick = Tick::default();
        for nth in 0..20_u64 {
            (0..100).for_each(|ns| tick.corrected.record(nth * 100 + ns));
            tick.uncorrected.record(1);
            (tick.inside, tick.length) = (true, Duration::from_secs(1));
            recorder.swap(&mut tick).expect("taken");
            assert_eq!(tick.corrected.count(), 0, "the next one is empty");
        }
        let all = recorder.finish().expect("ends");
        assert_eq!((all.corrected.count(), all.uncorrected.count()), (2000, 20));
    }
}
