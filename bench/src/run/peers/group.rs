//! Batches of a partition that are written together, and where they go.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::Arc;
use std::time::Instant;

use super::track::Track;
use crate::run::backend::{Acked, Completion, Request};

/// Most batches of a group: one system call takes as many pieces. Source: `IOV_MAX`, limits.h.
pub(super) const BATCHES_MAX: usize = 1024;

/// Bytes that end a group; a larger batch is one of its own.
pub(super) const BYTES_MAX: u64 = 512 << 10;

/// A batch with its offset.
pub(super) struct Placed {
    slot: u32,
    base_offset: i64,
    pub(super) bytes: Vec<u8>,
}

/// Batches back to back in one file.
#[derive(Default)]
pub(super) struct Group {
    pub(super) file: Option<Arc<File>>,
    /// The place of its first byte.
    pub(super) place: u64,
    pub(super) bytes: u64,
    pub(super) batches: Vec<Placed>,
    pub(super) written: Option<Instant>,
}

impl Group {
    /// Where it ends.
    pub(super) fn end(&self) -> u64 {
        self.place + self.bytes
    }

    /// Turns all of it into completions.
    pub(super) fn complete(&mut self, flushed: Option<Instant>, into: &mut Vec<Completion>) {
        let written = self.written.take();
        into.extend(self.batches.drain(..).map(|placed| {
            let Placed { slot, base_offset, bytes: buffer } = placed;
            Completion { slot, result: Ok(Acked { base_offset, buffer, written, flushed }) }
        }));
        self.file = None;
    }
}

/// Where a partition's next batch goes. Its writer's alone.
pub(super) struct Head {
    file: Arc<File>,
    /// The place of the file's first byte.
    begin: u64,
    place: u64,
    next_offset: i64,
    /// Space is wanted so far ahead.
    ahead: u64,
}

impl Head {
    /// At the beginning of `track`, whose first file is made; `ahead` bytes are kept ready.
    pub(super) fn new(track: &Track, ahead: u64) -> Self {
        let file = track.next_file().expect("the first file is made");
        Self { file, begin: 0, place: 0, next_offset: 0, ahead }
    }

    /// Takes batches from the front of `waiting` into `group`, which is empty, as many as go together; none if
    /// space is not ready. Calls `ask` if more of it is wanted.
    pub(super) fn gather(
        &mut self,
        track: &Track,
        waiting: &mut VecDeque<Request>,
        group: &mut Group,
        ask: impl FnOnce(),
    ) {
        let mut wanted = self.place;
        while let Some(request) = waiting.front() {
            let bytes = request.batch.as_bytes().len() as u64;
            let full = group.bytes + bytes > BYTES_MAX || group.batches.len() == BATCHES_MAX;
            if full && !group.batches.is_empty() {
                break;
            }
            let end = self.begin + track.file_bytes();
            let next = self.place + bytes > end;
            if next && !group.batches.is_empty() {
                break;
            }
            wanted = if next { end } else { self.place } + bytes;
            if track.ready() < wanted {
                break;
            }
            if next {
                self.file = track.next_file().expect("made before space in it is ready");
                (self.begin, self.place) = (end, end);
            }
            if group.batches.is_empty() {
                (group.place, group.bytes) = (self.place, 0);
                group.file = Some(Arc::clone(&self.file));
            }
            group.bytes += bytes;
            self.place += bytes;
            group.batches.extend(waiting.pop_front().map(|request| self.number(request)));
        }
        if track.ready() < wanted + self.ahead / 2 && track.want(wanted + self.ahead) {
            ask();
        }
    }

    fn number(&mut self, request: Request) -> Placed {
        let Request { slot, batch, .. } = request;
        let base_offset = self.next_offset;
        self.next_offset += i64::from(batch.record_count());
        let mut bytes = batch.into_bytes();
        bytes[..8].copy_from_slice(&base_offset.to_be_bytes());
        Placed { slot, base_offset, bytes }
    }

    /// The next group begins at a whole block.
    pub(super) fn pad(&mut self, block: u64) {
        self.place = self.place.next_multiple_of(block);
    }
}
