//! Lines on common axes. Each has a colour, a dash and a letter at its end, so that it can be told from the others
//! without colours.

use super::page::{escape, put};
use super::sheet::{Frame, Sheet, Unit};
use crate::plot::{Axes, Curve};
use crate::scale::Axis;

/// Colours told apart; further lines repeat them with another dash.
pub(super) const COLOURS: usize = 8;

/// Says how to read percentile curves.
pub(super) const CURVES_CAPTION: &str = "Latency: so many percent of the requests (below) took no longer than so much \
                                         (left). Both axes are logarithmic: each nine is as wide as the next.";

/// Pixels between the letters of lines that end near each other.
const LETTER_HIGH: f64 = 13.0;

/// Lines whose ends are nearer than this to each other, in pixels, share a column of letters.
const LETTER_WIDE: f64 = 16.0;

/// The most lines that have a letter of their own.
pub(super) const LETTERS: usize = 26;

/// Which line it is, the same in all drawings of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(pub(super) usize);

impl Key {
    /// Its letter.
    pub(super) fn letter(self) -> char {
        char::from(b'A' + (self.0 % LETTERS) as u8)
    }

    /// Classes of its colour and dash, for a stroke.
    pub(super) fn stroke(self) -> String {
        format!("k{} d{}", self.0 % COLOURS, self.0 / COLOURS % 4)
    }

    /// A small picture of its line and letter for tables and lists.
    pub(super) fn swatch(self) -> String {
        format!(
            "<svg class=\"key\" viewBox=\"0 0 34 14\" aria-hidden=\"true\"><path class=\"{}\" d=\"M0 7H20\"/>\
             <text x=\"24\" y=\"11\">{}</text></svg>",
            self.stroke(),
            self.letter()
        )
    }
}

/// A line of a drawing.
#[derive(Clone, Debug)]
pub(super) struct Line<'a> {
    /// Which.
    pub(super) key: Key,
    /// What the pointer is told.
    pub(super) name: &'a str,
    /// Further classes of its path.
    pub(super) class: &'static str,
    /// From left to right. A gap is where the next value is not a number.
    pub(super) points: Vec<(f64, f64)>,
}

/// Draws lines, on each of the sheets.
pub(super) fn draw(
    text: &mut String,
    sheets: &[Sheet],
    frame: &Frame,
    what: &str,
    lines: &[Line<'_>],
) {
    let names = lines.iter().map(|line| line.name).collect::<Vec<_>>().join(", ");
    for sheet in sheets {
        sheet.open(text, frame, &format!("{what}: {names}"));
        let mut ends = Vec::new();
        for line in lines {
            ends.extend(path(text, sheet, frame, line).map(|(x, y)| (line.key, x, y)));
        }
        letters(text, sheet, ends);
        Sheet::close(text);
    }
}

/// Draws one line and says where it ends.
fn path(text: &mut String, sheet: &Sheet, frame: &Frame, line: &Line<'_>) -> Option<(f64, f64)> {
    put(
        text,
        format_args!(
            "<path class=\"{} {}\" data-name=\"{}\" d=\"",
            line.key.stroke(),
            line.class,
            escape(line.name)
        ),
    );
    let (mut end, mut pen_up) = (None, true);
    for &(x, y) in &line.points {
        if !y.is_finite() {
            pen_up = true;
            continue;
        }
        let at = (sheet.x(frame.x.0.share(x)), sheet.y(frame.y.0.share(y)));
        put(text, format_args!("{}{:.1} {:.1}", if pen_up { 'M' } else { 'L' }, at.0, at.1));
        (end, pen_up) = (Some(at), false);
    }
    put(text, format_args!("\"><title>{}</title></path>\n", escape(line.name)));
    end
}

/// Writes a letter at each end. Those that would lie on each other are moved apart, and a thin line leads to them.
fn letters(text: &mut String, sheet: &Sheet, mut ends: Vec<(Key, f64, f64)>) {
    ends.sort_by(|a, b| a.1.total_cmp(&b.1));
    let columns = ends.chunk_by(|a, b| b.1 - a.1 < LETTER_WIDE);
    for column in columns {
        let right = column.iter().map(|end| end.1).fold(f64::NEG_INFINITY, f64::max);
        let mut column = column.to_vec();
        column.sort_by(|a, b| a.2.total_cmp(&b.2));
        let wanted: Vec<f64> = column.iter().map(|end| end.2).collect();
        let places = apart(&wanted, (sheet.y(1.0), sheet.y(0.0)));
        for ((key, x, y), place) in column.into_iter().zip(places) {
            let at = right + 6.0;
            if (place - y).abs() > 2.0 || at - x > 8.0 {
                put(
                    text,
                    format_args!(
                        "<path class=\"lead k{}\" d=\"M{x:.1} {y:.1}L{at:.1} {place:.1}\"/>",
                        key.0 % COLOURS
                    ),
                );
            }
            let (colour, letter) = (key.0 % COLOURS, key.letter());
            let (x, y) = (at + 2.0, place + 4.0);
            put(
                text,
                format_args!(
                    "<text class=\"letter l{colour}\" x=\"{x:.1}\" y=\"{y:.1}\">{letter}</text>\n"
                ),
            );
        }
    }
}

/// Places in the order of what is wanted (rising), a letter's height from each other, within bounds as long as
/// there is room. A crowded column is spread from top to bottom.
fn apart(wanted: &[f64], (top, bottom): (f64, f64)) -> Vec<f64> {
    let last = wanted.len().saturating_sub(1) as f64;
    let gap = if last > 0.0 { LETTER_HIGH.min((bottom - top) / last) } else { LETTER_HIGH };
    let mut places = Vec::with_capacity(wanted.len());
    let mut least = top;
    for (nth, &y) in wanted.iter().enumerate() {
        let most = bottom - gap * (last - nth as f64);
        let place = y.min(most).max(least);
        places.push(place);
        least = place + gap;
    }
    places
}

/// Percentile curves as lines, and the axes around all of them; nothing if no curve has two points.
pub(super) fn of_curves<'a>(curves: &[(Key, Curve<'a>)]) -> Option<(Frame, Vec<Line<'a>>)> {
    // One request alone has no curve, and no say in the axes.
    let drawn: Vec<_> = curves.iter().filter(|(_, curve)| curve.points.len() > 1).collect();
    let axes = Axes::around(&drawn.iter().map(|(_, curve)| curve.clone()).collect::<Vec<_>>())?;
    let lines = drawn.iter().map(|(key, curve)| Line {
        key: *key,
        name: curve.name,
        class: "",
        points: curve.points.iter().map(|p| (p.quantile, p.ns.max(1) as f64)).collect(),
    });
    Some((frame_of(axes), lines.collect()))
}

/// The frame of percentile curves.
pub(super) fn frame_of(axes: Axes) -> Frame {
    Frame { x: (axes.quantiles, Unit::Quantile), y: (axes.latencies, Unit::Latency) }
}

/// The frame of something over time.
pub(super) fn over_time(seconds: f64, y: (Axis, Unit)) -> Frame {
    Frame { x: (Axis::span(seconds), Unit::Seconds), y }
}

#[cfg(test)]
mod tests {
    use super::super::sheet::FULL;
    use super::*;

    #[test]
    fn letters_never_lie_on_each_other_and_keep_their_order() {
        let wanted: Vec<f64> = (0..20).map(|nth| 100.0 + f64::from(nth / 4)).collect();
        let places = apart(&wanted, (10.0, 316.0));
        assert!(
            places.windows(2).all(|pair| pair[1] - pair[0] >= LETTER_HIGH - 1e-6),
            "{places:?}"
        );
        assert!(places.iter().all(|place| (10.0..=316.01).contains(place)), "{places:?}");
        assert_eq!(apart(&[50.0], (10.0, 316.0)), [50.0], "one alone stays where it is");
        let low = apart(&[315.0, 316.0], (10.0, 316.0));
        assert_eq!(low, [303.0, 316.0], "at the lower edge they give way upwards");
    }

    #[test]
    fn every_line_has_its_own_letter_and_dash_and_colour() {
        let looks: std::collections::HashSet<_> =
            (0..LETTERS).map(|nth| (Key(nth).letter(), Key(nth).stroke())).collect();
        let strokes: std::collections::HashSet<_> =
            (0..LETTERS).map(|nth| Key(nth).stroke()).collect();
        assert_eq!((looks.len(), strokes.len()), (LETTERS, LETTERS));
    }

    #[test]
    fn a_gap_in_the_values_is_a_gap_in_the_line() {
        let frame = over_time(3.0, (Axis::linear(10.0), Unit::Rate));
        let points = vec![(0.0, 1.0), (1.0, f64::NAN), (2.0, 4.0), (3.0, 5.0)];
        let mut text = String::new();
        draw(
            &mut text,
            FULL,
            &frame,
            "Rate",
            &[Line { key: Key(0), name: "a<b", class: "", points }],
        );
        let line = text.split("data-name=\"a&lt;b\" d=\"").nth(1).expect("a path");
        let path = line.split('"').next().expect("its points");
        assert_eq!((path.matches('M').count(), path.matches('L').count()), (2, 1), "{path}");
    }
}
