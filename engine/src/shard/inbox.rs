//! The way into a shard from other threads, and the way an ack comes back.
//!
//! An append takes a slot and bytes of a fixed budget, then goes onto a bounded queue; the shard answers into
//! the slot. Nothing is allocated per append. A client that gives up leaves its slot to the shard, which
//! frees it when the append ends: a dropped future never harms a buffer or an ack.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use crossbeam_queue::ArrayQueue;

use crate::batch::Batch;
use crate::error::AppendError;
use crate::journal::LogId;
use crate::limits::{BATCH_BYTES_MAX, REQUESTS_MAX};
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
    /// Free slots and bytes that may still be admitted, in one number: [`SLOT`], [`BIAS`].
    room: AtomicU64,
    /// The bytes' part of `room` when nothing is admitted.
    idle: u64,
    waiters: Mutex<Waiters>,
    waiting: AtomicUsize,
    calls: Mutex<VecDeque<Call<C>>>,
    has_calls: AtomicBool,
    closed: AtomicBool,
    wake: OnceLock<Arc<dyn Wake>>,
}

/// One slot in [`Inbox::room`]; below it stand the bytes.
const SLOT: u64 = 1 << 48;

/// What the bytes in [`Inbox::room`] count from, so that a batch above the whole budget leaves a number.
const BIAS: u64 = 1 << 30;

const _: () = {
    assert!((REQUESTS_MAX as u64) < u64::MAX / SLOT);
    assert!((BATCH_BYTES_MAX as u64) < BIAS);
};

/// Clients that wait for room. Each has one place, whatever it is polled.
#[derive(Default)]
struct Waiters {
    /// Counts wake-ups, which empty all places.
    round: u64,
    places: Vec<Option<Waker>>,
    free: Vec<usize>,
}

/// Where a client stands among those that wait.
#[derive(Clone, Copy)]
struct Place {
    round: u64,
    index: usize,
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
            room: AtomicU64::new(REQUESTS_MAX as u64 * SLOT + BIAS + budget_bytes as u64),
            idle: BIAS + budget_bytes as u64,
            waiters: Mutex::default(),
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
        let bytes = batch.as_bytes().len() as u64;
        // All or nothing: room taken and given back by one client would turn another away, whom nobody wakes.
        let taken = self.room.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |room| {
            let (slots, left) = (room / SLOT, room % SLOT);
            // A batch above the whole budget goes when it is alone.
            let fits = left >= BIAS + bytes || left == self.idle;
            (slots > 0 && fits).then(|| room - SLOT - bytes)
        });
        if taken.is_err() {
            return Err((AppendError::Overloaded, batch));
        }
        let slot = self.free.pop().expect("a slot that was counted is there");
        *lock(&self.slots[slot as usize]) = Slot::Waiting(None);
        let request = Request { log, batch, ticket: Ticket(slot), at };
        assert!(self.queue.push(request).is_ok(), "a slot is a place in the queue");
        self.wake();
        // The shard may have emptied the queue for the last time between the look above and the push.
        if self.closed.load(Ordering::SeqCst) {
            self.refuse_queued();
        }
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
        self.room.fetch_add(SLOT, Ordering::SeqCst);
        self.wake_waiters();
    }

    fn wait(&self, place: &mut Option<Place>, cx: &Context<'_>) {
        let mut waiters = lock(&self.waiters);
        let held = place.filter(|place| place.round == waiters.round);
        if let Some(Place { index, .. }) = held {
            waiters.places[index] = Some(cx.waker().clone());
            return;
        }
        let index = waiters.free.pop().unwrap_or(waiters.places.len());
        if index == waiters.places.len() {
            waiters.places.push(None);
        }
        waiters.places[index] = Some(cx.waker().clone());
        *place = Some(Place { round: waiters.round, index });
        self.waiting.fetch_add(1, Ordering::SeqCst);
    }

    /// Gives up a place, so that it does not pile up with those of other futures that were dropped.
    fn leave(&self, place: Place) {
        let mut waiters = lock(&self.waiters);
        if place.round == waiters.round {
            waiters.places[place.index] = None;
            waiters.free.push(place.index);
            self.waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn wake_waiters(&self) {
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut woken = {
            let mut waiters = lock(&self.waiters);
            waiters.round += 1;
            waiters.free.clear();
            self.waiting.store(0, Ordering::SeqCst);
            std::mem::take(&mut waiters.places)
        };
        woken.drain(..).flatten().for_each(Waker::wake);
        // The memory goes back, unless others wait already.
        let mut waiters = lock(&self.waiters);
        if waiters.places.capacity() == 0 {
            waiters.places = woken;
        }
    }

    /// Ends what nobody will take from the queue.
    pub(crate) fn refuse_queued(&self) {
        while let Some(request) = self.queue.pop() {
            self.end(request.ticket, Err(AppendError::Closed), request.batch.into_bytes());
        }
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
        self.queue.is_empty() && !self.has_calls()
    }

    /// Whether calls are there to be taken.
    pub(crate) fn has_calls(&self) -> bool {
        self.has_calls.load(Ordering::Acquire)
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
            self.room.fetch_add(bytes, Ordering::SeqCst);
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
            self.closed.store(true, Ordering::SeqCst);
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
    /// Its place among those that wait for room.
    place: Option<Place>,
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
        Self { inbox, log, at, state: Sending::Unsent(batch), place: None }
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
                        self.inbox.wait(&mut self.place, cx);
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
        if let Some(place) = self.place.take() {
            self.inbox.leave(place);
        }
        if let Sending::Sent(ticket) = self.state {
            self.inbox.abandon(ticket);
        }
    }
}
