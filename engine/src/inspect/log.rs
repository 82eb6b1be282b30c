//! A partition's log as one run of batches, for those who look for something in it: from the log's start to where its
//! next opening would end it.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;

use super::partition::{Check, Terms, Verdict, Walked};
use super::source::{READ_BYTES, Rest, Runs, Step, Walker};
use super::{VerifyReport, fixed_file, lookup};
use crate::batch::{BatchError, BatchView};
use crate::error::OpenError;
use crate::format::index::TimeEntry;
use crate::format::names;
use crate::format::seal::Seal;
use crate::limits::LOOKUP_READ_BYTES_MAX;
use crate::types::Offset;

/// What a look made use of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// What the indexes were good for.
    pub index: IndexUse,
    /// Entries of indexes that were read.
    pub index_entries: u64,
    /// Segments that were read in.
    pub segments: u64,
    /// Batches that were read and checked.
    pub batches: u64,
    /// Bytes of segments that were read, what journals hold of them included.
    pub log_bytes: u64,
}

/// What the indexes were good for: the worst of those that were asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum IndexUse {
    /// None was asked.
    #[default]
    NotAsked,
    /// They led to where the search began.
    Used,
    /// One is not there, or can not be read: its segment was read from the beginning.
    Missing,
    /// One led to where no such batch is: its segment was read from the beginning.
    Wrong,
}

/// A batch on the way.
pub(super) struct Met<'m> {
    pub(super) path: &'m Path,
    pub(super) segment: Offset,
    /// Where it begins, in bytes.
    pub(super) pos: u64,
    pub(super) batch: BatchView<'m>,
    /// Whether a journal holds bytes of it.
    pub(super) journaled: bool,
}

/// Where to begin in a segment: at or before the batch that holds the offset `before`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begin {
    pub(super) pos: u64,
    pub(super) before: Offset,
}

impl Begin {
    /// At the segment's first byte.
    pub(super) const FIRST: Self = Self { pos: 0, before: Offset::ZERO };
}

/// How a walk through a segment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Whoever looked has seen enough.
    Stopped,
    /// At the segment's end.
    Through,
    /// Where the log's next opening cuts.
    Torn,
}

/// Why a walk can not go on from batch to batch.
enum Halt {
    /// The index led to where no such batch is.
    Astray,
    /// The next segment's records begin.
    Complete(u64),
    /// No batch, or none that can follow.
    Bad(u64, Option<String>),
}

/// What a walk asks of each batch: go on, or stop. An error is one of the batch's records.
pub(super) type Visit<'v> = &'v mut dyn FnMut(&Met<'_>) -> Result<ControlFlow<()>, BatchError>;

/// A log.
pub(super) struct Log<'r, 'a> {
    check: Check<'r, 'a>,
    bases: Vec<Offset>,
    /// The first offset that is still there.
    pub(super) start: Offset,
    /// The offset after the last one.
    pub(super) end: Offset,
    pub(super) looked: Looked,
}

impl<'r, 'a> Log<'r, 'a> {
    /// Finds out where the log begins and ends. Damage on the way is reported.
    pub(super) fn open(
        report: &'r mut VerifyReport,
        terms: &'r Terms<'a>,
    ) -> Result<Self, OpenError> {
        let (check, bases) = Check::begin(report, terms)?;
        // What lies beside the segments is of no concern here.
        (check.report.notes, check.report.problems) = (Vec::new(), Vec::new());
        let start = bases.first().map_or(terms.recovery_point, |first| *first);
        let start = start.max(terms.log_start);
        let mut log = Self { check, bases, start, end: start, looked: Looked::default() };
        log.find_end()?;
        log.looked = Looked::default();
        Ok(log)
    }

    /// Goes over what a recovery would go over. After a clean shutdown that is nothing, and the last batch is near the
    /// last index entry.
    fn find_end(&mut self) -> Result<(), OpenError> {
        let Some(last) = self.bases.len().checked_sub(1) else { return Ok(()) };
        let terms = self.check.terms;
        let (first, known) = if terms.clean {
            (last, Offset::new(i64::MAX))
        } else {
            (self.at(terms.recovery_point), terms.recovery_point)
        };
        for at in first..=last {
            let mut end = self.bases[at];
            let begin = self.floor(at, known);
            let ended = self.walk(at, begin, &mut |met| {
                end = met.batch.last_offset().plus(1);
                Ok(ControlFlow::Continue(()))
            })?;
            self.end = self.end.max(end);
            if ended == Ended::Torn {
                self.bases.truncate(at + 1);
                break;
            }
        }
        Ok(())
    }

    /// How many segments there are.
    pub(super) fn segments(&self) -> usize {
        self.bases.len()
    }

    /// Damage met so far.
    pub(super) fn problems(&self) -> usize {
        self.check.report.problems.len()
    }

    /// The number of the segment that holds the offset.
    pub(super) fn at(&self, offset: Offset) -> usize {
        self.bases.partition_point(|base| *base <= offset).saturating_sub(1)
    }

    /// Where to begin to look for the offset in a segment.
    pub(super) fn floor(&mut self, at: usize, offset: Offset) -> Begin {
        let base = self.bases[at];
        let path = self.check.terms.dir.join(names::index(base));
        let found = lookup::offset_floor(&path, offset.get().saturating_sub(base.get()));
        self.asked(found.usable, found.read);
        Begin { pos: found.entry.map_or(0, |entry| entry.pos.get()), before: offset }
    }

    /// The largest timestamp not above `timestamp` that a segment's index has, and the offset of a record of the batch
    /// that has it.
    pub(super) fn time_floor(&mut self, at: usize, timestamp: i64) -> Option<(i64, Offset)> {
        let base = self.bases[at];
        let path = self.check.terms.dir.join(names::time_index(base));
        let found = lookup::time_floor(&path, timestamp);
        self.asked(found.usable, found.read);
        let TimeEntry { timestamp, relative_offset } = found.entry?;
        Some((timestamp, base.plus(relative_offset)))
    }

    fn asked(&mut self, usable: bool, entries: u64) {
        let index = if usable { IndexUse::Used } else { IndexUse::Missing };
        self.looked.index = self.looked.index.max(index);
        self.looked.index_entries += entries;
    }

    /// An index turned out to be wrong.
    pub(super) fn doubt(&mut self) {
        self.looked.index = IndexUse::Wrong;
    }

    /// A segment's largest timestamp, if a seal of this segment says so.
    pub(super) fn sealed_timestamp(&mut self, at: usize) -> Result<Option<i64>, OpenError> {
        Ok(self.seal(self.bases[at])?.map(|seal| seal.max_timestamp))
    }

    fn seal(&mut self, base: Offset) -> Result<Option<Seal>, OpenError> {
        let path = self.check.terms.dir.join(names::seal(base));
        let seal = fixed_file(self.check.report, &path, Seal::decode)?;
        let life = self.check.incarnation;
        Ok(seal.filter(|seal| {
            seal.base_offset == base && life.is_none_or(|life| life == seal.incarnation)
        }))
    }

    /// Goes over a segment's batches. Damage is reported, and what is intact behind it is visited, too.
    pub(super) fn walk(
        &mut self,
        at: usize,
        begin: Begin,
        visit: Visit<'_>,
    ) -> Result<Ended, OpenError> {
        let base = self.bases[at];
        let path = self.check.terms.dir.join(names::segment(base));
        let seal = self.seal(base)?;
        let runs = self.check.runs(base, seal.as_ref());
        let walk = Walk {
            path: &path,
            base,
            following: self.bases.get(at + 1).copied(),
            block: self.check.terms.block,
            runs,
            seal,
        };
        self.looked.segments += 1;
        self.through(&walk, begin, visit, at)
    }

    fn through(
        &mut self,
        walk: &Walk<'_>,
        begin: Begin,
        visit: Visit<'_>,
        at: usize,
    ) -> Result<Ended, OpenError> {
        let io = |error| OpenError::io(walk.path, "reading", error);
        let mut next = walk.base;
        let mut led = (begin.pos > 0).then_some(begin.before);
        let mut walker = walk.open(begin.pos).map_err(io)?;
        loop {
            let halt = match walker.next().map_err(io)? {
                Step::End(..) if led.is_some() => Halt::Astray,
                Step::End(pos, why) => Halt::Bad(pos, why.map(|why| why.to_string())),
                Step::Batch(pos, batch) => {
                    if let Some(halt) = walk.refusal(pos, &batch, (next, led)) {
                        halt
                    } else {
                        (next, led) = (batch.last_offset().plus(1), None);
                        if self.visit(walk, (pos, batch), visit).is_break() {
                            self.looked.log_bytes += walker.bytes_read();
                            return Ok(Ended::Stopped);
                        }
                        continue;
                    }
                }
            };
            let (end, why, complete) = match halt {
                Halt::Complete(pos) => (pos, None, true),
                Halt::Bad(pos, why) => (pos, why, false),
                Halt::Astray => {
                    self.doubt();
                    self.looked.log_bytes += walker.bytes_read();
                    (walker, led) = (walk.open(0).map_err(io)?, None);
                    continue;
                }
            };
            let rest = walker.rest(end).map_err(io)?;
            self.looked.log_bytes += walker.bytes_read();
            let length = walker.length();
            let sealed = self.check.was_sealed(walk.base, walk.seal.as_ref());
            let mut walked = Walked { end, length, next, rest, why, complete, sealed };
            walked.complete = self.check.is_complete(&walked, walk.following, walk.seal.as_ref());
            match self.check.judge(walk.path, &walked, &self.bases[at + 1..])? {
                Verdict::Fine => return Ok(Ended::Through),
                Verdict::Torn => return Ok(Ended::Torn),
                Verdict::Damaged => {}
            }
            match walk.behind(end, rest).map_err(io)? {
                Some(found) => walker = found,
                None => return Ok(Ended::Through),
            }
        }
    }

    fn visit(
        &mut self,
        walk: &Walk<'_>,
        (pos, batch): (u64, BatchView<'_>),
        visit: Visit<'_>,
    ) -> ControlFlow<()> {
        self.looked.batches += 1;
        let end = pos + batch.as_bytes().len() as u64;
        let journaled = walk.runs.iter().any(|(at, run)| *at < end && pos < at + run.len() as u64);
        let met = Met { path: walk.path, segment: walk.base, pos, batch, journaled };
        visit(&met).unwrap_or_else(|error| {
            self.check.report.problem(walk.path, pos, Some(met.batch.base_offset()), error);
            ControlFlow::Continue(())
        })
    }
}

/// A segment that is gone through.
struct Walk<'w> {
    path: &'w Path,
    base: Offset,
    following: Option<Offset>,
    block: u64,
    runs: Runs<'w>,
    seal: Option<Seal>,
}

impl<'w> Walk<'w> {
    fn open(&self, pos: u64) -> io::Result<Walker<'w>> {
        let step = if pos > 0 { LOOKUP_READ_BYTES_MAX / 4 } else { READ_BYTES };
        Ok(Walker::open(self.path, self.block, self.runs)?.by(step).from(pos))
    }

    /// The first intact batch behind damage at `pos`.
    fn behind(&self, pos: u64, rest: Rest) -> io::Result<Option<Walker<'w>>> {
        let end = rest.last_nonzero.unwrap_or(0);
        let found = match self.open(pos)?.by(READ_BYTES).resume(end)? {
            Step::Batch(pos, _) => pos,
            Step::End(..) => return Ok(None),
        };
        self.open(found).map(|walker| Some(walker.by(READ_BYTES)))
    }

    /// Why a batch can not stand where it does.
    fn refusal(
        &self,
        pos: u64,
        batch: &BatchView<'_>,
        (next, led): (Offset, Option<Offset>),
    ) -> Option<Halt> {
        let first = batch.base_offset();
        if led.is_some_and(|before| first < next || first > before) {
            Some(Halt::Astray)
        } else if self.following.is_some_and(|limit| first >= limit) {
            Some(Halt::Complete(pos))
        } else if first < next {
            let why = format!("a batch with offset {first} follows offset {next}");
            Some(Halt::Bad(pos, Some(why)))
        } else {
            None
        }
    }
}
