//! The engine as clients see it: batches sent through [`LogHandle`] futures, the memory of small ones taken back once
//! they are sent, that of others with their acks.

use std::pin::Pin;

use anyhow::Result;
use ringmain::batch::Batch;
use ringmain::error::AppendError;
use ringmain::{AppendFuture, Appended, LogHandle};

use crate::batches::{Shelf, fill};
use crate::clients::{Acked, Target};
use crate::payload::{Cursor, Payload};

/// A batch is large from this size on.
pub const LARGE_BYTES: usize = 64 << 10;

/// Clients that append batches of one size to some partitions in turn.
pub struct Appends<'a> {
    logs: &'a [LogHandle],
    desks: Box<[Desk<'a>]>,
    batch_bytes: usize,
    /// Where large batches come from; small ones are built one by one.
    shelf: Option<Shelf>,
    /// Memory of batches, the last used on top: that of small ones comes back when they are sent, of others with their
    /// acks.
    spare: Vec<Vec<u8>>,
}

struct Desk<'a> {
    /// The next large batch, made while the one before was under way.
    ready: Option<Batch>,
    cursor: Cursor<'a>,
    /// The partition of the next batch.
    next: usize,
}

impl<'a> Appends<'a> {
    /// `clients` clients of `logs`, each with lines of its own.
    ///
    /// # Errors
    /// If no batch can be so large.
    pub fn new(
        logs: &'a [LogHandle],
        clients: u32,
        batch_bytes: usize,
        payload: &'a Payload,
    ) -> Result<Self> {
        let desk = |client: u32| Desk {
            ready: None,
            cursor: payload.cursor(client as usize),
            next: client as usize % logs.len(),
        };
        let large = batch_bytes >= LARGE_BYTES;
        let shelf = large.then(|| Shelf::new(batch_bytes, &mut payload.cursor(0))).transpose()?;
        let desks = (0..clients).map(desk).collect();
        Ok(Self { logs, desks, batch_bytes, shelf, spare: Vec::with_capacity(clients as usize) })
    }
}

impl Target for Appends<'_> {
    type Fut = AppendFuture;

    fn append(&mut self, client: u32) -> AppendFuture {
        // Clients step over each other, so that together they reach every partition equally often.
        let step = self.desks.len();
        let desk = &mut self.desks[client as usize];
        let log = &self.logs[desk.next];
        desk.next = (desk.next + step) % self.logs.len();
        let batch = desk.ready.take().unwrap_or_else(|| {
            let buffer = self.spare.pop().unwrap_or_default();
            match &mut self.shelf {
                Some(shelf) => shelf.take(buffer),
                None => fill(buffer, self.batch_bytes, client, &mut desk.cursor)
                    .expect("sizes of the plan fit"),
            }
        });
        log.append(batch)
    }

    /// The raw arms make nothing ready between two requests; a large batch's copy would stand in for the engine's
    /// own time. Small ones are built when they are sent, by the floor's clients too.
    fn under_way(&mut self, client: u32, mut request: Pin<&mut AppendFuture>) {
        self.spare.extend(request.take_buffer());
        if let Some(shelf) = &mut self.shelf {
            let buffer = self.spare.pop().unwrap_or_default();
            self.desks[client as usize].ready = Some(shelf.take(buffer));
        }
    }

    fn acked(&mut self, _: u32, output: Result<Appended, AppendError>) -> Result<Acked> {
        let Appended { base_offset, last_offset, buffer } = output?;
        if buffer.capacity() > 0 {
            self.spare.push(buffer);
        }
        let records = (last_offset.get() - base_offset.get() + 1) as u64;
        Ok(Acked { records, bytes: self.batch_bytes as u64 })
    }
}
