//! One record within a batch: a length, then varints and bytes.
//!
//! The source is Kafka's documentation, "Record", and its `DefaultRecord`:
//! `length varint, attributes i8, timestampDelta varlong, offsetDelta varint, key, value, headers`,
//! where a key and a value are a varint length (-1 for null) and bytes, and the headers are a varint
//! count and as many pairs of a key (never null) and a value.

use std::fmt;

use thiserror::Error;

use super::varint::{
    Run, VARINT_BYTES_MAX, VarintError, read_varint, read_varlong, varint_bytes, varlong_bytes,
    write_varint,
};
use crate::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX};
use crate::types::Offset;

/// The shortest record in bytes, its length included: no key, no value, no headers.
pub const RECORD_BYTES_MIN: usize = 7;

/// The shortest header in bytes: an empty key and no value.
const HEADER_BYTES_MIN: usize = 2;

const _: () = assert!(
    BATCH_BYTES_MAX / RECORD_BYTES_MIN <= BATCH_RECORDS_MAX as usize,
    "only a compressed batch can have more records than are accepted"
);

/// A part of a record, to say where decoding failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordField {
    /// The length before the record.
    Length,
    /// The attributes.
    Attributes,
    /// The timestamp, relative to the batch's.
    TimestampDelta,
    /// The offset, relative to the batch's.
    OffsetDelta,
    /// The key.
    Key,
    /// The value.
    Value,
    /// The number of headers.
    HeaderCount,
    /// A header's key.
    HeaderKey,
    /// A header's value.
    HeaderValue,
}

impl fmt::Display for RecordField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Length => "length",
            Self::Attributes => "attributes",
            Self::TimestampDelta => "timestamp delta",
            Self::OffsetDelta => "offset delta",
            Self::Key => "key",
            Self::Value => "value",
            Self::HeaderCount => "header count",
            Self::HeaderKey => "header key",
            Self::HeaderValue => "header value",
        })
    }
}

/// Why bytes are no record. Positions count from the byte after the record's length.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RecordError {
    /// A number that is none, or that the record's end cuts.
    #[error("the {field} at byte {pos} {source}")]
    Number {
        /// Which.
        field: RecordField,
        /// Where it begins.
        pos: usize,
        /// What is wrong with it.
        source: VarintError,
    },
    /// A length below -1, or -1 where null is not allowed, or beyond the bytes there are.
    #[error("the {field} at byte {pos} has length {length}, and {left} bytes are left")]
    Length {
        /// Of what.
        field: RecordField,
        /// Where the bytes would begin.
        pos: usize,
        /// The length as it stands.
        length: i32,
        /// The bytes there are.
        left: usize,
    },
    /// More headers than are accepted or than the bytes left can hold, or fewer than none.
    #[error("{count} headers, at most {max} are possible here")]
    HeaderCount {
        /// The count as it stands.
        count: i32,
        /// The most there could be.
        max: u32,
    },
    /// The record's fields end before the record.
    #[error("{bytes} bytes follow the last header")]
    Trailing {
        /// How many bytes are left over.
        bytes: usize,
    },
}

/// A record's header: a name and a value, both bytes. Names may repeat; their order is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The name. Kafka's clients write UTF-8.
    pub key: &'a [u8],
    /// The value, if it is not null.
    pub value: Option<&'a [u8]>,
}

impl<'a> Header<'a> {
    /// A header with a value.
    #[must_use]
    pub const fn new(key: &'a str, value: &'a [u8]) -> Self {
        Self { key: key.as_bytes(), value: Some(value) }
    }
}

/// The headers of a record, in order: an iterator that owns nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers<'a> {
    left: u32,
    /// Exactly `left` well-formed headers: they were walked when the record was decoded.
    bytes: &'a [u8],
}

impl<'a> Headers<'a> {
    /// `left` headers that were walked before, when their record was decoded.
    pub(crate) fn walked(left: u32, bytes: &'a [u8]) -> Self {
        Self { left, bytes }
    }

    /// The bytes of those that are left.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let mut fields = Fields { all: self.bytes, left: self.bytes };
        let header = fields.header().expect("headers were walked when the record was decoded");
        self.bytes = fields.left;
        Some(header)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Headers<'_> {}

/// A record as a reader sees it, borrowed from its batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// The record's attributes. Kafka has not given any bit a meaning.
    pub attributes: i8,
    /// Milliseconds since 1970-01-01 UTC: when the record was made, or when the log took it, as the
    /// batch's timestamp type says; -1 for none.
    pub timestamp: i64,
    /// Where the record stands in its partition.
    pub offset: Offset,
    /// The key, if it is not null.
    pub key: Option<&'a [u8]>,
    /// The value, if it is not null.
    pub value: Option<&'a [u8]>,
    pub(crate) headers: Headers<'a>,
}

impl<'a> RecordView<'a> {
    /// The headers, in the order they were written.
    #[must_use]
    pub fn headers(&self) -> Headers<'a> {
        self.headers.clone()
    }
}

/// A record as it stands in a batch: timestamp and offset count from the batch's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawRecord<'a> {
    /// The record's attributes.
    pub attributes: i8,
    /// Milliseconds since the batch's base timestamp, negative for an earlier one.
    pub timestamp_delta: i64,
    /// Records since the batch's base offset. May be anything in hostile bytes.
    pub offset_delta: i32,
    /// The key, if it is not null.
    pub key: Option<&'a [u8]>,
    /// The value, if it is not null.
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: Headers<'a>,
}

impl<'a> RawRecord<'a> {
    /// Reads one record and moves `bytes` past it. Every field is checked, headers included.
    ///
    /// # Errors
    /// [`RecordError`]; `bytes` is then anywhere between its beginning and its end.
    #[inline]
    pub fn decode(bytes: &mut &'a [u8], headers_max: u32) -> Result<Self, RecordError> {
        let mut outer = Fields { all: bytes, left: bytes };
        let length = outer.varint(RecordField::Length)?;
        let body = outer.take(length, RecordField::Length)?;
        *bytes = outer.left;

        let mut fields = Fields { all: body, left: body };
        let record = Self {
            attributes: fields.byte(RecordField::Attributes)?,
            timestamp_delta: fields.varlong(RecordField::TimestampDelta)?,
            offset_delta: fields.varint(RecordField::OffsetDelta)?,
            key: fields.nullable(RecordField::Key)?,
            value: fields.nullable(RecordField::Value)?,
            headers: fields.headers(headers_max)?,
        };
        if fields.left.is_empty() {
            Ok(record)
        } else {
            Err(RecordError::Trailing { bytes: fields.left.len() })
        }
    }
}

/// A cursor over one record, for errors that say where.
struct Fields<'a> {
    all: &'a [u8],
    left: &'a [u8],
}

impl<'a> Fields<'a> {
    fn pos(&self) -> usize {
        self.all.len() - self.left.len()
    }

    #[inline]
    fn varint(&mut self, field: RecordField) -> Result<i32, RecordError> {
        read_varint(&mut self.left).map_err(|source| RecordError::Number {
            field,
            pos: self.pos(),
            source,
        })
    }

    #[inline]
    fn varlong(&mut self, field: RecordField) -> Result<i64, RecordError> {
        read_varlong(&mut self.left).map_err(|source| RecordError::Number {
            field,
            pos: self.pos(),
            source,
        })
    }

    #[inline]
    fn byte(&mut self, field: RecordField) -> Result<i8, RecordError> {
        let Some((byte, left)) = self.left.split_first() else {
            let source = VarintError::Truncated;
            return Err(RecordError::Number { field, pos: self.pos(), source });
        };
        self.left = left;
        Ok(*byte as i8)
    }

    #[inline]
    fn take(&mut self, length: i32, field: RecordField) -> Result<&'a [u8], RecordError> {
        let split = usize::try_from(length).ok().and_then(|at| self.left.split_at_checked(at));
        let Some((taken, left)) = split else {
            let (pos, left) = (self.pos(), self.left.len());
            return Err(RecordError::Length { field, pos, length, left });
        };
        self.left = left;
        Ok(taken)
    }

    #[inline]
    fn nullable(&mut self, field: RecordField) -> Result<Option<&'a [u8]>, RecordError> {
        match self.varint(field)? {
            -1 => Ok(None),
            length => self.take(length, field).map(Some),
        }
    }

    fn header(&mut self) -> Result<Header<'a>, RecordError> {
        let length = self.varint(RecordField::HeaderKey)?;
        let key = self.take(length, RecordField::HeaderKey)?;
        Ok(Header { key, value: self.nullable(RecordField::HeaderValue)? })
    }

    #[inline]
    fn headers(&mut self, headers_max: u32) -> Result<Headers<'a>, RecordError> {
        let count = self.varint(RecordField::HeaderCount)?;
        if count == 0 {
            return Ok(Headers::default());
        }
        let room = u32::try_from(self.left.len() / HEADER_BYTES_MIN).unwrap_or(u32::MAX);
        let max = headers_max.min(room);
        let Some(left) = u32::try_from(count).ok().filter(|count| *count <= max) else {
            return Err(RecordError::HeaderCount { count, max });
        };
        let bytes = self.left;
        for _ in 0..left {
            self.header()?;
        }
        Ok(Headers { left, bytes: &bytes[..bytes.len() - self.left.len()] })
    }
}

/// A record to be written. Timestamp and offset count from the batch's.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    /// Milliseconds since the batch's base timestamp, negative for an earlier one.
    pub timestamp_delta: i64,
    /// Records since the batch's base offset.
    pub offset_delta: i32,
    /// The key, if any.
    pub key: Option<&'a [u8]>,
    /// The value, if any.
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: &'a [Header<'a>],
}

impl NewRecord<'_> {
    /// Length of the encoded record in bytes without the length before it, or `None` if that does not
    /// fit Kafka's signed 32 bits. No part's length overflows then either.
    #[must_use]
    pub fn body_bytes(&self) -> Option<i32> {
        let headers = self.headers.iter().try_fold(0_usize, |sum, header| {
            sum.checked_add(blob_bytes(Some(header.key)))?.checked_add(blob_bytes(header.value))
        })?;
        let fixed = size_of::<i8>()
            + varlong_bytes(self.timestamp_delta)
            + varint_bytes(self.offset_delta)
            + varint_bytes(i32::try_from(self.headers.len()).ok()?);
        let blobs = blob_bytes(self.key).checked_add(blob_bytes(self.value))?;
        i32::try_from(fixed.checked_add(blobs)?.checked_add(headers)?).ok()
    }

    /// Appends the record. `body_bytes` is what [`NewRecord::body_bytes`] said.
    pub fn encode(&self, body_bytes: i32, out: &mut Vec<u8>) {
        // All numbers up to the key go out as one run: a record is mostly small numbers.
        let mut head = Run::new();
        head.varint(body_bytes);
        head.byte(0);
        head.varlong(self.timestamp_delta);
        head.varint(self.offset_delta);
        head.varint(self.key.map_or(-1, |key| key.len() as i32));
        out.reserve(VARINT_BYTES_MAX + body_bytes as usize);
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(self.key.unwrap_or_default());
        write_blob(out, self.value);
        write_varint(out, self.headers.len() as i32);
        for header in self.headers {
            write_blob(out, Some(header.key));
            write_blob(out, header.value);
        }
    }
}

/// Bytes that a nullable run takes with its length. A run too long for Kafka counts at its true size,
/// so that the sum shows it.
fn blob_bytes(blob: Option<&[u8]>) -> usize {
    blob.map_or(1, |blob| varint_bytes(blob.len() as i32) + blob.len())
}

fn write_blob(out: &mut Vec<u8>, blob: Option<&[u8]>) {
    match blob {
        None => write_varint(out, -1),
        Some(blob) => {
            write_varint(out, blob.len() as i32);
            out.extend_from_slice(blob);
        }
    }
}

#[cfg(test)]
mod tests;
