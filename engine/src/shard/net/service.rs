//! A server's tasks as one thing: started together, stopped together, and kept from taking the shard along when one
//! panics.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use super::super::Context;
use super::ReadPaths;
use crate::error::ServeError;
use crate::local::Notify;

/// Not asked to stop.
const RUNNING: u64 = u64::MAX;

/// How a service is asked to stop from other threads.
#[derive(Debug)]
pub(crate) struct Stop(AtomicU64);

impl Stop {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(RUNNING)))
    }

    /// Asks the service to end, and to be ended after `within`. Only a shorter time changes an earlier call's.
    pub(crate) fn ask(&self, within: Duration) {
        let ms = u64::try_from(within.as_millis()).unwrap_or(RUNNING - 1).min(RUNNING - 1);
        self.0.fetch_min(ms, Ordering::AcqRel);
    }

    fn asked(&self) -> Option<Duration> {
        let ms = self.0.load(Ordering::Acquire);
        (ms != RUNNING).then(|| Duration::from_millis(ms))
    }
}

/// The services of a shard.
#[derive(Clone, Default)]
pub(crate) struct Services {
    all: Rc<RefCell<Vec<Rc<Service>>>>,
    /// Rung when one is asked to stop, or has ended.
    bell: Notify,
}

impl Services {
    /// Has every service look at whether it is to stop.
    pub(crate) fn rouse(&self) {
        self.bell.notify();
    }

    /// Stops all services, and waits until they have ended.
    pub(crate) async fn stop_all(cx: Context, within: Duration) {
        let this = cx.services;
        this.all.borrow().iter().for_each(|service| service.stop.ask(within));
        this.rouse();
        loop {
            let changed = this.bell.notified();
            if this.all.borrow().is_empty() {
                return;
            }
            changed.await;
        }
    }

    fn remove(&self, service: &Rc<Service>) {
        self.all.borrow_mut().retain(|other| !Rc::ptr_eq(other, service));
        self.bell.notify();
    }
}

#[derive(Default)]
struct Tasks {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
    live: usize,
}

/// What the tasks of one service share.
pub(crate) struct Service {
    stop: Arc<Stop>,
    /// How sealed segments go to its connections.
    pub(super) paths: ReadPaths,
    tasks: RefCell<Tasks>,
    /// Rung when a task ends.
    ended: Notify,
    aborted: Cell<bool>,
    panics: Cell<u64>,
    /// Above 0 while the engine's own code runs on behalf of a task: its panics are not the task's.
    inside: Cell<u32>,
}

impl Service {
    pub(crate) fn new(stop: Arc<Stop>, paths: ReadPaths) -> Rc<Self> {
        Rc::new(Self {
            stop,
            paths,
            tasks: RefCell::default(),
            ended: Notify::new(),
            aborted: Cell::new(false),
            panics: Cell::new(0),
            inside: Cell::new(0),
        })
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.asked().is_some()
    }

    /// Tasks that have panicked.
    pub(crate) fn panics(&self) -> u64 {
        self.panics.get()
    }

    /// Tasks that have not ended.
    pub(crate) fn live(&self) -> usize {
        self.tasks.borrow().live
    }

    /// Runs a piece of the engine on behalf of a task.
    pub(crate) fn engine<T>(&self, piece: impl FnOnce() -> T) -> T {
        self.inside.set(self.inside.get() + 1);
        let output = piece();
        self.inside.set(self.inside.get() - 1);
        output
    }

    /// Starts a task of the service.
    pub(crate) fn spawn(self: &Rc<Self>, cx: &Context, future: impl Future<Output = ()> + 'static) {
        drop(cx.tasks.spawn(self.task(Box::pin(future))));
    }

    fn task<F: Future>(self: &Rc<Self>, future: Pin<Box<F>>) -> Task<F> {
        let mut tasks = self.tasks.borrow_mut();
        let place = tasks.free.pop().unwrap_or(tasks.wakers.len());
        if place == tasks.wakers.len() {
            tasks.wakers.push(None);
        }
        tasks.live += 1;
        Task { service: Rc::clone(self), future: Some(future), place }
    }

    /// Has every task look at whether the service is to stop.
    pub(crate) fn rouse(&self) {
        let wakers: Vec<Waker> = self.tasks.borrow().wakers.iter().flatten().cloned().collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Runs the service: its first task, then what that started, to the end of all; at most as long as it has once it
    /// is asked to stop.
    pub(crate) async fn run<F: Future>(
        self: Rc<Self>,
        cx: Context,
        first: F,
    ) -> Result<F::Output, ServeError> {
        cx.services.all.borrow_mut().push(Rc::clone(&self));
        let mut first = Box::pin(self.task(Box::pin(first)));
        let watch = Rc::clone(&self);
        let clock = cx.clone();
        drop(cx.tasks.spawn(async move { watch.watch(clock).await }));
        let output = std::future::poll_fn(|cx| first.as_mut().poll(cx)).await;
        drop(first);
        loop {
            let ended = self.ended.notified();
            if self.live() == 0 {
                break;
            }
            ended.await;
        }
        cx.services.remove(&self);
        output
    }

    /// Waits for the call to stop, and ends what has not ended when the time is over.
    async fn watch(self: Rc<Self>, cx: Context) {
        let within = loop {
            let (rung, ended) = (cx.services.bell.notified(), self.ended.notified());
            if let Some(within) = self.stop.asked() {
                break within;
            }
            if self.live() == 0 {
                return;
            }
            either(rung, ended).await;
        };
        self.rouse();
        let until = cx.state.borrow().time.ns + within.as_nanos() as u64;
        loop {
            let (rung, ended) = (cx.services.bell.notified(), self.ended.notified());
            let asked = self.stop.asked().unwrap_or(within);
            let until = until.min(cx.state.borrow().time.ns + asked.as_nanos() as u64);
            if self.live() == 0 {
                return;
            }
            if cx.state.borrow().time.ns >= until {
                break;
            }
            either(either(rung, ended), cx.tasks.sleep_until(until)).await;
        }
        self.aborted.set(true);
        self.rouse();
    }
}

/// Waits for the first of two.
pub(super) async fn either(one: impl Future, other: impl Future) {
    let (mut one, mut other) = (std::pin::pin!(one), std::pin::pin!(other));
    std::future::poll_fn(|cx| {
        let ended = one.as_mut().poll(cx).is_ready() || other.as_mut().poll(cx).is_ready();
        if ended { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// A task of a service.
struct Task<F: Future> {
    service: Rc<Service>,
    future: Option<Pin<Box<F>>>,
    place: usize,
}

impl<F: Future> Future for Task<F> {
    type Output = Result<F::Output, ServeError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.service.aborted.get() {
            this.future = None;
            return Poll::Ready(Err(ServeError::Aborted));
        }
        {
            let mut tasks = this.service.tasks.borrow_mut();
            let waker = &mut tasks.wakers[this.place];
            if waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
        }
        let future = this.future.as_mut().expect("a future is not polled after it was ready");
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => {
                this.future = None;
                Poll::Ready(Ok(output))
            }
            // What the engine asserts of itself does not hold: nothing may go on, as without a server.
            Err(panic) if this.service.inside.get() > 0 => resume_unwind(panic),
            Err(_told_by_the_hook) => {
                this.future = None;
                this.service.panics.set(this.service.panics.get() + 1);
                Poll::Ready(Err(ServeError::Panicked))
            }
        }
    }
}

impl<F: Future> Drop for Task<F> {
    fn drop(&mut self) {
        let gone = {
            let mut tasks = self.service.tasks.borrow_mut();
            tasks.live -= 1;
            let place = self.place;
            tasks.free.push(place);
            tasks.wakers[place].take()
        };
        drop(gone);
        self.service.ended.notify();
    }
}
