//! Lookups in a segment's index files: binary search, an entry a read.
//!
//! An index is no evidence: what an entry leads to is held against the batch there by whoever asked for it. One that is
//! missing, can not be read or has no such entry is none.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::format::index::{OFFSET_ENTRY_BYTES, OffsetEntry, TIME_ENTRY_BYTES, TimeEntry};
use crate::index::try_partition_point;

/// The last entry whose key is not above the one that was asked for.
pub(super) struct Floor<T> {
    /// `None` if all are above it.
    pub(super) entry: Option<T>,
    /// Entries that were read.
    pub(super) read: u64,
    /// Whether the index is there and can be read.
    pub(super) usable: bool,
}

/// By offset, relative to the segment's base offset.
pub(super) fn offset_floor(path: &Path, relative: i64) -> Floor<OffsetEntry> {
    let decode = |bytes: [u8; OFFSET_ENTRY_BYTES]| OffsetEntry::decode(bytes, None);
    floor(path, decode, |entry| i64::from(entry.relative_offset) <= relative)
}

/// By timestamp in milliseconds.
pub(super) fn time_floor(path: &Path, timestamp: i64) -> Floor<TimeEntry> {
    let decode = |bytes: [u8; TIME_ENTRY_BYTES]| TimeEntry::decode(bytes, None);
    floor(path, decode, |entry| entry.timestamp <= timestamp)
}

fn floor<T, const N: usize>(
    path: &Path,
    decode: impl Fn([u8; N]) -> Option<T>,
    is_before: impl Fn(&T) -> bool,
) -> Floor<T> {
    let mut read = 0;
    let found = File::open(path).and_then(|file| {
        let count = file.metadata()?.len() / N as u64;
        let mut entry = |at: u32| -> io::Result<Option<T>> {
            read += 1;
            let mut bytes = [0; N];
            file.read_exact_at(&mut bytes, u64::from(at) * N as u64)?;
            // Zeros behind the first entry are space that Kafka set aside.
            let unused = at > 0 && bytes == [0; N];
            Ok(decode(bytes).filter(|_| !unused))
        };
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let end = try_partition_point(0..count, |at| {
            Ok::<_, io::Error>(entry(at)?.is_some_and(|entry| is_before(&entry)))
        })?;
        Ok(end.checked_sub(1).map(entry).transpose()?.flatten())
    });
    Floor { usable: found.is_ok(), entry: found.ok().flatten(), read }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Pos;

    #[test]
    fn space_set_aside_behind_the_entries_is_no_entry() {
        let path = std::env::temp_dir().join(format!("ringmain-floor-{}", std::process::id()));
        let entry = |at: u32| OffsetEntry {
            relative_offset: 10 * at + 9,
            pos: Pos::new(4096 * u64::from(at)),
        };
        let mut bytes: Vec<u8> = (0..100).flat_map(|at| entry(at).encode()).collect();
        bytes.resize(4096, 0);
        std::fs::write(&path, bytes).expect("written");
        let floor = |relative| offset_floor(&path, relative);
        assert_eq!(floor(8).entry, None);
        assert_eq!(floor(9).entry, Some(entry(0)));
        assert_eq!(floor(528).entry, Some(entry(51)));
        assert_eq!(floor(i64::MAX).entry, Some(entry(99)));
        assert!(floor(528).read <= 11, "a binary search: {}", floor(528).read);
        std::fs::remove_file(&path).expect("removed");
        assert!(!floor(9).usable);
    }
}
