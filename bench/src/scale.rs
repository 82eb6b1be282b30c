//! Axes: where a value lies between an axis's ends, and which round values are named on it. Shared by the plot in the
//! terminal and the drawings of a page.

/// The quantiles named on an axis of nines.
pub const QUANTILES: [(f64, &str); 9] = [
    (0.0, "0"),
    (0.5, "50"),
    (0.9, "90"),
    (0.99, "99"),
    (0.999, "99.9"),
    (0.9999, "99.99"),
    (0.99999, "99.999"),
    (0.999_999, "99.9999"),
    (0.999_999_9, "99.99999"),
];

/// Numbers beyond this, or closer to 0 than its inverse, have no place of their own, and lie at the end that they are
/// beyond: a spoilt file can hold any.
const FAR: f64 = 1e300;

/// How values are spread over an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly.
    Linear,
    /// Each factor is as wide as the next of its size.
    Log,
    /// For quantiles: logarithmic in 1 / (1 - quantile), so that each nine is as wide as the next.
    Nines,
}

/// One axis, from `min` to `max`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Axis {
    /// How values are spread.
    pub scale: Scale,
    /// The value at its beginning.
    pub min: f64,
    /// The value at its end.
    pub max: f64,
}

impl Axis {
    /// From 0 to at least `most`, which a round value ends.
    pub fn linear(most: f64) -> Self {
        let max = if most >= 1.0 / FAR {
            next_round(most.min(FAR), &[1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0])
        } else {
            1.0
        };
        Self { scale: Scale::Linear, min: 0.0, max }
    }

    /// From 0 to exactly `most`.
    pub fn span(most: f64) -> Self {
        Self {
            scale: Scale::Linear,
            min: 0.0,
            max: if most >= 1.0 / FAR { most.min(FAR) } else { 1.0 },
        }
    }

    /// Around all from `least` to `most`, both above 0, ending at round values.
    pub fn log(least: f64, most: f64) -> Self {
        let [least, most] = [least, most].map(|value| value.clamp(1.0 / FAR, FAR / 10.0));
        let min = previous_round(least);
        let max = next_round(most * 1.0001, &[1.0, 2.0, 5.0, 10.0]).max(min * 2.0);
        Self { scale: Scale::Log, min, max }
    }

    /// From quantile 0 to `most`, and to 90 % at least.
    pub fn nines(most: f64) -> Self {
        Self { scale: Scale::Nines, min: 0.0, max: most.max(0.9) }
    }

    /// Where `value` lies: 0 at the beginning, 1 at the end.
    pub fn share(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => {
                let share = (value.clamp(-FAR, FAR) - self.min) / (self.max - self.min);
                share.clamp(-FAR, FAR)
            }
            Scale::Log => {
                let from_min = |value: f64| value.clamp(1.0 / FAR, FAR).ln() - self.min.ln();
                from_min(value) / from_min(self.max)
            }
            Scale::Nines => nines(value) / nines(self.max),
        }
    }

    /// Round values on it, about `wanted` at most.
    pub fn ticks(&self, wanted: usize) -> Vec<f64> {
        let (low, high) = (self.min * 0.999, self.max * 1.001);
        match self.scale {
            Scale::Linear => {
                let step = next_round(
                    (self.max - self.min) / wanted.max(1) as f64,
                    &[1.0, 2.0, 5.0, 10.0],
                );
                let count = ((self.max - self.min) / step * 1.0001).floor() as usize;
                (0..=count).map(|nth| self.min + nth as f64 * step).collect()
            }
            Scale::Log => {
                // Of a spoilt run they may be as far apart as numbers can be.
                let power = |value: f64| value.log10().clamp(-308.0, 308.0);
                let decades = power(self.max) - power(self.min);
                let steps: &[f64] =
                    if decades * 3.0 > wanted as f64 { &[1.0] } else { &[1.0, 2.0, 5.0] };
                let first = power(self.min).floor() as i32;
                let all = (first..=first + decades.ceil() as i32 + 1)
                    .flat_map(|power| steps.iter().map(move |step| step * 10_f64.powi(power)));
                all.filter(|value| (low..=high).contains(value)).collect()
            }
            Scale::Nines => {
                QUANTILES.iter().map(|(q, _)| *q).filter(|q| self.share(*q) <= 1.000_1).collect()
            }
        }
    }
}

fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile).max(1e-9).log10()
}

/// The first of `steps` times a power of ten that is not below `value`. The last step is 10.
fn next_round(value: f64, steps: &[f64]) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    steps
        .iter()
        .map(|step| step * power)
        .find(|round| *round >= value * 0.9999)
        .unwrap_or(10.0 * power)
}

/// The last 1, 2 or 5 times a power of ten that is not above `value`.
fn previous_round(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [5.0, 2.0, 1.0]
        .map(|step| step * power)
        .into_iter()
        .find(|round| *round <= value * 1.0001)
        .unwrap_or(power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_nine_is_as_wide_as_the_next() {
        let axis = Axis::nines(0.999_999);
        let at = [0.0, 0.9, 0.99, 0.999, 0.9999].map(|quantile| axis.share(quantile));
        for pair in at.windows(2) {
            assert!((pair[1] - pair[0] - 1.0 / 6.0).abs() < 1e-6, "{at:?}");
        }
        assert_eq!(axis.ticks(9).len(), 8, "0, 50, and six nines");
    }

    #[test]
    fn a_log_axis_ends_at_round_values_around_all() {
        let axis = Axis::log(130_000.0, 8_700_000.0);
        assert_eq!((axis.min, axis.max), (100_000.0, 10_000_000.0));
        assert_eq!(axis.ticks(9), [1e5, 2e5, 5e5, 1e6, 2e6, 5e6, 1e7]);
        assert_eq!(axis.ticks(3), [1e5, 1e6, 1e7]);
        assert!(Axis::log(5.0, 5.0).max > 9.0, "never empty");
        assert!(Axis::log(1e-300, 1e300).ticks(9).len() > 100, "as far apart as numbers can be");
    }

    #[test]
    fn every_value_has_a_place() {
        for most in [5e-324, 1e-310, 1e-300, 7.0, 1e299, 1e300, 1e303, 1e308, f64::INFINITY] {
            let logs = [Axis::log(1e-310, most), Axis::log(most, most)];
            for axis in logs.into_iter().chain([Axis::linear(most), Axis::span(most)]) {
                assert!(axis.max > axis.min && axis.ticks(6).len() < 1000, "{axis:?}");
                for value in [-1e308, 0.0, 1e-310, 7.0, 1e308, f64::INFINITY] {
                    assert!(axis.share(value).is_finite(), "{value} on {axis:?}");
                }
            }
        }
    }

    #[test]
    fn a_linear_axis_begins_at_zero_and_has_no_more_ticks_than_wanted() {
        for most in [0.0, 0.3, 7.0, 61.0, 999.0, 123_456.0] {
            let axis = Axis::linear(most);
            assert!(axis.max >= most && axis.share(0.0) == 0.0, "{axis:?}");
            let ticks = axis.ticks(6);
            assert!((2..=7).contains(&ticks.len()), "{most}: {ticks:?}");
        }
    }
}
