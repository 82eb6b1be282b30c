//! A peer.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::super::Context;
use super::super::disk::Running;
use super::outbox::Sender;
use super::{ListenOptions, LogRange, Open, Service};
use crate::buffers::pool::Lease;
use crate::command::sockets::{Family, NetDone, NetOp};
use crate::error::NetError;
use crate::limits::FINISH_BYTES_MAX;

/// A connection. Dropping it, with all its [`Sender`]s, closes it once what is queued is sent, or the peer has been
/// too slow for it.
pub struct Connection {
    cx: Context,
    service: Rc<Service>,
    open: Rc<Open>,
    sender: Sender,
    idle: Option<Duration>,
    /// Kept here and not in the future that waits for it: bytes are not lost with that.
    receiving: Option<Running<NetOp, NetDone>>,
    ended: bool,
    /// It is ended in order, for which a service that stops has time.
    finishing: bool,
}

impl Connection {
    pub(super) fn new(
        (cx, service): (Context, Rc<Service>),
        open: Rc<Open>,
        options: ListenOptions,
    ) -> Self {
        let sender = Sender::new((cx.clone(), Rc::clone(&service)), Rc::clone(&open), options);
        let idle = options.idle;
        Self { cx, service, open, sender, idle, receiving: None, ended: false, finishing: false }
    }

    /// What it goes over.
    #[must_use]
    pub fn family(&self) -> Family {
        self.open.family
    }

    /// The sending side, for tasks that answer while this one receives.
    #[must_use]
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// Waits for bytes: at least one, in a buffer that goes back when the lease is dropped. `None` once the peer has
    /// shut down its side; it may still read. Nothing is received that nobody waits for: a peer that sends without end
    /// fills its own buffers.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`NetError::Idle`], [`NetError::Stopping`] if nothing is there and the service is asked to stop, and
    /// [`NetError::Io`] if the connection broke.
    pub async fn recv(&mut self) -> Result<Option<Lease>, NetError> {
        if self.ended {
            return Ok(None);
        }
        let socket = self.open.handle;
        let running =
            self.receiving.get_or_insert_with(|| self.cx.net.start(NetOp::Recv { socket }));
        let (service, finishing) = (&self.service, self.finishing);
        let now = self.cx.state.borrow().time.ns;
        let mut alarm =
            self.idle.map(|idle| (self.cx.tasks.sleep_until(now + idle.as_nanos() as u64), idle));
        let done = poll_fn(|cx| {
            if let Poll::Ready(done) = Pin::new(&mut *running).poll(cx) {
                return Poll::Ready(Ok(done));
            }
            if service.is_stopping() && !finishing {
                return Poll::Ready(Err(NetError::Stopping));
            }
            if let Some((alarm, idle)) = &mut alarm
                && Pin::new(alarm).poll(cx).is_ready()
            {
                return Poll::Ready(Err(NetError::Idle { ms: idle.as_millis() as u64 }));
            }
            Poll::Pending
        });
        let done = done.await?;
        self.receiving = None;
        match done {
            Ok(NetDone::Received(Some(lease))) => Ok(Some(lease)),
            Ok(_) => {
                self.ended = true;
                Ok(None)
            }
            Err(error) => {
                self.ended = true;
                Err(NetError::io("receiving", &error))
            }
        }
    }

    /// Waits for bytes and appends them to `buffer`. Returns how many; 0 once the peer has shut down its side.
    ///
    /// # Errors
    /// As [`Connection::recv`].
    pub async fn recv_into(&mut self, buffer: &mut Vec<u8>) -> Result<usize, NetError> {
        let lease = self.recv().await?;
        Ok(lease.map_or(0, |bytes| {
            buffer.extend_from_slice(&bytes);
            bytes.len()
        }))
    }

    /// Queues bytes to be sent; waits for room. See [`Sender::send`].
    ///
    /// # Errors
    /// As there.
    pub async fn send(&self, bytes: impl Into<Vec<u8>>) -> Result<(), NetError> {
        self.sender.send(bytes).await
    }

    /// Queues bytes of a log to be sent. See [`Sender::send_log`].
    ///
    /// # Errors
    /// As there.
    pub async fn send_log(&self, range: LogRange) -> Result<(), NetError> {
        self.sender.send_log(range).await
    }

    /// Ends the connection in order: what is queued is sent, then the peer is told, and what it still sends is read
    /// until it ends as well, so that no reset overtakes the answers. Bounded by `within` and by the connection's own
    /// times.
    ///
    /// # Errors
    /// [`NetError`]; the connection is closed in any case.
    pub async fn finish(mut self, within: Duration) -> Result<(), NetError> {
        let until = self.cx.state.borrow().time.ns + within.as_nanos() as u64;
        let mut alarm = self.cx.tasks.sleep_until(until);
        self.finishing = true;
        let closing = async {
            self.sender.shutdown().await?;
            self.sender.flush().await?;
            let mut thrown_away = 0;
            while let Some(bytes) = self.recv().await? {
                thrown_away += bytes.len();
                if thrown_away > FINISH_BYTES_MAX {
                    break;
                }
            }
            Ok(())
        };
        let mut closing = std::pin::pin!(closing);
        poll_fn(|cx| {
            if let Poll::Ready(closed) = closing.as_mut().poll(cx) {
                return Poll::Ready(closed);
            }
            let ms = within.as_millis() as u64;
            Pin::new(&mut alarm).poll(cx).map(|()| Err(NetError::Slow { ms }))
        })
        .await
    }

    /// Closes the connection at once: what is queued or on its way is thrown away, and the peer sees a reset.
    pub fn reset(self) {
        self.sender.break_off();
        self.open.reset.set(true);
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connection({:?}, {:?})", self.open.handle, self.open.family)
    }
}
