//! `run` and what is built on it: one workload against one backend, measured by an open loop.
//!
//! From top to bottom: flags and a file become a `workload`, which a `backend` is opened for; what came of it is a
//! `result`, kept in a directory of its own.

pub mod backend;
pub mod folder;
pub mod hlog;
pub mod repeats;
pub mod result;
pub mod values;
pub mod workload;
