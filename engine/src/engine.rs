//! A data directory, opened: shards on their threads, and the table that leads to partitions.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use crate::buffers::Arena;
use crate::calibrate::{Calibration, PathCalibration, calibrate};
use crate::clock::SystemClock;
use crate::config::Config;
use crate::error::{ControlError, OpenError};
use crate::format::names;
use crate::handle::{LogHandle, Remote};
use crate::inspect::Rotten;
use crate::limits::{
    FILES_MIN, FILES_RESERVED, KEPT_FOR_READERS_NS, RING_ENTRIES, SEGMENT_DATA_BYTES_MAX,
};
use crate::log::Shape;
use crate::recovery::{OpenedDirectory, Plan, Recovered, RecoveryReport, recover};
use crate::ring::backend::{AnyRing, open_ring};
use crate::ring::probe::{FsFacts, FsKind, probe_directory};
use crate::serve::{Home, Homes};
use crate::shard::points::Points;
use crate::shard::state::Settings;
use crate::shard::{attach, delete, driver, scrub, thread};
use crate::stats::{DiskTimes, ShardStats};
use crate::types::{Incarnation, PartitionName, Prepare, WriteMode};

mod serve;

/// What was found out about the place the data is at, and chosen by it.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The file system and the device.
    pub file_system: FsFacts,
    /// Direct or through the page cache.
    pub write_mode: WriteMode,
    /// What the device was measured to do, and the primitive chosen by it.
    pub calibration: Calibration,
    /// Why io_uring is not used, if it is not.
    pub fallback: Option<String>,
    /// Bytes of each shard's memory that are registered with the kernel; 0 with plain system calls.
    pub registered_bytes: Vec<u64>,
}

struct Worker {
    remote: Remote,
    thread: Option<JoinHandle<io::Result<()>>>,
}

/// A durable, partitioned log: a data directory and the shards that serve it.
///
/// Dropping it closes it cleanly; [`Engine::close`] does the same and says how it went.
pub struct Engine {
    workers: Vec<Worker>,
    partitions: Homes,
    config: Config,
    report: RecoveryReport,
    facts: Facts,
    closed: bool,
    paths: OnceLock<PathCalibration>,
    _lock: DirectoryLock,
}

impl Engine {
    /// Opens a data directory: locks it, recovers it, starts the shards. Blocks until all is readable.
    ///
    /// # Errors
    /// [`OpenError`], which names what to do.
    pub fn open(config: Config) -> Result<Self, OpenError> {
        config.check()?;
        make_directory(&config.dir)?;
        refuse_foreign(&config.dir)?;
        let held = lock_directory(&config.dir)?;
        let probed = probe_directory(&config.dir);
        let fs = probed.map_err(|e| OpenError::io(&config.dir, "probing", e))?;
        let backend = config.backend;
        let opened = open_ring(backend, RING_ENTRIES);
        let (mut ring, fallback) = opened.map_err(|e| OpenError::NoUring(e.to_string()))?;
        let write_mode = choose_write_mode(&config, &fs);
        let direct = write_mode == WriteMode::Direct;
        let calibration = calibrate(&config, &mut ring, direct)?;
        let (opened, direct) = recover_directory(&config, &mut ring, (&fs, direct))?;
        drop(ring);
        let plain = matches!(fs.fs, FsKind::Ext4 | FsKind::Xfs);
        let settings = Settings {
            shape: opened.shape,
            prepare: config.prepare,
            direct,
            durability: calibration.durability,
            bounds: calibration.bounds(),
            global_flush: direct && plain && config.prepare == Prepare::Prezero,
            files_max: files_max(&config),
            retention: config.retention,
            scrub_bytes_per_s: config.scrub_bytes_per_s,
            kept_for_readers_ns: KEPT_FOR_READERS_NS,
        };
        let facts = Facts {
            file_system: fs,
            write_mode,
            calibration,
            fallback: fallback.map(|reason| reason.to_string()),
            registered_bytes: Vec::new(),
        };
        Self::start(config, held, opened, settings, facts)
    }

    fn start(
        config: Config,
        held: DirectoryLock,
        opened: OpenedDirectory,
        settings: Settings,
        facts: Facts,
    ) -> Result<Self, OpenError> {
        let points = Arc::new(Points::default());
        let OpenedDirectory { partitions, report, epoch, journal_bytes, .. } = opened;
        for recovered in &partitions {
            let point = recovered.identity.name.clone();
            points.set(point, recovered.recovery_point);
            if let Some(start) = recovered.stated_start() {
                points.restore_start(recovered.identity.name.clone(), start);
            }
            if let Some(cleaned) = recovered.cleaned {
                points.restore_cleaned(recovered.identity.name.clone(), cleaned);
            }
        }
        let mut shares: Vec<Vec<Recovered>> = (0..config.shards).map(|_| Vec::new()).collect();
        for recovered in partitions {
            let shard = shard_of(&config, &recovered.identity.name);
            shares[shard].push(recovered);
        }
        let cores = thread::cores(&config);
        let mut engine = Self {
            workers: Vec::new(),
            partitions: Homes::default(),
            config: config.clone(),
            report,
            facts,
            closed: false,
            paths: OnceLock::new(),
            _lock: held,
        };
        let (ready, started) = mpsc::channel();
        for shard in 0..config.shards {
            let plan = thread::Plan {
                shard,
                core: cores.get(shard % cores.len().max(1)).copied(),
                config: config.clone(),
                settings,
                epoch,
                journal_bytes,
                points: points.clone(),
            };
            let (inbox, thread) = thread::spawn(plan, ready.clone())?;
            engine.workers.push(Worker { remote: Remote::new(inbox), thread: Some(thread) });
        }
        drop(ready);
        let mut registered = vec![0; config.shards];
        for _ in 0..config.shards {
            // A thread that panicked sends nothing: then the channel ends.
            let Ok((shard, started)) = started.recv() else { return Err(OpenError::Closed) };
            let started = started.map_err(|e| OpenError::io(&config.dir, "starting a shard", e));
            let (bytes, fallback) = started?;
            registered[shard] = bytes;
            let told = fallback.map(|reason| reason.to_string());
            engine.facts.fallback = engine.facts.fallback.take().or(told);
        }
        engine.facts.registered_bytes = registered;
        engine.attach_all(shares)?;
        Ok(engine)
    }

    fn attach_all(&mut self, shares: Vec<Vec<Recovered>>) -> Result<(), OpenError> {
        let policy = self.config.flush;
        let replies: Vec<_> = shares
            .into_iter()
            .enumerate()
            .map(|(shard, share)| {
                let attach = move |cx| attach::attach_all(cx, share, policy);
                self.workers[shard].remote.call(attach)
            })
            .collect();
        let mut table = self.partitions.lock();
        for (shard, reply) in replies.into_iter().enumerate() {
            for attached in reply.wait().ok_or(OpenError::Closed)? {
                let (name, log) = attached?;
                table.insert(name, Home { shard, log });
            }
        }
        Ok(())
    }

    /// The log of a partition; made if it is not there. Blocks while it is made.
    ///
    /// # Errors
    /// [`OpenError::Name`], [`OpenError::Io`] or [`OpenError::Closed`].
    pub fn log(&self, topic: &str, partition: u32) -> Result<LogHandle, OpenError> {
        let mut logs = self.logs(&[(topic.to_owned(), partition)])?;
        logs.pop().ok_or(OpenError::Closed)
    }

    /// The logs of many partitions, in the order asked for; those that are not there are made together, so that
    /// they share flushes. Blocks while they are made.
    ///
    /// # Errors
    /// As [`Engine::log`]. Partitions made before the failure stay.
    pub fn logs(&self, wanted: &[(String, u32)]) -> Result<Vec<LogHandle>, OpenError> {
        let names = wanted.iter().map(|(topic, partition)| {
            PartitionName::new(topic, *partition)
                .ok_or_else(|| OpenError::Name { topic: topic.clone(), partition: *partition })
        });
        let names = names.collect::<Result<Vec<_>, _>>()?;
        let mut table = self.partitions.lock();
        let mut missing: Vec<PartitionName> =
            names.iter().filter(|name| !table.contains_key(*name)).cloned().collect();
        missing.sort_unstable();
        missing.dedup();
        if !missing.is_empty() {
            self.create(&mut table, &missing)?;
        }
        let handles = names.iter().map(|name| {
            let home = table[name];
            LogHandle::new(self.workers[home.shard].remote.clone(), home.log, name.clone())
        });
        Ok(handles.collect())
    }

    fn create(
        &self,
        table: &mut BTreeMap<PartitionName, Home>,
        names: &[PartitionName],
    ) -> Result<(), OpenError> {
        let policy = self.config.flush;
        let mut shares: HashMap<usize, Vec<(PartitionName, Incarnation)>> = HashMap::new();
        for name in names {
            let share = shares.entry(shard_of(&self.config, name)).or_default();
            share.push((name.clone(), Incarnation(random())));
        }
        let replies: Vec<_> = shares
            .into_iter()
            .map(|(shard, share)| {
                let create = move |cx| attach::create_all(cx, share, policy);
                (shard, self.workers[shard].remote.call(create))
            })
            .collect();
        let mut made = Vec::new();
        let mut failure = None;
        for (shard, reply) in replies {
            let Some(share) = reply.wait() else {
                failure = Some(OpenError::Closed);
                continue;
            };
            for created in share {
                match created {
                    Ok((name, log)) => made.push((name, Home { shard, log })),
                    Err(error) => failure = Some(error),
                }
            }
        }
        // One flush makes the directory's entries durable for all of them; until then nobody has a handle.
        let synced = File::open(&self.config.dir).and_then(|dir| dir.sync_all());
        synced.map_err(|e| OpenError::io(&self.config.dir, "flushing the directory", e))?;
        table.extend(made);
        failure.map_or(Ok(()), Err)
    }

    /// Deletes a partition with all that is in it. Its handles then answer [`AppendError::Closed`]; a partition made
    /// under the same name later is another one. Blocks until no crash can bring it back; its space is given back
    /// behind that, step by step, and what is left when the engine closes by the next opening.
    ///
    /// [`AppendError::Closed`]: crate::error::AppendError::Closed
    ///
    /// # Errors
    /// [`OpenError::Missing`] if there is none, [`OpenError::Delete`] if it failed.
    pub fn delete(&self, topic: &str, partition: u32) -> Result<(), OpenError> {
        let bad = || OpenError::Name { topic: topic.to_owned(), partition };
        let name = PartitionName::new(topic, partition).ok_or_else(bad)?;
        let mut table = self.partitions.lock();
        let Some(home) = table.get(&name).copied() else { return Err(OpenError::Missing(name)) };
        let reply = self.workers[home.shard].remote.call(move |cx| delete::delete(cx, home.log));
        let deleted = reply.wait().unwrap_or(Err(ControlError::Closed));
        deleted.map_err(|source| OpenError::Delete { name: name.clone(), source })?;
        table.remove(&name);
        Ok(())
    }

    /// The partitions there are, in order of name.
    #[must_use]
    pub fn partitions(&self) -> Vec<PartitionName> {
        self.partitions.lock().keys().cloned().collect()
    }

    /// What opening found and did.
    #[must_use]
    pub fn recovery(&self) -> &RecoveryReport {
        &self.report
    }

    /// What was found out about the place the data is at, and chosen by it.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What each shard counted so far.
    #[must_use]
    pub fn stats(&self) -> Vec<ShardStats> {
        let replies: Vec<_> =
            self.workers.iter().map(|worker| worker.remote.call(thread::stats)).collect();
        replies.into_iter().map(|reply| reply.wait().unwrap_or_default()).collect()
    }

    /// How long the writes and flushes took that acks wait for, of each shard.
    #[must_use]
    pub fn disk_times(&self) -> Vec<DiskTimes> {
        let replies: Vec<_> =
            self.workers.iter().map(|worker| worker.remote.call(thread::disk_times)).collect();
        replies.into_iter().map(|reply| reply.wait().unwrap_or_default()).collect()
    }

    /// The sealed segments that are not what was sealed, by the scrub's last look at each
    /// ([`Config::scrub_bytes_per_s`]). What is intact in them can be read; `ringmain-bench verify` says more, and
    /// [`crate::repair`] cuts.
    #[must_use]
    pub fn rotten(&self) -> Vec<Rotten> {
        let replies: Vec<_> =
            self.workers.iter().map(|worker| worker.remote.call(scrub::rotten)).collect();
        replies.into_iter().flat_map(|reply| reply.wait().unwrap_or_default()).collect()
    }

    /// Closes the engine: appends under way end, everything is flushed, files are cut to their data, and a mark
    /// makes the next opening immediate.
    ///
    /// # Errors
    /// The first failure. The directory is then recovered at the next opening, as after a crash.
    pub fn close(mut self) -> Result<(), ControlError> {
        self.shut_down()
    }

    /// Stops the shards without flushing or marking anything: the directory is left as a crash would leave it, and
    /// the next opening recovers it. For those who throw the data away, and whom a clean shutdown would keep
    /// waiting for nothing.
    pub fn abandon(mut self) {
        self.closed = true;
        // Who waits for a shard that panicked has been told already.
        drop(self.stop_shards());
    }

    fn shut_down(&mut self) -> Result<(), ControlError> {
        if std::mem::replace(&mut self.closed, true) {
            return Ok(());
        }
        self.stop_services();
        let replies: Vec<_> =
            self.workers.iter().map(|w| w.remote.call(attach::close_all)).collect();
        let mut result = Ok(());
        for reply in replies {
            let closed = reply.wait().unwrap_or(Err(ControlError::Closed));
            result = result.and(closed);
        }
        if result.is_ok()
            && let Some(first) = self.workers.first()
        {
            let marked = first.remote.call(attach::mark_clean).wait();
            result = marked.unwrap_or(Err(ControlError::Closed));
        }
        let stopped = self.stop_shards();
        result.and(stopped)
    }

    fn stop_shards(&mut self) -> Result<(), ControlError> {
        for worker in &mut self.workers {
            worker.remote.close();
        }
        let mut result = Ok(());
        for worker in &mut self.workers {
            let Some(thread) = worker.thread.take() else { continue };
            if thread.join().is_err() {
                result = Err(ControlError::Closed);
            }
        }
        result
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Whoever wants to know how it went calls `close`.
        drop(self.shut_down());
    }
}

fn make_directory(dir: &Path) -> Result<(), OpenError> {
    match fs::create_dir(dir) {
        Ok(()) => {
            let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new("."));
            let synced = File::open(parent).and_then(|parent| parent.sync_all());
            synced.map_err(|e| OpenError::io(parent, "flushing the directory", e))
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if dir.is_dir() {
                Ok(())
            } else {
                Err(OpenError::NotADirectory(dir.to_path_buf()))
            }
        }
        Err(error) => Err(OpenError::io(dir, "making the data directory", error)),
    }
}

/// Looks at the names before anything is written: a directory mistaken for a data directory stays as it was.
fn refuse_foreign(dir: &Path) -> Result<(), OpenError> {
    let io = |error| OpenError::io(dir, "listing", error);
    for entry in fs::read_dir(dir).map_err(io)? {
        let found = entry.map_err(io)?.file_name().to_string_lossy().into_owned();
        if !crate::recovery::is_known(&found) {
            return Err(OpenError::Foreign { path: dir.to_path_buf(), found });
        }
    }
    Ok(())
}

/// A data directory that no other engine opens as long as this lives.
#[derive(Debug)]
pub(crate) struct DirectoryLock(File);

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Not by closing it alone: a child between fork and exec holds the descriptor too, and with it the lock.
        let _gone_with_the_descriptor = self.0.unlock();
    }
}

pub(crate) fn lock_directory(dir: &Path) -> Result<DirectoryLock, OpenError> {
    let path = dir.join(names::LOCK);
    let opened = File::options().create(true).truncate(false).write(true).open(&path);
    let file = opened.map_err(|e| OpenError::io(&path, "opening the lock file", e))?;
    match file.try_lock() {
        Ok(()) => Ok(DirectoryLock(file)),
        Err(fs::TryLockError::WouldBlock) => Err(OpenError::Locked(dir.to_path_buf())),
        Err(fs::TryLockError::Error(e)) => Err(OpenError::io(&path, "locking", e)),
    }
}

fn choose_write_mode(config: &Config, fs: &FsFacts) -> WriteMode {
    match config.write_mode {
        Some(WriteMode::Direct) | None if fs.direct => WriteMode::Direct,
        _ => WriteMode::PageCache,
    }
}

fn recover_directory(
    config: &Config,
    ring: &mut AnyRing,
    (fs, direct): (&FsFacts, bool),
) -> Result<(OpenedDirectory, bool), OpenError> {
    let block = fs.block as u64;
    let shape = Shape {
        block,
        segment_bytes: config.segment_bytes.min(SEGMENT_DATA_BYTES_MAX),
        roll_ms: config.roll_ms,
        index_interval: config.index_interval_bytes,
    };
    let plan = Plan {
        dir: config.dir.clone(),
        shape,
        direct,
        shards: config.shards as u32,
        journal_bytes: config.journal_bytes,
        flush: config.flush,
    };
    let arena = Arena::new(crate::limits::RECOVERY_MEMORY_BYTES);
    let recovering = driver::drive(ring, &SystemClock::new(), move |disk| async move {
        recover(&disk, &arena, plan, &mut random).await
    });
    let opened = recovering.map_err(|e| OpenError::io(&config.dir, "recovering", e))??;
    Ok((opened, direct))
}

/// Where a partition belongs: by the placement table, else by a hash that never changes (FNV-1a).
pub(crate) fn shard_of(config: &Config, name: &PartitionName) -> usize {
    let placed = config.placement.iter().find(|(placed, _)| placed == name);
    if let Some((_, shard)) = placed {
        return shard % config.shards;
    }
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = name.topic().bytes().fold(0xcbf2_9ce4_8422_2325, fnv);
    let hash = name.partition().to_be_bytes().into_iter().fold(hash, fnv);
    (hash >> 32) as usize % config.shards
}

/// A number that nobody can guess.
pub(crate) fn random() -> u64 {
    let mut bytes = [0; 8];
    let filled =
        File::open("/dev/urandom").and_then(|mut file| io::Read::read_exact(&mut file, &mut bytes));
    if filled.is_err() {
        use std::hash::{BuildHasher, RandomState};
        // A hasher's keys come from the same source, by another way.
        return RandomState::new().hash_one(std::process::id());
    }
    u64::from_ne_bytes(bytes)
}

/// Open segment files of one shard: its share of what was asked for, or of what the system allows less what all else
/// needs.
fn files_max(config: &Config) -> usize {
    let allowed = crate::ring::limits::raise_open_files() as usize;
    let most = allowed.saturating_sub(FILES_RESERVED);
    let all = if config.files_max == 0 { most } else { config.files_max.min(most) };
    (all / config.shards).max(FILES_MIN)
}
