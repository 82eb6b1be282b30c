//! A batch with fewer records: the bytes of those that stay, and a header that says so.

use crate::batch::{BatchError, BatchView, compress_as};
use crate::format::batch_header::{
    ATTRIBUTES_AT, Attributes, BatchHeader, CRC_AT, Codec, HEADER_BYTES, LEADER_EPOCH_AT,
    TimestampType,
};
use crate::format::crc::crc32c;
use crate::format::record::RawRecord;
use crate::format::varint::{Run, read_varint, read_varlong, varlong_bytes};
use crate::limits::{BATCH_BYTES_MAX, RECORD_HEADERS_MAX};
use crate::types::Offset;

/// What stays of a batch.
pub(super) struct Kept<'a> {
    /// Encoded records, each with its length, as they stand in the batch.
    pub(super) records: Vec<&'a [u8]>,
    /// The latest timestamp delta among them.
    pub(super) latest_delta: i64,
    /// Set where the batch has tombstones and no horizon yet.
    pub(super) horizon: Option<i64>,
}

/// Appends the batch with the records that stay, in its own codec. On an error nothing is appended.
pub(super) fn encode(
    batch: &BatchView<'_>,
    kept: &Kept<'_>,
    out: &mut Vec<u8>,
) -> Result<(), BatchError> {
    let header = batch.header();
    let codec = batch.codec();
    let mut bytes = vec![0; HEADER_BYTES];
    let (mut attributes, mut base_timestamp) = (header.attributes, header.base_timestamp);
    match kept.horizon {
        None => kept.records.iter().for_each(|record| bytes.extend_from_slice(record)),
        Some(horizon) => {
            let shift = base_timestamp.wrapping_sub(horizon);
            (attributes, base_timestamp) = (attributes.with_delete_horizon(), horizon);
            kept.records.iter().for_each(|record| shifted(record, shift, &mut bytes));
        }
    }
    compress_as(codec, &mut bytes, HEADER_BYTES)
        .map_err(|source| BatchError::Codec { codec, source })?;
    // It compresses worse than its producer made it: then it is no batch that anybody would read.
    if bytes.len() > BATCH_BYTES_MAX {
        return Err(BatchError::TooLarge { batch_bytes: bytes.len(), max: BATCH_BYTES_MAX });
    }
    let latest = header.base_timestamp.wrapping_add(kept.latest_delta);
    let max_timestamp = match attributes.timestamp_type() {
        TimestampType::Create => latest,
        TimestampType::Append => header.max_timestamp,
    };
    let record_count = kept.records.len() as i32;
    seal(
        BatchHeader { attributes, base_timestamp, max_timestamp, record_count, ..*header },
        &mut bytes,
    );
    out.extend_from_slice(&bytes);
    Ok(())
}

/// Appends the batch's header without any record: what is left of a producer.
pub(super) fn encode_empty(batch: &BatchView<'_>, out: &mut Vec<u8>) {
    let header = batch.header();
    let mut bytes = vec![0; HEADER_BYTES];
    let attributes = header.attributes.without_records();
    let base_timestamp = header.max_timestamp;
    seal(BatchHeader { attributes, base_timestamp, record_count: 0, ..*header }, &mut bytes);
    out.extend_from_slice(&bytes);
}

fn seal(header: BatchHeader, bytes: &mut [u8]) {
    let batch_length = (bytes.len() - LEADER_EPOCH_AT) as i32;
    let head = BatchHeader { batch_length, crc: 0, ..header }.encode();
    bytes[..HEADER_BYTES].copy_from_slice(&head);
    let crc = crc32c(&bytes[ATTRIBUTES_AT..]);
    bytes[CRC_AT..ATTRIBUTES_AT].copy_from_slice(&crc.to_be_bytes());
}

/// Appends a well-formed record with another timestamp delta.
fn shifted(record: &[u8], shift: i64, out: &mut Vec<u8>) {
    let whole = "the record was decoded";
    let mut left = record;
    read_varint(&mut left).expect(whole);
    let (attributes, mut left) = left.split_first().expect(whole);
    let delta = read_varlong(&mut left).expect(whole).wrapping_add(shift);
    let mut head = Run::new();
    head.varint((1 + varlong_bytes(delta) + left.len()) as i32);
    head.byte(*attributes);
    head.varlong(delta);
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(left);
}

/// Goes over a batch's decompressed records with their bytes and offsets.
pub(super) fn each<'a>(
    records: &'a [u8],
    batch: &BatchView<'_>,
    mut look: impl FnMut(&RawRecord<'a>, Offset, &'a [u8]),
) -> Result<(), BatchError> {
    let header = batch.header();
    let mut left = records;
    let mut least = 0;
    for index in 0..header.record_count as u32 {
        let before = left;
        let pos = records.len() - left.len();
        let record = RawRecord::decode(&mut left, RECORD_HEADERS_MAX)
            .map_err(|source| BatchError::Record { index, pos, source })?;
        let delta = record.offset_delta;
        if delta < least || delta > header.last_offset_delta {
            return Err(BatchError::OffsetDelta { index, offset_delta: delta });
        }
        least = delta.saturating_add(1);
        let offset = batch.base_offset().plus(delta as u32);
        look(&record, offset, &before[..before.len() - left.len()]);
    }
    let bytes = left.len();
    if bytes > 0 && header.record_count > 0 {
        return Err(BatchError::Trailing { bytes });
    }
    Ok(())
}

impl Attributes {
    const CODEC: i16 = 0b111;
    const HORIZON: i16 = 1 << 6;

    fn with_delete_horizon(self) -> Self {
        Self::from_bits(self.bits() | Self::HORIZON)
    }

    fn without_records(self) -> Self {
        Self::from_bits(self.bits() & !(Self::CODEC | Self::HORIZON) | Codec::None as i16)
    }
}
