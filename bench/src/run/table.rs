//! A run as a terminal shows it.

use super::result::{Document, Latency, PhaseOf, Phases, RunResult};
use crate::human;

/// All of it, in lines; the directory is the last.
pub fn table(document: &Document) -> String {
    let result = &document.result;
    let mut lines = vec![headline(result)];
    lines.extend(latencies(result));
    if let Some([low, high]) = result.interval.records_per_s {
        let (low, high) = (human::count(low), human::count(high));
        lines.push(format!("95 % interval (t): {low} to {high} records/s"));
    }
    lines.push(server(result));
    let verify = &document.verify;
    if verify.verified {
        let (word, t) = (if verify.tally.is_clean() { "ok" } else { "FAILED" }, verify.tally);
        lines.push(format!(
            "verify {word}: {} acked, {} lost, {} duplicated, {} reordered, {} corrupt",
            t.acked, t.lost, t.duplicated, t.reordered, t.corrupt
        ));
        let acked: u64 = verify.kills.iter().map(|kill| kill.tally.acked).sum();
        if !verify.kills.is_empty() {
            let who = match verify.kills.len() {
                1 => "a process that was".to_owned(),
                count => format!("{count} processes that were"),
            };
            lines.push(format!(
                "  of these {acked} by {who} killed in mid-load (SIGKILL, which is no power cut)"
            ));
        }
        lines.extend(verify.examples.iter().map(|example| format!("  {example}")));
    }
    let warning =
        |warning: &super::result::Warning| format!("warning {}: {}", warning.kind, warning.text);
    lines.extend(document.warnings.iter().map(warning));
    lines.extend(document.directory.as_ref().map(|dir| dir.display().to_string()));
    lines.join("\n") + "\n"
}

fn headline(result: &RunResult) -> String {
    let percent = |p| format!("  {} of the device", human::percent(p));
    format!(
        "{} records/s  {:.1} MiB/s{}  {} repeats of {:.1} s",
        human::count(result.records_per_s),
        result.mib_per_s,
        result.percent_of_device.map_or(String::new(), percent),
        result.repeats.len(),
        result.repeats.first().map_or(0.0, |r| r.seconds),
    )
}

/// What the machine did, as far as it is known.
fn server(result: &RunResult) -> String {
    let server = &result.server;
    let some = |value: Option<String>| value.unwrap_or_default();
    let cores = format!("{:.2} cores  {:.0} MiB resident", server.cpu_cores, server.rss_mib);
    let written = server.write_amplification.map(|times| format!("  {times:.2} written per byte"));
    let flushes = server.flushes.map(|count| format!("  {} flushes", human::count(count as f64)));
    let alone = result.raw_flush_us.map(|us| format!(" (one alone {})", human::micros(us)));
    let switches = server.context_switches_per_s.map(human::count);
    let switches = switches.map(|count| format!("  {count} context switches/s"));
    let workers = server.io_wq_cores.map(|cores| format!("  {cores:.2} cores in io-wq"));
    [cores, some(written), some(flushes), some(alone), some(switches), some(workers)].concat()
}

fn latencies(result: &RunResult) -> Vec<String> {
    let kind = if result.closed_loop { "closed loop" } else { "from intended time" };
    let phases = &result.phases_us;
    let (write, flush) = names(phases);
    let rows = [
        (kind, Some(&result.latency_us)),
        ("uncorrected", Some(&result.latency_uncorrected_us)),
        ("queue", Some(&phases.queue)),
        (write, phases.write.as_ref()),
        (flush, phases.flush.as_ref()),
        ("ack", Some(&phases.ack)),
        ("fetch", phases.fetch.as_ref()),
    ];
    let names = ["p50", "p90", "p99", "p99.9", "p99.99", "max", "count"];
    let names = names.map(|name| format!("{name:>11}")).concat();
    let mut lines = vec![format!("{:<20}{names}", "latency")];
    lines.extend(rows.into_iter().filter_map(|(name, latency)| Some(row(name, latency?))));
    lines
}

/// What the rows of write and flush are of.
fn names(phases: &Phases) -> (&'static str, &'static str) {
    match (phases.of, phases.flush_has_write) {
        (PhaseOf::Batches, false) => ("write", "flush"),
        (PhaseOf::Batches, true) => ("write", "write and flush"),
        (PhaseOf::Operations, false) => ("each write", "each flush"),
        (PhaseOf::Operations, true) => ("each write", "each durable write"),
    }
}

fn row(name: &str, latency: &Latency) -> String {
    let Latency { p50, p90, p99, p999, p9999, max, count, .. } = latency;
    let cells = [p50, p90, p99, p999, p9999, max].map(|us| format!("{:>11}", human::micros(*us)));
    format!("{name:<20}{}{count:>11}", cells.concat())
}
