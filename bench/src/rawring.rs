//! The least ring that satisfies [`Ring`]: writes only, no fallbacks. The device is measured through it until
//! the engine's own ring takes its place, and after that it shows what the engine's ring costs.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use io_uring::{IoUring, opcode, squeue, types};
use ringmain::buffers::{Arena, Slice};
use ringmain::command::{Completion, Done, FileHandle, Op, OpenMode};
use ringmain::ring::{Ring, RingStats, Wait, Wake};

/// Largest registered buffer: an ordinary user may lock 8 MiB in all, and has other rings too.
const REGISTERED_BYTES_MAX: usize = 4 << 20;

/// A write that the kernel has.
struct Flight {
    token: u64,
    data: Slice,
}

/// A ring that opens, writes, flushes and closes.
pub struct RawRing {
    ring: IoUring,
    files: Vec<Option<File>>,
    flights: Vec<Option<Flight>>,
    free: Vec<u32>,
    done: Vec<Completion>,
    /// Where the arena's registered memory begins and how much of it there is.
    registered: (usize, usize),
    stats: RingStats,
}

struct NoWake;

impl Wake for NoWake {
    fn wake(&self) {}
}

impl RawRing {
    /// Call on the thread that uses it.
    ///
    /// # Errors
    /// If io_uring is not to be had.
    pub fn new(capacity: u32) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .build(capacity)?;
        Ok(Self {
            ring,
            files: Vec::new(),
            flights: (0..capacity).map(|_| None).collect(),
            free: (0..capacity).rev().collect(),
            done: Vec::with_capacity(capacity as usize),
            registered: (0, 0),
            stats: RingStats::default(),
        })
    }

    fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<Done> {
        let mut options = OpenOptions::new();
        options.read(true).write(!mode.read_only).create(mode.create);
        if mode.direct {
            options.custom_flags(libc::O_DIRECT);
        }
        self.files.push(Some(options.open(path)?));
        Ok(Done::File(FileHandle(self.files.len() as u32 - 1)))
    }

    fn file(&self, handle: FileHandle) -> &File {
        self.files[handle.0 as usize].as_ref().expect("the file is open")
    }

    fn at_once(&mut self, token: u64, result: io::Result<Done>) {
        self.done.push(Completion { token, result });
    }

    fn entry(&mut self, slot: u32, op: Op) -> (squeue::Entry, Slice) {
        let Op::Write { file, pos, data, durable } = op else {
            unreachable!("only writes get here")
        };
        let fd = types::Fd(self.file(file).as_raw_fd());
        let flags = if durable { libc::RWF_DSYNC } else { 0 };
        let (from, len) = (data.as_ptr(), data.len() as u32);
        let (base, registered) = self.registered;
        let fixed = from as usize >= base && from as usize + data.len() <= base + registered;
        let entry = if fixed {
            opcode::WriteFixed::new(fd, from, len, 0).offset(pos).rw_flags(flags).build()
        } else {
            opcode::Write::new(fd, from, len).offset(pos).rw_flags(flags).build()
        };
        self.stats.submitted += 1;
        self.stats.write_bytes += u64::from(len);
        self.stats.flushes += u64::from(durable);
        (entry.user_data(u64::from(slot)), data)
    }

    fn reap(&mut self) {
        for completion in self.ring.completion() {
            let slot = completion.user_data() as usize;
            let flight = self.flights[slot].take().expect("the kernel completes what it was given");
            let result = match completion.result() {
                n if n >= 0 && n as usize == flight.data.len() => Ok(Done::Unit),
                n if n >= 0 => Err(io::Error::from_raw_os_error(libc::EIO)),
                n => Err(io::Error::from_raw_os_error(-n)),
            };
            self.free.push(slot as u32);
            self.done.push(Completion { token: flight.token, result });
        }
    }
}

impl Ring for RawRing {
    fn register(&mut self, arena: &Arena) -> u64 {
        let bytes = arena.bytes().min(REGISTERED_BYTES_MAX);
        let iovec = libc::iovec { iov_base: arena.base().cast(), iov_len: bytes };
        // SAFETY: registering pins pages and reads nothing; every slice in a flight keeps the arena alive.
        let done = unsafe { self.ring.submitter().register_buffers(&[iovec]) };
        if done.is_err() {
            return 0;
        }
        self.registered = (arena.base() as usize, bytes);
        bytes as u64
    }

    fn push(&mut self, token: u64, op: Op) {
        assert!(self.in_flight() < self.capacity(), "the caller bounds what it starts");
        match op {
            Op::Open { path, mode } => {
                let opened = self.open(&path, mode);
                self.at_once(token, opened);
            }
            Op::Close { file } => {
                self.files[file.0 as usize] = None;
                self.at_once(token, Ok(Done::Unit));
            }
            Op::Write { .. } => {
                let slot = self.free.pop().expect("in_flight is below capacity");
                let (entry, data) = self.entry(slot, op);
                self.flights[slot as usize] = Some(Flight { token, data });
                // SAFETY: the slice in `flights` keeps the memory alive and unchanged until the completion.
                let pushed = unsafe { self.ring.submission().push(&entry) };
                assert!(pushed.is_ok(), "there are as many entries as slots");
            }
            op => unreachable!("the device's baseline has no use for {op:?}"),
        }
    }

    fn in_flight(&self) -> usize {
        self.flights.len() - self.free.len() + self.done.len()
    }

    fn capacity(&self) -> usize {
        self.flights.len()
    }

    fn enter(&mut self, wait: Wait) -> io::Result<()> {
        let idle = self.free.len() == self.flights.len();
        let want = usize::from(wait != Wait::No && self.done.is_empty() && !idle);
        self.stats.enters += 1;
        let pending = self.ring.submission().len() as u32;
        // SAFETY: no signal mask is passed. GETEVENTS always: with DEFER_TASKRUN nothing completes without.
        let entered = unsafe {
            const GETEVENTS: u32 = 1;
            self.ring.submitter().enter::<libc::sigset_t>(pending, want as u32, GETEVENTS, None)
        };
        match entered {
            Err(e) if e.kind() != io::ErrorKind::Interrupted => return Err(e),
            _ => {}
        }
        self.reap();
        Ok(())
    }

    fn pop(&mut self) -> Option<Completion> {
        self.done.pop()
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::new(NoWake)
    }

    fn stats(&self) -> RingStats {
        self.stats
    }
}

impl Drop for RawRing {
    fn drop(&mut self) {
        // Closing a ring is no barrier: the memory goes back to the arena only with its completion.
        while self.free.len() < self.flights.len() {
            if self.enter(Wait::Forever).is_err() {
                std::mem::take(&mut self.flights).into_iter().for_each(std::mem::forget);
                return;
            }
        }
    }
}
