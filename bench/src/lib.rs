//! `ringmain-bench`: proves or refutes what is claimed of the ringmain log, on the machine it runs on.
//!
//! From top to bottom: a command (`cli`) becomes a plan of arms (`quick`), each arm runs in slices against
//! the disk (`device`, `floor`, `clients`), slices become figures (`histogram`, `stats`), figures become
//! ratios and sentences (`reading`), and all of it a screen, a page and a document (`screen`, `report`, `json`).
//! `claims` does the same for experiments that end in a verdict.

// They panic when whoever reads has gone: see `output`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod alone;
pub mod appends;
pub mod batches;
pub mod board;
pub mod claims;
pub mod cli;
pub mod clients;
pub mod clock;
pub mod cores;
pub mod crash;
pub mod device;
pub mod distance;
pub mod env;
pub mod finding;
pub mod finds;
pub mod fio;
pub mod floor;
pub mod grid;
pub mod histogram;
pub mod human;
pub mod inspecting;
pub mod interrupt;
pub mod json;
pub mod loglines;
pub mod manual;
pub mod neighbours;
pub mod onebatch;
pub mod oracle;
pub mod outcome;
pub mod output;
pub mod payload;
pub mod plan;
pub mod plot;
pub mod prepared;
pub mod profile;
pub mod progress;
pub mod quick;
pub mod random;
pub mod rawread;
pub mod reading;
pub mod reads;
pub mod report;
pub mod reporting;
pub mod rig;
pub mod run;
pub mod sample;
pub mod scale;
#[cfg(test)]
mod scratch;
pub mod screen;
pub mod senders;
pub mod site;
pub mod stats;
pub mod summary;
pub mod sweep;
pub mod table;
pub mod terminal;
pub mod textfile;
pub mod usage;
pub mod verdict;
pub mod wakefd;
pub mod workdir;
