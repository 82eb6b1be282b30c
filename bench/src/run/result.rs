//! What a run came to: the document of `run --json`, which is also `summary.json` of its directory. Described in
//! `docs/json.md`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::workload::Workload;
use crate::histogram::Latencies;
use crate::oracle::Tally;

/// Version of the document and of the directory. A field may be added under the same number; none is removed or
/// changes its meaning.
pub const SCHEMA: u32 = 1;

/// What [`Document::kind`] says.
pub const KIND: &str = "run";

/// Latencies beyond a percentile from which on it is believed.
pub const BEYOND_MIN: f64 = 10.0;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// All repeats ran.
    Complete,
    /// The user stopped it: the repeats that are there are whole, but for the last one, which may be shorter.
    Interrupted,
    /// Something failed; `warnings` says what.
    Failed,
}

/// All of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Document {
    /// [`SCHEMA`].
    pub schema: u32,
    /// [`KIND`].
    pub kind: String,
    /// How it ended.
    pub state: State,
    /// The command line, ready to be typed again.
    pub command: String,
    /// When it began, in UTC: `20260314-092655`.
    pub started: String,
    /// The machine's name.
    pub host: String,
    /// The workload, every setting decided.
    pub workload: Workload,
    /// The machine: as `env` of `quick`.
    pub env: Value,
    /// The payload: as `payload` of `quick`.
    pub payload: Value,
    /// Who else used the processors: as in `quick`; null where the system does not say.
    pub neighbours: Option<Value>,
    /// The figures.
    pub result: RunResult,
    /// What was read back.
    pub verify: Verify,
    /// What to know before a figure is quoted.
    pub warnings: Vec<Warning>,
    /// Where all of it lies.
    pub directory: Option<PathBuf>,
}

/// The figures of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// Records acked a second: the median over the repeats.
    pub records_per_s: f64,
    /// Mebibytes of encoded batches acked a second: the median over the repeats.
    pub mib_per_s: f64,
    /// What the device does raw, in the same run.
    pub device_mib_per_s: Option<f64>,
    /// What a flush alone costs: the median of durable writes of 4 KiB, one at a time.
    #[serde(default)]
    pub raw_flush_us: Option<f64>,
    /// `mib_per_s` beside it.
    pub percent_of_device: Option<f64>,
    /// Whether batches were due when a place in flight was free, and not by a schedule.
    pub closed_loop: bool,
    /// The rate that was asked for; none in a closed loop.
    pub target_records_per_s: Option<f64>,
    /// Whether every repeat came within one percent of it; null in a closed loop.
    pub target_rate_met: Option<bool>,
    /// From the intended send time to the ack: all repeats, merged.
    pub latency_us: Latency,
    /// From the actual send to the ack: all repeats, merged.
    pub latency_uncorrected_us: Latency,
    /// The same time in parts.
    pub phases_us: Phases,
    /// What the machine did meanwhile.
    pub server: Server,
    /// Each repeat.
    pub repeats: Vec<Repeat>,
    /// How sure the medians are.
    pub interval: Interval,
    /// Whether every repeat was steady.
    pub steady: bool,
    /// The generator's own cost.
    pub generator: Generator,
}

/// Latencies in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 90 %.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// 99.99 %.
    pub p9999: f64,
    /// 99.999 %.
    pub p99999: f64,
    /// Longest.
    pub max: f64,
    /// How many were measured: batches.
    pub count: u64,
    /// The percentiles above with fewer than ten latencies beyond them: too few to be quoted.
    #[serde(default)]
    pub thin: Vec<String>,
}

/// The percentiles that are told, by the names of their fields.
pub const QUANTILES: [(&str, f64); 6] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p999", 0.999),
    ("p9999", 0.9999),
    ("p99999", 0.99999),
];

impl Latency {
    /// Of a histogram.
    pub fn of(latencies: &Latencies) -> Self {
        let us = |quantile| latencies.quantile(quantile) as f64 / 1000.0;
        let [p50, p90, p99, p999, p9999, p99999] = QUANTILES.map(|(_, quantile)| us(quantile));
        let count = latencies.count();
        let beyond = |quantile: f64| count as f64 * (1.0 - quantile);
        let thin = QUANTILES.iter().filter(|(_, quantile)| beyond(*quantile) < BEYOND_MIN - 1e-6);
        Self {
            p50,
            p90,
            p99,
            p999,
            p9999,
            p99999,
            max: latencies.max() as f64 / 1000.0,
            count,
            thin: thin.map(|(name, _)| (*name).to_owned()).collect(),
        }
    }
}

/// What a latency of `write` and `flush` is one of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PhaseOf {
    /// Of a batch, which knows when it was written and when flushed. `queue` and those behind it then add up, batch by
    /// batch, to the latency from the intended send time.
    #[default]
    Batches,
    /// Of an operation, from its submission to its completion, which many batches share; `ack` is the whole way from
    /// the send to the ack, with the operation inside.
    Operations,
}

/// Where a batch's time went. Percentiles of parts do not add up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Phases {
    /// From the intended send time to the actual send: waiting for a place in flight, or for the generator.
    pub queue: Latency,
    /// From the send until its bytes were written; null where the backend does not say.
    pub write: Option<Latency>,
    /// From then until they were flushed; null where the backend does not say.
    pub flush: Option<Latency>,
    /// What `write` and `flush` are of.
    #[serde(default)]
    pub of: PhaseOf,
    /// Whether write and flush are one operation, a durable write, so that `flush` is both and `write` null.
    #[serde(default)]
    pub flush_has_write: bool,
    /// From the last moment above that is known (else the send) to the ack.
    pub ack: Latency,
    /// From the ack until a consumer had the batch; null without consumers.
    pub fetch: Option<Latency>,
}

/// What the machine did while repeats were measured. What the system does not say is null.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Server {
    /// Cores' worth of time of this process, the generator included.
    pub cpu_cores: f64,
    /// The share of each of the machine's cores that was busy, by anyone.
    pub cpu_by_core: Vec<f64>,
    /// Resident memory at the end, in MiB.
    pub rss_mib: f64,
    /// Context switches a second, voluntary and not.
    pub context_switches_per_s: Option<f64>,
    /// Bytes written to the disk below the data directory, by anyone.
    pub device_bytes: Option<u64>,
    /// Bytes this process caused to be written, by the kernel's count.
    pub process_write_bytes: Option<u64>,
    /// Flushes, by the backend's count.
    pub flushes: Option<u64>,
    /// Bytes the backend gave to the device over bytes of batches, preparation apart.
    pub write_amplification: Option<f64>,
    /// Bytes of space readied while the clock ran.
    pub prepared_bytes: Option<u64>,
    /// Time of the kernel's `iou-wrk` threads of this process, in cores: operations that io_uring could not begin
    /// without blocking.
    pub io_wq_cores: Option<f64>,
    /// How often one of them was given a processor.
    #[serde(default)]
    pub io_wq_runs: Option<u64>,
    /// How many such threads there were at the end.
    pub io_wq_threads: Option<u32>,
}

/// One repeat, in partitions of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Repeat {
    /// Records acked in the measured time.
    pub records: u64,
    /// Bytes of their batches.
    pub bytes: u64,
    /// The measured time.
    pub seconds: f64,
    /// Records acked a second.
    pub records_per_s: f64,
    /// Mebibytes a second.
    pub mib_per_s: f64,
    /// Records that were due in the measured time; none in a closed loop.
    pub due_records: Option<u64>,
    /// As in the whole.
    pub latency_us: Latency,
    /// As in the whole.
    pub latency_uncorrected_us: Latency,
    /// Whether its second half went as its first.
    pub steady: bool,
    /// The file with its interval log, in the run's directory.
    pub hlog: Option<String>,
    /// As in the whole.
    pub server: Server,
}

/// How sure medians over the repeats are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// `t` (Student's, of the mean), or `none` with fewer than two repeats.
    pub method: String,
    /// The confidence, 0.95.
    pub level: f64,
    /// Of `records_per_s`.
    pub records_per_s: Option<[f64; 2]>,
    /// Of `mib_per_s`.
    pub mib_per_s: Option<[f64; 2]>,
    /// Of the repeats' p50.
    pub p50_us: Option<[f64; 2]>,
    /// Of the repeats' p99.
    pub p99_us: Option<[f64; 2]>,
    /// Of the repeats' p99.9.
    pub p999_us: Option<[f64; 2]>,
}

/// What the generator cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Generator {
    /// Time of its thread that went into making and sending records, a record.
    pub overhead_ns_per_record: f64,
    /// The share of the measured time in which its thread was not waiting for anything.
    pub busy: f64,
    /// Whether it was what held the run back.
    pub was_bottleneck: bool,
}

/// What was read back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verify {
    /// Whether all that was acked was read back; if not, `why_not` says why.
    pub verified: bool,
    /// Why nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
    /// The counts of all repeats, warm-ups and kills included.
    #[serde(flatten)]
    pub tally: Tally,
    /// What each kill left.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kills: Vec<Kill>,
    /// The first damages in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<String>,
}

/// What a child left that ran the same load and was ended by SIGKILL, which is no power cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Kill {
    /// From its first ack to the kill, in milliseconds.
    pub after_ms: f64,
    /// The counts.
    #[serde(flatten)]
    pub tally: Tally,
}

/// One thing to know before a figure is quoted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// Stable name, such as `target_missed`, `not_steady`, `thin_percentile`, `busy_machine`, `generator_bound`.
    pub kind: String,
    /// In words.
    pub text: String,
}

impl Warning {
    /// A warning of a kind.
    pub fn new(kind: &str, text: impl Into<String>) -> Self {
        Self { kind: kind.to_owned(), text: text.into() }
    }
}

impl Document {
    /// The document as text.
    ///
    /// # Panics
    /// Never: nothing in it can fail to be written.
    pub fn text(&self) -> String {
        serde_json::to_string_pretty(self).expect("strings and numbers only")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_thin_below_ten_latencies_beyond_it() {
        let of = |count: u64| {
            let mut latencies = Latencies::new();
            (0..count).for_each(|ns| latencies.record(1000 + ns));
            Latency::of(&latencies).thin
        };
        assert_eq!(of(1000), ["p999", "p9999", "p99999"]);
        assert_eq!(of(999), ["p99", "p999", "p9999", "p99999"]);
        assert!(of(1_000_000).is_empty());
        assert_eq!(of(0).len(), QUANTILES.len());
    }

    #[test]
    fn the_result_has_the_fields_the_schema_promises() {
        let value = serde_json::to_value(RunResult::default()).expect("serialises");
        let names = value.as_object().expect("an object");
        let promised = [
            "records_per_s",
            "mib_per_s",
            "percent_of_device",
            "target_rate_met",
            "latency_us",
            "latency_uncorrected_us",
            "phases_us",
            "server",
            "repeats",
            "interval",
        ];
        for name in promised {
            assert!(names.contains_key(name), "{name}");
        }
        for (name, _) in QUANTILES {
            assert!(value["latency_us"][name].is_number(), "{name}");
        }
        for name in ["cpu_cores", "rss_mib", "device_bytes", "flushes", "write_amplification"] {
            assert!(value["server"].as_object().expect("an object").contains_key(name), "{name}");
        }
    }
}
