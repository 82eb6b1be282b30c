//! What `device` prints with `--json`. Its fields are described in `docs/json.md`.

use serde::Serialize;

use super::{Direction, Job};
use crate::env::Env;
use crate::histogram::{CurvePoint, Latencies};
use crate::neighbours::Neighbours;
use crate::payload::About;
use crate::run::result::Latency;
use crate::sample::Sample;
use crate::stats::{median, spread};

/// The whole document.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Document {
    pub(super) schema: u32,
    pub(super) command: String,
    pub(super) env: Env,
    pub(super) payload: About,
    /// Wall time of the run.
    pub(super) seconds: f64,
    pub(super) slices: usize,
    /// `direct` or `page_cache`.
    pub(super) mode: &'static str,
    /// `uring` or `sync`.
    pub(super) backend: &'static str,
    /// The core of the thread that drives the ring.
    pub(super) core: usize,
    /// Bytes of the file.
    pub(super) file_bytes: u64,
    pub(super) results: Vec<Entry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) neighbours: Option<Neighbours>,
    pub(super) notes: Vec<String>,
}

/// One combination's figures.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Entry {
    pub(super) op: Direction,
    pub(super) size_bytes: u64,
    pub(super) depth: u64,
    pub(super) durable: bool,
    /// Median over the slices.
    pub(super) mib_per_s: f64,
    /// Median over the slices.
    pub(super) iops: f64,
    /// Over all slices' requests together.
    pub(super) latency_us: Latency,
    /// Largest over smallest rate of the slices.
    pub(super) spread: Option<f64>,
    /// The curve behind it, for the plot.
    #[serde(skip)]
    pub(super) curve: Vec<CurvePoint>,
}

impl Entry {
    /// Of a job's slices.
    pub(super) fn of(job: &Job, slices: &[Sample]) -> Self {
        let mut latencies = Latencies::new();
        for slice in slices {
            latencies.merge(&slice.latencies);
        }
        let rates: Vec<f64> = slices.iter().map(Sample::records_per_s).collect();
        Self {
            op: job.direction,
            size_bytes: job.request_bytes as u64,
            depth: job.depth as u64,
            durable: job.durable,
            mib_per_s: median(slices.iter().map(Sample::mib_per_s)).unwrap_or_default(),
            iops: median(rates.iter().copied()).unwrap_or_default(),
            latency_us: Latency::of(&latencies),
            spread: spread(&rates),
            curve: latencies.curve(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_entry_has_the_fields_the_schema_promises() {
        let job = Job {
            direction: Direction::Read,
            request_bytes: 65_536,
            depth: 8,
            durable: false,
            plot: 0,
            files: 1,
        };
        let mut slice = Sample::empty(Duration::from_secs(2));
        for ns in 1..=2000_u64 {
            slice.latencies.record(ns * 1000);
            slice.records += 1;
            slice.bytes += 65_536;
        }
        let value = serde_json::to_value(Entry::of(&job, &[slice])).expect("serialises");
        assert_eq!(value["op"], "read");
        assert_eq!((&value["size_bytes"], &value["depth"]), (&65_536.into(), &8.into()));
        assert_eq!((&value["durable"], &value["iops"]), (&false.into(), &1000.0.into()));
        assert_eq!(value["mib_per_s"], 62.5);
        let latency = value["latency_us"].as_object().expect("an object");
        let mut keys: Vec<_> = latency.keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["count", "max", "p50", "p90", "p99", "p999", "p9999", "p99999", "thin"]);
        assert_eq!(latency["count"], 2000);
        let p50 = latency["p50"].as_f64().expect("known");
        assert!((p50 / 1000.0 - 1.0).abs() < 0.01, "{p50}");
        let thin = serde_json::json!(["p999", "p9999", "p99999"]);
        assert_eq!(latency["thin"], thin, "2,000 requests have no p99.9");
    }
}
