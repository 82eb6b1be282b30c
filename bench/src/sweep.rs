//! `sweep`: every combination of lists of settings, measured by turns as `run` measures one, and what to choose.
//!
//! From top to bottom: `lists` of the flags of `run` become a `plan` of cells; `measure` goes through it in rounds;
//! `judge` tells which cells nothing beats, `advice` says which to take and why, and `screen` and `document` show it.

pub mod advice;
pub mod command;
pub mod document;
pub mod judge;
pub mod lists;
pub mod measure;
pub mod plan;
mod scatter;
mod screen;
