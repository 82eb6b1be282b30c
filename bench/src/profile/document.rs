//! What `profile` prints with `--json`. Its fields are described in `docs/json.md`.

use std::path::PathBuf;

use serde::Serialize;

use super::command::{CallGraph, Profile};
use super::perf::Abilities;
use super::tally::{Share, Tally};
use crate::json::{SCHEMA, command_line};
use crate::run::result;

/// Functions that are named one by one.
const FUNCTIONS_MAX: usize = 40;

/// A larger share of stacks that are cut off makes a note.
const CUT_NOTED: f64 = 0.1;

/// Fewer samples than this say little.
const SAMPLES_MIN: u64 = 500;

/// How it was recorded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recorded<'a> {
    pub(super) flags: &'a Profile,
    pub(super) abilities: &'a Abilities,
    pub(super) full: bool,
    pub(super) bytes: u64,
}

/// Where the flame graphs are.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Pictures {
    pub(super) on: Option<PathBuf>,
    pub(super) off: Option<PathBuf>,
}

/// The whole document.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Document {
    pub(super) schema: u32,
    pub(super) kind: &'static str,
    pub(super) command: String,
    /// The run's directory.
    pub(super) run: Option<PathBuf>,
    pub(super) records_per_s: f64,
    pub(super) mib_per_s: f64,
    pub(super) p99_us: f64,
    /// Seconds that were measured and recorded.
    pub(super) seconds: f64,
    pub(super) perf: Perf,
    /// `ns` or `cycles`.
    pub(super) unit: &'static str,
    /// Processors' worth of time; null where cycles were counted.
    pub(super) cores: Option<f64>,
    pub(super) per_record: f64,
    pub(super) per_byte: f64,
    pub(super) areas: Vec<Row>,
    pub(super) functions: Vec<Row>,
    pub(super) threads: Vec<Thread>,
    pub(super) waits: Vec<Wait>,
    pub(super) flamegraphs: Pictures,
    pub(super) notes: Vec<String>,
}

/// How perf recorded.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Perf {
    pub(super) version: String,
    pub(super) event: &'static str,
    pub(super) frequency: u32,
    pub(super) call_graph: String,
    pub(super) kernel: bool,
    pub(super) kernel_symbols: bool,
    pub(super) bytes: u64,
    pub(super) samples: u64,
    pub(super) cut_stacks: u64,
    pub(super) lost: u64,
}

/// An area or a function.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) name: String,
    /// Crate or library; absent for an area.
    #[serde(rename = "crate", skip_serializing_if = "Option::is_none")]
    pub(super) krate: Option<String>,
    /// The function's area; absent for an area.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) area: Option<String>,
    pub(super) kernel: bool,
    /// Of all samples, from 0 to 1.
    pub(super) share: f64,
    pub(super) per_record: f64,
    pub(super) per_byte: f64,
    pub(super) samples: u64,
}

/// A thread, or all of a kind.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Thread {
    pub(super) name: String,
    /// Of all samples, from 0 to 1.
    pub(super) share: f64,
    pub(super) per_record: f64,
    pub(super) asleep_s: f64,
    pub(super) preempted_s: f64,
    pub(super) switches_per_s: f64,
}

/// What threads slept for.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Wait {
    pub(super) name: String,
    pub(super) seconds: f64,
    /// Of all sleep, from 0 to 1.
    pub(super) share: f64,
    pub(super) samples: u64,
}

/// What a sample's weight is divided by.
#[derive(Clone, Copy, Debug)]
struct Scale {
    total: f64,
    records: f64,
    bytes: f64,
}

impl Scale {
    fn row(self, share: Share, kernel: bool, name: String) -> Row {
        Row {
            name,
            krate: None,
            area: None,
            kernel,
            share: ratio(share.weight, self.total),
            per_record: ratio(share.weight, self.records),
            per_byte: ratio(share.weight, self.bytes),
            samples: share.samples,
        }
    }
}

/// 0 of nothing: there is nothing to divide.
fn ratio(part: f64, of: f64) -> f64 {
    if of > 0.0 { part / of } else { 0.0 }
}

impl Document {
    /// Of a run and what perf saw of it.
    pub(super) fn of(
        measured: &result::Document,
        tally: &Tally,
        recorded: &Recorded<'_>,
        flamegraphs: Pictures,
    ) -> Self {
        let repeats = &measured.result.repeats;
        let seconds: f64 = repeats.iter().map(|repeat| repeat.seconds).sum();
        let scale = Scale {
            total: tally.total(),
            records: repeats.iter().map(|repeat| repeat.records as f64).sum(),
            bytes: repeats.iter().map(|repeat| repeat.bytes as f64).sum(),
        };
        let clock = recorded.abilities.is_clock();
        Self {
            schema: SCHEMA,
            kind: "profile",
            command: command_line(std::env::args()),
            run: measured.directory.clone(),
            records_per_s: measured.result.records_per_s,
            mib_per_s: measured.result.mib_per_s,
            p99_us: measured.result.latency_us.p99,
            seconds,
            perf: perf(tally, recorded),
            unit: if clock { "ns" } else { "cycles" },
            cores: clock.then(|| ratio(scale.total * 1e-9, seconds)),
            per_record: ratio(scale.total, scale.records),
            per_byte: ratio(scale.total, scale.bytes),
            areas: areas(tally, scale),
            functions: functions(tally, scale),
            threads: threads(tally, scale, seconds),
            waits: waits(tally),
            flamegraphs,
            notes: notes(tally, recorded, measured),
        }
    }
}

fn perf(tally: &Tally, recorded: &Recorded<'_>) -> Perf {
    let Recorded { flags, abilities, bytes, .. } = *recorded;
    Perf {
        version: abilities.version.clone(),
        event: abilities.event,
        frequency: flags.frequency,
        call_graph: flags.stacks(),
        kernel: abilities.kernel,
        kernel_symbols: abilities.kernel_symbols,
        bytes,
        samples: tally.samples,
        cut_stacks: tally.cut,
        lost: tally.lost,
    }
}

fn areas(tally: &Tally, scale: Scale) -> Vec<Row> {
    let row = |(area, share): (&super::area::Area, &Share)| {
        scale.row(*share, area.kernel, area.name.clone())
    };
    let mut rows: Vec<Row> = tally.areas.iter().map(row).collect();
    rows.sort_by(|a, b| b.share.total_cmp(&a.share));
    rows
}

fn functions(tally: &Tally, scale: Scale) -> Vec<Row> {
    let mut sorted: Vec<_> = tally.functions.iter().collect();
    sorted.sort_by(|a, b| b.1.weight.total_cmp(&a.1.weight).then_with(|| a.0.cmp(b.0)));
    let row = |(function, share): (&super::tally::Function, &Share)| Row {
        krate: Some(function.krate.clone()),
        area: Some(function.area.name.clone()),
        ..scale.row(*share, function.area.kernel, function.symbol.clone())
    };
    sorted.into_iter().take(FUNCTIONS_MAX).map(row).collect()
}

fn threads(tally: &Tally, scale: Scale, seconds: f64) -> Vec<Thread> {
    let mut threads: Vec<Thread> = tally
        .threads
        .iter()
        .map(|(name, thread)| Thread {
            name: name.clone(),
            share: ratio(thread.on, scale.total),
            per_record: ratio(thread.on, scale.records),
            asleep_s: thread.asleep,
            preempted_s: thread.preempted,
            switches_per_s: ratio(thread.switches as f64, seconds),
        })
        .collect();
    threads.sort_by(|a, b| b.share.total_cmp(&a.share));
    threads
}

fn waits(tally: &Tally) -> Vec<Wait> {
    let all: f64 = tally.waits.values().map(|share| share.weight).sum();
    let mut waits: Vec<Wait> = tally
        .waits
        .iter()
        .map(|(area, share)| Wait {
            name: area.name.clone(),
            seconds: share.weight,
            share: ratio(share.weight, all),
            samples: share.samples,
        })
        .collect();
    waits.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    waits
}

fn notes(tally: &Tally, recorded: &Recorded<'_>, measured: &result::Document) -> Vec<String> {
    let mut notes = recorded.abilities.notes();
    if recorded.full {
        notes.push(
            "perf stopped before the run did: its file was full, so figures for each record are too low; give fewer \
             --seconds, a lower --frequency or smaller --stack-bytes"
                .to_owned(),
        );
    }
    if tally.samples < SAMPLES_MIN {
        notes.push(format!(
            "{} samples are few: measure longer, or with a higher --frequency",
            tally.samples
        ));
    }
    if tally.cut as f64 > CUT_NOTED * tally.samples as f64 {
        let advice = match recorded.flags.call_graph {
            CallGraph::Dwarf => "give larger --stack-bytes",
            CallGraph::Fp => "this build has no frame pointers everywhere; use --call-graph dwarf",
        };
        notes.push(format!(
            "{:.0} % of the stacks end before a function of the engine or the harness: {advice}",
            100.0 * tally.cut as f64 / tally.samples as f64
        ));
    }
    if tally.lost > 0 {
        notes.push(format!("perf lost {} events for want of room", tally.lost));
    }
    notes.push(
        "perf took part in the run: for rates and latencies that are quoted, use run without it"
            .to_owned(),
    );
    let told = measured.warnings.iter().filter(|warning| warning.kind != "few_repeats");
    notes.extend(told.map(|warning| format!("{}: {}", warning.kind, warning.text)));
    notes
}
