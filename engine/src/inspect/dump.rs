//! Shows what is on disk, item by item, for a program to print.

use std::ops::ControlFlow;
use std::path::Path;

use super::journals;
use super::place::{self, FileKind, Place};
use super::source::{Step, Walker};
use crate::batch::{BatchHeader, BatchView, RecordView};
use crate::error::OpenError;
use crate::files::read_at_most;
use crate::format::checkpoint::{EpochStart, decode_epochs, decode_offsets};
use crate::format::index::{OFFSET_ENTRY_BYTES, OffsetEntry, TIME_ENTRY_BYTES, TimeEntry};
use crate::format::meta::{BLOCK_BYTES_MIN, DirectoryMeta, JournalsMeta, PartitionMeta};
use crate::format::names;
use crate::format::seal::Seal;
use crate::journal::group::{EntryKind, Group};
use crate::limits::SMALL_FILE_BYTES_MAX;
use crate::types::{Incarnation, Offset, PartitionName};

/// What is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DumpOptions {
    /// Records too, not only batches and journal groups.
    pub records: bool,
}

/// One thing found in a file.
#[derive(Clone, Debug)]
pub enum Item<'a> {
    /// What follows is from this file.
    File(&'a Path),
    /// A batch.
    Batch {
        /// Where it begins, in bytes.
        pos: u64,
        /// Its header.
        header: BatchHeader,
    },
    /// A record of the batch shown last.
    Record(RecordView<'a>),
    /// An entry of an offset index.
    OffsetEntry {
        /// The offset named.
        offset: Offset,
        /// The entry.
        entry: OffsetEntry,
    },
    /// An entry of a time index.
    TimeEntry {
        /// The offset named.
        offset: Offset,
        /// The entry.
        entry: TimeEntry,
    },
    /// A segment's seal.
    Seal(Seal),
    /// A data directory's own file.
    DirectoryMeta(DirectoryMeta),
    /// What journals a data directory has.
    JournalsMeta(JournalsMeta),
    /// A partition's own file.
    PartitionMeta(PartitionMeta),
    /// A line of `recovery-point-offset-checkpoint` or `log-start-offset-checkpoint`.
    Checkpoint(PartitionName, Offset),
    /// A line of `leader-epoch-checkpoint`.
    Epoch(EpochStart),
    /// A journal's file header.
    Journal {
        /// The opening that wrote it.
        epoch: u64,
        /// Its block in bytes.
        block_bytes: u32,
        /// The file's length by its header.
        bytes: u64,
        /// The shard; `u32::MAX` for the image of one block that a recovery rewrites.
        shard: u32,
        /// The data directory's number.
        directory: u64,
    },
    /// A journal's group; older epochs' groups are shown too.
    Group {
        /// Where it begins, in bytes.
        pos: u64,
        /// The opening that wrote it.
        epoch: u64,
        /// Its number.
        sequence: u64,
        /// The oldest group needed with it.
        oldest_needed: u64,
        /// Entries in its table.
        entries: u32,
        /// Bytes of data.
        data_bytes: u32,
    },
    /// An entry of the group shown last.
    Entry {
        /// Whose bytes.
        incarnation: Incarnation,
        /// The segment's base offset.
        segment: Offset,
        /// Where in the segment, in bytes.
        pos: u64,
        /// How many bytes.
        bytes: u32,
        /// Not bytes: older entries of the incarnation are void.
        ignore: bool,
    },
    /// Nothing intact begins here; zeros to the end of a file are not shown. Batches that are intact behind it
    /// follow, though no recovery takes them.
    Bad {
        /// Where, in bytes.
        pos: u64,
        /// Why, in words.
        what: String,
    },
}

/// What the visitor of [`dump`] answers: go on, or stop.
pub type Flow = ControlFlow<()>;

/// Shows a data directory, a partition's directory, a `.log`, `.index`, `.timeindex`, `.seal`, a journal, a
/// checkpoint or a meta file to `visit`, in order. Journals are shown as they are, not laid over segments.
///
/// # Errors
/// [`OpenError`] if the path is none of these or can not be read. Damage is shown as [`Item::Bad`].
pub fn dump(
    path: impl AsRef<Path>,
    options: DumpOptions,
    mut visit: impl FnMut(Item<'_>) -> Flow,
) -> Result<(), OpenError> {
    let path = path.as_ref();
    let mut shown = Dump { options, visit: &mut visit };
    let flow = match place::of(path)? {
        Place::File(kind) => shown.file(path, kind)?,
        Place::Partition => shown.directory(path)?,
        Place::Directory => shown.data(path)?,
    };
    // Whoever stopped it knows.
    let _ = flow;
    Ok(())
}

struct Dump<'v> {
    options: DumpOptions,
    visit: &'v mut dyn FnMut(Item<'_>) -> Flow,
}

type Shown = Result<Flow, OpenError>;

impl Dump<'_> {
    fn data(&mut self, dir: &Path) -> Shown {
        if self.directory(dir)?.is_break() {
            return Ok(Flow::Break(()));
        }
        for name in place::names_in(dir)? {
            let path = dir.join(&name);
            if PartitionName::from_directory(&name).is_some()
                && path.is_dir()
                && self.directory(&path)?.is_break()
            {
                return Ok(Flow::Break(()));
            }
        }
        Ok(Flow::Continue(()))
    }

    fn directory(&mut self, dir: &Path) -> Shown {
        for name in place::names_in(dir)? {
            let path = dir.join(&name);
            let Some(kind) = place::kind(&name).filter(|_| path.is_file()) else { continue };
            if self.file(&path, kind)?.is_break() {
                return Ok(Flow::Break(()));
            }
        }
        Ok(Flow::Continue(()))
    }

    fn file(&mut self, path: &Path, kind: FileKind) -> Shown {
        if (self.visit)(Item::File(path)).is_break() {
            return Ok(Flow::Break(()));
        }
        if kind == FileKind::Segment {
            return self.segment(path).map_err(|e| OpenError::io(path, "reading", e));
        }
        if kind == FileKind::Journal {
            return self.journal(path, &journals::read(path)?);
        }
        let bytes = read_at_most(path, SMALL_FILE_BYTES_MAX)
            .map_err(|e| OpenError::io(path, "reading", e))?;
        let base = || {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            names::segment_base(&format!("{name}.log")).unwrap_or_default()
        };
        Ok(match kind {
            FileKind::Segment | FileKind::Journal => Flow::Continue(()),
            FileKind::Index => self.offsets(base(), &bytes),
            FileKind::TimeIndex => self.times(base(), &bytes),
            FileKind::Seal => self.whole(Seal::decode(&bytes).map(Item::Seal)),
            FileKind::DirectoryMeta => {
                self.whole(DirectoryMeta::decode(&bytes).map(Item::DirectoryMeta))
            }
            FileKind::JournalsMeta => {
                self.whole(JournalsMeta::decode(&bytes).map(Item::JournalsMeta))
            }
            FileKind::PartitionMeta => {
                self.whole(PartitionMeta::decode(&bytes).map(Item::PartitionMeta))
            }
            FileKind::Offsets => {
                let items = decode_offsets(&bytes);
                self.all(items.map(|it| it.into_iter().map(|(n, o)| Item::Checkpoint(n, o))))
            }
            FileKind::Epochs => {
                self.all(decode_epochs(&bytes).map(|it| it.into_iter().map(Item::Epoch)))
            }
        })
    }

    fn bad(&mut self, pos: u64, what: impl ToString) -> Flow {
        (self.visit)(Item::Bad { pos, what: what.to_string() })
    }

    fn whole<E: ToString>(&mut self, item: Result<Item<'_>, E>) -> Flow {
        match item {
            Ok(item) => (self.visit)(item),
            Err(error) => self.bad(0, error),
        }
    }

    fn all<'a, E: ToString>(&mut self, items: Result<impl Iterator<Item = Item<'a>>, E>) -> Flow {
        match items {
            Ok(mut items) => items.try_for_each(&mut *self.visit),
            Err(error) => self.bad(0, error),
        }
    }

    /// A segment's batches, and behind damage those that are intact again: a recovery never takes them, but
    /// whoever repairs wants to see them.
    fn segment(&mut self, path: &Path) -> std::io::Result<Flow> {
        let open = || Walker::open(path, BLOCK_BYTES_MIN.into(), &[]);
        let (mut walker, mut last) = (open()?, None);
        loop {
            let (pos, why) = match walker.next()? {
                Step::Batch(pos, batch) => {
                    if self.batch(pos, &batch).is_break() {
                        return Ok(Flow::Break(()));
                    }
                    continue;
                }
                Step::End(pos, why) => (pos, why),
            };
            let end = match last {
                Some(end) => end,
                None => walker.rest(pos)?.last_nonzero.unwrap_or(0),
            };
            let Some(error) = why.filter(|_| pos < end) else { return Ok(Flow::Continue(())) };
            if self.bad(pos, error).is_break() {
                return Ok(Flow::Break(()));
            }
            last = Some(end);
            walker = open()?.from(pos);
            if let Step::Batch(pos, batch) = walker.resume(end)?
                && self.batch(pos, &batch).is_break()
            {
                return Ok(Flow::Break(()));
            }
        }
    }

    fn batch(&mut self, pos: u64, batch: &BatchView<'_>) -> Flow {
        (self.visit)(Item::Batch { pos, header: *batch.header() })?;
        if !self.options.records {
            return Flow::Continue(());
        }
        match batch.records() {
            Err(error) => self.bad(pos, error),
            Ok(mut records) => records.try_for_each(|record| match record {
                Ok(record) => (self.visit)(Item::Record(record)),
                Err(error) => self.bad(pos, error),
            }),
        }
    }

    fn offsets(&mut self, base: Offset, bytes: &[u8]) -> Flow {
        let mut previous = None;
        for (at, chunk) in bytes.chunks(OFFSET_ENTRY_BYTES).enumerate() {
            let pos = at * OFFSET_ENTRY_BYTES;
            let entry = chunk.try_into().ok().and_then(|it| OffsetEntry::decode(it, previous));
            let Some(entry) = entry else { return self.bad_entry(bytes, pos) };
            let offset = base.plus(entry.relative_offset);
            (self.visit)(Item::OffsetEntry { offset, entry })?;
            previous = Some(entry);
        }
        Flow::Continue(())
    }

    fn times(&mut self, base: Offset, bytes: &[u8]) -> Flow {
        let mut previous = None;
        for (at, chunk) in bytes.chunks(TIME_ENTRY_BYTES).enumerate() {
            let pos = at * TIME_ENTRY_BYTES;
            let entry = chunk.try_into().ok().and_then(|it| TimeEntry::decode(it, previous));
            let Some(entry) = entry else { return self.bad_entry(bytes, pos) };
            let offset = base.plus(entry.relative_offset);
            (self.visit)(Item::TimeEntry { offset, entry })?;
            previous = Some(entry);
        }
        Flow::Continue(())
    }

    fn bad_entry(&mut self, bytes: &[u8], pos: usize) -> Flow {
        if bytes[pos..].iter().all(|byte| *byte == 0) {
            return Flow::Continue(());
        }
        self.bad(pos as u64, "not an index entry that can stand here")
    }

    fn journal(&mut self, path: &Path, bytes: &[u8]) -> Shown {
        let Some(header) = journals::header(path, bytes)? else {
            return Ok(self.bad(0, "no file header"));
        };
        let item = Item::Journal {
            epoch: header.epoch,
            block_bytes: header.block,
            bytes: header.bytes,
            shard: header.shard,
            directory: header.directory,
        };
        if (self.visit)(item).is_break() {
            return Ok(Flow::Break(()));
        }
        let block = u64::from(header.block);
        let mut at = (crate::journal::group::FILE_HEADER_BLOCKS * block) as usize;
        while let Some(left) = bytes.get(at..).filter(|left| !left.is_empty()) {
            let Some(group) = Group::parse(left, block) else {
                at += header.block as usize;
                continue;
            };
            if self.group(at as u64, &group).is_break() {
                return Ok(Flow::Break(()));
            }
            at += group.header.group_bytes(block) as usize;
        }
        Ok(Flow::Continue(()))
    }

    fn group(&mut self, pos: u64, group: &Group<'_>) -> Flow {
        let header = &group.header;
        (self.visit)(Item::Group {
            pos,
            epoch: header.epoch,
            sequence: header.sequence,
            oldest_needed: header.oldest_needed,
            entries: header.entries,
            data_bytes: header.data_bytes,
        })?;
        if !self.options.records {
            return Flow::Continue(());
        }
        group.entries().try_for_each(|(entry, _)| {
            (self.visit)(Item::Entry {
                incarnation: entry.incarnation,
                segment: entry.segment,
                pos: entry.pos.get(),
                bytes: entry.bytes,
                ignore: entry.kind == EntryKind::Ignore,
            })
        })
    }
}
