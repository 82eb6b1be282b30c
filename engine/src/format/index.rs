//! Entries of Kafka's `.index` and `.timeindex` files: a plain array of them, big-endian.
//!
//! The source is Kafka's `OffsetIndex` and `TimeIndex`. Offsets are relative to the segment's base
//! offset, and no number uses the sign bit. An index is derived data: an entry that does not decode
//! means that the index is rebuilt, so a decoder says only yes or no.
//!
//! Kafka preallocates indexes, so an unclean end leaves zeros behind the entries. Both keys of an entry
//! grow strictly, hence zero bytes are valid at entry 0 at most and never after another entry.

use crate::types::Pos;

/// Length of one `.index` entry, in bytes.
pub const OFFSET_ENTRY_BYTES: usize = 8;

/// Length of one `.timeindex` entry, in bytes.
pub const TIME_ENTRY_BYTES: usize = 12;

/// One entry of a `.index`: where a batch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetEntry {
    /// An offset of the batch, minus the segment's base offset. At most `i32::MAX`.
    pub relative_offset: u32,
    /// Where the batch begins in the segment.
    pub pos: Pos,
}

impl OffsetEntry {
    /// The entry as it stands in the file.
    ///
    /// # Panics
    /// If the relative offset is above `i32::MAX`: the segment had to be rolled before.
    #[must_use]
    pub fn encode(self) -> [u8; OFFSET_ENTRY_BYTES] {
        assert!(i32::try_from(self.relative_offset).is_ok(), "rolled before the offset overflows");
        let mut bytes = [0; OFFSET_ENTRY_BYTES];
        bytes[..4].copy_from_slice(&self.relative_offset.to_be_bytes());
        bytes[4..].copy_from_slice(&(self.pos.get() as u32).to_be_bytes());
        bytes
    }

    /// Reads an entry that follows `previous`, or the file's first one. `None` if it cannot be one: a
    /// sign bit is set, or an offset or a position does not grow.
    #[must_use]
    pub fn decode(bytes: [u8; OFFSET_ENTRY_BYTES], previous: Option<Self>) -> Option<Self> {
        let relative_offset = u31(*bytes.first_chunk()?)?;
        let pos = Pos::new(u64::from(u31(*bytes.last_chunk()?)?));
        let grows = previous.is_none_or(|it| relative_offset > it.relative_offset && pos > it.pos);
        grows.then_some(Self { relative_offset, pos })
    }
}

/// One entry of a `.timeindex`: the latest timestamp of all records up to an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeEntry {
    /// The timestamp, in milliseconds since 1970-01-01 UTC. Never negative.
    pub timestamp: i64,
    /// The offset of the record that has it, minus the segment's base offset. At most `i32::MAX`.
    pub relative_offset: u32,
}

impl TimeEntry {
    /// The entry as it stands in the file.
    ///
    /// # Panics
    /// If the timestamp is negative or the relative offset is above `i32::MAX`.
    #[must_use]
    pub fn encode(self) -> [u8; TIME_ENTRY_BYTES] {
        assert!(self.timestamp >= 0, "a record without a timestamp is not indexed");
        assert!(i32::try_from(self.relative_offset).is_ok(), "rolled before the offset overflows");
        let mut bytes = [0; TIME_ENTRY_BYTES];
        bytes[..8].copy_from_slice(&self.timestamp.to_be_bytes());
        bytes[8..].copy_from_slice(&self.relative_offset.to_be_bytes());
        bytes
    }

    /// Reads an entry that follows `previous`, or the file's first one. `None` if it cannot be one: a
    /// sign bit is set, the timestamp does not grow, or the offset falls.
    #[must_use]
    pub fn decode(bytes: [u8; TIME_ENTRY_BYTES], previous: Option<Self>) -> Option<Self> {
        let timestamp = i64::from_be_bytes(*bytes.first_chunk()?);
        let relative_offset = u31(*bytes.last_chunk()?)?;
        let grows = previous
            .is_none_or(|it| timestamp > it.timestamp && relative_offset >= it.relative_offset);
        (timestamp >= 0 && grows).then_some(Self { timestamp, relative_offset })
    }
}

/// A big-endian number that fits a signed 32-bit one.
fn u31(bytes: [u8; 4]) -> Option<u32> {
    u32::try_from(i32::from_be_bytes(bytes)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFSET: OffsetEntry = OffsetEntry { relative_offset: 0x0102_0304, pos: Pos::new(4097) };
    const TIME: TimeEntry = TimeEntry { timestamp: 1_700_000_000_000, relative_offset: 9 };

    #[test]
    fn bytes_are_those_of_kafka() {
        assert_eq!(OFFSET.encode(), [1, 2, 3, 4, 0, 0, 0x10, 0x01]);
        assert_eq!(TIME.encode(), [0, 0, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 0, 0, 0, 0, 9]);
        assert_eq!(OffsetEntry::decode(OFFSET.encode(), None), Some(OFFSET));
        assert_eq!(TimeEntry::decode(TIME.encode(), None), Some(TIME));
    }

    #[test]
    fn zero_bytes_are_never_an_entry_after_another() {
        let zero = OffsetEntry { relative_offset: 0, pos: Pos::ZERO };
        assert_eq!(OffsetEntry::decode([0; 8], None), Some(zero));
        for before in [zero, OFFSET] {
            assert_eq!(OffsetEntry::decode([0; 8], Some(before)), None);
        }
        let zero = TimeEntry { timestamp: 0, relative_offset: 0 };
        assert_eq!(TimeEntry::decode([0; 12], None), Some(zero));
        for before in [zero, TIME] {
            assert_eq!(TimeEntry::decode([0; 12], Some(before)), None);
        }
    }

    #[test]
    fn entries_that_do_not_grow_are_refused() {
        let offset = |relative_offset, pos| {
            let entry = OffsetEntry { relative_offset, pos: Pos::new(pos) };
            OffsetEntry::decode(entry.encode(), Some(OFFSET)).is_some()
        };
        assert!(offset(OFFSET.relative_offset + 1, 4098));
        assert!(!offset(OFFSET.relative_offset, 4098));
        assert!(!offset(OFFSET.relative_offset + 1, 4097));
        let time = |timestamp, relative_offset| {
            let entry = TimeEntry { timestamp, relative_offset };
            TimeEntry::decode(entry.encode(), Some(TIME)).is_some()
        };
        assert!(time(TIME.timestamp + 1, 9));
        assert!(!time(TIME.timestamp, 10));
        assert!(!time(TIME.timestamp + 1, 8));
    }

    #[test]
    fn a_sign_bit_is_refused() {
        for at in [0, 4] {
            let mut bytes = OFFSET.encode();
            bytes[at] |= 0x80;
            assert_eq!(OffsetEntry::decode(bytes, None), None);
        }
        for at in [0, 8] {
            let mut bytes = TIME.encode();
            bytes[at] |= 0x80;
            assert_eq!(TimeEntry::decode(bytes, None), None);
        }
    }
}
