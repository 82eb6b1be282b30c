//! Standard output, which holds results only.

use std::io::{ErrorKind, Write, stdout};

use anyhow::{Context, Result};

/// Prints `text` whole.
///
/// # Errors
/// If it can't be written, unless whoever reads has seen enough, as `head` does.
pub fn print(text: &str) -> Result<()> {
    match stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}
