//! Finds records in a data directory by offset, by time and by key.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::journals::Journals;
use super::log::{Begin, Ended, Log, Looked, Met};
use super::place::{self, Place};
use super::{Note, Problem, Survey, VerifyReport};
use crate::batch::{BatchError, RecordView};
use crate::error::OpenError;
use crate::format::batch_header::BatchHeader;
use crate::types::{Offset, PartitionName};

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sought<'k> {
    /// The record with this offset. By the index, then through one of its intervals.
    Offset(Offset),
    /// The first record, by offset, with this timestamp or a later one, in milliseconds since the epoch. By the seals
    /// and the time index, then from batch to batch.
    Time(i64),
    /// Records with this key. There is no index of keys: segments are read from the newest to the oldest until there
    /// are enough.
    Key {
        /// The key.
        key: &'k [u8],
        /// How many at most, the newest ones.
        records_max: usize,
    },
}

/// What [`find`] came upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FindReport {
    /// The first offset that is there.
    pub start: Offset,
    /// The offset after the last one.
    pub end: Offset,
    /// What was found; of a key the newest first.
    pub found: Vec<FoundRecord>,
    /// Why nothing was found.
    pub missing: Option<Missing>,
    /// What that took, without what it took to find the log's end.
    pub looked: Looked,
    /// Damage on the way: what was sought may have been there.
    pub problems: Vec<Problem>,
    /// What is unusual but legal on the way, such as a torn tail that the next opening cuts off.
    pub notes: Vec<Note>,
}

/// A record, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundRecord {
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp in milliseconds since the epoch; -1 for none.
    pub timestamp: i64,
    /// Its key, if that is not null.
    pub key: Option<Vec<u8>>,
    /// Its value, if that is not null.
    pub value: Option<Vec<u8>>,
    /// Its headers: names, and values that are not null.
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// The header of its batch.
    pub batch: BatchHeader,
    /// The segment's file.
    pub path: PathBuf,
    /// The segment's base offset.
    pub segment: Offset,
    /// Where its batch begins in the file, in bytes.
    pub pos: u64,
    /// Whether bytes of the batch are in a journal, from which the next opening brings them into the file.
    pub journaled: bool,
}

/// Why nothing was found.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Missing {
    /// The log does not have that offset.
    #[error("offset {asked} is out of range: {}", range(*.start, *.end))]
    OutOfRange {
        /// The offset that was asked for.
        asked: Offset,
        /// The first offset that is there.
        start: Offset,
        /// The offset after the last one.
        end: Offset,
    },
    /// Compaction took the record away.
    #[error("there is no record with offset {asked} any more: compaction took it; {}", behind(*.next))]
    Compacted {
        /// The offset that was asked for.
        asked: Offset,
        /// The record that comes next.
        next: Option<Offset>,
    },
    /// All records are older.
    #[error("no record is that young: {}", newest(*.newest_ms))]
    AfterEnd {
        /// The timestamp that was asked for, in milliseconds since the epoch.
        asked_ms: i64,
        /// The newest that any record has; `None` if none has one.
        newest_ms: Option<i64>,
    },
    /// No record has that key.
    #[error("no record has that key: {}", range(*.start, *.end))]
    NoSuchKey {
        /// The first offset that is there.
        start: Offset,
        /// The offset after the last one.
        end: Offset,
    },
    /// Damage stands where the record should.
    #[error("what stands there is damaged: run verify, then see what repair would cut")]
    Damaged,
}

fn range(start: Offset, end: Offset) -> String {
    if start == end {
        return format!("the log is empty, and its next offset is {end}");
    }
    format!("the log has offsets {start} to {}", end.get() - 1)
}

fn behind(next: Option<Offset>) -> String {
    next.map_or("none comes after it".to_owned(), |next| format!("the next one has {next}"))
}

fn newest(newest_ms: Option<i64>) -> String {
    newest_ms.map_or("none has a timestamp".to_owned(), |ms| {
        format!("the newest has timestamp {ms}, in milliseconds since 1970")
    })
}

/// Why a search could not begin.
#[derive(Debug, Error)]
pub enum FindError {
    /// The directory can not be looked into.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It is a partition's directory, or a file.
    #[error("{0} is no data directory; name the one that the partition's directory is in")]
    NotData(PathBuf),
    /// There is no such partition.
    #[error("there is no partition {asked}")]
    NoSuchPartition {
        /// The partition that was asked for.
        asked: PartitionName,
        /// Those that are there, sorted.
        there: Vec<PartitionName>,
    },
}

/// Finds records in a data directory, which may be one that Kafka made, one that was not closed cleanly or a damaged
/// one. Reads only.
///
/// The log is taken as its next opening would take it: what journals hold is laid over the segments in memory, and a
/// torn tail is not part of it. Every batch that is looked at is checked; damage is stepped over and reported. Indexes
/// that are missing or wrong make the way longer and change nothing of what is found.
///
/// # Errors
/// [`FindError`] if there is nothing to look into. That a record is not there is in the report.
pub fn find(
    dir: impl AsRef<Path>,
    partition: &PartitionName,
    sought: Sought<'_>,
) -> Result<FindReport, FindError> {
    let dir = dir.as_ref();
    if !matches!(place::of(dir)?, Place::Directory) {
        return Err(FindError::NotData(dir.to_path_buf()));
    }
    let mut report = VerifyReport::default();
    let mut survey = Survey::of(&mut report, dir)?;
    if !survey.listing.partitions.contains(partition) {
        let mut there = std::mem::take(&mut survey.listing.partitions);
        there.sort();
        return Err(FindError::NoSuchPartition { asked: partition.clone(), there });
    }
    let journals = Journals::replay(&mut report, &survey.loaded);
    let path = dir.join(partition.to_string());
    let terms = survey.terms(&path, partition, &journals);
    let mut log = Log::open(&mut report, &terms)?;
    let result = match sought {
        Sought::Offset(offset) => by_offset(&mut log, offset)?,
        Sought::Time(timestamp) => by_time(&mut log, timestamp)?,
        Sought::Key { key, records_max } => by_key(&mut log, key, records_max)?,
    };
    let (start, end, looked) = (log.start, log.end, log.looked);
    let (found, missing) = match result {
        Ok(found) => (found, None),
        Err(missing) => (Vec::new(), Some(missing)),
    };
    let VerifyReport { mut problems, mut notes, .. } = report;
    // The way to the log's end may have been gone twice.
    problems.sort_by(|a, b| (&a.path, a.pos, &a.what).cmp(&(&b.path, b.pos, &b.what)));
    problems.dedup();
    notes.sort_by(|a, b| (&a.path, a.pos, &a.what).cmp(&(&b.path, b.pos, &b.what)));
    notes.dedup();
    Ok(FindReport { start, end, found, missing, looked, problems, notes })
}

/// What a search came to, unless it could not be made.
type Search = Result<Result<Vec<FoundRecord>, Missing>, OpenError>;

fn by_offset(log: &mut Log<'_, '_>, asked: Offset) -> Search {
    let (start, end) = (log.start, log.end);
    if !(start..end).contains(&asked) {
        return Ok(Err(Missing::OutOfRange { asked, start, end }));
    }
    let damage = log.problems();
    let mut hit = None;
    for at in log.at(asked)..log.segments() {
        let begin = log.floor(at, asked);
        let ended = log.walk(at, begin, &mut |met| {
            if met.batch.last_offset() >= asked {
                hit = first(met, |record| record.offset >= asked)?;
            }
            Ok(stop_if(hit.is_some()))
        })?;
        if ended != Ended::Through {
            break;
        }
    }
    Ok(match hit {
        Some(record) if record.offset == asked => Ok(vec![record]),
        _ if log.problems() > damage => Err(Missing::Damaged),
        hit => Err(Missing::Compacted { asked, next: hit.map(|record| record.offset) }),
    })
}

fn by_time(log: &mut Log<'_, '_>, asked_ms: i64) -> Search {
    let (start, damage) = (log.start, log.problems());
    let mut newest = -1;
    for at in log.at(start)..log.segments() {
        if let Some(latest) = log.sealed_timestamp(at)?
            && latest < asked_ms
        {
            newest = newest.max(latest);
            continue;
        }
        // All up to the batch that the index names are older, unless that has the very timestamp.
        let mut hint = log.time_floor(at, asked_ms).filter(|(_, offset)| *offset > start);
        loop {
            let begin = hint.map_or(Begin::FIRST, |(_, offset)| log.floor(at, offset));
            let (mut led, mut astray, mut hit) = (hint, false, None);
            let ended = log.walk(at, begin, &mut |met| {
                let (first_offset, latest) =
                    (met.batch.base_offset(), met.batch.header().max_timestamp);
                if let Some((timestamp, offset)) = led
                    && met.batch.last_offset() >= offset
                {
                    astray = first_offset > offset || latest != timestamp;
                    led = None;
                }
                newest = newest.max(latest);
                if !astray && latest >= asked_ms && met.batch.last_offset() >= start {
                    hit = first(met, |it| it.offset >= start && it.timestamp >= asked_ms)?;
                }
                Ok(stop_if(astray || hit.is_some()))
            })?;
            if astray || led.is_some() {
                log.doubt();
                hint = None;
                continue;
            }
            if let Some(record) = hit {
                return Ok(Ok(vec![record]));
            }
            if ended == Ended::Torn {
                return Ok(Err(too_late(asked_ms, newest, log.problems() > damage)));
            }
            break;
        }
    }
    Ok(Err(too_late(asked_ms, newest, log.problems() > damage)))
}

fn too_late(asked_ms: i64, newest: i64, damaged: bool) -> Missing {
    if damaged {
        return Missing::Damaged;
    }
    Missing::AfterEnd { asked_ms, newest_ms: (newest >= 0).then_some(newest) }
}

fn by_key(log: &mut Log<'_, '_>, key: &[u8], records_max: usize) -> Search {
    let (start, damage) = (log.start, log.problems());
    let mut found = Vec::new();
    for at in (log.at(start)..log.segments()).rev() {
        let mut here = VecDeque::new();
        let room = records_max - found.len();
        log.walk(at, Begin::FIRST, &mut |met| {
            let control = met.batch.header().attributes.is_control();
            if met.batch.last_offset() < start || control {
                return Ok(ControlFlow::Continue(()));
            }
            for record in met.batch.records()? {
                let record = record?;
                if record.offset >= start && record.key == Some(key) {
                    here.push_front(owned(met, &record));
                    here.truncate(room);
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        found.extend(here);
        if found.len() >= records_max {
            break;
        }
    }
    Ok(if !found.is_empty() {
        Ok(found)
    } else if log.problems() > damage {
        Err(Missing::Damaged)
    } else {
        Err(Missing::NoSuchKey { start, end: log.end })
    })
}

fn stop_if(enough: bool) -> ControlFlow<()> {
    if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// The first record of a batch that is wanted.
fn first(
    met: &Met<'_>,
    wanted: impl Fn(&RecordView<'_>) -> bool,
) -> Result<Option<FoundRecord>, BatchError> {
    for record in met.batch.records()? {
        let record = record?;
        if wanted(&record) {
            return Ok(Some(owned(met, &record)));
        }
    }
    Ok(None)
}

fn owned(met: &Met<'_>, record: &RecordView<'_>) -> FoundRecord {
    let copied = |bytes: &[u8]| bytes.to_vec();
    FoundRecord {
        offset: record.offset,
        timestamp: record.timestamp,
        key: record.key.map(copied),
        value: record.value.map(copied),
        headers: record.headers().map(|it| (copied(it.key), it.value.map(copied))).collect(),
        batch: *met.batch.header(),
        path: met.path.to_path_buf(),
        segment: met.segment,
        pos: met.pos,
        journaled: met.journaled,
    }
}
