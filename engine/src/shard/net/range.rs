//! Bytes of a log on their way to a socket: looked for anew at each step, wherever they are by then.
//!
//! # Invariants
//! - A step holds the log's files and memory only as long as it takes to hand bytes to the kernel or to read them from
//!   the disk: never while a peer is waited for. So a peer that does not read keeps neither memory nor files nor
//!   truncations waiting.
//! - A step sends nothing if the log was cut below the range's end since it was located, and nothing of a segment that
//!   was compacted since.

use std::rc::Rc;

use super::super::fetch::{self, Fetch, Range, ReadMark};
use super::super::keep::Glance;
use super::super::read::Reader;
use super::super::{Context, open_files};
use super::cold::{Key, Stamp, Want};
use super::{Open, Service};
use crate::buffers::Slice;
use crate::command::sockets::{NetDone, NetOp, ReadPath};
use crate::error::{NetError, ReadError};
use crate::journal::LogId;
use crate::limits::SEND_STEP_BYTES;
use crate::log::Log;
use crate::stats::ShardStats;
use crate::types::{Offset, Pos, Watermarks};

/// Slices of one step.
const SLICES_MAX: usize = 64;

/// Whole batches of a log, located to be sent: [`Sender::send_log`](super::Sender::send_log). Holds nothing: by the
/// time it is sent its bytes may be gone, which breaks that connection.
#[derive(Clone, Debug)]
pub struct LogRange {
    pub(super) id: LogId,
    pub(super) ranges: Vec<Range>,
    bytes: u64,
    next: Offset,
    marks: Watermarks,
    leader_epoch: i32,
    last_epoch: Option<i32>,
    mark: ReadMark,
    glance: Glance,
}

impl LogRange {
    /// Bytes that will be sent, exactly.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The offset to go on from.
    #[must_use]
    pub fn next(&self) -> Offset {
        self.next
    }

    /// The log's bounds when the bytes were found.
    #[must_use]
    pub fn watermarks(&self) -> Watermarks {
        self.marks
    }

    /// The newest leader's epoch; 0 if no leader ever gave one.
    #[must_use]
    pub fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }

    /// The fetch of what comes after this range, under the same conditions as `fetch`.
    #[must_use]
    pub fn following(&self, fetch: Fetch) -> Fetch {
        Fetch { offset: self.next, epoch: self.last_epoch, mark: Some(self.mark), ..fetch }
    }
}

/// Finds the bytes of a fetch, waiting for them as it says.
pub(crate) async fn locate(cx: &Context, id: LogId, ask: Fetch) -> Result<LogRange, ReadError> {
    let located = fetch::wait_and_locate(cx, id, ask).await?;
    Ok(LogRange {
        id,
        bytes: located.bytes,
        next: located.next,
        marks: located.marks,
        leader_epoch: located.leader_epoch,
        last_epoch: located.last_epoch,
        mark: located.mark,
        glance: located.glance,
        ranges: located.ranges,
    })
}

/// Where the next bytes are.
enum Here {
    Memory(Vec<Slice>),
    /// In a file, of which pages may be in the page cache.
    Pages(u32),
    /// In a file that is not to be read through the page cache.
    Cold,
}

/// What is sent, and what must still hold when it is.
#[derive(Clone, Copy, Debug)]
struct Sure {
    stamp: Stamp,
    glance: Glance,
    /// Whether its file changes no more, but by a truncation or a compaction.
    sealed: bool,
}

/// Bytes sent, and whether there were more than the socket took.
type Gone = (usize, bool);

/// What a step came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// Bytes.
    pub(super) count: usize,
    /// Whether that was less than there was to send: the socket takes no more now.
    pub(super) full: bool,
    /// Whether they were read past the page cache.
    pub(super) cold: bool,
}

/// The count of bytes that went this way.
type Way = fn(&mut ShardStats) -> &mut u64;

const MEMORY: Way = |stats| &mut stats.sent_memory_bytes;
const PAGES: Way = |stats| &mut stats.sent_pages_bytes;
const COLD: Way = |stats| &mut stats.sent_cold_bytes;

/// One step of a range.
pub(super) struct Step<'a> {
    pub(super) cx: &'a Context,
    pub(super) service: &'a Rc<Service>,
    pub(super) open: &'a Rc<Open>,
    pub(super) range: &'a LogRange,
    /// More follows at once.
    pub(super) more: bool,
}

impl Step<'_> {
    /// Sends what the socket takes of `part`, at most a step's bytes.
    pub(super) async fn send(&self, part: Range) -> Result<Sent, NetError> {
        let (cx, id) = (self.cx, self.range.id);
        loop {
            fetch::admitted(cx, id).await.map_err(NetError::Log)?;
            let glance = Glance::begin(cx, id, part.base).await;
            let _reader = Reader::new(cx, id);
            let looked =
                self.service.engine(|| self.check().and_then(|cuts| self.look(part, cuts)));
            let (here, stamp, sealed) = looked.map_err(NetError::Log)?;
            let sure = Sure { stamp, glance, sealed };
            let sent = match here {
                Here::Memory(slices) => Some((self.send_slices(slices, part).await?, MEMORY)),
                Here::Pages(len) => match self.send_pages(part, len, sure).await? {
                    Some(sent) => Some((sent, PAGES)),
                    None => self.send_cold(part, sure).await?.map(|sent| (sent, COLD)),
                },
                Here::Cold => self.send_cold(part, sure).await?.map(|sent| (sent, COLD)),
            };
            // Files were swapped while one of them was opened: look again.
            let Some(((count, full), way)) = sent else { continue };
            let mut state = cx.state.borrow_mut();
            let before = state.stats.sent_cold_bytes;
            *way(&mut state.stats) += count as u64;
            return Ok(Sent { count, full, cold: state.stats.sent_cold_bytes > before });
        }
    }

    /// Whether the range is still the log's. Returns how often the log was cut.
    fn check(&self) -> Result<u64, ReadError> {
        let now = fetch::current_mark(self.cx, self.range.id)?;
        let mut state = self.cx.state.borrow_mut();
        let Some(log) = state.log(self.range.id) else { return Err(ReadError::Deleted) };
        match self.range.mark.cut_since(now, log) {
            Some(at) if at < self.range.next => Err(ReadError::Truncated { at }),
            _ => Ok(now.cuts()),
        }
    }

    /// Where the next bytes are, as which they are known, and whether they are sealed.
    fn look(&self, part: Range, cuts: u64) -> Result<(Here, Stamp, bool), ReadError> {
        let mut state = self.cx.state.borrow_mut();
        let direct = state.settings.direct;
        let Some(log) = state.log(self.range.id) else { return Err(ReadError::Deleted) };
        let path = self.service.paths.of(self.open.family);
        let step = part.to.since(part.from).min(SEND_STEP_BYTES as u64);
        let Some(segment) = log.segment(part.base) else {
            let stamp = Stamp { cuts, swapped: self.sealed(log, part.base)? };
            let cold = path == ReadPath::Direct;
            return Ok((if cold { Here::Cold } else { Here::Pages(step as u32) }, stamp, true));
        };
        let (window, stamp) = (&segment.window, Stamp { cuts, swapped: 0 });
        if part.from >= window.base() {
            let end = part.from.plus(step);
            let mut slices = Vec::with_capacity(4);
            let mut at = part.from;
            while at < end && slices.len() < SLICES_MAX {
                let slice = window.slice(at, end);
                at = at.plus(slice.len() as u64);
                slices.push(slice);
            }
            return Ok((Here::Memory(slices), stamp, false));
        }
        // Not sealed: written past the page cache, it must be read so too.
        if direct || path == ReadPath::Direct {
            return Ok((Here::Cold, stamp, false));
        }
        let len = step.min(window.base().since(part.from)) as u32;
        Ok((Here::Pages(len), stamp, false))
    }

    /// The swap that the sealed segment came by, if it is still the one that was located.
    fn sealed(&self, log: &Log, base: Offset) -> Result<u32, ReadError> {
        let at = log.sealed.binary_search_by_key(&base, |sealed| sealed.base);
        let swapped = at.ok().map(|at| log.sealed[at].swapped);
        if let Some(swapped) = swapped.filter(|swapped| *swapped <= self.range.glance.swaps()) {
            return Ok(swapped);
        }
        let Watermarks { log_start: start, dirty: end, .. } = log.watermarks();
        if base < start {
            return Err(ReadError::OutOfRange { asked: base, start, end });
        }
        Err(ReadError::Compacted { segment: base })
    }

    async fn send_slices(&self, slices: Vec<Slice>, part: Range) -> Result<Gone, NetError> {
        let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
        let more = self.more || part.from.plus(bytes as u64) < part.to;
        let op = NetOp::SendSlices { socket: self.open.handle, slices, more };
        match self.cx.net.start(op).await {
            Ok(NetDone::Count(count)) => Ok((count, count < bytes)),
            Ok(_) => unreachable!("a send gives a count"),
            Err(error) => Err(NetError::io("sending", &error)),
        }
    }

    /// `None` if the bytes are not in the page cache, or cannot be said to be those that were located.
    async fn send_pages(
        &self,
        part: Range,
        len: u32,
        sure: Sure,
    ) -> Result<Option<Gone>, NetError> {
        let path = self.service.paths.of(self.open.family);
        let kind = (part.base, open_files::Kind::Pages);
        let lease = open_files::open_kind(self.cx, self.range.id, kind).await;
        // What is not there is told by the way past the cache.
        let Some(lease) = lease.map_err(NetError::Log)? else { return Ok(None) };
        if !sure.glance.holds(self.cx, self.range.id) {
            return Ok(None);
        }
        let (socket, file, pos) = (self.open.handle, lease.file(), part.from.get());
        let op = NetOp::SendFile { socket, file, pos, len, path };
        match self.cx.net.start(op).await {
            Ok(NetDone::Count(count)) => Ok(Some((count, count < len as usize))),
            Ok(NetDone::Cold) => Ok(None),
            Ok(_) => unreachable!("a file's send gives a count"),
            Err(error) => Err(NetError::io("sending", &error)),
        }
    }

    /// `None` if files were swapped meanwhile.
    async fn send_cold(&self, part: Range, sure: Sure) -> Result<Option<Gone>, NetError> {
        let (cx, id) = (self.cx, self.range.id);
        let key = Key::new(id, part.base, part.from);
        let now_ns = cx.state.borrow().time.ns;
        let path = self.service.paths.of(self.open.family);
        let again = cx.cold.is_sent_again(key, part.from, now_ns);
        if again && sure.sealed && path != ReadPath::Direct {
            cx.cold.advise(cx, key).await.map_err(NetError::Log)?;
        }
        // Of a tail's file only what memory has given back.
        let written = {
            let mut state = cx.state.borrow_mut();
            let segment = state.segment(id, part.base);
            segment.map_or(part.to, |segment| segment.window.base().min(part.to))
        };
        let to = key.next().start().min(written);
        let want = Want { written, stamp: sure.stamp, glance: sure.glance };
        let block = cx.cold.block(cx, key, to, want).await;
        if !sure.glance.holds(cx, id) {
            return Ok(None);
        }
        let block = block.map_err(NetError::Log)?;
        cx.cold.read_ahead(cx, key.next(), want);
        let start = part.from.since(key.start()) as usize;
        let end = to.since(key.start()) as usize;
        let sent = self.send_slices(vec![block.slice(start..end)], part).await?;
        cx.cold.sent(key, part.from.plus(sent.0 as u64));
        Ok(Some(sent))
    }
}

/// The rest of a part after `sent` bytes of it.
pub(super) fn rest(part: Range, sent: usize) -> Range {
    let from: Pos = part.from.plus(sent as u64);
    Range { from, ..part }
}
