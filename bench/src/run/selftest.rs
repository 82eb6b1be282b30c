//! `selftest`: the method against targets of known behaviour, in simulated time, and the generator against nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;

use super::backend::{Backend, Instance};
use super::backends::null::Null;
use super::backends::queue::{Freeze, Queue};
use super::live::Live;
use super::machine::Machine;
use super::maker::Maker;
use super::measure::{Measured, Times, Tools, measure};
use super::pace::{Pace, Real, Simulated};
use super::recorder::{Recorded, Recorder};
use super::workload::Workload;
use crate::fio::{self, Agreement, Compared};
use crate::histogram::Latencies;
use crate::interrupt;
use crate::json::command_line;
use crate::output;
use crate::payload::Payload;
use crate::random::Random;
use crate::verdict::Verdict;
use crate::workdir::WorkDir;

/// How far the mean latency may be from its formula.
const FORMULA_ERROR_MAX: f64 = 0.05;

/// Most time that making and sending a record may take, in nanoseconds.
const OVERHEAD_NS_MAX: f64 = 150.0;

/// Fewest records a second against nothing, on one core.
const CEILING_MIN: f64 = 3e6;

/// Version of the document that `--json` prints.
const SCHEMA: u32 = 1;

/// Flags of `selftest`.
#[derive(Args, Clone, Copy, Debug)]
pub struct Selftest {
    /// Print one JSON document (docs/json.md)
    #[arg(long)]
    pub json: bool,
}

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Document {
    schema: u32,
    command: String,
    passed: bool,
    checks: Vec<Check>,
    skipped: Vec<&'static str>,
}

impl Document {
    /// A check a line; the verdict is the last one.
    fn lines(&self) -> String {
        let mut lines: Vec<_> = self.skipped.iter().map(|what| format!("skipped {what}")).collect();
        lines.extend(self.checks.iter().map(|Check { name, holds, detail }| {
            format!("{:<8}{name}: {detail}", if *holds { "ok" } else { "FAILED" })
        }));
        let (all, failed) = (self.checks.len(), self.checks.iter().filter(|it| !it.holds).count());
        lines.push(match failed {
            0 => format!("selftest passed: {all} checks"),
            _ => format!("selftest FAILED: {failed} of {all} checks"),
        });
        lines.join("\n") + "\n"
    }
}

/// What a check came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// What is proved.
    pub name: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// The figures.
    pub detail: String,
}

fn simulate(text: &str, service: Duration, freeze: Option<Freeze>) -> Result<Recorded> {
    let workload = Workload::from_toml(text)?;
    let pace = Simulated::default();
    let mut queue = Queue::new(pace.clone(), service, freeze);
    Ok(load(&workload, &mut queue, pace)?.1)
}

/// One repeat of a workload against `instance`, in the time of `pace`.
pub(super) fn load(
    workload: &Workload,
    instance: &mut dyn Instance,
    pace: impl Pace,
) -> Result<(Measured, Recorded)> {
    let payload = Payload::generated(4 << 20);
    let maker = Maker::new(workload, &payload, 1)?;
    let recorder = Recorder::start(None, Live::silent())?;
    let machine = Machine::of(&std::env::temp_dir());
    let tools = Tools {
        workload,
        instance,
        maker,
        recorder: &recorder,
        pace,
        machine,
        acks: None,
        teller: None,
        profiler: None,
    };
    let measured = measure(tools, Times::of(workload, u64::MAX))?;
    Ok((measured, recorder.finish()?))
}

/// A target that freezes for 1.4 s moves p99, and hardly that of the figure that counts from the actual send.
///
/// # Errors
/// If it can't run.
pub fn freeze() -> Result<Check> {
    let text = "rate = 1000\nbatch-records = 1\nrecord-bytes = 100\nin-flight = 1\nseconds = 20\nwarmup = 1";
    let service = Duration::from_micros(200);
    let calm = simulate(text, service, None)?;
    let frozen = Freeze { from: 8_000_000_000, until: 9_400_000_000 };
    let frozen = simulate(text, service, Some(frozen))?;
    let us = |latencies: &Latencies| latencies.quantile(0.99) as f64 / 1000.0;
    let (before, corrected, uncorrected) =
        (us(&calm.corrected), us(&frozen.corrected), us(&frozen.uncorrected));
    Ok(Check {
        name: "a freeze of 1.4 s moves p99",
        holds: corrected > 100.0 * before && uncorrected < 2.0 * before,
        detail: format!(
            "p99 {before:.0} us; frozen {corrected:.0} us, uncorrected {uncorrected:.0} us"
        ),
    })
}

/// An M/D/1 queue comes out as its formula says. Source: Pollaczek and Khinchine; mean time in the system
/// D (1 + rho / (2 (1 - rho))).
///
/// # Errors
/// If it can't run.
pub fn formula() -> Result<Check> {
    const RHO: f64 = 0.7;
    let service = Duration::from_micros(100);
    let text = "rate = 7000\narrival = \"poisson\"\nbatch-records = 1\nrecord-bytes = 100\n\
                in-flight = 4096\nseconds = 60\nwarmup = 1";
    let found = simulate(text, service, None)?.corrected.histogram().mean() / 1000.0;
    let expected = 100.0 * (1.0 + RHO / (2.0 * (1.0 - RHO)));
    Ok(Check {
        name: "an M/D/1 queue is as its formula says",
        holds: (found / expected - 1.0).abs() < FORMULA_ERROR_MAX,
        detail: format!("mean {found:.1} us, by the formula {expected:.1} us"),
    })
}

/// Percentiles of merged histograms are those of all raw samples together, to the width of a bucket.
pub fn merging() -> Check {
    const BUCKET: f64 = 0.001;
    let mut random = Random::new(11);
    let mut raw = Vec::new();
    let mut merged = Latencies::new();
    for part in 1..=8_u32 {
        let mut latencies = Latencies::new();
        for _ in 0..50_000 {
            let ns = u64::from(random.below(1000 * part)) * u64::from(random.below(1000)) + 1;
            raw.push(ns);
            latencies.record(ns);
        }
        merged.merge(&latencies);
    }
    raw.sort_unstable();
    let error = [0.5, 0.9, 0.99, 0.999, 0.9999].map(|quantile| {
        let rank = (quantile * raw.len() as f64).ceil() as usize;
        (merged.quantile(quantile) as f64 / raw[rank - 1] as f64 - 1.0).abs()
    });
    let worst = error.into_iter().fold(0.0, f64::max);
    Check {
        name: "percentiles of merged histograms are those of the raw samples",
        holds: worst <= BUCKET && merged.count() == raw.len() as u64,
        detail: format!("off by at most {:.3} %", worst * 100.0),
    }
}

/// What the generator reaches against a target that does nothing, and that such a run is seen to be bound by it.
///
/// # Errors
/// If it can't run.
pub fn ceiling(seconds: f64) -> Result<Check> {
    let text = format!(
        "backend = \"null\"\nrecord-bytes = 100\nbatch-records = 100\nseconds = {seconds}\nwarmup = 0.2"
    );
    let workload = Workload::from_toml(&text)?;
    let mut instance = Null.open(&std::env::temp_dir(), &workload)?;
    let (measured, _) = load(&workload, instance.as_mut(), Real(Instant::now()))?;
    let rate = measured.records as f64 / measured.elapsed.as_secs_f64();
    let (overhead, busy) = (measured.overhead_ns, measured.busy);
    // A build without optimisation says nothing of speed.
    let fast = cfg!(debug_assertions) || (overhead <= OVERHEAD_NS_MAX && rate >= CEILING_MIN);
    Ok(Check {
        name: "the generator's own ceiling",
        holds: fast && busy > 0.9,
        detail: format!(
            "{:.2} M records/s on one core, {overhead:.0} ns a record, busy {:.0} %",
            rate / 1e6,
            busy * 100.0
        ),
    })
}

/// Latest that a batch in the middle may be sent after it was due: timers of a millisecond are five times as late.
const LATE_US_MAX: f64 = 100.0;

/// Batches are sent when they are due, not when a timer of a millisecond ends next.
///
/// # Errors
/// If it can't run.
pub fn pacing(seconds: f64) -> Result<Check> {
    let text = format!(
        "backend = \"null\"\nrate = 5000\narrival = \"poisson\"\nrecord-bytes = 100\nbatch-records = 1\n\
         seconds = {seconds}\nwarmup = 0.2"
    );
    let workload = Workload::from_toml(&text)?;
    let mut instance = Null.open(&std::env::temp_dir(), &workload)?;
    let (measured, _) = load(&workload, instance.as_mut(), Real(Instant::now()))?;
    let us = |quantile| measured.phases.queue.quantile(quantile) as f64 / 1000.0;
    Ok(Check {
        name: "batches are sent when they are due",
        holds: us(0.5) < LATE_US_MAX,
        detail: format!("p50 {:.1} us late, p99 {:.1} us", us(0.5), us(0.99)),
    })
}

/// Pairs of turns of `device` and fio.
const FIO_PAIRS: u32 = 5;

/// How long a turn is.
const FIO_TIME: Duration = Duration::from_millis(600);

/// `device` says of a disk what fio says: the same jobs by turns, in a directory of the process's own. Nothing where
/// fio is not installed.
///
/// # Errors
/// If one of the two fails.
pub fn device_against_fio() -> Result<Option<Check>> {
    let Some(version) = fio::version() else { return Ok(None) };
    let jobs = [fio::job(64 << 10, 8, false), fio::job(64 << 10, 1, true)];
    let mut dir = WorkDir::create(None, false)?;
    let all = fio::compare(&dir.subdir("fio")?, &jobs, FIO_PAIRS, FIO_TIME)?;
    let worst = all.iter().map(Compared::judge).max().unwrap_or(Agreement::Agree);
    let lines = all.iter().map(Compared::line).collect::<Vec<_>>().join("; ");
    let restless = if worst == Agreement::Undecided { "; too restless to say" } else { "" };
    Ok(Some(Check {
        name: "device agrees with fio within 5 %",
        holds: worst != Agreement::Differ,
        detail: format!("{lines} ({version}, medians of {FIO_PAIRS} pairs){restless}"),
    }))
}

/// Runs all of them and prints what they came to; the verdict is the last line.
///
/// # Errors
/// If one can't run.
pub fn run(flags: Selftest) -> Result<Verdict> {
    let mut checks = vec![
        freeze().context("the freeze")?,
        formula().context("the queue")?,
        merging(),
        ceiling(2.0).context("the generator")?,
        pacing(2.0).context("the schedule")?,
    ];
    interrupt::check()?;
    let mut skipped = Vec::new();
    match device_against_fio().context("device against fio")? {
        Some(check) => checks.push(check),
        None => skipped.push("device against fio: fio is not installed"),
    }
    let passed = checks.iter().all(|check| check.holds);
    let command = command_line(std::env::args());
    let document = Document { schema: SCHEMA, command, passed, checks, skipped };
    output::print(&if flags.json {
        serde_json::to_string_pretty(&document)? + "\n"
    } else {
        document.lines()
    })?;
    Ok(if passed { Verdict::Passed } else { Verdict::Failed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freeze_moves_the_corrected_p99_and_hardly_the_uncorrected_one() {
        let check = freeze().expect("runs");
        assert!(check.holds, "{}", check.detail);
    }

    #[test]
    fn a_queue_of_known_service_time_comes_out_as_its_formula_says() {
        let check = formula().expect("runs");
        assert!(check.holds, "{}", check.detail);
    }

    #[test]
    fn merged_percentiles_are_those_of_the_raw_samples() {
        let check = merging();
        assert!(check.holds, "{}", check.detail);
    }

    #[test]
    fn a_run_against_nothing_is_seen_to_be_bound_by_its_generator() {
        let check = ceiling(0.3).expect("runs");
        println!("{}", check.detail);
        assert!(check.holds, "{}", check.detail);
    }
}
