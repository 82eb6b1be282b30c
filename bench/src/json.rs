//! The documented result: one JSON document. Its fields are described in `docs/json.md`.

use std::path::PathBuf;

use serde::Serialize;

use crate::distance::RoundTrips;
use crate::env::Env;
use crate::histogram::Latencies;
use crate::neighbours::Neighbours;
use crate::oracle::Tally;
use crate::payload::About;
use crate::reading::Ratio;

/// Version of the document. A field may be added under the same number; none is removed or changes its meaning.
pub const SCHEMA: u32 = 1;

/// The check of what was acked before a kill.
pub const SURVIVES_KILL: &str = "acked_survives_kill";

/// What a command prints with `--json`.
#[derive(Clone, Debug, Serialize)]
pub struct Document {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The command line.
    pub command: String,
    /// The machine.
    pub env: Env,
    /// The payload.
    pub payload: About,
    /// Wall time of the run.
    pub seconds: f64,
    /// Slices of each arm; rates are medians over them.
    pub slices: usize,
    /// A row an arm.
    pub results: Vec<Entry>,
    /// What verification found; absent as long as nothing was verified.
    pub verify: Option<Tally>,
    /// What was checked, and how it ended.
    pub checks: Vec<Check>,
    /// What rows come to beside each other.
    pub ratios: Vec<Ratio>,
    /// What the figures mean, in sentences.
    pub meaning: Vec<String>,
    /// Who else used the processors; absent where the system does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neighbours: Option<Neighbours>,
    /// What to know before the figures are quoted.
    pub notes: Vec<String>,
    /// The HTML page.
    pub report: Option<PathBuf>,
}

/// One arm's figures.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Entry {
    /// Stable name.
    pub name: &'static str,
    /// Flush policy; none for a raw device.
    pub policy: Option<&'static str>,
    /// `direct` or `page_cache`.
    pub write_mode: Option<&'static str>,
    /// Bytes of a batch, or of a device's write.
    pub batch_bytes: u64,
    /// Partitions, or a device's files.
    pub partitions: u64,
    /// Requests in flight.
    pub in_flight: u64,
    /// Median over the slices.
    pub records_per_s: f64,
    /// Median over the slices.
    pub mib_per_s: f64,
    /// The raw device's rate beside it.
    pub device_mib_per_s: Option<f64>,
    /// Median over the slices of the ratio to the raw device in the same slice.
    pub percent_of_device: Option<f64>,
    /// Over all slices' requests together.
    pub latency_us: Latency,
    /// Requests measured.
    pub count: u64,
    /// Of an arm whose slices are rounds, by turns with those it is compared with: each one's rate, in MiB/s.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rounds_mib_per_s: Vec<f64>,
    /// Largest over smallest rate of the slices: how restless the machine was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<f64>,
    /// How far the clients' core and the disk's were apart at each slice: a cache line there and back.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub core_round_trips_ns: Vec<RoundTrips>,
    /// The floor's rate with as many clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor_records_per_s: Option<f64>,
    /// p50 of one small durable write, alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw_flush_us: Option<f64>,
    /// Bytes to the device over bytes of batches, preparation apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_amplification: Option<f64>,
    /// Groups written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<u64>,
    /// Records that shared a flush, on average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records_per_flush: Option<f64>,
    /// Bytes that shared a flush, on average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_flush: Option<f64>,
    /// Most bytes journaled and not yet in their segments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_lag_bytes: Option<u64>,
    /// Bytes of space readied while the clock ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prepared_bytes: Option<u64>,
    /// By how much resident memory grew while this row's engine was opened and ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rss_bytes: Option<u64>,
    /// What to know of this row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// Longest.
    pub max: f64,
}

impl Latency {
    /// Of a histogram.
    pub fn of(latencies: &Latencies) -> Self {
        let us = |ns: u64| ns as f64 / 1000.0;
        Self {
            p50: us(latencies.quantile(0.5)),
            p99: us(latencies.quantile(0.99)),
            p999: us(latencies.quantile(0.999)),
            max: us(latencies.max()),
        }
    }
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It holds.
    Passed,
    /// It does not: exit code 1.
    Failed,
    /// It can't be told here; the detail says why.
    Unknown,
}

/// One thing that was checked.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// Stable name.
    pub name: &'static str,
    /// How it ended.
    pub state: State,
    /// In words.
    pub detail: String,
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

/// The command line as one could type it again.
pub fn command_line(arguments: impl IntoIterator<Item = String>) -> String {
    let mut arguments = arguments.into_iter();
    // The way to the binary is of no use on another machine.
    let name = arguments.next().map(|_| "ringmain-bench".to_owned());
    name.into_iter().chain(arguments.map(quoted)).collect::<Vec<_>>().join(" ")
}

fn quoted(argument: String) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        return argument;
    }
    format!("'{}'", argument.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_can_be_typed_again() {
        let line = ["/x/ringmain-bench", "quick", "--dir", "my disk", "--payload", "it's"];
        assert_eq!(
            command_line(line.map(str::to_owned)),
            "ringmain-bench quick --dir 'my disk' --payload 'it'\\''s'"
        );
    }

    #[test]
    fn an_entry_has_the_fields_the_schema_promises() {
        let value = serde_json::to_value(Entry::default()).expect("serialises");
        let names = value.as_object().expect("an object");
        let promised = [
            "name",
            "policy",
            "write_mode",
            "batch_bytes",
            "partitions",
            "in_flight",
            "records_per_s",
            "mib_per_s",
            "device_mib_per_s",
            "percent_of_device",
            "latency_us",
            "count",
        ];
        for name in promised {
            assert!(names.contains_key(name), "{name}");
        }
        assert_eq!(names.len(), promised.len(), "optional fields are absent, not null");
        let latency = value["latency_us"].as_object().expect("an object");
        let keys: Vec<_> = latency.keys().map(String::as_str).collect();
        assert_eq!(keys, ["max", "p50", "p99", "p999"]);
    }
}
