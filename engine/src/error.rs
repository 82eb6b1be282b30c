#![doc = include_str!("error.md")]

use std::io;
use std::path::PathBuf;

use crate::types::{Offset, PartitionName};

/// A failed operation on a file: which one, and the system's error number. Kept as a number so that one
/// failure can be told to many waiting appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What was being done, such as `"segment write"`.
    pub operation: &'static str,
    /// The error number of the operating system.
    pub errno: i32,
}

impl Fault {
    /// Takes the number out of an error of the operating system.
    #[must_use]
    pub fn new(operation: &'static str, error: &io::Error) -> Self {
        Self { operation, errno: error.raw_os_error().unwrap_or(libc::EIO) }
    }

    /// Whether the disk is full (or a quota is reached): it may pass by itself.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self.errno, libc::ENOSPC | libc::EDQUOT)
    }

    /// Whether trying again later makes sense, because nothing was begun: a full disk, or too many open files.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        self.is_full() || matches!(self.errno, libc::EMFILE | libc::ENFILE)
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} failed: {}", self.operation, io::Error::from_raw_os_error(self.errno))
    }
}

impl std::error::Error for Fault {}

/// Why an append was not acknowledged. Each variant says whether the batch may be in the log all the same:
/// [`AppendError::outcome`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The shard's memory or places for requests are used up: told by `try_append` at once, by `append` only if
    /// nothing is under way that would free some. Not appended; try again later, or keep fewer under way.
    #[error("overloaded: the shard's memory budget is used up; not appended, try again later")]
    Overloaded,
    /// The batch is larger than a segment or than [`crate::limits::BATCH_BYTES_MAX`]. Not appended; make smaller
    /// batches, or set a larger [`crate::Config::segment_bytes`].
    #[error("a batch of {bytes} bytes is above the limit of {limit} bytes; not appended")]
    TooLarge {
        /// The batch's size.
        bytes: usize,
        /// The most that is accepted.
        limit: usize,
    },
    /// `append_at` named another offset than the next one. Not appended; a replica fetches from the next one, or cuts
    /// its log back first.
    #[error("the next offset is {next}, not {asked}; not appended")]
    WrongOffset {
        /// The log's next offset.
        next: Offset,
        /// The offset named.
        asked: Offset,
    },
    /// `append_at` came from an older leader than an append before it. Not appended; that leader is to be heard no
    /// more.
    #[error("leader epoch {asked} is older than {current}; not appended")]
    StaleEpoch {
        /// The newest epoch seen.
        current: i32,
        /// The epoch named.
        asked: i32,
    },
    /// The disk is full. Not appended; appends are taken again once there is space, for which the engine looks five
    /// times a second.
    #[error("no space on the disk; not appended, free some space and append again")]
    DiskFull,
    /// An earlier failed write or flush closed the partition for appends until the engine is opened again, since nobody
    /// knows what of it is on the disk. Not appended; what was acked is readable. Look at the disk, then reopen.
    #[error("the partition is read-only since: {0}; not appended, restart to recover")]
    Fenced(Fault),
    /// Recovery found damage that no crash explains ([`crate::RecoveryReport::damage`]). Not appended; restore the
    /// partition's directory from a copy, or cut the damage off ([`crate::repair()`]).
    #[error("the partition is read-only: recovery found damage; not appended, see `verify`")]
    Damaged,
    /// The write or its flush failed after it began. The batch may or may not be in the log: open the engine again and
    /// read back to find out.
    #[error("outcome unknown: {0}")]
    Unknown(Fault),
    /// The log was truncated below the batch, or deleted, while the append waited. Not appended: it is no longer there.
    #[error("the log was truncated below the batch before its ack; not appended")]
    Truncated,
    /// The engine, or the partition, is closed or closing. Not appended.
    #[error("the engine is closed; not appended")]
    Closed,
}

/// Whether a batch whose append failed can be in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is not, and never will be.
    NotAppended,
    /// It may be: read back to find out.
    Unknown,
}

impl AppendError {
    /// Whether the batch can be in the log all the same.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Unknown(_) => Outcome::Unknown,
            _ => Outcome::NotAppended,
        }
    }
}

/// What became of a segment behind the engine's back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Alteration {
    /// Its file is gone.
    #[error("its file is missing")]
    Missing,
    /// It was cut, or grew.
    #[error("it has {found} bytes, and was sealed with {sealed}")]
    Length {
        /// Bytes of the file.
        found: u64,
        /// Bytes that were sealed.
        sealed: u64,
    },
    /// Its seal was written for another partition, or in another life of this one.
    #[error("its seal is of another partition, or of another life of this one")]
    OtherLife,
    /// Its seal was written for another segment.
    #[error("its seal is of the segment that begins with {sealed}")]
    Misplaced {
        /// The base offset in the seal.
        sealed: Offset,
    },
    /// The segment behind it is gone.
    #[error("the segment that begins with {next} is missing behind it")]
    NextMissing {
        /// The base offset of the missing one.
        next: Offset,
    },
    /// Its seal was written by a newer version of the engine.
    #[error("its seal is of a newer version, {version}")]
    NewerSeal {
        /// The seal's version.
        version: u32,
    },
    /// It holds batches of offsets that belong elsewhere.
    #[error("the batch at byte {pos} has offsets of another segment")]
    Foreign {
        /// Where in the file.
        pos: u64,
    },
}

/// Why a read gave nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The offset is below the first one, or behind the end. Begin at `start`: records before it were deleted; or at
    /// `end`, and wait.
    #[error(
        "offset {asked} is out of range: the log can be read from {start} on and ends at {end}; begin at {start}, or \
         wait at {end} for what comes"
    )]
    OutOfRange {
        /// The offset asked for.
        asked: Offset,
        /// The first offset there is.
        start: Offset,
        /// One past the last readable offset.
        end: Offset,
    },
    /// The bytes at the offset are not a valid batch: they rotted on the disk, or were written over. Other offsets are
    /// readable; a stream may pass over it ([`crate::AfterDamage`]). `ringmain-bench verify` says how far it goes;
    /// restore from a copy.
    #[error("damage in segment {segment} at byte {pos}, near offset {asked}")]
    Damaged {
        /// The offset asked for.
        asked: Offset,
        /// The segment's base offset.
        segment: Offset,
        /// Where in the segment.
        pos: u64,
    },
    /// The batch is intact, and its records do not decode: it was appended so. Go on behind it.
    #[error("the records of the batch at offset {batch} do not decode")]
    Records {
        /// The batch's first offset.
        batch: Offset,
    },
    /// A sealed segment's files were changed behind the engine's back. Other segments are readable; restore this one
    /// from a copy.
    #[error("segment {segment} is not what was sealed: {what}; restore it from a copy")]
    Altered {
        /// The segment's base offset.
        segment: Offset,
        /// What became of it.
        what: Alteration,
    },
    /// The reader has records of another history: another leader wrote after `epoch`, or its records were cut off. It
    /// drops what it has from `end` on and fetches from there.
    #[error(
        "the reader's epoch is not this log's: its history up to epoch {epoch} ends at {end}; drop what lies behind \
         that, then go on from there"
    )]
    Diverged {
        /// The largest epoch of the log that is not above the reader's.
        epoch: i32,
        /// Where that epoch ends in this log.
        end: Offset,
    },
    /// The log was cut below the reader's position: what it has from `at` on is no longer the log's. It drops that and
    /// fetches from there, without the old mark.
    #[error(
        "the log was cut back to {at} below the reader; drop what lies behind that, then go on from there"
    )]
    Truncated {
        /// The lowest offset to which it was cut since.
        at: Offset,
    },
    /// The partition was deleted, or is being deleted. One made under its name later is another one: ask the engine
    /// for a handle again.
    #[error("the partition was deleted")]
    Deleted,
    /// The segment was compacted between the look for its bytes and their sending: ask again.
    #[error("segment {segment} was compacted meanwhile; ask again from the same offset")]
    Compacted {
        /// The segment's base offset.
        segment: Offset,
    },
    /// The buffer is smaller than the one batch that holds the offset: come with one of `needed` bytes.
    #[error("the batch at the offset has {needed} bytes, the buffer {given}")]
    BufferTooSmall {
        /// The batch's size.
        needed: usize,
        /// The buffer's capacity.
        given: usize,
    },
    /// The file could not be read: the system's error says why. Nothing is fenced by it; ask again.
    #[error(transparent)]
    Disk(Fault),
    /// The shard's memory budget is used up, or as many fetches as it takes wait; try again later.
    #[error("overloaded: the shard has no memory, or no place for another fetch; try again later")]
    Overloaded,
    /// The engine is closed.
    #[error("the engine is closed")]
    Closed,
}

impl ReadError {
    /// The same error, of a call that asked for `offset`.
    pub(crate) fn asked_for(self, offset: Offset) -> Self {
        match self {
            Self::Damaged { segment, pos, .. } => Self::Damaged { asked: offset, segment, pos },
            error => error,
        }
    }
}

/// Why a partition could not be flushed, rolled, truncated, checkpointed or prepared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// An operation on a file failed. Where that leaves the partition's content in doubt it takes no more appends
    /// until the engine is opened again; else the call had no effect and can be made again.
    #[error(transparent)]
    Disk(#[from] Fault),
    /// An earlier fault, or damage, closed the partition for changes: see [`AppendError::Fenced`] and
    /// [`AppendError::Damaged`].
    #[error("the partition is read-only")]
    ReadOnly,
    /// The offset is not in the log, or lies inside a batch; [`crate::LogHandle::find_offset`] says where batches
    /// begin.
    #[error("offset {asked} is not where a batch of {start} to {end} begins")]
    OutOfRange {
        /// The offset asked for.
        asked: Offset,
        /// The first offset there is.
        start: Offset,
        /// The next offset.
        end: Offset,
    },
    /// The bytes at the position are not a valid batch: what was asked for would have had to read them.
    #[error("damage in segment {segment} at byte {pos}")]
    Damaged {
        /// The segment's base offset.
        segment: Offset,
        /// Where in the segment.
        pos: u64,
    },
    /// A compaction was asked for, and the partition's retention has none.
    #[error("the partition's retention has no compaction; set one first")]
    NoCompaction,
    /// A setting is out of its range, which is named. Nothing was changed.
    #[error("out of range: {0}")]
    Setting(&'static str),
    /// A truncation, or another change of the same segments, is under way: try again soon.
    #[error("the partition is being changed; try again later")]
    Busy,
    /// The engine is closed.
    #[error("the engine is closed")]
    Closed,
}

/// Why a socket did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// The ring has no sockets: the simulated one of the engine's own tests.
    #[error("this ring has no sockets")]
    Unsupported,
    /// The system refused, or the connection broke: a reset, a peer that is gone.
    #[error(transparent)]
    Io(#[from] Fault),
    /// The peer sent nothing for as long as [`crate::serve::ListenOptions::idle`]. Drop the connection, or wait once
    /// more.
    #[error("the peer sent nothing for {ms} ms")]
    Idle {
        /// How long was waited, in milliseconds.
        ms: u64,
    },
    /// The peer took no bytes for as long as [`crate::serve::ListenOptions::slow`]; the connection is over.
    #[error("the peer took no bytes for {ms} ms")]
    Slow {
        /// How long was waited, in milliseconds.
        ms: u64,
    },
    /// The service is asked to stop: no more connections, no more requests.
    #[error("the service is stopping")]
    Stopping,
    /// The connection's sending side was shut down before.
    #[error("the connection was shut down for sending")]
    ShutDown,
    /// A part of the log could not be read to be sent; the connection is closed, since its peer waits for the rest.
    #[error("sending from the log: {0}")]
    Log(#[source] ReadError),
}

impl NetError {
    /// Wraps an error of the system.
    #[must_use]
    pub fn io(operation: &'static str, error: &io::Error) -> Self {
        if error.raw_os_error() == Some(libc::EOPNOTSUPP) {
            return Self::Unsupported;
        }
        Self::Io(Fault::new(operation, error))
    }
}

/// Why a service has no output.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServeError {
    /// It panicked. Its connections are closed; the shard goes on. Start it again, or not.
    #[error("the service panicked")]
    Panicked,
    /// It did not end in the time it was given, and was dropped with its connections.
    #[error("the service did not end in the time it was given")]
    Aborted,
    /// There is no such shard.
    #[error("there is no shard {asked}: there are {shards}")]
    NoShard {
        /// The shard asked for.
        asked: usize,
        /// How many there are.
        shards: usize,
    },
    /// It could not be measured how segments go to sockets; say it in the configuration (`read_path`).
    #[error("measuring how segments go to sockets: {0}; set `read_path`")]
    Calibration(String),
    /// The engine is closed.
    #[error("the engine is closed")]
    Closed,
}

/// Why a log could not be had on this shard.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocalError {
    /// There is no such partition: make it with `Engine::log` first.
    #[error("there is no partition {topic}-{partition}")]
    Missing {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
    },
    /// It lives on another shard: use a `LogHandle`.
    #[error("the partition lives on shard {shard}")]
    Elsewhere {
        /// The shard it lives on.
        shard: usize,
    },
}

/// Why a data directory could not be opened, or a partition not be made.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A setting is out of its range. Nothing was touched.
    #[error("configuration: {field} = {value} is out of range: {range}")]
    Config {
        /// The setting.
        field: &'static str,
        /// What it was set to.
        value: String,
        /// What it may be.
        range: &'static str,
    },
    /// The path is not a directory.
    #[error("{0} is not a directory; name a directory for the data")]
    NotADirectory(PathBuf),
    /// The directory holds something that is neither ours nor Kafka's.
    #[error(
        "{path} holds {found}, which is no log's; name an empty directory or an existing data directory"
    )]
    Foreign {
        /// The data directory.
        path: PathBuf,
        /// What was found in it.
        found: String,
    },
    /// Another engine, of this process or another, has the directory open. The lock goes with its holder.
    #[error("{0} is in use by another process; close that first")]
    Locked(PathBuf),
    /// The directory's format is newer than this program.
    #[error("{path} has format version {found}; this program knows {known}: use a newer one")]
    NewerFormat {
        /// The data directory.
        path: PathBuf,
        /// Its version.
        found: u16,
        /// The newest version known here.
        known: u16,
    },
    /// A file of the engine's own is damaged. Nothing was touched: restore that file from a copy.
    #[error("{path} is damaged: {reason}")]
    DamagedFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The name is not one that Kafka accepts.
    #[error("{topic:?} partition {partition} is no legal name: 1 to 249 of a-z A-Z 0-9 . _ -")]
    Name {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
    },
    /// The partition that is to be deleted is not there.
    #[error("there is no partition {0}")]
    Missing(PartitionName),
    /// Backend `uring` was asked for, and this kernel or container forbids it.
    #[error("io_uring is not to be had here: {0}; use the backend `auto` or `sync`")]
    NoUring(String),
    /// A partition could not be deleted, and is there still, or will be gone after the next opening.
    #[error("deleting {name}: {source}")]
    Delete {
        /// The partition.
        name: PartitionName,
        /// Why.
        source: ControlError,
    },
    /// An operation on a file failed. What is missing can be put right (space, permissions, the parent directory), and
    /// the directory opened again.
    #[error("{path}: {operation} failed: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was being done.
        operation: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The engine is closed.
    #[error("the engine is closed")]
    Closed,
}

impl OpenError {
    /// Wraps an error of the file system with the path it concerns.
    #[must_use]
    pub fn io(path: &std::path::Path, operation: &'static str, source: io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), operation, source }
    }
}
