//! `claims`: which of the well-known claims about logs hold on this machine, by how much, and where they stop.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;

use super::claim::{Claim, Effort, Stage};
use super::conduct::conduct;
use super::document::{Document, Entry, KIND, SCHEMA};
use super::lens::Lens;
use super::{CLAIMS, claim, rules, screen};
use crate::clock::{now_ms, utc_stamp};
use crate::cores::Cores;
use crate::env::Env;
use crate::interrupt::{self, Interrupted};
use crate::json::command_line;
use crate::neighbours::{Neighbours, Watch};
use crate::output;
use crate::payload::Payload;
use crate::progress::Progress;
use crate::report;
use crate::run::folder::{self, Folder};
use crate::run::result::State;
use crate::terminal::Terminal;
use crate::verdict::Verdict;
use crate::workdir::WorkDir;

/// The page in the run's directory.
pub(super) const PAGE: &str = "claims.html";

/// Flags of `claims`.
#[derive(Args, Clone, Debug)]
pub struct Claims {
    /// Only these [default: all]
    #[arg(value_name = "NAME", value_parser = known)]
    pub names: Vec<&'static Claim>,
    /// All in about five minutes, one in less than 25 seconds: the default
    #[arg(long, conflicts_with = "full")]
    pub quick: bool,
    /// All in about forty minutes
    #[arg(long)]
    pub full: bool,
    /// Print the names and what is claimed, and stop
    #[arg(long)]
    pub list: bool,
    /// Print arms, rules and guards as docs/claims.md has them, and stop
    #[arg(long, conflicts_with = "list")]
    pub rules: bool,
    /// Directory for the data: new, empty, or left by an earlier run; removed after
    /// [default: ringmain-data-PID in the working directory]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Where the run's directory is made
    #[arg(long, value_name = "DIR", default_value = folder::DEFAULT)]
    pub out: PathBuf,
    /// File or folder whose lines are the records [default: generated log lines]
    #[arg(long, value_name = "PATH")]
    pub payload: Option<PathBuf>,
    /// What the order of the arms in each round is drawn with [default: the time]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Print one JSON document instead of the screen (docs/json.md)
    #[arg(long)]
    pub json: bool,
    /// No progress
    #[arg(long, short)]
    pub quiet: bool,
}

fn known(name: &str) -> Result<&'static Claim, String> {
    claim(name).ok_or_else(|| {
        let names = CLAIMS.iter().map(|claim| claim.name).collect::<Vec<_>>();
        format!("no such claim; there are {}", names.join(", "))
    })
}

/// Runs it.
///
/// # Errors
/// If nothing can be made ready or written; when the user stops it, after what is there was told.
pub fn run(flags: &Claims) -> Result<Verdict> {
    let chosen: Vec<&'static Claim> =
        if flags.names.is_empty() { CLAIMS.to_vec() } else { flags.names.clone() };
    if flags.list || flags.rules {
        let text: Vec<String> = chosen.iter().map(|claim| listed(claim, flags.rules)).collect();
        output::print(&text.join(if flags.rules { "\n" } else { "" }))?;
        return Ok(Verdict::Passed);
    }
    let begin = Instant::now();
    let watch = Watch::begin();
    let (started, host) = (utc_stamp(), folder::host());
    let effort = if flags.full { Effort::FULL } else { Effort::QUICK };
    let seed = flags.seed.unwrap_or_else(now_ms);
    let payload = Payload::open(flags.payload.as_deref())?;
    let mut dir = WorkDir::create(flags.dir.as_deref(), false)?;
    dir.need_space(chosen.iter().map(|claim| claim.space_bytes).max().unwrap_or(0))?;
    let env = Env::capture(dir.path());
    let mut run = Run { flags, effort, seed, payload: &payload, dir: &mut dir, broken: false };
    let claims = run.claims(&chosen)?;
    let broken = run.broken;
    drop(dir);
    if claims.is_empty() {
        interrupt::check()?;
    }
    let neighbours = watch.end();
    let mut notes = env.warnings.clone();
    notes.extend(neighbours.iter().flat_map(Neighbours::notes));
    let state = if interrupt::asked() { State::Interrupted } else { State::Complete };
    let folder = Folder::create(&flags.out, &format!("{started}-{host}-claims"))?;
    let document = Document {
        schema: SCHEMA,
        kind: KIND.to_owned(),
        state: if broken { State::Failed } else { state },
        command: command_line(std::env::args()),
        started,
        host,
        effort: effort.name.to_owned(),
        seed,
        env,
        payload: payload.about().clone(),
        neighbours: neighbours.map(serde_json::to_value).transpose()?,
        seconds: begin.elapsed().as_secs_f64(),
        claims,
        notes,
        directory: Some(folder.path().to_owned()),
    };
    write(&folder, &document)?;
    output::print(&if flags.json {
        document.text()?
    } else {
        screen::render(&document, Terminal::of_stdout())
    })?;
    if interrupt::asked() {
        return Err(Interrupted.into());
    }
    Ok(if broken { Verdict::Failed } else { Verdict::Passed })
}

fn listed(claim: &Claim, rules: bool) -> String {
    if rules {
        return rules::section(claim);
    }
    format!("{:<20}{}\n", claim.name, claim.sentence)
}

fn write(folder: &Folder, document: &Document) -> Result<()> {
    folder.put("command.txt", &format!("{}\n", document.command))?;
    folder.put("env.json", &serde_json::to_string_pretty(&document.env)?)?;
    folder.put("summary.json", &document.text()?)?;
    folder.put(PAGE, &report::claims::render(document))?;
    Ok(())
}

struct Run<'a> {
    flags: &'a Claims,
    effort: Effort,
    seed: u64,
    payload: &'a Payload,
    dir: &'a mut WorkDir,
    broken: bool,
}

impl Run<'_> {
    /// Those that were conducted until the user stopped.
    fn claims(&mut self, chosen: &[&'static Claim]) -> Result<Vec<Entry>> {
        let each = self.effort.time;
        let mut progress = Progress::new(each * chosen.len() as u32, self.flags.quiet);
        let mut entries = Vec::new();
        for (nth, claim) in chosen.iter().enumerate() {
            if interrupt::asked() {
                break;
            }
            let begin = Instant::now();
            progress.stage(&format!("{} ({} of {})", claim.name, nth + 1, chosen.len()));
            let place = self.dir.subdir(claim.name)?;
            let cores = Cores::near(&place);
            let (payload, effort) = (self.payload, self.effort);
            let lens = Lens::default();
            let mut stage = Stage { dir: place, payload, effort, cores, lens };
            let conducted = conduct(claim, &mut stage, self.seed, &mut progress);
            self.dir.remove_subdir(claim.name)?;
            self.broken |= conducted.broken;
            let entry = Entry::of(&conducted);
            if !self.flags.quiet {
                progress.stage(&format!("{}: {}", claim.name, entry.verdict));
            }
            entries.push(entry);
            progress.passed(each.max(begin.elapsed()).min(each + Duration::from_secs(1)));
        }
        Ok(entries)
    }
}
