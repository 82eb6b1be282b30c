//! A shard's thread: pinned, with its ring and its memory, until the engine closes it.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Duration;

use core_affinity::CoreId;

use crate::buffers::Arena;
use crate::clock::SystemClock;
use crate::command::OpenMode;
use crate::config::Config;
use crate::error::{Fault, OpenError};
use crate::format::names;
use crate::journal::Journal;
use crate::limits::RING_ENTRIES;
use crate::ring::backend::{AnyRing, Fallback, open_ring};
use crate::ring::interrupts::cores_near;
use crate::ring::{Ring, Wait};
use crate::stats::{DiskTimes, ShardStats};

use super::disk::ShardDisk;
use super::executor::Executor;
use super::inbox::Inbox;
use super::points::Points;
use super::state::{Parts, Settings};
use super::{Context, Shard, driver, refuse_all};

thread_local! {
    static IS_SHARD: Cell<bool> = const { Cell::new(false) };
}

/// Whether this is a shard's thread, which must not block.
pub(crate) fn is_shard() -> bool {
    IS_SHARD.get()
}

/// What a shard's thread is started with.
pub(crate) struct Plan {
    pub(crate) shard: usize,
    pub(crate) core: Option<CoreId>,
    pub(crate) config: Config,
    pub(crate) settings: Settings,
    pub(crate) epoch: u64,
    pub(crate) journal_bytes: u64,
    pub(crate) points: Arc<Points>,
}

/// The cores shards are pinned to, in order of preference; none if they are not.
pub(crate) fn cores(config: &Config) -> Vec<CoreId> {
    let cores = if config.pin { cores_near(&config.dir) } else { Vec::new() };
    cores.into_iter().map(|id| CoreId { id }).collect()
}

/// What a shard got from the kernel: bytes registered with it, and why its ring is another than hoped for.
pub(crate) type Granted = (u64, Option<Fallback>);

/// A shard's number, and what it got or why it did not start.
pub(crate) type Started = (usize, io::Result<Granted>);

/// Starts a shard, which tells `ready` how that went.
pub(crate) fn spawn(
    plan: Plan,
    ready: Sender<Started>,
) -> Result<(Arc<Inbox<Context>>, JoinHandle<io::Result<()>>), OpenError> {
    let dir = plan.config.dir.clone();
    // A quarter of the budget is for batches on their way, the rest for what the logs hold.
    let inbox = Arc::new(Inbox::new(plan.config.memory_bytes / 4));
    let shared = inbox.clone();
    let builder = std::thread::Builder::new().name(format!("ringmain-{}", plan.shard));
    let thread = builder.spawn(move || {
        // Whatever ends the thread, nobody may wait for it for ever.
        let _guard = Closing(shared.clone());
        run(plan, shared, ready)
    });
    let thread = thread.map_err(|e| OpenError::io(&dir, "starting a thread", e))?;
    Ok((inbox, thread))
}

struct Closing(Arc<Inbox<Context>>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
        self.0.end_all(Fault { operation: "the shard", errno: libc::EIO });
    }
}

fn run(plan: Plan, inbox: Arc<Inbox<Context>>, ready: Sender<Started>) -> io::Result<()> {
    IS_SHARD.set(true);
    let number = plan.shard;
    let (mut shard, granted) = match start(plan, &inbox) {
        Ok(started) => started,
        Err(error) => {
            // Nobody listens only if another shard failed first.
            drop(ready.send((number, Err(error))));
            return Ok(());
        }
    };
    if ready.send((number, Ok(granted))).is_err() {
        return Ok(());
    }
    // The engine waits for as many answers as there are senders.
    drop(ready);
    while !inbox.is_closed() {
        shard.turn(Wait::Forever)?;
    }
    refuse_all(&mut shard.context().state.borrow_mut());
    Ok(())
}

fn start(
    plan: Plan,
    inbox: &Arc<Inbox<Context>>,
) -> io::Result<(Shard<AnyRing, SystemClock>, Granted)> {
    if let Some(core) = plan.core {
        // Not being pinned costs speed, nothing else.
        core_affinity::set_for_current(core);
    }
    let (mut ring, fallback) = open_ring(plan.config.backend, RING_ENTRIES)?;
    let arena = Arena::new(plan.config.memory_bytes / 4 * 3);
    let registered = ring.register(&arena);
    let clock = SystemClock::new();
    let path = plan.config.dir.join(names::journal(plan.shard as u32));
    let mode = OpenMode { direct: plan.settings.direct, ..OpenMode::default() };
    let opened = driver::drive(&mut ring, &clock, move |disk| async move {
        crate::files::open(&disk, &path, mode).await
    })?;
    let journal = Journal::new(plan.journal_bytes, plan.settings.shape.block, plan.epoch);
    inbox.set_wake(ring.waker());
    let executor = Executor::with_waker(ring.waker());
    let parts = Parts {
        dir: plan.config.dir.clone(),
        settings: plan.settings,
        arena,
        journal,
        journal_file: opened?,
        inbox: inbox.clone(),
    };
    let disk = ShardDisk::default();
    let mut shard = Shard::new(ring, clock, (executor, disk), parts, plan.points);
    shard.set_spin(Duration::from_micros(plan.config.spin_us.into()));
    Ok((shard, (registered, fallback)))
}

/// What the shard has counted, as a call.
pub(crate) async fn stats(cx: Context) -> ShardStats {
    let state = cx.state.borrow();
    ShardStats {
        checkpoint_lag_bytes: state.journal.needed_bytes(),
        memory_used_bytes: (state.arena.bytes() - state.arena.free_bytes()) as u64,
        ..state.stats
    }
}

/// How long its operations took, as a call.
pub(crate) async fn disk_times(cx: Context) -> DiskTimes {
    cx.state.borrow().watch.times.clone()
}
