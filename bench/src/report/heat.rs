//! Heat maps: how a moment's requests are spread over latencies, moment by moment. Cells alike and beside each other
//! are one run of a path, so that hours of a run stay small.

use super::page::{escape, put};
use super::sheet::{BOTTOM, Frame, LEFT, RIGHT, Sheet, TOP};

/// Bands of latency a decade; a band is 15 % wide.
pub(super) const BANDS_A_DECADE: f64 = 16.0;

/// The most columns of a map. Longer runs have longer columns.
pub(super) const COLUMNS_MAX: usize = 120;

/// Shares of a column's requests from which a cell has the next colour.
const LEVELS: [f64; 5] = [0.001, 0.01, 0.03, 0.1, 0.3];

/// The levels in words.
const LEVEL_NAMES: [&str; LEVELS.len() + 1] =
    ["under 0.1 %", "0.1 to 1 %", "1 to 3 %", "3 to 10 %", "10 to 30 %", "over 30 %"];

/// The band a latency is in.
pub(super) fn band(ns: u64) -> u16 {
    (((ns.max(1)) as f64).log10() * BANDS_A_DECADE) as u16
}

/// The shortest latency of a band.
pub(super) fn bound(band: u16) -> u64 {
    10_f64.powf(f64::from(band) / BANDS_A_DECADE).ceil() as u64
}

/// Counts by column and band.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Heat {
    /// Seconds a column stands for.
    column_seconds: f64,
    columns: Vec<Vec<(u16, u64)>>,
}

impl Heat {
    /// An empty map of so many seconds, with no more columns than there are moments.
    pub(super) fn new(seconds: f64, moments: usize) -> Self {
        let columns = moments.clamp(1, COLUMNS_MAX);
        let column_seconds = if seconds > 0.0 { seconds / columns as f64 } else { 1.0 };
        Self { column_seconds, columns: vec![Vec::new(); columns] }
    }

    /// Adds a moment's counts by band to the column its middle is in.
    pub(super) fn add(&mut self, middle_seconds: f64, bands: &[(u16, u64)]) {
        let last = self.columns.len() - 1;
        let column = &mut self.columns[((middle_seconds / self.column_seconds) as usize).min(last)];
        for &(band, count) in bands {
            match column.binary_search_by_key(&band, |cell| cell.0) {
                Ok(at) => column[at].1 += count,
                Err(at) => column.insert(at, (band, count)),
            }
        }
    }

    /// For each level the runs of cells in it: column, band, columns.
    fn runs(&self) -> [Vec<(usize, u16, usize)>; LEVELS.len() + 1] {
        let mut runs: [Vec<(usize, u16, usize)>; LEVELS.len() + 1] = Default::default();
        // The run each band is in, as level and place in that level's list, if it has come as far as this column.
        let mut open = std::collections::HashMap::<u16, (usize, usize)>::new();
        for (nth, column) in self.columns.iter().enumerate() {
            let total: u64 = column.iter().map(|cell| cell.1).sum();
            let before = std::mem::take(&mut open);
            for &(band, count) in column {
                let level = level(count as f64 / total as f64);
                let at = match before.get(&band) {
                    Some(&(same, at)) if same == level => {
                        runs[level][at].2 += 1;
                        at
                    }
                    _ => {
                        runs[level].push((nth, band, 1));
                        runs[level].len() - 1
                    }
                };
                open.insert(band, (level, at));
            }
        }
        runs
    }
}

fn level(share: f64) -> usize {
    LEVELS.iter().take_while(|least| share >= **least).count()
}

/// Draws the map on each of the sheets. `frame` has seconds to the right and a log axis of latencies.
pub(super) fn draw(
    text: &mut String,
    sheets: &[Sheet],
    frame: &Frame,
    (what, heat): (&str, &Heat),
) {
    let (seconds, latencies) = (frame.x.0, frame.y.0);
    let (low, high) = (latencies.min.log10(), latencies.max.log10());
    let runs = heat.runs();
    for sheet in sheets {
        sheet.open(text, frame, what);
        // One unit is a column wide and a band high, so that cells are whole numbers.
        put(
            text,
            format_args!(
                "<svg class=\"heat\" x=\"{LEFT}\" y=\"{TOP}\" width=\"{}\" height=\"{}\" viewBox=\"0 {:.3} {:.3} \
                 {:.3}\" preserveAspectRatio=\"none\">",
                sheet.width - LEFT - RIGHT,
                sheet.height - TOP - BOTTOM,
                -high * BANDS_A_DECADE,
                (seconds.max - seconds.min) / heat.column_seconds,
                (high - low) * BANDS_A_DECADE,
            ),
        );
        for (level, runs) in runs.iter().enumerate().filter(|(_, runs)| !runs.is_empty()) {
            put(
                text,
                format_args!("<path class=\"h{level}\" data-name=\"{}\" d=\"", LEVEL_NAMES[level]),
            );
            for &(column, band, columns) in runs {
                put(
                    text,
                    format_args!("M{column} {}h{columns}v1h-{columns}z", -i32::from(band) - 1),
                );
            }
            *text += "\"/>";
        }
        *text += "</svg>\n";
        Sheet::close(text);
    }
}

/// What the colours mean.
pub(super) fn legend(text: &mut String) {
    *text += "<p class=\"levels\">Share of a moment’s requests: ";
    for (level, name) in LEVEL_NAMES.iter().enumerate() {
        put(text, format_args!("<span><i class=\"h{level}\"></i>{}</span> ", escape(name)));
    }
    *text += "</p>\n";
}

#[cfg(test)]
mod tests {
    use super::super::lines::over_time;
    use super::super::sheet::{CARD, Unit};
    use super::*;
    use crate::scale::Axis;

    #[test]
    fn cells_alike_beside_each_other_are_one_run() {
        let mut heat = Heat::new(10.0, 10);
        for nth in 0..10 {
            heat.add(f64::from(nth) + 0.5, &[(80, 99), (96, 1)]);
        }
        let runs = heat.runs();
        assert_eq!(runs[5], [(0, 80, 10)], "over 30 %");
        assert_eq!(runs[2], [(0, 96, 10)], "1 to 3 %");
        assert_eq!(runs.iter().map(Vec::len).sum::<usize>(), 2);
    }

    #[test]
    fn a_quiet_moment_ends_a_run_and_is_empty() {
        let mut heat = Heat::new(3.0, 3);
        heat.add(0.5, &[(80, 1)]);
        heat.add(2.5, &[(80, 1)]);
        assert_eq!(heat.runs()[5], [(0, 80, 1), (2, 80, 1)]);
    }

    #[test]
    fn a_days_run_is_as_small_as_a_minutes() {
        let frame = over_time(86_400.0, (Axis::log(1e4, 1e9), Unit::Latency));
        let mut heat = Heat::new(86_400.0, 86_400);
        for nth in 0..86_400_u32 {
            let bands: Vec<_> = (64..144)
                .map(|band| (band, u64::from(nth.wrapping_mul(2_654_435_761) >> 20)))
                .collect();
            heat.add(f64::from(nth) + 0.5, &bands);
        }
        let mut text = String::new();
        draw(&mut text, CARD, &frame, ("a day", &heat));
        assert!(text.len() < 100_000, "{}", text.len());
    }

    #[test]
    fn a_band_holds_what_its_bounds_say() {
        assert_eq!((band(1), band(10), band(1000)), (0, 16, 48));
        for nth in 16..190 {
            assert_eq!((band(bound(nth)), band(bound(nth) - 1)), (nth, nth - 1));
        }
        assert_eq!(band(0), 0, "a latency below the clock's step is in the first");
    }
}
