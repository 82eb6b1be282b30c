//! What a sweep measures, and in what order: written down before the first cell, so that it can go on after a stop.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::lists::{Lists, Setting, flags_of};
use crate::env::Env;
use crate::random::Random;
use crate::run::folder::Folder;
use crate::run::result::SCHEMA;
use crate::run::values::Seconds;
use crate::run::workload::{Flags, Workload};
use crate::textfile;
use crate::usage::usage;

/// Most combinations of a sweep.
pub const CELLS_MAX: u64 = 2000;

/// The plan's file in a sweep's directory.
const FILE: &str = "plan.json";

/// What [`Plan::kind`] says.
const KIND: &str = "sweep_plan";

/// What a repeat takes besides its own time: space made ready, all read back, all taken away. A guess until one has
/// run.
const OVERHEAD: Duration = Duration::from_secs(2);

/// What the raw device takes in each round.
const DEVICE: Duration = Duration::from_secs(2);

/// A combination that is measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// Its number, from 1.
    pub number: u32,
    /// What is varied, as it was typed.
    pub settings: Vec<Setting>,
    /// All of it.
    pub workload: Workload,
    /// Its directory within the sweep's, as `run` writes one.
    pub directory: String,
}

/// A combination that is not measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// What is varied, as it was typed.
    pub settings: Vec<Setting>,
    /// Why.
    pub reason: String,
}

/// A sweep, decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The schema of `run`.
    pub schema: u32,
    /// Tells it from other documents.
    pub kind: String,
    /// The command line.
    pub command: String,
    /// When it began, in UTC.
    pub started: String,
    /// The directory that relative paths start from.
    pub working_directory: PathBuf,
    /// The data directory of cells that name none.
    pub data: PathBuf,
    /// The machine and the tool: a sweep goes on only where it began.
    pub env: Value,
    /// The names of what is varied.
    pub varied: Vec<String>,
    /// How often each cell is measured: once in each round.
    pub rounds: u32,
    /// What is measured.
    pub cells: Vec<Cell>,
    /// What is not.
    pub refused: Vec<Refused>,
}

impl Plan {
    /// All combinations of `lists`.
    ///
    /// # Errors
    /// A usage error if there are too many, or none that makes sense.
    pub fn of(lists: &Lists, command: String, started: String) -> Result<Self> {
        let count = lists.count()?;
        if count > CELLS_MAX {
            return Err(usage(format!(
                "{count} combinations; at most {CELLS_MAX} in a sweep: shorten the lists"
            )));
        }
        let varied = lists.varied();
        let (mut cells, mut refused) = (Vec::<Cell>::new(), Vec::new());
        for all in lists.combinations() {
            let settings: Vec<Setting> =
                all.iter().filter(|(name, _)| varied.contains(name)).cloned().collect();
            match (Flags { kills: Some(0), ..flags_of(&all)? }).resolve() {
                Err(error) => refused.push(Refused { settings, reason: error.to_string() }),
                Ok(workload) => {
                    let twin = cells.iter().find(|cell| cell.workload == workload);
                    if let Some(twin) = twin {
                        let reason = format!("the same as cell {}", twin.number);
                        refused.push(Refused { settings, reason });
                        continue;
                    }
                    let number = cells.len() as u32 + 1;
                    let directory = format!("cell-{number:04}-{}", workload.name());
                    cells.push(Cell { number, settings, workload, directory });
                }
            }
        }
        let Some(first) = cells.first() else {
            let reasons = refused.iter().map(|refused| refused.reason.as_str());
            let reasons = reasons.collect::<Vec<_>>().join("\n  ");
            return Err(usage(format!("no combination can be measured:\n  {reasons}")));
        };
        Ok(Self {
            schema: SCHEMA,
            kind: KIND.to_owned(),
            command,
            started,
            working_directory: std::env::current_dir().context("the working directory")?,
            data: PathBuf::from(format!("ringmain-data-{}", std::process::id())),
            env: Value::Null,
            varied,
            rounds: first.workload.repeats,
            cells,
            refused,
        })
    }

    /// Writes it to a sweep's directory.
    ///
    /// # Errors
    /// If that can't be written.
    pub fn save(&self, folder: &Folder) -> Result<()> {
        folder.put("command.txt", &format!("{}\n", self.command))?;
        Ok(folder.put(FILE, &(serde_json::to_string_pretty(self)? + "\n"))?)
    }

    /// The plan of a sweep's directory.
    ///
    /// # Errors
    /// A usage error if there is none, or it is of another schema.
    pub fn load(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let told = |what: &str| {
            usage(format!(
                "--resume {}: {what}; name a directory that sweep has written",
                dir.display()
            ))
        };
        let text = textfile::read(&path).map_err(|e| told(&format!("{FILE}: {e}")))?;
        let value: Value = serde_json::from_str(&text)
            .map_err(|e| told(&format!("{FILE} is no whole JSON document: {e}")))?;
        if value["kind"] != KIND || value["schema"] != SCHEMA {
            return Err(told(&format!(
                "a document of kind {} and schema {}, and this tool reads {KIND} and {SCHEMA}",
                value["kind"], value["schema"]
            )));
        }
        serde_json::from_value(value).map_err(|e| told(&format!("{FILE} is no plan: {e}")))
    }

    /// Checks that this is where the sweep began: figures of two machines, or of two builds, are not to be mixed.
    ///
    /// # Errors
    /// A usage error that says what is other.
    pub fn check_place(&self, env: &Env) -> Result<()> {
        let now = serde_json::to_value(env)?;
        for name in ["cpu", "cores", "memory_bytes", "kernel", "version", "revision", "debug_build"]
        {
            if self.env[name] != now[name] {
                return Err(usage(format!(
                    "--resume: {name} was {} when the sweep began and is {} now; begin a new sweep",
                    self.env[name], now[name]
                )));
            }
        }
        Ok(())
    }

    /// Where a cell's data goes.
    pub fn data_dir<'a>(&'a self, cell: &'a Cell) -> &'a Path {
        cell.workload.dir.as_deref().unwrap_or(&self.data)
    }

    /// The cells' places in [`Plan::cells`], in the order of a round, from 1: another one in each, so that a machine
    /// that gets slower favours none.
    pub fn order(&self, round: u32) -> Vec<usize> {
        let seed = self.cells.first().map_or(1, |cell| cell.workload.seed);
        let mut random = Random::new(seed.wrapping_mul(1_000_003).wrapping_add(u64::from(round)));
        let mut order: Vec<usize> = (0..self.cells.len()).collect();
        for last in (1..order.len()).rev() {
            order.swap(last, random.below(last as u32 + 1) as usize);
        }
        order
    }
}

/// The time of one repeat of a cell, as far as it is known before.
pub fn repeat_time(cell: &Cell) -> Duration {
    cell.workload.seconds.0 + cell.workload.warmup.0
}

/// About how long what is left takes.
#[derive(Clone, Copy, Debug)]
pub struct Estimate {
    overhead: Duration,
    ran: u32,
}

impl Default for Estimate {
    fn default() -> Self {
        Self { overhead: OVERHEAD, ran: 0 }
    }
}

impl Estimate {
    /// Learns from a repeat that took so long besides its own time.
    pub fn learn(&mut self, overhead: Duration) {
        let sum = if self.ran == 0 { Duration::ZERO } else { self.overhead * self.ran };
        self.ran += 1;
        self.overhead = (sum + overhead) / self.ran;
    }

    /// The time of these repeats, and of as many looks at raw devices.
    pub fn left<'a>(&self, repeats: impl Iterator<Item = &'a Cell>, devices: u32) -> Duration {
        repeats.map(|cell| repeat_time(cell) + self.overhead).sum::<Duration>() + DEVICE * devices
    }
}

/// A time as one says it: `40 s`, `12 min`, `3 h 20 min`.
pub fn spoken(time: Duration) -> String {
    let seconds = time.as_secs_f64().round() as u64;
    let minutes = (time.as_secs_f64() / 60.0).round() as u64;
    match seconds {
        0..=99 => format!("{seconds} s"),
        100..=5999 => format!("{minutes} min"),
        _ => format!("{} h {} min", minutes / 60, minutes % 60),
    }
}

/// A cell's measured time and warm-up, in words; cells may differ.
pub fn times(cells: &[Cell]) -> String {
    let of = |time: fn(&Workload) -> Seconds| {
        let all = || cells.iter().map(|cell| time(&cell.workload));
        match (all().min(), all().max()) {
            (Some(least), Some(most)) if least != most => format!("{least} to {most}"),
            (least, _) => least.map_or_else(String::new, |time| time.to_string()),
        }
    };
    format!("{} of warm-up and {} measured", of(|w| w.warmup), of(|w| w.seconds))
}

#[cfg(test)]
#[path = "plan/tests.rs"]
mod tests;
