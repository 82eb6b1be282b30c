//! `profile`: the command.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, FromArgMatches, ValueEnum};

use super::document::{Document, Pictures, Recorded};
use super::flame::{self, Caption};
use super::perf::Abilities;
use super::recording::{self, Place};
use super::screen;
use super::tally::Tally;
use crate::json::command_line;
use crate::run::command::Run;
use crate::run::result;
use crate::run::values::Seconds;
use crate::run::workload::Workload;
use crate::terminal::Terminal;
use crate::usage::usage;
use crate::verdict::Verdict;
use crate::{interrupt, output};

/// Where pictures go if it is not said.
const DEFAULT: &str = "flamegraphs";

/// How perf finds who called whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CallGraph {
    /// Copies of the stack, unwound later: for every build
    Dwarf,
    /// Frame pointers: cheaper, for a build with RUSTFLAGS="-C force-frame-pointers=yes"
    Fp,
}

/// Flags of `profile`.
#[derive(Args, Clone, Debug)]
pub struct Profile {
    /// Directory for the flame graphs, named as the run's directory in results is
    #[arg(long, value_name = "DIR", default_value = DEFAULT)]
    pub out: PathBuf,
    /// Measured, and recorded, time [default: that of run]
    #[arg(long, value_name = "TIME")]
    pub seconds: Option<Seconds>,
    /// Samples a second, of each processor and of each thread that waits
    #[arg(long, value_name = "HZ", default_value_t = 499, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub frequency: u32,
    /// How perf finds who called whom
    #[arg(long, value_enum, default_value_t = CallGraph::Dwarf)]
    pub call_graph: CallGraph,
    /// Bytes of the stack that are copied with a sample, for --call-graph dwarf
    #[arg(long, value_name = "N", default_value_t = 32_768, value_parser = stack_bytes)]
    pub stack_bytes: u32,
    /// Print one JSON document instead of the tables (docs/json.md)
    #[arg(long)]
    pub json: bool,
    /// No progress
    #[arg(long, short)]
    pub quiet: bool,
    /// Flags of run; --repeats is 1
    #[arg(last = true, value_name = "RUN FLAGS")]
    pub run: Vec<OsString>,
}

fn stack_bytes(text: &str) -> Result<u32, String> {
    let told = || "from 1024 to 65528 bytes, a multiple of 8".to_owned();
    let bytes: u32 = text.parse().map_err(|_| told())?;
    if (1024..=65_528).contains(&bytes) && bytes.is_multiple_of(8) {
        Ok(bytes)
    } else {
        Err(told())
    }
}

/// Runs it.
///
/// # Errors
/// A usage error for wrong flags; if perf is missing or may not record, or the run fails, or the user stops it.
pub fn run(flags: &Profile) -> Result<Verdict> {
    let workload = workload(flags)?;
    let abilities = Abilities::ask()?;
    let made = !flags.out.exists();
    fs::create_dir_all(&flags.out)
        .map_err(|e| usage(format!("--out {}: {e}", flags.out.display())))?;
    let verdict = profile(flags, &workload, &abilities);
    if made && verdict.is_err() {
        // It stays if there is something in it after all.
        let _ = fs::remove_dir(&flags.out);
    }
    verdict
}

fn profile(flags: &Profile, workload: &Workload, abilities: &Abilities) -> Result<Verdict> {
    let place = Place::create()?;
    let ran = recording::record(&place, workload, abilities, flags)?;
    let measured: result::Document =
        serde_json::from_str(&ran.text).context("the run says no JSON document")?;
    if !flags.quiet {
        output::tell(&format!("reading {} MiB of perf's", ran.bytes >> 20));
    }
    let tally = recording::read(&place)?;
    drop(place);
    interrupt::check()?;
    let pictures = draw(&flags.out, &measured, abilities, &tally)?;
    let recorded = Recorded { flags, abilities, full: ran.full, bytes: ran.bytes };
    let document = Document::of(&measured, &tally, &recorded, pictures);
    let text = if flags.json {
        serde_json::to_string_pretty(&document).context("strings and numbers only")? + "\n"
    } else {
        screen::render(&document, Terminal::of_stdout())
    };
    output::print(&text)?;
    Ok(Verdict::Passed)
}

/// What is behind `--`, resolved here, so that a mistake in it is found before anything starts.
fn workload(flags: &Profile) -> Result<Workload> {
    let command = Run::augment_args(clap::Command::new("ringmain-bench profile --"));
    let matches = command.no_binary_name(true).try_get_matches_from(&flags.run);
    let run = matches.and_then(|matches| Run::from_arg_matches(&matches));
    let run = run.unwrap_or_else(|error| error.exit());
    if run.dry_run || run.json || run.profiler.is_some() {
        return Err(usage(
            "behind -- only settings of the workload have a meaning; --json goes before it",
        ));
    }
    if run.flags.repeats.is_some_and(|repeats| repeats != 1) {
        return Err(usage("--repeats: one repeat is recorded; give more --seconds"));
    }
    let mut settings = run.flags;
    settings.repeats = Some(1);
    settings.seconds = flags.seconds.or(settings.seconds);
    Workload::from_parts(run.workload.as_deref(), settings)
}

fn draw(
    out: &Path,
    measured: &result::Document,
    abilities: &Abilities,
    tally: &Tally,
) -> Result<Pictures> {
    let run = measured.directory.as_ref().and_then(|dir| dir.file_name());
    let run = run.map_or("run".into(), |name| name.to_string_lossy());
    let on = out.join(format!("{run}.svg"));
    let off = out.join(format!("{run}-offcpu.svg"));
    let command = command_line(std::env::args());
    let (unit, scale) = if abilities.is_clock() { ("us", 1e-3) } else { ("kilocycles", 1e-3) };
    let title = format!("{run}: on a processor");
    let caption = Caption { title: &title, subtitle: &command, unit, scale, off: false };
    let drawn_on = flame::write(&on, &caption, &tally.on)?;
    let title = format!("{run}: off a processor");
    let caption = Caption { title: &title, subtitle: &command, unit: "us", scale: 1e6, off: true };
    let drawn_off = flame::write(&off, &caption, &tally.off)?;
    Ok(Pictures { on: drawn_on.then_some(on), off: drawn_off.then_some(off) })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn profile(arguments: &[&str]) -> Profile {
        let line = ["ringmain-bench", "profile"].iter().chain(arguments);
        match Cli::try_parse_from(line).expect("right").command {
            Command::Profile(profile) => profile,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_behind_the_dashes_are_those_of_run() {
        let flags = profile(&["--seconds", "3", "--", "--batch-records", "7", "--seconds", "9"]);
        let workload = workload(&flags).expect("right");
        assert_eq!((workload.batch_records, workload.repeats), (7, 1));
        assert_eq!(workload.seconds.to_string(), "3s");
        for wrong in [["--repeats", "2"], ["--json", "--dry-run"]] {
            let flags = profile(&["--", wrong[0], wrong[1]]);
            let error = super::workload(&flags).expect_err("wrong");
            assert!(error.is::<crate::usage::Usage>(), "{error}");
        }
    }
}
