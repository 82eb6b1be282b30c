//! Consumers that fetch many records at once, beside those that fetch one.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ringmain::batch::batches;
use ringmain::types::{Isolation, Offset};
use ringmain::{Fetch, LogHandle};

use super::claim::{Arm, Claim, Guard, Meter, Ready, Slice, Stage};
use super::lookups::seal;
use super::rule::{Bound, Figure, Rule};
use crate::appends::Appends;
use crate::board::Board;
use crate::clients::{Load, drive};
use crate::cores::{Cores, Pinned};
use crate::interrupt;
use crate::onebatch::BATCH_BYTES;
use crate::payload::Payload;
use crate::sample::Sample;
use crate::site::{Site, fresh_segment};

/// Bytes of the log that is read.
const LOG_BYTES: u64 = 8 << 20;

/// Producers of the arm that appends, each with a record in flight.
const CLIENTS: u32 = 256;

/// A slice's warm-up, as a share of it.
const WARM_UP: f64 = 0.2;

/// Bytes a second that space is readied for before a slice that appends.
const APPENDED_BYTES_PER_S: f64 = 300e6;

/// Filling the log takes no longer.
const FILL_MAX: Duration = Duration::from_secs(60);

/// Arms that read, and the most bytes of their fetches: the least there can be is a batch, here a record.
const READS: [(&str, usize); 5] = [
    ("fetch_one", 1),
    ("fetch_4k", 4 << 10),
    ("fetch_64k", 64 << 10),
    ("fetch_1m", 1 << 20),
    ("fetch_4m", 4 << 20),
];

const fn rule(of: &'static str, over: &'static str, bound: f64, when: &'static str) -> Rule {
    Rule { of, over, figure: Figure::RecordsPerS, bound: Bound::AtLeast(bound), when }
}

pub(super) static CLAIM: Claim = Claim {
    name: "consumer-batching",
    sentence: "A consumer that fetches batches keeps up with its producers; the larger its fetches, \
               the faster it is.",
    source: "Kafka's design notes: a consumer's fetch returns a chunk of log, \"amortizing\" the round \
             trip over many records; `fetch.min.bytes` and `max.partition.fetch.bytes` of every guide \
             to tuning.",
    mechanism: "A fetch is a message to the shard, a look-up and an answer: some microseconds, and over \
                a network some hundred, whatever it carries. A record costs a hundredth of that to \
                decode. Fetches share the fixed part out until it vanishes beside the decoding; from \
                there on larger ones only take more memory, and leave the core's cache.",
    ends: "At about a megabyte: from there on the time is that of decoding, and larger fetches leave the \
             core's cache. At the other end a fetch for each record pays for two wake-ups and a look-up each \
             time, and is slower than the producers by far.",
    headline: Figure::RecordsPerS,
    arms: &[
        Arm::new(
            "append_one",
            "producers",
            "a record an append",
            "256 producers with a record of 100 bytes in flight each; flush policy `group`",
        ),
        Arm::new(
            "fetch_one",
            "one consumer, most bytes of a fetch",
            "a record",
            "one thread, one fetch at a time, every record decoded; batches of one record",
        ),
        Arm::new("fetch_4k", "one consumer, most bytes of a fetch", "4 KiB", "the same"),
        Arm::new("fetch_64k", "one consumer, most bytes of a fetch", "64 KiB", "the same"),
        Arm::new("fetch_1m", "one consumer, most bytes of a fetch", "1 MiB", "the same"),
        Arm::new("fetch_4m", "one consumer, most bytes of a fetch", "4 MiB", "the same"),
    ],
    rules: &[
        rule("fetch_one", "append_one", 1.0, "in keeping up with 256 producers, a record a fetch"),
        rule("fetch_1m", "append_one", 1.0, "in keeping up with 256 producers, 1 MiB a fetch"),
        rule("fetch_4k", "fetch_one", 2.0, "from a record to 4 KiB (twice the rate)"),
        rule("fetch_64k", "fetch_4k", 1.5, "from 4 to 64 KiB (half as much again)"),
        rule("fetch_1m", "fetch_64k", 1.05, "from 64 KiB to 1 MiB (a twentieth more)"),
        rule("fetch_4m", "fetch_1m", 1.05, "from 1 to 4 MiB (a twentieth more)"),
    ],
    guards: &[
        Guard {
            what: "some fetches find their bytes in memory, and others read the disk",
            how: "the log of 8 MiB is sealed before the first round and has an engine of its own: all of its \
                  bytes come from the disk, as they do for a consumer that is behind",
        },
        Guard {
            what: "bytes are fetched and never looked at",
            how: "every record is decoded, and offsets must rise by one from the first to the last",
        },
        Guard {
            what: "consumer and shard share a core",
            how: "each is pinned to one of its own, if there are two",
        },
        Guard {
            what: "no network: a fetch costs microseconds here, not a round trip",
            how: "it is said: over a network the small fetches are slower still, so what holds here \
                  holds there, and `from 64 KiB to 1 MiB` may hold there where it does not here",
        },
    ],
    slice: Duration::from_millis(150),
    space_bytes: 3 << 30,
    prepare,
};

fn prepare<'a>(stage: &mut Stage<'a>) -> Result<Ready<'a>> {
    // Two engines, so that what is appended does not push what is read out of memory.
    let reads = Rc::new(Site::open(&stage.subdir("engine-read")?)?);
    let site = Site::open(&stage.subdir("engine-append")?)?;
    let board = stage.board(CLIENTS);
    let log = reads.logs("read", 1, LOG_BYTES + (16 << 20))?.pop().context("one log")?;
    fill(&log, stage.payload, board)?;
    seal(&log)?;
    let mut ready = Ready::of_engine(&site);
    let written = site.logs("append", 1, 0)?.pop().context("one log")?;
    let append = Append { log: written, board, meter: stage.meter(), cores: stage.cores };
    // The engine is there as long as one of its arms is.
    let payload = stage.payload;
    ready.arm("append_one", move |time| {
        let _open = &site;
        append.slice(payload, time)
    });
    for (name, bytes) in READS {
        let (log, open) = (log.clone(), reads.clone());
        let (meter, cores) = (stage.meter(), stage.cores);
        ready.arm(name, move |time| {
            let _open = &open;
            let _pinned = Pinned::to(cores.clients);
            meter.around(|| read(&log, bytes, time))
        });
    }
    Ok(ready)
}

fn fill(log: &LogHandle, payload: &Payload, board: &'static Board) -> Result<()> {
    let mut clients = Appends::new(std::slice::from_ref(log), CLIENTS, BATCH_BYTES, payload)?;
    let load = Load {
        clients: CLIENTS,
        warm_up: Duration::ZERO,
        measured: FILL_MAX,
        spin: Duration::ZERO,
        bytes_max: LOG_BYTES,
    };
    let filled = drive(&mut clients, &load, board).context("cannot fill the log")?;
    ensure!(filled.bytes >= LOG_BYTES - u64::from(CLIENTS) * BATCH_BYTES as u64, "it is too slow");
    Ok(())
}

struct Append {
    log: LogHandle,
    board: &'static Board,
    meter: Meter,
    cores: Cores,
}

impl Append {
    fn slice(&self, payload: &Payload, time: Duration) -> Result<Slice> {
        let bytes = ((time.as_secs_f64() * APPENDED_BYTES_PER_S) as u64).next_multiple_of(1 << 20);
        let bytes = bytes.clamp(16 << 20, 960 << 20);
        fresh_segment(std::slice::from_ref(&self.log), bytes)?;
        let end = self.log.watermarks_blocking()?.dirty;
        self.log.delete_records_blocking(end).context("cannot remove what was measured")?;
        let logs = std::slice::from_ref(&self.log);
        let mut clients = Appends::new(logs, CLIENTS, BATCH_BYTES, payload)?;
        let warm_up = time.mul_f64(WARM_UP);
        let load = Load {
            clients: CLIENTS,
            warm_up,
            measured: time.saturating_sub(warm_up),
            spin: Duration::ZERO,
            bytes_max: bytes,
        };
        let _pinned = Pinned::to(self.cores.clients);
        self.meter.around(|| drive(&mut clients, &load, self.board))
    }
}

/// Reads the log from its beginning to its end, again and again, `bytes` at most at once.
fn read(log: &LogHandle, bytes: usize, time: Duration) -> Result<Sample> {
    let warm_up = time.mul_f64(WARM_UP);
    let mut sample = Sample::empty(time.saturating_sub(warm_up));
    let (begin, mut next) = (Instant::now(), Offset::ZERO);
    loop {
        interrupt::check()?;
        let asked = Instant::now();
        let fetch = Fetch {
            max_bytes: bytes,
            min_bytes: 0,
            max_wait: Duration::ZERO,
            isolation: Isolation::Dirty,
            ..Fetch::from(next)
        };
        let fetched = log.fetch_blocking(fetch).context("cannot fetch")?;
        let records = decoded(&fetched.bytes, next)?;
        let now = Instant::now();
        if now - begin >= time {
            return Ok(sample);
        }
        if now - begin >= warm_up {
            sample.latencies.record((now - asked).as_nanos() as u64);
            sample.records += records;
            sample.bytes += fetched.bytes.len() as u64;
        }
        next = if records == 0 { Offset::ZERO } else { fetched.next };
    }
}

/// Decodes every record. Returns how many there are.
fn decoded(bytes: &[u8], from: Offset) -> Result<u64> {
    let mut next = from;
    for batch in batches(bytes) {
        let batch = batch.context("a damaged batch")?;
        for record in batch.records().context("a damaged batch")? {
            let record = record.context("a damaged record")?;
            ensure!(record.offset == next, "{} comes where {next} is due", record.offset);
            std::hint::black_box(record.value);
            next = next.plus(1);
        }
    }
    Ok((next.get() - from.get()) as u64)
}
