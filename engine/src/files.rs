//! Small files written and read whole.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::buffers::{Arena, CHUNK_BYTES_MAX, Chunk};
use crate::command::{Disk, Done, FileHandle, Op, OpenMode};
use crate::limits::SMALL_FILE_BYTES_MAX;

/// Files replaced so far by this process.
static REPLACED: AtomicU64 = AtomicU64::new(0);

/// Opens a file.
pub(crate) async fn open<D: Disk>(disk: &D, path: &Path, mode: OpenMode) -> io::Result<FileHandle> {
    Ok(disk.run(Op::Open { path: path.to_path_buf(), mode }).await?.into_file())
}

/// Replaces a file as a whole: a temporary file, flushed, renamed. The directory's flush is the caller's.
pub(crate) async fn write_small<D: Disk>(
    disk: &D,
    arena: &Arena,
    path: PathBuf,
    bytes: &[u8],
) -> io::Result<()> {
    let mut temporary = path.clone().into_os_string();
    // Its own name, should another procedure be replacing the same file: the last rename wins.
    temporary.push(format!(".{}.tmp", REPLACED.fetch_add(1, Ordering::Relaxed)));
    let temporary = PathBuf::from(temporary);
    let file = open(disk, &temporary, OpenMode { create: true, ..OpenMode::default() }).await?;
    let written = write_all(disk, arena, file, bytes).await;
    disk.run(Op::Close { file }).await?;
    if let Err(error) = written {
        // On a full disk what is left of it would take the space that others wait for.
        drop(disk.run(Op::Unlink { path: temporary }).await);
        return Err(error);
    }
    disk.run(Op::Rename { from: temporary, to: path }).await.map(drop)
}

async fn write_all<D: Disk>(
    disk: &D,
    arena: &Arena,
    file: FileHandle,
    bytes: &[u8],
) -> io::Result<()> {
    disk.run(Op::Truncate { file, len: 0 }).await?;
    let mut pos = 0;
    for part in bytes.chunks(CHUNK_BYTES_MAX) {
        let mut chunk = memory(arena, part.len());
        chunk.append(part);
        let data = chunk.slice(0..part.len());
        disk.run(Op::Write { file, pos, data, durable: false }).await?;
        pos += part.len() as u64;
    }
    disk.run(Op::Sync { file, data_only: false }).await.map(drop)
}

/// The first bytes of a file without a ring, at most `max` of them: a file as long as its kind can be is read whole,
/// and one that somebody made longer takes no memory by its length.
pub(crate) fn read_at_most(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a file whole, or its first [`SMALL_FILE_BYTES_MAX`] bytes. `Ok(None)` if there is none.
pub(crate) async fn read_small<D: Disk>(
    disk: &D,
    arena: &Arena,
    path: &Path,
) -> io::Result<Option<Vec<u8>>> {
    let mode = OpenMode { read_only: true, ..OpenMode::default() };
    let file = match open(disk, path, mode).await {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let bytes = read_all(disk, arena, file).await;
    disk.run(Op::Close { file }).await?;
    bytes.map(Some)
}

async fn read_all<D: Disk>(disk: &D, arena: &Arena, file: FileHandle) -> io::Result<Vec<u8>> {
    let length = match disk.run(Op::Length { file }).await? {
        Done::Length(length) => length.min(SMALL_FILE_BYTES_MAX) as usize,
        _ => unreachable!("a length gives a length"),
    };
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let want = (length - bytes.len()).min(CHUNK_BYTES_MAX);
        let part = read_at(disk, arena, file, bytes.len() as u64, want).await?;
        if part.is_empty() {
            break;
        }
        bytes.extend_from_slice(&part);
    }
    Ok(bytes)
}

/// Memory for a procedure, at most a chunk: the arena's or, while appends hold all of that, some of its own. What seals
/// a segment or frees the journal must not fail for want of memory that only it can free.
pub(crate) fn memory(arena: &Arena, bytes: usize) -> Chunk {
    let own =
        || Arena::new(CHUNK_BYTES_MAX).chunk(bytes).expect("a new arena has room for a chunk");
    arena.chunk(bytes).unwrap_or_else(own)
}

/// Reads up to `len` bytes, at most a chunk, at `pos`. Short at the file's end.
pub(crate) async fn read_at<D: Disk>(
    disk: &D,
    arena: &Arena,
    file: FileHandle,
    pos: u64,
    len: usize,
) -> io::Result<Chunk> {
    read_into(disk, file, (pos, len), memory(arena, len)).await
}

/// Reads up to `len` bytes at `pos` into `buf`. Short at the file's end.
pub(crate) async fn read_into<D: Disk>(
    disk: &D,
    file: FileHandle,
    (pos, len): (u64, usize),
    buf: Chunk,
) -> io::Result<Chunk> {
    Ok(disk.run(Op::Read { file, pos, len, buf }).await?.into_chunk())
}

/// Flushes a directory's entries to stable storage.
pub(crate) async fn sync_directory<D: Disk>(disk: &D, path: std::path::PathBuf) -> io::Result<()> {
    let mode = OpenMode { directory: true, read_only: true, ..OpenMode::default() };
    let file = disk.run(Op::Open { path, mode }).await?.into_file();
    let synced = disk.run(Op::Sync { file, data_only: false }).await;
    disk.run(Op::Close { file }).await?;
    synced.map(drop)
}
