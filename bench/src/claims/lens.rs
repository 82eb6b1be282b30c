//! Where the time goes in the arms of comparisons that do not hold: each runs once more, under `perf`.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};

use super::claim::{Claim, Effort, Run, Slice};
use super::rule::{Judged, Outcome};
use crate::profile::tally::Tally;
use crate::profile::within::Within;

/// Most arms of a claim that run once more.
const ARMS_QUICK_MAX: usize = 6;
const ARMS_FULL_MAX: usize = 12;

/// How many times as long as in a round of `--quick` an arm runs, and bounds of it: enough samples, and soon over.
const STRETCH: u32 = 2;
const TIME_MIN: Duration = Duration::from_millis(250);
const TIME_MAX: Duration = Duration::from_secs(1);

/// What is laid over slices while they are recorded; nothing as a rule.
#[derive(Clone, Default)]
pub struct Lens(Arc<Mutex<Option<Within>>>);

impl std::fmt::Debug for Lens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lens")
    }
}

/// An arm that ran once more.
#[derive(Debug)]
pub struct Seen {
    /// Its name.
    pub arm: &'static str,
    /// What it came to while it was recorded.
    pub slice: Slice,
    /// Where its time went.
    pub tally: Tally,
}

impl Lens {
    /// Runs `thing` with what is laid over it.
    ///
    /// # Errors
    /// Those of `thing` and of the recording.
    pub fn over<T>(&self, thing: impl FnOnce(Option<&mut Within>) -> Result<T>) -> Result<T> {
        thing(self.0.lock().expect("no slice panics").as_mut())
    }

    fn put(&self, within: Option<Within>) -> Option<Within> {
        std::mem::replace(&mut *self.0.lock().expect("no slice panics"), within)
    }

    /// Runs the arms of what does not hold once more. None if all holds.
    ///
    /// # Errors
    /// If perf is not to be had here, an arm fails, or the user stops the run.
    pub(super) fn see(
        &self,
        claim: &Claim,
        effort: Effort,
        judged: &[Judged],
        runs: &mut [(&'static str, Run<'_>)],
    ) -> Result<Vec<Seen>> {
        let mut wanted = wanted(judged);
        wanted.truncate(if effort.is_full() { ARMS_FULL_MAX } else { ARMS_QUICK_MAX });
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        self.put(Some(Within::attach()?));
        let time = (claim.slice * STRETCH).clamp(TIME_MIN, TIME_MAX);
        let mut slices = Vec::new();
        let all = || -> Result<()> {
            for name in wanted {
                let run = runs.iter_mut().find(|(own, _)| *own == name);
                let (_, run) = run.context("an arm that was compared has run")?;
                slices.push((name, run(time).context(name)?));
            }
            Ok(())
        };
        let ran = all();
        let within = self.put(None).context("nobody else takes it")?;
        ran?;
        let seen = slices.into_iter().zip(within.read()?);
        Ok(seen.map(|((arm, slice), tally)| Seen { arm, slice, tally }).collect())
    }
}

/// Arms of comparisons that do not hold, those first that fail, each once.
fn wanted(judged: &[Judged]) -> Vec<&'static str> {
    let of = |outcome| judged.iter().filter(move |one| one.outcome == outcome);
    let mut names = Vec::new();
    for one in of(Outcome::DoesNotHold).chain(of(Outcome::OnBound)) {
        for name in [one.rule.of, one.rule.over] {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::rule::{Bound, Figure, Rule};

    #[test]
    fn arms_of_what_does_not_hold_are_seen_once_and_failures_first() {
        let judged = |of, over, outcome| {
            let (figure, bound) = (Figure::P50, Bound::AtMost(1.0));
            let rule = Rule { of, over, figure, bound, when: "" };
            Judged { outcome, ..rule.judge(&[], &[]) }
        };
        let all = [
            judged("a", "b", Outcome::OnBound),
            judged("c", "b", Outcome::DoesNotHold),
            judged("d", "e", Outcome::Holds),
            judged("f", "g", Outcome::Undecided),
        ];
        assert_eq!(wanted(&all), ["c", "b", "a"]);
    }
}
