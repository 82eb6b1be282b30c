//! Goes through a plan in rounds. What is done is what lies in the sweep's directory: a stop, or a kill, loses the
//! repeat under way and nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ringmain::types::FlushPolicy;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::plan::{Cell, Estimate, Plan, repeat_time};
use super::screen::settings;
use crate::env::Env;
use crate::interrupt;
use crate::json::command_line;
use crate::neighbours::{Neighbours, Watch};
use crate::output::tell;
use crate::payload::Payload;
use crate::run::backends::backend;
use crate::run::baseline;
use crate::run::command::{RawDevice, Scene, payload};
use crate::run::folder::{self, Folder};
use crate::run::live::Live;
use crate::run::repeat::{One, Setting};
use crate::run::result::{Document, State};
use crate::run::values::{BackendName, Source};
use crate::stats::median;
use crate::workdir::WorkDir;

/// The file with what raw devices did.
const DEVICES: &str = "devices.json";

/// A repeat, kept until all of its cell's are there and their histograms are merged.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    one: One,
    payload: Value,
    neighbours: Option<Neighbours>,
}

/// A raw device, as cells of one data directory and one kind of ack have it beside them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Raw {
    dir: PathBuf,
    durable: bool,
    /// In each round.
    mib_per_s: Vec<f64>,
}

/// Where cells put their data.
pub struct Site {
    dir: PathBuf,
    work: WorkDir,
    env: Env,
}

/// What is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Look at a raw device.
    Device(usize),
    /// Measure a cell once.
    Cell(usize),
}

/// How it ended.
#[derive(Debug, Default)]
pub struct Ended {
    /// Whether the user stopped it.
    pub interrupted: bool,
    /// Cells that could not be measured, by number, and why.
    pub failed: Vec<(u32, String)>,
}

/// A sweep under way.
pub struct Sweep<'a> {
    folder: &'a Folder,
    plan: &'a Plan,
    sites: Vec<Site>,
    raw: Vec<Raw>,
    /// The payload of the cell before: often that of the next.
    payload: Option<(Source, Payload)>,
    estimate: Estimate,
}

/// Takes over a plan's data directories, and what a sweep that was killed left in them.
///
/// # Errors
/// A usage error if one of them can't be worked in.
pub fn sites(plan: &Plan) -> Result<Vec<Site>> {
    let mut sites: Vec<Site> = Vec::new();
    for cell in &plan.cells {
        let dir = plan.data_dir(cell);
        if sites.iter().all(|site| site.dir != dir) {
            let work = WorkDir::create(Some(dir), false)?;
            let env = Env::capture(work.path());
            sites.push(Site { dir: dir.to_owned(), work, env });
        }
    }
    Ok(sites)
}

impl Site {
    /// The machine, with this directory's disk.
    pub fn env(&self) -> &Env {
        &self.env
    }
}

impl<'a> Sweep<'a> {
    /// A sweep whose results are in `folder`, as far as there are any.
    ///
    /// # Errors
    /// If what is there can't be read.
    pub fn open(folder: &'a Folder, plan: &'a Plan, sites: Vec<Site>) -> Result<Self> {
        let mut raw: Vec<Raw> = match fs::read_to_string(folder.path().join(DEVICES)) {
            Ok(text) => {
                serde_json::from_str(&text).with_context(|| format!("{DEVICES} is damaged"))?
            }
            Err(_) => Vec::new(),
        };
        for cell in plan.cells.iter().filter(|cell| cell.workload.backend != BackendName::Null) {
            let (dir, durable) = (plan.data_dir(cell).to_owned(), is_durable(cell));
            if raw.iter().all(|raw| (&raw.dir, raw.durable) != (&dir, durable)) {
                raw.push(Raw { dir, durable, mib_per_s: Vec::new() });
            }
        }
        Ok(Self { folder, plan, sites, raw, payload: None, estimate: Estimate::default() })
    }

    /// The steps that are left: in each round first the raw devices, then all cells in an order of its own.
    fn left(&self) -> Vec<(u32, Step)> {
        let mut left = Vec::new();
        let whole: Vec<bool> =
            self.plan.cells.iter().map(|cell| is_complete(self.folder, cell)).collect();
        for round in 1..=self.plan.rounds {
            let cells =
                self.plan.order(round).into_iter().filter(|&nth| {
                    !whole[nth] && self.kept(&self.plan.cells[nth], round).is_none()
                });
            let cells: Vec<_> = cells.map(|nth| (round, Step::Cell(nth))).collect();
            let unseen =
                (0..self.raw.len()).filter(|&nth| self.raw[nth].mib_per_s.len() < round as usize);
            if !cells.is_empty() {
                left.extend(unseen.map(|nth| (round, Step::Device(nth))));
            }
            left.extend(cells);
        }
        left
    }

    /// About how long what is left will take, and how many repeats that are.
    pub fn time_left(&self) -> (Duration, usize) {
        let left = self.left();
        let repeats = left.iter().filter(|(_, step)| matches!(step, Step::Cell(_))).count();
        (self.time_of(&left), repeats)
    }

    fn time_of(&self, steps: &[(u32, Step)]) -> Duration {
        let cell = |(_, step): &(u32, Step)| match step {
            Step::Cell(nth) => Some(&self.plan.cells[*nth]),
            Step::Device(_) => None,
        };
        let cells = steps.iter().filter_map(cell);
        let devices = steps.iter().filter(|step| cell(step).is_none()).count();
        self.estimate.left(cells, devices as u32)
    }

    /// Measures what is left.
    ///
    /// # Errors
    /// If results can't be written, or a raw device can't be measured. A cell that fails is told, and the others go on.
    pub fn run(mut self, quiet: bool) -> Result<Ended> {
        let steps = self.left();
        let mut ended = Ended::default();
        let mut live = Live::new(self.time_of(&steps), quiet);
        let plan = self.plan;
        for (done, &(round, step)) in steps.iter().enumerate() {
            if interrupt::asked() {
                break;
            }
            live.replan(self.time_of(&steps[done..]));
            let place = format!("{} of {}, round {round}", done + 1, steps.len());
            let result = match step {
                Step::Device(nth) => {
                    let _part = live.part(format!("{place}: the raw device"));
                    self.device(nth)
                }
                Step::Cell(nth) => {
                    let cell = &plan.cells[nth];
                    if ended.failed.iter().any(|(number, _)| *number == cell.number) {
                        continue;
                    }
                    let part = live.part(format!("{place}: {}", settings(&cell.settings)));
                    let repeat = self.repeat(cell, round, part);
                    match repeat {
                        Err(error) if !interrupt::asked() => {
                            live.clear();
                            tell(&format!("ringmain-bench: cell {}: {error:#}", cell.number));
                            ended.failed.push((cell.number, format!("{error:#}")));
                            Ok(())
                        }
                        Err(_) => Ok(()),
                        Ok(()) => self.summarise(cell),
                    }
                }
            };
            if !interrupt::asked() {
                result.inspect_err(|_| live.clear())?;
            }
        }
        live.clear();
        ended.interrupted = interrupt::asked();
        Ok(ended)
    }

    fn device(&mut self, nth: usize) -> Result<()> {
        let Raw { dir, durable, .. } = &self.raw[nth];
        let alike = |cell: &&Cell| self.plan.data_dir(cell) == dir && is_durable(cell) == *durable;
        let cell = self.plan.cells.iter().find(alike).context("a cell that stands beside it")?;
        let payload =
            loaded(&mut self.payload, &cell.workload.payload, || payload(&cell.workload))?;
        let work = &mut site(&mut self.sites, dir).work;
        let place = work.subdir("device")?;
        let measured = baseline::device_mib_per_s(&place, &cell.workload, payload);
        work.remove_subdir("device")?;
        self.raw[nth].mib_per_s.push(measured?);
        Ok(self.folder.put(DEVICES, &serde_json::to_string_pretty(&self.raw)?)?)
    }

    /// Measures a cell once and keeps what came of it, unless the user stopped that.
    fn repeat(&mut self, cell: &Cell, round: u32, live: Live) -> Result<()> {
        let begin = Instant::now();
        let own = self.folder.path().join(&cell.directory);
        fs::create_dir_all(&own).with_context(|| format!("cannot make {}", own.display()))?;
        let log = own.join(log_name(round));
        if log.exists() {
            fs::remove_file(&log).with_context(|| format!("cannot remove {}", log.display()))?;
        }
        let workload = &cell.workload;
        let payload = loaded(&mut self.payload, &workload.payload, || payload(workload))?;
        let backend = backend(workload.backend);
        let work = &mut site(&mut self.sites, self.plan.data_dir(cell)).work;
        let place = work.subdir("cell")?;
        let watch = Watch::begin();
        let setting = Setting { workload, backend: backend.as_ref(), payload, profiler: None };
        let one = setting.repeat(round, &place, Some(&log), live);
        work.remove_subdir("cell")?;
        let one = match one {
            Ok(one) if !interrupt::asked() => one,
            other => {
                // A log without its repeat would be taken for one.
                let _ = fs::remove_file(&log);
                return other.map(|_| ());
            }
        };
        let payload = serde_json::to_value(payload.about())?;
        let kept = Kept { one, payload, neighbours: watch.end() };
        Folder::at(own).put(&kept_name(round), &serde_json::to_string(&kept)?)?;
        self.estimate.learn(begin.elapsed().saturating_sub(repeat_time(cell)));
        Ok(())
    }

    /// A repeat that is done; nothing if it is not, or was damaged.
    fn kept(&self, cell: &Cell, round: u32) -> Option<Kept> {
        let path = self.folder.path().join(&cell.directory).join(kept_name(round));
        serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
    }

    /// Writes a cell's directory as `run` would, of the repeats that are done; the last one ends what was kept.
    fn summarise(&self, cell: &Cell) -> Result<()> {
        let (mut ones, mut logs, mut neighbours, mut about) = (Vec::new(), Vec::new(), None, None);
        for round in 1..=self.plan.rounds {
            let Some(kept) = self.kept(cell, round) else { continue };
            ones.push(kept.one);
            if let [first, .., last] = &mut ones[..] {
                first.absorb(last);
            }
            logs.push(Some(log_name(round)));
            neighbours = busier(neighbours, kept.neighbours);
            about = Some(kept.payload);
        }
        if ones.is_empty() {
            return Ok(());
        }
        let own = self.folder.path().join(&cell.directory);
        let file = own.join("workload.toml").display().to_string();
        let scene = Scene {
            workload: &cell.workload,
            command: command_line(
                ["ringmain-bench", "run", "--workload", &file].map(str::to_owned),
            ),
            started: &self.plan.started,
            env: self.env_of(cell),
            payload: about.unwrap_or_default(),
            neighbours,
        };
        let beside =
            |raw: &&Raw| raw.dir == self.plan.data_dir(cell) && raw.durable == is_durable(cell);
        let has_device = cell.workload.backend != BackendName::Null;
        let raw = self.raw.iter().find(beside).filter(|_| has_device);
        let device = raw.and_then(|raw| median(raw.mib_per_s.iter().copied()));
        let device = RawDevice { mib_per_s: device, ..RawDevice::default() };
        let document = scene.keep(&Folder::at(own.clone()), (&ones, &logs), &[], &device)?;
        if document.state == State::Complete {
            for round in 1..=self.plan.rounds {
                let path = own.join(kept_name(round));
                fs::remove_file(&path)
                    .with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
        Ok(())
    }

    fn env_of(&self, cell: &Cell) -> &Env {
        let dir = self.plan.data_dir(cell);
        self.sites.iter().find(|site| site.dir == dir).map_or(&self.sites[0].env, |site| &site.env)
    }
}

fn site<'a>(sites: &'a mut [Site], dir: &Path) -> &'a mut Site {
    sites.iter_mut().find(|site| site.dir == dir).expect("every data directory was opened")
}

/// Whether an ack means that a flush was waited for.
fn is_durable(cell: &Cell) -> bool {
    cell.workload.flush.0 == FlushPolicy::Group
}

/// The payload of the last cell, or another one in its place: two at a time would be a burden on the page cache.
fn loaded<'a>(
    held: &'a mut Option<(Source, Payload)>,
    source: &Source,
    load: impl FnOnce() -> Result<Payload>,
) -> Result<&'a Payload> {
    if held.as_ref().is_none_or(|(own, _)| own != source) {
        *held = None;
        *held = Some((source.clone(), load()?));
    }
    Ok(held.as_ref().map(|(_, payload)| payload).expect("it was put there"))
}

/// The one during which others used more of the processors.
fn busier(a: Option<Neighbours>, b: Option<Neighbours>) -> Option<Neighbours> {
    a.into_iter().chain(b).max_by(|a, b| a.others_cores.total_cmp(&b.others_cores))
}

fn kept_name(round: u32) -> String {
    format!("repeat-{round}.kept.json")
}

fn log_name(round: u32) -> String {
    format!("repeat-{round}.hlog")
}

/// What there is of a cell; nothing if it was not measured yet.
pub fn document(folder: &Folder, cell: &Cell) -> Option<Document> {
    folder::summary(&folder.path().join(&cell.directory)).ok()
}

fn is_complete(folder: &Folder, cell: &Cell) -> bool {
    document(folder, cell).is_some_and(|document| document.state == State::Complete)
}
