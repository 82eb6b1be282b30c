//! The raw device, through a [`Ring`]: what the same bytes cost without a log around them.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ringmain::buffers::{Arena, CHUNK_BYTES_MAX, Slice};
use ringmain::command::{Done, FileHandle, Op, OpenMode};
use ringmain::ring::{Ring, Wait};

use crate::histogram::Latencies;
use crate::interrupt;
use crate::payload::Payload;
use crate::prepared::write_zeros;
use crate::sample::Sample;

/// Largest write: larger ones are not one operation of the engine either.
pub const WRITE_BYTES_MAX: usize = CHUNK_BYTES_MAX;

/// One mebibyte in flight, cut in every way: the best is what a group commit is measured against.
pub const SPLITS: [(usize, usize); 4] =
    [(64 << 10, 16), (128 << 10, 8), (256 << 10, 4), (512 << 10, 2)];

/// Chunks of distinct bytes that writes take turns with. Few enough that an ordinary user, who may lock 8 MiB in
/// all his rings together, has them registered.
const CHUNKS: usize = 8;

/// Memory for these chunks.
pub const ARENA_BYTES: usize = CHUNKS * CHUNK_BYTES_MAX;

/// No disk flushes its cache faster, not even one whose cache survives a power cut behind a hypervisor.
const FLUSH_MIN: Duration = Duration::from_micros(20);

/// What to write, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// Bytes of a write.
    pub write_bytes: usize,
    /// Writes in flight.
    pub depth: usize,
    /// Whether each write is flushed (`RWF_DSYNC`).
    pub durable: bool,
    /// Which of the device's plots, by its number.
    pub plot: usize,
    /// Over how many of its files the writes go in turn.
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
    /// Prepares `count` files of `file_bytes` in `dir`.
    ///
    /// # Errors
    /// If they can't be written, or the user stops the run.
    pub fn prepare(dir: &Path, count: usize, file_bytes: u64) -> Result<Self> {
        let paths: Vec<_> = (0..count).map(|nth| dir.join(format!("device-{nth}"))).collect();
        let mut direct = true;
        for path in &paths {
            direct &= write_zeros(path, file_bytes)?.direct;
        }
        flush_all(dir)?;
        Ok(Self { paths, file_bytes, direct })
    }
}

/// A plot's files, open, and where the next write to each goes.
struct Field {
    files: Vec<(FileHandle, u64)>,
    file_bytes: u64,
}

/// Prepared files, open on a ring, and bytes to write to them.
pub struct Device<R: Ring> {
    ring: R,
    fields: Vec<Field>,
    data: Vec<Slice>,
    /// Writes so far, of all jobs: the next one takes other bytes than the last.
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
        let mut bytes = vec![0_u8; CHUNK_BYTES_MAX];
        let data = (0..CHUNKS).map(|_| {
            let mut chunk = arena.chunk(CHUNK_BYTES_MAX).context("the arena is too small")?;
            cursor.fill(&mut bytes);
            chunk.append(&bytes);
            Ok(chunk.slice(0..CHUNK_BYTES_MAX))
        });
        let data = data.collect::<Result<Vec<Slice>>>()?;
        let mut device =
            Self { ring, fields: Vec::new(), data, turn: 0, registered: registered > 0 };
        for plot in plots {
            let files = plot.paths.iter().map(|path| Ok((device.open_file(path, plot.direct)?, 0)));
            let files = files.collect::<Result<Vec<_>>>()?;
            device.fields.push(Field { files, file_bytes: plot.file_bytes });
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

    /// Whether the kernel took the memory as registered buffers.
    pub fn is_registered(&self) -> bool {
        self.registered
    }

    /// Writes for `time`, then waits until nothing is in flight.
    ///
    /// # Errors
    /// If a write fails, or the user stops the run.
    pub fn run(&mut self, job: &Job, time: Duration) -> Result<Sample> {
        let field = &self.fields[job.plot];
        assert!(job.files <= field.files.len(), "as many files as were prepared");
        assert!(job.write_bytes <= WRITE_BYTES_MAX, "one operation");
        assert!(job.depth <= self.ring.capacity(), "the ring holds them");
        let room = field.file_bytes / job.write_bytes as u64 * job.files as u64;
        assert!(room >= job.depth as u64, "two writes in flight never share a block");
        let mut started = vec![Instant::now(); job.depth];
        let mut idle: Vec<usize> = (0..job.depth).collect();
        let mut sample = Sample::empty(time);
        let begin = Instant::now();
        let until = begin + time;
        loop {
            interrupt::check()?;
            if Instant::now() < until {
                while let Some(slot) = idle.pop() {
                    started[slot] = Instant::now();
                    self.start(slot, job);
                }
            } else if idle.len() == job.depth {
                break;
            }
            self.ring.enter(Wait::AtMost(Duration::from_secs(1))).context("the ring is broken")?;
            while let Some(completion) = self.ring.pop() {
                completion.result.context("the device does not write")?;
                let (slot, now) = (completion.token as usize, Instant::now());
                idle.push(slot);
                if now < until {
                    sample.latencies.record((now - started[slot]).as_nanos() as u64);
                    sample.records += 1;
                    sample.bytes += job.write_bytes as u64;
                }
            }
        }
        Ok(sample)
    }

    fn start(&mut self, slot: usize, job: &Job) {
        let chunk = &self.data[self.turn % self.data.len()];
        // Each turn of the chunks takes its bytes from a place further on, in whole blocks.
        let places = (CHUNK_BYTES_MAX - job.write_bytes) / 4096 + 1;
        let at = self.turn / self.data.len() % places * 4096;
        let data = chunk.slice(at..at + job.write_bytes);
        let Field { files, file_bytes } = &mut self.fields[job.plot];
        let (file, pos) = &mut files[self.turn % job.files];
        if *pos + job.write_bytes as u64 > *file_bytes {
            *pos = 0;
        }
        let write = Op::Write { file: *file, pos: *pos, data, durable: job.durable };
        *pos += job.write_bytes as u64;
        self.turn += 1;
        self.ring.push(slot as u64, write);
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
    /// Judges the latencies of small durable writes, one at a time.
    pub fn judge(latencies: &Latencies) -> Self {
        if latencies.p50() < FLUSH_MIN { Self::TooFast } else { Self::Plausible }
    }
}

#[cfg(test)]
#[path = "device/tests.rs"]
mod tests;
