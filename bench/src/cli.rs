//! The command line.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand};
use ringmain::types::PartitionName;

use crate::claims::command::Claims;
use crate::clock;
use crate::crash;
use crate::device::flags::{self as device, Device};
use crate::fio;
use crate::manual;
use crate::plan::{self, Row};
use crate::profile::command::Profile;
use crate::reporting;
use crate::run::{command::Run, compare::Compare, kill, search::Search, selftest::Selftest};
use crate::sweep::command as sweep;

/// Shortest and longest run of `quick`.
const SECONDS: RangeInclusive<u64> = 5..=3600;

const BEGIN: &str = "\
Begin with:
  ringmain-bench quick            about a minute, below the working directory, no privilege needed
  ringmain-bench claims           about five minutes
  ringmain-bench run --help       each command shows examples";

const QUICK_EXAMPLES: &str = "\
Examples:
  ringmain-bench quick                                  about a minute in ./ringmain-data-PID
  ringmain-bench quick --dir /mnt/nvme/bench            on another disk
  ringmain-bench quick --payload /var/log --seconds 20  with your own lines, in a hurry
  ringmain-bench quick --json --quiet > quick.json      for a script

Exit codes: 0 ok, 1 a check failed, 2 a wrong flag, value or path, 130 interrupted.";

const VERIFY_EXAMPLES: &str = "\
Examples:
  ringmain-bench verify ./data
  ringmain-bench verify ./data --json

Reads only. Exit codes: 0 sound, 1 damaged (file, position and offset are named), 2 a wrong flag, value or path.";

const REPAIR_EXAMPLES: &str = "\
Examples:
  ringmain-bench verify ./data                                      says where the damage is
  ringmain-bench repair ./data --partition orders-0 --cut-at 4711   keeps offsets below 4711, which is given next

What is cut off is kept beside the segments in files that end with .cut.void. Exit codes: 0 ok, 1 not cut, 2 a wrong
flag or value.";

const DUMP_EXAMPLES: &str = "\
Examples:
  ringmain-bench dump ./data                                       all partitions, a batch a line
  ringmain-bench dump ./data/orders-0/00000000000000000000.log --records
  ringmain-bench dump ./data/journal-0 --json | jq .

Exit codes: 0 ok, 1 damage was found, 2 a wrong flag, value or path.";

const FIND_EXAMPLES: &str = "\
Examples:
  ringmain-bench find ./data --partition orders-0 --offset 4711
  ringmain-bench find ./data --partition orders-0 --time 2026-03-14T09:26:53Z       the first record from then on
  ringmain-bench find ./data --partition orders-0 --key user-17                     the newest one
  ringmain-bench find ./data --partition orders-0 --key user-17 --limit 10 --json   the ten newest ones

Reads only. By offset and by time the indexes lead the way; for a key segments are read from the newest to the oldest.
Exit codes: 0 found, 1 not found or damage on the way, 2 a wrong flag, value or path, or no such partition.";

const RUN_EXAMPLES: &str = "\
Examples:
  ringmain-bench run                                               as fast as acks come
  ringmain-bench run --rate 50k/s --arrival poisson --flush group  latency at a rate
  ringmain-bench run --rate 50k/s --backend pwrite                 the same on threads with fdatasync
  ringmain-bench run --rate 50k/s --dry-run > mine.toml            a workload file
  ringmain-bench run --workload mine.toml --codec zstd --json

TIME is 2, 0.5s, 500ms or 250us; BYTES are 4096, 64KiB, 1MiB or 2GiB.
Exit codes: 0 ok, 1 what was acked is not there, 2 a wrong flag, value or path, 130 interrupted.";

const SEARCH_EXAMPLES: &str = "\
Examples:
  ringmain-bench search --p99 2ms
  ringmain-bench search --p99 500us --batch-records 10 --seconds 5 --repeats 3

TIME is 2, 0.5s, 500ms or 250us; BYTES are 4096, 64KiB, 1MiB or 2GiB. --kills is 0 here if it is not said.
Exit codes: 0 found, 1 no rate holds the bound, 2 a wrong flag, value or path.";

const CLAIMS_EXAMPLES: &str = "\
Examples:
  ringmain-bench claims                                  all, in about five minutes
  ringmain-bench claims group-commit batching            two of them
  ringmain-bench claims --full --dir /mnt/nvme/bench     all, in about forty minutes, on another disk
  ringmain-bench claims --list                           what is claimed
  ringmain-bench claims sequential --rules               how it is decided, fixed before the run
  ringmain-bench claims --json --quiet | jq '.claims[] | {name, verdict, ratio, interval}'

Exit codes: 0 ok, whatever the verdicts; 1 an experiment broke; 2 a wrong flag, value or path; 130 interrupted.";

const COMPARE_EXAMPLES: &str = "\
Examples:
  ringmain-bench compare results/before results/after
  ringmain-bench compare results/before results/after --fail-on 5%

Both are directories that run has written, with at least two repeats. Exit codes: 0 ok, 1 worse by more than --fail-on,
or with --fail-on not comparable, or no figure could be compared, 2 a wrong flag, value or path.";

const SELFTEST_EXAMPLES: &str = "\
Examples:
  ringmain-bench selftest

Under a minute; the verdict is the last line. Exit codes: 0 passed, 1 a check failed.";

const PROFILE_EXAMPLES: &str = "\
Examples:
  ringmain-bench profile                                         10 s of run as it is, as fast as acks come
  ringmain-bench profile --seconds 20 -- --batch-records 1 --in-flight 256
  ringmain-bench profile --json --quiet -- --codec zstd --payload /var/log | jq .areas

Needs Linux's perf, and leave to use it: what is missing is said with what to set. What is behind -- are flags of run.
Exit codes: 0 ok, 1 perf is missing or may not, or the run failed, 2 a wrong flag, value or path, 130 interrupted.";

const REPORT_EXAMPLES: &str = "\
Examples:
  ringmain-bench report results/20260314-092655-host-group       one run
  ringmain-bench report results/*-group results/*-os             several, on common axes
  ringmain-bench report results --out page.html                  all in a directory
  ringmain-bench report results/20260314-092655-host-claims      the page of a run of claims
  ringmain-bench report results/20260314-092655-host-sweep --picture front.svg
                                                                 and a picture of its own, for a README

The page needs no network. Exit codes: 0 ok, 1 a run is damaged, 2 a directory is no run's or of another schema.";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  ringmain-bench completions bash > ~/.local/share/bash-completion/completions/ringmain-bench
  ringmain-bench completions zsh > ~/.zfunc/_ringmain-bench
  ringmain-bench completions fish > ~/.config/fish/completions/ringmain-bench.fish";

const MAN_EXAMPLES: &str = "\
Examples:
  ringmain-bench man | man -l -
  ringmain-bench man quick | man -l -
  ringmain-bench man --out ~/.local/share/man/man1";

/// Measures the ringmain log on your own disk, and tries what is claimed of message logs.
#[derive(Debug, Parser)]
#[command(name = "ringmain-bench", version, arg_required_else_help = true, after_help = BEGIN)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// How fast a durable log can be on this disk, in about a minute
    #[command(after_help = QUICK_EXAMPLES)]
    Quick(Quick),
    /// One workload: latency by schedule, throughput, phases, what the machine did; verified
    #[command(after_help = RUN_EXAMPLES)]
    Run(Box<Run>),
    /// Every combination of lists of settings, measured by turns, and what to choose
    #[command(after_help = sweep::EXAMPLES)]
    Sweep(Box<sweep::Flags>),
    /// The highest rate that holds a bound of latency
    #[command(after_help = SEARCH_EXAMPLES)]
    Search(Box<Search>),
    /// Which well-known claims about logs hold here, by how much, and where they stop
    #[command(after_help = CLAIMS_EXAMPLES)]
    Claims(Claims),
    /// Two runs side by side, and whether they differ
    #[command(after_help = COMPARE_EXAMPLES)]
    Compare(Compare),
    /// The method against targets of known behaviour
    #[command(after_help = SELFTEST_EXAMPLES)]
    Selftest(Selftest),
    /// Bandwidth and latency of the raw device, by size and depth
    #[command(after_help = device::EXAMPLES)]
    Device(Device),
    /// Where a run's time goes: flame graphs on and off the processor, by area, function and thread
    #[command(after_help = PROFILE_EXAMPLES)]
    Profile(Profile),
    /// Check a data directory: structure, checksums, order, indexes
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify(Verify),
    /// Cut a damaged partition back, keeping a copy of what is cut
    #[command(after_help = REPAIR_EXAMPLES)]
    Repair(Repair),
    /// Print batches and records
    #[command(after_help = DUMP_EXAMPLES)]
    Dump(Dump),
    /// Find a record by offset, time or key
    #[command(after_help = FIND_EXAMPLES)]
    Find(Find),
    /// One HTML page of one or several runs
    #[command(after_help = REPORT_EXAMPLES)]
    Report(reporting::Report),
    /// What a shell reads to complete commands and flags
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(manual::Completions),
    /// Manual pages
    #[command(after_help = MAN_EXAMPLES)]
    Man(manual::Man),
    /// The floor alone, for work on the harness itself
    #[command(hide = true)]
    Floor(Floor),
    /// `device` and fio, the same jobs by turns: see scripts/device-against-fio
    #[command(hide = true)]
    AgainstFio(fio::AgainstFio),
    /// Appends until it is killed
    #[command(hide = true, name = crash::LOAD)]
    CrashLoad(Crash),
    /// Reads back what a kill left
    #[command(hide = true, name = crash::CHECK)]
    CrashCheck(Crash),
    /// Runs a workload until it is killed
    #[command(hide = true, name = kill::LOAD)]
    RunLoad(kill::Load),
}

/// Flags of the processes behind the crash test.
#[derive(Args, Clone, Debug)]
pub struct Crash {
    /// A data directory
    pub dir: PathBuf,
    /// As in `quick`
    #[arg(long)]
    pub payload: Option<PathBuf>,
}

/// Flags of `quick`.
#[derive(Args, Clone, Debug)]
pub struct Quick {
    /// Directory for the data: new, empty, or left by an earlier run; removed after
    /// [default: ringmain-data-PID in the working directory]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// The whole time the run may take, in seconds
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = seconds)]
    pub seconds: u64,
    /// File or folder whose lines are the records [default: generated log lines]
    #[arg(long, value_name = "PATH")]
    pub payload: Option<PathBuf>,
    /// Print one JSON document instead of the table (docs/json.md)
    #[arg(long)]
    pub json: bool,
    /// Leave the data directory in place
    #[arg(long)]
    pub keep: bool,
    /// No progress
    #[arg(long, short)]
    pub quiet: bool,
    /// Only these rows, such as append_group_one_record_c256,floor_one_record_c256
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',', value_parser = row)]
    pub rows: Vec<&'static Row>,
}

/// Flags of `verify`.
#[derive(Args, Clone, Debug)]
pub struct Verify {
    /// A data directory
    pub dir: PathBuf,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Flags of `repair`.
#[derive(Args, Clone, Debug)]
pub struct Repair {
    /// A data directory that nobody has open
    pub dir: PathBuf,
    /// The partition, such as orders-0
    #[arg(long, value_name = "NAME", value_parser = partition)]
    pub partition: PartitionName,
    /// The offset at which the partition is to end: where a batch begins
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    pub cut_at: i64,
}

/// Flags of `dump`.
#[derive(Args, Clone, Debug)]
pub struct Dump {
    /// A data directory, a partition's directory, a segment or a journal
    #[arg(value_name = "DIR|FILE")]
    pub path: PathBuf,
    /// Print records too, not only batches
    #[arg(long)]
    pub records: bool,
    /// Print JSON, a document a line
    #[arg(long)]
    pub json: bool,
}

/// Flags of `find`.
#[derive(Args, Clone, Debug)]
#[command(group = ArgGroup::new("sought").required(true))]
pub struct Find {
    /// A data directory; one that Kafka wrote, too
    pub dir: PathBuf,
    /// The partition, such as orders-0
    #[arg(long, value_name = "NAME", value_parser = partition)]
    pub partition: PartitionName,
    /// The record with this offset
    #[arg(long, value_name = "OFFSET", group = "sought", value_parser = clap::value_parser!(i64).range(0..))]
    pub offset: Option<i64>,
    /// The first record, by offset, with this timestamp or a later one, such as 2026-03-14T09:26:53.120+01:00
    #[arg(long, value_name = "RFC3339", group = "sought", value_parser = clock::from_rfc3339)]
    pub time: Option<i64>,
    /// The newest record with this key
    #[arg(long, value_name = "KEY", group = "sought")]
    pub key: Option<String>,
    /// With --key: so many of them at most, the newest first
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        conflicts_with_all = ["offset", "time"],
        value_parser = clap::value_parser!(u32).range(1..=10_000)
    )]
    pub limit: u32,
    /// Print one JSON document (docs/json.md)
    #[arg(long)]
    pub json: bool,
}

/// Flags of `floor`.
#[derive(Args, Clone, Debug)]
pub struct Floor {
    /// Clients, each with one request in flight
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub clients: u32,
    /// Measured time
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// How long the clients' thread looks for acks before it sleeps, in microseconds
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub spin_us: u64,
    /// Directory for the data
    #[arg(long)]
    pub dir: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<u64, String> {
    whole_seconds(text, SECONDS)
}

/// A whole number of seconds within bounds, as `20` or, as the flags of `run` have it, `20s`.
pub(crate) fn whole_seconds(text: &str, bounds: RangeInclusive<u64>) -> Result<u64, String> {
    let digits = text.strip_suffix('s').unwrap_or(text);
    let told = |_| "not a whole number of seconds, such as 20 or 20s".to_owned();
    let seconds = digits.parse().map_err(told)?;
    if bounds.contains(&seconds) {
        return Ok(seconds);
    }
    Err(format!("from {} to {} seconds", bounds.start(), bounds.end()))
}

fn partition(name: &str) -> Result<PartitionName, String> {
    PartitionName::from_directory(name).ok_or_else(|| "not of the form <topic>-<number>".to_owned())
}

fn row(name: &str) -> Result<&'static Row, String> {
    plan::row(name).ok_or_else(|| {
        let names = plan::ROWS.iter().map(|row| row.name).collect::<Vec<_>>();
        format!("no such row; there are {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_flags_and_values_are_usage_errors() {
        let wrong: [&[&str]; 13] = [
            &["find", "data", "--partition", "orders-0"],
            &["find", "data", "--partition", "orders-0", "--offset", "3", "--key", "k"],
            &["find", "data", "--partition", "orders-0", "--time", "noon"],
            &["find", "data", "--partition", "orders-0", "--offset", "3", "--limit", "2"],
            &["repair", "data", "--partition", "orders", "--cut-at", "3"],
            &["repair", "data", "--partition", "orders-0"],
            &["quick", "--seconds", "0"],
            &["quick", "--seconds", "soon"],
            &["quick", "--seconds", "99999"],
            &["quick", "--fast"],
            &["quick", "--rows", "append_os_large,append_faster"],
            &["verify"],
            &["brew"],
        ];
        for arguments in wrong {
            let line = std::iter::once("ringmain-bench").chain(arguments.iter().copied());
            let error = Cli::try_parse_from(line).expect_err("wrong");
            assert_eq!(error.exit_code(), 2, "{arguments:?}");
        }
    }

    #[test]
    fn seconds_may_say_what_they_are() {
        for (text, found) in [("20", Ok(20)), ("20s", Ok(20)), ("5s", Ok(5))] {
            assert_eq!(seconds(text), found);
        }
        for text in ["", "s", "20ss", "20m", "2.5", "-5", "20 s"] {
            assert!(seconds(text).is_err_and(|told| told.contains("such as 20 or 20s")), "{text}");
        }
        assert_eq!(seconds("4s"), Err("from 5 to 3600 seconds".to_owned()));
    }

    #[test]
    fn every_command_shows_an_example() {
        for command in Cli::command().get_subcommands_mut().filter(|c| !c.is_hide_set()) {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Examples:"), "{help}");
        }
        let error = Cli::try_parse_from(["ringmain-bench", "quick", "--help"]).expect_err("help");
        assert_eq!(error.kind(), ErrorKind::DisplayHelp);
    }
}
