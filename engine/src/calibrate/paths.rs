//! Which way sealed segments go to sockets the fastest: measured when the first server of a data directory is started,
//! and stored beside the rest.
//!
//! Through a network card there is nobody here to measure with. There `sendfile` is taken: it leaves the copy out,
//! which a card's rate makes the dearest part.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::command::sockets::{Family, ReadPath};
use crate::config::Config;
use crate::error::OpenError;
use crate::format::names;
use crate::ring::{Trial, try_paths};
use crate::shard::net::ReadPaths;

/// Bytes that are sent over and over: more than a core's cache, as segments are.
const FILE_BYTES: usize = 24 << 20;

/// First line of the file.
const HEAD: &str = "ringmain read paths 1";

/// How fast each way was, in bytes a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathCalibration {
    /// Over Unix sockets.
    pub unix: Trial,
    /// Over loopback TCP.
    pub loopback: Trial,
    /// What the configuration says instead.
    pub forced: Option<ReadPath>,
    /// Whether this was measured now, not read from the file.
    pub fresh: bool,
}

impl PathCalibration {
    /// The ways that are taken.
    #[must_use]
    pub fn in_force(&self) -> ReadPaths {
        match self.forced {
            Some(path) => ReadPaths::all(path),
            None => ReadPaths {
                unix: fastest(&self.unix),
                loopback: fastest(&self.loopback),
                tcp: ReadPath::Sendfile,
            },
        }
    }

    fn encode(&self) -> String {
        let line = |name: &str, trial: &Trial| {
            let figures = trial.bytes_per_s.map(|figure| figure.to_string());
            format!("{name} {}\n", figures.join(" "))
        };
        format!("{HEAD}\n{}{}", line("unix", &self.unix), line("loopback", &self.loopback))
    }

    fn decode(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next()? != HEAD {
            return None;
        }
        let mut trial = |name: &str| {
            let figures = lines.next()?.strip_prefix(name)?.split_whitespace();
            let figures: Vec<u64> = figures.map_while(|figure| figure.parse().ok()).collect();
            Some(Trial { bytes_per_s: figures.try_into().ok()? })
        };
        let (unix, loopback) = (trial("unix")?, trial("loopback")?);
        Some(Self { unix, loopback, forced: None, fresh: false })
    }
}

/// The fastest way; of those within a twentieth the first, which is the plainest.
fn fastest(trial: &Trial) -> ReadPath {
    let best = trial.bytes_per_s.iter().max().copied().unwrap_or(0);
    let good = |figure: &u64| figure.saturating_add(best / 20) >= best;
    let at = trial.bytes_per_s.iter().position(good).unwrap_or(0);
    ReadPath::ALL[at]
}

/// Reads the stored calibration, or measures and stores it. With a way that is forced nothing is measured.
pub(crate) fn calibrate_paths(config: &Config) -> Result<PathCalibration, OpenError> {
    let path = config.dir.join(names::READ_PATHS);
    let stored = fs::read_to_string(&path).ok().and_then(|text| PathCalibration::decode(&text));
    if config.read_path.is_some() || stored.is_some() {
        let stored = stored.unwrap_or_default();
        return Ok(PathCalibration { forced: config.read_path, ..stored });
    }
    let measured = measure(&config.dir);
    let measured = measured.map_err(|e| OpenError::io(&config.dir, "trying sockets", e))?;
    let written = fs::write(&path, measured.encode());
    written.map_err(|e| OpenError::io(&path, "storing the calibration", e))?;
    Ok(measured)
}

fn measure(dir: &Path) -> std::io::Result<PathCalibration> {
    let path = dir.join(names::READ_PATHS_TRIAL);
    let mut file =
        File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
    let tried = file.write_all(&vec![0x5a; FILE_BYTES]).and_then(|()| try_paths(&file, FILE_BYTES));
    fs::remove_file(&path)?;
    let [(first, unix), (second, loopback)] = tried?;
    assert_eq!([first, second], [Family::Unix, Family::Loopback], "in this order");
    Ok(PathCalibration { unix, loopback, forced: None, fresh: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_calibration_reads_back_and_the_fastest_way_is_taken() {
        let unix = Trial { bytes_per_s: [50, 10, 20, 100] };
        let loopback = Trial { bytes_per_s: [96, 10, 20, 100] };
        let measured = PathCalibration { unix, loopback, forced: None, fresh: false };
        assert_eq!(PathCalibration::decode(&measured.encode()), Some(measured));
        assert_eq!(PathCalibration::decode("ringmain read paths 1\nunix 1 2\n"), None);
        let paths = measured.in_force();
        assert_eq!(paths.unix, ReadPath::Copy);
        assert_eq!(paths.loopback, ReadPath::Sendfile, "plainer, and as fast");
        let forced = PathCalibration { forced: Some(ReadPath::Splice), ..measured };
        assert_eq!(forced.in_force(), ReadPaths::all(ReadPath::Splice));
    }
}
