//! Reading batches: views over bytes that someone else holds.

use std::cell::OnceCell;

use super::{BatchError, Limits, codec, validate_stored};
use crate::format::batch_header::{BatchHeader, Codec, HEADER_BYTES, TimestampType};
use crate::format::record::{RawRecord, RecordView};
use crate::types::Offset;

/// Goes over consecutive whole batches, such as a fetch returns. Each is checked against its CRC. The
/// first error ends it: where the next batch begins is not known then.
///
/// ```
/// # use ringmain::batch::{BatchBuilder, BatchError, batches};
/// # let mut builder = BatchBuilder::new();
/// # builder.add(-1, None, Some(b"value"))?;
/// # let fetched = builder.build()?.into_bytes();
/// for batch in batches(&fetched) {
///     let batch = batch?;
///     for record in batch.records()? {
///         let record = record?;
///         println!("{}: {:?}", record.offset, record.value);
///     }
/// }
/// # Ok::<(), BatchError>(())
/// ```
#[must_use]
pub fn batches(bytes: &[u8]) -> Batches<'_> {
    Batches { bytes, pos: 0, failed: false }
}

/// The iterator of [`batches`].
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    bytes: &'a [u8],
    pos: usize,
    failed: bool,
}

impl<'a> Batches<'a> {
    /// Where the next batch begins, in bytes; after an error, where the bad one does.
    #[must_use]
    pub fn pos(&self) -> usize {
        self.pos
    }

    fn read(&self) -> Result<BatchView<'a>, BatchError> {
        let left = &self.bytes[self.pos..];
        let header = BatchHeader::decode(left)?;
        let (batch_bytes, given) = (header.batch_bytes(), left.len());
        let base_offset = header.base_offset;
        let batch =
            left.get(..batch_bytes).ok_or(BatchError::Size { base_offset, batch_bytes, given })?;
        BatchView::new(batch)
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<BatchView<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.pos == self.bytes.len() {
            return None;
        }
        let batch = self.read();
        match &batch {
            Ok(view) => self.pos += view.as_bytes().len(),
            Err(_) => self.failed = true,
        }
        Some(batch)
    }
}

/// One intact batch over borrowed bytes. Records are decoded, and decompressed, when asked for.
#[derive(Clone, Debug)]
pub struct BatchView<'a> {
    bytes: &'a [u8],
    header: BatchHeader,
    codec: Codec,
    base_offset: Offset,
    last_offset: Offset,
    /// The records, once decompressed. Kept, so that they can be gone over again.
    decompressed: OnceCell<Vec<u8>>,
}

impl<'a> BatchView<'a> {
    /// A view over exactly one batch, which is checked as [`validate_stored`] does.
    ///
    /// # Errors
    /// [`BatchError`].
    pub fn new(bytes: &'a [u8]) -> Result<Self, BatchError> {
        let header = validate_stored(bytes)?;
        let codec = header.attributes.codec().expect("validated");
        let (base_offset, last_offset) = header.offsets().expect("validated");
        let decompressed = OnceCell::new();
        Ok(Self { bytes, header, codec, base_offset, last_offset, decompressed })
    }

    /// The encoded batch.
    #[must_use]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The first offset of the batch. The record that had it may be gone.
    #[must_use]
    pub fn base_offset(&self) -> Offset {
        self.base_offset
    }

    /// The last offset of the batch. The record that had it may be gone.
    #[must_use]
    pub fn last_offset(&self) -> Offset {
        self.last_offset
    }

    /// How the records are compressed.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// The records, within the default [`Limits`].
    ///
    /// # Errors
    /// As [`BatchView::records_within`].
    pub fn records(&self) -> Result<Records<'_>, BatchError> {
        self.records_within(&Limits::default())
    }

    /// The records, one by one as the iterator is asked. A compressed batch is decompressed here, the
    /// first time, into memory that the view keeps.
    ///
    /// # Errors
    /// [`BatchError::Codec`] if the records do not decompress, or only to more than
    /// [`Limits::decompressed_bytes`].
    pub fn records_within(&self, limits: &Limits) -> Result<Records<'_>, BatchError> {
        Ok(Records {
            all: self.decompressed(limits)?,
            header: &self.header,
            progress: Progress::new(self.base_offset, limits.headers),
        })
    }

    /// The encoded records, decompressed.
    pub(crate) fn decompressed(&self, limits: &Limits) -> Result<&[u8], BatchError> {
        let stored = &self.bytes[HEADER_BYTES..];
        if self.codec == Codec::None || self.header.record_count == 0 {
            return Ok(stored);
        }
        if let Some(records) = self.decompressed.get() {
            return Ok(records);
        }
        let mut records = Vec::new();
        codec::decompress(self.codec, stored, &mut records, limits.decompressed_bytes)
            .map_err(|source| BatchError::Codec { codec: self.codec, source })?;
        Ok(self.decompressed.get_or_init(|| records))
    }
}

/// The records of one batch, decoded as they are asked for. The first error ends the iteration.
#[derive(Clone, Debug)]
pub struct Records<'v> {
    all: &'v [u8],
    header: &'v BatchHeader,
    progress: Progress,
}

impl<'v> Iterator for Records<'v> {
    type Item = Result<RecordView<'v>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.progress.next(self.all, self.header)
    }
}

/// How far a batch's records have been read: what goes over them without a hold on them.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    base_offset: Offset,
    headers_max: u32,
    pos: usize,
    index: u32,
    /// What the next record's offset delta is at least: compaction leaves gaps, never disorder.
    offset_delta_min: i64,
    ended: bool,
}

impl Progress {
    /// Before the first record of a batch that begins with `base_offset`.
    pub(crate) fn new(base_offset: Offset, headers_max: u32) -> Self {
        Self { base_offset, headers_max, pos: 0, index: 0, offset_delta_min: 0, ended: false }
    }

    /// The next of the records `all`, which are decompressed and always the same.
    pub(crate) fn next<'v>(
        &mut self,
        all: &'v [u8],
        header: &BatchHeader,
    ) -> Option<Result<RecordView<'v>, BatchError>> {
        if self.ended {
            return None;
        }
        if self.index < header.record_count as u32 {
            let record = self.read(all, header);
            self.ended = record.is_err();
            return Some(record);
        }
        self.ended = true;
        let bytes = all.len() - self.pos;
        // A batch whose records compaction removed has no section to speak of.
        (bytes != 0 && self.index != 0).then_some(Err(BatchError::Trailing { bytes }))
    }

    fn read<'v>(
        &mut self,
        all: &'v [u8],
        header: &BatchHeader,
    ) -> Result<RecordView<'v>, BatchError> {
        let (index, pos) = (self.index, self.pos);
        let mut left = &all[pos..];
        let record = RawRecord::decode(&mut left, self.headers_max)
            .map_err(|source| BatchError::Record { index, pos, source })?;
        let delta = i64::from(record.offset_delta);
        if delta < self.offset_delta_min || delta > i64::from(header.last_offset_delta) {
            return Err(BatchError::OffsetDelta { index, offset_delta: record.offset_delta });
        }
        self.pos = all.len() - left.len();
        self.index += 1;
        self.offset_delta_min = delta + 1;
        let timestamp = match header.attributes.timestamp_type() {
            // Wraps as Kafka's does: any two times a producer can have come back right.
            TimestampType::Create => header.base_timestamp.wrapping_add(record.timestamp_delta),
            TimestampType::Append => header.max_timestamp,
        };
        Ok(RecordView {
            attributes: record.attributes,
            timestamp,
            offset: self.base_offset.plus(delta as u32),
            key: record.key,
            value: record.value,
            headers: record.headers,
        })
    }
}

/// Where the records of a batch are that was checked before, with its header.
///
/// # Errors
/// [`BatchError`], if it was not.
pub(crate) fn unpack(bytes: &[u8], limits: &Limits) -> Result<Unpacked, BatchError> {
    let header = BatchHeader::decode(bytes)?;
    let bits = header.attributes.codec_bits();
    let base_offset = header.base_offset;
    let codec = header.attributes.codec().ok_or(BatchError::UnknownCodec { base_offset, bits })?;
    if codec == Codec::None || header.record_count == 0 {
        return Ok(Unpacked { header, records: None });
    }
    let mut records = Vec::new();
    codec::decompress(codec, &bytes[HEADER_BYTES..], &mut records, limits.decompressed_bytes)
        .map_err(|source| BatchError::Codec { codec, source })?;
    Ok(Unpacked { header, records: Some(records) })
}

/// A batch's records, as they can be gone over with a [`Progress`].
pub(crate) struct Unpacked {
    pub(crate) header: BatchHeader,
    /// The decompressed records; `None` if they are in the batch as they are.
    pub(crate) records: Option<Vec<u8>>,
}
