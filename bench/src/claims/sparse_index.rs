//! A sparse index beside a dense one and none, and in a log of many segments.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringmain::types::{Isolation, Offset};
use ringmain::{Config, LogHandle};

use super::claim::{Arm, Claim, Guard, Ready, Stage};
use super::lookups::{self, CLIENTS, NO_INDEX_BYTES, Sealed, bytes_of, fill, look_up};
use super::rule::{Bound, Figure, Rule, Unit};
use crate::board::Board;
use crate::cores::Pinned;
use crate::interrupt;
use crate::payload::Payload;
use crate::random::Random;
use crate::site::Site;

/// Bytes of a log in one segment.
const LOG_BYTES: u64 = 64 << 20;

/// Of each engine: a sixteenth of it is for what look-ups remember. All of an index fits, if only just where it is
/// dense, but little of where each batch is: a look-up reads the disk, as it does in a log that is larger than memory.
const MEMORY_BYTES: usize = 16 << 20;

/// Look-ups before the rounds, evenly over the log: whatever is read of an index is then in memory, if it fits.
const WARMING: u32 = 2000;

/// Bytes of a segment where there are many.
const SEGMENT_BYTES: u64 = 64 << 10;

/// Of the `.index` files, for each MiB of log.
const INDEX: &str = "index bytes a MiB";

#[derive(Clone, Copy, Debug)]
struct Setup {
    name: &'static str,
    interval: u32,
    segments: u64,
}

const fn one(name: &'static str, interval: u32) -> Setup {
    Setup { name, interval, segments: 1 }
}

const SETUPS: [Setup; 6] = [
    one("dense", 64),
    one("sparse_4k", 4 << 10),
    one("sparse_64k", 64 << 10),
    one("scan", NO_INDEX_BYTES),
    Setup { name: "segments_1000", interval: 4 << 10, segments: 1000 },
    Setup { name: "segments_10000", interval: 4 << 10, segments: 10_000 },
];

/// More segments take more than `--quick` has time for.
const SEGMENTS_QUICK_MAX: u64 = 1000;

const fn rule(
    (of, over): (&'static str, &'static str),
    figure: Figure,
    most: f64,
    when: &'static str,
) -> Rule {
    Rule { of, over, figure, bound: Bound::AtMost(most), when }
}

const SPACE: Figure = Figure::Named(INDEX, Unit::Bytes);

pub(super) static CLAIM: Claim = Claim {
    name: "sparse-index",
    sentence: "A sparse index finds a record in nearly the time of a dense one, however many segments \
               there are, at a fraction of its space.",
    source: "Kafka's log (`OffsetIndex`, an entry every 4 KiB), after the indexes of sorted tables: \
             LevelDB and Bigtable have one entry a block.",
    mechanism: "A disk reads 4 KiB in the time of one byte, so an index need not tell more than which \
                4 KiB: the rest is a scan of memory. Entries of 8 bytes every 4 KiB are 0.2 % of the \
                log and stay in memory; the segment is found by its name. Each step is a binary search, \
                so what grows with the log is a logarithm.",
    ends: "Where the index does not stay in memory: many segments have an index each, and a file to open \
             for it, and once these are more than what look-ups may remember, a look-up reads the index as \
             well as the batch. It is still a read or two, and not a scan.",
    headline: Figure::P50,
    arms: &[
        Arm::new(
            "dense",
            "one segment of 64 MiB",
            "an entry a batch",
            "`find_offset` of random offsets, one at a time, in a sealed segment of batches of about \
             1 KB; an index entry for each batch",
        ),
        Arm::new(
            "sparse_4k",
            "one segment of 64 MiB",
            "every 4 KiB",
            "an entry every 4 KiB, as is the default",
        ),
        Arm::new("sparse_64k", "one segment of 64 MiB", "every 64 KiB", "an entry every 64 KiB"),
        Arm::new(
            "scan",
            "one segment of 64 MiB",
            "no index",
            "no entry but the first: a scan from the segment's beginning",
        ),
        Arm::new(
            "segments_1000",
            "many segments of 64 KiB",
            "1,000",
            "entries every 4 KiB, a log of 64 MiB in 1,000 segments",
        ),
        Arm::new(
            "segments_10000",
            "many segments of 64 KiB",
            "10,000",
            "the same, 640 MiB in 10,000 segments; with `--full` only",
        ),
    ],
    rules: &[
        rule(
            ("sparse_4k", "dense"),
            Figure::P50,
            1.25,
            "in the time of a look-up, every 4 KiB beside every batch",
        ),
        rule(
            ("sparse_64k", "dense"),
            Figure::P50,
            1.25,
            "in the time of a look-up, every 64 KiB beside every batch",
        ),
        rule(("sparse_4k", "dense"), SPACE, 0.3, "in space, every 4 KiB beside every batch"),
        rule(("sparse_64k", "dense"), SPACE, 0.3, "in space, every 64 KiB beside every batch"),
        rule(("sparse_4k", "scan"), Figure::P50, 0.1, "in the time of a look-up, beside no index"),
        rule(
            ("segments_1000", "sparse_4k"),
            Figure::P50,
            1.5,
            "in the time of a look-up, 1,000 segments beside one",
        ),
        rule(
            ("segments_10000", "sparse_4k"),
            Figure::P50,
            1.5,
            "in the time of a look-up, 10,000 segments beside one",
        ),
    ],
    guards: &[
        Guard {
            what: "the page cache turns reads of the disk into copies",
            how: "the engine reads sealed segments past it where the file system takes O_DIRECT; where \
                  not, a note says so, and the arms are alike",
        },
        Guard {
            what: "the same places are looked up again and again",
            how: "offsets are drawn anew for each look-up, from the whole log",
        },
        Guard {
            what: "an arm warms up while it is measured, or all it looks for is in memory at last",
            how: "2,000 look-ups all over the log before the first round bring the index into memory; each engine \
                  has 16 MiB, of which one is for look-ups: too few to remember where every batch is",
        },
        Guard {
            what: "the answer is wrong",
            how: "each look-up must give the batch that holds the offset",
        },
        Guard {
            what: "the thread that asks is what takes time",
            how: "it does: some microseconds to the shard and back are in every arm; beside a read of \
                  the disk they are little, and the rule's bounds are above them",
        },
        Guard {
            what: "large batches make every index sparse",
            how: "batches of about 1 KB, a record each: a dense index has five entries where the sparse \
                  one has one",
        },
    ],
    slice: Duration::from_millis(150),
    space_bytes: 3 << 30,
    prepare,
};

fn prepare<'a>(stage: &mut Stage<'a>) -> Result<Ready<'a>> {
    let board = stage.board(CLIENTS);
    let mut ready = Ready::new();
    for setup in SETUPS {
        if setup.segments > SEGMENTS_QUICK_MAX && !stage.effort.is_full() {
            ready.absent(setup.name, "making so many segments takes too long: with --full only");
            continue;
        }
        let place = stage.subdir(setup.name)?;
        let made = Made::new(&place, setup, stage.payload, board)?;
        if !made.site.is_direct() && ready.notes.is_empty() {
            ready.notes.push(
                "the file system does not take O_DIRECT: look-ups read the page cache".to_owned(),
            );
        }
        let (meter, core) = (stage.meter(), stage.cores.clients);
        let mut random = Random::new(setup.segments ^ u64::from(setup.interval));
        ready.arm(setup.name, move |time| {
            // The whole of it: the engine is there as long as its arm is.
            let made = &made;
            let _pinned = Pinned::to(core);
            let find = |offset| found(&made.sealed.log, offset);
            let slice = meter.around(|| look_up(made.sealed.records, &mut random, time, find))?;
            Ok(slice.with(INDEX, made.index_bytes_a_mib))
        });
    }
    Ok(ready)
}

/// A log, and the engine that has it open.
struct Made {
    site: Site,
    sealed: Sealed,
    index_bytes_a_mib: f64,
}

impl Made {
    fn new(place: &Path, setup: Setup, payload: &Payload, board: &'static Board) -> Result<Self> {
        let bytes = if setup.segments == 1 { LOG_BYTES } else { setup.segments * SEGMENT_BYTES };
        let segment_bytes = if setup.segments == 1 { 1 << 30 } else { SEGMENT_BYTES };
        let config =
            Config { segment_bytes, ..lookups::config(place, setup.interval, MEMORY_BYTES) };
        let site = Site::open_with(config)?;
        let sealed = fill(&site, ("lookup", bytes), payload, board)?;
        // Without an index there is nothing to warm, and each look-up is long.
        if setup.interval != NO_INDEX_BYTES {
            let warming = WARMING.max(2 * setup.segments as u32);
            for nth in 0..warming {
                interrupt::check()?;
                let offset = u64::from(nth) * u64::from(sealed.records) / u64::from(warming);
                found(&sealed.log, offset as i64)?;
            }
        }
        let dir = place.join(sealed.log.name().to_string());
        let (index, log) = (bytes_of(&dir, ".index")?, bytes_of(&dir, ".log")?);
        ensure!(log > 0, "{} holds no log", dir.display());
        let index_bytes_a_mib = index as f64 / (log as f64 / f64::from(1 << 20));
        Ok(Self { site, sealed, index_bytes_a_mib })
    }
}

fn found(log: &LogHandle, offset: i64) -> Result<()> {
    let offset = Offset::new(offset);
    let found = log.find_offset_blocking(offset, Isolation::Dirty).context("cannot look up")?;
    let found = found.with_context(|| format!("offset {offset} is not found"))?;
    ensure!(found.first <= offset && offset <= found.last, "offset {offset}: another batch");
    Ok(())
}
