//! A log's tail: its segments by their bases, and what of them stays in memory for readers once it is in the files.

use crate::buffers::Arena;
use crate::segment::Segment;
use crate::types::Offset;

use super::Log;

impl Log {
    /// The active segment.
    pub(crate) fn active(&mut self) -> &mut Segment {
        self.tail.back_mut().expect("a log has an active segment")
    }

    /// The tail segment with this base.
    pub(crate) fn segment(&mut self, base: Offset) -> Option<&mut Segment> {
        self.tail.iter_mut().find(|segment| segment.base() == base)
    }

    /// Somebody reads from there on, or waits there for more.
    pub(crate) fn note_reader(&mut self, offset: Offset, now_ns: u64) {
        if offset >= self.tail[0].base() {
            self.read_ns = Some(now_ns);
        }
    }

    /// Whether its tail has readers: one that waits, or one that was there no longer ago and comes again.
    pub(crate) fn is_read(&self, now_ns: u64, kept_ns: u64) -> bool {
        self.watchers > 0 || self.read_ns.is_some_and(|then| now_ns < then.saturating_add(kept_ns))
    }

    /// Gives back memory of bytes that are in their files.
    pub(crate) fn release_written(&mut self) {
        for segment in &mut self.tail {
            let releasable = segment.releasable();
            segment.window.release_to(releasable);
        }
    }

    /// Bytes in memory that are written, and are held until they are flushed. A rolled segment's seal sees to its own.
    pub(crate) fn held_bytes(&self) -> u64 {
        let held = |segment: &Segment| {
            let written = segment.written.done().max(segment.window.base());
            written.since(segment.window.base())
        };
        self.tail.iter().filter(|segment| !segment.rolled).map(held).sum()
    }

    /// Gives back what is spare behind an idle tail.
    pub(crate) fn shrink(&mut self, arena: &Arena) {
        for segment in &mut self.tail {
            let releasable = segment.releasable();
            segment.window.shrink(arena, releasable);
        }
    }
}
