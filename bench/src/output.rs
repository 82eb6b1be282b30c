//! Standard output, which holds results only, and standard error, which holds the rest. A reader who has gone, as
//! `head` does, ends no run: what was made has to be taken away, and what was measured kept.

use std::fs;
use std::io::{ErrorKind, Write, stderr, stdout};
use std::path::Path;

use anyhow::{Context, Result};

/// Prints `text` whole.
///
/// # Errors
/// If it can't be written, unless whoever reads has seen enough.
pub fn print(text: &str) -> Result<()> {
    let mut to = stdout();
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

/// A line on standard error, if anybody reads it.
pub fn tell(line: &str) {
    draw(&format!("{line}\n"));
}

/// Text on standard error as it is, if anybody reads it.
pub fn draw(text: &str) {
    // There is nowhere left to say that it can't be said.
    let _ = stderr().write_all(text.as_bytes());
}

/// Writes a file. What a full disk leaves of one that was not there before is removed.
///
/// # Errors
/// If it can't be written.
pub fn write_whole(path: &Path, text: &str) -> Result<()> {
    let was_there = path.exists();
    let written = fs::write(path, text).inspect_err(|_| {
        if !was_there {
            // The write's own error is what is told.
            let _ = fs::remove_file(path);
        }
    });
    written.with_context(|| format!("cannot write {}", path.display()))
}
