//! Which cells nothing beats: throughput against p99.9, among cells that can be held against each other.
//!
//! Two cells can be if the same comes to them (the conditions) and an ack of theirs means the same. Otherwise a policy
//! that promises nothing would always win.

use ringmain::types::FlushPolicy;
use serde::Serialize;

use super::lists::Setting;
use super::plan::Cell;
use crate::run::result::{Document, State};
use crate::run::values::BackendName;
use crate::run::workload::Workload;

/// What comes to a log, or how it was measured; the rest of the settings can be chosen.
const CONDITIONS: [&str; 9] = [
    "consumers",
    "rate",
    "arrival",
    "record-bytes",
    "keys",
    "payload",
    "seconds",
    "warmup",
    "seed",
];

/// Whether a setting is no choice.
pub fn is_condition(name: &str) -> bool {
    CONDITIONS.contains(&name)
}

/// What an ack means, the strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ack {
    /// On stable storage.
    Durable,
    /// Written; a flush follows within a bound.
    Interval,
    /// Written; the system flushes when it likes.
    Written,
    /// Taken, and kept nowhere.
    Nothing,
}

impl Ack {
    /// Of a workload.
    pub fn of(workload: &Workload) -> Self {
        match (workload.backend, workload.flush.0) {
            (BackendName::Null, _) => Self::Nothing,
            (_, FlushPolicy::Group) => Self::Durable,
            (_, FlushPolicy::Interval { .. }) => Self::Interval,
            (_, FlushPolicy::Os) => Self::Written,
        }
    }

    /// In a word or two, before "cells".
    pub fn name(self) -> &'static str {
        match self {
            Self::Durable => "durable",
            Self::Interval => "interval",
            Self::Written => "os",
            Self::Nothing => "null",
        }
    }

    /// In words.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Durable => "durable: what is acked is on stable storage",
            Self::Interval => {
                "not durable: acked before the flush that follows; a power cut loses up to an interval of acked records"
            }
            Self::Written => {
                "not durable: acked when written, flushed when the system likes; a power cut loses acked records"
            }
            Self::Nothing => "keeps nothing: the ceiling of the generator, and no choice",
        }
    }
}

/// A measured cell.
#[derive(Clone, Debug)]
pub struct Point<'a> {
    /// Which cell.
    pub cell: &'a Cell,
    /// Its figures.
    pub document: &'a Document,
    /// What its ack means.
    pub ack: Ack,
    /// Records a second that count: where a rate was asked for and met, that rate, so that noise decides nothing.
    pub records_per_s: f64,
    /// From the intended send time, in microseconds.
    pub p999_us: f64,
    /// Why it is not to be recommended, whatever its figures.
    pub doubt: Option<String>,
    /// Whether no other of its group has both more throughput and a lower p99.9.
    pub is_front: bool,
}

impl<'a> Point<'a> {
    /// Of a cell that was measured at least once.
    pub fn of(cell: &'a Cell, document: &'a Document) -> Self {
        let result = &document.result;
        let met = result.target_records_per_s.filter(|_| result.target_rate_met == Some(true));
        let ack = Ack::of(&cell.workload);
        Self {
            cell,
            document,
            ack,
            records_per_s: met.unwrap_or(result.records_per_s),
            p999_us: result.latency_us.p999,
            doubt: doubt(document, ack),
            is_front: false,
        }
    }

    /// Whether its p99.9 rests on too few batches.
    pub fn is_thin(&self) -> bool {
        self.document.result.latency_us.thin.iter().any(|name| name == "p999")
    }

    fn beats(&self, other: &Self) -> bool {
        self.records_per_s >= other.records_per_s
            && self.p999_us <= other.p999_us
            && (self.records_per_s, self.p999_us) != (other.records_per_s, other.p999_us)
    }

    /// What is varied, without the conditions.
    pub fn choices(&self) -> Vec<Setting> {
        let choices = self.cell.settings.iter().filter(|(name, _)| !is_condition(name));
        choices.cloned().collect()
    }
}

fn doubt(document: &Document, ack: Ack) -> Option<String> {
    let tally = document.verify.tally;
    if ack == Ack::Nothing {
        Some("keeps nothing".to_owned())
    } else if !tally.is_clean() {
        Some("what was acked is not there".to_owned())
    } else if !document.verify.verified {
        Some("not verified".to_owned())
    } else if document.result.target_rate_met == Some(false) {
        Some("rate missed".to_owned())
    } else {
        None
    }
}

/// Cells that can be held against each other.
#[derive(Clone, Debug)]
pub struct Group<'a> {
    /// What comes to all of them, as far as it is varied.
    pub conditions: Vec<Setting>,
    /// What an ack of them means.
    pub ack: Ack,
    /// In the order of their numbers.
    pub points: Vec<Point<'a>>,
}

impl<'a> Group<'a> {
    /// Those that nothing beats, the fastest first.
    pub fn front(&self) -> Vec<&Point<'a>> {
        let mut front: Vec<_> = self.points.iter().filter(|point| point.is_front).collect();
        front.sort_by(|a, b| b.records_per_s.total_cmp(&a.records_per_s));
        front
    }
}

/// Sorts what was measured into groups, conditions in the order of their cells and the strongest ack first, and marks
/// the front of each.
pub fn groups<'a>(measured: impl IntoIterator<Item = (&'a Cell, &'a Document)>) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    let mut seen: Vec<Vec<Setting>> = Vec::new();
    for (cell, document) in measured {
        let point = Point::of(cell, document);
        let conditions: Vec<Setting> =
            cell.settings.iter().filter(|(name, _)| is_condition(name)).cloned().collect();
        if !seen.contains(&conditions) {
            seen.push(conditions.clone());
        }
        let alike =
            |group: &&mut Group<'_>| (&group.conditions, group.ack) == (&conditions, point.ack);
        match groups.iter_mut().find(alike) {
            Some(group) => group.points.push(point),
            None => groups.push(Group { conditions, ack: point.ack, points: vec![point] }),
        }
    }
    let place = |conditions: &[Setting]| seen.iter().position(|seen| seen == conditions);
    groups.sort_by_key(|group| (place(&group.conditions), group.ack));
    for group in &mut groups {
        let rivals: Vec<_> = group.points.iter().filter(|p| p.doubt.is_none()).cloned().collect();
        for point in &mut group.points {
            point.is_front =
                point.doubt.is_none() && !rivals.iter().any(|rival| rival.beats(point));
        }
    }
    groups
}

/// How many of a cell's repeats are there, where they are not all.
pub fn repeats_there(document: &Document) -> Option<usize> {
    (document.state != State::Complete).then_some(document.result.repeats.len())
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::Value;

    use super::*;
    use crate::run::result::{KIND, Latency, Repeat, RunResult, SCHEMA, Verify};

    /// A cell with a flush policy and a codec, and what it came to in two repeats.
    pub(in crate::sweep) fn measured(
        number: u32,
        settings: &[(&str, &str)],
        (records_per_s, p999): (f64, f64),
    ) -> (Cell, Document) {
        let settings: Vec<Setting> = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let flags = crate::sweep::lists::flags_of(&settings).expect("flags");
        let workload = flags.resolve().expect("resolves");
        let latency_us = Latency { p50: p999 / 3.0, p99: p999 / 2.0, p999, ..Latency::default() };
        let repeat = |share: f64| Repeat {
            records_per_s: records_per_s * share,
            latency_us: Latency { p999: p999 * share, ..latency_us.clone() },
            ..Repeat::default()
        };
        let result = RunResult {
            records_per_s,
            latency_us: latency_us.clone(),
            closed_loop: true,
            repeats: vec![repeat(0.999), repeat(1.001)],
            ..RunResult::default()
        };
        let document = Document {
            schema: SCHEMA,
            kind: KIND.to_owned(),
            state: State::Complete,
            command: String::new(),
            started: String::new(),
            host: String::new(),
            workload: workload.clone(),
            env: Value::Null,
            payload: Value::Null,
            neighbours: None,
            result,
            verify: Verify { verified: true, ..Verify::default() },
            warnings: Vec::new(),
            directory: None,
        };
        let directory = format!("cell-{number}");
        (Cell { number, settings, workload, directory }, document)
    }

    pub(in crate::sweep) fn front(group: &Group<'_>) -> Vec<u32> {
        group.front().iter().map(|point| point.cell.number).collect()
    }

    #[test]
    fn the_front_is_what_nothing_beats_among_acks_that_mean_the_same() {
        let cells = [
            measured(1, &[("flush", "group"), ("codec", "none")], (100.0, 50.0)),
            measured(2, &[("flush", "group"), ("codec", "lz4")], (90.0, 10.0)),
            measured(3, &[("flush", "group"), ("codec", "zstd")], (80.0, 20.0)),
            measured(4, &[("flush", "os"), ("codec", "none")], (500.0, 5.0)),
            measured(5, &[("flush", "interval:1s"), ("codec", "none")], (400.0, 6.0)),
        ];
        let groups = groups(cells.iter().map(|(cell, document)| (cell, document)));
        let acks: Vec<_> = groups.iter().map(|group| group.ack).collect();
        assert_eq!(acks, [Ack::Durable, Ack::Interval, Ack::Written]);
        assert_eq!(front(&groups[0]), [1, 2], "3 has less throughput and a longer tail than 2");
        assert_eq!((front(&groups[1]), front(&groups[2])), (vec![5], vec![4]));
    }

    #[test]
    fn other_conditions_are_another_group_and_a_doubtful_cell_is_on_no_front() {
        let cells = [
            measured(1, &[("payload", "generated:2"), ("codec", "none")], (100.0, 50.0)),
            measured(2, &[("payload", "generated:9"), ("codec", "none")], (200.0, 20.0)),
            measured(3, &[("payload", "generated:9"), ("codec", "lz4")], (300.0, 10.0)),
        ];
        let mut lossy = cells.clone();
        lossy[2].1.verify.tally.lost = 1;
        let sound = groups(cells.iter().map(|(cell, document)| (cell, document)));
        assert_eq!(sound.iter().map(front).collect::<Vec<_>>(), [vec![1], vec![3]]);
        let damaged = groups(lossy.iter().map(|(cell, document)| (cell, document)));
        assert_eq!(front(&damaged[1]), [2]);
        assert!(damaged[1].points[1].doubt.as_deref().is_some_and(|why| why.contains("not there")));
    }

    #[test]
    fn cells_that_met_the_same_rate_are_as_fast_as_each_other() {
        let (cell, mut document) = measured(1, &[("flush", "group")], (999.3, 5.0));
        document.result.target_records_per_s = Some(1000.0);
        document.result.target_rate_met = Some(true);
        assert!((Point::of(&cell, &document).records_per_s - 1000.0).abs() < 1e-9);
        document.result.target_rate_met = Some(false);
        let point = Point::of(&cell, &document);
        assert!(point.records_per_s < 1000.0 && point.doubt.is_some());
    }
}
