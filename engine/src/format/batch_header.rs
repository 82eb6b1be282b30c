//! The 61-byte header of Kafka's RecordBatch, magic 2; big-endian.
//!
//! The source is Kafka's documentation, "Record Batch", and its `DefaultRecordBatch`. The CRC-32C covers
//! everything from the attributes to the end of the batch: `baseOffset`, `batchLength`,
//! `partitionLeaderEpoch` and `magic` are outside, so that a leader can assign offsets without it.

use thiserror::Error;

use super::crc::{combine, crc32c};
use crate::types::Offset;

/// Where `baseOffset` (i64) begins.
pub const BASE_OFFSET_AT: usize = 0;
/// Where `batchLength` (i32) begins: the bytes that follow it.
pub const BATCH_LENGTH_AT: usize = BASE_OFFSET_AT + size_of::<i64>();
/// Where `partitionLeaderEpoch` (i32) begins. `batchLength` counts from here.
pub const LEADER_EPOCH_AT: usize = BATCH_LENGTH_AT + size_of::<i32>();
/// Where `magic` (i8) is.
pub const MAGIC_AT: usize = LEADER_EPOCH_AT + size_of::<i32>();
/// Where `crc` (u32) begins.
pub const CRC_AT: usize = MAGIC_AT + size_of::<i8>();
/// Where `attributes` (i16) begins. The CRC covers all from here.
pub const ATTRIBUTES_AT: usize = CRC_AT + size_of::<u32>();
/// Where `lastOffsetDelta` (i32) begins.
pub const LAST_OFFSET_DELTA_AT: usize = ATTRIBUTES_AT + size_of::<i16>();
/// Where `baseTimestamp` (i64) begins.
pub const BASE_TIMESTAMP_AT: usize = LAST_OFFSET_DELTA_AT + size_of::<i32>();
/// Where `maxTimestamp` (i64) begins.
pub const MAX_TIMESTAMP_AT: usize = BASE_TIMESTAMP_AT + size_of::<i64>();
/// Where `producerId` (i64) begins.
pub const PRODUCER_ID_AT: usize = MAX_TIMESTAMP_AT + size_of::<i64>();
/// Where `producerEpoch` (i16) begins.
pub const PRODUCER_EPOCH_AT: usize = PRODUCER_ID_AT + size_of::<i64>();
/// Where `baseSequence` (i32) begins.
pub const BASE_SEQUENCE_AT: usize = PRODUCER_EPOCH_AT + size_of::<i16>();
/// Where `recordsCount` (i32) begins.
pub const RECORD_COUNT_AT: usize = BASE_SEQUENCE_AT + size_of::<i32>();
/// Length of the header, in bytes: the records follow.
pub const HEADER_BYTES: usize = RECORD_COUNT_AT + size_of::<i32>();

const _: () = assert!(HEADER_BYTES == 61, "Kafka's RECORD_BATCH_OVERHEAD");

/// The only batch format that is read or written.
pub const MAGIC: i8 = 2;

/// Why bytes do not begin with a batch's header.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum HeaderError {
    /// Fewer bytes than a header.
    #[error("{given} bytes are no batch: its header alone has 61")]
    Truncated {
        /// How many bytes there were.
        given: usize,
    },
    /// A message format other than 2.
    #[error("message format (magic) {found} is not supported, only 2 is")]
    Magic {
        /// The format's number.
        found: i8,
    },
    /// A length that has no room for the header.
    #[error("a batch length of {batch_length} is less than the rest of a header, 49")]
    Length {
        /// `batchLength` as it stands.
        batch_length: i32,
    },
}

/// How a batch's records are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Not at all.
    #[default]
    None = 0,
    /// gzip (RFC 1952).
    Gzip = 1,
    /// Snappy, raw or in the framing of snappy-java.
    Snappy = 2,
    /// The LZ4 frame format.
    Lz4 = 3,
    /// Zstandard (RFC 8878).
    Zstd = 4,
}

/// What the timestamps of a batch mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TimestampType {
    /// When the producer made the record. The default.
    #[default]
    Create,
    /// When the log took the batch: one time for all its records, `maxTimestamp`.
    Append,
}

/// The attributes of a batch. Bits without a meaning are kept and ignored, as Kafka does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attributes(i16);

impl Attributes {
    const CODEC_MASK: i16 = 0b111;
    const APPEND_TIME: i16 = 1 << 3;
    const TRANSACTIONAL: i16 = 1 << 4;
    const CONTROL: i16 = 1 << 5;
    const DELETE_HORIZON: i16 = 1 << 6;

    /// The attributes of a plain batch whose records `codec` compressed.
    #[must_use]
    pub const fn new(codec: Codec) -> Self {
        Self(codec as i16)
    }

    /// Attributes as they stand in a header.
    #[must_use]
    pub const fn from_bits(bits: i16) -> Self {
        Self(bits)
    }

    /// As they stand in a header.
    #[must_use]
    pub const fn bits(self) -> i16 {
        self.0
    }

    /// The number of the codec, whether known or not.
    #[must_use]
    pub const fn codec_bits(self) -> u8 {
        (self.0 & Self::CODEC_MASK) as u8
    }

    /// The codec, if it is a known one.
    #[must_use]
    pub const fn codec(self) -> Option<Codec> {
        match self.codec_bits() {
            0 => Some(Codec::None),
            1 => Some(Codec::Gzip),
            2 => Some(Codec::Snappy),
            3 => Some(Codec::Lz4),
            4 => Some(Codec::Zstd),
            _ => None,
        }
    }

    /// What the timestamps mean.
    #[must_use]
    pub const fn timestamp_type(self) -> TimestampType {
        if self.0 & Self::APPEND_TIME == 0 { TimestampType::Create } else { TimestampType::Append }
    }

    /// Whether the batch belongs to a transaction.
    #[must_use]
    pub const fn is_transactional(self) -> bool {
        self.0 & Self::TRANSACTIONAL != 0
    }

    /// Whether the batch is a marker between replicas, not for a consumer's eyes.
    #[must_use]
    pub const fn is_control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }

    /// Whether `baseTimestamp` is the time from which compaction may drop the batch's tombstones.
    #[must_use]
    pub const fn has_delete_horizon(self) -> bool {
        self.0 & Self::DELETE_HORIZON != 0
    }
}

/// A batch's header. Times are milliseconds since 1970-01-01 UTC, or -1 for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// The first record's offset; before the append whatever the producer wrote.
    pub base_offset: i64,
    /// How many bytes follow the length itself.
    pub batch_length: i32,
    /// The epoch of the leader that appended the batch, -1 for none.
    pub leader_epoch: i32,
    /// CRC-32C of all from the attributes on, as stored.
    pub crc: u32,
    /// Codec, timestamp type and flags.
    pub attributes: Attributes,
    /// The last offset minus the first. Compaction keeps it, even where it removes the last record.
    pub last_offset_delta: i32,
    /// What the records' timestamps count from.
    pub base_timestamp: i64,
    /// The latest timestamp.
    pub max_timestamp: i64,
    /// The idempotent producer, -1 for none.
    pub producer_id: i64,
    /// The idempotent producer's epoch, -1 for none.
    pub producer_epoch: i16,
    /// The first record's sequence number, -1 for none.
    pub base_sequence: i32,
    /// How many records the batch holds.
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads the header at the beginning of `bytes`. Nothing is believed but the magic and that the
    /// length has room for a header.
    ///
    /// # Errors
    /// [`HeaderError`].
    #[inline]
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(HeaderError::Truncated { given: bytes.len() });
        };
        let magic = bytes[MAGIC_AT] as i8;
        if magic != MAGIC {
            return Err(HeaderError::Magic { found: magic });
        }
        let batch_length = i32::from_be_bytes(field(bytes, BATCH_LENGTH_AT));
        if batch_length < (HEADER_BYTES - LEADER_EPOCH_AT) as i32 {
            return Err(HeaderError::Length { batch_length });
        }
        Ok(Self {
            base_offset: i64::from_be_bytes(field(bytes, BASE_OFFSET_AT)),
            batch_length,
            leader_epoch: i32::from_be_bytes(field(bytes, LEADER_EPOCH_AT)),
            crc: u32::from_be_bytes(field(bytes, CRC_AT)),
            attributes: Attributes(i16::from_be_bytes(field(bytes, ATTRIBUTES_AT))),
            last_offset_delta: i32::from_be_bytes(field(bytes, LAST_OFFSET_DELTA_AT)),
            base_timestamp: i64::from_be_bytes(field(bytes, BASE_TIMESTAMP_AT)),
            max_timestamp: i64::from_be_bytes(field(bytes, MAX_TIMESTAMP_AT)),
            producer_id: i64::from_be_bytes(field(bytes, PRODUCER_ID_AT)),
            producer_epoch: i16::from_be_bytes(field(bytes, PRODUCER_EPOCH_AT)),
            base_sequence: i32::from_be_bytes(field(bytes, BASE_SEQUENCE_AT)),
            record_count: i32::from_be_bytes(field(bytes, RECORD_COUNT_AT)),
        })
    }

    /// The header as it stands in a log.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        put(&mut bytes, BASE_OFFSET_AT, self.base_offset.to_be_bytes());
        put(&mut bytes, BATCH_LENGTH_AT, self.batch_length.to_be_bytes());
        put(&mut bytes, LEADER_EPOCH_AT, self.leader_epoch.to_be_bytes());
        put(&mut bytes, MAGIC_AT, MAGIC.to_be_bytes());
        put(&mut bytes, CRC_AT, self.crc.to_be_bytes());
        put(&mut bytes, ATTRIBUTES_AT, self.attributes.0.to_be_bytes());
        put(&mut bytes, LAST_OFFSET_DELTA_AT, self.last_offset_delta.to_be_bytes());
        put(&mut bytes, BASE_TIMESTAMP_AT, self.base_timestamp.to_be_bytes());
        put(&mut bytes, MAX_TIMESTAMP_AT, self.max_timestamp.to_be_bytes());
        put(&mut bytes, PRODUCER_ID_AT, self.producer_id.to_be_bytes());
        put(&mut bytes, PRODUCER_EPOCH_AT, self.producer_epoch.to_be_bytes());
        put(&mut bytes, BASE_SEQUENCE_AT, self.base_sequence.to_be_bytes());
        put(&mut bytes, RECORD_COUNT_AT, self.record_count.to_be_bytes());
        bytes
    }

    /// Length of the whole batch in bytes: `batchLength` and what stands before it.
    #[must_use]
    pub const fn batch_bytes(&self) -> usize {
        self.batch_length as usize + LEADER_EPOCH_AT
    }

    /// The first and the last offset, unless one of them is none: negative, or with no offset after it.
    #[must_use]
    pub fn offsets(&self) -> Option<(Offset, Offset)> {
        let last = self.base_offset.checked_add(i64::from(self.last_offset_delta))?;
        let legal = self.base_offset >= 0 && self.last_offset_delta >= 0 && last < i64::MAX;
        legal.then(|| (Offset::new(self.base_offset), Offset::new(last)))
    }
}

/// Gives the batch in `batch` its first offset. The CRC does not cover it.
///
/// # Panics
/// If `batch` is shorter than a header.
pub fn set_base_offset(batch: &mut [u8], base_offset: Offset) {
    put(header_of(batch), BASE_OFFSET_AT, base_offset.get().to_be_bytes());
}

/// Gives the batch in `batch` its leader's epoch. The CRC does not cover it.
///
/// # Panics
/// If `batch` is shorter than a header.
pub fn set_leader_epoch(batch: &mut [u8], epoch: i32) {
    put(header_of(batch), LEADER_EPOCH_AT, epoch.to_be_bytes());
}

/// Stamps the batch that fills `batch` with the time of its append, in milliseconds: timestamp type,
/// `maxTimestamp` and the CRC.
///
/// The new CRC is made from the old one and the change to the header, never from the records: it
/// vouches for the bytes the producer sent, so a record that rots between validation and here is
/// still found.
///
/// # Panics
/// If `batch` is shorter than a header.
pub fn set_append_time(batch: &mut [u8], now_ms: i64) {
    let tail_bytes = batch.len().saturating_sub(HEADER_BYTES) as u64;
    let header = header_of(batch);
    let before = crc32c(&header[ATTRIBUTES_AT..]);
    let attributes = i16::from_be_bytes(field(header, ATTRIBUTES_AT)) | Attributes::APPEND_TIME;
    put(header, ATTRIBUTES_AT, attributes.to_be_bytes());
    put(header, MAX_TIMESTAMP_AT, now_ms.to_be_bytes());
    let change = before ^ crc32c(&header[ATTRIBUTES_AT..]);
    let crc = u32::from_be_bytes(field(header, CRC_AT));
    put(header, CRC_AT, combine(change, crc, tail_bytes).to_be_bytes());
}

fn header_of(batch: &mut [u8]) -> &mut [u8; HEADER_BYTES] {
    batch.first_chunk_mut().expect("a batch is at least as long as its header")
}

#[inline]
fn field<const N: usize>(header: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&header[at..at + N]);
    value
}

#[inline]
fn put<const N: usize>(header: &mut [u8; HEADER_BYTES], at: usize, value: [u8; N]) {
    header[at..at + N].copy_from_slice(&value);
}

#[cfg(test)]
mod tests;
