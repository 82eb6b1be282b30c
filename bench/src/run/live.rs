//! How a run goes, while it goes: one line on a terminal, plain lines in a file, nothing when asked to be quiet.
//! Always to standard error.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use super::recorder::Tick;
use crate::human;
use crate::output::{draw, tell};

/// How often a file gets a line.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// The live line.
#[derive(Clone, Debug)]
pub struct Live {
    style: Style,
    /// What is running, such as `repeat 2 of 3`.
    what: String,
    begin: Instant,
    /// How long all of it will take, from `begin`.
    planned: Duration,
    told: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Line,
    Plain,
    Quiet,
}

impl Live {
    /// For something that will take about `planned`.
    pub fn new(planned: Duration, quiet: bool) -> Self {
        let style = match (quiet, stderr().is_terminal()) {
            (true, _) => Style::Quiet,
            (false, true) => Style::Line,
            (false, false) => Style::Plain,
        };
        Self { style, what: String::new(), begin: Instant::now(), planned, told: None }
    }

    /// One that says nothing.
    pub fn silent() -> Self {
        Self::new(Duration::ZERO, true)
    }

    /// Says how much longer all of it will take, from now on.
    pub fn replan(&mut self, left: Duration) {
        self.planned = self.begin.elapsed() + left;
    }

    /// The same, for the next part of it.
    #[must_use]
    pub fn part(&self, what: impl Into<String>) -> Self {
        let part = Self { what: what.into(), told: None, ..self.clone() };
        if part.style == Style::Plain {
            tell(&format!("{:6.1} s  {}", part.begin.elapsed().as_secs_f64(), part.what));
        }
        part.draw("");
        part
    }

    /// Shows an interval.
    pub fn show(&mut self, tick: &Tick) {
        let rate = tick.records as f64 / tick.length.as_secs_f64().max(f64::MIN_POSITIVE);
        let p99 = tick.corrected.quantile(0.99) as f64 / 1000.0;
        let figures = format!("{} rec/s  p99 {}", human::count(rate), human::micros(p99));
        if self.style == Style::Plain && self.told.is_none_or(|told| told.elapsed() >= PLAIN_EVERY)
        {
            self.told = Some(Instant::now());
            let elapsed = self.begin.elapsed().as_secs_f64();
            tell(&format!("{elapsed:6.1} s  {}  {figures}", self.what));
        }
        self.draw(&figures);
    }

    fn draw(&self, figures: &str) {
        if self.style == Style::Line {
            let (share, left) = progress(self.begin.elapsed(), self.planned);
            draw(&format!("\r\x1b[2K{share:3.0} %  {left:4.0} s left  {}  {figures}", self.what));
        }
    }

    /// Takes the line away.
    pub fn clear(&self) {
        if self.style == Style::Line {
            draw("\r\x1b[2K");
        }
    }
}

/// How much of the plan is done, in percent, and the seconds left.
fn progress(elapsed: Duration, planned: Duration) -> (f64, f64) {
    let share = elapsed.as_secs_f64() / planned.as_secs_f64().max(f64::MIN_POSITIVE);
    (share.min(1.0) * 100.0, planned.saturating_sub(elapsed).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_ends_at_the_plan() {
        let s = Duration::from_secs;
        assert_eq!(progress(s(15), s(60)), (25.0, 45.0));
        assert_eq!(progress(s(90), s(60)), (100.0, 0.0));
    }
}
