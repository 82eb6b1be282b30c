//! What to choose, and why: a rule that is said, and the figures it rests on.

use serde::Serialize;

use super::judge::{Ack, Group, Point, is_condition};
use super::lists::Setting;
use super::screen::settings;
use crate::human;
use crate::run::repeats::difference;
use crate::run::result::Repeat;
use crate::stats::median;

/// The share of its group's highest throughput that a recommended cell has at least: of those the one with the lowest
/// p99.9 is taken.
pub const KEEP: f64 = 0.8;

/// What is recommended for a group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Advice {
    /// What an ack of the group means.
    pub ack: Ack,
    /// Whether that is that it is on stable storage.
    pub durable: bool,
    /// What comes to the group, as far as it is varied.
    pub conditions: Vec<Setting>,
    /// The cell to take.
    pub cell: u32,
    /// Its throughput over the group's highest.
    pub share_of_highest: f64,
    /// Its p99.9 over that of the cell with the highest throughput.
    pub p999_of_fastest: f64,
    /// The cell with the highest throughput.
    pub fastest: u32,
    /// The cell with the lowest p99.9.
    pub lowest_p999: u32,
    /// Cells from which the repeats can't tell it apart, in neither figure.
    pub alike: Vec<u32>,
    /// Why, in words.
    pub text: String,
    /// What else to know, a sentence each.
    pub notes: Vec<String>,
}

/// What a group comes to; nothing if none of its cells can be recommended.
pub fn advice(group: &Group<'_>) -> Option<Advice> {
    let front = group.front();
    let (fastest, lowest) = (*front.first()?, *front.last()?);
    let enough = |point: &&&Point<'_>| point.records_per_s >= KEEP * fastest.records_per_s;
    let pick = *front.iter().rfind(enough)?;
    let alike = alike(group, pick);
    let share_of_highest = pick.records_per_s / fastest.records_per_s.max(f64::MIN_POSITIVE);
    let p999_of_fastest = pick.p999_us / fastest.p999_us.max(f64::MIN_POSITIVE);
    let mut notes = Vec::new();
    if lowest.cell.number != pick.cell.number {
        notes.push(format!(
            "where only latency counts: {}, p99.9 {} at {} of the highest throughput",
            named(lowest),
            human::micros(lowest.p999_us),
            human::percent(lowest.records_per_s / fastest.records_per_s * 100.0)
        ));
    }
    notes.extend(doubts(pick, &alike));
    Some(Advice {
        ack: group.ack,
        durable: group.ack == Ack::Durable,
        conditions: group.conditions.clone(),
        cell: pick.cell.number,
        share_of_highest,
        p999_of_fastest,
        fastest: fastest.cell.number,
        lowest_p999: lowest.cell.number,
        alike,
        text: format!("{}; {}", reason(group, pick, fastest), group.ack.meaning()),
        notes,
    })
}

fn named(point: &Point<'_>) -> String {
    let choices = point.choices();
    if choices.is_empty() {
        return format!("cell {}", point.cell.number);
    }
    format!("cell {} ({})", point.cell.number, settings(&choices))
}

fn reason(group: &Group<'_>, pick: &Point<'_>, fastest: &Point<'_>) -> String {
    let (name, kind) = (named(pick), group.ack.name());
    let (rate, p999) = (human::count(fastest.records_per_s), human::micros(pick.p999_us));
    if group.points.len() == 1 {
        return format!("{name}: the only {kind} one, {rate} records/s at p99.9 {p999}");
    }
    if pick.cell.number == fastest.cell.number {
        return format!(
            "{name}: the highest throughput of the {kind} cells, {rate} records/s, and none with at least {} of it has \
             a lower p99.9 than its {p999}",
            human::percent(KEEP * 100.0)
        );
    }
    let same_rate = pick.records_per_s >= fastest.records_per_s;
    let share = human::percent(pick.records_per_s / fastest.records_per_s * 100.0);
    let share = if same_rate {
        "the highest throughput".to_owned()
    } else {
        format!("{share} of the highest throughput")
    };
    format!(
        "{name}: {share} of the {kind} cells ({}: {rate} records/s) at {} of its p99.9 ({p999}, not {})",
        named(fastest),
        human::percent(pick.p999_us / fastest.p999_us * 100.0),
        human::micros(fastest.p999_us)
    )
}

fn doubts(pick: &Point<'_>, alike: &[u32]) -> Vec<String> {
    let mut doubts = Vec::new();
    let result = &pick.document.result;
    if result.repeats.len() < 2 {
        doubts.push("one repeat says nothing of how sure this is".to_owned());
    } else if !alike.is_empty() {
        let numbers = alike.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        doubts.push(format!(
            "{} repeats can't tell it from cell {numbers}: take whichever suits",
            result.repeats.len()
        ));
    }
    if pick.is_thin() {
        doubts.push(format!(
            "its p99.9 rests on {} batches, too few: measure longer (--seconds) before relying on it",
            result.latency_us.count
        ));
    }
    if !result.steady {
        doubts.push("it was not steady: measure or warm up longer".to_owned());
    }
    doubts
}

/// The sound cells of the group that do not differ significantly from `pick`, neither in throughput nor in p99.9. A few
/// repeats tell hardly anything from anything, so that medians far apart count as a difference too.
fn alike(group: &Group<'_>, pick: &Point<'_>) -> Vec<u32> {
    let values = |point: &Point<'_>, of: fn(&Repeat) -> f64| -> Vec<f64> {
        point.document.result.repeats.iter().map(of).collect()
    };
    let near = |a: f64, b: f64| a.min(b) >= KEEP * a.max(b);
    let same = |other: &Point<'_>, of: fn(&Repeat) -> f64| {
        difference(&values(pick, of), &values(other, of))
            .is_some_and(|found| !found.is_significant())
    };
    let others =
        group.points.iter().filter(|p| p.cell.number != pick.cell.number && p.doubt.is_none());
    let same = others.filter(|p| {
        near(p.records_per_s, pick.records_per_s)
            && near(p.p999_us, pick.p999_us)
            && same(p, |r| r.records_per_s)
            && same(p, |r| r.latency_us.p999)
    });
    same.map(|point| point.cell.number).collect()
}

/// What one value of a setting does where everything else is equal.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Effect {
    /// The setting.
    pub setting: String,
    /// A value of it.
    pub value: String,
    /// The value it is held against: the first of the list.
    pub against: String,
    /// Throughput over that of the other, the median over the pairs.
    pub records_per_s: f64,
    /// The same of p99.9.
    pub p999: f64,
    /// Pairs of cells that differ in nothing else.
    pub pairs: usize,
    /// Whether the ack means less, or more.
    pub changes_ack: bool,
}

/// What each value of each choice does against the first one.
pub fn effects(groups: &[Group<'_>], varied: &[String]) -> Vec<Effect> {
    let points: Vec<&Point<'_>> =
        groups.iter().flat_map(|group| &group.points).filter(|p| p.doubt.is_none()).collect();
    let value = |point: &Point<'_>, name: &str| {
        let found = point.cell.settings.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let mut effects = Vec::new();
    for name in varied.iter().filter(|name| !is_condition(name)) {
        let mut values: Vec<String> = Vec::new();
        let mut ordered = points.clone();
        ordered.sort_by_key(|point| point.cell.number);
        for point in ordered {
            let own = value(point, name);
            if !values.contains(&own) {
                values.push(own);
            }
        }
        let Some((first, rest)) = values.split_first() else { continue };
        for other in rest {
            let pairs: Vec<_> = points
                .iter()
                .filter(|point| value(point, name) == *other)
                .filter_map(|point| {
                    let twin =
                        |p: &&&Point<'_>| value(p, name) == *first && differ_in(p, point, name);
                    Some((*points.iter().find(twin)?, *point))
                })
                .collect();
            let ratio = |of: fn(&Point<'_>) -> f64| {
                median(pairs.iter().map(|(a, b)| of(b) / of(a).max(f64::MIN_POSITIVE)))
            };
            let (Some(records_per_s), Some(p999)) =
                (ratio(|p| p.records_per_s), ratio(|p| p.p999_us))
            else {
                continue;
            };
            effects.push(Effect {
                setting: name.clone(),
                value: other.clone(),
                against: first.clone(),
                records_per_s,
                p999,
                pairs: pairs.len(),
                changes_ack: pairs.iter().any(|(a, b)| a.ack != b.ack),
            });
        }
    }
    effects
}

/// Whether two cells differ in one setting and no other.
fn differ_in(a: &Point<'_>, b: &Point<'_>, name: &str) -> bool {
    let rest = |point: &Point<'_>| -> Vec<Setting> {
        point.cell.settings.iter().filter(|(own, _)| own != name).cloned().collect()
    };
    rest(a) == rest(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::result::Document;
    use crate::sweep::judge::groups;
    use crate::sweep::judge::tests::measured;
    use crate::sweep::plan::Cell;

    fn grouped(cells: &[(Cell, Document)]) -> Vec<Group<'_>> {
        groups(cells.iter().map(|(cell, document)| (cell, document)))
    }

    #[test]
    fn the_lowest_tail_of_those_that_keep_most_of_the_throughput_is_recommended() {
        let cells = [
            measured(1, &[("flush", "group"), ("batch-records", "100")], (1_000_000.0, 5000.0)),
            measured(2, &[("flush", "group"), ("batch-records", "30")], (920_000.0, 1000.0)),
            measured(3, &[("flush", "group"), ("batch-records", "1")], (100_000.0, 400.0)),
            measured(4, &[("flush", "os"), ("batch-records", "100")], (9_000_000.0, 300.0)),
        ];
        let groups = grouped(&cells);
        let durable = advice(&groups[0]).expect("one can be recommended");
        assert_eq!((durable.cell, durable.fastest, durable.lowest_p999), (2, 1, 3));
        assert!(durable.durable && durable.alike.is_empty(), "{durable:?}");
        assert!(durable.notes[0].contains("cell 3"), "{durable:?}");
        for words in ["92 % of the highest throughput", "at 20 % of its p99.9", "durable: "] {
            assert!(durable.text.contains(words), "{}", durable.text);
        }
        let other = advice(&groups[1]).expect("one can be recommended");
        assert!(!other.durable && other.text.contains("not durable"), "{}", other.text);
    }

    #[test]
    fn cells_that_repeats_cannot_tell_apart_are_named() {
        let cells = [
            measured(1, &[("codec", "none")], (1000.0, 500.0)),
            measured(2, &[("codec", "lz4")], (1000.5, 500.2)),
            measured(3, &[("codec", "zstd")], (700.0, 900.0)),
        ];
        let told = advice(&grouped(&cells)[0]).expect("one can be recommended");
        let other = if told.cell == 1 { 2 } else { 1 };
        assert_eq!(told.alike, [other], "{told:?}");
        assert!(told.notes.iter().any(|note| note.contains("can't tell it from")), "{told:?}");
    }

    #[test]
    fn an_effect_is_the_median_over_cells_that_differ_in_nothing_else() {
        let cells = [
            measured(1, &[("flush", "os"), ("codec", "none")], (100.0, 10.0)),
            measured(2, &[("flush", "os"), ("codec", "lz4")], (200.0, 5.0)),
            measured(3, &[("flush", "group"), ("codec", "none")], (10.0, 100.0)),
            measured(4, &[("flush", "group"), ("codec", "lz4")], (40.0, 100.0)),
        ];
        let varied = ["flush".to_owned(), "codec".to_owned()];
        let found = effects(&grouped(&cells), &varied);
        let [flush, codec] = found.as_slice() else { panic!("{found:?}") };
        assert!((codec.records_per_s - 3.0).abs() < 1e-9 && codec.pairs == 2, "{codec:?}");
        assert!((codec.p999 - 0.75).abs() < 1e-9 && !codec.changes_ack, "{codec:?}");
        assert_eq!((flush.value.as_str(), flush.against.as_str()), ("group", "os"));
        assert!(flush.changes_ack, "{flush:?}");
    }
}
