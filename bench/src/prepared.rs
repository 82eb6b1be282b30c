//! Files written before they are measured, so that a write is a pure overwrite of extents that exist.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::ptr::NonNull;

use anyhow::{Context, Result};

use crate::interrupt;

/// Alignment of memory, position and length for O_DIRECT.
pub const BLOCK_BYTES: usize = 4096;

/// One write of the preparation.
const STRIDE_BYTES: usize = 512 << 10;

/// Memory aligned for O_DIRECT, zeroed.
#[derive(Debug)]
pub struct Aligned {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the memory has one owner and no thread affinity.
unsafe impl Send for Aligned {}

impl Aligned {
    /// `bytes` zeros, at least one.
    pub fn new(bytes: usize) -> Self {
        assert!(bytes > 0, "no memory of nothing");
        let layout = Layout::from_size_align(bytes, BLOCK_BYTES).expect("a sane size");
        // SAFETY: the size is not zero.
        let base = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(base) else { handle_alloc_error(layout) };
        Self { base, layout }
    }

    /// Where it begins.
    pub fn as_ptr(&self) -> *const u8 {
        self.base.as_ptr()
    }
}

impl std::ops::Deref for Aligned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the allocation is initialised, and borrowed as long as `self` is.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.layout.size()) }
    }
}

impl std::ops::DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` is the only way to it.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.layout.size()) }
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        // SAFETY: `base` came from `alloc_zeroed` with this layout.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}

/// A file open for writing, and whether past the page cache.
#[derive(Debug)]
pub struct Prepared {
    /// The file, `bytes` long, all of them written and flushed.
    pub file: File,
    /// Whether the file system took O_DIRECT.
    pub direct: bool,
}

/// Makes a new file of `bytes` written zeros, flushed.
///
/// # Errors
/// If it exists, the disk is full, or the user stops the run.
pub fn prepare(path: &Path, bytes: u64) -> Result<Prepared> {
    let prepared = write_zeros(path, bytes)?;
    prepared.file.sync_all().with_context(|| format!("cannot flush {}", path.display()))?;
    Ok(prepared)
}

/// [`prepare`] without the flush, for those who make many files and flush them together.
///
/// # Errors
/// As [`prepare`].
pub fn write_zeros(path: &Path, bytes: u64) -> Result<Prepared> {
    write_with(path, bytes, &mut |_| {})
}

/// [`write_zeros`] with other bytes, which `fill` puts into the memory of each write.
///
/// # Errors
/// As [`prepare`].
pub fn write_with(path: &Path, bytes: u64, fill: &mut impl FnMut(&mut [u8])) -> Result<Prepared> {
    assert!(bytes.is_multiple_of(BLOCK_BYTES as u64), "whole blocks");
    let (file, direct) = open(path).with_context(|| format!("cannot make {}", path.display()))?;
    let mut stride = Aligned::new(STRIDE_BYTES);
    let mut pos = 0;
    while pos < bytes {
        interrupt::check()?;
        let run = (bytes - pos).min(STRIDE_BYTES as u64);
        fill(&mut stride);
        file.write_all_at(&stride[..run as usize], pos)
            .with_context(|| format!("cannot write {}", path.display()))?;
        pos += run;
    }
    Ok(Prepared { file, direct })
}

fn open(path: &Path) -> io::Result<(File, bool)> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    match options.clone().custom_flags(libc::O_DIRECT).open(path) {
        Ok(file) => Ok((file, true)),
        // Some file systems make the file, and only then refuse the flag.
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => options
            .create_new(false)
            .create(true)
            .truncate(true)
            .open(path)
            .map(|file| (file, false)),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_prepared_file_has_written_extents_and_no_holes() {
        use std::os::unix::fs::MetadataExt;
        let scratch = Scratch::new("prepared");
        let bytes = 3 * STRIDE_BYTES as u64 + BLOCK_BYTES as u64;
        let prepared = prepare(&scratch.path().join("file"), bytes).expect("made");
        let meta = prepared.file.metadata().expect("readable");
        assert_eq!(meta.len(), bytes);
        assert!(meta.blocks() * 512 >= bytes, "{} blocks", meta.blocks());
    }
}
