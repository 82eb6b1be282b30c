//! `io_uring_enter(2)` with every flag chosen here. The `io-uring` crate's own wrappers leave GETEVENTS out
//! unless they wait, and forget a registered ring descriptor with each `Submitter`.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use io_uring::EnterFlags;

/// `IORING_REGISTER_RING_FDS`.
const REGISTER_RING_FDS: libc::c_uint = 20;

/// `IORING_UNREGISTER_RING_FDS`.
const UNREGISTER_RING_FDS: libc::c_uint = 21;

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct ResourceUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// `struct __kernel_timespec`.
#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

/// `struct io_uring_getevents_arg`.
#[repr(C)]
struct GetEvents {
    signals: u64,
    signals_bytes: u32,
    wait_min_us: u32,
    timeout: u64,
}

/// Whether a call into the kernel may block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Block {
    No,
    AtMost(Duration),
    Forever,
}

/// The way into one ring, for the thread that made it.
#[derive(Debug)]
pub(super) struct Entrance {
    fd: RawFd,
    /// The thread's table of registered ring descriptors spares the look-up of `fd` in each call.
    registered: Option<u32>,
    /// Flags of a call that waits.
    wait_flags: EnterFlags,
}

impl Entrance {
    pub(super) fn new(fd: RawFd, has_no_iowait: bool) -> Self {
        let mut wait_flags = EnterFlags::EXT_ARG;
        // A ring that waits for work is idle, not waiting for a disk: load figures should say so.
        wait_flags.set(EnterFlags::NO_IOWAIT, has_no_iowait);
        let registered = register(fd);
        Self { fd, registered, wait_flags }
    }

    /// Whether the ring's descriptor is registered.
    pub(super) fn is_registered(&self) -> bool {
        self.registered.is_some()
    }

    /// Submits `count` entries, runs completions that are due, and blocks for one if told so. Always with
    /// GETEVENTS: under DEFER_TASKRUN nothing completes without it.
    pub(super) fn enter(&self, count: u32, block: Block) -> io::Result<()> {
        let mut timeout = Timespec { seconds: 0, nanoseconds: 0 };
        let mut argument = GetEvents { signals: 0, signals_bytes: 0, wait_min_us: 0, timeout: 0 };
        if let Block::AtMost(time) = block {
            timeout.seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
            timeout.nanoseconds = i64::from(time.subsec_nanos());
            argument.timeout = (&raw const timeout).expose_provenance() as u64;
        }
        let (mut flags, wanted) = match block {
            Block::No => (EnterFlags::GETEVENTS, 0_u32),
            _ => (EnterFlags::GETEVENTS | self.wait_flags, 1),
        };
        flags.set(EnterFlags::REGISTERED_RING, self.registered.is_some());
        let argument_bytes = if wanted == 0 { 0 } else { size_of::<GetEvents>() };
        let argument_at = if wanted == 0 { std::ptr::null() } else { &raw const argument };
        let fd = self.registered.map_or(libc::c_long::from(self.fd), libc::c_long::from);
        // SAFETY: the arguments are those of io_uring_enter(2); `argument` and `timeout` outlive the call;
        // what the queued entries point at is owned by the ring's slots.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                fd,
                libc::c_long::from(count),
                libc::c_long::from(wanted),
                libc::c_long::from(flags.bits()),
                argument_at,
                argument_bytes,
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl Drop for Entrance {
    fn drop(&mut self) {
        // The thread's table holds the ring open; without this it would live as long as the thread.
        let Some(offset) = self.registered else { return };
        let mut update = ResourceUpdate { offset, reserved: 0, data: 0 };
        // SAFETY: `update` is the structure the operation takes, alive across the call.
        let result = unsafe { ring_register(self.fd, UNREGISTER_RING_FDS, &raw mut update) };
        debug_assert!(result >= 0, "the ring was registered by this thread");
    }
}

/// Registers the ring's descriptor with this thread, where the kernel can (Linux 5.18).
fn register(fd: RawFd) -> Option<u32> {
    let data = u64::try_from(fd).expect("an open descriptor");
    let mut update = ResourceUpdate { offset: u32::MAX, reserved: 0, data };
    // SAFETY: `update` is the structure the operation takes, alive across the call.
    let result = unsafe { ring_register(fd, REGISTER_RING_FDS, &raw mut update) };
    (result == 1).then_some(update.offset)
}

/// # Safety
/// `update` is valid for reading and writing.
unsafe fn ring_register(fd: RawFd, op: libc::c_uint, update: *mut ResourceUpdate) -> libc::c_long {
    let (fd, op) = (libc::c_long::from(fd), libc::c_long::from(op));
    let count: libc::c_long = 1;
    // SAFETY: the arguments are those of io_uring_register(2); the caller vouches for `update`.
    unsafe { libc::syscall(libc::SYS_io_uring_register, fd, op, update, count) }
}
