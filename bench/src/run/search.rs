//! `search`: the highest rate that holds a bound of latency.

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::command::{Run, execute};
use super::result::{SCHEMA, State};
use super::values::{Rate, Seconds};
use super::workload::Workload;
use crate::interrupt::{self, Interrupted};
use crate::json::command_line;
use crate::output;
use crate::usage::usage;
use crate::verdict::Verdict;

/// How near the answer is to the lowest rate that failed: the resolution.
const RESOLUTION: f64 = 0.05;

/// Most rates that are tried.
const PROBES_MAX: usize = 24;

/// Where the search begins, in records a second, if no rate is given.
const FIRST: f64 = 10_000.0;

/// Flags of `search`.
#[derive(Args, Clone, Debug)]
pub struct Search {
    /// The longest that 99 of 100 batches may take, from their intended send time
    #[arg(long, value_name = "TIME")]
    pub p99: Seconds,
    /// As in `run`; --rate is where the search begins.
    #[command(flatten)]
    pub run: Run,
}

/// The highest rate that holds, and the lowest that does not.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bracket {
    /// None if even the lowest rate tried did not hold.
    pub holds: Option<f64>,
    /// None if every rate tried held.
    pub fails: Option<f64>,
}

/// Doubles from `first` on until a rate fails (or halves until one holds), then halves the gap until it is as narrow as
/// `RESOLUTION`.
///
/// # Errors
/// What `probe` fails with; `found` has what was found until then.
pub fn bracket(
    first: f64,
    found: &mut Bracket,
    mut probe: impl FnMut(f64) -> Result<bool>,
) -> Result<()> {
    let mut rate = first;
    for _ in 0..PROBES_MAX {
        if probe(rate)? {
            found.holds = Some(found.holds.map_or(rate, |old: f64| old.max(rate)));
        } else {
            found.fails = Some(found.fails.map_or(rate, |old: f64| old.min(rate)));
        }
        rate = match (found.holds, found.fails) {
            (Some(low), Some(high)) if high / low <= 1.0 + RESOLUTION => break,
            (Some(low), Some(high)) => (low * high).sqrt(),
            (Some(low), None) => low * 2.0,
            (None, Some(high)) => high / 2.0,
            (None, None) => break,
        };
    }
    Ok(())
}

/// Runs it.
///
/// # Errors
/// As `run`.
pub fn run(flags: &Search) -> Result<Verdict> {
    if flags.p99.0.is_zero() {
        return Err(usage("--p99 0: give a bound such as 2ms"));
    }
    let mut workload =
        Workload::from_parts(flags.run.workload.as_deref(), flags.run.flags.clone())?;
    // One kill shows what the many probes of one workload would show again and again.
    workload.kills = flags.run.flags.kills.unwrap_or(0);
    if flags.run.dry_run {
        output::print(&workload.to_toml()?)?;
        return Ok(Verdict::Passed);
    }
    let first = if let Rate::PerSecond(rate) = workload.rate { rate } else { FIRST };
    let bound_us = flags.p99.0.as_secs_f64() * 1e6;
    let mut probes = Vec::new();
    let mut clean = true;
    let mut found = Bracket::default();
    let searched = bracket(first, &mut found, |rate| {
        interrupt::check()?;
        workload.rate = Rate::PerSecond(rate.round());
        let document = execute(&workload, flags.run.quiet)?;
        interrupt::check()?;
        clean &= document.verify.tally.is_clean();
        let (p99, met) =
            (document.result.latency_us.p99, document.result.target_rate_met == Some(true));
        let holds = met && p99 <= bound_us;
        if !flags.run.quiet {
            let word = if holds { "holds" } else { "fails" };
            output::tell(&format!(
                "{rate:>12.0} records/s  p99 {p99:.0} us  rate met: {met}  {word}"
            ));
        }
        probes.push(json!({
            "rate": rate.round(), "p99_us": p99, "target_rate_met": met, "holds": holds,
            "directory": document.directory,
        }));
        Ok(holds)
    });
    let stopped = match searched {
        Err(error) if error.is::<Interrupted>() && !probes.is_empty() => true,
        searched => {
            searched?;
            false
        }
    };
    let resolution = found.holds.zip(found.fails).map(|(low, high)| high / low - 1.0);
    if flags.run.json {
        let document = json!({
            "schema": SCHEMA, "kind": "search", "command": command_line(std::env::args()),
            "state": if stopped { State::Interrupted } else { State::Complete }, "bound_p99_us": bound_us,
            "records_per_s": found.holds, "fails_at": found.fails, "resolution": resolution, "probes": probes,
        });
        output::print(&(serde_json::to_string_pretty(&document)? + "\n"))?;
    } else {
        let until = if stopped { "stopped early; so far: " } else { "" };
        output::print(&format!("{until}{}\n", sentence(found, flags.p99)))?;
    }
    if stopped {
        return Err(Interrupted.into());
    }
    Ok(if clean && found.holds.is_some() { Verdict::Passed } else { Verdict::Failed })
}

fn sentence(found: Bracket, bound: Seconds) -> String {
    match (found.holds, found.fails) {
        (Some(low), Some(high)) => format!(
            "{low:.0} records/s hold p99 <= {bound}; {high:.0} do not: known to {:.0} %",
            (high / low - 1.0) * 100.0
        ),
        (Some(low), None) => {
            format!("every rate tried held p99 <= {bound}, up to {low:.0} records/s")
        }
        (None, _) => format!("no rate tried held p99 <= {bound}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_rate_that_holds_is_found_to_the_resolution_from_either_side() {
        for (first, knee) in [(10_000.0, 123_456.0), (10_000.0, 777.0), (50.0, 51.0)] {
            let (mut probes, mut found) = (0, Bracket::default());
            let searched = bracket(first, &mut found, |rate| {
                probes += 1;
                Ok(rate <= knee)
            });
            searched.expect("runs");
            let (low, high) = (found.holds.expect("one holds"), found.fails.expect("one fails"));
            assert!(low <= knee && knee < high, "{low} {high}");
            assert!(high / low <= 1.0 + RESOLUTION && probes <= PROBES_MAX, "{probes}");
        }
    }

    #[test]
    fn what_was_found_before_the_user_stopped_it_is_kept() {
        let mut found = Bracket::default();
        let searched = bracket(100.0, &mut found, |rate| {
            if rate > 300.0 { Err(Interrupted.into()) } else { Ok(true) }
        });
        assert!(searched.expect_err("stopped").is::<Interrupted>());
        assert_eq!(found, Bracket { holds: Some(200.0), fails: None });
    }

    #[test]
    fn a_bound_that_nothing_or_everything_holds_is_said() {
        let (mut never, mut always) = (Bracket::default(), Bracket::default());
        bracket(10.0, &mut never, |_| Ok(false)).expect("runs");
        assert_eq!(never.holds, None);
        bracket(10.0, &mut always, |_| Ok(true)).expect("runs");
        assert_eq!(always.fails, None);
        assert!(sentence(never, Seconds(std::time::Duration::from_millis(2))).contains("no rate"));
    }
}
