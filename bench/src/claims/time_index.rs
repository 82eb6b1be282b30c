//! Looking up a time with an index, and without.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringmain::LogHandle;
use ringmain::types::Isolation;

use super::claim::{Arm, Claim, Guard, Ready, Stage};
use super::lookups::{CLIENTS, FIRST_MS, NO_INDEX_BYTES, config, fill, look_up};
use super::rule::{Bound, Figure, Rule};
use crate::cores::Pinned;
use crate::random::Random;
use crate::site::Site;

/// Bytes of the smaller log and of the larger one.
const SMALL_BYTES: u64 = 6 << 20;
const LARGE_BYTES: u64 = 48 << 20;

/// Of each engine: what look-ups found is remembered in a sixteenth of it.
const MEMORY_BYTES: usize = 64 << 20;

/// Name, index interval, bytes.
const SETUPS: [(&str, u32, u64); 4] = [
    ("index_small", 4 << 10, SMALL_BYTES),
    ("index_large", 4 << 10, LARGE_BYTES),
    ("scan_small", NO_INDEX_BYTES, SMALL_BYTES),
    ("scan_large", NO_INDEX_BYTES, LARGE_BYTES),
];

const fn rule((of, over): (&'static str, &'static str), bound: Bound, when: &'static str) -> Rule {
    Rule { of, over, figure: Figure::P50, bound, when }
}

pub(super) static CLAIM: Claim = Claim {
    name: "time-index",
    sentence: "An index by time finds the first record from a moment on without reading what is before \
               it.",
    source: "Kafka's KIP-33: before it a consumer that asked for a time got the beginning of a segment.",
    mechanism: "Entries of a time and an offset, every 4 KiB of log, each with the largest timestamp so \
                far, so that a binary search works although producers' clocks disagree. It gives an \
                offset, the offset's index a position, and one batch is decoded. A scan reads half of \
                the segment on average, and grows with it.",
    ends: "Not with the log's size. A look-up by time costs two by offset: it reads an entry, then the \
             batches behind it, and decodes one for the record's own time.",
    headline: Figure::P50,
    arms: &[
        Arm::new(
            "index_small",
            "a segment of 6 MiB",
            "index",
            "`find_time` of random times, one at a time, in a sealed segment of batches of about 1 KB, \
             a millisecond apart; entries every 4 KiB",
        ),
        Arm::new("index_large", "a segment of 48 MiB", "index", "the same, eight times as long"),
        Arm::new(
            "scan_small",
            "a segment of 6 MiB",
            "scan",
            "the same call with no entry but the first: headers are read from the segment's beginning on",
        ),
        Arm::new("scan_large", "a segment of 48 MiB", "scan", "the same, eight times as long"),
    ],
    rules: &[
        rule(("index_large", "scan_large"), Bound::AtMost(0.1), "in 48 MiB, beside a scan"),
        rule(("index_small", "scan_small"), Bound::AtMost(0.25), "in 6 MiB, beside a scan"),
        rule(("index_large", "index_small"), Bound::AtMost(1.5), "as the log grows eight times"),
    ],
    guards: &[
        Guard {
            what: "the page cache turns reads of the disk into copies",
            how: "the engine reads sealed segments past it where the file system takes O_DIRECT; where \
                  not, a note says so, and the arms are alike",
        },
        Guard {
            what: "the same times are looked up again and again",
            how: "drawn anew for each look-up, from the whole log",
        },
        Guard {
            what: "the answer is wrong",
            how: "every record has a time of its own, and each look-up must give the record that has it",
        },
        Guard {
            what: "the scan is written badly",
            how: "it is the engine's own, over headers, in large reads; nothing is decoded before the \
                  batch is found",
        },
    ],
    slice: Duration::from_millis(250),
    space_bytes: 1 << 30,
    prepare,
};

fn prepare<'a>(stage: &mut Stage<'a>) -> Result<Ready<'a>> {
    let board = stage.board(CLIENTS);
    let mut ready = Ready::new();
    for (nth, (name, interval, bytes)) in SETUPS.into_iter().enumerate() {
        let site = Site::open_with(config(&stage.subdir(name)?, interval, MEMORY_BYTES))?;
        let sealed = fill(&site, ("lookup", bytes), stage.payload, board)?;
        if !site.is_direct() && ready.notes.is_empty() {
            ready.notes.push(
                "the file system does not take O_DIRECT: look-ups read the page cache".to_owned(),
            );
        }
        let (meter, core) = (stage.meter(), stage.cores.clients);
        let mut random = Random::new(nth as u64);
        ready.arm(name, move |time| {
            // The engine is there as long as its arm is.
            let _open = &site;
            let _pinned = Pinned::to(core);
            let find = |nth| found(&sealed.log, FIRST_MS + nth);
            meter.around(|| look_up(sealed.records, &mut random, time, find))
        });
    }
    Ok(ready)
}

fn found(log: &LogHandle, timestamp: i64) -> Result<()> {
    let found = log.find_time_blocking(timestamp, Isolation::Dirty).context("cannot look up")?;
    let found = found.with_context(|| format!("time {timestamp} is not found"))?;
    ensure!(found.timestamp == timestamp, "time {timestamp}: a record of {}", found.timestamp);
    Ok(())
}
