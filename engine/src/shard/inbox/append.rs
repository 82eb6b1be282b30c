//! The future of an append sent from another thread.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker, ready};

use super::super::Context;
use super::{Appended, Inbox, Place};
use crate::batch::Batch;
use crate::error::AppendError;
use crate::journal::LogId;
use crate::log::Ticket;
use crate::types::Offset;

/// An append under way. Any runtime may poll it. Dropping it cancels nothing that was already sent.
#[must_use = "futures do nothing unless polled"]
pub struct AppendFuture {
    inbox: Arc<Inbox<Context>>,
    log: LogId,
    at: Option<(Offset, i32)>,
    state: Sending,
    /// Its place among those that wait for room.
    place: Option<Place>,
}

enum Sending {
    Unsent(Batch),
    /// With the batch's memory, if its bytes were copied.
    Sent(Ticket, Vec<u8>),
    Over,
}

impl AppendFuture {
    pub(crate) fn new(
        inbox: Arc<Inbox<Context>>,
        log: LogId,
        batch: Batch,
        at: Option<(Offset, i32)>,
    ) -> Self {
        Self { inbox, log, at, state: Sending::Unsent(batch), place: None }
    }

    /// The batch's memory, empty, if the append needs it no more: a batch of up to 4 KiB is copied when it is sent,
    /// which a poll does as soon as there is room. One buffer then serves all small appends under way. For those who
    /// poll futures themselves: who awaits one has the memory in [`Appended::buffer`].
    ///
    /// `None` while the append waits for room, where the inbox had none for a copy, for larger batches, and once it was
    /// taken. [`Appended::buffer`] has no memory if it was taken here.
    ///
    /// ```
    /// # use std::{future::Future, task::{Context, Waker}};
    /// # use ringmain::{Config, Engine, batch::BatchBuilder};
    /// # let dir = std::env::temp_dir().join(format!("ringmain-take-buffer-{}", std::process::id()));
    /// # let engine = Engine::open(Config::new(&dir))?;
    /// # let log = engine.log("orders", 0)?;
    /// let (mut buffer, mut under_way) = (Vec::new(), Vec::new());
    /// for value in [b"one", b"two"] {
    ///     let mut batch = BatchBuilder::reuse(buffer);
    ///     batch.add(-1, None, Some(value))?;
    ///     let mut append = Box::pin(log.append(batch.build()?));
    ///     assert!(append.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    ///     buffer = append.take_buffer().unwrap_or_default();
    ///     under_way.push(append);
    /// }
    /// # engine.close()?;
    /// # std::fs::remove_dir_all(dir)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn take_buffer(&mut self) -> Option<Vec<u8>> {
        match &mut self.state {
            Sending::Sent(_, buffer) if buffer.capacity() > 0 => Some(mem::take(buffer)),
            _ => None,
        }
    }

    /// Sends now or gives the batch back. `waker` is woken when the append ends.
    pub(crate) fn try_send(&mut self, waker: Option<&Waker>) -> Result<(), (AppendError, Batch)> {
        let Sending::Unsent(batch) = mem::replace(&mut self.state, Sending::Over) else {
            unreachable!("an append is sent once");
        };
        let (ticket, buffer) = self.inbox.send(self.log, batch, self.at, waker)?;
        self.state = Sending::Sent(ticket, buffer);
        Ok(())
    }

    fn poll_send(&mut self, cx: &TaskContext<'_>) -> Result<(), AppendError> {
        for registered in [false, true] {
            match self.try_send(Some(cx.waker())) {
                Ok(()) => break,
                Err((AppendError::Overloaded, batch)) => {
                    self.state = Sending::Unsent(batch);
                    // Memory may have come free between the refusal and the registration: try once more.
                    if !registered {
                        self.inbox.wait(&mut self.place, cx);
                    }
                }
                Err((error, _)) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Future for AppendFuture {
    type Output = Result<Appended, AppendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        if matches!(self.state, Sending::Unsent(_)) {
            // The waker went along: the append's end is told to it, or room that came free.
            return match self.poll_send(cx) {
                Ok(()) => Poll::Pending,
                Err(error) => Poll::Ready(Err(error)),
            };
        }
        let Sending::Sent(ticket, _) = self.state else {
            unreachable!("a future is not polled after it was ready");
        };
        let (result, moved) = ready!(self.inbox.poll_ended(ticket, cx));
        let Sending::Sent(_, copied) = mem::replace(&mut self.state, Sending::Over) else {
            unreachable!("matched above");
        };
        let buffer = if copied.capacity() > 0 { copied } else { moved };
        Poll::Ready(result.map(|(base_offset, last_offset)| Appended {
            base_offset,
            last_offset,
            buffer,
        }))
    }
}

impl Drop for AppendFuture {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.inbox.leave(place);
        }
        if let Sending::Sent(ticket, _) = self.state {
            self.inbox.abandon(ticket);
        }
    }
}
