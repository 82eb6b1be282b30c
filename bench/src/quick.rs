//! `quick`: how fast a durable log can be on this disk, in about a minute.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ringmain::buffers::Arena;

use crate::clock::utc_stamp;
use crate::crash::{self, Found};
use crate::device::{ARENA_BYTES, Flush};
use crate::env::Env;
use crate::json::{Check, Document, SCHEMA, SURVIVES_KILL, State, command_line};
use crate::neighbours::{Neighbours, Watch};
use crate::oracle::Tally;
use crate::outcome::Outcome;
use crate::payload::Payload;
use crate::plan::{Arm, RAW_FLUSH, ROWS, Row, SLICES, schedule};
use crate::plot::{self, Curve};
use crate::progress::Progress;
use crate::rig::{self, Rig};
use crate::summary::{self, Measured};
use crate::terminal::Terminal;
use crate::verdict::Verdict;
use crate::workdir::WorkDir;
use crate::{cli, human, interrupt, report, table};

/// The share of the time that arms run, as it is planned; what preparing takes is known only after it.
const MEASURED: f64 = 0.55;

/// The share of the time for the writer that is killed and for reading back.
const CRASH: f64 = 0.12;

/// What removing takes of what preparing took.
const REMOVAL: f64 = 0.6;

const NO_POWER_CUT: &str = "the writer was ended by SIGKILL, which is no power cut: what the kernel had \
                            been given survives it";

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
    progress.stage("removing files");
    drop(dir);
    drop(progress);
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
        neighbours,
        notes,
        report: None,
    };
    document.report = Some(write_page(&document, &rows)?);
    print(&document, &rows, flags.json);
    let failed = document.checks.iter().any(|check| check.state == State::Failed);
    Ok(if failed { Verdict::Failed } else { Verdict::Passed })
}

/// The rows asked for that run in slices, in the order of the table; whether the crash test runs; and what was
/// left out.
fn chosen(flags: &cli::Quick) -> (Vec<&'static Row>, bool, Vec<String>) {
    let named = |row: &&Row| flags.rows.is_empty() || flags.rows.contains(row);
    let sliced = |row: &&Row| !matches!(row.arm, Arm::Recover | Arm::RawRead);
    let crash = ROWS.iter().filter(named).any(|row| row.arm == Arm::Recover);
    let many = most_partitions(flags);
    let (rows, out): (Vec<&Row>, Vec<&Row>) = ROWS
        .iter()
        .filter(named)
        .filter(sliced)
        .partition(|row| !flags.rows.is_empty() || row.partitions <= many);
    let mut notes = Vec::new();
    if !out.is_empty() {
        let names = out.iter().map(|row| row.name).collect::<Vec<_>>().join(", ");
        notes.push(format!("--seconds {} leaves no time for {names}", flags.seconds));
    }
    (rows, crash, notes)
}

/// More partitions than these can't be made in the time there is.
fn most_partitions(flags: &cli::Quick) -> u64 {
    match flags.seconds {
        0..20 => 1,
        20..40 => 1000,
        _ => u64::MAX,
    }
}

fn measure(rig: &mut Rig<'_>, until: Instant, progress: &mut Progress) -> Result<Vec<Measured>> {
    /// Less than this says nothing.
    const SLICE_MIN: Duration = Duration::from_millis(60);
    /// How many times shorter than a slice the round before them is.
    const WARM_SHARE: u32 = 3;
    let mut arms: Vec<Measured> = rig.rows().iter().map(|&row| rig.unmeasured(row)).collect();
    let order = schedule(arms.len(), SLICES);
    // Memory touched for the first time is slow, and whatever runs first would pay for it.
    progress.stage("warming up");
    for arm in &arms {
        interrupt::check()?;
        progress.step(arm.row.name);
        let begin = Instant::now();
        let share = until.saturating_duration_since(begin) / (WARM_SHARE * order.len() as u32);
        rig.slice(arm.row, share.max(SLICE_MIN)).with_context(|| arm.row.name)?;
        progress.passed(begin.elapsed());
    }
    for (turn, &nth) in order.iter().enumerate() {
        interrupt::check()?;
        if turn.is_multiple_of(arms.len()) {
            progress.stage(&format!("slice {} of {SLICES}", turn / arms.len() + 1));
        }
        let arm = &mut arms[nth];
        progress.step(arm.row.name);
        let begin = Instant::now();
        let each = until.saturating_duration_since(begin) / (order.len() - turn) as u32;
        let slice = rig.slice(arm.row, each.max(SLICE_MIN));
        arm.slices.push(slice.with_context(|| arm.row.name)?);
        progress.passed(begin.elapsed());
    }
    Ok(arms)
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
    let (state, detail) = match Flush::judge(&latencies) {
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
    let page = report::render(document, rows);
    fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path.canonicalize().unwrap_or(path))
}

fn print(document: &Document, rows: &[Outcome], json: bool) {
    if json {
        println!("{}", document.text());
        return;
    }
    let terminal = Terminal::of_stdout();
    for (name, value) in document.env.lines() {
        println!("{name:<12} {value}");
    }
    println!("{:<12} {}\n", "payload", report::payload_line(&document.payload));
    println!("{}", table::render(rows, terminal.columns));
    let plotted: Vec<_> = rows
        .iter()
        .filter(|row| row.plotted)
        .map(|row| Curve { name: row.entry.name, points: &row.curve })
        .collect();
    println!("latency by share of requests, in percent\n{}", plot::render(&plotted, terminal));
    for check in &document.checks {
        let word = match check.state {
            State::Passed => "ok     ",
            State::Failed => "FAILED ",
            State::Unknown => "unknown",
        };
        println!("{word} {}", check.detail);
    }
    for note in &document.notes {
        println!("note    {note}");
    }
    if let Some(report) = &document.report {
        println!("{}", report.display());
    }
}
