//! When batches are due. A schedule knows nothing of acks: what a target does never moves it.

use std::time::Duration;

use super::values::{Arrival, Rate};
use super::workload::Workload;
use crate::random::Random;

/// The due times of one producer, in nanoseconds from the run's beginning, rising.
#[derive(Clone, Debug)]
pub struct Schedule {
    arrival: Arrival,
    /// Mean time between two batches.
    gap_ns: f64,
    next_ns: f64,
    /// Batches of the burst that are still due at the same instant.
    left: u32,
    random: Random,
    /// When steps begin, and how long all of them take.
    from_ns: f64,
    length_ns: f64,
}

impl Schedule {
    /// The schedule of one producer; nothing in a closed loop.
    pub fn of(workload: &Workload, producer: u32) -> Option<Self> {
        let Rate::PerSecond(rate) = workload.rate else { return None };
        let batches = rate / f64::from(workload.batch_records) / f64::from(workload.producers);
        let gap_ns = 1e9 / batches;
        let burst = if let Arrival::Burst(count) = workload.arrival { count } else { 1 };
        let seed = workload.seed ^ (u64::from(producer) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // Producers start one behind the other, or all would send at the same instant.
        let phase = f64::from(producer) / f64::from(workload.producers);
        Some(Self {
            arrival: workload.arrival,
            gap_ns,
            next_ns: phase * gap_ns * f64::from(burst),
            left: burst - 1,
            random: Random::new(seed),
            from_ns: workload.warmup.0.as_nanos() as f64,
            length_ns: workload.seconds.0.as_nanos() as f64,
        })
    }

    /// When the next batch is due.
    pub fn due(&self) -> Duration {
        Duration::from_nanos(self.next_ns as u64)
    }

    /// Goes on to the one behind it.
    pub fn advance(&mut self) {
        match self.arrival {
            Arrival::Constant => self.next_ns += self.gap_ns,
            Arrival::Poisson => self.next_ns += self.gap_ns * exponential(&mut self.random),
            Arrival::Burst(count) => {
                if self.left > 0 {
                    self.left -= 1;
                } else {
                    self.left = count - 1;
                    self.next_ns += self.gap_ns * f64::from(count);
                }
            }
            Arrival::Step { from, to, steps } => {
                let share = ((self.next_ns - self.from_ns) / self.length_ns).clamp(0.0, 0.999_999);
                let step = (share * f64::from(steps)).floor() / f64::from(steps - 1);
                self.next_ns += self.gap_ns / (from + (to - from) * step);
            }
        }
    }
}

/// A time with mean 1 between two events that know nothing of each other.
fn exponential(random: &mut Random) -> f64 {
    -(1.0 - unit(random)).ln()
}

/// From 0 to below 1.
pub fn unit(random: &mut Random) -> f64 {
    (random.next() >> 11) as f64 / (1_u64 << 53) as f64
}

/// A number of the normal distribution. Source: Box and Muller, Annals of Mathematical Statistics 29, 1958.
pub fn normal(random: &mut Random) -> f64 {
    let radius = (2.0 * exponential(random)).sqrt();
    radius * (std::f64::consts::TAU * unit(random)).cos()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::values::Seconds;

    fn times(arrival: &str, seconds: u64) -> Vec<f64> {
        let workload = Workload {
            rate: Rate::PerSecond(100_000.0),
            arrival: arrival.parse().expect("an arrival"),
            warmup: Seconds(Duration::ZERO),
            seconds: Seconds(Duration::from_secs(seconds)),
            ..Workload::default()
        };
        let mut schedule = Schedule::of(&workload, 0).expect("open loop");
        let mut times = Vec::new();
        while schedule.due() < Duration::from_secs(seconds) {
            times.push(schedule.due().as_secs_f64());
            schedule.advance();
        }
        times
    }

    #[test]
    fn every_arrival_keeps_the_mean_rate() {
        for arrival in ["constant", "poisson", "burst:50", "step:0.5..1.5:5"] {
            let times = times(arrival, 20);
            let error = (times.len() as f64 / 20_000.0 - 1.0).abs();
            assert!(error < 0.03, "{arrival}: {} batches in 20 s", times.len());
            assert!(times.is_sorted(), "{arrival}");
        }
    }

    #[test]
    fn poisson_gaps_are_as_spread_as_they_are_long() {
        let times = times("poisson", 20);
        let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        let ratio = variance.sqrt() / mean;
        assert!((0.95..1.05).contains(&ratio), "{ratio}");
    }

    #[test]
    fn a_burst_is_due_at_one_instant_and_steps_rise() {
        let burst = times("burst:50", 1);
        assert!(burst[..50].iter().all(|time| *time <= burst[0]) && burst[50] > burst[0]);
        let steps = times("step:0.5..1.5:5", 10);
        let within = |from: f64| steps.iter().filter(|t| (from..from + 2.0).contains(*t)).count();
        assert!((within(0.0) as f64 / 1000.0 - 1.0).abs() < 0.02, "half of 1000 a second");
        assert!((within(8.0) as f64 / 3000.0 - 1.0).abs() < 0.02, "half as much again");
    }
}
