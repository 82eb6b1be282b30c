//! Figures over slices: the median, never the mean, because one stall of the machine must not decide.

use crate::random::Random;

/// The middle value, or the mean of the two middle ones. `None` if there is none.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// The median of `a[i] / b[i]`: slices taken side by side share the machine's mood, so their ratio is
/// steadier than the ratio of two medians. Pairs whose divisor is zero are left out.
pub fn median_ratio(a: &[f64], b: &[f64]) -> Option<f64> {
    median(a.iter().zip(b).filter(|(_, b)| **b > 0.0).map(|(a, b)| a / b))
}

/// The largest value over the smallest: how restless the machine was. `None` without two positive values.
pub fn spread(values: &[f64]) -> Option<f64> {
    let least = values.iter().copied().min_by(f64::total_cmp)?;
    let most = values.iter().copied().max_by(f64::total_cmp)?;
    (values.len() > 1 && least > 0.0).then(|| most / least)
}

/// Draws of a bootstrap: enough that a second one gives the same three digits.
const DRAWS: usize = 4000;

/// An interval that holds the median of what `values` were drawn from with 95 % confidence: the middle of the medians
/// of samples drawn from them again, with replacement (Efron's percentile bootstrap). `None` below three values. The
/// same values give the same interval.
pub fn interval_of_median(values: &[f64]) -> Option<(f64, f64)> {
    if values.len() < 3 {
        return None;
    }
    let mut random = Random::new(values.len() as u64);
    let mut draw = |_| {
        let again = values.iter().map(|_| values[random.below(values.len() as u32) as usize]);
        median(again).expect("there are values")
    };
    let mut medians: Vec<f64> = (0..DRAWS).map(&mut draw).collect();
    medians.sort_by(f64::total_cmp);
    Some((medians[DRAWS / 40], medians[DRAWS - 1 - DRAWS / 40]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_holds_the_median_and_narrows_with_more_values() {
        let noisy = |count: u32| -> Vec<f64> {
            (0..count).map(|nth| 10.0 + f64::from(nth * 7 % 11) / 11.0).collect()
        };
        let width = |values: &[f64]| {
            let (low, high) = interval_of_median(values).expect("enough");
            let middle = median(values.iter().copied()).expect("values");
            assert!(low <= middle && middle <= high, "{low} {middle} {high}");
            high - low
        };
        assert!(width(&noisy(111)) < width(&noisy(11)) / 2.0);
        assert_eq!(interval_of_median(&noisy(2)), None);
        assert_eq!(interval_of_median(&noisy(11)), interval_of_median(&noisy(11)));
    }

    #[test]
    fn one_stalled_slice_does_not_move_the_median() {
        assert_eq!(median([100.0, 1.0, 102.0]), Some(100.0));
        assert_eq!(median([100.0, 102.0]), Some(101.0));
        assert_eq!(median([]), None);
    }

    #[test]
    fn a_ratio_of_pairs_survives_a_machine_that_slows_down() {
        let ratio = median_ratio(&[90.0, 45.0, 9.0], &[100.0, 50.0, 10.0]).expect("pairs");
        assert!((ratio - 0.9).abs() < 1e-9);
        assert_eq!(median_ratio(&[1.0], &[0.0]), None);
    }

    #[test]
    fn spread_needs_two_slices() {
        assert_eq!(spread(&[2.0, 5.0]), Some(2.5));
        assert_eq!(spread(&[2.0]), None);
    }
}
