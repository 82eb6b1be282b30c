//! Sequential writes beside random ones, at the same size, depth and durability.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use ringmain::buffers::Arena;
use ringmain::ring::backend::{AnyRing, Backend, open_ring};

use super::claim::{Arm, Claim, Guard, Meter, Ready, Slice, Stage};
use super::rule::{Bound, Figure, Rule};
use crate::clock::now_ms;
use crate::cores::{Cores, Pinned};
use crate::device::{ARENA_BYTES, Device, Direction, Job, Plot};

/// Bytes of the file: many times what a slice writes, and more than a disk's own memory is likely to hold.
const FILE_BYTES: u64 = 1 << 30;

/// A quarter of the most writes in flight: a ring takes four times its queue.
const RING_ENTRIES: u32 = 8;

/// A slice's warm-up, as a share of it.
const WARM_UP: f64 = 0.2;

/// The plot whose requests go in order, and the one whose do not: the same file, opened twice.
const IN_ORDER: usize = 0;
const SCATTERED: usize = 1;

const fn rule(of: &'static str, over: &'static str, when: &'static str) -> Rule {
    Rule { of, over, figure: Figure::MibPerS, bound: Bound::AtLeast(1.1), when }
}

pub(super) static CLAIM: Claim = Claim {
    name: "sequential",
    sentence: "Sequential writes beat random ones of the same size, depth and durability.",
    source: "Every introduction to logs; the figures quoted (a hundred times and more) are those \
             of spinning disks: Kafka's design notes compare 600 MB/s in order with 100 KB/s at \
             random on six of them.",
    mechanism: "A disk with a head waits for its seek and for the platter before each random \
                write. A flash translation layer has no head: it writes where it likes and \
                remembers where. What may be left is a larger request: neighbours can be merged \
                on their way, and a mapping kept in larger pieces.",
    ends: "With one durable write at a time nothing can be merged, and the flush is waited for wherever \
             the bytes go. With many in flight the kernel merges neighbours into larger requests, and the \
             disk has fewer of them: that is what is left of the claim on a disk without a head, and less of \
             it the larger the requests are by themselves.",
    headline: Figure::MibPerS,
    arms: &[
        Arm::new(
            "order_4k_q1",
            "4 KiB, durable, one at a time",
            "in order",
            "each write begins where the one before ended; `RWF_DSYNC`",
        ),
        Arm::new(
            "random_4k_q1",
            "4 KiB, durable, one at a time",
            "at random",
            "the same, places drawn without repetition",
        ),
        Arm::new(
            "order_4k_q16",
            "4 KiB, durable, 16 in flight",
            "in order",
            "16 writes in flight, in order; `RWF_DSYNC`",
        ),
        Arm::new(
            "random_4k_q16",
            "4 KiB, durable, 16 in flight",
            "at random",
            "the same, places drawn without repetition",
        ),
        Arm::new(
            "order_64k_q16",
            "64 KiB, durable, 16 in flight",
            "in order",
            "16 writes in flight, in order; `RWF_DSYNC`",
        ),
        Arm::new(
            "random_64k_q16",
            "64 KiB, durable, 16 in flight",
            "at random",
            "the same, places drawn without repetition",
        ),
        Arm::new(
            "order_4k_q16_os",
            "4 KiB, not flushed, 16 in flight",
            "in order",
            "16 writes in flight, in order, no flush",
        ),
        Arm::new(
            "random_4k_q16_os",
            "4 KiB, not flushed, 16 in flight",
            "at random",
            "the same, places drawn without repetition",
        ),
    ],
    rules: &[
        rule("order_4k_q1", "random_4k_q1", "for durable writes of 4 KiB, one at a time"),
        rule("order_4k_q16", "random_4k_q16", "for durable writes of 4 KiB, 16 in flight"),
        rule("order_64k_q16", "random_64k_q16", "for durable writes of 64 KiB, 16 in flight"),
        rule(
            "order_4k_q16_os",
            "random_4k_q16_os",
            "for writes of 4 KiB without flush, 16 in flight",
        ),
    ],
    guards: &[
        Guard {
            what: "the page cache turns random writes into ordered ones",
            how: "O_DIRECT; where the file system refuses it the claim is not measurable",
        },
        Guard {
            what: "the disk's own memory takes a small file whole",
            how: "1 GiB, gone through without repetition before any place comes again; three of \
                  the four cases are flushed",
        },
        Guard {
            what: "one case allocates, the other overwrites",
            how: "the same file, every byte of it written before; both cases overwrite",
        },
        Guard { what: "alignment", how: "whole blocks of 4 KiB, memory too" },
        Guard {
            what: "a disk that compresses or knows zeros",
            how: "log lines of the payload, other bytes in each write",
        },
    ],
    slice: Duration::from_millis(100),
    space_bytes: FILE_BYTES + (64 << 20),
    prepare,
};

const fn job(request_bytes: usize, depth: usize, durable: bool, plot: usize) -> Job {
    Job { direction: Direction::Write, request_bytes, depth, durable, plot, files: 1 }
}

const JOBS: [(&str, Job); 8] = [
    ("order_4k_q1", job(4 << 10, 1, true, IN_ORDER)),
    ("random_4k_q1", job(4 << 10, 1, true, SCATTERED)),
    ("order_4k_q16", job(4 << 10, 16, true, IN_ORDER)),
    ("random_4k_q16", job(4 << 10, 16, true, SCATTERED)),
    ("order_64k_q16", job(64 << 10, 16, true, IN_ORDER)),
    ("random_64k_q16", job(64 << 10, 16, true, SCATTERED)),
    ("order_4k_q16_os", job(4 << 10, 16, false, IN_ORDER)),
    ("random_4k_q16_os", job(4 << 10, 16, false, SCATTERED)),
];

fn prepare<'a>(stage: &mut Stage<'a>) -> Result<Ready<'a>> {
    let mut cursor = stage.payload.cursor(now_ms() as usize);
    let plot = Plot::prepare_with(&stage.dir, 1, FILE_BYTES, |stride| cursor.fill(stride))?;
    if !plot.direct {
        return Ok(Ready::not_here(
            "the file system does not take O_DIRECT, and the page cache would put random writes \
             in order",
        ));
    }
    let (ring, fallback) = open_ring(Backend::Auto, RING_ENTRIES).context("cannot make a ring")?;
    let plots = [plot.clone(), plot];
    let mut device = Device::open(ring, &Arena::new(ARENA_BYTES), &plots, stage.payload)?;
    device.scatter(SCATTERED);
    let device = Rc::new(RefCell::new(device));
    let mut ready = Ready::new();
    ready.notes.extend(
        fallback.map(|reason| format!("NO io_uring: {reason}; writes went through threads")),
    );
    for (name, job) in JOBS {
        let (device, meter, cores) = (device.clone(), stage.meter(), stage.cores);
        ready.arm(name, move |time| slice(&mut device.borrow_mut(), &job, (&meter, cores), time));
    }
    Ok(ready)
}

/// Runs a job on the disk's core.
pub(super) fn slice(
    device: &mut Device<AnyRing>,
    job: &Job,
    (meter, cores): (&Meter, Cores),
    time: Duration,
) -> Result<Slice> {
    let _pinned = Pinned::to(cores.disk);
    device.run(job, time.mul_f64(WARM_UP))?;
    meter.around(|| device.run(job, time.mul_f64(1.0 - WARM_UP)))
}
