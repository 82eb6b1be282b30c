//! The engine beside other ways to write a durable log: threads with plain calls, a buffered ring, tokio-uring.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::claim::{Arm, Claim, Guard, Ready, Slice, Stage};
use super::rule::{Bound, Figure, Rule};
use crate::payload::Payload;
use crate::run::backends::backend;
use crate::run::live::Live;
use crate::run::profiler::Profiler;
use crate::run::repeat::{One, Setting};
use crate::run::values::{BackendName, Seconds, Sizes};
use crate::run::workload::{Flags, Workload};
use crate::sample::Sample;

/// A slice's warm-up, as a share of it.
const WARM_UP: f64 = 0.2;

/// A value's bytes.
const VALUE_BYTES: u32 = 100;

const SMALL: &str = "one record a batch, 256 in flight, acked when durable";
const LARGE: &str = "1,000 records a batch, 8 in flight, acked when durable; with --full only";

const OWN: &str = "the engine on its own ring: direct writes, a shared journal, one thread";
const THREADS: &str = "threads with `pwritev` through the page cache and a shared `fdatasync`";
const BUFFERED: &str = "one ring through the page cache, each group's write linked to an \
                        `fdatasync`";
const TOKIO: &str = "the crate tokio-uring as its users write a log with it: a task, one write \
                     and one sync a group";

const fn rule(of: &'static str, over: &'static str, when: &'static str) -> Rule {
    Rule { of, over, figure: Figure::RecordsPerS, bound: Bound::AtLeast(0.97), when }
}

const fn tail(of: &'static str, over: &'static str, when: &'static str) -> Rule {
    Rule { of, over, figure: Figure::P99, bound: Bound::AtMost(1.03), when }
}

pub(super) static CLAIM: Claim = Claim {
    name: "ring",
    sentence: "A log on io_uring is at no point behind one on plain system calls or on another \
               ring, at equal durability.",
    source: "What is said of io_uring since 2019, for and against; the plain calls are what most \
             logs in use are made of.",
    mechanism: "A ring submits many operations in one system call and takes their ends without \
                another; a direct write that is flushed by its own flag needs no second call and \
                no thread that sleeps. Where the disk's flush takes nearly all the time there is \
                little to save, and a design that flushes less often wins whatever it calls.",
    ends: "Where all that can be had is the disk: with large batches in flight each of these ways keeps it \
             busy, and none can be ahead by much. With small ones the ways differ in flushes, wake-ups and \
             copies a record.",
    headline: Figure::RecordsPerS,
    arms: &[
        Arm::new("own_small", SMALL, "own ring", OWN),
        Arm::new("threads_small", SMALL, "pwrite + fdatasync", THREADS),
        Arm::new("buffered_small", SMALL, "buffered ring", BUFFERED),
        Arm::new("tokio_small", SMALL, "tokio-uring", TOKIO),
        Arm::new("own_large", LARGE, "own ring", OWN),
        Arm::new("threads_large", LARGE, "pwrite + fdatasync", THREADS),
        Arm::new("buffered_large", LARGE, "buffered ring", BUFFERED),
        Arm::new("tokio_large", LARGE, "tokio-uring", TOKIO),
    ],
    rules: &[
        rule("own_small", "threads_small", "beside threads, small batches"),
        rule("own_small", "buffered_small", "beside a buffered ring, small batches"),
        rule("own_small", "tokio_small", "beside tokio-uring, small batches"),
        tail("own_small", "threads_small", "in p99 beside threads, small batches"),
        tail("own_small", "buffered_small", "in p99 beside a buffered ring, small batches"),
        tail("own_small", "tokio_small", "in p99 beside tokio-uring, small batches"),
        rule("own_large", "threads_large", "beside threads, large batches"),
        rule("own_large", "buffered_large", "beside a buffered ring, large batches"),
        rule("own_large", "tokio_large", "beside tokio-uring, large batches"),
        tail("own_large", "threads_large", "in p99 beside threads, large batches"),
        tail("own_large", "buffered_large", "in p99 beside a buffered ring, large batches"),
        tail("own_large", "tokio_large", "in p99 beside tokio-uring, large batches"),
    ],
    guards: &[
        Guard {
            what: "one of them acks what is not durable",
            how: "all flush before they ack; what each acked is read back after every slice, and \
                  a loss ends the experiment",
        },
        Guard {
            what: "one of them is written badly",
            how: "each shares a flush among all who wait and has its space written before; what \
                  they do is in `bench/src/run/peers`",
        },
        Guard {
            what: "one of them starts on a used disk",
            how: "a new directory for each slice, removed after it",
        },
        Guard {
            what: "the clients differ",
            how: "the same loop, the same batches with the same seed, on the same core",
        },
        Guard {
            what: "the page cache takes the writes",
            how: "it does for three of them, that is how they are built; the flush is inside the \
                  clock",
        },
    ],
    slice: Duration::from_millis(450),
    space_bytes: 6 << 30,
    prepare,
};

const ARMS: [(&str, BackendName, bool); 8] = [
    ("own_small", BackendName::Ringmain, false),
    ("threads_small", BackendName::Pwrite, false),
    ("buffered_small", BackendName::BufferedRing, false),
    ("tokio_small", BackendName::TokioUring, false),
    ("own_large", BackendName::Ringmain, true),
    ("threads_large", BackendName::Pwrite, true),
    ("buffered_large", BackendName::BufferedRing, true),
    ("tokio_large", BackendName::TokioUring, true),
];

fn prepare<'a>(stage: &mut Stage<'a>) -> Result<Ready<'a>> {
    let mut ready = Ready::new();
    for (name, backend, large) in ARMS {
        if large && !stage.effort.is_full() {
            ready.absent(name, "there is time for one size of batch only; --full has both");
            continue;
        }
        let (payload, dir) = (stage.payload, stage.subdir(name)?.join("log"));
        let lens = stage.lens.clone();
        let (mut nth, mut around) = (0, Duration::ZERO);
        ready.arm(name, move |time| {
            nth += 1;
            let begin = Instant::now();
            // Opening, reading back and removing are part of the slice, as long as they took the last time.
            let load = time.saturating_sub(around).max(time / 2);
            let workload = workload(backend, large, load)?;
            let slice = lens.over(|within| match within {
                Some(within) => {
                    within.lend(|profiler| slice(&workload, payload, (&dir, nth), Some(profiler)))
                }
                None => slice(&workload, payload, (&dir, nth), None),
            });
            around = begin.elapsed().saturating_sub(load);
            slice
        });
    }
    Ok(ready)
}

fn workload(backend: BackendName, large: bool, time: Duration) -> Result<Workload> {
    let (batch_records, in_flight) = if large { (1000, 8) } else { (1, 256) };
    let flags = Flags {
        backend: Some(backend),
        partitions: Some(1),
        producers: Some(1),
        consumers: Some(0),
        in_flight: Some(in_flight),
        batch_records: Some(batch_records),
        record_bytes: Some(Sizes::Fixed(VALUE_BYTES)),
        seconds: Some(Seconds(time.mul_f64(1.0 - WARM_UP))),
        warmup: Some(Seconds(time.mul_f64(WARM_UP))),
        kills: Some(0),
        ..Flags::default()
    };
    flags.resolve()
}

/// Opens a backend in a new directory, measures it, reads back what it acked, and removes the directory.
fn slice(
    workload: &Workload,
    payload: &Payload,
    (dir, nth): (&Path, u32),
    profiler: Option<&Profiler>,
) -> Result<Slice> {
    fs::create_dir(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let backend = backend(workload.backend);
    let setting = Setting { workload, backend: backend.as_ref(), payload, profiler };
    let one = setting.repeat(nth, dir, None, Live::silent());
    fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    figures(one?)
}

fn figures(one: One) -> Result<Slice> {
    let findings =
        one.verified.map_err(|why| anyhow!("what was acked was not read back: {why}"))?;
    ensure!(findings.tally.is_clean(), "what was acked is not there: {:?}", findings.tally);
    let measured = one.measured;
    let sample = Sample {
        latencies: one.recorded.corrected,
        records: measured.records,
        bytes: measured.bytes,
        elapsed: measured.elapsed,
        cost: None,
    };
    let (cpu_cores, device_bytes) = (Some(measured.server.cpu_cores), measured.server.device_bytes);
    Ok(Slice { cpu_cores, device_bytes, ..Slice::of(sample) })
}
