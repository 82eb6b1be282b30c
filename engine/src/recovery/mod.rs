//! Opens a data directory: finds what is there, replays the journals, finds every partition's end, cuts torn
//! tails, flushes what was accepted and empties the journals. Only then is anything readable.
//!
//! Every step may be cut off by another crash; the next recovery begins anew and finds the same. The schedule
//! stands in `docs/durability.md`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::buffers::Arena;
use crate::command::{Disk, Done, Op, OpenMode};
use crate::defects::{self, Defect};
use crate::error::OpenError;
use crate::files::{open, read_small, sync_directory, write_small};
use crate::format::checkpoint::decode_offsets;
use crate::format::fixed::FixedError;
use crate::format::meta::{DirectoryMeta, JournalsMeta, PartitionMeta};
use crate::format::names;
use crate::format::seal::Seal;
use crate::journal::LogId;
use crate::journal::group::FileHeader;
use crate::limits::{RECOVERIES_IN_FLIGHT, RECOVERY_READERS_MAX};
use crate::local::{Semaphore, join_bounded};
use crate::log::{Identity, Shape};
use crate::types::{FlushPolicy, Incarnation, Offset, PartitionName};

mod images;
mod journals;
mod partition;
pub(crate) mod scan;
mod starts;
mod swaps;

pub use journals::JournalDamage;
pub(crate) use partition::{Active, Recovered};
pub use partition::{Cut, Damage};

use images::Home;
use journals::{FoundJournal, Replayed};
use partition::{Recovery, Terms};

/// What opening a data directory found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Whether the directory had been closed cleanly.
    pub clean: bool,
    /// Partitions found.
    pub partitions: usize,
    /// Journal groups that counted.
    pub journal_groups: u64,
    /// Bytes laid over segments from journals.
    pub journal_bytes: u64,
    /// Bytes of segments that were read and checked.
    pub scanned_bytes: u64,
    /// Torn tails that were cut off. Nothing in them was acknowledged as durable.
    pub cuts: Vec<Cut>,
    /// Damage: these partitions are read-only.
    pub damage: Vec<Damage>,
    /// What is wrong with journals. Acknowledged batches may be lost with what they held.
    pub journal_damage: Vec<JournalDamage>,
    /// Partitions that are read-only because a damaged journal group names them, or may have.
    pub suspects: Vec<PartitionName>,
}

/// How a directory is opened.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) dir: PathBuf,
    pub(crate) shape: Shape,
    pub(crate) direct: bool,
    pub(crate) shards: u32,
    pub(crate) journal_bytes: u64,
    pub(crate) flush: FlushPolicy,
}

/// An opened directory.
#[derive(Debug)]
pub(crate) struct OpenedDirectory {
    pub(crate) partitions: Vec<Recovered>,
    pub(crate) report: RecoveryReport,
    /// The epoch of this opening.
    pub(crate) epoch: u64,
    pub(crate) shape: Shape,
    pub(crate) journal_bytes: u64,
}

#[derive(Default)]
struct Listing {
    partitions: Vec<PartitionName>,
    journals: Vec<String>,
    clean: bool,
    /// Kafka's mark of a clean shutdown is there.
    kafkas_clean: bool,
    fresh: bool,
}

/// Opens a data directory. `random` gives numbers that nobody can guess.
pub(crate) async fn recover<D: Disk>(
    disk: &D,
    arena: &Arena,
    mut plan: Plan,
    random: &mut dyn FnMut() -> u64,
) -> Result<OpenedDirectory, OpenError> {
    let listing = list(disk, &plan.dir).await?;
    let meta = directory_meta(disk, arena, &plan, &listing).await?;
    plan.shape.block = meta.block_bytes().into();
    let journals_meta = next_epoch(disk, arena, (&plan, &listing), random).await?;
    let epoch = u64::from(journals_meta.epoch) << 32 | random() >> 32;
    let home = Home {
        dir: plan.dir.clone(),
        direct: plan.direct,
        directory: journals_meta.directory,
        block: meta.block_bytes(),
        epoch,
    };
    let mut report = RecoveryReport { clean: listing.clean, ..RecoveryReport::default() };
    let found = read_journals(disk, arena, &plan, (&listing, journals_meta), &mut report).await?;
    let identities = identities(disk, arena, &plan, &listing, random).await?;
    let replayed = journals::replay_all(&found, &mut report.journal_damage);
    report.journal_groups = replayed.groups;
    report.journal_bytes = replayed.bytes;
    overlay_all(disk, arena, &plan, &identities, &replayed).await?;
    let identities = suspect(disk, arena, identities, &replayed).await?;
    let mut partitions =
        recover_all(disk, arena, (&plan, &home), identities, listing.clean).await?;
    drop(replayed);
    starts::settle(disk, arena, &plan.dir, &partitions).await?;
    sync(disk, &plan.dir).await?;
    let journal_bytes = plan.journal_bytes / plan.shape.block * plan.shape.block;
    empty_journals(disk, arena, &plan, (&home, journal_bytes)).await?;
    let settled = JournalsMeta { journals: plan.shards, ..journals_meta };
    let path = plan.dir.join(names::JOURNALS);
    let written = write_small(disk, arena, path.clone(), &settled.encode()).await;
    written.map_err(|e| OpenError::io(&path, "writing", e))?;
    // First it says which journals there are, then the others go: none is missed if the power goes between.
    sync(disk, &plan.dir).await?;
    remove_other_journals(disk, &plan).await?;
    // Kafka's goes too: it would keep Kafka from looking at what is appended from here on.
    let marks = [(listing.clean, names::CLEAN), (listing.kafkas_clean, names::KAFKAS_CLEAN)];
    for (_, mark) in marks.into_iter().filter(|(is_there, _)| *is_there) {
        let path = plan.dir.join(mark);
        let gone = disk.run(Op::Unlink { path: path.clone() }).await;
        gone.map_err(|e| OpenError::io(&path, "removing", e))?;
    }
    sync(disk, &plan.dir).await?;
    report.partitions = partitions.len();
    for partition in &mut partitions {
        if partition.suspect {
            report.suspects.push(partition.identity.name.clone());
        }
        report.scanned_bytes += partition.scanned_bytes;
        report.cuts.extend(partition.cut.clone());
        report.damage.extend(partition.damage.clone());
    }
    Ok(OpenedDirectory { partitions, report, epoch, shape: plan.shape, journal_bytes })
}

async fn sync<D: Disk>(disk: &D, dir: &Path) -> Result<(), OpenError> {
    let synced = sync_directory(disk, dir.to_path_buf()).await;
    synced.map_err(|e| OpenError::io(dir, "flushing the directory", e))
}

/// What Kafka or a file system keeps beside partitions: left alone.
const NEIGHBOURS: [&str; 8] = [
    "lost+found",
    "meta.properties",
    "bootstrap.checkpoint",
    "replication-offset-checkpoint",
    "remote-log-index-cache",
    names::CALIBRATION,
    names::READ_PATHS,
    names::LOCK,
];

/// The engine's own files of a data directory, beside journals and the clean mark.
const OWN: [&str; 5] =
    [names::META, names::JOURNALS, names::RECOVERY_POINTS, names::LOG_STARTS, names::CLEANED];

/// Directories that Kafka keeps for itself: a replica that is on its way to this disk, one that belongs to no topic
/// any more. Left alone.
fn is_kafkas_alone(name: &str) -> bool {
    name.ends_with("-future") || name.ends_with("-stray")
}

/// Whether a data directory may hold the name.
pub(crate) fn is_known(name: &str) -> bool {
    NEIGHBOURS.contains(&name)
        || OWN.contains(&name)
        || name == names::CLEAN
        || name == names::KAFKAS_CLEAN
        || names::is_journal(name)
        || is_kafkas_alone(name)
        || [names::FOREIGN, ".tmp", names::DELETED, "-delete"].iter().any(|s| name.ends_with(s))
        || PartitionName::from_directory(name).is_some()
}

async fn list<D: Disk>(disk: &D, dir: &Path) -> Result<Listing, OpenError> {
    let io = |error| OpenError::io(dir, "listing", error);
    let found = disk.run(Op::List { path: dir.to_path_buf() }).await.map_err(io)?.into_names();
    let mut out = Listing { fresh: true, ..Listing::default() };
    // Nothing is removed before it is sure that the directory is a log's.
    let (mut files, mut directories) = (Vec::new(), Vec::new());
    for name in found {
        if NEIGHBOURS.contains(&name.as_str()) || OWN.contains(&name.as_str()) {
            out.fresh &= name != names::META;
        } else if name == names::CLEAN {
            out.clean = true;
        } else if name == names::KAFKAS_CLEAN {
            out.kafkas_clean = true;
        } else if name.ends_with(names::FOREIGN) || is_kafkas_alone(&name) {
        } else if names::is_journal(&name) {
            out.journals.push(name);
        } else if name.ends_with(".tmp") {
            files.push(dir.join(&name));
        } else if name.ends_with(names::DELETED) || name.ends_with("-delete") {
            directories.push(dir.join(&name));
        } else if let Some(partition) = PartitionName::from_directory(&name) {
            out.partitions.push(partition);
        } else {
            return Err(OpenError::Foreign { path: dir.to_path_buf(), found: name });
        }
    }
    for path in files {
        disk.run(Op::Unlink { path }).await.map_err(io)?;
    }
    for path in directories {
        disk.run(Op::RemoveDir { path }).await.map_err(io)?;
    }
    Ok(out)
}

pub(crate) fn fixed(path: &Path, error: FixedError) -> OpenError {
    match error {
        FixedError::NewerVersion { found, known } => OpenError::NewerFormat {
            path: path.to_path_buf(),
            found: found as u16,
            known: known as u16,
        },
        other => OpenError::DamagedFile { path: path.to_path_buf(), reason: other.to_string() },
    }
}

async fn read<D: Disk>(disk: &D, arena: &Arena, path: &Path) -> Result<Option<Vec<u8>>, OpenError> {
    read_small(disk, arena, path).await.map_err(|e| OpenError::io(path, "reading", e))
}

async fn directory_meta<D: Disk>(
    disk: &D,
    arena: &Arena,
    plan: &Plan,
    listing: &Listing,
) -> Result<DirectoryMeta, OpenError> {
    let path = plan.dir.join(names::META);
    if let Some(bytes) = read(disk, arena, &path).await? {
        return DirectoryMeta::decode(&bytes).map_err(|e| fixed(&path, e));
    }
    if !listing.journals.is_empty() {
        let reason = "missing although there are journals; restore it from a backup".to_owned();
        return Err(OpenError::DamagedFile { path, reason });
    }
    let meta = DirectoryMeta::new(plan.shape.block as u32);
    let written = write_small(disk, arena, path.clone(), &meta.encode()).await;
    written.map_err(|e| OpenError::io(&path, "writing", e))?;
    sync(disk, &plan.dir).await?;
    Ok(meta)
}

/// Makes the epoch of this opening durable, before anything is written in it.
async fn next_epoch<D: Disk>(
    disk: &D,
    arena: &Arena,
    (plan, listing): (&Plan, &Listing),
    random: &mut dyn FnMut() -> u64,
) -> Result<JournalsMeta, OpenError> {
    let path = plan.dir.join(names::JOURNALS);
    let was = match read(disk, arena, &path).await? {
        Some(bytes) => JournalsMeta::decode(&bytes).map_err(|e| fixed(&path, e))?,
        None if !listing.journals.is_empty() => {
            let reason = "missing although there are journals; restore it from a backup".to_owned();
            return Err(OpenError::DamagedFile { path, reason });
        }
        None => JournalsMeta { directory: random(), epoch: 0, journals: 0 },
    };
    let now = JournalsMeta { epoch: was.epoch + 1, ..was };
    let written = write_small(disk, arena, path.clone(), &now.encode()).await;
    written.map_err(|e| OpenError::io(&path, "writing", e))?;
    sync(disk, &plan.dir).await?;
    Ok(now)
}

async fn read_journals<D: Disk>(
    disk: &D,
    arena: &Arena,
    plan: &Plan,
    (listing, meta): (&Listing, JournalsMeta),
    report: &mut RecoveryReport,
) -> Result<Vec<FoundJournal>, OpenError> {
    let mut found = Vec::new();
    // After a clean shutdown the journals hold nothing that is not in the segments.
    for name in listing.journals.iter().filter(|_| !listing.clean) {
        let path = plan.dir.join(name);
        let damage = &mut report.journal_damage;
        let place = (path, plan.direct);
        found.extend(journals::read(disk, arena, place, meta.directory, damage).await?);
    }
    if !listing.clean {
        for shard in 0..meta.journals {
            let name = names::journal(shard);
            if !listing.journals.contains(&name) {
                report.journal_damage.push(JournalDamage {
                    path: plan.dir.join(name),
                    reason: "missing: batches acknowledged since its last checkpoint may be lost"
                        .to_owned(),
                });
            }
        }
    }
    Ok(found)
}

struct Known {
    identity: Identity,
    relaxed: bool,
    foreign: bool,
    suspect: bool,
    compacted: bool,
    recovery_point: Offset,
    log_start: Offset,
    cleaned: Option<Offset>,
}

async fn identities<D: Disk>(
    disk: &D,
    arena: &Arena,
    plan: &Plan,
    listing: &Listing,
    random: &mut dyn FnMut() -> u64,
) -> Result<Vec<Known>, OpenError> {
    let points = offsets(disk, arena, &plan.dir.join(names::RECOVERY_POINTS)).await?;
    let starts = offsets(disk, arena, &plan.dir.join(names::LOG_STARTS)).await?;
    let cleaned = offsets(disk, arena, &plan.dir.join(names::CLEANED)).await?;
    let reads = listing.partitions.iter().map(|name| {
        let path = plan.dir.join(name.to_string()).join(names::PARTITION);
        async move { (read(disk, arena, &path).await, path) }
    });
    let metas = join_bounded(RECOVERIES_IN_FLIGHT, reads).await;
    let mut known = Vec::with_capacity(metas.len());
    for ((bytes, path), name) in metas.into_iter().zip(&listing.partitions) {
        let dir = plan.dir.join(name.to_string());
        let bytes = bytes?;
        let foreign = bytes.is_none();
        let meta = if let Some(bytes) = bytes {
            PartitionMeta::decode(&bytes).map_err(|e| fixed(&path, e))?
        } else {
            // A directory that Kafka made: its acks came before a flush.
            let incarnation = Incarnation(random());
            let meta =
                PartitionMeta { incarnation, relaxed: true, suspect: false, compacted: false };
            write_partition_meta(disk, arena, &dir, meta).await?;
            meta
        };
        let identity =
            Identity { id: LogId(0), name: name.clone(), incarnation: meta.incarnation, dir };
        known.push(Known {
            identity,
            relaxed: meta.relaxed,
            foreign,
            suspect: meta.suspect,
            compacted: meta.compacted,
            cleaned: cleaned.get(name).copied(),
            recovery_point: points.get(name).copied().unwrap_or_default(),
            log_start: starts.get(name).copied().unwrap_or_default(),
        });
    }
    Ok(known)
}

/// Writes a partition's own file, durably.
pub(crate) async fn write_partition_meta<D: Disk>(
    disk: &D,
    arena: &Arena,
    dir: &Path,
    meta: PartitionMeta,
) -> Result<(), OpenError> {
    let path = dir.join(names::PARTITION);
    let io = |error| OpenError::io(dir, "writing the partition's file", error);
    write_small(disk, arena, path, &meta.encode()).await.map_err(io)?;
    sync_directory(disk, dir.to_path_buf()).await.map_err(io)
}

async fn offsets<D: Disk>(
    disk: &D,
    arena: &Arena,
    path: &Path,
) -> Result<HashMap<PartitionName, Offset>, OpenError> {
    let Some(text) = read(disk, arena, path).await? else { return Ok(HashMap::new()) };
    // A damaged checkpoint only costs a longer look: without a recovery point all is checked.
    Ok(decode_offsets(&text).unwrap_or_default().into_iter().collect())
}

async fn overlay_all<D: Disk>(
    disk: &D,
    arena: &Arena,
    plan: &Plan,
    known: &[Known],
    replayed: &Replayed<'_>,
) -> Result<(), OpenError> {
    let work = known.iter().filter_map(|known| {
        let segments = replayed.overlay.get(&known.identity.incarnation)?;
        Some((&known.identity, known.cleaned, segments))
    });
    let jobs = work.flat_map(|(Identity { dir, incarnation, .. }, cleaned, segments)| {
        segments.iter().map(move |(base, runs)| {
            let path = dir.join(names::segment(*base));
            async move {
                let sealed = is_sealed(disk, arena, (dir, *base), (*incarnation, runs)).await?;
                if sealed || is_cleaned(disk, (dir, *base), cleaned).await? {
                    return Ok(());
                }
                let mode = OpenMode { direct: plan.direct, ..OpenMode::default() };
                let file = match open(disk, &path, mode).await {
                    Ok(file) => file,
                    // Its directory entry was not durable yet, so nothing in it was acknowledged.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
                    Err(error) => return Err(OpenError::io(&path, "opening", error)),
                };
                let block = plan.shape.block;
                let mut done = journals::lay_over(disk, arena, file, block, runs).await;
                if done.is_ok() {
                    done = disk.run(Op::Sync { file, data_only: false }).await.map(drop);
                }
                let closed = disk.run(Op::Close { file }).await.map(drop);
                done.and(closed).map_err(|e| OpenError::io(&path, "replaying the journal", e))
            }
        })
    });
    join_bounded(RECOVERY_READERS_MAX, jobs).await.into_iter().collect()
}

/// Whether a segment was sealed with all of these bytes in it: flushed, and cut to its data, which whole blocks laid
/// over it would undo.
async fn is_sealed<D: Disk>(
    disk: &D,
    arena: &Arena,
    (dir, base): (&Path, Offset),
    (incarnation, runs): (Incarnation, &[(u64, &[u8])]),
) -> Result<bool, OpenError> {
    let path = dir.join(names::seal(base));
    let seal = read(disk, arena, &path).await?.and_then(|bytes| Seal::decode(&bytes).ok());
    let end = runs.iter().map(|(pos, bytes)| pos + bytes.len() as u64).max().unwrap_or(0);
    Ok(seal.is_some_and(|seal| {
        // One that compaction wrote has other bytes at those places.
        let compacted = seal.compacted && !defects::is(Defect::LayOverCompacted);
        let all = compacted || end <= seal.length.get();
        seal.incarnation == incarnation && seal.base_offset == base && all
    }))
}

/// Whether compaction has gone over a segment, which was sealed then, whatever became of its seal.
async fn is_cleaned<D: Disk>(
    disk: &D,
    (dir, base): (&Path, Offset),
    cleaned: Option<Offset>,
) -> Result<bool, OpenError> {
    let Some(cleaned) = cleaned.filter(|cleaned| base < *cleaned) else { return Ok(false) };
    if defects::is(Defect::LayOverCompacted) {
        return Ok(false);
    }
    let listed = disk.run(Op::List { path: dir.to_path_buf() }).await;
    let names = listed.map_err(|e| OpenError::io(dir, "listing", e))?.into_names();
    let bases = names.iter().filter_map(|name| names::segment_base(name));
    let following = bases.filter(|other| *other > base).min();
    Ok(following.is_some_and(|following| following <= cleaned))
}

async fn recover_all<D: Disk>(
    disk: &D,
    arena: &Arena,
    (plan, home): (&Plan, &Home),
    known: Vec<Known>,
    clean: bool,
) -> Result<Vec<Recovered>, OpenError> {
    let readers = &Semaphore::new(RECOVERY_READERS_MAX);
    let jobs = known.into_iter().map(|known| {
        let terms = Terms {
            shape: plan.shape,
            recovery_point: known.recovery_point,
            log_start: known.log_start,
            relaxed: known.relaxed,
            foreign: known.foreign,
            suspect: known.suspect,
            compacted: known.compacted,
            cleaned: known.cleaned,
            direct: plan.direct,
            clean,
        };
        let dir = known.identity.dir.clone();
        async move {
            let relaxed = plan.flush != FlushPolicy::Group;
            let incarnation = known.identity.incarnation;
            let (suspect, compacted) = (known.suspect, known.compacted);
            let meta = PartitionMeta { incarnation, relaxed, suspect, compacted };
            let identity = known.identity;
            let recovery = Recovery { disk, arena, readers, identity, terms, home };
            let recovered = recovery.run().await;
            let recovered = recovered.map_err(|e| OpenError::io(&dir, "recovering", e))?;
            if relaxed != known.relaxed {
                // All there is has been flushed: from here on the engine's policy says how to judge.
                write_partition_meta(disk, arena, &dir, meta).await?;
            }
            Ok(recovered)
        }
    });
    join_bounded(RECOVERIES_IN_FLIGHT, jobs).await.into_iter().collect()
}

/// Finds out whose acknowledged bytes damaged groups may have held, and has each such partition say so of itself:
/// the journals are about to be emptied.
async fn suspect<D: Disk>(
    disk: &D,
    arena: &Arena,
    mut known: Vec<Known>,
    replayed: &Replayed<'_>,
) -> Result<Vec<Known>, OpenError> {
    for partition in &mut known {
        let incarnation = partition.identity.incarnation;
        let named = replayed.all_suspect || replayed.suspects.contains(&incarnation);
        if named && !std::mem::replace(&mut partition.suspect, true) {
            let (relaxed, compacted) = (partition.relaxed, partition.compacted);
            let meta = PartitionMeta { incarnation, relaxed, suspect: true, compacted };
            write_partition_meta(disk, arena, &partition.identity.dir, meta).await?;
        }
    }
    Ok(known)
}

async fn empty_journals<D: Disk>(
    disk: &D,
    arena: &Arena,
    plan: &Plan,
    (home, bytes): (&Home, u64),
) -> Result<(), OpenError> {
    let io = |error| OpenError::io(&plan.dir, "emptying the journals", error);
    for shard in 0..plan.shards {
        let header = FileHeader {
            epoch: home.epoch,
            block: home.block,
            bytes,
            shard,
            directory: home.directory,
        };
        let place = (plan.dir.as_path(), plan.direct);
        let file = journals::empty(disk, arena, place, header).await.map_err(io)?;
        disk.run(Op::Close { file }).await.map_err(io)?;
    }
    sync(disk, &plan.dir).await
}

/// Removes images, and the journals of shards that are no more.
async fn remove_other_journals<D: Disk>(disk: &D, plan: &Plan) -> Result<(), OpenError> {
    let io = |error| OpenError::io(&plan.dir, "removing old journals", error);
    let kept: Vec<String> = (0..plan.shards).map(names::journal).collect();
    let images = match disk.run(Op::List { path: plan.dir.clone() }).await.map_err(io)? {
        Done::Names(found) => found.into_iter().filter(|name| names::is_journal(name)),
        _ => unreachable!("a list gives names"),
    };
    for name in images.filter(|name| !kept.contains(name)) {
        let path = plan.dir.join(name);
        disk.run(Op::Unlink { path }).await.map_err(io)?;
    }
    Ok(())
}
