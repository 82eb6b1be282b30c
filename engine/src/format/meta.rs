//! What a data directory and a partition's directory say about themselves. Ringmain's own formats, 32
//! bytes each, big-endian:
//!
//! | at | `ringmain.meta` | `ringmain.partition` |
//! |---|---|---|
//! | 0 | magic `RINGMAIN` | magic `RINGPART` |
//! | 8 | version u32 = 1 | version u32 = 1 |
//! | 12 | block size u32, in bytes | incarnation u64 |
//! | 16 / 20 | zeros | u32: bit 0 relaxed, appends may be acknowledged before a flush; bit 1 compacted, with gaps |
//! | 24 | zeros | suspect u32: 1 if a damaged journal group may have held bytes of it |
//! | 28 | CRC-32C of the 28 bytes before u32 | CRC-32C of the 28 bytes before u32 |

use super::fixed::{FixedError, Reader, Writer};
use crate::types::Incarnation;

/// Length of either file, in bytes.
pub const META_BYTES: usize = 32;

/// Smallest block, in bytes.
pub const BLOCK_BYTES_MIN: u32 = 4096;

/// Largest block, in bytes: far above any device's.
pub const BLOCK_BYTES_MAX: u32 = 64 * 1024;

const VERSION: u32 = 1;

/// `ringmain.meta`: the format of a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryMeta {
    block_bytes: u32,
}

impl DirectoryMeta {
    const MAGIC: [u8; 8] = *b"RINGMAIN";

    /// A directory whose writes are multiples of `block_bytes`.
    ///
    /// # Panics
    /// If that is no power of two from 4 KiB to 64 KiB.
    #[must_use]
    pub fn new(block_bytes: u32) -> Self {
        assert!(is_block(block_bytes), "{block_bytes} bytes are no block");
        Self { block_bytes }
    }

    /// The block in bytes: positions and lengths of direct writes are multiples of it.
    #[must_use]
    pub fn block_bytes(&self) -> u32 {
        self.block_bytes
    }

    /// The file's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; META_BYTES] {
        Writer::new(Self::MAGIC, VERSION).put(self.block_bytes.to_be_bytes()).finish()
    }

    /// Reads the whole file.
    ///
    /// # Errors
    /// [`FixedError`]; [`FixedError::NewerVersion`] for a directory that a newer Ringmain made.
    pub fn decode(bytes: &[u8]) -> Result<Self, FixedError> {
        let mut reader = Reader::<META_BYTES>::new(bytes, Self::MAGIC, VERSION)?;
        let block_bytes = u32::from_be_bytes(reader.take());
        reader.finish()?;
        is_block(block_bytes).then_some(Self { block_bytes }).ok_or(FixedError::Field("block"))
    }
}

/// `ringmain.partition`: which life of a partition a directory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionMeta {
    /// Drawn at random when the directory was made.
    pub incarnation: Incarnation,
    /// Whether appends since the recovery point may have been acknowledged before they were flushed (policies
    /// `os` and `interval`): recovery then takes any damage at the end for a torn tail.
    pub relaxed: bool,
    /// Whether a damaged journal group may have held acknowledged bytes of it: it is read-only until it is repaired.
    pub suspect: bool,
    /// Whether compaction may have taken records away: offsets may be missing anywhere in it.
    pub compacted: bool,
}

impl PartitionMeta {
    const MAGIC: [u8; 8] = *b"RINGPART";

    /// The file's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; META_BYTES] {
        Writer::new(Self::MAGIC, VERSION)
            .put(self.incarnation.0.to_be_bytes())
            .put((u32::from(self.relaxed) | u32::from(self.compacted) << 1).to_be_bytes())
            .put(u32::from(self.suspect).to_be_bytes())
            .finish()
    }

    /// Reads the whole file.
    ///
    /// # Errors
    /// [`FixedError`]; [`FixedError::NewerVersion`] for a partition that a newer Ringmain made.
    pub fn decode(bytes: &[u8]) -> Result<Self, FixedError> {
        let mut reader = Reader::<META_BYTES>::new(bytes, Self::MAGIC, VERSION)?;
        let incarnation = Incarnation(u64::from_be_bytes(reader.take()));
        let flags = u32::from_be_bytes(reader.take());
        let suspect = u32::from_be_bytes(reader.take());
        reader.finish()?;
        if flags > 3 || suspect > 1 {
            return Err(FixedError::Field("relaxed or suspect"));
        }
        let (relaxed, compacted) = (flags & 1 != 0, flags & 2 != 0);
        Ok(Self { incarnation, relaxed, suspect: suspect == 1, compacted })
    }
}

/// `ringmain.journals`: the directory's own number, the epoch of its newest opening and how many journals that
/// opening made. Same layout: magic `RINGJRNL`, directory u64 at 12, epoch u32 at 20, journals u32 at 24.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalsMeta {
    /// Drawn at random when the data directory was made.
    pub directory: u64,
    /// Counts openings.
    pub epoch: u32,
    /// Journals `journal-0` to `journal-<n - 1>` exist.
    pub journals: u32,
}

impl JournalsMeta {
    const MAGIC: [u8; 8] = *b"RINGJRNL";

    /// The file's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; META_BYTES] {
        Writer::new(Self::MAGIC, VERSION)
            .put(self.directory.to_be_bytes())
            .put(self.epoch.to_be_bytes())
            .put(self.journals.to_be_bytes())
            .finish()
    }

    /// Reads the whole file.
    ///
    /// # Errors
    /// [`FixedError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FixedError> {
        let mut reader = Reader::<META_BYTES>::new(bytes, Self::MAGIC, VERSION)?;
        let directory = u64::from_be_bytes(reader.take());
        let epoch = u32::from_be_bytes(reader.take());
        let journals = u32::from_be_bytes(reader.take());
        reader.finish()?;
        Ok(Self { directory, epoch, journals })
    }
}

fn is_block(bytes: u32) -> bool {
    bytes.is_power_of_two() && (BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::crc::crc32c;

    const DIRECTORY: [u8; META_BYTES] = [
        b'R', b'I', b'N', b'G', b'M', b'A', b'I', b'N', 0, 0, 0, 1, 0, 0, 0x10, 0, //
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x74, 0x8f, 0x66, 0xeb,
    ];
    const PARTITION: [u8; META_BYTES] = [
        b'R', b'I', b'N', b'G', b'P', b'A', b'R', b'T', 0, 0, 0, 1, //
        0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, //
        0, 0, 0, 0, 0, 0, 0, 0, 0x33, 0x74, 0x4d, 0x67,
    ];

    fn signed_again(mut bytes: [u8; META_BYTES]) -> [u8; META_BYTES] {
        let crc = crc32c(&bytes[..28]);
        bytes[28..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    #[test]
    fn bytes_are_pinned() {
        let directory = DirectoryMeta::new(4096);
        assert_eq!(directory.encode(), DIRECTORY);
        assert_eq!(DirectoryMeta::decode(&DIRECTORY), Ok(directory));
        let partition = PartitionMeta {
            compacted: false,
            relaxed: false,
            suspect: false,
            incarnation: Incarnation(0x0123_4567_89ab_cdef),
        };
        assert_eq!(partition.encode(), PARTITION);
        assert_eq!(PartitionMeta::decode(&PARTITION), Ok(partition));
    }

    #[test]
    fn a_newer_version_has_its_own_error() {
        let newer = FixedError::NewerVersion { found: 2, known: 1 };
        let (mut directory, mut partition) = (DIRECTORY, PARTITION);
        directory[11] = 2;
        partition[11] = 2;
        assert_eq!(DirectoryMeta::decode(&signed_again(directory)), Err(newer));
        assert_eq!(PartitionMeta::decode(&signed_again(partition)), Err(newer));
        let damaged = DirectoryMeta::decode(&directory);
        assert!(matches!(damaged, Err(FixedError::Crc { .. })), "damage is not a newer version");
    }

    #[test]
    fn one_file_is_not_taken_for_the_other() {
        assert_eq!(DirectoryMeta::decode(&PARTITION), Err(FixedError::Magic));
        assert_eq!(PartitionMeta::decode(&DIRECTORY), Err(FixedError::Magic));
    }

    #[test]
    fn a_block_that_no_device_has_is_refused() {
        for block in [0_u32, 512, 4097, 131_072] {
            let mut bytes = DIRECTORY;
            bytes[12..16].copy_from_slice(&block.to_be_bytes());
            let refused = DirectoryMeta::decode(&signed_again(bytes));
            assert_eq!(refused, Err(FixedError::Field("block")), "{block} bytes");
        }
    }
}
