//! Memory that is short: who waits for it, what frees it, and who is refused because nothing will.

use crate::buffers::{CHUNK_BYTES_MAX, Chunk};
use crate::error::AppendError;
use crate::journal::LogId;
use crate::limits::{PRESSURE_INTERVAL_NS, SWEEP_INTERVAL_NS, UNREAD_BYTES_MAX};
use crate::log::{Access, Log};
use crate::types::{Offset, Pos};

use super::inbox::{Arrivals, Request};
use super::state::{Errand, State};

/// What an append waits for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shortage {
    /// Memory of the arena.
    Memory,
    /// Seals of segments before its own.
    Seals,
}

impl State {
    /// A checkpoint has ended: see whether another is due, and whether anybody waits in vain.
    pub(crate) fn after_checkpoint(&mut self, freed: bool) {
        self.checkpointing = false;
        self.trim_all();
        if freed && self.journal.needed_bytes() > self.journal.ring_bytes() / 2 {
            self.errand(Errand::Checkpoint);
        }
        if !self.is_short_of_memory() {
            return;
        }
        let more = self.may_admit_now();
        if freed && !more {
            // The groups that are gone held no memory; what can be written back now may.
            self.errand(Errand::Checkpoint);
        } else if !more && !self.is_anything_under_way() {
            // Every byte of memory is a tail that waits for more bytes: nothing will free any.
            self.refuse_first(AppendError::Overloaded);
        }
    }

    /// Whether anything is on its way whose end may free memory, and gives the shard a turn.
    fn is_anything_under_way(&self) -> bool {
        let gathers = !self.gathering.is_empty()
            && self.journal.fault().is_none()
            && self.journal.room(CHUNK_BYTES_MAX as u64, false).is_some();
        let moves = |log: &Log| {
            !log.stalled
                && matches!(log.access, Access::Open | Access::Cutting)
                && (log.flushing || log.sealing || log.tail.iter().any(|s| s.preparing))
        };
        gathers
            || !self.work.is_empty()
            || self.writes.in_flight() > 0
            || self.journal.in_flight() > 0
            || self.logs.iter().flatten().any(|log| moves(log))
    }

    /// Whether appends wait for memory.
    pub(crate) fn is_short_of_memory(&self) -> bool {
        !self.arrivals.requests.is_empty()
    }

    /// Whether appends that wait for memory can be tried again: some came free, or the first was refused.
    pub(crate) fn may_admit_now(&self) -> bool {
        let free = self.arena.free_bytes();
        self.is_short_of_memory() && self.starved_free.is_none_or(|then| free > then)
    }

    /// Takes an append of the shard's own, behind those that wait for memory.
    pub(super) fn append_here(&mut self, request: Request) {
        if self.is_short_of_memory() {
            self.arrivals.requests.push_back(request);
            return;
        }
        if let Err((request, shortage)) = self.admit(request, &Arrivals::default()) {
            self.note_shortage(shortage);
            self.arrivals.requests.push_front(request);
        }
    }

    /// An append has to wait: a checkpoint may free memory, and seals come by themselves.
    pub(super) fn note_shortage(&mut self, shortage: Shortage) {
        self.starved_free = Some(self.arena.free_bytes());
        match shortage {
            Shortage::Memory => {
                self.stats.memory_waits += 1;
                self.errand(Errand::Checkpoint);
            }
            Shortage::Seals => self.stats.seal_waits += 1,
        }
    }

    /// Ends the first append that waits for memory: nothing can free any.
    pub(crate) fn refuse_first(&mut self, error: AppendError) {
        let Some(request) = self.arrivals.requests.pop_front() else { return };
        self.arrivals.taken += request.copied();
        self.starved_free = None;
        self.refuse(request, error);
        // Now: the shard may sleep next, and others wait for this room.
        self.inbox.release(std::mem::take(&mut self.released_bytes));
    }

    /// Ends all that wait for memory: the shard closes.
    pub(crate) fn refuse_arrivals(&mut self) {
        while self.is_short_of_memory() {
            self.refuse_first(AppendError::Closed);
        }
    }

    /// Memory for a write that frees memory, or makes bytes durable that hold it.
    pub(super) fn chunk(&self, bytes: usize) -> Option<Chunk> {
        self.arena.chunk(bytes).or_else(|| self.reserve.chunk(bytes))
    }

    /// Appends `from..to` of a segment in the tail to `out`, if memory holds all of it.
    pub(super) fn read_memory(
        &mut self,
        id: LogId,
        base: Offset,
        (from, to): (Pos, Pos),
        out: &mut Vec<u8>,
    ) -> bool {
        let Some(segment) = self.segment(id, base) else { return false };
        if segment.window.base() > from || segment.window.end() < to {
            return false;
        }
        segment.window.visit(from, to, |bytes| out.extend_from_slice(bytes));
        true
    }

    /// Gives back memory of bytes that are in their file: at once where nobody reads the log's tail, since memory that
    /// is written again and again stays in the processor's caches, and else when it is wanted.
    pub(super) fn trim(&mut self, id: LogId) {
        let taken = self.arena.bytes() - self.arena.free_bytes();
        if taken < self.unread_bytes_max() {
            return;
        }
        let now = self.time.ns;
        if now >= self.swept_ns + SWEEP_INTERVAL_NS {
            // Of those whose readers are gone, and which nobody writes any more.
            self.swept_ns = now;
            return self.trim_all();
        }
        let (wanted, kept_ns) = (self.is_memory_wanted(), self.settings.kept_for_readers_ns);
        let Some(log) = self.log(id) else { return };
        if !wanted && log.is_read(now, kept_ns) {
            return;
        }
        log.release_written();
        // What is left was journaled, or lies behind what was, and is not flushed. If most of it is one log's, and went
        // straight to its segment behind a little that was journaled, a checkpoint is cheap and frees nearly all.
        let held = log.held_bytes();
        let is_much = held >= self.unread_bytes_max() as u64 && held > taken as u64 / 2;
        let needed = self.journal.needed_bytes();
        if is_much && needed > 0 && needed < held / 2 {
            self.checkpoint_for_memory();
        }
    }

    /// Begins a checkpoint to free memory, unless one is under way or has just been.
    pub(super) fn checkpoint_for_memory(&mut self) {
        if !self.checkpointing && self.time.ns > self.pressure_ns {
            self.pressure_ns = self.time.ns + PRESSURE_INTERVAL_NS;
            self.errand(Errand::Checkpoint);
        }
    }

    /// Gives back all memory of bytes that are in their files, but of tails that are read while it is not wanted; while
    /// memory is scarce also what is spare behind idle tails.
    pub(crate) fn trim_all(&mut self) {
        let (wanted, now) = (self.is_memory_wanted(), self.time.ns);
        let scarce = self.is_short_of_memory() || self.arena.free_bytes() < self.arena.bytes() / 8;
        let kept_ns = self.settings.kept_for_readers_ns;
        for log in self.logs.iter_mut().flatten() {
            if wanted || !log.is_read(now, kept_ns) {
                log.release_written();
            }
            if scarce {
                log.shrink(&self.arena);
            }
        }
    }

    /// How much may be taken before written bytes that nobody reads are given back.
    fn unread_bytes_max(&self) -> usize {
        UNREAD_BYTES_MAX.min(self.arena.bytes() / 8)
    }

    /// Whether what could be read from memory has to go: appends wait, or three quarters are taken.
    fn is_memory_wanted(&self) -> bool {
        self.is_short_of_memory() || self.arena.free_bytes() <= self.arena.bytes() / 4
    }
}
