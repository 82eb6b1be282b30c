//! Compressing and decompressing the records of a batch.
//!
//! Contexts and scratch memory are kept per thread, so that the steady state allocates nothing; what
//! grew beyond a few MiB is given back.

use std::cell::Cell;
use std::io::{self, Read, Write};

use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use thiserror::Error;
use zstd::zstd_safe::{
    self, CCtx, CParameter, DCtx, DParameter, InBuffer, OutBuffer, ResetDirective,
};

use super::builder::Compression;
use super::{lz4, snappy};
use crate::format::batch_header::Codec;
use crate::limits::ZSTD_WINDOW_LOG_MAX;

/// Scratch memory and contexts up to this size stay with their thread, in bytes.
const KEPT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Least and most that a stream is given to write to at a time, in bytes.
const STEP_BYTES_MIN: usize = 16 * 1024;
const STEP_BYTES_MAX: usize = 1024 * 1024;

/// Why records do not compress or decompress.
#[derive(Debug, Error)]
pub enum CodecError {
    /// They decompress to more than allowed. What came out until then is dropped.
    #[error("decompresses to more than {max} bytes")]
    TooLarge {
        /// The most that is allowed.
        max: usize,
    },
    /// They end within a frame or a block.
    #[error("is cut short")]
    Truncated,
    /// The frame around the compressed blocks is none, or uses what no Kafka client writes.
    #[error("is no frame of its codec")]
    Frame,
    /// gzip says no.
    #[error(transparent)]
    Gzip(io::Error),
    /// Snappy says no.
    #[error(transparent)]
    Snappy(#[from] snap::Error),
    /// LZ4 says no.
    #[error(transparent)]
    Lz4(#[from] lz4_flex::block::DecompressError),
    /// LZ4 can not compress.
    #[error(transparent)]
    Lz4Compress(#[from] lz4_flex::block::CompressError),
    /// zstd says no.
    #[error("{}", zstd_safe::get_error_name(*.code))]
    Zstd {
        /// zstd's number for what is wrong.
        code: usize,
    },
}

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static COMPRESSOR: Cell<Option<CCtx<'static>>> = const { Cell::new(None) };
    static DECOMPRESSOR: Cell<Option<DCtx<'static>>> = const { Cell::new(None) };
}

/// Replaces what follows the first `header_bytes` of `bytes` by its compressed form.
pub(super) fn compress(
    compression: Compression,
    bytes: &mut Vec<u8>,
    header_bytes: usize,
) -> Result<(), CodecError> {
    if compression == Compression::None {
        return Ok(());
    }
    let mut scratch = SCRATCH.take();
    let records = &bytes[header_bytes..];
    let compressed = match compression {
        Compression::None => Ok(0),
        Compression::Lz4 => lz4::compress(records, &mut scratch),
        Compression::Zstd { level } => zstd_compress(level, records, &mut scratch),
    };
    if let Ok(len) = compressed {
        bytes.truncate(header_bytes);
        bytes.extend_from_slice(&scratch[..len]);
    }
    if scratch.capacity() <= KEPT_BYTES_MAX {
        SCRATCH.set(scratch);
    }
    compressed.map(|_| ())
}

/// Replaces what follows the first `header_bytes` of `bytes` by its form in `codec`, at the codec's default level: for
/// batches that are written anew and keep the codec their producer chose.
pub(crate) fn compress_as(
    codec: Codec,
    bytes: &mut Vec<u8>,
    header_bytes: usize,
) -> Result<(), CodecError> {
    match codec {
        Codec::None => Ok(()),
        Codec::Lz4 => compress(Compression::Lz4, bytes, header_bytes),
        Codec::Zstd => {
            let level = zstd::DEFAULT_COMPRESSION_LEVEL;
            compress(Compression::Zstd { level }, bytes, header_bytes)
        }
        Codec::Gzip => {
            let records = bytes.split_off(header_bytes);
            let mut encoder = GzEncoder::new(std::mem::take(bytes), flate2::Compression::default());
            encoder.write_all(&records).map_err(CodecError::Gzip)?;
            *bytes = encoder.finish().map_err(CodecError::Gzip)?;
            Ok(())
        }
        Codec::Snappy => {
            let records = bytes.split_off(header_bytes);
            snappy::compress(&records, bytes)
        }
    }
}

/// Appends to `out`, which is empty, what `bytes` decompress to, if that is at most `max` bytes. `out`
/// grows with what comes out, never with what is announced, and never beyond `max`.
pub(super) fn decompress(
    codec: Codec,
    bytes: &[u8],
    out: &mut Vec<u8>,
    max: usize,
) -> Result<(), CodecError> {
    let mut sink = Sink { bytes: out, max };
    match codec {
        Codec::None => {
            sink.claim(bytes.len())?.copy_from_slice(bytes);
            Ok(())
        }
        Codec::Gzip => gzip_decompress(bytes, &mut sink),
        Codec::Snappy => snappy::decompress(bytes, &mut sink),
        Codec::Lz4 => lz4::decompress(bytes, &mut sink),
        Codec::Zstd => zstd_decompress(bytes, &mut sink),
    }
}

/// Where decompressed bytes go: a vector that never grows beyond a bound, in length or capacity.
pub(super) struct Sink<'a> {
    bytes: &'a mut Vec<u8>,
    max: usize,
}

impl Sink<'_> {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// How many more bytes are allowed.
    pub(super) fn room(&self) -> usize {
        self.max - self.bytes.len()
    }

    pub(super) fn too_large(&self) -> CodecError {
        CodecError::TooLarge { max: self.max }
    }

    /// `len` more bytes, zero so far.
    pub(super) fn claim(&mut self, len: usize) -> Result<&mut [u8], CodecError> {
        let (_, claimed) = self.claim_after(len)?;
        Ok(claimed)
    }

    /// What is there already, and `len` more bytes, zero so far.
    pub(super) fn claim_after(&mut self, len: usize) -> Result<(&mut [u8], &mut [u8]), CodecError> {
        if len > self.room() {
            return Err(self.too_large());
        }
        let (before, after) = (self.bytes.len(), self.bytes.len() + len);
        if after > self.bytes.capacity() {
            // Doubling up to half the bound, then all of it: old and new memory, which exist side by
            // side for a moment, are never more than one and a half times the bound.
            let half = self.max / 2;
            let doubled = after.max(self.bytes.capacity().saturating_mul(2)).min(half);
            let capacity = if after > half { self.max } else { doubled };
            self.bytes.reserve_exact(capacity - before);
        }
        self.bytes.resize(after, 0);
        Ok(self.bytes.split_at_mut(before))
    }

    /// Drops what was claimed and not written.
    pub(super) fn truncate(&mut self, len: usize) {
        self.bytes.truncate(len);
    }

    /// Lets `step` write into memory that grows until it says that it has come to its end.
    fn fill(
        &mut self,
        mut step: impl FnMut(&mut [u8]) -> Result<Step, CodecError>,
    ) -> Result<(), CodecError> {
        loop {
            let len = self.len();
            if self.room() == 0 {
                // Only one byte more tells an end from an excess.
                let Step { written, ended } = step(&mut [0])?;
                match (written, ended) {
                    (0, true) => return Ok(()),
                    (0, false) => continue,
                    _ => return Err(self.too_large()),
                }
            }
            let ask = len.clamp(STEP_BYTES_MIN, STEP_BYTES_MAX).min(self.room());
            let Step { written, ended } = step(self.claim(ask)?)?;
            self.truncate(len + written);
            if ended {
                return Ok(());
            }
        }
    }
}

/// What one step of a stream came to. A step that neither writes nor ends has read something.
struct Step {
    written: usize,
    ended: bool,
}

fn gzip_decompress(bytes: &[u8], sink: &mut Sink<'_>) -> Result<(), CodecError> {
    let mut decoder = MultiGzDecoder::new(bytes);
    sink.fill(|out| {
        let written = decoder.read(out).map_err(CodecError::Gzip)?;
        Ok(Step { written, ended: written == 0 })
    })
}

fn zstd_error(code: usize) -> CodecError {
    CodecError::Zstd { code }
}

fn zstd_compress(level: i32, records: &[u8], scratch: &mut Vec<u8>) -> Result<usize, CodecError> {
    let mut context = COMPRESSOR.take().unwrap_or_else(CCtx::create);
    context.set_parameter(CParameter::CompressionLevel(level)).map_err(zstd_error)?;
    scratch.clear();
    scratch.reserve(zstd_safe::compress_bound(records.len()));
    let len = context.compress2(scratch, records).map_err(zstd_error)?;
    if context.sizeof() <= KEPT_BYTES_MAX {
        COMPRESSOR.set(Some(context));
    }
    Ok(len)
}

fn zstd_decompress(bytes: &[u8], sink: &mut Sink<'_>) -> Result<(), CodecError> {
    let mut context = DECOMPRESSOR.take().unwrap_or_else(DCtx::create);
    context.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX)).map_err(zstd_error)?;
    let mut input = InBuffer::around(bytes);
    sink.fill(|out| {
        let before = input.pos();
        let mut output = OutBuffer::around(out);
        let wanted = context.decompress_stream(&mut output, &mut input).map_err(zstd_error)?;
        let written = output.pos();
        let all_read = input.pos() == bytes.len();
        if all_read && wanted == 0 {
            return Ok(Step { written, ended: true });
        }
        if written == 0 && input.pos() == before {
            return Err(CodecError::Truncated);
        }
        Ok(Step { written, ended: false })
    })?;
    // A context that failed is dropped above: only whole frames leave it ready for the next.
    if context.sizeof() <= KEPT_BYTES_MAX {
        context.reset(ResetDirective::SessionOnly).map_err(zstd_error)?;
        DECOMPRESSOR.set(Some(context));
    }
    Ok(())
}
