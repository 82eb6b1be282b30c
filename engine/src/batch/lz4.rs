//! The LZ4 frame format around LZ4 blocks, as Kafka uses it.
//!
//! The source is the LZ4 Frame Format Description 1.6 and Kafka's `Lz4BlockOutputStream`. Blocks come
//! from `lz4_flex`; the frame is written here because its encoder and decoder would copy every byte
//! twice more and allocate by the block size that a header announces.
//!
//! Checksums within the frame are neither written nor verified: the batch's CRC-32C covers all of it.

use std::cell::Cell;

use lz4_flex::block::{
    CompressTable, DecompressError, compress_into_with_table, decompress_into_with_dict,
    get_maximum_output_size,
};

use super::codec::{CodecError, Sink};

const MAGIC: [u8; 4] = 0x184d_2204_u32.to_le_bytes();

/// Version 1 with independent blocks, blocks of 64 KiB, and the checksum of these two bytes.
const DESCRIPTOR: [u8; 3] = [0x60, 0x40, 0x82];

const BLOCK_BYTES: usize = 64 * 1024;
const END_MARK: [u8; 4] = [0; 4];

/// In a block's length: the block is stored as it is.
const STORED_BIT: u32 = 1 << 31;

const VERSION_MASK: u8 = 0b1100_0000;
const VERSION: u8 = 0b0100_0000;
const INDEPENDENT: u8 = 0b0010_0000;
const BLOCK_CHECKSUM: u8 = 0b0001_0000;
const CONTENT_SIZE: u8 = 0b0000_1000;
const CONTENT_CHECKSUM: u8 = 0b0000_0100;
const DICTIONARY: u8 = 0b0000_0001;

/// How far back a block may refer.
const WINDOW_BYTES: usize = 64 * 1024;

thread_local! {
    static TABLE: Cell<Option<CompressTable>> = const { Cell::new(None) };
}

/// Writes `records` as one frame to the beginning of `out`, which only grows, and returns its length.
pub(super) fn compress(records: &[u8], out: &mut Vec<u8>) -> Result<usize, CodecError> {
    let blocks = records.len().div_ceil(BLOCK_BYTES);
    let block_bytes_max = get_maximum_output_size(BLOCK_BYTES.min(records.len()));
    let bound = MAGIC.len()
        + DESCRIPTOR.len()
        + blocks * (size_of::<u32>() + block_bytes_max)
        + END_MARK.len();
    if out.len() < bound {
        out.resize(bound, 0);
    }
    let mut table = TABLE.take().unwrap_or_else(CompressTable::large);
    let mut pos = put(out, 0, &MAGIC);
    pos = put(out, pos, &DESCRIPTOR);
    for block in records.chunks(BLOCK_BYTES) {
        let data = pos + size_of::<u32>();
        let len = compress_into_with_table(block, &mut out[data..], &mut table)?;
        if len < block.len() {
            put(out, pos, &(len as u32).to_le_bytes());
            pos = data + len;
        } else {
            put(out, pos, &(block.len() as u32 | STORED_BIT).to_le_bytes());
            pos = put(out, data, block);
        }
    }
    TABLE.set(Some(table));
    Ok(put(out, pos, &END_MARK))
}

fn put(out: &mut [u8], pos: usize, bytes: &[u8]) -> usize {
    out[pos..pos + bytes.len()].copy_from_slice(bytes);
    pos + bytes.len()
}

/// Reads one frame or several on end.
pub(super) fn decompress(mut bytes: &[u8], sink: &mut Sink<'_>) -> Result<(), CodecError> {
    loop {
        frame(&mut bytes, sink)?;
        if bytes.is_empty() {
            return Ok(());
        }
    }
}

fn frame(bytes: &mut &[u8], sink: &mut Sink<'_>) -> Result<(), CodecError> {
    let magic: [u8; 4] = take(bytes)?;
    let [flags, descriptor] = take(bytes)?;
    let block_bytes_max = match (descriptor >> 4) & 0b111 {
        4 => 64 * 1024,
        5 => 256 * 1024,
        6 => 1024 * 1024,
        7 => 4 * 1024 * 1024,
        _ => return Err(CodecError::Frame),
    };
    if magic != MAGIC || flags & VERSION_MASK != VERSION || flags & DICTIONARY != 0 {
        return Err(CodecError::Frame);
    }
    if flags & CONTENT_SIZE != 0 {
        take::<8>(bytes)?;
    }
    take::<1>(bytes)?;
    let start = sink.len();
    loop {
        let size = u32::from_le_bytes(take(bytes)?);
        if size == 0 {
            break;
        }
        let stored = size & STORED_BIT != 0;
        let len = (size & !STORED_BIT) as usize;
        if len > block_bytes_max {
            return Err(CodecError::Frame);
        }
        let (block, left) = bytes.split_at_checked(len).ok_or(CodecError::Truncated)?;
        *bytes = left;
        if stored {
            sink.claim(len)?.copy_from_slice(block);
        } else {
            let window_start = if flags & INDEPENDENT == 0 { start } else { sink.len() };
            decompress_block(block, sink, window_start, block_bytes_max)?;
        }
        if flags & BLOCK_CHECKSUM != 0 {
            take::<4>(bytes)?;
        }
    }
    if flags & CONTENT_CHECKSUM != 0 {
        take::<4>(bytes)?;
    }
    Ok(())
}

/// Decompresses a block that may refer to what came out from `window_start` on.
fn decompress_block(
    block: &[u8],
    sink: &mut Sink<'_>,
    window_start: usize,
    block_bytes_max: usize,
) -> Result<(), CodecError> {
    let before = sink.len();
    // LZ4 makes at most 255 bytes of one: a short block does not need room for the longest.
    let needed = block_bytes_max.min(block.len().saturating_mul(255));
    let claimed = needed.min(sink.room());
    let (done, out) = sink.claim_after(claimed)?;
    let window = &done[window_start.max(before.saturating_sub(WINDOW_BYTES))..];
    match decompress_into_with_dict(block, out, window) {
        Ok(written) => {
            sink.truncate(before + written);
            Ok(())
        }
        Err(DecompressError::OutputTooSmall { .. }) if claimed < needed => Err(sink.too_large()),
        Err(error) => Err(error.into()),
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], CodecError> {
    let (taken, left) = bytes.split_first_chunk().ok_or(CodecError::Truncated)?;
    *bytes = left;
    Ok(*taken)
}
