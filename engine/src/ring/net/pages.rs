//! From a file's pages to a socket, without waiting for a disk: whether the page cache has them is asked first.

use std::io;
use std::os::fd::RawFd;

use super::calls::{self, Pipe, unless_blocked};
use crate::command::sockets::ReadPath;

/// `cachestat(2)` (Linux 6.5), the same number on every architecture.
const SYS_CACHESTAT: libc::c_long = 451;

/// Pages as the cache counts them.
const PAGE_BYTES: u64 = 4096;

/// Bytes copied at once: they stay in the core's cache between the two calls.
const COPY_BYTES: usize = 64 * 1024;

/// `struct cachestat_range`.
#[repr(C)]
struct Range {
    offset: u64,
    len: u64,
}

/// `struct cachestat`.
#[repr(C)]
#[derive(Default)]
struct CacheStat {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// What sending from the page cache needs beside the file and the socket.
#[derive(Debug, Default)]
pub(super) struct Pages {
    pipe: Option<Pipe>,
    scratch: Vec<u8>,
    /// There is no `cachestat`, or it is not for us.
    asks_by_reading: bool,
}

impl Pages {
    /// Sends what the socket takes of `len` bytes at `pos`. `None`: they are not all in the page cache, or the file
    /// ends there. Nothing is sent then. Between the answer and the call the kernel may drop a page: then that call
    /// waits for the disk, once.
    pub(super) fn send(
        &mut self,
        fd: RawFd,
        (file, pos, len): (RawFd, u64, usize),
        path: ReadPath,
    ) -> io::Result<Option<usize>> {
        if path != ReadPath::Copy && !self.is_resident(file, pos, len)? {
            return Ok(None);
        }
        let sent = match path {
            ReadPath::Sendfile => calls::sendfile(fd, file, pos, len)?,
            ReadPath::Mmap => calls::send_mapped(fd, file, pos, len)?,
            ReadPath::Splice => {
                let pipe = self.pipe.take().map_or_else(Pipe::new, Ok)?;
                let (sent, pipe) = pipe.splice(fd, (file, pos), len);
                self.pipe = pipe;
                sent?
            }
            ReadPath::Copy => return self.copy(fd, (file, pos, len)),
            ReadPath::Direct => unreachable!("the shard reads past the page cache itself"),
        };
        // A file that was cut in its last page: that one is there, and has nothing. A full socket is an error.
        Ok((sent > 0).then_some(sent))
    }

    /// Reads without blocking and sends, a piece at a time. What a socket does not take of a piece is read again.
    fn copy(
        &mut self,
        fd: RawFd,
        (file, pos, len): (RawFd, u64, usize),
    ) -> io::Result<Option<usize>> {
        let mut sent = 0;
        while sent < len {
            let want = (len - sent).min(COPY_BYTES);
            let got = self.read_now(file, pos + sent as u64, want)?;
            if got == 0 {
                // At a file's end there is nothing either: the way past the cache finds that out.
                return Ok((sent > 0).then_some(sent));
            }
            match unless_blocked(calls::send(fd, &self.scratch[..got], false)) {
                Ok(Some(count)) => {
                    sent += count;
                    if count < got {
                        break;
                    }
                }
                Err(error) if sent == 0 => return Err(error),
                Ok(None) | Err(_) => break,
            }
        }
        Ok(Some(sent))
    }

    /// Reads what the page cache has, from `pos` on; 0 if it has nothing there.
    fn read_now(&mut self, file: RawFd, pos: u64, len: usize) -> io::Result<usize> {
        if self.scratch.len() < len {
            self.scratch.resize(len, 0);
        }
        Ok(unless_blocked(calls::read_now(file, &mut self.scratch[..len], pos))?.unwrap_or(0))
    }

    /// Whether the page cache has all of a range.
    fn is_resident(&mut self, file: RawFd, pos: u64, len: usize) -> io::Result<bool> {
        if !self.asks_by_reading {
            let range = Range { offset: pos, len: len as u64 };
            let mut stat = CacheStat::default();
            // SAFETY: both structures are what the call takes, alive across it.
            let asked = unsafe {
                libc::syscall(
                    SYS_CACHESTAT,
                    libc::c_long::from(file),
                    &raw const range,
                    &raw mut stat,
                    0_usize,
                )
            };
            if asked == 0 {
                let pages = (pos + len as u64).div_ceil(PAGE_BYTES) - pos / PAGE_BYTES;
                return Ok(stat.cached >= pages);
            }
            // Absent before Linux 6.5, and refused for files of others.
            self.asks_by_reading = true;
        }
        Ok(self.read_now(file, pos, len)? == len)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn written(bytes: &[u8]) -> File {
        let path = std::env::temp_dir().join(format!("ringmain-pages-{}", std::process::id()));
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .expect("a file");
        std::fs::remove_file(path).expect("removed");
        file.write_all(bytes).expect("written");
        file
    }

    #[test]
    fn every_path_sends_the_files_bytes() {
        let bytes: Vec<u8> = (0..300_000_u32).map(|n| (n / 7) as u8).collect();
        let file = written(&bytes);
        for asks_by_reading in [false, true] {
            for path in ReadPath::ALL.into_iter().filter(|path| *path != ReadPath::Direct) {
                let mut pages = Pages { asks_by_reading, ..Pages::default() };
                let (ours, mut theirs) = UnixStream::pair().expect("a pair");
                ours.set_nonblocking(true).expect("set");
                let mut back = Vec::new();
                while back.len() < bytes.len() {
                    let (pos, rest) = (back.len() as u64, bytes.len() - back.len());
                    let range = (file.as_raw_fd(), pos, rest);
                    let sent = pages.send(ours.as_raw_fd(), range, path).expect("sent");
                    let sent = sent.expect("just written, so in the page cache");
                    assert!(sent > 0, "{path:?}: there is room");
                    let begin = back.len();
                    back.resize(begin + sent, 0);
                    theirs.read_exact(&mut back[begin..]).expect("received");
                }
                assert!(back == bytes, "{path:?}");
            }
        }
    }

    #[test]
    fn what_is_not_there_is_not_resident() {
        let file = written(&[1; 10_000]);
        for asks_by_reading in [false, true] {
            let mut pages = Pages { asks_by_reading, ..Pages::default() };
            let mut asked =
                |pos, len| pages.is_resident(file.as_raw_fd(), pos, len).expect("asked");
            assert!(asked(0, 10_000));
            assert!(asked(4095, 2));
            assert!(!asked(0, 30_000), "past the end");
        }
    }
}
