//! `<base>.seal`: what a sealed segment was when it was sealed, so that a truncated, rolled-back or
//! misplaced file is noticed. Ringmain's own format, 80 bytes, big-endian:
//!
//! | at | field |
//! |---|---|
//! | 0 | magic `RINGSEAL` |
//! | 8 | version u32 = 2 |
//! | 12 | the partition's incarnation u64 |
//! | 20 | base offset i64 |
//! | 28 | next offset i64 |
//! | 36 | length of the `.log` u64, in bytes |
//! | 44 | CRC-32C of the whole `.log` u32 |
//! | 48 | newest i64: the time that the segment counts as for retention, in milliseconds; 0 for not known |
//! | 56 | compacted u32: 1 if compaction wrote it |
//! | 60 | largest timestamp i64, in milliseconds; -1 if no record has one |
//! | 68 | zeros |
//! | 76 | CRC-32C of the 76 bytes before u32 |
//!
//! With the largest timestamp a search by time passes over a segment without opening it, and a time index that ends
//! before it is known to be short. Version 1 did not have it; it counts as no seal, and is written anew.

use super::fixed::{FIELDS_AT, FixedError, Reader, Writer};
use crate::error::Alteration;
use crate::types::{Incarnation, Offset, Pos};

/// Length of a seal, in bytes.
pub const SEAL_BYTES: usize = 80;

const MAGIC: [u8; 8] = *b"RINGSEAL";
const VERSION: u32 = 2;

const _: () = assert!(FIELDS_AT + 8 + 8 + 8 + 8 + 4 + 8 + 4 + 8 <= SEAL_BYTES - 4);

/// A sealed segment's description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// The life of the partition that the segment belongs to.
    pub incarnation: Incarnation,
    /// The segment's first offset, as in its name.
    pub base_offset: Offset,
    /// One past the segment's last offset.
    pub next_offset: Offset,
    /// Length of the `.log` file.
    pub length: Pos,
    /// CRC-32C of the whole `.log` file.
    pub crc: u32,
    /// The time that the segment counts as for retention, in milliseconds since the epoch; 0 for not known.
    pub newest_ms: i64,
    /// Whether compaction wrote it: no journal entry speaks of its bytes.
    pub compacted: bool,
    /// The largest timestamp of its batches, in milliseconds; -1 if none has one.
    pub max_timestamp: i64,
}

impl Seal {
    /// The seal as it stands in its file.
    ///
    /// # Panics
    /// If the offsets do not run forward.
    #[must_use]
    pub fn encode(&self) -> [u8; SEAL_BYTES] {
        assert!(self.base_offset <= self.next_offset, "offsets run forward");
        Writer::new(MAGIC, VERSION)
            .put(self.incarnation.0.to_be_bytes())
            .put(self.base_offset.get().to_be_bytes())
            .put(self.next_offset.get().to_be_bytes())
            .put(self.length.get().to_be_bytes())
            .put(self.crc.to_be_bytes())
            .put(self.newest_ms.to_be_bytes())
            .put(u32::from(self.compacted).to_be_bytes())
            .put(self.max_timestamp.to_be_bytes())
            .finish()
    }

    /// Holds the seal against the place it was found at: a partition's life, the segment's name, and the base offset of
    /// the segment behind it.
    ///
    /// # Errors
    /// What became of the segment.
    pub fn check(
        &self,
        incarnation: Incarnation,
        (base, following): (Offset, Offset),
    ) -> Result<(), Alteration> {
        if self.incarnation != incarnation {
            Err(Alteration::OtherLife)
        } else if self.base_offset != base {
            Err(Alteration::Misplaced { sealed: self.base_offset })
        } else if self.next_offset != following {
            Err(Alteration::NextMissing { next: self.next_offset })
        } else {
            Ok(())
        }
    }

    /// Reads a whole seal file.
    ///
    /// # Errors
    /// [`FixedError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FixedError> {
        let mut reader = Reader::<SEAL_BYTES>::new(bytes, MAGIC, VERSION)?;
        let incarnation = Incarnation(u64::from_be_bytes(reader.take()));
        let base_offset = i64::from_be_bytes(reader.take());
        let next_offset = i64::from_be_bytes(reader.take());
        let length = u64::from_be_bytes(reader.take());
        let crc = u32::from_be_bytes(reader.take());
        let newest_ms = i64::from_be_bytes(reader.take());
        let compacted = u32::from_be_bytes(reader.take());
        let max_timestamp = i64::from_be_bytes(reader.take());
        reader.finish()?;
        if newest_ms < 0 || compacted > 1 {
            return Err(FixedError::Field("newest or compacted"));
        }
        if base_offset < 0 {
            return Err(FixedError::Field("base offset"));
        }
        if next_offset < base_offset {
            return Err(FixedError::Field("next offset"));
        }
        if length > i32::MAX as u64 {
            return Err(FixedError::Field("length"));
        }
        if max_timestamp < -1 {
            return Err(FixedError::Field("largest timestamp"));
        }
        Ok(Self {
            incarnation,
            base_offset: Offset::new(base_offset),
            next_offset: Offset::new(next_offset),
            length: Pos::new(length),
            crc,
            newest_ms,
            compacted: compacted == 1,
            max_timestamp,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::crc::crc32c;

    const GOLDEN: [u8; SEAL_BYTES] = [
        b'R', b'I', b'N', b'G', b'S', b'E', b'A', b'L', 0, 0, 0, 2, //
        0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, // incarnation
        0, 0, 0, 0, 0, 0, 0x03, 0xe8, 0, 0, 0, 0, 0, 0, 0x05, 0xdc, // offsets
        0, 0, 0, 0, 0, 1, 0, 0, 0xe3, 0x06, 0x92, 0x83, // length, crc
        0, 0, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 0, 0, 0, 0, 1, // newest, compacted
        0, 0, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 1, // largest timestamp
        0, 0, 0, 0, 0, 0, 0, 0, 0xd3, 0xeb, 0x19, 0x74,
    ];

    fn seal() -> Seal {
        Seal {
            incarnation: Incarnation(0x0123_4567_89ab_cdef),
            base_offset: Offset::new(1000),
            next_offset: Offset::new(1500),
            length: Pos::new(65_536),
            crc: 0xe306_9283,
            newest_ms: 1_700_000_000_000,
            compacted: true,
            max_timestamp: 1_700_000_000_001,
        }
    }

    fn signed_again(mut bytes: [u8; SEAL_BYTES]) -> [u8; SEAL_BYTES] {
        let crc = crc32c(&bytes[..76]);
        bytes[76..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    #[test]
    fn bytes_are_pinned() {
        assert_eq!(seal().encode(), GOLDEN);
        assert_eq!(Seal::decode(&GOLDEN), Ok(seal()));
    }

    #[test]
    fn every_flipped_bit_and_every_other_length_is_noticed() {
        for bit in 0..SEAL_BYTES * 8 {
            let mut bytes = GOLDEN;
            bytes[bit / 8] ^= 1 << (bit % 8);
            let error = Seal::decode(&bytes).unwrap_err();
            let damaged = matches!(error, FixedError::Crc { .. } | FixedError::Magic);
            assert!(damaged, "bit {bit}: {error}, damage and nothing else");
        }
        for len in 0..SEAL_BYTES {
            let short = Seal::decode(&GOLDEN[..len]);
            assert_eq!(short, Err(FixedError::Length { found: len, expected: SEAL_BYTES }));
        }
        assert!(Seal::decode(&[0; SEAL_BYTES + 1]).is_err());
    }

    #[test]
    fn a_whole_seal_with_impossible_fields_is_refused() {
        for (at, byte, field) in [
            (20, 0x80, "base offset"),
            (28, 0x80, "next offset"),
            (36, 0x01, "length"),
            (48, 0x80, "newest or compacted"),
            (58, 0x01, "newest or compacted"),
            (60, 0x80, "largest timestamp"),
            (70, 0x01, "reserved"),
            (11, 0x00, "version"),
        ] {
            let mut bytes = GOLDEN;
            bytes[at] = byte;
            assert_eq!(Seal::decode(&signed_again(bytes)), Err(FixedError::Field(field)));
        }
    }

    #[test]
    fn a_newer_version_has_its_own_error() {
        let mut bytes = GOLDEN;
        bytes[11] = 3;
        let newer = FixedError::NewerVersion { found: 3, known: 2 };
        assert_eq!(Seal::decode(&signed_again(bytes)), Err(newer));
    }
}
