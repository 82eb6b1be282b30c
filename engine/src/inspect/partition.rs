//! One partition, held against its format and judged as a recovery would judge it.

use std::path::Path;

use super::derived::Derived;
use super::journals::Journals;
use super::place::{FileKind, kind, names_in};
use super::source::{Rest, Runs, Step, Walker};
use super::{VerifyReport, fixed_file, overlay_of, read_optional};
use crate::batch::{BatchView, Limits};
use crate::error::OpenError;
use crate::format::checkpoint::decode_epochs;
use crate::format::meta::PartitionMeta;
use crate::format::seal::Seal;
use crate::format::{names, retention};
use crate::limits::TORN_WINDOW_BYTES;
use crate::types::{Incarnation, Offset};

/// How a partition is to be judged.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) dir: &'a Path,
    pub(super) block: u64,
    pub(super) overlay: Option<&'a Journals<'a>>,
    pub(super) recovery_point: Offset,
    pub(super) log_start: Offset,
    pub(super) clean: bool,
}

impl<'a> Terms<'a> {
    /// A partition's directory with nothing known beside it.
    pub(super) fn alone(dir: &'a Path, block: u64) -> Self {
        Self {
            dir,
            block,
            overlay: None,
            recovery_point: Offset::ZERO,
            log_start: Offset::ZERO,
            clean: false,
        }
    }
}

/// A partition under the eyes of a check.
pub(super) struct Check<'r, 'a> {
    pub(super) report: &'r mut VerifyReport,
    pub(super) terms: &'r Terms<'a>,
    pub(super) incarnation: Option<Incarnation>,
    /// Bytes may have been acknowledged before a flush.
    relaxed: bool,
    /// Kafka made it, and no engine has opened it yet.
    foreign: bool,
}

/// How far a segment was gone through.
pub(super) struct Walked {
    pub(super) end: u64,
    pub(super) length: u64,
    pub(super) next: Offset,
    pub(super) rest: Rest,
    /// Why the walk ended, unless it was at the end of the file or of the segment's share.
    pub(super) why: Option<String>,
    /// It ended where the next segment's records begin.
    pub(super) complete: bool,
    /// The segment was sealed, and so flushed as a whole.
    pub(super) sealed: bool,
}

/// What lies behind a walk's end.
pub(super) enum Verdict {
    Fine,
    /// The next opening cuts here: what follows is void.
    Torn,
    Damaged,
}

/// Checks one partition's directory.
pub(super) fn check(report: &mut VerifyReport, terms: &Terms<'_>) -> Result<(), OpenError> {
    report.partitions += 1;
    let (mut check, bases) = Check::begin(report, terms)?;
    let next = check.segments(&bases)?;
    check.epochs(next)
}

/// Base offsets of the partition's segments, in order.
fn segments(report: &mut VerifyReport, dir: &Path) -> Result<Vec<Offset>, OpenError> {
    let found = names_in(dir)?;
    let bases: Vec<Offset> = found.iter().filter_map(|name| names::segment_base(name)).collect();
    for name in &found {
        let path = dir.join(name);
        match kind(name) {
            Some(FileKind::Index | FileKind::TimeIndex | FileKind::Seal) => {
                let stem = name.split('.').next().unwrap_or_default();
                let base = names::segment_base(&format!("{stem}.log"));
                if base.is_none_or(|base| !bases.contains(&base)) {
                    report.problem(&path, 0, base, "there is no segment of that base offset");
                }
            }
            Some(FileKind::Segment | FileKind::PartitionMeta | FileKind::Epochs) => {}
            _ if name == names::RETENTION => {
                fixed_file(report, &path, retention::decode)?;
            }
            _ if name.ends_with(names::CLEANING) || name.ends_with(names::DELETED) => {
                report.note(&path, 0, "left by interrupted work; the next opening removes it");
            }
            _ if name.ends_with(names::SWAP) => {
                report.note(&path, 0, "of a compaction; the next opening completes or removes it");
            }
            _ if name.ends_with(names::CUT) => {
                report.note(&path, 0, "kept by a repair, which cut it off");
            }
            _ if name.ends_with(names::VOID) => {
                report.note(&path, 0, "set aside by a recovery: nothing in it was acknowledged");
            }
            _ if is_kafkas(name) => {}
            _ => report.note(&path, 0, "no file of a log; left alone"),
        }
    }
    Ok(bases)
}

/// Leaves out what is in the middle of a change that the next opening completes: segments that a deletion left before
/// the log's start, and those whose place a compacted one is taking.
fn unfinished(
    report: &mut VerifyReport,
    terms: &Terms<'_>,
    bases: &mut Vec<Offset>,
) -> Result<(), OpenError> {
    let gone = bases.iter().skip(1).take_while(|next| **next <= terms.log_start).count();
    for base in bases.drain(..gone) {
        let path = terms.dir.join(names::segment(base));
        report.note(&path, 0, "before the log's start; the next opening removes it");
    }
    for name in names_in(terms.dir)? {
        let Some(base) = name.strip_suffix(names::SWAP).and_then(names::segment_base) else {
            continue;
        };
        for seal in [names::seal(base) + names::SWAP, names::seal(base)] {
            let seal = read_optional(&terms.dir.join(seal))?;
            let seal = seal.and_then(|bytes| Seal::decode(&bytes).ok());
            if let Some(seal) = seal.filter(|seal| seal.compacted) {
                bases.retain(|other| *other < base || *other >= seal.next_offset);
            }
        }
    }
    Ok(())
}

/// Files that Kafka keeps beside segments and that are of no use here.
fn is_kafkas(name: &str) -> bool {
    name == "partition.metadata" || name.ends_with(".snapshot") || name.ends_with(".txnindex")
}

impl<'r, 'a> Check<'r, 'a> {
    /// Reads what the directory says of itself. Returns the segments' base offsets, too, in order.
    pub(super) fn begin(
        report: &'r mut VerifyReport,
        terms: &'r Terms<'a>,
    ) -> Result<(Self, Vec<Offset>), OpenError> {
        let meta = fixed_file(report, &terms.dir.join(names::PARTITION), PartitionMeta::decode)?;
        let mut bases = segments(report, terms.dir)?;
        unfinished(report, terms, &mut bases)?;
        let check = Self {
            report,
            terms,
            incarnation: meta.map(|meta| meta.incarnation),
            // Kafka acknowledges before it flushes.
            relaxed: meta.is_none_or(|meta| meta.relaxed),
            foreign: meta.is_none(),
        };
        Ok((check, bases))
    }

    /// What journals lay over a segment.
    pub(super) fn runs(&self, base: Offset, seal: Option<&Seal>) -> Runs<'a> {
        let runs = overlay_of(self.terms.overlay, self.incarnation, base);
        let end = runs.iter().map(|(pos, run)| pos + run.len() as u64).max().unwrap_or(0);
        // A sealed segment was flushed with all of them in it: a recovery leaves it alone, too.
        let sealed = seal.is_some_and(|seal| seal.compacted || end <= seal.length.get());
        if sealed { &[] } else { runs }
    }

    /// Whether a seal is one of this partition's segment.
    pub(super) fn was_sealed(&self, base: Offset, seal: Option<&Seal>) -> bool {
        seal.is_some_and(|seal| {
            Some(seal.incarnation) == self.incarnation && seal.base_offset == base
        })
    }

    /// Whether a walk went over all of a segment, which is followed by one that begins at `following`.
    pub(super) fn is_complete(
        &self,
        walked: &Walked,
        following: Option<Offset>,
        seal: Option<&Seal>,
    ) -> bool {
        // A gap before the next segment: compaction's, or bytes that never came.
        let gap = walked.complete || walked.end == walked.length;
        let sealed = seal.is_some_and(|seal| seal.length.get() == walked.end);
        let below = following.is_some_and(|limit| limit <= self.terms.recovery_point);
        following.map_or(walked.end == walked.length, |limit| walked.next >= limit)
            || gap && (self.foreign || sealed || below)
    }

    /// Checks every segment. Returns the partition's next offset.
    fn segments(&mut self, bases: &[Offset]) -> Result<Offset, OpenError> {
        let point = self.terms.recovery_point;
        let mut next = bases.first().copied().unwrap_or(point.max(self.terms.log_start));
        let mut damaged = false;
        for (at, base) in bases.iter().enumerate() {
            let path = self.terms.dir.join(names::segment(*base));
            if *base < next {
                let what = format!("the segment before it ends at {next}");
                self.report.problem(&path, 0, Some(*base), what);
            }
            let walked = self.walk(&path, *base, bases.get(at + 1).copied())?;
            next = walked.next;
            match self.judge(&path, &walked, &bases[at + 1..])? {
                Verdict::Fine => {}
                Verdict::Torn => break,
                Verdict::Damaged => damaged = true,
            }
        }
        if next < point && !damaged {
            let what = format!("the log ends at {next}, it was flushed up to {point}");
            self.report.problem(self.terms.dir, 0, Some(next), what);
        }
        Ok(next)
    }

    fn walk(
        &mut self,
        path: &Path,
        base: Offset,
        following: Option<Offset>,
    ) -> Result<Walked, OpenError> {
        let io = |error| OpenError::io(path, "reading", error);
        self.report.segments += 1;
        let mut derived = Derived::read(self.report, self.terms.dir, base)?;
        let runs = self.runs(base, derived.seal());
        let mut walker = Walker::open(path, self.terms.block, runs).map_err(io)?;
        let length = walker.length();
        walker.sum_to(derived.seal().map_or(0, |seal| seal.length.get()));
        let (mut end, mut next, mut why, mut complete) = (0, base, None, false);
        loop {
            let (pos, batch) = match walker.next().map_err(io)? {
                Step::Batch(pos, batch) => (pos, batch),
                Step::End(_, error) => {
                    why = error.map(|error| error.to_string());
                    break;
                }
            };
            if following.is_some_and(|limit| batch.base_offset() >= limit) {
                complete = true;
                break;
            }
            if batch.base_offset() < next {
                let first = batch.base_offset();
                why = Some(format!("a batch with offset {first} follows offset {next}"));
                break;
            }
            self.batch(path, pos, &batch);
            derived.batch(self.report, pos, &batch);
            next = batch.last_offset().plus(1);
            end = pos + batch.as_bytes().len() as u64;
        }
        let rest = walker.rest(end).map_err(io)?;
        let sealed = self.was_sealed(base, derived.seal());
        let mut walked = Walked { end, length, next, rest, why, complete, sealed };
        walked.complete = self.is_complete(&walked, following, derived.seal());
        derived.end(self.report, walked.complete || rest.last_nonzero.is_none());
        derived.check_seal(self.report, self.incarnation, (length, next), rest);
        Ok(walked)
    }

    fn batch(&mut self, path: &Path, pos: u64, batch: &BatchView<'_>) {
        self.report.batches += 1;
        self.report.bytes += batch.as_bytes().len() as u64;
        let records = match batch.records_within(&Limits::default()) {
            Ok(records) => records,
            Err(error) => {
                self.report.problem(path, pos, Some(batch.base_offset()), error);
                return;
            }
        };
        let mut next = batch.base_offset();
        for record in records {
            match record {
                Ok(record) => {
                    self.report.records += 1;
                    next = record.offset.plus(1);
                }
                Err(error) => self.report.problem(path, pos, Some(next), error),
            }
        }
    }

    /// Whether what lies behind the walk's end is nothing, a torn tail or damage: the rule of the recovery.
    pub(super) fn judge(
        &mut self,
        path: &Path,
        walked: &Walked,
        later: &[Offset],
    ) -> Result<Verdict, OpenError> {
        let behind = walked.rest.last_nonzero.map_or(0, |last| last - walked.end);
        if walked.complete && !later.is_empty() {
            if behind > 0 {
                let what = format!("{behind} bytes behind the segment's share are void");
                self.report.note(path, walked.end, what);
            }
            return Ok(Verdict::Fine);
        }
        if walked.end == walked.length || behind == 0 && later.is_empty() {
            return Ok(Verdict::Fine);
        }
        let why = walked.why.as_deref().unwrap_or("no batch begins here");
        let evidence = if walked.next < self.terms.recovery_point {
            "this was flushed".to_owned()
        } else if self.terms.clean {
            "the directory was closed cleanly".to_owned()
        } else if walked.sealed {
            "the segment was sealed".to_owned()
        } else {
            let beyond = behind + self.bytes_of(later)?;
            if self.relaxed || beyond <= TORN_WINDOW_BYTES {
                let what =
                    format!("torn tail, {beyond} bytes that the next opening cuts off: {why}");
                self.report.note(path, walked.end, what);
                return Ok(Verdict::Torn);
            }
            format!("{beyond} bytes lie behind it, too many for a torn tail")
        };
        self.report.problem(path, walked.end, Some(walked.next), format!("{why}; {evidence}"));
        Ok(Verdict::Damaged)
    }

    /// Bytes of segments, up to the last one of each that is not zero.
    fn bytes_of(&self, segments: &[Offset]) -> Result<u64, OpenError> {
        let mut bytes = 0;
        for base in segments {
            let path = self.terms.dir.join(names::segment(*base));
            let runs = overlay_of(self.terms.overlay, self.incarnation, *base);
            let walker = Walker::open(&path, self.terms.block, runs);
            let rest = walker.and_then(|mut walker| walker.rest(0));
            let rest = rest.map_err(|e| OpenError::io(&path, "reading", e))?;
            bytes += rest.last_nonzero.unwrap_or(0);
        }
        Ok(bytes)
    }

    fn epochs(&mut self, next: Offset) -> Result<(), OpenError> {
        let path = self.terms.dir.join(names::EPOCHS);
        let Some(text) = read_optional(&path)? else { return Ok(()) };
        match decode_epochs(&text) {
            Err(error) => self.report.problem(&path, 0, None, error),
            Ok(entries) => {
                for entry in entries.iter().filter(|entry| entry.start_offset > next) {
                    let what = format!(
                        "epoch {} begins at {}, the log ends at {next}",
                        entry.epoch, entry.start_offset
                    );
                    // Its file is written behind the log's: after a torn tail it may be ahead.
                    if self.terms.clean {
                        self.report.problem(&path, 0, Some(entry.start_offset), what);
                    } else {
                        self.report.note(&path, 0, what);
                    }
                }
            }
        }
        Ok(())
    }
}
