//! One repeat: a fresh directory, a backend opened in it, measured, read back, and taken away.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};

use super::backend::{Backend, Facts, Instance, Verifiable};
use super::consumers::{AckTimes, Consumers};
use super::live::Live;
use super::machine::Machine;
use super::maker::Maker;
use super::measure::{Ended, Measured, Times, Tools, measure};
use super::pace::Real;
use super::recorder::{Recorded, Recorder};
use super::workload::Workload;
use crate::cores::{Cores, Pinned};
use crate::histogram::Latencies;
use crate::oracle::Findings;
use crate::payload::Payload;
use crate::workdir::free_bytes;

/// Space that a run leaves on the disk.
const SPARE_BYTES: u64 = 2 << 30;

/// Bytes on the disk for each byte of batches: journal, indexes and space readied ahead are inside.
const DISK_BYTES_A_BYTE: f64 = 1.3;

/// What a repeat came to.
#[derive(Debug)]
pub struct One {
    /// The loop's figures.
    pub measured: Measured,
    /// Latencies.
    pub recorded: Recorded,
    /// From ack to consumer, if there were any.
    pub fetch: Option<Latencies>,
    /// What was read back, or why nothing was.
    pub verified: Result<Findings, String>,
    /// What the backend did.
    pub facts: Facts,
}

/// What all repeats of a run share.
pub struct Setting<'a> {
    /// The workload.
    pub workload: &'a Workload,
    /// What is measured.
    pub backend: &'a dyn Backend,
    /// What is sent.
    pub payload: &'a Payload,
}

impl Setting<'_> {
    /// Runs repeat `nth` in `dir`, an empty directory.
    ///
    /// # Errors
    /// If something fails. Damage is a finding.
    pub fn repeat(&self, nth: u32, dir: &Path, log: Option<&Path>, live: Live) -> Result<One> {
        let workload = self.workload;
        let mut instance = self.backend.open(dir, workload)?;
        let room = free_bytes(dir)?.saturating_sub(SPARE_BYTES) as f64 / DISK_BYTES_A_BYTE;
        let times = Times::of(workload, room as u64);
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
            let instance = instance.as_mut();
            measure(
                Tools { workload, instance, maker, recorder: &recorder, pace, machine, acks },
                times,
            )
        };
        let fetch = consumers.map(Consumers::finish).transpose();
        let recorded = recorder.finish();
        let (measured, fetch, recorded) = (measured?, fetch?, recorded?);
        let (facts, verifiable) = (instance.facts(), instance.verifiable());
        instance.close()?;
        let verified = match verifiable {
            Verifiable::No(why) => Err(why),
            Verifiable::Yes if measured.ended == Ended::Interrupted => {
                Err("the user stopped the run".to_owned())
            }
            Verifiable::Yes => {
                let mut reader = self.backend.reopen(dir, workload)?;
                Ok(measured.ledger.verify(reader.as_mut()).context("reading back")?)
            }
        };
        Ok(One { measured, recorded, fetch, verified, facts })
    }

    fn consumers(&self, instance: &dyn Instance, acks: &Arc<AckTimes>) -> Result<Consumers> {
        let readers = (0..self.workload.consumers).map(|_| instance.reader());
        let readers = readers.collect::<Result<Vec<_>>>()?;
        Consumers::start(readers, acks, self.workload.partitions, self.workload.warmup.0)
    }
}
