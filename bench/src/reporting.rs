//! `report`: one page of one or several runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Result, anyhow};
use clap::Args;
use serde::Serialize;

use crate::claims::document as claims;
use crate::clock::utc_stamp;
use crate::json::command_line;
use crate::output::{print, tell, write_whole};
use crate::report::{self, RUNS_MAX, Runs};
use crate::run::folder::{self, FolderError};
use crate::usage::usage;
use crate::verdict::Verdict;

/// Version of the document that `--json` prints.
const SCHEMA: u32 = 1;

/// Flags of `report`.
#[derive(Args, Clone, Debug)]
pub struct Report {
    /// Directories that run has written, or directories of such directories; or one that claims has written
    #[arg(required = true, value_name = "DIR")]
    pub dirs: Vec<PathBuf>,
    /// The page [default: ringmain-report-TIME.html in the working directory]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Also one picture that stands alone, for a README: throughput against p99.9, and what nothing beats; an SVG
    #[arg(long, value_name = "FILE")]
    pub picture: Option<PathBuf>,
    /// Print one JSON document instead of the page's path (docs/json.md)
    #[arg(long)]
    pub json: bool,
}

/// What is printed with `--json`.
#[derive(Debug, Serialize)]
struct Document {
    schema: u32,
    command: String,
    report: PathBuf,
    picture: Option<PathBuf>,
    bytes: usize,
    runs: Vec<PathBuf>,
    damage: Vec<String>,
}

/// Reads the runs and writes their page.
///
/// # Errors
/// If a directory is no run's, of another schema or damaged, or the page can't be written. Nothing is written then.
pub fn run(flags: &Report) -> Result<Verdict> {
    let Made { page, picture, dirs, damage } = make(&flags.dirs)?;
    if flags.picture.is_some() && picture.is_none() {
        return Err(usage(
            "--picture holds runs against each other: give at least two that run or sweep has written, with acks",
        ));
    }
    let path =
        flags.out.clone().unwrap_or_else(|| format!("ringmain-report-{}.html", utc_stamp()).into());
    write_whole(&path, &page)?;
    if let (Some(path), Some(picture)) = (&flags.picture, picture) {
        write_whole(path, &picture)?;
    }
    for what in &damage {
        tell(&format!("ringmain-bench: {what}"));
    }
    let failed = !damage.is_empty();
    let report = path.canonicalize().unwrap_or(path);
    print(&if flags.json {
        let command = command_line(std::env::args());
        let picture = flags.picture.clone();
        let bytes = page.len();
        let document =
            Document { schema: SCHEMA, command, report, picture, bytes, runs: dirs, damage };
        serde_json::to_string_pretty(&document)? + "\n"
    } else {
        format!("{}\n", report.display())
    })?;
    Ok(if failed { Verdict::Failed } else { Verdict::Passed })
}

/// What is made of directories.
struct Made {
    page: String,
    /// Runs held against each other, if there are some.
    picture: Option<String>,
    /// What is on the page.
    dirs: Vec<PathBuf>,
    /// What could not be read.
    damage: Vec<String>,
}

/// All that can be made of these directories: one of `claims` alone, or runs.
fn make(named: &[PathBuf]) -> Result<Made> {
    if let [dir] = named
        && let Some(claims) = claims::read(dir)?
    {
        return Ok(Made {
            page: report::claims::render(&claims),
            picture: None,
            dirs: named.to_vec(),
            damage: Vec::new(),
        });
    }
    let dirs = runs_in(named)?;
    let runs = read(&dirs)?;
    Ok(Made { page: runs.render(), picture: runs.picture(), dirs, damage: runs.damage() })
}

/// The runs' directories: those that are named, and those in the named ones that are none themselves.
fn runs_in(named: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut dirs: Vec<PathBuf> = Vec::new();
    for dir in named {
        let told = |error: std::io::Error| usage(format!("{}: {error}", dir.display()));
        let entries = fs::read_dir(dir).map_err(told)?;
        if is_run(dir) {
            dirs.push(dir.clone());
            continue;
        }
        let mut inside = Vec::new();
        for entry in entries {
            let path = entry.map_err(told)?.path();
            // Other commands' documents have pages of their own; one that can't be read is told of.
            if is_run(&path) && !matches!(folder::summary(&path), Err(FolderError::Kind { .. })) {
                inside.push(path);
            }
        }
        if inside.is_empty() {
            return Err(usage(FolderError::NoRun(dir.clone()).to_string()));
        }
        inside.sort();
        dirs.append(&mut inside);
    }
    if dirs.len() > RUNS_MAX {
        let count = dirs.len();
        return Err(usage(format!(
            "{count} runs; a page holds {RUNS_MAX}, more can't be told apart"
        )));
    }
    Ok(dirs)
}

fn is_run(dir: &Path) -> bool {
    dir.join("summary.json").is_file()
}

/// Reads all of them, as many at a time as there are processors. All that is wrong is told at once.
fn read(dirs: &[PathBuf]) -> Result<Runs> {
    let workers = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let share = dirs.len().div_ceil(workers);
    let read: Vec<Result<report::Run, FolderError>> = thread::scope(|scope| {
        let some =
            |dirs: &'_ [PathBuf]| dirs.iter().map(|dir| report::Run::read(dir)).collect::<Vec<_>>();
        let workers: Vec<_> =
            dirs.chunks(share).map(|dirs| scope.spawn(move || some(dirs))).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("reading does not panic"))
            .collect()
    });
    let (mut runs, mut wrong) = (Vec::new(), Vec::new());
    for one in read {
        match one {
            Ok(run) => runs.push(run),
            Err(error) => wrong.push(error),
        }
    }
    if wrong.is_empty() {
        return Ok(Runs::new(runs));
    }
    let text = wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  ");
    Err(if wrong.iter().all(FolderError::is_foreign) { usage(text) } else { anyhow!(text) })
}
