//! One system call as plain data, and its blocking execution. An io_uring submission entry is the same
//! data in another form (`sqe`), so both rings share everything above this.

use std::ffi::{c_char, c_int};
use std::io;
use std::os::fd::RawFd;

use crate::command::OpenMode;

/// Permissions of new files, before the process's mask.
pub(super) const FILE_PERMISSIONS: libc::mode_t = 0o644;

/// Permissions of new directories, before the process's mask.
pub(super) const DIRECTORY_PERMISSIONS: libc::mode_t = 0o755;

/// An open file, as calls name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) fd: RawFd,
    /// Index in the ring's table of registered files.
    pub(super) fixed: Option<u32>,
    /// Opened with O_DIRECT.
    pub(super) direct: bool,
}

/// A system call. The pointers lead into the slot that holds the operation: paths, or arena memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Open { path: *const c_char, flags: c_int },
    Close { file: Target },
    Write { file: Target, from: *const u8, len: u32, pos: u64, durable: bool },
    Read { file: Target, to: *mut u8, len: u32, pos: u64 },
    Sync { file: Target, data_only: bool },
    Advise { file: Target, pos: u64, len: u32 },
    Allocate { file: Target, pos: u64, len: u64 },
    Truncate { file: Target, len: u64 },
    Rename { from: *const c_char, to: *const c_char },
    Unlink { path: *const c_char },
    MakeDir { path: *const c_char },
}

impl Call {
    /// Makes the call and blocks until it is done. Returns what a completion entry would: a count or a
    /// descriptor, or the error number negated.
    ///
    /// # Safety
    /// What the call points at is alive, and memory it reads into is nobody else's, until this returns.
    pub(super) unsafe fn run(&self) -> i32 {
        match *self {
            Self::Write { file, from, len, pos, durable } => {
                let flags = if durable { libc::RWF_DSYNC } else { 0 };
                let base = from.cast_mut().cast();
                let bytes = libc::iovec { iov_base: base, iov_len: len as usize };
                // SAFETY: the caller keeps the bytes alive; `bytes` lives across the call.
                let result =
                    unsafe { libc::pwritev2(file.fd, &raw const bytes, 1, offset(pos), flags) };
                outcome(result)
            }
            Self::Read { file, to, len, pos } => {
                let bytes = libc::iovec { iov_base: to.cast(), iov_len: len as usize };
                // SAFETY: the caller owns the memory read into; `bytes` lives across the call.
                let result = unsafe { libc::preadv2(file.fd, &raw const bytes, 1, offset(pos), 0) };
                outcome(result)
            }
            Self::Open { .. }
            | Self::Rename { .. }
            | Self::Unlink { .. }
            | Self::MakeDir { .. } => {
                // SAFETY: passed on.
                unsafe { self.run_path() }
            }
            _ => self.run_file(),
        }
    }

    /// # Safety
    /// The paths are alive.
    unsafe fn run_path(&self) -> i32 {
        let result = match *self {
            Self::Open { path, flags } => {
                // SAFETY: the caller keeps the path alive.
                unsafe { libc::open(path, flags, FILE_PERMISSIONS) }
            }
            Self::Rename { from, to } => {
                // SAFETY: the caller keeps both paths alive.
                unsafe { libc::rename(from, to) }
            }
            Self::Unlink { path } => {
                // SAFETY: the caller keeps the path alive.
                unsafe { libc::unlink(path) }
            }
            Self::MakeDir { path } => {
                // SAFETY: the caller keeps the path alive.
                unsafe { libc::mkdir(path, DIRECTORY_PERMISSIONS) }
            }
            _ => unreachable!("not a call with a path: {self:?}"),
        };
        outcome(result as isize)
    }

    fn run_file(&self) -> i32 {
        let result = match *self {
            Self::Close { file } => {
                // SAFETY: the table of files gave this descriptor up with this call.
                unsafe { libc::close(file.fd) }
            }
            Self::Sync { file, data_only: true } => {
                // SAFETY: no memory is involved.
                unsafe { libc::fdatasync(file.fd) }
            }
            Self::Sync { file, data_only: false } => {
                // SAFETY: no memory is involved.
                unsafe { libc::fsync(file.fd) }
            }
            Self::Advise { file, pos, len } => {
                let advice = libc::POSIX_FADV_WILLNEED;
                // SAFETY: no memory is involved.
                let error =
                    unsafe { libc::posix_fadvise(file.fd, offset(pos), len.into(), advice) };
                // The one call here that returns its error's number.
                return -error;
            }
            Self::Allocate { file, pos, len } => {
                // SAFETY: no memory is involved.
                unsafe { libc::fallocate(file.fd, 0, offset(pos), offset(len)) }
            }
            Self::Truncate { file, len } => {
                // SAFETY: no memory is involved.
                unsafe { libc::ftruncate(file.fd, offset(len)) }
            }
            _ => unreachable!("not a call on a file alone: {self:?}"),
        };
        outcome(result as isize)
    }
}

/// A file position as the kernel takes it.
fn offset(pos: u64) -> libc::off_t {
    libc::off_t::try_from(pos).expect("positions and lengths fit 63 bits")
}

fn outcome(result: isize) -> i32 {
    if result < 0 {
        let error = io::Error::last_os_error();
        return -error.raw_os_error().expect("the last error has a number");
    }
    i32::try_from(result).expect("no call moves 2 GiB")
}

/// The flags of `open(2)` for a mode.
pub(super) fn open_flags(mode: OpenMode) -> c_int {
    let mut flags = libc::O_CLOEXEC;
    flags |= if mode.read_only || mode.directory { libc::O_RDONLY } else { libc::O_RDWR };
    let chosen = [
        (mode.create, libc::O_CREAT),
        (mode.create && mode.exclusive, libc::O_EXCL),
        (mode.direct, libc::O_DIRECT),
        (mode.directory, libc::O_DIRECTORY),
    ];
    chosen.iter().filter(|(on, _)| *on).fold(flags, |flags, (_, flag)| flags | flag)
}
