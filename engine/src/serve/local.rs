//! What a server inside a shard works with.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::{Homes, LocalLog};
use crate::command::sockets::Address;
use crate::error::{LocalError, NetError};
use crate::handle::{LogHandle, Remote};
use crate::shard::Context;
use crate::shard::net::{ListenOptions, Listener, Service};

/// A shard, from within. Cheap to clone; stays on the shard's thread.
///
/// Whatever runs here shares the thread with appends and acks: a step that computes for a millisecond makes every ack a
/// millisecond later. Nothing may block; what does in a [`LogHandle`] panics.
#[derive(Clone)]
pub struct Local {
    cx: Context,
    service: Rc<Service>,
    shard: usize,
    homes: Homes,
    remotes: Rc<[Remote]>,
}

/// The time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the time is over")]
pub struct Elapsed;

impl Local {
    pub(crate) fn new(
        cx: Context,
        service: Rc<Service>,
        shard: usize,
        homes: Homes,
        remotes: Rc<[Remote]>,
    ) -> Self {
        Self { cx, service, shard, homes, remotes }
    }

    /// The shard's number.
    #[must_use]
    pub fn shard(&self) -> usize {
        self.shard
    }

    /// Listens. Every shard may listen at the same TCP address; at a Unix socket's path one can.
    ///
    /// # Errors
    /// [`NetError::Io`] as the system says, [`NetError::Unsupported`] on a ring without sockets.
    pub fn listen(
        &self,
        address: Address,
        options: ListenOptions,
    ) -> impl Future<Output = Result<Listener, NetError>> + 'static {
        Listener::bind((self.cx.clone(), Rc::clone(&self.service)), address, options)
    }

    /// Starts a task of this service: a connection's, as a rule. One that panics ends alone, and its connection with it
    /// ([`Local::panics`]).
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.service.spawn(&self.cx, task);
    }

    /// Tasks of this service that have not ended.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.service.live()
    }

    /// Tasks of this service that have panicked.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.service.panics()
    }

    /// Whether the service is asked to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.service.is_stopping()
    }

    /// Ends when the service is asked to stop.
    pub async fn stopping(&self) {
        let service = &self.service;
        // All tasks of a service are polled when it is asked.
        poll_fn(|_| if service.is_stopping() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// Ends after a time.
    pub async fn sleep(&self, time: Duration) {
        let until = self.cx.state.borrow().time.ns + time.as_nanos() as u64;
        self.cx.tasks.sleep_until(until).await;
    }

    /// Waits for a future, at most so long. The future is dropped when the time is over.
    ///
    /// # Errors
    /// [`Elapsed`].
    pub async fn timeout<F: Future>(
        &self,
        time: Duration,
        future: F,
    ) -> Result<F::Output, Elapsed> {
        let until = self.cx.state.borrow().time.ns + time.as_nanos() as u64;
        let mut alarm = self.cx.tasks.sleep_until(until);
        let mut future = pin!(future);
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            Pin::new(&mut alarm).poll(cx).map(|()| Err(Elapsed))
        })
        .await
    }

    /// A partition of this shard, without a way through its inbox.
    ///
    /// # Errors
    /// [`LocalError`]: it is not there, or lives elsewhere.
    pub fn log(&self, topic: &str, partition: u32) -> Result<LocalLog, LocalError> {
        let missing = || LocalError::Missing { topic: topic.to_owned(), partition };
        let (_, home) = self.homes.find(topic, partition).ok_or_else(missing)?;
        if home.shard != self.shard {
            return Err(LocalError::Elsewhere { shard: home.shard });
        }
        Ok(LocalLog::new(self.cx.clone(), Rc::clone(&self.service), home.log))
    }

    /// A partition of any shard. Its futures may be awaited here; its blocking twins panic.
    ///
    /// # Errors
    /// [`LocalError::Missing`].
    pub fn handle(&self, topic: &str, partition: u32) -> Result<LogHandle, LocalError> {
        let missing = || LocalError::Missing { topic: topic.to_owned(), partition };
        let (name, home) = self.homes.find(topic, partition).ok_or_else(missing)?;
        Ok(LogHandle::new(self.remotes[home.shard].clone(), home.log, name))
    }
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Local(shard {})", self.shard)
    }
}
