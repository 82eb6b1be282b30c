//! Sealed segments read through from one end to the other, and held against their seals: what `verify` and an engine's
//! scrub look for.

use std::path::PathBuf;

use thiserror::Error;

use crate::batch::check_stored;
use crate::error::{Alteration, Fault};
use crate::format::batch_header::{ATTRIBUTES_AT, BatchHeader, HEADER_BYTES, HeaderError};
use crate::format::crc::crc32c_append;
use crate::format::fixed::FixedError;
use crate::format::seal::Seal;
use crate::limits::BATCH_BYTES_MAX;
use crate::types::{Incarnation, Offset, PartitionName};

/// A sealed segment that is not what was sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotten {
    /// The partition.
    pub partition: PartitionName,
    /// The segment's base offset.
    pub segment: Offset,
    /// The file: the segment's, or its seal's.
    pub path: PathBuf,
    /// Where in the file, in bytes; 0 if it is of the file as a whole.
    pub pos: u64,
    /// The first offset that may be lost.
    pub offset: Offset,
    /// What is wrong.
    pub what: Rot,
}

/// What is wrong with a sealed segment.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Rot {
    /// No batch begins where one must.
    #[error("no batch begins here: {0}")]
    Header(HeaderError),
    /// A batch's bytes are not those that were appended.
    #[error("the batch's checksum is {computed:08x}, {stored:08x} is stored")]
    Crc {
        /// What the batch says.
        stored: u32,
        /// What its bytes say.
        computed: u32,
    },
    /// A batch's header has a length, an offset, a count or a codec that can not be.
    #[error("the batch's header can not be right")]
    Fields,
    /// The file ends within a batch.
    #[error("the file ends within the batch")]
    Unfinished,
    /// A batch's offsets are not above those of the batch before it.
    #[error("a batch with offset {first} follows offset {after}")]
    Order {
        /// The batch's first offset.
        first: Offset,
        /// The least it could be.
        after: Offset,
    },
    /// It is another file, or of another length.
    #[error("{0}")]
    Altered(Alteration),
    /// The seal itself is damaged.
    #[error("the seal is {0}")]
    Seal(FixedError),
    /// It ends behind what was sealed.
    #[error("the segment ends at {found}, {sealed} was sealed")]
    Offsets {
        /// The offset after its last one.
        found: Offset,
        /// The offset that was sealed.
        sealed: Offset,
    },
    /// Bytes changed that no batch's checksum covers.
    #[error("the segment's checksum is {found:08x}, {sealed:08x} was sealed")]
    Checksum {
        /// What its bytes say.
        found: u32,
        /// What was sealed.
        sealed: u32,
    },
    /// Its largest timestamp is another.
    #[error("the segment's largest timestamp is {found}, {sealed} was sealed")]
    Timestamp {
        /// The largest of its batches, in milliseconds; -1 if none has one.
        found: i64,
        /// What was sealed.
        sealed: i64,
    },
    /// The disk does not give it back.
    #[error("{0}")]
    Unreadable(Fault),
}

/// What a segment came to that was read from its beginning to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReadThrough {
    pub(crate) base: Offset,
    /// The file's length.
    pub(crate) length: u64,
    /// The offset after its last one.
    pub(crate) next: Offset,
    /// CRC-32C of its bytes, as many as were sealed.
    pub(crate) crc: u32,
    /// Its largest timestamp; -1 if no batch has one.
    pub(crate) max_timestamp: i64,
}

impl ReadThrough {
    /// Holds it against a seal. The partition's life is known unless its own file is gone.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn check(&self, seal: &Seal, life: Option<Incarnation>) -> Result<(), Rot> {
        let (found, sealed) = (self.length, seal.length.get());
        if life.is_some_and(|life| life != seal.incarnation) {
            Err(Rot::Altered(Alteration::OtherLife))
        } else if seal.base_offset != self.base {
            Err(Rot::Altered(Alteration::Misplaced { sealed: seal.base_offset }))
        } else if found != sealed {
            Err(Rot::Altered(Alteration::Length { found, sealed }))
        } else if seal.next_offset < self.next {
            Err(Rot::Offsets { found: self.next, sealed: seal.next_offset })
        } else if seal.crc != self.crc {
            Err(Rot::Checksum { found: self.crc, sealed: seal.crc })
        } else if seal.max_timestamp != self.max_timestamp {
            Err(Rot::Timestamp { found: self.max_timestamp, sealed: seal.max_timestamp })
        } else {
            Ok(())
        }
    }
}

/// A batch of which the header was read.
#[derive(Clone, Copy, Debug)]
struct Begun {
    header: BatchHeader,
    /// Bytes behind the header that are still to come.
    left: usize,
    crc: u32,
}

/// Checks a segment's batches as its bytes come, in pieces of any length. Keeps none of them.
#[derive(Debug)]
pub(crate) struct Scrutiny {
    base: Offset,
    /// Bytes that came.
    pos: u64,
    /// Where the batch begins that is under way, or comes next.
    begin: u64,
    next: Offset,
    crc: u32,
    max_timestamp: i64,
    head: Vec<u8>,
    begun: Option<Begun>,
    /// Zeros may stand behind the last batch: of a segment without a seal the end is not known.
    open_end: bool,
}

impl Scrutiny {
    /// Nothing has come yet of the segment that begins with `base`.
    pub(crate) fn new(base: Offset, open_end: bool) -> Self {
        Self {
            base,
            pos: 0,
            begin: 0,
            next: base,
            crc: 0,
            max_timestamp: -1,
            head: Vec::with_capacity(HEADER_BYTES),
            begun: None,
            open_end,
        }
    }

    /// Where the batch begins that is under way or comes next, and the least offset it can have.
    pub(crate) fn place(&self) -> (u64, Offset) {
        (self.begin, self.next)
    }

    /// Takes the bytes that come next.
    ///
    /// # Errors
    /// What is wrong with the batch at [`Scrutiny::place`].
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<(), Rot> {
        self.crc = crc32c_append(self.crc, bytes);
        self.pos += bytes.len() as u64;
        let mut left = bytes;
        while !left.is_empty() {
            let Some(begun) = &mut self.begun else {
                let missing = (HEADER_BYTES - self.head.len()).min(left.len());
                let (head, rest) = left.split_at(missing);
                self.head.extend_from_slice(head);
                left = rest;
                if self.head.len() == HEADER_BYTES {
                    self.begin()?;
                }
                continue;
            };
            let (some, rest) = left.split_at(begun.left.min(left.len()));
            begun.crc = crc32c_append(begun.crc, some);
            begun.left -= some.len();
            left = rest;
            self.end_batch()?;
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<(), Rot> {
        if self.open_end && self.head.iter().all(|byte| *byte == 0) {
            self.head.clear();
            return Ok(());
        }
        let header = BatchHeader::decode(&self.head).map_err(Rot::Header)?;
        check_stored(&header).map_err(|_| Rot::Fields)?;
        let codec = header.attributes.codec();
        if codec.is_none() || header.batch_bytes() > BATCH_BYTES_MAX {
            return Err(Rot::Fields);
        }
        let crc = crc32c_append(0, &self.head[ATTRIBUTES_AT..]);
        self.begun = Some(Begun { header, left: header.batch_bytes() - HEADER_BYTES, crc });
        self.head.clear();
        self.end_batch()
    }

    /// Checks the batch under way, if all of it has come.
    fn end_batch(&mut self) -> Result<(), Rot> {
        let Some(Begun { header, crc, .. }) = self.begun.take_if(|begun| begun.left == 0) else {
            return Ok(());
        };
        if header.crc != crc {
            return Err(Rot::Crc { stored: header.crc, computed: crc });
        }
        let Some((first, last)) = header.offsets() else { return Err(Rot::Fields) };
        if first < self.next {
            return Err(Rot::Order { first, after: self.next });
        }
        self.next = last.plus(1);
        self.begin += header.batch_bytes() as u64;
        self.max_timestamp = self.max_timestamp.max(header.max_timestamp);
        Ok(())
    }

    /// The segment has come to its end.
    ///
    /// # Errors
    /// [`Rot::Unfinished`].
    pub(crate) fn end(&self) -> Result<ReadThrough, Rot> {
        if self.begun.is_some() || self.head.iter().any(|byte| *byte != 0) {
            return Err(Rot::Unfinished);
        }
        let Self { base, pos: length, next, crc, max_timestamp, .. } = *self;
        Ok(ReadThrough { base, length, next, crc, max_timestamp })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::BatchBuilder;
    use crate::format::batch_header::set_base_offset;

    /// Three batches of two records, and where each begins.
    fn segment() -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut begins) = (Vec::new(), Vec::new());
        for nth in 0..3 {
            let mut batch = BatchBuilder::new();
            batch.add(100 + nth, None, Some(b"one")).expect("fits");
            batch.add(10, None, Some(&[7; 300])).expect("fits");
            let mut batch = batch.build().expect("built").into_bytes();
            set_base_offset(&mut batch, Offset::new(40 + 2 * nth));
            begins.push(bytes.len());
            bytes.extend(batch);
        }
        (bytes, begins)
    }

    fn scrutinised(bytes: &[u8], piece: usize, open_end: bool) -> Result<ReadThrough, (Rot, u64)> {
        let mut scrutiny = Scrutiny::new(Offset::new(40), open_end);
        for piece in bytes.chunks(piece) {
            scrutiny.feed(piece).map_err(|rot| (rot, scrutiny.place().0))?;
        }
        scrutiny.end().map_err(|rot| (rot, scrutiny.place().0))
    }

    #[test]
    fn a_segment_in_pieces_of_any_length_comes_to_the_same() {
        let (bytes, _) = segment();
        let whole = scrutinised(&bytes, bytes.len(), false).expect("intact");
        assert_eq!((whole.next, whole.max_timestamp), (Offset::new(46), 102));
        for piece in [1, 7, 61, 100, 365] {
            assert_eq!(scrutinised(&bytes, piece, false), Ok(whole));
        }
    }

    #[test]
    fn every_byte_that_a_batch_vouches_for_is_looked_at() {
        let (bytes, begins) = segment();
        for at in 0..bytes.len() {
            let mut harmed = bytes.clone();
            harmed[at] ^= 0x40;
            let begin = begins.iter().rfind(|begin| **begin <= at).expect("the first one");
            let found = scrutinised(&harmed, 50, false);
            let outside = (8..16).contains(&(at - begin)) || at - begin < 8;
            match found {
                // A length may lead elsewhere first. Base offset and epoch are not a batch's to vouch for.
                Err((_, pos)) => assert!(pos >= *begin as u64, "byte {at}"),
                Ok(read) => {
                    assert!(outside, "byte {at}");
                    let whole = scrutinised(&bytes, 50, false).expect("intact");
                    assert_ne!(read.crc, whole.crc, "the whole file's checksum has it");
                }
            }
        }
    }

    #[test]
    fn zeros_behind_the_data_are_space_only_where_the_end_is_open() {
        let (mut bytes, _) = segment();
        let end = bytes.len() as u64;
        bytes.resize(bytes.len() + 1000, 0);
        assert_eq!(scrutinised(&bytes, 64, true).map(|read| read.next), Ok(Offset::new(46)));
        assert!(matches!(scrutinised(&bytes, 64, false), Err((Rot::Header(_), pos)) if pos == end));
        bytes.truncate(end as usize - 1);
        assert!(matches!(scrutinised(&bytes, 64, true), Err((Rot::Unfinished, _))));
    }
}
