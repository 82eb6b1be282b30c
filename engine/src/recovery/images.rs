//! Protects a block that recovery is about to rewrite: its image goes into a journal of its own first, so that a
//! torn rewrite is mended by the next recovery.

use std::io;
use std::path::PathBuf;

use crate::buffers::Arena;
use crate::command::{Disk, Op, OpenMode};
use crate::files::{open, sync_directory};
use crate::format::names;
use crate::journal::group::{
    Entry, EntryKind, FILE_HEADER_BLOCKS, FileHeader, GroupHeader, GroupWriter, group_bytes,
};
use crate::types::{Incarnation, Offset, Pos};

/// The data directory, as its journals name it.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    pub(crate) dir: PathBuf,
    pub(crate) direct: bool,
    pub(crate) directory: u64,
    pub(crate) block: u32,
    /// The epoch of this opening.
    pub(crate) epoch: u64,
}

/// Which block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Image {
    pub(crate) incarnation: Incarnation,
    pub(crate) segment: Offset,
    pub(crate) pos: Pos,
}

/// Makes `bytes` at the image's place durable in a journal of their own.
pub(crate) async fn protect<D: Disk>(
    disk: &D,
    arena: &Arena,
    home: &Home,
    image: Image,
    bytes: &[u8],
) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let no_memory = || io::Error::from_raw_os_error(libc::ENOMEM);
    let block = u64::from(home.block);
    let total = group_bytes(1, bytes.len(), block);
    let header = FileHeader {
        epoch: home.epoch,
        block: home.block,
        bytes: FILE_HEADER_BLOCKS * block + total,
        shard: u32::MAX,
        directory: home.directory,
    };
    let mut head = arena.chunk((FILE_HEADER_BLOCKS * block) as usize).ok_or_else(no_memory)?;
    head.append(&header.encode());
    head.append_zeros((FILE_HEADER_BLOCKS * block) as usize - FileHeader::BYTES);
    let entry = Entry {
        incarnation: image.incarnation,
        segment: image.segment,
        pos: image.pos,
        bytes: bytes.len() as u32,
        kind: EntryKind::Data,
    };
    let chunk = arena.chunk(total as usize).ok_or_else(no_memory)?;
    let mut writer = GroupWriter::new(chunk, std::iter::once(entry));
    writer.append(bytes);
    let first = GroupHeader::first(home.epoch);
    let (chunk, _) = writer.finish(first, block);
    let path = home.dir.join(names::image(image.incarnation.0));
    let mode = OpenMode { create: true, direct: home.direct, ..OpenMode::default() };
    let file = open(disk, &path, mode).await?;
    let head_bytes = head.len();
    let head = Op::Write { file, pos: 0, data: head.slice(0..head_bytes), durable: false };
    disk.run(head).await?;
    let data = chunk.slice(0..total as usize);
    disk.run(Op::Write { file, pos: FILE_HEADER_BLOCKS * block, data, durable: false }).await?;
    disk.run(Op::Sync { file, data_only: false }).await?;
    disk.run(Op::Close { file }).await?;
    sync_directory(disk, home.dir.clone()).await
}
