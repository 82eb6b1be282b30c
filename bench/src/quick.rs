//! `quick`: how fast a durable log can be on this disk, in about a minute.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ringmain::buffers::Arena;

use crate::clock::utc_stamp;
use crate::device::{ARENA_BYTES, Flush};
use crate::env::Env;
use crate::json::{Check, Document, SCHEMA, State, command_line};
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
use crate::{cli, interrupt, report, table};

/// The share of the time that goes into preparing, cleaning up and writing the page.
const OVERHEAD: f64 = 0.15;

/// Runs it.
///
/// # Errors
/// If something can't be made or written, or the user stops the run.
pub fn run(flags: &cli::Quick) -> Result<Verdict> {
    let begin = Instant::now();
    let budget = Duration::from_secs(flags.seconds);
    let mut progress = Progress::new(budget, flags.quiet);
    let payload = Payload::open(flags.payload.as_deref())?;
    let mut dir = WorkDir::create(flags.dir.as_deref(), flags.keep)?;
    let rows = chosen(flags);
    dir.need_space(rig::bytes_needed(&rows))?;
    let env = Env::capture(dir.path());
    progress.stage("preparing files");
    let arena = Arena::new(ARENA_BYTES);
    let mut rig = Rig::new(rows, &mut dir, &arena, &payload)?;
    let prepared = begin.elapsed();
    progress.passed(prepared);
    let left = budget.mul_f64(1.0 - OVERHEAD).saturating_sub(prepared);
    let arms = measure(&mut rig, left, &mut progress)?;
    let mut notes = rig.notes();
    progress.stage("closing");
    rig.close()?;
    progress.stage("removing files");
    drop(dir);
    drop(progress);
    notes.extend(env.warnings.iter().cloned());
    let rows = summary::outcomes(&arms);
    let mut document = Document {
        schema: SCHEMA,
        command: command_line(std::env::args()),
        env,
        payload: payload.about().clone(),
        seconds: begin.elapsed().as_secs_f64(),
        slices: SLICES,
        results: rows.iter().map(|row| row.entry.clone()).collect(),
        verify: None,
        checks: checks(&arms),
        notes,
        report: None,
    };
    document.report = Some(write_page(&document, &rows)?);
    print(&document, &rows, flags.json);
    let failed = document.checks.iter().any(|check| check.state == State::Failed);
    Ok(if failed { Verdict::Failed } else { Verdict::Passed })
}

/// The rows asked for, in the order of the table; all of them if none was named.
fn chosen(flags: &cli::Quick) -> Vec<&'static Row> {
    ROWS.iter()
        .filter(|row| flags.rows.is_empty() || flags.rows.contains(row))
        .filter(|row| row.arm != Arm::Recover)
        .collect()
}

fn measure(rig: &mut Rig<'_>, time: Duration, progress: &mut Progress) -> Result<Vec<Measured>> {
    /// Less than this says nothing.
    const SLICE_MIN: Duration = Duration::from_millis(100);
    let mut arms: Vec<Measured> = rig.rows().iter().map(|&row| rig.unmeasured(row)).collect();
    let order = schedule(arms.len(), SLICES);
    let each = (time / order.len() as u32).max(SLICE_MIN);
    for (turn, nth) in order.into_iter().enumerate() {
        interrupt::check()?;
        if turn.is_multiple_of(arms.len()) {
            progress.stage(&format!("slice {} of {SLICES}", turn / arms.len() + 1));
        }
        let arm = &mut arms[nth];
        progress.step(arm.row.name);
        arm.slices.push(rig.slice(arm.row, each).with_context(|| arm.row.name)?);
        progress.passed(each);
    }
    Ok(arms)
}

fn checks(arms: &[Measured]) -> Vec<Check> {
    let Some(flush) = summary::find(arms, RAW_FLUSH) else { return Vec::new() };
    let latencies = flush.latencies();
    let took = crate::human::micros(latencies.p50().as_nanos() as f64 / 1000.0);
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
    vec![Check { name: "flush_is_plausible", state, detail }]
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
