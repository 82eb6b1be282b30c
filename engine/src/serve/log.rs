//! A partition, from within its shard.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll};

use crate::batch::Batch;
use crate::error::{AppendError, ReadError};
use crate::handle::find::within;
use crate::journal::LogId;
use crate::shard::fetch::{self, Damage, Fetch, Fetched};
use crate::shard::inbox::Appended;
use crate::shard::inbox::local::LocalAppend;
use crate::shard::net::{LogRange, Service, locate};
use crate::shard::read::find;
use crate::shard::shield::Shield;
use crate::shard::{Context, read};
use crate::types::{BatchFound, Isolation, Offset, TimeFound, Watermarks};

/// A partition's log, from within its shard. Cheap to clone; stays on the shard's thread.
#[derive(Clone)]
pub struct LocalLog {
    cx: Context,
    service: Rc<Service>,
    id: LogId,
}

impl LocalLog {
    pub(crate) fn new(cx: Context, service: Rc<Service>, id: LogId) -> Self {
        Self { cx, service, id }
    }

    /// The partition's bounds now; `None` once it is deleted or closed.
    #[must_use]
    pub fn watermarks(&self) -> Option<Watermarks> {
        self.engine(|| self.cx.state.borrow_mut().log(self.id).map(|log| log.watermarks()))
    }

    /// Appends a batch; ends with its ack, as [`crate::LogHandle::append`] does, and is admitted as there: it waits
    /// while the shard's budget is used up. Begins with the first poll; from then on dropping the future cancels
    /// nothing.
    pub fn append(
        &self,
        batch: Batch,
    ) -> impl Future<Output = Result<Appended, AppendError>> + 'static {
        self.run(LocalAppend::new(self.cx.clone(), self.id, batch))
    }

    /// Reads whole batches from the one that holds `offset` on, as [`crate::LogHandle::read`] does.
    pub fn read(
        &self,
        offset: Offset,
        max_bytes: usize,
        isolation: Isolation,
    ) -> impl Future<Output = Result<Vec<u8>, ReadError>> + 'static {
        let (cx, id) = (self.cx.clone(), self.id);
        self.shielded(async move { read::read(&cx, id, offset, max_bytes, isolation).await })
    }

    /// Where the batch is that holds `offset`, as [`crate::LogHandle::find_offset`] does.
    ///
    /// # Errors
    /// As there.
    pub fn find_offset(
        &self,
        offset: Offset,
        isolation: Isolation,
    ) -> impl Future<Output = Result<Option<BatchFound>, ReadError>> + 'static {
        let (cx, id) = (self.cx.clone(), self.id);
        self.shielded(async move { find::find_offset(&cx, id, offset, isolation).await })
    }

    /// The first record whose timestamp is `timestamp_ms` or later, as [`crate::LogHandle::find_time`] does. The one
    /// batch that may hold it is decompressed here, on the shard's thread.
    ///
    /// # Errors
    /// As there.
    pub fn find_time(
        &self,
        timestamp_ms: i64,
        isolation: Isolation,
    ) -> impl Future<Output = Result<Option<TimeFound>, ReadError>> + 'static {
        let (cx, id) = (self.cx.clone(), self.id);
        self.shielded(async move {
            let mut from = Offset::ZERO;
            loop {
                let asked = (from, timestamp_ms);
                let Some((begin, batch)) = find::find_time(&cx, id, asked, isolation).await? else {
                    return Ok(None);
                };
                match within(&batch, begin, timestamp_ms)? {
                    Ok(found) => return Ok(Some(found)),
                    Err(next) => from = next,
                }
            }
        })
    }

    /// Fetches, as [`crate::LogHandle::fetch`] does.
    pub fn fetch(
        &self,
        fetch: Fetch,
    ) -> impl Future<Output = Result<Fetched, ReadError>> + 'static {
        let (cx, id) = (self.cx.clone(), self.id);
        self.run(async move { fetch::fetch(&cx, id, fetch).await })
    }

    /// Looks for the first intact batch behind damage.
    pub(crate) fn pass_over(
        &self,
        damage: Damage,
    ) -> impl Future<Output = Result<Offset, ReadError>> + 'static {
        let (cx, id) = (self.cx.clone(), self.id);
        self.run(async move { fetch::pass_over(&cx, id, damage).await })
    }

    /// Finds the bytes of a fetch, waiting for them as it says, for [`crate::serve::Connection::send_log`]. Payload is
    /// neither read nor checked: whoever receives it does that.
    ///
    /// # Errors
    /// As [`crate::LogHandle::fetch`].
    pub fn locate(
        &self,
        fetch: Fetch,
    ) -> impl Future<Output = Result<LogRange, ReadError>> + 'static {
        let (cx, id) = (self.cx.clone(), self.id);
        self.run(async move { locate(&cx, id, fetch).await })
    }

    fn engine<T>(&self, piece: impl FnOnce() -> T) -> T {
        self.service.engine(piece)
    }

    /// A server may give up at any time.
    fn shielded<F: Future + 'static>(&self, future: F) -> Inside<Shield<F>> {
        self.run(Shield::new(&self.cx, future))
    }

    fn run<F: Future>(&self, future: F) -> Inside<F> {
        Inside { service: Rc::clone(&self.service), future: Box::pin(future) }
    }
}

impl std::fmt::Debug for LocalLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LocalLog({:?})", self.id)
    }
}

/// A piece of the engine that a server's task polls: what panics in it is the engine's.
struct Inside<F> {
    service: Rc<Service>,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Inside<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        this.service.engine(|| this.future.as_mut().poll(cx))
    }
}
