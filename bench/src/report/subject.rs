//! A run as a page shows it: its summary, its curves, and its moments in order.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::heat::band;
use crate::env::Env;
use crate::histogram::{CurvePoint, Latencies};
use crate::run::folder::{self, FolderError};
use crate::run::hlog::{HlogError, Interval};
use crate::run::result::{BEYOND_MIN, Document, Latency, QUANTILES};

/// The most moments of a run. Intervals of longer runs are merged, histogram by histogram.
const MOMENTS_MAX: usize = 240;

/// How exact a log's times are, and a little more.
const LOG_STEP_S: f64 = 0.0015;

/// Settings that say nothing of what was measured.
const PLACES: [&str; 2] = ["dir", "out"];

/// What was acked in some time.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Moment {
    /// From its beginning to its end in seconds; repeats are one behind the other.
    pub(super) seconds: (f64, f64),
    /// Which repeat, from 0.
    pub(super) repeat: usize,
    /// Records acked a second; nothing behind the measured time, where only what was in flight is acked. A log counts
    /// batches: the repeat's mean of records a batch is taken for each.
    pub(super) records_per_s: Option<f64>,
    /// Latency from the intended send time, in nanoseconds.
    pub(super) p50: u64,
    /// As above.
    pub(super) p99: u64,
    /// As above.
    pub(super) max: u64,
    /// Batches by band of latency.
    pub(super) bands: Vec<(u16, u64)>,
}

/// A run, read from its directory.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    /// The name of its directory.
    pub(super) title: String,
    /// Where it is.
    pub(super) dir: PathBuf,
    /// Its summary.
    pub(super) document: Document,
    /// The machine, if it says.
    pub(super) env: Option<Env>,
    /// From the intended send time.
    pub(super) corrected: Vec<CurvePoint>,
    /// From the actual send.
    pub(super) uncorrected: Vec<CurvePoint>,
    /// In order of time.
    pub(super) moments: Vec<Moment>,
    /// Measured time of all repeats.
    pub(super) seconds: f64,
    /// What could not be read.
    pub(super) damage: Vec<String>,
}

impl Subject {
    /// Reads a run's directory. A log that is cut off is read as far as it goes, and `damage` says so.
    ///
    /// # Errors
    /// If it is no run's, of another schema, or damaged in another way.
    pub(super) fn read(dir: &Path) -> Result<Self, FolderError> {
        let document = folder::summary(dir)?;
        let seconds: f64 = document.result.repeats.iter().map(|repeat| repeat.seconds).sum();
        let mut gathered = Gathered::new(seconds);
        let mut damage = Vec::new();
        for (nth, repeat) in document.result.repeats.iter().enumerate() {
            let batches = repeat.latency_us.count.max(1);
            gathered.begin(nth, repeat.records as f64 / batches as f64, repeat.seconds);
            match folder::each_interval(dir, repeat, |interval| gathered.add(&interval)) {
                Ok(()) => {}
                Err(FolderError::Hlog(cut @ HlogError::Truncated { .. })) => {
                    damage.push(cut.to_string());
                }
                Err(error) => return Err(error),
            }
            gathered.end(repeat.seconds);
        }
        let [mut corrected, mut uncorrected] =
            [&gathered.corrected, &gathered.uncorrected].map(|all| all.curve_beyond(BEYOND_MIN));
        if gathered.corrected.count() == 0 {
            corrected = from_summary(&document.result.latency_us);
            uncorrected = from_summary(&document.result.latency_uncorrected_us);
        }
        Ok(Self {
            title: title(dir),
            dir: dir.to_owned(),
            env: serde_json::from_value(document.env.clone()).ok(),
            corrected,
            uncorrected,
            moments: gathered.moments,
            seconds,
            damage,
            document,
        })
    }

    /// The settings by name.
    pub(super) fn settings(&self) -> Map<String, Value> {
        let value =
            serde_json::to_value(&self.document.workload).expect("strings and numbers only");
        let Value::Object(mut settings) = value else { return Map::new() };
        settings.retain(|name, _| !PLACES.contains(&name.as_str()));
        settings
    }
}

/// A value as people write it.
pub(super) fn plain(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn title(dir: &Path) -> String {
    let absolute = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    absolute.file_name().unwrap_or(absolute.as_os_str()).to_string_lossy().into_owned()
}

/// The few points that a summary has, where no log has more.
fn from_summary(latency: &Latency) -> Vec<CurvePoint> {
    let told = [latency.p50, latency.p90, latency.p99, latency.p999, latency.p9999, latency.p99999];
    let points =
        QUANTILES.iter().zip(told).filter(|((name, _), _)| !latency.thin.iter().any(|t| t == name));
    points
        .map(|((_, quantile), us)| CurvePoint { quantile: *quantile, ns: (us * 1000.0) as u64 })
        .collect()
}

/// Intervals on their way to moments and curves.
struct Gathered {
    moment_seconds: f64,
    moments: Vec<Moment>,
    corrected: Latencies,
    uncorrected: Latencies,
    /// The moment that is gathered.
    now: Latencies,
    span: (f64, f64),
    /// Where the repeat begins, which it is, and its records a batch.
    offset: f64,
    repeat: usize,
    records_a_batch: f64,
    /// Where its measured time ends, and whether what is gathered is behind that.
    until: f64,
    is_behind: bool,
}

impl Gathered {
    fn new(seconds: f64) -> Self {
        Self {
            moment_seconds: seconds / MOMENTS_MAX as f64,
            moments: Vec::new(),
            corrected: Latencies::new(),
            uncorrected: Latencies::new(),
            now: Latencies::new(),
            span: (0.0, 0.0),
            offset: 0.0,
            repeat: 0,
            records_a_batch: 1.0,
            until: 0.0,
            is_behind: false,
        }
    }

    fn begin(&mut self, repeat: usize, records_a_batch: f64, seconds: f64) {
        (self.repeat, self.records_a_batch) = (repeat, records_a_batch);
        (self.until, self.is_behind) = (seconds, false);
        self.span = (self.offset, self.offset);
    }

    fn add(&mut self, interval: &Interval) {
        if interval.uncorrected {
            self.uncorrected.merge(&interval.latencies);
            return;
        }
        self.corrected.merge(&interval.latencies);
        let is_behind = interval.start.as_secs_f64() > self.until - LOG_STEP_S;
        if is_behind && !self.is_behind && self.span.1 > self.span.0 {
            self.close();
        }
        self.is_behind = is_behind;
        self.now.merge(&interval.latencies);
        self.span.1 = self.offset + (interval.start + interval.length).as_secs_f64();
        // A little less, so that intervals as long as a moment are one each.
        if self.span.1 - self.span.0 >= self.moment_seconds * 0.999 {
            self.close();
        }
    }

    fn end(&mut self, seconds: f64) {
        if self.span.1 > self.span.0 {
            self.close();
        }
        self.offset += seconds;
    }

    fn close(&mut self) {
        let (begin, end) = self.span;
        let batches = self.now.count() as f64;
        self.moments.push(Moment {
            seconds: (begin, end),
            repeat: self.repeat,
            records_per_s: (!self.is_behind)
                .then(|| batches * self.records_a_batch / (end - begin).max(1e-9)),
            p50: self.now.quantile(0.5),
            p99: self.now.quantile(0.99),
            max: self.now.max(),
            bands: bands(&self.now),
        });
        self.now.clear();
        self.span.0 = end;
    }
}

fn bands(latencies: &Latencies) -> Vec<(u16, u64)> {
    if latencies.count() == 0 {
        return Vec::new();
    }
    let (first, last) = (band(latencies.quantile(0.0)), band(latencies.max()));
    let counts = (first..=last).map(|nth| {
        let [low, high] = [nth, nth + 1].map(super::heat::bound);
        (nth, latencies.between(low, high - 1))
    });
    counts.filter(|(_, count)| *count > 0).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_acked_behind_the_measured_time_has_latencies_and_no_rate() {
        let mut gathered = Gathered::new(2.0);
        gathered.begin(0, 10.0, 2.0);
        for (start, length, batches) in [(0, 1000, 100), (1000, 1000, 100), (2000, 3, 5)] {
            let mut latencies = Latencies::new();
            (0..batches).for_each(|_| latencies.record(1_000_000));
            let [start, length] = [start, length].map(Duration::from_millis);
            gathered.add(&Interval { uncorrected: false, start, length, latencies });
        }
        gathered.end(2.0);
        let rates: Vec<_> = gathered.moments.iter().map(|moment| moment.records_per_s).collect();
        assert_eq!(rates, [Some(1000.0), Some(1000.0), None]);
        assert!(gathered.moments.iter().all(|moment| moment.p99 > 0));
        assert_eq!(gathered.corrected.count(), 205);
    }
}
