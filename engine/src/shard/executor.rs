//! Runs a shard's cold procedures: futures that never leave its thread.
//!
//! A task is polled only after it was woken. A waker may be called from any thread: from the executor's own
//! it costs an uncontended lock and no system call, from others it also ends the ring's sleep.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::{self, ThreadId};

use crate::ring;

#[cfg(test)]
mod tests;

use crate::local::{Receiver, oneshot};

/// Tasks that were woken. What is queued twice is polled once.
struct Ready {
    owner: ThreadId,
    /// Locked by the owner alone, so never contended.
    local: Mutex<VecDeque<Arc<Task>>>,
    remote: Mutex<Vec<Arc<Task>>>,
    /// Whether to look at `remote` at all.
    has_remote: AtomicBool,
    ring: Option<Arc<dyn ring::Wake>>,
    /// The executor is gone.
    closed: AtomicBool,
}

/// A poisoned lock only tells of a panic that is on its way already.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ready {
    fn push(&self, task: Arc<Task>) {
        if self.closed.load(Ordering::Acquire) {
            return;
        }
        if thread::current().id() == self.owner {
            lock(&self.local).push_back(task);
            return;
        }
        lock(&self.remote).push(task);
        self.has_remote.store(true, Ordering::Release);
        if let Some(ring) = &self.ring {
            ring.wake();
        }
    }

    fn take_remote(&self) {
        if self.has_remote.swap(false, Ordering::Acquire) {
            let woken = mem::take(&mut *lock(&self.remote));
            lock(&self.local).extend(woken);
        }
    }

    fn pop(&self) -> Option<Arc<Task>> {
        lock(&self.local).pop_front()
    }

    fn is_empty(&self) -> bool {
        !self.has_remote.load(Ordering::Acquire) && lock(&self.local).is_empty()
    }
}

/// The part of a task that wakers share.
struct Task {
    slot: usize,
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl std::task::Wake for Task {
    fn wake(self: Arc<Self>) {
        Self::wake_by_ref(&self);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.ready.push(Arc::clone(self));
        }
    }
}

type LocalFuture = Pin<Box<dyn Future<Output = ()>>>;

struct Slot {
    task: Arc<Task>,
    /// Absent while it is polled.
    future: Option<LocalFuture>,
}

#[derive(Default)]
struct Slots {
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
}

struct Inner {
    tasks: RefCell<Slots>,
    ready: Arc<Ready>,
}

/// Owns tasks and timers, and polls what is ready.
pub(crate) struct Executor {
    inner: Rc<Inner>,
    timers: Rc<Timers>,
}

impl Executor {
    /// An executor of the current thread, for one that nobody wakes from outside.
    #[cfg(test)]
    pub(crate) fn new() -> Self {
        Self::make(None)
    }

    /// An executor of the current thread; a task woken from another thread ends the sleep of `ring`.
    pub(crate) fn with_waker(ring: Arc<dyn ring::Wake>) -> Self {
        Self::make(Some(ring))
    }

    fn make(ring: Option<Arc<dyn ring::Wake>>) -> Self {
        let ready = Ready {
            owner: thread::current().id(),
            local: Mutex::default(),
            remote: Mutex::default(),
            has_remote: AtomicBool::new(false),
            ring,
            closed: AtomicBool::new(false),
        };
        let inner = Inner { tasks: RefCell::default(), ready: Arc::new(ready) };
        Self { inner: Rc::new(inner), timers: Rc::default() }
    }

    /// A handle by which tasks start others and sleep.
    pub(crate) fn spawner(&self) -> Spawner {
        Spawner { inner: Rc::downgrade(&self.inner), timers: Rc::clone(&self.timers) }
    }

    /// Starts a task. Dropping the handle lets it run on.
    pub(crate) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
    {
        let (sender, receiver) = oneshot();
        self.inner.add(Box::pin(async move { sender.send(future.await) }));
        JoinHandle(receiver)
    }

    /// Polls at most `budget` woken tasks; returns whether there was one.
    pub(crate) fn run_ready(&self, budget: usize) -> bool {
        let mut ran = false;
        for _ in 0..budget {
            self.inner.ready.take_remote();
            let Some(task) = self.inner.ready.pop() else { break };
            self.inner.run(&task);
            ran = true;
        }
        ran
    }

    /// Whether a task is woken and not yet polled.
    pub(crate) fn has_ready(&self) -> bool {
        !self.inner.ready.is_empty()
    }

    /// Tasks that have not ended.
    #[cfg(test)]
    pub(crate) fn tasks(&self) -> usize {
        let tasks = self.inner.tasks.borrow();
        tasks.slots.len() - tasks.free.len()
    }

    /// When the first sleeping task wants to be woken.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.timers.wakers.borrow().first_key_value().map(|((ns, _), _)| *ns)
    }

    /// Says what time it is, which wakes the tasks whose sleep is over.
    pub(crate) fn fire_timers(&self, now_ns: u64) {
        self.timers.fire(now_ns);
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.inner.ready.closed.store(true, Ordering::Release);
        // Outside of the borrow: a task's end may use the executor's handles.
        let slots = mem::take(&mut *self.inner.tasks.borrow_mut());
        drop(slots);
        // A queued task refers to the queue.
        lock(&self.inner.ready.local).clear();
        lock(&self.inner.ready.remote).clear();
    }
}

impl Inner {
    fn add(&self, future: LocalFuture) {
        if self.ready.closed.load(Ordering::Acquire) {
            return;
        }
        let mut tasks = self.tasks.borrow_mut();
        let slot = tasks.free.pop().unwrap_or(tasks.slots.len());
        let ready = Arc::clone(&self.ready);
        let task = Arc::new(Task { slot, queued: AtomicBool::new(true), ready });
        let entry = Some(Slot { task: Arc::clone(&task), future: Some(future) });
        if slot == tasks.slots.len() {
            tasks.slots.push(entry);
        } else {
            tasks.slots[slot] = entry;
        }
        self.ready.push(task);
    }

    fn run(&self, task: &Arc<Task>) {
        // Before the poll: a wake during it counts.
        task.queued.store(false, Ordering::Release);
        let Some(mut future) = self.future_of(task) else { return };
        let waker = Waker::from(Arc::clone(task));
        let left = match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => Some(future),
            Poll::Ready(()) => {
                // Outside of the borrow: what the task held may use the executor as it goes.
                drop(future);
                None
            }
        };
        let mut tasks = self.tasks.borrow_mut();
        let Some(slot) = tasks.slots.get_mut(task.slot) else { return };
        if let (Some(slot), Some(future)) = (slot.as_mut(), left) {
            slot.future = Some(future);
        } else {
            *slot = None;
            tasks.free.push(task.slot);
        }
    }

    /// The task's future, if it has not ended; its slot may be another task's by now.
    fn future_of(&self, task: &Arc<Task>) -> Option<LocalFuture> {
        let mut tasks = self.tasks.borrow_mut();
        let slot = tasks.slots.get_mut(task.slot)?.as_mut()?;
        if Arc::ptr_eq(&slot.task, task) { slot.future.take() } else { None }
    }
}

/// Starts tasks and timers from within tasks. It does not keep the executor alive.
#[derive(Clone)]
pub(crate) struct Spawner {
    inner: Weak<Inner>,
    timers: Rc<Timers>,
}

impl Spawner {
    /// Starts a task; one of an executor that is gone is dropped at once.
    pub(crate) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
    {
        let (sender, receiver) = oneshot();
        if let Some(inner) = self.inner.upgrade() {
            inner.add(Box::pin(async move { sender.send(future.await) }));
        }
        JoinHandle(receiver)
    }

    /// Ends once [`Executor::fire_timers`] was told a time not before `deadline_ns`.
    pub(crate) fn sleep_until(&self, deadline_ns: u64) -> Sleep {
        Sleep { timers: Rc::clone(&self.timers), deadline_ns, key: None }
    }
}

/// A task's output. It never comes if the executor is dropped before the task ends.
pub(crate) struct JoinHandle<T>(Receiver<T>);

impl<T> Future for JoinHandle<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match Pin::new(&mut self.0).poll(cx) {
            Poll::Ready(Some(output)) => Poll::Ready(output),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

#[derive(Default)]
struct Timers {
    now_ns: Cell<u64>,
    next_id: Cell<u64>,
    wakers: RefCell<BTreeMap<(u64, u64), Waker>>,
}

impl Timers {
    fn fire(&self, now_ns: u64) {
        self.now_ns.set(self.now_ns.get().max(now_ns));
        loop {
            let mut wakers = self.wakers.borrow_mut();
            match wakers.first_entry() {
                Some(first) if first.key().0 <= now_ns => {
                    let waker = first.remove();
                    drop(wakers);
                    waker.wake();
                }
                _ => return,
            }
        }
    }
}

/// Ends at a time. Dropping it takes the timer back.
pub(crate) struct Sleep {
    timers: Rc<Timers>,
    deadline_ns: u64,
    key: Option<(u64, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.deadline_ns <= self.timers.now_ns.get() {
            return Poll::Ready(());
        }
        let key = self.key.unwrap_or_else(|| {
            let id = self.timers.next_id.get();
            self.timers.next_id.set(id + 1);
            (self.deadline_ns, id)
        });
        self.key = Some(key);
        self.timers.wakers.borrow_mut().insert(key, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.timers.wakers.borrow_mut().remove(&key);
        }
    }
}
