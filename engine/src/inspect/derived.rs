//! What is derived from a segment, held against it: `.index`, `.timeindex` and `.seal`.

use std::path::{Path, PathBuf};

use super::rot::ReadThrough;
use super::source::Rest;
use super::{VerifyReport, fixed_file, read_optional};
use crate::batch::BatchView;
use crate::error::OpenError;
use crate::format::index::{OFFSET_ENTRY_BYTES, OffsetEntry, TIME_ENTRY_BYTES, TimeEntry};
use crate::format::names;
use crate::format::seal::Seal;
use crate::types::{Incarnation, Offset};

/// The entries of one index, consumed while the segment is walked.
struct Entries<T> {
    path: PathBuf,
    entries: Vec<T>,
    next: usize,
    wrong: bool,
}

impl<T: Copy> Entries<T> {
    fn peek(&self) -> Option<T> {
        self.entries.get(self.next).copied().filter(|_| !self.wrong)
    }

    fn pos<const N: usize>(&self) -> u64 {
        (self.next * N) as u64
    }
}

/// Reads an index's entries. Ends at the first one that is none: zeros to the file's end are space that Kafka set
/// aside, anything else is a problem.
fn entries<T: Copy, const N: usize>(
    report: &mut VerifyReport,
    path: PathBuf,
    decode: impl Fn([u8; N], Option<T>) -> Option<T>,
) -> Result<Entries<T>, OpenError> {
    let bytes = read_optional(&path)?.unwrap_or_default();
    let mut out = Entries { path, entries: Vec::new(), next: 0, wrong: false };
    if bytes.iter().all(|byte| *byte == 0) && bytes.len() > N {
        report.note(&out.path, 0, "zeros only: set aside and never used");
        return Ok(out);
    }
    for chunk in bytes.chunks(N) {
        let pos = (out.entries.len() * N) as u64;
        let entry = chunk.try_into().ok().and_then(|it| decode(it, out.entries.last().copied()));
        let Some(entry) = entry else {
            if bytes[pos as usize..].iter().all(|byte| *byte == 0) {
                report.note(&out.path, pos, "zeros behind the last entry");
            } else {
                report.problem(&out.path, pos, None, "not an index entry that can stand here");
            }
            break;
        };
        out.entries.push(entry);
    }
    Ok(out)
}

/// A segment's derived files, while the segment is walked.
pub(super) struct Derived {
    base: Offset,
    offsets: Entries<OffsetEntry>,
    times: Entries<TimeEntry>,
    seal: Option<Seal>,
    seal_path: PathBuf,
    /// The largest timestamp so far; -1 if no batch has one.
    newest: i64,
}

impl Derived {
    /// Reads them.
    pub(super) fn read(
        report: &mut VerifyReport,
        dir: &Path,
        base: Offset,
    ) -> Result<Self, OpenError> {
        let seal_path = dir.join(names::seal(base));
        let seal = fixed_file(report, &seal_path, Seal::decode)?;
        for path in [dir.join(names::index(base)), dir.join(names::time_index(base))] {
            if seal.is_some() && !path.exists() {
                report.note(&path, 0, "missing: reads find their way through the segment itself");
            }
        }
        Ok(Self {
            base,
            offsets: entries::<_, OFFSET_ENTRY_BYTES>(
                report,
                dir.join(names::index(base)),
                OffsetEntry::decode,
            )?,
            times: entries::<_, TIME_ENTRY_BYTES>(
                report,
                dir.join(names::time_index(base)),
                TimeEntry::decode,
            )?,
            seal,
            seal_path,
            newest: -1,
        })
    }

    /// Whether the segment has a readable seal.
    pub(super) fn seal(&self) -> Option<&Seal> {
        self.seal.as_ref()
    }

    /// Holds entries up to a batch against it. Batches come in order.
    pub(super) fn batch(&mut self, report: &mut VerifyReport, pos: u64, batch: &BatchView<'_>) {
        while let Some(entry) = self.offsets.peek().filter(|entry| entry.pos.get() <= pos) {
            let offset = self.base.plus(entry.relative_offset);
            // Older Kafkas name the last offset of all that was appended at once, not of the batch.
            let fits = match self.seal {
                Some(_) => offset == batch.last_offset(),
                None => offset >= batch.base_offset(),
            };
            if entry.pos.get() != pos || !fits {
                let at = self.offsets.pos::<OFFSET_ENTRY_BYTES>();
                let what =
                    format!("the entry names byte {}, where no such batch begins", entry.pos);
                report.problem(&self.offsets.path, at, Some(offset), what);
                self.offsets.wrong = true;
                break;
            }
            self.offsets.next += 1;
        }
        let last = batch.last_offset();
        self.newest = self.newest.max(batch.header().max_timestamp);
        while let Some(entry) = self.times.peek() {
            let offset = self.base.plus(entry.relative_offset);
            if offset > last {
                break;
            }
            let inside = offset >= batch.base_offset();
            if !inside || entry.timestamp != batch.header().max_timestamp {
                let at = self.times.pos::<TIME_ENTRY_BYTES>();
                let what = format!("no batch has that offset and timestamp {}", entry.timestamp);
                report.problem(&self.times.path, at, Some(offset), what);
                self.times.wrong = true;
                break;
            }
            self.times.next += 1;
        }
    }

    /// The walk ended: what is left of the indexes points behind the data.
    pub(super) fn end(&mut self, report: &mut VerifyReport, intact: bool) {
        let ends = [
            self.offsets.peek().map(|entry| {
                (
                    &self.offsets.path,
                    self.offsets.pos::<OFFSET_ENTRY_BYTES>(),
                    entry.relative_offset,
                )
            }),
            self.times.peek().map(|entry| {
                (&self.times.path, self.times.pos::<TIME_ENTRY_BYTES>(), entry.relative_offset)
            }),
        ];
        // Behind damage in the log nothing can be said of its index.
        for (path, pos, relative) in ends.into_iter().flatten().filter(|_| intact) {
            let offset = Some(self.base.plus(relative));
            report.problem(path, pos, offset, "the entry points behind the segment's data");
        }
    }

    /// Holds the seal against the file.
    pub(super) fn check_seal(
        &self,
        report: &mut VerifyReport,
        incarnation: Option<Incarnation>,
        (length, next): (u64, Offset),
        rest: Rest,
    ) {
        let Some(seal) = self.seal else { return };
        let Self { base, newest: max_timestamp, .. } = *self;
        let read = ReadThrough { base, length, next, crc: rest.crc, max_timestamp };
        if let Err(rot) = read.check(&seal, incarnation) {
            report.problem(&self.seal_path, 0, Some(base), rot);
        }
    }
}
