//! Compaction by key, as Kafka's log cleaner defines it, without I/O: which segments, which records, and what is left
//! of a batch. The shard's procedure (`shard/compact.rs`) reads and writes.
//!
//! A compaction reads the *dirty* segments, those that none has seen, into a map of the newest offset of each key; then
//! it rewrites all segments from the log's start to where the map ends, each batch by [`Pass::rewrite`].
//!
//! # Invariants
//! - A record with the highest offset of its key is never dropped, unless it is a tombstone past its horizon.
//! - A record past what the map has seen is never dropped, unless it is of an aborted transaction.
//! - A record of an aborted transaction shadows nothing.
//! - No offset, timestamp, key, value or header of a record that stays changes.
//! - What it holds is bounded: the map by its size, transactions by
//!   [`COMPACTION_TRANSACTIONS_MAX`](crate::limits::COMPACTION_TRANSACTIONS_MAX).

mod map;
mod pass;
mod plan;
mod rewrite;
mod transactions;

pub(crate) use pass::{Pass, Rewritten, Terms};
pub(crate) use plan::{Cleanable, Part, cleanable, groups, is_due};

#[cfg(test)]
mod tests;
