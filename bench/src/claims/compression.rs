//! What compression saves and what it costs: log lines and random bytes, on this disk and over a slower link.

use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ringmain::batch::{Batch, BatchBuilder, Compression};
use ringmain::error::AppendError;
use ringmain::{AppendFuture, Appended, LogHandle};

use super::claim::{Arm, Claim, Guard, Meter, Ready, Slice, Stage};
use super::rule::{Bound, Figure, Rule, Unit};
use crate::board::Board;
use crate::clients::{Acked, Load, Target, drive};
use crate::clock::now_ms;
use crate::cores::{Cores, Pinned};
use crate::payload::{Cursor, Payload};
use crate::site::{Site, fresh_segment};

/// Records of a batch: about 100 KiB of log lines, a Kafka producer's `batch.size` when it is set for throughput.
const RECORDS: u32 = 500;

/// Longest line that is taken.
const LINE_BYTES_MAX: usize = 1 << 10;

/// Batches in flight.
const CLIENTS: u32 = 4;

/// Bytes of random records.
const RANDOM_BYTES: usize = 16 << 20;

/// What a gigabit network carries of TCP payload, in bytes a second.
const LINK_BYTES_PER_S: f64 = 118e6;

/// Bytes a second that space is readied for before a slice: of what does not shrink, and of what does. One core of a
/// producer makes no more.
const PLAIN_BYTES_PER_S: f64 = 800e6;
const SHRUNK_BYTES_PER_S: f64 = 250e6;

/// Bounds of that space. A segment holds the upper one.
const READY_BYTES_MIN: u64 = 16 << 20;
const READY_BYTES_MAX: u64 = 960 << 20;

/// A slice's warm-up, as a share of it.
const WARM_UP: f64 = 0.2;

/// Bytes of batches that were acked, for each record.
const STORED: &str = "stored bytes a record";

#[derive(Clone, Copy, Debug)]
struct Setup {
    name: &'static str,
    compression: Compression,
    random: bool,
    link: bool,
}

const fn lines(name: &'static str, compression: Compression) -> Setup {
    Setup { name, compression, random: false, link: false }
}

const fn random(name: &'static str, compression: Compression) -> Setup {
    Setup { name, compression, random: true, link: false }
}

const fn link(name: &'static str, compression: Compression) -> Setup {
    Setup { name, compression, random: false, link: true }
}

const SETUPS: [Setup; 11] = [
    lines("lines_none", Compression::None),
    lines("lines_lz4", Compression::Lz4),
    lines("lines_zstd1", Compression::Zstd { level: 1 }),
    lines("lines_zstd3", Compression::Zstd { level: 3 }),
    lines("lines_zstd9", Compression::Zstd { level: 9 }),
    random("random_none", Compression::None),
    random("random_lz4", Compression::Lz4),
    random("random_zstd3", Compression::Zstd { level: 3 }),
    link("link_none", Compression::None),
    link("link_lz4", Compression::Lz4),
    link("link_zstd3", Compression::Zstd { level: 3 }),
];

const fn rule(
    (of, over): (&'static str, &'static str),
    figure: Figure,
    bound: Bound,
    when: &'static str,
) -> Rule {
    Rule { of, over, figure, bound, when }
}

const BYTES: Figure = Figure::Named(STORED, Unit::Bytes);
const HALF: Bound = Bound::AtMost(0.5);
const NO_SLOWER: Bound = Bound::AtLeast(0.95);
const FASTER: Bound = Bound::AtLeast(1.2);

pub(super) static CLAIM: Claim = Claim {
    name: "compression",
    sentence: "Compression halves what is stored and sent, at no loss of throughput.",
    source: "Kafka's documentation: the bottleneck is \"not CPU or disk but network bandwidth\", so \
             batches are compressed whole, by the producer; brokers and logs after it copied that.",
    mechanism: "Lines of a log repeat each other, and a batch of hundreds of them repeats far more \
                than one does. Cycles of the producer are paid for bytes of link and disk: it pays \
                where bytes are dearer than cycles. One core of a producer makes 50 to 500 MB/s of \
                compressed input; a gigabit link carries 118 MB/s, an NVMe disk gigabytes.",
    ends: "Where the disk is faster than the codec: one core compresses some hundred megabytes a second, \
             and a disk that takes gigabytes waits for it. Bytes that are random, encrypted or compressed \
             already do not shrink, and the cycles are spent all the same.",
    headline: Figure::RecordsPerS,
    arms: &[
        Arm::new(
            "lines_none",
            "log lines, this disk",
            "none",
            "batches of 500 lines, built and sent by one thread, 4 in flight; flush policy `group`",
        ),
        Arm::new("lines_lz4", "log lines, this disk", "lz4", "the same in LZ4 frames"),
        Arm::new("lines_zstd1", "log lines, this disk", "zstd 1", "the same with zstd, level 1"),
        Arm::new("lines_zstd3", "log lines, this disk", "zstd 3", "level 3, zstd's default"),
        Arm::new("lines_zstd9", "log lines, this disk", "zstd 9", "level 9"),
        Arm::new(
            "random_none",
            "random bytes, this disk",
            "none",
            "batches of 500 records of 256 random bytes",
        ),
        Arm::new("random_lz4", "random bytes, this disk", "lz4", "the same in LZ4 frames"),
        Arm::new(
            "random_zstd3",
            "random bytes, this disk",
            "zstd 3",
            "the same with zstd, level 3",
        ),
        Arm::new(
            "link_none",
            "log lines, a gigabit link",
            "none",
            "as `lines_none`, but a batch goes out when a link of 118 MB/s has taken the one before",
        ),
        Arm::new("link_lz4", "log lines, a gigabit link", "lz4", "the same in LZ4 frames"),
        Arm::new(
            "link_zstd3",
            "log lines, a gigabit link",
            "zstd 3",
            "the same with zstd, level 3",
        ),
    ],
    rules: &[
        rule(("lines_lz4", "lines_none"), BYTES, HALF, "in bytes of log lines, lz4"),
        rule(("lines_zstd1", "lines_none"), BYTES, HALF, "in bytes of log lines, zstd 1"),
        rule(("lines_zstd3", "lines_none"), BYTES, HALF, "in bytes of log lines, zstd 3"),
        rule(
            ("lines_zstd9", "lines_zstd3"),
            BYTES,
            Bound::AtMost(0.95),
            "in bytes, zstd 9 beside zstd 3",
        ),
        rule(("random_lz4", "random_none"), BYTES, HALF, "in bytes of random records, lz4"),
        rule(("random_zstd3", "random_none"), BYTES, HALF, "in bytes of random records, zstd 3"),
        rule(
            ("lines_lz4", "lines_none"),
            Figure::RecordsPerS,
            NO_SLOWER,
            "in throughput to this disk, lz4",
        ),
        rule(
            ("lines_zstd1", "lines_none"),
            Figure::RecordsPerS,
            NO_SLOWER,
            "in throughput to this disk, zstd 1",
        ),
        rule(
            ("lines_zstd3", "lines_none"),
            Figure::RecordsPerS,
            NO_SLOWER,
            "in throughput to this disk, zstd 3",
        ),
        rule(
            ("link_lz4", "link_none"),
            Figure::RecordsPerS,
            FASTER,
            "in throughput over a gigabit link, lz4",
        ),
        rule(
            ("link_zstd3", "link_none"),
            Figure::RecordsPerS,
            FASTER,
            "in throughput over a gigabit link, zstd 3",
        ),
        rule(
            ("lines_lz4", "lines_none"),
            Figure::P99,
            Bound::AtMost(1.25),
            "in p99 of an ack from this disk, lz4",
        ),
        rule(
            ("lines_zstd3", "lines_none"),
            Figure::CpuPerMib,
            Bound::AtMost(1.25),
            "in processor time a MiB of records, zstd 3",
        ),
    ],
    guards: &[
        Guard {
            what: "generated records compress as their generator likes",
            how: "log lines of the payload: give your own with `--payload`; random bytes beside \
                  them, the worst case",
        },
        Guard {
            what: "one buffer is sent again and again, which a codec or a disk may notice",
            how: "each client goes through the payload from a place of its own; every batch is \
                  built and compressed anew",
        },
        Guard {
            what: "rates in bytes flatter what does not compress",
            how: "rates are in records, and MiB/s is of the records before compression in all arms",
        },
        Guard {
            what: "an arm stops to make space ready, and the next one does not",
            how: "a log of its own for each arm; its space is made ready before the clock runs",
        },
        Guard {
            what: "this link is no link",
            how: "it is said: bytes are held back at 118 MB/s, without a network's own cost; \
                  compressing overlaps with sending, as in a producer with a sender of its own",
        },
        Guard {
            what: "one core makes all batches, compression's or not",
            how: "it is the claim's price, and in the figures: processor time is of the whole \
                  process",
        },
    ],
    slice: Duration::from_millis(120),
    space_bytes: 6 << 30,
    prepare,
};

fn prepare<'a>(stage: &mut Stage<'a>) -> Result<Ready<'a>> {
    let site = Rc::new(Site::open(&stage.subdir("engine")?)?);
    let random = Rc::new(Payload::compressible(RANDOM_BYTES, 1.0));
    let mut ready = Ready::of_engine(&site);
    let board = stage.board(CLIENTS);
    for setup in SETUPS {
        let log = site.logs(setup.name, 1, 0)?.pop().context("one log")?;
        let mut bench =
            Bench { setup, log, board, meter: stage.meter(), cores: stage.cores, slices: 0 };
        // The engine is there as long as one of its arms is.
        let (site, payload, random) = (site.clone(), stage.payload, random.clone());
        ready.arm(setup.name, move |time| {
            let _open = &site;
            bench.slice(if setup.random { &random } else { payload }, time)
        });
    }
    Ok(ready)
}

struct Bench {
    setup: Setup,
    log: LogHandle,
    board: &'static Board,
    meter: Meter,
    cores: Cores,
    slices: usize,
}

impl Bench {
    fn slice(&mut self, payload: &Payload, time: Duration) -> Result<Slice> {
        let shrinks = self.setup.compression != Compression::None && !self.setup.random;
        let rate = if shrinks { SHRUNK_BYTES_PER_S } else { PLAIN_BYTES_PER_S };
        let bytes = ((time.as_secs_f64() * rate) as u64).clamp(READY_BYTES_MIN, READY_BYTES_MAX);
        fresh_segment(std::slice::from_ref(&self.log), bytes)?;
        let end = self.log.watermarks_blocking()?.dirty;
        self.log.delete_records_blocking(end).context("cannot remove what was measured")?;
        self.slices += 1;
        let mut producer = Producer::new(&self.log, self.setup, payload, self.slices);
        let _pinned = Pinned::to(self.cores.clients);
        let warm_up = time.mul_f64(WARM_UP);
        let load = Load {
            clients: CLIENTS,
            warm_up,
            measured: time.saturating_sub(warm_up),
            spin: Duration::ZERO,
            bytes_max: if shrinks { u64::MAX } else { bytes },
        };
        let slice = self.meter.around(|| drive(&mut producer, &load, self.board))?;
        Ok(slice.with(STORED, producer.stored as f64 / producer.records.max(1) as f64))
    }
}

/// One thread that builds, compresses and sends.
struct Producer<'a> {
    log: &'a LogHandle,
    setup: Setup,
    desks: Vec<Desk<'a>>,
    /// When the link has taken what was sent.
    link_free: Instant,
    records: u64,
    stored: u64,
}

struct Desk<'a> {
    cursor: Cursor<'a>,
    buffer: Vec<u8>,
    /// Bytes of the values in the batch under way, and of the batch.
    plain: u64,
    encoded: u64,
}

impl<'a> Producer<'a> {
    fn new(log: &'a LogHandle, setup: Setup, payload: &'a Payload, nth: usize) -> Self {
        let desk = |client| Desk::new(payload.cursor(nth * CLIENTS as usize + client as usize));
        let desks = (0..CLIENTS).map(desk).collect();
        Self { log, setup, desks, link_free: Instant::now(), records: 0, stored: 0 }
    }

    /// Waits until the link is free, and takes it for `bytes`.
    fn send_over_link(&mut self, bytes: u64) {
        let now = Instant::now();
        thread::sleep(self.link_free.saturating_duration_since(now));
        let takes = Duration::from_secs_f64(bytes as f64 / LINK_BYTES_PER_S);
        self.link_free = self.link_free.max(now) + takes;
    }
}

impl<'a> Desk<'a> {
    fn new(cursor: Cursor<'a>) -> Self {
        Self { cursor, buffer: Vec::new(), plain: 0, encoded: 0 }
    }

    fn build(&mut self, compression: Compression) -> Batch {
        let now = now_ms() as i64;
        let buffer = std::mem::take(&mut self.buffer);
        let mut builder = BatchBuilder::reuse(buffer).compression(compression);
        self.plain = 0;
        for _ in 0..RECORDS {
            let line = self.cursor.line();
            let line = &line[..line.len().min(LINE_BYTES_MAX)];
            builder.add(now, None, Some(line)).expect("500 KiB are no large batch");
            self.plain += line.len() as u64;
        }
        let batch = builder.build().expect("what was added is encoded");
        self.encoded = batch.as_bytes().len() as u64;
        batch
    }
}

impl Target for Producer<'_> {
    type Fut = AppendFuture;

    fn append(&mut self, client: u32) -> AppendFuture {
        let desk = &mut self.desks[client as usize];
        let batch = desk.build(self.setup.compression);
        if self.setup.link {
            let bytes = desk.encoded;
            self.send_over_link(bytes);
        }
        self.log.append(batch)
    }

    fn acked(&mut self, client: u32, output: Result<Appended, AppendError>) -> Result<Acked> {
        let desk = &mut self.desks[client as usize];
        desk.buffer = output?.buffer;
        self.records += u64::from(RECORDS);
        self.stored += desk.encoded;
        Ok(Acked { records: u64::from(RECORDS), bytes: desk.plain })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_shrink_and_random_records_do_not() {
        let (lines, random) = (Payload::generated(1 << 20), Payload::compressible(1 << 20, 1.0));
        for compression in [Compression::Lz4, Compression::Zstd { level: 3 }] {
            let share = |payload: &Payload| {
                let mut desk = Desk::new(payload.cursor(0));
                desk.build(compression);
                desk.encoded as f64 / desk.plain as f64
            };
            let (of_lines, of_random) = (share(&lines), share(&random));
            assert!(of_lines < 0.6 && of_random > 0.95, "{compression:?}: {of_lines} {of_random}");
        }
    }
}
