//! One flush for many: a flush an append, a flush a partition, and the engine's shared journal.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use ringmain::buffers::Arena;
use ringmain::ring::backend::{Backend, open_ring};
use ringmain::ring::limits::raise_open_files;
use ringmain::types::FlushPolicy;

use super::appending::{Appender, Sends, Shape};
use super::claim::{Arm, Claim, Guard, Ready, Stage};
use super::rule::{Bound, Figure, Rule};
use super::sequential;
use crate::device::{ARENA_BYTES, Device, Direction, Job, Plot};
use crate::site::Site;

/// Bytes of the file that appends go to one by one, and of each partition's.
const FILE_BYTES: u64 = 128 << 20;
const PARTITION_BYTES: u64 = 256 << 10;

/// Files that stand for 10,000 in the arm that flushes each: many more than are in flight, and as many as the system
/// lets a process have open beside 10,000 partitions.
const MANY_FILES: usize = 5000;

/// Open files that all arms of `--full` need together.
const OPEN_FILES: u64 = 17_500;

/// A quarter of the most writes in flight: a ring takes four times its queue.
const RING_ENTRIES: u32 = 256;

const W1: &str = "1 writer";
const W16: &str = "16 writers";
const W1024: &str = "1,024 writers";
const P1000: &str = "1,024 writers, 1,000 partitions";
const P10000: &str = "1,024 writers, 10,000 partitions";

const EACH: &str = "each append is one durable write of a 4 KiB block, as many in flight as there \
                    are writers";
const GROUP: &str = "the engine, one partition, flush policy `group`, batches of one record";

const fn rule(of: &'static str, over: &'static str, when: &'static str) -> Rule {
    Rule { of, over, figure: Figure::RecordsPerS, bound: Bound::AtLeast(1.5), when }
}

pub(super) static CLAIM: Claim = Claim {
    name: "group-commit",
    sentence: "One flush serves many writers and many partitions, and beats a flush for each.",
    source: "Group commit in databases since 1984 (DeWitt and others, \"Implementation techniques \
             for main memory database systems\"); for partitions, the wish of everyone who has \
             fsynced a thousand of them.",
    mechanism: "A flush costs about the same whatever it flushes. Those who wait at the same \
                moment can share one, if their bytes lie together: in one log they do, and over \
                many logs a shared journal puts them together. With one writer there is nobody to \
                share with, and a journal writes each byte twice.",
    ends: "With one writer, who has nobody to share with: its record goes from the client's thread to the \
             log's and the ack back, and each way wakes a thread that sleeps, while a flush an append is \
             called by the thread that waits for it. `Config::spin_us` buys most of that back for a core.",
    headline: Figure::RecordsPerS,
    arms: &[
        Arm::new("each_w1", W1, "a flush an append", EACH),
        Arm::new("group_w1", W1, "group commit", GROUP),
        Arm::new("each_w16", W16, "a flush an append", EACH),
        Arm::new("group_w16", W16, "group commit", GROUP),
        Arm::new("each_w1024", W1024, "a flush an append", EACH),
        Arm::new("group_w1024", W1024, "group commit", GROUP),
        Arm::new(
            "each_p1000",
            P1000,
            "a flush a partition",
            "each append is one durable write of a 4 KiB block to its partition's file, 1,024 in \
             flight",
        ),
        Arm::new(
            "journal_p1000",
            P1000,
            "shared journal",
            "the engine, batches of one record, writers go through the partitions in turn",
        ),
        Arm::new(
            "each_p10000",
            P10000,
            "a flush a partition",
            "the same over 5,000 files, which no two in flight share either; with --full only",
        ),
        Arm::new(
            "journal_p10000",
            P10000,
            "shared journal",
            "the same over 10,000 partitions; with --full only",
        ),
    ],
    rules: &[
        rule("group_w1", "each_w1", "for 1 writer"),
        rule("group_w16", "each_w16", "for 16 writers"),
        rule("group_w1024", "each_w1024", "for 1,024 writers"),
        rule("journal_p1000", "each_p1000", "for 1,024 writers of 1,000 partitions"),
        rule("journal_p10000", "each_p10000", "for 1,024 writers of 10,000 partitions"),
    ],
    guards: &[
        Guard {
            what: "the flush an append is made slow",
            how: "it is given the best there is: written files of its own, O_DIRECT, `RWF_DSYNC`, \
                  all writers in flight through the engine's own ring, no log around it",
        },
        Guard {
            what: "the disk fakes its flushes",
            how: "both sides are flushed in the same way on the same disk; where a flush is free, \
                  none of the cases can hold",
        },
        Guard {
            what: "files grow, directories fill",
            how: "files are written and partitions made before the clock runs",
        },
        Guard {
            what: "more bytes for one of them",
            how: "a record of 175 bytes encoded; the flush an append pads it to a block because a \
                  disk can't write less, the journal pads its groups",
        },
        Guard {
            what: "what is in the journal must still be written to its segment",
            how: "checkpoints run inside the measured time, as they fall due",
        },
    ],
    slice: Duration::from_millis(150),
    space_bytes: 6 << 30,
    prepare,
};

const ONE_RECORD: usize = crate::onebatch::BATCH_BYTES;

const fn each(depth: usize, plot: usize, files: usize) -> Job {
    Job { direction: Direction::Write, request_bytes: 4 << 10, depth, durable: true, plot, files }
}

const EACH_ARMS: [(&str, Job); 5] = [
    ("each_w1", each(1, 0, 1)),
    ("each_w16", each(16, 0, 1)),
    ("each_w1024", each(1024, 0, 1)),
    ("each_p1000", each(1024, 1, 1000)),
    ("each_p10000", each(1024, 2, MANY_FILES)),
];

const GROUP_ARMS: [(&str, u32, u64); 5] = [
    ("group_w1", 1, 1),
    ("group_w16", 16, 1),
    ("group_w1024", 1024, 1),
    ("journal_p1000", 1024, 1000),
    ("journal_p10000", 1024, 10_000),
];

/// Why the arm is left out, if it is.
fn why_not(stage: &Stage<'_>, name: &str) -> Option<String> {
    if !name.ends_with("_p10000") {
        return None;
    }
    if !stage.effort.is_full() {
        return Some("10,000 partitions are made with --full only".to_owned());
    }
    let allowed = raise_open_files();
    (allowed < OPEN_FILES).then(|| {
        format!(
            "10,000 partitions beside the files of the other arm are {OPEN_FILES} open files, and this process may \
             have {allowed} (ulimit -Hn)"
        )
    })
}

fn prepare<'a>(stage: &mut Stage<'a>) -> Result<Ready<'a>> {
    let site = Rc::new(Site::open(&stage.subdir("engine")?)?);
    let mut ready = Ready::of_engine(&site);
    let mut plots = vec![
        Plot::prepare(&stage.subdir("one")?, 1, FILE_BYTES)?,
        Plot::prepare(&stage.subdir("thousand")?, 1000, PARTITION_BYTES)?,
    ];
    if why_not(stage, "each_p10000").is_none() {
        plots.push(Plot::prepare(&stage.subdir("many")?, MANY_FILES, PARTITION_BYTES / 2)?);
    }
    if !plots.iter().all(|plot| plot.direct) {
        ready.notes.push(
            "the file system does not take O_DIRECT: a flush an append goes through the page \
             cache"
                .to_owned(),
        );
    }
    let (ring, _) = open_ring(Backend::Auto, RING_ENTRIES).context("cannot make a ring")?;
    let device = Device::open(ring, &Arena::new(ARENA_BYTES), &plots, stage.payload)?;
    let device = Rc::new(RefCell::new(device));
    for (name, job) in EACH_ARMS {
        if let Some(why) = why_not(stage, name) {
            ready.absent(name, why);
            continue;
        }
        let (device, meter, cores) = (device.clone(), stage.meter(), stage.cores);
        ready.arm(name, move |time| {
            sequential::slice(&mut device.borrow_mut(), &job, (&meter, cores), time)
        });
    }
    for (name, clients, partitions) in GROUP_ARMS {
        if let Some(why) = why_not(stage, name) {
            ready.absent(name, why);
            continue;
        }
        let sends = Sends::Bytes(ONE_RECORD);
        let shape = Shape { clients, sends, partitions, flush: FlushPolicy::Group };
        let mut appender = Appender::new(stage, &site, name, shape)?;
        ready.arm(name, move |time| appender.slice(time));
    }
    Ok(ready)
}
