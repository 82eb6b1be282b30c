//! One pass over a log: which records of a batch stay.

use std::collections::HashMap;

use crate::batch::{BatchError, BatchView, Limits};
use crate::format::record::RawRecord;
use crate::limits::{COMPACTION_TRANSACTIONS_MAX, PRODUCER_KEPT_MS};
use crate::types::Offset;

use super::map::OffsetMap;
use super::rewrite::{self, Kept};
use super::transactions::{Transactions, Upcoming, marker};

/// What a pass is told beside the keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// Batches that end before this are gone already.
    pub(crate) log_start: Offset,
    /// The time, in milliseconds since the epoch.
    pub(crate) now_ms: i64,
    /// How long tombstones stay, in milliseconds.
    pub(crate) delete_retention_ms: u64,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rewritten {
    /// It stays as it is.
    Same,
    /// Something of it stays.
    Changed,
    /// Nothing of it stays.
    Gone,
}

/// Builds the map from dirty segments, then rewrites.
#[derive(Debug)]
pub(crate) struct Pass {
    terms: Terms,
    pub(crate) map: OffsetMap,
    pub(crate) upcoming: Upcoming,
    met: Transactions,
    /// The last batch of each producer among what the map has seen.
    producers: HashMap<i64, Offset>,
    /// Records dropped so far.
    pub(crate) dropped: u64,
    /// Records dropped because they have no key.
    pub(crate) keyless: u64,
    /// Batches left alone because their records can not be decoded.
    pub(crate) unreadable: u64,
}

impl Pass {
    /// A pass with an empty map of `map_bytes`, that begins to look at `first_dirty`.
    pub(crate) fn new(terms: Terms, map_bytes: usize, first_dirty: Offset) -> Self {
        Self {
            terms,
            map: OffsetMap::new(map_bytes, first_dirty),
            upcoming: Upcoming::default(),
            met: Transactions::default(),
            producers: HashMap::new(),
            dropped: 0,
            keyless: 0,
            unreadable: 0,
        }
    }

    /// Takes the keys of the next dirty batch into the map. `false` once it is full: the map then ends within the
    /// batch.
    ///
    /// Everything about its transaction must be known by now: [`Pass::upcoming`] has looked ahead.
    #[must_use]
    pub(crate) fn note(&mut self, batch: &BatchView<'_>) -> bool {
        let header = batch.header();
        let room = self.producers.len() < COMPACTION_TRANSACTIONS_MAX
            || self.producers.contains_key(&header.producer_id);
        if header.producer_id >= 0 && room {
            self.producers.insert(header.producer_id, batch.base_offset());
        }
        let ignored = header.attributes.is_control() || self.upcoming.is_aborted(batch);
        // What can not be decoded shadows nothing.
        if !ignored && let Ok(records) = keys(batch) {
            for (key, offset) in records {
                if offset >= self.map.end() {
                    if key.is_some_and(|key| !self.map.put(key, offset)) {
                        return false;
                    }
                    self.map.reach(offset.plus(1));
                }
            }
        }
        self.map.reach(batch.last_offset().plus(1));
        true
    }

    /// Appends what stays of the batch to `out`. Batches come in order, from the log's first one on.
    ///
    /// # Errors
    /// If what stays can not be encoded; nothing is appended then.
    pub(crate) fn rewrite(
        &mut self,
        batch: &BatchView<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Rewritten, BatchError> {
        if batch.last_offset() < self.terms.log_start {
            return Ok(Rewritten::Gone);
        }
        let header = *batch.header();
        let (mut goes, mut empty_marker) = (false, false);
        if header.attributes.is_control() {
            // Of what is no transaction's marker nothing is known: it stays.
            if marker(batch).is_some() && self.met.end(header.producer_id) {
                goes = self.past_horizon(batch);
                empty_marker = true;
            }
        } else if header.attributes.is_transactional() {
            self.met.meet(header.producer_id);
            goes = self.upcoming.is_aborted(batch);
        }
        let count = header.record_count as u32;
        let Ok(records) = batch.decompressed(&Limits::default()) else {
            return Ok(self.leave(batch, out));
        };
        let mut kept = Kept { records: Vec::new(), latest_delta: i64::MIN, horizon: None };
        let (mut tombstones, mut keyless) = (false, 0);
        let past_horizon = self.past_horizon(batch);
        let walked = rewrite::each(records, batch, |record, offset, bytes| {
            let control = header.attributes.is_control();
            let stays = !goes && (control || self.stays(record, offset, past_horizon));
            if stays {
                kept.records.push(bytes);
                kept.latest_delta = kept.latest_delta.max(record.timestamp_delta);
                tombstones |= record.value.is_none() && !control;
            } else {
                keyless += u64::from(!goes && record.key.is_none());
            }
        });
        if walked.is_err() {
            return Ok(self.leave(batch, out));
        }
        let all = kept.records.len() == count as usize;
        if (tombstones || empty_marker && !goes) && !header.attributes.has_delete_horizon() {
            let stay = i64::try_from(self.terms.delete_retention_ms).unwrap_or(i64::MAX);
            kept.horizon = Some(self.terms.now_ms.saturating_add(stay));
        }
        self.dropped += u64::from(count) - kept.records.len() as u64;
        self.keyless += keyless;
        if all && count > 0 && kept.horizon.is_none() {
            out.extend_from_slice(batch.as_bytes());
            return Ok(Rewritten::Same);
        }
        if !kept.records.is_empty() {
            rewrite::encode(batch, &kept, out)?;
        } else if self.is_last_of_producer(batch) {
            rewrite::encode_empty(batch, out);
        } else {
            return Ok(Rewritten::Gone);
        }
        Ok(Rewritten::Changed)
    }

    /// A batch whose records can not be decoded stays: nobody can read it, and nobody can say what is in it.
    fn leave(&mut self, batch: &BatchView<'_>, out: &mut Vec<u8>) -> Rewritten {
        self.unreadable += 1;
        out.extend_from_slice(batch.as_bytes());
        Rewritten::Same
    }

    fn stays(&self, record: &RawRecord<'_>, offset: Offset, past_horizon: bool) -> bool {
        if offset >= self.map.end() {
            return true;
        }
        let Some(key) = record.key else { return false };
        let newest = self.map.newest(key).is_none_or(|newest| offset >= newest);
        newest && (record.value.is_some() || !past_horizon)
    }

    fn past_horizon(&self, batch: &BatchView<'_>) -> bool {
        let header = batch.header();
        header.attributes.has_delete_horizon() && header.base_timestamp <= self.terms.now_ms
    }

    /// Whether the batch may hold the last sequence number of a producer that is still about.
    fn is_last_of_producer(&self, batch: &BatchView<'_>) -> bool {
        let header = batch.header();
        let recent = header.max_timestamp.saturating_add(PRODUCER_KEPT_MS) > self.terms.now_ms;
        let later = self.producers.get(&header.producer_id);
        let last = later.is_none_or(|last| *last <= batch.base_offset());
        header.producer_id >= 0 && recent && last
    }
}

/// Keys and offsets of a batch's records, in order.
fn keys<'a>(batch: &'a BatchView<'_>) -> Result<Vec<(Option<&'a [u8]>, Offset)>, BatchError> {
    batch.records()?.map(|record| record.map(|record| (record.key, record.offset))).collect()
}
