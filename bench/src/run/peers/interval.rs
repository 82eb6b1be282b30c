//! A thread that flushes what was written, for the policy `interval`.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result};
use ringmain::types::FlushPolicy;

use super::store::Store;

/// The thread. Dropping it ends it.
pub(super) struct Interval {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// How often it looks whether so many bytes have come together.
const LOOK: Duration = Duration::from_millis(1);

impl Interval {
    /// Starts it, if the policy is one of intervals.
    pub(super) fn start(store: &Arc<Store>) -> Result<Option<Self>> {
        let FlushPolicy::Interval { ms, bytes, .. } = store.policy else { return Ok(None) };
        let (stop, stopped) = channel::<()>();
        let store = Arc::clone(store);
        let time = Duration::from_millis(u64::from(ms));
        let look = if bytes == u64::MAX { time } else { LOOK.min(time) };
        let run = move || {
            let mut last = Instant::now();
            while stopped.recv_timeout(look) == Err(RecvTimeoutError::Timeout) {
                let due = last.elapsed() >= time;
                last = if due { Instant::now() } else { last };
                let tracks = store.tracks().iter();
                for track in tracks.filter(|track| due || track.dirty_bytes() >= bytes) {
                    match track.flush_dirty() {
                        Ok(flushes) => store.count_flushes(flushes),
                        Err(e) => return store.desk.fail(Error::from(e).context("cannot flush")),
                    }
                }
            }
        };
        let thread = thread::Builder::new().name("interval".to_owned()).spawn(run);
        let thread = thread.context("cannot start a thread")?;
        Ok(Some(Self { stop: Some(stop), thread: Some(thread) }))
    }
}

impl Drop for Interval {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // What it panicked of is on standard error; the instance is ending.
            let _ = thread.join();
        }
    }
}
