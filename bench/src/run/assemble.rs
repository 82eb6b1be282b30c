//! Repeats become figures, and figures become warnings.

use std::time::Duration;

use super::kill::Killed;
use super::machine::together;
use super::measure::Ended;
use super::repeat::One;
use super::repeats::{LEVEL, interval};
use super::result::{
    Generator, Interval, Kill, Latency, PhaseOf, Phases, Repeat, RunResult, Verify, Warning,
};
use super::values::Rate;
use super::workload::Workload;
use crate::device::Flush;
use crate::histogram::Latencies;
use crate::neighbours::Neighbours;
use crate::oracle::Tally;
use crate::stats::median;

/// The share of what was due that must be acked.
const TARGET_MET: f64 = 0.99;

/// The share of its thread's time from which on the generator, not the target, sets the pace.
const BUSY_MAX: f64 = 0.9;

/// Fewest repeats that an interval is worth something with.
const REPEATS_MIN: usize = 3;

fn all<'a>(latencies: impl Iterator<Item = &'a Latencies>) -> Latencies {
    let mut all = Latencies::new();
    latencies.for_each(|each| all.merge(each));
    all
}

fn some(latencies: &Latencies) -> Option<Latency> {
    (latencies.count() > 0).then(|| Latency::of(latencies))
}

fn repeat(one: &One, log: Option<String>) -> Repeat {
    let measured = &one.measured;
    let seconds = measured.elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
    Repeat {
        records: measured.records,
        bytes: measured.bytes,
        seconds,
        records_per_s: measured.records as f64 / seconds,
        mib_per_s: measured.bytes as f64 / seconds / f64::from(1 << 20),
        due_records: measured.due_records,
        latency_us: one.latency_us.clone(),
        latency_uncorrected_us: one.latency_uncorrected_us.clone(),
        steady: one.recorded.steady,
        hlog: log,
        server: measured.server.clone(),
    }
}

/// The figures of all repeats; `logs` are the names of their files.
pub fn result(
    workload: &Workload,
    ones: &[One],
    logs: &[Option<String>],
    device_mib_per_s: Option<f64>,
) -> RunResult {
    let log = |nth: usize| logs.get(nth).cloned().flatten();
    let repeats: Vec<Repeat> =
        ones.iter().enumerate().map(|(nth, one)| repeat(one, log(nth))).collect();
    let of = |value: fn(&Repeat) -> f64| median(repeats.iter().map(value)).unwrap_or(0.0);
    let mib_per_s = of(|r| r.mib_per_s);
    let target = if let Rate::PerSecond(rate) = workload.rate { Some(rate) } else { None };
    let met =
        |r: &Repeat| r.due_records.is_none_or(|due| r.records as f64 >= due as f64 * TARGET_MET);
    let servers: Vec<_> = repeats.iter().map(|r| r.server.clone()).collect();
    let fetch = all(ones.iter().filter_map(|one| one.fetch.as_ref()));
    let busy = median(ones.iter().map(|one| one.measured.busy)).unwrap_or(0.0);
    let phase = |of: fn(&One) -> &Latencies| all(ones.iter().map(of));
    let write = some(&phase(|one| &one.measured.phases.write));
    let flush = some(&phase(|one| &one.measured.phases.flush));
    let shared = ones.iter().any(|one| one.measured.phases.shared);
    RunResult {
        records_per_s: of(|r| r.records_per_s),
        mib_per_s,
        device_mib_per_s,
        raw_flush_us: None,
        percent_of_device: device_mib_per_s.filter(|d| *d > 0.0).map(|d| mib_per_s / d * 100.0),
        closed_loop: target.is_none(),
        target_records_per_s: target,
        target_rate_met: target.map(|_| repeats.iter().all(met)),
        latency_us: Latency::of(&phase(|one| &one.recorded.corrected)),
        latency_uncorrected_us: Latency::of(&phase(|one| &one.recorded.uncorrected)),
        phases_us: Phases {
            queue: Latency::of(&phase(|one| &one.measured.phases.queue)),
            of: if shared { PhaseOf::Operations } else { PhaseOf::Batches },
            flush_has_write: flush.is_some() && write.is_none(),
            write,
            flush,
            ack: Latency::of(&phase(|one| &one.measured.phases.ack)),
            fetch: some(&fetch),
        },
        server: together(&servers),
        interval: intervals(&repeats),
        steady: repeats.iter().all(|r| r.steady),
        generator: Generator {
            overhead_ns_per_record: median(ones.iter().map(|one| one.measured.overhead_ns))
                .unwrap_or(0.0),
            busy,
            was_bottleneck: busy > BUSY_MAX,
        },
        repeats,
    }
}

fn intervals(repeats: &[Repeat]) -> Interval {
    let of = |value: fn(&Repeat) -> f64| interval(&repeats.iter().map(value).collect::<Vec<_>>());
    Interval {
        method: if repeats.len() < 2 { "none" } else { "t" }.to_owned(),
        level: LEVEL,
        records_per_s: of(|r| r.records_per_s),
        mib_per_s: of(|r| r.mib_per_s),
        p50_us: of(|r| r.latency_us.p50),
        p99_us: of(|r| r.latency_us.p99),
        p999_us: of(|r| r.latency_us.p999),
    }
}

/// What was read back, of all repeats together.
pub fn verify(ones: &[One]) -> Verify {
    let mut verify = Verify { verified: !ones.is_empty(), ..Verify::default() };
    for one in ones {
        match &one.verified {
            Ok(findings) => {
                add(&mut verify.tally, findings.tally);
                verify.examples.extend(findings.examples.iter().map(ToString::to_string));
            }
            Err(why) => (verify.verified, verify.why_not) = (false, Some(why.clone())),
        }
    }
    verify
}

/// Adds what kills left.
pub fn verify_kills(verify: &mut Verify, kills: &[Killed]) {
    for Killed { after, findings } in kills {
        let tally = findings.tally;
        add(&mut verify.tally, tally);
        verify.kills.push(Kill { after_ms: after.as_secs_f64() * 1000.0, tally });
        let examples = findings.examples.iter();
        verify.examples.extend(examples.map(|example| format!("after a kill: {example}")));
    }
}

fn add(sum: &mut Tally, own: Tally) {
    sum.acked += own.acked;
    sum.lost += own.lost;
    sum.duplicated += own.duplicated;
    sum.reordered += own.reordered;
    sum.corrupt += own.corrupt;
}

/// What to know before a figure is quoted.
pub fn warnings(
    result: &RunResult,
    verify: &Verify,
    ones: &[One],
    neighbours: Option<&Neighbours>,
) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut warn = |kind: &str, text: String| warnings.push(Warning::new(kind, text));
    if result.target_rate_met == Some(false) {
        let (target, rate) = (result.target_records_per_s.unwrap_or(0.0), result.records_per_s);
        warn(
            "target_missed",
            format!("{rate:.0} records a second were acked, {target:.0} were due"),
        );
    }
    if !result.steady {
        let why = "halves of a repeat differ, or it was too short to tell; measure longer, or warm up longer";
        warn("not_steady", why.to_owned());
    }
    if !result.latency_us.thin.is_empty() {
        let (names, count) = (result.latency_us.thin.join(", "), result.latency_us.count);
        warn("thin_percentile", format!("{count} latencies are too few for {names}"));
    }
    if result.generator.was_bottleneck {
        let busy = result.generator.busy * 100.0;
        let text = format!(
            "the generator was busy {busy:.0} % of the time: the target may be faster than this"
        );
        warn("generator_bound", text);
    }
    if let Some(us) = result.raw_flush_us
        && Flush::judge(Duration::from_secs_f64(us / 1e6)) == Flush::TooFast
    {
        let text = format!(
            "a flush takes {us:.1} us, which no disk does: this device or file system does not flush, and \
             durable here means written"
        );
        warn("flush_too_fast", text);
    }
    for note in neighbours.map(Neighbours::notes).unwrap_or_default() {
        warn("busy_machine", note);
    }
    if let Some(why) = &verify.why_not {
        warn("not_verified", format!("nothing was read back: {why}"));
    }
    if ones.iter().any(|one| one.measured.ended == Ended::DiskFull) {
        warn("ended_early", "a repeat ended early: the disk would have been full".to_owned());
    }
    if result.repeats.len() < REPEATS_MIN {
        let text =
            format!("{} repeats say little of how sure the figures are", result.repeats.len());
        warn("few_repeats", text);
    }
    let mut notes: Vec<&String> = ones.iter().flat_map(|one| &one.facts.notes).collect();
    notes.dedup();
    for note in notes {
        warn("backend", note.clone());
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::Findings;

    #[test]
    fn a_flush_faster_than_any_disk_is_said_and_one_of_a_disk_is_not() {
        let said = |us: Option<f64>| {
            let result = RunResult { raw_flush_us: us, ..RunResult::default() };
            let warnings = warnings(&result, &Verify::default(), &[], None);
            warnings.iter().any(|warning| warning.kind == "flush_too_fast")
        };
        assert!(said(Some(1.5)));
        assert!(!said(Some(180.0)));
        assert!(!said(None), "not measured");
    }

    #[test]
    fn what_a_kill_left_is_in_the_whole_and_apart() {
        let tally = Tally { acked: 7, lost: 2, ..Tally::default() };
        let findings = Findings { tally, examples: Vec::new() };
        let kills = [Killed { after: Duration::from_millis(250), findings }];
        let mut verify = Verify { tally: Tally { acked: 10, ..tally }, ..Verify::default() };
        verify_kills(&mut verify, &kills);
        assert_eq!(verify.tally, Tally { acked: 17, lost: 4, ..Tally::default() });
        assert_eq!(verify.kills, [Kill { after_ms: 250.0, tally }]);
    }
}
