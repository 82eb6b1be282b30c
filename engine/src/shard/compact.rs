//! Compacts a log: reads what is dirty, writes what stays, and has it take the place of what was there.
//!
//! All of it runs between the shard's turns, a piece at a time and at a bounded rate; before each piece it looks
//! whether it is to go on. Until a swap is certain (`shard/swap.rs`) nothing but files that an opening removes has
//! changed.

use std::io;
use std::path::PathBuf;

use crate::batch::BatchView;
use crate::command::{Disk, FileHandle, Op, OpenMode};
use crate::compaction::{Cleanable, Part, Pass, Rewritten, Terms, cleanable, groups, is_due};
use crate::error::{ControlError, Fault, OpenError};
use crate::files::open;
use crate::format::batch_header::BatchHeader;
use crate::format::meta::PartitionMeta;
use crate::format::names;
use crate::journal::LogId;
use crate::limits::{COMPACTION_BYTES_PER_SECOND, COMPACTION_MAP_BYTES, COMPACTION_PIECE_BYTES};
use crate::log::Log;
use crate::recovery::scan::{BatchScanner, Scanned};
use crate::recovery::write_partition_meta;
use crate::types::{Compacted, FlushPolicy, Offset};

use super::Context;
use super::attach::Filing;
use super::disk::ShardDisk;
use super::keep::{may_keep, parts};
use super::points;
use super::swap::{Output, swap};

/// Who wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Demand {
    /// Its own settings, if it is due by them.
    IfDue,
    /// Somebody, now.
    Now,
}

/// Compacts the log as far as one map of keys reaches. `None` if there was nothing to do.
pub(crate) async fn compact(
    cx: &Context,
    id: LogId,
    demand: Demand,
) -> Result<Option<Compacted>, ControlError> {
    let _permit = cx.compactors.acquire().await;
    let Some(work) = plan(cx, id, demand).await? else { return Ok(None) };
    let _compacting = Compacting::begin(cx, id)?;
    allow_gaps(cx, id).await?;
    let mut run = Run { cx: cx.clone(), id, dir: work.dir.clone(), due_ns: 0, piece: 0 };
    let mut pass = fill_map(&mut run, &work).await?;
    let end = pass.map.end();
    let count = work.parts.partition_point(|part| part.base < end);
    let mut done = Compacted { end, ..Compacted::default() };
    let segment_bytes = cx.state.borrow().settings.shape.segment_bytes;
    for group in groups(&work.parts[..count], segment_bytes) {
        let group = &work.parts[group];
        let bytes_after = rewrite(&mut run, &mut pass, group).await?;
        done.segments_before += group.len() as u64;
        done.segments_after += 1;
        done.bytes_before += group.iter().map(|part| part.bytes).sum::<u64>();
        done.bytes_after += bytes_after;
    }
    (done.records_dropped, done.records_without_key) = (pass.dropped, pass.keyless);
    done.batches_unreadable = pass.unreadable;
    finish(cx, id, &done).await;
    Ok(Some(done))
}

/// What is to be compacted.
struct Work {
    parts: Vec<Part>,
    cleanable: Cleanable,
    first_dirty: Offset,
    terms: Terms,
    dir: PathBuf,
}

async fn plan(cx: &Context, id: LogId, demand: Demand) -> Result<Option<Work>, ControlError> {
    let parts = parts(cx, id).await?;
    let mut state = cx.state.borrow_mut();
    may_keep(&mut state, id)?;
    let now_ms = state.time.wall_ms;
    let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
    let compaction = match (log.keep.retention.compact, demand) {
        (Some(compaction), _) => compaction,
        (None, Demand::IfDue) => return Ok(None),
        (None, Demand::Now) => return Err(ControlError::NoCompaction),
    };
    let log_start = log.watermarks().log_start;
    let first_dirty = log.keep.cleaned.max(log_start);
    let cleanable = cleanable(&parts, first_dirty, &compaction, now_ms);
    let wanted = match demand {
        Demand::IfDue => is_due(&cleanable, &compaction, now_ms),
        // Tombstones may be due in what is clean.
        Demand::Now => cleanable.dirty.end > 0,
    };
    let delete_retention_ms = compaction.delete_retention_ms;
    let terms = Terms { log_start, now_ms, delete_retention_ms };
    let dir = log.identity.dir.clone();
    Ok(wanted.then_some(Work { parts, cleanable, first_dirty, terms, dir }))
}

/// Has the partition's file say that offsets may be missing, before any are.
async fn allow_gaps(cx: &Context, id: LogId) -> Result<(), ControlError> {
    let _filing = Filing::begin(cx, id).await?;
    let (dir, meta) = {
        let mut state = cx.state.borrow_mut();
        let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
        if log.keep.compacted {
            return Ok(());
        }
        let relaxed = log.policy != FlushPolicy::Group;
        let incarnation = log.identity.incarnation;
        let meta = PartitionMeta { incarnation, relaxed, suspect: false, compacted: true };
        (log.identity.dir.clone(), meta)
    };
    let written = write_partition_meta(&cx.disk, &cx.arena(), &dir, meta).await;
    written.map_err(|error| match error {
        OpenError::Io { source, operation, .. } => {
            ControlError::Disk(Fault::new(operation, &source))
        }
        _ => ControlError::ReadOnly,
    })?;
    if let Some(log) = cx.state.borrow_mut().log(id) {
        log.keep.compacted = true;
    }
    Ok(())
}

/// Takes the keys of what is dirty into the map, as far as it reaches.
async fn fill_map(run: &mut Run, work: &Work) -> Result<Pass, ControlError> {
    let mut pass = Pass::new(work.terms, COMPACTION_MAP_BYTES, work.first_dirty);
    let dirty = &work.parts[work.cleanable.dirty.clone()];
    if run.note_all(&mut pass, dirty, false).await? {
        return Ok(pass);
    }
    // There are transactions: which of them were aborted only their ends say, so that these come first.
    pass = Pass::new(work.terms, COMPACTION_MAP_BYTES, work.first_dirty);
    for part in dirty {
        let mut input = Input::open(run, *part).await?;
        let seen = look_ahead(run, &mut pass, &mut input).await;
        input.close(run).await;
        if !seen? {
            break;
        }
    }
    run.note_all(&mut pass, dirty, true).await?;
    Ok(pass)
}

/// Takes note of a segment's transactions. `false` if there is no room for more.
async fn look_ahead(
    run: &mut Run,
    pass: &mut Pass,
    input: &mut Input,
) -> Result<bool, ControlError> {
    while input.next(run).await?.is_some() {
        if !pass.upcoming.see(&input.view()?) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes what stays of neighbours into one segment, and puts it in their place. Returns its length in bytes.
async fn rewrite(run: &mut Run, pass: &mut Pass, group: &[Part]) -> Result<u64, ControlError> {
    let mut output = Output::begin(&run.cx, run.id, group).await?;
    let written = write_group(run, pass, group, &mut output).await;
    let changed = match written {
        Ok(changed) => changed,
        Err(error) => {
            output.abandon().await;
            return Err(error);
        }
    };
    if !changed && group.len() == 1 {
        // All of it stays.
        output.abandon().await;
        return Ok(group[0].bytes);
    }
    let new = output.finish().await?;
    swap(&run.cx, run.id, group, new).await
}

/// Whether anything changed.
async fn write_group(
    run: &mut Run,
    pass: &mut Pass,
    group: &[Part],
    output: &mut Output,
) -> Result<bool, ControlError> {
    let mut changed = false;
    for part in group {
        let mut input = Input::open(run, *part).await?;
        let written = write_part(run, pass, &mut input, output).await;
        input.close(run).await;
        changed |= written?;
    }
    Ok(changed)
}

async fn write_part(
    run: &mut Run,
    pass: &mut Pass,
    input: &mut Input,
    output: &mut Output,
) -> Result<bool, ControlError> {
    let mut changed = false;
    while input.next(run).await?.is_some() {
        let rewritten = pass.rewrite(&input.view()?, output.room()).map_err(|_| too_large())?;
        changed |= rewritten != Rewritten::Same;
        output.take().await?;
    }
    Ok(changed)
}

/// What is left of a batch compresses so much worse than the batch that it is none any more.
fn too_large() -> ControlError {
    ControlError::Disk(Fault {
        operation: "compressing what is left of a batch",
        errno: libc::EFBIG,
    })
}

async fn finish(cx: &Context, id: LogId, done: &Compacted) {
    {
        let mut state = cx.state.borrow_mut();
        state.stats.compactions += 1;
        state.stats.compacted_bytes += done.bytes_before;
        let Some(log) = state.log(id) else { return };
        log.keep.compactions += 1;
        log.keep.cleaned = log.keep.cleaned.max(done.end);
        cx.points.set_cleaned(log.identity.name.clone(), log.keep.cleaned);
    }
    // Without it the next opening's first compaction reads more.
    let _ = points::write(cx).await;
}

/// A compaction under way.
struct Compacting<'a>(&'a Context, LogId);

impl<'a> Compacting<'a> {
    fn begin(cx: &'a Context, id: LogId) -> Result<Self, ControlError> {
        let mut state = cx.state.borrow_mut();
        may_keep(&mut state, id)?;
        let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
        assert!(!log.keep.compacting, "one compaction of a log at a time");
        log.keep.compacting = true;
        Ok(Self(cx, id))
    }
}

impl Drop for Compacting<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.borrow_mut();
        if let Some(log) = state.log(self.1) {
            log.keep.compacting = false;
        }
        state.progress.notify();
    }
}

/// How far the keys of a segment were taken.
enum Noted {
    All,
    /// The map is full, or what comes is not over yet.
    Full,
    /// There are transactions.
    Transaction,
}

/// Its pace, and whether it goes on.
struct Run {
    cx: Context,
    id: LogId,
    dir: PathBuf,
    /// When the next piece is due, in monotonic nanoseconds.
    due_ns: u64,
    /// Bytes since the last pause.
    piece: u64,
}

impl Run {
    /// Takes the keys of dirty segments. `false` if it came upon a transaction, of which it knows nothing yet.
    async fn note_all(
        &mut self,
        pass: &mut Pass,
        dirty: &[Part],
        known: bool,
    ) -> Result<bool, ControlError> {
        for part in dirty {
            let mut input = Input::open(self, *part).await?;
            let noted = self.note_one(pass, &mut input, known).await;
            input.close(self).await;
            match noted? {
                Noted::All => {}
                Noted::Full => break,
                Noted::Transaction => return Ok(false),
            }
        }
        Ok(true)
    }

    async fn note_one(
        &mut self,
        pass: &mut Pass,
        input: &mut Input,
        known: bool,
    ) -> Result<Noted, ControlError> {
        let bound = pass.upcoming.bound();
        while let Some(header) = input.next(self).await? {
            let attributes = header.attributes;
            if !known && (attributes.is_transactional() || attributes.is_control()) {
                return Ok(Noted::Transaction);
            }
            let over = bound.is_some_and(|bound| header.base_offset >= bound.get());
            if over || !pass.note(&input.view()?) {
                return Ok(Noted::Full);
            }
        }
        Ok(Noted::All)
    }

    /// So many bytes were dealt with: pauses when it is time, so that appends come in between.
    async fn pace(&mut self, bytes: u64) -> Result<(), ControlError> {
        self.piece += bytes;
        if self.piece < COMPACTION_PIECE_BYTES {
            return Ok(());
        }
        let now = self.cx.state.borrow().time.ns;
        let share = self.piece * 1_000_000_000 / COMPACTION_BYTES_PER_SECOND;
        self.piece = 0;
        self.due_ns = self.due_ns.max(now) + share;
        self.cx.tasks.sleep_until(self.due_ns).await;
        may_keep(&mut self.cx.state.borrow_mut(), self.id)
    }
}

/// A segment that is read from its beginning to its end, by a file of its own: a lease would be held too long.
struct Input {
    part: Part,
    file: FileHandle,
    scanner: BatchScanner<ShardDisk>,
    last: Option<BatchHeader>,
    next: Offset,
    end: u64,
}

impl Input {
    async fn open(run: &Run, part: Part) -> Result<Self, ControlError> {
        let (cx, id) = (&run.cx, run.id);
        let direct = {
            let mut state = cx.state.borrow_mut();
            let direct = state.settings.direct;
            let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
            log.keep.reading = true;
            direct
        };
        let mode = OpenMode { read_only: true, direct, ..OpenMode::default() };
        let path = run.dir.join(names::segment(part.base));
        let opened = open(&cx.disk, &path, mode).await;
        let file = match opened {
            Ok(file) => file,
            Err(error) => {
                reading_ends(cx, id);
                let mut state = cx.state.borrow_mut();
                let has = |log: &Log| log.sealed.iter().any(|sealed| sealed.base == part.base);
                // Retention was faster.
                let gone = !state.log(id).is_some_and(|log| has(log));
                return Err(if gone { ControlError::Busy } else { reading(&error) });
            }
        };
        let scanner = BatchScanner::new(&cx.disk, &cx.arena(), file, 0, part.bytes);
        Ok(Self { part, file, scanner, last: None, next: part.base, end: 0 })
    }

    /// The next batch; `None` at the segment's end.
    async fn next(&mut self, run: &mut Run) -> Result<Option<BatchHeader>, ControlError> {
        let bytes = self.last.map_or(0, |last| last.batch_bytes() as u64);
        run.pace(bytes).await?;
        let Part { base, next, .. } = self.part;
        let damaged = ControlError::Damaged { segment: base, pos: self.end };
        let (pos, header) = match self.scanner.next().await.map_err(|error| reading(&error))? {
            Scanned::Batch(pos, header) => (pos, header),
            Scanned::End if self.end == self.part.bytes => return Ok(None),
            Scanned::End => return Err(damaged),
        };
        let Some((first, last)) = header.offsets() else { return Err(damaged) };
        if first < self.next || last >= next {
            return Err(damaged);
        }
        self.next = last.plus(1);
        self.end = pos + header.batch_bytes() as u64;
        self.last = Some(header);
        Ok(Some(header))
    }

    /// The batch that came last.
    fn view(&self) -> Result<BatchView<'_>, ControlError> {
        let damaged = ControlError::Damaged { segment: self.part.base, pos: self.end };
        let Some(header) = &self.last else { return Err(damaged) };
        BatchView::new(self.scanner.last(header)).map_err(|_| damaged)
    }

    async fn close(mut self, run: &Run) {
        self.scanner.finish().await;
        drop(run.cx.disk.run(Op::Close { file: self.file }).await);
        reading_ends(&run.cx, run.id);
    }
}

fn reading_ends(cx: &Context, id: LogId) {
    let mut state = cx.state.borrow_mut();
    if let Some(log) = state.log(id) {
        log.keep.reading = false;
    }
    state.progress.notify();
}

fn reading(error: &io::Error) -> ControlError {
    ControlError::Disk(Fault::new("reading a segment to compact it", error))
}
