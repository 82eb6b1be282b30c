//! Is this a batch? Two answers: for an append, strict; for what a log already holds, by what Kafka and
//! its compaction may leave there. Neither allocates.

use super::{BatchError, Limits};
use crate::format::batch_header::{ATTRIBUTES_AT, BatchHeader, Codec, HEADER_BYTES};
use crate::format::crc::crc32c;
use crate::format::record::RawRecord;

/// Whether `bytes` are exactly one batch that may be appended: size, magic, CRC, a known codec, no
/// control batch, as many records as offsets and at least one; and, if it is not compressed, that
/// every record is well-formed with offsets from 0 up. What is inside a compressed batch is not looked
/// at. The base offset and the leader epoch may be anything, the append sets them.
///
/// # Errors
/// [`BatchError`].
#[inline]
pub fn validate(bytes: &[u8], limits: &Limits) -> Result<BatchHeader, BatchError> {
    if bytes.len() > limits.batch_bytes {
        return Err(BatchError::TooLarge { batch_bytes: bytes.len(), max: limits.batch_bytes });
    }
    let (header, codec) = intact(bytes)?;
    if header.attributes.is_control() {
        return Err(BatchError::Control);
    }
    let BatchHeader { record_count, last_offset_delta, .. } = header;
    if record_count < 1 || last_offset_delta != record_count - 1 {
        return Err(BatchError::Count { record_count, last_offset_delta });
    }
    if record_count as u32 > limits.records {
        return Err(BatchError::TooManyRecords { max: limits.records });
    }
    if codec == Codec::None {
        walk(&bytes[HEADER_BYTES..], record_count as u32, limits.headers)?;
    }
    Ok(header)
}

/// Whether `bytes` are exactly one intact batch that a log may hold: size, magic, CRC, a known codec,
/// legal offsets, and at most as many records as offsets. Compaction removes records, even all, and
/// leaves the offsets; control batches are legal. Records are not looked at: the CRC says they are what
/// was appended, and reading them checks them again.
///
/// # Errors
/// [`BatchError`].
#[inline]
pub fn validate_stored(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
    let (header, _) = intact(bytes)?;
    check_stored(&header)?;
    Ok(header)
}

/// Whether a header's offsets and counts are such as a log may hold.
///
/// # Errors
/// [`BatchError`].
#[inline]
pub(crate) fn check_stored(header: &BatchHeader) -> Result<(), BatchError> {
    let BatchHeader { base_offset, record_count, last_offset_delta, .. } = *header;
    if header.offsets().is_none() {
        return Err(BatchError::Offsets { base_offset, last_offset_delta });
    }
    if record_count < 0 || i64::from(record_count) > i64::from(last_offset_delta) + 1 {
        return Err(BatchError::Count { record_count, last_offset_delta });
    }
    Ok(())
}

/// Size and checksum, before any field is believed.
#[inline]
fn intact(bytes: &[u8]) -> Result<(BatchHeader, Codec), BatchError> {
    let header = BatchHeader::decode(bytes)?;
    let BatchHeader { base_offset, crc: stored, attributes, .. } = header;
    if header.batch_bytes() != bytes.len() {
        let (batch_bytes, given) = (header.batch_bytes(), bytes.len());
        return Err(BatchError::Size { base_offset, batch_bytes, given });
    }
    let computed = crc32c(&bytes[ATTRIBUTES_AT..]);
    if computed != stored {
        return Err(BatchError::Crc { base_offset, stored, computed });
    }
    let bits = attributes.codec_bits();
    let codec = attributes.codec().ok_or(BatchError::UnknownCodec { base_offset, bits })?;
    Ok((header, codec))
}

#[inline]
fn walk(records: &[u8], count: u32, headers_max: u32) -> Result<(), BatchError> {
    let mut left = records;
    for index in 0..count {
        let pos = records.len() - left.len();
        let record = RawRecord::decode(&mut left, headers_max)
            .map_err(|source| BatchError::Record { index, pos, source })?;
        if record.offset_delta != index as i32 {
            return Err(BatchError::OffsetDelta { index, offset_delta: record.offset_delta });
        }
    }
    if left.is_empty() { Ok(()) } else { Err(BatchError::Trailing { bytes: left.len() }) }
}
