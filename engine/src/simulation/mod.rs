//! The engine under simulation: the real code on a simulated disk that loses power at every moment, tears
//! writes and fails operations, checked against what clients were told.
//!
//! A failing test prints its seed; `RINGMAIN_SEED=<seed>` runs the seeded tests with that one alone.

mod crash;
mod defect;
mod faults;
mod histories;
mod journals;
mod memory;
mod oracle;
mod workload;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Runs a test for each seed, or for the one in `RINGMAIN_SEED`; says which failed.
fn for_seeds(seeds: impl IntoIterator<Item = u64>, test: impl Fn(u64)) {
    let one = std::env::var("RINGMAIN_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds: Vec<u64> = one.map_or_else(|| seeds.into_iter().collect(), |seed| vec![seed]);
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| test(seed))) {
            eprintln!("seed {seed} failed: RINGMAIN_SEED={seed} runs it alone");
            resume_unwind(panic);
        }
    }
}
