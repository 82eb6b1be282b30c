//! Claims as the terminal shows them: the sentence, the verdict, and the arms as bars.

use std::fmt::Write;

use super::command::PAGE;
use super::document::{ArmEntry, Document, Entry};
use super::rule::Finding;
use crate::run::result::State;
use crate::stats::median;
use crate::terminal::{Terminal, wrapped};

/// Widest running text.
const TEXT_COLUMNS_MAX: usize = 110;

/// Widest bar.
const BAR_CELLS_MAX: usize = 40;

/// Largest over smallest from which on bars are as long as the logarithm.
const LOG_FROM: f64 = 50.0;

/// All of it.
pub(super) fn render(document: &Document, terminal: Terminal) -> String {
    let columns = terminal.columns.min(TEXT_COLUMNS_MAX);
    let mut text = String::new();
    for entry in &document.claims {
        text += &claim(entry, columns, terminal);
        text.push('\n');
    }
    if document.claims.len() > 1 {
        text += &summary(document, columns, terminal);
    }
    for note in &document.notes {
        line(&mut text, &format!("note     {note}"), columns, 9);
    }
    if document.state == State::Interrupted {
        line(&mut text, "stopped before all claims were measured", columns, 0);
    }
    if let Some(dir) = &document.directory {
        line(&mut text, &format!("results  {}", dir.display()), columns, 9);
        line(&mut text, &format!("page     {}", dir.join(PAGE).display()), columns, 9);
    }
    text
}

/// One claim.
pub(super) fn claim(entry: &Entry, columns: usize, terminal: Terminal) -> String {
    let mut text = String::new();
    line(&mut text, &format!("{}: {}", entry.name, entry.sentence), columns, 4);
    let verdict = coloured(entry.verdict, terminal);
    line(&mut text, &format!("  {verdict}. {}", entry.why), columns, 4);
    text += &bars(&entry.arms, columns, terminal);
    for note in &entry.notes {
        line(&mut text, &format!("  note: {note}"), columns, 4);
    }
    text
}

fn summary(document: &Document, columns: usize, terminal: Terminal) -> String {
    let widest = document.claims.iter().map(|entry| entry.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for entry in &document.claims {
        let verdict = coloured(entry.verdict, terminal);
        line(&mut text, &format!("{:<widest$}  {verdict}", entry.name), columns, widest + 2);
    }
    text.push('\n');
    text
}

fn coloured(verdict: Finding, terminal: Terminal) -> String {
    let colour = match verdict {
        Finding::Holds => 32,
        Finding::DoesNotHold => 31,
        Finding::Depends => 33,
        Finding::NotMeasurable => 36,
    };
    if terminal.colour { format!("\x1b[1;{colour}m{verdict}\x1b[0m") } else { verdict.to_string() }
}

fn bars(arms: &[ArmEntry], columns: usize, terminal: Terminal) -> String {
    let value = |arm: &ArmEntry| median(arm.rounds.iter().copied());
    let values: Vec<f64> = arms.iter().filter_map(value).filter(|value| *value > 0.0).collect();
    let most = values.iter().copied().fold(0.0, f64::max);
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let label = |arm: &ArmEntry| arm.label.chars().count();
    let labels = arms.iter().map(label).max().unwrap_or(0);
    let told = arms.iter().map(|arm| arm.told.chars().count()).max().unwrap_or(0);
    let cells = columns.saturating_sub(labels + told + 10).min(BAR_CELLS_MAX);
    let mark = if terminal.unicode { "█" } else { "#" };
    let mut text = String::new();
    let mut group = "";
    for arm in arms {
        if arm.group != group {
            group = &arm.group;
            writeln!(text, "    {group}").expect("memory takes all");
        }
        let bar = match value(arm) {
            None => arm.absent.clone().map_or("-".to_owned(), |why| format!("not run: {why}")),
            // At least a cell even for the least: each cell is the same factor.
            Some(value) if most / least > LOG_FROM => {
                let share = (value / least).ln() / (most / least).ln();
                mark.repeat(1 + (share * cells.saturating_sub(1) as f64).round() as usize)
            }
            Some(value) => mark.repeat((value / most * cells as f64).round() as usize),
        };
        let line = format!("      {:<labels$}  {:>told$}  {bar}", arm.label, arm.told);
        writeln!(text, "{}", line.trim_end()).expect("memory takes all");
    }
    if most / least > LOG_FROM {
        text += "      (bars are logarithmic: equal steps are equal factors)\n";
    }
    text
}

fn line(text: &mut String, line: &str, columns: usize, indent: usize) {
    writeln!(text, "{}", wrapped(line, columns, indent)).expect("memory takes all");
}
