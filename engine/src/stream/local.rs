//! The records of a log for a server inside its shard.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use crate::error::ReadError;
use crate::serve::LocalLog;
use crate::shard::fetch::{Damage, Fetch, Fetched};
use crate::types::Offset;

use super::machine::{Machine, Source};
use super::{Record, StreamError, StreamOptions};

type Local<T> = Pin<Box<dyn Future<Output = Result<T, ReadError>>>>;

impl Source for LocalLog {
    type Fetching = Local<Fetched>;
    type Passing = Local<Offset>;

    fn fetch(&self, fetch: Fetch) -> Local<Fetched> {
        Box::pin(LocalLog::fetch(self, fetch))
    }

    fn pass(&self, damage: Damage) -> Local<Offset> {
        Box::pin(self.pass_over(damage))
    }
}

/// As [`crate::Records`], of a [`LocalLog`]: stays on the shard's thread.
pub struct LocalRecords(Machine<LocalLog>);

impl LocalRecords {
    /// The next record; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<Record, StreamError>> {
        poll_fn(|cx| self.0.poll(cx)).await
    }

    /// The offset after the last record that was given, or passed over.
    #[must_use]
    pub fn position(&self) -> Offset {
        self.0.position()
    }
}

impl Stream for LocalRecords {
    type Item = Result<Record, StreamError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll(cx)
    }
}

impl LocalLog {
    /// The log's records from `from` on, as [`crate::LogHandle::records`] gives them. The first fetch begins when the
    /// stream is polled.
    #[must_use]
    pub fn records(&self, from: Offset, options: StreamOptions) -> LocalRecords {
        LocalRecords(Machine::new(self.clone(), from, options))
    }
}
