//! What a shard owns: its logs, its journal and their memory. The hot path in three moves: [`State::admit`] puts
//! an append into memory, [`State::pump`] turns what is there into writes, [`State::landed`] turns finished
//! writes into acks.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use crate::buffers::{Arena, CHUNK_BYTES_MAX, Slice};
use crate::command::{FileHandle, Op};
use crate::error::{AppendError, Fault};
use crate::inspect::Rotten;
use crate::journal::{Journal, LogId};
use crate::limits::{
    COALESCED_BYTES_MAX, DIRECT_ALONE_BYTES, GROUP_ENTRIES_MAX, PATIENCE_BYTES_MAX, READ_FILES_MAX,
    READ_FILES_MIN, RECOVERY_INTERVAL_NS, RECOVERY_STRIDE_BYTES, RESERVE_BYTES,
    SEGMENT_IN_FLIGHT_BYTES_MAX, WRITES_IN_FLIGHT_MAX,
};
use crate::log::plan::{Bounds, Purpose, Step};
use crate::log::{Access, Append, Ended, Log, Shape, ahead};
use crate::segment::Segment;
use crate::stats::ShardStats;
use crate::types::{Durability, FlushPolicy, Offset, Pos, Prepare, Retention};
use crate::window::NoMemory;

use super::Context;
use super::fetch::waiters::Waiters;
use super::groups::{Chosen, Forced};
use super::inbox::{Arrivals, Body, Call, Inbox, Request};
use super::memory::Shortage;
use super::stopwatch::Stopwatch;
use super::writes::{InFlight, Writes};
use crate::local::Notify;

/// What a shard is told when it starts and does not change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) shape: Shape,
    pub(crate) prepare: Prepare,
    pub(crate) direct: bool,
    pub(crate) durability: Durability,
    pub(crate) bounds: Bounds,
    /// Whether one device flush covers all overwrites of written extents (plain ext4 / XFS, direct, prezeroed).
    pub(crate) global_flush: bool,
    /// What is kept of logs that set nothing of their own.
    pub(crate) retention: Retention,
    /// Bytes a second that the scrub reads; 0: there is none.
    pub(crate) scrub_bytes_per_s: u64,
    /// Segment files open at once, of tails and to be read; idle ones are closed beyond.
    pub(crate) files_max: usize,
    /// How long written bytes of a tail that was read stay in memory for the next reader.
    pub(crate) kept_for_readers_ns: u64,
}

impl Settings {
    /// Files open at once to be read.
    pub(crate) fn read_files_max(&self) -> usize {
        (self.files_max / 4).clamp(READ_FILES_MIN, READ_FILES_MAX)
    }

    /// Files of tails open at once.
    pub(crate) fn tail_files_max(&self) -> usize {
        self.files_max.saturating_sub(self.read_files_max()).max(1)
    }
}

/// A cold procedure that the hot path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Errand {
    /// Make the segment's file, or more of its space, ready.
    Prepare(LogId, Offset),
    /// Flush what the policy wants flushed.
    Flush(LogId),
    /// Finish rolled segments.
    Seal(LogId),
    /// Write the indexes and the seal of a segment that a crash left without.
    Reseal(LogId, Offset),
    /// Free journal space.
    Checkpoint,
    /// Flush an `interval` log when its time is up.
    Alarm(LogId),
    /// Bring a log's recovery point forward.
    Point(LogId),
    /// Look at what is kept of a log.
    Keep(LogId),
    /// Write journal groups back once they are old.
    Age,
}

/// The time, read once a turn.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Time {
    /// Monotonic nanoseconds.
    pub(crate) ns: u64,
    /// Wall-clock milliseconds since the epoch.
    pub(crate) wall_ms: i64,
}

/// A shard's state. One thread, no locks.
pub(crate) struct State {
    /// The data directory.
    pub(crate) dir: PathBuf,
    pub(crate) settings: Settings,
    pub(crate) arena: Arena,
    /// Memory for what frees memory: journal groups and padded tails, while appends hold all of the arena.
    pub(super) reserve: Arena,
    /// Zeros, as many as a chunk holds.
    pub(crate) zeros: Slice,
    pub(crate) logs: Vec<Option<Box<Log>>>,
    /// Logs whose next step is to be looked at.
    pub(super) work: VecDeque<LogId>,
    /// Logs that wait for a place in a journal group.
    pub(super) gathering: VecDeque<LogId>,
    pub(super) gathered_bytes: u64,
    /// Bytes that the newest group claimed.
    pub(super) group_bytes: u64,
    /// Bytes that clients had under way to the journal at once, of late.
    pub(super) crowd_bytes: u64,
    pub(crate) journal: Journal,
    pub(crate) journal_file: FileHandle,
    pub(super) group: Vec<Chosen>,
    pub(super) forced: VecDeque<(u64, Forced)>,
    pub(super) forced_next: u64,
    pub(super) forced_in_flight: VecDeque<(u64, u64)>,
    pub(super) forced_done: u64,
    pub(crate) writes: Writes,
    pub(crate) ops: VecDeque<(u64, Op)>,
    pub(crate) inbox: Arc<Inbox<Context>>,
    /// What came, and is not in memory yet: for want of it, if anything is left here between turns.
    pub(super) arrivals: Arrivals,
    /// How much was free when the first of them was tried last: with more it is tried again.
    pub(super) starved_free: Option<usize>,
    pub(super) released_bytes: u64,
    /// No checkpoint for want of memory before this time.
    pub(super) pressure_ns: u64,
    /// When memory was last looked for in all logs, for more than those that nobody reads may have was taken.
    pub(super) swept_ns: u64,
    /// Whether a procedure watches the age of journal groups.
    pub(super) aging: bool,
    pub(crate) errands: VecDeque<Errand>,
    /// Whether a procedure looks from time to time at what is kept.
    pub(crate) keeping: bool,
    /// What the scrub found last of each segment that is not what was sealed.
    pub(crate) rotten: Vec<(LogId, Rotten)>,
    pub(crate) checkpointing: bool,
    /// Whether some log had a policy under which appends are written at once.
    pub(crate) writes_plain: bool,
    /// Segment files of tails that are open.
    pub(crate) files_open: usize,
    /// Fetches, and those that wait.
    pub(crate) fetches: Waiters,
    /// Signalled when a write, a group or a flush ended: procedures look again.
    pub(crate) progress: Rc<Notify>,
    pub(crate) time: Time,
    pub(crate) stats: ShardStats,
    pub(crate) watch: Stopwatch,
    /// Writes of appends were under way at the end of the last turn.
    pub(crate) writing: bool,
    pub(crate) closing: bool,
}

/// What a new shard is made of.
pub(crate) struct Parts {
    pub(crate) dir: PathBuf,
    pub(crate) settings: Settings,
    pub(crate) arena: Arena,
    pub(crate) journal: Journal,
    pub(crate) journal_file: FileHandle,
    pub(crate) inbox: Arc<Inbox<Context>>,
}

impl State {
    pub(crate) fn new(parts: Parts) -> Self {
        let mut zeros = parts.arena.chunk(CHUNK_BYTES_MAX).expect("an arena holds a chunk");
        zeros.append_zeros(CHUNK_BYTES_MAX);
        let zeros = zeros.slice(0..CHUNK_BYTES_MAX);
        Self {
            dir: parts.dir,
            settings: parts.settings,
            arena: parts.arena,
            reserve: Arena::new(RESERVE_BYTES),
            zeros,
            logs: Vec::new(),
            work: VecDeque::with_capacity(1024),
            gathering: VecDeque::with_capacity(1024),
            gathered_bytes: 0,
            group_bytes: 0,
            crowd_bytes: 0,
            journal: parts.journal,
            journal_file: parts.journal_file,
            group: Vec::with_capacity(GROUP_ENTRIES_MAX),
            forced: VecDeque::new(),
            forced_next: 0,
            forced_in_flight: VecDeque::new(),
            forced_done: 0,
            writes: Writes::new(),
            ops: VecDeque::with_capacity(WRITES_IN_FLIGHT_MAX),
            inbox: parts.inbox,
            arrivals: Arrivals::with_room(),
            starved_free: None,
            released_bytes: 0,
            pressure_ns: 0,
            swept_ns: 0,
            aging: false,
            errands: VecDeque::new(),
            keeping: false,
            rotten: Vec::new(),
            checkpointing: false,
            writes_plain: false,
            files_open: 0,
            fetches: Waiters::default(),
            progress: Rc::new(Notify::new()),
            time: Time::default(),
            stats: ShardStats::default(),
            watch: Stopwatch::new(),
            writing: false,
            closing: false,
        }
    }

    /// The log, if it is still open.
    pub(crate) fn log(&mut self, id: LogId) -> Option<&mut Log> {
        self.logs.get_mut(id.0 as usize)?.as_deref_mut()
    }

    /// A segment of a log's tail, if it is still there.
    pub(crate) fn segment(&mut self, id: LogId, base: Offset) -> Option<&mut Segment> {
        self.log(id)?.segment(base)
    }

    /// Takes what came from other threads: appends into memory, as far as there is some. Returns the calls.
    pub(crate) fn take_mail(&mut self) -> VecDeque<Call<Context>> {
        let calls = if self.arrivals.requests.is_empty() {
            self.inbox.take(&mut self.arrivals)
        } else {
            self.inbox.take_calls()
        };
        let mut arrivals = std::mem::take(&mut self.arrivals);
        self.starved_free = None;
        while let Some(request) = arrivals.requests.pop_front() {
            let copied = request.copied();
            let later = |ahead: usize| Some(arrivals.requests.get(ahead - 1)?.log);
            if let Some(log) = ahead::expect(&self.logs, request.log, later) {
                log.expect_append();
            }
            if let Err((request, shortage)) = self.admit(request, &arrivals) {
                self.note_shortage(shortage);
                arrivals.requests.push_front(request);
                break;
            }
            arrivals.taken += copied;
        }
        self.arrivals = arrivals;
        self.inbox.release(std::mem::take(&mut self.released_bytes));
        let short = self.arena.free_bytes() < self.arena.bytes() / 4;
        if short {
            self.checkpoint_for_memory();
        }
        calls
    }

    /// No procedure watches the age of groups any more.
    pub(crate) fn stop_aging(&mut self) {
        self.aging = false;
    }

    /// Bytes that must come before it is worth while to look at them: while a journal group is in flight, what makes
    /// another one. Not if some log's appends are written at once.
    pub(crate) fn patience_bytes(&self) -> u64 {
        if self.is_short_of_memory() {
            return u64::MAX;
        }
        let fenced = self.journal.fault().is_some();
        if self.journal.in_flight() == 0 || fenced || self.writes_plain {
            return 0;
        }
        self.next_group_bytes().saturating_sub(self.gathered_bytes).min(PATIENCE_BYTES_MAX)
    }

    /// Puts an append into its log's memory, or ends it. It comes back if it has to wait.
    pub(super) fn admit(
        &mut self,
        request: Request,
        arrivals: &Arrivals,
    ) -> Result<(), (Request, Shortage)> {
        let (id, bytes) = (request.log, request.bytes());
        let (closed, time) = (self.closing, self.time);
        let Some(log) = self.logs.get_mut(id.0 as usize).and_then(Option::as_deref_mut) else {
            self.refuse(request, AppendError::Closed);
            return Ok(());
        };
        let append = Append {
            bytes: match &request.body {
                Body::Copied(bytes) => &arrivals.copied[arrivals.taken..][..*bytes],
                Body::Moved(bytes) => bytes,
            },
            records: request.records,
            crc: request.crc,
            max_timestamp: request.max_timestamp,
            ticket: request.ticket,
            at: request.at,
        };
        // A padded durable tail is rewritten only under an image in the journal, whatever the policy.
        let journals = log.policy == FlushPolicy::Group || log.active().is_exposed();
        let fenced = journals.then(|| self.journal.fault()).flatten();
        let refusal = if closed {
            Some(AppendError::Closed)
        } else {
            fenced.map(AppendError::Fenced).or_else(|| log.check(&append).err())
        };
        if let Some(error) = refusal {
            self.refuse(request, error);
            return Ok(());
        }
        if log.must_roll(&append, time.wall_ms) {
            if !log.may_roll() {
                return Err((request, Shortage::Seals));
            }
            let filled = log.active().end().get();
            let since = log.active().first_ms.unwrap_or(time.wall_ms);
            if log.roll() {
                self.errands.push_back(Errand::Seal(id));
            }
            log.active().first_bytes = super::prepare::first_bytes(filled, time.wall_ms - since);
        }
        if let Err(NoMemory) = log.append(&self.arena, &append, time.wall_ms) {
            return Err((request, Shortage::Memory));
        }
        if let Body::Moved(buffer) = request.body {
            log.keep_buffer(buffer);
        }
        log.used_ns = time.ns;
        if let FlushPolicy::Interval { bytes, messages, .. } = log.policy {
            if log.unflushed.since_ns.is_none() {
                log.unflushed.since_ns = Some(time.ns);
                self.errands.push_back(Errand::Alarm(id));
            }
            if !log.flushing && (log.unflushed.bytes >= bytes || log.unflushed.messages >= messages)
            {
                self.errands.push_back(Errand::Flush(id));
            }
        }
        self.stats.batches += 1;
        self.stats.records += u64::from(request.records);
        self.stats.batch_bytes += bytes;
        self.released_bytes += bytes;
        self.gathered_bytes += if log.gathering { bytes } else { 0 };
        self.look_at(id);
        Ok(())
    }

    pub(super) fn refuse(&mut self, request: Request, error: AppendError) {
        self.released_bytes += request.bytes();
        self.inbox.refuse(request, error);
    }

    /// The log may have a next step.
    pub(crate) fn look_at(&mut self, id: LogId) {
        let Some(log) = self.logs.get_mut(id.0 as usize).and_then(Option::as_deref_mut) else {
            return;
        };
        self.fetches.note(log);
        if !log.queued {
            log.queued = true;
            self.work.push_back(id);
        }
    }

    /// Asks for a cold procedure.
    pub(crate) fn errand(&mut self, errand: Errand) {
        if !self.errands.contains(&errand) {
            self.errands.push_back(errand);
        }
    }

    /// Turns what logs hold into writes.
    pub(crate) fn pump(&mut self) {
        self.carry_out_all();
        self.form_groups();
        if self.ops.is_empty() {
            // A log that waited for a group may want to write by now, and nothing else would look at it again.
            self.carry_out_all();
        }
    }

    fn carry_out_all(&mut self) {
        for _ in 0..self.work.len() {
            let Some(id) = self.work.pop_front() else { break };
            if let Some(log) = self.log(id) {
                log.queued = false;
                self.carry_out(id);
            }
        }
    }

    /// Carries out the log's steps until it has to wait.
    fn carry_out(&mut self, id: LogId) {
        let mut is_far_ahead = false;
        loop {
            let mut bounds = self.settings.bounds;
            if self.gathering.iter().all(|waiting| *waiting == id) {
                bounds.direct_bytes = bounds.direct_bytes.min(DIRECT_ALONE_BYTES);
            }
            let may_write_back =
                !is_far_ahead && self.writes.may_write_back() && !self.writes.is_full();
            let Some(log) = self.log(id) else { return };
            match log.step(bounds, may_write_back) {
                Step::Write { segment, end, purpose } => {
                    if self.writes.is_full() {
                        self.look_at(id);
                        return;
                    }
                    if !self.write(id, segment, end, purpose) {
                        if purpose != Purpose::WriteBack {
                            return;
                        }
                        is_far_ahead = true;
                    }
                }
                Step::WriteTail { segment } => {
                    if !self.write_tail(id, segment, false) {
                        self.look_at(id);
                        return;
                    }
                }
                Step::Journal { segment, end } => {
                    if !log.gathering {
                        log.gathering = true;
                        let claimed = log.segment(segment).map_or(end, |s| s.claimed());
                        self.gathered_bytes += end.since(claimed);
                        self.gathering.push_back(id);
                    }
                    return;
                }
                Step::Flush => {
                    self.errand(Errand::Flush(id));
                    return;
                }
                Step::Wait => {
                    self.ask_for_space(id);
                    return;
                }
            }
        }
    }

    /// Space runs out ahead of the bytes: have more prepared.
    fn ask_for_space(&mut self, id: LogId) {
        let (prepare, shape) = (self.settings.prepare, self.settings.shape);
        let Some(log) = self.log(id) else { return };
        if matches!(log.access, Access::Fenced(_) | Access::Damaged) {
            // It takes no bytes; a reader opens what it needs.
            return;
        }
        let wanting =
            log.tail.iter_mut().find(|segment| super::prepare::is_wanting(prepare, shape, segment));
        if let Some(segment) = wanting {
            segment.preparing = true;
            let base = segment.base();
            self.errands.push_back(Errand::Prepare(id, base));
        }
    }

    /// Writes whole blocks of a segment up to `end`, as far as bounds allow. Returns whether any write began.
    pub(crate) fn write(&mut self, id: LogId, base: Offset, end: Pos, purpose: Purpose) -> bool {
        let durable = purpose == Purpose::Durable;
        let dsync = durable && self.settings.durability == Durability::Dsync;
        let mut begun = false;
        while !self.writes.is_full() {
            if purpose == Purpose::WriteBack && !self.writes.may_write_back() {
                return begun;
            }
            let Some(log) = self.logs[id.0 as usize].as_deref_mut() else { return begun };
            let Some(segment) = log.segment(base) else { return begun };
            let start = segment.write_issued();
            // What lies behind a torn tail is bounded: recovery takes more for corruption.
            let ahead = start.get().saturating_sub(segment.written.done().get());
            if start >= end || ahead >= SEGMENT_IN_FLIGHT_BYTES_MAX {
                return begun;
            }
            let data = run(&self.arena, segment, start, end);
            let run_end = start.plus(data.len() as u64);
            segment.begin_write(run_end, durable);
            let Some(file) = segment.file else { unreachable!("a step to write needs the file") };
            log.writes_in_flight += 1;
            let token = self.writes.begin(InFlight {
                log: id,
                segment: base,
                file,
                start,
                end: run_end,
                purpose,
            });
            self.stats.segment_bytes += data.len() as u64;
            self.stats.direct_writes += u64::from(durable);
            self.ops.push_back((token, Op::Write { file, pos: start.get(), data, durable: dsync }));
            begun = true;
        }
        begun
    }

    /// Writes the padded last block. `false` if there is no memory for its copy: other tails, which are being
    /// written, have it.
    pub(crate) fn write_tail(&mut self, id: LogId, base: Offset, releases_image: bool) -> bool {
        let Some(mut chunk) = self.chunk(self.settings.shape.block as usize) else {
            return false;
        };
        let Some(log) = self.logs[id.0 as usize].as_deref_mut() else { return false };
        let Some(segment) = log.segment(base) else { return false };
        let (start, end) = segment.begin_tail_write(releases_image);
        let purpose = if releases_image { Purpose::WriteBack } else { Purpose::Written };
        segment.window.visit(start, end, |bytes| chunk.append(bytes));
        chunk.append_zeros(self.settings.shape.block as usize - chunk.len());
        let Some(file) = segment.file else { unreachable!("a step to write needs the file") };
        log.writes_in_flight += 1;
        let token =
            self.writes.begin(InFlight { log: id, segment: base, file, start, end, purpose });
        self.stats.segment_bytes += chunk.len() as u64;
        let data = chunk.slice(0..chunk.len());
        self.ops.push_back((token, Op::Write { file, pos: start.get(), data, durable: false }));
        true
    }

    /// A write of a segment has ended. `None` if its durable flush is still to come.
    pub(crate) fn landed(&mut self, write: InFlight, fault: Option<Fault>) {
        let Some(log) = self.logs[write.log.0 as usize].as_deref_mut() else { return };
        log.writes_in_flight -= 1;
        let inbox = &self.inbox;
        if let Some(fault) = fault {
            log.fence(fault, |ended| tell(inbox, ended));
            self.stats.faults += 1;
        } else if matches!(log.access, Access::Fenced(_)) {
            // It counts for nothing any more: see `Log::finish_flush`.
        } else if let Some(segment) = log.segment(write.segment) {
            segment.finish_write(write.start, write.end, write.purpose == Purpose::Durable);
            log.settle(|ended| tell(inbox, ended));
        }
        self.look_at(write.log);
        self.note_progress(write.log);
        self.trim(write.log);
        self.progress.notify();
    }

    /// Has the recovery point brought forward once enough was appended since.
    pub(crate) fn note_progress(&mut self, id: LogId) {
        let now = self.time.ns;
        let Some(log) = self.log(id) else { return };
        let far = log.since_recovery_point >= RECOVERY_STRIDE_BYTES;
        let due = log.pointed_ns.is_none_or(|before| now >= before + RECOVERY_INTERVAL_NS);
        if far && due && !log.pointing {
            log.pointing = true;
            log.pointed_ns = Some(now);
            self.errands.push_back(Errand::Point(id));
        }
    }

    /// Tells clients whose wait is over.
    pub(crate) fn settle(&mut self, id: LogId) {
        let inbox = &self.inbox;
        if let Some(log) = self.logs.get_mut(id.0 as usize).and_then(Option::as_deref_mut) {
            log.settle(|ended| tell(inbox, ended));
        }
        self.note_moved(id);
    }
}

impl Drop for State {
    /// A shard that failed leaves appends behind: nobody may wait for them for ever.
    fn drop(&mut self) {
        let fault = Fault { operation: "the shard", errno: libc::EIO };
        self.refuse_arrivals();
        let inbox = &self.inbox;
        for log in self.logs.iter_mut().flatten() {
            log.fence(fault, |ended| tell(inbox, ended));
        }
    }
}

/// The bytes of one write from `start`: a run of one chunk, or, where chunks are small, a copy of several: one
/// operation costs more than a copy.
fn run(arena: &Arena, segment: &Segment, start: Pos, end: Pos) -> Slice {
    let whole = segment.window.slice(start, end);
    let want = end.since(start).min(COALESCED_BYTES_MAX as u64) as usize;
    if whole.len() >= want {
        return whole;
    }
    let Some(mut copy) = arena.chunk(want) else { return whole };
    segment.window.visit(start, start.plus(want as u64), |bytes| copy.append(bytes));
    copy.slice(0..want)
}

/// Tells a client how its append ended.
pub(crate) fn tell(inbox: &Inbox<Context>, ended: Ended) {
    if let Some(soon) = ended.soon {
        inbox.expect_end(soon);
    }
    inbox.end(ended.ticket, ended.result, ended.buffer);
}
