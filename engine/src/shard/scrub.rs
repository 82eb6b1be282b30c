//! The scrub: sealed segments are read again from time to time, at a bounded rate, and held against their seals.
//!
//! It reads a piece, then sleeps as long as the rate wants it to. While it sleeps it holds nothing: no truncation,
//! compaction or deletion waits for it, and a segment that was cut or replaced meanwhile is left alone until the next
//! pass. Its reads are past the page cache where the engine's are, so that they push nobody's pages out.

use crate::error::{Alteration, Fault, ReadError};
use crate::files::read_small;
use crate::format::fixed::FixedError;
use crate::format::names;
use crate::format::seal::Seal;
use crate::inspect::rot::{Rot, Rotten, Scrutiny};
use crate::journal::LogId;
use crate::limits::{SCRUB_INTERVAL_NS, SCRUB_PIECE_BYTES, SCRUB_RETRY_NS, SCRUB_ROTTEN_MAX};
use crate::log::Derived;
use crate::types::{Incarnation, Offset, Pos};

use super::Context;
use super::fetch::{ReadMark, current_mark};
use super::open_files::open;
use super::read::Reader;
use super::read::source::from_file;
use super::state::State;

/// Begins to scrub the shard's logs, if that is wanted.
pub(crate) fn begin(cx: &Context) {
    if cx.state.borrow().settings.scrub_bytes_per_s > 0 {
        drop(cx.tasks.spawn(watch(cx.clone())));
    }
}

/// What was found of segments that are still there, as a call.
pub(crate) async fn rotten(cx: Context) -> Vec<Rotten> {
    let mut state = cx.state.borrow_mut();
    let mut found = std::mem::take(&mut state.rotten);
    found.retain(|(id, it)| state.log(*id).is_some_and(|log| log.sealed_at(it.segment).is_some()));
    state.rotten = found;
    state.rotten.iter().map(|(_, it)| it.clone()).collect()
}

/// Pass after pass, until the engine closes.
async fn watch(cx: Context) {
    loop {
        let begun_ns = cx.state.borrow().time.ns;
        let mut pace = Pace { due_ns: begun_ns };
        let mut last = None;
        loop {
            let next = following(&mut cx.state.borrow_mut(), last);
            let Some(next) = next else { break };
            scrub(&cx, (next.id, next.base), &mut pace).await;
            if cx.state.borrow().closing {
                return;
            }
            last = Some(next);
        }
        cx.state.borrow_mut().stats.scrub_passes += 1;
        cx.tasks.sleep_until(begun_ns + SCRUB_INTERVAL_NS).await;
        if cx.state.borrow().closing {
            return;
        }
    }
}

/// A segment of a pass.
#[derive(Clone, Copy, Debug)]
struct Turn {
    id: LogId,
    base: Offset,
    /// The log's last segment of this pass: what is sealed later is the next one's, or there would be no end to it.
    until: Offset,
}

/// The segment that comes after another in the order of a pass.
fn following(state: &mut State, last: Option<Turn>) -> Option<Turn> {
    let sealed = |state: &mut State, id: LogId, after: Option<Offset>| {
        let log = state.log(id)?;
        let at = log.sealed.partition_point(|sealed| after.is_some_and(|it| sealed.base <= it));
        Some((log.sealed.get(at)?.base, log.sealed.last()?.base))
    };
    if let Some(Turn { id, base, until }) = last
        && let Some((base, _)) = sealed(state, id, Some(base))
        && base <= until
    {
        return Some(Turn { id, base, until });
    }
    let first = last.map_or(0, |last| last.id.0 + 1);
    (first..state.logs.len() as u32).find_map(|id| {
        let (base, until) = sealed(state, LogId(id), None)?;
        Some(Turn { id: LogId(id), base, until })
    })
}

/// How fast it reads.
struct Pace {
    /// When the next piece is due, in monotonic nanoseconds.
    due_ns: u64,
}

impl Pace {
    async fn wait(&self, cx: &Context) {
        cx.tasks.sleep_until(self.due_ns).await;
    }

    /// So many bytes were read: others may be once their time is over.
    fn took(&mut self, cx: &Context, bytes: u64) {
        let mut state = cx.state.borrow_mut();
        state.stats.scrub_bytes += bytes;
        let rate = u128::from(state.settings.scrub_bytes_per_s);
        let takes_ns = u128::from(bytes) * 1_000_000_000 / rate;
        let takes_ns = u64::try_from(takes_ns).unwrap_or(u64::MAX);
        self.due_ns = self.due_ns.max(state.time.ns).saturating_add(takes_ns);
    }
}

/// A segment, as long as it is this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Subject {
    life: Incarnation,
    base: Offset,
    next: Offset,
    swapped: u32,
    mark: ReadMark,
}

/// `None` if there is no such sealed segment, or what is derived from it is being written.
fn subject(cx: &Context, (id, base): (LogId, Offset)) -> Option<Subject> {
    let mark = current_mark(cx, id).ok()?;
    let mut state = cx.state.borrow_mut();
    let log = state.log(id).filter(|log| !log.deleting)?;
    let swapping = !log.keep.swaps.is_multiple_of(2);
    let life = log.identity.incarnation;
    let (sealed, next) = log.sealed_at(base)?;
    let settled = sealed.derived != Derived::Rebuilding && !swapping;
    settled.then_some(Subject { life, base, next, swapped: sealed.swapped, mark })
}

/// Why nothing is said of a segment.
enum Unsaid {
    /// It changed under the look, is gone, or can not be looked at now.
    Gone,
    /// This is wrong, at a place of a file.
    Rot(Rot, Place),
}

/// The file, its byte, and the first offset that may be lost.
struct Place {
    name: String,
    pos: u64,
    offset: Offset,
}

async fn scrub(cx: &Context, segment: (LogId, Offset), pace: &mut Pace) {
    let Some(subject) = subject(cx, segment) else { return };
    let (id, base) = segment;
    let said = look(cx, id, &subject, pace).await;
    if self::subject(cx, segment) != Some(subject) {
        return;
    }
    let mut state = cx.state.borrow_mut();
    let rotten = match said {
        Err(Unsaid::Gone) => return,
        Ok(()) => None,
        Err(Unsaid::Rot(what, Place { name, pos, offset })) => {
            let Some(log) = state.log(id) else { return };
            let identity = &log.identity;
            let (partition, path) = (identity.name.clone(), identity.dir.join(name));
            Some(Rotten { partition, segment: base, path, pos, offset, what })
        }
    };
    state.stats.scrub_segments += 1;
    state.stats.scrub_rotten += u64::from(rotten.is_some());
    state.rotten.retain(|(of, was)| (*of, was.segment) != (id, base));
    if let Some(rotten) = rotten.filter(|_| state.rotten.len() < SCRUB_ROTTEN_MAX) {
        state.rotten.push((id, rotten));
    }
}

/// Reads a segment from its beginning to its end.
async fn look(cx: &Context, id: LogId, subject: &Subject, pace: &mut Pace) -> Result<(), Unsaid> {
    let Subject { life, base, next, .. } = *subject;
    let seal = seal(cx, id, subject).await?;
    let whole = |rot, name: String| Unsaid::Rot(rot, Place { name, pos: 0, offset: base });
    if let Some(seal) = &seal {
        let checked = seal.check(life, (base, next));
        checked.map_err(|what| whole(Rot::Altered(what), names::seal(base)))?;
    }
    let mut scrutiny = Scrutiny::new(base, seal.is_none());
    let mut bytes = Vec::new();
    let mut at = Pos::ZERO;
    loop {
        pace.wait(cx).await;
        let end = piece(cx, id, subject, (at, &mut bytes)).await?;
        pace.took(cx, bytes.len() as u64);
        at = at.plus(bytes.len() as u64);
        let fed = scrutiny.feed(&bytes);
        let read = if at < end { fed.map(|()| None) } else { fed.and(scrutiny.end()).map(Some) };
        let read = read.map_err(|rot| {
            let (pos, offset) = scrutiny.place();
            Unsaid::Rot(rot, Place { name: names::segment(base), pos, offset })
        })?;
        if let Some(read) = read {
            let Some(seal) = seal else { return Ok(()) };
            return read.check(&seal, Some(life)).map_err(|rot| whole(rot, names::segment(base)));
        }
    }
}

/// The segment's seal; `None` if there is none, as of one that Kafka wrote.
async fn seal(cx: &Context, id: LogId, subject: &Subject) -> Result<Option<Seal>, Unsaid> {
    let base = subject.base;
    let name = names::seal(base);
    let rot = |what| Unsaid::Rot(what, Place { name: name.clone(), pos: 0, offset: base });
    let path = {
        let mut state = cx.state.borrow_mut();
        let Some(log) = state.log(id) else { return Err(Unsaid::Gone) };
        log.identity.dir.join(&name)
    };
    let bytes = match read_small(&cx.disk, &cx.arena(), &path).await {
        Ok(bytes) => bytes,
        Err(error) => return Err(unreadable(Fault::new("reading a seal", &error), rot)),
    };
    match bytes.as_deref().map(Seal::decode) {
        None => Ok(None),
        Some(Ok(seal)) => Ok(Some(seal)),
        Some(Err(FixedError::NewerVersion { .. })) => Err(Unsaid::Gone),
        Some(Err(error)) => Err(rot(Rot::Seal(error))),
    }
}

fn unreadable(fault: Fault, rot: impl Fn(Rot) -> Unsaid) -> Unsaid {
    if fault.may_pass() { Unsaid::Gone } else { rot(Rot::Unreadable(fault)) }
}

/// Reads the piece at `at` in place of what `bytes` had. Returns how long the file is.
async fn piece(
    cx: &Context,
    id: LogId,
    subject: &Subject,
    (at, bytes): (Pos, &mut Vec<u8>),
) -> Result<Pos, Unsaid> {
    let base = subject.base;
    let rot =
        |what| Unsaid::Rot(what, Place { name: names::segment(base), pos: at.get(), offset: base });
    loop {
        // Neither cut nor replaced while it is read.
        let reader = Reader::new(cx, id);
        if self::subject(cx, (id, base)) != Some(*subject) || cx.state.borrow().closing {
            return Err(Unsaid::Gone);
        }
        bytes.clear();
        let read = match open(cx, id, base).await.map(|lease| lease.length()) {
            Err(error) => Err(error),
            Ok(length) if length > i32::MAX as u64 => return Err(Unsaid::Gone),
            Ok(length) => {
                let to = at.plus(SCRUB_PIECE_BYTES).min(Pos::new(length)).max(at);
                let read = from_file(cx, id, base, (at, to), bytes).await;
                read.map(|()| (Pos::new(length), to))
            }
        };
        drop(reader);
        return match read {
            Ok((length, to)) if at.plus(bytes.len() as u64) == to => Ok(length),
            Ok((length, _)) => {
                let (found, sealed) = (at.get() + bytes.len() as u64, length.get());
                Err(rot(Rot::Altered(Alteration::Length { found, sealed })))
            }
            Err(ReadError::Altered { what, .. }) => Err(rot(Rot::Altered(what))),
            Err(ReadError::Disk(fault)) => Err(unreadable(fault, rot)),
            Err(ReadError::Overloaded) => {
                // Appends have the memory.
                let now_ns = cx.state.borrow().time.ns;
                cx.tasks.sleep_until(now_ns + SCRUB_RETRY_NS).await;
                continue;
            }
            Err(_) => Err(Unsaid::Gone),
        };
    }
}
