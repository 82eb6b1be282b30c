//! Larger batches beside smaller ones: with as many batches in flight, and with as many records in flight.

use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use ringmain::types::FlushPolicy;

use super::appending::{Appender, Sends, Shape};
use super::claim::{Arm, Claim, Guard, Ready, Stage};
use super::rule::{Bound, Figure, Rule};
use crate::site::Site;

const SAME_BATCHES: &str = "16 batches in flight";
const SAME_RECORDS: &str = "1,000 records in flight";

const fn rule(of: &'static str, over: &'static str, when: &'static str) -> Rule {
    Rule { of, over, figure: Figure::RecordsPerS, bound: Bound::AtLeast(1.5), when }
}

pub(super) static CLAIM: Claim = Claim {
    name: "batching",
    sentence: "Producers batch: the larger the batch, the more records a second.",
    source: "Kafka's documentation (`batch.size`, `linger.ms`) and every guide to tuning a \
             producer.",
    mechanism: "What is paid once a batch (a header, a checksum's start, a way to the log's \
                thread, a write, a flush, an ack) is shared by its records. A log that flushes \
                for many appends at once shares the flush anyway, so batching should matter less \
                to it once enough appends wait together; what is left is the cost of each batch \
                in the processor.",
    ends: "From the size on at which a batch's fixed cost is small beside that of its records: their \
             making, their checksum and their bytes. Where clients do not batch and many wait, group commit \
             makes the batch that they did not, and tenfold batches gain little.",
    headline: Figure::RecordsPerS,
    arms: &[
        Arm::new(
            "batches_1",
            SAME_BATCHES,
            "1 record",
            "16 clients, each with one batch of one record of 100 bytes in flight; acked when \
             durable",
        ),
        Arm::new("batches_10", SAME_BATCHES, "10 records", "the same, 10 records a batch"),
        Arm::new("batches_100", SAME_BATCHES, "100 records", "the same, 100 records a batch"),
        Arm::new("batches_1000", SAME_BATCHES, "1,000 records", "the same, 1,000 records a batch"),
        Arm::new(
            "records_1",
            SAME_RECORDS,
            "1,000 x 1",
            "1,000 clients, each with one batch of one record in flight; acked when durable",
        ),
        Arm::new("records_10", SAME_RECORDS, "100 x 10", "100 clients, 10 records a batch"),
        Arm::new("records_100", SAME_RECORDS, "10 x 100", "10 clients, 100 records a batch"),
        Arm::new("records_1000", SAME_RECORDS, "1 x 1,000", "1 client, 1,000 records a batch"),
    ],
    rules: &[
        rule("batches_10", "batches_1", "from 1 to 10 records a batch, as many batches in flight"),
        rule("batches_100", "batches_10", "from 10 to 100, as many batches in flight"),
        rule("batches_1000", "batches_100", "from 100 to 1,000, as many batches in flight"),
        rule("records_10", "records_1", "from 1 to 10 records a batch, as many records in flight"),
        rule("records_100", "records_10", "from 10 to 100, as many records in flight"),
        rule("records_1000", "records_100", "from 100 to 1,000, as many records in flight"),
    ],
    guards: &[
        Guard {
            what: "larger batches also mean more bytes in flight",
            how: "a second set of arms with 1,000 records in flight whatever the batch",
        },
        Guard {
            what: "space is readied while the clock runs",
            how: "it is readied before; the run ends early if it is used up, and `prepared_bytes` \
                  tells",
        },
        Guard {
            what: "the clients are the bottleneck",
            how: "they build the next batch while one is under way, on a core of their own; \
                  `cpu_cores` tells",
        },
        Guard {
            what: "one batch sent again and again",
            how: "values go through the payload, which comes again only after 32 MiB",
        },
        Guard {
            what: "compressibility",
            how: "nothing is compressed; a disk that compresses sees log lines",
        },
    ],
    slice: Duration::from_millis(120),
    space_bytes: 3 << 30,
    prepare,
};

const ARMS: [(&str, u32, u32); 8] = [
    ("batches_1", 16, 1),
    ("batches_10", 16, 10),
    ("batches_100", 16, 100),
    ("batches_1000", 16, 1000),
    ("records_1", 1000, 1),
    ("records_10", 100, 10),
    ("records_100", 10, 100),
    ("records_1000", 1, 1000),
];

fn prepare<'a>(stage: &mut Stage<'a>) -> Result<Ready<'a>> {
    let site = Rc::new(Site::open(&stage.subdir("engine")?)?);
    let mut ready = Ready::of_engine(&site);
    for (name, clients, records) in ARMS {
        let sends = Sends::Records(records);
        let shape = Shape { clients, sends, partitions: 1, flush: FlushPolicy::Group };
        let mut appender = Appender::new(stage, &site, name, shape)?;
        ready.arm(name, move |time| appender.slice(time));
    }
    Ok(ready)
}
