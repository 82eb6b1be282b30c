//! Where the time of arms goes that do not hold: the cores as a bar for each, by part of the program and of the
//! kernel, and in words what makes the difference.

use super::super::page::{escape, put};
use crate::claims::claim;
use crate::claims::document::{AreaShare, Comparison, Document, Entry, Profile};
use crate::claims::rule::{Figure, Outcome};
use crate::human;

/// Parts that have a colour; the rest is one.
const PARTS: usize = 7;

/// Parts that are named as what makes a difference, and the least they must make of it.
const NAMED: usize = 3;
const NAMED_SHARE_MIN: f64 = 0.08;

/// A smaller share of the cores is not enough to be what an arm is bound by.
const BUSY: f64 = 0.5;

struct Layout {
    class: &'static str,
    width: f64,
    axis: (f64, f64),
    row: f64,
    middle: f64,
    label: f64,
    /// Whether there is room for what a record takes.
    told: bool,
}

const LAYOUTS: [Layout; 2] = [
    Layout {
        class: "wide",
        width: 1040.0,
        axis: (200.0, 780.0),
        row: 28.0,
        middle: 14.0,
        label: 18.0,
        told: true,
    },
    Layout {
        class: "narrow",
        width: 360.0,
        axis: (2.0, 300.0),
        row: 44.0,
        middle: 30.0,
        label: 16.0,
        told: false,
    },
];

const BAR_HIGH: f64 = 16.0;
const FOOT: f64 = 22.0;

/// What a claim counts.
#[derive(Clone, Copy)]
enum Unit {
    Record,
    LookUp,
    Mib,
}

impl Unit {
    fn of(entry: &Entry) -> Self {
        match claim(&entry.name).map(|claim| claim.headline) {
            Some(figure) if figure.is_of_bytes() => Self::Mib,
            Some(Figure::P50) => Self::LookUp,
            _ => Self::Record,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Record => "a record",
            Self::LookUp => "a look-up",
            Self::Mib => "a MiB",
        }
    }

    /// Microseconds of processor time for one.
    fn us(self, profile: &Profile) -> f64 {
        let rate = match self {
            Self::Record | Self::LookUp => profile.records_per_s,
            Self::Mib => profile.mib_per_s,
        };
        profile.cpu_cores / rate.max(f64::MIN_POSITIVE) * 1e6
    }
}

/// All of it; nothing if nothing was recorded.
pub(super) fn draw(page: &mut String, document: &Document, entry: &Entry) {
    if entry.profiles.is_empty() {
        return;
    }
    let parts = parts(&entry.profiles);
    put(
        page,
        format_args!(
            "<h3>Where it does not hold: where the time goes</h3>\n<p class=\"legend\">Each arm once \
             more under <code>perf</code>: a whole bar is all {} cores for all of the time, and what \
             is empty is time in which a core had nothing to do for it: it waits, for the disk or \
             for the other side.</p>\n<figure>\n",
            document.env.cores
        ),
    );
    let cores = (document.env.cores as f64).max(1.0);
    for layout in &LAYOUTS {
        layout.draw(page, entry, (&parts, cores));
    }
    keys(page, &parts);
    *page += "</figure>\n<ul class=\"cases\">\n";
    for one in &entry.comparisons {
        let seen = |name: &str| entry.profiles.iter().find(|profile| profile.arm == name);
        if matches!(one.outcome, Outcome::DoesNotHold | Outcome::OnBound)
            && let (Some(of), Some(over)) = (seen(&one.of), seen(&one.over))
        {
            let words = words(one, (of, over), Unit::of(entry), cores);
            put(page, format_args!("<li>{words}</li>\n"));
        }
    }
    *page += "</ul>\n";
}

/// A part's name, as one word for both sides.
fn name(area: &AreaShare) -> String {
    if area.kernel { format!("kernel: {}", area.name) } else { area.name.clone() }
}

/// Those that take most of the cores in any of the arms, largest first.
fn parts(profiles: &[Profile]) -> Vec<String> {
    let mut most: Vec<(String, f64)> = Vec::new();
    for profile in profiles {
        for area in &profile.areas {
            let (name, cores) = (name(area), area.share * profile.cpu_cores);
            match most.iter_mut().find(|(own, _)| *own == name) {
                Some((_, own)) => *own = own.max(cores),
                None => most.push((name, cores)),
            }
        }
    }
    most.sort_by(|a, b| b.1.total_cmp(&a.1));
    most.into_iter().take(PARTS).map(|(name, _)| name).collect()
}

impl Layout {
    fn draw(&self, text: &mut String, entry: &Entry, (parts, cores): (&[String], f64)) {
        let low = entry.profiles.len() as f64 * self.row + 2.0;
        let spoken: Vec<String> = entry
            .profiles
            .iter()
            .map(|one| format!("{}: {} of {cores} cores", one.arm, human::digits(one.cpu_cores)))
            .collect();
        put(
            text,
            format_args!(
                "<svg class=\"{}\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"Cores in use. {}\">\n",
                self.class,
                self.width,
                low + FOOT,
                escape(&spoken.join("; "))
            ),
        );
        let scale = (self.axis.1 - self.axis.0) / cores;
        for core in 0..=cores as u32 {
            let x = self.axis.0 + f64::from(core) * scale;
            put(
                text,
                format_args!(
                    "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{low}\"/><text \
                     x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{core}</text>\n",
                    low + 16.0
                ),
            );
        }
        for (nth, profile) in entry.profiles.iter().enumerate() {
            let top = nth as f64 * self.row;
            self.row(text, (profile, Unit::of(entry)), (parts, scale), top);
        }
        *text += "</svg>\n";
    }

    fn row(
        &self,
        text: &mut String,
        (profile, unit): (&Profile, Unit),
        (parts, scale): (&[String], f64),
        top: f64,
    ) {
        let high = top + self.middle - BAR_HIGH / 2.0;
        put(
            text,
            format_args!(
                "<text class=\"arm\" x=\"0\" y=\"{}\">{}</text><rect class=\"idle\" x=\"{}\" y=\"{high}\" \
                 width=\"{:.1}\" height=\"{BAR_HIGH}\"/>\n",
                top + self.label,
                escape(&profile.arm),
                self.axis.0,
                self.axis.1 - self.axis.0
            ),
        );
        let mut x = self.axis.0;
        let mut rest = profile.cpu_cores;
        let share = |part: &String| {
            let own = profile.areas.iter().filter(|area| name(area) == *part);
            own.map(|area| area.share).sum::<f64>()
        };
        for (nth, part) in parts.iter().enumerate() {
            let cores = share(part) * profile.cpu_cores;
            rest -= cores;
            segment(text, (&format!("b{nth}"), part), (x, high, cores * scale));
            x += cores * scale;
        }
        segment(text, ("rest", "all the rest"), (x, high, rest.max(0.0) * scale));
        let mut told = format!("{} cores", human::digits(profile.cpu_cores));
        if self.told {
            put(&mut told, format_args!(", {} {}", human::micros(unit.us(profile)), unit.name()));
        }
        let at = if self.told { self.axis.1 + 14.0 } else { self.axis.1 };
        let (y, anchor) =
            if self.told { (top + self.label, "start") } else { (top + self.label, "end") };
        put(
            text,
            format_args!(
                "<text class=\"value\" x=\"{at}\" y=\"{y}\" text-anchor=\"{anchor}\">{told}</text>\n"
            ),
        );
    }
}

fn segment(text: &mut String, (class, part): (&str, &str), (x, y, wide): (f64, f64, f64)) {
    if wide < 0.05 {
        return;
    }
    put(
        text,
        format_args!(
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y}\" width=\"{wide:.1}\" \
             height=\"{BAR_HIGH}\"><title>{}</title></rect>\n",
            escape(part)
        ),
    );
}

fn keys(text: &mut String, parts: &[String]) {
    *text += "<ul class=\"keys\">\n";
    let coloured = parts.iter().enumerate().map(|(nth, part)| (format!("b{nth}"), part.as_str()));
    for (class, part) in coloured.chain([("rest".to_owned(), "all the rest")]) {
        put(
            text,
            format_args!(
                "<li><svg viewBox=\"0 0 12 12\" aria-hidden=\"true\"><rect class=\"{class}\" \
                 width=\"12\" height=\"12\"/></svg>{}</li>\n",
                escape(part)
            ),
        );
    }
    *text += "</ul>\n";
}

/// What a comparison's arms spend, and on what they differ.
fn words(one: &Comparison, (of, over): (&Profile, &Profile), unit: Unit, cores: f64) -> String {
    let (ours, theirs) = (unit.us(of), unit.us(over));
    let mut words = format!(
        "{}: in <code>{}</code> {} takes {} of processor time, in <code>{}</code> {}.",
        escape(&capital(&one.when)),
        escape(&one.of),
        unit.name(),
        human::micros(ours),
        escape(&one.over),
        human::micros(theirs)
    );
    let made: Vec<String> = differences((of, ours), (over, theirs))
        .into_iter()
        .filter(|(_, us)| us.abs() >= NAMED_SHARE_MIN * ours.max(theirs))
        .take(NAMED)
        .map(|(part, us)| {
            let sign = if us < 0.0 { "−" } else { "+" };
            format!("{} {sign}{}", escape(&part), human::micros(us.abs()))
        })
        .collect();
    if !made.is_empty() {
        put(&mut words, format_args!(" What differs most: {}.", made.join(", ")));
    }
    let busy = |profile: &Profile| profile.cpu_cores / cores;
    words += match (busy(of) < BUSY, busy(over) < BUSY) {
        (true, true) => " Neither is bound by the processors: both wait for most of the time.",
        (true, false) => " The first one waits for most of the time, the second one computes.",
        (false, true) => " The first one computes for most of the time, the second one waits.",
        (false, false) => "",
    };
    words
}

/// By how many microseconds parts differ, the largest difference first.
fn differences((of, ours): (&Profile, f64), (over, theirs): (&Profile, f64)) -> Vec<(String, f64)> {
    let mut all: Vec<(String, f64)> = Vec::new();
    let own = of.areas.iter().map(|area| (name(area), area.share * ours));
    let others = over.areas.iter().map(|area| (name(area), -area.share * theirs));
    for (part, us) in own.chain(others) {
        match all.iter_mut().find(|(name, _)| *name == part) {
            Some((_, sum)) => *sum += us,
            None => all.push((part, us)),
        }
    }
    all.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    all
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string());
    first.unwrap_or_default() + letters.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(areas: &[(&str, f64)], cores: f64) -> Profile {
        let area = |&(name, share): &(&str, f64)| AreaShare {
            name: name.to_owned(),
            kernel: false,
            share,
        };
        Profile {
            arm: "a<b".to_owned(),
            records_per_s: 1e6,
            mib_per_s: 100.0,
            cpu_cores: cores,
            samples: 1000,
            areas: areas.iter().map(area).collect(),
        }
    }

    #[test]
    fn what_differs_most_is_named_first_and_in_time() {
        let (of, over) =
            (profile(&[("zstd", 0.75), ("CRC", 0.25)], 2.0), profile(&[("CRC", 1.0)], 0.5));
        let one = Comparison {
            when: "over a link".to_owned(),
            of: of.arm.clone(),
            over: over.arm.clone(),
            figure: String::new(),
            bound: ">= 1.10".to_owned(),
            ratio: None,
            interval: None,
            ratios: Vec::new(),
            left_out: 0,
            far_ratio: None,
            outcome: Outcome::DoesNotHold,
        };
        let told = words(&one, (&of, &over), Unit::Record, 2.0);
        assert_eq!(
            told,
            "Over a link: in <code>a&lt;b</code> a record takes 2.00 us of processor time, in \
             <code>a&lt;b</code> 500 ns. What differs most: zstd +1.50 us. The first one computes for \
             most of the time, the second one waits."
        );
        assert_eq!(parts(&[over, of]), ["zstd", "CRC"]);
    }
}
