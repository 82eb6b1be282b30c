//! The claims: what is said of message logs everywhere, each as an experiment with its verdict's rule fixed before.
//!
//! From top to bottom: a claim is data and one function (`claim`), its arms run in rounds (`conduct`), rounds become
//! ratios and a verdict (`rule`); the arms of what does not hold run once more under `perf` (`lens`); and all that
//! becomes a document (`document`), a screen (`screen`) and a page.
//!
//! How to add one:
//! 1. A file `claims/<name>.rs` with `pub(super) static CLAIM: Claim`: the sentence so that it can be wrong, the arms,
//!    the rules (each a ratio of one figure of two arms, with its bound), and what could fool it.
//! 2. `prepare` makes files and engines below [`claim::Stage::dir`] and gives a closure for each arm, which runs for
//!    the time it is given and returns a [`claim::Slice`]. What is slow to make is made there, not in the closure. An
//!    arm that can't run here is given as absent, with the reason.
//! 3. A line in [`CLAIMS`], and the output of `ringmain-bench claims --rules NAME` in docs/claims.md: a test holds one
//!    against the other.

use claim::Claim;

mod appending;
mod batching;
pub mod claim;
pub mod command;
mod compression;
pub mod conduct;
mod consumer_batching;
pub mod document;
mod durability_levels;
mod group_commit;
pub mod lens;
mod lookups;
mod page_cache;
mod partitions;
mod peak_shaving;
mod preallocation;
mod producing;
mod ring;
pub mod rule;
mod rules;
mod screen;
mod sequential;
mod sparse_index;
mod time_index;
mod zero_copy;

/// All of them, in the order in which they teach.
pub static CLAIMS: &[&Claim] = &[
    &sequential::CLAIM,
    &batching::CLAIM,
    &group_commit::CLAIM,
    &durability_levels::CLAIM,
    &preallocation::CLAIM,
    &partitions::CLAIM,
    &page_cache::CLAIM,
    &compression::CLAIM,
    &zero_copy::CLAIM,
    &sparse_index::CLAIM,
    &time_index::CLAIM,
    &consumer_batching::CLAIM,
    &peak_shaving::CLAIM,
    &ring::CLAIM,
];

/// The claim of that name.
pub fn claim(name: &str) -> Option<&'static Claim> {
    CLAIMS.iter().copied().find(|claim| claim.name == name)
}
