//! The bytes of one simulated file: what a process sees, what a power cut leaves, and every write between
//! the two.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use super::faults::CrashPlan;

/// What a device writes untorn.
pub(super) const SECTOR_BYTES: u64 = 512;
/// What the page cache and the engine's house rule count in.
pub(super) const BLOCK_BYTES: u64 = 4096;

type Block = [u8; BLOCK_BYTES as usize];

thread_local! {
    /// All blocks of zeros share one: prepared segments cost next to nothing.
    static ZEROS: Rc<Block> = Rc::new([0; BLOCK_BYTES as usize]);
}

fn zeros() -> Rc<Block> {
    ZEROS.with(Rc::clone)
}

/// Copies the sectors of `mask` from one block to another.
fn copy_sectors(to: &mut Rc<Block>, from: &Rc<Block>, mask: u8) {
    if mask == u8::MAX {
        *to = Rc::clone(from);
        return;
    }
    let to = Rc::make_mut(to);
    for sector in (0..8).filter(|sector| mask & (1 << sector) != 0) {
        let bytes = sector * SECTOR_BYTES as usize..(sector + 1) * SECTOR_BYTES as usize;
        to[bytes.clone()].copy_from_slice(&from[bytes]);
    }
}

/// A file's content at one moment. A block that is absent is a hole or was never written.
#[derive(Clone, Default)]
struct Image {
    blocks: BTreeMap<u64, Rc<Block>>,
    len: u64,
}

impl Image {
    /// Sets the length; what lies behind a smaller one is gone for good.
    fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.blocks.split_off(&len.div_ceil(BLOCK_BYTES));
            let tail = (len % BLOCK_BYTES) as usize;
            if let Some(block) = self.blocks.get_mut(&(len / BLOCK_BYTES))
                && tail > 0
            {
                Rc::make_mut(block)[tail..].fill(0);
            }
        }
        self.len = len;
    }

    fn set_sectors(&mut self, block: u64, from: &Rc<Block>, mask: u8) {
        copy_sectors(self.blocks.entry(block).or_insert_with(zeros), from, mask);
    }

    fn read(&self, pos: u64, len: u64, mut take: impl FnMut(&[u8])) -> u64 {
        let end = (pos + len).min(self.len).max(pos);
        let mut at = pos;
        while at < end {
            let start = at % BLOCK_BYTES;
            let count = (BLOCK_BYTES - start).min(end - at);
            let range = start as usize..(start + count) as usize;
            match self.blocks.get(&(at / BLOCK_BYTES)) {
                Some(block) => take(&block[range]),
                None => ZEROS.with(|zeros| take(&zeros[range])),
            }
            at += count;
        }
        end - pos
    }

    fn flip(&mut self, pos: u64, len: u64) {
        for at in pos..(pos + len).min(self.len) {
            let block = self.blocks.entry(at / BLOCK_BYTES).or_insert_with(zeros);
            let byte = &mut Rc::make_mut(block)[(at % BLOCK_BYTES) as usize];
            *byte = !*byte;
        }
    }
}

/// What one write left in one block, while it is not durable.
#[derive(Clone)]
struct Version {
    seq: u64,
    /// The sectors this write touched and no durable write has since replaced.
    mask: u8,
    /// First sector of the whole write, and how many.
    first: u64,
    sectors: u64,
    /// A flush of the device, asked for by anyone, makes it durable.
    flushable: bool,
    /// A failed sync gave it up: no later sync makes it durable.
    given_up: bool,
    /// The block as the write left it.
    data: Rc<Block>,
}

#[derive(Clone)]
struct Length {
    seq: u64,
    len: u64,
    shrinks: bool,
}

/// A write that has finished.
pub(super) struct Landed<'a> {
    pub(super) seq: u64,
    pub(super) pos: u64,
    pub(super) data: &'a [u8],
    pub(super) direct: bool,
}

/// One file.
#[derive(Clone, Default)]
pub(super) struct File {
    live: Image,
    durable: Image,
    /// By block, oldest first.
    pending: BTreeMap<u64, Vec<Version>>,
    /// Blocks with a version that a device flush makes durable.
    flushable: BTreeSet<u64>,
    lengths: VecDeque<Length>,
    /// How many of `lengths` shrink the file.
    shrinks: usize,
}

impl File {
    pub(super) fn len(&self) -> u64 {
        self.live.len
    }

    /// One past the last block that has content, in bytes.
    pub(super) fn written_end(&self) -> u64 {
        self.live.blocks.last_key_value().map_or(0, |(block, _)| (block + 1) * BLOCK_BYTES)
    }

    pub(super) fn is_clean(&self) -> bool {
        self.pending.is_empty() && self.lengths.is_empty()
    }

    pub(super) fn has_flushable(&self) -> bool {
        !self.flushable.is_empty()
    }

    /// Calls `take` with the bytes that a process sees; returns how many there were.
    pub(super) fn read(&self, pos: u64, len: u64, take: impl FnMut(&[u8])) -> u64 {
        self.live.read(pos, len, take)
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.live.read(0, self.live.len, |part| bytes.extend_from_slice(part));
        bytes
    }

    pub(super) fn durable_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.durable.read(0, self.durable.len, |part| bytes.extend_from_slice(part));
        bytes
    }

    /// Makes `bytes` the file's whole content, durably.
    pub(super) fn set_bytes(&mut self, bytes: &[u8]) {
        *self = Self::default();
        self.write(&Landed { seq: 0, pos: 0, data: bytes, direct: false });
        self.flush(0);
    }

    /// Inverts bytes where they are: on the medium and for every reader.
    pub(super) fn corrupt(&mut self, pos: u64, len: u64) {
        self.live.flip(pos, len);
        self.durable.flip(pos, len);
    }

    /// A write lands: seen by all, durable for none.
    pub(super) fn write(&mut self, write: &Landed<'_>) {
        let end = write.pos + write.data.len() as u64;
        let first = write.pos / SECTOR_BYTES;
        let sectors = end.div_ceil(SECTOR_BYTES) - first;
        let mut at = write.pos;
        while at < end {
            let (block, start) = (at / BLOCK_BYTES, at % BLOCK_BYTES);
            let count = (BLOCK_BYTES - start).min(end - at);
            let from = (at - write.pos) as usize;
            let data = self.put(block, start, &write.data[from..from + count as usize]);
            let mask = (start / SECTOR_BYTES..(start + count).div_ceil(SECTOR_BYTES))
                .fold(0, |mask, sector| mask | 1 << sector);
            let flushable = write.direct && self.is_overwrite(block);
            if flushable {
                self.flushable.insert(block);
            }
            let seq = write.seq;
            let version = Version { seq, mask, first, sectors, flushable, given_up: false, data };
            self.pending.entry(block).or_default().push(version);
            at += count;
        }
        if end > self.live.len {
            self.live.len = end;
            self.lengths.push_back(Length { seq: write.seq, len: end, shrinks: false });
        }
    }

    /// Puts bytes into a block of the live image; returns the whole block.
    fn put(&mut self, block: u64, start: u64, bytes: &[u8]) -> Rc<Block> {
        let whole = bytes.len() as u64 == BLOCK_BYTES;
        let entry = self.live.blocks.entry(block).or_insert_with(zeros);
        if whole && bytes.iter().all(|byte| *byte == 0) {
            *entry = zeros();
        } else if whole {
            let mut fresh = [0; BLOCK_BYTES as usize];
            fresh.copy_from_slice(bytes);
            *entry = Rc::new(fresh);
        } else {
            let start = start as usize;
            Rc::make_mut(entry)[start..start + bytes.len()].copy_from_slice(bytes);
        }
        Rc::clone(entry)
    }

    /// Whether the block's place on the medium is known to the durable metadata.
    fn is_overwrite(&self, block: u64) -> bool {
        self.shrinks == 0
            && block * BLOCK_BYTES < self.durable.len
            && self.durable.blocks.contains_key(&block)
    }

    /// The write numbered `seq`, which has just landed at `pos..end`, is durable, and so is the metadata
    /// that reading it back needs.
    pub(super) fn make_durable(&mut self, seq: u64, pos: u64, end: u64) {
        if self.shrinks > 0 {
            // The length can only become durable with the cut before it, and the file system orders data
            // before that cut.
            self.flush(seq);
            return;
        }
        if end > self.durable.len {
            self.flush_lengths(seq);
        }
        for block in pos / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES) {
            self.settle(block, |version| version.seq == seq);
        }
    }

    pub(super) fn set_len(&mut self, seq: u64, len: u64) {
        if len == self.live.len {
            return;
        }
        let shrinks = len < self.live.len;
        self.live.set_len(len);
        self.lengths.push_back(Length { seq, len, shrinks });
        self.shrinks += usize::from(shrinks);
    }

    /// All that landed up to `seq` is durable, except what a failed sync gave up.
    pub(super) fn flush(&mut self, seq: u64) {
        self.flush_lengths(seq);
        self.settle_all(|version| version.seq <= seq && !version.given_up);
    }

    fn flush_lengths(&mut self, seq: u64) {
        while self.lengths.front().is_some_and(|length| length.seq <= seq) {
            let Some(length) = self.lengths.pop_front() else { return };
            if length.shrinks {
                self.shrinks -= 1;
                self.settle_all(|version| version.seq < length.seq && !version.given_up);
                self.forget_behind(length.len, length.seq);
            }
            self.durable.set_len(length.len);
        }
    }

    /// Writes older than a durable cut cannot come back behind it.
    fn forget_behind(&mut self, len: u64, seq: u64) {
        for (block, versions) in self.pending.range_mut(len / BLOCK_BYTES..) {
            let kept_sectors = (len / SECTOR_BYTES).saturating_sub(block * 8).min(8);
            let kept = ((1_u16 << kept_sectors) - 1) as u8;
            for version in versions.iter_mut().filter(|version| version.seq < seq) {
                version.mask &= kept;
            }
            versions.retain(|version| version.mask != 0);
        }
        self.pending.retain(|_, versions| !versions.is_empty());
    }

    /// The device's cache is flushed of what landed up to `seq`.
    pub(super) fn flush_device(&mut self, seq: u64) {
        if self.shrinks > 0 {
            return;
        }
        for block in std::mem::take(&mut self.flushable) {
            self.settle(block, |version| {
                version.seq <= seq && version.flushable && !version.given_up
            });
            let left = self.pending.get(&block).is_some_and(|versions| {
                versions.iter().any(|version| version.flushable && !version.given_up)
            });
            if left {
                self.flushable.insert(block);
            }
        }
    }

    /// A sync of what landed up to `seq` has failed: the pages count as clean and are never written again.
    pub(super) fn give_up(&mut self, seq: u64) {
        for version in self.pending.values_mut().flatten() {
            version.given_up |= version.seq <= seq;
        }
    }

    fn settle_all(&mut self, durable: impl Fn(&Version) -> bool + Copy) {
        let blocks: Vec<u64> = self.pending.keys().copied().collect();
        for block in blocks {
            self.settle(block, durable);
        }
    }

    /// Moves the versions that `durable` picks from pending to the durable image.
    fn settle(&mut self, block: u64, durable: impl Fn(&Version) -> bool) {
        let Some(versions) = self.pending.get_mut(&block) else { return };
        // Newest first: a durable write replaces its sectors in every older one.
        let mut replaced = 0;
        for version in versions.iter_mut().rev() {
            version.mask &= !replaced;
            if version.mask != 0 && durable(version) {
                self.durable.set_sectors(block, &version.data, version.mask);
                replaced |= version.mask;
                version.mask = 0;
            }
        }
        versions.retain(|version| version.mask != 0);
        if versions.is_empty() {
            self.pending.remove(&block);
            self.flushable.remove(&block);
        }
    }

    /// Power is cut: what was not durable is kept or lost as `plan` says. `key` names the file to it.
    pub(super) fn crash(&mut self, plan: CrashPlan, key: u64) {
        enum Event {
            Length(u64),
            Sectors(u64, u8, Rc<Block>),
        }
        let kept = plan.prefix(key, self.lengths.len());
        let lengths = self.lengths.drain(..).take(kept);
        let mut events: Vec<(u64, Event)> =
            lengths.map(|length| (length.seq, Event::Length(length.len))).collect();
        for (block, versions) in std::mem::take(&mut self.pending) {
            for version in versions {
                let mask = (0..8).filter(|sector| {
                    let index = (block * 8 + sector).wrapping_sub(version.first);
                    version.mask & (1 << sector) != 0
                        && plan.keeps_sector(version.seq, index, version.sectors)
                });
                let mask = mask.fold(0, |mask, sector| mask | 1 << sector);
                events.push((version.seq, Event::Sectors(block, mask, version.data)));
            }
        }
        events.sort_by_key(|(seq, _)| *seq);
        for (_, event) in events {
            match event {
                Event::Length(len) => self.durable.set_len(len),
                Event::Sectors(_, 0, _) => {}
                Event::Sectors(block, mask, data) => self.durable.set_sectors(block, &data, mask),
            }
        }
        // Bytes whose length was lost were never part of the file.
        let len = self.durable.len;
        self.durable.len = u64::MAX;
        self.durable.set_len(len);
        *self = Self { live: self.durable.clone(), ..Self::default() };
        self.durable = self.live.clone();
    }
}
