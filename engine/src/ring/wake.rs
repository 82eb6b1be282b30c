//! Who sleeps, and whether somebody wants it awake.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::Wake;

const AWAKE: u32 = 0;
const SLEEPING: u32 = 1;
const NOTIFIED: u32 = 2;

/// One thread's sleep, as the threads that may end it see it.
///
/// A waker publishes its message and then exchanges this word; the sleeper exchanges it and then looks
/// for messages. All are read-modify-writes of one word, hence totally ordered, and each reads its
/// predecessor: either the sleeper's exchange comes later and sees `NOTIFIED` with the message, or the
/// waker's comes later and sees `SLEEPING`. With a plain flag both sides would need a store-load fence.
#[derive(Debug, Default)]
pub(super) struct Sleeper(AtomicU32);

impl Sleeper {
    /// Announces a sleep. `false` if a wake-up is pending, which this takes: do not sleep.
    pub(super) fn begin(&self) -> bool {
        let seen = self.0.compare_exchange(AWAKE, SLEEPING, Ordering::AcqRel, Ordering::Acquire);
        if seen.is_err() {
            self.0.swap(AWAKE, Ordering::AcqRel);
        }
        seen.is_ok()
    }

    /// The sleep is over. `true` if a wake-up came, which this takes.
    pub(super) fn end(&self) -> bool {
        self.0.swap(AWAKE, Ordering::AcqRel) == NOTIFIED
    }

    /// A wake-up. `true` if the thread sleeps, or is about to, and has to be roused; only the first of
    /// several wakers is told so.
    pub(super) fn notify(&self) -> bool {
        self.0.swap(NOTIFIED, Ordering::AcqRel) == SLEEPING
    }

    /// Whether a wake-up came since [`Sleeper::begin`].
    pub(super) fn is_notified(&self) -> bool {
        self.0.load(Ordering::Acquire) == NOTIFIED
    }
}

/// Wakes a ring through an eventfd on which the ring keeps a read armed.
#[derive(Debug)]
pub(super) struct EventWake {
    pub(super) sleeper: Sleeper,
    pub(super) event: OwnedFd,
    /// Where the armed read puts the descriptor's counter; lives as long as the kernel may write it.
    pub(super) counter: AtomicU64,
}

impl EventWake {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: no memory is involved.
        let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if event < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call just made this descriptor, and nobody else knows it.
        let event = unsafe { OwnedFd::from_raw_fd(event) };
        Ok(Self { sleeper: Sleeper::default(), event, counter: AtomicU64::new(0) })
    }

    /// Ends the sleep of a ring whose read is armed.
    pub(super) fn rouse(&self) {
        let one: u64 = 1;
        // SAFETY: eight bytes are read from `one`.
        let written = unsafe {
            libc::write(self.event.as_raw_fd(), (&raw const one).cast(), size_of::<u64>())
        };
        assert_eq!(written, 8, "an eventfd takes an eight-byte number");
    }
}

impl Wake for EventWake {
    fn wake(&self) {
        if self.sleeper.notify() {
            self.rouse();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_up_of_an_awake_thread_ends_its_next_sleep() {
        let sleeper = Sleeper::default();
        assert!(!sleeper.notify(), "nobody to rouse");
        assert!(!sleeper.notify());
        assert!(!sleeper.begin());
        assert!(sleeper.begin(), "taken once");
        assert!(!sleeper.end());
    }

    #[test]
    fn only_the_first_wake_up_of_a_sleeping_thread_rouses_it() {
        let sleeper = Sleeper::default();
        assert!(sleeper.begin());
        assert!(!sleeper.is_notified());
        assert!(sleeper.notify());
        assert!(!sleeper.notify());
        assert!(sleeper.is_notified());
        assert!(sleeper.end());
        assert!(sleeper.begin());
    }
}
