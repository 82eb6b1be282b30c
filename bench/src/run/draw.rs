//! Sizes and keys, drawn by a seed.

use std::path::Path;

use anyhow::Result;

use super::schedule::{normal, unit};
use super::values::{Keys, Sizes};
use super::workload::RECORD_BYTES_MAX;
use crate::oracle::STAMP_BYTES;
use crate::random::Random;
use crate::textfile;
use crate::usage::usage;

/// Most sizes taken from a file.
const FILE_SIZES_MAX: usize = 1 << 20;

/// How long values are.
#[derive(Clone, Debug)]
pub enum SizeDraw {
    /// As long as the payload's next line.
    Lines,
    /// As it is drawn.
    Of(Draw),
}

/// Sizes that do not depend on the payload.
#[derive(Clone, Debug)]
pub enum Draw {
    /// One size.
    Fixed(u32),
    /// Evenly between two.
    Range(u32, u32),
    /// Log-normal.
    LogNormal {
        /// The median.
        median: f64,
        /// Of the logarithm.
        sigma: f64,
    },
    /// One of these.
    Of(Vec<u32>),
}

impl SizeDraw {
    /// What the workload asks for.
    ///
    /// # Errors
    /// A usage error if its file can't be read, or holds something else than sizes.
    pub fn new(sizes: &Sizes) -> Result<Self> {
        Ok(Self::Of(match sizes {
            Sizes::Lines => return Ok(Self::Lines),
            Sizes::Fixed(bytes) => Draw::Fixed(*bytes),
            Sizes::Range(from, to) => Draw::Range(*from, *to),
            Sizes::LogNormal { median, sigma } => {
                Draw::LogNormal { median: f64::from(*median), sigma: *sigma }
            }
            Sizes::File(path) => Draw::Of(sizes_of(path)?),
        }))
    }
}

fn sizes_of(path: &Path) -> Result<Vec<u32>> {
    let told = |what: String| usage(format!("--record-bytes file:{}: {what}", path.display()));
    let text = textfile::read(path).map_err(|e| told(e.to_string()))?;
    let bounds = STAMP_BYTES as u32..=RECORD_BYTES_MAX;
    let mut sizes = Vec::new();
    for (nth, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let size = line.trim().parse().ok().filter(|size| bounds.contains(size));
        let size = size.ok_or_else(|| {
            let (from, to) = (bounds.start(), bounds.end());
            told(format!("line {}: a number from {from} to {to} a line", nth + 1))
        })?;
        sizes.push(size);
        if sizes.len() == FILE_SIZES_MAX {
            break;
        }
    }
    if sizes.is_empty() { Err(told("no size in it".to_owned())) } else { Ok(sizes) }
}

impl Draw {
    /// The next size.
    pub fn next(&self, random: &mut Random) -> usize {
        let bytes = match self {
            Self::Fixed(bytes) => *bytes,
            Self::Range(from, to) => from + random.below(to - from + 1),
            Self::LogNormal { median, sigma } => {
                let bytes = median * (sigma * normal(random)).exp();
                (bytes as u32).clamp(STAMP_BYTES as u32, RECORD_BYTES_MAX)
            }
            Self::Of(sizes) => sizes[random.below(sizes.len() as u32) as usize],
        };
        bytes as usize
    }
}

/// Keys by their number; key `k` belongs to partition `k % partitions`.
#[derive(Clone, Debug)]
pub enum KeyDraw {
    /// No keys.
    None,
    /// Each as likely as the next.
    Uniform(u32),
    /// By an alias table: one draw, one look. Source: M. D. Vose, "A linear algorithm for generating random numbers
    /// with a given distribution", IEEE Transactions on Software Engineering 17, 1991.
    Table(Box<[(f32, u32)]>),
}

impl KeyDraw {
    /// What the workload asks for.
    pub fn new(keys: Keys) -> Self {
        match keys {
            Keys::None => Self::None,
            Keys::Uniform(count) => Self::Uniform(count),
            Keys::Zipf { count, skew } => Self::Table(alias(
                &(1..=count).map(|rank| f64::from(rank).powf(-skew)).collect::<Vec<_>>(),
            )),
        }
    }

    /// The next key; nothing without keys.
    pub fn next(&self, random: &mut Random) -> Option<u32> {
        match self {
            Self::None => None,
            Self::Uniform(count) => Some(random.below(*count)),
            Self::Table(table) => {
                let at = random.below(table.len() as u32);
                let (keep, other) = table[at as usize];
                Some(if unit(random) < f64::from(keep) { at } else { other })
            }
        }
    }

    /// The next key among those of `partition`.
    pub fn next_of(&self, random: &mut Random, partition: u32, partitions: u32) -> Option<u32> {
        let key = self.next(random)?;
        let count = match self {
            Self::None => return None,
            Self::Uniform(count) => *count,
            Self::Table(table) => table.len() as u32,
        };
        let moved = key - key % partitions + partition;
        Some(if moved < count { moved } else { moved - partitions })
    }
}

fn alias(weights: &[f64]) -> Box<[(f32, u32)]> {
    let (count, sum) = (weights.len(), weights.iter().sum::<f64>());
    let mut shares: Vec<f64> = weights.iter().map(|weight| weight * count as f64 / sum).collect();
    let mut table: Box<[(f32, u32)]> = (0..count as u32).map(|at| (1.0, at)).collect();
    let (mut small, mut large): (Vec<usize>, Vec<usize>) =
        (0..count).partition(|&at| shares[at] < 1.0);
    while let (Some(low), Some(&high)) = (small.pop(), large.last()) {
        table[low] = (shares[low] as f32, high as u32);
        shares[high] -= 1.0 - shares[low];
        if shares[high] < 1.0 {
            large.pop();
            small.push(high);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn zipf_draws_each_rank_as_often_as_its_weight() {
        let keys = KeyDraw::new(Keys::Zipf { count: 100, skew: 1.0 });
        let mut random = Random::new(3);
        let mut counts = [0_u32; 100];
        for _ in 0..1_000_000 {
            counts[keys.next(&mut random).expect("a key") as usize] += 1;
        }
        let harmonic: f64 = (1..=100).map(|rank| 1.0 / f64::from(rank)).sum();
        for rank in [1_u32, 2, 10, 50] {
            let expected = 1e6 / f64::from(rank) / harmonic;
            let error = f64::from(counts[rank as usize - 1]) / expected - 1.0;
            assert!(error.abs() < 0.05, "rank {rank}: {error}");
        }
    }

    #[test]
    fn a_key_of_a_partition_is_a_key_that_belongs_there() {
        for keys in [Keys::Uniform(10), Keys::Zipf { count: 10, skew: 0.9 }] {
            let draw = KeyDraw::new(keys);
            let mut random = Random::new(4);
            for partition in (0..3).cycle().take(3000) {
                let key = draw.next_of(&mut random, partition, 3).expect("a key");
                assert!(key < 10 && key % 3 == partition, "{key} in {partition}");
            }
        }
    }

    #[test]
    fn sizes_keep_to_their_bounds_and_their_median() {
        let mut random = Random::new(8);
        let range = Draw::Range(100, 500);
        let mut drawn: Vec<usize> = (0..10_000).map(|_| range.next(&mut random)).collect();
        drawn.sort_unstable();
        assert_eq!((drawn[0], drawn[9999]), (100, 500));
        let log_normal = Draw::LogNormal { median: 200.0, sigma: 1.0 };
        let mut drawn: Vec<usize> = (0..10_000).map(|_| log_normal.next(&mut random)).collect();
        drawn.sort_unstable();
        assert!((190..210).contains(&drawn[5000]), "{}", drawn[5000]);
        assert!((500..600).contains(&drawn[8413]), "one deviation above: {}", drawn[8413]);
    }

    #[test]
    fn sizes_of_a_file_are_those_in_it_and_a_wrong_line_is_named() {
        let scratch = Scratch::new("draw");
        let path = scratch.path().join("sizes");
        std::fs::write(&path, "100\n\n2000\n").expect("written");
        assert_eq!(sizes_of(&path).expect("sizes"), [100, 2000]);
        std::fs::write(&path, "100\n5\n").expect("written");
        assert!(sizes_of(&path).expect_err("too small").to_string().contains("line 2"));
    }
}
