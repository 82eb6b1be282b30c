//! Answers "the next bytes from here, wait if there are none": what a server of readers stands on.
//!
//! A fetch is [`locate`], which finds out where the bytes are, and a copy of them. In between it waits, if it has to,
//! as an entry in [`Waiters`](waiters::Waiters): no task is polled, no timer ticks and no file stays open for it.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use crate::batch::validate_stored;
use crate::defects::{self, Defect};
use crate::error::ReadError;
use crate::format::batch_header::BatchHeader;
use crate::journal::LogId;
use crate::log::Log;
use crate::types::{Incarnation, Isolation, Offset, Watermarks};

use super::Context;
use super::shield::Shield;
use source::Segments;
use waiters::{UnderWay, Wait};

mod damage;
mod locate;
mod source;
pub(crate) mod waiters;

pub(crate) use damage::{Damage, pass_over};
pub(crate) use locate::Range;
#[cfg(test)]
pub(crate) use locate::Run;
pub(crate) use locate::{Located, admitted, locate};

/// What a reader asks for: whole batches from an offset on.
///
/// ```
/// # use std::time::Duration;
/// # use ringmain::Fetch;
/// # use ringmain::types::Offset;
/// let fetch = Fetch { min_bytes: 64 * 1024, ..Fetch::from(Offset::ZERO) };
/// assert_eq!(fetch.max_wait, Duration::from_millis(500));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// The first offset wanted. One inside a batch gives the whole batch.
    pub offset: Offset,
    /// Most bytes of the answer, but for its first batch, which is given whole. More than
    /// [`crate::limits::FETCH_BYTES_MAX`] are never given.
    pub max_bytes: usize,
    /// Bytes below the isolation bound that are waited for, at most `max_bytes` of them. With 0 nothing is waited for.
    pub min_bytes: usize,
    /// The longest wait for them; then there is what there is, which may be nothing. [`Duration::MAX`] has no end.
    pub max_wait: Duration,
    /// Up to where the reader sees bytes.
    pub isolation: Isolation,
    /// The leader epoch of the last record the reader has, if it has one and keeps epochs: the fetch is refused if that
    /// record is no longer the log's. Kafka's `LastFetchedEpoch`. A negative one says nothing.
    pub epoch: Option<i32>,
    /// What the answer before this fetch came with: the fetch is refused if the log was cut below `offset` since.
    pub mark: Option<ReadMark>,
}

impl Fetch {
    /// A fetch of up to 1 MiB of durable records from `offset` on, which waits half a second for the first byte:
    /// what Kafka's consumers ask for.
    #[must_use]
    pub const fn from(offset: Offset) -> Self {
        Self {
            offset,
            max_bytes: 1 << 20,
            min_bytes: 1,
            max_wait: Duration::from_millis(500),
            isolation: Isolation::Durable,
            epoch: None,
            mark: None,
        }
    }

    /// The same fetch, of what comes after `fetched`.
    #[must_use]
    pub const fn after(self, fetched: &Fetched) -> Self {
        Self { offset: fetched.next, epoch: fetched.last_epoch, mark: Some(fetched.mark), ..self }
    }
}

/// What a reader holds of a log's past: from it the log knows whether what the reader has seen was cut off since.
///
/// It counts truncations, so that it tells also those in one leader epoch, and holds for one opening of the engine:
/// one from before says nothing, since a reader that comes back after a restart is told by epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadMark {
    incarnation: Incarnation,
    opening: u64,
    cuts: u64,
}

impl ReadMark {
    /// How often the log was cut.
    pub(crate) fn cuts(self) -> u64 {
        self.cuts
    }

    /// Where the log, which now is at `now`, was cut back to since, if it was.
    pub(crate) fn cut_since(self, now: Self, log: &Log) -> Option<Offset> {
        if (self.incarnation, self.opening) != (now.incarnation, now.opening) {
            return Some(Offset::ZERO);
        }
        log.taken_back.since(self.cuts)
    }
}

/// What a fetch came to: all that an answer to Kafka's Fetch says of a partition, but who leads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Whole, intact batches: go over them with [`crate::batch::batches`]. Empty if the wait was in vain.
    pub bytes: Vec<u8>,
    /// The offset to go on from.
    pub next: Offset,
    /// The log's bounds when the bytes were found. There is more to be had if `next` is below the isolation bound.
    pub marks: Watermarks,
    /// The newest leader's epoch; 0 if no leader ever gave one.
    pub leader_epoch: i32,
    /// The leader epoch of the record before `next`, for the next fetch; `None` at the log's start.
    pub last_epoch: Option<i32>,
    /// For the next fetch.
    pub mark: ReadMark,
}

/// Fetches from a log; waits as long as `ask` allows. Dropping the future gives up the wait.
pub(crate) async fn fetch(cx: &Context, id: LogId, mut ask: Fetch) -> Result<Fetched, ReadError> {
    let place = UnderWay::begin(cx)?;
    let until = deadline(cx, ask.max_wait);
    loop {
        let located = enough((cx, id), &mut ask, until, &place).await?;
        let glance = located.glance;
        let (cx2, place) = (cx.clone(), place.clone());
        let copied = async move {
            let _place = place;
            copy(&cx2, id, &ask, located).await
        };
        let fetched = Shield::new(cx, copied).await;
        // Compacted meanwhile: what was copied may be of two files.
        if !glance.holds(cx, id) {
            continue;
        }
        let fetched = fetched.map_err(|error| locate::deleted(cx, id, ask.offset, error))?;
        // A full disk takes back what is only in memory, and waits for no reader.
        if fetched.mark == current_mark(cx, id)? || defects::is(Defect::CutUnderReaders) {
            return Ok(fetched);
        }
    }
}

/// Finds where the bytes of a fetch are, and waits for them as long as it allows.
pub(crate) async fn wait_and_locate(
    cx: &Context,
    id: LogId,
    mut ask: Fetch,
) -> Result<Located, ReadError> {
    let place = UnderWay::begin(cx)?;
    let until = deadline(cx, ask.max_wait);
    enough((cx, id), &mut ask, until, &place).await
}

/// Waits until there are as many bytes as are asked for, or it is time.
async fn enough(
    (cx, id): (&Context, LogId),
    ask: &mut Fetch,
    until: u64,
    place: &Rc<UnderWay>,
) -> Result<Located, ReadError> {
    let min = ask.min_bytes.min(ask.max_bytes) as u64;
    loop {
        let (cx2, found, place) = (cx.clone(), *ask, place.clone());
        let located = async move {
            let _place = place;
            locate(&cx2, id, &found).await
        };
        // In a box: while the fetch waits its memory is not there.
        let located = Shield::new(cx, located).await?;
        // From now on the log is held to what it was at the beginning.
        ask.mark.get_or_insert(located.mark);
        let enough = located.bytes >= min || located.next < located.bound;
        if enough || cx.state.borrow().time.ns >= until {
            return Ok(located);
        }
        let goal = located.bound_bytes + (min - located.bytes);
        // What it holds keeps truncations waiting.
        drop(located);
        wait(cx, id, (ask.isolation, goal), until).await;
    }
}

fn deadline(cx: &Context, max_wait: Duration) -> u64 {
    let wait = u64::try_from(max_wait.as_nanos()).unwrap_or(u64::MAX);
    cx.state.borrow().time.ns.saturating_add(wait)
}

/// Waits until so many bytes were appended in all, or something else has happened to the log, or it is time.
async fn wait(cx: &Context, id: LogId, goal: (Isolation, u64), until: u64) {
    let mut wait = Wait::begin(cx, id, goal);
    let mut sleep = (until < u64::MAX).then(|| cx.tasks.sleep_until(until));
    poll_fn(|task| {
        if Pin::new(&mut wait).poll(task).is_ready() {
            return Poll::Ready(());
        }
        match &mut sleep {
            Some(sleep) => Pin::new(sleep).poll(task),
            None => Poll::Pending,
        }
    })
    .await;
}

pub(crate) fn current_mark(cx: &Context, id: LogId) -> Result<ReadMark, ReadError> {
    let mut state = cx.state.borrow_mut();
    let opening = state.journal.epoch();
    let Some(log) = state.log(id) else { return Err(ReadError::Deleted) };
    Ok(ReadMark { incarnation: log.identity.incarnation, opening, cuts: log.taken_back.count() })
}

/// Copies what was located, and checks it: what a reader is given is intact, or it is told of the damage.
async fn copy(
    cx: &Context,
    id: LogId,
    ask: &Fetch,
    located: Located,
) -> Result<Fetched, ReadError> {
    let mut bytes = Vec::with_capacity(located.bytes as usize);
    let mut next = ask.offset;
    let mut whole = true;
    for range in &located.ranges {
        let begin = bytes.len();
        let segments = Segments::new(cx, id);
        let read = segments.read(range.base, (range.from, range.to), &mut bytes).await;
        let (good, reached) = intact(&bytes[begin..], (next, segments.following(range.base)));
        next = reached;
        if begin + good == bytes.len() && read.is_ok() {
            continue;
        }
        bytes.truncate(begin + good);
        whole = false;
        // What led here may be what is remembered of it.
        cx.files.lookups().forget((id, range.base));
        // What is good of it is given first; the next fetch begins at the damage.
        if bytes.is_empty() {
            let (segment, pos) = (range.base, range.from.get());
            return Err(read.err().unwrap_or(ReadError::Damaged {
                asked: ask.offset,
                segment,
                pos,
            }));
        }
        break;
    }
    let next = if whole { located.next } else { next };
    Ok(Fetched {
        bytes,
        next,
        marks: located.marks,
        leader_epoch: located.leader_epoch,
        last_epoch: if whole { located.last_epoch } else { last_epoch(cx, id, ask, next) },
        mark: located.mark,
    })
}

/// How many bytes of intact batches there are, in sequence from the one that holds `next` on and before `limit`, and
/// what comes next.
fn intact(bytes: &[u8], (mut next, limit): (Offset, Option<Offset>)) -> (usize, Offset) {
    let mut at = 0;
    while at < bytes.len() {
        let Ok(header) = BatchHeader::decode(&bytes[at..]) else { break };
        let Some(batch) = bytes.get(at..at + header.batch_bytes()) else { break };
        let Ok(header) = validate_stored(batch) else { break };
        let Some((base, last)) = header.offsets() else { break };
        if last < next || (at > 0 && base < next) || limit.is_some_and(|limit| last >= limit) {
            break;
        }
        at += batch.len();
        next = last.plus(1);
    }
    (at, next)
}

fn last_epoch(cx: &Context, id: LogId, ask: &Fetch, next: Offset) -> Option<i32> {
    let mut state = cx.state.borrow_mut();
    let log = state.log(id)?;
    locate::epoch_before(log, ask, next)
}
