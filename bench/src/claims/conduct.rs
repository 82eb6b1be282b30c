//! One claim's experiment: arms made ready, run in rounds in an order drawn anew for each, and judged.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::claim::{Arm, Claim, Effort, Ready, Run, Slice, Stage};
use super::lens::Seen;
use super::rule::{Finding, Judged, finding, reasons};
use crate::cores::Cores;
use crate::distance::{FAR_NS, RoundTrips};
use crate::human;
use crate::interrupt::{self, Interrupted};
use crate::progress::Progress;
use crate::random::Random;

/// What is said of a claim that the user did not wait for.
const STOPPED: &str = "Stopped by the user";

/// A slice of less says nothing.
const SLICE_MIN: Duration = Duration::from_millis(50);

/// What removing takes of what preparing took.
const REMOVAL: f64 = 1.0;

/// An arm with its slices, one a round.
#[derive(Debug)]
pub struct Measured {
    /// Which one.
    pub arm: &'static Arm,
    /// A slice a round; none if it did not run.
    pub slices: Vec<Slice>,
    /// Why it did not run.
    pub absent: Option<String>,
}

/// What an experiment came to.
#[derive(Debug)]
pub struct Conducted {
    /// Which claim.
    pub claim: &'static Claim,
    /// What it says.
    pub finding: Finding,
    /// Why.
    pub why: String,
    /// The comparisons.
    pub judged: Vec<Judged>,
    /// The arms.
    pub arms: Vec<Measured>,
    /// Arms of comparisons that do not hold, once more.
    pub seen: Vec<Seen>,
    /// Whole rounds.
    pub rounds: usize,
    /// What to know before the figures are quoted.
    pub notes: Vec<String>,
    /// Wall time, removing apart.
    pub seconds: f64,
    /// Whether something broke.
    pub broken: bool,
}

/// The order of `arms` in a round, the same for the same seed.
pub fn order(seed: u64, round: usize, arms: usize) -> Vec<usize> {
    let mut random = Random::new(seed ^ (round as u64).wrapping_mul(0x9e37_79b9));
    let mut order: Vec<usize> = (0..arms).collect();
    for last in (1..arms).rev() {
        order.swap(last, random.below(last as u32 + 1) as usize);
    }
    order
}

/// A seed of the claim's own, so that it is measured alike alone and among others.
fn seed_of(claim: &Claim, seed: u64) -> u64 {
    claim.name.bytes().fold(seed, |seed, byte| Random::new(seed ^ u64::from(byte)).next())
}

/// Conducts it. What fails or is stopped by the user is told in the result, with the whole rounds until then.
pub fn conduct(
    claim: &'static Claim,
    stage: &mut Stage<'_>,
    seed: u64,
    progress: &mut Progress,
) -> Conducted {
    let begin = Instant::now();
    let mut arms: Vec<Measured> =
        claim.arms.iter().map(|arm| Measured { arm, slices: Vec::new(), absent: None }).collect();
    let (mut notes, mut ended) = (Vec::new(), None);
    let mut broken = false;
    let mut ready = Ready::new();
    let measured = (claim.prepare)(stage).context("making the arms ready").and_then(|made| {
        assert_known(claim, &made);
        ready = made;
        ended = ready.not_here.take();
        notes.append(&mut ready.notes);
        for (name, why) in ready.absent.drain(..) {
            slot(&mut arms, name).absent = Some(why);
        }
        let until = end(begin, stage.effort);
        let left = until.saturating_duration_since(Instant::now());
        let rounds = stage.effort.rounds_in(left, ready.runs.len(), claim.slice);
        let plan = Plan { rounds, until, seed: seed_of(claim, seed), cores: stage.cores };
        plan.rounds(&mut ready.runs, &mut arms, progress)
    });
    if let Err(error) = measured {
        broken = !error.is::<Interrupted>() && !interrupt::asked();
        ended = Some(if broken { format!("It broke: {error:#}") } else { STOPPED.to_owned() });
    }
    let rounds = arms.iter().filter(|a| a.absent.is_none()).map(|a| a.slices.len()).min();
    let rounds = rounds.unwrap_or(0);
    for arm in &mut arms {
        arm.slices.truncate(rounds);
    }
    let of = |name: &str| {
        arms.iter().find(|arm| arm.arm.name == name).map_or(&[][..], |arm| &arm.slices)
    };
    let judged: Vec<Judged> =
        claim.rules.iter().map(|rule| rule.judge(of(rule.of), of(rule.over))).collect();
    notes.extend(apart(&judged));
    let mut seen = Vec::new();
    if ended.is_none() {
        match stage.lens.see(claim, stage.effort, &judged, &mut ready.runs) {
            Ok(found) => seen = found,
            // The rounds stand.
            Err(error) => notes.push(unseen(&error)),
        }
    }
    let (finding, why) = match ended {
        Some(why) => (Finding::NotMeasurable, format!("{why}; {rounds} whole rounds.")),
        None => (finding(&judged), reasons(&judged)),
    };
    let seconds = begin.elapsed().as_secs_f64();
    Conducted { claim, finding, why, judged, arms, seen, rounds, notes, seconds, broken }
}

/// What is said of rounds that did not count because the cores were moved apart.
fn apart(judged: &[Judged]) -> Option<String> {
    let most = judged.iter().max_by_key(|one| one.left_out).filter(|one| one.left_out > 0)?;
    let rounds = most.left_out + most.ratios.len();
    let far: Vec<String> = judged
        .iter()
        .filter_map(|one| Some(format!("{} {} x", one.rule.when, human::ratio(one.far_ratio?))))
        .collect();
    let mut note = format!(
        "up to {} of {rounds} rounds do not count: the host moved the clients' core and the log's, {FAR_NS} ns or more \
         apart (a cache line there and back) or together again, and like is compared with like",
        most.left_out
    );
    if !far.is_empty() {
        note += ". With the cores apart: ";
        note += &far.join("; ");
    }
    Some(note)
}

/// What is said of a failure to record.
fn unseen(error: &anyhow::Error) -> String {
    let why = format!("{error:#}");
    format!("not said where the time goes: {}", why.lines().next().unwrap_or_default())
}

/// When the rounds end, so that there is time left to remove what was made.
fn end(begin: Instant, effort: Effort) -> Instant {
    let prepared = begin.elapsed();
    begin + effort.time.saturating_sub(prepared.mul_f64(REMOVAL)).max(prepared)
}

fn slot<'m>(arms: &'m mut [Measured], name: &str) -> &'m mut Measured {
    let found = arms.iter_mut().find(|arm| arm.arm.name == name);
    found.expect("every arm that is made ready is one of the claim's")
}

fn assert_known(claim: &Claim, ready: &Ready<'_>) {
    if ready.not_here.is_some() {
        return;
    }
    for arm in claim.arms {
        let runs = ready.runs.iter().filter(|(name, _)| *name == arm.name).count();
        let absent = ready.absent.iter().filter(|(name, _)| *name == arm.name).count();
        assert_eq!(runs + absent, 1, "{}: {} runs or is absent", claim.name, arm.name);
    }
}

struct Plan {
    rounds: usize,
    until: Instant,
    seed: u64,
    cores: Cores,
}

impl Plan {
    fn rounds(
        &self,
        runs: &mut [(&'static str, Run<'_>)],
        arms: &mut [Measured],
        progress: &mut Progress,
    ) -> Result<()> {
        // With the round before them, which is as long: memory touched for the first time is slow, a disk that has
        // rested is fast, and what an arm readies for its next slice is by the rate of the one before.
        let mut left = (runs.len() * (self.rounds + 1)) as u32;
        for round in 0..=self.rounds {
            if round > 0 {
                progress.step(&format!("round {round} of {}", self.rounds));
            }
            for nth in order(self.seed, round, runs.len()) {
                interrupt::check()?;
                let rest = self.until.saturating_duration_since(Instant::now());
                let (name, run) = &mut runs[nth];
                let time = (rest / left).max(SLICE_MIN);
                let (slice, round_trips) = RoundTrips::around(self.cores, || run(time));
                let slice = Slice { round_trips, ..slice.context(*name)? };
                left -= 1;
                if round > 0 {
                    slot(arms, name).slices.push(slice);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::claims::lens::Lens;
    use crate::claims::rule::{Bound, Figure, Rule};
    use crate::cores::Cores;
    use crate::payload::Payload;
    use crate::sample::Sample;

    #[test]
    fn every_round_has_every_arm_once_in_an_order_of_its_own() {
        let orders: Vec<_> = (0..20).map(|round| order(7, round, 5)).collect();
        for order in &orders {
            assert_eq!(order.iter().collect::<HashSet<_>>().len(), 5);
        }
        assert!(orders.iter().collect::<HashSet<_>>().len() > 10, "{orders:?}");
        assert_eq!(orders[3], order(7, 3, 5), "a seed replays");
        let firsts: HashSet<_> = orders.iter().map(|order| order[0]).collect();
        assert_eq!(firsts.len(), 5, "no arm is always first");
    }

    const fn arm(name: &'static str) -> Arm {
        Arm { name, group: "a group", label: name, about: "adds nothing up" }
    }

    static FAKE: Claim = Claim {
        rules: &[
            Rule {
                of: "fast",
                over: "slow",
                figure: Figure::RecordsPerS,
                bound: Bound::AtLeast(2.0),
                when: "always",
            },
            Rule {
                of: "gone",
                over: "slow",
                figure: Figure::RecordsPerS,
                bound: Bound::AtLeast(2.0),
                when: "elsewhere",
            },
        ],
        prepare: |_| {
            let sample = |records, time| Slice::of(Sample { records, ..Sample::empty(time) });
            let mut ready = Ready::new();
            ready.arm("fast", move |time| Ok(sample(300, time)));
            ready.arm("slow", move |time| Ok(sample(100, time)));
            ready.absent("gone", "there is none");
            Ok(ready)
        },
        ..SHAPE
    };

    static BROKEN: Claim = Claim {
        prepare: |_| {
            let mut ready = Ready::new();
            ready.arm("fast", |time| Ok(Slice::of(Sample::empty(time))));
            ready.arm("slow", |_| anyhow::bail!("the disk is on fire"));
            ready.absent("gone", "there is none");
            Ok(ready)
        },
        ..SHAPE
    };

    const SHAPE: Claim = Claim {
        name: "fake",
        sentence: "",
        source: "",
        mechanism: "",
        ends: "",
        headline: Figure::RecordsPerS,
        arms: &[arm("fast"), arm("slow"), arm("gone")],
        rules: &[],
        guards: &[],
        slice: Duration::from_millis(1),
        space_bytes: 0,
        prepare: |_| Ok(Ready::new()),
    };

    fn conducted(claim: &'static Claim) -> Conducted {
        let payload = Payload::generated(1 << 10);
        let effort = Effort { name: "trial", stretch: 1, rounds: (7, 9), time: Duration::ZERO };
        let dir = std::env::temp_dir();
        let cores = Cores::near(&dir);
        let lens = Lens::default();
        let mut stage = Stage { dir, payload: &payload, effort, cores, lens };
        conduct(claim, &mut stage, 1, &mut Progress::new(effort.time, true))
    }

    #[test]
    fn there_are_as_many_rounds_as_fit_and_an_odd_number() {
        let effort =
            Effort { name: "trial", stretch: 2, rounds: (7, 25), time: Duration::from_secs(19) };
        let rounds =
            |ms, arms| effort.rounds_in(Duration::from_secs(18), arms, Duration::from_millis(ms));
        // 18 s are 15 rounds of 6 slices of 2 x 0.1 s, one of which does not count.
        assert_eq!((rounds(100, 6), rounds(100, 1), rounds(1000, 6)), (13, 25, 7));
    }

    #[test]
    fn an_arm_that_is_absent_is_said_and_does_not_decide() {
        let fake = conducted(&FAKE);
        assert_eq!((fake.finding, fake.rounds, fake.broken), (Finding::Holds, 7, false));
        assert_eq!(fake.why, "Holds always (3.00 x, 3.00 to 3.00). Not measured elsewhere.");
        assert_eq!(fake.arms[2].absent.as_deref(), Some("there is none"));
    }

    #[test]
    fn what_breaks_is_told_and_gives_no_verdict() {
        let broken = conducted(&BROKEN);
        assert_eq!((broken.finding, broken.broken), (Finding::NotMeasurable, true));
        assert!(broken.why.contains("slow: the disk is on fire"), "{}", broken.why);
    }
}
