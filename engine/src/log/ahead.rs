//! What is fetched ahead of the work on a log. A turn of the shard goes over many logs, one after the other, and does
//! little on each: their memory together is more than a core's own caches hold, and most of such a turn would be
//! waiting for it. All of it are hints: they change nothing but the time that things take.

use std::ptr;

use super::Log;
use super::waiting::Waiting;
use crate::buffers::cache;
use crate::journal::LogId;
use crate::segment::Segment;
use crate::types::{Offset, Pos};

/// The lines of a log itself are asked for so many places before it is its turn: what they point to can be asked for
/// once they are there.
const LOG_AHEAD: usize = 6;

/// Then its active segment's.
const SEGMENT_AHEAD: usize = 4;

/// Then the bytes that the segment leads to.
pub(crate) const BYTES_AHEAD: usize = 2;

/// Asks for the memory of logs that are worked on soon. `later` says whose turn it is so many places behind the log
/// that is worked on `now`, for which nothing is asked: it is here. Returns the one for whose bytes it is time, if the
/// work is on bytes.
#[inline]
pub(crate) fn expect(
    logs: &[Option<Box<Log>>],
    now: LogId,
    later: impl Fn(usize) -> Option<LogId>,
) -> Option<&Log> {
    let other = |ahead: usize| {
        let id = later(ahead).filter(|id| *id != now)?;
        logs.get(id.0 as usize)?.as_deref()
    };
    if let Some(log) = other(LOG_AHEAD) {
        log.expect_fields();
    }
    if let Some(log) = other(SEGMENT_AHEAD) {
        log.expect_active();
    }
    other(BYTES_AHEAD)
}

impl Log {
    /// Its fields on an append's way, on whichever lines they are.
    fn expect_fields(&self) {
        let fields: [*const u8; 8] = [
            (&raw const self.access).cast(),
            (&raw const self.identity).cast(),
            (&raw const self.tail).cast(),
            (&raw const self.waiting).cast(),
            (&raw const self.policy).cast(),
            (&raw const self.next).cast(),
            (&raw const self.used_ns).cast(),
            (&raw const self.queued).cast(),
        ];
        fields.into_iter().for_each(cache::expect_write);
    }

    /// The segment that grows, and who waits last, with the place of the next one.
    fn expect_active(&self) {
        if let Some(active) = self.tail.back() {
            cache::expect_writes(ptr::from_ref(active).cast(), size_of::<Segment>());
        }
        let (waiting, _) = self.waiting.as_slices();
        let newest = waiting.as_ptr().wrapping_add(waiting.len().saturating_sub(1));
        cache::expect_writes(newest.cast(), 2 * size_of::<Waiting>());
    }

    /// Where the next small batch is put.
    pub(crate) fn expect_append(&self) {
        if let Some(active) = self.tail.back() {
            active.window.expect_append();
        }
    }

    /// The bytes of its active segment from `start` on, if it is the one that begins with `base`.
    pub(crate) fn expect_bytes(&self, base: Offset, start: Pos) {
        if let Some(active) = self.tail.back().filter(|active| active.base() == base) {
            active.window.expect_bytes(start);
        }
    }
}
