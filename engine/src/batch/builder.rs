//! Building a batch: records are encoded one behind the other into one vector, in a single pass.

use super::{Batch, BatchError, codec};
use crate::format::batch_header::{
    ATTRIBUTES_AT, Attributes, BatchHeader, CRC_AT, Codec, HEADER_BYTES, LEADER_EPOCH_AT,
};
use crate::format::crc::crc32c;
use crate::format::record::{Header, NewRecord};
use crate::format::varint::varint_bytes;
use crate::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, RECORD_BYTES_MAX, RECORD_HEADERS_MAX};

const _: () = assert!(
    HEADER_BYTES + RECORD_BYTES_MAX <= BATCH_BYTES_MAX,
    "the largest record fits into a batch of its own"
);

/// Stands for no timestamp.
const NO_TIMESTAMP: i64 = -1;

/// How a batch that is being built is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all. The default.
    #[default]
    None,
    /// LZ4 frame, as Kafka's own client writes it: independent blocks of 64 KiB, no checksums.
    Lz4,
    /// Zstandard.
    Zstd {
        /// zstd's level, 3 being its default.
        level: i32,
    },
}

impl Compression {
    /// The codec that a batch's attributes name.
    #[must_use]
    pub const fn codec(self) -> Codec {
        match self {
            Self::None => Codec::None,
            Self::Lz4 => Codec::Lz4,
            Self::Zstd { .. } => Codec::Zstd,
        }
    }
}

/// The idempotent producer of a batch. The default is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Producer {
    /// Its id, -1 for none.
    pub id: i64,
    /// Its epoch, -1 for none.
    pub epoch: i16,
    /// The sequence number of the batch's first record, -1 for none.
    pub base_sequence: i32,
}

impl Default for Producer {
    fn default() -> Self {
        Self { id: -1, epoch: -1, base_sequence: -1 }
    }
}

/// Builds one [`Batch`]. Without compression it allocates nothing but the vector it writes to, and
/// nothing at all if that came from [`BatchBuilder::reuse`] with enough room.
///
/// ```
/// use ringmain::batch::{BatchBuilder, Compression};
///
/// let mut builder = BatchBuilder::new().compression(Compression::Lz4);
/// builder.add(1_700_000_000_000, Some(b"key"), Some(b"value"))?;
/// builder.add(1_700_000_000_001, Some(b"key"), None)?;
/// let batch = builder.build()?;
/// assert_eq!(batch.record_count(), 2);
///
/// let mut next = BatchBuilder::reuse(batch.into_bytes());
/// next.add(1_700_000_000_002, None, Some(b"no allocation"))?;
/// # Ok::<(), ringmain::batch::BatchError>(())
/// ```
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    /// Room for the header, then the records so far, not compressed.
    bytes: Vec<u8>,
    compression: Compression,
    producer: Producer,
    base_timestamp: i64,
    max_timestamp: i64,
    record_count: u32,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchBuilder {
    /// An empty batch in fresh memory.
    #[must_use]
    pub fn new() -> Self {
        Self::reuse(Vec::new())
    }

    /// An empty batch in the memory of `memory`, whose content is dropped.
    #[must_use]
    pub fn reuse(mut memory: Vec<u8>) -> Self {
        memory.clear();
        memory.resize(HEADER_BYTES, 0);
        Self {
            bytes: memory,
            compression: Compression::None,
            producer: Producer::default(),
            base_timestamp: NO_TIMESTAMP,
            max_timestamp: NO_TIMESTAMP,
            record_count: 0,
        }
    }

    /// Compresses the records when the batch is built.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Names the idempotent producer.
    #[must_use]
    pub fn producer(mut self, producer: Producer) -> Self {
        self.producer = producer;
        self
    }

    /// Adds a record; `timestamp` is in milliseconds since 1970-01-01 UTC, or -1 for none.
    ///
    /// # Errors
    /// As [`BatchBuilder::add_with_headers`].
    #[inline]
    pub fn add(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<(), BatchError> {
        self.add_with_headers(timestamp, key, value, &[])
    }

    /// Adds a record with headers.
    ///
    /// # Errors
    /// The batch is unchanged and can go on after any of them: [`BatchError::Full`] if it has no room
    /// left, [`BatchError::RecordTooLarge`] if no batch has, [`BatchError::TooManyRecords`],
    /// [`BatchError::Timestamp`].
    pub fn add_with_headers(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> Result<(), BatchError> {
        if timestamp < NO_TIMESTAMP {
            return Err(BatchError::Timestamp { timestamp });
        }
        if self.record_count == BATCH_RECORDS_MAX {
            return Err(BatchError::TooManyRecords { max: BATCH_RECORDS_MAX });
        }
        let first = self.record_count == 0;
        let base_timestamp = if first { timestamp } else { self.base_timestamp };
        let record = NewRecord {
            // Neither is below -1, so this can not overflow.
            timestamp_delta: timestamp - base_timestamp,
            offset_delta: self.record_count as i32,
            key,
            value,
            headers,
        };
        let body_bytes = self.room_for(&record)?;
        record.encode(body_bytes, &mut self.bytes);
        self.base_timestamp = base_timestamp;
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.record_count += 1;
        Ok(())
    }

    /// The record's length without the length before it, if the batch has room for it.
    fn room_for(&self, record: &NewRecord<'_>) -> Result<i32, BatchError> {
        let (max, headers_max) = (RECORD_BYTES_MAX, RECORD_HEADERS_MAX);
        let too_large = BatchError::RecordTooLarge { max, headers_max };
        let Some(body_bytes) = record.body_bytes() else { return Err(too_large) };
        let record_bytes = varint_bytes(body_bytes) + body_bytes as usize;
        if record_bytes > max || record.headers.len() > headers_max as usize {
            return Err(too_large);
        }
        let left = BATCH_BYTES_MAX - self.bytes.len();
        if record_bytes > left {
            return Err(BatchError::Full { record_bytes, left });
        }
        Ok(body_bytes)
    }

    /// How many records were added.
    #[must_use]
    pub fn len(&self) -> usize {
        self.record_count as usize
    }

    /// Whether no record was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// Length of the batch so far, in bytes, header included, before compression.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The finished batch. Its base offset is 0 and its leader epoch -1 until a log appends it.
    ///
    /// # Errors
    /// [`BatchError::Empty`] without a record, [`BatchError::Codec`] if the compressor fails, and
    /// [`BatchError::TooLarge`] if records that do not compress fill the batch to its limit and the
    /// codec's own framing goes above it.
    pub fn build(mut self) -> Result<Batch, BatchError> {
        if self.record_count == 0 {
            return Err(BatchError::Empty);
        }
        let codec = self.compression.codec();
        codec::compress(self.compression, &mut self.bytes, HEADER_BYTES)
            .map_err(|source| BatchError::Codec { codec, source })?;
        let batch_bytes = self.bytes.len();
        if batch_bytes > BATCH_BYTES_MAX {
            return Err(BatchError::TooLarge { batch_bytes, max: BATCH_BYTES_MAX });
        }
        let mut header = BatchHeader {
            base_offset: 0,
            batch_length: (batch_bytes - LEADER_EPOCH_AT) as i32,
            leader_epoch: -1,
            crc: 0,
            attributes: Attributes::new(codec),
            last_offset_delta: self.record_count as i32 - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: self.producer.id,
            producer_epoch: self.producer.epoch,
            base_sequence: self.producer.base_sequence,
            record_count: self.record_count as i32,
        };
        self.bytes[..HEADER_BYTES].copy_from_slice(&header.encode());
        header.crc = crc32c(&self.bytes[ATTRIBUTES_AT..]);
        self.bytes[CRC_AT..ATTRIBUTES_AT].copy_from_slice(&header.crc.to_be_bytes());
        Ok(Batch::made(self.bytes, &header))
    }
}
