//! `ringmain.retention`: what is kept of one partition, where that was set for it alone. Ringmain's own format, 80
//! bytes, big-endian:
//!
//! | at | field |
//! |---|---|
//! | 0 | magic `RINGKEEP` |
//! | 8 | version u32 = 1 |
//! | 12 | u32: bit 0 bytes, bit 1 time, bit 2 compaction, bit 3 a longest lag |
//! | 16 | bytes u64 |
//! | 24 | milliseconds u64 |
//! | 32 | least dirty part u32, in percent |
//! | 36 | zeros |
//! | 40 | least lag u64, in milliseconds |
//! | 48 | longest lag u64, in milliseconds |
//! | 56 | how long tombstones stay u64, in milliseconds |
//! | 64 | zeros |
//! | 76 | CRC-32C of the 76 bytes before u32 |
//!
//! A field whose bit is not set is zero.

use super::fixed::{FixedError, Reader, Writer};
use crate::types::{Compaction, Retention};

/// Length of the file, in bytes.
pub const RETENTION_BYTES: usize = 80;

const MAGIC: [u8; 8] = *b"RINGKEEP";
const VERSION: u32 = 1;

/// The file's bytes.
#[must_use]
pub fn encode(retention: &Retention) -> [u8; RETENTION_BYTES] {
    let compact = retention.compact;
    let lag = compact.and_then(|compact| compact.max_lag_ms);
    let bits =
        [retention.bytes.is_some(), retention.ms.is_some(), compact.is_some(), lag.is_some()];
    let flags = bits.iter().rev().fold(0, |flags, bit| flags << 1 | u32::from(*bit));
    let none = Compaction {
        min_dirty_percent: 0,
        min_lag_ms: 0,
        max_lag_ms: None,
        delete_retention_ms: 0,
    };
    let compact = compact.unwrap_or(none);
    Writer::new(MAGIC, VERSION)
        .put(flags.to_be_bytes())
        .put(retention.bytes.unwrap_or(0).to_be_bytes())
        .put(retention.ms.unwrap_or(0).to_be_bytes())
        .put(u32::from(compact.min_dirty_percent).to_be_bytes())
        .put([0; 4])
        .put(compact.min_lag_ms.to_be_bytes())
        .put(lag.unwrap_or(0).to_be_bytes())
        .put(compact.delete_retention_ms.to_be_bytes())
        .finish()
}

/// Reads the whole file.
///
/// # Errors
/// [`FixedError`]; [`FixedError::NewerVersion`] for one that a newer Ringmain wrote.
pub fn decode(file: &[u8]) -> Result<Retention, FixedError> {
    let mut reader = Reader::<RETENTION_BYTES>::new(file, MAGIC, VERSION)?;
    let flags = u32::from_be_bytes(reader.take());
    let (bytes, ms) = (u64::from_be_bytes(reader.take()), u64::from_be_bytes(reader.take()));
    let percent = u32::from_be_bytes(reader.take());
    let _: [u8; 4] = reader.take();
    let min_lag_ms = u64::from_be_bytes(reader.take());
    let max_lag_ms = u64::from_be_bytes(reader.take());
    let delete_retention_ms = u64::from_be_bytes(reader.take());
    reader.finish()?;
    let min_dirty_percent = u8::try_from(percent).ok().filter(|percent| *percent <= 100);
    let Some(min_dirty_percent) = min_dirty_percent else {
        return Err(FixedError::Field("dirty part"));
    };
    let has = |bit: u32| flags & (1 << bit) != 0;
    let compaction = Compaction {
        min_dirty_percent,
        min_lag_ms,
        max_lag_ms: has(3).then_some(max_lag_ms),
        delete_retention_ms,
    };
    let retention = Retention {
        bytes: has(0).then_some(bytes),
        ms: has(1).then_some(ms),
        compact: has(2).then_some(compaction),
    };
    // Whatever else is in it was never written: it would be lost with the next change.
    if encode(&retention) != *file {
        return Err(FixedError::Field("flags"));
    }
    Ok(retention)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::crc::crc32c;

    fn full() -> Retention {
        let compaction = Compaction {
            min_dirty_percent: 30,
            min_lag_ms: 0x0102,
            max_lag_ms: Some(0x0304),
            delete_retention_ms: 0x0506,
        };
        Retention { bytes: Some(0x0708), ms: Some(0x090a), compact: Some(compaction) }
    }

    #[test]
    fn bytes_are_pinned() {
        let bytes = encode(&full());
        assert_eq!(bytes[..16], *b"RINGKEEP\0\0\0\x01\0\0\0\x0f");
        let fields: Vec<u64> = bytes[16..72]
            .chunks_exact(8)
            .map(|field| u64::from_be_bytes(field.try_into().unwrap()))
            .collect();
        assert_eq!(fields, [0x0708, 0x090a, 30 << 32, 0x0102, 0x0304, 0x0506, 0]);
        assert_eq!(bytes[76..], crc32c(&bytes[..76]).to_be_bytes());
        assert_eq!(bytes[76..], [0x15, 0xb3, 0x5c, 0xca]);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let none = Retention::default();
        for retention in [
            full(),
            none,
            Retention { bytes: Some(0), ..none },
            Retention { ms: Some(u64::MAX), ..none },
            Retention { compact: Some(Compaction::default()), ..none },
        ] {
            assert_eq!(decode(&encode(&retention)), Ok(retention));
        }
    }

    #[test]
    fn damage_and_what_is_never_written_are_refused() {
        let good = encode(&full());
        for bit in 0..good.len() * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bytes).is_err(), "bit {bit}");
        }
        for (at, byte) in [(15, 0x1f), (35, 101), (36, 1), (70, 1), (15, 0x0e), (15, 0x07)] {
            let mut bytes = good;
            bytes[at] = byte;
            let crc = crc32c(&bytes[..76]);
            bytes[76..].copy_from_slice(&crc.to_be_bytes());
            assert!(matches!(decode(&bytes), Err(FixedError::Field(_))), "byte {at} = {byte}");
        }
    }
}
