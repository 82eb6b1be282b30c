//! The paper a drawing is on: its size, its axes with their labels, and where a value lies on it. Most drawings are
//! made twice, for a desk and for a phone, so that labels keep their size on both.

use super::page::{escape, put};
use crate::human;
use crate::scale::{Axis, QUANTILES, Scale};

/// Pixels, at the size the page shows the drawing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sheet {
    /// `wide` is hidden on a phone, `narrow` at a desk; anything else is shown on both.
    pub(super) class: &'static str,
    pub(super) width: f64,
    pub(super) height: f64,
}

const NARROW: Sheet = Sheet { class: "narrow", width: 360.0, height: 280.0 };

/// A drawing over the whole width.
pub(super) const FULL: &[Sheet] = &[Sheet { class: "wide", width: 1040.0, height: 340.0 }, NARROW];

/// A drawing beside another.
pub(super) const HALF: &[Sheet] = &[Sheet { class: "wide", width: 510.0, height: 320.0 }, NARROW];

/// One of many small drawings, alike on a desk and a phone.
pub(super) const CARD: &[Sheet] = &[Sheet { class: "card", width: 336.0, height: 200.0 }];

pub(super) const LEFT: f64 = 56.0;
pub(super) const RIGHT: f64 = 24.0;
pub(super) const TOP: f64 = 10.0;
pub(super) const BOTTOM: f64 = 24.0;

/// Pixels between two labels of the lower axis, and pixels of one digit at the style's 12 pixels.
const LABEL_GAP: f64 = 8.0;
const DIGIT: f64 = 7.0;

/// Pixels an axis has for each of its labels.
const TICK_WIDE: f64 = 90.0;
const TICK_HIGH: f64 = 34.0;

/// What an axis counts, which says how its values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// A share of the requests, as percent.
    Quantile,
    /// Nanoseconds.
    Latency,
    /// Something a second.
    Rate,
    /// Seconds.
    Seconds,
}

impl Unit {
    /// A round value on the axis.
    fn tick(self, value: f64) -> String {
        match self {
            Self::Quantile => {
                let named = QUANTILES.iter().find(|(quantile, _)| (quantile - value).abs() < 1e-12);
                named.map_or(String::new(), |(_, name)| (*name).to_owned())
            }
            Self::Latency => human::tick(value / 1000.0),
            Self::Rate => human::tick_count(value),
            Self::Seconds => format!("{} s", human::tick_count(value)),
        }
    }

    /// Its name for the script.
    const fn name(self) -> &'static str {
        match self {
            Self::Quantile => "quantile",
            Self::Latency => "latency",
            Self::Rate => "rate",
            Self::Seconds => "seconds",
        }
    }
}

/// Two axes and what they count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) x: (Axis, Unit),
    pub(super) y: (Axis, Unit),
}

const fn scale_name(scale: Scale) -> &'static str {
    match scale {
        Scale::Linear => "linear",
        Scale::Log => "log",
        Scale::Nines => "nines",
    }
}

impl Sheet {
    /// Pixels from the left of a share of the lower axis.
    pub(super) fn x(&self, share: f64) -> f64 {
        LEFT + share.clamp(0.0, 1.0) * (self.width - LEFT - RIGHT)
    }

    /// Pixels from the top of a share of the left axis.
    pub(super) fn y(&self, share: f64) -> f64 {
        self.height - BOTTOM - share.clamp(0.0, 1.0) * (self.height - TOP - BOTTOM)
    }

    /// Begins the drawing, described by `label`, and draws its axes.
    pub(super) fn open(&self, text: &mut String, frame: &Frame, label: &str) {
        let (width, height) = (self.width, self.height);
        let axis = |(axis, unit): (Axis, Unit)| {
            format!("{} {} {} {}", scale_name(axis.scale), axis.min, axis.max, unit.name())
        };
        put(
            text,
            format_args!(
                "<svg class=\"{}\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\" data-x=\"{}\" \
                 data-y=\"{}\" data-box=\"{} {} {} {}\">\n",
                self.class,
                escape(label),
                axis(frame.x),
                axis(frame.y),
                self.x(0.0),
                self.y(1.0),
                self.x(1.0),
                self.y(0.0)
            ),
        );
        self.grid(text, frame);
    }

    /// Draws the axes alone, into a drawing that is open.
    pub(super) fn grid(&self, text: &mut String, frame: &Frame) {
        self.grid_up(text, frame.y);
        self.grid_across(text, frame.x);
    }

    fn grid_up(&self, text: &mut String, (axis, unit): (Axis, Unit)) {
        let (left, right) = (self.x(0.0), self.x(1.0));
        let wanted = ((self.height - TOP - BOTTOM) / TICK_HIGH) as usize;
        for value in axis.ticks(wanted) {
            let y = self.y(axis.share(value));
            let (label, at) = (unit.tick(value), y + 4.0);
            put(
                text,
                format_args!(
                    "<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                     <text x=\"{:.0}\" y=\"{at:.1}\" text-anchor=\"end\">{label}</text>\n",
                    left - 8.0
                ),
            );
        }
    }

    fn grid_across(&self, text: &mut String, (axis, unit): (Axis, Unit)) {
        let (low, high) = (self.y(0.0), self.y(1.0));
        let wanted = ((self.width - LEFT - RIGHT) / TICK_WIDE).max(5.0) as usize;
        let mut last = f64::NEG_INFINITY;
        for value in axis.ticks(wanted) {
            let (x, label) = (self.x(axis.share(value)), unit.tick(value));
            put(
                text,
                format_args!(
                    "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{low}\" y2=\"{high}\"/>"
                ),
            );
            let half = label.len() as f64 * DIGIT / 2.0;
            // Neither over its neighbour nor over the sheet's edge.
            let middle = x.min(self.width - half);
            if middle - half >= last + LABEL_GAP {
                let at = self.height - 6.0;
                put(
                    text,
                    format_args!(
                        "<text x=\"{middle:.1}\" y=\"{at}\" text-anchor=\"middle\">{label}</text>\n"
                    ),
                );
                last = middle + half;
            }
        }
    }

    /// Ends the drawing.
    pub(super) fn close(text: &mut String) {
        *text += "</svg>\n";
    }
}
