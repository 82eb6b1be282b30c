//! A workload: flags over a file over defaults, checked, and printed so that it can be run again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::builder::RangedI64ValueParser;
use clap::{Args, Command};
use ringmain::types::FlushPolicy;
use serde::{Deserialize, Serialize};

use super::values::{
    Arrival, BackendName, Bytes, Codec, Flush, Keys, Mode, Prepare, Rate, Seconds, Sizes, Source,
    name_of,
};
use crate::oracle::STAMP_BYTES;
use crate::textfile;
use crate::usage::usage;

/// Most batches in flight, all producers together: each has memory of its own.
pub const IN_FLIGHT_MAX: u32 = 65_536;

/// Most bytes of a record's value.
pub const RECORD_BYTES_MAX: u32 = 1 << 20;

/// Most bytes of a batch's values, before it is compressed: the engine takes no larger batch.
pub const BATCH_BYTES_MAX: u64 = 8 << 20;

/// Most pairs of a producer and a partition, each of which has a number to be counted by.
pub const LANES_MAX: u64 = 1 << 22;

/// Longest a repeat may be measured.
const SECONDS_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Least and most of what is counted, on the command line and in a file.
type Bounds = (u32, u32);
const PARTITIONS: Bounds = (1, 100_000);
const PRODUCERS: Bounds = (1, 4096);
const CONSUMERS: Bounds = (0, 64);
const IN_FLIGHT: Bounds = (1, 4096);
const BATCH_RECORDS: Bounds = (1, 100_000);
const REPEATS: Bounds = (1, 100);
const KILLS: Bounds = (0, 100);
const CORES: Bounds = (1, 256);

fn within((least, most): Bounds) -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(i64::from(least)..=i64::from(most))
}

/// Mean length that is assumed of a line of the payload, to tell how large batches are.
const LINE_BYTES: u64 = 200;

/// The settings of a run as they are given: on the command line, or in a file under the same names.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[command(next_help_heading = "Workload")]
pub struct Flags {
    /// Directory for the data: new, empty, or left by an earlier run; removed after
    /// [default: ringmain-data-PID in the working directory]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Partitions [default: 1]
    #[arg(long, value_name = "N", value_parser = within(PARTITIONS))]
    pub partitions: Option<u32>,
    /// Producers, each with a schedule of its own [default: 1]
    #[arg(long, value_name = "N", value_parser = within(PRODUCERS))]
    pub producers: Option<u32>,
    /// Consumers that read at the tail, each a share of the partitions [default: 0]
    #[arg(long, value_name = "N", value_parser = within(CONSUMERS))]
    pub consumers: Option<u32>,
    /// Most batches of a producer in flight [default: 16]
    #[arg(long, value_name = "N", value_parser = within(IN_FLIGHT))]
    pub in_flight: Option<u32>,
    /// Records a second, all producers together, or max: closed loop [default: max]
    #[arg(long, value_name = "N/s|max")]
    pub rate: Option<Rate>,
    /// constant, poisson, burst:BATCHES or step:FROM..TO:STEPS [default: constant]
    #[arg(long, value_name = "SHAPE")]
    pub arrival: Option<Arrival>,
    /// Records of a batch [default: 100]
    #[arg(long, value_name = "N", value_parser = within(BATCH_RECORDS))]
    pub batch_records: Option<u32>,
    /// Bytes of a record's value: lines, 100, 100..500, lognormal:MEDIAN:SIGMA or file:PATH
    /// [default: lines; 1KiB where the payload has none]
    #[arg(long, value_name = "SIZES")]
    pub record_bytes: Option<Sizes>,
    /// none, uniform:COUNT, zipf:COUNT or zipf:COUNT:SKEW; a key always goes to the same partition [default: none]
    #[arg(long, value_name = "KEYS")]
    pub keys: Option<Keys>,
    /// File or folder whose lines are the records, generated (log lines) or generated:RATIO [default: generated]
    #[arg(long, value_name = "PATH|KIND")]
    pub payload: Option<Source>,
    /// none, lz4, zstd or zstd:LEVEL, by the producer [default: none]
    #[arg(long, value_name = "CODEC")]
    pub codec: Option<Codec>,
    /// group, os, interval:TIME or interval:TIME:BYTES: what an ack means [default: group]
    #[arg(long, value_name = "POLICY")]
    pub flush: Option<Flush>,
    /// Past the page cache, or through it [default: direct; page_cache where the backend has no other way]
    #[arg(long, value_name = "MODE", value_enum, hide_possible_values = false)]
    pub write_mode: Option<Mode>,
    /// How space is made ready ahead [default: prezero]
    #[arg(long, value_name = "HOW", value_enum)]
    pub prepare: Option<Prepare>,
    /// Size of a segment [default: 1GiB]
    #[arg(long, value_name = "BYTES")]
    pub segment_bytes: Option<Bytes>,
    /// Measured time of a repeat [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub seconds: Option<Seconds>,
    /// Time before the count begins, in each repeat [default: 2s]
    #[arg(long, value_name = "TIME")]
    pub warmup: Option<Seconds>,
    /// Repeats, each in partitions of its own [default: 3]
    #[arg(long, value_name = "N", value_parser = within(REPEATS))]
    pub repeats: Option<u32>,
    /// What is measured [default: ringmain]
    #[arg(long, value_name = "NAME", value_enum)]
    pub backend: Option<BackendName>,
    /// Times that a child under the same load is killed, and what it had acked read back [default: 1; 0 for null]
    #[arg(long, value_name = "N", value_parser = within(KILLS))]
    pub kills: Option<u32>,
    /// Cores that the log may use, a shard each; the producers have one of their own [default: 1]
    #[arg(long, value_name = "N", value_parser = within(CORES))]
    pub cores: Option<u32>,
    /// Seed of schedule, sizes and keys: the same one gives the same run [default: 1]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Directory under which the results get one of their own [default: results]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// A workload with every setting decided. Its TOML is a workload file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Workload {
    /// Where the data goes; a directory of the process's own if it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// Partitions.
    pub partitions: u32,
    /// Producers.
    pub producers: u32,
    /// Consumers at the tail.
    pub consumers: u32,
    /// Most batches of a producer in flight.
    pub in_flight: u32,
    /// Records a second, all producers together.
    pub rate: Rate,
    /// When batches are due.
    pub arrival: Arrival,
    /// Records of a batch.
    pub batch_records: u32,
    /// Bytes of a value.
    pub record_bytes: Sizes,
    /// Keys.
    pub keys: Keys,
    /// Bytes of values.
    pub payload: Source,
    /// The producer's compression.
    pub codec: Codec,
    /// What an ack means.
    pub flush: Flush,
    /// Past the page cache or through it.
    pub write_mode: Mode,
    /// How space is made ready.
    pub prepare: Prepare,
    /// Size of a segment.
    pub segment_bytes: Bytes,
    /// Measured time of a repeat.
    pub seconds: Seconds,
    /// Time before it.
    pub warmup: Seconds,
    /// Repeats.
    pub repeats: u32,
    /// What is measured.
    pub backend: BackendName,
    /// Kills.
    #[serde(default)]
    pub kills: u32,
    /// Cores of the log.
    pub cores: u32,
    /// Seed.
    pub seed: u64,
    /// Where results go; `results` if it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out: Option<PathBuf>,
}

impl Default for Workload {
    fn default() -> Self {
        Flags::default().defaults()
    }
}

impl Flags {
    /// The settings of a workload file.
    ///
    /// # Errors
    /// A usage error if it can't be read, is no TOML, or holds a key or a value that is none.
    pub fn read(path: &Path) -> Result<Self> {
        let told = |what: String| usage(format!("--workload {}: {what}", path.display()));
        let text = textfile::read(path).map_err(|e| told(e.to_string()))?;
        Self::parse(&text).map_err(told)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let table: toml::Table = toml::from_str(text).map_err(brief)?;
        Self::check_keys(&table)?;
        toml::from_str(text).map_err(brief)
    }

    /// Checks that a file's keys are names of settings.
    ///
    /// # Errors
    /// In words, with the nearest name.
    pub fn check_keys(table: &toml::Table) -> Result<(), String> {
        let names = Self::names();
        for key in table.keys() {
            if !names.contains(key) {
                let nearest = names.iter().min_by_key(|name| distance(key, name));
                return Err(format!(
                    "unknown key '{key}'; did you mean '{}'? There are: {}",
                    nearest.map_or("", String::as_str),
                    names.join(", ")
                ));
            }
        }
        Ok(())
    }

    /// The names of all settings, in the order of the help.
    pub fn names() -> Vec<String> {
        let command = Self::augment_args(Command::new("names"));
        command.get_arguments().filter_map(|arg| arg.get_long().map(str::to_owned)).collect()
    }

    /// These, and where they say nothing, those of `under`.
    #[must_use]
    pub fn over(self, under: Self) -> Self {
        Self {
            dir: self.dir.or(under.dir),
            partitions: self.partitions.or(under.partitions),
            producers: self.producers.or(under.producers),
            consumers: self.consumers.or(under.consumers),
            in_flight: self.in_flight.or(under.in_flight),
            rate: self.rate.or(under.rate),
            arrival: self.arrival.or(under.arrival),
            batch_records: self.batch_records.or(under.batch_records),
            record_bytes: self.record_bytes.or(under.record_bytes),
            keys: self.keys.or(under.keys),
            payload: self.payload.or(under.payload),
            codec: self.codec.or(under.codec),
            flush: self.flush.or(under.flush),
            write_mode: self.write_mode.or(under.write_mode),
            prepare: self.prepare.or(under.prepare),
            segment_bytes: self.segment_bytes.or(under.segment_bytes),
            seconds: self.seconds.or(under.seconds),
            warmup: self.warmup.or(under.warmup),
            repeats: self.repeats.or(under.repeats),
            backend: self.backend.or(under.backend),
            kills: self.kills.or(under.kills),
            cores: self.cores.or(under.cores),
            seed: self.seed.or(under.seed),
            out: self.out.or(under.out),
        }
    }

    fn defaults(self) -> Workload {
        let payload = self.payload.unwrap_or(Source::Generated);
        let no_lines = matches!(payload, Source::Ratio(_));
        let sizes = if no_lines { Sizes::Fixed(1024) } else { Sizes::Lines };
        let seconds = |seconds| Seconds(Duration::from_secs(seconds));
        let backend = self.backend.unwrap_or(BackendName::Ringmain);
        Workload {
            dir: self.dir,
            partitions: self.partitions.unwrap_or(1),
            producers: self.producers.unwrap_or(1),
            consumers: self.consumers.unwrap_or(0),
            in_flight: self.in_flight.unwrap_or(16),
            rate: self.rate.unwrap_or(Rate::Max),
            arrival: self.arrival.unwrap_or(Arrival::Constant),
            batch_records: self.batch_records.unwrap_or(100),
            record_bytes: self.record_bytes.unwrap_or(sizes),
            keys: self.keys.unwrap_or(Keys::None),
            payload,
            codec: self.codec.unwrap_or(Codec(ringmain::batch::Compression::None)),
            flush: self.flush.unwrap_or(Flush(FlushPolicy::Group)),
            write_mode: self.write_mode.unwrap_or(backend.write_modes()[0]),
            prepare: self.prepare.unwrap_or(Prepare::Prezero),
            segment_bytes: self.segment_bytes.unwrap_or(Bytes(1 << 30)),
            seconds: self.seconds.unwrap_or(seconds(10)),
            warmup: self.warmup.unwrap_or(seconds(2)),
            repeats: self.repeats.unwrap_or(3),
            backend,
            kills: self.kills.unwrap_or(u32::from(backend != BackendName::Null)),
            cores: self.cores.unwrap_or(1),
            seed: self.seed.unwrap_or(1),
            out: self.out,
        }
    }

    /// Decides what is left open, and checks that all of it goes together.
    ///
    /// # Errors
    /// A usage error that names the settings that contradict each other.
    pub fn resolve(self) -> Result<Workload> {
        let workload = self.defaults();
        workload.check()?;
        Ok(workload)
    }
}

/// What is wrong with a file. A line of it that is shown may be as long as the file.
pub fn brief(error: toml::de::Error) -> String {
    const CHARS: usize = 200;
    let text = error.to_string();
    let lines = text.trim_end().lines().map(|line| match line.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{} ...", &line[..end]),
        None => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

impl Workload {
    /// A workload from its file and the flags over it.
    ///
    /// # Errors
    /// As [`Flags::read`] and [`Flags::resolve`].
    pub fn from_parts(file: Option<&Path>, flags: Flags) -> Result<Self> {
        let under = file.map(Flags::read).transpose()?.unwrap_or_default();
        flags.over(under).resolve()
    }

    /// The workload as a file that can be run again.
    ///
    /// # Errors
    /// If a path in it is not UTF-8.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).context("a path of the workload is not UTF-8")
    }

    /// The workload of such a file, in which every setting is decided.
    ///
    /// # Errors
    /// In words, if it is none.
    pub fn from_toml(text: &str) -> Result<Self> {
        Flags::parse(text).map_err(anyhow::Error::msg)?.resolve()
    }

    /// Batches in flight, all producers together.
    pub fn slots(&self) -> u32 {
        self.producers * self.in_flight
    }

    /// Upper bound of one batch's values, as far as it can be told before the payload is read.
    pub fn batch_bytes(&self) -> u64 {
        let record = match &self.record_bytes {
            Sizes::Lines | Sizes::File(_) => LINE_BYTES,
            Sizes::Fixed(bytes) | Sizes::Range(_, bytes) => u64::from(*bytes),
            Sizes::LogNormal { median, .. } => u64::from(*median),
        };
        record * u64::from(self.batch_records)
    }

    /// A short name for a directory: what is measured, and with what flush policy.
    pub fn name(&self) -> String {
        let flush = self.flush.to_string();
        let flush = flush.split(':').next().unwrap_or_default();
        let (backend, records) = (name_of(self.backend), self.batch_records);
        format!("{backend}-{flush}-p{}-b{records}", self.partitions)
    }

    fn check(&self) -> Result<()> {
        self.check_counts()?;
        self.check_load()?;
        self.check_sizes()?;
        self.check_backend()
    }

    /// What the command line refuses by itself may still stand in a file.
    fn check_counts(&self) -> Result<()> {
        let counts = [
            ("partitions", self.partitions, PARTITIONS),
            ("producers", self.producers, PRODUCERS),
            ("consumers", self.consumers, CONSUMERS),
            ("in-flight", self.in_flight, IN_FLIGHT),
            ("batch-records", self.batch_records, BATCH_RECORDS),
            ("repeats", self.repeats, REPEATS),
            ("kills", self.kills, KILLS),
            ("cores", self.cores, CORES),
        ];
        for (name, value, (least, most)) in counts {
            if !(least..=most).contains(&value) {
                return Err(usage(format!("--{name} {value}: from {least} to {most}")));
            }
        }
        Ok(())
    }

    fn check_load(&self) -> Result<()> {
        if self.rate == Rate::Max && self.arrival != Arrival::Constant {
            return Err(usage(format!(
                "--arrival {} needs a --rate: at max a batch is due when one is acked",
                self.arrival
            )));
        }
        if self.slots() > IN_FLIGHT_MAX {
            return Err(usage(format!(
                "--producers {} times --in-flight {} are more than {IN_FLIGHT_MAX} batches in flight",
                self.producers, self.in_flight
            )));
        }
        if u64::from(self.producers) * u64::from(self.partitions) > LANES_MAX {
            return Err(usage(format!(
                "--producers {} times --partitions {} are more than {LANES_MAX} sequences to keep apart",
                self.producers, self.partitions
            )));
        }
        if self.consumers > self.partitions {
            return Err(usage(format!(
                "--consumers {} are more than --partitions {}: each reads a share of them",
                self.consumers, self.partitions
            )));
        }
        if let Keys::Uniform(count) | Keys::Zipf { count, .. } = self.keys
            && count < self.partitions
        {
            return Err(usage(format!(
                "--keys {} are fewer keys than --partitions {}: some would stay empty",
                self.keys, self.partitions
            )));
        }
        if self.seconds.0.is_zero() || self.seconds.0 > SECONDS_MAX || self.warmup.0 > SECONDS_MAX {
            return Err(usage(format!(
                "--seconds {} --warmup {}: more than nothing, at most seven days",
                self.seconds, self.warmup
            )));
        }
        Ok(())
    }

    fn check_sizes(&self) -> Result<()> {
        if matches!((&self.record_bytes, &self.payload), (Sizes::Lines, Source::Ratio(_))) {
            return Err(usage(format!(
                "--record-bytes lines needs lines: --payload {} has none; give a size",
                self.payload
            )));
        }
        let stamp = STAMP_BYTES as u32;
        let out_of_bounds = |bytes: u32| !(stamp..=RECORD_BYTES_MAX).contains(&bytes);
        let outside = match self.record_bytes {
            Sizes::Fixed(bytes) => out_of_bounds(bytes),
            Sizes::Range(from, to) => out_of_bounds(from) || out_of_bounds(to),
            Sizes::LogNormal { median, .. } => out_of_bounds(median),
            Sizes::Lines | Sizes::File(_) => false,
        };
        if outside {
            return Err(usage(format!(
                "--record-bytes {}: a value has from {stamp} (its stamp, by which it is verified) to \
                 {RECORD_BYTES_MAX} bytes",
                self.record_bytes
            )));
        }
        if self.batch_bytes() > BATCH_BYTES_MAX {
            return Err(usage(format!(
                "--batch-records {} of --record-bytes {} are more than {} in a batch",
                self.batch_records,
                self.record_bytes,
                Bytes(BATCH_BYTES_MAX)
            )));
        }
        if self.segment_bytes.0 < 4 * self.batch_bytes() {
            return Err(usage(format!(
                "--segment-bytes {} holds fewer than four batches of about {} bytes",
                self.segment_bytes,
                self.batch_bytes()
            )));
        }
        Ok(())
    }

    fn check_backend(&self) -> Result<()> {
        if self.backend == BackendName::Null && self.consumers > 0 {
            return Err(usage("--backend null keeps nothing that --consumers could read"));
        }
        if self.backend == BackendName::Null && self.kills > 0 {
            return Err(usage("--backend null keeps nothing that --kills could look for"));
        }
        if self.backend == BackendName::Floor {
            self.check_floor()?;
        }
        let modes = self.backend.write_modes();
        if !modes.contains(&self.write_mode) {
            return Err(usage(format!(
                "--backend {} writes in one way; leave --write-mode out, or say --write-mode {}",
                name_of(self.backend),
                name_of(modes[0])
            )));
        }
        Ok(())
    }

    fn check_floor(&self) -> Result<()> {
        let of = |flag: &str, value: &dyn std::fmt::Display, only: &str| {
            Err(usage(format!(
                "--backend floor is one ring with one file: {flag} {value} does not apply; {only}"
            )))
        };
        if self.partitions > 1 {
            return of("--partitions", &self.partitions, "leave it out");
        }
        if self.cores > 1 {
            return of("--cores", &self.cores, "leave it out");
        }
        if matches!(self.flush.0, FlushPolicy::Interval { .. }) {
            return of("--flush", &self.flush, "take group or os");
        }
        Ok(())
    }
}

/// Levenshtein's distance: how many letters must change.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
#[path = "workload/tests.rs"]
mod tests;
