//! The engine under simulation: the real code on a simulated disk that loses power at every moment, tears
//! writes and fails operations, checked against what clients were told.
//!
//! A failing test prints its seed; `RINGMAIN_SEED=<seed>` runs the seeded tests with that one alone, and
//! `RINGMAIN_SEEDS=<first>..<end>` runs all of a range, says how long each took, and fails at the end.

mod crash;
mod defect;
mod faults;
mod fenced;
mod fetches;
mod histories;
mod journals;
mod keep;
mod memory;
mod oracle;
mod overload;
mod readers;
mod seals;
mod space;
mod starts;
mod streams;
mod workload;
mod world;
mod zeros;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// The seeds to run instead of a test's own: one, or a range.
fn asked_for() -> Option<Vec<u64>> {
    if let Ok(seed) = std::env::var("RINGMAIN_SEED") {
        return seed.parse().ok().map(|seed| vec![seed]);
    }
    let range = std::env::var("RINGMAIN_SEEDS").ok()?;
    let (first, end) = range.split_once("..")?;
    Some((first.parse().ok()?..end.parse().ok()?).collect())
}

/// Runs a test for each seed, or for those that the environment asks for; says which failed.
fn for_seeds(seeds: impl IntoIterator<Item = u64>, test: impl Fn(u64)) {
    let asked = asked_for();
    let many = asked.is_some();
    let mut failed = None;
    for seed in asked.unwrap_or_else(|| seeds.into_iter().collect()) {
        let began = std::time::Instant::now();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| test(seed))) {
            eprintln!("seed {seed} failed: RINGMAIN_SEED={seed} runs it alone");
            if !many {
                resume_unwind(panic);
            }
            failed = Some(panic);
        }
        if many {
            eprintln!("seed {seed}: {} ms", began.elapsed().as_millis());
        }
    }
    if let Some(panic) = failed {
        resume_unwind(panic);
    }
}
