//! What an ack costs: before the write, after the write, after the flush.

use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use ringmain::types::FlushPolicy;

use super::appending::{Appender, Sends, Shape};
use super::claim::{Arm, Claim, Guard, Ready, Stage};
use super::rule::{Bound, Figure, Rule};
use crate::site::Site;

const ALONE: &str = "one client, one record a batch";
const MANY: &str = "256 clients, one record a batch";
const LARGE: &str = "16 clients, batches of 64 KiB";

const fn dearer(of: &'static str, over: &'static str, when: &'static str) -> Rule {
    Rule { of, over, figure: Figure::P50, bound: Bound::AtLeast(1.25), when }
}

const fn slower(of: &'static str, over: &'static str, when: &'static str) -> Rule {
    Rule { of, over, figure: Figure::RecordsPerS, bound: Bound::AtMost(0.9), when }
}

pub(super) static CLAIM: Claim = Claim {
    name: "durability-levels",
    sentence: "A stronger ack is paid for, in latency and in throughput.",
    source: "Kafka's `acks=0`, `1`, `all` and the advice never to set \
             `log.flush.interval.messages`; every database's `synchronous_commit`.",
    mechanism: "Before the write an ack waits for nobody. After the write it waits for the log's \
                thread and the kernel; after the flush for the disk as well. A log that shares \
                one flush among all who wait pays for it in latency only, until the disk is busy \
                all the time.",
    ends: "In throughput, where many wait at once: the log writes what came meanwhile in one piece, so \
           that a record's share of a write is small beside its way through the processor, and an ack \
           after it is nearly as cheap as one before. A flush of small groups is shared in the same way; \
           what is left of its price is that the disk is waited for.",
    headline: Figure::RecordsPerS,
    arms: &[
        Arm::new(
            "before_write_c1",
            ALONE,
            "before the write",
            "counted once it is handed to the log; at most 1,024 on their way",
        ),
        Arm::new(
            "after_write_c1",
            ALONE,
            "after the write",
            "acked when written past the page cache (flush policy `os`)",
        ),
        Arm::new(
            "after_flush_c1",
            ALONE,
            "after the flush",
            "acked when on stable storage (flush policy `group`)",
        ),
        Arm::new("before_write_c256", MANY, "before the write", "as above"),
        Arm::new("after_write_c256", MANY, "after the write", "as above"),
        Arm::new("after_flush_c256", MANY, "after the flush", "as above"),
        Arm::new("after_write_64k", LARGE, "after the write", "as above"),
        Arm::new("after_flush_64k", LARGE, "after the flush", "as above"),
    ],
    rules: &[
        dearer(
            "after_write_c1",
            "before_write_c1",
            "in latency, from before to after the write, one client",
        ),
        dearer(
            "after_flush_c1",
            "after_write_c1",
            "in latency, from after the write to after the flush, one client",
        ),
        slower(
            "after_write_c256",
            "before_write_c256",
            "in throughput, from before to after the write, 256 clients",
        ),
        slower(
            "after_flush_c256",
            "after_write_c256",
            "in throughput, from after the write to after the flush, 256 clients",
        ),
        slower(
            "after_flush_64k",
            "after_write_64k",
            "in throughput, from after the write to after the flush, large batches",
        ),
    ],
    guards: &[
        Guard {
            what: "a disk that acks flushes it has not made",
            how: "`quick` judges a lone flush; what is implausibly fast is said there",
        },
        Guard {
            what: "acks before the write pile up without end",
            how: "1,024 may be on their way, then the sender waits; all are waited for, and a \
                  failure ends the run",
        },
        Guard {
            what: "written means something else in each arm",
            how: "all arms write past the page cache; what the page cache adds is the claim \
                  page-cache",
        },
        Guard { what: "space is readied while the clock runs", how: "it is readied before" },
        Guard {
            what: "one batch sent again and again",
            how: "each is built of other lines of the payload",
        },
    ],
    slice: Duration::from_millis(120),
    space_bytes: 3 << 30,
    prepare,
};

const ONE_RECORD: usize = crate::onebatch::BATCH_BYTES;
const LARGE_BYTES: usize = 64 << 10;

const ARMS: [(&str, u32, Sends, FlushPolicy); 8] = [
    ("before_write_c1", 1, Sends::Unacked(ONE_RECORD), FlushPolicy::Os),
    ("after_write_c1", 1, Sends::Bytes(ONE_RECORD), FlushPolicy::Os),
    ("after_flush_c1", 1, Sends::Bytes(ONE_RECORD), FlushPolicy::Group),
    ("before_write_c256", 256, Sends::Unacked(ONE_RECORD), FlushPolicy::Os),
    ("after_write_c256", 256, Sends::Bytes(ONE_RECORD), FlushPolicy::Os),
    ("after_flush_c256", 256, Sends::Bytes(ONE_RECORD), FlushPolicy::Group),
    ("after_write_64k", 16, Sends::Bytes(LARGE_BYTES), FlushPolicy::Os),
    ("after_flush_64k", 16, Sends::Bytes(LARGE_BYTES), FlushPolicy::Group),
];

fn prepare<'a>(stage: &mut Stage<'a>) -> Result<Ready<'a>> {
    let site = Rc::new(Site::open(&stage.subdir("engine")?)?);
    let mut ready = Ready::of_engine(&site);
    for (name, clients, sends, flush) in ARMS {
        let shape = Shape { clients, sends, partitions: 1, flush };
        let mut appender = Appender::new(stage, &site, name, shape)?;
        ready.arm(name, move |time| appender.slice(time));
    }
    Ok(ready)
}
