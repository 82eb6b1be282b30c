//! How far a run is: one line on a terminal, plain lines in a file, nothing when asked to be quiet. Always to
//! standard error, so that standard output holds results only.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use crate::output::{draw, tell};

const BAR_CELLS: usize = 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Line,
    Plain,
    Quiet,
}

/// Progress over steps whose lengths were planned.
#[derive(Debug)]
pub struct Progress {
    style: Style,
    begin: Instant,
    planned: Duration,
    passed: Duration,
    stage: String,
}

impl Progress {
    /// Begins a run of about `planned`.
    pub fn new(planned: Duration, quiet: bool) -> Self {
        let style = match (quiet, stderr().is_terminal()) {
            (true, _) => Style::Quiet,
            (false, true) => Style::Line,
            (false, false) => Style::Plain,
        };
        Self { style, begin: Instant::now(), planned, passed: Duration::ZERO, stage: String::new() }
    }

    /// Begins a stage: in a file, only stages are told.
    pub fn stage(&mut self, stage: &str) {
        stage.clone_into(&mut self.stage);
        if self.style == Style::Plain {
            tell(&format!("{:5.1} s  {stage}", self.begin.elapsed().as_secs_f64()));
        }
        self.draw("");
    }

    /// Begins a step of the stage.
    pub fn step(&mut self, step: &str) {
        self.draw(step);
    }

    /// Says that a part of the plan has passed.
    pub fn passed(&mut self, planned: Duration) {
        self.passed += planned;
    }

    fn draw(&self, step: &str) {
        if self.style == Style::Line {
            let line = line(self.passed, self.planned, self.begin.elapsed());
            draw(&format!("\r\x1b[2K{line}  {} {step}", self.stage));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.style == Style::Line {
            draw("\r\x1b[2K");
        }
    }
}

fn line(passed: Duration, planned: Duration, elapsed: Duration) -> String {
    let share = passed.as_secs_f64() / planned.as_secs_f64().max(f64::MIN_POSITIVE);
    let share = share.clamp(0.0, 1.0);
    let cells = (share * BAR_CELLS as f64) as usize;
    // What runs over its plan will go on doing so.
    let pace = if passed.is_zero() { 1.0 } else { elapsed.as_secs_f64() / passed.as_secs_f64() };
    let left = planned.saturating_sub(passed).as_secs_f64() * pace.max(1.0);
    let bar = "#".repeat(cells) + &".".repeat(BAR_CELLS - cells);
    format!("[{bar}] {:3.0} %  {left:3.0} s left", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn the_bar_and_the_time_left_follow_the_plan() {
        assert_eq!(
            line(Duration::ZERO, 60 * S, Duration::ZERO),
            format!("[{}]   0 %   60 s left", ".".repeat(24))
        );
        let half = line(30 * S, 60 * S, 30 * S);
        assert_eq!(half, format!("[{}{}]  50 %   30 s left", "#".repeat(12), ".".repeat(12)));
    }

    #[test]
    fn a_run_behind_its_plan_says_so() {
        assert!(line(10 * S, 60 * S, 20 * S).ends_with("100 s left"));
    }

    #[test]
    fn a_run_past_its_plan_stays_whole() {
        assert!(line(61 * S, 60 * S, 61 * S).contains("100 %    0 s left"));
    }
}
