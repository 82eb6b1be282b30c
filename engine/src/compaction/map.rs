//! The newest offset of each key, in memory of a fixed size: a key is known by 16 bytes of hash.

use std::hash::{BuildHasher, RandomState};

use crate::types::Offset;

/// One key. An offset of -1 marks a free slot.
#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: [u64; 2],
    offset: i64,
}

const FREE: Slot = Slot { hash: [0; 2], offset: -1 };

/// Of a hundred slots so many are used: with more, probes grow long.
const USED_PERCENT: usize = 80;

/// The map. Two keys of one hash would count as one, and the older one's record be lost: with 128 bits of SipHash under
/// keys drawn for each map that happens to nobody, and can not be brought about.
#[derive(Debug)]
pub(crate) struct OffsetMap {
    slots: Vec<Slot>,
    used: usize,
    /// One past the last offset that was looked at.
    end: Offset,
    hashers: [RandomState; 2],
}

impl OffsetMap {
    /// A map in `bytes` of memory, that has seen everything before `end`, which is nothing.
    pub(crate) fn new(bytes: usize, end: Offset) -> Self {
        let slots = vec![FREE; (bytes / size_of::<Slot>()).max(2)];
        Self { slots, used: 0, end, hashers: [RandomState::new(), RandomState::new()] }
    }

    /// Takes note of a record. `false` if the map is full: then nothing has changed.
    #[must_use]
    pub(crate) fn put(&mut self, key: &[u8], offset: Offset) -> bool {
        let hash = self.hash(key);
        let at = self.find(hash);
        if self.slots[at].offset < 0 {
            if self.used >= (self.slots.len() * USED_PERCENT / 100).max(1) {
                return false;
            }
            self.used += 1;
        }
        assert!(offset.get() > self.slots[at].offset, "records come in order of offset");
        self.slots[at] = Slot { hash, offset: offset.get() };
        true
    }

    /// Everything before `end` was looked at.
    pub(crate) fn reach(&mut self, end: Offset) {
        self.end = self.end.max(end);
    }

    /// One past the last offset that was looked at.
    pub(crate) fn end(&self) -> Offset {
        self.end
    }

    /// The newest offset of the key, if it was seen.
    pub(crate) fn newest(&self, key: &[u8]) -> Option<Offset> {
        let slot = self.slots[self.find(self.hash(key))];
        (slot.offset >= 0).then(|| Offset::new(slot.offset))
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        [self.hashers[0].hash_one(key), self.hashers[1].hash_one(key)]
    }

    /// The slot of the hash, or the free one where it would go: there always is one.
    fn find(&self, hash: [u64; 2]) -> usize {
        let mut at = (hash[0] % self.slots.len() as u64) as usize;
        while self.slots[at].offset >= 0 && self.slots[at].hash != hash {
            at = (at + 1) % self.slots.len();
        }
        at
    }
}
