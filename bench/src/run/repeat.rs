//! One repeat: a fresh directory, a backend opened in it, measured, read back, and taken away.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::backend::{Backend, Facts, Instance, Verifiable};
use super::consumers::{AckTimes, Consumers};
use super::ledger::Ledger;
use super::live::Live;
use super::machine::Machine;
use super::maker::Maker;
use super::measure::{Ended, Measured, Times, Tools, measure};
use super::pace::Real;
use super::profiler::Profiler;
use super::recorder::{Recorded, Recorder};
use super::result::Latency;
use super::workload::Workload;
use crate::cores::{Cores, Pinned};
use crate::histogram::Latencies;
use crate::interrupt::Interrupted;
use crate::oracle::Findings;
use crate::payload::Payload;
use crate::usage::usage;
use crate::workdir::free_bytes;

/// Space that a run leaves on the disk; of a small one, half of what is free.
const SPARE_BYTES: u64 = 2 << 30;

/// Less room than this is none: the disk is full but for what the backend has taken already.
const ROOM_MIN: u64 = 16 << 20;

/// Bytes on the disk for each byte of batches: journal, indexes and space readied ahead are inside.
const DISK_BYTES_A_BYTE: f64 = 1.3;

/// Bytes of batches for which there is room where `dir` is.
///
/// # Errors
/// A usage error if there is none to speak of.
pub fn room(dir: &Path) -> Result<u64> {
    let free = free_bytes(dir)?;
    let spare = SPARE_BYTES.min(free / 2);
    let room = ((free - spare) as f64 / DISK_BYTES_A_BYTE) as u64;
    if room < ROOM_MIN {
        return Err(usage(format!(
            "{} MiB are free where {} is, too few for a load; make room, or name another --dir",
            free >> 20,
            dir.display()
        )));
    }
    Ok(room)
}

/// Checks that something was measured, and not only warmed up with, before the disk was full.
fn check_fitted(measured: &Measured, dir: &Path) -> Result<()> {
    if measured.ended != Ended::DiskFull || measured.records > 0 {
        return Ok(());
    }
    Err(usage(format!(
        "nothing was measured: the disk would have been full in the warm-up, {} MiB are free where {} is; name \
         another --dir, or lower --warmup or --rate",
        free_bytes(dir)? >> 20,
        dir.display()
    )))
}

/// What a repeat came to.
#[derive(Debug, Serialize, Deserialize)]
pub struct One {
    /// The loop's figures.
    pub measured: Measured,
    /// Latencies.
    pub recorded: Recorded,
    /// Of the repeat alone, from the intended send time.
    pub latency_us: Latency,
    /// Of the repeat alone, from the actual send.
    pub latency_uncorrected_us: Latency,
    /// From ack to consumer, if there were any.
    pub fetch: Option<Latencies>,
    /// What was read back, or why nothing was.
    pub verified: Result<Findings, String>,
    /// What the backend did.
    pub facts: Facts,
}

impl One {
    /// Takes over the latencies of a later repeat: those of a hundred repeats are as small as those of one.
    pub fn absorb(&mut self, later: &mut Self) {
        let (phases, own) = (&mut self.measured.phases, &mut later.measured.phases);
        phases.queue.take(&mut own.queue);
        phases.write.take(&mut own.write);
        phases.flush.take(&mut own.flush);
        phases.ack.take(&mut own.ack);
        phases.shared |= own.shared;
        self.recorded.corrected.take(&mut later.recorded.corrected);
        self.recorded.uncorrected.take(&mut later.recorded.uncorrected);
        if let (Some(fetch), Some(own)) = (&mut self.fetch, &mut later.fetch) {
            fetch.take(own);
        }
    }
}

/// What all repeats of a run share.
pub struct Setting<'a> {
    /// The workload.
    pub workload: &'a Workload,
    /// What is measured.
    pub backend: &'a dyn Backend,
    /// What is sent.
    pub payload: &'a Payload,
    /// Who wants to know when measured time begins and ends.
    pub profiler: Option<&'a Profiler>,
}

impl Setting<'_> {
    /// Runs repeat `nth` in `dir`, an empty directory.
    ///
    /// # Errors
    /// If something fails. Damage is a finding.
    pub fn repeat(&self, nth: u32, dir: &Path, log: Option<&Path>, live: Live) -> Result<One> {
        let workload = self.workload;
        // Before the backend takes its space, and after: what is left then is for the load.
        room(dir)?;
        let mut instance = self.backend.open(dir, workload)?;
        let times = Times::of(workload, room(dir)?);
        let maker = Maker::new(workload, self.payload, nth)?;
        let recorder = Recorder::start(log, live)?;
        let machine = Machine::of(dir);
        let core = Cores::near(dir).clients;
        let begin = Instant::now();
        let acks = (workload.consumers > 0)
            .then(|| Arc::new(AckTimes::new(begin, workload.partitions, workload.batch_records)));
        let consumers =
            acks.as_ref().map(|acks| self.consumers(instance.as_ref(), acks)).transpose()?;
        let measured = {
            let _pinned = Pinned::to(core);
            let pace = Real(begin);
            let tools = Tools {
                workload,
                instance: instance.as_mut(),
                maker,
                recorder: &recorder,
                pace,
                machine,
                acks,
                teller: None,
                profiler: self.profiler,
            };
            measure(tools, times)
        };
        let fetch = consumers.map(Consumers::finish).transpose();
        // Where its log could not be written, that is why the loop ended.
        let recorded = recorder.finish()?;
        let (mut measured, fetch, recorded) = (measured?, fetch?, recorded);
        let (facts, verifiable) = (instance.facts(), instance.verifiable());
        instance.close()?;
        let verified = match verifiable {
            Verifiable::No(why) => Err(why),
            Verifiable::Yes if measured.ended == Ended::Interrupted => {
                Err("the user stopped the run".to_owned())
            }
            Verifiable::Yes => match self.verify(&measured.ledger, dir) {
                Err(error) if error.is::<Interrupted>() => {
                    Err("the user stopped the run".to_owned())
                }
                found => Ok(found.context("reading back")?),
            },
        };
        check_fitted(&measured, dir)?;
        // It may be large, and has been read.
        measured.ledger = Ledger::new(0, 0);
        Ok(One {
            latency_us: Latency::of(&recorded.corrected),
            latency_uncorrected_us: Latency::of(&recorded.uncorrected),
            measured,
            recorded,
            fetch,
            verified,
            facts,
        })
    }

    fn verify(&self, ledger: &Ledger, dir: &Path) -> Result<Findings> {
        let mut reader = self.backend.reopen(dir, self.workload)?;
        ledger.verify(reader.as_mut())
    }

    fn consumers(&self, instance: &dyn Instance, acks: &Arc<AckTimes>) -> Result<Consumers> {
        let readers = (0..self.workload.consumers).map(|_| instance.reader());
        let readers = readers.collect::<Result<Vec<_>>>()?;
        Consumers::start(readers, acks, self.workload.partitions, self.workload.warmup.0)
    }
}
