//! All arms that were asked for, ready to run: the device, the floor, and the engines.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ringmain::buffers::Arena;
use ringmain::limits::PREPARE_BYTES_MAX;
use ringmain::ring::backend::{AnyRing, Backend, open_ring};
use ringmain::serve::ReadPath;
use ringmain::{Config, LogHandle};

use crate::appends::{Appends, LARGE_BYTES};
use crate::board::Board;
use crate::clients::{Load, drive};
use crate::cores::{Cores, Pinned};
use crate::device::{Device, Job, Plot};
use crate::env::rss_bytes;
use crate::floor::{self, Floor, NotHere};
use crate::payload::Payload;
use crate::plan::{Arm, Row, SLICES};
use crate::reads::{Reads, SEALED_BYTES, Served};
use crate::sample::{Cost, Sample};
use crate::site::{self, Site};
use crate::summary::Measured;
use crate::workdir::WorkDir;

/// Bytes of the device's file.
const DEVICE_BYTES: u64 = 256 << 20;

/// Bytes of each file of the arm that writes to a file a partition.
const DIRECT_BYTES: u64 = 256 << 10;

/// A quarter of the most writes in flight of any raw row: a ring takes four times its queue.
const RING_ENTRIES: u32 = 256;

/// Bounds of the bytes that a slice of a row with one partition may append.
const SLICE_BYTES_MIN: u64 = 16 << 20;
const SLICE_BYTES_MAX: u64 = 896 << 20;

/// Space that stays ready behind them, since the engine readies more once it is used, with room for what is under way
/// when a slice ends.
const AHEAD_BYTES: u64 = PREPARE_BYTES_MAX + (8 << 20);

/// A segment holds the most that a slice appends, and what stays ready behind it.
const SEGMENT_BYTES: u64 = SLICE_BYTES_MAX + AHEAD_BYTES;

/// How much more a slice may append than the one before it would have in its time.
const SLACK: f64 = 1.25;

/// Bytes of a second of a slice at most, for large batches and for small ones: readying their space is a part of it.
const LARGE_BYTES_PER_S: f64 = 1.2e9;
const SMALL_BYTES_PER_S: f64 = 300e6;

/// Slices, and the shorter one before them that is not measured.
const PASSES: u64 = SLICES as u64 + 1;

/// A slice's warm-up, as a share of it.
const WARM_UP: f64 = 0.2;

/// Rows of many partitions share a set of them: so many rows do.
const fn sharers(partitions: u64) -> u64 {
    if partitions > 1000 { 1 } else { 2 }
}

/// Space readied in each partition where there are many, before the first slice. Half of it is used, because
/// the engine readies more from there on.
const fn partition_bytes(partitions: u64) -> u64 {
    if partitions > 1000 { 128 << 10 } else { 1536 << 10 }
}

/// The most bytes that a slice of the row, planned to take `each`, may append, so that no space is readied while the
/// clock runs.
fn slice_bytes(row: &Row, each: Duration) -> u64 {
    if row.partitions > 1 {
        let many = row.partitions;
        return many * partition_bytes(many) / 2 / sharers(many) / PASSES;
    }
    let rate =
        if row.batch_bytes < LARGE_BYTES as u64 { SMALL_BYTES_PER_S } else { LARGE_BYTES_PER_S };
    let bytes = (rate * each.as_secs_f64()) as u64;
    bytes.clamp(SLICE_BYTES_MIN, SLICE_BYTES_MAX).next_multiple_of(1 << 20)
}

/// Whether the row appends to the engine.
fn appends(row: &Row) -> bool {
    matches!(row.arm, Arm::Engine | Arm::Beside)
}

/// Bytes on disk that these rows take.
pub fn bytes_needed(rows: &[&Row], each: Duration) -> u64 {
    let mut bytes = DEVICE_BYTES + floor::FILE_BYTES;
    let reads = rows.iter().filter(|row| matches!(row.arm, Arm::Read(_) | Arm::Beside));
    // An engine of the read rows, and a cold log in another.
    bytes += reads.count().min(2) as u64 * 2 * SEALED_BYTES;
    for row in rows.iter().filter(|row| appends(row)) {
        bytes += match row.partitions {
            1 => {
                let bytes = slice_bytes(row, each) * PASSES;
                bytes + (2 + bytes / SLICE_BYTES_MAX) * AHEAD_BYTES
            }
            many => many * partition_bytes(many),
        };
    }
    bytes
}

/// The partitions of a row, or of several.
struct Topic {
    name: &'static str,
    logs: Vec<LogHandle>,
    /// Where there is one partition.
    space: Cell<Space>,
}

/// Space of a partition's active segment, and how fast it is readied and used.
#[derive(Clone, Copy, Debug, Default)]
struct Space {
    /// Bytes appended to the segment.
    used: u64,
    /// Bytes a second that the last slice appended; 0 before the first one.
    append_per_s: f64,
    /// Bytes a second of readying; 0 if that was not measured yet.
    ready_per_s: f64,
}

impl Space {
    /// Bytes for a slice of `time`, of which readying them takes a part, by the rates of the slice before it. The first
    /// one has none: it is not measured, and a third as long as others.
    fn bytes(self, time: Duration, most: u64) -> u64 {
        const FIRST: u64 = 3;
        if self.append_per_s == 0.0 {
            return (most / FIRST).max(SLICE_BYTES_MIN);
        }
        let ready_per_s = if self.ready_per_s > 0.0 { self.ready_per_s } else { self.append_per_s };
        let fits = time.as_secs_f64() / (1.0 / self.append_per_s + 1.0 / ready_per_s);
        ((SLACK * fits) as u64).clamp(SLICE_BYTES_MIN, most.max(SLICE_BYTES_MIN))
    }
}

/// An engine and the partitions of its rows.
struct Place {
    partitions: u64,
    site: Site,
    topics: Vec<Topic>,
    /// A log that is read past the page cache, where a row wants one.
    cold: Option<Served>,
    /// By how much resident memory grew while this engine was opened and ran; the others idle meanwhile.
    rss_bytes: Cell<u64>,
}

impl Place {
    /// Readies what a slice of `time` appends to the only partition of `topic`, at most `most`. Returns the bytes.
    fn ready(&self, topic: &Topic, (time, most): (Duration, u64)) -> Result<u64> {
        let (begin, before) = (Instant::now(), self.site.stats().prepared_bytes);
        let mut space = topic.space.get();
        let bytes = space.bytes(time, most);
        if space.used + bytes + AHEAD_BYTES > SEGMENT_BYTES {
            site::fresh_segment(&topic.logs, bytes + AHEAD_BYTES)?;
            space.used = 0;
        } else {
            site::prepare(&topic.logs, bytes + AHEAD_BYTES)?;
        }
        let readied = self.site.stats().prepared_bytes - before;
        if readied >= SLICE_BYTES_MIN {
            space.ready_per_s = readied as f64 / begin.elapsed().as_secs_f64();
        }
        topic.space.set(space);
        Ok(bytes)
    }

    fn grown(&self, before: Option<u64>) -> u64 {
        let grown = rss_bytes().zip(before).map_or(0, |(now, before)| now.saturating_sub(before));
        self.rss_bytes.set(self.rss_bytes.get() + grown);
        self.rss_bytes.get()
    }
}

/// The arms.
pub struct Rig<'a> {
    rows: Vec<&'static Row>,
    /// How long a slice was planned to take.
    each: Duration,
    cores: Cores,
    device: Device<AnyRing>,
    direct: bool,
    floor: Option<Floor>,
    /// Why the floor's rows are left out.
    no_floor: Option<String>,
    places: Vec<Place>,
    reads: Option<Reads>,
    fallback: Option<String>,
    payload: &'a Payload,
    board: &'static Board,
}

/// The partitions of a row: its own if it has one, else those of all rows with as many.
fn topic(row: &Row) -> &'static str {
    if row.partitions == 1 { row.name } else { "many" }
}

/// The floor, if a row wants it. Where the machine does not let it run its rows are left out, unless they are all that
/// was asked for; why is said.
fn floor(
    rows: &mut Vec<&'static Row>,
    clients: u32,
    dir: &mut WorkDir,
) -> Result<(Option<Floor>, Option<String>)> {
    const NAME: &str = "floor";
    if !rows.iter().any(|row| row.arm == Arm::Floor) {
        return Ok((None, None));
    }
    match Floor::start(&dir.subdir(NAME)?, clients) {
        Ok(floor) => Ok((Some(floor), None)),
        Err(error) if error.is::<NotHere>() && rows.iter().any(|row| row.arm != Arm::Floor) => {
            rows.retain(|row| row.arm != Arm::Floor);
            dir.remove_subdir(NAME)?;
            Ok((None, Some(format!("{error:#}"))))
        }
        Err(error) => Err(error),
    }
}

impl<'a> Rig<'a> {
    /// Makes files and partitions. Call on a thread that is not pinned.
    ///
    /// # Errors
    /// If something can't be made, or the user stops the run.
    pub fn new(
        mut rows: Vec<&'static Row>,
        each: Duration,
        dir: &mut WorkDir,
        (arena, payload): (&Arena, &'a Payload),
    ) -> Result<Self> {
        let clients = rows.iter().map(|row| row.in_flight as u32).max().unwrap_or(1);
        let (floor, no_floor) = floor(&mut rows, clients, dir)?;
        let places = places(&rows, dir, payload)?;
        let read = rows.iter().any(|row| matches!(row.arm, Arm::Read(_)));
        let reads = read.then(|| Reads::prepare(&dir.subdir("reads")?, payload)).transpose()?;
        let raw = dir.subdir("device")?;
        let cores = Cores::near(&raw);
        let mut plots = vec![Plot::prepare(&raw, 1, DEVICE_BYTES)?];
        let files = rows.iter().find_map(|row| match row.arm {
            Arm::Direct(job) => Some(job.files),
            _ => None,
        });
        if let Some(files) = files {
            plots.push(Plot::prepare(&dir.subdir("direct")?, files, DIRECT_BYTES)?);
        }
        let (ring, fallback) =
            open_ring(Backend::Auto, RING_ENTRIES).context("cannot make a ring")?;
        let device = Device::open(ring, arena, &plots, payload)?;
        let direct = plots.iter().all(|plot| plot.direct);
        let fallback = fallback.map(|reason| reason.to_string());
        let board = Board::leaked(clients);
        Ok(Self {
            rows,
            each,
            cores,
            device,
            direct,
            floor,
            no_floor,
            places,
            reads,
            fallback,
            payload,
            board,
        })
    }

    /// The rows, in the order of the table.
    pub fn rows(&self) -> &[&'static Row] {
        &self.rows
    }

    /// Which core does what.
    pub fn cores(&self) -> Cores {
        self.cores
    }

    /// An arm without slices.
    pub fn unmeasured(&self, row: &'static Row) -> Measured {
        let direct = match row.arm {
            Arm::Floor => self.floor.as_ref().is_some_and(Floor::is_direct),
            Arm::Engine | Arm::Beside => {
                self.place(row).is_some_and(|place| place.site.is_direct())
            }
            Arm::Read(_) => self.reads.as_ref().is_some_and(Reads::is_direct),
            Arm::Device(_) | Arm::Direct(_) | Arm::Recover | Arm::RawRead => self.direct,
        };
        Measured { row, direct, slices: Vec::new(), round_trips: Vec::new() }
    }

    fn place(&self, row: &Row) -> Option<&Place> {
        self.places.iter().find(|place| place.partitions == row.partitions)
    }

    /// Runs an arm for `time`.
    ///
    /// # Errors
    /// If something fails, or the user stops the run.
    pub fn slice(&mut self, row: &Row, time: Duration) -> Result<Sample> {
        match row.arm {
            Arm::Device(job) => self.device(&job, time),
            Arm::Direct(job) => {
                let sample = self.device(&job, time)?;
                // A block holds one batch; what pads it does not count.
                Ok(Sample { bytes: sample.records * row.batch_bytes, ..sample })
            }
            Arm::Floor => self.floor(row, time),
            Arm::Engine => self.engine(row, time),
            Arm::Beside => self.beside(row, time),
            Arm::Read(way) => {
                self.reads.as_mut().context("the logs to be read are not there")?.slice(way, time)
            }
            Arm::Recover | Arm::RawRead => unreachable!("not a row of slices"),
        }
    }

    fn device(&mut self, job: &Job, time: Duration) -> Result<Sample> {
        let _pinned = Pinned::to(self.cores.disk);
        self.device.run(job, time.mul_f64(WARM_UP))?;
        self.device.run(job, time.mul_f64(1.0 - WARM_UP))
    }

    fn floor(&self, row: &Row, time: Duration) -> Result<Sample> {
        let floor = self.floor.as_ref().context("the floor is not running")?;
        let _pinned = Pinned::to(self.cores.clients);
        drive(&mut floor.target(self.payload), &load(row, time, u64::MAX), self.board)
    }

    /// Appends, while a reader goes through a cold log of the same shard. The figures are the writers'.
    fn beside(&self, row: &Row, time: Duration) -> Result<Sample> {
        let place = self.place(row).context("the engine is not open")?;
        let cold = place.cold.as_ref().context("the cold log was not made")?;
        let (core, over) = (self.cores.clients, AtomicBool::new(false));
        thread::scope(|scope| {
            let reader = scope.spawn(|| cold.read_until(core, &over));
            let sample = self.engine(row, time);
            over.store(true, Ordering::Relaxed);
            let read = match reader.join() {
                Ok(read) => read?,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            ensure!(read > 0, "the reader beside the writers read nothing");
            sample
        })
    }

    fn engine(&self, row: &Row, time: Duration) -> Result<Sample> {
        let begin = Instant::now();
        let place = self.place(row).context("the engine is not open")?;
        let topic = place.topics.iter().find(|its| its.name == topic(row));
        let topic = topic.context("the partitions were not made")?;
        let most = slice_bytes(row, self.each);
        let bytes_max = if row.partitions == 1 { place.ready(topic, (time, most))? } else { most };
        // Readying space is part of the slice, but not of what is measured.
        let time = time.saturating_sub(begin.elapsed()).max(time / 3);
        let _pinned = Pinned::to(self.cores.clients);
        let clients = row.in_flight as u32;
        let mut target =
            Appends::new(&topic.logs, clients, row.batch_bytes as usize, self.payload)?;
        let (before, resident) = (place.site.stats(), rss_bytes());
        let sample = drive(&mut target, &load(row, time, bytes_max), self.board)?;
        let cost = Cost {
            journal_size: place.site.journal_bytes(),
            rss_bytes: place.grown(resident),
            ..Cost::between(&before, &place.site.stats())
        };
        let space = topic.space.get();
        topic.space.set(Space {
            used: space.used + cost.batch_bytes,
            append_per_s: sample.bytes as f64 / sample.elapsed.as_secs_f64(),
            ..space
        });
        Ok(Sample { cost: Some(cost), ..sample })
    }

    /// What to know before the figures are quoted.
    pub fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> =
            self.no_floor.iter().map(|why| format!("the floor was not measured: {why}")).collect();
        let sites = self.places.iter().filter_map(|place| place.site.fallback());
        if let Some(reason) = sites.chain(self.fallback.as_deref()).next() {
            notes.push(format!(
                "NO io_uring: {reason}. All rows went through plain system calls on threads, which is \
                 slower; these are not the figures of the engine"
            ));
        }
        if !self.direct {
            notes.push(
                "the file system does not take O_DIRECT: rows went through the page cache"
                    .to_owned(),
            );
        }
        if !self.device.is_registered() && self.fallback.is_none() {
            notes.push(
                "buffers could not be registered (ulimit -l): raw rows cost more CPU than need be"
                    .to_owned(),
            );
        }
        notes
    }

    /// Ends all of it; engines are closed cleanly if their data is to be kept.
    ///
    /// # Errors
    /// The first failure.
    pub fn close(self, keep: bool) -> Result<()> {
        if let Some(floor) = self.floor {
            floor.stop()?;
        }
        if let Some(reads) = self.reads.filter(|_| keep) {
            reads.close()?;
        }
        for place in self.places.into_iter().filter(|_| keep) {
            place.site.close()?;
        }
        self.device.close()
    }
}

fn load(row: &Row, time: Duration, bytes_max: u64) -> Load {
    Load {
        clients: row.in_flight as u32,
        warm_up: time.mul_f64(WARM_UP),
        measured: time.mul_f64(1.0 - WARM_UP),
        spin: Duration::ZERO,
        bytes_max,
    }
}

/// An engine for each count of partitions, so that one row's partitions are not in another row's way.
fn places(rows: &[&'static Row], dir: &mut WorkDir, payload: &Payload) -> Result<Vec<Place>> {
    let mut places: Vec<Place> = Vec::new();
    for row in rows.iter().filter(|row| appends(row)) {
        let resident = rss_bytes();
        let at = places.iter().position(|place| place.partitions == row.partitions);
        let at = if let Some(at) = at {
            at
        } else {
            let at = dir.subdir(&format!("engine-{}", row.partitions))?;
            // A log that is read again and again would not stay cold.
            let read_path = Some(ReadPath::Direct);
            let site = Site::open_with(Config { read_path, ..site::config(&at) })?;
            let (topics, rss_bytes) = (Vec::new(), Cell::new(0));
            let partitions = row.partitions;
            places.push(Place { partitions, site, topics, cold: None, rss_bytes });
            places.len() - 1
        };
        let place = &mut places[at];
        if row.arm == Arm::Beside {
            let log = place.site.logs("cold", 1, 0)?.pop().context("one log")?;
            let seals = true;
            let cold = Served::start(place.site.engine(), log, (SEALED_BYTES, seals), payload)?;
            place.cold = Some(cold);
        }
        if place.topics.iter().any(|its| its.name == topic(row)) {
            continue;
        }
        let bytes = if row.partitions == 1 { 0 } else { partition_bytes(row.partitions) };
        let logs = place.site.logs(topic(row), row.partitions, bytes)?;
        let policy = site::policy(row.policy.context("a row of the engine has a policy")?)?;
        if row.policy != Some("group") {
            for log in &logs {
                log.set_flush_policy_blocking(policy)?;
            }
        }
        place.topics.push(Topic { name: topic(row), logs, space: Cell::default() });
        place.grown(resident);
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1_000_000_000;

    #[test]
    fn a_slice_readies_what_it_has_time_to_use() {
        let second = Duration::from_secs(1);
        let new = Space::default();
        assert_eq!(new.bytes(second, 3 * SLICE_BYTES_MIN), SLICE_BYTES_MIN, "a first look");
        let as_fast = Space { append_per_s: 1e9, ..new };
        let share = |space: Space| space.bytes(second, GB) as f64 / 1e9 / SLACK;
        assert!((share(as_fast) - 0.5).abs() < 1e-6, "half of the time goes to readying");
        let slow = Space { append_per_s: 1e9, ready_per_s: 0.25e9, used: 0 };
        assert!((share(slow) - 0.2).abs() < 1e-6, "four parts of five do");
        assert_eq!(as_fast.bytes(second, GB / 4), GB / 4, "no more than there is room for");
        assert_eq!(as_fast.bytes(Duration::ZERO, GB), SLICE_BYTES_MIN);
        let nothing = Space { append_per_s: 0.0, ready_per_s: 1e9, used: 0 };
        assert_eq!(nothing.bytes(second, GB), GB / 3, "a slice in which nothing was acked");
    }
}
