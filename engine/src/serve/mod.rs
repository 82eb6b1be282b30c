//! Servers inside a shard: what they are given, and how they are held from outside.
//!
//! A server is a future on a shard's own thread. Its sockets are on the shard's ring, its logs at hand without a way
//! through an inbox: [`crate::Engine::serve`] starts one, [`Local`] is what it works with.

mod local;
mod log;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use local::{Elapsed, Local};
pub use log::LocalLog;

pub use crate::buffers::pool::Lease;
pub use crate::command::sockets::{Address, Family, ReadPath};
pub use crate::shard::inbox::local::LocalAppend;
pub use crate::shard::net::{Connection, ListenOptions, Listener, LogRange, ReadPaths, Sender};

use crate::error::ServeError;
use crate::handle::{Remote, Reply, block_on};
use crate::journal::LogId;
use crate::shard::net::Stop;
use crate::types::PartitionName;

/// Where a partition lives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Home {
    pub(crate) shard: usize,
    pub(crate) log: LogId,
}

/// Where partitions live, as every thread of an engine sees it.
#[derive(Clone, Default)]
pub(crate) struct Homes(Arc<Mutex<BTreeMap<PartitionName, Home>>>);

impl Homes {
    pub(crate) fn lock(&self) -> MutexGuard<'_, BTreeMap<PartitionName, Home>> {
        // Nothing panics while it holds this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, topic: &str, partition: u32) -> Option<(PartitionName, Home)> {
        let name = PartitionName::new(topic, partition)?;
        let home = self.lock().get(&name).copied()?;
        Some((name, home))
    }
}

/// A server inside a shard, as other threads hold it. Dropping it lets the server run until the engine closes.
pub struct ServiceHandle<T> {
    remote: Remote,
    stop: Arc<Stop>,
    reply: Reply<Result<T, ServeError>>,
}

impl<T> ServiceHandle<T> {
    pub(crate) fn new(
        remote: Remote,
        stop: Arc<Stop>,
        reply: Reply<Result<T, ServeError>>,
    ) -> Self {
        Self { remote, stop, reply }
    }

    /// Asks the service to end: listeners accept no more ([`NetError::Stopping`]), connections that wait for a request
    /// are told so, the others go on. What has not ended after `within` is dropped, its connections closed. Returns at
    /// once; [`ServiceHandle::wait`] waits.
    ///
    /// [`NetError::Stopping`]: crate::error::NetError::Stopping
    pub fn stop(&self, within: Duration) {
        self.stop.ask(within);
        // A shard that is gone has ended the service.
        drop(self.remote.call(|cx| async move { cx.services.rouse() }));
    }

    /// Waits until the service and all tasks it started have ended. Dropping the future loses nothing, so that it can
    /// be waited for beside whatever asks the service to stop. The output is given once.
    ///
    /// # Errors
    /// [`ServeError`] if it panicked, was ended, or its shard was.
    pub async fn join(&mut self) -> Result<T, ServeError> {
        (&mut self.reply).await.unwrap_or(Err(ServeError::Closed))
    }

    /// [`ServiceHandle::join`], blocking.
    ///
    /// # Errors
    /// As there.
    pub fn wait(mut self) -> Result<T, ServeError> {
        block_on(self.join())
    }
}

impl<T> std::fmt::Debug for ServiceHandle<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ServiceHandle({:?})", self.stop)
    }
}
