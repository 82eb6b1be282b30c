//! `compare`: two runs side by side, and whether they differ.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use super::folder;
use super::repeats::{Difference, difference};
use super::result::{Document, Repeat, SCHEMA, State};
use crate::json::command_line;
use crate::output;
use crate::usage::usage;
use crate::verdict::Verdict;

/// Flags of `compare`.
#[derive(Args, Clone, Debug)]
pub struct Compare {
    /// A run's directory: the one before
    pub a: PathBuf,
    /// Another one: the one after
    pub b: PathBuf,
    /// Exit with 1 if a figure got worse by more than this, significantly
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub fail_on: Option<f64>,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse::<f64>();
    match number {
        Ok(percent) if (0.0..=1000.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err("write 5% or 0.5%".to_owned()),
    }
}

/// What is compared: a name, the figure of a repeat, and whether more is better.
const FIGURES: [(&str, fn(&Repeat) -> f64, bool); 5] = [
    ("records_per_s", |r| r.records_per_s, true),
    ("mib_per_s", |r| r.mib_per_s, true),
    ("p50_us", |r| r.latency_us.p50, false),
    ("p99_us", |r| r.latency_us.p99, false),
    ("p999_us", |r| r.latency_us.p999, false),
];

/// Why two runs can't be held against each other; nothing if they can.
pub fn obstacles(a: &Document, b: &Document) -> Vec<String> {
    let mut told = Vec::new();
    for name in ["cpu", "cores", "kernel", "memory_bytes", "debug_build"] {
        if a.env[name] != b.env[name] {
            told.push(format!("other machine: {name} is {} and {}", a.env[name], b.env[name]));
        }
    }
    for name in ["device", "file_system", "options"] {
        let (x, y) = (&a.env["volume"][name], &b.env["volume"][name]);
        if x != y {
            told.push(format!("other disk: {name} is {x} and {y}"));
        }
    }
    let settings =
        |document: &Document| serde_json::to_value(&document.workload).unwrap_or_default();
    let (x, y) = (settings(a), settings(b));
    // Where data and results went, and how often, does not change what is measured; a backend is what one compares.
    let mut free = vec!["dir", "out", "repeats", "kills", "backend"];
    if a.workload.backend != b.workload.backend {
        // Some can write in one way only.
        free.push("write-mode");
    }
    if let Value::Object(map) = &x {
        for (name, value) in map.iter().filter(|(name, _)| !free.contains(&name.as_str())) {
            if *value != y[name] {
                told.push(format!("other settings: {name} is {value} and {}", y[name]));
            }
        }
    }
    for (name, document) in [("A", a), ("B", b)] {
        if document.state != State::Complete {
            told.push(format!("{name} is not complete"));
        }
        if document.result.repeats.len() < 2 {
            told.push(format!("{name} has one repeat: nothing is known of its spread"));
        }
    }
    told
}

/// Whether the change is for the worse, significantly, by more than `limit`.
fn is_worse(found: &Difference, more_is_better: bool, limit: f64) -> bool {
    let loss = if more_is_better { -found.change } else { found.change };
    found.is_significant() && loss > limit
}

/// How the figures of two runs differ, and whether more of each is better; those that both have.
pub(crate) fn differences(a: &Document, b: &Document) -> Vec<(&'static str, bool, Difference)> {
    let values = |document: &Document, figure| {
        document.result.repeats.iter().map(figure).collect::<Vec<f64>>()
    };
    FIGURES
        .into_iter()
        .filter_map(|(name, figure, more_is_better)| {
            let found = difference(&values(a, figure), &values(b, figure))?;
            Some((name, more_is_better, found))
        })
        .collect()
}

/// Both summaries.
fn read(flags: &Compare) -> Result<(Document, Document)> {
    let both = (folder::summary(&flags.a)?, folder::summary(&flags.b)?);
    if flags.a.canonicalize().is_ok_and(|a| flags.b.canonicalize().is_ok_and(|b| a == b)) {
        return Err(usage(format!(
            "{} and {} are the same directory; name two runs, the one before first",
            flags.a.display(),
            flags.b.display()
        )));
    }
    Ok(both)
}

/// Runs it.
///
/// # Errors
/// If a directory is not a run of this schema.
pub fn run(flags: &Compare) -> Result<Verdict> {
    let (a, b) = read(flags)?;
    let obstacles = obstacles(&a, &b);
    let rows = differences(&a, &b);
    let is_bad = |found: &Difference, more_is_better| {
        flags.fail_on.is_some_and(|limit| is_worse(found, more_is_better, limit))
    };
    let worse: Vec<&str> = rows
        .iter()
        .filter(|(_, more_is_better, found)| is_bad(found, *more_is_better))
        .map(|(name, ..)| *name)
        .collect();
    if flags.json {
        let figures = rows.iter().map(|(name, _, found)| {
            json!({"name": name, "change": found.change, "interval": found.interval,
                   "significant": found.is_significant()})
        });
        let document = json!({
            "schema": SCHEMA, "kind": "compare", "command": command_line(std::env::args()),
            "comparable": obstacles.is_empty(), "obstacles": obstacles,
            "method": "welch_t", "figures": figures.collect::<Vec<_>>(), "worse": worse,
        });
        output::print(&(serde_json::to_string_pretty(&document)? + "\n"))?;
    } else {
        let row = |(name, _, found): &(&str, bool, Difference)| {
            let [low, high] = found.interval.map(|share| share * 100.0);
            let word = if found.is_significant() { "differs" } else { "no difference shown" };
            let change = found.change * 100.0;
            format!("{name:<15}{change:+7.1} %  95 % interval {low:+.1} to {high:+.1} %  {word}\n")
        };
        let obstacles = obstacles.iter().map(|what| format!("not comparable: {what}\n"));
        output::print(&rows.iter().map(row).chain(obstacles).collect::<String>())?;
    }
    // A gate that can't tell must not say that all is well, and nothing can be told of no figure.
    let cannot_tell = rows.is_empty() || flags.fail_on.is_some() && !obstacles.is_empty();
    Ok(if worse.is_empty() && !cannot_tell { Verdict::Passed } else { Verdict::Failed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_significant_loss_beyond_the_limit_is_worse() {
        let of =
            |change, half: f64| Difference { change, interval: [change - half, change + half] };
        assert!(is_worse(&of(-0.10, 0.02), true, 0.05));
        assert!(!is_worse(&of(-0.10, 0.12), true, 0.05), "not significant");
        assert!(!is_worse(&of(-0.04, 0.01), true, 0.05), "within the limit");
        assert!(!is_worse(&of(0.10, 0.02), true, 0.05), "faster");
        assert!(is_worse(&of(0.10, 0.02), false, 0.05), "a longer latency");
        assert_eq!((percent("5%"), percent("0.5")), (Ok(0.05), Ok(0.005)));
        assert!(percent("much").is_err());
    }
}
