//! `quick`: how fast a durable log can be on this disk, in about a minute.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ringmain::buffers::Arena;

use crate::board::Board;
use crate::clients::{Load, drive};
use crate::clock::utc_stamp;
use crate::cores::{CLIENTS, DISK, Pinned};
use crate::device::{ARENA_BYTES, Device, Flush, Job, Plot};
use crate::env::Env;
use crate::floor::{self, Floor};
use crate::json::{Check, Document, SCHEMA, State, command_line};
use crate::outcome::Outcome;
use crate::payload::Payload;
use crate::plan::{Arm, RAW_FLUSH, ROWS, Row, SLICES, schedule};
use crate::plot::{self, Curve};
use crate::progress::Progress;
use crate::rawring::RawRing;
use crate::sample::Sample;
use crate::summary::{self, Measured};
use crate::terminal::Terminal;
use crate::verdict::Verdict;
use crate::workdir::WorkDir;
use crate::{cli, interrupt, report, table};

/// Bytes of the device's file.
const DEVICE_BYTES: u64 = 256 << 20;

/// Most writes in flight of any raw row.
const DEVICE_DEPTH_MAX: u32 = 64;

/// The share of the time that goes into preparing, cleaning up and writing the page.
const OVERHEAD: f64 = 0.15;

/// A slice's warm-up, as a share of it.
const WARM_UP: f64 = 0.2;

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
    dir.need_space(DEVICE_BYTES + floor::FILE_BYTES)?;
    let env = Env::capture(dir.path());
    progress.stage("preparing files");
    let arena = Arena::new(ARENA_BYTES);
    let mut rig = Rig::new(&mut dir, &arena, &payload)?;
    let prepared = begin.elapsed();
    progress.passed(prepared);
    let left = budget.mul_f64(1.0 - OVERHEAD).saturating_sub(prepared);
    let arms = measure(&mut rig, left, &mut progress)?;
    let mut notes = rig.notes();
    rig.close()?;
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

/// All arms of this build, ready to run.
struct Rig<'a> {
    rows: Vec<&'static Row>,
    device: Device<RawRing>,
    direct: bool,
    floor: Floor,
    payload: &'a Payload,
    board: &'static Board,
}

impl<'a> Rig<'a> {
    fn new(dir: &mut WorkDir, arena: &Arena, payload: &'a Payload) -> Result<Self> {
        let rows: Vec<_> =
            ROWS.iter().filter(|row| matches!(row.arm, Arm::Device(_) | Arm::Floor)).collect();
        let clients = rows.iter().map(|row| row.in_flight as u32).max().unwrap_or(1);
        let plot = Plot::prepare(&dir.subdir("device")?, 1, DEVICE_BYTES)?;
        let floor = Floor::start(&dir.subdir("floor")?, clients)?;
        let ring = RawRing::new(DEVICE_DEPTH_MAX).context("io_uring is not to be had here")?;
        let device = Device::open(ring, arena, &plot, payload)?;
        let board = Board::leaked(clients);
        Ok(Self { rows, device, direct: plot.direct, floor, payload, board })
    }

    fn unmeasured(&self, row: &'static Row) -> Measured {
        let direct = match row.arm {
            Arm::Floor => self.floor.is_direct(),
            Arm::Device(_) | Arm::Engine | Arm::Direct(_) | Arm::Recover => self.direct,
        };
        Measured { row, direct, slices: Vec::new() }
    }

    fn slice(&mut self, row: &Row, time: Duration) -> Result<Sample> {
        match row.arm {
            Arm::Device(job) => self.device(&job, time),
            Arm::Floor => self.floor(row.in_flight as u32, time),
            Arm::Engine | Arm::Direct(_) | Arm::Recover => unreachable!("not among the rows"),
        }
    }

    fn device(&mut self, job: &Job, time: Duration) -> Result<Sample> {
        let _pinned = Pinned::to(DISK);
        self.device.run(job, time.mul_f64(WARM_UP))?;
        self.device.run(job, time.mul_f64(1.0 - WARM_UP))
    }

    fn floor(&self, clients: u32, time: Duration) -> Result<Sample> {
        let load = Load {
            clients,
            warm_up: time.mul_f64(WARM_UP),
            measured: time.mul_f64(1.0 - WARM_UP),
            spin: Duration::ZERO,
        };
        let _pinned = Pinned::to(CLIENTS);
        drive(&mut self.floor.target(self.payload), &load, self.board)
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = vec![
            "rows starting with append_ and recover need the engine, which is not in this build"
                .to_owned(),
        ];
        if !self.direct || !self.floor.is_direct() {
            notes.push(
                "the file system does not take O_DIRECT: raw rows went through the page cache"
                    .to_owned(),
            );
        }
        if !self.device.is_registered() {
            notes.push(
                "buffers could not be registered (ulimit -l): raw rows cost more CPU than need be"
                    .to_owned(),
            );
        }
        notes
    }

    fn close(self) -> Result<()> {
        self.floor.stop()?;
        self.device.close()
    }
}

fn measure(rig: &mut Rig<'_>, time: Duration, progress: &mut Progress) -> Result<Vec<Measured>> {
    /// Less than this says nothing.
    const SLICE_MIN: Duration = Duration::from_millis(100);
    let mut arms: Vec<Measured> = rig.rows.iter().map(|&row| rig.unmeasured(row)).collect();
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
