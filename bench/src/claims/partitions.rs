//! More and more partitions, on one shard and on two.

use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use ringmain::Config;
use ringmain::types::FlushPolicy;

use super::appending::{Appender, Sends, Shape};
use super::claim::{Arm, Claim, Guard, Ready, Stage};
use super::rule::{Bound, Figure, Rule};
use crate::site::{self, Site};

const CLIENTS: u32 = 512;

/// Bytes of a batch: one record.
const BATCH_BYTES: usize = 1024;

const ONE: &str = "one shard";
const TWO: &str = "two shards";

const fn gain(of: &'static str, over: &'static str, when: &'static str) -> Rule {
    Rule { of, over, figure: Figure::RecordsPerS, bound: Bound::AtLeast(1.1), when }
}

const fn loss(of: &'static str, over: &'static str, when: &'static str) -> Rule {
    Rule { of, over, figure: Figure::RecordsPerS, bound: Bound::AtMost(0.9), when }
}

pub(super) static CLAIM: Claim = Claim {
    name: "partitions",
    sentence: "More partitions bring more throughput, until there are too many.",
    source: "Kafka's guides (\"more partitions lead to higher throughput\", with a limit of some \
             thousands a broker), and what operators tell of clusters with too many.",
    mechanism: "A partition is a unit of order, so it is written by one thread at a time: more of \
                them let more cores work. Within one thread there is nothing to gain, and \
                something to lose: groups are spread over more files, so that each gets fewer \
                bytes a write, memory is touched in more places, and directories grow.",
    ends: "Within a shard from the beginning: one thread writes one partition as fast as sixteen. A second \
             shard gains what a core gains, and none where the clients have that core already. Over a \
             thousand partitions a group's bytes are written once to the journal, in one piece, and then \
             again to each segment, in small ones, each with its own memory and its own file.",
    headline: Figure::RecordsPerS,
    arms: &[
        Arm::new(
            "p1",
            ONE,
            "1 partition",
            "512 clients, batches of one record of 1 KiB, acked when durable, one partition",
        ),
        Arm::new(
            "p16",
            ONE,
            "16 partitions",
            "the same, clients go through the partitions in turn",
        ),
        Arm::new("p1000", ONE, "1,000 partitions", "the same"),
        Arm::new("p10000", ONE, "10,000 partitions", "the same; with --full only"),
        Arm::new(
            "p1_s2",
            TWO,
            "1 partition",
            "an engine of two shards, one of which has the partition",
        ),
        Arm::new("p16_s2", TWO, "16 partitions", "the same, partitions on both"),
    ],
    rules: &[
        gain("p16", "p1", "from 1 to 16 partitions on one shard"),
        gain("p16_s2", "p1_s2", "from 1 to 16 partitions on two shards"),
        gain("p16_s2", "p16", "from one shard to two, 16 partitions"),
        loss("p1000", "p16", "as a loss from 16 to 1,000 partitions"),
        loss("p10000", "p1000", "as a loss from 1,000 to 10,000 partitions"),
    ],
    guards: &[
        Guard {
            what: "more partitions mean more in flight",
            how: "512 clients in every arm, each with one batch in flight",
        },
        Guard {
            what: "making partitions and space is counted",
            how: "both are made before the clock runs",
        },
        Guard {
            what: "clients take the second shard's core",
            how: "they do where there are two cores only, and `cpu_cores` tells; two shards need \
                  a third core to show all they can",
        },
        Guard {
            what: "one arm's partitions are in another's way",
            how: "those with many are of topics of their own and idle meanwhile; those with few \
                  are deleted after each slice",
        },
        Guard {
            what: "one batch sent again and again",
            how: "each is built of other lines of the payload",
        },
    ],
    slice: Duration::from_millis(200),
    space_bytes: 8 << 30,
    prepare,
};

const ARMS: [(&str, u64, usize); 6] = [
    ("p1", 1, 1),
    ("p16", 16, 1),
    ("p1000", 1000, 1),
    ("p10000", 10_000, 1),
    ("p1_s2", 1, 2),
    ("p16_s2", 16, 2),
];

fn prepare<'a>(stage: &mut Stage<'a>) -> Result<Ready<'a>> {
    let one = Rc::new(Site::open(&stage.subdir("engine-1")?)?);
    let config = Config { shards: 2, ..site::config(&stage.subdir("engine-2")?) };
    let two = Rc::new(Site::open_with(config)?);
    let mut ready = Ready::of_engine(&one);
    for (name, partitions, shards) in ARMS {
        if partitions > 1000 && !stage.effort.is_full() {
            ready.absent(name, "10,000 partitions are made with --full only");
            continue;
        }
        let site = if shards == 1 { &one } else { &two };
        let (sends, flush) = (Sends::Bytes(BATCH_BYTES), FlushPolicy::Group);
        let shape = Shape { clients: CLIENTS, sends, partitions, flush };
        let mut appender = Appender::new(stage, site, name, shape)?;
        ready.arm(name, move |time| appender.slice(time));
    }
    if stage.cores.disk == stage.cores.clients {
        ready.notes.push("there is one core: two shards and the clients share it".to_owned());
    }
    Ok(ready)
}
