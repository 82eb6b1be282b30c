//! What tasks of one thread wait for each other with. Nothing here knows an executor.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

struct Shot<T> {
    value: Option<T>,
    waker: Option<Waker>,
    sender_gone: bool,
}

/// A channel for one value.
pub(crate) fn oneshot<T>() -> (Sender<T>, Receiver<T>) {
    let shot = Rc::new(RefCell::new(Shot { value: None, waker: None, sender_gone: false }));
    (Sender(Rc::clone(&shot)), Receiver(shot))
}

/// Sends the value. Dropping it unsent tells the receiver.
pub(crate) struct Sender<T>(Rc<RefCell<Shot<T>>>);

impl<T> Sender<T> {
    /// Sends `value`, into nothing if the receiver is gone.
    pub(crate) fn send(self, value: T) {
        self.0.borrow_mut().value = Some(value);
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let waker = {
            let mut shot = self.0.borrow_mut();
            shot.sender_gone = true;
            shot.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Receives the value, or `None` if the sender was dropped without sending.
pub(crate) struct Receiver<T>(Rc<RefCell<Shot<T>>>);

impl<T> Future for Receiver<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut shot = self.0.borrow_mut();
        if let Some(value) = shot.value.take() {
            return Poll::Ready(Some(value));
        }
        if shot.sender_gone {
            return Poll::Ready(None);
        }
        shot.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[derive(Default)]
struct Waiter {
    granted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

struct Permits {
    free: Cell<usize>,
    waiters: RefCell<VecDeque<Rc<Waiter>>>,
}

impl Permits {
    fn release(&self) {
        let next = self.waiters.borrow_mut().pop_front();
        match next {
            Some(waiter) => {
                waiter.granted.set(true);
                let waker = waiter.waker.take();
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            None => self.free.set(self.free.get() + 1),
        }
    }
}

/// Bounds how many do something at once. First come, first served.
#[derive(Clone)]
pub(crate) struct Semaphore(Rc<Permits>);

impl Semaphore {
    /// A semaphore with `permits`.
    pub(crate) fn new(permits: usize) -> Self {
        Self(Rc::new(Permits { free: Cell::new(permits), waiters: RefCell::default() }))
    }

    /// Waits for a permit.
    pub(crate) fn acquire(&self) -> Acquire {
        Acquire { permits: Rc::clone(&self.0), waiter: None }
    }

    /// Whether somebody waits for a permit.
    pub(crate) fn is_awaited(&self) -> bool {
        !self.0.waiters.borrow().is_empty()
    }
}

/// Waits for a [`Permit`]. Dropping it gives up the place in the queue.
pub(crate) struct Acquire {
    permits: Rc<Permits>,
    waiter: Option<Rc<Waiter>>,
}

impl Future for Acquire {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Permit> {
        let granted = match &self.waiter {
            Some(waiter) => waiter.granted.get(),
            None => match self.permits.free.get() {
                0 => false,
                free => {
                    self.permits.free.set(free - 1);
                    true
                }
            },
        };
        if granted {
            self.waiter = None;
            return Poll::Ready(Permit(Rc::clone(&self.permits)));
        }
        if self.waiter.is_none() {
            let waiter = Rc::<Waiter>::default();
            self.permits.waiters.borrow_mut().push_back(Rc::clone(&waiter));
            self.waiter = Some(waiter);
        }
        if let Some(waiter) = &self.waiter {
            waiter.waker.replace(Some(cx.waker().clone()));
        }
        Poll::Pending
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        let Some(waiter) = self.waiter.take() else { return };
        if waiter.granted.get() {
            self.permits.release();
        } else {
            self.permits.waiters.borrow_mut().retain(|other| !Rc::ptr_eq(other, &waiter));
        }
    }
}

/// The right to go on, until it is dropped.
pub(crate) struct Permit(Rc<Permits>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.release();
    }
}

#[derive(Default)]
struct Bell {
    rung: Cell<u64>,
    wakers: RefCell<Vec<Waker>>,
}

/// Tells everyone who waits that something has changed. It carries nothing: look again after it.
#[derive(Clone, Default)]
pub(crate) struct Notify(Rc<Bell>);

impl Notify {
    /// A notifier nobody waits for.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Ends every [`Notified`] there is.
    pub(crate) fn notify(&self) {
        self.0.rung.set(self.0.rung.get() + 1);
        let mut wakers = self.0.wakers.take();
        wakers.drain(..).for_each(Waker::wake);
        // The memory goes back: this happens with every finished write.
        let mut others = self.0.wakers.borrow_mut();
        if others.capacity() == 0 {
            *others = wakers;
        }
    }

    /// Waits for a notification after this call.
    pub(crate) fn notified(&self) -> Notified {
        Notified { bell: Rc::clone(&self.0), seen: self.0.rung.get() }
    }
}

/// Waits for a [`Notify::notify`].
pub(crate) struct Notified {
    bell: Rc<Bell>,
    seen: u64,
}

impl Future for Notified {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.bell.rung.get() != self.seen {
            return Poll::Ready(());
        }
        let mut wakers = self.bell.wakers.borrow_mut();
        if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// Runs futures, at most `limit` at once, in their order; returns their outputs in that order.
///
/// # Panics
/// If `limit` is 0.
pub(crate) async fn join_bounded<F: Future>(
    limit: usize,
    futures: impl IntoIterator<Item = F>,
) -> Vec<F::Output> {
    assert!(limit > 0, "something may run");
    let mut waiting = futures.into_iter();
    let mut running: Vec<(usize, Pin<Box<F>>)> = Vec::new();
    let mut done: Vec<Option<F::Output>> = Vec::new();
    poll_fn(|cx| {
        loop {
            while running.len() < limit
                && let Some(future) = waiting.next()
            {
                running.push((done.len(), Box::pin(future)));
                done.push(None);
            }
            let before = running.len();
            running.retain_mut(|(index, future)| match future.as_mut().poll(cx) {
                Poll::Ready(output) => {
                    done[*index] = Some(output);
                    false
                }
                Poll::Pending => true,
            });
            if before == 0 {
                return Poll::Ready(());
            }
            // A place that became free is filled, and its future polled, before this waits.
            if running.len() == before {
                return Poll::Pending;
            }
        }
    })
    .await;
    done.into_iter().flatten().collect()
}
