//! An error of the one who typed the command: exit code 2.

use std::fmt;

/// What is wrong with the command line, and what to do.
#[derive(Debug)]
pub struct Usage(String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// A usage error that says `what`.
pub fn usage(what: impl Into<String>) -> anyhow::Error {
    Usage(what.into()).into()
}
