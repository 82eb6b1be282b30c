//! The bytes of one journal group and of the journal's file header. `docs/format.md` has the picture.
//!
//! ```text
//! block 0 / 1   file header, written in turn (even / odd epoch)
//! group         header 64 | table 32 n | data | zeros | table again 32 n | trailer 64     whole blocks
//! ```
//! All numbers are big-endian, as in every other file of the directory.

use crate::buffers::Chunk;
use crate::format::crc::crc32c;
use crate::format::meta::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN};
use crate::types::{Incarnation, Offset, Pos};

/// Bytes of a group's header, and of its trailer.
pub(crate) const HEADER_BYTES: usize = 64;
/// Bytes of one table entry.
pub(crate) const ENTRY_BYTES: usize = 32;
/// Blocks at the file's beginning that hold its header.
pub(crate) const FILE_HEADER_BLOCKS: u64 = 2;

const GROUP_MAGIC: [u8; 4] = *b"RMJG";
const TRAILER_MAGIC: [u8; 4] = *b"RMJT";
const FILE_MAGIC: [u8; 8] = *b"RMJOURNL";
/// The newest journal version known.
pub(crate) const VERSION: u16 = 1;

/// What a table entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// Bytes of a segment, found in the group's data.
    Data,
    /// Entries of this incarnation in groups before this one are void.
    Ignore,
}

/// One entry of a group's table: which bytes of which segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Whose bytes.
    pub(crate) incarnation: Incarnation,
    /// The segment's base offset.
    pub(crate) segment: Offset,
    /// Where in the segment.
    pub(crate) pos: Pos,
    /// How many bytes; 0 for `Ignore`.
    pub(crate) bytes: u32,
    /// What it says.
    pub(crate) kind: EntryKind,
}

impl Entry {
    fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut out = [0; ENTRY_BYTES];
        out[0..8].copy_from_slice(&self.incarnation.0.to_be_bytes());
        out[8..16].copy_from_slice(&self.segment.get().to_be_bytes());
        out[16..20].copy_from_slice(&(self.pos.get() as u32).to_be_bytes());
        out[20..24].copy_from_slice(&self.bytes.to_be_bytes());
        out[24..28].copy_from_slice(&u32::from(self.kind == EntryKind::Ignore).to_be_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let segment = i64::from_be_bytes(bytes[8..16].try_into().ok()?);
        let (pos, length) = (u32_at(bytes, 16), u32_at(bytes, 20));
        // A segment ends where its positions do.
        let end = pos.checked_add(length).map(i32::try_from);
        if segment < 0 || !matches!(end, Some(Ok(_))) {
            return None;
        }
        let kind = match u32_at(bytes, 24) {
            0 => EntryKind::Data,
            1 => EntryKind::Ignore,
            _ => return None,
        };
        Some(Self {
            incarnation: Incarnation(u64_at(bytes, 0)),
            segment: Offset::new(segment),
            pos: Pos::new(pos.into()),
            bytes: length,
            kind,
        })
    }
}

/// What stands at both ends of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    /// The opening of the engine that wrote it: new and durable at every opening.
    pub(crate) epoch: u64,
    /// Its number: one more than the group before it.
    pub(crate) sequence: u64,
    /// The epoch of the group before it.
    pub(crate) previous_epoch: u64,
    /// The CRC of the group before it.
    pub(crate) previous_crc: u32,
    /// The oldest group that recovery still needs once this one is durable.
    pub(crate) oldest_needed: u64,
    /// Entries in the table.
    pub(crate) entries: u32,
    /// Bytes of data.
    pub(crate) data_bytes: u32,
    /// CRC-32C of the data.
    pub(crate) data_crc: u32,
    /// CRC-32C of the table.
    pub(crate) table_crc: u32,
}

impl GroupHeader {
    /// The header of an epoch's first group; its counts and CRCs are still zero.
    pub(crate) fn first(epoch: u64) -> Self {
        Self {
            epoch,
            sequence: 1,
            previous_epoch: epoch,
            previous_crc: 0,
            oldest_needed: 1,
            entries: 0,
            data_bytes: 0,
            data_crc: 0,
            table_crc: 0,
        }
    }

    fn encode(&self, magic: [u8; 4]) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0..4].copy_from_slice(&magic);
        out[4..6].copy_from_slice(&VERSION.to_be_bytes());
        out[8..16].copy_from_slice(&self.epoch.to_be_bytes());
        out[16..24].copy_from_slice(&self.sequence.to_be_bytes());
        out[24..32].copy_from_slice(&self.previous_epoch.to_be_bytes());
        out[32..40].copy_from_slice(&self.oldest_needed.to_be_bytes());
        out[40..44].copy_from_slice(&self.previous_crc.to_be_bytes());
        out[44..48].copy_from_slice(&self.entries.to_be_bytes());
        out[48..52].copy_from_slice(&self.data_bytes.to_be_bytes());
        out[52..56].copy_from_slice(&self.data_crc.to_be_bytes());
        out[56..60].copy_from_slice(&self.table_crc.to_be_bytes());
        let crc = crc32c(&out[..60]);
        out[60..64].copy_from_slice(&crc.to_be_bytes());
        out
    }

    fn decode(bytes: &[u8], magic: [u8; 4]) -> Option<Self> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        if bytes[0..4] != magic
            || u32_at(bytes, 60) != crc32c(&bytes[..60])
            || bytes[4..6] != VERSION.to_be_bytes()
        {
            return None;
        }
        Some(Self {
            epoch: u64_at(bytes, 8),
            sequence: u64_at(bytes, 16),
            previous_epoch: u64_at(bytes, 24),
            oldest_needed: u64_at(bytes, 32),
            previous_crc: u32_at(bytes, 40),
            entries: u32_at(bytes, 44),
            data_bytes: u32_at(bytes, 48),
            data_crc: u32_at(bytes, 52),
            table_crc: u32_at(bytes, 56),
        })
    }

    /// The CRC by which the next group names this one.
    pub(crate) fn crc(&self) -> u32 {
        u32_at(&self.encode(GROUP_MAGIC), 60)
    }

    /// The group's length on disk.
    pub(crate) fn group_bytes(&self, block: u64) -> u64 {
        group_bytes(self.entries as usize, self.data_bytes as usize, block)
    }
}

/// Bytes of a group of `entries` with `data` bytes, rounded up to whole blocks.
pub(crate) fn group_bytes(entries: usize, data: usize, block: u64) -> u64 {
    ((2 * (HEADER_BYTES + entries * ENTRY_BYTES) + data) as u64).next_multiple_of(block)
}

/// Writes a group into `chunk`: first the table, then the data, then [`GroupWriter::finish`].
pub(crate) struct GroupWriter {
    chunk: Chunk,
    entries: u32,
}

impl GroupWriter {
    /// Begins a group with this table. `chunk` is empty.
    pub(crate) fn new(mut chunk: Chunk, table: impl Iterator<Item = Entry>) -> Self {
        assert!(chunk.is_empty(), "a group begins its chunk");
        chunk.append_zeros(HEADER_BYTES);
        let mut entries = 0;
        for entry in table {
            chunk.append(&entry.encode());
            entries += 1;
        }
        Self { chunk, entries }
    }

    /// Appends data, in the order of the table.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.chunk.append(bytes);
    }

    /// Completes the group. `header`'s counts and CRCs are filled in.
    pub(crate) fn finish(mut self, mut header: GroupHeader, block: u64) -> (Chunk, GroupHeader) {
        let table = HEADER_BYTES..HEADER_BYTES + self.entries as usize * ENTRY_BYTES;
        let data_bytes = self.chunk.len() - table.end;
        header.entries = self.entries;
        header.data_bytes = data_bytes as u32;
        header.data_crc = crc32c(&self.chunk[table.end..]);
        header.table_crc = crc32c(&self.chunk[table.clone()]);
        let total = header.group_bytes(block) as usize;
        let end = table.len() + HEADER_BYTES;
        self.chunk.append_zeros(total - end - self.chunk.len());
        self.chunk.append_within(table);
        self.chunk.append(&header.encode(TRAILER_MAGIC));
        self.chunk.overwrite(0, &header.encode(GROUP_MAGIC));
        assert_eq!(self.chunk.len(), total, "a group is whole blocks");
        (self.chunk, header)
    }
}

/// A group read back, valid from end to end.
#[derive(Debug)]
pub(crate) struct Group<'a> {
    /// Its header.
    pub(crate) header: GroupHeader,
    table: &'a [u8],
    data: &'a [u8],
}

impl<'a> Group<'a> {
    /// The group that begins with `bytes`, if it is whole and undamaged.
    pub(crate) fn parse(bytes: &'a [u8], block: u64) -> Option<Self> {
        let header = GroupHeader::decode(bytes, GROUP_MAGIC)?;
        let total = usize::try_from(header.group_bytes(block)).ok()?;
        let bytes = bytes.get(..total)?;
        let trailer = GroupHeader::decode(&bytes[total - HEADER_BYTES..], TRAILER_MAGIC)?;
        let table_end = HEADER_BYTES + header.entries as usize * ENTRY_BYTES;
        let table = &bytes[HEADER_BYTES..table_end];
        let data = &bytes[table_end..table_end + header.data_bytes as usize];
        let whole = trailer == header
            && crc32c(table) == header.table_crc
            && crc32c(data) == header.data_crc
            && table_sums_to(table, data.len());
        whole.then_some(Self { header, table, data })
    }

    /// Entries with their bytes.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (Entry, &'a [u8])> {
        let mut data = self.data;
        self.table.chunks_exact(ENTRY_BYTES).filter_map(move |entry| {
            let entry = Entry::decode(entry)?;
            let (bytes, rest) = data.split_at(entry.bytes as usize);
            data = rest;
            Some((entry, bytes))
        })
    }
}

fn table_sums_to(table: &[u8], data: usize) -> bool {
    let mut sum = 0usize;
    for entry in table.chunks_exact(ENTRY_BYTES) {
        let Some(entry) = Entry::decode(entry) else { return false };
        sum = sum.saturating_add(entry.bytes as usize);
    }
    sum == data
}

/// What a damaged group still says of itself.
#[derive(Debug)]
pub(crate) struct Remains {
    /// Its header or trailer.
    pub(crate) header: GroupHeader,
    /// Whose bytes were in it; `None` if both tables are damaged.
    pub(crate) incarnations: Option<Vec<Incarnation>>,
}

/// The header at the beginning of `bytes` and its table, if they are undamaged by themselves.
pub(crate) fn remains_at_head(bytes: &[u8]) -> Option<Remains> {
    let header = GroupHeader::decode(bytes, GROUP_MAGIC)?;
    let table = bytes.get(HEADER_BYTES..HEADER_BYTES + header.entries as usize * ENTRY_BYTES);
    Some(Remains { header, incarnations: incarnations(table, &header) })
}

/// The trailer at the end of `bytes` and the table before it, if they are undamaged by themselves.
pub(crate) fn remains_at_tail(bytes: &[u8]) -> Option<Remains> {
    let end = bytes.len().checked_sub(HEADER_BYTES)?;
    let header = GroupHeader::decode(&bytes[end..], TRAILER_MAGIC)?;
    let start = end.checked_sub(header.entries as usize * ENTRY_BYTES);
    let table = start.map(|start| &bytes[start..end]);
    Some(Remains { header, incarnations: incarnations(table, &header) })
}

fn incarnations(table: Option<&[u8]>, header: &GroupHeader) -> Option<Vec<Incarnation>> {
    let table = table.filter(|table| crc32c(table) == header.table_crc)?;
    table.chunks_exact(ENTRY_BYTES).map(|e| Some(Entry::decode(e)?.incarnation)).collect()
}

/// The journal's file header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileHeader {
    /// Groups of older epochs are void.
    pub(crate) epoch: u64,
    /// Bytes of a block.
    pub(crate) block: u32,
    /// The file's length in bytes.
    pub(crate) bytes: u64,
    /// The shard that wrote it.
    pub(crate) shard: u32,
    /// The data directory it belongs to.
    pub(crate) directory: u64,
}

impl FileHeader {
    /// Bytes of the header within its block.
    pub(crate) const BYTES: usize = 64;

    /// The header's bytes.
    pub(crate) fn encode(&self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        out[0..8].copy_from_slice(&FILE_MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_be_bytes());
        out[12..16].copy_from_slice(&self.block.to_be_bytes());
        out[16..24].copy_from_slice(&self.epoch.to_be_bytes());
        out[24..32].copy_from_slice(&self.bytes.to_be_bytes());
        out[32..36].copy_from_slice(&self.shard.to_be_bytes());
        out[40..48].copy_from_slice(&self.directory.to_be_bytes());
        let crc = crc32c(&out[..60]);
        out[60..64].copy_from_slice(&crc.to_be_bytes());
        out
    }

    /// Reads a header. `Ok(None)` where there is none; an unknown version is an error.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Option<Self>, u16> {
        let Some(bytes) = bytes.get(..Self::BYTES) else { return Ok(None) };
        if bytes[0..8] != FILE_MAGIC || u32_at(bytes, 60) != crc32c(&bytes[..60]) {
            return Ok(None);
        }
        let version = u16::from_be_bytes([bytes[8], bytes[9]]);
        if version > VERSION {
            return Err(version);
        }
        let block = u32_at(bytes, 12);
        // Whoever walks the file steps by it: an impossible one is no header.
        if !block.is_power_of_two() || !(BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&block) {
            return Ok(None);
        }
        Ok(Some(Self {
            epoch: u64_at(bytes, 16),
            block,
            bytes: u64_at(bytes, 24),
            shard: u32_at(bytes, 32),
            directory: u64_at(bytes, 40),
        }))
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut out = [0; 4];
    out.copy_from_slice(&bytes[at..at + 4]);
    u32::from_be_bytes(out)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut out = [0; 8];
    out.copy_from_slice(&bytes[at..at + 8]);
    u64::from_be_bytes(out)
}
