//! Who waits for sockets on the ring of threads: one thread in `epoll_wait(2)`, asleep while nothing happens.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use super::super::wake::EventWake;

/// Most events taken at once.
const EVENTS_MAX: usize = 256;

/// What ends the thread. No socket's handle is that large.
const END: u64 = u64::MAX;

/// What was seen on a socket: whether a call that reads, or one that writes, would not block.
pub(in super::super) type Seen = (u64, bool, bool);

/// The thread, and the set it waits on.
#[derive(Debug)]
pub(in super::super) struct Poller {
    set: Arc<OwnedFd>,
    end: EventWake,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Poller {
    /// Starts the thread, which hands what it sees to `tell`.
    pub(in super::super) fn start(
        tell: impl Fn(&mut Vec<Seen>) + Send + 'static,
    ) -> io::Result<Self> {
        // SAFETY: no memory is involved.
        let set = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if set < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call just made this descriptor, and nobody else knows it.
        let set = Arc::new(unsafe { OwnedFd::from_raw_fd(set) });
        let end = EventWake::new()?;
        control(&set, end.event.as_raw_fd(), libc::EPOLL_CTL_ADD, libc::EPOLLIN as u32, END)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let thread = thread::Builder::new().name("ringmain-poll".to_owned());
        let shared = (set.clone(), is_over.clone());
        let thread = thread.spawn(move || {
            let (set, is_over) = shared;
            let mut seen = Vec::with_capacity(EVENTS_MAX);
            while !is_over.load(Ordering::Acquire) {
                wait(&set, &mut seen);
                tell(&mut seen);
                seen.clear();
            }
        })?;
        Ok(Self { set, end, is_over, thread: Some(thread) })
    }

    /// Waits for a socket, once. Waiting for nothing leaves it alone.
    pub(in super::super) fn watch(
        &self,
        handle: u64,
        (fd, input, output): (RawFd, bool, bool),
    ) -> io::Result<()> {
        let mut events = libc::EPOLLONESHOT;
        events |= if input { libc::EPOLLIN | libc::EPOLLRDHUP } else { 0 };
        events |= if output { libc::EPOLLOUT } else { 0 };
        let events = events as u32;
        match control(&self.set, fd, libc::EPOLL_CTL_MOD, events, handle) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                control(&self.set, fd, libc::EPOLL_CTL_ADD, events, handle)
            }
            result => result,
        }
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        self.end.rouse();
        if let Some(thread) = self.thread.take() {
            let joined = thread.join().is_ok();
            assert!(joined || thread::panicking(), "the poller does not panic");
        }
    }
}

fn control(set: &OwnedFd, fd: RawFd, what: i32, events: u32, handle: u64) -> io::Result<()> {
    let mut event = libc::epoll_event { events, u64: handle };
    // SAFETY: `event` is what the call takes, alive across it.
    let result = unsafe { libc::epoll_ctl(set.as_raw_fd(), what, fd, &raw mut event) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn wait(set: &OwnedFd, seen: &mut Vec<Seen>) {
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX];
    // SAFETY: there is room for so many events. An interrupted wait sees none.
    let count = unsafe {
        libc::epoll_wait(set.as_raw_fd(), events.as_mut_ptr(), EVENTS_MAX as libc::c_int, -1)
    };
    for event in &events[..usize::try_from(count).unwrap_or(0)] {
        let (bits, handle) = (event.events.cast_signed(), event.u64);
        if handle != END {
            let broken = bits & (libc::EPOLLERR | libc::EPOLLHUP) != 0;
            let input = bits & (libc::EPOLLIN | libc::EPOLLRDHUP) != 0;
            seen.push((handle, broken || input, broken || bits & libc::EPOLLOUT != 0));
        }
    }
}
