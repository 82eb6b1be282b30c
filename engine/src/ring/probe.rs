//! What a directory's file system and device can do, found out by trying and from `/sys`.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ffi::CString;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// Smallest block that the engine writes: a page, so that O_DIRECT works on all common devices.
const BLOCK_BYTES_MIN: u32 = 4096;

/// Bytes of the trial write, and their alignment.
const TRIAL_BYTES: usize = 64 * 1024;

/// A kind of file system, by its magic number (`statfs(2)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FsKind {
    /// ext2, ext3 or ext4: they share a number.
    Ext4,
    /// XFS.
    Xfs,
    /// Btrfs.
    Btrfs,
    /// In memory.
    Tmpfs,
    /// A container's layers; files are those of the upper one's file system.
    Overlay,
    /// In user space.
    Fuse,
    /// Another one, with its number.
    Other(u32),
}

impl FsKind {
    /// From `f_type`. Numbers: `linux/magic.h`.
    const fn from_magic(magic: u32) -> Self {
        match magic {
            0xef53 => Self::Ext4,
            0x5846_5342 => Self::Xfs,
            0x9123_683e => Self::Btrfs,
            0x0102_1994 | 0x8584_58f6 => Self::Tmpfs,
            0x794c_7630 => Self::Overlay,
            0x6573_5546 => Self::Fuse,
            other => Self::Other(other),
        }
    }

    /// Its usual name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Tmpfs => "tmpfs",
            Self::Overlay => "overlay",
            Self::Fuse => "fuse",
            Self::Other(_) => "other",
        }
    }
}

/// The block device below a file system, as far as `/sys` tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Its name, such as `nvme0n1`.
    pub name: String,
    /// Its maker's name for it.
    pub model: Option<String>,
    /// `write back` if it has a volatile cache, else `write through`.
    pub write_cache: Option<String>,
    /// Whether a single write can pass the volatile cache by (forced unit access).
    pub fua: Option<bool>,
    /// Smallest unit it writes without reading first, in bytes.
    pub physical_block: Option<u32>,
}

/// What a directory stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FsFacts {
    /// The file system.
    pub fs: FsKind,
    /// O_DIRECT is really taken: a file was opened and written so.
    pub direct: bool,
    /// Alignment of memory for O_DIRECT, in bytes. 0 if the kernel does not say (before Linux 6.1).
    pub dio_mem_align: u32,
    /// Alignment of positions and lengths for O_DIRECT, in bytes. 0 if the kernel does not say.
    pub dio_offset_align: u32,
    /// The unit the engine writes in: a power of two, at least 4,096 bytes, and a multiple of the alignments
    /// and of the device's physical block.
    pub block: u32,
    /// Whether a flush makes anything last. Not in memory.
    pub dsync_meaningful: bool,
    /// The device, if there is one behind the file system that `/sys` knows.
    pub device: Option<Device>,
}

/// Finds out about `path`, a directory that can be written to. Leaves nothing behind.
///
/// # Errors
/// If there is no such directory, or no file can be made in it.
pub fn probe_directory(path: &Path) -> io::Result<FsFacts> {
    let fs = file_system(path)?;
    let trial = Trial::new(path)?;
    let direct = trial.takes_direct();
    let (dio_mem_align, dio_offset_align) = trial.alignments();
    let device = device(path);
    let physical = device.as_ref().and_then(|device| device.physical_block).unwrap_or(0);
    let sizes = [BLOCK_BYTES_MIN, dio_mem_align, dio_offset_align, physical];
    let largest = sizes.into_iter().max().unwrap_or(BLOCK_BYTES_MIN);
    Ok(FsFacts {
        fs,
        direct,
        dio_mem_align,
        dio_offset_align,
        block: largest.next_power_of_two(),
        dsync_meaningful: fs != FsKind::Tmpfs,
        device,
    })
}

fn file_system(path: &Path) -> io::Result<FsKind> {
    let path = c_path(path)?;
    let mut facts = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: `path` is alive; `facts` is memory of the right type.
    if unsafe { libc::statfs(path.as_ptr(), facts.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it filled `facts`.
    let facts = unsafe { facts.assume_init() };
    Ok(FsKind::from_magic(facts.f_type as u32))
}

/// A file for trials, removed with this.
struct Trial {
    path: PathBuf,
}

impl Trial {
    fn new(directory: &Path) -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!(".ringmain-probe-{}-{number}", process::id()));
        fs::File::create(&path)?;
        Ok(Self { path })
    }

    fn takes_direct(&self) -> bool {
        let Ok(path) = c_path(&self.path) else { return false };
        // SAFETY: `path` is alive.
        let fd =
            unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_DIRECT | libc::O_CLOEXEC) };
        if fd < 0 {
            return false;
        }
        // SAFETY: the call just made this descriptor, and nobody else knows it.
        let file = unsafe { OwnedFd::from_raw_fd(fd) };
        let bytes = AlignedBytes::new();
        // SAFETY: the bytes are alive and all initialised.
        let written = unsafe { libc::pwrite(file.as_raw_fd(), bytes.0.cast(), TRIAL_BYTES, 0) };
        usize::try_from(written) == Ok(TRIAL_BYTES)
    }

    fn alignments(&self) -> (u32, u32) {
        let Ok(path) = c_path(&self.path) else { return (0, 0) };
        let mut facts = MaybeUninit::<libc::statx>::zeroed();
        let (at, mask) = (libc::AT_FDCWD, libc::STATX_DIOALIGN);
        // SAFETY: `path` is alive; `facts` is memory of the right type.
        if unsafe { libc::statx(at, path.as_ptr(), 0, mask, facts.as_mut_ptr()) } != 0 {
            return (0, 0);
        }
        // SAFETY: all zeros is a value of this structure of numbers, and the call only filled it.
        let facts = unsafe { facts.assume_init() };
        if facts.stx_mask & libc::STATX_DIOALIGN == 0 {
            return (0, 0);
        }
        (facts.stx_dio_mem_align, facts.stx_dio_offset_align)
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let _gone_already = fs::remove_file(&self.path);
    }
}

/// Zeros at an address as aligned as they are long.
struct AlignedBytes(*mut u8);

impl AlignedBytes {
    const LAYOUT: Layout = match Layout::from_size_align(TRIAL_BYTES, TRIAL_BYTES) {
        Ok(layout) => layout,
        Err(_) => panic!("a power of two"),
    };

    fn new() -> Self {
        // SAFETY: the size is not zero.
        let bytes = unsafe { alloc_zeroed(Self::LAYOUT) };
        if bytes.is_null() {
            handle_alloc_error(Self::LAYOUT);
        }
        Self(bytes)
    }
}

impl Drop for AlignedBytes {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.0, Self::LAYOUT) }
    }
}

/// Where `/sys` describes the device below `path`. For a partition, its whole disk.
pub(super) fn device_directory(path: &Path) -> Option<PathBuf> {
    let number = fs::metadata(path).ok()?.dev();
    let link = format!("/sys/dev/block/{}:{}", libc::major(number), libc::minor(number));
    let mut directory = fs::canonicalize(link).ok()?;
    if directory.join("partition").exists() {
        directory.pop();
    }
    Some(directory)
}

fn device(path: &Path) -> Option<Device> {
    let directory = device_directory(path)?;
    let name = directory.file_name()?.to_string_lossy().into_owned();
    let fact = |name: &str| {
        let text = fs::read_to_string(directory.join(name)).ok()?;
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    };
    Some(Device {
        name,
        model: fact("device/model"),
        write_cache: fact("queue/write_cache"),
        fua: fact("queue/fua").map(|text| text == "1"),
        physical_block: fact("queue/physical_block_size").and_then(|text| text.parse().ok()),
    })
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_leaves_nothing_behind_and_finds_a_sane_block() {
        let directory = std::env::temp_dir().join(format!("ringmain-probe-test-{}", process::id()));
        fs::create_dir(&directory).expect("a directory");
        let facts = probe_directory(&directory).expect("facts");
        assert_eq!(fs::read_dir(&directory).expect("listed").count(), 0);
        fs::remove_dir(&directory).expect("empty");
        assert!(facts.block >= BLOCK_BYTES_MIN && facts.block.is_power_of_two());
        if facts.dio_offset_align > 0 {
            assert!(facts.direct && facts.block.is_multiple_of(facts.dio_offset_align));
        }
        assert_eq!(facts.dsync_meaningful, facts.fs != FsKind::Tmpfs);
    }

    #[test]
    fn memory_is_told_from_a_disk() {
        let facts = probe_directory(Path::new("/dev/shm")).expect("facts");
        assert_eq!((facts.fs.name(), facts.dsync_meaningful), ("tmpfs", false));
        assert_eq!(facts.device, None);
    }

    #[test]
    fn no_directory_is_an_error() {
        let error = probe_directory(Path::new("/nowhere")).expect_err("nothing there");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
