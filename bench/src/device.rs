//! The raw device, through a [`Ring`]: what the same bytes cost without a log around them.

use std::fmt;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ringmain::buffers::{Arena, CHUNK_BYTES_MAX, Chunk, LARGE_CHUNK_BYTES_MAX, Slice};
use ringmain::command::{Done, FileHandle, Op, OpenMode};
use ringmain::ring::{Ring, Wait};
use serde::Serialize;

use crate::interrupt;
use crate::payload::Payload;
use crate::prepared::{BLOCK_BYTES, write_with};
use crate::random::Random;
use crate::sample::Sample;

pub mod command;
mod document;
pub mod flags;
mod screen;

/// Largest request: it is one operation, whatever its size.
pub const REQUEST_BYTES_MAX: usize = LARGE_CHUNK_BYTES_MAX;

/// One mebibyte in flight, cut in every way: the best is what a group commit is measured against.
pub const SPLITS: [(usize, usize); 4] =
    [(64 << 10, 16), (128 << 10, 8), (256 << 10, 4), (512 << 10, 2)];

/// Memory for the bytes that are written: each request in flight has its own, up to this much. Little enough that an
/// ordinary user, who may lock 8 MiB in all his rings together, has it registered.
pub const ARENA_BYTES: usize = 8 * CHUNK_BYTES_MAX;

/// Fewest chunks, however large: no write is the same as one beside it.
const CHUNKS_MIN: usize = 2;

/// Memory for jobs: what is written, and what the job that reads most reads into.
pub fn arena(jobs: &[Job]) -> Arena {
    let chunk = |job: &Job| job.request_bytes.next_power_of_two();
    let largest = jobs.iter().map(chunk).fold(CHUNK_BYTES_MAX, usize::max);
    let read = jobs.iter().filter(|job| job.direction == Direction::Read);
    let read = read.map(|job| job.depth * chunk(job)).max().unwrap_or(0);
    Arena::of_chunks(chunks(largest) * largest + read, largest)
}

/// How many chunks of that size there are to write from.
fn chunks(bytes: usize) -> usize {
    (ARENA_BYTES / bytes).max(CHUNKS_MIN)
}

/// No disk flushes its cache faster, not even one whose cache survives a power cut behind a hypervisor.
const FLUSH_MIN: Duration = Duration::from_micros(20);

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// To the device.
    Write,
    /// From it.
    Read,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Write => "write",
            Self::Read => "read",
        })
    }
}

/// What to write or read, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// Which of the two.
    pub direction: Direction,
    /// Bytes of a request, which is one operation.
    pub request_bytes: usize,
    /// Requests in flight.
    pub depth: usize,
    /// Whether each request is flushed before it counts, by `RWF_DSYNC`.
    pub durable: bool,
    /// Which of the device's plots, by its number.
    pub plot: usize,
    /// Over how many of its files the requests go in turn.
    pub files: usize,
}

/// Where a set of prepared files lies.
#[derive(Clone, Debug)]
pub struct Plot {
    /// Their paths.
    pub paths: Vec<PathBuf>,
    /// Bytes of each.
    pub file_bytes: u64,
    /// Whether the file system took O_DIRECT for all of them.
    pub direct: bool,
}

impl Plot {
    /// Prepares `count` files of `file_bytes` in `dir`, all zeros.
    ///
    /// # Errors
    /// If they can't be written, or the user stops the run.
    pub fn prepare(dir: &Path, count: usize, file_bytes: u64) -> Result<Self> {
        Self::prepare_with(dir, count, file_bytes, |_| {})
    }

    /// [`Plot::prepare`] with bytes that `fill` puts over the zeros, for files that are to be read: a device may
    /// know zeros without looking.
    ///
    /// # Errors
    /// As [`Plot::prepare`].
    pub fn prepare_with(
        dir: &Path,
        count: usize,
        file_bytes: u64,
        mut fill: impl FnMut(&mut [u8]),
    ) -> Result<Self> {
        let paths: Vec<_> = (0..count).map(|nth| dir.join(format!("device-{nth}"))).collect();
        let mut direct = true;
        for path in &paths {
            direct &= write_with(path, file_bytes, &mut fill)?.direct;
        }
        flush_all(dir)?;
        Ok(Self { paths, file_bytes, direct })
    }
}

/// A plot's files, open, and where the next request to each goes.
struct Field {
    files: Vec<(FileHandle, u64)>,
    file_bytes: u64,
    /// Whether requests go to places drawn at random, each once before any comes again.
    scattered: bool,
    /// These places, for requests of one size.
    places: Vec<u32>,
}

impl Field {
    /// The file and the position of the request after `turn` others: one file after the other, each from its
    /// beginning to its end and again.
    fn next(&mut self, turn: usize, job: &Job) -> (FileHandle, u64) {
        if self.scattered {
            let place = self.places[turn % self.places.len()];
            return (self.files[0].0, u64::from(place) * job.request_bytes as u64);
        }
        let (file, pos) = &mut self.files[turn % job.files];
        if *pos + job.request_bytes as u64 > self.file_bytes {
            *pos = 0;
        }
        let at = *pos;
        *pos += job.request_bytes as u64;
        (*file, at)
    }

    /// Draws the places of requests of this size, if it has none.
    fn draw(&mut self, request_bytes: usize) {
        let count = (self.file_bytes / request_bytes as u64) as u32;
        if self.places.len() == count as usize {
            return;
        }
        self.places = (0..count).collect();
        let mut random = Random::new(u64::from(count));
        for last in (1..count).rev() {
            self.places.swap(last as usize, random.below(last + 1) as usize);
        }
    }
}

/// Prepared files, open on a ring, and bytes to write to them.
pub struct Device<R: Ring> {
    ring: R,
    fields: Vec<Field>,
    data: Vec<Slice>,
    arena: Arena,
    /// Requests so far, of all jobs.
    turn: usize,
    registered: bool,
}

impl<R: Ring> Device<R> {
    /// Registers the arena with the ring, fills it with payload and opens the files. Call on the thread that
    /// runs the jobs.
    ///
    /// # Errors
    /// If a file can't be opened.
    pub fn open(mut ring: R, arena: &Arena, plots: &[Plot], payload: &Payload) -> Result<Self> {
        let registered = ring.register(arena);
        arena.set_registered(registered as usize);
        let mut cursor = payload.cursor(0);
        let largest = arena.largest();
        let mut bytes = vec![0_u8; largest];
        let data = (0..chunks(largest)).map(|_| {
            let mut chunk = arena.chunk(largest).context("the arena is too small")?;
            cursor.fill(&mut bytes);
            chunk.append(&bytes);
            Ok(chunk.slice(0..largest))
        });
        let data = data.collect::<Result<Vec<Slice>>>()?;
        let (fields, arena) = (Vec::new(), arena.clone());
        let mut device = Self { ring, fields, data, arena, turn: 0, registered: registered > 0 };
        for plot in plots {
            let files = plot.paths.iter().map(|path| Ok((device.open_file(path, plot.direct)?, 0)));
            let files = files.collect::<Result<Vec<_>>>()?;
            let (scattered, places) = (false, Vec::new());
            device.fields.push(Field { files, file_bytes: plot.file_bytes, scattered, places });
        }
        Ok(device)
    }

    fn open_file(&mut self, path: &Path, direct: bool) -> Result<FileHandle> {
        let mode = OpenMode { direct, ..OpenMode::default() };
        let done = self.wait_for(Op::Open { path: path.to_owned(), mode });
        let done = done.with_context(|| format!("cannot open {}", path.display()))?;
        let Done::File(file) = done else { unreachable!("an open completes with a file") };
        Ok(file)
    }

    /// From now on requests to the first file of that plot go to places drawn at random, each once before any comes
    /// again, so that two in flight never share a block.
    pub fn scatter(&mut self, plot: usize) {
        self.fields[plot].scattered = true;
    }

    /// Whether the kernel took the memory as registered buffers.
    pub fn is_registered(&self) -> bool {
        self.registered
    }

    /// Writes or reads for `time`, then waits until nothing is in flight.
    ///
    /// # Errors
    /// If a request fails, or the user stops the run.
    pub fn run(&mut self, job: &Job, time: Duration) -> Result<Sample> {
        let field = &self.fields[job.plot];
        assert!(job.files <= field.files.len(), "as many files as were prepared");
        assert!(job.request_bytes.is_multiple_of(BLOCK_BYTES), "whole blocks");
        assert!(job.request_bytes <= self.arena.largest(), "a chunk holds one");
        assert!(job.depth <= self.ring.capacity(), "the ring holds them");
        let room = field.file_bytes / job.request_bytes as u64 * job.files as u64;
        assert!(room >= job.depth as u64, "two requests in flight never share a block");
        if field.scattered {
            assert_eq!(job.files, 1, "one file's places are drawn");
            self.fields[job.plot].draw(job.request_bytes);
        }
        let mut started = vec![Instant::now(); job.depth];
        let mut idle: Vec<usize> = (0..job.depth).collect();
        let mut spare = self.room_to_read(job)?;
        let mut sample = Sample::empty(time);
        let until = Instant::now() + time;
        loop {
            interrupt::check()?;
            if Instant::now() < until {
                while let Some(slot) = idle.pop() {
                    started[slot] = self.start(slot, job, &mut spare);
                }
            } else if idle.len() == job.depth {
                break;
            }
            // Something is in flight, and its end is awaited. A timeout would be armed each time.
            self.ring.enter(Wait::Forever).context("the ring is broken")?;
            while let Some(completion) = self.ring.pop() {
                let done = completion.result;
                let done =
                    done.with_context(|| format!("the device does not {}", job.direction))?;
                if let Done::Read(mut chunk) = done {
                    ensure!(chunk.len() == job.request_bytes, "a prepared file ends early");
                    chunk.clear();
                    spare.push(chunk);
                }
                let (slot, now) = (completion.token as usize, Instant::now());
                idle.push(slot);
                if now < until {
                    sample.latencies.record((now - started[slot]).as_nanos() as u64);
                    sample.records += 1;
                    sample.bytes += job.request_bytes as u64;
                }
            }
        }
        Ok(sample)
    }

    /// A chunk for each request of a job that reads.
    fn room_to_read(&self, job: &Job) -> Result<Vec<Chunk>> {
        let chunks = if job.direction == Direction::Read { job.depth } else { 0 };
        let chunk = |_| self.arena.chunk(job.request_bytes).context("the arena is too small");
        (0..chunks).map(chunk).collect()
    }

    fn start(&mut self, slot: usize, job: &Job, spare: &mut Vec<Chunk>) -> Instant {
        let started = Instant::now();
        let (file, pos) = self.fields[job.plot].next(self.turn, job);
        let len = job.request_bytes;
        let op = match job.direction {
            Direction::Write => {
                Op::Write { file, pos, data: self.bytes_to_write(slot, len), durable: job.durable }
            }
            Direction::Read => {
                let buf = spare.pop().expect("a chunk for each request");
                Op::Read { file, pos, len, buf }
            }
        };
        self.ring.push(slot as u64, op);
        self.turn += 1;
        started
    }

    /// A request's bytes are always those of its place among those in flight, and no more memory is written from than
    /// is in flight: a virtual disk copies from it, and faster what a processor's cache still holds.
    fn bytes_to_write(&self, slot: usize, len: usize) -> Slice {
        let places = self.data[0].len() / len;
        let chunk = &self.data[slot / places % self.data.len()];
        let at = slot % places * len;
        chunk.slice(at..at + len)
    }

    fn wait_for(&mut self, op: Op) -> Result<Done> {
        self.ring.push(0, op);
        loop {
            self.ring.enter(Wait::Forever)?;
            if let Some(completion) = self.ring.pop() {
                return Ok(completion.result?);
            }
        }
    }

    /// Closes the files.
    ///
    /// # Errors
    /// If that fails.
    pub fn close(mut self) -> Result<()> {
        let fields = std::mem::take(&mut self.fields);
        for (file, _) in fields.into_iter().flat_map(|field| field.files) {
            let done = self.wait_for(Op::Close { file })?;
            ensure!(matches!(done, Done::Unit), "a close completes with nothing more to say");
        }
        Ok(())
    }
}

/// Flushes the file system below `dir`: one call, however many files were written.
fn flush_all(dir: &Path) -> Result<()> {
    let opened = File::open(dir).with_context(|| format!("cannot open {}", dir.display()))?;
    // SAFETY: the descriptor is open; the call touches no memory.
    let flushed = unsafe { libc::syncfs(opened.as_raw_fd()) };
    ensure!(flushed == 0, "cannot flush {}: {}", dir.display(), std::io::Error::last_os_error());
    Ok(())
}

/// Whether a flush can have reached a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// It took as long as a flush takes.
    Plausible,
    /// It was faster than any disk: this device or file system does not flush.
    TooFast,
}

impl Flush {
    /// Judges the median latency of small durable writes, one at a time.
    pub fn judge(p50: Duration) -> Self {
        if p50 < FLUSH_MIN { Self::TooFast } else { Self::Plausible }
    }
}

#[cfg(test)]
#[path = "device/tests.rs"]
mod tests;
