//! Raw reads through the engine's ring: what recovery is measured against.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ringmain::buffers::{Arena, CHUNK_BYTES_MAX};
use ringmain::command::{Done, FileHandle, Op, OpenMode};
use ringmain::ring::backend::{AnyRing, Backend, open_ring};
use ringmain::ring::{Ring, Wait};

/// Reads in flight.
pub const DEPTH: usize = 8;

/// Bytes of a read.
pub const READ_BYTES: usize = CHUNK_BYTES_MAX;

/// Reads up to `bytes` from the files in turn, past the page cache where that works, and says how long as many
/// bytes take.
///
/// # Errors
/// If a file can't be read, or there is nothing in them.
pub fn read_raw(files: &[PathBuf], bytes: u64) -> Result<Duration> {
    let (mut ring, _) = open_ring(Backend::Auto, 16).context("cannot make a ring")?;
    let arena = Arena::new(DEPTH * CHUNK_BYTES_MAX);
    ring.register(&arena);
    let mut strides = Vec::new();
    let mut left = bytes;
    for path in files {
        let length = fs::metadata(path).map_or(0, |meta| meta.len()).min(left);
        let file = open(&mut ring, path)?;
        strides.extend((0..length).step_by(READ_BYTES).map(|pos| (file, pos)));
        left -= length;
        if left == 0 {
            break;
        }
    }
    let begin = Instant::now();
    let mut read = 0_u64;
    let mut waiting = strides.into_iter();
    loop {
        while ring.in_flight() < DEPTH
            && let Some((file, pos)) = waiting.next()
        {
            let buf = arena.chunk(READ_BYTES).context("a chunk a read")?;
            ring.push(0, Op::Read { file, pos, len: READ_BYTES, buf });
        }
        if ring.in_flight() == 0 {
            break;
        }
        ring.enter(Wait::Forever)?;
        while let Some(completion) = ring.pop() {
            if let Done::Read(chunk) = completion.result.context("the device does not read")? {
                read += chunk.len() as u64;
            }
        }
    }
    if read == 0 {
        bail!("there is nothing to read");
    }
    // Reads end on whole chunks and files may be cut by now: the time of as many bytes as were asked for.
    Ok(begin.elapsed().mul_f64(bytes as f64 / read as f64))
}

fn open(ring: &mut AnyRing, path: &Path) -> Result<FileHandle> {
    let told = path.display().to_string();
    for direct in [true, false] {
        let mode = OpenMode { read_only: true, direct, ..OpenMode::default() };
        ring.push(0, Op::Open { path: path.to_owned(), mode });
        let completion = loop {
            if let Some(completion) = ring.pop() {
                break completion;
            }
            ring.enter(Wait::Forever)?;
        };
        match completion.result {
            Ok(Done::File(file)) => return Ok(file),
            Err(error) if direct && error.raw_os_error() == Some(libc::EINVAL) => {}
            other => {
                other.with_context(|| format!("cannot open {told}"))?;
            }
        }
    }
    bail!("cannot open {told}")
}
