//! Record batches: built, checked, and read without copying.
//!
//! A producer fills a [`BatchBuilder`] and gets a [`Batch`]; the engine takes it as it is, gives it an
//! offset and writes it out. A reader goes over fetched bytes with [`batches`] and each batch's
//! [`BatchView::records`].
//!
//! # Invariants
//! - A [`Batch`] always holds exactly one batch that [`validate()`] accepts.
//! - Nothing that is read from a batch decides how much is allocated: what is decompressed grows as
//!   bytes come out, up to [`Limits::decompressed_bytes`].

mod builder;
mod codec;
mod error;
mod lz4;
mod reader;
mod snappy;
mod validate;

pub use builder::{BatchBuilder, Compression, Producer};
pub use codec::CodecError;
pub(crate) use codec::compress_as;
pub use error::BatchError;
pub use reader::{BatchView, Batches, Records, batches};
pub(crate) use reader::{Progress, unpack};
pub(crate) use validate::check_stored;
pub use validate::{validate, validate_stored};

pub use crate::format::batch_header::{Attributes, BatchHeader, Codec, HeaderError, TimestampType};
pub use crate::format::record::{Header, Headers, RecordError, RecordField, RecordView};

use crate::limits;

/// What a batch may cost to accept and to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest batch that is accepted, in bytes.
    pub batch_bytes: usize,
    /// Most records of a batch that is accepted.
    pub records: u32,
    /// Most headers of a record.
    pub headers: u32,
    /// Most bytes the records of one batch may have once decompressed. While that memory grows, half as
    /// much again is held for a moment.
    pub decompressed_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch_bytes: limits::BATCH_BYTES_MAX,
            records: limits::BATCH_RECORDS_MAX,
            headers: limits::RECORD_HEADERS_MAX,
            decompressed_bytes: limits::DECOMPRESSED_BYTES_MAX,
        }
    }
}

/// One encoded record batch, ready to be appended: well-formed and intact, with at least one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    bytes: Vec<u8>,
    // What an append asks for. The whole header would make every move of a batch a copy of two cache lines.
    records: u32,
    crc: u32,
    max_timestamp: i64,
}

impl Batch {
    /// Takes bytes that a producer encoded, such as those of a Kafka produce request, if they are
    /// exactly one batch. Records inside a compressed batch are not looked at.
    ///
    /// # Errors
    /// [`BatchError`], as [`validate()`] has it for the default [`Limits`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, BatchError> {
        let header = validate(&bytes, &Limits::default())?;
        Ok(Self::made(bytes, &header))
    }

    /// A batch of these bytes, which begin with `header`.
    fn made(bytes: Vec<u8>, header: &BatchHeader) -> Self {
        let BatchHeader { crc, max_timestamp, record_count, .. } = *header;
        Self { bytes, records: record_count as u32, crc, max_timestamp }
    }

    /// A copy of the batch in the memory of `memory`, whose content is dropped: for those who send one batch to
    /// several logs, without a new check and without an allocation.
    #[must_use]
    pub fn copy_in(&self, mut memory: Vec<u8>) -> Self {
        memory.clear();
        memory.extend_from_slice(&self.bytes);
        Self { bytes: memory, ..*self }
    }

    /// The encoded batch.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The encoded batch, and the end of the guarantee.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The batch's header.
    #[must_use]
    pub fn header(&self) -> BatchHeader {
        BatchHeader::decode(&self.bytes).expect("a batch begins with its header")
    }

    /// How many records the batch has, and how many offsets it takes. Never 0.
    #[must_use]
    pub fn record_count(&self) -> u32 {
        self.records
    }

    /// CRC-32C of all from the attributes on, as in the header.
    #[must_use]
    pub fn crc(&self) -> u32 {
        self.crc
    }

    /// The latest timestamp, in milliseconds; -1 for none.
    #[must_use]
    pub fn max_timestamp(&self) -> i64 {
        self.max_timestamp
    }
}

#[cfg(test)]
mod tests;
