//! The journals of a directory that was not closed cleanly: what a recovery would lay over the segments.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::VerifyReport;
use super::place::Listing;
use crate::error::OpenError;
use crate::files::read_at_most;
use crate::format::meta::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN, JournalsMeta};
use crate::format::names;
use crate::journal::group::{FILE_HEADER_BLOCKS, FileHeader, VERSION};
use crate::journal::replay::{Suspects, replay};
use crate::limits::JOURNAL_BYTES_MAX;
use crate::types::{Incarnation, Offset};

/// A journal in memory.
pub(super) struct Loaded {
    pub(super) path: PathBuf,
    pub(super) header: FileHeader,
    pub(super) bytes: Vec<u8>,
}

impl Loaded {
    /// Where the groups begin.
    pub(super) fn ring_at(&self) -> usize {
        (FILE_HEADER_BLOCKS * u64::from(self.header.block)) as usize
    }

    /// The groups.
    pub(super) fn ring(&self) -> &[u8] {
        self.bytes.get(self.ring_at()..).unwrap_or_default()
    }
}

/// The newer of a journal's two headers. `None` if both are damaged or were never written.
pub(super) fn header(path: &Path, bytes: &[u8]) -> Result<Option<FileHeader>, OpenError> {
    let newer = |found| OpenError::NewerFormat { path: path.into(), found, known: VERSION };
    let first = FileHeader::decode(bytes).map_err(newer)?;
    let block = first.map_or(BLOCK_BYTES_MIN, |header| header.block) as usize;
    let second = FileHeader::decode(bytes.get(block..).unwrap_or_default()).map_err(newer)?;
    Ok(first.into_iter().chain(second).max_by_key(|header| header.epoch))
}

/// A journal's bytes, as far as its header says, or as a journal can be long.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, OpenError> {
    let io = |e| OpenError::io(path, "reading", e);
    let head = FILE_HEADER_BLOCKS * u64::from(BLOCK_BYTES_MAX);
    let told = header(path, &read_at_most(path, head).map_err(io)?)?;
    let bytes = told.map_or(JOURNAL_BYTES_MAX, |header| header.bytes.min(JOURNAL_BYTES_MAX));
    read_at_most(path, bytes.max(head)).map_err(io)
}

/// Reads every journal and checks that it belongs here and is whole.
pub(super) fn load(
    report: &mut VerifyReport,
    dir: &Path,
    (listing, meta): (&Listing, Option<JournalsMeta>),
) -> Result<Vec<Loaded>, OpenError> {
    let mut loaded = Vec::new();
    for name in &listing.journals {
        let path = dir.join(name);
        let bytes = read(&path)?;
        let Some(header) = header(&path, &bytes)? else {
            if bytes.iter().any(|byte| *byte != 0) {
                report.problem(&path, 0, None, "the file header is damaged: what it held is lost");
            }
            continue;
        };
        if meta.is_some_and(|meta| meta.directory != header.directory) {
            report.problem(&path, 0, None, "the journal belongs to another data directory");
            continue;
        }
        let length = bytes.len() as u64;
        if length < header.bytes {
            let what = format!("the file has {length} bytes, its header says {}", header.bytes);
            report.problem(&path, length, None, what);
        }
        // After a clean shutdown the journals hold nothing that is not in the segments.
        if !listing.clean {
            loaded.push(Loaded { path, header, bytes });
        }
    }
    let made = meta.filter(|_| !listing.clean).map_or(0, |meta| meta.journals);
    for name in (0..made).map(names::journal).filter(|name| !listing.journals.contains(name)) {
        let what = "missing: batches acknowledged since its last checkpoint may be lost";
        report.problem(&dir.join(name), 0, None, what);
    }
    Ok(loaded)
}

/// What all journals say together.
#[derive(Default)]
pub(super) struct Journals<'a> {
    /// Bytes to lay over segments.
    pub(super) overlay: HashMap<Incarnation, BTreeMap<Offset, Vec<(u64, &'a [u8])>>>,
    /// Groups that count.
    pub(super) groups: u64,
}

impl<'a> Journals<'a> {
    /// Chains every journal's groups. A damaged one is a problem.
    pub(super) fn replay(report: &mut VerifyReport, journals: &'a [Loaded]) -> Self {
        let mut out = Self::default();
        for journal in journals {
            let block = u64::from(journal.header.block);
            let said = replay(journal.ring(), block, journal.header.epoch);
            out.groups += said.groups;
            for (entry, bytes) in said.overlay {
                let segments = out.overlay.entry(entry.incarnation).or_default();
                segments.entry(entry.segment).or_default().push((entry.pos.get(), bytes));
            }
            for group in said.damaged {
                let whom = match group.suspects {
                    Suspects::Named(named) => format!("it held bytes of partitions {named:?}"),
                    Suspects::All => "it may have held bytes of any partition".to_owned(),
                };
                let sequence = group.sequence;
                let what =
                    format!("group {sequence} is damaged although later ones are whole: {whom}");
                report.problem(&journal.path, journal.ring_at() as u64 + group.pos, None, what);
            }
        }
        out
    }
}
