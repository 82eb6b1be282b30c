//! What the raw device does in the same run, through the engine's own ring.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use ringmain::buffers::Arena;
use ringmain::ring::backend::{Backend, open_ring};
use ringmain::types::FlushPolicy;

use super::workload::Workload;
use crate::cores::{Cores, Pinned};
use crate::device::{ARENA_BYTES, Device, Direction, Job, Plot};
use crate::histogram::Latencies;
use crate::payload::Payload;

/// Bytes of the file that is written over and over.
const FILE_BYTES: u64 = 128 << 20;

/// Bytes that all of it takes on the disk.
pub const DISK_BYTES: u64 = FILE_BYTES + FLUSH_FILE_BYTES;

/// Of the file that small blocks are written to.
const FLUSH_FILE_BYTES: u64 = 4 << 20;

/// Of each job.
const TIME: Duration = Duration::from_millis(400);

/// Of the measurement of a flush.
const FLUSH_TIME: Duration = Duration::from_millis(300);

/// What a flush alone costs: blocks of 4 KiB, each durable before the next one begins.
///
/// # Errors
/// If the device can't be written.
pub fn flush_latencies(dir: &Path, payload: &Payload) -> Result<Latencies> {
    let plot = Plot::prepare(dir, 1, FLUSH_FILE_BYTES)?;
    let (ring, _) = open_ring(Backend::Auto, 64).context("cannot make a ring")?;
    let arena = Arena::new(ARENA_BYTES);
    let cores = Cores::near(dir);
    let _pinned = Pinned::to(cores.disk);
    let mut device = Device::open(ring, &arena, &[plot], payload)?;
    let direction = Direction::Write;
    let job = Job { direction, request_bytes: 4 << 10, depth: 1, durable: true, plot: 0, files: 1 };
    let latencies = device.run(&job, FLUSH_TIME)?.latencies;
    device.close()?;
    Ok(latencies)
}

/// The best durable way to have a mebibyte in flight, or large plain writes, as the workload flushes; in mebibytes a
/// second.
///
/// # Errors
/// If the device can't be written.
pub fn device_mib_per_s(dir: &Path, workload: &Workload, payload: &Payload) -> Result<f64> {
    let plot = Plot::prepare(dir, 1, FILE_BYTES)?;
    let (ring, _) = open_ring(Backend::Auto, 64).context("cannot make a ring")?;
    let arena = Arena::new(ARENA_BYTES);
    let cores = Cores::near(dir);
    let _pinned = Pinned::to(cores.disk);
    let mut device = Device::open(ring, &arena, &[plot], payload)?;
    let durable = workload.flush.0 == FlushPolicy::Group;
    let shapes: &[(usize, usize)] =
        if durable { &[(64 << 10, 16), (256 << 10, 4), (512 << 10, 2)] } else { &[(512 << 10, 8)] };
    let mut best = 0.0_f64;
    for &(request_bytes, depth) in shapes {
        let direction = Direction::Write;
        let job = Job { direction, request_bytes, depth, durable, plot: 0, files: 1 };
        best = best.max(device.run(&job, TIME)?.mib_per_s());
    }
    device.close()?;
    Ok(best)
}
