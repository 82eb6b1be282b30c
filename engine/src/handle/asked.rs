//! A procedure on a shard that lasts as long as somebody waits for its answer: a fetch may wait for minutes, and a
//! client that has gone must not keep its place.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll, Waker};

use crate::shard::Context;

use super::{Remote, lock};

/// Where shard and client meet.
enum Desk<T> {
    /// Who is woken by the answer, and who by the client's going.
    Open {
        client: Option<Waker>,
        shard: Option<Waker>,
    },
    Answered(T),
    /// The shard has ended, or the client has taken the answer.
    Shut,
    /// The client has gone.
    GivenUp,
}

type Shared<T> = Arc<Mutex<Desk<T>>>;

/// The client's side. Ready with the answer, or with `None` if the shard closed before. Dropping it ends the procedure,
/// wherever that is.
pub(crate) struct Asked<T>(Shared<T>);

impl<T> Future for Asked<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<T>> {
        let mut desk = lock(&self.0);
        if let Desk::Open { client, .. } = &mut *desk {
            match client {
                Some(waker) => waker.clone_from(cx.waker()),
                None => *client = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        match std::mem::replace(&mut *desk, Desk::Shut) {
            Desk::Answered(answer) => Poll::Ready(Some(answer)),
            _ => Poll::Ready(None),
        }
    }
}

impl<T> Drop for Asked<T> {
    fn drop(&mut self) {
        let was = std::mem::replace(&mut *lock(&self.0), Desk::GivenUp);
        if let Desk::Open { shard: Some(shard), .. } = was {
            shard.wake();
        }
    }
}

/// The shard's side: it tells the client when it goes, whatever it came to.
struct Answerer<T>(Shared<T>);

impl<T> Answerer<T> {
    /// Whether the client has gone. If not, its going wakes the task.
    fn is_given_up(&self, cx: &TaskContext<'_>) -> bool {
        match &mut *lock(&self.0) {
            Desk::Open { shard, .. } => {
                if !shard.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                    *shard = Some(cx.waker().clone());
                }
                false
            }
            _ => true,
        }
    }

    fn put(&self, end: Desk<T>) {
        let client = {
            let mut desk = lock(&self.0);
            let Desk::Open { client, .. } = &mut *desk else { return };
            let client = client.take();
            *desk = end;
            client
        };
        if let Some(client) = client {
            client.wake();
        }
    }
}

impl<T> Drop for Answerer<T> {
    fn drop(&mut self) {
        self.put(Desk::Shut);
    }
}

struct Procedure<T, F> {
    answerer: Answerer<T>,
    future: Pin<Box<F>>,
}

impl<T, F: Future<Output = T>> Future for Procedure<T, F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        if self.answerer.is_given_up(cx) {
            return Poll::Ready(());
        }
        self.future.as_mut().poll(cx).map(|answer| self.answerer.put(Desk::Answered(answer)))
    }
}

impl Remote {
    /// Runs a procedure on the shard for as long as its answer is waited for.
    pub(crate) fn ask<T, F, P>(&self, procedure: P) -> Asked<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
        P: FnOnce(Context) -> F + Send + 'static,
    {
        let desk = Arc::new(Mutex::new(Desk::Open { client: None, shard: None }));
        let answerer = Answerer(desk.clone());
        // One that is not taken is dropped, and its answerer with it, which the client is told.
        let _ = self.0.call(Box::new(move |cx| {
            let future = Box::pin(procedure(cx));
            Box::pin(Procedure { answerer, future })
        }));
        Asked(desk)
    }
}
