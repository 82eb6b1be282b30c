//! The way into a shard from other threads, and the way an ack comes back.
//!
//! An append takes a slot and bytes of a fixed budget, then goes onto a bounded queue; the shard answers into
//! the slot. Nothing is allocated per append. A client that gives up leaves its slot to the shard, which
//! frees it when the append ends: a dropped future never harms a buffer or an ack.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use crossbeam_queue::ArrayQueue;

use crate::batch::Batch;
use crate::error::AppendError;
use crate::journal::LogId;
use crate::limits::REQUESTS_MAX;
use crate::log::Ticket;
use crate::ring::Wake;
use crate::types::Offset;

/// An append on its way to its shard.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) log: LogId,
    pub(crate) batch: Batch,
    pub(crate) ticket: Ticket,
    pub(crate) at: Option<(Offset, i32)>,
}

/// What an append came to.
#[derive(Debug, PartialEq, Eq)]
pub struct Appended {
    /// The offset of the batch's first record.
    pub base_offset: Offset,
    /// The offset of its last record.
    pub last_offset: Offset,
    /// The batch's memory, empty: build the next batch in it ([`crate::batch::BatchBuilder::reuse`]).
    pub buffer: Vec<u8>,
}

#[derive(Debug)]
enum Slot {
    Free,
    Waiting(Option<Waker>),
    Ended(Result<(Offset, Offset), AppendError>, Vec<u8>),
    Abandoned,
}

/// A procedure sent to a shard, to run there.
pub(crate) type Call<C> = Box<dyn FnOnce(C) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// What a shard shares with other threads. `C` is what a call gets to work with.
pub(crate) struct Inbox<C> {
    queue: ArrayQueue<Request>,
    slots: Box<[Mutex<Slot>]>,
    free: ArrayQueue<u32>,
    /// Bytes that may still be admitted.
    budget: AtomicI64,
    budget_bytes: i64,
    waiters: Mutex<VecDeque<Waker>>,
    waiting: AtomicUsize,
    calls: Mutex<VecDeque<Call<C>>>,
    has_calls: AtomicBool,
    closed: AtomicBool,
    wake: OnceLock<Arc<dyn Wake>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<C> Inbox<C> {
    /// An inbox that admits `budget_bytes` of batches.
    pub(crate) fn new(budget_bytes: usize) -> Self {
        let free = ArrayQueue::new(REQUESTS_MAX);
        for slot in 0..REQUESTS_MAX {
            assert!(free.push(slot as u32).is_ok(), "as many as there are slots");
        }
        Self {
            queue: ArrayQueue::new(REQUESTS_MAX),
            slots: (0..REQUESTS_MAX).map(|_| Mutex::new(Slot::Free)).collect(),
            free,
            budget: AtomicI64::new(budget_bytes as i64),
            budget_bytes: budget_bytes as i64,
            waiters: Mutex::new(VecDeque::new()),
            waiting: AtomicUsize::new(0),
            calls: Mutex::new(VecDeque::new()),
            has_calls: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            wake: OnceLock::new(),
        }
    }

    /// Whom to wake when something arrives.
    pub(crate) fn set_wake(&self, wake: Arc<dyn Wake>) {
        assert!(self.wake.set(wake).is_ok(), "an inbox belongs to one shard");
    }

    fn wake(&self) {
        if let Some(wake) = self.wake.get() {
            wake.wake();
        }
    }

    // The clients' side.

    /// Admits and sends an append, or gives the batch back because the budget is used up.
    fn send(
        &self,
        log: LogId,
        batch: Batch,
        at: Option<(Offset, i32)>,
    ) -> Result<Ticket, (AppendError, Batch)> {
        if self.closed.load(Ordering::Acquire) {
            return Err((AppendError::Closed, batch));
        }
        let bytes = batch.as_bytes().len() as i64;
        let before = self.budget.fetch_sub(bytes, Ordering::SeqCst);
        // A batch above the whole budget goes when it is alone.
        let room = before >= bytes || before == self.budget_bytes;
        let Some(slot) = room.then(|| self.free.pop()).flatten() else {
            self.budget.fetch_add(bytes, Ordering::SeqCst);
            return Err((AppendError::Overloaded, batch));
        };
        *lock(&self.slots[slot as usize]) = Slot::Waiting(None);
        let request = Request { log, batch, ticket: Ticket(slot), at };
        assert!(self.queue.push(request).is_ok(), "a slot is a place in the queue");
        self.wake();
        Ok(Ticket(slot))
    }

    fn poll_ended(
        &self,
        ticket: Ticket,
        cx: &Context<'_>,
    ) -> Poll<(Result<(Offset, Offset), AppendError>, Vec<u8>)> {
        let mut slot = lock(&self.slots[ticket.0 as usize]);
        match &mut *slot {
            Slot::Waiting(waker) => {
                match waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    None => *waker = Some(cx.waker().clone()),
                }
                return Poll::Pending;
            }
            Slot::Ended(..) => {}
            Slot::Free | Slot::Abandoned => unreachable!("a ticket is polled until it has ended"),
        }
        let Slot::Ended(result, buffer) = std::mem::replace(&mut *slot, Slot::Free) else {
            unreachable!("matched above");
        };
        drop(slot);
        self.give_slot(ticket);
        Poll::Ready((result, buffer))
    }

    fn abandon(&self, ticket: Ticket) {
        let mut slot = lock(&self.slots[ticket.0 as usize]);
        let ended = matches!(*slot, Slot::Ended(..));
        *slot = if ended { Slot::Free } else { Slot::Abandoned };
        drop(slot);
        if ended {
            self.give_slot(ticket);
        }
    }

    fn give_slot(&self, ticket: Ticket) {
        assert!(self.free.push(ticket.0).is_ok(), "a slot is freed once");
        self.wake_waiters();
    }

    fn wait(&self, cx: &Context<'_>) {
        lock(&self.waiters).push_back(cx.waker().clone());
        self.waiting.fetch_add(1, Ordering::SeqCst);
    }

    fn wake_waiters(&self) {
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        let waiters = std::mem::take(&mut *lock(&self.waiters));
        self.waiting.fetch_sub(waiters.len(), Ordering::SeqCst);
        waiters.into_iter().for_each(Waker::wake);
    }

    /// Sends a procedure to the shard. `false` if it is closed.
    pub(crate) fn call(&self, call: Call<C>) -> bool {
        let mut calls = lock(&self.calls);
        if self.closed.load(Ordering::Acquire) {
            return false;
        }
        calls.push_back(call);
        self.has_calls.store(true, Ordering::Release);
        drop(calls);
        self.wake();
        true
    }

    // The shard's side.

    /// Takes the next append.
    pub(crate) fn pop(&self) -> Option<Request> {
        self.queue.pop()
    }

    /// Whether something is there to be taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty() && !self.has_calls.load(Ordering::Acquire)
    }

    /// Takes all calls.
    pub(crate) fn take_calls(&self) -> VecDeque<Call<C>> {
        if !self.has_calls.swap(false, Ordering::AcqRel) {
            return VecDeque::new();
        }
        std::mem::take(&mut *lock(&self.calls))
    }

    /// Gives back admitted bytes: they are in the log's memory, or gone.
    pub(crate) fn release(&self, bytes: u64) {
        if bytes > 0 {
            self.budget.fetch_add(bytes as i64, Ordering::SeqCst);
            self.wake_waiters();
        }
    }

    /// Ends an append.
    pub(crate) fn end(
        &self,
        ticket: Ticket,
        result: Result<(Offset, Offset), AppendError>,
        buffer: Vec<u8>,
    ) {
        let mut slot = lock(&self.slots[ticket.0 as usize]);
        match std::mem::replace(&mut *slot, Slot::Free) {
            Slot::Waiting(waker) => {
                *slot = Slot::Ended(result, buffer);
                drop(slot);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            Slot::Abandoned => {
                drop(slot);
                self.give_slot(ticket);
            }
            Slot::Free | Slot::Ended(..) => unreachable!("an append ends once"),
        }
    }

    /// Whether it takes nothing more.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Takes no more appends and calls; waiting clients are told.
    pub(crate) fn close(&self) {
        let calls = {
            let mut calls = lock(&self.calls);
            self.closed.store(true, Ordering::Release);
            std::mem::take(&mut *calls)
        };
        drop(calls);
        self.wake_waiters();
        self.wake();
    }
}

/// An append under way. Any runtime may poll it. Dropping it cancels nothing that was already sent.
#[must_use = "futures do nothing unless polled"]
pub struct AppendFuture {
    inbox: Arc<Inbox<super::Context>>,
    log: LogId,
    at: Option<(Offset, i32)>,
    state: Sending,
}

enum Sending {
    Unsent(Batch),
    Sent(Ticket),
    Over,
}

impl AppendFuture {
    pub(crate) fn new(
        inbox: Arc<Inbox<super::Context>>,
        log: LogId,
        batch: Batch,
        at: Option<(Offset, i32)>,
    ) -> Self {
        Self { inbox, log, at, state: Sending::Unsent(batch) }
    }

    /// Sends now or gives the batch back.
    pub(crate) fn try_send(&mut self) -> Result<(), (AppendError, Batch)> {
        let Sending::Unsent(batch) = std::mem::replace(&mut self.state, Sending::Over) else {
            unreachable!("an append is sent once");
        };
        match self.inbox.send(self.log, batch, self.at) {
            Ok(ticket) => {
                self.state = Sending::Sent(ticket);
                Ok(())
            }
            Err(refusal) => Err(refusal),
        }
    }

    fn poll_send(&mut self, cx: &Context<'_>) -> Result<bool, AppendError> {
        for registered in [false, true] {
            match self.try_send() {
                Ok(()) => return Ok(true),
                Err((AppendError::Overloaded, batch)) => {
                    self.state = Sending::Unsent(batch);
                    // Memory may have come free between the refusal and the registration: try once more.
                    if !registered {
                        self.inbox.wait(cx);
                    }
                }
                Err((error, _)) => return Err(error),
            }
        }
        Ok(false)
    }
}

impl Future for AppendFuture {
    type Output = Result<Appended, AppendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if matches!(self.state, Sending::Unsent(_)) {
            match self.poll_send(cx) {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        let Sending::Sent(ticket) = self.state else {
            unreachable!("a future is not polled after it was ready");
        };
        let (result, buffer) = std::task::ready!(self.inbox.poll_ended(ticket, cx));
        self.state = Sending::Over;
        Poll::Ready(result.map(|(base_offset, last_offset)| Appended {
            base_offset,
            last_offset,
            buffer,
        }))
    }
}

impl Drop for AppendFuture {
    fn drop(&mut self) {
        if let Sending::Sent(ticket) = self.state {
            self.inbox.abandon(ticket);
        }
    }
}
