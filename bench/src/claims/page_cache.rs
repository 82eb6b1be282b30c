//! Through the page cache and past it: writes under three flush policies, warm and cold reads, readers beside writers.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ringmain::Config;
use ringmain::types::{FlushPolicy, WriteMode};

use super::appending::{Appender, Sends, Shape};
use super::claim::{Arm, Claim, Guard, Meter, Ready, Slice, Stage};
use super::rule::{Bound, Figure, Rule};
use crate::clock::now_ms;
use crate::cores::{Cores, Pinned};
use crate::interrupt;
use crate::prepared;
use crate::sample::Sample;
use crate::site::{self, Site};

const BATCH_BYTES: usize = 64 << 10;
const CLIENTS: u32 = 16;

/// Bytes of the file that is read cold: more than a slice reads of it. The one that is read warm needs fewer.
const COLD_BYTES: u64 = 512 << 20;
const WARM_BYTES: u64 = 128 << 20;

/// Bytes of a read.
const STEP_BYTES: usize = 512 << 10;

const OS: &str = "writes, acked when written";
const INTERVAL: &str = "writes, flushed every 10 ms";
const GROUP: &str = "writes, acked when durable";
const READS: &str = "reads of a sealed file";
const BESIDE: &str = "writes, acked when durable, beside a reader of old data";

const WRITES: &str = "16 clients, batches of 64 KiB, one partition";

const fn gain(of: &'static str, over: &'static str, when: &'static str) -> Rule {
    Rule { of, over, figure: Figure::MibPerS, bound: Bound::AtLeast(1.1), when }
}

pub(super) static CLAIM: Claim = Claim {
    name: "page-cache",
    sentence: "The page cache makes logs fast.",
    source: "Kafka's design notes (\"Don't fear the filesystem!\"), and their opposite: databases \
             that bypass it.",
    mechanism: "A write into the page cache is a copy; the disk sees it later, in large pieces. A \
                read of what was just written costs no disk at all. But every byte is copied once \
                more, somebody must flush, a flush then waits for all that was put off, and a \
                reader of old data pushes out what others wanted to keep.",
    ends: "Where an ack waits for the flush: each byte is copied first, and then the kernel has to find \
             the pages and write them while somebody waits, which O_DIRECT does at once. A reader of old \
             data takes memory bandwidth, the disk and the locks of the cache from writers who go through \
             it.",
    headline: Figure::MibPerS,
    arms: &[
        Arm::new("cache_os", OS, "page cache", WRITES),
        Arm::new("direct_os", OS, "direct", "the same with O_DIRECT"),
        Arm::new("cache_interval", INTERVAL, "page cache", WRITES),
        Arm::new("direct_interval", INTERVAL, "direct", "the same with O_DIRECT"),
        Arm::new("cache_group", GROUP, "page cache", WRITES),
        Arm::new("direct_group", GROUP, "direct", "the same with O_DIRECT"),
        Arm::new(
            "read_warm",
            READS,
            "warm",
            "`pread` of 512 KiB, one after the other, all of the file in the page cache",
        ),
        Arm::new(
            "read_cold",
            READS,
            "cold",
            "the same, the file dropped from the page cache before each slice and again at its \
             end",
        ),
        Arm::new(
            "cache_group_beside",
            BESIDE,
            "page cache",
            "as in \"acked when durable\", while a thread reads a cold file through the page \
             cache",
        ),
    ],
    rules: &[
        gain("cache_os", "direct_os", "for writes acked when written"),
        gain("cache_interval", "direct_interval", "for writes flushed every 10 ms"),
        gain("cache_group", "direct_group", "for writes acked when durable"),
        gain("read_warm", "read_cold", "for reads of what is in it"),
        Rule {
            of: "cache_group_beside",
            over: "cache_group",
            figure: Figure::MibPerS,
            bound: Bound::AtLeast(0.9),
            when: "for writers beside a reader of old data, who lose less than a tenth",
        },
    ],
    guards: &[
        Guard {
            what: "writes that never reach the disk",
            how: "said by the policy: under \"acked when written\" nothing must; under the others \
                  the flush is inside the clock",
        },
        Guard {
            what: "a cold read that is warm",
            how: "the file is flushed once and dropped with `POSIX_FADV_DONTNEED` before each \
                  slice; `device_bytes` and the rate show whether it came from the disk",
        },
        Guard {
            what: "memory full of what another arm wrote",
            how: "its partition is deleted after each slice, and its pages with it",
        },
        Guard {
            what: "the disk's own memory",
            how: "a file of 512 MiB is read in order and not twice while cold; what a hypervisor keeps is \
                  beyond reach, and makes cold reads look better than they are",
        },
        Guard {
            what: "the writer's buffers are zeros or repeat",
            how: "batches of log lines, all different",
        },
        Guard {
            what: "a copy through a socket",
            how: "nothing goes through a socket here; see zero-copy",
        },
    ],
    slice: Duration::from_millis(150),
    space_bytes: 4 << 30,
    prepare,
};

const EVERY_10_MS: FlushPolicy =
    FlushPolicy::Interval { ms: 10, bytes: 1 << 30, messages: u64::MAX };

const WRITE_ARMS: [(&str, bool, FlushPolicy); 6] = [
    ("cache_os", true, FlushPolicy::Os),
    ("direct_os", false, FlushPolicy::Os),
    ("cache_interval", true, EVERY_10_MS),
    ("direct_interval", false, EVERY_10_MS),
    ("cache_group", true, FlushPolicy::Group),
    ("direct_group", false, FlushPolicy::Group),
];

fn prepare<'a>(stage: &mut Stage<'a>) -> Result<Ready<'a>> {
    let open = |mode, name: &str| -> Result<Rc<Site>> {
        let config = site::config(&stage.subdir(name)?);
        Ok(Rc::new(Site::open_with(Config { write_mode: Some(mode), ..config })?))
    };
    let cache = open(WriteMode::PageCache, "engine-cache")?;
    let direct = open(WriteMode::Direct, "engine-direct");
    let Ok(direct) = direct else {
        return Ok(Ready::not_here(
            "the file system does not take O_DIRECT: there is nothing to hold the page cache \
             against",
        ));
    };
    let mut ready = Ready::of_engine(&direct);
    let shape =
        |flush| Shape { clients: CLIENTS, sends: Sends::Bytes(BATCH_BYTES), partitions: 1, flush };
    for (name, cached, flush) in WRITE_ARMS {
        let site = if cached { &cache } else { &direct };
        let mut appender = Appender::new(stage, site, name, shape(flush))?;
        ready.arm(name, move |time| appender.slice(time));
    }
    let warm = Old::make(stage, "warm", WARM_BYTES)?;
    ready.arm("read_warm", move |time| warm.slice(false, time));
    let old = Rc::new(Old::make(stage, "cold", COLD_BYTES)?);
    let cold = old.clone();
    ready.arm("read_cold", move |time| cold.slice(true, time));
    let mut appender =
        Appender::new(stage, &cache, "cache_group_beside", shape(FlushPolicy::Group))?;
    ready.arm("cache_group_beside", move |time| {
        let old: &Old = &old;
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let reader = scope.spawn(|| old.read_until(&over));
            let slice = appender.slice(time);
            over.store(true, Ordering::Relaxed);
            let read = reader.join().ok().context("the reader panicked")??;
            ensure!(read > 0, "the reader beside the writers read nothing");
            Ok(slice?.with("read_bytes", read as f64))
        })
    });
    Ok(ready)
}

/// A file of old data.
struct Old {
    path: PathBuf,
    bytes: u64,
    cores: Cores,
    meter: Meter,
}

impl Old {
    fn make(stage: &Stage<'_>, name: &str, bytes: u64) -> Result<Self> {
        let path = stage.dir.join(name);
        let mut cursor = stage.payload.cursor(now_ms() as usize);
        let made = prepared::write_with(&path, bytes, &mut |stride| cursor.fill(stride))?;
        made.file.sync_all()?;
        Ok(Self { path, bytes, cores: stage.cores, meter: stage.meter() })
    }

    fn slice(&self, cold: bool, time: Duration) -> Result<Slice> {
        let file = File::open(&self.path)?;
        let mut pos = 0;
        if cold {
            drop_pages(&file)?;
        } else {
            // All of it is in the page cache before the clock runs.
            let mut buffer = vec![0; STEP_BYTES];
            while pos < self.bytes {
                interrupt::check()?;
                file.read_exact_at(&mut buffer, pos)?;
                pos += STEP_BYTES as u64;
            }
        }
        let _pinned = Pinned::to(self.cores.clients);
        self.meter.around(|| read(&file, (self.bytes, cold), time))
    }

    /// Reads it through the page cache, cold, again and again. Returns the bytes read.
    fn read_until(&self, over: &AtomicBool) -> Result<u64> {
        let _pinned = Pinned::to(self.cores.clients);
        let file = File::open(&self.path)?;
        let mut buffer = vec![0; STEP_BYTES];
        let mut read = 0;
        while !over.load(Ordering::Relaxed) {
            let pos = read % self.bytes;
            if pos == 0 {
                drop_pages(&file)?;
            }
            file.read_exact_at(&mut buffer, pos)?;
            read += STEP_BYTES as u64;
        }
        Ok(read)
    }
}

/// Reads for `time`; a cold file is dropped from the page cache at its end, outside the clock.
fn read(file: &File, (bytes, cold): (u64, bool), time: Duration) -> Result<Sample> {
    let mut buffer = vec![0; STEP_BYTES];
    let mut sample = Sample::empty(time);
    let (mut pos, mut elapsed) = (0, Duration::ZERO);
    while elapsed < time {
        interrupt::check()?;
        if pos == bytes {
            pos = 0;
            if cold {
                drop_pages(file)?;
            }
        }
        let begin = Instant::now();
        file.read_exact_at(&mut buffer, pos)?;
        let took = begin.elapsed();
        elapsed += took;
        pos += STEP_BYTES as u64;
        sample.latencies.record(took.as_nanos() as u64);
        sample.records += 1;
        sample.bytes += STEP_BYTES as u64;
    }
    sample.elapsed = elapsed;
    Ok(sample)
}

fn drop_pages(file: &File) -> Result<()> {
    // SAFETY: the descriptor is open; the call touches no memory.
    let refused = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    ensure!(
        refused == 0,
        "pages cannot be dropped: {}",
        std::io::Error::from_raw_os_error(refused)
    );
    Ok(())
}
