//! Retention and compaction, as an embedder asks for them.

use std::future::Future;

use crate::compaction::cleanable;
use crate::error::ControlError;
use crate::shard::{compact, keep};
use crate::stats::Keeping;
use crate::types::{Compacted, Offset, Pos, Retention, SegmentInfo};

use super::{LogHandle, block_on};

impl LogHandle {
    /// Deletes all records before `before`, which is at most the `durable` watermark; it may lie inside a batch, which
    /// then stays as a whole and is read from its beginning. Acknowledged when no crash can bring the records back.
    /// Space comes back in the background, by whole segments. Returns where the log begins now: further on, if it did
    /// already.
    ///
    /// # Errors
    /// [`ControlError::OutOfRange`], [`ControlError::Busy`], or a fault.
    pub fn delete_records(
        &self,
        before: Offset,
    ) -> impl Future<Output = Result<Offset, ControlError>> + Send + use<> {
        self.control(move |cx, id| async move { keep::delete_records(&cx, id, before).await })
    }

    /// [`LogHandle::delete_records`], blocking.
    ///
    /// # Errors
    /// As there.
    pub fn delete_records_blocking(&self, before: Offset) -> Result<Offset, ControlError> {
        block_on(self.delete_records(before))
    }

    /// Says what is kept of this partition from now on, across openings; `None`: what [`Config::retention`] says. Old
    /// segments go soon after, in the background, and whenever a segment is sealed or 30 seconds have passed.
    ///
    /// [`Config::retention`]: crate::Config::retention
    ///
    /// # Errors
    /// [`ControlError::Setting`], or a fault; what was in force then stays so until the next opening.
    pub fn set_retention(
        &self,
        retention: Option<Retention>,
    ) -> impl Future<Output = Result<(), ControlError>> + Send + use<> {
        self.control(move |cx, id| async move { keep::set_retention(&cx, id, retention).await })
    }

    /// [`LogHandle::set_retention`], blocking.
    ///
    /// # Errors
    /// As there.
    pub fn set_retention_blocking(&self, retention: Option<Retention>) -> Result<(), ControlError> {
        block_on(self.set_retention(retention))
    }

    /// Compacts the sealed segments now, whatever their dirty part, as far as the keys fit into the memory that a
    /// compaction has (more than a million): [`Compacted::end`] says how far. `None` if there is no segment that may be
    /// compacted. Waits while another log of the shard is compacted; appends and reads go on.
    ///
    /// # Errors
    /// [`ControlError::NoCompaction`] unless the retention has it, [`ControlError::Damaged`],
    /// [`ControlError::Busy`] if a truncation or retention took a segment away meanwhile, or a fault. After any of them
    /// the log is as it was, or compacted in part.
    pub fn compact(
        &self,
    ) -> impl Future<Output = Result<Option<Compacted>, ControlError>> + Send + use<> {
        self.control(|cx, id| async move { compact::compact(&cx, id, compact::Demand::Now).await })
    }

    /// [`LogHandle::compact`], blocking.
    ///
    /// # Errors
    /// As there.
    pub fn compact_blocking(&self) -> Result<Option<Compacted>, ControlError> {
        block_on(self.compact())
    }

    /// What is kept of the partition, and how that goes.
    ///
    /// # Errors
    /// [`ControlError::Closed`], or a fault if a segment's seal can not be read.
    pub fn keeping(&self) -> impl Future<Output = Result<Keeping, ControlError>> + Send + use<> {
        self.control(|cx, id| async move {
            let parts = keep::parts(&cx, id).await?;
            let mut state = cx.state.borrow_mut();
            let now_ms = state.time.wall_ms;
            let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
            let keep = &log.keep;
            let dirty = keep.retention.compact.map(|compaction| {
                cleanable(&parts, keep.cleaned, &compaction, now_ms).dirty_percent()
            });
            Ok(Keeping {
                retention: keep.retention,
                own: keep.own,
                compacted_to: keep.cleaned,
                dirty_percent: dirty,
                segments_deleted: keep.segments_deleted,
                bytes_freed: keep.bytes_freed,
                compactions: keep.compactions,
                fault: keep.fault,
            })
        })
    }

    /// [`LogHandle::keeping`], blocking.
    ///
    /// # Errors
    /// As there.
    pub fn keeping_blocking(&self) -> Result<Keeping, ControlError> {
        block_on(self.keeping())
    }

    /// The segments of the log, oldest first.
    ///
    /// # Errors
    /// [`ControlError::Closed`].
    pub fn segments(
        &self,
    ) -> impl Future<Output = Result<Vec<SegmentInfo>, ControlError>> + Send + use<> {
        self.control(|cx, id| async move {
            let mut state = cx.state.borrow_mut();
            let Some(log) = state.log(id) else { return Err(ControlError::Closed) };
            let sealed = log.sealed.iter().map(|sealed| SegmentInfo {
                base_offset: sealed.base,
                bytes: sealed.end.map(Pos::get),
                newest_ms: sealed.newest_ms,
                sealed: true,
            });
            let tail = log.tail.iter().map(|segment| SegmentInfo {
                base_offset: segment.base(),
                bytes: Some(segment.end().get()),
                newest_ms: (segment.end() > Pos::ZERO).then_some(segment.newest_ms),
                sealed: false,
            });
            Ok(sealed.chain(tail).collect())
        })
    }

    /// [`LogHandle::segments`], blocking.
    ///
    /// # Errors
    /// As there.
    pub fn segments_blocking(&self) -> Result<Vec<SegmentInfo>, ControlError> {
        block_on(self.segments())
    }
}
