//! Walks a segment file batch by batch, and looks at what lies behind the last good one.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;

use crate::batch::validate_stored;
use crate::buffers::{Arena, CHUNK_BYTES_MAX, Chunk};
use crate::command::{Disk, FileHandle};
use crate::files::read_at;
use crate::format::batch_header::{BatchHeader, HEADER_BYTES};
use crate::format::meta::BLOCK_BYTES_MAX;
use crate::limits::{BATCH_BYTES_MAX, READ_AHEAD};

/// Where reads begin and end: a multiple of any block.
const ALIGNMENT: u64 = BLOCK_BYTES_MAX as u64;

const _: () = assert!((CHUNK_BYTES_MAX as u64).is_multiple_of(ALIGNMENT));

type Reading = Pin<Box<dyn Future<Output = io::Result<Chunk>>>>;

/// Reads a file from a block boundary on, ahead of its consumer.
pub(crate) struct FileReader<D: Disk> {
    disk: D,
    arena: Arena,
    file: FileHandle,
    next: u64,
    length: u64,
    ahead: VecDeque<Reading>,
    /// Bytes read.
    pub(crate) read_bytes: u64,
}

impl<D: Disk> FileReader<D> {
    /// A reader from `pos`, which is rounded down to a block.
    pub(crate) fn new(disk: &D, arena: &Arena, file: FileHandle, pos: u64, length: u64) -> Self {
        Self {
            disk: disk.clone(),
            arena: arena.clone(),
            file,
            next: pos / ALIGNMENT * ALIGNMENT,
            length,
            ahead: VecDeque::new(),
            read_bytes: 0,
        }
    }

    /// The next bytes; `None` at the end of the file.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Chunk>> {
        while self.ahead.len() < READ_AHEAD && self.next < self.length {
            let (disk, arena, file, pos) =
                (self.disk.clone(), self.arena.clone(), self.file, self.next);
            let left = (self.length - pos).next_multiple_of(ALIGNMENT);
            let bytes = left.min(CHUNK_BYTES_MAX as u64) as usize;
            self.next += bytes as u64;
            let mut reading: Reading =
                Box::pin(async move { read_at(&disk, &arena, file, pos, bytes).await });
            // Started now, so that reads overlap: polled once, it is on its way.
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            if let std::task::Poll::Ready(done) = reading.as_mut().poll(&mut cx) {
                reading = Box::pin(std::future::ready(done));
            }
            self.ahead.push_back(reading);
        }
        let Some(reading) = self.ahead.pop_front() else { return Ok(None) };
        let chunk = reading.await?;
        self.read_bytes += chunk.len() as u64;
        Ok((!chunk.is_empty()).then_some(chunk))
    }

    /// Waits for what is still being read ahead: until then the file may be neither cut nor closed.
    pub(crate) async fn finish(&mut self) {
        while let Some(reading) = self.ahead.pop_front() {
            // Nobody looks at it any more.
            drop(reading.await);
        }
        self.next = self.length;
    }
}

/// What a scan came upon.
#[derive(Debug)]
pub(crate) enum Scanned {
    /// A valid batch at this position.
    Batch(u64, BatchHeader),
    /// No valid batch comes next.
    End,
}

/// Walks batches.
pub(crate) struct BatchScanner<D: Disk> {
    reader: FileReader<D>,
    buffer: Vec<u8>,
    /// Where in the buffer the next batch begins.
    at: usize,
    /// The file position of the buffer's first byte.
    base: u64,
    ended: bool,
}

impl<D: Disk> BatchScanner<D> {
    /// A scanner whose first batch begins at `pos`.
    pub(crate) fn new(disk: &D, arena: &Arena, file: FileHandle, pos: u64, length: u64) -> Self {
        let base = pos / ALIGNMENT * ALIGNMENT;
        Self {
            reader: FileReader::new(disk, arena, file, pos, length),
            buffer: Vec::new(),
            at: (pos - base) as usize,
            base,
            ended: false,
        }
    }

    /// Bytes read so far.
    pub(crate) fn read_bytes(&self) -> u64 {
        self.reader.read_bytes
    }

    /// Ends the walk: see [`FileReader::finish`].
    pub(crate) async fn finish(&mut self) {
        self.reader.finish().await;
    }

    /// The bytes of the batch that was returned last, which ends where the next one begins.
    pub(crate) fn last(&self, header: &BatchHeader) -> &[u8] {
        &self.buffer[self.at - header.batch_bytes()..self.at]
    }

    /// The next batch.
    pub(crate) async fn next(&mut self) -> io::Result<Scanned> {
        if !self.fill(HEADER_BYTES).await? {
            return Ok(Scanned::End);
        }
        let Ok(header) = BatchHeader::decode(&self.buffer[self.at..]) else {
            return Ok(Scanned::End);
        };
        let bytes = header.batch_bytes();
        if bytes > BATCH_BYTES_MAX || !self.fill(bytes).await? {
            return Ok(Scanned::End);
        }
        match validate_stored(&self.buffer[self.at..self.at + bytes]) {
            Ok(header) => {
                let pos = self.base + self.at as u64;
                self.at += bytes;
                Ok(Scanned::Batch(pos, header))
            }
            Err(_) => Ok(Scanned::End),
        }
    }

    /// Makes `bytes` from the next batch's beginning available. `false` if the file ends before.
    async fn fill(&mut self, bytes: usize) -> io::Result<bool> {
        while self.buffer.len() < self.at + bytes {
            if self.ended {
                return Ok(false);
            }
            // Forget what was walked, once it is worth the move.
            if self.at > CHUNK_BYTES_MAX {
                self.buffer.drain(..self.at);
                self.base += self.at as u64;
                self.at = 0;
            }
            match self.reader.next().await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => self.ended = true,
            }
        }
        Ok(true)
    }
}

/// What lies behind a position in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Remainder {
    /// One past the last byte that is not zero, if there is one.
    pub(crate) last_nonzero: Option<u64>,
    /// Whether the rest of the position's own block has a byte that is not zero.
    pub(crate) dirty_block: bool,
    /// Bytes that were looked at.
    pub(crate) read_bytes: u64,
}

/// Looks for bytes that are not zero from `pos` to the file's end.
pub(crate) async fn remainder<D: Disk>(
    disk: &D,
    arena: &Arena,
    (file, length): (FileHandle, u64),
    pos: u64,
    block: u64,
) -> io::Result<Remainder> {
    let mut out = Remainder::default();
    let mut base = pos / ALIGNMENT * ALIGNMENT;
    let block_end = pos.next_multiple_of(block);
    let mut reader = FileReader::new(disk, arena, file, pos, length);
    while let Some(chunk) = reader.next().await? {
        let skip = pos.saturating_sub(base) as usize;
        let bytes = chunk.get(skip..).unwrap_or_default();
        // Most of it is space that was made ready and never used: looked at many bytes at a time.
        let is_zero = bytes.iter().fold(0, |all, byte| all | byte) == 0;
        if is_zero {
            base += chunk.len() as u64;
            continue;
        }
        if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
            out.last_nonzero = Some(base + (skip + last) as u64 + 1);
        }
        if let Some(first) = bytes.iter().position(|byte| *byte != 0) {
            out.dirty_block |= base + ((skip + first) as u64) < block_end;
        }
        base += chunk.len() as u64;
    }
    out.read_bytes = reader.read_bytes;
    Ok(out)
}
