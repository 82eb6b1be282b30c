//! A log as a stream of records: fetched ahead, decompressed, in order, from an offset to the end or for ever.
//!
//! One machine, [`Machine`], goes over what a [`Source`] fetches: a handle's fetches for [`Records`], which is a
//! `futures_core::Stream`, and for [`RecordsBlocking`], its twin; and the shard's own for code that runs there.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;

use crate::batch::BatchError;
use crate::error::ReadError;
use crate::handle::fetch::{FetchFuture, PassFuture};
use crate::handle::{LogHandle, block_on};
use crate::shard::fetch::{Damage, Fetch};
use crate::types::{Isolation, Offset};

mod local;
mod machine;
mod record;

pub use local::LocalRecords;
use machine::{Machine, Source};
pub use record::Record;

/// What a stream gives after damage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AfterDamage {
    /// Nothing: it ends. The default.
    #[default]
    End,
    /// The records behind the damage, from the next batch on that is intact; behind a segment that is not what was
    /// sealed ([`ReadError::Altered`]) from the next segment on that is there.
    PassOver,
}

/// How a stream of records reads its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamOptions {
    /// Up to where it sees records.
    pub isolation: Isolation,
    /// Whether it waits for more at the log's end. If not it ends where the log, or its durable part, ended when the
    /// first fetch came back.
    pub follow: bool,
    /// Whether records of control batches are given too: markers between replicas, see [`Record::is_control`].
    pub control: bool,
    /// What comes after damage. The damage itself is always told, as an error.
    pub after_damage: AfterDamage,
    /// Bytes fetched at once. As many again are fetched ahead while they are gone over, and a compressed batch's
    /// records are beside them.
    pub fetch_bytes: usize,
    /// Bytes that one batch's records may have once decompressed.
    pub decompressed_bytes: usize,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self {
            isolation: Isolation::Durable,
            follow: false,
            control: false,
            after_damage: AfterDamage::End,
            fetch_bytes: 1 << 20,
            decompressed_bytes: crate::limits::DECOMPRESSED_BYTES_MAX,
        }
    }
}

impl StreamOptions {
    /// The fetch that such a stream begins with.
    fn fetch(&self, from: Offset) -> Fetch {
        Fetch {
            max_bytes: self.fetch_bytes,
            min_bytes: usize::from(self.follow),
            max_wait: if self.follow { Duration::MAX } else { Duration::ZERO },
            isolation: self.isolation,
            ..Fetch::from(from)
        }
    }
}

/// Why a stream could not give a record.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A batch is as it was appended, but its records are none: what is inside of compressed batches is not looked at
    /// when they are appended.
    #[error("the records of the batch at {base} to {last}: {source}")]
    Batch {
        /// The batch's first offset.
        base: Offset,
        /// Its last one.
        last: Offset,
        /// What is wrong with them.
        source: BatchError,
    },
}

impl Source for LogHandle {
    type Fetching = FetchFuture;
    type Passing = PassFuture;

    fn fetch(&self, fetch: Fetch) -> FetchFuture {
        LogHandle::fetch(self, fetch)
    }

    fn pass(&self, damage: Damage) -> PassFuture {
        self.pass_over(damage)
    }
}

/// A log's records, one by one: a `futures_core::Stream`. Dropping it ends the fetch that is under way.
///
/// After an error it ends, unless that was damage and [`AfterDamage::PassOver`] is set. [`Records::position`] says
/// where another one goes on.
pub struct Records(Machine<LogHandle>);

impl Records {
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

impl Stream for Records {
    type Item = Result<Record, StreamError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll(cx)
    }
}

/// A log's records, one by one, blocking: the twin of [`Records`].
pub struct RecordsBlocking(Records);

impl RecordsBlocking {
    /// The offset after the last record that was given, or passed over.
    #[must_use]
    pub fn position(&self) -> Offset {
        self.0.position()
    }
}

impl Iterator for RecordsBlocking {
    type Item = Result<Record, StreamError>;

    fn next(&mut self) -> Option<Self::Item> {
        block_on(self.0.next())
    }
}

impl LogHandle {
    /// The log's records from `from` on, which may lie inside a batch. The first fetch is sent at once.
    ///
    /// The stream keeps to one history of the log: if that is cut off below its position, by a truncation or another
    /// leader, it ends with [`ReadError::Truncated`] or [`ReadError::Diverged`].
    pub fn records(&self, from: Offset, options: StreamOptions) -> Records {
        Records(Machine::new(self.clone(), from, options))
    }

    /// [`LogHandle::records`], blocking.
    pub fn records_blocking(&self, from: Offset, options: StreamOptions) -> RecordsBlocking {
        RecordsBlocking(self.records(from, options))
    }
}
