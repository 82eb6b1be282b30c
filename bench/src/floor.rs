//! Backend `floor`: the least that durable appends can cost here, and what the engine is measured against.
//!
//! One ring, one prepared file, groups of up to 512 KiB, two in flight, O_DIRECT and RWF_DSYNC. No recovery, no
//! index, no partitions, no limits: a prototype that keeps only what an honest ack needs. It wraps at its
//! file's end and can't be read back.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread::{self, JoinHandle};
use std::{io, mem};

use anyhow::{Context as _, Result, anyhow};

use crate::clients::{Acked, Target};
use crate::clock::now_ms;
use crate::cores::{Cores, Pinned};
use crate::onebatch::{BATCH_BYTES, OneBatch};
use crate::output::tell;
use crate::payload::{Cursor, Payload};
use crate::prepared::prepare;
use crate::wakefd::WakeFd;

mod shard;

pub use shard::Counts;

/// Bytes of the floor's file.
pub const FILE_BYTES: u64 = 256 << 20;

/// A request is under way.
const PENDING: i64 = i64::MIN;

/// What clients and the floor's thread share.
struct Shared {
    inbox: Mutex<Inbox>,
    /// Set by the floor's thread before it looks at the inbox for the last time before a sleep that a
    /// request should end.
    asleep: AtomicBool,
    stop: AtomicBool,
    wake: WakeFd,
    desks: Box<[Desk]>,
}

/// Where one client's result is laid down.
struct Desk {
    /// `PENDING`, a base offset, or a negative errno.
    result: AtomicI64,
    /// The client's waker, which is the same for all its requests.
    waker: OnceLock<Waker>,
}

/// Requests not yet in a group: batches back to back, all of one size, and whose they are.
#[derive(Default)]
struct Inbox {
    batches: Vec<u8>,
    clients: Vec<u32>,
}

impl Inbox {
    fn with_room(clients: u32) -> Self {
        Self {
            batches: Vec::with_capacity(clients as usize * BATCH_BYTES),
            clients: Vec::with_capacity(clients as usize),
        }
    }
}

/// The machine does not let the floor run: io_uring or locked memory is not to be had.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotHere(String);

/// The running floor.
pub struct Floor {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<Counts>>>,
    direct: bool,
}

impl Floor {
    /// Prepares the file in `dir` and starts the thread.
    ///
    /// # Errors
    /// If the file can't be made; [`NotHere`] if the machine does not let it run.
    pub fn start(dir: &Path, clients: u32) -> Result<Self> {
        let prepared = prepare(&dir.join("floor"), FILE_BYTES)?;
        let direct = prepared.direct;
        let desk = || Desk { result: AtomicI64::new(0), waker: OnceLock::new() };
        let shared = Arc::new(Shared {
            inbox: Mutex::new(Inbox::with_room(clients)),
            asleep: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            wake: WakeFd::new().context("cannot make an eventfd")?,
            desks: (0..clients).map(|_| desk()).collect(),
        });
        let (ready, started) = mpsc::sync_channel(1);
        let theirs = Arc::clone(&shared);
        let core = Cores::near(dir).disk;
        let thread = thread::Builder::new()
            .name("floor".to_owned())
            .spawn(move || {
                let _pinned = Pinned::to(core);
                match shard::Shard::new(theirs, prepared.file) {
                    Ok(shard) => {
                        let _ = ready.send(Ok(()));
                        shard.run()
                    }
                    Err(error) => {
                        let _ = ready.send(Err(NotHere(format!("{error:#}"))));
                        Ok(Counts::default())
                    }
                }
            })
            .context("cannot start a thread")?;
        let floor = Self { shared, thread: Some(thread), direct };
        started.recv().map_err(|_| anyhow!("the floor's thread ended early"))??;
        Ok(floor)
    }

    /// Something for clients to send to: each record a batch of its own, made by the client.
    pub fn target<'a>(&'a self, payload: &'a Payload) -> FloorTarget<'a> {
        let cursors = (0..self.shared.desks.len()).map(|client| payload.cursor(client)).collect();
        FloorTarget { shared: &self.shared, encoder: OneBatch::new(), cursors }
    }

    /// Whether the file system took O_DIRECT.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// Ends the thread.
    ///
    /// # Errors
    /// What ended it before, if anything did.
    pub fn stop(mut self) -> Result<Counts> {
        self.end().unwrap_or_else(|| Ok(Counts::default()))
    }

    fn end(&mut self) -> Option<Result<Counts>> {
        let thread = self.thread.take()?;
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.wake.notify();
        Some(thread.join().unwrap_or_else(|_| Err(anyhow!("the floor's thread panicked"))))
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.end() {
            tell(&format!("ringmain-bench: floor: {error:#}"));
        }
    }
}

/// The floor as clients see it.
pub struct FloorTarget<'a> {
    shared: &'a Shared,
    encoder: OneBatch,
    cursors: Box<[Cursor<'a>]>,
}

impl<'a> Target for FloorTarget<'a> {
    type Fut = Ack<'a>;

    fn append(&mut self, client: u32) -> Ack<'a> {
        let cursor = &mut self.cursors[client as usize];
        let batch = self.encoder.encode(client, now_ms(), |value| cursor.fill(value));
        self.shared.desks[client as usize].result.store(PENDING, Ordering::Relaxed);
        {
            let mut inbox = self.shared.inbox.lock().expect("no thread panics with the lock");
            inbox.batches.extend_from_slice(batch);
            inbox.clients.push(client);
        }
        // SeqCst with the shard's store: either it sees the request, or this sees it asleep.
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::SeqCst)
            && self.shared.asleep.swap(false, Ordering::SeqCst)
        {
            self.shared.wake.notify();
        }
        Ack { shared: self.shared, client }
    }

    fn acked(&mut self, _: u32, output: io::Result<i64>) -> Result<Acked> {
        output.context("the floor cannot write")?;
        Ok(Acked { records: 1, bytes: BATCH_BYTES as u64 })
    }
}

/// A request to the floor.
pub struct Ack<'a> {
    shared: &'a Shared,
    client: u32,
}

impl Future for Ack<'_> {
    type Output = io::Result<i64>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let desk = &self.shared.desks[self.client as usize];
        let waker = desk.waker.get_or_init(|| context.waker().clone());
        assert!(waker.will_wake(context.waker()), "a client keeps its waker");
        match desk.result.load(Ordering::Acquire) {
            PENDING => Poll::Pending,
            offset @ 0.. => Poll::Ready(Ok(offset)),
            errno => Poll::Ready(Err(io::Error::from_raw_os_error(-errno as i32))),
        }
    }
}

impl Shared {
    /// Requests in the inbox.
    fn waiting(&self) -> usize {
        self.inbox.lock().expect("no thread panics with the lock").clients.len()
    }

    /// Swaps the inbox for an empty one.
    fn take(&self, empty: &mut Inbox) {
        empty.batches.clear();
        empty.clients.clear();
        mem::swap(&mut *self.inbox.lock().expect("no thread panics with the lock"), empty);
    }

    /// Fails what is under way, after the ring broke.
    fn refuse(&self, client: u32, errno: i32) {
        if self.desks[client as usize].result.load(Ordering::Relaxed) == PENDING {
            self.lay_down(client, -i64::from(errno));
        }
    }

    fn lay_down(&self, client: u32, result: i64) {
        let desk = &self.desks[client as usize];
        desk.result.store(result, Ordering::Release);
        if let Some(waker) = desk.waker.get() {
            waker.wake_by_ref();
        }
    }
}
