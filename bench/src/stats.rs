//! Figures over slices: the median, never the mean, because one stall of the machine must not decide.

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

#[cfg(test)]
mod tests {
    use super::*;

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
