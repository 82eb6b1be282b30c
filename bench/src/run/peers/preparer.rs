//! A thread that makes space ready ahead of the writers.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Error, Result};

use super::store::Store;

/// A way to it.
#[derive(Clone)]
pub(super) struct Asker(Sender<Option<u32>>);

impl Asker {
    /// Has this partition looked after.
    pub(super) fn ask(&self, partition: u32) {
        // One that has ended has said why.
        let _ = self.0.send(Some(partition));
    }
}

/// The thread. Dropping it ends it, whoever still has a way to it.
pub(super) struct Preparer {
    to: Asker,
    thread: Option<JoinHandle<()>>,
}

impl Preparer {
    /// Starts it; it calls `readied` with a partition in which there is more space then.
    pub(super) fn start(
        store: &Arc<Store>,
        readied: impl Fn(u32) + Send + 'static,
    ) -> Result<Self> {
        let (to, from) = channel();
        let store = Arc::clone(store);
        let run = move || {
            while let Ok(Some(partition)) = from.recv() {
                match store.track(partition).ready_wanted(store.readying) {
                    Ok(bytes) => store.count_prepared(bytes),
                    Err(e) => {
                        let what = format!("cannot make space ready in partition {partition}");
                        return store.desk.fail(Error::from(e).context(what));
                    }
                }
                readied(partition);
            }
        };
        let thread = thread::Builder::new().name("preparer".to_owned()).spawn(run);
        Ok(Self { to: Asker(to), thread: Some(thread.context("cannot start a thread")?) })
    }

    /// A way to it.
    pub(super) fn asker(&self) -> Asker {
        self.to.clone()
    }
}

impl Drop for Preparer {
    fn drop(&mut self) {
        // One that has ended has said why.
        let _ = self.to.0.send(None);
        if let Some(thread) = self.thread.take() {
            // What it panicked of is on standard error; the instance is ending.
            let _ = thread.join();
        }
    }
}
