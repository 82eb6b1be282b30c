//! Which way of sending a file's pages is the fastest here, for each family of sockets: tried out in a moment.

use std::fs::File;
use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use super::calls;
use super::pages::Pages;
use crate::command::sockets::{Family, ReadPath};

/// Bytes that one step sends, as a connection's does.
const STEP_BYTES: usize = 512 * 1024;

/// Rounds over the paths: the best of each counts, since a neighbour only ever slows one down.
const ROUNDS: usize = 3;

/// Time of one path in one round.
const EACH: Duration = Duration::from_millis(4);

/// How fast each path was over one family, in bytes a second. 0 for one that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trial {
    /// By the order of [`ReadPath::ALL`], of which the last does without the page cache and is not tried.
    pub bytes_per_s: [u64; ReadPath::ALL.len() - 1],
}

/// Tries every path over Unix sockets and over loopback TCP with the first `len` bytes of `file`, which are in the page
/// cache. Takes 100 milliseconds.
///
/// # Errors
/// If sockets cannot be made.
pub fn try_paths(file: &File, len: usize) -> io::Result<[(Family, Trial); 2]> {
    let (ours, theirs) = UnixStream::pair()?;
    let unix = try_family(file, len, (ours.into(), theirs))?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let theirs = TcpStream::connect(listener.local_addr()?)?;
    let (ours, _) = listener.accept()?;
    let ours = ours.into();
    calls::unpaced(&ours);
    let loopback = try_family(file, len, (ours, theirs))?;
    Ok([(Family::Unix, unix), (Family::Loopback, loopback)])
}

fn try_family(
    file: &File,
    len: usize,
    (ours, mut theirs): (OwnedFd, impl Read + Send + 'static),
) -> io::Result<Trial> {
    set_nonblocking(&ours)?;
    let reader = thread::Builder::new().spawn(move || {
        let mut buffer = vec![0; STEP_BYTES];
        // To the end, or until it breaks: both end the trial.
        while theirs.read(&mut buffer).is_ok_and(|count| count > 0) {}
    })?;
    let mut best = [0; ReadPath::ALL.len() - 1];
    let mut pages = Pages::default();
    for _ in 0..ROUNDS {
        for (path, best) in ReadPath::ALL.into_iter().zip(&mut best) {
            *best = u64::max(*best, rate(&mut pages, file, (len, &ours), path));
        }
    }
    drop(ours);
    // It only reads.
    drop(reader.join());
    Ok(Trial { bytes_per_s: best })
}

fn rate(pages: &mut Pages, file: &File, (len, socket): (usize, &OwnedFd), path: ReadPath) -> u64 {
    let (begin, mut sent, mut pos) = (Instant::now(), 0_u64, 0);
    while begin.elapsed() < EACH {
        let step = STEP_BYTES.min(len - pos);
        let range = (file.as_raw_fd(), pos as u64, step);
        match pages.send(socket.as_raw_fd(), range, path) {
            Ok(Some(0)) => wait_writable(socket),
            Ok(Some(count)) => {
                sent += count as u64;
                pos = (pos + count) % len;
            }
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => wait_writable(socket),
            Ok(None) | Err(_) => return 0,
        }
    }
    (sent as f64 / begin.elapsed().as_secs_f64()) as u64
}

fn wait_writable(socket: &OwnedFd) {
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: one structure, alive across the call. However it ends, the send is tried again.
    let _again = unsafe { libc::poll(&raw mut poll, 1, EACH.as_millis() as libc::c_int) };
}

fn set_nonblocking(socket: &OwnedFd) -> io::Result<()> {
    // SAFETY: no memory is involved.
    let set = unsafe { libc::fcntl(socket.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
