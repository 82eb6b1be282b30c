//! Snappy, raw or in the framing of snappy-java, which Kafka's own clients write.
//!
//! The source is snappy-java's `SnappyOutputStream`: a header of 16 bytes (magic, version, compatible
//! version), then blocks of a big-endian length and raw Snappy. As its reader does, whatever does not
//! begin with that magic is taken as raw, and a header may stand between blocks where streams were
//! joined.

use snap::raw::{Decoder, Encoder, decompress_len};

use super::codec::{CodecError, Sink};

const MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
const FRAME_HEADER_BYTES: usize = MAGIC.len() + 4 + 4;

/// More than Snappy can make of one byte: an element of 3 bytes copies at most 64.
const EXPANSION_MAX: usize = 64;

/// Bytes of a block before it is compressed, as snappy-java has it.
const BLOCK_BYTES: usize = 32 * 1024;

/// Version and least version that reads it, as snappy-java writes them.
const VERSIONS: [u8; 8] = [0, 0, 0, 1, 0, 0, 0, 1];

/// Appends `records` in snappy-java's framing.
pub(super) fn compress(records: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSIONS);
    let mut encoder = Encoder::new();
    for block in records.chunks(BLOCK_BYTES) {
        let raw = encoder.compress_vec(block)?;
        out.extend_from_slice(&(raw.len() as u32).to_be_bytes());
        out.extend_from_slice(&raw);
    }
    Ok(())
}

pub(super) fn decompress(mut bytes: &[u8], sink: &mut Sink<'_>) -> Result<(), CodecError> {
    if !bytes.starts_with(&MAGIC) {
        return block(bytes, sink);
    }
    while !bytes.is_empty() {
        if bytes.starts_with(&MAGIC) {
            bytes = bytes.get(FRAME_HEADER_BYTES..).ok_or(CodecError::Truncated)?;
            continue;
        }
        let (length, left) = bytes.split_first_chunk().ok_or(CodecError::Truncated)?;
        let length = u32::from_be_bytes(*length) as usize;
        let (raw, left) = left.split_at_checked(length).ok_or(CodecError::Truncated)?;
        block(raw, sink)?;
        bytes = left;
    }
    Ok(())
}

fn block(raw: &[u8], sink: &mut Sink<'_>) -> Result<(), CodecError> {
    let announced = decompress_len(raw)?;
    if announced > sink.room() {
        return Err(sink.too_large());
    }
    if announced > raw.len().saturating_mul(EXPANSION_MAX) {
        return Err(CodecError::Frame);
    }
    Decoder::new().decompress(raw, sink.claim(announced)?)?;
    Ok(())
}
