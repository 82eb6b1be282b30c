//! Fetches through a handle.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};

use crate::error::ReadError;
use crate::shard::fetch::{self, Damage, Fetch, Fetched};
use crate::types::Offset;

use super::asked::Asked;
use super::{LogHandle, block_on};

/// A fetch under way. Dropping it ends its wait and frees its place.
#[must_use = "a fetch that is dropped is given up"]
pub struct FetchFuture(Asked<Result<Fetched, ReadError>>);

impl Future for FetchFuture {
    type Output = Result<Fetched, ReadError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.0).poll(cx));
        Poll::Ready(answer.unwrap_or(Err(ReadError::Closed)))
    }
}

/// A look for what comes behind damage.
pub(crate) struct PassFuture(Asked<Result<Offset, ReadError>>);

impl Future for PassFuture {
    type Output = Result<Offset, ReadError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.0).poll(cx));
        Poll::Ready(answer.unwrap_or(Err(ReadError::Closed)))
    }
}

impl LogHandle {
    /// Looks for the first intact batch behind damage.
    pub(crate) fn pass_over(&self, damage: Damage) -> PassFuture {
        let log = self.log;
        let ask = move |cx| async move { fetch::pass_over(&cx, log, damage).await };
        PassFuture(self.remote.ask(ask))
    }

    /// Fetches whole batches, from the one that holds the offset on, and waits for them if there are not enough: see
    /// [`Fetch`]. It is sent at once. While it waits it costs one and a half KiB of memory and no time;
    /// [`crate::limits::FETCHES_MAX`] fetches of a shard can be under way.
    ///
    /// The answer has as many bytes as there are, up to `max_bytes` and at least one batch, once `min_bytes` are below
    /// the isolation bound or `max_wait` is over: then what there is, or nothing. An offset behind the bound waits for
    /// it; so "follow from now on" begins at [`crate::types::Watermarks::dirty`].
    ///
    /// # Errors
    /// - [`ReadError::OutOfRange`] below the log's start or behind its end, with the range that is there.
    /// - [`ReadError::Diverged`], [`ReadError::Truncated`]: what the reader has is no longer the log's, as far as
    ///   `epoch` and `mark` tell. Also if that happens while the fetch waits: never does it give bytes of another
    ///   history.
    /// - [`ReadError::Damaged`] at the first batch, [`ReadError::Altered`] of the first segment; one further on ends
    ///   the answer before it.
    /// - [`ReadError::Overloaded`], [`ReadError::Deleted`], [`ReadError::Closed`], [`ReadError::Disk`].
    pub fn fetch(&self, fetch: Fetch) -> FetchFuture {
        let log = self.log;
        let ask = move |cx| async move { fetch::fetch(&cx, log, fetch).await };
        FetchFuture(self.remote.ask(ask))
    }

    /// [`LogHandle::fetch`], blocking.
    ///
    /// # Errors
    /// As there.
    pub fn fetch_blocking(&self, fetch: Fetch) -> Result<Fetched, ReadError> {
        block_on(self.fetch(fetch))
    }
}
