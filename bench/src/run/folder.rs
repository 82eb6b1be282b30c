//! A run's directory: `results/<date>-<host>-<workload>/{command.txt,env.json,summary.json,workload.toml,*.hlog}`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use thiserror::Error;

use super::hlog::{self, HlogError, Interval};
use super::result::{Document, KIND, Repeat, SCHEMA};
use crate::textfile;

/// Where directories of runs go if it is not said.
pub const DEFAULT: &str = "results";

/// Directories of the same second, host and workload that are told apart by a number.
const SAME_MAX: u32 = 1000;

/// Why a run's directory can't be read or written.
#[derive(Debug, Error)]
pub enum FolderError {
    /// A file can't be read or written.
    #[error("{path}: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It has no `summary.json`.
    #[error("{0}: no summary.json in it; name a directory that run has written")]
    NoRun(PathBuf),
    /// It is of another version of this tool.
    #[error(
        "{path}: schema {found}, and this tool reads {SCHEMA}; use the tool that wrote it, or run again"
    )]
    Schema {
        /// Which file.
        path: PathBuf,
        /// Its schema.
        found: String,
    },
    /// It is another command's.
    #[error("{path}: a document of {}, not of a run", kind.as_deref().unwrap_or("another command"))]
    Kind {
        /// Which file.
        path: PathBuf,
        /// What it says it is.
        kind: Option<String>,
    },
    /// It is no document, or not what it says.
    #[error("{path}: {what}")]
    Format {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// An interval log of it can't be read.
    #[error(transparent)]
    Hlog(#[from] HlogError),
    /// A log and the summary disagree.
    #[error(
        "{path}: {found} latencies, where summary.json says {told}; the files are of different runs"
    )]
    Count {
        /// Which log.
        path: PathBuf,
        /// In the log.
        found: u64,
        /// In the summary.
        told: u64,
    },
}

impl FolderError {
    /// Whether it is not this tool's to read at all: the one who named it is wrong, not the run.
    pub fn is_foreign(&self) -> bool {
        matches!(self, Self::NoRun(_) | Self::Schema { .. } | Self::Kind { .. })
    }
}

/// A run's directory, being written.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    /// Whether what it lies in was made for it.
    made_out: bool,
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> FolderError + '_ {
    |error| FolderError::Io { path: path.to_owned(), error }
}

impl Folder {
    /// A new one below `out`.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn create(out: &Path, name: &str) -> Result<Self, FolderError> {
        let made_out = !out.exists();
        fs::create_dir_all(out).map_err(io(out))?;
        for nth in 1..SAME_MAX {
            let again = if nth == 1 { String::new() } else { format!("-{nth}") };
            let path = out.join(format!("{name}{again}"));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self { path, made_out }),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(io(&path)(e)),
            }
        }
        let error = std::io::ErrorKind::AlreadyExists.into();
        Err(FolderError::Io { path: out.join(name), error })
    }

    /// One that is there already.
    pub fn at(path: PathBuf) -> Self {
        Self { path, made_out: false }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes one of its files: after a kill it is whole, or as it was before.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn put(&self, name: &str, text: &str) -> Result<(), FolderError> {
        let (path, new) = (self.path.join(name), self.path.join(format!(".{name}.new")));
        let written = fs::write(&new, text).inspect_err(|_| {
            // What a full disk leaves of it is in nobody's way.
            let _ = fs::remove_file(&new);
        });
        written.map_err(io(&new))?;
        fs::rename(&new, &path).map_err(io(&path))
    }

    /// Removes one of its files, if it is there.
    ///
    /// # Errors
    /// If it can't be removed.
    pub fn take_back(&self, name: &str) -> Result<(), FolderError> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io(&path)(e)),
            _ => Ok(()),
        }
    }

    /// Removes it with all in it: nothing was measured.
    pub fn discard(self) {
        // It holds a few small files of this run; one that can't be removed is no reason to hide why the run ended.
        let _ = fs::remove_dir_all(&self.path);
        if self.made_out
            && let Some(out) = self.path.parent()
        {
            // It stays if another run has put something into it.
            let _ = fs::remove_dir(out);
        }
    }
}

/// A run read back.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its summary.
    pub document: Document,
    /// The intervals of each repeat that has a log.
    pub logs: Vec<Vec<Interval>>,
}

/// The summary of a run's directory.
///
/// # Errors
/// If there is none, or it is of another schema.
pub fn summary(dir: &Path) -> Result<Document, FolderError> {
    let path = dir.join("summary.json");
    if !path.exists() {
        return Err(FolderError::NoRun(dir.to_owned()));
    }
    let text = textfile::read(&path).map_err(io(&path))?;
    let bad = |what: String| FolderError::Format { path: path.clone(), what };
    let value: Value =
        serde_json::from_str(&text).map_err(|e| bad(format!("no whole JSON document: {e}")))?;
    if value["schema"] != SCHEMA {
        return Err(FolderError::Schema { path, found: value["schema"].to_string() });
    }
    if value["kind"] != KIND {
        let kind = value["kind"].as_str().map(str::to_owned);
        return Err(FolderError::Kind { path, kind });
    }
    serde_json::from_value(value).map_err(|e| bad(format!("not a summary of a run: {e}")))
}

/// A run's directory with its interval logs.
///
/// # Errors
/// As [`summary`] and [`each_interval`].
pub fn read(dir: &Path) -> Result<Run, FolderError> {
    let document = summary(dir)?;
    let mut logs = Vec::new();
    for repeat in document.result.repeats.iter().filter(|repeat| repeat.hlog.is_some()) {
        let mut intervals = Vec::new();
        each_interval(dir, repeat, |interval| intervals.push(interval))?;
        logs.push(intervals);
    }
    Ok(Run { document, logs })
}

/// Goes over the intervals of a repeat that has a log, one in memory at a time.
///
/// # Errors
/// If the log can't be read, is cut or is of another run: after what is before the damage was seen.
pub fn each_interval(
    dir: &Path,
    repeat: &Repeat,
    mut visit: impl FnMut(Interval),
) -> Result<(), FolderError> {
    let Some(name) = &repeat.hlog else { return Ok(()) };
    let path = dir.join(name);
    let (mut found, told) = (0, repeat.latency_us.count);
    hlog::each(&path, |interval| {
        found += if interval.uncorrected { 0 } else { interval.latencies.count() };
        visit(interval);
    })?;
    if found == told { Ok(()) } else { Err(FolderError::Count { path, found, told }) }
}

/// The machine's name, such that it can be part of a file's.
pub fn host() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = text.trim().chars().take(40).map(plain).collect();
    if name.is_empty() { "host".to_owned() } else { name }
}

#[cfg(test)]
#[path = "folder/tests.rs"]
mod tests;
