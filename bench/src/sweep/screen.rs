//! A sweep as a terminal shows it: tables by kind of ack, a plot, what each setting does, and what to choose.

use super::document::{Document, Measured};
use super::judge::{Group, Point, is_condition, repeats_there};
use super::lists::Setting;
use super::plan::{Plan, Refused};
use super::scatter;
use crate::human;
use crate::run::result::State;
use crate::terminal::{Terminal, wrapped};

const GAP: &str = "  ";

/// What a cell of the table says when there is nothing to say.
const NOTHING: &str = "-";

/// Settings in words: `flush os, codec lz4`.
pub(super) fn settings(settings: &[Setting]) -> String {
    if settings.is_empty() {
        return "as given".to_owned();
    }
    let words = settings.iter().map(|(name, value)| format!("{name} {value}"));
    words.collect::<Vec<_>>().join(", ")
}

struct Column {
    head: &'static str,
    cell: fn(&Point<'_>) -> String,
    /// Left out first where the terminal is narrow; 0 stays.
    luxury: u8,
}

const FIGURES: [Column; 6] = [
    Column { head: "rec/s", cell: |p| human::count(p.document.result.records_per_s), luxury: 0 },
    Column { head: "MiB/s", cell: |p| human::digits(p.document.result.mib_per_s), luxury: 3 },
    Column {
        head: "% of device",
        cell: |p| p.document.result.percent_of_device.map_or(NOTHING.to_owned(), human::percent),
        luxury: 2,
    },
    Column { head: "p50", cell: |p| human::micros(p.document.result.latency_us.p50), luxury: 1 },
    Column { head: "p99", cell: |p| human::micros(p.document.result.latency_us.p99), luxury: 1 },
    Column { head: "p99.9", cell: |p| human::micros(p.p999_us), luxury: 0 },
];

/// All of it.
pub(super) fn render(measured: &Measured<'_>, document: &Document, terminal: Terminal) -> String {
    let groups = measured.groups();
    let mut blocks = vec![tables(&groups, measured.plan, terminal)];
    let mut conditions: Vec<&[Setting]> = groups.iter().map(|g| g.conditions.as_slice()).collect();
    conditions.dedup();
    for same in conditions {
        let alike: Vec<_> = groups.iter().filter(|group| group.conditions == same).collect();
        let title = if same.is_empty() { String::new() } else { settings(same) + "\n" };
        let plot = scatter::render(&alike, terminal);
        blocks.extend((!plot.is_empty()).then(|| title + &plot));
    }
    blocks.push(effects(document));
    blocks.push(left_out(measured, document, terminal));
    blocks.push(recommendations(document, terminal));
    blocks.push(next(document));
    blocks.retain(|block| !block.is_empty());
    blocks.join("\n")
}

fn tables(groups: &[Group<'_>], plan: &Plan, terminal: Terminal) -> String {
    let choices: Vec<&String> = plan.varied.iter().filter(|name| !is_condition(name)).collect();
    for luxury_max in (0..=3).rev() {
        let columns: Vec<_> = FIGURES.iter().filter(|c| c.luxury <= luxury_max).collect();
        let text = table(groups, &choices, &columns, plan.rounds);
        let width = text.lines().filter(|line| line.starts_with(' ')).map(str::len).max();
        if luxury_max == 0 || width.unwrap_or(0) <= terminal.columns {
            return text;
        }
    }
    unreachable!("the narrowest table is taken")
}

fn table(groups: &[Group<'_>], choices: &[&String], figures: &[&Column], rounds: u32) -> String {
    let heads = choices.iter().map(|name| (*name).clone());
    let mut head: Vec<String> = std::iter::once("cell".to_owned()).chain(heads).collect();
    head.extend(figures.iter().map(|column| column.head.to_owned()));
    head.push(String::new());
    let row = |point: &Point<'_>| {
        let mark = if point.is_front { "*" } else { " " };
        let mut row = vec![format!("{}{mark}", point.cell.number)];
        row.extend(choices.iter().map(|name| {
            let own = point.cell.settings.iter().find(|(own, _)| own == *name);
            own.map_or(NOTHING.to_owned(), |(_, value)| value.clone())
        }));
        // Without the space before its unit a cell of a table is as easy to read, and narrower.
        row.extend(figures.iter().map(|column| (column.cell)(point).replace(' ', "")));
        row.push(remarks(point, rounds));
        row
    };
    let rows: Vec<Vec<Vec<String>>> =
        groups.iter().map(|group| group.points.iter().map(row).collect()).collect();
    let width = |nth: usize| {
        let cells = rows.iter().flatten().map(|row| row[nth].chars().count());
        cells.chain([head[nth].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &[String]| {
        let cells = cells.iter().zip(&widths).enumerate().map(|(nth, (cell, &width))| {
            let is_text = (1..=choices.len()).contains(&nth) || nth + 1 == widths.len();
            if is_text { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        format!("{GAP}{}\n", cells.collect::<Vec<_>>().join(GAP).trim_end())
    };
    let mut text = String::new();
    for (group, rows) in groups.iter().zip(&rows) {
        if !text.is_empty() {
            text.push('\n');
        }
        if !group.conditions.is_empty() {
            text += &(settings(&group.conditions) + "; ");
        }
        text += group.ack.meaning();
        text.push('\n');
        text += &line(&head);
        text.extend(rows.iter().map(|row| line(row)));
    }
    text
}

/// What to know of a row, in a few words.
fn remarks(point: &Point<'_>, rounds: u32) -> String {
    let result = &point.document.result;
    let there = repeats_there(point.document).map(|there| format!("{there} of {rounds} repeats"));
    let thin = point.is_thin().then(|| format!("p99.9 of {} batches", result.latency_us.count));
    let restless = (!result.steady).then(|| "not steady".to_owned());
    let bound = result.generator.was_bottleneck.then(|| "bound by the generator".to_owned());
    let all = [point.doubt.clone(), there, thin, restless, bound];
    all.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn effects(document: &Document) -> String {
    if document.effects.is_empty() {
        return String::new();
    }
    let title = "What a setting does where all else is equal (medians; throughput and p99.9 beside the first value)\n";
    let rows = document.effects.iter().map(|effect| {
        let what = format!("{} {} beside {}", effect.setting, effect.value, effect.against);
        let ack = if effect.changes_ack { ", and another ack" } else { "" };
        let pairs = if effect.pairs == 1 { "pair" } else { "pairs" };
        format!(
            "{GAP}{what:<40} {:>5} x throughput {:>5} x p99.9  {} {pairs}{ack}\n",
            human::digits(effect.records_per_s),
            human::digits(effect.p999),
            effect.pairs
        )
    });
    std::iter::once(title.to_owned()).chain(rows).collect()
}

/// What was not measured, and why.
fn left_out(measured: &Measured<'_>, document: &Document, terminal: Terminal) -> String {
    let mut text = refused(&measured.plan.refused, terminal);
    for (number, why) in &measured.ended.failed {
        let line = format!("failed  cell {number}: {why}\n");
        text += &line;
    }
    let missing =
        document.cells.iter().filter(|cell| cell.figures.is_none() && cell.doubt.is_none());
    let missing = missing.count();
    if missing > 0 {
        let line = format!("{missing} cells were not measured yet\n");
        text += &line;
    }
    text
}

/// Combinations that are no cell, those of the same reason together.
pub(super) fn refused(all: &[Refused], terminal: Terminal) -> String {
    let mut text = String::new();
    let mut reasons: Vec<&str> = all.iter().map(|refused| refused.reason.as_str()).collect();
    reasons.sort_unstable();
    reasons.dedup();
    for reason in reasons {
        text += &(wrapped(&format!("not measured  {reason}"), terminal.columns, 14) + "\n");
        for refused in all.iter().filter(|refused| refused.reason == reason) {
            let line = format!("              {}", settings(&refused.settings));
            text += &(wrapped(&line, terminal.columns, 16) + "\n");
        }
    }
    text
}

fn recommendations(document: &Document, terminal: Terminal) -> String {
    let mut text = String::new();
    for advice in &document.recommendations {
        let conditions = if advice.conditions.is_empty() {
            String::new()
        } else {
            format!("for {}: ", settings(&advice.conditions))
        };
        let word = if advice.durable { "take" } else { "or" };
        let line = format!("{word:<6}{conditions}{}", advice.text);
        text += &(wrapped(&line, terminal.columns, 6) + "\n");
        for note in &advice.notes {
            text += &(wrapped(&format!("      - {note}"), terminal.columns, 8) + "\n");
        }
    }
    let durable = document.recommendations.iter().any(|advice| advice.durable);
    if !durable {
        let note = "note  no durable cell to recommend: add --flush group to have acks that survive a power cut";
        text += &(wrapped(note, terminal.columns, 6) + "\n");
    }
    text
}

fn next(document: &Document) -> String {
    let dir = document.directory.display();
    if document.state != State::Complete {
        return format!("{dir}\ngo on with: ringmain-bench sweep --resume {dir}\n");
    }
    let cell = |number: u32| document.cells.iter().find(|cell| cell.number == number);
    let dirs = |numbers: &[u32]| {
        let dirs = numbers.iter().filter_map(|number| cell(*number));
        dirs.map(|cell| cell.directory.display().to_string()).collect::<Vec<_>>().join(" ")
    };
    let mut text = format!("{dir}\n");
    if let Some(advice) = document.recommendations.first() {
        let mut shown = vec![advice.cell, advice.fastest, advice.lowest_p999];
        shown.sort_unstable();
        shown.dedup();
        let line = format!("curves: ringmain-bench report {}\n", dirs(&shown));
        text += &line;
    }
    text
}

/// The plan, for `--dry-run`.
pub(super) fn plan(plan: &Plan, total: &str, terminal: Terminal) -> String {
    let cell = |cell: &super::plan::Cell| {
        format!("cell {:>4}  {}\n", cell.number, settings(&cell.settings))
    };
    let cells: String = plan.cells.iter().map(cell).collect();
    format!("{cells}{}{total}\n", refused(&plan.refused, terminal))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::judge::groups;
    use crate::sweep::judge::tests::measured;

    #[test]
    fn acks_that_mean_other_things_stand_in_tables_of_their_own_under_common_columns() {
        let cells = [
            measured(1, &[("flush", "group"), ("codec", "none")], (1_234_567.0, 900.0)),
            measured(2, &[("flush", "os"), ("codec", "zstd:19")], (5000.0, 100.0)),
        ];
        let groups = groups(cells.iter().map(|(cell, document)| (cell, document)));
        let names = ["flush".to_owned(), "codec".to_owned()];
        let columns: Vec<_> = FIGURES.iter().collect();
        let text = table(&groups, &names.iter().collect::<Vec<_>>(), &columns, 2);
        let place = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what} in\n{text}"));
        assert!(
            place("durable: ") < place("1.23M") && place("1.23M") < place("not durable: "),
            "{text}"
        );
        let ends = |line: &str, what: &str| line.find(what).map(|at| at + what.len());
        let heads: Vec<_> = text.lines().filter(|line| line.contains("rec/s")).collect();
        let row = text.lines().find(|line| line.contains("5000")).expect("a row");
        assert_eq!(ends(heads[0], "rec/s"), ends(row, "5000"), "{text}");
        assert_eq!(heads[0], heads[1]);
    }
}
