//! A target of known behaviour, in simulated time: one server, a fixed time of service, and, if asked, a freeze. What
//! the method says of it can be held against a formula.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::run::backend::{
    Acked, Completion, Counters, Facts, Instance, Reader, Request, Verifiable,
};
use crate::run::pace::{Pace, Simulated};

/// When the server does nothing, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Freeze {
    /// From when.
    pub from: u64,
    /// Until when.
    pub until: u64,
}

/// One server with an endless queue.
#[derive(Debug)]
pub struct Queue {
    pace: Simulated,
    service_ns: u64,
    freeze: Option<Freeze>,
    /// When the last request that was taken will have been served.
    busy_until: u64,
    next_offset: i64,
    waiting: VecDeque<(u64, Completion)>,
}

impl Queue {
    /// A server that takes `service` for each request, of one partition.
    pub fn new(pace: Simulated, service: Duration, freeze: Option<Freeze>) -> Self {
        let service_ns = service.as_nanos() as u64;
        Self { pace, service_ns, freeze, busy_until: 0, next_offset: 0, waiting: VecDeque::new() }
    }
}

impl Instance for Queue {
    fn facts(&self) -> Facts {
        Facts { direct: false, ack: "simulated".to_owned(), notes: Vec::new() }
    }

    fn verifiable(&self) -> Verifiable {
        Verifiable::No("it is simulated".to_owned())
    }

    fn submit(&mut self, request: Request) {
        let begin = self.pace.now().max(self.busy_until);
        let begin = match self.freeze {
            // What would end inside the freeze begins again after it.
            Some(freeze) if begin + self.service_ns > freeze.from && begin < freeze.until => {
                freeze.until
            }
            _ => begin,
        };
        self.busy_until = begin + self.service_ns;
        let base_offset = self.next_offset;
        self.next_offset += i64::from(request.batch.record_count());
        let buffer = request.batch.into_bytes();
        let acked = Acked { base_offset, buffer, written: None, flushed: None };
        self.waiting
            .push_back((self.busy_until, Completion { slot: request.slot, result: Ok(acked) }));
    }

    fn poll(&mut self, wait: Duration, done: &mut Vec<Completion>) -> Result<()> {
        let now = self.pace.now();
        let until = now + wait.as_nanos() as u64;
        let first = self.waiting.front().map_or(u64::MAX, |(at, _)| *at);
        // Time never stands still for one who waits for nothing.
        self.pace.0.set(first.min(until).max(now));
        let now = self.pace.now();
        let ended = self.waiting.partition_point(|(at, _)| *at <= now);
        done.extend(self.waiting.drain(..ended).map(|(_, completion)| completion));
        Ok(())
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }

    fn reader(&self) -> Result<Box<dyn Reader>> {
        bail!("it is simulated")
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
