//! Ways of a file's bytes to a socket, each as its own experts write it: one thread, from the page cache, endlessly.

use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::zeroed;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use io_uring::{IoUring, cqueue, opcode, types};

use crate::sample::Sample;

/// Bytes handed to the kernel at once.
pub const STEP_BYTES: usize = 512 << 10;

/// Bytes of a `pread`: they stay in the core's cache.
const COPY_BYTES: usize = 64 << 10;

/// Pages that the kernel may still hold of sends that have ended.
const NOTICES_MAX: u32 = 16;

/// `IORING_SEND_ZC_REPORT_USAGE`: the notice is to say whether the bytes were copied after all.
const REPORT_USAGE: u16 = 1 << 3;

/// `IORING_NOTIF_USAGE_ZC_COPIED`: they were.
const COPIED: i32 = i32::MIN;

/// How bytes get from the file to the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `pread` and `write`: two copies.
    Read,
    /// `write` of mapped pages: one copy.
    Mmap,
    /// `sendfile`.
    Sendfile,
    /// `splice` into a pipe and out of it.
    Splice,
    /// `IORING_OP_SEND` of mapped pages: one copy.
    RingSend,
    /// `IORING_OP_SEND_ZC` of mapped pages.
    RingSendZc,
}

/// What lies between sender and receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TCP over loopback.
    Tcp,
    /// A stream of the unix domain.
    Unix,
}

/// What a sender did until its receiver was gone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// Bytes that the kernel took.
    pub bytes: u64,
    /// Processor time of the sender's thread.
    pub cpu: Duration,
    /// Of the kernel's notices, those that say that it copied, and all of them.
    pub copied: (u64, u64),
}

/// A connected pair.
///
/// # Errors
/// If the system makes none.
pub fn pair(kind: Kind) -> io::Result<(File, File)> {
    let (ours, theirs): (OwnedFd, OwnedFd) = match kind {
        Kind::Tcp => {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let ours = TcpStream::connect(listener.local_addr()?)?;
            let (theirs, _) = listener.accept()?;
            theirs.set_nodelay(true)?;
            (ours.into(), theirs.into())
        }
        Kind::Unix => {
            let (ours, theirs) = UnixStream::pair()?;
            (ours.into(), theirs.into())
        }
    };
    Ok((File::from(ours), File::from(theirs)))
}

/// Sends `file` from its beginning to its end, again and again, until the receiver is gone.
///
/// # Errors
/// If a call fails, or the way does not exist here.
pub fn send_over_and_over(file: &File, to: &File, way: Way) -> io::Result<Sent> {
    let mut sender = Sender::new(file, way)?;
    let begin = thread_time();
    let mut sent = Sent::default();
    let mut pos = 0;
    loop {
        let step = STEP_BYTES.min((sender.len - pos) as usize);
        match sender.step(to, pos, step) {
            Ok(count) => {
                sent.bytes += count as u64;
                pos = (pos + count as u64) % sender.len;
            }
            Err(error) => match error.kind() {
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => break,
                io::ErrorKind::Interrupted => {}
                _ => return Err(error),
            },
        }
    }
    sent.cpu = thread_time().saturating_sub(begin);
    sent.copied = sender.copied;
    Ok(sent)
}

/// Takes bytes and throws them away; of the time that is given the first part does not count. Ending drops `from`,
/// which ends the sender.
///
/// # Errors
/// If the sender has gone.
pub fn receive(mut from: File, (warm_up, measured): (Duration, Duration)) -> Result<Sample> {
    let mut sample = Sample::empty(measured);
    let mut buffer = vec![0; STEP_BYTES];
    let begin = Instant::now();
    let (mut step, mut since) = (0, begin);
    loop {
        step += from.read(&mut buffer).context("the sender has gone")?;
        let now = Instant::now();
        if now - begin >= warm_up + measured {
            return Ok(sample);
        }
        if step < STEP_BYTES {
            continue;
        }
        if now - begin >= warm_up {
            sample.latencies.record((now - since).as_nanos() as u64);
            sample.records += 1;
            sample.bytes += step as u64;
        }
        (step, since) = (0, now);
    }
}

/// Leaves pacing out, as the engine does for connections within one machine.
pub fn unpaced(socket: &File) {
    let name = b"reno";
    let bytes = name.len() as libc::socklen_t;
    let (fd, level, option) = (socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_CONGESTION);
    // SAFETY: the name is alive across the call, which copies it. A kernel that refuses leaves its own.
    let _its_own = unsafe { libc::setsockopt(fd, level, option, name.as_ptr().cast(), bytes) };
}

/// Whether the way exists here, tried with a few bytes.
///
/// # Errors
/// Why it does not.
pub fn trial(file: &File, kind: Kind, way: Way) -> io::Result<()> {
    let (_ours, theirs) = pair(kind)?;
    Sender::new(file, way)?.step(&theirs, 0, 4096).map(|_| ())
}

struct Sender<'a> {
    file: &'a File,
    len: u64,
    means: Means,
    /// Sends whose pages the kernel still holds.
    open: u32,
    copied: (u64, u64),
}

enum Means {
    Buffer(Vec<u8>),
    Pages(Pages),
    Sendfile,
    Pipe(File, File),
    Ring { ring: Box<IoUring>, pages: Pages, zero_copy: bool },
}

impl<'a> Sender<'a> {
    fn new(file: &'a File, way: Way) -> io::Result<Self> {
        let len = file.metadata()?.len();
        let means = match way {
            Way::Read => Means::Buffer(vec![0; COPY_BYTES]),
            Way::Mmap => Means::Pages(Pages::map(file, len as usize)?),
            Way::Sendfile => Means::Sendfile,
            Way::Splice => {
                let (from, to) = pipe(STEP_BYTES)?;
                Means::Pipe(from, to)
            }
            Way::RingSend | Way::RingSendZc => Means::Ring {
                ring: Box::new(ring()?),
                pages: Pages::map(file, len as usize)?,
                zero_copy: way == Way::RingSendZc,
            },
        };
        Ok(Self { file, len, means, open: 0, copied: (0, 0) })
    }

    /// Sends up to `step` bytes from `pos` on. Returns how many.
    fn step(&mut self, mut to: &File, pos: u64, step: usize) -> io::Result<usize> {
        match &mut self.means {
            Means::Buffer(buffer) => {
                let want = step.min(buffer.len());
                let count = self.file.read_at(&mut buffer[..want], pos)?;
                to.write_all(&buffer[..count]).map(|()| count)
            }
            Means::Pages(pages) => to.write(&pages.bytes()[pos as usize..pos as usize + step]),
            Means::Sendfile => sendfile(self.file, to, pos, step),
            Means::Pipe(from, into) => {
                let count = splice(self.file, Some(pos), into, step)?;
                let mut left = count;
                while left > 0 {
                    left -= splice(from, None, to, left)?;
                }
                Ok(count)
            }
            Means::Ring { .. } => self.ring_step(to, pos, step),
        }
    }

    fn ring_step(&mut self, to: &File, pos: u64, step: usize) -> io::Result<usize> {
        let Means::Ring { ring, pages, zero_copy } = &mut self.means else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let bytes = &pages.bytes()[pos as usize..pos as usize + step];
        let (fd, at, len) = (types::Fd(to.as_raw_fd()), bytes.as_ptr(), bytes.len() as u32);
        let flags = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        let entry = if *zero_copy {
            opcode::SendZc::new(fd, at, len).flags(flags).zc_flags(REPORT_USAGE).build()
        } else {
            opcode::Send::new(fd, at, len).flags(flags).build()
        };
        // SAFETY: the pages are mapped as long as the ring lives, and nobody writes to the file.
        let pushed = unsafe { ring.submission().push(&entry) };
        pushed.map_err(|_| io::Error::other("the ring is full"))?;
        let mut result = None;
        while result.is_none() || self.open >= NOTICES_MAX {
            ring.submit_and_wait(1)?;
            for completion in ring.completion() {
                if cqueue::notif(completion.flags()) {
                    self.open -= 1;
                    self.copied.0 += u64::from(completion.result() & COPIED != 0);
                    self.copied.1 += 1;
                } else {
                    self.open += u32::from(cqueue::more(completion.flags()));
                    result = Some(completion.result());
                }
            }
        }
        let count = result.unwrap_or_default();
        if count < 0 { Err(io::Error::from_raw_os_error(-count)) } else { Ok(count as usize) }
    }
}

fn ring() -> io::Result<IoUring> {
    let entries = 4 * NOTICES_MAX;
    let mut modern = IoUring::builder();
    modern.setup_single_issuer().setup_defer_taskrun();
    modern.build(entries).or_else(|_| IoUring::new(entries))
}

/// A file's pages in this process's memory.
struct Pages {
    base: NonNull<u8>,
    len: usize,
}

impl Pages {
    fn map(file: &File, len: usize) -> io::Result<Self> {
        let (prot, flags) = (libc::PROT_READ, libc::MAP_SHARED | libc::MAP_POPULATE);
        // SAFETY: a new mapping at a place of the kernel's choice; the descriptor is open.
        let base =
            unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, file.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, len })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: mapped for reading as long as `self` lives; the file is whole and nobody changes it.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: what `map` mapped, and nobody borrows it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

fn pipe(bytes: usize) -> io::Result<(File, File)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptors are new and nobody else's.
    let (from, to) = unsafe { (File::from_raw_fd(ends[0]), File::from_raw_fd(ends[1])) };
    // A smaller pipe is slower, not wrong: the system bounds how large it may be.
    // SAFETY: the descriptor is open; the call touches no memory.
    unsafe { libc::fcntl(to.as_raw_fd(), libc::F_SETPIPE_SZ, bytes as libc::c_int) };
    Ok((from, to))
}

fn sendfile(file: &File, to: &File, pos: u64, len: usize) -> io::Result<usize> {
    let mut pos = pos as libc::off_t;
    // SAFETY: both descriptors are open across the call, and `pos` is a place for a position.
    counted(unsafe { libc::sendfile(to.as_raw_fd(), file.as_raw_fd(), &raw mut pos, len) })
}

fn splice(from: &File, pos: Option<u64>, to: &File, len: usize) -> io::Result<usize> {
    let mut at = pos.unwrap_or_default() as libc::loff_t;
    let at = if pos.is_some() { &raw mut at } else { std::ptr::null_mut() };
    let (from, to, flags) = (from.as_raw_fd(), to.as_raw_fd(), libc::SPLICE_F_MOVE);
    // SAFETY: both descriptors are open across the call, and `at` is null or a place for a position.
    counted(unsafe { libc::splice(from, at, to, std::ptr::null_mut(), len, flags) })
}

fn counted(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Processor time of this thread.
fn thread_time() -> Duration {
    // SAFETY: all zeros is a valid `timespec`.
    let mut time: libc::timespec = unsafe { zeroed() };
    // SAFETY: `time` is writable for the call's duration.
    let got = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(got, 0, "every thread has a processor clock");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::thread;

    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn every_way_sends_the_files_bytes_in_order() {
        let scratch = Scratch::new("senders");
        let path = scratch.path().join("file");
        let bytes: Vec<u8> = (0..(STEP_BYTES + 4096)).map(|n| (n / 7) as u8).collect();
        std::fs::write(&path, &bytes).expect("written");
        let ways =
            [Way::Read, Way::Mmap, Way::Sendfile, Way::Splice, Way::RingSend, Way::RingSendZc];
        for (kind, way) in [Kind::Tcp, Kind::Unix].into_iter().flat_map(|k| ways.map(|w| (k, w))) {
            let file = File::open(&path).expect("there");
            if let Err(why) = trial(&file, kind, way) {
                eprintln!("skipped: {way:?} over {kind:?}: {why}");
                continue;
            }
            let (mut ours, theirs) = pair(kind).expect("made");
            let sender = thread::spawn(move || send_over_and_over(&file, &theirs, way));
            let mut got = vec![0; 2 * bytes.len()];
            ours.read_exact(&mut got).expect("sent");
            drop(ours);
            let sent = sender.join().expect("no panic").expect("sent");
            assert!(sent.bytes >= got.len() as u64, "{kind:?} {way:?}: {sent:?}");
            assert!(got == [&bytes[..], &bytes[..]].concat(), "{kind:?} {way:?}: other bytes");
        }
    }
}
