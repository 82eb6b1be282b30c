//! An engine opened for measuring: a data directory, its partitions, and space made ready before the clock runs.

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use anyhow::{Context as _, Result, anyhow};
use ringmain::types::{FlushPolicy, WriteMode};
use ringmain::{Config, Engine, LogHandle, RecoveryReport, ShardStats};

use crate::interrupt;

/// Partitions whose space is made ready at once.
const PREPARATIONS_IN_FLIGHT: usize = 64;

/// Partitions made in one call: they share flushes, and the user does not wait long for the call to end.
const PARTITIONS_AT_ONCE: usize = 1000;

/// A running engine of one shard: the other core is the clients'.
pub struct Site {
    /// Taken when it is closed.
    engine: Option<Engine>,
    journal_bytes: u64,
}

impl Site {
    /// Opens an engine in `dir`. Call on a thread that is not pinned.
    ///
    /// # Errors
    /// If it can't be opened.
    pub fn open(dir: &Path) -> Result<Self> {
        Self::open_with(config(dir))
    }

    /// The same with settings of one's own.
    ///
    /// # Errors
    /// As above.
    pub fn open_with(config: Config) -> Result<Self> {
        let journal_bytes = config.journal_bytes;
        let engine = Engine::open(config).context("cannot open the engine")?;
        Ok(Self { engine: Some(engine), journal_bytes })
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("closing it takes the site")
    }

    /// `count` partitions of `topic`, with `bytes` of each made ready.
    ///
    /// # Errors
    /// If they can't be made, or the user stops the run.
    pub fn logs(&self, topic: &str, count: u64, bytes: u64) -> Result<Vec<LogHandle>> {
        let names: Vec<_> = (0..count as u32).map(|nth| (topic.to_owned(), nth)).collect();
        let mut logs = Vec::with_capacity(names.len());
        for some in names.chunks(PARTITIONS_AT_ONCE) {
            interrupt::check()?;
            logs.extend(self.engine().logs(some).context("cannot make partitions")?);
        }
        prepare(&logs, bytes)?;
        Ok(logs)
    }

    /// What its shard has counted so far.
    pub fn stats(&self) -> ShardStats {
        self.engine().stats().first().copied().unwrap_or_default()
    }

    /// Size of its journal.
    pub fn journal_bytes(&self) -> u64 {
        self.journal_bytes
    }

    /// Whether it writes past the page cache.
    pub fn is_direct(&self) -> bool {
        self.engine().facts().write_mode == WriteMode::Direct
    }

    /// What opening found and did.
    pub fn recovery(&self) -> &RecoveryReport {
        self.engine().recovery()
    }

    /// Why it does not use io_uring, if it does not.
    pub fn fallback(&self) -> Option<&str> {
        self.engine().facts().fallback.as_deref()
    }

    /// Closes it.
    ///
    /// # Errors
    /// If something could not be flushed.
    pub fn close(mut self) -> Result<()> {
        let engine = self.engine.take().expect("closed once");
        engine.close().context("cannot close the engine")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // The data goes too: closing ten thousand partitions cleanly would keep the user waiting for nothing.
        if let Some(engine) = self.engine.take() {
            engine.abandon();
        }
    }
}

/// The engine as the rows and the crash test open it.
pub fn config(dir: &Path) -> Config {
    Config { shards: 1, ..Config::new(dir) }
}

/// Readies `bytes` in the active segment of each log.
///
/// # Errors
/// If the disk is full, or the user stops the run.
pub fn prepare(logs: &[LogHandle], bytes: u64) -> Result<()> {
    for some in logs.chunks(PREPARATIONS_IN_FLIGHT) {
        interrupt::check()?;
        let under_way: Vec<_> = some.iter().map(|log| log.prepare(bytes)).collect();
        for one in under_way {
            block_on(one).context("cannot make space ready")?;
        }
    }
    Ok(())
}

/// Begins a new segment and readies `bytes` of it.
///
/// # Errors
/// As [`prepare`].
pub fn fresh_segment(logs: &[LogHandle], bytes: u64) -> Result<()> {
    for log in logs {
        log.roll_blocking().context("cannot roll")?;
    }
    prepare(logs, bytes)
}

/// The policy of that name in the plan.
///
/// # Errors
/// If there is none.
pub fn policy(name: &str) -> Result<FlushPolicy> {
    match name {
        "group" => Ok(FlushPolicy::Group),
        "os" => Ok(FlushPolicy::Os),
        other => Err(anyhow!("no flush policy {other}")),
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future on this thread.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
