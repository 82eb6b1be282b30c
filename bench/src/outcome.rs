//! A row as table, plot and page show it.

use crate::histogram::CurvePoint;
use crate::json::Entry;

/// What a row measures, which decides where it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The raw device.
    Device,
    /// The floor.
    Floor,
    /// The engine.
    Engine,
}

/// One arm's figures and its percentile curve.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What it measures.
    pub kind: Kind,
    /// The figures.
    pub entry: Entry,
    /// The latencies of all slices.
    pub curve: Vec<CurvePoint>,
    /// Whether the curve is among those plotted in the terminal.
    pub plotted: bool,
}
