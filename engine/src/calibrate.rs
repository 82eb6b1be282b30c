//! Measures the device once, when a data directory is first opened: which durability primitive is faster here, and
//! from how many bytes on a group of one partition is better written straight to its segment.
//!
//! The result is stored in `ringmain.calibration` beside the data and can be overridden. Deleting the file has it
//! measured again.

use std::fs;
use std::path::Path;
use std::time::Instant;

use crate::buffers::Arena;
use crate::command::{Done, FileHandle, Op, OpenMode};
use crate::config::Config;
use crate::error::OpenError;
use crate::format::names;
use crate::log::plan::Bounds;
use crate::ring::{Ring, Wait};
use crate::types::Durability;

mod paths;

pub use paths::PathCalibration;
pub(crate) use paths::calibrate_paths;

/// Writes measured for each figure.
const ROUNDS: usize = 32;
const SMALL_BYTES: usize = 4096;
const LARGE_BYTES: usize = 512 * 1024;
const FILE_BYTES: u64 = 8 << 20;
/// Bounds of the choice, in bytes.
const DIRECT_BYTES_MIN: u64 = 64 * 1024;
const DIRECT_BYTES_MAX: u64 = 384 * 1024;

/// What a device was measured to do. Times are lower quartiles in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calibration {
    /// The primitive in force.
    pub durability: Durability,
    /// One 4 KiB write with `RWF_DSYNC`.
    pub dsync_ns: u64,
    /// One 4 KiB write, then `fdatasync`.
    pub fdatasync_ns: u64,
    /// One 512 KiB write, made durable by the faster of the two.
    pub large_ns: u64,
    /// From this many bytes on, a group of one partition goes straight to its segment.
    pub direct_bytes: u64,
    /// Whether this was measured now, not read from the file.
    pub fresh: bool,
}

impl Calibration {
    pub(crate) fn bounds(&self) -> Bounds {
        Bounds { direct_bytes: self.direct_bytes, force_direct: false }
    }

    fn decide(dsync_ns: u64, fdatasync_ns: u64, large_ns: u64) -> Self {
        // What one flush costs in bytes of bandwidth: below, a group is better off sharing the journal's flush
        // although its bytes are then written twice.
        let flush = dsync_ns.min(fdatasync_ns);
        let transfer = large_ns.saturating_sub(flush).max(1);
        let bytes = LARGE_BYTES as u64 * flush / transfer;
        let clamped = bytes.clamp(DIRECT_BYTES_MIN, DIRECT_BYTES_MAX);
        // Within a tenth the simpler arm wins: one operation, no hop to a kernel worker.
        let dsync = dsync_ns <= fdatasync_ns + fdatasync_ns / 10;
        Self {
            durability: if dsync { Durability::Dsync } else { Durability::Fdatasync },
            dsync_ns,
            fdatasync_ns,
            large_ns,
            direct_bytes: clamped / SMALL_BYTES as u64 * SMALL_BYTES as u64,
            fresh: true,
        }
    }

    fn encode(&self) -> String {
        format!(
            "ringmain calibration 1\ndsync_ns {}\nfdatasync_ns {}\nlarge_ns {}\n",
            self.dsync_ns, self.fdatasync_ns, self.large_ns
        )
    }

    fn decode(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next()? != "ringmain calibration 1" {
            return None;
        }
        let mut number = |key: &str| lines.next()?.strip_prefix(key)?.trim().parse().ok();
        let (dsync, fdatasync) = (number("dsync_ns")?, number("fdatasync_ns")?);
        Some(Self { fresh: false, ..Self::decide(dsync, fdatasync, number("large_ns")?) })
    }
}

/// Reads the stored calibration, or measures and stores it.
pub(crate) fn calibrate<R: Ring>(
    config: &Config,
    ring: &mut R,
    direct: bool,
) -> Result<Calibration, OpenError> {
    let path = config.dir.join(names::CALIBRATION);
    let stored = fs::read_to_string(&path).ok().and_then(|text| Calibration::decode(&text));
    let mut calibration = if let Some(calibration) = stored {
        calibration
    } else {
        let measured = measure(ring, &config.dir, direct);
        let measured = measured.map_err(|e| OpenError::io(&config.dir, "calibrating", e))?;
        let written = fs::write(&path, measured.encode());
        written.map_err(|e| OpenError::io(&path, "storing the calibration", e))?;
        measured
    };
    // Through the page cache a durable write is a write and an fdatasync in any case.
    if !direct {
        calibration.durability = Durability::Fdatasync;
    }
    calibration.durability = config.durability.unwrap_or(calibration.durability);
    Ok(calibration)
}

struct Bench<'a, R: Ring> {
    ring: &'a mut R,
    arena: Arena,
    file: FileHandle,
}

fn measure<R: Ring>(ring: &mut R, dir: &Path, direct: bool) -> std::io::Result<Calibration> {
    let path = dir.join("ringmain.calibration.tmp");
    let mode = OpenMode { create: true, direct, ..OpenMode::default() };
    let file = run(ring, Op::Open { path: path.clone(), mode })?.into_file();
    let mut bench = Bench { ring, arena: Arena::new(2 * LARGE_BYTES), file };
    let measured = bench.measure();
    run(ring, Op::Close { file })?;
    run(ring, Op::Unlink { path })?;
    measured
}

impl<R: Ring> Bench<'_, R> {
    fn measure(&mut self) -> std::io::Result<Calibration> {
        for pos in (0..FILE_BYTES).step_by(LARGE_BYTES) {
            self.write(pos, LARGE_BYTES, false)?;
        }
        self.sync()?;
        let (mut dsync, mut fdatasync) = (Vec::new(), Vec::new());
        let (mut large, mut large_synced) = (Vec::new(), Vec::new());
        // Interleaved, so that a drift of the device's speed hits all alike.
        for round in 0..ROUNDS as u64 {
            let pos = round * SMALL_BYTES as u64;
            let start = Instant::now();
            self.write(pos, SMALL_BYTES, true)?;
            dsync.push(start.elapsed());
            let start = Instant::now();
            self.write(pos, SMALL_BYTES, false)?;
            self.sync()?;
            fdatasync.push(start.elapsed());
            let pos = round * LARGE_BYTES as u64 % FILE_BYTES;
            let start = Instant::now();
            self.write(pos, LARGE_BYTES, true)?;
            large.push(start.elapsed());
            let start = Instant::now();
            self.write(pos, LARGE_BYTES, false)?;
            self.sync()?;
            large_synced.push(start.elapsed());
        }
        // The lower quartile: on a busy machine a completion that hops to a kernel worker waits for the next tick,
        // which says nothing of the device.
        let typical = |mut times: Vec<std::time::Duration>| {
            times.sort_unstable();
            times[times.len() / 4].as_nanos() as u64
        };
        let large = typical(large).min(typical(large_synced));
        Ok(Calibration::decide(typical(dsync), typical(fdatasync), large))
    }

    fn write(&mut self, pos: u64, bytes: usize, durable: bool) -> std::io::Result<()> {
        let mut chunk = self.arena.chunk(bytes).expect("two chunks, one in use");
        while chunk.spare() > 0 {
            chunk.append(&[pos as u8 ^ 0x5a; 1024]);
        }
        let data = chunk.slice(0..bytes);
        run(self.ring, Op::Write { file: self.file, pos, data, durable }).map(drop)
    }

    fn sync(&mut self) -> std::io::Result<()> {
        run(self.ring, Op::Sync { file: self.file, data_only: true }).map(drop)
    }
}

/// Runs one operation to its end.
fn run<R: Ring>(ring: &mut R, op: Op) -> std::io::Result<Done> {
    ring.push(0, op);
    loop {
        ring.enter(Wait::Forever)?;
        if let Some(completion) = ring.pop() {
            return completion.result;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_calibration_reads_back() {
        let measured = Calibration::decide(200_000, 240_000, 640_000);
        assert_eq!(measured.durability, Durability::Dsync);
        let read = Calibration::decode(&measured.encode()).expect("well-formed");
        assert_eq!(Calibration { fresh: true, ..read }, measured);
        assert_eq!(Calibration::decode("something else"), None);
    }

    #[test]
    fn the_faster_primitive_wins_and_the_bound_follows_the_flush() {
        assert_eq!(
            Calibration::decide(400_000, 200_000, 600_000).durability,
            Durability::Fdatasync
        );
        let cheap = Calibration::decide(20_000, 30_000, 500_000).direct_bytes;
        let dear = Calibration::decide(300_000, 400_000, 700_000).direct_bytes;
        assert!(cheap < dear, "a dear flush is shared up to larger groups: {cheap} {dear}");
    }
}
