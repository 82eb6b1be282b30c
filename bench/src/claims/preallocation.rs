//! Files that grow beside files prepared ahead: reserved, or written with zeros.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::claim::{Arm, Claim, Guard, Meter, Ready, Slice, Stage};
use super::rule::{Bound, Figure, Rule};
use crate::cores::{Cores, Pinned};
use crate::interrupt;
use crate::payload::Payload;
use crate::prepared::{self, Aligned};
use crate::sample::Sample;

/// A slice's warm-up, as a share of it.
const WARM_UP: f64 = 0.2;

/// Bounds of a file, and how much larger it is than what the last slice wrote.
const FILE_BYTES_MIN: u64 = 16 << 20;
const FILE_BYTES_MAX: u64 = 512 << 20;
const SPARE: f64 = 1.5;

/// Writes whose space is readied at once where that is inside the clock.
const STRIDE_WRITES: u64 = 64;

/// What a file is a multiple of: whole strides of either size.
const GRAIN_BYTES: u64 = 8 << 20;

const SMALL: &str = "4 KiB, durable, one at a time";
const MEDIUM: &str = "64 KiB, durable, one at a time";

const fn rule(of: &'static str, over: &'static str, when: &'static str) -> Rule {
    Rule { of, over, figure: Figure::MibPerS, bound: Bound::AtLeast(1.25), when }
}

pub(super) static CLAIM: Claim = Claim {
    name: "preallocation",
    sentence: "Durable appends to a prepared file beat those that make it grow.",
    source: "The write-ahead logs of databases, which recycle their files; `log.preallocate` of \
             Kafka; what is said of `fallocate`.",
    mechanism: "A flush of a write that made a file longer must also write the file's new length \
                and extent: a commit of the file system's journal beside the data. A reserved \
                extent still has to be marked as written, which is a commit as well. Over bytes \
                that were written before a flush is one of data alone. Writing zeros first costs \
                a second write of everything, which pays only if it is cheaper than the commits, \
                or happens while nobody waits.",
    ends: "With space that is reserved and not written: the file system's map says of each block whether \
             it holds data, the first write changes the map, and a flush has to commit that, as it does for \
             a file that grows. With zeros inside the clock, once a write is large: each byte goes to the \
             disk twice, and the commit that is saved is a smaller part of it.",
    headline: Figure::MibPerS,
    arms: &[
        Arm::new(
            "grow_4k",
            SMALL,
            "the file grows",
            "writes of 4 KiB past the end, O_DIRECT, `RWF_DSYNC`, a new file each slice",
        ),
        Arm::new(
            "reserved_4k",
            SMALL,
            "reserved",
            "the same into space reserved with `fallocate` and flushed before the clock runs",
        ),
        Arm::new(
            "zeroed_4k",
            SMALL,
            "written before",
            "the same over zeros, written and flushed before the clock runs",
        ),
        Arm::new(
            "zeroing_4k",
            SMALL,
            "zeros in the clock",
            "the same over zeros that are written and flushed 64 writes ahead while the clock \
             runs",
        ),
        Arm::new("grow_64k", MEDIUM, "the file grows", "as above, 64 KiB"),
        Arm::new("reserved_64k", MEDIUM, "reserved", "as above, 64 KiB"),
        Arm::new("zeroed_64k", MEDIUM, "written before", "as above, 64 KiB"),
        Arm::new("zeroing_64k", MEDIUM, "zeros in the clock", "as above, 64 KiB"),
    ],
    rules: &[
        rule("zeroed_4k", "grow_4k", "for zeros written before, 4 KiB"),
        rule("reserved_4k", "grow_4k", "for reserved space, 4 KiB"),
        rule("zeroing_4k", "grow_4k", "for zeros inside the clock, 4 KiB"),
        rule("zeroed_64k", "grow_64k", "for zeros written before, 64 KiB"),
        rule("reserved_64k", "grow_64k", "for reserved space, 64 KiB"),
        rule("zeroing_64k", "grow_64k", "for zeros inside the clock, 64 KiB"),
    ],
    guards: &[
        Guard {
            what: "preparing is left out of the price",
            how: "one arm of each size has it inside the clock",
        },
        Guard {
            what: "the page cache hides the write",
            how: "O_DIRECT and `RWF_DSYNC`; where the file system refuses either the claim is not \
                  measurable",
        },
        Guard {
            what: "an old file's extents are used again",
            how: "a new file for each slice, removed after it",
        },
        Guard {
            what: "zeros are free on this disk",
            how: "then the arm with the zeros inside the clock is as fast as the one with them \
                  before, and shows it",
        },
        Guard { what: "alignment", how: "whole blocks, memory too" },
        Guard {
            what: "compressibility",
            how: "log lines of the payload, other bytes in each write",
        },
    ],
    slice: Duration::from_millis(120),
    space_bytes: 2 << 30,
    prepare,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Grow,
    Reserved,
    Zeroed,
    Zeroing,
}

const ARMS: [(&str, Way, usize); 8] = [
    ("grow_4k", Way::Grow, 4 << 10),
    ("reserved_4k", Way::Reserved, 4 << 10),
    ("zeroed_4k", Way::Zeroed, 4 << 10),
    ("zeroing_4k", Way::Zeroing, 4 << 10),
    ("grow_64k", Way::Grow, 64 << 10),
    ("reserved_64k", Way::Reserved, 64 << 10),
    ("zeroed_64k", Way::Zeroed, 64 << 10),
    ("zeroing_64k", Way::Zeroing, 64 << 10),
];

fn prepare<'a>(stage: &mut Stage<'a>) -> Result<Ready<'a>> {
    let probe = stage.dir.join("probe");
    if !prepared::prepare(&probe, FILE_BYTES_MIN)?.direct {
        return Ok(Ready::not_here(
            "the file system does not take O_DIRECT, and the page cache would hide the writes",
        ));
    }
    fs::remove_file(&probe)?;
    let mut ready = Ready::new();
    for (name, way, bytes) in ARMS {
        let mut writer = Writer {
            path: stage.dir.join(name),
            way,
            data: data(stage.payload, bytes),
            bytes_per_s: 0.0,
            cores: stage.cores,
            meter: stage.meter(),
        };
        ready.arm(name, move |time| writer.slice(time));
    }
    Ok(ready)
}

/// Blocks of log lines, enough that a write differs from the ones before it.
fn data(payload: &Payload, bytes: usize) -> Vec<Aligned> {
    const BLOCKS: usize = 16;
    let mut cursor = payload.cursor(bytes);
    let block = |_| {
        let mut block = Aligned::new(bytes);
        cursor.fill(&mut block);
        block
    };
    (0..BLOCKS).map(block).collect()
}

struct Writer {
    path: PathBuf,
    way: Way,
    data: Vec<Aligned>,
    /// Of the last slice.
    bytes_per_s: f64,
    cores: Cores,
    meter: Meter,
}

impl Writer {
    fn slice(&mut self, time: Duration) -> Result<Slice> {
        let begin = Instant::now();
        let expected = (self.bytes_per_s * time.as_secs_f64() * SPARE) as u64;
        let bytes = expected.clamp(FILE_BYTES_MIN, FILE_BYTES_MAX).next_multiple_of(GRAIN_BYTES);
        let file = open(&self.path, self.way, bytes)?;
        // Half a slice at least, however long preparing took.
        let time = time.saturating_sub(begin.elapsed()).max(time / 2);
        let _pinned = Pinned::to(self.cores.disk);
        let slice = self.meter.clone().around(|| self.write(&file, bytes, time))?;
        self.bytes_per_s = slice.sample.mib_per_s() * f64::from(1 << 20);
        drop(file);
        fs::remove_file(&self.path)?;
        Ok(slice)
    }

    fn write(&self, file: &File, bytes: u64, time: Duration) -> Result<Sample> {
        let len = self.data[0].len() as u64;
        let zeros = Aligned::new((len * STRIDE_WRITES) as usize);
        let zeroing = self.way == Way::Zeroing;
        // Zeros and data are counted stride by stride, so that there are as many of either: from the first one on.
        let warm_up = if zeroing { Duration::ZERO } else { time.mul_f64(WARM_UP) };
        let mut sample = Sample::empty(time);
        let begin = Instant::now();
        let (mut pos, mut now, mut from) = (0, begin, None);
        while pos < bytes {
            interrupt::check()?;
            let stride_begins = pos.is_multiple_of(zeros.len() as u64);
            let whole = !zeroing || stride_begins;
            if now - begin >= time && whole && sample.records > 0 {
                break;
            }
            // A disk that is faster than the last slice said fills the file early: most of it counts all the same.
            if now - begin >= warm_up || pos >= bytes / 5 {
                from.get_or_insert(now);
            }
            if zeroing && stride_begins {
                write_at(file, &zeros, pos, 0)?;
                file.sync_data()?;
            }
            let data = &self.data[(pos / len) as usize % self.data.len()];
            let start = Instant::now();
            write_at(file, data, pos, libc::RWF_DSYNC)?;
            now = Instant::now();
            pos += len;
            if from.is_some() {
                sample.latencies.record((now - start).as_nanos() as u64);
                sample.records += 1;
                sample.bytes += len;
            }
        }
        let from = from.context("the file was full before anything was counted")?;
        sample.elapsed = now - from;
        Ok(sample)
    }
}

fn open(path: &Path, way: Way, bytes: u64) -> Result<File> {
    if way == Way::Zeroed {
        return Ok(prepared::prepare(path, bytes)?.file);
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).custom_flags(libc::O_DIRECT);
    let file = options.open(path).with_context(|| format!("cannot make {}", path.display()))?;
    if way == Way::Reserved {
        // SAFETY: the descriptor is open; the call touches no memory.
        let reserved = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, bytes as libc::off_t) };
        ensure!(reserved == 0, "cannot reserve space: {}", std::io::Error::last_os_error());
    }
    file.sync_all()?;
    // The directory's entry is durable before the clock runs.
    path.parent().map(File::open).transpose()?.map(|dir| dir.sync_all()).transpose()?;
    Ok(file)
}

fn write_at(file: &File, data: &[u8], pos: u64, flags: libc::c_int) -> Result<()> {
    let part = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    // SAFETY: the descriptor is open, and the one part is readable for its length during the call.
    let wrote =
        unsafe { libc::pwritev2(file.as_raw_fd(), &raw const part, 1, pos as libc::off_t, flags) };
    let error = std::io::Error::last_os_error();
    ensure!(wrote == data.len() as isize, "cannot write {} bytes: {error}", data.len());
    Ok(())
}
