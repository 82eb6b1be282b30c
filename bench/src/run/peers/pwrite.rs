//! Backend `pwrite`: threads that write with `pwritev` and flush with `fdatasync`, through the page cache.
//!
//! A partition has one writer at a time, who takes all batches that wait, and one flusher: the first writer to be done
//! leads, and flushes for all who have written before it begins; those who write meanwhile leave their acks to it, and
//! it flushes again for them. Neither waits for the other, so that batches of one partition gather while another's
//! flush is under way, and no thread sleeps with work to do.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use ringmain::ring::interrupts::cores_near;
use ringmain::types::FlushPolicy;

use super::group::{BATCHES_MAX, Group, Head};
use super::interval::Interval;
use super::preparer::{Asker, Preparer};
use super::store::{Store, reopen};
use crate::cores::Pinned;
use crate::run::backend::{
    Backend, Completion, Counters, Facts, Instance, Reader, Request, Verifiable,
};
use crate::run::workload::Workload;

/// Threads for each core: as many as the engine has on plain system calls. Most of them sleep in a flush.
const THREADS_PER_CORE: u32 = 16;

/// A partition keeps no more threads busy than these: a writer and a flusher.
const THREADS_PER_PARTITION: u32 = 2;

/// Threads with plain system calls.
#[derive(Clone, Copy, Debug)]
pub struct Pwrite;

struct Shared {
    store: Arc<Store>,
    partitions: Box<[Mutex<Partition>]>,
    work: Mutex<Work>,
    more: Condvar,
    asker: OnceLock<Asker>,
}

#[derive(Default)]
struct Work {
    /// Partitions in which something waits to be written.
    ready: VecDeque<u32>,
    stop: bool,
}

struct Partition {
    head: Head,
    waiting: VecDeque<Request>,
    /// Whether a thread writes here, or has been told to.
    writing: bool,
    /// Whether one flushes.
    flushing: bool,
    /// Written, not flushed.
    written: VecDeque<Group>,
    spare: Vec<Group>,
}

struct Open {
    shared: Arc<Shared>,
    preparer: Option<Preparer>,
    interval: Option<Interval>,
    threads: Vec<JoinHandle<()>>,
}

impl Backend for Pwrite {
    fn open(&self, dir: &Path, workload: &Workload) -> Result<Box<dyn Instance>> {
        let store = Arc::new(Store::make(dir, workload, false)?);
        let partition = |nth: u32| {
            Mutex::new(Partition {
                head: store.head(nth),
                waiting: VecDeque::new(),
                writing: false,
                flushing: false,
                written: VecDeque::new(),
                spare: Vec::new(),
            })
        };
        let shared = Arc::new(Shared {
            partitions: (0..workload.partitions).map(partition).collect(),
            work: Mutex::default(),
            more: Condvar::new(),
            asker: OnceLock::new(),
            store,
        });
        let theirs = Arc::clone(&shared);
        let preparer = Preparer::start(&shared.store, move |partition| theirs.look_at(partition))?;
        shared.asker.get_or_init(|| preparer.asker());
        let interval = Interval::start(&shared.store)?;
        let mut open = Open { shared, preparer: Some(preparer), interval, threads: Vec::new() };
        let cores = cores_near(dir);
        let most = workload.partitions.saturating_mul(THREADS_PER_PARTITION);
        for nth in 0..(workload.cores * THREADS_PER_CORE).min(most) {
            let core = cores.get((nth % workload.cores) as usize % cores.len().max(1)).copied();
            let shared = Arc::clone(&open.shared);
            let run = move || {
                let _pinned = core.map(Pinned::to);
                shared.serve();
            };
            let thread = thread::Builder::new().name(format!("pwrite-{nth}")).spawn(run);
            open.threads.push(thread.context("cannot start a thread")?);
        }
        Ok(Box::new(open))
    }

    fn reopen(&self, dir: &Path, workload: &Workload) -> Result<Box<dyn Reader>> {
        Ok(reopen(dir, workload))
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn partition(&self, nth: u32) -> MutexGuard<'_, Partition> {
        lock(&self.partitions[nth as usize])
    }

    /// Has a thread look whether something can be written.
    fn look_at(&self, nth: u32) {
        let mut partition = self.partition(nth);
        if !partition.waiting.is_empty() && !std::mem::replace(&mut partition.writing, true) {
            drop(partition);
            self.call(nth);
        }
    }

    fn call(&self, nth: u32) {
        lock(&self.work).ready.push_back(nth);
        self.more.notify_one();
    }

    /// A thread's life.
    fn serve(&self) {
        let mut hands = Hands::default();
        while let Some(nth) = self.next() {
            if let Err(error) = self.write(nth, &mut hands) {
                self.store.desk.fail(error.context(format!("partition {nth}")));
            }
        }
    }

    fn next(&self) -> Option<u32> {
        let mut work = lock(&self.work);
        loop {
            if work.stop {
                return None;
            }
            if let Some(nth) = work.ready.pop_front() {
                return Some(nth);
            }
            work = self.more.wait(work).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Writes what waits, until nothing does or this thread is to flush.
    fn write(&self, nth: u32, hands: &mut Hands) -> Result<()> {
        let mut partition = self.partition(nth);
        loop {
            let mut group = partition.spare.pop().unwrap_or_default();
            self.gather(nth, &mut partition, &mut group);
            if group.batches.is_empty() {
                partition.spare.push(group);
                partition.writing = false;
                return Ok(());
            }
            drop(partition);
            hands.write(&group, self.store.track(nth).file_bytes()).context("cannot write")?;
            group.written = Some(Instant::now());
            self.store.note_written(nth, &group, group.bytes);
            partition = self.partition(nth);
            if self.store.policy != FlushPolicy::Group {
                self.store.ack(nth, &mut group, None, &mut hands.ended);
                partition.spare.push(group);
                self.store.desk.put(&mut hands.ended);
                continue;
            }
            partition.written.push_back(group);
            if !std::mem::replace(&mut partition.flushing, true) {
                partition.writing = !partition.waiting.is_empty();
                if partition.writing {
                    self.call(nth);
                }
                return self.lead(nth, partition, hands);
            }
        }
    }

    fn gather(&self, nth: u32, partition: &mut Partition, group: &mut Group) {
        let Partition { head, waiting, .. } = partition;
        head.gather(self.store.track(nth), waiting, group, || {
            self.asker.get().expect("set before any thread").ask(nth);
        });
    }

    /// Flushes for all who have written, until nobody has.
    fn lead<'a>(
        &'a self,
        nth: u32,
        mut partition: MutexGuard<'a, Partition>,
        hands: &mut Hands,
    ) -> Result<()> {
        loop {
            let Some(file) = partition.written.front().and_then(|group| group.file.clone()) else {
                partition.flushing = false;
                return Ok(());
            };
            let own = |group: &Group| group.file.as_ref().is_some_and(|f| Arc::ptr_eq(f, &file));
            let count = partition.written.iter().take_while(|group| own(group)).count();
            drop(partition);
            file.sync_data().context("cannot flush")?;
            let now = Instant::now();
            self.store.count_flushes(1);
            partition = self.partition(nth);
            for _ in 0..count {
                let mut group = partition.written.pop_front().expect("only the leader takes them");
                self.store.ack(nth, &mut group, Some(now), &mut hands.ended);
                partition.spare.push(group);
            }
            self.store.desk.put(&mut hands.ended);
        }
    }

    fn stop(&self) {
        lock(&self.work).stop = true;
        self.more.notify_all();
    }
}

/// What a thread works with.
#[derive(Default)]
struct Hands {
    pieces: Vec<libc::iovec>,
    ended: Vec<Completion>,
}

impl Hands {
    fn write(&mut self, group: &Group, file_bytes: u64) -> io::Result<()> {
        let file: &File = group.file.as_ref().expect("a group with batches has one");
        let mut pos = group.place % file_bytes;
        let (mut first, mut skip) = (0, 0);
        while first < group.batches.len() {
            self.pieces.clear();
            let mut from = skip;
            for placed in &group.batches[first..] {
                let bytes = &placed.bytes[from..];
                let iov_base = bytes.as_ptr().cast_mut().cast();
                self.pieces.push(libc::iovec { iov_base, iov_len: bytes.len() });
                from = 0;
            }
            let mut written = pwritev(file, &self.pieces, pos)?;
            pos += written as u64;
            while first < group.batches.len() && written >= group.batches[first].bytes.len() - skip
            {
                written -= group.batches[first].bytes.len() - skip;
                (first, skip) = (first + 1, 0);
            }
            skip += written;
        }
        Ok(())
    }
}

fn pwritev(file: &File, pieces: &[libc::iovec], pos: u64) -> io::Result<usize> {
    assert!(pieces.len() <= BATCHES_MAX, "as many as a call takes");
    loop {
        let count = pieces.len() as libc::c_int;
        // SAFETY: every piece is borrowed memory that lives as long as the call, which only reads it.
        let written =
            unsafe { libc::pwritev(file.as_raw_fd(), pieces.as_ptr(), count, pos as libc::off_t) };
        match usize::try_from(written) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => return Ok(written),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

impl Instance for Open {
    fn facts(&self) -> Facts {
        let ack = match self.shared.store.policy {
            FlushPolicy::Group => "pwritev, and an fdatasync shared by those who wrote before it",
            FlushPolicy::Os => "pwritev into the page cache",
            FlushPolicy::Interval { .. } => {
                "pwritev into the page cache; fdatasync by the interval"
            }
        };
        Facts { direct: false, ack: ack.to_owned(), notes: Vec::new() }
    }

    fn verifiable(&self) -> Verifiable {
        Verifiable::Yes
    }

    fn submit(&mut self, request: Request) {
        let nth = request.partition;
        let mut partition = self.shared.partition(nth);
        partition.waiting.push_back(request);
        if !std::mem::replace(&mut partition.writing, true) {
            drop(partition);
            self.shared.call(nth);
        }
    }

    fn poll(&mut self, wait: Duration, done: &mut Vec<Completion>) -> Result<()> {
        self.shared.store.desk.take(wait, done)
    }

    fn counters(&self) -> Counters {
        self.shared.store.counters()
    }

    fn reader(&self) -> Result<Box<dyn Reader>> {
        Ok(self.shared.store.reader())
    }

    fn close(mut self: Box<Self>) -> Result<()> {
        self.end()
    }
}

impl Open {
    fn end(&mut self) -> Result<()> {
        self.shared.stop();
        drop((self.preparer.take(), self.interval.take()));
        let panicked = self.threads.drain(..).filter_map(|thread| thread.join().err()).count();
        if panicked > 0 {
            return Err(anyhow!("{panicked} threads panicked"));
        }
        self.shared.store.desk.take(Duration::ZERO, &mut Vec::new())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // Why it ended early has been told; here all that counts is that no thread goes on.
        let _ = self.end();
    }
}
