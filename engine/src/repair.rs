//! Cuts a damaged partition back, on demand: what recovery refuses to do by itself. Nothing is thrown away: what is cut
//! off is kept beside the log, under names that openings leave alone.
//!
//! The order is that of a truncation: the recovery point comes down first, copies are durable before anything is
//! cut, and the file is cut last. A crash on the way loses nothing, and the repair can be run again.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::config::Config;
use crate::engine::{Engine, lock_directory};
use crate::error::OpenError;
use crate::files::read_at_most;
use crate::format::checkpoint::{decode_offsets, encode_offsets};
use crate::format::meta::PartitionMeta;
use crate::format::names;
use crate::inspect::source::{Step, Walker};
use crate::limits::SMALL_FILE_BYTES_MAX;
use crate::types::{Offset, PartitionName};

/// Bytes copied at once.
const COPY_BYTES: usize = 1 << 20;

/// Why a partition was not cut. Nothing was changed.
#[derive(Debug, Error)]
pub enum RepairError {
    /// The directory can not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is no such partition.
    #[error("there is no partition {0}")]
    NoPartition(PartitionName),
    /// The log does not reach that far: it is damaged before, or ends there.
    #[error("intact batches end at offset {end} ({}, byte {pos}): cut there or before", .path.display())]
    Unreachable {
        /// The segment file.
        path: PathBuf,
        /// Where in it the intact batches end.
        pos: u64,
        /// One past the last intact record.
        end: Offset,
    },
    /// No batch begins at the offset.
    #[error("offset {asked} is inside a batch; one begins at {begins}")]
    InsideBatch {
        /// The offset asked for.
        asked: Offset,
        /// Where the batch begins that holds it.
        begins: Offset,
    },
    /// The file system refused.
    #[error("{operation} {}", .path.display())]
    Io {
        /// What was being done.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// What a repair did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// The segment that was cut.
    pub segment: PathBuf,
    /// Where it ends now.
    pub pos: u64,
    /// Where what was cut off is kept.
    pub kept: Vec<PathBuf>,
}

/// Cuts the partition so that `at` is its next offset. The directory is opened first, so that what its journals hold is
/// in the segments, and closed again; nobody else may have it open.
///
/// # Errors
/// [`RepairError`].
pub fn repair(config: Config, name: &PartitionName, at: Offset) -> Result<Repaired, RepairError> {
    let dir = config.dir.clone();
    if !dir.join(name.to_string()).is_dir() {
        return Err(RepairError::NoPartition(name.clone()));
    }
    let engine = Engine::open(config)?;
    // It says that damaged partitions could not be closed cleanly, which is why this is called.
    drop(engine.close());
    let _held = lock_directory(&dir)?;
    let partition = dir.join(name.to_string());
    let mut bases = bases(&partition)?;
    let first = bases.first().copied().unwrap_or_default();
    let begins = bases.partition_point(|base| *base <= at);
    let Some(base) = begins.checked_sub(1).map(|at| bases[at]) else {
        return Err(RepairError::InsideBatch { asked: at, begins: first });
    };
    let segment = partition.join(names::segment(base));
    let pos = find(&segment, base, at)?;
    lower(&dir.join(names::RECOVERY_POINTS), name, at)?;
    lower(&dir.join(names::CLEANED), name, at)?;
    let mut kept = Vec::new();
    kept.extend(keep_tail(&segment, pos)?);
    sync(&partition)?;
    for later in bases.split_off(begins).into_iter().rev() {
        let from = partition.join(names::segment(later));
        let to = aside(&from, "");
        fs::rename(&from, &to).map_err(|e| failed("renaming", &from, e))?;
        remove_derived(&partition, later)?;
        sync(&partition)?;
        kept.push(to);
    }
    remove_derived(&partition, base)?;
    sync(&partition)?;
    let file = File::options().write(true).open(&segment);
    let cut = file.and_then(|file| file.set_len(pos).and_then(|()| file.sync_all()));
    cut.map_err(|e| failed("cutting", &segment, e))?;
    clear_suspicion(&partition)?;
    Ok(Repaired { segment, pos, kept })
}

fn failed(operation: &'static str, path: &Path, source: io::Error) -> RepairError {
    RepairError::Io { operation, path: path.to_path_buf(), source }
}

/// The name under which what is cut off is kept: one that no earlier repair has taken.
fn aside(path: &Path, what: &str) -> PathBuf {
    let named = |again: String| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!("{what}{again}{}", names::CUT));
        PathBuf::from(name)
    };
    let mut to = named(String::new());
    let mut again = 1_u64;
    while to.exists() {
        to = named(format!(".{again}"));
        again += 1;
    }
    to
}

fn bases(partition: &Path) -> Result<Vec<Offset>, RepairError> {
    let io = |e| failed("listing", partition, e);
    let mut bases = Vec::new();
    for entry in fs::read_dir(partition).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        bases.extend(names::segment_base(&name.to_string_lossy()));
    }
    bases.sort_unstable();
    Ok(bases)
}

/// Where in the segment the batch begins whose first offset is `at`, or where the data ends if that comes next.
fn find(segment: &Path, base: Offset, at: Offset) -> Result<u64, RepairError> {
    let io = |e| failed("reading", segment, e);
    let mut walker = Walker::open(segment, 1, &[]).map_err(io)?;
    let (mut next, mut begins) = (base, base);
    loop {
        match walker.next().map_err(io)? {
            Step::Batch(pos, batch) if batch.base_offset() >= at => {
                // Offsets that compaction took away belong to no batch.
                return if next <= at { Ok(pos) } else { inside(at, begins) };
            }
            Step::Batch(_, batch) => {
                begins = batch.base_offset();
                next = batch.last_offset().plus(1);
            }
            Step::End(pos, _) if next == at => return Ok(pos),
            Step::End(..) if next > at => return inside(at, begins),
            Step::End(pos, _) => {
                return Err(RepairError::Unreachable { path: segment.into(), pos, end: next });
            }
        }
    }
}

fn inside(asked: Offset, begins: Offset) -> Result<u64, RepairError> {
    Err(RepairError::InsideBatch { asked, begins })
}

/// Recovery must not begin behind the new end, nor take what will come there for compacted.
fn lower(path: &Path, name: &PartitionName, at: Offset) -> Result<(), RepairError> {
    let text = match read_at_most(path, SMALL_FILE_BYTES_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        text => text.map_err(|e| failed("reading", path, e))?,
    };
    // One that does not decode says nothing of anybody.
    let mut points = decode_offsets(&text).unwrap_or_default();
    for (_, point) in points.iter_mut().filter(|(known, _)| known == name) {
        *point = (*point).min(at);
    }
    replace(path, encode_offsets(&points).as_bytes())
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), RepairError> {
    let temporary = PathBuf::from(format!("{}.repair.tmp", path.display()));
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    });
    written.map_err(|e| failed("writing", path, e))?;
    sync(path.parent().unwrap_or(Path::new(".")))
}

fn sync(dir: &Path) -> Result<(), RepairError> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|e| failed("flushing", dir, e))
}

/// Copies what lies behind the cut, up to its last byte that is not zero.
fn keep_tail(segment: &Path, pos: u64) -> Result<Option<PathBuf>, RepairError> {
    let to = aside(segment, &format!(".{pos}"));
    let copied = (|| {
        let from = File::open(segment)?;
        let out = File::options().write(true).create_new(true).open(&to)?;
        let mut buffer = vec![0; COPY_BYTES];
        let (mut at, mut end) = (pos, 0);
        loop {
            let bytes = from.read_at(&mut buffer, at)?;
            if bytes == 0 {
                break;
            }
            out.write_all_at(&buffer[..bytes], at - pos)?;
            if let Some(last) = buffer[..bytes].iter().rposition(|byte| *byte != 0) {
                end = at - pos + last as u64 + 1;
            }
            at += bytes as u64;
        }
        out.set_len(end)?;
        out.sync_all()?;
        if end == 0 {
            fs::remove_file(&to)?;
        }
        Ok(end > 0)
    })();
    let any = copied.map_err(|e| failed("copying to", &to, e))?;
    Ok(any.then_some(to))
}

fn remove_derived(partition: &Path, base: Offset) -> Result<(), RepairError> {
    for derived in [names::index(base), names::time_index(base), names::seal(base)] {
        let path = partition.join(derived);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("removing", &path, error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// What a damaged journal group may have held is lost for good: the partition takes appends again.
fn clear_suspicion(partition: &Path) -> Result<(), RepairError> {
    let path = partition.join(names::PARTITION);
    let bytes =
        read_at_most(&path, SMALL_FILE_BYTES_MAX).map_err(|e| failed("reading", &path, e))?;
    let decoded = PartitionMeta::decode(&bytes);
    let meta = decoded.map_err(|e| failed("reading", &path, io::Error::other(e)))?;
    if meta.suspect {
        replace(&path, &PartitionMeta { suspect: false, ..meta }.encode())?;
    }
    Ok(())
}
