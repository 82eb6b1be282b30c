//! Backends `ringmain` and `sync`: the engine, on io_uring and on plain system calls, as an embedder uses it.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, Result};
use ringmain::error::ReadError;
use ringmain::ring::backend::Backend as RingChoice;
use ringmain::types::{FlushPolicy, Isolation, Offset, Prepare as Readied, WriteMode};
use ringmain::{AppendFuture, Config, DiskTimes, LogHandle};

use crate::board::Board;
use crate::run::backend::{
    Acked, Backend, Completion, Counters, Facts, Instance, Reader, Request, Verifiable,
};
use crate::run::values::{Mode, Prepare};
use crate::run::workload::Workload;
use crate::site;

/// Space readied before the clock runs, all partitions together; the engine readies more ahead of itself.
const PREPARED_BYTES: u64 = 256 << 20;

/// Most and least of it for one partition.
const PREPARED_OF_ONE_MAX: u64 = 64 << 20;
const PREPARED_OF_ONE_MIN: u64 = 64 << 10;

/// Partitions made in one call.
const PARTITIONS_AT_ONCE: usize = 1000;

const TOPIC: &str = "run";

/// The engine.
#[derive(Clone, Copy, Debug)]
pub struct Engine {
    /// On plain system calls.
    pub sync: bool,
}

struct Open {
    engine: Option<ringmain::Engine>,
    logs: Vec<LogHandle>,
    futures: Box<[Option<AppendFuture>]>,
    board: &'static Board,
    /// Done at the first look, when they were submitted.
    early: Vec<Completion>,
    isolation: Isolation,
    facts: Facts,
}

impl Engine {
    fn config(self, dir: &Path, workload: &Workload) -> Config {
        let prepare = match workload.prepare {
            Prepare::Fallocate => Readied::Fallocate,
            Prepare::Prezero => Readied::Prezero,
            Prepare::None => Readied::None,
        };
        Config {
            shards: workload.cores as usize,
            segment_bytes: workload.segment_bytes.0,
            flush: workload.flush.0,
            write_mode: Some(workload.write_mode.of_engine()),
            prepare,
            backend: if self.sync { RingChoice::Sync } else { RingChoice::Auto },
            ..Config::new(dir)
        }
    }
}

impl Backend for Engine {
    fn open(&self, dir: &Path, workload: &Workload) -> Result<Box<dyn Instance>> {
        let engine = ringmain::Engine::open(self.config(dir, workload));
        let engine = engine.context("cannot open the engine")?;
        let logs = logs(&engine, workload)?;
        if workload.prepare != Prepare::None {
            let each = PREPARED_BYTES / u64::from(workload.partitions);
            let each = each.clamp(PREPARED_OF_ONE_MIN, PREPARED_OF_ONE_MAX);
            site::prepare(&logs, each.min(workload.segment_bytes.0 / 2))?;
        }
        let slots = workload.slots();
        let board = borrow_board(slots);
        board.enlist();
        let facts = facts(&engine, workload);
        Ok(Box::new(Open {
            engine: Some(engine),
            logs,
            futures: (0..slots).map(|_| None).collect(),
            board,
            early: Vec::with_capacity(slots as usize),
            isolation: isolation(workload),
            facts,
        }))
    }

    fn reopen(&self, dir: &Path, workload: &Workload) -> Result<Box<dyn Reader>> {
        let engine = ringmain::Engine::open(self.config(dir, workload));
        let engine = engine.context("cannot open the engine again")?;
        let logs = logs(&engine, workload)?;
        Ok(Box::new(Logs { logs, isolation: isolation(workload), engine: Some(engine) }))
    }
}

/// All partitions.
fn logs(engine: &ringmain::Engine, workload: &Workload) -> Result<Vec<LogHandle>> {
    let names: Vec<_> = (0..workload.partitions).map(|nth| (TOPIC.to_owned(), nth)).collect();
    let mut logs = Vec::with_capacity(names.len());
    for some in names.chunks(PARTITIONS_AT_ONCE) {
        crate::interrupt::check()?;
        logs.extend(engine.logs(some).context("cannot make partitions")?);
    }
    Ok(logs)
}

/// What was acked, and no more.
fn isolation(workload: &Workload) -> Isolation {
    let durable = workload.flush.0 == FlushPolicy::Group;
    if durable { Isolation::Durable } else { Isolation::Dirty }
}

fn facts(engine: &ringmain::Engine, workload: &Workload) -> Facts {
    let found = engine.facts();
    let direct = found.write_mode == WriteMode::Direct;
    let mut notes = Vec::new();
    if workload.write_mode == Mode::Direct && !direct {
        notes.push("the file system does not take O_DIRECT: through the page cache".to_owned());
    }
    if let Some(reason) = &found.fallback {
        notes.push(format!("NO io_uring: {reason}; through plain system calls instead"));
    }
    let ack = match workload.flush.0 {
        FlushPolicy::Group => "on stable storage, a flush shared by many",
        FlushPolicy::Os => "written, not flushed",
        FlushPolicy::Interval { .. } => "written; flushed by the interval",
    };
    Facts { direct, ack: ack.to_owned(), notes }
}

impl Open {
    /// Looks at one future; what it came to, if it is done.
    fn look(&mut self, slot: u32) -> Option<Completion> {
        let place = &mut self.futures[slot as usize];
        let future = place.as_mut()?;
        let mut context = Context::from_waker(self.board.waker(slot));
        let Poll::Ready(output) = Pin::new(future).poll(&mut context) else { return None };
        *place = None;
        let acked = |appended: ringmain::Appended| Acked {
            base_offset: appended.base_offset.get(),
            buffer: appended.buffer,
            written: None,
            flushed: None,
        };
        let result = output.map(acked).context("the engine cannot append");
        Some(Completion { slot, result })
    }

    fn gather(&mut self, done: &mut Vec<Completion>) {
        done.append(&mut self.early);
        for word in 0..self.futures.len().div_ceil(64) {
            let mut bits = self.board.take(word);
            while bits != 0 {
                let slot = word as u32 * 64 + bits.trailing_zeros();
                bits &= bits - 1;
                done.extend(self.look(slot));
            }
        }
    }
}

impl Instance for Open {
    fn facts(&self) -> Facts {
        self.facts.clone()
    }

    fn verifiable(&self) -> Verifiable {
        Verifiable::Yes
    }

    fn submit(&mut self, request: Request) {
        let Request { slot, partition, batch } = request;
        let future = self.logs[partition as usize].append(batch);
        let before = self.futures[slot as usize].replace(future);
        assert!(before.is_none(), "one request at a time in a slot");
        // The first look sends it, so that batches of a partition are sent in order.
        let early = self.look(slot);
        self.early.extend(early);
    }

    fn poll(&mut self, wait: Duration, done: &mut Vec<Completion>) -> Result<()> {
        self.gather(done);
        if done.is_empty() && !wait.is_zero() {
            self.board.wait(Duration::ZERO, wait);
            self.gather(done);
        }
        Ok(())
    }

    fn counters(&self) -> Counters {
        let Some(engine) = &self.engine else { return Counters::default() };
        let stats = engine.stats();
        let sum = |of: fn(&ringmain::ShardStats) -> u64| Some(stats.iter().map(of).sum());
        Counters {
            written_bytes: sum(|s| s.journal_bytes + s.segment_bytes),
            flushes: sum(|s| s.groups + s.direct_writes + s.flushes),
            prepared_bytes: sum(|s| s.prepared_bytes),
        }
    }

    fn disk_times(&self) -> Vec<DiskTimes> {
        self.engine.as_ref().map(ringmain::Engine::disk_times).unwrap_or_default()
    }

    fn reader(&self) -> Result<Box<dyn Reader>> {
        Ok(Box::new(Logs { logs: self.logs.clone(), isolation: self.isolation, engine: None }))
    }

    fn close(mut self: Box<Self>) -> Result<()> {
        let engine = self.engine.take().context("closed once")?;
        // What was acked must be there without a clean end, which would make it safer than its ack said.
        engine.abandon();
        Ok(())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.take() {
            engine.abandon();
        }
        self.futures.iter_mut().for_each(|future| *future = None);
        give_back(self.board);
    }
}

struct Logs {
    logs: Vec<LogHandle>,
    isolation: Isolation,
    /// Where it was opened to be read only.
    engine: Option<ringmain::Engine>,
}

impl Drop for Logs {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.take() {
            engine.abandon();
        }
    }
}

impl Reader for Logs {
    fn fetch(
        &mut self,
        partition: u32,
        offset: i64,
        bytes_max: usize,
        into: &mut Vec<u8>,
    ) -> Result<()> {
        let log = &self.logs[partition as usize];
        loop {
            into.reserve(bytes_max);
            let buffer = std::mem::take(into);
            let (read, buffer) =
                log.read_into_blocking(Offset::new(offset), buffer, self.isolation);
            *into = buffer;
            match read {
                // One batch that is longer than what is asked for.
                Err(ReadError::BufferTooSmall { needed, .. }) => into.reserve(needed),
                read => return read.map(drop).context("the engine cannot read"),
            }
        }
    }

    fn damages(&self) -> Vec<String> {
        let Some(engine) = &self.engine else { return Vec::new() };
        let report = engine.recovery();
        let partitions = report.damage.iter().map(|damage| format!("{damage:?}"));
        partitions.chain(report.journal_damage.iter().map(|d| format!("{d:?}"))).collect()
    }
}

/// Boards are never freed; one that is no longer used serves the next repeat.
static BOARDS: Mutex<Vec<&'static Board>> = Mutex::new(Vec::new());

fn borrow_board(slots: u32) -> &'static Board {
    let mut boards = BOARDS.lock().unwrap_or_else(PoisonError::into_inner);
    let at = boards.iter().position(|board| board.clients() >= slots);
    at.map_or_else(|| Board::leaked(slots), |at| boards.swap_remove(at))
}

fn give_back(board: &'static Board) {
    BOARDS.lock().unwrap_or_else(PoisonError::into_inner).push(board);
}
