//! `run` and what is built on it: one workload against one backend, measured by an open loop.
//!
//! From top to bottom: flags and a file become a `workload`, which a `backend` is opened for; what came of it is a
//! `result`, kept in a directory of its own.

pub mod assemble;
pub mod backend;
pub mod backends;
pub mod baseline;
pub mod command;
pub mod compare;
pub mod consumers;
pub mod draw;
pub mod folder;
pub mod hlog;
pub mod kill;
pub mod ledger;
pub mod live;
pub mod machine;
pub mod maker;
pub mod measure;
pub mod pace;
pub mod peers;
pub mod profiler;
pub mod recorder;
pub mod repeat;
pub mod repeats;
pub mod result;
pub mod schedule;
pub mod search;
pub mod selftest;
pub mod table;
pub mod values;
pub mod workload;
