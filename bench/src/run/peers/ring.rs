//! Backends `floor` and `buffered-ring`: one ring a core, batches of a partition in groups, two groups of it in flight.
//!
//! `floor` is the least that durable appends can cost here: a group is copied into registered memory and written past
//! the page cache with O_DIRECT and RWF_DSYNC, a write and its flush in one. It has one partition, no recovery, no
//! index and no limits: what an honest ack needs, and nothing else. `buffered-ring` is how a log on io_uring is
//! written that keeps the page cache: a vectored write straight from the batches, linked to a flush of the file.
//! Files are registered; all that begins in a turn is one system call.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use ringmain::ring::interrupts::cores_near;
use ringmain::types::FlushPolicy;

use super::interval::Interval;
use super::preparer::{Asker, Preparer};
use super::store::{Store, reopen};
use super::track;
use crate::cores::Pinned;
use crate::run::backend::{
    Backend, Completion, Counters, Facts, Instance, Reader, Request, Verifiable,
};
use crate::run::workload::Workload;
use crate::wakefd::WakeFd;

mod driver;

/// How groups reach the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Past the page cache, a write and its flush in one.
    Direct,
    /// Through the page cache, a write linked to a flush.
    Buffered,
}

/// A log on plain rings.
#[derive(Clone, Copy, Debug)]
pub struct Rings(pub Way);

/// What the measuring thread and a ring's thread share.
struct Post {
    mail: Mutex<Mail>,
    /// Whether mail must end the thread's sleep.
    asleep: AtomicBool,
    stop: AtomicBool,
    wake: WakeFd,
}

#[derive(Default)]
struct Mail {
    requests: Vec<Request>,
    /// Partitions with more space that is ready.
    readied: Vec<u32>,
}

impl Post {
    fn put(&self, put: impl FnOnce(&mut Mail)) {
        put(&mut self.mail.lock().unwrap_or_else(PoisonError::into_inner));
        // The lock orders this after the thread's look, if that saw nothing.
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            self.wake.notify();
        }
    }

    fn is_empty(&self) -> bool {
        let mail = self.mail.lock().unwrap_or_else(PoisonError::into_inner);
        mail.requests.is_empty() && mail.readied.is_empty()
    }

    /// Swaps what is there for `empty`.
    fn take(&self, empty: &mut Mail) {
        std::mem::swap(&mut *self.mail.lock().unwrap_or_else(PoisonError::into_inner), empty);
    }
}

struct Open {
    store: Arc<Store>,
    way: Way,
    direct: bool,
    /// Partition `n` is the business of post `n % posts`.
    posts: Arc<[Post]>,
    preparer: Option<Preparer>,
    interval: Option<Interval>,
    threads: Vec<JoinHandle<()>>,
}

impl Backend for Rings {
    fn open(&self, dir: &Path, workload: &Workload) -> Result<Box<dyn Instance>> {
        let Self(way) = *self;
        let direct =
            way == Way::Direct && track::takes_direct(dir).context("cannot make a file")?;
        let store = Arc::new(Store::make(dir, workload, direct)?);
        let count = workload.cores.min(workload.partitions);
        let post = |_| {
            Ok(Post {
                mail: Mutex::default(),
                asleep: AtomicBool::new(false),
                stop: AtomicBool::new(false),
                wake: WakeFd::new().context("cannot make an eventfd")?,
            })
        };
        let posts: Arc<[Post]> = (0..count).map(post).collect::<Result<_>>()?;
        let theirs = Arc::clone(&posts);
        let preparer = Preparer::start(&store, move |partition| {
            theirs[(partition % count) as usize].put(|mail| mail.readied.push(partition));
        })?;
        let interval = Interval::start(&store)?;
        let asker = preparer.asker();
        let preparer = Some(preparer);
        let threads = Vec::new();
        let mut open = Open { store, way, direct, posts, preparer, interval, threads };
        let cores = cores_near(dir);
        for nth in 0..count {
            let core = cores.get(nth as usize % cores.len().max(1)).copied();
            open.start(nth, core, asker.clone())?;
        }
        Ok(Box::new(open))
    }

    fn reopen(&self, dir: &Path, workload: &Workload) -> Result<Box<dyn Reader>> {
        Ok(reopen(dir, workload))
    }
}

impl Open {
    fn start(&mut self, nth: u32, core: Option<usize>, asker: Asker) -> Result<()> {
        let (store, posts, way) = (Arc::clone(&self.store), Arc::clone(&self.posts), self.way);
        let (ready, started) = sync_channel(1);
        let run = move || {
            let _pinned = core.map(Pinned::to);
            let made = driver::Driver::new(Arc::clone(&store), (posts, nth), way, asker);
            let driver = match made {
                Ok(driver) => driver,
                Err(error) => return drop(ready.send(Err(error))),
            };
            // The opener waits for this.
            let _ = ready.send(Ok(()));
            if let Err(error) = driver.run() {
                store.desk.fail(error);
            }
        };
        let thread = thread::Builder::new().name(format!("ring-{nth}")).spawn(run);
        self.threads.push(thread.context("cannot start a thread")?);
        started.recv().map_err(|_| anyhow!("a ring's thread ended early"))?
    }

    fn end(&mut self) -> Result<()> {
        for post in &*self.posts {
            post.stop.store(true, Ordering::SeqCst);
            post.wake.notify();
        }
        let panicked = self.threads.drain(..).filter_map(|thread| thread.join().err()).count();
        drop((self.preparer.take(), self.interval.take()));
        anyhow::ensure!(panicked == 0, "{panicked} threads panicked");
        self.store.desk.take(Duration::ZERO, &mut Vec::new())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // Why it ended early has been told; here all that counts is that no thread goes on.
        let _ = self.end();
    }
}

impl Instance for Open {
    fn facts(&self) -> Facts {
        let ack = match (self.way, self.store.policy) {
            (Way::Direct, FlushPolicy::Group) => "O_DIRECT and RWF_DSYNC, two groups in flight",
            (Way::Direct, _) => "O_DIRECT, not flushed",
            (Way::Buffered, FlushPolicy::Group) => "a write linked to an fdatasync, for a group",
            (Way::Buffered, FlushPolicy::Os) => "written into the page cache",
            (Way::Buffered, FlushPolicy::Interval { .. }) => {
                "written into the page cache; fdatasync by the interval"
            }
        };
        let mut notes = Vec::new();
        if self.way == Way::Direct && !self.direct {
            notes.push("the file system does not take O_DIRECT: through the page cache".to_owned());
        }
        Facts { direct: self.direct, ack: ack.to_owned(), notes }
    }

    fn verifiable(&self) -> Verifiable {
        Verifiable::Yes
    }

    fn submit(&mut self, request: Request) {
        let post = &self.posts[request.partition as usize % self.posts.len()];
        post.put(|mail| mail.requests.push(request));
    }

    fn poll(&mut self, wait: Duration, done: &mut Vec<Completion>) -> Result<()> {
        self.store.desk.take(wait, done)
    }

    fn counters(&self) -> Counters {
        self.store.counters()
    }

    fn reader(&self) -> Result<Box<dyn Reader>> {
        Ok(self.store.reader())
    }

    fn close(mut self: Box<Self>) -> Result<()> {
        self.end()
    }
}
