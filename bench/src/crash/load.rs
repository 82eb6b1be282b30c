//! The child that is killed.

use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use ringmain::batch::{Batch, BatchBuilder};
use ringmain::error::AppendError;
use ringmain::{AppendFuture, Appended, LogHandle};

use super::{PARTITIONS, TOPIC};
use crate::board::Board;
use crate::clients::{Acked, Load, Target, drive};
use crate::clock::now_ms;
use crate::cores::{Cores, Pinned};
use crate::oracle::{Ack, Reporter, STAMP_BYTES, Stamp};
use crate::payload::{Cursor, Payload};
use crate::site::Site;

/// Producers, each with one batch in flight.
const PRODUCERS: u32 = 256;

/// Longer than any parent waits.
const LONG: Duration = Duration::from_secs(3600);

/// Space made ready in each partition.
const PREPARED_BYTES: u64 = 8 << 20;

/// Longest line taken whole.
const LINE_BYTES_MAX: usize = 4 << 10;

/// Appends to a fresh data directory until it is killed, and reports acks to standard output.
///
/// # Errors
/// If an append fails, or the parent is gone.
pub fn load(dir: &Path, payload: Option<&Path>) -> Result<()> {
    let payload = Payload::open(payload)?;
    let site = Site::open(dir)?;
    let logs = site.logs(TOPIC, PARTITIONS, PREPARED_BYTES)?;
    // Standard output's own buffer would hold back what the parent must know.
    // SAFETY: descriptor 1 is open as long as the process lives, and is not closed here.
    let out = ManuallyDrop::new(unsafe { File::from_raw_fd(1) });
    let producer = |nth: u32| Producer {
        buffer: Vec::new(),
        cursor: payload.cursor(nth as usize),
        partition: nth as usize % logs.len(),
        sequences: vec![0; logs.len()],
        turn: u64::from(nth),
    };
    let producers = (0..PRODUCERS).map(producer).collect();
    let mut target = Stamped { logs: &logs, producers, to: Reporter::new(&*out) };
    let load = Load {
        clients: PRODUCERS,
        warm_up: Duration::ZERO,
        measured: LONG,
        spin: Duration::ZERO,
        bytes_max: u64::MAX,
    };
    let _pinned = Pinned::to(Cores::near(dir).clients);
    drive(&mut target, &load, Board::leaked(PRODUCERS))?;
    Ok(())
}

struct Stamped<'a> {
    logs: &'a [LogHandle],
    producers: Box<[Producer<'a>]>,
    to: Reporter<&'a File>,
}

struct Producer<'a> {
    buffer: Vec<u8>,
    cursor: Cursor<'a>,
    /// Where the batch in flight goes.
    partition: usize,
    /// The next record's number, by partition.
    sequences: Vec<u64>,
    turn: u64,
}

impl Producer<'_> {
    fn batch(&mut self, number: u32) -> Result<Batch> {
        // Small ones share journal groups, large ones go straight to their segments, and some of each follow
        // each other in one partition.
        let records = match self.turn % 64 {
            0 => 2000,
            1..4 => 100,
            _ => 1,
        };
        let mut builder = BatchBuilder::reuse(std::mem::take(&mut self.buffer));
        let (now, mut value) = (now_ms() as i64, [0; STAMP_BYTES + LINE_BYTES_MAX]);
        for nth in 0..records {
            let line = self.cursor.line();
            let bytes = line.len().min(LINE_BYTES_MAX);
            let value = &mut value[..STAMP_BYTES + bytes];
            value[STAMP_BYTES..].copy_from_slice(&line[..bytes]);
            let sequence = self.sequences[self.partition] + nth;
            Stamp { producer: number, sequence }.put(value);
            builder.add(now, None, Some(value))?;
        }
        builder.build().context("a batch of lines")
    }
}

impl Target for Stamped<'_> {
    type Fut = AppendFuture;

    fn append(&mut self, client: u32) -> AppendFuture {
        let producer = &mut self.producers[client as usize];
        producer.turn += 1;
        producer.partition = (producer.partition + 1) % self.logs.len();
        let batch = producer.batch(client).expect("lines fit into a batch");
        self.logs[producer.partition].append(batch)
    }

    fn acked(&mut self, client: u32, output: Result<Appended, AppendError>) -> Result<Acked> {
        let Appended { base_offset, last_offset, buffer } = output?;
        let producer = &mut self.producers[client as usize];
        producer.buffer = buffer;
        let next = &mut producer.sequences[producer.partition];
        for offset in base_offset.get()..=last_offset.get() {
            let stamp = Stamp { producer: client, sequence: *next };
            *next += 1;
            let ack = Ack { partition: producer.partition as u32, stamp, offset };
            self.to.ack(ack).map_err(gone)?;
        }
        Ok(Acked::default())
    }
}

fn gone(error: io::Error) -> anyhow::Error {
    anyhow::Error::from(error).context("the parent is gone")
}
