//! A segment's bytes, with what journals hold laid over them, and a walk over its batches.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::batch::{BatchError, BatchView};
use crate::format::batch_header::{BatchHeader, HEADER_BYTES};
use crate::format::crc::crc32c_append;
use crate::limits::BATCH_BYTES_MAX;

/// Bytes read at once.
pub(super) const READ_BYTES: usize = 1 << 20;

/// Bytes laid over a file: where each run begins, and the run; oldest first.
pub(crate) type Runs<'a> = &'a [(u64, &'a [u8])];

/// A segment's bytes.
struct Source<'a> {
    file: File,
    length: u64,
    runs: Runs<'a>,
    /// No run touches a byte before this.
    first_run: u64,
}

impl Source<'_> {
    /// Reads to the end of `out` or of the source.
    fn read(&self, pos: u64, out: &mut [u8]) -> io::Result<usize> {
        let want = out.len().min(self.length.saturating_sub(pos) as usize);
        let out = &mut out[..want];
        let mut have = 0;
        while have < want {
            match self.file.read_at(&mut out[have..], pos + have as u64)? {
                0 => break,
                bytes => have += bytes,
            }
        }
        // What a journal holds behind the file's end follows zeros, as a replay leaves them.
        out[have..].fill(0);
        let end = pos + want as u64;
        if end > self.first_run {
            for (at, run) in self.runs {
                let (from, to) = (pos.max(*at), end.min(at + run.len() as u64));
                if from < to {
                    let part = &run[(from - at) as usize..(to - at) as usize];
                    out[(from - pos) as usize..(to - pos) as usize].copy_from_slice(part);
                }
            }
        }
        Ok(want)
    }
}

/// What a walk came upon.
pub(crate) enum Step<'w> {
    /// An intact batch at this position.
    Batch(u64, BatchView<'w>),
    /// No intact batch begins at this position; why not, unless the file ends there.
    End(u64, Option<BatchError>),
}

/// What lies behind a walk's end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rest {
    /// One past the last byte that is not zero.
    pub(super) last_nonzero: Option<u64>,
    /// CRC-32C of the bytes before [`Walker::sum_to`].
    pub(super) crc: u32,
}

/// Walks a segment's batches from its beginning.
pub(crate) struct Walker<'a> {
    source: Source<'a>,
    buffer: Vec<u8>,
    /// Where in the buffer the next batch begins.
    at: usize,
    /// The file position of the buffer's first byte.
    base: u64,
    /// Bytes read at once.
    step: usize,
    /// Bytes read so far.
    bytes_read: u64,
    crc: u32,
    sum_to: u64,
    last_nonzero: Option<u64>,
}

impl<'a> Walker<'a> {
    /// A walker over a file and the bytes to be laid over it.
    pub(crate) fn open(path: &Path, block: u64, runs: Runs<'a>) -> io::Result<Self> {
        let file = File::open(path)?;
        let end = runs.iter().map(|(at, run)| at + run.len() as u64).max().unwrap_or(0);
        // A replay writes whole blocks.
        let length = file.metadata()?.len().max(end.next_multiple_of(block));
        let first_run = runs.iter().map(|(at, _)| *at).min().unwrap_or(u64::MAX);
        Ok(Self {
            source: Source { file, length, runs, first_run },
            buffer: Vec::new(),
            at: 0,
            base: 0,
            step: READ_BYTES,
            bytes_read: 0,
            crc: 0,
            sum_to: 0,
            last_nonzero: None,
        })
    }

    /// The file's length, with what is laid over it.
    pub(super) fn length(&self) -> u64 {
        self.source.length
    }

    /// Sums the bytes before `pos`; ask before the first step.
    pub(super) fn sum_to(&mut self, pos: u64) {
        self.sum_to = pos;
    }

    /// The next batch.
    pub(crate) fn next(&mut self) -> io::Result<Step<'_>> {
        let pos = self.base + self.at as u64;
        if pos >= self.length() {
            return Ok(Step::End(pos, None));
        }
        self.fill(HEADER_BYTES)?;
        let header = match BatchHeader::decode(&self.buffer[self.at..]) {
            Ok(header) => header,
            Err(error) => return Ok(Step::End(pos, Some(error.into()))),
        };
        let (batch_bytes, base_offset) = (header.batch_bytes(), header.base_offset);
        if batch_bytes > BATCH_BYTES_MAX {
            let error = BatchError::TooLarge { batch_bytes, max: BATCH_BYTES_MAX };
            return Ok(Step::End(pos, Some(error)));
        }
        let given = self.fill(batch_bytes)?;
        if given < batch_bytes {
            let error = BatchError::Size { base_offset, batch_bytes, given };
            return Ok(Step::End(pos, Some(error)));
        }
        let from = self.at;
        match BatchView::new(&self.buffer[from..from + batch_bytes]) {
            Ok(view) => {
                self.at += batch_bytes;
                Ok(Step::Batch(pos, view))
            }
            Err(error) => Ok(Step::End(pos, Some(error))),
        }
    }

    /// The walk goes on from `pos`. For a fresh walker.
    pub(super) fn from(self, pos: u64) -> Self {
        Self { base: pos, ..self }
    }

    /// Reads so many bytes at once, or a batch if that is longer. For a fresh walker.
    pub(super) fn by(self, step: usize) -> Self {
        Self { step, ..self }
    }

    /// Bytes read so far.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// The next intact batch behind where the walk stands, wherever it begins before the byte `end`: what lies
    /// behind damage, for those who look. `Step::End` if there is none.
    pub(super) fn resume(&mut self, end: u64) -> io::Result<Step<'_>> {
        loop {
            self.fill(1)?;
            self.at += 1;
            let pos = self.base + self.at as u64;
            if pos >= end {
                return Ok(Step::End(pos, None));
            }
            self.fill(HEADER_BYTES)?;
            let Ok(header) = BatchHeader::decode(&self.buffer[self.at..]) else { continue };
            let bytes = header.batch_bytes();
            if bytes > BATCH_BYTES_MAX || self.fill(bytes)? < bytes {
                continue;
            }
            if BatchView::new(&self.buffer[self.at..self.at + bytes]).is_ok() {
                return self.next();
            }
        }
    }

    /// Reads the rest of the file, behind the batch at which the walk stands.
    pub(super) fn rest(&mut self, from: u64) -> io::Result<Rest> {
        let mut seen = from;
        loop {
            let skip = (seen - self.base) as usize;
            let bytes = &self.buffer[skip.min(self.buffer.len())..];
            if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
                self.last_nonzero = Some(seen + last as u64 + 1);
            }
            seen += bytes.len() as u64;
            self.at = self.buffer.len();
            if self.fill(1)? == 0 {
                return Ok(Rest { last_nonzero: self.last_nonzero, crc: self.crc });
            }
        }
    }

    /// Makes `bytes` from the next batch's beginning available; returns how many there are.
    fn fill(&mut self, bytes: usize) -> io::Result<usize> {
        while self.buffer.len() - self.at < bytes {
            if self.at >= self.step || self.at == self.buffer.len() {
                self.buffer.drain(..self.at);
                self.base += self.at as u64;
                self.at = 0;
            }
            let have = self.buffer.len();
            let pos = self.base + have as u64;
            self.buffer.resize(have + self.step.max(bytes), 0);
            let read = self.source.read(pos, &mut self.buffer[have..])?;
            self.buffer.truncate(have + read);
            self.bytes_read += read as u64;
            if read == 0 {
                break;
            }
            let summed = self.sum_to.saturating_sub(pos).min(read as u64) as usize;
            self.crc = crc32c_append(self.crc, &self.buffer[have..have + summed]);
        }
        Ok((self.buffer.len() - self.at).min(bytes))
    }
}
