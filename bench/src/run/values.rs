//! The values that a workload is made of, in the form in which they are typed, stored in a file and printed: what
//! is printed can be typed again.

use std::fmt::{self, Display};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ringmain::batch::Compression;
use ringmain::types::{FlushPolicy, WriteMode};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Most keys of a distribution: a table of them is held in memory.
pub const KEYS_MAX: u32 = 1 << 22;

/// Most batches of a burst.
pub const BURST_MAX: u32 = 100_000;

/// Most steps of a rate that changes.
pub const STEPS_MAX: u32 = 1000;

/// Text in a file as on the command line; a plain number may stand without quotes.
macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_any(Text)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

as_text!(Arrival, Bytes, Codec, Flush, Keys, Rate, Seconds, Sizes, Source);

struct Text;

impl Visitor<'_> for Text {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a number")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<String, E> {
        Ok(number.to_string())
    }
}

/// A size in bytes: `4096`, `64KiB`, `1MiB`, `2GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let told = || format!("'{text}' is no size; write 4096, 64KiB, 1MiB or 2GiB");
        let unit =
            UNITS.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)));
        let (digits, factor) = unit.unwrap_or_else(|| (text.strip_suffix('B').unwrap_or(text), 1));
        let number: u64 = digits.trim().parse().map_err(|_| told())?;
        number.checked_mul(factor).filter(|bytes| *bytes > 0).map(Self).ok_or_else(told)
    }
}

impl Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS.iter().find(|(_, factor)| self.0.is_multiple_of(*factor));
        match whole {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A time: `2`, `0.5`, `2s`, `500ms`, `250us`; without a unit, seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub Duration);

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let units = [("ms", 1e-3), ("us", 1e-6), ("s", 1.0)];
        let unit =
            units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)));
        let (digits, factor) = unit.unwrap_or((text, 1.0));
        let told = || format!("'{text}' is no time; write 2, 0.5s, 500ms or 250us");
        let number: f64 = digits.trim().parse().map_err(|_| told())?;
        Duration::try_from_secs_f64(number * factor).map(Self).map_err(|_| told())
    }
}

impl Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = self.0.as_micros();
        match us {
            us if us.is_multiple_of(1_000_000) => write!(f, "{}s", us / 1_000_000),
            us if us.is_multiple_of(1000) => write!(f, "{}ms", us / 1000),
            us => write!(f, "{us}us"),
        }
    }
}

/// How fast: a number of records a second, over all producers together, or as fast as acks come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// Closed loop: the next batch is due when a place in flight is free.
    Max,
    /// Open loop: records a second by schedule, whatever the target does.
    PerSecond(f64),
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        let number = text.strip_suffix("/s").unwrap_or(text);
        let (digits, factor) = match number.strip_suffix(['k', 'M']) {
            Some(digits) => (digits, if number.ends_with('k') { 1e3 } else { 1e6 }),
            None => (number, 1.0),
        };
        match digits.parse::<f64>() {
            Ok(rate) if rate > 0.0 && rate * factor <= 1e9 => Ok(Self::PerSecond(rate * factor)),
            _ => Err(format!("'{text}' is no rate; write 50000/s, 50k/s, or max")),
        }
    }
}

impl Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Max => f.write_str("max"),
            Self::PerSecond(rate) => write!(f, "{rate}/s"),
        }
    }
}

/// When batches are due, at a given mean rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arrival {
    /// Evenly spaced.
    Constant,
    /// Independent of each other: gaps are exponential.
    Poisson,
    /// So many batches of a producer at the same instant, then none until the mean rate is kept.
    Burst(u32),
    /// The rate goes from `from` times the mean to `to` times it, in `steps` equal steps over the measured time.
    Step {
        /// The first step's factor.
        from: f64,
        /// The last step's factor.
        to: f64,
        /// How many steps.
        steps: u32,
    },
}

impl FromStr for Arrival {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let told = || {
            format!(
                "'{text}' is no arrival; write constant, poisson, burst:BATCHES or step:FROM..TO:STEPS"
            )
        };
        let fields: Vec<&str> = text.split(':').collect();
        match fields.as_slice() {
            ["constant"] => Ok(Self::Constant),
            ["poisson"] => Ok(Self::Poisson),
            ["burst", count] => {
                let count = count.parse().ok().filter(|count| (2..=BURST_MAX).contains(count));
                count.map(Self::Burst).ok_or_else(told)
            }
            ["step", range, steps] => {
                let (from, to) = range.split_once("..").ok_or_else(told)?;
                let factor =
                    |text: &str| text.parse::<f64>().ok().filter(|f| (0.01..=100.0).contains(f));
                let steps = steps.parse().ok().filter(|steps| (2..=STEPS_MAX).contains(steps));
                let (from, to) = (factor(from).ok_or_else(told)?, factor(to).ok_or_else(told)?);
                Ok(Self::Step { from, to, steps: steps.ok_or_else(told)? })
            }
            _ => Err(told()),
        }
    }
}

impl Display for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant => f.write_str("constant"),
            Self::Poisson => f.write_str("poisson"),
            Self::Burst(count) => write!(f, "burst:{count}"),
            Self::Step { from, to, steps } => write!(f, "step:{from}..{to}:{steps}"),
        }
    }
}

/// How long a record's value is, the stamp of 16 bytes at its beginning included.
#[derive(Clone, Debug, PartialEq)]
pub enum Sizes {
    /// A line of the payload a record, behind the stamp.
    Lines,
    /// Always the same.
    Fixed(u32),
    /// Evenly between two bounds, both included.
    Range(u32, u32),
    /// Log-normal around a median, cut at 16 bytes and 1 MiB.
    LogNormal {
        /// The median, in bytes.
        median: u32,
        /// Standard deviation of the logarithm.
        sigma: f64,
    },
    /// One of the numbers in a file, a number a line, each as likely as the next.
    File(PathBuf),
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let told = || {
            format!(
                "'{text}' is no size of records; write lines, 100, 100..500, lognormal:MEDIAN:SIGMA or file:PATH"
            )
        };
        let bytes = |text: &str| {
            let bytes = text.parse::<Bytes>().ok()?.0;
            u32::try_from(bytes).ok()
        };
        if text == "lines" {
            return Ok(Self::Lines);
        }
        if let Some(path) = text.strip_prefix("file:") {
            return Ok(Self::File(path.into()));
        }
        if let Some(shape) = text.strip_prefix("lognormal:") {
            let (median, sigma) = shape.split_once(':').ok_or_else(told)?;
            let sigma = sigma.parse().ok().filter(|sigma| (0.0..=4.0).contains(sigma));
            let (median, sigma) = (bytes(median).ok_or_else(told)?, sigma.ok_or_else(told)?);
            return Ok(Self::LogNormal { median, sigma });
        }
        if let Some((from, to)) = text.split_once("..") {
            let (from, to) = (bytes(from).ok_or_else(told)?, bytes(to).ok_or_else(told)?);
            return if from <= to { Ok(Self::Range(from, to)) } else { Err(told()) };
        }
        bytes(text).map(Self::Fixed).ok_or_else(told)
    }
}

impl Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lines => f.write_str("lines"),
            Self::Fixed(bytes) => write!(f, "{bytes}"),
            Self::Range(from, to) => write!(f, "{from}..{to}"),
            Self::LogNormal { median, sigma } => write!(f, "lognormal:{median}:{sigma}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

/// Which key a record has. A key always goes to the same partition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Keys {
    /// None: batches take partitions in turn.
    None,
    /// So many, each as likely as the next.
    Uniform(u32),
    /// So many, the first ones far more often.
    Zipf {
        /// How many.
        count: u32,
        /// The exponent.
        skew: f64,
    },
}

/// YCSB's constant: the skew that most people mean by "zipf".
const SKEW_DEFAULT: f64 = 0.99;

impl FromStr for Keys {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let told = || {
            format!("'{text}' is no choice of keys; write none, uniform:COUNT or zipf:COUNT[:SKEW]")
        };
        let count = |text: &str| text.parse().ok().filter(|count| (1..=KEYS_MAX).contains(count));
        let skew = |text: &str| text.parse().ok().filter(|skew| (0.0..=5.0).contains(skew));
        match text.split(':').collect::<Vec<_>>().as_slice() {
            ["none"] => Ok(Self::None),
            ["uniform", keys] => count(keys).map(Self::Uniform).ok_or_else(told),
            ["zipf", keys] => {
                let count = count(keys).ok_or_else(told)?;
                Ok(Self::Zipf { count, skew: SKEW_DEFAULT })
            }
            ["zipf", keys, by] => {
                let (count, skew) = (count(keys).ok_or_else(told)?, skew(by).ok_or_else(told)?);
                Ok(Self::Zipf { count, skew })
            }
            _ => Err(told()),
        }
    }
}

impl Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Uniform(count) => write!(f, "uniform:{count}"),
            Self::Zipf { count, skew } => write!(f, "zipf:{count}:{skew}"),
        }
    }
}

/// Where the bytes of values come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// Generated log lines.
    Generated,
    /// Generated bytes that compress about so many times; 1 does not compress at all.
    Ratio(f64),
    /// The lines of a file, or of all files of a folder.
    Path(PathBuf),
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "generated" => Ok(Self::Generated),
            Some(("generated", ratio)) => {
                let ratio = ratio.parse().ok().filter(|ratio| (1.0..=20.0).contains(ratio));
                let told = || format!("'{text}': a ratio of compression lies between 1 and 20");
                ratio.map(Self::Ratio).ok_or_else(told)
            }
            _ if text.is_empty() => Err("give a path, generated, or generated:RATIO".to_owned()),
            _ => Ok(Self::Path(text.into())),
        }
    }
}

impl Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Generated => f.write_str("generated"),
            Self::Ratio(ratio) => write!(f, "generated:{ratio}"),
            Self::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

/// How the producer compresses a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codec(pub Compression);

impl FromStr for Codec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let told =
            || format!("'{text}' is no codec; write none, lz4, zstd or zstd:LEVEL (1 to 22)");
        match text.split(':').collect::<Vec<_>>().as_slice() {
            ["none"] => Ok(Self(Compression::None)),
            ["lz4"] => Ok(Self(Compression::Lz4)),
            ["zstd"] => Ok(Self(Compression::Zstd { level: 3 })),
            ["zstd", level] => {
                let level = level.parse().ok().filter(|level| (1..=22).contains(level));
                level.map(|level| Self(Compression::Zstd { level })).ok_or_else(told)
            }
            _ => Err(told()),
        }
    }
}

impl Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Compression::None => f.write_str("none"),
            Compression::Lz4 => f.write_str("lz4"),
            Compression::Zstd { level } => write!(f, "zstd:{level}"),
        }
    }
}

/// When what is appended is flushed, and so what an ack means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flush(pub FlushPolicy);

/// Bytes and records after which an interval ends early, where only its time is given.
const INTERVAL_BYTES: u64 = 64 << 20;
const INTERVAL_RECORDS: u64 = 1 << 40;

impl FromStr for Flush {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let told = || {
            format!(
                "'{text}' is no flush policy; write group, os, interval:10ms or interval:10ms:64MiB"
            )
        };
        let interval = |time: &str, bytes: u64| {
            let time = time.parse::<Seconds>().ok()?.0.as_millis();
            let ms = u32::try_from(time).ok().filter(|ms| *ms > 0)?;
            Some(Self(FlushPolicy::Interval { ms, bytes, messages: INTERVAL_RECORDS }))
        };
        match text.split(':').collect::<Vec<_>>().as_slice() {
            ["group"] => Ok(Self(FlushPolicy::Group)),
            ["os"] => Ok(Self(FlushPolicy::Os)),
            ["interval", time] => interval(time, INTERVAL_BYTES).ok_or_else(told),
            ["interval", time, bytes] => {
                let bytes = bytes.parse::<Bytes>().map_err(|_| told())?;
                interval(time, bytes.0).ok_or_else(told)
            }
            _ => Err(told()),
        }
    }
}

impl Display for Flush {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            FlushPolicy::Group => f.write_str("group"),
            FlushPolicy::Os => f.write_str("os"),
            FlushPolicy::Interval { ms, bytes, .. } => {
                write!(f, "interval:{ms}ms:{}", Bytes(bytes))
            }
        }
    }
}

/// Direct or through the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Mode {
    /// O_DIRECT: past the page cache
    Direct,
    /// Through the page cache
    PageCache,
}

impl Mode {
    /// As the engine names it.
    pub fn of_engine(self) -> WriteMode {
        match self {
            Self::Direct => WriteMode::Direct,
            Self::PageCache => WriteMode::PageCache,
        }
    }
}

/// How space is made ready before it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Prepare {
    /// Space is reserved, not written
    Fallocate,
    /// Zeros are written ahead
    Prezero,
    /// An append extends the file
    None,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
#[value(rename_all = "kebab-case")]
pub enum BackendName {
    /// The engine on io_uring
    Ringmain,
    /// The engine on plain system calls
    Sync,
    /// The least that durable appends can cost: one ring, one partition, O_DIRECT and RWF_DSYNC
    Floor,
    /// Threads with pwritev and a shared fdatasync, through the page cache
    Pwrite,
    /// io_uring through the page cache: a write linked to an fdatasync
    BufferedRing,
    /// The crate tokio-uring, a task a partition, through the page cache
    TokioUring,
    /// Acks at once and keeps nothing: the generator's own ceiling
    Null,
}

impl BackendName {
    /// The ways in which it can write; the first is its own.
    pub fn write_modes(self) -> &'static [Mode] {
        match self {
            Self::Ringmain | Self::Sync | Self::Null => &[Mode::Direct, Mode::PageCache],
            Self::Floor => &[Mode::Direct],
            Self::Pwrite | Self::BufferedRing | Self::TokioUring => &[Mode::PageCache],
        }
    }
}

/// A value's name as it is typed.
pub fn name_of<T: clap::ValueEnum>(value: T) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again<T: FromStr<Err = String> + Display + PartialEq + fmt::Debug>(texts: &[&str]) {
        for text in texts {
            let value: T = text.parse().expect(text);
            assert_eq!(value.to_string().parse::<T>().as_ref(), Ok(&value), "{text}");
        }
    }

    #[test]
    fn what_is_printed_can_be_typed_again() {
        again::<Bytes>(&["1", "4096B", "64KiB", "3GiB", "1000"]);
        again::<Seconds>(&["1", "0.5", "2s", "500ms", "250us"]);
        again::<Rate>(&["max", "5/s", "50k/s", "1.5M", "0.5"]);
        again::<Arrival>(&["constant", "poisson", "burst:10", "step:0.5..1.5:5"]);
        again::<Sizes>(&["lines", "100", "1KiB", "100..500", "lognormal:200:0.5", "file:/a:b"]);
        again::<Keys>(&["none", "uniform:10", "zipf:1000", "zipf:1000:1.2"]);
        again::<Source>(&["generated", "generated:2.5", "/var/log"]);
        again::<Codec>(&["none", "lz4", "zstd", "zstd:19"]);
        again::<Flush>(&["group", "os", "interval:10ms", "interval:1s:1MiB"]);
    }

    #[test]
    fn values_out_of_bounds_are_refused_with_what_to_write() {
        fn refused<T: FromStr<Err = String>>(texts: &[&str]) {
            for text in texts {
                let told = T::from_str(text).err().unwrap_or_else(|| panic!("{text} is taken"));
                assert!(told.contains("write") || told.contains("between"), "{told}");
            }
        }
        refused::<Bytes>(&["", "0", "x", "99999999999GiB", "-1"]);
        refused::<Seconds>(&["", "-1", "1h", "nan"]);
        refused::<Rate>(&["", "0", "-5/s", "fast", "inf", "nan", "1e99"]);
        refused::<Arrival>(&["burst", "burst:1", "step:1..2", "step:0..2:3", "poisson:3"]);
        refused::<Sizes>(&["0", "500..100", "lognormal:200", "lognormal:200:99", "some"]);
        refused::<Keys>(&["uniform", "uniform:0", "zipf:10:-1", "zipf:9999999999"]);
        refused::<Source>(&["generated:0.5", "generated:x"]);
        refused::<Codec>(&["gzip", "zstd:0", "zstd:23"]);
        refused::<Flush>(&["never", "interval", "interval:0", "interval:10ms:0"]);
    }
}
