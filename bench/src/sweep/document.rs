//! What a sweep came to: the document of `sweep --json`. Described in `docs/json.md`.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::advice::{Advice, Effect, advice, effects};
use super::judge::{Ack, Group, Point, groups};
use super::lists::Setting;
use super::measure::Ended;
use super::plan::{Cell, Plan, Refused};
use crate::run::folder;
use crate::run::result::{Document as Run, Latency, SCHEMA, State};

/// What [`Document::kind`] says.
pub const KIND: &str = "sweep";

/// All of a sweep.
#[derive(Clone, Debug, Serialize)]
pub struct Document {
    /// The schema of `run`.
    pub schema: u32,
    /// [`KIND`].
    pub kind: &'static str,
    /// How it ended.
    pub state: State,
    /// The command line that began it.
    pub command: String,
    /// When it began, in UTC.
    pub started: String,
    /// The machine's name.
    pub host: String,
    /// Where all of it lies.
    pub directory: PathBuf,
    /// The names of what is varied.
    pub varied: Vec<String>,
    /// How often each cell was to be measured.
    pub rounds: u32,
    /// Every cell.
    pub cells: Vec<Entry>,
    /// Combinations that are no cell, and why.
    pub refused: Vec<Refused>,
    /// What each value does beside the first one.
    pub effects: Vec<Effect>,
    /// What to choose, for each kind of ack and each set of conditions.
    pub recommendations: Vec<Advice>,
}

/// One cell.
#[derive(Clone, Debug, Serialize)]
pub struct Entry {
    /// Its number.
    pub number: u32,
    /// What is varied, as it was typed.
    pub settings: Vec<Setting>,
    /// Its directory, as `run` writes one.
    pub directory: PathBuf,
    /// What its ack means.
    pub ack: Ack,
    /// Whether that is that it is on stable storage.
    pub durable: bool,
    /// Repeats that are there.
    pub repeats: usize,
    /// Its figures; null if it was not measured.
    pub figures: Option<Figures>,
    /// Whether none of its group has both more throughput and a lower p99.9.
    pub pareto: bool,
    /// Why it is not to be recommended, whatever its figures; null if nothing is wrong.
    pub doubt: Option<String>,
}

/// A cell's figures: those of its own `summary.json`.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Records acked a second: the median over the repeats.
    pub records_per_s: f64,
    /// Mebibytes of encoded batches a second.
    pub mib_per_s: f64,
    /// That beside the raw device.
    pub percent_of_device: Option<f64>,
    /// Whether the rate that was asked for was met; null in a closed loop.
    pub target_rate_met: Option<bool>,
    /// From the intended send time.
    pub latency_us: Latency,
    /// Whether every repeat was steady.
    pub steady: bool,
}

/// What was measured of a plan.
pub struct Measured<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The sweep's directory.
    pub directory: &'a Path,
    /// Each cell's document, in the plan's order; nothing for those that were not measured.
    pub runs: &'a [Option<Run>],
    /// How it ended.
    pub ended: &'a Ended,
}

impl<'a> Measured<'a> {
    /// The cells that were measured, in groups.
    pub fn groups(&self) -> Vec<Group<'a>> {
        let measured = self.plan.cells.iter().zip(self.runs);
        groups(measured.filter_map(|(cell, run)| Some((cell, run.as_ref()?))))
    }

    /// The document.
    pub fn document(&self) -> Document {
        let Self { plan, directory, runs, ended } = *self;
        let groups = self.groups();
        let points = || groups.iter().flat_map(|group| &group.points);
        let complete =
            runs.iter().all(|run| run.as_ref().is_some_and(|run| run.state == State::Complete));
        let state = match (complete, ended.interrupted) {
            (true, _) => State::Complete,
            (false, true) => State::Interrupted,
            (false, false) => State::Failed,
        };
        let entry = |cell: &Cell| {
            let point = points().find(|point| point.cell.number == cell.number);
            let failed = ended.failed.iter().find(|(number, _)| *number == cell.number);
            self.entry(cell, point, failed.map(|(_, why)| why.clone()))
        };
        Document {
            schema: SCHEMA,
            kind: KIND,
            state,
            command: plan.command.clone(),
            started: plan.started.clone(),
            host: folder::host(),
            directory: directory.to_owned(),
            varied: plan.varied.clone(),
            rounds: plan.rounds,
            cells: plan.cells.iter().map(entry).collect(),
            refused: plan.refused.clone(),
            effects: effects(&groups, &plan.varied),
            recommendations: groups.iter().filter_map(advice).collect(),
        }
    }

    fn entry(&self, cell: &Cell, point: Option<&Point<'_>>, failed: Option<String>) -> Entry {
        let result = point.map(|point| &point.document.result);
        let ack = Ack::of(&cell.workload);
        Entry {
            number: cell.number,
            settings: cell.settings.clone(),
            directory: self.directory.join(&cell.directory),
            ack,
            durable: ack == Ack::Durable,
            repeats: result.map_or(0, |result| result.repeats.len()),
            figures: result.map(|result| Figures {
                records_per_s: result.records_per_s,
                mib_per_s: result.mib_per_s,
                percent_of_device: result.percent_of_device,
                target_rate_met: result.target_rate_met,
                latency_us: result.latency_us.clone(),
                steady: result.steady,
            }),
            pareto: point.is_some_and(|point| point.is_front),
            doubt: failed.or_else(|| point?.doubt.clone()),
        }
    }
}
