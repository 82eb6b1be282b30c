//! What `claims` prints with `--json`, and writes as `summary.json`. Its fields are described in `docs/json.md`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::claim::Slice;
use super::conduct::{Conducted, Measured};
use super::lens::Seen;
use super::rule::{Figure, Finding, Judged, Outcome};
use crate::distance::RoundTrips;
use crate::env::Env;
use crate::histogram::Latencies;
use crate::payload::About;
use crate::run::result::{Latency, State};
use crate::stats::{median, spread};
use crate::textfile;
use crate::usage::usage;

/// Version of the document. A field may be added under the same number; none is removed or changes its meaning.
pub const SCHEMA: u32 = 1;

/// What [`Document::kind`] says.
pub const KIND: &str = "claims";

/// The whole document.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Document {
    /// [`SCHEMA`].
    pub schema: u32,
    /// [`KIND`].
    pub kind: String,
    /// How it ended.
    pub state: State,
    /// The command line.
    pub command: String,
    /// When it began, in UTC.
    pub started: String,
    /// The machine's name.
    pub host: String,
    /// `quick` or `full`.
    pub effort: String,
    /// What the order of the arms in each round was drawn with.
    pub seed: u64,
    /// The machine.
    pub env: Env,
    /// The payload.
    pub payload: About,
    /// Who else used the processors; null where the system does not say.
    pub neighbours: Option<Value>,
    /// Wall time of the run.
    pub seconds: f64,
    /// The claims, in the order in which they ran.
    pub claims: Vec<Entry>,
    /// What to know before the figures are quoted.
    pub notes: Vec<String>,
    /// Where all of it lies.
    pub directory: Option<PathBuf>,
}

/// One claim.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// What is claimed.
    pub sentence: String,
    /// What was found.
    pub verdict: Finding,
    /// Which comparisons came to what, or why there are none.
    pub why: String,
    /// The first comparison's ratio.
    pub ratio: Option<f64>,
    /// Where it lies with 95 % confidence.
    pub interval: Option<(f64, f64)>,
    /// All comparisons.
    pub comparisons: Vec<Comparison>,
    /// Which figure of the arms the picture shows.
    pub headline: String,
    /// The arms.
    pub arms: Vec<ArmEntry>,
    /// Arms of comparisons that do not hold, where their time goes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<Profile>,
    /// Whole rounds.
    pub rounds: usize,
    /// Wall time.
    pub seconds: f64,
    /// What to know before the figures are quoted.
    pub notes: Vec<String>,
}

/// One comparison.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Comparison {
    /// Under which circumstances.
    pub when: String,
    /// The arm that the claim is about.
    pub of: String,
    /// The arm it is held against.
    pub over: String,
    /// What is compared.
    pub figure: String,
    /// Where the ratio must lie.
    pub bound: String,
    /// The median of the rounds' ratios.
    pub ratio: Option<f64>,
    /// Where it lies with 95 % confidence.
    pub interval: Option<(f64, f64)>,
    /// The ratio of each round that counts.
    pub ratios: Vec<f64>,
    /// Rounds that do not count, because the cores were not as far apart in both arms, or farther than in others.
    #[serde(default)]
    pub left_out: usize,
    /// The median ratio of rounds with the cores far apart, where near ones count.
    pub far_ratio: Option<f64>,
    /// What it came to.
    pub outcome: Outcome,
}

/// One arm.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ArmEntry {
    /// Its name.
    pub name: String,
    /// What it stands beside.
    pub group: String,
    /// Its name within the group.
    pub label: String,
    /// What it does.
    pub about: String,
    /// Why it did not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absent: Option<String>,
    /// The headline figure of each round.
    pub rounds: Vec<f64>,
    /// How far the clients' core and the log's were apart before and after each round's slice: a cache line there and
    /// back, in nanoseconds.
    #[serde(default)]
    pub round_trips_ns: Vec<RoundTrips>,
    /// Its median, least and most, for people.
    pub told: String,
    /// Median over the rounds.
    pub records_per_s: Option<f64>,
    /// Median over the rounds.
    pub mib_per_s: Option<f64>,
    /// Over all rounds' requests together.
    pub latency_us: Latency,
    /// Median over the rounds: cores' worth of time of the process.
    pub cpu_cores: Option<f64>,
    /// Sum over the rounds: bytes that the disk took meanwhile.
    pub device_bytes: Option<u64>,
    /// Largest over smallest rate.
    pub spread: Option<f64>,
    /// Medians of figures of its own.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub figures: serde_json::Map<String, Value>,
}

/// An arm that ran once more under `perf`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Profile {
    /// Its name.
    pub arm: String,
    /// What it came to meanwhile.
    pub records_per_s: f64,
    /// The same.
    pub mib_per_s: f64,
    /// Cores' worth of time of the process.
    pub cpu_cores: f64,
    /// Samples that the shares are of.
    pub samples: u64,
    /// Where the time went, the largest share first.
    pub areas: Vec<AreaShare>,
}

/// A part of the program or of the kernel.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AreaShare {
    /// Its name.
    pub name: String,
    /// Whether it is the kernel's.
    pub kernel: bool,
    /// Of the arm's processor time.
    pub share: f64,
}

impl Profile {
    fn of(seen: &Seen) -> Self {
        let (tally, sample) = (&seen.tally, &seen.slice.sample);
        let total = tally.total().max(f64::MIN_POSITIVE);
        let mut areas: Vec<AreaShare> = tally
            .areas
            .iter()
            .map(|(area, share)| AreaShare {
                name: area.name.clone(),
                kernel: area.kernel,
                share: share.weight / total,
            })
            .collect();
        areas.sort_by(|a, b| b.share.total_cmp(&a.share));
        Self {
            arm: seen.arm.to_owned(),
            records_per_s: sample.records_per_s(),
            mib_per_s: sample.mib_per_s(),
            cpu_cores: seen.slice.cpu_cores.unwrap_or_default(),
            samples: tally.samples,
            areas,
        }
    }
}

/// The document in a run's directory; none if the directory is not one of `claims`.
///
/// # Errors
/// If it is of another schema, or can't be read.
pub fn read(dir: &Path) -> Result<Option<Document>> {
    let path = dir.join("summary.json");
    let Ok(text) = textfile::read(&path) else { return Ok(None) };
    let Ok(value) = serde_json::from_str::<Value>(&text) else { return Ok(None) };
    if value["kind"] != KIND {
        return Ok(None);
    }
    if value["schema"] != SCHEMA {
        return Err(usage(format!(
            "{}: schema {}, and this tool reads {SCHEMA}; use the tool that wrote it, or run \
             again",
            path.display(),
            value["schema"]
        )));
    }
    let document = serde_json::from_value(value);
    document.map(Some).with_context(|| format!("{}: not a document of claims", path.display()))
}

impl Document {
    /// As printed.
    ///
    /// # Errors
    /// None that can be met: it holds strings and numbers.
    pub fn text(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self).context("strings and numbers only")? + "\n")
    }
}

impl Entry {
    /// Of an experiment.
    pub fn of(conducted: &Conducted) -> Self {
        let Conducted { claim, finding, judged, arms, .. } = conducted;
        let first = judged.first();
        Self {
            name: claim.name.to_owned(),
            sentence: claim.sentence.to_owned(),
            verdict: *finding,
            why: conducted.why.clone(),
            ratio: first.and_then(|judged| judged.ratio),
            interval: first.and_then(|judged| judged.interval),
            comparisons: judged.iter().map(Comparison::of).collect(),
            headline: claim.headline.told().to_owned(),
            arms: arms.iter().map(|arm| ArmEntry::of(arm, claim.headline)).collect(),
            profiles: conducted.seen.iter().map(Profile::of).collect(),
            rounds: conducted.rounds,
            seconds: conducted.seconds,
            notes: conducted.notes.clone(),
        }
    }
}

impl Comparison {
    fn of(judged: &Judged) -> Self {
        let rule = &judged.rule;
        Self {
            when: rule.when.to_owned(),
            of: rule.of.to_owned(),
            over: rule.over.to_owned(),
            figure: rule.figure.name().to_owned(),
            bound: rule.bound.to_string(),
            ratio: judged.ratio,
            interval: judged.interval,
            ratios: judged.ratios.clone(),
            left_out: judged.left_out,
            far_ratio: judged.far_ratio,
            outcome: judged.outcome,
        }
    }
}

impl ArmEntry {
    fn of(measured: &Measured, headline: Figure) -> Self {
        let Measured { arm, slices, absent } = measured;
        let mut latencies = Latencies::new();
        for slice in slices {
            latencies.merge(&slice.sample.latencies);
        }
        let rates: Vec<f64> = slices.iter().map(|slice| slice.sample.records_per_s()).collect();
        let rounds: Vec<f64> = slices.iter().filter_map(|slice| headline.of(slice)).collect();
        let told = median(rounds.iter().copied()).map(|value| headline.show(value));
        let bytes: Option<Vec<u64>> = slices.iter().map(|slice| slice.device_bytes).collect();
        Self {
            name: arm.name.to_owned(),
            group: arm.group.to_owned(),
            label: arm.label.to_owned(),
            about: arm.about.to_owned(),
            absent: absent.clone(),
            rounds,
            round_trips_ns: slices.iter().map(|slice| slice.round_trips).collect(),
            told: told.unwrap_or_default(),
            records_per_s: median(rates.iter().copied()),
            mib_per_s: median(slices.iter().map(|slice| slice.sample.mib_per_s())),
            latency_us: Latency::of(&latencies),
            cpu_cores: median(slices.iter().filter_map(|slice| slice.cpu_cores)),
            device_bytes: bytes.filter(|bytes| !bytes.is_empty()).map(|bytes| bytes.iter().sum()),
            spread: spread(&rates),
            figures: figures(slices),
        }
    }
}

fn figures(slices: &[Slice]) -> serde_json::Map<String, Value> {
    let Some(first) = slices.first() else { return serde_json::Map::new() };
    let of = |slice: &Slice, name: &str| {
        slice.figures.iter().find(|(own, _)| *own == name).map(|(_, value)| *value)
    };
    let named = first.figures.iter().filter_map(|&(name, _)| {
        let value = median(slices.iter().filter_map(|slice| of(slice, name)))?;
        Some((name.to_owned(), Value::from(value)))
    });
    named.collect()
}
