//! Lookups by offset and by time.

use std::future::Future;

use crate::batch::BatchView;
use crate::error::ReadError;
use crate::shard::read::find;
use crate::types::{BatchFound, Isolation, Offset, TimeFound};

use super::{LogHandle, block_on};

impl LogHandle {
    /// Where the batch is that holds `offset`, without its records: what a replica cuts its log back to must be where a
    /// batch begins ([`LogHandle::truncate_to`]). If compaction took that offset away, the next batch that is left.
    /// `None` at the isolation bound.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn find_offset(
        &self,
        offset: Offset,
        isolation: Isolation,
    ) -> impl Future<Output = Result<Option<BatchFound>, ReadError>> + Send + use<> {
        let log = self.log;
        let reply = self
            .remote
            .call(move |cx| async move { find::find_offset(&cx, log, offset, isolation).await });
        async move { reply.await.unwrap_or(Err(ReadError::Closed)) }
    }

    /// [`LogHandle::find_offset`], blocking.
    ///
    /// # Errors
    /// As there.
    pub fn find_offset_blocking(
        &self,
        offset: Offset,
        isolation: Isolation,
    ) -> Result<Option<BatchFound>, ReadError> {
        block_on(self.find_offset(offset, isolation))
    }

    /// The first record, by offset, whose timestamp is `timestamp_ms` or later, exact down to the record, whatever the
    /// order of timestamps; `None` if there is none before the isolation bound. Kafka's `offsetsForTimes`.
    ///
    /// The one batch that may hold it is decompressed by whoever polls the future, not by the shard.
    ///
    /// # Errors
    /// [`ReadError`]; [`ReadError::Records`] if the records of a batch do not decode.
    pub fn find_time(
        &self,
        timestamp_ms: i64,
        isolation: Isolation,
    ) -> impl Future<Output = Result<Option<TimeFound>, ReadError>> + Send + use<> {
        let (remote, log) = (self.remote.clone(), self.log);
        let ask = move |from| {
            remote.call(move |cx| async move {
                find::find_time(&cx, log, (from, timestamp_ms), isolation).await
            })
        };
        let mut reply = ask(Offset::ZERO);
        async move {
            loop {
                let found = reply.await.unwrap_or(Err(ReadError::Closed))?;
                let Some((from, bytes)) = found else { return Ok(None) };
                match within(&bytes, from, timestamp_ms)? {
                    Ok(found) => return Ok(Some(found)),
                    // Its header claims a later timestamp than any of its records has.
                    Err(next) => reply = ask(next),
                }
            }
        }
    }

    /// [`LogHandle::find_time`], blocking.
    ///
    /// # Errors
    /// As there.
    pub fn find_time_blocking(
        &self,
        timestamp_ms: i64,
        isolation: Isolation,
    ) -> Result<Option<TimeFound>, ReadError> {
        block_on(self.find_time(timestamp_ms, isolation))
    }
}

/// The first record of the batch, from `from` on, that is not older than `timestamp`, or the offset behind the batch.
pub(crate) fn within(
    bytes: &[u8],
    from: Offset,
    timestamp: i64,
) -> Result<Result<TimeFound, Offset>, ReadError> {
    let view = BatchView::new(bytes).expect("the shard has validated it");
    let base = view.base_offset();
    let damaged = ReadError::Records { batch: base };
    for record in view.records().map_err(|_| damaged.clone())? {
        let record = record.map_err(|_| damaged.clone())?;
        if record.offset >= from && record.timestamp >= timestamp {
            return Ok(Ok(TimeFound {
                offset: record.offset,
                timestamp: record.timestamp,
                leader_epoch: view.header().leader_epoch,
            }));
        }
    }
    Ok(Err(view.last_offset().plus(1)))
}
