//! `profile`: where a run's time goes, by flame graph and by table.
//!
//! From top to bottom: a `run` is started and `perf` attached to it (`recording`) as far as the system allows (`perf`);
//! what perf wrote becomes events (`script`), events become stacks and sums (`tally`), whose frames get the names of
//! places (`area`), and all of it pictures (`flame`), a `document` and a `screen`. What this process itself does is
//! recorded by `within`.

pub mod area;
pub mod command;
mod document;
pub mod flame;
pub mod perf;
mod recording;
mod screen;
pub mod script;
pub mod tally;
pub mod within;
