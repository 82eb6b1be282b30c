#![doc = include_str!("lib.md")]
#![deny(missing_docs)]

/// The page that registries and repositories show, so that its program is compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadMe;

pub mod batch;
pub mod buffers;
mod calibrate;
pub mod clock;
pub mod command;
mod compaction;
mod config;
mod defects;
mod engine;
pub mod error;
mod files;
pub mod format;
mod frontier;
mod handle;
mod index;
pub mod inspect;
mod journal;
pub mod limits;
mod local;
mod log;
mod recovery;
mod repair;
pub mod ring;
mod segment;
pub mod serve;
mod shard;
#[cfg(test)]
#[allow(
    clippy::match_same_arms,
    clippy::range_plus_one,
    clippy::decimal_bitwise_operands,
    clippy::format_push_string,
    reason = "tables of acts and long reports of failures read better so"
)]
mod simulation;
mod stats;
mod stream;
pub mod types;
mod window;

pub use calibrate::{Calibration, PathCalibration};
pub use config::{Backend, Config};
pub use engine::{Engine, Facts};
pub use handle::fetch::FetchFuture;
pub use handle::{LogHandle, Rejected};
pub use recovery::{Cut, Damage, JournalDamage, RecoveryReport};
pub use repair::{RepairError, Repaired, repair};
pub use shard::fetch::{Fetch, Fetched, ReadMark};
pub use shard::inbox::{AppendFuture, Appended};
pub use stats::{DiskTimes, Durations, Keeping, ShardStats};
pub use stream::{
    AfterDamage, LocalRecords, Record, Records, RecordsBlocking, StreamError, StreamOptions,
};
