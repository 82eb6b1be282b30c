//! Sealed logs in which something is looked up, and looking up at random places.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ringmain::batch::BatchBuilder;
use ringmain::error::AppendError;
use ringmain::types::FlushPolicy;
use ringmain::{AppendFuture, Appended, Config, LogHandle};

use crate::board::Board;
use crate::clients::{Acked, Load, Target, drive};
use crate::interrupt;
use crate::payload::{Cursor, Payload};
use crate::random::Random;
use crate::sample::Sample;
use crate::site::{self, Site};

/// Batches of one record each, of about as many bytes: enough for an index entry each to be a lot.
const VALUE_BYTES: usize = 900;

/// Appends in flight while a log is filled.
pub(super) const CLIENTS: u32 = 128;

/// Filling a log takes no longer.
const FILL_MAX: Duration = Duration::from_secs(120);

/// How often it is looked whether segments are sealed.
const LOOK: Duration = Duration::from_millis(20);

/// A slice's warm-up, as a share of it.
const WARM_UP: f64 = 0.1;

/// The timestamp of a log's first record, in milliseconds since the epoch; each has one more than the one before.
pub(super) const FIRST_MS: i64 = 1_700_000_000_000;

/// Distance of index entries at which a segment has none but its first one.
pub(super) const NO_INDEX_BYTES: u32 = 1 << 30;

/// An engine that is small, with index entries so many bytes apart and so much memory.
pub(super) fn config(dir: &Path, index_interval_bytes: u32, memory_bytes: usize) -> Config {
    Config { index_interval_bytes, memory_bytes, journal_bytes: 16 << 20, ..site::config(dir) }
}

/// A sealed log of about `bytes`.
pub(super) struct Sealed {
    /// Reads it.
    pub(super) log: LogHandle,
    /// Records in it: offsets from 0 on, timestamps from [`FIRST_MS`] on.
    pub(super) records: u32,
}

/// Fills a log of `site` and seals it.
pub(super) fn fill(
    site: &Site,
    (topic, bytes): (&str, u64),
    payload: &Payload,
    board: &'static Board,
) -> Result<Sealed> {
    let log = site.logs(topic, 1, 0)?.pop().context("one log")?;
    log.set_flush_policy_blocking(FlushPolicy::Os)?;
    let mut filler = Filler {
        log: &log,
        cursor: payload.cursor(0),
        buffers: (0..CLIENTS).map(|_| Vec::new()).collect(),
        next_ms: FIRST_MS,
    };
    let load = Load {
        clients: CLIENTS,
        warm_up: Duration::ZERO,
        measured: FILL_MAX,
        spin: Duration::ZERO,
        bytes_max: bytes,
    };
    drive(&mut filler, &load, board).context("cannot fill a log")?;
    seal(&log)?;
    let records = log.watermarks_blocking()?.dirty.get() as u32;
    ensure!(records > CLIENTS, "a log of {records} records is none to look for one in");
    Ok(Sealed { log, records })
}

/// Seals all that is in a log, so that it is read from the disk and no more from memory.
pub(super) fn seal(log: &LogHandle) -> Result<()> {
    log.roll_blocking().context("cannot seal a log")?;
    log.flush_blocking().context("cannot seal a log")?;
    let begin = Instant::now();
    // The last one is empty and active. The others are sealed in the background, and until then are in memory.
    while log.segments_blocking()?.iter().rev().skip(1).any(|segment| !segment.sealed) {
        ensure!(begin.elapsed() < FILL_MAX, "the segments are not sealed");
        thread::sleep(LOOK);
    }
    Ok(())
}

struct Filler<'a> {
    log: &'a LogHandle,
    cursor: Cursor<'a>,
    buffers: Vec<Vec<u8>>,
    next_ms: i64,
}

impl Target for Filler<'_> {
    type Fut = AppendFuture;

    fn append(&mut self, client: u32) -> AppendFuture {
        let mut value = [0; VALUE_BYTES];
        self.cursor.fill(&mut value);
        let buffer = std::mem::take(&mut self.buffers[client as usize]);
        let mut builder = BatchBuilder::reuse(buffer);
        builder.add(self.next_ms, None, Some(&value)).expect("one small record");
        self.next_ms += 1;
        self.log.append(builder.build().expect("one small record"))
    }

    fn acked(&mut self, client: u32, output: Result<Appended, AppendError>) -> Result<Acked> {
        self.buffers[client as usize] = output?.buffer;
        Ok(Acked { records: 1, bytes: VALUE_BYTES as u64 })
    }
}

/// Bytes of the files in `dir` whose names end with `ending`.
pub(super) fn bytes_of(dir: &Path, ending: &str) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(ending) {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}

/// Calls `find` with numbers below `records`, drawn anew, one after the other.
pub(super) fn look_up(
    records: u32,
    random: &mut Random,
    time: Duration,
    mut find: impl FnMut(i64) -> Result<()>,
) -> Result<Sample> {
    let warm_up = time.mul_f64(WARM_UP);
    let mut sample = Sample::empty(time.saturating_sub(warm_up));
    let begin = Instant::now();
    loop {
        interrupt::check()?;
        let wanted = i64::from(random.below(records));
        let asked = Instant::now();
        find(wanted)?;
        let now = Instant::now();
        if now - begin >= warm_up {
            sample.latencies.record((now - asked).as_nanos() as u64);
            sample.records += 1;
        }
        // At least one counts, however long it took.
        if now - begin >= time && sample.records > 0 {
            return Ok(sample);
        }
    }
}
