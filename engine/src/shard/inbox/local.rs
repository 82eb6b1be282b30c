//! Appends from within the shard: the same slots, the same budget and the same acks as from other threads, and no way
//! through the inbox: the batch is in its log's memory when the first poll returns.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};

use super::super::Context;
use super::{Answer, Appended, Body, Inbox, Place, Request, lock};
use crate::batch::Batch;
use crate::error::AppendError;
use crate::journal::LogId;
use crate::log::Ticket;

impl<C> Inbox<C> {
    /// Takes a slot and bytes of the budget for a batch of the shard's own, or gives it back.
    fn admit_here(&self, log: LogId, batch: Batch) -> Result<Request, (AppendError, Batch)> {
        let bytes = batch.as_bytes().len() as u64;
        let mut door = lock(&self.door);
        if door.closed {
            return Err((AppendError::Closed, batch));
        }
        let admitted = door.admitted_bytes;
        let fits = admitted == 0 || admitted + bytes <= self.budget_bytes;
        let Some(slot) = fits.then(|| door.free.pop()).flatten() else {
            return Err((AppendError::Overloaded, batch));
        };
        door.admitted_bytes += bytes;
        drop(door);
        let ticket = Ticket(slot);
        *self.slot(ticket) = Answer::Waiting(None);
        Ok(Request {
            log,
            ticket,
            at: None,
            records: batch.record_count(),
            crc: batch.crc(),
            max_timestamp: batch.max_timestamp(),
            body: Body::Moved(batch.into_bytes()),
        })
    }
}

/// An append from within the shard, under way. Dropping it cancels nothing once it was polled.
#[must_use = "futures do nothing unless polled"]
pub struct LocalAppend {
    cx: Context,
    log: LogId,
    state: State,
    place: Option<Place>,
}

enum State {
    Unsent(Batch),
    Sent(Ticket),
    Over,
}

impl LocalAppend {
    pub(crate) fn new(cx: Context, log: LogId, batch: Batch) -> Self {
        Self { cx, log, state: State::Unsent(batch), place: None }
    }

    /// Gives the batch to its log, unless there is no room.
    fn send(&mut self, cx: &TaskContext<'_>) -> Result<(), AppendError> {
        let inbox = self.cx.state.borrow().inbox.clone();
        for registered in [false, true] {
            let State::Unsent(batch) = mem::replace(&mut self.state, State::Over) else {
                unreachable!("an append is sent once");
            };
            match inbox.admit_here(self.log, batch) {
                Ok(request) => {
                    self.state = State::Sent(request.ticket);
                    self.cx.state.borrow_mut().append_here(request);
                    return Ok(());
                }
                Err((AppendError::Overloaded, batch)) => {
                    self.state = State::Unsent(batch);
                    // Room may have come free between the refusal and the registration: try once more.
                    if !registered {
                        inbox.wait(&mut self.place, cx);
                    }
                }
                Err((error, _)) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Future for LocalAppend {
    type Output = Result<Appended, AppendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        if matches!(self.state, State::Unsent(_)) {
            self.send(cx)?;
        }
        let State::Sent(ticket) = self.state else {
            assert!(!matches!(self.state, State::Over), "not polled after it was ready");
            return Poll::Pending;
        };
        let inbox = self.cx.state.borrow().inbox.clone();
        let (result, buffer) = ready!(inbox.poll_ended(ticket, cx));
        self.state = State::Over;
        Poll::Ready(result.map(|(base_offset, last_offset)| Appended {
            base_offset,
            last_offset,
            buffer,
        }))
    }
}

impl Drop for LocalAppend {
    fn drop(&mut self) {
        let inbox = self.cx.state.borrow().inbox.clone();
        if let Some(place) = self.place.take() {
            inbox.leave(place);
        }
        if let State::Sent(ticket) = self.state {
            inbox.abandon(ticket);
        }
    }
}
