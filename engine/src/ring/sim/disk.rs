//! The state behind a simulated disk: operations on their way, handles, and what each operation does when
//! its time comes.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::faults::{CrashPlan, Effect, Faults, OpKind, mix};
use super::file::{BLOCK_BYTES, SECTOR_BYTES};
use super::volume::{Ino, Volume, Write, os_error};
use super::{FlushScope, SimOptions};
use crate::clock::{Clock, SimClock};
use crate::command::{Completion, Done, FileHandle, Op, OpenMode};

/// An operation that changes something, without the buffers and handles of the process that asked for it:
/// what is left of it when that process is gone.
#[derive(Clone)]
pub(super) enum Change {
    Write { ino: Ino, pos: u64, data: Vec<u8>, direct: bool },
    Allocate { ino: Ino, end: u64 },
    Truncate { ino: Ino, len: u64 },
    Create { path: PathBuf, mode: OpenMode },
    Rename { from: PathBuf, to: PathBuf },
    Unlink { path: PathBuf },
    MakeDir { path: PathBuf },
    RemoveDir { path: PathBuf },
}

/// What outlives every ring, and what a snapshot holds.
#[derive(Clone)]
pub(super) struct Core {
    pub(super) options: SimOptions,
    pub(super) volume: Volume,
    pub(super) faults: Faults,
    /// In a fork: what was in flight, by the number of its operation.
    pub(super) adrift: Vec<(u64, Change)>,
    pub(super) steps: u64,
    pub(super) flushes: u64,
    /// A hash of all completions.
    pub(super) history: u64,
    next_order: u64,
}

struct Handle {
    ino: Ino,
    ring: u32,
    path: PathBuf,
    mode: OpenMode,
    in_flight: u32,
}

struct Job {
    ring: u32,
    token: u64,
    op: Op,
    /// Counts operations in the order in which they were pushed.
    order: u64,
    /// The last change that had taken effect when this operation started: what a flush is sure to cover.
    started_after: u64,
    fault: Option<Effect>,
}

#[derive(Default)]
struct RingState {
    queued: Vec<Job>,
    ready: VecDeque<Completion>,
    in_flight: usize,
}

pub(super) struct State {
    pub(super) core: Core,
    pub(super) clock: SimClock,
    pub(super) cut_at_step: Option<u64>,
    rings: BTreeMap<u32, RingState>,
    next_ring: u32,
    handles: BTreeMap<u32, Handle>,
    next_handle: u32,
    /// By the time they are done, then in the order they were pushed.
    jobs: BTreeMap<(u64, u64), Job>,
    /// Blocks under a write in flight, by its order.
    writing: BTreeMap<u64, (Ino, Range<u64>)>,
}

impl State {
    pub(super) fn new(options: SimOptions, clock: SimClock) -> Self {
        let core = Core {
            volume: Volume::new(options.capacity_bytes),
            options,
            faults: Faults::default(),
            adrift: Vec::new(),
            steps: 0,
            flushes: 0,
            history: 0,
            next_order: 0,
        };
        Self::of(core, clock)
    }

    /// A disk without rings.
    pub(super) fn of(core: Core, clock: SimClock) -> Self {
        Self {
            core,
            clock,
            cut_at_step: None,
            rings: BTreeMap::new(),
            next_ring: 0,
            handles: BTreeMap::new(),
            next_handle: 0,
            jobs: BTreeMap::new(),
            writing: BTreeMap::new(),
        }
    }

    pub(super) fn open_ring(&mut self) -> u32 {
        assert!(self.core.adrift.is_empty(), "crash or kill a fork before it is used again");
        self.next_ring += 1;
        self.rings.insert(self.next_ring, RingState::default());
        self.next_ring
    }

    /// The process lets go of a ring: what it started goes on, nobody hears of it.
    pub(super) fn close_ring(&mut self, ring: u32) {
        let Some(closed) = self.rings.remove(&ring) else { return };
        for job in &closed.queued {
            self.finished(job.order, &job.op);
        }
        let idle = |handle: &Handle| handle.ring == ring && handle.in_flight == 0;
        let closed: Vec<u32> = self
            .handles
            .iter()
            .filter(|(_, handle)| idle(handle))
            .map(|(number, _)| *number)
            .collect();
        for handle in closed.into_iter().filter_map(|number| self.handles.remove(&number)) {
            self.core.volume.close(handle.ino);
        }
    }

    /// Whether `ring` is of a process that still runs.
    pub(super) fn is_open(&self, ring: u32) -> bool {
        self.rings.contains_key(&ring)
    }

    pub(super) fn in_flight(&self, ring: u32) -> usize {
        self.rings.get(&ring).map_or(0, |ring| ring.in_flight)
    }

    pub(super) fn has_ready(&self, ring: u32) -> bool {
        self.rings.get(&ring).is_some_and(|ring| !ring.ready.is_empty())
    }

    pub(super) fn pop(&mut self, ring: u32) -> Option<Completion> {
        let ring = self.rings.get_mut(&ring)?;
        let completion = ring.ready.pop_front()?;
        ring.in_flight -= 1;
        Some(completion)
    }

    /// Whether the step at which the test wanted the power cut has been taken.
    pub(super) fn is_cut(&self) -> bool {
        self.cut_at_step.is_some_and(|step| self.core.steps >= step)
    }

    fn handle(&self, file: FileHandle) -> &Handle {
        self.handles.get(&file.0).expect("an operation names an open file")
    }

    /// Checks an operation against the house rules and queues it.
    pub(super) fn push(&mut self, ring: u32, token: u64, op: Op) {
        if !self.rings.contains_key(&ring) {
            return;
        }
        let order = self.core.next_order;
        self.core.next_order += 1;
        if let Some(file) = file_of(&op) {
            let handle = self.handle(file);
            assert_eq!(handle.ring, ring, "a file handle belongs to its ring");
            check(&op, handle);
            if let Op::Write { pos, data, .. } = &op {
                self.claim(order, handle.ino, *pos..*pos + data.len() as u64);
            }
            if let Some(handle) = self.handles.get_mut(&file.0) {
                handle.in_flight += 1;
            }
        }
        let job = Job { ring, token, op, order, started_after: 0, fault: None };
        if let Some(ring) = self.rings.get_mut(&ring) {
            ring.queued.push(job);
            ring.in_flight += 1;
        }
    }

    /// Notes the blocks of a write, which no other write in flight may touch.
    fn claim(&mut self, order: u64, ino: Ino, bytes: Range<u64>) {
        let blocks = bytes.start / BLOCK_BYTES..bytes.end.div_ceil(BLOCK_BYTES);
        if self.core.options.forbid_shared_blocks {
            let meets = |(other, taken): &(Ino, Range<u64>)| {
                *other == ino && taken.start < blocks.end && blocks.start < taken.end
            };
            let shared = self.writing.values().any(meets);
            assert!(!shared, "two writes in flight share a block: bytes {bytes:?} of a file");
        }
        self.writing.insert(order, (ino, blocks));
    }

    /// Starts what is queued on `ring`.
    pub(super) fn submit(&mut self, ring: u32) {
        let Some(queued) = self.rings.get_mut(&ring) else { return };
        for mut job in std::mem::take(&mut queued.queued) {
            let seed = self.core.options.seed;
            let path = self.path_of(&job.op).to_owned();
            job.fault = self.core.faults.hit(OpKind::of(&job.op), &path, seed, job.order);
            job.started_after = self.core.volume.seq();
            let range = self.core.options.latency.of(&job.op);
            let spread = (range.end - range.start).max(1);
            let mut takes_ns = range.start + mix(mix(seed, 8), job.order) % spread;
            if let Some(Effect::Delay { ns }) = job.fault {
                takes_ns += ns;
            }
            self.jobs.insert((self.clock.monotonic_ns() + takes_ns, job.order), job);
        }
    }

    fn path_of<'a>(&'a self, op: &'a Op) -> &'a Path {
        match op {
            Op::Open { path, .. }
            | Op::Unlink { path }
            | Op::MakeDir { path }
            | Op::RemoveDir { path }
            | Op::List { path }
            | Op::Rename { from: path, .. } => path,
            _ => file_of(op).map_or(Path::new(""), |file| &self.handle(file).path),
        }
    }

    /// When the next operation of any ring is done.
    pub(super) fn next_due_ns(&self) -> Option<u64> {
        self.jobs.first_key_value().map(|((due_ns, _), _)| *due_ns)
    }

    /// Finishes what is due by now.
    pub(super) fn run_due(&mut self) {
        let now_ns = self.clock.monotonic_ns();
        for _ in 0..self.core.options.completions_per_enter {
            if self.is_cut() || self.next_due_ns().is_none_or(|due_ns| due_ns > now_ns) {
                return;
            }
            let Some((_, job)) = self.jobs.pop_first() else { return };
            self.finish(job);
        }
    }

    fn finish(&mut self, job: Job) {
        let Job { ring, token, op, order, started_after, fault } = job;
        self.finished(order, &op);
        let result = match fault {
            Some(Effect::Fail { errno, landed }) => {
                self.fail(ring, op, started_after, landed);
                Err(os_error(errno))
            }
            Some(Effect::Delay { .. }) | None => self.apply(ring, op, started_after),
        };
        self.core.steps += 1;
        let outcome = match &result {
            // Handles are never given out twice, so their numbers differ after a restore.
            Ok(Done::Unit | Done::File(_)) => 0,
            Ok(Done::Read(bytes)) => hash(bytes),
            Ok(Done::Length(len)) => *len,
            Ok(Done::Names(names)) => names.len() as u64,
            Err(error) => u64::from(error.raw_os_error().unwrap_or(0).unsigned_abs()) << 32,
        };
        for part in [token, self.clock.monotonic_ns(), outcome] {
            self.core.history = mix(self.core.history, part);
        }
        if let Some(ring) = self.rings.get_mut(&ring) {
            ring.ready.push_back(Completion { token, result });
        }
    }

    /// The operation is no longer in flight.
    fn finished(&mut self, order: u64, op: &Op) {
        self.writing.remove(&order);
        if let Some(handle) = file_of(op).and_then(|file| self.handles.get_mut(&file.0)) {
            handle.in_flight -= 1;
        }
    }

    /// What a failed operation leaves.
    fn fail(&mut self, ring: u32, op: Op, started_after: u64, landed: bool) {
        match &op {
            Op::Close { .. } => drop(self.apply(ring, op, started_after)),
            Op::Sync { .. } if landed => drop(self.apply(ring, op, started_after)),
            Op::Sync { file, .. } => {
                let ino = self.handle(*file).ino;
                self.core.volume.give_up(ino, started_after);
            }
            _ if landed => {
                if let Some(change) = self.change_of(&op) {
                    self.core.volume.replay(&change);
                }
            }
            _ => {}
        }
    }

    fn apply(&mut self, ring: u32, op: Op, started_after: u64) -> io::Result<Done> {
        match op {
            Op::Open { path, mode } => self.open(ring, path, mode),
            Op::Close { file } => {
                if let Some(handle) = self.handles.remove(&file.0) {
                    self.core.volume.close(handle.ino);
                }
                Ok(Done::Unit)
            }
            Op::Write { file, pos, data, durable } => {
                let Handle { ino, mode, .. } = *self.handle(file);
                let write = Write { ino, pos, data: &data, direct: mode.direct, durable };
                self.core.volume.write(&write)?;
                if durable {
                    self.flushed(FlushScope::EveryFlush, started_after);
                }
                Ok(Done::Unit)
            }
            Op::Sync { file, .. } => {
                let ino = self.handle(file).ino;
                self.core.volume.sync(ino, started_after);
                self.flushed(FlushScope::Syncs, started_after);
                Ok(Done::Unit)
            }
            Op::Read { file, pos, len, mut buf } => {
                buf.clear();
                let ino = self.handle(file).ino;
                self.core.volume.file(ino)?.read(pos, len as u64, |part| buf.append(part));
                Ok(Done::Read(buf))
            }
            // There is no page cache here.
            Op::Advise { .. } => Ok(Done::Unit),
            Op::Length { file } => {
                let ino = self.handle(file).ino;
                self.core.volume.file(ino).map(|file| Done::Length(file.len()))
            }
            Op::Allocate { file, pos, len } => {
                let ino = self.handle(file).ino;
                self.core.volume.allocate(ino, pos + len).map(|()| Done::Unit)
            }
            Op::Truncate { file, len } => {
                let ino = self.handle(file).ino;
                self.core.volume.set_len(ino, len).map(|()| Done::Unit)
            }
            Op::List { path } => self.core.volume.list(&path).map(Done::Names),
            Op::Rename { from, to } => self.core.volume.rename(&from, &to).map(|()| Done::Unit),
            Op::Unlink { path } => self.core.volume.unlink(&path).map(|()| Done::Unit),
            Op::MakeDir { path } => self.core.volume.make_dir(&path).map(|()| Done::Unit),
            Op::RemoveDir { path } => {
                self.core.volume.remove_dir(&path, usize::MAX).map(|()| Done::Unit)
            }
        }
    }

    fn open(&mut self, ring: u32, path: PathBuf, mode: OpenMode) -> io::Result<Done> {
        if mode.direct && !self.core.options.takes_direct {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let ino = self.core.volume.open(&path, mode)?;
        if !self.rings.contains_key(&ring) {
            self.core.volume.close(ino);
            return Ok(Done::Unit);
        }
        let number = self.next_handle;
        self.next_handle += 1;
        self.handles.insert(number, Handle { ino, ring, path, mode, in_flight: 0 });
        Ok(Done::File(FileHandle(number)))
    }

    /// A flush is done: at least of its file, and by `needed` or a wider scope of the whole device.
    fn flushed(&mut self, needed: FlushScope, started_after: u64) {
        self.core.flushes += 1;
        if self.core.options.flush_scope >= needed {
            self.core.volume.flush_device(started_after);
        }
    }

    fn change_of(&self, op: &Op) -> Option<Change> {
        let ino = |file: &FileHandle| self.handle(*file).ino;
        Some(match op {
            Op::Write { file, pos, data, .. } => {
                let direct = self.handle(*file).mode.direct;
                Change::Write { ino: ino(file), pos: *pos, data: data.to_vec(), direct }
            }
            Op::Allocate { file, pos, len } => Change::Allocate { ino: ino(file), end: pos + len },
            Op::Truncate { file, len } => Change::Truncate { ino: ino(file), len: *len },
            Op::Open { path, mode } if mode.create => {
                Change::Create { path: path.clone(), mode: *mode }
            }
            Op::Rename { from, to } => Change::Rename { from: from.clone(), to: to.clone() },
            Op::Unlink { path } => Change::Unlink { path: path.clone() },
            Op::MakeDir { path } => Change::MakeDir { path: path.clone() },
            Op::RemoveDir { path } => Change::RemoveDir { path: path.clone() },
            _ => return None,
        })
    }

    /// Everything in flight, as changes that may still take effect.
    pub(super) fn changes_in_flight(&self) -> Vec<(u64, Change)> {
        let queued = self.rings.values().flat_map(|ring| &ring.queued);
        let in_flight = self.jobs.values().chain(queued);
        let changes = in_flight.filter_map(|job| Some((job.order, self.change_of(&job.op)?)));
        self.core.adrift.iter().cloned().chain(changes).collect()
    }

    /// Ends every process that uses the disk.
    fn disconnect(&mut self) -> Vec<(u64, Change)> {
        let changes = self.changes_in_flight();
        self.core.adrift.clear();
        self.rings.clear();
        self.handles.clear();
        self.jobs.clear();
        self.writing.clear();
        self.cut_at_step = None;
        changes
    }

    pub(super) fn crash(&mut self, plan: CrashPlan) {
        let mut changes = self.disconnect();
        changes.sort_by_key(|(order, _)| mix(mix(self.core.options.seed, 10), *order));
        for (order, change) in changes {
            // Which sectors of a write landed is decided with those of all other writes.
            let is_write = matches!(change, Change::Write { .. });
            if plan != CrashPlan::DropAll && (is_write || plan.keeps(mix(11, order))) {
                self.core.volume.replay(&change);
            }
        }
        self.core.volume.crash(plan);
    }

    pub(super) fn kill(&mut self, seed: u64) {
        let plan = CrashPlan::Random(seed);
        for (order, mut change) in self.disconnect() {
            match &mut change {
                Change::Write { data, .. } => {
                    let blocks = data.len().div_ceil(BLOCK_BYTES as usize);
                    let kept = plan.prefix(mix(12, order), blocks) * BLOCK_BYTES as usize;
                    data.truncate(kept);
                    self.core.volume.replay(&change);
                }
                Change::RemoveDir { path } => {
                    let files = self.core.volume.list(path).map_or(0, |names| names.len());
                    let kept = plan.prefix(mix(12, order), files);
                    // An operation that could not have worked leaves nothing.
                    drop(self.core.volume.remove_dir(path, kept));
                }
                _ if plan.keeps(mix(12, order)) => self.core.volume.replay(&change),
                _ => {}
            }
        }
        self.core.volume.close_all();
    }

    /// Replaces the whole disk; every process that uses it ends.
    pub(super) fn restore(&mut self, core: Core) {
        self.disconnect();
        self.core = core;
    }
}

impl Volume {
    /// Lets a change take effect, not durably, if it can.
    fn replay(&mut self, change: &Change) {
        let result = match change {
            Change::Write { ino, pos, data, direct } => {
                let (ino, pos, direct) = (*ino, *pos, *direct);
                self.write(&Write { ino, pos, data, direct, durable: false })
            }
            Change::Allocate { ino, end } => self.allocate(*ino, *end),
            Change::Truncate { ino, len } => self.set_len(*ino, *len),
            Change::Create { path, mode } => self.open(path, *mode).map(|ino| self.close(ino)),
            Change::Rename { from, to } => self.rename(from, to),
            Change::Unlink { path } => self.unlink(path),
            Change::MakeDir { path } => self.make_dir(path),
            Change::RemoveDir { path } => self.remove_dir(path, usize::MAX),
        };
        // Nobody is there to hear of a failure.
        drop(result);
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let word = |part: &[u8]| part.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    bytes.chunks(8).fold(bytes.len() as u64, |hash, part| mix(hash, word(part)))
}

fn file_of(op: &Op) -> Option<FileHandle> {
    match op {
        Op::Close { file }
        | Op::Write { file, .. }
        | Op::Read { file, .. }
        | Op::Sync { file, .. }
        | Op::Advise { file, .. }
        | Op::Allocate { file, .. }
        | Op::Truncate { file, .. }
        | Op::Length { file } => Some(*file),
        _ => None,
    }
}

/// What a kernel would answer with EINVAL or EBADF, and so is a mistake of ours.
fn check(op: &Op, handle: &Handle) {
    let mode = handle.mode;
    let aligned = |value: u64| !mode.direct || value.is_multiple_of(SECTOR_BYTES);
    let path = handle.path.display();
    match op {
        Op::Close { .. } => {
            assert_eq!(handle.in_flight, 0, "{path} is closed with operations in flight");
        }
        Op::Write { pos, data, .. } => {
            assert!(!data.is_empty(), "an empty write to {path}");
            let whole = aligned(*pos) && aligned(data.len() as u64);
            assert!(whole, "an unaligned direct write of {} bytes at {pos} to {path}", data.len());
            assert!(aligned(data.as_ptr().addr() as u64), "an unaligned buffer written to {path}");
        }
        Op::Read { pos, len, buf, .. } => {
            let whole = aligned(*pos) && aligned(*len as u64);
            assert!(whole, "an unaligned direct read of {len} bytes at {pos} from {path}");
            assert!(*len <= buf.capacity(), "a read from {path} larger than its buffer");
        }
        _ => {}
    }
    if matches!(op, Op::Write { .. } | Op::Allocate { .. } | Op::Truncate { .. }) {
        assert!(!mode.read_only, "a change of {path}, which is open read-only");
    }
}
