//! How a command ended that ran to its end.

/// Whether all checks passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Exit code 0.
    Passed,
    /// Exit code 1.
    Failed,
}
