//! What a claim is made of: a sentence, arms, rules, guards, and a function that makes the arms ready.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::lens::Lens;
use super::rule::{Figure, Rule};
use crate::board::Board;
use crate::cores::Cores;
use crate::distance::RoundTrips;
use crate::payload::Payload;
use crate::run::backend::Counters;
use crate::run::machine::Machine;
use crate::sample::Sample;
use crate::site::Site;

/// A claim as an experiment.
#[derive(Debug)]
pub struct Claim {
    /// Stable name.
    pub name: &'static str,
    /// What is claimed, so that it can be wrong.
    pub sentence: &'static str,
    /// Who says so.
    pub source: &'static str,
    /// Why it should be so.
    pub mechanism: &'static str,
    /// Where it ends, and what is the bound from there on.
    pub ends: &'static str,
    /// What its picture shows.
    pub headline: Figure,
    /// What is measured, in the order of the picture.
    pub arms: &'static [Arm],
    /// When it holds. The first one's ratio is the claim's.
    pub rules: &'static [Rule],
    /// What could fool the experiment.
    pub guards: &'static [Guard],
    /// How long an arm runs in a round of `--quick`, what it makes ready included: long enough that it shows what it
    /// is, and no longer, since twice the rounds tell more than rounds of twice the length.
    pub slice: Duration,
    /// Most bytes on disk at once.
    pub space_bytes: u64,
    /// Makes the arms ready. Called on a thread that is not pinned.
    pub prepare: for<'a> fn(&mut Stage<'a>) -> Result<Ready<'a>>,
}

/// One of the things compared.
#[derive(Clone, Copy, Debug)]
pub struct Arm {
    /// Stable name, unique in its claim.
    pub name: &'static str,
    /// What it stands beside: arms of one group are drawn together.
    pub group: &'static str,
    /// Its name within the group.
    pub label: &'static str,
    /// What exactly it does.
    pub about: &'static str,
}

impl Arm {
    /// One.
    pub const fn new(
        name: &'static str,
        group: &'static str,
        label: &'static str,
        about: &'static str,
    ) -> Self {
        Self { name, group, label, about }
    }
}

/// Something that could fool an experiment.
#[derive(Clone, Copy, Debug)]
pub struct Guard {
    /// What.
    pub what: &'static str,
    /// How it is excluded.
    pub how: &'static str,
}

/// How long an experiment takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Its name.
    pub name: &'static str,
    /// How many times as long as [`Claim::slice`] a slice is.
    pub stretch: u32,
    /// Fewest and most rounds that are measured, in each of which every arm runs once.
    pub rounds: (usize, usize),
    /// The whole time of one claim, with preparing and removing.
    pub time: Duration,
}

impl Effort {
    /// All claims in about five minutes.
    pub const QUICK: Self =
        Self { name: "quick", stretch: 1, rounds: (7, 25), time: Duration::from_secs(18) };

    /// In about forty.
    pub const FULL: Self =
        Self { name: "full", stretch: 4, rounds: (15, 45), time: Duration::from_secs(165) };

    /// Whether there is time for what takes long to make.
    pub fn is_full(&self) -> bool {
        self.time >= Self::FULL.time
    }

    /// As many rounds as `time` has room for with `arms` slices of `slice` each, and a round before them. An odd
    /// number, so that the median is a round's.
    pub fn rounds_in(&self, time: Duration, arms: usize, slice: Duration) -> usize {
        let round = (slice * self.stretch).as_secs_f64() * arms.max(1) as f64;
        let room = (time.as_secs_f64() / round.max(f64::MIN_POSITIVE)) as usize;
        let (fewest, most) = self.rounds;
        room.saturating_sub(1).clamp(fewest, most).saturating_sub(1) | 1
    }
}

/// Where a claim's arms are made ready.
#[derive(Debug)]
pub struct Stage<'a> {
    /// Its own directory, removed after.
    pub dir: PathBuf,
    /// What is appended.
    pub payload: &'a Payload,
    /// How much time there is.
    pub effort: Effort,
    /// Which core does what.
    pub cores: Cores,
    /// What is laid over slices that are recorded.
    pub lens: Lens,
}

impl Stage<'_> {
    /// A directory below the claim's.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn subdir(&self, name: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        std::fs::create_dir(&path)?;
        Ok(path)
    }

    /// A board for up to `clients` clients.
    pub fn board(&self, clients: u32) -> &'static Board {
        Board::leaked(clients)
    }

    /// What the processors and the disk do meanwhile.
    pub fn meter(&self) -> Meter {
        Meter { machine: Machine::of(&self.dir), lens: self.lens.clone() }
    }
}

/// Runs an arm for the time it is given, warm-up and all.
pub type Run<'a> = Box<dyn FnMut(Duration) -> Result<Slice> + 'a>;

/// Arms that are ready.
#[derive(Default)]
pub struct Ready<'a> {
    /// By name.
    pub runs: Vec<(&'static str, Run<'a>)>,
    /// Those that can't run here, and why.
    pub absent: Vec<(&'static str, String)>,
    /// What to know before the figures are quoted.
    pub notes: Vec<String>,
    /// Why none can.
    pub not_here: Option<String>,
}

impl<'a> Ready<'a> {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// None yet, with what is to be known of this engine.
    pub fn of_engine(site: &Site) -> Self {
        let mut ready = Self::default();
        if let Some(reason) = site.fallback() {
            ready.notes.push(format!(
                "NO io_uring: {reason}; the engine went through plain system calls on threads, \
                 and these are not its figures"
            ));
        }
        if !site.is_direct() {
            ready.notes.push(
                "the file system does not take O_DIRECT: the engine went through the page cache"
                    .to_owned(),
            );
        }
        ready
    }

    /// The claim can't be measured here.
    pub fn not_here(why: impl Into<String>) -> Self {
        Self { not_here: Some(why.into()), ..Self::default() }
    }

    /// Adds an arm.
    pub fn arm(&mut self, name: &'static str, run: impl FnMut(Duration) -> Result<Slice> + 'a) {
        self.runs.push((name, Box::new(run)));
    }

    /// Says that an arm can't run here.
    pub fn absent(&mut self, name: &'static str, why: impl Into<String>) {
        self.absent.push((name, why.into()));
    }
}

/// What one slice of an arm came to.
#[derive(Clone, Debug)]
pub struct Slice {
    /// Rates and latencies.
    pub sample: Sample,
    /// Cores' worth of processor time of the whole process, clients included.
    pub cpu_cores: Option<f64>,
    /// Bytes that the disk took meanwhile, whoever wrote them.
    pub device_bytes: Option<u64>,
    /// How far the clients' core and the disk's were apart.
    pub round_trips: RoundTrips,
    /// Figures of the arm's own.
    pub figures: Vec<(&'static str, f64)>,
}

impl Slice {
    /// With rates and latencies alone.
    pub fn of(sample: Sample) -> Self {
        let round_trips = RoundTrips::default();
        Self { sample, cpu_cores: None, device_bytes: None, round_trips, figures: Vec::new() }
    }

    /// With a figure of the arm's own.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: f64) -> Self {
        self.figures.push((name, value));
        self
    }
}

/// Measures what a slice costs.
#[derive(Clone, Debug)]
pub struct Meter {
    machine: Machine,
    lens: Lens,
}

impl Meter {
    /// Runs `slice` and adds what it cost, its warm-up included, which does the same work.
    ///
    /// # Errors
    /// Those of `slice`.
    pub fn around(&self, slice: impl FnOnce() -> Result<Sample>) -> Result<Slice> {
        let (before, begin) = (self.machine.now(Counters::default()), Instant::now());
        let sample = self.lens.over(|within| match within {
            Some(within) => within.during(slice),
            None => slice(),
        })?;
        let elapsed = begin.elapsed();
        let after = self.machine.now(Counters::default());
        let cost = self.machine.between(&before, &after, elapsed, 0);
        let (cpu_cores, device_bytes) = (Some(cost.cpu_cores), cost.device_bytes);
        Ok(Slice { cpu_cores, device_bytes, ..Slice::of(sample) })
    }
}
