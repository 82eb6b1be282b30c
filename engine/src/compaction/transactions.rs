//! What batches and markers say about transactions: which are over, and how.

use std::collections::{HashMap, HashSet};

use crate::batch::BatchView;
use crate::limits::COMPACTION_TRANSACTIONS_MAX;
use crate::types::Offset;

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    Abort,
    Commit,
}

/// A marker's type: its key is `version i16, type i16`. `None` for what is no transaction's.
pub(super) fn marker(batch: &BatchView<'_>) -> Option<Marker> {
    if !batch.header().attributes.is_control() || batch.header().producer_id < 0 {
        return None;
    }
    let record = batch.records().ok()?.next()?.ok()?;
    match record.key?.get(2..4)? {
        [0, 0] => Some(Marker::Abort),
        [0, 1] => Some(Marker::Commit),
        _ => None,
    }
}

/// A look ahead over what a compaction may reach: transactions that were aborted, and the first that is not over.
#[derive(Debug, Default)]
pub(crate) struct Upcoming {
    open: HashMap<i64, Offset>,
    aborted: HashMap<i64, Vec<(Offset, Offset)>>,
    ranges: usize,
    /// What comes from here on is not known.
    limit: Option<Offset>,
}

impl Upcoming {
    /// Takes note of the next batch. `false` if there is no room for more: what comes can not be compacted now.
    #[must_use]
    pub(crate) fn see(&mut self, batch: &BatchView<'_>) -> bool {
        let header = batch.header();
        let producer = header.producer_id;
        if producer < 0 {
            return true;
        }
        if header.attributes.is_control() {
            let began = match marker(batch) {
                None => return true,
                Some(Marker::Commit) => {
                    self.open.remove(&producer);
                    return true;
                }
                Some(Marker::Abort) => self.open.remove(&producer),
            };
            if let Some(began) = began {
                self.ranges += 1;
                let ranges = self.aborted.entry(producer).or_default();
                ranges.push((began, batch.last_offset()));
            }
        } else if header.attributes.is_transactional() {
            self.open.entry(producer).or_insert(batch.base_offset());
        }
        let room = self.open.len() + self.ranges < COMPACTION_TRANSACTIONS_MAX;
        if !room {
            self.limit.get_or_insert(batch.base_offset());
        }
        room
    }

    /// Where the first transaction began that is not over, or what is known ends; `None` if all are, and all is.
    pub(crate) fn bound(&self) -> Option<Offset> {
        self.open.values().chain(&self.limit).min().copied()
    }

    /// Whether the batch is data of a transaction that was aborted.
    pub(crate) fn is_aborted(&self, batch: &BatchView<'_>) -> bool {
        let header = batch.header();
        if !header.attributes.is_transactional() || header.attributes.is_control() {
            return false;
        }
        let ranges = self.aborted.get(&header.producer_id).map_or(&[][..], Vec::as_slice);
        let at = ranges.partition_point(|(_, last)| *last < batch.base_offset());
        ranges.get(at).is_some_and(|(began, _)| *began <= batch.base_offset())
    }
}

/// What a pass has met of transactions, so that a marker stays as long as anything of its own is before it.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    met: HashSet<i64>,
    /// More producers than there is room for: every marker stays.
    crowded: bool,
}

impl Transactions {
    /// Takes note of data of a transaction.
    pub(super) fn meet(&mut self, producer: i64) {
        if self.met.len() < COMPACTION_TRANSACTIONS_MAX {
            self.met.insert(producer);
        } else {
            self.crowded |= !self.met.contains(&producer);
        }
    }

    /// A marker ends the producer's transaction. Whether nothing of it was met.
    pub(super) fn end(&mut self, producer: i64) -> bool {
        !self.met.remove(&producer) && !self.crowded
    }
}
