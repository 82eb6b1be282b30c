//! Clients as targets: batches of so many records, and clients that do not wait for their acks.

use std::collections::VecDeque;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use anyhow::{Context as _, Result};
use ringmain::batch::{Batch, BatchBuilder};
use ringmain::error::AppendError;
use ringmain::{AppendFuture, Appended, LogHandle};

use crate::appends::Appends;
use crate::clients::{Acked, Target};
use crate::clock::now_ms;
use crate::payload::{Cursor, Payload};
use crate::site::block_on;

/// Bytes of each record's value in [`Batches`].
pub(super) const VALUE_BYTES: usize = 100;

/// Appends on their way that nobody waits for, before the sender must: what fits in a connection's buffers.
const UNACKED_MAX: usize = 1024;

/// Clients that send batches of a number of records to some logs in turn, and build the next one while the one before
/// is under way.
pub(super) struct Batches<'a> {
    logs: &'a [LogHandle],
    desks: Box<[Desk<'a>]>,
    records: u32,
}

struct Desk<'a> {
    buffer: Vec<u8>,
    ready: Option<Batch>,
    /// Bytes of the batch under way.
    bytes: u64,
    cursor: Cursor<'a>,
}

impl<'a> Batches<'a> {
    pub(super) fn new(
        logs: &'a [LogHandle],
        clients: u32,
        records: u32,
        payload: &'a Payload,
    ) -> Self {
        let desk = |client: u32| Desk {
            buffer: Vec::new(),
            ready: None,
            bytes: 0,
            cursor: payload.cursor(client as usize),
        };
        Self { logs, desks: (0..clients).map(desk).collect(), records }
    }
}

impl Desk<'_> {
    fn build(&mut self, records: u32) -> Batch {
        let now = now_ms() as i64;
        let mut builder = BatchBuilder::reuse(std::mem::take(&mut self.buffer));
        let mut value = [0; VALUE_BYTES];
        for _ in 0..records {
            self.cursor.fill(&mut value);
            builder.add(now, None, Some(&value)).expect("a batch holds thousands of records");
        }
        builder.build().expect("it has records")
    }
}

impl Target for Batches<'_> {
    type Fut = AppendFuture;

    fn append(&mut self, client: u32) -> AppendFuture {
        let log = &self.logs[client as usize % self.logs.len()];
        let desk = &mut self.desks[client as usize];
        let batch = desk.ready.take().unwrap_or_else(|| desk.build(self.records));
        desk.bytes = batch.as_bytes().len() as u64;
        log.append(batch)
    }

    fn under_way(&mut self, client: u32, _: Pin<&mut AppendFuture>) {
        let desk = &mut self.desks[client as usize];
        desk.ready = Some(desk.build(self.records));
    }

    fn acked(&mut self, client: u32, output: Result<Appended, AppendError>) -> Result<Acked> {
        let desk = &mut self.desks[client as usize];
        desk.buffer = output?.buffer;
        Ok(Acked { records: u64::from(self.records), bytes: desk.bytes })
    }
}

/// Clients whose appends count once they are on their way, before any of them is written. What is on its way is
/// bounded, and its failures end the run.
pub(super) struct Unacked<'a> {
    inner: Appends<'a>,
    /// With their clients, the oldest first.
    under_way: VecDeque<(u32, AppendFuture)>,
    /// Results of appends that ended at once.
    batch_bytes: u64,
}

impl<'a> Unacked<'a> {
    pub(super) fn new(
        logs: &'a [LogHandle],
        clients: u32,
        batch_bytes: usize,
        payload: &'a Payload,
    ) -> Result<Self> {
        let inner = Appends::new(logs, clients, batch_bytes, payload)?;
        let under_way = VecDeque::with_capacity(UNACKED_MAX + 1);
        Ok(Self { inner, under_way, batch_bytes: batch_bytes as u64 })
    }

    /// Waits for all that is on its way.
    ///
    /// # Errors
    /// If any of it failed.
    pub(super) fn settle(&mut self) -> Result<()> {
        while let Some((client, future)) = self.under_way.pop_front() {
            let output = block_on(future);
            self.inner.acked(client, output).context("an append nobody waited for")?;
        }
        Ok(())
    }

    fn send(&mut self, client: u32) -> Result<Acked> {
        let mut future = self.inner.append(client);
        match Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => {
                self.inner.acked(client, output)?;
            }
            Poll::Pending => {
                self.inner.under_way(client, Pin::new(&mut future));
                self.under_way.push_back((client, future));
            }
        }
        if self.under_way.len() > UNACKED_MAX
            && let Some((oldest, future)) = self.under_way.pop_front()
        {
            let output = block_on(future);
            self.inner.acked(oldest, output)?;
        }
        Ok(Acked { records: 1, bytes: self.batch_bytes })
    }
}

impl Target for Unacked<'_> {
    type Fut = Ready<Result<Acked>>;

    fn append(&mut self, client: u32) -> Self::Fut {
        ready(self.send(client))
    }

    fn acked(&mut self, _: u32, output: Result<Acked>) -> Result<Acked> {
        output
    }
}
