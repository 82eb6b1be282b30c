//! Pages: one HTML file each that needs no network, and no script for what it mainly shows, for a desk and a phone, by
//! day, by night and on paper.
//!
//! `page` is what all pages share; `sheet`, `lines`, `heat` and `bars` draw, `tables` sets; `quick` is the page of
//! `quick`; `subject` reads a run, and `runs` with its `pictures` is the page of several; `claims` is the page of
//! `claims`; `front` is a picture that stands alone.

use std::path::Path;

use crate::run::folder::FolderError;

mod bars;
pub mod claims;
mod front;
mod heat;
mod lines;
mod page;
mod pictures;
pub mod quick;
mod runs;
mod sheet;
mod subject;
mod tables;

#[cfg(test)]
mod tests;

/// The most runs of a page: each has a letter.
pub const RUNS_MAX: usize = lines::LETTERS;

/// A run, read from its directory.
#[derive(Clone, Debug)]
pub struct Run(subject::Subject);

impl Run {
    /// Reads a run's directory. An interval log that is cut off is read as far as it goes.
    ///
    /// # Errors
    /// If it is no run's, of another schema, or damaged in another way.
    pub fn read(dir: &Path) -> Result<Self, FolderError> {
        subject::Subject::read(dir).map(Self)
    }
}

/// Runs that share a page.
#[derive(Clone, Debug)]
pub struct Runs(Vec<subject::Subject>);

impl Runs {
    /// These, in this order.
    pub fn new(runs: Vec<Run>) -> Self {
        Self(runs.into_iter().map(|run| run.0).collect())
    }

    /// What could not be read of them.
    pub fn damage(&self) -> Vec<String> {
        self.0.iter().flat_map(|run| run.damage.clone()).collect()
    }

    /// Throughput against p99.9 as an SVG document of its own; none with fewer than two runs that have both.
    pub fn picture(&self) -> Option<String> {
        front::render(&self.0)
    }

    /// Their page.
    pub fn render(&self) -> String {
        runs::render(&self.0)
    }
}
