//! An eventfd: a counter that a ring can read.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Ends a ring's sleep from another thread.
#[derive(Debug)]
pub struct WakeFd(OwnedFd);

impl WakeFd {
    /// A counter at zero.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: `eventfd` touches no memory of ours.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is fresh and has no other owner.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Adds one to the counter.
    pub fn notify(&self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: eight readable bytes, as `eventfd` wants them.
        let written = unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        assert_eq!(written, 8, "the counter is read long before it is full");
    }
}

impl AsRawFd for WakeFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
