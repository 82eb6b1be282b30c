//! `ringmain-bench`: proves or refutes what is claimed of the ringmain log, on the machine it runs on.
//!
//! From top to bottom: a command (`cli`) becomes a plan of arms (`quick`), each arm runs in slices against
//! the disk (`device`, `floor`, `clients`), slices become figures (`histogram`, `stats`), figures become a
//! table, a plot, a page and a document (`table`, `plot`, `report`, `json`).

pub mod env;
pub mod histogram;
pub mod interrupt;
pub mod loglines;
pub mod payload;
pub mod random;
#[cfg(test)]
mod scratch;
pub mod stats;
pub mod usage;
pub mod workdir;
