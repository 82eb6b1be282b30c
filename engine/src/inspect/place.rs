//! What a path is, by the names in it, and what a data directory holds.

use std::fs;
use std::path::Path;

use super::VerifyReport;
use crate::error::OpenError;
use crate::format::names;
use crate::types::PartitionName;

/// What a path is.
pub(super) enum Place {
    /// A data directory.
    Directory,
    /// A partition's directory.
    Partition,
    /// A file of one of them.
    File(FileKind),
}

/// Which file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    Segment,
    Index,
    TimeIndex,
    Seal,
    Journal,
    DirectoryMeta,
    JournalsMeta,
    PartitionMeta,
    Offsets,
    Epochs,
}

/// What a data directory holds.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) partitions: Vec<PartitionName>,
    pub(super) journals: Vec<String>,
    pub(super) clean: bool,
}

/// The kind of a file, by its name.
pub(super) fn kind(name: &str) -> Option<FileKind> {
    let based = |suffix| {
        let stem = name.strip_suffix(suffix);
        stem.is_some_and(|stem| names::segment_base(&format!("{stem}.log")).is_some())
    };
    Some(match name {
        names::META => FileKind::DirectoryMeta,
        names::JOURNALS => FileKind::JournalsMeta,
        names::PARTITION => FileKind::PartitionMeta,
        names::RECOVERY_POINTS | names::LOG_STARTS | names::CLEANED => FileKind::Offsets,
        names::EPOCHS => FileKind::Epochs,
        _ if based(".log") => FileKind::Segment,
        _ if based(".index") => FileKind::Index,
        _ if based(".timeindex") => FileKind::TimeIndex,
        _ if based(".seal") => FileKind::Seal,
        _ if names::is_journal(name) => FileKind::Journal,
        _ => return None,
    })
}

/// Names in a directory, sorted. One that is not text counts as unknown, by its lossy form.
pub(super) fn names_in(dir: &Path) -> Result<Vec<String>, OpenError> {
    let io = |error| OpenError::io(dir, "listing", error);
    let entries = fs::read_dir(dir).map_err(io)?;
    let names = entries.map(|e| e.map(|e| e.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<Result<Vec<_>, _>>().map_err(io)?;
    names.sort_unstable();
    Ok(names)
}

/// What `path` is.
pub(super) fn of(path: &Path) -> Result<Place, OpenError> {
    let meta = fs::metadata(path).map_err(|e| OpenError::io(path, "opening", e))?;
    let foreign = |found: &str| OpenError::Foreign { path: path.into(), found: found.into() };
    if !meta.is_dir() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        return kind(&name).map(Place::File).ok_or_else(|| foreign(&name));
    }
    let names = names_in(path)?;
    let has = |wanted: FileKind| names.iter().any(|name| kind(name) == Some(wanted));
    if has(FileKind::DirectoryMeta) {
        return Ok(Place::Directory);
    }
    if has(FileKind::PartitionMeta) || has(FileKind::Segment) {
        return Ok(Place::Partition);
    }
    match names.iter().find(|name| !crate::recovery::is_known(name)) {
        Some(found) => Err(foreign(found)),
        None => Ok(Place::Directory),
    }
}

/// What a data directory holds. A name that an opening would refuse is a problem.
pub(super) fn list(report: &mut VerifyReport, dir: &Path) -> Result<Listing, OpenError> {
    let mut out = Listing::default();
    for name in names_in(dir)? {
        if name == names::CLEAN {
            out.clean = true;
        } else if names::is_journal(&name) {
            out.journals.push(name);
        } else if name.ends_with(".tmp") || name.ends_with(names::DELETED) {
            report.note(
                &dir.join(name),
                0,
                "left by interrupted work; the next opening removes it",
            );
        } else if let Some(partition) = PartitionName::from_directory(&name) {
            out.partitions.push(partition);
        } else if !crate::recovery::is_known(&name) {
            report.problem(&dir.join(name), 0, None, "neither a log's nor Kafka's");
        }
    }
    Ok(out)
}
