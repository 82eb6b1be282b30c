//! Appends to an engine, a slice at a time, on space made ready before the clock runs.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ringmain::LogHandle;
use ringmain::types::FlushPolicy;

use super::claim::{Meter, Slice, Stage};
use super::producing::{Batches, Unacked};
use crate::appends::Appends;
use crate::board::Board;
use crate::clients::{Load, drive};
use crate::cores::{Cores, Pinned};
use crate::payload::Payload;
use crate::sample::{Cost, Sample};
use crate::site::{self, Site};

/// A slice's warm-up, as a share of it.
const WARM_UP: f64 = 0.2;

/// Partitions up to which each slice has new ones, which are deleted after it.
const FEW: u64 = 16;

/// Bounds of the space readied for a slice, all partitions together. A segment holds the upper one.
const SPACE_MIN: u64 = 16 << 20;
const SPACE_MAX: u64 = 960 << 20;

/// The upper bound where partitions stay, so that all slices together fit on the disk.
const STANDING_SPACE_MAX: u64 = 96 << 20;

/// Least space of one partition.
const PARTITION_SPACE_MIN: u64 = 64 << 10;

/// How much more space is readied than the last slice took.
const SPARE: f64 = 1.5;

/// What clients send.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sends {
    /// Batches of so many bytes: one record if small, else a line a record.
    Bytes(usize),
    /// Batches of so many records of [`super::producing::VALUE_BYTES`].
    Records(u32),
    /// Batches of so many bytes whose clients count them as acked once they are on their way.
    Unacked(usize),
}

/// What an arm appends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Clients, each with one batch in flight.
    pub(super) clients: u32,
    /// What they send.
    pub(super) sends: Sends,
    /// Over how many partitions.
    pub(super) partitions: u64,
    /// What an ack means.
    pub(super) flush: FlushPolicy,
}

/// Clients of one arm.
pub(super) struct Appender<'a> {
    site: Rc<Site>,
    topic: &'static str,
    shape: Shape,
    /// Partitions that stay; none where each slice has its own.
    standing: Vec<LogHandle>,
    payload: &'a Payload,
    board: &'static Board,
    cores: Cores,
    meter: Meter,
    /// Of the last slice.
    bytes_per_s: f64,
}

impl<'a> Appender<'a> {
    /// For the arm `topic`; many partitions are made now.
    ///
    /// # Errors
    /// If they can't be made, or the user stops the run.
    pub(super) fn new(
        stage: &Stage<'a>,
        site: &Rc<Site>,
        topic: &'static str,
        shape: Shape,
    ) -> Result<Self> {
        let standing = if shape.partitions > FEW {
            let logs = site.logs(topic, shape.partitions, 0)?;
            set_policy(&logs, shape.flush)?;
            logs
        } else {
            Vec::new()
        };
        Ok(Self {
            site: site.clone(),
            topic,
            shape,
            standing,
            payload: stage.payload,
            board: stage.board(shape.clients),
            cores: stage.cores,
            meter: stage.meter(),
            bytes_per_s: 0.0,
        })
    }

    /// Runs for `time`, readying space included.
    ///
    /// # Errors
    /// If an append fails, or the user stops the run.
    pub(super) fn slice(&mut self, time: Duration) -> Result<Slice> {
        let begin = Instant::now();
        let bytes = self.space(time);
        let each = (bytes / self.shape.partitions).max(PARTITION_SPACE_MIN);
        let own = if self.standing.is_empty() {
            let logs = self.site.logs(self.topic, self.shape.partitions, each)?;
            set_policy(&logs, self.shape.flush)?;
            logs
        } else {
            site::prepare(&self.standing, each)?;
            Vec::new()
        };
        let logs = if self.standing.is_empty() { &own } else { &self.standing };
        // Half a slice at least, however long readying took.
        let time = time.saturating_sub(begin.elapsed()).max(time / 2);
        let slice = self.measure(logs, time, bytes)?;
        self.bytes_per_s = slice.sample.mib_per_s() * f64::from(1 << 20);
        for log in own {
            let (topic, number) = (log.name().topic().to_owned(), log.name().partition());
            drop(log);
            self.site.engine().delete(&topic, number).context("cannot delete a partition")?;
        }
        Ok(slice)
    }

    fn space(&self, time: Duration) -> u64 {
        let most = if self.standing.is_empty() { SPACE_MAX } else { STANDING_SPACE_MAX };
        let expected = (self.bytes_per_s * time.as_secs_f64() * SPARE) as u64;
        // Before the first slice, that is, in the round that does not count.
        let expected = if expected == 0 { SPACE_MIN * 4 } else { expected };
        expected.clamp(SPACE_MIN, most).next_multiple_of(1 << 20)
    }

    fn measure(&self, logs: &[LogHandle], time: Duration, bytes_max: u64) -> Result<Slice> {
        let load = Load {
            clients: self.shape.clients,
            warm_up: time.mul_f64(WARM_UP),
            measured: time.mul_f64(1.0 - WARM_UP),
            spin: Duration::ZERO,
            bytes_max,
        };
        let _pinned = Pinned::to(self.cores.clients);
        let before = self.site.stats();
        let slice = self.meter.around(|| self.drive(logs, &load))?;
        let cost = Cost::between(&before, &self.site.stats());
        let per = |a: u64, b: u64| a as f64 / b.max(1) as f64;
        Ok(slice
            .with("records_per_flush", per(cost.records, cost.durable_writes))
            .with("written_per_byte", per(cost.device_bytes, cost.batch_bytes))
            .with("prepared_bytes", cost.prepared_bytes as f64))
    }

    fn drive(&self, logs: &[LogHandle], load: &Load) -> Result<Sample> {
        match self.shape.sends {
            Sends::Bytes(bytes) => {
                let mut target = Appends::new(logs, load.clients, bytes, self.payload)?;
                drive(&mut target, load, self.board)
            }
            Sends::Records(records) => {
                let mut target = Batches::new(logs, load.clients, records, self.payload);
                drive(&mut target, load, self.board)
            }
            Sends::Unacked(bytes) => {
                let mut target = Unacked::new(logs, load.clients, bytes, self.payload)?;
                let sample = drive(&mut target, load, self.board)?;
                target.settle()?;
                Ok(sample)
            }
        }
    }
}

fn set_policy(logs: &[LogHandle], policy: FlushPolicy) -> Result<()> {
    for log in logs.iter().filter(|_| policy != FlushPolicy::Group) {
        log.set_flush_policy_blocking(policy)?;
    }
    Ok(())
}
