//! What a connection has to send: a bounded queue, and a task that empties it, there only while there is something.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::super::Context;
use super::range::{LogRange, Step, rest};
use super::{ListenOptions, Open, Service};
use crate::command::sockets::{NetDone, NetOp};
use crate::error::{Fault, NetError, ReadError};
use crate::limits::{SEND_JOIN_BYTES, SEND_PIECES_MAX};
use crate::local::Notify;

/// How long a connection waits before it looks for memory again.
const SHORT_RETRY_NS: u64 = 2_000_000;

/// One thing to send.
enum Piece {
    Bytes(Vec<u8>),
    Log(Box<LogRange>),
    /// The end.
    End,
}

#[derive(Default)]
struct Queue {
    pieces: VecDeque<Piece>,
    /// Bytes in `pieces`, and of the piece that is being sent.
    bytes: usize,
    /// A task empties the queue.
    writing: bool,
    shut: bool,
    failure: Option<NetError>,
}

struct Shared {
    cx: Context,
    service: Rc<Service>,
    open: Rc<Open>,
    limit: usize,
    slow: Duration,
    queue: RefCell<Queue>,
    /// Rung when there is less to send, or sending failed.
    moved: Notify,
}

/// The sending side of a connection. Clones send into the same queue, in the order of their calls.
#[derive(Clone)]
pub struct Sender(Rc<Shared>);

impl Sender {
    pub(super) fn new(
        (cx, service): (Context, Rc<Service>),
        open: Rc<Open>,
        options: ListenOptions,
    ) -> Self {
        Self(Rc::new(Shared {
            cx,
            service,
            open,
            limit: options.send_queue_bytes,
            slow: options.slow,
            queue: RefCell::default(),
            moved: Notify::new(),
        }))
    }

    /// Queues bytes to be sent, after all that was queued before. Waits while the queue has as many as it may; a piece
    /// larger than that goes when it is alone. Ends before the bytes are sent: an error of sending is told to the calls
    /// that come after it, and to [`Sender::flush`].
    ///
    /// # Errors
    /// [`NetError::Slow`] if the peer took nothing for too long, [`NetError::Io`] if the connection broke,
    /// [`NetError::ShutDown`].
    pub async fn send(&self, bytes: impl Into<Vec<u8>>) -> Result<(), NetError> {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return self.0.check();
        }
        self.0.wait_for(|queue| queue.has_room(bytes.len(), self.0.limit)).await?;
        self.put(Piece::Bytes(bytes));
        Ok(())
    }

    /// Queues bytes of a log to be sent, after all that was queued before: [`LogRange::bytes`] of them, by the fastest
    /// way there is from where they are by then. They are not checked and not copied where that can be helped, and
    /// take no memory while they wait.
    ///
    /// # Errors
    /// As [`Sender::send`]; later calls are told [`NetError::Log`] if the bytes are gone by the time they are sent,
    /// which closes the connection: its peer waits for the rest.
    pub async fn send_log(&self, range: LogRange) -> Result<(), NetError> {
        self.0.wait_for(|queue| queue.pieces.len() < SEND_PIECES_MAX).await?;
        if range.bytes() > 0 {
            self.put(Piece::Log(Box::new(range)));
        }
        Ok(())
    }

    /// Waits until all that was queued is given to the kernel.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub async fn flush(&self) -> Result<(), NetError> {
        self.0.wait(|queue| !queue.writing && queue.pieces.is_empty()).await
    }

    /// Queues the end: after what was queued before, the peer is told that nothing more comes. It may go on sending.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub async fn shutdown(&self) -> Result<(), NetError> {
        self.0.wait_for(|queue| queue.pieces.len() < SEND_PIECES_MAX).await?;
        self.put(Piece::End);
        self.0.queue.borrow_mut().shut = true;
        Ok(())
    }

    /// Bytes that are queued and not given to the kernel.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.0.queue.borrow().bytes
    }

    /// Throws away what is queued.
    pub(super) fn break_off(&self) {
        let fault = Fault { operation: "sending", errno: libc::ECONNRESET };
        self.0.fail(NetError::Io(fault));
    }

    fn put(&self, piece: Piece) {
        let mut queue = self.0.queue.borrow_mut();
        queue.put(piece);
        if !std::mem::replace(&mut queue.writing, true) {
            drop(queue);
            self.0.service.spawn(&self.0.cx, Rc::clone(&self.0).write());
        }
    }
}

impl Queue {
    fn has_room(&self, bytes: usize, limit: usize) -> bool {
        let fits = self.bytes == 0 || self.bytes + bytes <= limit;
        fits && self.pieces.len() < SEND_PIECES_MAX
    }

    fn put(&mut self, piece: Piece) {
        if let Piece::Bytes(bytes) = &piece {
            self.bytes += bytes.len();
            if let Some(Piece::Bytes(last)) = self.pieces.back_mut()
                && last.len() + bytes.len() <= SEND_JOIN_BYTES
            {
                last.extend_from_slice(bytes);
                return;
            }
        }
        self.pieces.push_back(piece);
    }
}

impl Shared {
    fn check(&self) -> Result<(), NetError> {
        let queue = self.queue.borrow();
        match &queue.failure {
            Some(failure) => Err(failure.clone()),
            None if queue.shut => Err(NetError::ShutDown),
            None => Ok(()),
        }
    }

    /// Waits to be allowed to queue something.
    async fn wait_for(&self, allowed: impl Fn(&Queue) -> bool) -> Result<(), NetError> {
        if self.queue.borrow().shut {
            return Err(NetError::ShutDown);
        }
        self.wait(allowed).await?;
        self.check()
    }

    async fn wait(&self, reached: impl Fn(&Queue) -> bool) -> Result<(), NetError> {
        loop {
            let moved = {
                let queue = self.queue.borrow();
                if let Some(failure) = &queue.failure {
                    return Err(failure.clone());
                }
                if reached(&queue) {
                    return Ok(());
                }
                self.moved.notified()
            };
            moved.await;
        }
    }

    /// Nothing more is sent, and nothing received: a peer that takes no answers gets none. What is queued is thrown
    /// away, and what is with the kernel comes back.
    fn fail(&self, failure: NetError) {
        let op = NetOp::Shutdown { socket: self.open.handle, both: true };
        drop(self.cx.net.start(op));
        let gone = {
            let mut queue = self.queue.borrow_mut();
            queue.failure.get_or_insert(failure);
            queue.bytes = 0;
            std::mem::take(&mut queue.pieces)
        };
        drop(gone);
        self.moved.notify();
    }

    /// Sends what is queued, until there is nothing.
    async fn write(self: Rc<Self>) {
        loop {
            let (piece, more) = {
                let mut queue = self.queue.borrow_mut();
                let Some(piece) = queue.pieces.pop_front() else {
                    queue.writing = false;
                    break;
                };
                let more = matches!(queue.pieces.front(), Some(Piece::Bytes(_) | Piece::Log(_)));
                (piece, more)
            };
            let sent = match piece {
                Piece::Bytes(bytes) => self.write_bytes(bytes, more).await,
                Piece::Log(range) => self.write_log(&range, more).await,
                Piece::End => {
                    let op = NetOp::Shutdown { socket: self.open.handle, both: false };
                    self.within(self.cx.net.start(op)).await.map(drop)
                }
            };
            if let Err(failure) = sent {
                self.fail(failure);
                self.queue.borrow_mut().writing = false;
                break;
            }
            self.moved.notify();
        }
        self.moved.notify();
    }

    async fn write_bytes(&self, mut bytes: Vec<u8>, more: bool) -> Result<(), NetError> {
        let mut from = 0;
        while from < bytes.len() {
            let op = NetOp::Send { socket: self.open.handle, bytes, from, more };
            let done = self.within(self.cx.net.start(op)).await?;
            let NetDone::Sent(back, count) = done else { unreachable!("a send gives it back") };
            (bytes, from) = (back, from + count);
            let mut queue = self.queue.borrow_mut();
            queue.bytes = queue.bytes.saturating_sub(count);
            drop(queue);
            self.moved.notify();
        }
        Ok(())
    }

    async fn write_log(&self, range: &LogRange, more: bool) -> Result<(), NetError> {
        let last = range.ranges.len() - 1;
        for (at, part) in range.ranges.iter().enumerate() {
            let more = more || at < last;
            let step = Step { cx: &self.cx, service: &self.service, open: &self.open, range, more };
            let mut part = *part;
            while part.from < part.to {
                // In a box: while the peer is waited for its memory is not there.
                let sent = match Box::pin(step.send(part)).await {
                    // Writers have all the memory: they are soon done with some.
                    Err(NetError::Log(ReadError::Overloaded)) => {
                        let now = self.cx.state.borrow().time.ns;
                        self.cx.tasks.sleep_until(now + SHORT_RETRY_NS).await;
                        continue;
                    }
                    Err(failure) => {
                        // What led here may be what is remembered of the segment.
                        self.cx.files.lookups().forget((range.id, part.base));
                        return Err(failure);
                    }
                    Ok(sent) => sent,
                };
                part = rest(part, sent.count);
                if sent.cold
                    && let Some(until) = self.cx.cold.pause(&self.cx, sent.count)
                {
                    self.cx.tasks.sleep_until(until).await;
                }
                if sent.full {
                    let op = NetOp::Writable { socket: self.open.handle };
                    self.within(self.cx.net.start(op)).await?;
                }
            }
        }
        Ok(())
    }

    /// Waits for an operation on the socket, as long as a peer may be slow.
    async fn within(
        &self,
        running: impl Future<Output = io::Result<NetDone>>,
    ) -> Result<NetDone, NetError> {
        let until = self.cx.state.borrow().time.ns + self.slow.as_nanos() as u64;
        let mut alarm = self.cx.tasks.sleep_until(until);
        let mut running = pin!(running);
        poll_fn(|cx| {
            if let Poll::Ready(done) = running.as_mut().poll(cx) {
                return Poll::Ready(done.map_err(|error| NetError::io("sending", &error)));
            }
            let ms = self.slow.as_millis() as u64;
            Pin::new(&mut alarm).poll(cx).map(|()| Err(NetError::Slow { ms }))
        })
        .await
    }
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sender({:?}, {} bytes queued)", self.0.open.handle, self.queued_bytes())
    }
}
