//! A small file that is one fixed-size binary record: eight bytes of magic, a big-endian version, fields
//! with zeros behind them, and a CRC-32C of all before it in the last four bytes.
//!
//! Length, magic, place of the version and place of the CRC are the same in every version, so that
//! damage is never taken for a newer version.

use thiserror::Error;

use super::crc::crc32c;

const VERSION_AT: usize = 8;
/// Where the fields begin.
pub(super) const FIELDS_AT: usize = VERSION_AT + size_of::<u32>();
const CRC_BYTES: usize = size_of::<u32>();

/// Why a file is not what its name says.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum FixedError {
    /// Longer or shorter than it always is.
    #[error("{found} bytes long, not {expected}")]
    Length {
        /// The file's length, in bytes.
        found: usize,
        /// What it always is.
        expected: usize,
    },
    /// Another kind of file.
    #[error("does not begin with its magic")]
    Magic,
    /// Damaged.
    #[error("damaged: checksum {computed:08x}, {stored:08x} is stored")]
    Crc {
        /// What the file says.
        stored: u32,
        /// What its bytes say.
        computed: u32,
    },
    /// Whole, and written by a newer Ringmain.
    #[error("written in version {found}, this Ringmain knows versions up to {known}")]
    NewerVersion {
        /// The file's version.
        found: u32,
        /// The newest version known here.
        known: u32,
    },
    /// Whole, and yet a field has a value that is never written.
    #[error("field `{0}` has an impossible value")]
    Field(&'static str),
}

/// Builds a record front to back.
pub(super) struct Writer<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Writer<N> {
    pub(super) fn new(magic: [u8; VERSION_AT], version: u32) -> Self {
        Self { bytes: [0; N], at: 0 }.put(magic).put(version.to_be_bytes())
    }

    pub(super) fn put<const M: usize>(mut self, field: [u8; M]) -> Self {
        self.bytes[self.at..self.at + M].copy_from_slice(&field);
        self.at += M;
        self
    }

    pub(super) fn finish(mut self) -> [u8; N] {
        assert!(self.at <= N - CRC_BYTES, "the checksum has its place");
        let crc = crc32c(&self.bytes[..N - CRC_BYTES]);
        self.bytes[N - CRC_BYTES..].copy_from_slice(&crc.to_be_bytes());
        self.bytes
    }
}

/// Takes a record apart front to back.
pub(super) struct Reader<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Reader<N> {
    pub(super) fn new(
        bytes: &[u8],
        magic: [u8; VERSION_AT],
        known: u32,
    ) -> Result<Self, FixedError> {
        let Ok(bytes) = <[u8; N]>::try_from(bytes) else {
            return Err(FixedError::Length { found: bytes.len(), expected: N });
        };
        let mut reader = Self { bytes, at: 0 };
        if reader.take() != magic {
            return Err(FixedError::Magic);
        }
        let stored = u32::from_be_bytes(Self { bytes, at: N - CRC_BYTES }.take());
        let computed = crc32c(&bytes[..N - CRC_BYTES]);
        if stored != computed {
            return Err(FixedError::Crc { stored, computed });
        }
        match u32::from_be_bytes(reader.take()) {
            0 => Err(FixedError::Field("version")),
            found if found > known => Err(FixedError::NewerVersion { found, known }),
            _ => Ok(reader),
        }
    }

    pub(super) fn take<const M: usize>(&mut self) -> [u8; M] {
        let mut field = [0; M];
        field.copy_from_slice(&self.bytes[self.at..self.at + M]);
        self.at += M;
        field
    }

    /// Ends the reading: what is left must be zero.
    pub(super) fn finish(self) -> Result<(), FixedError> {
        let unused = &self.bytes[self.at..N - CRC_BYTES];
        unused.iter().all(|byte| *byte == 0).then_some(()).ok_or(FixedError::Field("reserved"))
    }
}
