//! A ring's thread: takes mail, begins groups, takes what has ended, and sleeps in the ring.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use std::{io, mem};

use anyhow::{Context, Result, bail};
use io_uring::{IoUring, opcode, squeue, types};
use ringmain::types::FlushPolicy;

use super::super::group::{BATCHES_MAX, BYTES_MAX, Group, Head};
use super::super::preparer::Asker;
use super::super::store::Store;
use super::{Mail, Post, Way};
use crate::prepared::{Aligned, BLOCK_BYTES};
use crate::run::backend::{Completion, Request};

/// Groups of one partition in flight: with two, one is on its way while the other's flush is waited for.
const DEPTH: usize = 2;

/// Groups in flight, all partitions together.
const GROUPS_MAX: usize = 64;

/// The token of the eventfd's read. Those of groups are twice their number, and one more for their flush.
const WAKE: u64 = u64::MAX;

pub(super) struct Driver {
    // First: dropped before the memory that it may still write from.
    ring: IoUring,
    groups: Vec<Flight>,
    free: Vec<usize>,
    way: Way,
    store: Arc<Store>,
    posts: Arc<[Post]>,
    nth: u32,
    taken: Mail,
    lanes: Vec<Lane>,
    /// Lanes in which something may begin.
    ready: VecDeque<usize>,
    /// Lanes with fewer groups in flight than they may have.
    open_lanes: usize,
    /// Where the eventfd's counter is read to.
    counter: Box<u64>,
    armed: bool,
    ended: Vec<Completion>,
    asker: Asker,
}

/// A partition.
struct Lane {
    partition: u32,
    head: Head,
    waiting: VecDeque<Request>,
    /// Its groups in flight, in order.
    flying: VecDeque<usize>,
    /// Whether it is among those that are ready.
    queued: bool,
    /// The file registered last, and in which of the lane's two places.
    file: Option<Arc<File>>,
    place: usize,
}

/// A group in flight, or a place for one.
struct Flight {
    group: Group,
    lane: usize,
    /// Completions that it waits for.
    left: u32,
    pieces: Vec<libc::iovec>,
    /// Where a direct write comes from, and whether it is registered.
    buffer: Option<(Aligned, bool)>,
    /// Bytes of the write.
    bytes: usize,
}

impl Driver {
    /// Call on the thread that runs it: the ring has a single issuer.
    pub(super) fn new(
        store: Arc<Store>,
        (posts, nth): (Arc<[Post]>, u32),
        way: Way,
        asker: Asker,
    ) -> Result<Self> {
        let partitions = store.tracks().len();
        let lane = |partition: usize| Lane {
            partition: partition as u32,
            head: store.head(partition as u32),
            waiting: VecDeque::new(),
            flying: VecDeque::with_capacity(DEPTH),
            queued: false,
            file: None,
            place: 0,
        };
        let lanes: Vec<_> = (nth as usize..partitions).step_by(posts.len()).map(lane).collect();
        let count = (lanes.len() * DEPTH).min(GROUPS_MAX);
        let flight = |_| Flight {
            group: Group::default(),
            lane: 0,
            left: 0,
            pieces: Vec::with_capacity(BATCHES_MAX),
            buffer: (way == Way::Direct).then(|| (Aligned::new(BYTES_MAX as usize), true)),
            bytes: 0,
        };
        let groups: Vec<_> = (0..count).map(flight).collect();
        let ring = ring(2 * count as u32 + 1, lanes.len(), &groups)?;
        Ok(Self {
            ring,
            groups,
            free: (0..count).collect(),
            way,
            store,
            posts,
            nth,
            taken: Mail::default(),
            open_lanes: lanes.len(),
            lanes,
            ready: VecDeque::new(),
            counter: Box::new(0),
            armed: false,
            ended: Vec::new(),
            asker,
        })
    }

    /// Until told to stop and nothing is in flight.
    pub(super) fn run(mut self) -> Result<()> {
        let ended = self.turns();
        if ended.is_err() {
            // The kernel may still write from the groups: closing a ring is no barrier.
            mem::forget(self);
        }
        ended
    }

    fn turns(&mut self) -> Result<()> {
        self.arm();
        loop {
            self.take_mail();
            self.begin()?;
            // Whoever sets `stop` also ends the eventfd's read, so nothing is left in the kernel.
            if self.free.len() == self.groups.len() && !self.armed {
                return Ok(());
            }
            let room = !self.free.is_empty() && self.open_lanes > 0;
            if room && !self.may_sleep() {
                continue;
            }
            // `submit_and_wait` asks for GETEVENTS; with DEFER_TASKRUN nothing completes without.
            match self.ring.submit_and_wait(1) {
                Err(e) if e.kind() != io::ErrorKind::Interrupted => {
                    return Err(e).context("io_uring_enter");
                }
                _ => {}
            }
            self.post().asleep.store(false, Ordering::SeqCst);
            self.reap()?;
        }
    }

    fn post(&self) -> &Post {
        &self.posts[self.nth as usize]
    }

    /// Says that mail must wake this thread, and looks once more.
    fn may_sleep(&self) -> bool {
        self.post().asleep.store(true, Ordering::SeqCst);
        let empty = self.post().is_empty();
        if !empty {
            self.post().asleep.store(false, Ordering::SeqCst);
        }
        empty
    }

    fn take_mail(&mut self) {
        let mut taken = mem::take(&mut self.taken);
        self.post().take(&mut taken);
        let posts = self.posts.len();
        for request in taken.requests.drain(..) {
            let lane = request.partition as usize / posts;
            self.lanes[lane].waiting.push_back(request);
            self.queue(lane);
        }
        for partition in taken.readied.drain(..) {
            self.queue(partition as usize / posts);
        }
        self.taken = taken;
    }

    fn queue(&mut self, lane: usize) {
        if !mem::replace(&mut self.lanes[lane].queued, true) {
            self.ready.push_back(lane);
        }
    }

    /// Begins what can begin.
    fn begin(&mut self) -> Result<()> {
        if self.post().stop.load(Ordering::SeqCst) {
            return Ok(());
        }
        while let Some(&nth) = self.ready.front() {
            let Some(&flight) = self.free.last() else { return Ok(()) };
            let lane = &mut self.lanes[nth];
            let group = &mut self.groups[flight].group;
            if lane.flying.len() < DEPTH {
                let track = self.store.track(lane.partition);
                let (partition, asker) = (lane.partition, &self.asker);
                lane.head.gather(track, &mut lane.waiting, group, || asker.ask(partition));
            }
            if group.batches.is_empty() {
                // It waits for batches, for space, or for one of its groups: each of these queues it again.
                lane.queued = false;
                self.ready.pop_front();
                continue;
            }
            self.free.pop();
            lane.flying.push_back(flight);
            self.open_lanes -= usize::from(lane.flying.len() == DEPTH);
            self.start(nth, flight)?;
        }
        Ok(())
    }

    fn start(&mut self, nth: usize, number: usize) -> Result<()> {
        let lane = &mut self.lanes[nth];
        let flight = &mut self.groups[number];
        let file = flight.group.file.as_ref().context("a group with batches has a file")?;
        if lane.file.as_ref().is_none_or(|before| !Arc::ptr_eq(before, file)) {
            lane.place ^= 1;
            let place = (nth * 2 + lane.place) as u32;
            self.ring
                .submitter()
                .register_files_update(place, &[file.as_raw_fd()])
                .context("cannot register a file")?;
            lane.file = Some(Arc::clone(file));
        }
        let fixed = types::Fixed((nth * 2 + lane.place) as u32);
        let pos = flight.group.place % self.store.track(lane.partition).file_bytes();
        let flushed = self.store.policy == FlushPolicy::Group;
        flight.lane = nth;
        let token = number as u64 * 2;
        match self.way {
            Way::Direct => {
                lane.head.pad(BLOCK_BYTES as u64);
                let flags = if flushed { libc::RWF_DSYNC } else { 0 };
                let entry = flight.direct(fixed, pos, number as u16, flags).user_data(token);
                self.push(&entry);
            }
            Way::Buffered => {
                let entry = flight.vectored(fixed, pos).user_data(token);
                if flushed {
                    self.groups[number].left = 2;
                    let sync = opcode::Fsync::new(fixed).flags(types::FsyncFlags::DATASYNC);
                    self.push(&entry.flags(squeue::Flags::IO_LINK));
                    self.push(&sync.build().user_data(token + 1));
                } else {
                    self.push(&entry);
                }
            }
        }
        Ok(())
    }

    fn arm(&mut self) {
        let fd = types::Fd(self.post().wake.as_raw_fd());
        let to: *mut u64 = &raw mut *self.counter;
        let read = opcode::Read::new(fd, to.cast(), 8).build().user_data(WAKE);
        self.push(&read);
        self.armed = true;
    }

    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: the memory behind it belongs to `self` and is not touched until its completion; `run` ends
        // with nothing in flight, or gives the memory up.
        let pushed = unsafe { self.ring.submission().push(entry) };
        assert!(pushed.is_ok(), "there are fewer operations than entries");
    }

    fn reap(&mut self) -> Result<()> {
        let now = Instant::now();
        while let Some(completion) = { self.ring.completion().next() } {
            let (token, result) = (completion.user_data(), completion.result());
            if token == WAKE {
                check(result).context("cannot read the eventfd")?;
                self.armed = false;
                if !self.post().stop.load(Ordering::SeqCst) {
                    self.arm();
                }
                continue;
            }
            let flight = &mut self.groups[(token / 2) as usize];
            flight.left -= 1;
            if token % 2 == 1 {
                check(result).context("cannot flush")?;
            } else {
                let written = check(result).context("cannot write")?;
                if written != flight.bytes {
                    bail!("{written} of {} bytes were written: the disk may be full", flight.bytes);
                }
                let apart = self.way == Way::Buffered || self.store.policy != FlushPolicy::Group;
                flight.group.written = apart.then_some(now);
                let partition = self.lanes[flight.lane].partition;
                self.store.note_written(partition, &flight.group, flight.bytes as u64);
            }
            if flight.left == 0 {
                self.landed((token / 2) as usize, now);
            }
        }
        if !self.ended.is_empty() {
            self.store.desk.put(&mut self.ended);
        }
        Ok(())
    }

    /// Acks all groups of the lane whose turn it is.
    fn landed(&mut self, number: usize, now: Instant) {
        let nth = self.groups[number].lane;
        let lane = &mut self.lanes[nth];
        let flushed = self.store.policy == FlushPolicy::Group;
        self.store.count_flushes(u64::from(flushed));
        self.open_lanes += usize::from(lane.flying.len() == DEPTH && lane.flying[0] == number);
        while let Some(&first) = lane.flying.front()
            && self.groups[first].left == 0
        {
            let group = &mut self.groups[first].group;
            self.store.ack(lane.partition, group, flushed.then_some(now), &mut self.ended);
            lane.flying.pop_front();
            self.free.push(first);
        }
        self.queue(nth);
    }
}

/// The number that an operation returned.
fn check(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

fn ring(entries: u32, lanes: usize, groups: &[Flight]) -> Result<IoUring> {
    let ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .build(entries)
        .context("io_uring is not to be had; --backend pwrite and --backend sync need none")?;
    ring.submitter()
        .register_files_sparse(lanes as u32 * 2)
        .context("cannot register files (ulimit -n)")?;
    let buffers: Vec<libc::iovec> = groups
        .iter()
        .filter_map(|flight| flight.buffer.as_ref())
        .map(|(buffer, _)| libc::iovec {
            iov_base: buffer.as_ptr().cast_mut().cast(),
            iov_len: buffer.len(),
        })
        .collect();
    if !buffers.is_empty() {
        // SAFETY: the buffers live until the ring is dropped; one that is replaced is not used registered any more,
        // and the kernel holds its pages.
        unsafe { ring.submitter().register_buffers(&buffers) }
            .context("cannot register buffers (ulimit -l)")?;
    }
    Ok(ring)
}

impl Flight {
    /// Copies the group into the buffer, padded to whole blocks.
    fn direct(&mut self, fixed: types::Fixed, pos: u64, number: u16, flags: i32) -> squeue::Entry {
        let bytes = self.group.bytes as usize;
        let padded = bytes.next_multiple_of(BLOCK_BYTES);
        if self.buffer.as_ref().is_none_or(|(buffer, _)| buffer.len() < padded) {
            self.buffer = Some((Aligned::new(padded.next_power_of_two()), false));
        }
        let (buffer, registered) = self.buffer.as_mut().expect("made above");
        let mut at = 0;
        for placed in &self.group.batches {
            buffer[at..at + placed.bytes.len()].copy_from_slice(&placed.bytes);
            at += placed.bytes.len();
        }
        buffer[bytes..padded].fill(0);
        (self.bytes, self.left) = (padded, 1);
        let (from, len) = (buffer.as_ptr(), padded as u32);
        if *registered {
            let write = opcode::WriteFixed::new(fixed, from, len, number);
            write.offset(pos).rw_flags(flags).build()
        } else {
            opcode::Write::new(fixed, from, len).offset(pos).rw_flags(flags).build()
        }
    }

    /// Writes the batches from where they are.
    fn vectored(&mut self, fixed: types::Fixed, pos: u64) -> squeue::Entry {
        self.pieces.clear();
        self.pieces.extend(self.group.batches.iter().map(|placed| libc::iovec {
            iov_base: placed.bytes.as_ptr().cast_mut().cast(),
            iov_len: placed.bytes.len(),
        }));
        (self.bytes, self.left) = (self.group.bytes as usize, 1);
        let count = self.pieces.len() as u32;
        opcode::Writev::new(fixed, self.pieces.as_ptr(), count).offset(pos).build()
    }
}
