//! Statistics over repeats: the median, Student's interval, and a test of two sets.

/// Confidence of every interval.
pub const LEVEL: f64 = 0.95;

/// Two-sided quantiles of Student's t at 95 %, for 1 to 30 degrees of freedom. Source: NIST/SEMATECH e-Handbook of
/// Statistical Methods, section 1.3.6.7.2.
const T: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
];

/// The normal distribution's quantile, which t comes near.
const Z: f64 = 1.960;

fn t(degrees: usize) -> f64 {
    T.get(degrees.wrapping_sub(1)).copied().unwrap_or(Z)
}

fn mean_and_variance(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    (mean, squares / (n - 1.0))
}

/// Student's 95 % interval of the mean. `None` with fewer than two values.
pub fn interval(values: &[f64]) -> Option<[f64; 2]> {
    if values.len() < 2 {
        return None;
    }
    let (mean, variance) = mean_and_variance(values);
    let half = t(values.len() - 1) * (variance / values.len() as f64).sqrt();
    Some([mean - half, mean + half])
}

/// What two sets of repeats say about each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// Mean of the second over the mean of the first, less one: 0.1 is ten percent more.
    pub change: f64,
    /// Its 95 % interval, by Welch's t.
    pub interval: [f64; 2],
}

impl Difference {
    /// Whether the interval leaves out "no difference".
    pub fn is_significant(&self) -> bool {
        self.interval[0] > 0.0 || self.interval[1] < 0.0
    }
}

/// Welch's comparison of two sets; `None` with fewer than two values in one of them, or a mean that is not above 0.
/// Source: B. L. Welch, "The generalization of Student's problem", Biometrika 34, 1947.
pub fn difference(a: &[f64], b: &[f64]) -> Option<Difference> {
    if a.len() < 2 || b.len() < 2 {
        return None;
    }
    let ((mean_a, variance_a), (mean_b, variance_b)) = (mean_and_variance(a), mean_and_variance(b));
    if mean_a <= 0.0 {
        return None;
    }
    let (share_a, share_b) = (variance_a / a.len() as f64, variance_b / b.len() as f64);
    let total = share_a + share_b;
    let parts = share_a.powi(2) / (a.len() - 1) as f64 + share_b.powi(2) / (b.len() - 1) as f64;
    // Both sets without any spread: as sure as can be.
    let degrees =
        if parts > 0.0 { (total.powi(2) / parts).floor().max(1.0) as usize } else { usize::MAX };
    let half = t(degrees) * total.sqrt() / mean_a;
    let change = mean_b / mean_a - 1.0;
    Some(Difference { change, interval: [change - half, change + half] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-3
    }

    #[test]
    fn the_interval_is_students() {
        // Mean 10, standard deviation 1, five values: 10 +- 2.776 / sqrt(5).
        let spread = (1.0_f64 / 2.5).sqrt();
        let values: Vec<f64> = [-2.0, -1.0, 0.0, 1.0, 2.0].map(|step| 10.0 + step * spread).into();
        let [low, high] = interval(&values).expect("five values");
        assert!(near(low, 10.0 - 1.2415) && near(high, 10.0 + 1.2415), "{low} {high}");
        assert_eq!(interval(&[1.0]), None);
    }

    #[test]
    fn the_interval_holds_the_true_mean_in_about_95_of_100_runs() {
        let mut random = Random::new(5);
        let mut draw = || (0..12).map(|_| f64::from(random.below(1_000_000)) / 1e6).sum::<f64>();
        let runs = 2000;
        let held = (0..runs).filter(|_| {
            let values: Vec<f64> = (0..5).map(|_| draw()).collect();
            let [low, high] = interval(&values).expect("five values");
            (low..=high).contains(&6.0)
        });
        let share = held.count() as f64 / f64::from(runs);
        assert!((0.93..0.97).contains(&share), "{share}");
    }

    #[test]
    fn equal_sets_rarely_differ_and_distant_ones_always_do() {
        let mut random = Random::new(9);
        let mut set = |shift: f64| -> Vec<f64> {
            (0..5).map(|_| 100.0 + shift + f64::from(random.below(1000)) / 250.0).collect()
        };
        let trials = 1000;
        let wrong = (0..trials)
            .filter(|_| difference(&set(0.0), &set(0.0)).expect("repeats").is_significant());
        assert!(wrong.count() < trials * 7 / 100);
        for _ in 0..100 {
            let found = difference(&set(0.0), &set(10.0)).expect("repeats");
            assert!(found.is_significant() && found.change > 0.07, "{found:?}");
        }
    }

    #[test]
    fn one_repeat_says_nothing_and_repeats_without_spread_say_all() {
        assert_eq!(difference(&[1.0], &[1.0, 2.0]), None);
        let found = difference(&[10.0, 10.0], &[9.0, 9.0]).expect("repeats");
        assert!(found.is_significant() && near(found.change, -0.1), "{found:?}");
    }
}
