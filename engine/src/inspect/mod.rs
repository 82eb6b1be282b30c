//! Read-only looks at what is on disk: [`verify`] checks it, [`dump()`] shows it, [`find()`] finds a record in it.
//!
//! Plain system calls on plain files: no ring, no lock, and nothing is ever written. A directory that an engine
//! has open is better looked at after a checkpoint: what changes under the look can not be told from damage.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::OpenError;
use crate::files::read_at_most;
use crate::format::checkpoint::decode_offsets;
use crate::format::fixed::FixedError;
use crate::format::meta::{BLOCK_BYTES_MIN, DirectoryMeta, JournalsMeta};
use crate::format::names;
use crate::limits::SMALL_FILE_BYTES_MAX;
use crate::types::{Incarnation, Offset, PartitionName};

mod derived;
pub mod dump;
pub mod find;
mod journals;
mod log;
mod lookup;
mod partition;
mod place;
pub(crate) mod rot;
pub(crate) mod source;

pub use dump::{DumpOptions, Item, dump};
pub use find::{FindError, FindReport, FoundRecord, Missing, Sought, find};

pub use log::{IndexUse, Looked};
pub use rot::{Rot, Rotten};

use journals::{Journals, Loaded};
use partition::Terms;
use place::{Listing, Place};

/// What [`verify`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Partitions looked at.
    pub partitions: u64,
    /// Segment files.
    pub segments: u64,
    /// Intact batches.
    pub batches: u64,
    /// Records in them, each of which was decoded.
    pub records: u64,
    /// Bytes of intact batches.
    pub bytes: u64,
    /// Journal groups that a recovery would count.
    pub journal_groups: u64,
    /// Damage.
    pub problems: Vec<Problem>,
    /// What is unusual but legal, such as a torn tail that the next opening cuts off.
    pub notes: Vec<Note>,
}

/// Damage, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file or directory.
    pub path: PathBuf,
    /// Where in the file, in bytes.
    pub pos: u64,
    /// The offset of the record concerned, or the first one that is missing, where that is known.
    pub offset: Option<Offset>,
    /// What is wrong, in words.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.path.display(), self.pos)?;
        if let Some(offset) = self.offset {
            write!(f, ", offset {offset}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// Something worth knowing that is no damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The file or directory.
    pub path: PathBuf,
    /// Where in the file, in bytes.
    pub pos: u64,
    /// What it is, in words.
    pub what: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.path.display(), self.pos, self.what)
    }
}

impl VerifyReport {
    /// Whether nothing is damaged.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.problems.is_empty()
    }

    fn problem(&mut self, path: &Path, pos: u64, offset: Option<Offset>, what: impl fmt::Display) {
        let (path, what) = (path.to_path_buf(), what.to_string());
        self.problems.push(Problem { path, pos, offset, what });
    }

    fn note(&mut self, path: &Path, pos: u64, what: impl fmt::Display) {
        self.notes.push(Note { path: path.to_path_buf(), pos, what: what.to_string() });
    }
}

/// Checks a data directory (one that Kafka made, too), a copy of one, or one partition's directory: names, every
/// batch and every record, indexes, seals, checkpoints, journals.
///
/// A directory that was not closed cleanly is judged as its next opening would: what its journals hold is laid
/// over the segments in memory, and a torn tail is a note. A partition's directory is judged by itself, without
/// journals: after [`crate::LogHandle::checkpoint`] it needs none.
///
/// # Errors
/// [`OpenError`] if there is nothing that could be checked: no directory, not readable, a newer format, or
/// something else's directory. Damage is in the report.
pub fn verify(dir: impl AsRef<Path>) -> Result<VerifyReport, OpenError> {
    let dir = dir.as_ref();
    let mut report = VerifyReport::default();
    match place::of(dir)? {
        Place::Partition => {
            let terms = Terms::alone(dir, BLOCK_BYTES_MIN.into());
            partition::check(&mut report, &terms)?;
        }
        Place::Directory => verify_directory(&mut report, dir)?,
        Place::File(_) => return Err(OpenError::NotADirectory(dir.to_path_buf())),
    }
    Ok(report)
}

fn verify_directory(report: &mut VerifyReport, dir: &Path) -> Result<(), OpenError> {
    let survey = Survey::of(report, dir)?;
    let journals = Journals::replay(report, &survey.loaded);
    report.journal_groups = journals.groups;
    for name in &survey.listing.partitions {
        let path = dir.join(name.to_string());
        partition::check(report, &survey.terms(&path, name, &journals))?;
    }
    Ok(())
}

/// What a data directory says of its partitions.
struct Survey {
    listing: Listing,
    block: u64,
    loaded: Vec<Loaded>,
    points: HashMap<PartitionName, Offset>,
    starts: HashMap<PartitionName, Offset>,
}

impl Survey {
    fn of(report: &mut VerifyReport, dir: &Path) -> Result<Self, OpenError> {
        let listing = place::list(report, dir)?;
        let block = fixed_file(report, &dir.join(names::META), DirectoryMeta::decode)?;
        let block = block.map_or(BLOCK_BYTES_MIN, |meta| meta.block_bytes());
        let meta = fixed_file(report, &dir.join(names::JOURNALS), JournalsMeta::decode)?;
        Ok(Self {
            loaded: journals::load(report, dir, (&listing, meta))?,
            block: block.into(),
            points: checkpoint(report, &dir.join(names::RECOVERY_POINTS))?,
            starts: checkpoint(report, &dir.join(names::LOG_STARTS))?,
            listing,
        })
    }

    /// How the partition in `path` is to be judged.
    fn terms<'a>(
        &self,
        path: &'a Path,
        name: &PartitionName,
        journals: &'a Journals<'a>,
    ) -> Terms<'a> {
        Terms {
            overlay: Some(journals),
            recovery_point: self.points.get(name).copied().unwrap_or_default(),
            log_start: self.starts.get(name).copied().unwrap_or_default(),
            clean: self.listing.clean,
            ..Terms::alone(path, self.block)
        }
    }
}

/// Reads one of the engine's own fixed files. `None` if it is not there or damaged, which is reported.
fn fixed_file<T>(
    report: &mut VerifyReport,
    path: &Path,
    decode: impl Fn(&[u8]) -> Result<T, FixedError>,
) -> Result<Option<T>, OpenError> {
    let Some(bytes) = read_optional(path)? else { return Ok(None) };
    match decode(&bytes) {
        Ok(value) => Ok(Some(value)),
        Err(FixedError::NewerVersion { found, known }) => Err(OpenError::NewerFormat {
            path: path.to_path_buf(),
            found: found as u16,
            known: known as u16,
        }),
        Err(error) => {
            report.problem(path, 0, None, error);
            Ok(None)
        }
    }
}

fn checkpoint(
    report: &mut VerifyReport,
    path: &Path,
) -> Result<HashMap<PartitionName, Offset>, OpenError> {
    let Some(bytes) = read_optional(path)? else { return Ok(HashMap::new()) };
    match decode_offsets(&bytes) {
        Ok(entries) => Ok(entries.into_iter().collect()),
        Err(error) => {
            report.problem(path, 0, None, error);
            Ok(HashMap::new())
        }
    }
}

fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, OpenError> {
    match read_at_most(path, SMALL_FILE_BYTES_MAX) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(OpenError::io(path, "reading", error)),
    }
}

/// Bytes of a partition that journals hold, for [`Terms`].
fn overlay_of<'a>(
    journals: Option<&'a Journals<'a>>,
    incarnation: Option<Incarnation>,
    segment: Offset,
) -> &'a [(u64, &'a [u8])] {
    let found = journals
        .zip(incarnation)
        .and_then(|(journals, incarnation)| journals.overlay.get(&incarnation)?.get(&segment));
    found.map_or(&[], Vec::as_slice)
}
