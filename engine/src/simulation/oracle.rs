//! What clients were told, and what a log may therefore hold after a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::batch::batches;
use crate::types::{PartitionName, Watermarks};

/// How an append ended, as far as its client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Pending,
    Acked,
    Unknown,
}

/// An append that may be in the log.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) id: u64,
    pub(super) records: i64,
    pub(super) bytes: Rc<[u8]>,
    pub(super) fate: Fate,
}

/// What is known of one partition.
#[derive(Clone, Debug, Default)]
pub(super) struct Track {
    /// Appends in the order in which they were sent, without those that were refused or cut off.
    pub(super) sent: Vec<Sent>,
    /// Batches that must never be found: refused, truncated, or lost by a crash that is over.
    pub(super) gone: BTreeSet<u64>,
    /// Everything before this offset survives a power cut.
    pub(super) durable: i64,
    /// Everything before this offset was acknowledged, by whatever policy.
    pub(super) acked: i64,
    /// A truncation to here was begun and not acknowledged.
    pub(super) cutting: Option<i64>,
    /// Whether all of it may be lost: its directory's making was not acknowledged.
    pub(super) made: bool,
}

/// What ended a run, which says how much must be left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The process died, or closed: whatever was acknowledged is left.
    Process,
    /// The power went: what was durable is left.
    Power,
}

/// What is known of all partitions.
#[derive(Clone, Debug, Default)]
pub(super) struct Oracle {
    pub(super) partitions: BTreeMap<PartitionName, Track>,
    next_id: u64,
}

impl Oracle {
    pub(super) fn track(&mut self, name: &PartitionName) -> &mut Track {
        self.partitions.entry(name.clone()).or_default()
    }

    /// A number for the next batch.
    pub(super) fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

impl Track {
    pub(super) fn acked(&mut self, id: u64, base: i64, durable: bool) {
        let at = self.sent.iter().position(|sent| sent.id == id).expect("sent before");
        let before: i64 = self.sent[..at].iter().map(|sent| sent.records).sum();
        assert_eq!(base, before, "batch {id} is acknowledged at the place it was sent for");
        let orderly = self.sent[..at].iter().all(|sent| sent.fate == Fate::Acked);
        assert!(orderly, "batch {id} is acknowledged before one that was sent earlier");
        self.sent[at].fate = Fate::Acked;
        let end = base + self.sent[at].records;
        self.acked = self.acked.max(end);
        if durable {
            self.durable = self.durable.max(end);
        }
    }

    pub(super) fn refused(&mut self, id: u64) {
        self.sent.retain(|sent| sent.id != id);
        self.gone.insert(id);
    }

    pub(super) fn unknown(&mut self, id: u64) {
        if let Some(sent) = self.sent.iter_mut().find(|sent| sent.id == id) {
            sent.fate = Fate::Unknown;
        }
    }

    /// A truncation was acknowledged.
    pub(super) fn cut(&mut self, to: i64) {
        let mut end = 0;
        let mut kept = Vec::new();
        for sent in std::mem::take(&mut self.sent) {
            end += sent.records;
            if end <= to || sent.fate == Fate::Pending {
                kept.push(sent);
            } else {
                self.gone.insert(sent.id);
            }
        }
        self.sent = kept;
        self.durable = self.durable.min(to);
        self.acked = self.acked.min(to);
        self.cutting = None;
    }

    /// It was deleted for good.
    pub(super) fn deleted(&mut self) {
        self.gone.extend(self.sent.drain(..).map(|sent| sent.id));
        (self.durable, self.acked, self.cutting, self.made) = (0, 0, None, false);
    }

    /// What the log says of itself while it runs.
    pub(super) fn observe(&mut self, marks: Watermarks) {
        assert!(marks.log_start <= marks.durable && marks.durable <= marks.dirty, "{marks:?}");
        if self.cutting.is_none() {
            self.durable = self.durable.max(marks.durable.get());
        }
    }

    /// Checks what was read back after `end`, and takes it for the truth from here on.
    pub(super) fn verify(&mut self, name: &PartitionName, read: &[u8], end: End) {
        let mut next = 0;
        let mut count = 0;
        for batch in batches(read) {
            let batch = batch.expect("what is read back is whole");
            let bytes = batch.as_bytes();
            let id = id_of(bytes);
            assert!(!self.gone.contains(&id), "{name}: batch {id} came back from nowhere");
            let sent = self.sent.get(count).unwrap_or_else(|| panic!("{name}: {id} unheard of"));
            assert_eq!(sent.id, id, "{name}: batch at place {count} is another one");
            assert_eq!(batch.base_offset().get(), next, "{name}: batch {id} is out of sequence");
            assert!(same(&sent.bytes, bytes), "{name}: batch {id} has other bytes");
            next += sent.records;
            count += 1;
        }
        let mut least = if end == End::Power { self.durable } else { self.acked };
        if let Some(to) = self.cutting {
            least = least.min(to);
        }
        assert!(next >= least, "{name}: acknowledged up to {least}, found up to {next}");
        for lost in self.sent.drain(count..) {
            self.gone.insert(lost.id);
        }
        for sent in &mut self.sent {
            sent.fate = Fate::Acked;
        }
        (self.durable, self.acked, self.cutting) = (next, next, None);
    }
}

/// The same but for what the engine assigns: base offset and leader epoch.
fn same(sent: &[u8], found: &[u8]) -> bool {
    sent.len() == found.len() && sent[8..12] == found[8..12] && sent[16..] == found[16..]
}

/// The number that [`super::workload::batch`] put into the base timestamp.
pub(super) fn id_of(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes[27..35].try_into().expect("eight bytes"))
}
