//! `device`: bandwidth and latency of the raw device, by size and depth, through the engine's own ring.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ringmain::ring::backend::{AnyRing, Backend, open_ring};

use super::document::{Document, Entry};
use super::flags::{self, Op};
use super::{Device, Job, Plot, arena, screen};
use crate::clock::now_ms;
use crate::cores::{Cores, Pinned};
use crate::env::Env;
use crate::interrupt;
use crate::json::{SCHEMA, command_line};
use crate::neighbours::{Neighbours, Watch};
use crate::output;
use crate::payload::Payload;
use crate::plan::schedule;
use crate::progress::Progress;
use crate::run::values::Bytes;
use crate::sample::Sample;
use crate::terminal::Terminal;
use crate::verdict::Verdict;
use crate::workdir::WorkDir;

/// Slices of each combination: they take turns, so that all of them see the machine in all its moods.
const SLICES: usize = 5;

/// A slice's warm-up, as a share of it, on top of what is measured.
const WARM_UP: f64 = 0.1;

/// Least bytes of the file: more than a disk's own memory is likely to hold of it for long.
const FILE_BYTES_MIN: u64 = 256 << 20;

/// How often what is in flight goes into the file.
const FILE_ROUNDS: u64 = 2;

/// A quarter of the requests in flight, rounded up: a ring takes four times its queue.
fn entries(jobs: &[Job]) -> u32 {
    let most = jobs.iter().map(|job| job.depth).max().unwrap_or(1);
    most.div_ceil(4).next_power_of_two().max(8) as u32
}

fn file_bytes(jobs: &[Job]) -> u64 {
    let in_flight = jobs.iter().map(|job| (job.request_bytes * job.depth) as u64).max();
    let bytes = FILE_BYTES_MIN.max(in_flight.unwrap_or(0) * FILE_ROUNDS);
    bytes.next_multiple_of(1 << 20)
}

/// Runs it.
///
/// # Errors
/// If something can't be made, written or read, or the user stops the run.
pub fn run(flags: &flags::Device) -> Result<Verdict> {
    let begin = Instant::now();
    let jobs = flags.jobs()?;
    let watch = Watch::begin();
    let each = Duration::from_secs(flags.seconds);
    let mut progress = Progress::new(each.mul_f64(1.0 + WARM_UP) * jobs.len() as u32, flags.quiet);
    let payload = Payload::open(flags.payload.as_deref())?;
    let mut dir = WorkDir::create(flags.dir.as_deref(), false)?;
    let bytes = file_bytes(&jobs);
    dir.need_space(bytes)?;
    let env = Env::capture(dir.path());
    progress.stage("preparing a file");
    let raw = dir.subdir("device")?;
    let mut cursor = payload.cursor(now_ms() as usize);
    let plot = Plot::prepare_with(&raw, 1, bytes, |stride| cursor.fill(stride))?;
    let core = Cores::near(&raw).disk;
    let (ring, fallback) =
        open_ring(Backend::Auto, entries(&jobs)).context("cannot make a ring")?;
    let backend = if matches!(ring, AnyRing::Uring(_)) { "uring" } else { "sync" };
    let plots = [plot];
    let mut device = Device::open(ring, &arena(&jobs), &plots, &payload)?;
    let mut notes = notes(flags, &plots[0]);
    notes.extend(fallback.map(|reason| {
        format!("NO io_uring: {reason}; requests went through plain system calls on threads")
    }));
    if backend == "uring" && !device.is_registered() {
        notes.push(
            "buffers could not be registered (ulimit -l): requests cost more CPU than need be"
                .to_owned(),
        );
    }
    let slices = measure(&mut device, (&jobs, each, core), &mut progress)?;
    progress.stage("removing the file");
    device.close()?;
    drop(dir);
    drop(progress);
    interrupt::check()?;
    notes.extend(env.warnings.iter().cloned());
    let neighbours = watch.end();
    notes.extend(neighbours.iter().flat_map(Neighbours::notes));
    let document = Document {
        schema: SCHEMA,
        command: command_line(std::env::args()),
        env,
        payload: payload.about().clone(),
        seconds: begin.elapsed().as_secs_f64(),
        slices: SLICES,
        mode: if plots[0].direct { "direct" } else { "page_cache" },
        backend,
        core,
        file_bytes: bytes,
        results: jobs.iter().zip(&slices).map(|(job, slices)| Entry::of(job, slices)).collect(),
        neighbours,
        notes,
    };
    let text = if flags.json {
        serde_json::to_string_pretty(&document).context("strings and numbers only")? + "\n"
    } else {
        screen::render(&document, Terminal::of_stdout())
    };
    output::print(&text)?;
    Ok(Verdict::Passed)
}

fn measure(
    device: &mut Device<AnyRing>,
    (jobs, each, core): (&[Job], Duration, usize),
    progress: &mut Progress,
) -> Result<Vec<Vec<Sample>>> {
    let time = each / SLICES as u32;
    let _pinned = Pinned::to(core);
    let mut slices: Vec<Vec<Sample>> = jobs.iter().map(|_| Vec::new()).collect();
    for (turn, nth) in schedule(jobs.len(), SLICES).into_iter().enumerate() {
        if turn.is_multiple_of(jobs.len()) {
            progress.stage(&format!("slice {} of {SLICES}", turn / jobs.len() + 1));
        }
        let job = &jobs[nth];
        progress.step(&format!(
            "{} {} x {}",
            job.direction,
            Bytes(job.request_bytes as u64),
            job.depth
        ));
        device.run(job, time.mul_f64(WARM_UP))?;
        slices[nth].push(device.run(job, time)?);
        progress.passed(time.mul_f64(1.0 + WARM_UP));
    }
    Ok(slices)
}

/// What to know before the figures are quoted, as far as it is known before they are.
fn notes(flags: &flags::Device, plot: &Plot) -> Vec<String> {
    let mut notes = Vec::new();
    if !plot.direct {
        notes.push(
            "the file system does not take O_DIRECT: requests went through the page cache, and reads may never \
             have reached the device"
                .to_owned(),
        );
    }
    if flags.durable && flags.op.contains(&Op::Read) {
        notes.push("--durable is about the writes alone".to_owned());
    }
    notes
}
