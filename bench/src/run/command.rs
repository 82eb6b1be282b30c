//! `run`: one workload, measured.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;

use super::assemble;
use super::backends::backend;
use super::baseline;
use super::folder::{self, Folder};
use super::kill::{self, Killed};
use super::live::Live;
use super::measure::Ended;
use super::profiler::Profiler;
use super::repeat::{One, Setting};
use super::result::{Document, KIND, SCHEMA, State, Warning};
use super::table::table;
use super::values::{BackendName, Source};
use super::workload::{Flags, Workload};
use crate::clock::utc_stamp;
use crate::env::Env;
use crate::interrupt::{self, Interrupted};
use crate::json::command_line;
use crate::neighbours::{Neighbours, Watch};
use crate::output;
use crate::payload::Payload;
use crate::usage::usage;
use crate::verdict::Verdict;
use crate::workdir::{WorkDir, free_bytes};

/// Bytes of a generated payload.
const GENERATED_BYTES: usize = 32 << 20;

/// Flags of `run`.
#[derive(Args, Clone, Debug)]
pub struct Run {
    /// A file with the same names as the flags, which override it
    #[arg(long, value_name = "FILE.toml")]
    pub workload: Option<PathBuf>,
    /// The settings.
    #[command(flatten)]
    pub flags: Flags,
    /// Print the resolved workload, which can be saved and run again, and stop
    #[arg(long)]
    pub dry_run: bool,
    /// Print one JSON document instead of the table (docs/json.md)
    #[arg(long)]
    pub json: bool,
    /// No progress
    #[arg(long, short)]
    pub quiet: bool,
    /// Directory with the pipes to a perf that is about to attach itself, for `profile`
    #[arg(long, hide = true, value_name = "DIR")]
    pub profiler: Option<PathBuf>,
}

/// Runs it.
///
/// # Errors
/// A usage error for wrong settings; if something can't be made, or the user stops it before anything was measured.
pub fn run(flags: &Run) -> Result<Verdict> {
    let workload = Workload::from_parts(flags.workload.as_deref(), flags.flags.clone())?;
    if flags.dry_run {
        output::print(&workload.to_toml()?)?;
        return Ok(Verdict::Passed);
    }
    let profiler = flags.profiler.as_deref().map(Profiler::attach).transpose()?;
    let document = execute_under(&workload, flags.quiet, profiler.as_ref())?;
    let text = if flags.json { document.text() + "\n" } else { table(&document) };
    output::print(&text)?;
    if document.state == State::Interrupted {
        return Err(Interrupted.into());
    }
    Ok(if document.verify.tally.is_clean() { Verdict::Passed } else { Verdict::Failed })
}

/// The payload that a workload asks for.
///
/// # Errors
/// A usage error if its file can't be read.
pub fn payload(workload: &Workload) -> Result<Payload> {
    match &workload.payload {
        Source::Generated => Ok(Payload::generated(GENERATED_BYTES)),
        Source::Ratio(ratio) => Ok(Payload::compressible(GENERATED_BYTES, *ratio)),
        Source::Path(path) => Payload::open(Some(path)),
    }
}

/// Measures a workload and keeps what came of it.
///
/// # Errors
/// If nothing could be measured. No trace is left then.
pub fn execute(workload: &Workload, quiet: bool) -> Result<Document> {
    execute_under(workload, quiet, None)
}

/// As [`execute`], where `profiler` is told when measured time begins and ends.
fn execute_under(
    workload: &Workload,
    quiet: bool,
    profiler: Option<&Profiler>,
) -> Result<Document> {
    let watch = Watch::begin();
    let started = utc_stamp();
    let backend = backend(workload.backend);
    let payload = payload(workload)?;
    let mut dir = WorkDir::create(workload.dir.as_deref(), false)?;
    let env = Env::capture(dir.path());
    let out = workload.out.clone().unwrap_or_else(|| folder::DEFAULT.into());
    let host = folder::host();
    let folder = Folder::create(&out, &format!("{started}-{host}-{}", workload.name()));
    let folder = folder.map_err(|error| {
        usage(format!("--out {}: {error}; give a directory you may write to", out.display()))
    })?;
    let setting = Setting { workload, backend: backend.as_ref(), payload: &payload, profiler };
    let live = Live::new((workload.seconds.0 + workload.warmup.0) * workload.repeats, quiet);
    let measured = repeats(&setting, &mut dir, &folder, &live);
    let done = measured.and_then(|(ones, logs)| {
        let kills = kills(&setting, &mut dir, &live)?;
        let device = device(&setting, &mut dir, &live)?;
        Ok((ones, logs, kills, device))
    });
    live.clear();
    let (ones, logs, kills, device) = done.inspect_err(|_| folder.clone().discard())?;
    drop(dir);
    let scene = Scene {
        workload,
        command: command_line(std::env::args()),
        started: &started,
        env: &env,
        payload: serde_json::to_value(payload.about())?,
        neighbours: watch.end(),
    };
    scene.keep(&folder, (&ones, &logs), &kills, &device)
}

/// What is told of a run besides its figures.
pub struct Scene<'a> {
    /// What was to be measured.
    pub workload: &'a Workload,
    /// The command line that measures it again.
    pub command: String,
    /// When it began, in UTC.
    pub started: &'a str,
    /// The machine.
    pub env: &'a Env,
    /// What was sent.
    pub payload: Value,
    /// Who else used the processors.
    pub neighbours: Option<Neighbours>,
}

impl Scene<'_> {
    /// Makes the run's document of its repeats, its kills and what the raw device did, and writes the files of its
    /// directory; `logs` are the names of interval logs that are there already.
    ///
    /// # Errors
    /// If a file can't be written.
    pub fn keep(
        self,
        folder: &Folder,
        (ones, logs): (&[One], &[Option<String>]),
        kills: &[Killed],
        device: &RawDevice,
    ) -> Result<Document> {
        let Self { workload, command, started, env, payload, neighbours } = self;
        let mut result = assemble::result(workload, ones, logs, device.mib_per_s);
        result.raw_flush_us = device.flush_us;
        let mut verify = assemble::verify(ones);
        assemble::verify_kills(&mut verify, kills);
        let mut warnings = assemble::warnings(&result, &verify, ones, neighbours.as_ref());
        if device.no_room {
            let text = "too little space is free to measure the raw device beside the load";
            warnings.push(Warning::new("device_not_measured", text));
        }
        warnings.extend(env.warnings.iter().map(|text| Warning::new("environment", text.as_str())));
        let whole = ones.len() == workload.repeats as usize
            && kills.len() == workload.kills as usize
            && ones.iter().all(|one| one.measured.ended != Ended::Interrupted);
        let document = Document {
            schema: SCHEMA,
            kind: KIND.to_owned(),
            state: if whole { State::Complete } else { State::Interrupted },
            command,
            started: started.to_owned(),
            host: folder::host(),
            workload: workload.clone(),
            env: serde_json::to_value(env)?,
            payload,
            neighbours: neighbours.map(serde_json::to_value).transpose()?,
            result,
            verify,
            warnings,
            directory: Some(folder.path().to_owned()),
        };
        folder.put("command.txt", &format!("{}\n", document.command))?;
        folder.put("env.json", &serde_json::to_string_pretty(env)?)?;
        folder.put("workload.toml", &workload.to_toml()?)?;
        folder.put("summary.json", &document.text())?;
        Ok(document)
    }
}

/// All repeats, or as many as ran before the user stopped.
fn repeats(
    setting: &Setting<'_>,
    dir: &mut WorkDir,
    folder: &Folder,
    live: &Live,
) -> Result<(Vec<One>, Vec<Option<String>>)> {
    let (mut ones, mut logs) = (Vec::new(), Vec::new());
    for nth in 1..=setting.workload.repeats {
        if interrupt::asked() {
            break;
        }
        let part = live.part(format!("repeat {nth} of {}", setting.workload.repeats));
        let name = format!("repeat-{nth}");
        let place = dir.subdir(&name)?;
        let log = format!("{name}.hlog");
        let path = folder.path().join(&log);
        let one = setting.repeat(nth, &place, Some(&path), part);
        dir.remove_subdir(&name)?;
        let one = unless_stopped(one).with_context(|| format!("repeat {nth}"))?;
        let Some(one) = one.filter(|one| one.measured.records > 0 || !interrupt::asked()) else {
            folder.take_back(&log)?;
            break;
        };
        ones.push(one);
        if let [first, .., last] = &mut ones[..] {
            first.absorb(last);
        }
        logs.push(Some(log));
    }
    if interrupt::asked() && ones.is_empty() {
        return Err(Interrupted.into());
    }
    Ok((ones, logs))
}

/// Kills, or as many as there were before the user stopped.
fn kills(setting: &Setting<'_>, dir: &mut WorkDir, live: &Live) -> Result<Vec<Killed>> {
    let mut kills = Vec::new();
    for nth in 1..=setting.workload.kills {
        if interrupt::asked() {
            break;
        }
        let _part = live.part(format!("kill {nth} of {}", setting.workload.kills));
        let name = format!("kill-{nth}");
        let place = dir.subdir(&name)?;
        let killed = kill::kill_and_check(setting, nth, &place);
        dir.remove_subdir(&name)?;
        kills.extend(unless_stopped(killed).with_context(|| format!("kill {nth}"))?);
    }
    Ok(kills)
}

/// What the raw device does in the same run. Nothing if the user stops it.
#[derive(Debug, Default)]
pub struct RawDevice {
    /// Its rate at the size and depth of the run.
    pub mib_per_s: Option<f64>,
    /// What a flush alone takes.
    pub flush_us: Option<f64>,
    /// Not measured, because the disk is too full.
    pub no_room: bool,
}

fn device(setting: &Setting<'_>, dir: &mut WorkDir, live: &Live) -> Result<RawDevice> {
    if setting.workload.backend == BackendName::Null || interrupt::asked() {
        return Ok(RawDevice::default());
    }
    if free_bytes(dir.path())? < baseline::DISK_BYTES {
        return Ok(RawDevice { no_room: true, ..RawDevice::default() });
    }
    let _part = live.part("the raw device");
    let (place, alone) = (dir.subdir("device")?, dir.subdir("flush")?);
    let rate = baseline::device_mib_per_s(&place, setting.workload, setting.payload);
    let flush = baseline::flush_latencies(&alone, setting.payload);
    Ok(RawDevice {
        mib_per_s: unless_stopped(rate)?,
        flush_us: unless_stopped(flush)?.map(|found| found.p50().as_nanos() as f64 / 1000.0),
        no_room: false,
    })
}

/// Nothing, if the user stopped it: what there is already is kept.
fn unless_stopped<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Err(error) if error.is::<Interrupted>() => Ok(None),
        result => result.map(Some),
    }
}
