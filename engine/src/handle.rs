//! What an embedder holds: a log's handle, to be used from any thread and any runtime, and its blocking twin.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::thread::Thread;

use crate::batch::Batch;
use crate::error::{AppendError, ControlError, ReadError};
use crate::journal::LogId;
use crate::shard::inbox::{AppendFuture, Appended, Inbox};
use crate::shard::thread::is_shard;
use crate::shard::{Context, attach, flush, read, truncate};
use crate::types::{FlushPolicy, Isolation, Offset, PartitionName, Watermarks};

pub(crate) mod asked;
pub(crate) mod fetch;
pub(crate) mod find;
mod keep;

/// The way to a shard.
#[derive(Clone)]
pub(crate) struct Remote(Arc<Inbox<Context>>);

impl Remote {
    pub(crate) fn new(inbox: Arc<Inbox<Context>>) -> Self {
        Self(inbox)
    }

    /// Runs a procedure on the shard.
    pub(crate) fn call<T, F, P>(&self, procedure: P) -> Reply<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + 'static,
        P: FnOnce(Context) -> F + Send + 'static,
    {
        let reply = Reply(Arc::new(Mutex::new(Answer { state: AnswerState::Waiting(None) })));
        let answer = Answerer(reply.0.clone());
        let sent = self.0.call(Box::new(move |cx| {
            Box::pin(async move {
                let value = procedure(cx).await;
                answer.give(value);
            })
        }));
        // A call that was not taken was dropped, and its answerer with it: the reply says so.
        let _ = sent;
        reply
    }

    pub(crate) fn close(&self) {
        self.0.close();
    }
}

enum AnswerState<T> {
    Waiting(Option<Waker>),
    Given(T),
    Gone,
}

struct Answer<T> {
    state: AnswerState<T>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Answerer<T>(Arc<Mutex<Answer<T>>>);

impl<T> Answerer<T> {
    fn give(self, value: T) {
        self.put(AnswerState::Given(value));
    }

    fn put(&self, state: AnswerState<T>) {
        let was = std::mem::replace(&mut lock(&self.0).state, state);
        if let AnswerState::Waiting(Some(waker)) = was {
            waker.wake();
        }
    }
}

impl<T> Drop for Answerer<T> {
    fn drop(&mut self) {
        let waiting = matches!(lock(&self.0).state, AnswerState::Waiting(_));
        if waiting {
            self.put(AnswerState::Gone);
        }
    }
}

/// A procedure under way on a shard; `None` if the shard closed before it ended.
pub(crate) struct Reply<T>(Arc<Mutex<Answer<T>>>);

impl<T> Reply<T> {
    /// Blocks until the answer is there.
    pub(crate) fn wait(self) -> Option<T> {
        block_on(self)
    }
}

impl<T> Future for Reply<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<T>> {
        let mut answer = lock(&self.0);
        if let AnswerState::Waiting(waker) = &mut answer.state {
            *waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        match std::mem::replace(&mut answer.state, AnswerState::Gone) {
            AnswerState::Given(value) => Poll::Ready(Some(value)),
            _ => Poll::Ready(None),
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

thread_local! {
    static WAKER: Waker = Waker::from(Arc::new(Unpark(std::thread::current())));
}

/// Runs a future on this thread, asleep while it waits.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    assert!(!is_shard(), "a server inside a shard awaits: what blocks would stop the shard itself");
    let mut future = pin!(future);
    WAKER.with(|waker| {
        let mut cx = TaskContext::from_waker(waker);
        loop {
            match future.as_mut().poll(&mut cx) {
                Poll::Ready(output) => return output,
                Poll::Pending => std::thread::park(),
            }
        }
    })
}

/// A batch that was not taken, given back.
#[derive(Debug)]
pub struct Rejected {
    /// The batch.
    pub batch: Batch,
    /// Why: [`AppendError::Overloaded`] or [`AppendError::Closed`].
    pub error: AppendError,
}

/// A partition's log, from any thread. Cheap to clone.
///
/// Futures are `Send + 'static` and may be polled by any runtime. Each has a twin that blocks the calling thread
/// instead. Dropping a future never cancels what was already sent, and never harms a buffer or an ack.
#[derive(Clone)]
pub struct LogHandle {
    remote: Remote,
    log: LogId,
    name: PartitionName,
}

impl std::fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LogHandle({})", self.name)
    }
}

impl LogHandle {
    pub(crate) fn new(remote: Remote, log: LogId, name: PartitionName) -> Self {
        Self { remote, log, name }
    }

    /// The partition's name.
    #[must_use]
    pub fn name(&self) -> &PartitionName {
        &self.name
    }

    /// Appends a batch. Ready when the ack of the log's [`FlushPolicy`] is due; waits for memory first if the
    /// shard's budget is used up. Nothing is sent before the first poll.
    ///
    /// # Errors
    /// [`AppendError`]; its [`outcome`](AppendError::outcome) says whether the batch can be in the log.
    pub fn append(&self, batch: Batch) -> AppendFuture {
        AppendFuture::new(self.remote.0.clone(), self.log, batch, None)
    }

    /// [`LogHandle::append`], blocking.
    ///
    /// # Errors
    /// As there.
    pub fn append_blocking(&self, batch: Batch) -> Result<Appended, AppendError> {
        block_on(self.append(batch))
    }

    /// Appends a batch if there is memory for it now; it is sent before this returns.
    ///
    /// # Errors
    /// [`Rejected`] gives the batch back.
    pub fn try_append(&self, batch: Batch) -> Result<AppendFuture, Rejected> {
        let mut future = self.append(batch);
        match future.try_send(None) {
            Ok(()) => Ok(future),
            Err((error, batch)) => Err(Rejected { batch, error }),
        }
    }

    /// Appends a batch at an offset a leader chose, in the leader's epoch: for those who replicate.
    ///
    /// # Errors
    /// [`AppendError::WrongOffset`] unless `offset` is the next one, [`AppendError::StaleEpoch`] if a newer leader
    /// has appended; and as [`LogHandle::append`].
    pub fn append_at(&self, offset: Offset, epoch: i32, batch: Batch) -> AppendFuture {
        AppendFuture::new(self.remote.0.clone(), self.log, batch, Some((offset, epoch)))
    }

    /// [`LogHandle::append_at`], blocking.
    ///
    /// # Errors
    /// As there.
    pub fn append_at_blocking(
        &self,
        offset: Offset,
        epoch: i32,
        batch: Batch,
    ) -> Result<Appended, AppendError> {
        block_on(self.append_at(offset, epoch, batch))
    }

    /// Reads whole batches, from the one that holds `offset` on: up to `max_bytes`, but always at least one batch.
    /// Empty at the isolation bound.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(
        &self,
        offset: Offset,
        max_bytes: usize,
        isolation: Isolation,
    ) -> impl Future<Output = Result<Vec<u8>, ReadError>> + Send + use<> {
        let log = self.log;
        let reply = self.remote.call(move |cx| async move {
            read::read(&cx, log, offset, max_bytes, isolation).await
        });
        async move { reply.await.unwrap_or(Err(ReadError::Closed)) }
    }

    /// [`LogHandle::read`], blocking.
    ///
    /// # Errors
    /// As there.
    pub fn read_blocking(
        &self,
        offset: Offset,
        max_bytes: usize,
        isolation: Isolation,
    ) -> Result<Vec<u8>, ReadError> {
        block_on(self.read(offset, max_bytes, isolation))
    }

    /// Reads whole batches into `buffer`, as many as its capacity holds; what was in it is gone. The buffer comes
    /// back in any case.
    ///
    /// # Errors
    /// [`ReadError::BufferTooSmall`] if not even one batch fits; and as [`LogHandle::read`].
    pub fn read_into(
        &self,
        offset: Offset,
        mut buffer: Vec<u8>,
        isolation: Isolation,
    ) -> impl Future<Output = (Result<usize, ReadError>, Vec<u8>)> + Send + use<> {
        let log = self.log;
        buffer.clear();
        let reply = self.remote.call(move |cx| async move {
            let result = read::read_into(&cx, log, offset, &mut buffer, isolation).await;
            (result, buffer)
        });
        async move { reply.await.unwrap_or((Err(ReadError::Closed), Vec::new())) }
    }

    /// [`LogHandle::read_into`], blocking.
    ///
    /// # Errors
    /// As there.
    pub fn read_into_blocking(
        &self,
        offset: Offset,
        buffer: Vec<u8>,
        isolation: Isolation,
    ) -> (Result<usize, ReadError>, Vec<u8>) {
        block_on(self.read_into(offset, buffer, isolation))
    }

    fn control<T, F, P>(
        &self,
        procedure: P,
    ) -> impl Future<Output = Result<T, ControlError>> + Send + use<T, F, P>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ControlError>> + 'static,
        P: FnOnce(Context, LogId) -> F + Send + 'static,
    {
        let log = self.log;
        let reply = self.remote.call(move |cx| procedure(cx, log));
        async move { reply.await.unwrap_or(Err(ControlError::Closed)) }
    }

    /// The log's bounds now.
    ///
    /// # Errors
    /// [`ControlError::Closed`].
    pub fn watermarks(
        &self,
    ) -> impl Future<Output = Result<Watermarks, ControlError>> + Send + use<> {
        self.control(|cx, id| async move {
            let marks = cx.state.borrow_mut().log(id).map(|log| log.watermarks());
            marks.ok_or(ControlError::Closed)
        })
    }

    /// [`LogHandle::watermarks`], blocking.
    ///
    /// # Errors
    /// As there.
    pub fn watermarks_blocking(&self) -> Result<Watermarks, ControlError> {
        block_on(self.watermarks())
    }

    /// Brings every record appended before this call to stable storage, whatever the policy.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn flush(&self) -> impl Future<Output = Result<(), ControlError>> + Send + use<> {
        self.control(|cx, id| async move { flush::flush(&cx, id).await })
    }

    /// [`LogHandle::flush`], blocking.
    ///
    /// # Errors
    /// As there.
    pub fn flush_blocking(&self) -> Result<(), ControlError> {
        block_on(self.flush())
    }

    /// Begins a new segment with the next append, unless the active one is empty. Waits while as many segments as may
    /// ([`TAIL_SEGMENTS_MAX`](crate::limits::TAIL_SEGMENTS_MAX)) are not sealed yet.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn roll(&self) -> impl Future<Output = Result<(), ControlError>> + Send + use<> {
        self.control(|cx, id| async move { attach::roll_in_turn(&cx, id).await })
    }

    /// [`LogHandle::roll`], blocking.
    ///
    /// # Errors
    /// As there.
    pub fn roll_blocking(&self) -> Result<(), ControlError> {
        block_on(self.roll())
    }

    /// Brings all of the log into its segment files: after it, a copy of the partition's directory alone holds every
    /// ack given before the call. For backups.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn checkpoint(&self) -> impl Future<Output = Result<(), ControlError>> + Send + use<> {
        self.control(|cx, id| async move { attach::checkpoint_log(&cx, id).await })
    }

    /// [`LogHandle::checkpoint`], blocking.
    ///
    /// # Errors
    /// As there.
    pub fn checkpoint_blocking(&self) -> Result<(), ControlError> {
        block_on(self.checkpoint())
    }

    /// Cuts the log's end back to `offset`, which must be where a batch begins; acknowledged only when no crash can
    /// bring back what was cut. Appends that wait for an ack end with [`AppendError::Truncated`].
    ///
    /// # Errors
    /// [`ControlError::OutOfRange`], [`ControlError::Busy`], or a fault.
    pub fn truncate_to(
        &self,
        offset: Offset,
    ) -> impl Future<Output = Result<(), ControlError>> + Send + use<> {
        self.control(move |cx, id| async move { truncate::truncate(&cx, id, offset).await })
    }

    /// [`LogHandle::truncate_to`], blocking.
    ///
    /// # Errors
    /// As there.
    pub fn truncate_to_blocking(&self, offset: Offset) -> Result<(), ControlError> {
        block_on(self.truncate_to(offset))
    }

    /// Changes the flush policy. To [`FlushPolicy::Group`] it first flushes what came before.
    ///
    /// # Errors
    /// [`ControlError`]; the new policy is then in force for appends all the same, and says so by their acks.
    pub fn set_flush_policy(
        &self,
        policy: FlushPolicy,
    ) -> impl Future<Output = Result<(), ControlError>> + Send + use<> {
        self.control(move |cx, id| async move { attach::set_policy(&cx, id, policy).await })
    }

    /// [`LogHandle::set_flush_policy`], blocking.
    ///
    /// # Errors
    /// As there.
    pub fn set_flush_policy_blocking(&self, policy: FlushPolicy) -> Result<(), ControlError> {
        block_on(self.set_flush_policy(policy))
    }

    /// Makes space for `bytes` more in the active segment ready now, before a burst.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn prepare(
        &self,
        bytes: u64,
    ) -> impl Future<Output = Result<(), ControlError>> + Send + use<> {
        self.control(move |cx, id| async move { attach::prepare_ahead(&cx, id, bytes).await })
    }

    /// [`LogHandle::prepare`], blocking.
    ///
    /// # Errors
    /// As there.
    pub fn prepare_blocking(&self, bytes: u64) -> Result<(), ControlError> {
        block_on(self.prepare(bytes))
    }
}
