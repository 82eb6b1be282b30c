//! What the engine is compared with: logs of the same batches in files of the same size, each written as those who know
//! its interface would.
//!
//! They share what is not compared (where batches lie in files, how space is made ready ahead, how completions get
//! back to the measuring thread, how all of it is read) and differ in how bytes are written and flushed.

mod desk;
mod files;
mod group;
mod interval;
mod preparer;
pub mod pwrite;
pub mod ring;
mod store;
#[cfg(test)]
mod tests;
pub mod tokio;
mod track;
