//! The journals of a data directory at open: found, read, laid over the segments, and durably emptied.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};

use crate::buffers::{Arena, CHUNK_BYTES_MAX, in_huge_pages};
use crate::command::{Disk, FileHandle, Op, OpenMode};
use crate::error::OpenError;
use crate::files::{open, read_at};
use crate::format::meta::{BLOCK_BYTES_MAX, BLOCK_BYTES_MIN};
use crate::format::names;
use crate::journal::group::{Entry, FILE_HEADER_BLOCKS, FileHeader};
use crate::journal::replay::{Suspects, replay};
use crate::limits::JOURNAL_BYTES_MAX;
use crate::types::{Incarnation, Offset};

use super::scan::FileReader;

/// A journal that was found.
pub(crate) struct FoundJournal {
    pub(crate) path: PathBuf,
    pub(crate) header: FileHeader,
    bytes: Vec<u8>,
    /// Where the ring begins.
    start: usize,
}

impl FoundJournal {
    /// The ring area.
    pub(crate) fn ring(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }
}

/// What is wrong with a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalDamage {
    /// The file.
    pub path: PathBuf,
    /// What is wrong, in words.
    pub reason: String,
}

/// Reads one journal. `Ok(None)` with a reason pushed to `damage` if it is not one of this directory.
pub(crate) async fn read<D: Disk>(
    disk: &D,
    arena: &Arena,
    (path, direct): (PathBuf, bool),
    directory: u64,
    damage: &mut Vec<JournalDamage>,
) -> Result<Option<FoundJournal>, OpenError> {
    let wrap = |error| OpenError::io(&path, "reading the journal", error);
    let mode = OpenMode { read_only: true, direct, ..OpenMode::default() };
    let file = open(disk, &path, mode).await.map_err(wrap)?;
    let found = read_open(disk, arena, file).await;
    disk.run(Op::Close { file }).await.map_err(wrap)?;
    let (headers, bytes) = found.map_err(wrap)?;
    let mut best: Option<FileHeader> = None;
    for header in headers {
        match header {
            Ok(Some(header)) if best.is_none_or(|best| header.epoch > best.epoch) => {
                best = Some(header);
            }
            Ok(_) => {}
            Err(found) => {
                let known = crate::journal::group::VERSION;
                return Err(OpenError::NewerFormat { path, found, known });
            }
        }
    }
    // A block's image that is not whole was being written when the power went: its block was not touched yet.
    let whole = |header: FileHeader| bytes.len() as u64 >= header.bytes;
    if path.file_name().is_some_and(names::is_image) && !best.is_some_and(whole) {
        return Ok(None);
    }
    let mut complain = |reason: &str| {
        damage.push(JournalDamage { path: path.clone(), reason: reason.to_owned() });
    };
    let Some(header) = best else {
        if bytes.iter().any(|byte| *byte != 0) {
            complain("its file header is damaged: what it held can not be told");
        }
        return Ok(None);
    };
    if header.directory != directory {
        complain("it belongs to another data directory: it is renamed, not read");
        let to = PathBuf::from(format!("{}{}", path.display(), names::FOREIGN));
        disk.run(Op::Rename { from: path.clone(), to }).await.map_err(wrap)?;
        return Ok(None);
    }
    if (bytes.len() as u64) < header.bytes {
        complain("the file is shorter than its header says: what was behind its end is lost");
    }
    let start = (FILE_HEADER_BLOCKS * u64::from(header.block)) as usize;
    Ok(Some(FoundJournal { path, header, bytes, start }))
}

/// What a file header may be: of a version that is not known, none, or one.
type Header = Result<Option<FileHeader>, u16>;

async fn read_open<D: Disk>(
    disk: &D,
    arena: &Arena,
    file: FileHandle,
) -> io::Result<(Vec<Header>, Vec<u8>)> {
    let length = disk.run(Op::Length { file }).await?.into_length().min(JOURNAL_BYTES_MAX);
    let mut bytes = in_huge_pages(length as usize);
    let mut reader = FileReader::new(disk, arena, file, 0, length);
    while let Some(chunk) = reader.next().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok((headers(&bytes), bytes))
}

/// Both copies of the file header. The second lies at the second block, whose size is that of any block there may be
/// if the first copy does not say; and it counts only where its own block size puts it.
fn headers(bytes: &[u8]) -> Vec<Header> {
    let blocks = std::iter::successors(Some(BLOCK_BYTES_MIN), |block| Some(block * 2));
    let blocks = blocks.take_while(|block| *block <= BLOCK_BYTES_MAX);
    let second = blocks.map(|block| {
        let found = FileHeader::decode(bytes.get(block as usize..).unwrap_or_default());
        found.map(|header| header.filter(|header| header.block == block))
    });
    std::iter::once(FileHeader::decode(bytes)).chain(second).collect()
}

/// Bytes to lay over segments, by partition and segment; in order of age.
pub(crate) type Overlay<'a> = HashMap<Incarnation, BTreeMap<Offset, Vec<(u64, &'a [u8])>>>;

/// What all journals say together.
#[derive(Default)]
pub(crate) struct Replayed<'a> {
    pub(crate) overlay: Overlay<'a>,
    pub(crate) groups: u64,
    pub(crate) bytes: u64,
    /// Partitions that damaged groups name.
    pub(crate) suspects: Vec<Incarnation>,
    /// A damaged group does not say whose bytes it held.
    pub(crate) all_suspect: bool,
}

/// Chains every journal's groups and collects what they hold.
pub(crate) fn replay_all<'a>(
    journals: &'a [FoundJournal],
    damage: &mut Vec<JournalDamage>,
) -> Replayed<'a> {
    let mut out = Replayed::default();
    for journal in journals {
        let result = replay(journal.ring(), journal.header.block.into(), journal.header.epoch);
        out.groups += result.groups;
        for (Entry { incarnation, segment, pos, .. }, bytes) in result.overlay {
            out.bytes += bytes.len() as u64;
            let runs = out.overlay.entry(incarnation).or_default().entry(segment).or_default();
            runs.push((pos.get(), bytes));
        }
        for group in result.damaged {
            let whom = match &group.suspects {
                Suspects::Named(named) => {
                    out.suspects.extend(named);
                    "the partitions it names are read-only"
                }
                Suspects::All => {
                    out.all_suspect = true;
                    "both of its tables are damaged, every partition is read-only"
                }
            };
            let reason = format!(
                "group {} near byte {} is damaged although later ones are whole: {whom}",
                group.sequence, group.pos
            );
            damage.push(JournalDamage { path: journal.path.clone(), reason });
        }
    }
    out
}

/// Lays bytes over a segment file: whole blocks, read, changed and written back.
pub(crate) async fn lay_over<D: Disk>(
    disk: &D,
    arena: &Arena,
    file: FileHandle,
    block: u64,
    runs: &[(u64, &[u8])],
) -> io::Result<()> {
    let mut order: Vec<usize> = (0..runs.len()).collect();
    order.sort_by_key(|&at| runs[at].0);
    let mut at = 0;
    while at < order.len() {
        // One read and one write for runs that touch neighbouring blocks, a chunk at most.
        let start = runs[order[at]].0 / block * block;
        let mut end = start;
        let mut members = Vec::new();
        while let Some(&next) = order.get(at) {
            let (pos, bytes) = runs[next];
            let run_end = (pos + bytes.len() as u64).next_multiple_of(block);
            let joins = pos / block * block <= end.max(start);
            if !members.is_empty() && (!joins || run_end.max(end) - start > CHUNK_BYTES_MAX as u64)
            {
                break;
            }
            end = end.max(run_end);
            members.push(next);
            at += 1;
        }
        members.sort_unstable();
        let parts: Vec<_> = members.into_iter().map(|member| runs[member]).collect();
        lay_over_range(disk, arena, file, (start, end), &parts).await?;
    }
    Ok(())
}

async fn lay_over_range<D: Disk>(
    disk: &D,
    arena: &Arena,
    file: FileHandle,
    (start, end): (u64, u64),
    runs: &[(u64, &[u8])],
) -> io::Result<()> {
    for from in (start..end).step_by(CHUNK_BYTES_MAX) {
        let to = end.min(from + CHUNK_BYTES_MAX as u64);
        let len = (to - from) as usize;
        let mut chunk = read_at(disk, arena, file, from, len).await?;
        let had = chunk.len();
        chunk.append_zeros(len - had);
        let mut changed = false;
        for (pos, bytes) in runs {
            let a = (*pos).max(from);
            let b = (pos + bytes.len() as u64).min(to);
            if a < b {
                let part = &bytes[(a - pos) as usize..(b - pos) as usize];
                let at = (a - from) as usize;
                changed |= at + part.len() > had || chunk[at..at + part.len()] != *part;
                chunk.overwrite(at, part);
            }
        }
        if !changed {
            // Already there, as in every block that was written back: a sealed file keeps its length.
            continue;
        }
        let data = chunk.slice(0..len);
        disk.run(Op::Write { file, pos: from, data, durable: false }).await?;
    }
    Ok(())
}

/// Makes a shard's journal empty in its new `epoch`, durably; makes the file if it is not there or not of this
/// size. Returns it open.
pub(crate) async fn empty<D: Disk>(
    disk: &D,
    arena: &Arena,
    (dir, direct): (&Path, bool),
    header: FileHeader,
) -> io::Result<FileHandle> {
    let path = dir.join(names::journal(header.shard));
    let mode = OpenMode { create: true, direct, ..OpenMode::default() };
    let file = open(disk, &path, mode).await?;
    let length = disk.run(Op::Length { file }).await?.into_length();
    if length != header.bytes {
        // The old epoch's groups must be void before the file changes its shape.
        write_header(disk, arena, file, header).await?;
        disk.run(Op::Truncate { file, len: header.bytes }).await?;
        prezero(disk, arena, file, length.min(header.bytes), header).await?;
    }
    write_header(disk, arena, file, header).await?;
    disk.run(Op::Sync { file, data_only: false }).await?;
    Ok(file)
}

async fn prezero<D: Disk>(
    disk: &D,
    arena: &Arena,
    file: FileHandle,
    from: u64,
    header: FileHeader,
) -> io::Result<()> {
    let no_memory = || io::Error::from_raw_os_error(libc::ENOMEM);
    let mut zeros = arena.chunk(CHUNK_BYTES_MAX).ok_or_else(no_memory)?;
    zeros.append_zeros(CHUNK_BYTES_MAX);
    let from = from.max(FILE_HEADER_BLOCKS * u64::from(header.block));
    let from = from / u64::from(header.block) * u64::from(header.block);
    if header.bytes > from {
        let len = header.bytes - from;
        match disk.run(Op::Allocate { file, pos: from, len }).await {
            Err(error) if error.raw_os_error() != Some(libc::EOPNOTSUPP) => return Err(error),
            _ => {}
        }
    }
    let writes = (from..header.bytes).step_by(CHUNK_BYTES_MAX).map(|pos| {
        let bytes = (header.bytes - pos).min(CHUNK_BYTES_MAX as u64) as usize;
        disk.run(Op::Write { file, pos, data: zeros.slice(0..bytes), durable: false })
    });
    let limit = crate::limits::PREZERO_WRITES_IN_FLIGHT;
    for written in crate::local::join_bounded(limit, writes).await {
        written?;
    }
    disk.run(Op::Sync { file, data_only: false }).await.map(drop)
}

/// Writes the file header of an epoch: even and odd epochs in turn, so that a torn write leaves the other.
async fn write_header<D: Disk>(
    disk: &D,
    arena: &Arena,
    file: FileHandle,
    header: FileHeader,
) -> io::Result<()> {
    let no_memory = || io::Error::from_raw_os_error(libc::ENOMEM);
    let block = header.block as usize;
    let mut chunk = arena.chunk(block).ok_or_else(no_memory)?;
    chunk.append(&header.encode());
    chunk.append_zeros(block - FileHeader::BYTES);
    let pos = ((header.epoch >> 32) % FILE_HEADER_BLOCKS) * header.block as u64;
    let data = chunk.slice(0..block);
    disk.run(Op::Write { file, pos, data, durable: true }).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_file_header_is_found_whatever_the_block() {
        let mut block = BLOCK_BYTES_MIN;
        while block <= BLOCK_BYTES_MAX {
            let header =
                FileHeader { epoch: 5 << 32, block, bytes: 4 << 20, shard: 1, directory: 7 };
            let newer = FileHeader { epoch: 6 << 32, ..header };
            let mut bytes = vec![0; 4 << 17];
            // The first copy is torn, and what the second one's block holds behind it is no header.
            bytes[..32].copy_from_slice(&newer.encode()[..32]);
            bytes[block as usize..][..FileHeader::BYTES].copy_from_slice(&header.encode());
            let found: Vec<_> = headers(&bytes).into_iter().flatten().flatten().collect();
            assert_eq!(found, [header], "block {block}");
            bytes[..FileHeader::BYTES].copy_from_slice(&newer.encode());
            let found: Vec<_> = headers(&bytes).into_iter().flatten().flatten().collect();
            assert_eq!(found, [newer, header], "block {block}");
            block *= 2;
        }
        let elsewhere =
            FileHeader { epoch: 5 << 32, block: 8192, bytes: 1, shard: 1, directory: 7 };
        let mut bytes = vec![0; 4 << 17];
        bytes[4096..][..FileHeader::BYTES].copy_from_slice(&elsewhere.encode());
        assert!(headers(&bytes).into_iter().flatten().flatten().next().is_none(), "misplaced");
    }
}
