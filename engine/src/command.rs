//! What a log asks of the world and what it hears back: plain data. Nothing here touches a file.

use std::future::Future;
use std::io;
use std::path::PathBuf;

use crate::buffers::{Chunk, Slice};

pub mod sockets;

/// An open file, as a ring names it. Valid until its [`Op::Close`] completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileHandle(pub u32);

/// How a file is opened. All files are opened read-write unless `read_only`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenMode {
    /// Create it if absent.
    pub create: bool,
    /// Fail if it exists (with `create`).
    pub exclusive: bool,
    /// Past the page cache: positions, lengths and memory are multiples of the block.
    pub direct: bool,
    /// No writes.
    pub read_only: bool,
    /// The path is a directory, opened to be fsynced.
    pub directory: bool,
}

/// One operation on the file system. Buffers move in, and come back with the completion.
#[derive(Debug)]
pub enum Op {
    /// Open a file. Completes with [`Done::File`].
    Open {
        /// Where it is.
        path: PathBuf,
        /// How to open it.
        mode: OpenMode,
    },
    /// Close a file. No operation on it may be in flight.
    Close {
        /// The file.
        file: FileHandle,
    },
    /// Write all of `data` at `pos`; with `durable`, completes only once it is on stable storage
    /// (`RWF_DSYNC`). Short writes are continued below this interface.
    Write {
        /// The file.
        file: FileHandle,
        /// First byte written.
        pos: u64,
        /// The bytes.
        data: Slice,
        /// Whether completion means stable storage.
        durable: bool,
    },
    /// Read up to `len` bytes at `pos` into `buf` from its beginning. Completes with [`Done::Read`]; fewer
    /// bytes than asked for means end of file.
    Read {
        /// The file.
        file: FileHandle,
        /// First byte read.
        pos: u64,
        /// How many bytes, at most the buffer's capacity.
        len: usize,
        /// Where to; its length afterwards is what was read.
        buf: Chunk,
    },
    /// Flush a file (or a directory) to stable storage.
    Sync {
        /// The file.
        file: FileHandle,
        /// `fdatasync`: only what is needed to read the data back.
        data_only: bool,
    },
    /// Begin to bring a file's bytes into the page cache (`POSIX_FADV_WILLNEED`).
    Advise {
        /// The file.
        file: FileHandle,
        /// First byte.
        pos: u64,
        /// How many bytes.
        len: u32,
    },
    /// Reserve space, extending the file (`fallocate` mode 0).
    Allocate {
        /// The file.
        file: FileHandle,
        /// First byte reserved.
        pos: u64,
        /// How many bytes.
        len: u64,
    },
    /// Set a file's length.
    Truncate {
        /// The file.
        file: FileHandle,
        /// Its new length in bytes.
        len: u64,
    },
    /// A file's length. Completes with [`Done::Length`].
    Length {
        /// The file.
        file: FileHandle,
    },
    /// Rename a file or a directory, replacing a file.
    Rename {
        /// The old path.
        from: PathBuf,
        /// The new path.
        to: PathBuf,
    },
    /// Remove a file.
    Unlink {
        /// The path.
        path: PathBuf,
    },
    /// Make a directory.
    MakeDir {
        /// The path.
        path: PathBuf,
    },
    /// Remove a directory with all that is in it (one level of files).
    RemoveDir {
        /// The path.
        path: PathBuf,
    },
    /// The names in a directory, sorted. Completes with [`Done::Names`].
    List {
        /// The path.
        path: PathBuf,
    },
}

/// What an operation came to when it succeeded.
#[derive(Debug)]
pub enum Done {
    /// Nothing more to say.
    Unit,
    /// The opened file.
    File(FileHandle),
    /// The buffer that was read into.
    Read(Chunk),
    /// A length in bytes.
    Length(u64),
    /// Sorted names.
    Names(Vec<String>),
}

impl Done {
    /// The file an [`Op::Open`] gave.
    ///
    /// # Panics
    /// If it came from another operation, as the others do.
    #[must_use]
    pub fn into_file(self) -> FileHandle {
        let Self::File(file) = self else { unreachable!("an open gives a file") };
        file
    }

    /// The buffer an [`Op::Read`] filled.
    ///
    /// # Panics
    /// As above.
    #[must_use]
    pub fn into_chunk(self) -> Chunk {
        let Self::Read(chunk) = self else { unreachable!("a read gives a buffer") };
        chunk
    }

    /// The length an [`Op::Length`] found, in bytes.
    ///
    /// # Panics
    /// As above.
    #[must_use]
    pub fn into_length(self) -> u64 {
        let Self::Length(length) = self else { unreachable!("a length gives a length") };
        length
    }

    /// The names an [`Op::List`] found.
    ///
    /// # Panics
    /// As above.
    #[must_use]
    pub fn into_names(self) -> Vec<String> {
        let Self::Names(names) = self else { unreachable!("a list gives names") };
        names
    }
}

/// A finished operation.
#[derive(Debug)]
pub struct Completion {
    /// What the submitter gave with the operation.
    pub token: u64,
    /// How it ended. `raw_os_error()` of the error is always set.
    pub result: io::Result<Done>,
}

/// Cold procedures (recovery, rolling, checkpoints) run against this: one operation at a time per
/// call, any number of calls at once. Implemented by the shard over its ring.
pub trait Disk: Clone + 'static {
    /// Runs `op` to its end. Dropping the future does not cancel the operation.
    fn run(&self, op: Op) -> impl Future<Output = io::Result<Done>> + 'static;
}
