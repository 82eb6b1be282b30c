//! A procedure that runs to its end even if nobody waits for that any more.
//!
//! A future that is dropped while an operation on a file is in flight would let go of the file under it. So what a
//! client or a server's task may give up at any time does its reads behind a [`Shield`].

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use super::Context;
use super::executor::Spawner;

/// Polls a future as its own. Dropped before that has ended, it leaves the rest to the shard.
pub(crate) struct Shield<F: Future + 'static> {
    future: Option<Pin<Box<F>>>,
    begun: bool,
    tasks: Spawner,
}

impl<F: Future + 'static> Shield<F> {
    pub(crate) fn new(cx: &Context, future: F) -> Self {
        Self { future: Some(Box::pin(future)), begun: false, tasks: cx.tasks.clone() }
    }
}

impl<F: Future + 'static> Future for Shield<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<F::Output> {
        self.begun = true;
        let future = self.future.as_mut().expect("polled until it has ended");
        let output = future.as_mut().poll(cx);
        if output.is_ready() {
            self.future = None;
        }
        output
    }
}

impl<F: Future + 'static> Drop for Shield<F> {
    fn drop(&mut self) {
        if let Some(future) = self.future.take().filter(|_| self.begun) {
            let _runs_on = self.tasks.spawn(async move { drop(future.await) });
        }
    }
}
