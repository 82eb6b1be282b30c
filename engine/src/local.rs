//! What tasks of one thread wait for each other with. Nothing here knows an executor.

use std::cell::{Cell, RefCell};
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
        for waker in self.0.wakers.take() {
            waker.wake();
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
