//! Why bytes are no batch, or a batch can not be built or read.

use thiserror::Error;

use super::codec::CodecError;
use crate::format::batch_header::{Codec, HeaderError};
use crate::format::record::RecordError;

/// Why bytes are no batch, or a batch can not be built or read.
#[derive(Debug, Error)]
pub enum BatchError {
    /// They do not begin with a batch's header.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// They end before the batch does, or go on behind it.
    #[error("the batch at offset {base_offset} has {batch_bytes} bytes, {given} are given")]
    Size {
        /// The batch's first offset, as it stands.
        base_offset: i64,
        /// Its length by its header, in bytes.
        batch_bytes: usize,
        /// The bytes there are.
        given: usize,
    },
    /// The batch is larger than allowed.
    #[error("a batch of {batch_bytes} bytes, {max} are allowed")]
    TooLarge {
        /// The batch's length, in bytes.
        batch_bytes: usize,
        /// The most that is allowed.
        max: usize,
    },
    /// The batch was damaged.
    #[error(
        "the batch at offset {base_offset} is damaged: \
         checksum {computed:08x}, {stored:08x} is stored"
    )]
    Crc {
        /// The batch's first offset, as it stands; the checksum does not cover it.
        base_offset: i64,
        /// What the header says.
        stored: u32,
        /// What the bytes say.
        computed: u32,
    },
    /// A codec that is not known.
    #[error("the batch at offset {base_offset} has an unknown codec, {bits}")]
    UnknownCodec {
        /// The batch's first offset, as it stands.
        base_offset: i64,
        /// The codec's number.
        bits: u8,
    },
    /// The number of records contradicts the last offset, or there are none.
    #[error("{record_count} records contradict a last offset delta of {last_offset_delta}")]
    Count {
        /// How many records the header announces.
        record_count: i32,
        /// The last offset minus the first.
        last_offset_delta: i32,
    },
    /// More records than allowed.
    #[error("more than {max} records")]
    TooManyRecords {
        /// The most that is allowed.
        max: u32,
    },
    /// Offsets that no log has.
    #[error("no log has offsets from {base_offset} to {last_offset_delta} further on")]
    Offsets {
        /// The batch's first offset.
        base_offset: i64,
        /// The last offset minus the first.
        last_offset_delta: i32,
    },
    /// A control batch, which only a log's owner may write.
    #[error("a producer may not append a control batch")]
    Control,
    /// A record is malformed.
    #[error("record {index}, at byte {pos} of the records: {source}")]
    Record {
        /// Which record, from 0.
        index: u32,
        /// Where it begins among the (decompressed) records, in bytes.
        pos: usize,
        /// What is wrong with it.
        source: RecordError,
    },
    /// A record's offset is not one that it can have.
    #[error("record {index} has offset delta {offset_delta}")]
    OffsetDelta {
        /// Which record, from 0.
        index: u32,
        /// Its offset minus the batch's.
        offset_delta: i32,
    },
    /// Bytes follow the last record.
    #[error("{bytes} bytes follow the last record")]
    Trailing {
        /// How many bytes.
        bytes: usize,
    },
    /// The records can not be compressed or decompressed.
    #[error("{codec:?}: {source}")]
    Codec {
        /// By which codec.
        codec: Codec,
        /// Why.
        source: CodecError,
    },
    /// The record does not fit into the batch that is being built, which is as it was: build it, and
    /// begin another.
    #[error("a record of {record_bytes} bytes has no room in the batch, {left} bytes are left")]
    Full {
        /// The record's length, in bytes.
        record_bytes: usize,
        /// The bytes that are left.
        left: usize,
    },
    /// The record is larger than any batch can take.
    #[error("a record larger than {max} bytes, or with more than {headers_max} headers")]
    RecordTooLarge {
        /// The most bytes of a record.
        max: usize,
        /// The most headers of a record.
        headers_max: u32,
    },
    /// A time before 1970 that is not -1, which stands for none.
    #[error("{timestamp} is no timestamp")]
    Timestamp {
        /// The time as it was given, in milliseconds.
        timestamp: i64,
    },
    /// A batch without records was to be built.
    #[error("a batch needs a record")]
    Empty,
}
