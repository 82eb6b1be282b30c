//! What all parts of an open peer share: its partitions' files, what was counted, and the way back to the measuring
//! thread.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use ringmain::ring::limits::raise_open_files;
use ringmain::types::FlushPolicy;

use super::desk::Desk;
use super::files::Files;
use super::group::{Group, Head};
use super::track::{self, Readying, Track};
use crate::interrupt;
use crate::run::backend::{Completion, Counters, Reader};
use crate::run::values::Prepare;
use crate::run::workload::Workload;

/// Space readied before the clock runs, all partitions together, and most and least of it for one: as much as the
/// engine is given.
const READY_BYTES: u64 = 256 << 20;
const READY_OF_ONE_MAX: u64 = 64 << 20;
const READY_OF_ONE_MIN: u64 = 64 << 10;

/// The files of an instance, and what goes on in them.
pub(super) struct Store {
    dir: PathBuf,
    tracks: Box<[Track]>,
    pub(super) readying: Readying,
    pub(super) policy: FlushPolicy,
    pub(super) desk: Desk,
    written: AtomicU64,
    flushes: AtomicU64,
    prepared: AtomicU64,
}

impl Store {
    /// Makes all partitions in `dir`, with their first files and space in them.
    pub(super) fn make(dir: &Path, workload: &Workload, direct: bool) -> Result<Self> {
        raise_open_files();
        let partitions = u64::from(workload.partitions);
        let file_bytes = track::whole_blocks(workload.segment_bytes.0);
        let step = (READY_BYTES / partitions).clamp(READY_OF_ONE_MIN, READY_OF_ONE_MAX);
        let step_bytes = track::whole_blocks(step.min(file_bytes / 2));
        let policy = workload.flush.0;
        let flushed = policy == FlushPolicy::Group;
        let track = |nth: u32| {
            let dir = track::directory(dir, nth);
            let made = Track::new(dir.clone(), file_bytes, direct).and_then(|track| {
                // Flushed all together below.
                let readying = Readying { how: workload.prepare, step_bytes, flushed: false };
                track.ready_step(readying).map(|_| track)
            });
            interrupt::check()?;
            made.with_context(|| format!("cannot make {}", dir.display()))
        };
        let tracks = (0..workload.partitions).map(track).collect::<Result<_>>()?;
        if flushed {
            flush_all(dir).with_context(|| format!("cannot flush {}", dir.display()))?;
        }
        Ok(Self {
            dir: dir.to_owned(),
            tracks,
            readying: Readying { how: workload.prepare, step_bytes, flushed },
            policy,
            desk: Desk::new(workload.slots()),
            written: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
            prepared: AtomicU64::new(0),
        })
    }

    pub(super) fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    pub(super) fn track(&self, partition: u32) -> &Track {
        &self.tracks[partition as usize]
    }

    /// Where the partition's first batch goes.
    pub(super) fn head(&self, partition: u32) -> Head {
        let ahead = if self.readying.how == Prepare::None { 0 } else { self.readying.step_bytes };
        Head::new(self.track(partition), ahead)
    }

    pub(super) fn count_flushes(&self, flushes: u64) {
        self.flushes.fetch_add(flushes, Ordering::Relaxed);
    }

    pub(super) fn count_prepared(&self, bytes: u64) {
        self.prepared.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn counters(&self) -> Counters {
        let of = |counter: &AtomicU64| Some(counter.load(Ordering::Relaxed));
        Counters {
            written_bytes: of(&self.written),
            flushes: of(&self.flushes),
            prepared_bytes: of(&self.prepared),
        }
    }

    /// Acks a group whose turn it is, `flushed` then; `into` takes its completions.
    pub(super) fn ack(
        &self,
        partition: u32,
        group: &mut Group,
        flushed: Option<Instant>,
        into: &mut Vec<Completion>,
    ) {
        self.track(partition).set_acked(group.end());
        group.complete(flushed, into);
    }

    /// Counts a written group, which took `bytes` on the device, and notes it for the interval's flush, if there is
    /// one.
    pub(super) fn note_written(&self, partition: u32, group: &Group, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
        if let (FlushPolicy::Interval { .. }, Some(file)) = (self.policy, &group.file) {
            self.track(partition).dirtied(file, group.bytes);
        }
    }

    /// A reader of what is acked.
    pub(super) fn reader(self: &Arc<Self>) -> Box<dyn Reader> {
        let partitions = self.tracks.len() as u32;
        let file_bytes = self.tracks.first().map_or(1, Track::file_bytes);
        Box::new(Files::new(self.dir.clone(), partitions, file_bytes, Some(Arc::clone(self))))
    }
}

/// A reader of what an instance left in `dir`.
pub(super) fn reopen(dir: &Path, workload: &Workload) -> Box<dyn Reader> {
    raise_open_files();
    let file_bytes = track::whole_blocks(workload.segment_bytes.0);
    Box::new(Files::new(dir.to_owned(), workload.partitions, file_bytes, None))
}

/// Flushes the file system below `dir`: one call for ten thousand new files.
fn flush_all(dir: &Path) -> std::io::Result<()> {
    let dir = File::open(dir)?;
    // SAFETY: the descriptor is open; no memory is touched.
    if unsafe { libc::syncfs(dir.as_raw_fd()) } == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}
