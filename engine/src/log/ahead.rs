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

/// How many places ahead the lines of a log itself are asked for: what they point to can be asked for once they are
/// there.
const FAR: usize = 5;

/// How many places ahead it is its active segment's.
const NEAR: usize = 3;

/// How many places ahead it is the bytes that the segment's lines point to.
pub(crate) const NEXT: usize = 1;

/// Asks for the memory of logs that are worked on soon: `later` says which one comes so many places behind the next.
/// Returns the one for whose bytes it is time. Nothing is asked for the log that is worked on `now`: it is here.
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
    if let Some(log) = other(FAR) {
        log.expect_fields();
    }
    if let Some(log) = other(NEAR) {
        log.expect_active();
    }
    other(NEXT)
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
        if let Some(newest) = self.waiting.back() {
            cache::expect_writes(ptr::from_ref(newest).cast(), 2 * size_of::<Waiting>());
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_asked_for_the_log_at_hand_or_one_that_is_gone() {
        let logs = [None, None];
        for later in [None, Some(LogId(0)), Some(LogId(1)), Some(LogId(u32::MAX))] {
            assert!(expect(&logs, LogId(0), |_| later).is_none());
        }
    }
}
