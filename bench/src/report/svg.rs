//! Percentile curves as SVG, drawn twice: for a desk and for a phone, so that labels keep their size on both.

use std::fmt::Write;

use crate::human;
use crate::outcome::Outcome;
use crate::plot::{Axes, Curve, QUANTILES};

/// Colours told apart; further curves repeat them, dashed.
pub(super) const COLOURS: usize = 8;

/// Pixels, at the size the page shows the drawing.
struct Sheet {
    class: &'static str,
    width: f64,
    height: f64,
}

const SHEETS: [Sheet; 2] = [
    Sheet { class: "wide", width: 1040.0, height: 360.0 },
    Sheet { class: "narrow", width: 360.0, height: 300.0 },
];

const LEFT: f64 = 56.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 24.0;

/// Pixels between two labels of the lower axis, and pixels of one digit at the style's 12 pixels.
const LABEL_GAP: f64 = 8.0;
const DIGIT: f64 = 7.0;

/// A figure with the curves of all rows, or nothing if there is none.
pub(super) fn figure(rows: &[&Outcome]) -> String {
    let curves: Vec<Curve<'_>> =
        rows.iter().map(|row| Curve { name: row.entry.name, points: &row.curve }).collect();
    // One request alone has no curve, and no say in the axes.
    let drawn = curves.iter().filter(|curve| curve.points.len() > 1).cloned();
    let Some(axes) = Axes::around(&drawn.collect::<Vec<_>>()) else { return String::new() };
    let mut text = "<figure>\n<figcaption>Latency: so many percent of the requests (below) took no longer than so \
                    much (left). Both axes are logarithmic: each nine is as wide as the next.</figcaption>\n"
        .to_owned();
    for sheet in &SHEETS {
        sheet.draw(&mut text, axes, &curves);
    }
    text += "</figure>\n";
    text
}

impl Sheet {
    fn x(&self, share: f64) -> f64 {
        LEFT + share.clamp(0.0, 1.0) * (self.width - LEFT - RIGHT)
    }

    fn y(&self, share: f64) -> f64 {
        self.height - BOTTOM - share.clamp(0.0, 1.0) * (self.height - TOP - BOTTOM)
    }

    fn draw(&self, text: &mut String, axes: Axes, curves: &[Curve<'_>]) {
        let names = curves.iter().map(|curve| curve.name).collect::<Vec<_>>().join(", ");
        let (width, height) = (self.width, self.height);
        put(
            text,
            format_args!(
                "<svg class=\"{}\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"Latency \
                 curves: {names}\">\n",
                self.class
            ),
        );
        self.grid(text, axes);
        for (nth, curve) in curves.iter().enumerate().filter(|(_, c)| c.points.len() > 1) {
            let dashed = if nth >= COLOURS { " dashed" } else { "" };
            put(text, format_args!("<path class=\"k{}{dashed}\" d=\"", nth % COLOURS));
            for (step, point) in curve.points.iter().enumerate() {
                let (x, y) = (self.x(axes.x(point.quantile)), self.y(axes.y(point.ns as f64)));
                let letter = if step == 0 { 'M' } else { 'L' };
                put(text, format_args!("{letter}{x:.1} {y:.1}"));
            }
            put(text, format_args!("\"><title>{}</title></path>\n", curve.name));
        }
        *text += "</svg>\n";
    }

    fn grid(&self, text: &mut String, axes: Axes) {
        let (left, right) = (self.x(0.0), self.x(1.0));
        for ns in axes.ticks() {
            let y = self.y(axes.y(ns));
            let (label, at) = (human::tick(ns / 1000.0), y + 4.0);
            put(
                text,
                format_args!(
                    "<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                     <text x=\"{:.0}\" y=\"{at:.1}\" text-anchor=\"end\">{label}</text>\n",
                    left - 8.0
                ),
            );
        }
        let (low, high) = (self.y(0.0), self.y(1.0));
        let mut last = f64::NEG_INFINITY;
        for (quantile, label) in QUANTILES.iter().filter(|(q, _)| axes.x(*q) <= 1.0) {
            let x = self.x(axes.x(*quantile));
            put(
                text,
                format_args!(
                    "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{low}\" y2=\"{high}\"/>"
                ),
            );
            let half = label.len() as f64 * DIGIT / 2.0;
            if x - half >= last + LABEL_GAP {
                let at = self.height - 6.0;
                put(
                    text,
                    format_args!(
                        "<text x=\"{x:.1}\" y=\"{at}\" text-anchor=\"middle\">{label}</text>\n"
                    ),
                );
                last = x + half;
            }
        }
    }
}

fn put(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("memory takes all");
}
