//! An operation on its way through the kernel: which system call is next, and what a result means for
//! it. Both rings run the same tasks.

use std::ffi::{CString, c_char};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use super::call::{Call, Target, open_flags};
use super::files::Files;
use super::namespace;
use crate::command::{Done, FileHandle, Op};

/// Results in a row that ask for a retry, or bring no byte further, before the operation fails. The
/// kernel hardly ever says EAGAIN to a ring; this only bounds the loop.
const STALLS_MAX: u32 = 1000;

/// A direct transfer continues at a multiple of the smallest block there is. The kernel cuts direct
/// transfers at the device's blocks, so with larger ones this rounds nothing.
const SECTOR_BYTES: usize = 512;

/// How the bytes of a durable write through the page cache reach the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CacheFlush {
    /// `RWF_DSYNC` with the write.
    WithWrite,
    /// `fdatasync` after it: the write is made inline, and must not block for the device.
    Apart,
}

/// What a result means for the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is over, with this count or descriptor, or this error number.
    Over(Result<i32, i32>),
    /// The same again: the rest of a short transfer, or a retry.
    Again,
    /// Its next call: the flush after a write.
    Next,
}

/// An operation in flight. Owns all that its calls point at.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) token: u64,
    op: Op,
    paths: [Option<CString>; 2],
    /// Bytes transferred.
    done: usize,
    stalls: u32,
    /// A write's bytes are in the page cache, the flush is on.
    flushing: bool,
}

impl Task {
    /// A task at its beginning. Allocates for paths only.
    pub(super) fn new(token: u64, op: Op) -> io::Result<Self> {
        let paths = match &op {
            Op::Open { path, .. } | Op::Unlink { path } | Op::MakeDir { path } => {
                [Some(c_path(path)?), None]
            }
            Op::Rename { from, to } => [Some(c_path(from)?), Some(c_path(to)?)],
            Op::Read { len, buf, .. } => {
                assert!(*len <= buf.capacity(), "a read fits its buffer");
                [None, None]
            }
            _ => [None, None],
        };
        Ok(Self { token, op, paths, done: 0, stalls: 0, flushing: false })
    }

    /// The file it works on.
    pub(super) fn file(&self) -> Option<FileHandle> {
        match self.op {
            Op::Close { file }
            | Op::Write { file, .. }
            | Op::Read { file, .. }
            | Op::Sync { file, .. }
            | Op::Advise { file, .. }
            | Op::Allocate { file, .. }
            | Op::Truncate { file, .. }
            | Op::Length { file } => Some(file),
            _ => None,
        }
    }

    /// Whether it closes its file.
    pub(super) fn closes(&self) -> bool {
        matches!(self.op, Op::Close { .. })
    }

    /// The next system call. `None` for what is done in place ([`Task::run_in_place`]).
    pub(super) fn call(&mut self, files: &Files, cache: CacheFlush) -> Option<Call> {
        if self.is_empty() {
            return None;
        }
        let done = self.done;
        let call = match &mut self.op {
            Op::Write { file, .. } if self.flushing => {
                Call::Sync { file: files.target(*file), data_only: true }
            }
            Op::Write { file, pos, data, durable } => {
                let rest = &data[done..];
                let file = files.target(*file);
                let apart = !file.direct && cache == CacheFlush::Apart;
                Call::Write {
                    file,
                    from: rest.as_ptr(),
                    len: u32::try_from(rest.len()).expect("a chunk is small"),
                    pos: *pos + done as u64,
                    durable: *durable && !apart,
                }
            }
            Op::Read { file, pos, len, buf } => Call::Read {
                file: files.target(*file),
                to: buf.fill_ptr().wrapping_add(done),
                len: u32::try_from(*len - done).expect("a chunk is small"),
                pos: *pos + done as u64,
            },
            Op::Open { mode, .. } => {
                Call::Open { path: c_ptr(self.paths[0].as_ref()), flags: open_flags(*mode) }
            }
            Op::Close { file } => Call::Close { file: files.target(*file) },
            Op::Sync { file, data_only } => {
                Call::Sync { file: files.target(*file), data_only: *data_only }
            }
            Op::Advise { file, pos, len } => {
                Call::Advise { file: files.target(*file), pos: *pos, len: *len }
            }
            Op::Allocate { file, pos, len } => {
                Call::Allocate { file: files.target(*file), pos: *pos, len: *len }
            }
            Op::Truncate { file, len } => Call::Truncate { file: files.target(*file), len: *len },
            Op::Rename { .. } => Call::Rename {
                from: c_ptr(self.paths[0].as_ref()),
                to: c_ptr(self.paths[1].as_ref()),
            },
            Op::Unlink { .. } => Call::Unlink { path: c_ptr(self.paths[0].as_ref()) },
            Op::MakeDir { .. } => Call::MakeDir { path: c_ptr(self.paths[0].as_ref()) },
            Op::Length { .. } | Op::RemoveDir { .. } | Op::List { .. } => return None,
        };
        Some(call)
    }

    /// Takes a call's result in.
    pub(super) fn advance(&mut self, result: i32, files: &Files, cache: CacheFlush) -> Verdict {
        if result < 0 {
            return self.failed(-result, files);
        }
        let count = result as usize;
        match &self.op {
            Op::Write { .. } if self.flushing => Verdict::Over(Ok(0)),
            Op::Write { file, data, durable, .. } => {
                let file = files.target(*file);
                let (len, durable) = (data.len(), *durable);
                if count == 0 {
                    return Verdict::Over(Err(libc::EIO));
                }
                assert!(self.done + count <= len, "no more than was asked for");
                if self.done + count < len {
                    return self.go_on(count, file);
                }
                self.done = len;
                self.flushing = durable && !file.direct && cache == CacheFlush::Apart;
                if self.flushing { Verdict::Next } else { Verdict::Over(Ok(0)) }
            }
            Op::Read { file, pos, len, .. } => {
                let file = files.target(*file);
                let (end, len) = (*pos + (self.done + count) as u64, *len);
                assert!(self.done + count <= len, "no more than was asked for");
                // A short read is the end of the file, or it was cut for a reason of the kernel's own.
                let is_end =
                    count == 0 || namespace::length(file.fd).is_ok_and(|length| end >= length);
                if self.done + count == len || is_end {
                    self.done += count;
                    return Verdict::Over(Ok(0));
                }
                self.go_on(count, file)
            }
            _ => Verdict::Over(Ok(result)),
        }
    }

    /// Does in place what has no system call of its own, or is nothing at all.
    pub(super) fn run_in_place(&self, files: &Files) -> io::Result<Done> {
        match &self.op {
            Op::Length { file } => Ok(Done::Length(namespace::length(files.target(*file).fd)?)),
            Op::RemoveDir { path } => namespace::remove_directory(path).map(|()| Done::Unit),
            Op::List { path } => namespace::list(path).map(Done::Names),
            op => unreachable!("the kernel does {op:?}"),
        }
    }

    /// Whether nothing is to be transferred at all.
    pub(super) fn is_empty(&self) -> bool {
        match &self.op {
            Op::Write { data, .. } => data.is_empty(),
            Op::Read { len, .. } => *len == 0,
            _ => false,
        }
    }

    /// The completion's content. `files` learns of opened and closed ones.
    pub(super) fn finish(self, outcome: Result<i32, i32>, files: &mut Files) -> io::Result<Done> {
        if let Op::Close { file } = self.op {
            // A failed close has closed all the same, unless it was cancelled before it began.
            if outcome != Err(libc::ECANCELED) {
                files.forget(file);
            }
        }
        let value = outcome.map_err(io::Error::from_raw_os_error)?;
        match self.op {
            Op::Open { mode, .. } => files
                .insert(value, mode.direct)
                .map(Done::File)
                .ok_or_else(|| io::Error::from_raw_os_error(libc::EMFILE)),
            Op::Read { mut buf, .. } => {
                // SAFETY: the kernel wrote the first `done` bytes: each transfer began at most where the
                // one before had ended.
                unsafe { buf.filled(self.done) };
                Ok(Done::Read(buf))
            }
            _ => Ok(Done::Unit),
        }
    }

    fn failed(&mut self, error: i32, files: &Files) -> Verdict {
        match error {
            // Linux gives the descriptor up before it can be interrupted: a second close could hit a
            // stranger's file.
            libc::EINTR if self.closes() => Verdict::Over(Ok(0)),
            libc::EAGAIN | libc::EINTR => self.stall(error),
            libc::EINVAL
                if matches!(self.op, Op::Write { .. } | Op::Read { .. }) && !self.flushing =>
            {
                let file = self.file().map(|file| files.target(file));
                let memory = match &self.op {
                    Op::Write { data, .. } => data.as_ptr(),
                    Op::Read { buf, .. } => buf.as_ptr(),
                    _ => ptr::null(),
                };
                panic!(
                    "misaligned: {:?} at memory {memory:p}, {} bytes done, {file:?}",
                    self.op, self.done
                )
            }
            _ => Verdict::Over(Err(error)),
        }
    }

    /// Continues a short transfer.
    fn go_on(&mut self, count: usize, file: Target) -> Verdict {
        let mut done = self.done + count;
        if file.direct {
            done -= done % SECTOR_BYTES;
        }
        if done <= self.done {
            return self.stall(libc::EIO);
        }
        self.done = done;
        self.stalls = 0;
        Verdict::Again
    }

    fn stall(&mut self, error: i32) -> Verdict {
        self.stalls += 1;
        if self.stalls > STALLS_MAX { Verdict::Over(Err(error)) } else { Verdict::Again }
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    let nul = |_| io::Error::from_raw_os_error(libc::EINVAL);
    CString::new(path.as_os_str().as_bytes()).map_err(nul)
}

fn c_ptr(path: Option<&CString>) -> *const c_char {
    path.expect("an operation with a path has one").as_ptr()
}
