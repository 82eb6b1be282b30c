//! When a claim holds: comparisons of two arms with a bound each, fixed before the run, and what they come to.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::claim::{Effort, Slice};
use crate::distance::Reach;
use crate::human;
use crate::stats::{median, rank_interval};

/// What of a slice is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Records a second; for raw arms, requests.
    RecordsPerS,
    /// Mebibytes a second.
    MibPerS,
    /// Median latency.
    P50,
    /// The latency that one in a hundred exceeds.
    P99,
    /// Processor time of the whole process a mebibyte.
    CpuPerMib,
    /// One of the arm's own ([`Slice::with`]).
    Named(&'static str, Unit),
}

/// How a figure of an arm's own is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A bare number.
    Plain,
    /// Bytes.
    Bytes,
    /// Microseconds.
    Micros,
}

impl Figure {
    /// Its name in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RecordsPerS => "records_per_s",
            Self::MibPerS => "mib_per_s",
            Self::P50 => "p50_us",
            Self::P99 => "p99_us",
            Self::CpuPerMib => "cpu_us_per_mib",
            Self::Named(name, _) => name,
        }
    }

    /// Its name for people.
    pub const fn told(self) -> &'static str {
        match self {
            Self::RecordsPerS => "records a second",
            Self::MibPerS => "MiB a second",
            Self::P50 => "median latency",
            Self::P99 => "p99 latency",
            Self::CpuPerMib => "processor time a MiB",
            Self::Named(name, _) => name,
        }
    }

    /// Whether it is of bytes, and not of records or requests.
    pub fn is_of_bytes(self) -> bool {
        matches!(self, Self::MibPerS | Self::CpuPerMib | Self::Named(_, Unit::Micros))
    }

    /// A value of it for people.
    pub fn show(self, value: f64) -> String {
        match self {
            Self::RecordsPerS => format!("{}/s", human::count(value)),
            Self::MibPerS => format!("{} MiB/s", human::digits(value)),
            Self::P50 | Self::P99 | Self::CpuPerMib | Self::Named(_, Unit::Micros) => {
                human::micros(value)
            }
            Self::Named(_, Unit::Bytes) => human::bytes(value as u64),
            Self::Named(_, Unit::Plain) => human::digits(value),
        }
    }

    /// A round value of it, as an axis has it.
    pub fn tick(self, value: f64) -> String {
        match self {
            Self::RecordsPerS | Self::MibPerS | Self::Named(_, Unit::Plain) => {
                human::tick_count(value)
            }
            Self::P50 | Self::P99 | Self::CpuPerMib | Self::Named(_, Unit::Micros) => {
                human::tick(value)
            }
            Self::Named(_, Unit::Bytes) => human::bytes(value as u64),
        }
    }

    /// Of a slice; none if it has none.
    pub fn of(self, slice: &Slice) -> Option<f64> {
        let sample = &slice.sample;
        let latency = |quantile: f64| {
            (sample.latencies.count() > 0)
                .then(|| sample.latencies.quantile(quantile) as f64 / 1000.0)
        };
        match self {
            Self::RecordsPerS => Some(sample.records_per_s()),
            Self::MibPerS => Some(sample.mib_per_s()),
            Self::P50 => latency(0.5),
            Self::P99 => latency(0.99),
            Self::CpuPerMib => {
                let rate = sample.mib_per_s();
                slice.cpu_cores.filter(|_| rate > 0.0).map(|cores| cores / rate * 1e6)
            }
            Self::Named(name, _) => {
                slice.figures.iter().find(|(own, _)| *own == name).map(|(_, value)| *value)
            }
        }
    }
}

/// How many times beyond its bound an interval's end may be at most, above and below, for the ratio to count as equal
/// to the bound.
pub const NEAR: f64 = 1.1;

/// Where a ratio must lie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// No lower.
    AtLeast(f64),
    /// No higher.
    AtMost(f64),
}

impl Bound {
    /// What an interval says of it.
    fn holds(self, (low, high): (f64, f64)) -> Outcome {
        let (bound, within, beyond) = match self {
            Self::AtLeast(bound) => (bound, low >= bound, high < bound),
            Self::AtMost(bound) => (bound, high <= bound, low > bound),
        };
        if within {
            Outcome::Holds
        } else if beyond {
            Outcome::DoesNotHold
        } else if low * NEAR >= bound && high <= bound * NEAR {
            Outcome::OnBound
        } else {
            Outcome::Undecided
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, ">= {bound:.2}"),
            Self::AtMost(bound) => write!(f, "<= {bound:.2}"),
        }
    }
}

/// One comparison: the figure of one arm over that of another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// The arm that the claim is about.
    pub of: &'static str,
    /// The arm it is held against.
    pub over: &'static str,
    /// What is compared.
    pub figure: Figure,
    /// Where the ratio must lie for the claim to hold.
    pub bound: Bound,
    /// Under which circumstances, such as `at 4 KiB, one at a time`.
    pub when: &'static str,
}

/// What a comparison came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The whole interval lies within the bound.
    Holds,
    /// The whole interval lies beyond it.
    DoesNotHold,
    /// The bound lies in the interval, and both ends are near it ([`NEAR`]): the ratio is the bound's, for all that
    /// matters, and more rounds would not make it another.
    OnBound,
    /// The bound lies in the interval, and an end does not lie near it: the rounds do not tell.
    Undecided,
    /// An arm did not run, or there were too few rounds.
    NotMeasured,
}

/// Rounds with the cores as far apart from which on they decide alone: as many as a run has at least.
const ROUNDS_MIN: usize = Effort::QUICK.rounds.0;

/// A comparison with its figures.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// Which one.
    pub rule: Rule,
    /// The ratio of each round that counts.
    pub ratios: Vec<f64>,
    /// Rounds that do not count, because the cores were not as far apart in both arms, or farther than in others.
    pub left_out: usize,
    /// The median ratio of rounds with the cores far apart, where near ones count.
    pub far_ratio: Option<f64>,
    /// The median of those that count.
    pub ratio: Option<f64>,
    /// Where it lies with 95 % confidence.
    pub interval: Option<(f64, f64)>,
    /// What it came to.
    pub outcome: Outcome,
}

impl Rule {
    /// Judges by the ratio of each round: arms of one round share the machine's mood. Rounds count in which the cores
    /// were near each other in both arms; if they are too few those in which they were far in both; else all.
    pub fn judge(&self, of: &[Slice], over: &[Slice]) -> Judged {
        let pairs: Vec<(&Slice, &Slice)> = of.iter().zip(over).collect();
        let ratio = |(a, b): &(&Slice, &Slice)| {
            let (above, below) = (self.figure.of(a)?, self.figure.of(b)?);
            (below > 0.0).then_some(above / below)
        };
        let with = |reach: Reach| -> Vec<f64> {
            let both = |(a, b): &&(&Slice, &Slice)| {
                a.round_trips.reach() == reach && b.round_trips.reach() == reach
            };
            pairs.iter().filter(both).filter_map(ratio).collect()
        };
        let (near, far) = (with(Reach::Near), with(Reach::Far));
        let all: Vec<f64> = pairs.iter().filter_map(ratio).collect();
        let rounds = all.len();
        let (ratios, far) = if near.len() >= ROUNDS_MIN {
            (near, far)
        } else if far.len() >= ROUNDS_MIN {
            (far, Vec::new())
        } else {
            (all, Vec::new())
        };
        let interval = rank_interval(&ratios);
        let outcome = interval.map_or(Outcome::NotMeasured, |interval| self.bound.holds(interval));
        Judged {
            rule: *self,
            ratio: median(ratios.iter().copied()),
            left_out: rounds - ratios.len(),
            far_ratio: median(far),
            ratios,
            interval,
            outcome,
        }
    }
}

/// What an experiment says of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// Every comparison holds.
    Holds,
    /// None does.
    DoesNotHold,
    /// Some do and some do not, or the ratio is the bound's.
    Depends,
    /// The experiment can't tell on this machine.
    NotMeasurable,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Holds => "holds",
            Self::DoesNotHold => "does not hold",
            Self::Depends => "depends",
            Self::NotMeasurable => "not measurable here",
        })
    }
}

/// The finding that comparisons add up to. Those that were not measured are passed over. One on its bound neither
/// holds nor fails: it keeps a claim from holding in every case, and is not counted against one that fails in all
/// others. Those that are undecided are tried either way: what all ways have in common is found, and if they have
/// nothing in common the claim is open.
pub fn finding(judged: &[Judged]) -> Finding {
    let any = |outcome| judged.iter().any(|one| one.outcome == outcome);
    let (holds, fails) = (any(Outcome::Holds), any(Outcome::DoesNotHold));
    let (near, open) = (any(Outcome::OnBound), any(Outcome::Undecided));
    match (holds, fails) {
        // An undecided one can't change this.
        (true, true) => Finding::Depends,
        (true, false) if near => Finding::Depends,
        _ if open => Finding::NotMeasurable,
        (true, false) => Finding::Holds,
        (false, true) => Finding::DoesNotHold,
        (false, false) if near => Finding::Depends,
        (false, false) => Finding::NotMeasurable,
    }
}

/// The reasons for a finding, in words: which comparisons came to what.
pub fn reasons(judged: &[Judged]) -> String {
    let told = |outcome| {
        let some = judged.iter().filter(|one| one.outcome == outcome);
        some.map(|one| match (one.ratio, one.interval) {
            (Some(ratio), Some((low, high))) => format!(
                "{} ({} x, {} to {})",
                one.rule.when,
                human::ratio(ratio),
                human::ratio(low),
                human::ratio(high)
            ),
            _ => one.rule.when.to_owned(),
        })
        .collect::<Vec<_>>()
        .join("; ")
    };
    let parts = [
        ("Holds", told(Outcome::Holds)),
        ("Does not hold", told(Outcome::DoesNotHold)),
        ("On its bound", told(Outcome::OnBound)),
        ("Too restless to tell", told(Outcome::Undecided)),
        ("Not measured", told(Outcome::NotMeasured)),
    ];
    let filled = parts.into_iter().filter(|(_, cases)| !cases.is_empty());
    filled.map(|(head, cases)| format!("{head} {cases}")).collect::<Vec<_>>().join(". ") + "."
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::distance::RoundTrips;
    use crate::sample::Sample;

    const RULE: Rule = Rule {
        of: "a",
        over: "b",
        figure: Figure::RecordsPerS,
        bound: Bound::AtLeast(1.1),
        when: "always",
    };

    fn slices(rates: &[u64]) -> Vec<Slice> {
        let slice =
            |&records| Slice::of(Sample { records, ..Sample::empty(Duration::from_secs(1)) });
        rates.iter().map(slice).collect()
    }

    fn outcome(rule: &Rule, of: &[u64], over: &[u64]) -> Outcome {
        rule.judge(&slices(of), &slices(over)).outcome
    }

    #[test]
    fn a_bound_inside_the_interval_decides_nothing() {
        let steady = [100, 101, 99, 100, 100, 100];
        let most = Rule { bound: Bound::AtMost(1.1), ..RULE };
        let (double, even) = ([200, 190, 210, 201, 202, 200], [100, 99, 101, 100, 104, 100]);
        assert_eq!(outcome(&RULE, &double, &steady), Outcome::Holds);
        assert_eq!(outcome(&RULE, &even, &steady), Outcome::DoesNotHold);
        assert_eq!(outcome(&most, &double, &steady), Outcome::DoesNotHold);
        assert_eq!(outcome(&most, &even, &steady), Outcome::Holds);
        for rule in [RULE, most] {
            let restless = [100, 140, 105, 120, 111, 112];
            assert_eq!(outcome(&rule, &restless, &steady), Outcome::Undecided);
            assert_eq!(outcome(&rule, &[200; 5], &steady), Outcome::NotMeasured);
        }
    }

    #[test]
    fn a_ratio_that_is_its_bound_within_a_tenth_is_not_open() {
        for bound in [Bound::AtLeast(1.1), Bound::AtMost(1.1)] {
            assert_eq!(bound.holds((1.02, 1.2)), Outcome::OnBound);
            assert_eq!(bound.holds((0.99, 1.2)), Outcome::Undecided);
            assert_eq!(bound.holds((1.02, 1.22)), Outcome::Undecided);
        }
    }

    #[test]
    fn a_machine_that_slows_down_between_rounds_changes_no_ratio() {
        let rates = |first: u64| (0..6).map(|round| first >> round).collect::<Vec<_>>();
        let judged = RULE.judge(&slices(&rates(3200)), &slices(&rates(1600)));
        assert_eq!((judged.ratio, judged.interval), (Some(2.0), Some((2.0, 2.0))));
    }

    #[test]
    fn rounds_compare_arms_with_the_cores_as_far_apart() {
        let with = |rates: &[u64], trips: &[(f64, f64)]| -> Vec<Slice> {
            let apart = |(slice, &(before, after)): (Slice, &(f64, f64))| {
                let round_trips = RoundTrips { before: Some(before), after: Some(after) };
                Slice { round_trips, ..slice }
            };
            slices(rates).into_iter().zip(trips).map(apart).collect()
        };
        let (near, far, moved) = ((64.0, 28.0), (325.0, 330.0), (64.0, 325.0));
        let trips = [near, near, near, near, near, near, near, far, far, moved];
        let mut of = with(&[200; 10], &trips);
        let over = with(&[100, 100, 100, 100, 100, 100, 100, 400, 400, 50], &trips);
        let judged = RULE.judge(&of, &over);
        assert_eq!((judged.ratio, judged.ratios.len(), judged.left_out), (Some(2.0), 7, 3));
        assert_eq!(judged.far_ratio, Some(0.5));
        // Too few with near cores: all count, and a machine whose cores are far apart is measured as it is.
        of.truncate(6);
        assert_eq!(RULE.judge(&of, &over).left_out, 0);
        let apart = [far; 8];
        let judged = RULE.judge(&with(&[300; 8], &apart), &with(&[100; 8], &apart));
        assert_eq!((judged.ratio, judged.left_out, judged.far_ratio), (Some(3.0), 0, None));
    }

    #[test]
    fn the_finding_follows_from_the_comparisons() {
        use Outcome::{DoesNotHold, Holds, NotMeasured, OnBound, Undecided};
        let of = |outcomes: &[Outcome]| {
            let one = |&outcome| Judged { outcome, ..RULE.judge(&[], &[]) };
            finding(&outcomes.iter().map(one).collect::<Vec<_>>())
        };
        assert_eq!(of(&[Holds, Holds, NotMeasured]), Finding::Holds);
        assert_eq!(of(&[DoesNotHold]), Finding::DoesNotHold);
        assert_eq!(of(&[Holds, DoesNotHold, Undecided]), Finding::Depends);
        assert_eq!(of(&[Holds, OnBound, Undecided]), Finding::Depends);
        assert_eq!(of(&[DoesNotHold, OnBound]), Finding::DoesNotHold);
        assert_eq!(of(&[OnBound, OnBound]), Finding::Depends);
        for open in [&[Holds, Undecided][..], &[DoesNotHold, OnBound, Undecided], &[Undecided], &[]]
        {
            assert_eq!(of(open), Finding::NotMeasurable, "{open:?}");
        }
    }
}
