//! A partition's files: `<partition>/<number>.log`, batches back to back, zeros behind them.
//!
//! A place is one number: the file's number times the bytes of a file, and the position in it.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::prepared::{Aligned, BLOCK_BYTES};
use crate::run::values::Prepare;

/// One write of zeros.
const ZEROS_BYTES: usize = 512 << 10;

/// How space is made ready in all files of an instance.
#[derive(Clone, Copy, Debug)]
pub(super) struct Readying {
    pub(super) how: Prepare,
    /// Bytes made ready at once, whole blocks.
    pub(super) step_bytes: u64,
    /// Whether what was made ready is flushed: an ack means that bytes are on stable storage.
    pub(super) flushed: bool,
}

/// What a partition's writer, its readers and those who ready its space share.
pub(super) struct Track {
    dir: PathBuf,
    file_bytes: u64,
    direct: bool,
    /// Up to where space is ready. Beyond it zeros may just be written.
    ready: AtomicU64,
    /// Up to where it is wanted, and whether somebody has been told so.
    wanted: AtomicU64,
    asked: AtomicBool,
    /// Up to where batches are acked.
    acked: AtomicU64,
    /// Files made ahead, for the writer; the last one made is where space is being readied.
    made: Mutex<VecDeque<Arc<File>>>,
    last: Mutex<Option<Arc<File>>>,
    /// Files with bytes that the interval's flush must cover.
    dirty: Mutex<Vec<Arc<File>>>,
    dirty_bytes: AtomicU64,
}

/// The directory of a partition.
pub(super) fn directory(dir: &Path, partition: u32) -> PathBuf {
    dir.join(format!("run-{partition}"))
}

/// A file of it.
pub(super) fn path(dir: &Path, nth: u64) -> PathBuf {
    dir.join(format!("{nth:020}.log"))
}

impl Track {
    /// A new partition in `dir`, without any file.
    pub(super) fn new(dir: PathBuf, file_bytes: u64, direct: bool) -> io::Result<Self> {
        fs::create_dir(&dir)?;
        Ok(Self {
            dir,
            file_bytes,
            direct,
            ready: AtomicU64::new(0),
            wanted: AtomicU64::new(0),
            asked: AtomicBool::new(false),
            acked: AtomicU64::new(0),
            made: Mutex::default(),
            last: Mutex::default(),
            dirty: Mutex::default(),
            dirty_bytes: AtomicU64::new(0),
        })
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    pub(super) fn ready(&self) -> u64 {
        self.ready.load(Ordering::Acquire)
    }

    pub(super) fn acked(&self) -> u64 {
        self.acked.load(Ordering::Acquire)
    }

    /// Lets readers see up to `place`.
    pub(super) fn set_acked(&self, place: u64) {
        self.acked.store(place, Ordering::Release);
    }

    /// Wants space up to `place`; whether the preparer must be told.
    pub(super) fn want(&self, place: u64) -> bool {
        self.wanted.fetch_max(place, Ordering::AcqRel);
        !self.asked.swap(true, Ordering::AcqRel)
    }

    /// The next file for the writer, if it is made.
    pub(super) fn next_file(&self) -> Option<Arc<File>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Notes that `file` has `bytes` more that are not flushed.
    pub(super) fn dirtied(&self, file: &Arc<File>, bytes: u64) {
        self.dirty_bytes.fetch_add(bytes, Ordering::AcqRel);
        let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        if dirty.last().is_none_or(|last| !Arc::ptr_eq(last, file)) {
            dirty.push(Arc::clone(file));
        }
    }

    /// Bytes noted since the last flush.
    pub(super) fn dirty_bytes(&self) -> u64 {
        self.dirty_bytes.load(Ordering::Acquire)
    }

    /// Flushes what is noted; how many flushes it took.
    pub(super) fn flush_dirty(&self) -> io::Result<u64> {
        self.dirty_bytes.store(0, Ordering::Release);
        let files = std::mem::take(&mut *self.dirty.lock().unwrap_or_else(PoisonError::into_inner));
        files.iter().try_for_each(|file| file.sync_data())?;
        Ok(files.len() as u64)
    }

    /// Readies all that is wanted; how many bytes that were. One thread at a time.
    pub(super) fn ready_wanted(&self, readying: Readying) -> io::Result<u64> {
        self.asked.store(false, Ordering::Release);
        let mut bytes = 0;
        while self.ready() < self.wanted.load(Ordering::Acquire) {
            bytes += self.ready_step(readying)?;
        }
        Ok(bytes)
    }

    /// Readies one step more.
    pub(super) fn ready_step(&self, readying: Readying) -> io::Result<u64> {
        let at = self.ready();
        let pos = at % self.file_bytes;
        if pos == 0 {
            self.make(at / self.file_bytes, readying.flushed)?;
        }
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let file = last.expect("made before any space in it is");
        let bytes = match readying.how {
            // All of the file: it grows as it is written.
            Prepare::None => self.file_bytes - pos,
            Prepare::Fallocate | Prepare::Prezero => readying.step_bytes.min(self.file_bytes - pos),
        };
        match readying.how {
            Prepare::None => {}
            Prepare::Fallocate => fallocate(&file, pos, bytes)?,
            Prepare::Prezero => self.zero(at / self.file_bytes, pos, bytes)?,
        }
        if readying.flushed && readying.how != Prepare::None {
            file.sync_data()?;
        }
        self.ready.store(at + bytes, Ordering::Release);
        Ok(if readying.how == Prepare::None { 0 } else { bytes })
    }

    fn make(&self, nth: u64, flushed: bool) -> io::Result<()> {
        let file = Arc::new(open(&path(&self.dir, nth), self.direct)?);
        if flushed {
            file.sync_all()?;
            File::open(&self.dir)?.sync_all()?;
        }
        let made = Arc::clone(&file);
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push_back(made);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        Ok(())
    }

    /// Writes zeros past the page cache where that is possible: they are not wanted in memory.
    fn zero(&self, nth: u64, pos: u64, bytes: u64) -> io::Result<()> {
        let path = path(&self.dir, nth);
        let file = open(&path, true).or_else(|_| open(&path, false))?;
        let zeros = Aligned::new(ZEROS_BYTES);
        let mut done = 0;
        while done < bytes {
            let run = (bytes - done).min(ZEROS_BYTES as u64);
            file.write_all_at(&zeros[..run as usize], pos + done)?;
            done += run;
        }
        Ok(())
    }
}

fn open(path: &Path, direct: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    if direct {
        options.custom_flags(libc::O_DIRECT);
    }
    options.open(path)
}

/// Whether the file system of `dir` takes O_DIRECT, found out with a file that does not stay.
pub(super) fn takes_direct(dir: &Path) -> io::Result<bool> {
    let probe = dir.join("probe");
    let taken = match open(&probe, true) {
        Ok(_) => true,
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => false,
        Err(e) => return Err(e),
    };
    if probe.exists() {
        fs::remove_file(&probe)?;
    }
    Ok(taken)
}

fn fallocate(file: &File, pos: u64, bytes: u64) -> io::Result<()> {
    loop {
        // SAFETY: the descriptor is open; no memory is touched.
        let made = unsafe {
            libc::fallocate(file.as_raw_fd(), 0, pos as libc::off_t, bytes as libc::off_t)
        };
        if made == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// A file's length such that O_DIRECT takes all of it.
pub(super) fn whole_blocks(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK_BYTES as u64)
}
