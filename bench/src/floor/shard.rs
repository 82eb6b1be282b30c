//! The floor's thread: gathers while two groups are in flight, writes, wakes.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::{io, mem};

use anyhow::{Context, Result};
use io_uring::{IoUring, opcode, types};

use super::{FILE_BYTES, Inbox, Shared};
use crate::onebatch::BATCH_BYTES;
use crate::prepared::{Aligned, BLOCK_BYTES};

/// Largest group, in bytes.
const GROUP_BYTES_MAX: usize = 512 << 10;

/// Groups in flight.
const GROUPS: usize = 2;

/// Batches in the largest group.
const GROUP_BATCHES_MAX: usize = GROUP_BYTES_MAX / BATCH_BYTES;

/// The token of the eventfd's read; groups have their index.
const WAKE: u64 = u64::MAX;

const ENTRIES: u32 = 8;

/// What the floor did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Groups written, each with one flush.
    pub groups: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes written, padding included.
    pub bytes: u64,
}

struct Group {
    buffer: Aligned,
    clients: Vec<u32>,
    base_offset: i64,
    bytes: usize,
    in_flight: bool,
}

pub(super) struct Shard {
    // First: dropped before the memory that it may still write from.
    ring: IoUring,
    _file: File,
    shared: Arc<Shared>,
    groups: Vec<Group>,
    /// Requests taken from the inbox, and how many of them are in a group already.
    taken: Inbox,
    grouped: usize,
    /// Where the eventfd's counter is read to.
    counter: Box<u64>,
    armed: bool,
    pos: u64,
    offset: i64,
    counts: Counts,
}

impl Shard {
    /// Call on the thread that runs it: the ring has a single issuer.
    pub(super) fn new(shared: Arc<Shared>, file: File) -> Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .build(ENTRIES)
            .context("io_uring is not to be had; the floor needs it")?;
        let group = || Group {
            buffer: Aligned::new(GROUP_BYTES_MAX),
            clients: Vec::with_capacity(GROUP_BATCHES_MAX),
            base_offset: 0,
            bytes: 0,
            in_flight: false,
        };
        let groups: Vec<Group> = (0..GROUPS).map(|_| group()).collect();
        let buffers: Vec<libc::iovec> = groups
            .iter()
            .map(|group| libc::iovec {
                iov_base: group.buffer.as_ptr().cast_mut().cast(),
                iov_len: GROUP_BYTES_MAX,
            })
            .collect();
        // SAFETY: the buffers live until the ring is dropped.
        unsafe { ring.submitter().register_buffers(&buffers) }
            .context("buffers of a MiB cannot be registered (ulimit -l)")?;
        ring.submitter().register_files(&[file.as_raw_fd()]).context("cannot register a file")?;
        let taken = Inbox::with_room(shared.desks.len() as u32);
        Ok(Self {
            ring,
            _file: file,
            shared,
            groups,
            taken,
            grouped: 0,
            counter: Box::new(0),
            armed: false,
            pos: 0,
            offset: 0,
            counts: Counts::default(),
        })
    }

    /// Until told to stop and nothing is in flight.
    pub(super) fn run(mut self) -> Result<Counts> {
        let ended = self.turns();
        if ended.is_err() {
            for client in 0..self.shared.desks.len() as u32 {
                self.shared.refuse(client, libc::EIO);
            }
            // The kernel may still write from the groups: closing a ring is no barrier.
            mem::forget(self);
        }
        ended
    }

    fn turns(&mut self) -> Result<Counts> {
        self.arm();
        loop {
            self.gather();
            let free = self.groups.iter().any(|group| !group.in_flight);
            let idle = self.groups.iter().all(|group| !group.in_flight);
            // Whoever sets `stop` also ends the eventfd's read, so nothing is left in the kernel.
            if idle && !self.armed {
                return Ok(self.counts);
            }
            if free && !self.may_sleep() {
                continue;
            }
            // `submit_and_wait` asks for GETEVENTS; with DEFER_TASKRUN nothing completes without.
            match self.ring.submit_and_wait(1) {
                Err(e) if e.kind() != io::ErrorKind::Interrupted => {
                    return Err(e).context("io_uring_enter");
                }
                _ => {}
            }
            self.shared.asleep.store(false, Ordering::SeqCst);
            self.reap()?;
        }
    }

    /// Says that a request must wake this thread, and looks once more.
    fn may_sleep(&self) -> bool {
        self.shared.asleep.store(true, Ordering::SeqCst);
        let empty = self.shared.waiting() == 0;
        if !empty {
            self.shared.asleep.store(false, Ordering::SeqCst);
        }
        empty
    }

    fn arm(&mut self) {
        let fd = types::Fd(self.shared.wake.as_raw_fd());
        let to: *mut u64 = &raw mut *self.counter;
        let read = opcode::Read::new(fd, to.cast(), 8).build().user_data(WAKE);
        self.push(&read);
        self.armed = true;
    }

    fn push(&mut self, entry: &io_uring::squeue::Entry) {
        // SAFETY: the memory behind it belongs to `self` and is not touched until its completion; `run` ends
        // with nothing in flight, or gives the memory up.
        let pushed = unsafe { self.ring.submission().push(entry) };
        assert!(pushed.is_ok(), "there are fewer operations than entries");
    }

    /// Fills and starts every free group, as long as there are requests.
    fn gather(&mut self) {
        for index in 0..self.groups.len() {
            if self.groups[index].in_flight {
                continue;
            }
            if self.grouped == self.taken.clients.len() {
                self.shared.take(&mut self.taken);
                self.grouped = 0;
            }
            let waiting = self.taken.clients.len() - self.grouped;
            if waiting > 0 {
                self.start(index, waiting.min(GROUP_BATCHES_MAX));
            }
        }
    }

    fn start(&mut self, index: usize, batches: usize) {
        let group = &mut self.groups[index];
        let until = self.grouped + batches;
        let bytes = batches * BATCH_BYTES;
        group.buffer[..bytes]
            .copy_from_slice(&self.taken.batches[self.grouped * BATCH_BYTES..until * BATCH_BYTES]);
        for (nth, batch) in group.buffer[..bytes].chunks_exact_mut(BATCH_BYTES).enumerate() {
            batch[..8].copy_from_slice(&(self.offset + nth as i64).to_be_bytes());
        }
        let padded = bytes.next_multiple_of(BLOCK_BYTES);
        group.buffer[bytes..padded].fill(0);
        group.clients.clear();
        group.clients.extend_from_slice(&self.taken.clients[self.grouped..until]);
        (group.base_offset, group.bytes, group.in_flight) = (self.offset, padded, true);
        if self.pos + padded as u64 > FILE_BYTES {
            self.pos = 0;
        }
        let from = group.buffer.as_ptr();
        let write = opcode::WriteFixed::new(types::Fixed(0), from, padded as u32, index as u16)
            .offset(self.pos)
            .rw_flags(libc::RWF_DSYNC)
            .build()
            .user_data(index as u64);
        self.push(&write);
        self.grouped = until;
        self.offset += batches as i64;
        self.pos += padded as u64;
        self.counts.groups += 1;
        self.counts.records += batches as u64;
        self.counts.bytes += padded as u64;
    }

    fn reap(&mut self) -> Result<()> {
        loop {
            let Some(completion) = ({ self.ring.completion().next() }) else { return Ok(()) };
            let result = completion.result();
            if completion.user_data() == WAKE {
                if result < 0 {
                    let error = io::Error::from_raw_os_error(-result);
                    return Err(error).context("cannot read the eventfd");
                }
                self.armed = false;
                if !self.shared.stop.load(Ordering::SeqCst) {
                    self.arm();
                }
                continue;
            }
            let group = &mut self.groups[completion.user_data() as usize];
            group.in_flight = false;
            let written = usize::try_from(result).is_ok_and(|written| written == group.bytes);
            let errno = if result < 0 { result } else { -libc::EIO };
            for (nth, &client) in group.clients.iter().enumerate() {
                let offset = group.base_offset + nth as i64;
                self.shared.lay_down(client, if written { offset } else { i64::from(errno) });
            }
        }
    }
}
