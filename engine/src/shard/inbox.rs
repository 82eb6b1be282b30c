//! The way into a shard from other threads, and the way an ack comes back.
//!
//! What is sent stands behind one lock that is held for a few dozen nanoseconds: a sender takes a slot and
//! bytes of a fixed budget and lays its request down, the shard swaps all requests for an empty list once a
//! turn. Small batches are copied into one run of bytes, which the shard's core then reads in a stream instead
//! of fetching each from another core's cache; large ones change hands. The shard answers into the slot.
//! Nothing is allocated per append. A client that gives up leaves its slot to the shard, which frees it when
//! the append ends: a dropped future never harms a buffer or an ack.

use std::collections::VecDeque;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::batch::Batch;
use crate::buffers::cache::{self, Apart};
use crate::error::{AppendError, Fault};
use crate::journal::LogId;
use crate::limits::{COPIED_BATCH_BYTES_MAX, COPIED_BYTES_MAX, REQUESTS_MAX};
use crate::log::Ticket;
use crate::ring::Wake;
use crate::types::Offset;

pub use append::AppendFuture;

/// An append on its way to its shard.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) log: LogId,
    pub(crate) ticket: Ticket,
    pub(crate) at: Option<(Offset, i32)>,
    /// Records in the batch, at least one.
    pub(crate) records: u32,
    /// The batch's CRC, as in its header.
    pub(crate) crc: u32,
    pub(crate) max_timestamp: i64,
    pub(crate) body: Body,
}

/// Where the bytes of a request are.
#[derive(Debug)]
pub(crate) enum Body {
    /// In [`Arrivals::copied`]: so many, behind those of the request before.
    Copied(usize),
    /// Here.
    Moved(Vec<u8>),
}

impl Request {
    /// Bytes of it in [`Arrivals::copied`].
    pub(crate) fn copied(&self) -> usize {
        match self.body {
            Body::Copied(bytes) => bytes,
            Body::Moved(_) => 0,
        }
    }

    /// Bytes of the batch.
    pub(crate) fn bytes(&self) -> u64 {
        match &self.body {
            Body::Copied(bytes) => *bytes as u64,
            Body::Moved(bytes) => bytes.len() as u64,
        }
    }
}

/// Requests as the shard takes them: all that came since it last looked.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    pub(crate) requests: VecDeque<Request>,
    /// The bytes of small batches, back to back.
    pub(crate) copied: Vec<u8>,
    /// Bytes of `copied` that belong to requests already taken.
    pub(crate) taken: usize,
}

impl Arrivals {
    /// None, with room for as many as may come.
    pub(crate) fn with_room() -> Self {
        Self {
            requests: VecDeque::with_capacity(REQUESTS_MAX),
            copied: Vec::with_capacity(COPIED_BYTES_MAX),
            taken: 0,
        }
    }

    /// Where the next small request will be laid: its batch, and itself.
    fn next(&self) -> (*const u8, *const Request) {
        let (requests, _) = self.requests.as_slices();
        let request = requests.as_ptr().wrapping_add(requests.len());
        (self.copied.as_ptr().wrapping_add(self.copied.len()), request)
    }
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

/// First and last offset, or why not.
type Result = std::result::Result<(Offset, Offset), AppendError>;

/// Where an append's client waits and its result is laid down: one cache line, of its own.
#[derive(Debug)]
#[repr(align(64))]
struct Slot(Mutex<Answer>);

const _: () = assert!(size_of::<Slot>() == 64);

#[derive(Debug)]
enum Answer {
    Free,
    Waiting(Option<Waker>),
    /// With the memory of a batch that was moved.
    Ended(Result, Vec<u8>),
    Abandoned,
}

/// A procedure sent to a shard, to run there.
pub(crate) type Call<C> = Box<dyn FnOnce(C) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// What a shard shares with other threads. `C` is what a call gets to work with.
pub(crate) struct Inbox<C> {
    door: Apart<Mutex<Door<C>>>,
    /// Whether something lies behind the door: to be asked in a spin, without the lock.
    has_mail: Apart<AtomicBool>,
    slots: Box<[Slot]>,
    budget_bytes: u64,
    wake: OnceLock<Arc<dyn Wake>>,
}

/// What stands behind the lock.
struct Door<C> {
    arrivals: Arrivals,
    calls: VecDeque<Call<C>>,
    free: Vec<u32>,
    /// Bytes of batches that are not in the log's memory yet.
    admitted_bytes: u64,
    waiters: Waiters,
    /// Bytes of batches in `arrivals`.
    arrived_bytes: u64,
    /// If the shard sleeps, or is about to: who makes the bytes that arrived as many as this ends it, and any call.
    asleep: Option<u64>,
    closed: bool,
}

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

impl Waiters {
    /// Takes a place, or keeps the one it has. Returns the waker that was there: to drop one can run a client's code,
    /// which may want the lock.
    fn enter(&mut self, place: &mut Option<Place>, waker: Waker) -> Option<Waker> {
        let held = place.filter(|place| place.round == self.round);
        let index = held.map(|place| place.index).or_else(|| self.free.pop());
        let index = index.unwrap_or(self.places.len());
        if index == self.places.len() {
            self.places.push(None);
        }
        *place = Some(Place { round: self.round, index });
        self.places[index].replace(waker)
    }

    /// Gives up a place, so that it does not pile up with those of other futures that were dropped.
    fn leave(&mut self, place: Place) -> Option<Waker> {
        if place.round != self.round {
            return None;
        }
        self.free.push(place.index);
        self.places[place.index].take()
    }

    /// Takes all places, for their wakers to be called outside of the lock.
    fn take(&mut self) -> Vec<Option<Waker>> {
        self.round += 1;
        self.free.clear();
        mem::take(&mut self.places)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<C> Inbox<C> {
    /// An inbox that admits `budget_bytes` of batches.
    pub(crate) fn new(budget_bytes: usize) -> Self {
        let door = Door {
            arrivals: Arrivals::with_room(),
            calls: VecDeque::new(),
            free: (0..REQUESTS_MAX as u32).rev().collect(),
            admitted_bytes: 0,
            waiters: Waiters::default(),
            arrived_bytes: 0,
            asleep: None,
            closed: false,
        };
        Self {
            door: Apart(Mutex::new(door)),
            has_mail: Apart(AtomicBool::new(false)),
            slots: (0..REQUESTS_MAX).map(|_| Slot(Mutex::new(Answer::Free))).collect(),
            budget_bytes: budget_bytes as u64,
            wake: OnceLock::new(),
        }
    }

    /// Whom to wake when something arrives.
    pub(crate) fn set_wake(&self, wake: Arc<dyn Wake>) {
        assert!(self.wake.set(wake).is_ok(), "an inbox belongs to one shard");
    }

    /// Opens the door again after something was laid down: ends the shard's sleep if that is worth it.
    fn leave_mail(&self, mut door: MutexGuard<'_, Door<C>>) {
        self.has_mail.store(true, Ordering::Relaxed);
        let (arrived, urgent) = (door.arrived_bytes, !door.calls.is_empty());
        let roused = door.asleep.take_if(|patience| arrived >= *patience || urgent).is_some();
        drop(door);
        if roused && let Some(wake) = self.wake.get() {
            wake.wake();
        }
    }

    fn slot(&self, ticket: Ticket) -> MutexGuard<'_, Answer> {
        lock(&self.slots[ticket.0 as usize].0)
    }

    // The clients' side.

    /// Admits and sends an append, or gives the batch back because the budget is used up. With `cx` its task is
    /// woken when the append ends. Returns the slot, and the batch's memory if its bytes were copied.
    fn send(
        &self,
        log: LogId,
        batch: Batch,
        at: Option<(Offset, i32)>,
        waker: Option<&Waker>,
    ) -> std::result::Result<(Ticket, Vec<u8>), (AppendError, Batch)> {
        let (records, crc, max_timestamp) =
            (batch.record_count(), batch.crc(), batch.max_timestamp());
        let bytes = batch.as_bytes().len();
        let waker = waker.cloned();
        let mut door = lock(&self.door);
        if door.closed {
            return Err((AppendError::Closed, batch));
        }
        // A batch above the whole budget goes when it is alone.
        let admitted = door.admitted_bytes;
        let fits = admitted == 0 || admitted + bytes as u64 <= self.budget_bytes;
        let Some(slot) = fits.then(|| door.free.pop()).flatten() else {
            return Err((AppendError::Overloaded, batch));
        };
        door.admitted_bytes += bytes as u64;
        door.arrived_bytes += bytes as u64;
        let ticket = Ticket(slot);
        *self.slot(ticket) = Answer::Waiting(waker);
        let mut buffer = batch.into_bytes();
        let arrivals = &mut door.arrivals;
        let copied = bytes <= COPIED_BATCH_BYTES_MAX
            && arrivals.copied.len() + bytes <= arrivals.copied.capacity();
        let body = if copied {
            arrivals.copied.extend_from_slice(&buffer);
            buffer.clear();
            Body::Copied(bytes)
        } else {
            Body::Moved(mem::take(&mut buffer))
        };
        arrivals.requests.push_back(Request { log, ticket, at, records, crc, max_timestamp, body });
        let (next_batch, next_request) = arrivals.next();
        self.leave_mail(door);
        // The shard's core read that memory last: it comes while the sender is busy with something else.
        cache::expect_writes(next_batch, cache::SMALL_BYTES);
        cache::expect_writes(next_request.cast(), size_of::<Request>());
        Ok((ticket, buffer))
    }

    fn poll_ended(&self, ticket: Ticket, cx: &Context<'_>) -> Poll<(Result, Vec<u8>)> {
        let mut slot = self.slot(ticket);
        match &mut *slot {
            Answer::Waiting(waker) => {
                match waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    None => *waker = Some(cx.waker().clone()),
                }
                return Poll::Pending;
            }
            Answer::Ended(..) => {}
            Answer::Free | Answer::Abandoned => {
                unreachable!("a ticket is polled until it has ended")
            }
        }
        let Answer::Ended(result, buffer) = mem::replace(&mut *slot, Answer::Free) else {
            unreachable!("matched above");
        };
        drop(slot);
        self.give_slot(ticket);
        Poll::Ready((result, buffer))
    }

    fn abandon(&self, ticket: Ticket) {
        let mut slot = self.slot(ticket);
        let ended = matches!(*slot, Answer::Ended(..));
        *slot = if ended { Answer::Free } else { Answer::Abandoned };
        drop(slot);
        if ended {
            self.give_slot(ticket);
        }
    }

    fn give_slot(&self, ticket: Ticket) {
        let mut door = lock(&self.door);
        door.free.push(ticket.0);
        self.wake_waiters(door);
    }

    fn wait(&self, place: &mut Option<Place>, cx: &Context<'_>) {
        let waker = cx.waker().clone();
        let old = lock(&self.door).waiters.enter(place, waker);
        drop(old);
    }

    fn leave(&self, place: Place) {
        let old = lock(&self.door).waiters.leave(place);
        drop(old);
    }

    fn wake_waiters(&self, mut door: MutexGuard<'_, Door<C>>) {
        if door.waiters.places.is_empty() {
            return;
        }
        let mut woken = door.waiters.take();
        drop(door);
        woken.drain(..).flatten().for_each(Waker::wake);
        // The memory goes back, unless others wait already.
        let waiters = &mut lock(&self.door).waiters;
        if waiters.places.capacity() == 0 {
            waiters.places = woken;
        }
    }

    /// Sends a procedure to the shard. `false` if it is closed.
    pub(crate) fn call(&self, call: Call<C>) -> bool {
        let mut door = lock(&self.door);
        if door.closed {
            return false;
        }
        door.calls.push_back(call);
        self.leave_mail(door);
        true
    }

    // The shard's side.

    /// Takes all that came: requests in place of `emptied`, and calls.
    pub(crate) fn take(&self, emptied: &mut Arrivals) -> VecDeque<Call<C>> {
        assert!(emptied.requests.is_empty(), "arrivals are dealt with in order");
        // From the front again: the memory used last is in a cache.
        emptied.requests.clear();
        emptied.copied.clear();
        emptied.taken = 0;
        let mut door = lock(&self.door);
        // That it was closed stays to be seen.
        self.has_mail.store(door.closed, Ordering::Relaxed);
        door.asleep = None;
        door.arrived_bytes = 0;
        mem::swap(&mut door.arrivals, emptied);
        mem::take(&mut door.calls)
    }

    /// Takes the calls alone.
    pub(crate) fn take_calls(&self) -> VecDeque<Call<C>> {
        let mut door = lock(&self.door);
        door.asleep = None;
        mem::take(&mut door.calls)
    }

    /// Whether something seems to be there to be taken. A look that costs nothing.
    pub(crate) fn has_mail(&self) -> bool {
        self.has_mail.load(Ordering::Relaxed)
    }

    /// The shard is about to sleep, unless something is there for it (`false`): a call, or appends of at least
    /// `patience_bytes`. From now on who sends as much wakes it.
    pub(crate) fn fall_asleep(&self, patience_bytes: u64) -> bool {
        let mut door = lock(&self.door);
        let enough = !door.arrivals.requests.is_empty() && door.arrived_bytes >= patience_bytes;
        let may = !enough && door.calls.is_empty() && !door.closed;
        door.asleep = may.then_some(patience_bytes);
        may
    }

    /// Gives back admitted bytes: they are in the log's memory, or gone.
    pub(crate) fn release(&self, bytes: u64) {
        if bytes > 0 {
            let mut door = lock(&self.door);
            door.admitted_bytes -= bytes;
            self.wake_waiters(door);
        }
    }

    /// This append ends soon: the line of its slot comes from the client's core meanwhile.
    pub(crate) fn expect_end(&self, ticket: Ticket) {
        cache::expect_writes((&raw const self.slots[ticket.0 as usize]).cast(), size_of::<Slot>());
    }

    /// Ends an append.
    pub(crate) fn end(&self, ticket: Ticket, result: Result, buffer: Vec<u8>) {
        let mut slot = self.slot(ticket);
        match mem::replace(&mut *slot, Answer::Free) {
            Answer::Waiting(waker) => {
                *slot = Answer::Ended(result, buffer);
                drop(slot);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            Answer::Abandoned => {
                drop(slot);
                self.give_slot(ticket);
            }
            Answer::Free | Answer::Ended(..) => unreachable!("an append ends once"),
        }
    }

    /// Ends what nobody will take any more.
    pub(crate) fn refuse_all(&self) {
        let requests = mem::take(&mut lock(&self.door).arrivals.requests);
        for request in requests {
            self.refuse(request, AppendError::Closed);
        }
    }

    /// Ends whatever still waits after the shard is gone: a panic can take requests along that were on their way from
    /// the inbox to a log.
    pub(crate) fn end_all(&self, fault: Fault) {
        self.refuse_all();
        for ticket in (0..self.slots.len() as u32).map(Ticket) {
            let waits = matches!(*self.slot(ticket), Answer::Waiting(_));
            if waits {
                self.end(ticket, Err(AppendError::Unknown(fault)), Vec::new());
            }
        }
    }

    /// Ends a request that is not appended.
    pub(crate) fn refuse(&self, request: Request, error: AppendError) {
        let buffer = match request.body {
            Body::Copied(_) => Vec::new(),
            Body::Moved(bytes) => bytes,
        };
        self.end(request.ticket, Err(error), buffer);
    }

    /// Whether it takes nothing more.
    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.door).closed
    }

    /// Takes no more appends and calls; waiting clients are told.
    pub(crate) fn close(&self) {
        let mut door = lock(&self.door);
        door.closed = true;
        door.asleep = None;
        self.has_mail.store(true, Ordering::Relaxed);
        let calls = mem::take(&mut door.calls);
        self.wake_waiters(door);
        // Whoever waits for one is told by its end, which may take the lock.
        drop(calls);
        if let Some(wake) = self.wake.get() {
            wake.wake();
        }
    }
}

mod append;
pub(crate) mod local;
#[cfg(test)]
mod tests;
