//! Latencies in nanoseconds. Histograms are merged; percentiles are never averaged.

use std::time::Duration;

use hdrhistogram::Histogram;
use ringmain::Durations;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest latency told apart from a longer one.
const NS_MAX: u64 = 3_600_000_000_000;

/// Three significant digits: a bucket is at most 0.1 % wide.
const DIGITS: u8 = 3;

/// All latencies of an arm. Recording never allocates.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

/// As the buckets that hold something: the highest value of each, in nanoseconds, and its count.
impl Serialize for Latencies {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let bucket = |bucket: hdrhistogram::iterators::IterationValue<u64>| {
            (bucket.value_iterated_to(), bucket.count_at_value())
        };
        to.collect_seq(self.0.iter_recorded().map(bucket))
    }
}

impl<'de> Deserialize<'de> for Latencies {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut latencies = Self::new();
        for (ns, count) in Vec::<(u64, u64)>::deserialize(from)? {
            latencies.0.saturating_record_n(ns, count);
        }
        Ok(latencies)
    }
}

/// One point of a percentile curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CurvePoint {
    /// The share of the latencies at or below `ns`, from 0 to below 1.
    pub quantile: f64,
    /// The latency.
    pub ns: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

impl Latencies {
    /// No latency yet.
    pub fn new() -> Self {
        Self(Histogram::new_with_bounds(1, NS_MAX, DIGITS).expect("the bounds are sane"))
    }

    /// No latency, and room for none: what is left where all were merged into others.
    pub fn none() -> Self {
        Self(Histogram::new_with_bounds(1, 2, 0).expect("the bounds are sane"))
    }

    /// Adds one. More than an hour counts as an hour.
    pub fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns);
    }

    /// Adds what was counted elsewhere, as exact as it was counted there.
    pub fn add(&mut self, durations: &Durations) {
        for (duration, count) in durations.buckets() {
            self.0.saturating_record_n(duration.as_nanos() as u64, count);
        }
    }

    /// Adds all of `other`, and leaves it without any.
    pub fn take(&mut self, other: &mut Self) {
        self.merge(&std::mem::replace(other, Self::none()));
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all histograms have the same bounds");
    }

    /// The histogram itself, to be written to a file.
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }

    /// What was read from a file; nothing if its buckets are not as fine as these.
    pub fn from_histogram(histogram: &Histogram<u64>) -> Option<Self> {
        let mut latencies = Self::new();
        let alike = histogram.sigfig() == DIGITS && histogram.low() == latencies.0.low();
        (alike && latencies.0.add(histogram).is_ok()).then_some(latencies)
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.0.reset();
    }

    /// How many were added.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency that `quantile` (0 to 1) of all do not exceed; 0 if there are none.
    pub fn quantile(&self, quantile: f64) -> u64 {
        if self.0.is_empty() { 0 } else { self.0.value_at_quantile(quantile) }
    }

    /// The longest.
    pub fn max(&self) -> u64 {
        self.0.max()
    }

    /// The middle one, as a duration.
    pub fn p50(&self) -> Duration {
        Duration::from_nanos(self.quantile(0.5))
    }

    /// The curve from p0 on, evenly spaced in `-log10(1 - quantile)`, as far as the count carries it: the last
    /// point has at least one latency above it, or is the longest.
    pub fn curve(&self) -> Vec<CurvePoint> {
        self.curve_beyond(1.0)
    }

    /// The curve as far as `beyond` latencies lie above its last point: further to the right it would be an accident.
    pub fn curve_beyond(&self, beyond: f64) -> Vec<CurvePoint> {
        const POINTS_A_DECADE: u32 = 24;
        if self.0.is_empty() {
            return Vec::new();
        }
        let decades = (self.count() as f64 / beyond).max(1.0).log10();
        let steps = (decades * f64::from(POINTS_A_DECADE)).floor() as u32;
        (0..=steps)
            .map(|step| {
                let quantile = 1.0 - 10_f64.powf(-f64::from(step) / f64::from(POINTS_A_DECADE));
                CurvePoint { quantile, ns: self.quantile(quantile) }
            })
            .collect()
    }

    /// How many are from `low` to `high` nanoseconds, both included, as exact as buckets are wide.
    pub fn between(&self, low: u64, high: u64) -> u64 {
        self.0.count_between(low, high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Latencies {
        let mut latencies = Latencies::new();
        values.into_iter().for_each(|ns| latencies.record(ns));
        latencies
    }

    #[test]
    fn merging_equals_recording_all_in_one() {
        let (mut left, right) = (of(1..500), of(500..=1000));
        left.merge(&right);
        let all = of(1..=1000);
        for quantile in [0.0, 0.5, 0.99, 0.999, 1.0] {
            assert_eq!(left.quantile(quantile), all.quantile(quantile));
        }
        assert_eq!((left.count(), left.max()), (1000, 1000));
    }

    #[test]
    fn one_slow_request_in_a_thousand_moves_p999_but_not_p50() {
        let latencies = of((0..1000).map(|i| if i >= 998 { 1_000_000 } else { 1000 }));
        assert_eq!(latencies.quantile(0.5), 1000);
        assert!(latencies.quantile(0.999) >= 999_000);
    }

    #[test]
    fn a_curve_rises_and_stops_where_the_count_stops() {
        let curve = of(1..=1000).curve();
        assert!(curve.is_sorted_by_key(|point| point.ns));
        let last = curve.last().expect("points").quantile;
        assert!((0.998..0.9991).contains(&last), "{last}");
        assert!(Latencies::new().curve().is_empty());
    }

    #[test]
    fn an_honest_curve_stops_where_ten_are_beyond() {
        let last = of(1..=100_000).curve_beyond(10.0).last().expect("points").quantile;
        assert!((0.999_8..=0.999_9).contains(&last), "{last}");
        assert_eq!(of(1..=3).curve_beyond(10.0).len(), 1, "too few for anything but the shortest");
    }

    #[test]
    fn what_is_kept_in_a_document_comes_back_bucket_by_bucket() {
        let latencies = of([0, 1, 999, 1_234_567, 1_234_568, 8_000_000_000, u64::MAX]);
        let text = serde_json::to_string(&latencies).expect("prints");
        let back: Latencies = serde_json::from_str(&text).expect("parses");
        assert_eq!(back.histogram(), latencies.histogram());
    }

    #[test]
    fn nothing_is_too_long_to_count() {
        assert_eq!(of([u64::MAX]).count(), 1);
    }
}
