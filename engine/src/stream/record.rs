//! A record that shares its memory with the others it came with.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::batch::{Headers, RecordView};
use crate::types::Offset;

/// A record of a stream. It owns what it shows, and shares that with the records beside it: to clone it copies no
/// bytes, and to keep it keeps all of its fetch, or of its batch if that was compressed.
#[derive(Clone)]
pub struct Record {
    memory: Arc<Vec<u8>>,
    key: Option<Range<u32>>,
    value: Option<Range<u32>>,
    headers: Range<u32>,
    header_count: u32,
    offset: Offset,
    timestamp: i64,
    attributes: i8,
    control: bool,
}

impl Record {
    /// The record that `view` shows of `memory`.
    pub(super) fn new(memory: &Arc<Vec<u8>>, view: &RecordView<'_>, control: bool) -> Self {
        let within = |part: &[u8]| within(memory, part);
        let headers = view.headers();
        Self {
            memory: memory.clone(),
            key: view.key.map(within),
            value: view.value.map(within),
            headers: within(headers.bytes()),
            header_count: headers.len() as u32,
            offset: view.offset,
            timestamp: view.timestamp,
            attributes: view.attributes,
            control,
        }
    }

    fn part(&self, range: &Range<u32>) -> &[u8] {
        &self.memory[range.start as usize..range.end as usize]
    }

    /// Where the record stands in its partition.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// Milliseconds since 1970-01-01 UTC: when the record was made, or when the log took it, as the batch's timestamp
    /// type says; -1 for none.
    #[must_use]
    pub fn timestamp(&self) -> i64 {
        self.timestamp
    }

    /// The key, if it is not null.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.key.as_ref().map(|range| self.part(range))
    }

    /// The value, if it is not null.
    #[must_use]
    pub fn value(&self) -> Option<&[u8]> {
        self.value.as_ref().map(|range| self.part(range))
    }

    /// The headers, in the order they were written.
    #[must_use]
    pub fn headers(&self) -> Headers<'_> {
        Headers::walked(self.header_count, self.part(&self.headers))
    }

    /// The record's attributes. Kafka has not given any bit a meaning.
    #[must_use]
    pub fn attributes(&self) -> i8 {
        self.attributes
    }

    /// Whether it is of a control batch: a marker between replicas, such as a transaction's end.
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.control
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("offset", &self.offset)
            .field("timestamp", &self.timestamp)
            .field("key", &self.key())
            .field("value", &self.value())
            .field("headers", &self.header_count)
            .finish_non_exhaustive()
    }
}

/// Where `part` lies in the memory that it is a part of.
fn within(memory: &[u8], part: &[u8]) -> Range<u32> {
    if part.is_empty() {
        // It may be of no memory at all.
        return 0..0;
    }
    let start = part.as_ptr().addr() - memory.as_ptr().addr();
    assert!(start + part.len() <= memory.len(), "a record shows bytes of its own batch");
    start as u32..(start + part.len()) as u32
}
