//! Backend `null`: acks at once and keeps nothing. What a run reaches with it is the generator's own ceiling.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::run::backend::{
    Acked, Backend, Completion, Counters, Facts, Instance, Reader, Request, Verifiable,
};
use crate::run::workload::Workload;

/// Keeps nothing.
#[derive(Clone, Copy, Debug)]
pub struct Null;

/// Open, and still keeping nothing.
#[derive(Debug)]
struct Nothing {
    next: Box<[i64]>,
    done: Vec<Completion>,
}

impl Backend for Null {
    fn open(&self, _: &Path, workload: &Workload) -> Result<Box<dyn Instance>> {
        let next = vec![0; workload.partitions as usize].into();
        Ok(Box::new(Nothing { next, done: Vec::with_capacity(workload.slots() as usize) }))
    }

    fn reopen(&self, _: &Path, _: &Workload) -> Result<Box<dyn Reader>> {
        bail!("the backend null keeps nothing")
    }
}

impl Instance for Nothing {
    fn facts(&self) -> Facts {
        Facts { direct: false, ack: "at once: nothing is kept".to_owned(), notes: Vec::new() }
    }

    fn verifiable(&self) -> Verifiable {
        Verifiable::No("the backend null keeps nothing".to_owned())
    }

    fn submit(&mut self, request: Request) {
        let next = &mut self.next[request.partition as usize];
        let base_offset = *next;
        *next += i64::from(request.batch.record_count());
        let buffer = request.batch.into_bytes();
        let acked = Acked { base_offset, buffer, written: None, flushed: None };
        self.done.push(Completion { slot: request.slot, result: Ok(acked) });
    }

    fn poll(&mut self, wait: Duration, done: &mut Vec<Completion>) -> Result<()> {
        if self.done.is_empty() && !wait.is_zero() {
            std::thread::park_timeout(wait);
        }
        done.append(&mut self.done);
        Ok(())
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }

    fn reader(&self) -> Result<Box<dyn Reader>> {
        bail!("the backend null keeps nothing")
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
