//! `sweep`: the command.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use super::document::Measured;
use super::lists::Lists;
use super::measure::{Ended, Site, Sweep, document, sites};
use super::plan::{Estimate, Plan, spoken, times};
use super::screen;
use crate::clock::utc_stamp;
use crate::interrupt::Interrupted;
use crate::json::command_line;
use crate::output;
use crate::run::folder::{self, Folder};
use crate::run::result::{Document as Run, State};
use crate::run::values::Source;
use crate::terminal::Terminal;
use crate::usage::usage;
use crate::verdict::Verdict;

/// Examples of `sweep`.
pub const EXAMPLES: &str = "\
Examples:
  ringmain-bench sweep --flush group,os --codec none,lz4,zstd:3 --batch-records 1,10,100 --seconds 3
  ringmain-bench sweep --write-mode direct,page_cache --prepare prezero,fallocate --dry-run
  ringmain-bench sweep --dir /mnt/a/bench,/mnt/b/bench --rate 50k/s --arrival poisson    which disk
  ringmain-bench sweep --workload mine.toml --in-flight 1,4,16,64                        arrays in the file are lists
  ringmain-bench sweep --resume results/20260314-092655-host-sweep                       after Ctrl-C or a kill

Every flag of `run` takes a list with commas, or is given several times; every combination is a cell. Cells take turns:
each is measured once in a round, --repeats are the rounds, and each round has an order of its own. A cell's directory
is one of `run`: `report` and `compare` take it. Records a second are held against p99.9 among cells whose ack means the
same; a recommendation is never a silent choice of an ack that means less. Each repeat is read back; kills are `run`'s.
TIME is 2, 0.5s, 500ms or 250us; BYTES are 4096, 64KiB, 1MiB or 2GiB.

Exit codes: 0 ok, 1 a cell failed or lost what was acked, 2 a wrong flag, value or path, 130 interrupted.";

/// Flags of `sweep`.
#[derive(Args, Clone, Debug)]
pub struct Flags {
    /// A file with the same names as the flags, which override it; a list is an array
    #[arg(long, value_name = "FILE.toml")]
    pub workload: Option<PathBuf>,
    /// Goes on with a sweep that was stopped: its directory
    #[arg(long, value_name = "DIR")]
    pub resume: Option<PathBuf>,
    /// Print the cells and how long they will take, and stop
    #[arg(long)]
    pub dry_run: bool,
    /// Print one JSON document instead of the tables (docs/json.md)
    #[arg(long)]
    pub json: bool,
    /// No progress
    #[arg(long, short)]
    pub quiet: bool,
    /// The settings.
    #[command(flatten)]
    pub lists: Lists,
}

/// Runs it.
///
/// # Errors
/// A usage error for wrong settings or a directory that is no sweep's; if results can't be written, or the user stops
/// it.
pub fn run(flags: &Flags) -> Result<Verdict> {
    let (folder, plan, ended) = if let Some(dir) = &flags.resume {
        let (folder, plan) = resumed(flags, dir)?;
        let sites = sites(&plan)?;
        plan.check_place(sites[0].env())?;
        let ended = measured(&folder, &plan, sites, flags.quiet)?;
        (folder, plan, ended)
    } else {
        let mut plan = begun(flags)?;
        if flags.dry_run {
            return dry(&plan, flags.json);
        }
        check_payloads(&plan)?;
        let sites = sites(&plan)?;
        plan.env = serde_json::to_value(sites[0].env())?;
        let out = plan.cells[0].workload.out.clone().unwrap_or_else(|| folder::DEFAULT.into());
        let name = format!("{}-{}-sweep", plan.started, folder::host());
        let folder = Folder::create(&out, &name)?;
        plan.save(&folder)?;
        let ended = measured(&folder, &plan, sites, flags.quiet)?;
        (folder, plan, ended)
    };
    let runs: Vec<Option<Run>> = plan.cells.iter().map(|cell| document(&folder, cell)).collect();
    let measured = Measured { plan: &plan, directory: folder.path(), runs: &runs, ended: &ended };
    let document = measured.document();
    let text = serde_json::to_string_pretty(&document).context("strings and numbers only")? + "\n";
    folder.put("sweep.json", &text)?;
    let shown =
        if flags.json { text } else { screen::render(&measured, &document, Terminal::of_stdout()) };
    output::print(&shown)?;
    if document.state == State::Interrupted {
        return Err(Interrupted.into());
    }
    let clean = runs.iter().flatten().all(|run| run.verify.tally.is_clean());
    Ok(if clean && document.state == State::Complete { Verdict::Passed } else { Verdict::Failed })
}

fn begun(flags: &Flags) -> Result<Plan> {
    let under = flags.workload.as_deref().map(Lists::read).transpose()?.unwrap_or_default();
    Plan::of(&flags.lists.clone().over(under), command_line(std::env::args()), utc_stamp())
}

/// Checks, before anything is made, that the payloads are there.
fn check_payloads(plan: &Plan) -> Result<()> {
    for cell in &plan.cells {
        if let Source::Path(path) = &cell.workload.payload {
            fs::metadata(path).map_err(|e| {
                usage(format!("--payload {}: {e}; give a file or a folder to read", path.display()))
            })?;
        }
    }
    Ok(())
}

fn resumed(flags: &Flags, dir: &Path) -> Result<(Folder, Plan)> {
    if !flags.lists.is_empty() || flags.workload.is_some() || flags.dry_run {
        return Err(usage(
            "--resume goes on with the sweep as it was begun: give no settings, and no --dry-run",
        ));
    }
    let plan = Plan::load(dir)?;
    let path = dir.canonicalize().with_context(|| format!("{}", dir.display()))?;
    // Paths of the plan may be relative.
    std::env::set_current_dir(&plan.working_directory).map_err(|e| {
        usage(format!("--resume: {}, where it began: {e}", plan.working_directory.display()))
    })?;
    Ok((Folder::at(path), plan))
}

fn dry(plan: &Plan, json: bool) -> Result<Verdict> {
    let cells = (0..plan.rounds).flat_map(|_| &plan.cells);
    let time = Estimate::default().left(cells, plan.rounds);
    let total = format!(
        "{} cells x {} rounds, each {}: about {}",
        plan.cells.len(),
        plan.rounds,
        times(&plan.cells),
        spoken(time)
    );
    let text = if json {
        let mut document = serde_json::to_value(plan)?;
        document["estimated_seconds"] = serde_json::json!(time.as_secs_f64());
        serde_json::to_string_pretty(&document)? + "\n"
    } else {
        screen::plan(plan, &total, Terminal::of_stdout())
    };
    output::print(&text)?;
    Ok(Verdict::Passed)
}

/// Measures what is left, after saying how long that will take.
fn measured(folder: &Folder, plan: &Plan, sites: Vec<Site>, quiet: bool) -> Result<Ended> {
    let sweep = Sweep::open(folder, plan, sites)?;
    if !quiet {
        let (left, repeats) = sweep.time_left();
        let refused = match plan.refused.len() {
            0 => String::new(),
            count => format!(", {count} combinations can't be measured (told at the end)"),
        };
        let told = format!(
            "{} cells{refused}; {repeats} repeats are left, each {}: about {}\n\
             in {}; Ctrl-C stops, and --resume with this directory goes on\n",
            plan.cells.len(),
            times(&plan.cells),
            spoken(left),
            folder.path().display()
        );
        // Whoever does not read it does not stop the sweep.
        let _ = std::io::stderr().write_all(told.as_bytes());
    }
    let ended = sweep.run(quiet);
    // One that was killed left its own data directory, which is then nobody's to remove; another one is not empty.
    let _ = fs::remove_dir(&plan.data);
    ended
}
