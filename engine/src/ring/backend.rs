//! The choice between the rings.

use std::fs;
use std::io;
use std::sync::Arc;

use super::sync::SyncRing;
use super::uring::Uring;
use super::{Ring, RingStats, Sockets, Wait, Wake};
use crate::buffers::Arena;
use crate::command::{Completion, Op};

/// Threads of a ring that falls back to plain system calls.
const SYNC_WORKERS: usize = 16;

/// Where an administrator switches io_uring off (Linux 6.6).
const DISABLED_PATH: &str = "/proc/sys/kernel/io_uring_disabled";

/// How a shard talks to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// io_uring, or where it is forbidden or too old threads, with a reason to be told. The default.
    #[default]
    Auto,
    /// io_uring or nothing.
    Uring,
    /// Threads with plain system calls.
    Sync,
}

/// Why [`Backend::Auto`] came down to threads.
#[derive(Debug, thiserror::Error)]
pub enum Fallback {
    /// The kernel was built without io_uring, or a filter says so.
    #[error("io_uring is not there (a kernel without it, or a container's seccomp filter)")]
    Absent(#[source] io::Error),
    /// An administrator has switched it off.
    #[error("io_uring is switched off by the sysctl kernel.io_uring_disabled = {sysctl}")]
    SwitchedOff {
        /// The setting: 1 for users without privilege, 2 for all.
        sysctl: u8,
        /// What the kernel said.
        source: io::Error,
    },
    /// Something else forbids it.
    #[error("io_uring is forbidden (as a rule by a container's seccomp filter)")]
    Forbidden(#[source] io::Error),
    /// Its queues count as locked memory, of which the process may have too little.
    #[error("io_uring has no memory (raise the limit of locked memory: ulimit -l, RLIMIT_MEMLOCK)")]
    NoMemory(#[source] io::Error),
    /// The kernel is too old.
    #[error("io_uring is too old here: {0}")]
    TooOld(#[source] io::Error),
}

impl Fallback {
    /// The reason behind an error of [`Uring::new`]; the error itself if it is none to fall back for.
    fn from_error(error: io::Error, sysctl: Option<u8>) -> io::Result<Self> {
        match error.raw_os_error() {
            Some(libc::ENOSYS) => Ok(Self::Absent(error)),
            Some(libc::EPERM | libc::EACCES) => Ok(match sysctl {
                Some(sysctl) if sysctl > 0 => Self::SwitchedOff { sysctl, source: error },
                _ => Self::Forbidden(error),
            }),
            Some(libc::ENOMEM) => Ok(Self::NoMemory(error)),
            Some(libc::EINVAL) => Ok(Self::TooOld(error)),
            None if error.kind() == io::ErrorKind::Unsupported => Ok(Self::TooOld(error)),
            _ => Err(error),
        }
    }
}

/// Makes a ring on the thread that will use it. `entries` is the size of the submission queue. With a
/// reason if the ring is not the one that was hoped for; the caller tells it aloud.
///
/// # Errors
/// If the ring asked for cannot be made, or under [`Backend::Auto`] for want of descriptors.
pub fn open_ring(backend: Backend, entries: u32) -> io::Result<(AnyRing, Option<Fallback>)> {
    let sync = || SyncRing::new(SYNC_WORKERS).map(Box::new).map(AnyRing::Sync);
    match backend {
        Backend::Sync => Ok((sync()?, None)),
        Backend::Uring => Ok((AnyRing::Uring(Box::new(Uring::new(entries)?)), None)),
        Backend::Auto => match Uring::new(entries) {
            Ok(ring) => Ok((AnyRing::Uring(Box::new(ring)), None)),
            Err(error) => {
                let reason = Fallback::from_error(error, disabled())?;
                Ok((sync()?, Some(reason)))
            }
        },
    }
}

/// The sysctl, where there is one.
fn disabled() -> Option<u8> {
    fs::read_to_string(DISABLED_PATH).ok()?.trim().parse().ok()
}

/// One ring or the other.
#[derive(Debug)]
pub enum AnyRing {
    /// Over io_uring.
    Uring(Box<Uring>),
    /// Over threads.
    Sync(Box<SyncRing>),
}

/// The same call on whichever ring it is.
macro_rules! either {
    ($self:expr, $ring:ident => $call:expr) => {
        match $self {
            Self::Uring($ring) => $call,
            Self::Sync($ring) => $call,
        }
    };
}

impl Ring for AnyRing {
    fn register(&mut self, arena: &Arena) -> u64 {
        either!(self, ring => ring.register(arena))
    }

    fn push(&mut self, token: u64, op: Op) {
        either!(self, ring => ring.push(token, op));
    }

    fn in_flight(&self) -> usize {
        either!(self, ring => ring.in_flight())
    }

    fn capacity(&self) -> usize {
        either!(self, ring => ring.capacity())
    }

    fn enter(&mut self, wait: Wait) -> io::Result<()> {
        either!(self, ring => ring.enter(wait))
    }

    fn pop(&mut self) -> Option<Completion> {
        either!(self, ring => ring.pop())
    }

    fn sockets(&mut self) -> Option<&mut Sockets> {
        either!(self, ring => ring.sockets())
    }

    fn waker(&self) -> Arc<dyn Wake> {
        either!(self, ring => ring.waker())
    }

    fn stats(&self) -> RingStats {
        either!(self, ring => ring.stats())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_forbidden_or_missing_io_uring_is_fallen_back_from() {
        let reason =
            |code, sysctl| Fallback::from_error(io::Error::from_raw_os_error(code), sysctl);
        assert!(matches!(reason(libc::ENOSYS, None), Ok(Fallback::Absent(_))));
        assert!(matches!(reason(libc::EPERM, Some(0)), Ok(Fallback::Forbidden(_))));
        assert!(matches!(
            reason(libc::EPERM, Some(2)),
            Ok(Fallback::SwitchedOff { sysctl: 2, .. })
        ));
        assert!(matches!(reason(libc::EACCES, None), Ok(Fallback::Forbidden(_))));
        assert!(matches!(reason(libc::ENOMEM, None), Ok(Fallback::NoMemory(_))));
        assert!(reason(libc::EMFILE, Some(2)).is_err());
    }

    #[test]
    fn the_backend_asked_for_is_the_one_made() {
        let (ring, reason) = open_ring(Backend::Sync, 8).expect("threads");
        assert!(matches!(ring, AnyRing::Sync(_)) && reason.is_none());
        let (ring, reason) = open_ring(Backend::Auto, 8).expect("some ring");
        assert_eq!(matches!(ring, AnyRing::Sync(_)), reason.is_some());
    }
}
