//! Reads what lies in a partition's files, while it is written or after.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use ringmain::batch::validate_stored;
use ringmain::limits::BATCH_BYTES_MAX;

use super::store::Store;
use super::track;
use crate::prepared::BLOCK_BYTES;
use crate::run::backend::Reader;

/// Bytes that are read at once, at least.
const READ_BYTES: usize = 1 << 20;

/// Of a batch, up to the end of its length.
const LENGTH_AT: usize = 8;
const HEAD_BYTES: usize = 12;

/// Reads all partitions.
pub(super) struct Files {
    dir: PathBuf,
    file_bytes: u64,
    /// Whether what lies in the files is still being written: then no further than what was acked.
    live: Option<Arc<Store>>,
    cursors: Box<[Cursor]>,
    bytes: Vec<u8>,
}

/// Where the batch of the next offset lies.
#[derive(Default)]
struct Cursor {
    file: Option<(u64, File)>,
    place: u64,
    offset: i64,
}

impl Files {
    /// For the partitions in `dir`, of files of `file_bytes`.
    pub(super) fn new(
        dir: PathBuf,
        partitions: u32,
        file_bytes: u64,
        live: Option<Arc<Store>>,
    ) -> Self {
        let cursors = (0..partitions).map(|_| Cursor::default()).collect();
        Self { dir, file_bytes, live, cursors, bytes: Vec::new() }
    }

    /// Reads at the cursor; what is there, up to the end of its file.
    fn read(&mut self, partition: u32, bytes: usize) -> io::Result<()> {
        let cursor = &mut self.cursors[partition as usize];
        let (nth, pos) = (cursor.place / self.file_bytes, cursor.place % self.file_bytes);
        let acked = self.live.as_ref().map(|store| store.track(partition).acked());
        let limit = acked.map_or(u64::MAX, |acked| acked.saturating_sub(cursor.place));
        let bytes = (bytes as u64).min(self.file_bytes - pos).min(limit) as usize;
        self.bytes.clear();
        if bytes == 0 {
            return Ok(());
        }
        let file = match cursor.file.take().filter(|(of, _)| *of == nth) {
            Some((_, file)) => file,
            None => match File::open(track::path(&track::directory(&self.dir, partition), nth)) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(e) => return Err(e),
            },
        };
        self.bytes.resize(bytes, 0);
        let mut done = 0;
        while done < bytes {
            match file.read_at(&mut self.bytes[done..], pos + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.bytes.truncate(done);
        cursor.file = Some((nth, file));
        Ok(())
    }

    /// Moves the cursor past padding, or to the next file; false at the end.
    fn skip(&mut self, partition: u32) -> bool {
        let cursor = &mut self.cursors[partition as usize];
        let block = cursor.place.next_multiple_of(BLOCK_BYTES as u64);
        let file = (cursor.place / self.file_bytes + 1) * self.file_bytes;
        let next = if block == cursor.place { file } else { block };
        let there = if let Some(store) = &self.live {
            store.track(partition).acked() > next
        } else {
            let dir = track::directory(&self.dir, partition);
            track::path(&dir, next / self.file_bytes).exists()
        };
        if there {
            cursor.place = next;
        }
        there
    }
}

/// The length of the batch that begins here with this offset; nothing if none does.
fn length(bytes: &[u8], offset: i64) -> Option<usize> {
    let head = bytes.get(..HEAD_BYTES)?;
    let base = i64::from_be_bytes(head[..LENGTH_AT].try_into().ok()?);
    let behind = i32::from_be_bytes(head[LENGTH_AT..].try_into().ok()?);
    let bytes = HEAD_BYTES + usize::try_from(behind).ok()?;
    (base == offset && bytes <= BATCH_BYTES_MAX).then_some(bytes)
}

impl Reader for Files {
    fn fetch(
        &mut self,
        partition: u32,
        offset: i64,
        bytes_max: usize,
        into: &mut Vec<u8>,
    ) -> Result<()> {
        if self.cursors[partition as usize].offset != offset {
            let cursor = &self.cursors[partition as usize];
            anyhow::ensure!(offset == 0, "read in order, from {} on", cursor.offset);
            self.cursors[partition as usize] = Cursor::default();
        }
        let mut want = bytes_max.max(READ_BYTES);
        loop {
            let place = self.cursors[partition as usize].place;
            self.read(partition, want)
                .with_context(|| format!("partition {partition}, byte {place}"))?;
            let mut taken = 0;
            let cursor = &mut self.cursors[partition as usize];
            let mut missing = None;
            while let Some(bytes) = length(&self.bytes[taken..], cursor.offset) {
                if taken + bytes > self.bytes.len() {
                    missing = Some(bytes);
                    break;
                }
                let Ok(header) = validate_stored(&self.bytes[taken..taken + bytes]) else {
                    // Torn: what comes behind counts for nothing.
                    missing = Some(bytes);
                    break;
                };
                cursor.offset += i64::from(header.last_offset_delta) + 1;
                taken += bytes;
            }
            into.extend_from_slice(&self.bytes[..taken]);
            cursor.place += taken as u64;
            match missing {
                _ if taken > 0 => return Ok(()),
                // Torn, or larger than what was read.
                Some(bytes) if bytes > want => want = bytes,
                None if self.skip(partition) => {}
                Some(_) | None => return Ok(()),
            }
        }
    }
}
