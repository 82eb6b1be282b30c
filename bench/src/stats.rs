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

/// Confidence of [`rank_interval`].
const CONFIDENCE: f64 = 0.95;

/// Between which two of `values` the median of what they were drawn from lies with at least 95 % confidence, whatever
/// their distribution: as many are left out at either end as the sign test allows (Thompson 1936; with 15 values three,
/// with 41 thirteen). `None` below six values, whose least and most are too near.
pub fn rank_interval(values: &[f64]) -> Option<(f64, f64)> {
    let count = values.len();
    // The chance that the k smallest are below the median, and no more, is that of k heads in `count` throws.
    let mut chance = 0.5_f64.powi(count as i32);
    let (mut left_out, mut beyond) = (0, chance);
    if 2.0 * beyond > 1.0 - CONFIDENCE {
        return None;
    }
    loop {
        chance *= (count - left_out) as f64 / (left_out + 1) as f64;
        beyond += chance;
        if 2.0 * beyond > 1.0 - CONFIDENCE {
            break;
        }
        left_out += 1;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    Some((sorted[left_out], sorted[count - 1 - left_out]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_of_an_interval_are_those_of_the_sign_test() {
        // From tables of the binomial distribution: how many are left out at either end.
        for (count, left_out) in
            [(6, 0), (8, 0), (9, 1), (12, 2), (15, 3), (20, 5), (25, 7), (41, 13)]
        {
            let values: Vec<f64> = (0..count).rev().map(f64::from).collect();
            let (low, high) = (f64::from(left_out), f64::from(count - 1 - left_out));
            assert_eq!(rank_interval(&values), Some((low, high)), "{count} values");
        }
        assert_eq!(rank_interval(&[1.0; 5]), None);
    }

    #[test]
    fn one_wild_round_in_nine_does_not_widen_the_interval() {
        let mut values: Vec<f64> = (0..9).map(|nth| 1.0 + f64::from(nth) / 100.0).collect();
        values[8] = 50.0;
        assert_eq!(rank_interval(&values), Some((1.01, 1.07)));
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
