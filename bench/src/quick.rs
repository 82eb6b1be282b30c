//! `quick`: how fast a durable log can be on this disk, in about a minute.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ringmain::buffers::Arena;

use crate::clock::utc_stamp;
use crate::crash::{self, Found};
use crate::device::{ARENA_BYTES, Flush};
use crate::distance::RoundTrips;
use crate::env::Env;
use crate::json::{Check, Document, SCHEMA, SURVIVES_KILL, State, command_line};
use crate::neighbours::{Neighbours, Watch};
use crate::oracle::Tally;
use crate::outcome::Outcome;
use crate::payload::Payload;
use crate::plan::{Arm, RAW_FLUSH, ROUNDS, ROWS, Row, SLICES, schedule, turns};
use crate::progress::Progress;
use crate::rig::{self, Rig};
use crate::summary::{self, Measured};
use crate::terminal::Terminal;
use crate::verdict::Verdict;
use crate::workdir::WorkDir;
use crate::{cli, human, interrupt, output, reading, report, screen};

/// The share of the time that arms run, as it is planned; what preparing takes is known only after it.
const MEASURED: f64 = 0.55;

/// The share of the time for the writer that is killed and for reading back.
const CRASH: f64 = 0.12;

/// What removing takes of what preparing took.
const REMOVAL: f64 = 0.6;

const NO_POWER_CUT: &str = "the kill was a SIGKILL, which is no power cut: what the writer had given to the \
                            kernel survives it";

/// Runs it.
///
/// # Errors
/// If something can't be made or written, or the user stops the run.
pub fn run(flags: &cli::Quick) -> Result<Verdict> {
    let begin = Instant::now();
    let watch = Watch::begin();
    let budget = Duration::from_secs(flags.seconds);
    let mut progress = Progress::new(budget, flags.quiet);
    let payload = Payload::open(flags.payload.as_deref())?;
    let mut dir = WorkDir::create(flags.dir.as_deref(), flags.keep)?;
    let (rows, crash, mut notes) = chosen(flags);
    let shares = (rows.len() * SLICES).max(1) as u32;
    let each = budget.mul_f64(MEASURED) / shares;
    dir.need_space(rig::bytes_needed(&rows, each))?;
    let env = Env::capture(dir.path());
    progress.stage("preparing files and partitions");
    let arena = Arena::new(ARENA_BYTES);
    let mut rig = Rig::new(rows, each, &mut dir, (&arena, &payload))?;
    let prepared = begin.elapsed();
    progress.passed(prepared);
    // What took time to make takes time to remove.
    let reserve =
        prepared.mul_f64(REMOVAL) + if crash { budget.mul_f64(CRASH) } else { Duration::ZERO };
    let until = begin + budget.saturating_sub(reserve).max(prepared);
    let mut arms = measure(&mut rig, until, &mut progress)?;
    notes.extend(rig.notes());
    progress.stage("closing");
    rig.close(flags.keep)?;
    let found = crash.then(|| kill_and_check(flags, &mut dir, &mut progress)).transpose()?;
    notes.extend(summary::notes(&arms));
    arms.extend(found.iter().flat_map(summary::recovered));
    progress.stage(if flags.keep { "closing files" } else { "removing files" });
    if flags.keep {
        let dir = dir.path().display();
        notes.push(format!(
            "the data is kept in {dir}: ringmain-bench verify {dir} names what can be checked"
        ));
    }
    drop(dir);
    drop(progress);
    interrupt::check()?;
    if found.is_some() {
        notes.push(NO_POWER_CUT.to_owned());
    }
    notes.extend(env.warnings.iter().cloned());
    let neighbours = watch.end();
    notes.extend(neighbours.iter().flat_map(Neighbours::notes));
    let rows = summary::outcomes(&arms);
    let mut document = Document {
        schema: SCHEMA,
        command: command_line(std::env::args()),
        env,
        payload: payload.about().clone(),
        seconds: begin.elapsed().as_secs_f64(),
        slices: SLICES,
        results: rows.iter().map(|row| row.entry.clone()).collect(),
        verify: found.as_ref().map(|found| found.tally),
        checks: checks(&arms, found.as_ref()),
        ratios: reading::ratios(&rows),
        meaning: reading::sentences(&rows),
        neighbours,
        notes,
        report: None,
    };
    // What took a minute to measure is shown, whether or not the working directory takes a page.
    match write_page(&document, &rows) {
        Ok(path) => document.report = Some(path),
        Err(error) => document.notes.push(format!("there is no page: {error:#}")),
    }
    print(&document, &rows, flags.json)?;
    let failed = document.checks.iter().any(|check| check.state == State::Failed);
    Ok(if failed { Verdict::Failed } else { Verdict::Passed })
}

/// The rows asked for that run in slices, in the order of the table; whether the crash test runs; and what was
/// left out.
fn chosen(flags: &cli::Quick) -> (Vec<&'static Row>, bool, Vec<String>) {
    let named = |row: &&Row| flags.rows.is_empty() || flags.rows.contains(row);
    let sliced = |row: &&Row| !matches!(row.arm, Arm::Recover | Arm::RawRead);
    let crash = ROWS.iter().filter(named).any(|row| row.arm == Arm::Recover);
    let (rows, out): (Vec<&Row>, Vec<&Row>) =
        ROWS.iter().filter(named).filter(sliced).partition(|row| {
            !flags.rows.is_empty() || seconds_for(row.partitions) <= flags.seconds
        });
    let mut notes = Vec::new();
    if !out.is_empty() {
        let names = out.iter().map(|row| row.name).collect::<Vec<_>>().join(", ");
        let needed = out.iter().map(|row| seconds_for(row.partitions)).max().unwrap_or_default();
        notes.push(format!(
            "--seconds {} leaves no time to make the partitions of {names}: give --seconds {needed} or more",
            flags.seconds
        ));
    }
    (rows, crash, notes)
}

/// Seconds a run must have for so many partitions to be made in it.
const fn seconds_for(partitions: u64) -> u64 {
    match partitions {
        0..=1 => 0,
        2..=1000 => 20,
        _ => 40,
    }
}

fn measure(rig: &mut Rig<'_>, until: Instant, progress: &mut Progress) -> Result<Vec<Measured>> {
    /// Less than this says nothing.
    const SLICE_MIN: Duration = Duration::from_millis(60);
    /// How many times shorter than a slice the round before them is.
    const WARM_SHARE: u32 = 3;
    let mut arms: Vec<Measured> = rig.rows().iter().map(|&row| rig.unmeasured(row)).collect();
    let turns = turns(rig.rows());
    let order = schedule(turns.len(), SLICES);
    // Memory touched for the first time is slow, and whatever runs first would pay for it.
    progress.stage("warming up");
    let mut left = arms.len() * SLICES;
    for arm in &arms {
        interrupt::check()?;
        progress.step(arm.row.name);
        let begin = Instant::now();
        let share = until.saturating_duration_since(begin) / (WARM_SHARE * left as u32);
        rig.slice(arm.row, share.max(SLICE_MIN)).with_context(|| arm.row.name)?;
        progress.passed(begin.elapsed());
    }
    for (at, &turn) in order.iter().enumerate() {
        interrupt::check()?;
        if at.is_multiple_of(turns.len()) {
            progress.stage(&format!("slice {} of {SLICES}", at / turns.len() + 1));
        }
        let arms = &mut arms[turns[turn].clone()];
        progress.step(arms[0].row.name);
        let begin = Instant::now();
        let each = until.saturating_duration_since(begin) / left as u32;
        slices(rig, arms, each.max(SLICE_MIN))?;
        left -= arms.len();
        progress.passed(begin.elapsed());
    }
    Ok(arms)
}

/// A slice of each of these arms, of `each` time: whole, or round by round in turns.
fn slices(rig: &mut Rig<'_>, arms: &mut [Measured], each: Duration) -> Result<()> {
    /// Less than this is over before a connection is under way.
    const ROUND_MIN: Duration = Duration::from_millis(30);
    let rounds = if arms[0].row.is_in_rounds() { ROUNDS } else { 1 };
    let time = if rounds > 1 { (each / rounds as u32).max(ROUND_MIN) } else { each };
    for nth in schedule(arms.len(), rounds) {
        interrupt::check()?;
        let arm = &mut arms[nth];
        let (slice, round_trips) = RoundTrips::around(rig.cores(), || rig.slice(arm.row, time));
        arm.slices.push(slice.with_context(|| arm.row.name)?);
        arm.round_trips.push(round_trips);
    }
    Ok(())
}

fn kill_and_check(flags: &cli::Quick, dir: &mut WorkDir, progress: &mut Progress) -> Result<Found> {
    progress.stage("killing a writer and reading back");
    let begin = Instant::now();
    let time = Duration::from_secs(flags.seconds).mul_f64(CRASH / 4.0);
    let found = crash::kill_and_check(&dir.subdir("crash")?, flags.payload.as_deref(), time)?;
    progress.passed(begin.elapsed());
    Ok(found)
}

fn checks(arms: &[Measured], found: Option<&Found>) -> Vec<Check> {
    let flush = summary::find(arms, RAW_FLUSH).map(flush_check);
    flush.into_iter().chain(found.map(crash_check)).collect()
}

fn crash_check(found: &Found) -> Check {
    let Tally { acked, lost, duplicated, reordered, corrupt } = found.tally;
    let acked = human::count(acked as f64);
    let (state, detail) = if found.tally.is_clean() {
        let records = human::count(found.records as f64);
        let opened = human::micros(found.open_ns as f64 / 1000.0);
        let detail = format!(
            "all {acked} records acked before the kill are there once, in order and intact, among {records} \
             read back; reopening took {opened}"
        );
        (State::Passed, detail)
    } else {
        let examples = found.examples.join("; ");
        let detail = format!(
            "of {acked} acked records {lost} are lost, {duplicated} duplicated, {reordered} reordered, \
             {corrupt} corrupt: {examples}"
        );
        (State::Failed, detail)
    };
    Check { name: SURVIVES_KILL, state, detail }
}

fn flush_check(flush: &Measured) -> Check {
    let latencies = flush.latencies();
    let took = human::micros(latencies.p50().as_nanos() as f64 / 1000.0);
    let (state, detail) = match Flush::judge(latencies.p50()) {
        Flush::Plausible => (State::Passed, format!("a flush takes {took}, as a disk's does")),
        Flush::TooFast => (
            State::Unknown,
            format!(
                "a flush takes {took}, which no disk does: this device or file system does not flush, and \
                 durable here means written"
            ),
        ),
    };
    Check { name: "flush_is_plausible", state, detail }
}

fn write_page(document: &Document, rows: &[Outcome]) -> Result<PathBuf> {
    let path = PathBuf::from(format!("ringmain-report-{}.html", utc_stamp()));
    let page = report::quick::render(document, rows);
    output::write_whole(&path, &page)?;
    Ok(path.canonicalize().unwrap_or(path))
}

fn print(document: &Document, rows: &[Outcome], json: bool) -> Result<()> {
    let text = if json {
        document.text() + "\n"
    } else {
        screen::render(document, rows, Terminal::of_stdout())
    };
    output::print(&text)
}
