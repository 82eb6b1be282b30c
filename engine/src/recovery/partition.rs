//! One partition at open: which segments it has, where its data ends, and whether what lies behind the end is a
//! torn tail or corruption.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;

use crate::buffers::Arena;
use crate::command::{Disk, Done, FileHandle, Op, OpenMode};
use crate::files::{open, read_small, sync_directory};
use crate::format::checkpoint::{EpochStart, decode_epochs};
use crate::format::index::{OffsetEntry, TimeEntry};
use crate::format::names;
use crate::index::{Index, Indexed};
use crate::limits::SEGMENT_DATA_BYTES_MAX;
use crate::local::Semaphore;
use crate::log::{Identity, Sealed, Shape};
use crate::types::{Offset, Pos};

use super::images::{Home, Image, protect};
use super::scan::{BatchScanner, Scanned};
use super::swaps;

mod judge;

use judge::Verdict;

/// What recovery made of a partition.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) identity: Identity,
    /// Segments before the active one.
    pub(crate) sealed: Vec<Sealed>,
    /// The active segment.
    pub(crate) active: Active,
    pub(crate) log_start: Offset,
    pub(crate) next: Offset,
    /// The recovery point that holds on: what comes after it is looked at again after a crash.
    pub(crate) recovery_point: Offset,
    pub(crate) epochs: Vec<(i32, Offset)>,
    /// Rolled segments, before the active one, that have no seal yet.
    pub(crate) unsealed: Vec<Offset>,
    /// Bytes that were read and checked, prepared space behind the end among them.
    pub(crate) scanned_bytes: u64,
    pub(crate) cut: Option<Cut>,
    pub(crate) damage: Option<Damage>,
    /// A damaged journal group may have held some of its acknowledged bytes.
    pub(crate) suspect: bool,
    /// Compaction may have left gaps in it.
    pub(crate) compacted: bool,
    /// Compaction has seen everything before this.
    pub(crate) cleaned: Option<Offset>,
    /// Segments that lie wholly before the log's start: what a deletion left behind.
    pub(crate) stale: Vec<Offset>,
}

/// The active segment of a recovered partition.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) base: Offset,
    pub(crate) index: Index,
    pub(crate) end: Pos,
    pub(crate) prepared: Pos,
    /// Whether its file exists.
    pub(crate) exists: bool,
}

/// A torn tail that was cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The segment file.
    pub path: PathBuf,
    /// Where the data ends now.
    pub pos: u64,
    /// Bytes behind that, up to the last one that was not zero.
    pub bytes: u64,
}

/// Damage that is no torn tail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment file.
    pub path: PathBuf,
    /// Where in the file.
    pub pos: u64,
    /// The first offset that can not be read there.
    pub offset: Offset,
    /// What speaks against a torn tail, in words.
    pub reason: String,
}

/// How a partition is to be judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) shape: Shape,
    /// Nothing before this offset need be looked at.
    pub(crate) recovery_point: Offset,
    pub(crate) log_start: Offset,
    /// Bytes may have been acknowledged before they were flushed: any damage at the end is a torn tail.
    pub(crate) relaxed: bool,
    /// Another program made the partition: offsets may be missing at a segment's end, with no seal to say so.
    pub(crate) foreign: bool,
    /// A damaged journal group may have held some of its acknowledged bytes: nothing is cut.
    pub(crate) suspect: bool,
    /// Compaction may have left gaps in it.
    pub(crate) compacted: bool,
    /// Compaction has seen everything before this, its checkpoint says.
    pub(crate) cleaned: Option<Offset>,
    pub(crate) direct: bool,
    /// The directory was closed cleanly: its journals were empty and nothing was in flight.
    pub(crate) clean: bool,
}

/// Recovers one partition, whose journaled bytes have been laid over its files.
pub(crate) struct Recovery<'a, D: Disk> {
    pub(crate) disk: &'a D,
    pub(crate) arena: &'a Arena,
    /// Bounds how many read their segments at once, and so the memory for it.
    pub(crate) readers: &'a Semaphore,
    pub(crate) identity: Identity,
    pub(crate) terms: Terms,
    /// The data directory and what its journals' headers say.
    pub(crate) home: &'a Home,
}

/// Leader epochs of the batches that were walked, and the first offset of these.
#[derive(Debug, Default)]
struct Epochs {
    from: Option<Offset>,
    starts: Vec<(i32, Offset)>,
}

impl Epochs {
    fn see(&mut self, epoch: i32, first: Offset) {
        self.from.get_or_insert(first);
        if self.starts.last().is_none_or(|(last, _)| epoch > *last) {
            self.starts.push((epoch, first));
        }
    }

    fn extend(&mut self, later: &mut Self) {
        self.from = self.from.or(later.from);
        for (epoch, first) in later.starts.drain(..) {
            self.see(epoch, first);
        }
    }

    /// The checkpoint's lines up to the walk, then what the walk saw: the checkpoint is written before the recovery
    /// point moves, and need not have what comes after.
    fn after(self, checkpoint: Vec<EpochStart>, next: Offset) -> Vec<(i32, Offset)> {
        let known = |start: Offset| self.from.map_or(start <= next, |from| start < from);
        let lines = checkpoint.into_iter().map(|line| (line.epoch, line.start_offset));
        let mut out: Vec<(i32, Offset)> = lines.filter(|(_, start)| known(*start)).collect();
        for (epoch, first) in self.starts {
            // Epoch 0 from the beginning needs no line.
            if epoch > out.last().map_or(0, |(last, _)| *last) {
                out.push((epoch, first));
            }
        }
        out
    }
}

struct Walked {
    end: u64,
    next: Offset,
    length: u64,
    index: Index,
    read_bytes: u64,
    /// The walk ended where the next segment begins, or, in the last one, at the file's end.
    complete: bool,
    /// All bytes are good, but offsets are missing before the next segment begins.
    gap: bool,
    epochs: Epochs,
    file: FileHandle,
}

impl<D: Disk> Recovery<'_, D> {
    /// The recovery, to its end. Cuts torn tails; flushes what was accepted.
    pub(crate) async fn run(self) -> io::Result<Recovered> {
        let (mut bases, seals) = self.segments().await?;
        let log_start = self.terms.log_start;
        let gone = bases.iter().skip(1).take_while(|next| **next <= log_start).count();
        let stale: Vec<Offset> = bases.drain(..gone).collect();
        let point = self.terms.recovery_point;
        let first = bases.partition_point(|base| *base <= point).saturating_sub(1);
        // Those before the recovery point are not looked at: each is held against its seal when it is used first.
        let mut sealed: Vec<Sealed> = bases[..first].iter().copied().map(Sealed::unknown).collect();
        // Of a partition that another program made seals say nothing: they are left from another life.
        let has_seal = |base: &Offset| !self.terms.foreign && seals.contains(base);
        let mut unsealed: Vec<Offset> =
            bases[..first].iter().copied().filter(|base| !has_seal(base)).collect();
        let mut recovered = None;
        let mut scanned_bytes = 0;
        let mut epochs = Epochs::default();
        let mut next = point.max(self.terms.log_start);
        for (at, base) in bases.iter().enumerate().skip(first) {
            let following = bases.get(at + 1).copied();
            let reading = self.readers.acquire().await;
            let mut walked = self.walk(*base, following).await?;
            epochs.extend(&mut walked.epochs);
            let last = following.is_none();
            let known = (*base, seals.contains(base));
            let cut = self.judge(known, &mut walked, &bases[at + 1..]).await?;
            scanned_bytes += walked.read_bytes;
            // Flushes that go out together share the device's: they are not bounded like readers.
            drop(reading);
            match cut {
                Verdict::Fine
                    if !last || is_full(&walked) || self.is_last_sealed(known, &walked).await? =>
                {
                    self.sync_and_close(walked.file).await?;
                    let max_timestamp = walked.index.latest_ms();
                    sealed.push(Sealed::read(*base, Pos::new(walked.end), max_timestamp));
                    // The last one is appended to no more: its seal would say otherwise.
                    unsealed.extend((!last || is_full(&walked)).then_some(*base));
                    next = walked.next;
                }
                verdict => {
                    recovered = Some((known, walked, verdict));
                    break;
                }
            }
        }
        let end = recovered.as_ref().map_or(next, |(_, walked, _)| walked.next);
        let epochs = self.epochs(epochs, end).await?;
        let mut out = match recovered {
            None => self.fresh(next, (sealed, unsealed)),
            Some((known, walked, verdict)) => {
                self.finish(known, (walked, verdict), (sealed, unsealed)).await?
            }
        };
        (out.scanned_bytes, out.epochs) = (scanned_bytes, epochs);
        out.stale = stale;
        Ok(out)
    }

    /// A partition with no segment that is not sealed: its active one is yet to be made.
    fn fresh(self, base: Offset, (sealed, unsealed): (Vec<Sealed>, Vec<Offset>)) -> Recovered {
        let log_start = sealed.first().map_or(base, |first| first.base).max(self.terms.log_start);
        Recovered {
            active: Active {
                base,
                index: Index::new(base, self.terms.shape.index_interval),
                end: Pos::ZERO,
                prepared: Pos::ZERO,
                exists: false,
            },
            identity: self.identity,
            sealed,
            log_start: log_start.min(base),
            next: base,
            recovery_point: base,
            epochs: Vec::new(),
            unsealed,
            scanned_bytes: 0,
            cut: None,
            damage: None,
            suspect: self.terms.suspect,
            compacted: self.terms.compacted,
            cleaned: self.terms.cleaned.map(|cleaned| cleaned.min(base)),
            stale: Vec::new(),
        }
    }

    async fn finish(
        self,
        (base, has_seal): (Offset, bool),
        (walked, verdict): (Walked, Verdict),
        (sealed, unsealed): (Vec<Sealed>, Vec<Offset>),
    ) -> io::Result<Recovered> {
        if has_seal && !matches!(verdict, Verdict::Corrupt(_)) {
            // It is the active one from now on: its seal no longer speaks for it.
            self.remove(names::seal(base)).await?;
            sync_directory(self.disk, self.identity.dir.clone()).await?;
        }
        let block = self.terms.shape.block;
        let end = Pos::new(walked.end);
        let mut prepared = Pos::new((walked.length / block * block).min(i32::MAX as u64));
        let (mut cut, mut damage) = (None, None);
        match verdict {
            Verdict::Fine => {}
            Verdict::Torn { last_nonzero, later } => {
                self.set_aside(&later).await?;
                let path = self.identity.dir.join(names::segment(base));
                if last_nonzero > walked.end {
                    self.cut(base, walked.file, end).await?;
                    prepared = end.ceil(block);
                    cut = Some(Cut { path, pos: walked.end, bytes: last_nonzero - walked.end });
                }
            }
            Verdict::Corrupt(reason) => {
                let path = self.identity.dir.join(names::segment(base));
                let pos = walked.end;
                damage = Some(Damage { path, pos, offset: walked.next, reason });
            }
        }
        if prepared < end.ceil(block) {
            // A file cut to its data (a clean shutdown, or Kafka's): its last block is made whole.
            self.disk.run(Op::Truncate { file: walked.file, len: end.ceil(block).get() }).await?;
            prepared = end.ceil(block);
        }
        self.sync_and_close(walked.file).await?;
        sync_directory(self.disk, self.identity.dir.clone()).await?;
        let log_start = sealed.first().map_or(base, |first| first.base).max(self.terms.log_start);
        Ok(Recovered {
            active: Active { base, index: walked.index, end, prepared, exists: true },
            log_start: log_start.min(walked.next),
            next: walked.next,
            recovery_point: self.terms.recovery_point.min(walked.next),
            identity: self.identity,
            sealed,
            epochs: Vec::new(),
            unsealed,
            scanned_bytes: 0,
            cut,
            damage,
            suspect: self.terms.suspect,
            compacted: self.terms.compacted,
            cleaned: self.terms.cleaned.map(|cleaned| cleaned.min(walked.next)),
            stale: Vec::new(),
        })
    }

    /// Base offsets of the partition's segments, in order, and of those that have a seal. Leftovers of interrupted work
    /// are removed.
    async fn segments(&self) -> io::Result<(Vec<Offset>, HashSet<Offset>)> {
        let dir = &self.identity.dir;
        swaps::settle(self.disk, self.arena, &self.identity).await?;
        let names = self.disk.run(Op::List { path: dir.clone() }).await?.into_names();
        let (mut bases, mut seals) = (Vec::new(), HashSet::new());
        for name in names {
            if let Some(base) = names::segment_base(&name) {
                bases.push(base);
            } else if let Some(base) = names::seal_base(&name) {
                seals.insert(base);
            } else if name.ends_with(".tmp") || name.ends_with(names::DELETED) {
                self.disk.run(Op::Unlink { path: dir.join(name) }).await?;
            }
        }
        bases.sort_unstable();
        Ok((bases, seals))
    }

    async fn open(&self, base: Offset) -> io::Result<(FileHandle, u64)> {
        let path = self.identity.dir.join(names::segment(base));
        let mode = OpenMode { direct: self.terms.direct, ..OpenMode::default() };
        let file = open(self.disk, &path, mode).await?;
        match self.disk.run(Op::Length { file }).await? {
            Done::Length(length) => Ok((file, length)),
            _ => unreachable!("a length gives a length"),
        }
    }

    /// Walks a segment from the recovery point (or its beginning) as far as batches are valid and in sequence.
    async fn walk(&self, base: Offset, following: Option<Offset>) -> io::Result<Walked> {
        let (file, length) = self.open(base).await?;
        let (mut index, start) = self.known_index(base, length).await?;
        let mut read_bytes = 0;
        for from in [start, 0] {
            if from == 0 {
                index = Index::new(base, self.terms.shape.index_interval);
            }
            let mut scanner = BatchScanner::new(self.disk, self.arena, file, from, length);
            let (mut next, mut end, mut void) = (base, from, false);
            let mut epochs = Epochs::default();
            while let Scanned::Batch(pos, header) = scanner.next().await? {
                let Some((first, last)) = header.offsets() else { break };
                // What was left of a failed tail is void from where the next segment begins.
                void = following.is_some_and(|limit| first >= limit);
                // Offsets are skipped only by compaction, and in the active segment where a truncation made one of
                // those it wrote the active one.
                let complete = !(self.terms.foreign || self.terms.compacted);
                let gap = first > next && end > from && following.is_none() && complete;
                let bytes = header.batch_bytes() as u32;
                let far = last.get() - base.get() > i64::from(i32::MAX)
                    || pos + u64::from(bytes) > i32::MAX as u64;
                if void || first < next || gap || far {
                    break;
                }
                let max_timestamp = header.max_timestamp;
                index.push(Indexed { last, pos: Pos::new(pos), bytes, max_timestamp });
                epochs.see(header.leader_epoch, first);
                next = last.plus(1);
                end = pos + u64::from(bytes);
            }
            read_bytes += scanner.read_bytes();
            scanner.finish().await;
            // An index is no evidence: if nothing begins where it points, walk from the segment's beginning.
            if from > 0 && end == from && end < length {
                continue;
            }
            let used_up = void || end == length;
            let complete = following.map_or(used_up, |limit| next >= limit);
            let gap = used_up && !complete;
            return Ok(Walked {
                end,
                next,
                length,
                index,
                read_bytes,
                complete,
                gap,
                epochs,
                file,
            });
        }
        unreachable!("the walk from the beginning returns")
    }

    /// The part of the index on disk that lies before the recovery point, and where to begin the walk.
    async fn known_index(&self, base: Offset, length: u64) -> io::Result<(Index, u64)> {
        let interval = self.terms.shape.index_interval;
        let empty = (Index::new(base, interval), 0);
        let point = self.terms.recovery_point;
        if point <= base {
            return Ok(empty);
        }
        let dir = &self.identity.dir;
        let offsets = read_small(self.disk, self.arena, &dir.join(names::index(base))).await?;
        let times = read_small(self.disk, self.arena, &dir.join(names::time_index(base))).await?;
        let (Some(offsets), Some(times)) = (offsets, times) else { return Ok(empty) };
        let (Some(mut offsets), Some(mut times)) = (decode_offsets(&offsets), decode_times(&times))
        else {
            return Ok(empty);
        };
        let before = (point.get() - base.get()) as u32;
        let keep = offsets.partition_point(|entry| entry.relative_offset < before);
        // The walk begins at the last entry before the point, which it finds again.
        let Some(start) = keep.checked_sub(1).map(|at| offsets[at]) else { return Ok(empty) };
        if start.pos.get() >= length {
            return Ok(empty);
        }
        offsets.truncate(keep - 1);
        times.retain(|entry| entry.relative_offset < start.relative_offset);
        Ok((Index::restore(base, interval, offsets, times), start.pos.get()))
    }

    /// Renames later segments aside: nothing in them was acknowledged.
    async fn set_aside(&self, later: &[Offset]) -> io::Result<()> {
        if later.is_empty() {
            return Ok(());
        }
        for base in later {
            let from = self.identity.dir.join(names::segment(*base));
            let to = self.identity.dir.join(format!("{}{}", names::segment(*base), names::VOID));
            self.disk.run(Op::Rename { from, to }).await?;
            // A segment of the same base may come again: nothing derived from this one may speak for it.
            for derived in [names::index(*base), names::time_index(*base), names::seal(*base)] {
                self.remove(derived).await?;
            }
        }
        sync_directory(self.disk, self.identity.dir.clone()).await
    }

    /// Removes a file of the partition, if it is there.
    async fn remove(&self, name: String) -> io::Result<()> {
        let path = self.identity.dir.join(name);
        match self.disk.run(Op::Unlink { path }).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Cuts a file behind its data and zeroes the rest of the last block. The journal holds the image of that
    /// block's bytes by now ([`super::images`]), so that a torn rewrite loses nothing.
    async fn cut(&self, base: Offset, file: FileHandle, end: Pos) -> io::Result<()> {
        let block = self.terms.shape.block;
        self.disk.run(Op::Truncate { file, len: end.ceil(block).get() }).await?;
        self.disk.run(Op::Sync { file, data_only: false }).await?;
        let start = end.floor(block);
        if start == end {
            return Ok(());
        }
        let read = crate::files::read_at(self.disk, self.arena, file, start.get(), block as usize);
        let mut chunk = read.await?;
        let keep = end.since(start) as usize;
        chunk.truncate(keep.min(chunk.len()));
        let image = Image { incarnation: self.identity.incarnation, segment: base, pos: start };
        protect(self.disk, self.arena, self.home, image, &chunk).await?;
        chunk.append_zeros(block as usize - chunk.len());
        let data = chunk.slice(0..block as usize);
        self.disk.run(Op::Write { file, pos: start.get(), data, durable: true }).await?;
        self.disk.run(Op::Sync { file, data_only: false }).await.map(drop)
    }

    async fn sync_and_close(&self, file: FileHandle) -> io::Result<()> {
        self.disk.run(Op::Sync { file, data_only: false }).await?;
        self.disk.run(Op::Close { file }).await.map(drop)
    }

    /// The partition's leader epochs: from its checkpoint, and what the walk saw.
    async fn epochs(&self, seen: Epochs, next: Offset) -> io::Result<Vec<(i32, Offset)>> {
        let path = self.identity.dir.join(names::EPOCHS);
        let text = read_small(self.disk, self.arena, &path).await?.unwrap_or_default();
        Ok(seen.after(decode_epochs(&text).unwrap_or_default(), next))
    }
}

/// Whether Kafka filled the segment further than this engine does: its last block has no positions.
fn is_full(walked: &Walked) -> bool {
    walked.end > SEGMENT_DATA_BYTES_MAX
}

fn decode_offsets(bytes: &[u8]) -> Option<Vec<OffsetEntry>> {
    let mut entries: Vec<OffsetEntry> = Vec::with_capacity(bytes.len() / 8);
    for chunk in bytes.chunks(8) {
        entries.push(OffsetEntry::decode(chunk.try_into().ok()?, entries.last().copied())?);
    }
    Some(entries)
}

fn decode_times(bytes: &[u8]) -> Option<Vec<TimeEntry>> {
    let mut entries: Vec<TimeEntry> = Vec::with_capacity(bytes.len() / 12);
    for chunk in bytes.chunks(12) {
        entries.push(TimeEntry::decode(chunk.try_into().ok()?, entries.last().copied())?);
    }
    Some(entries)
}
