//! Bytes of a log on their way to a socket: looked for anew at each step, wherever they are by then.
//!
//! # Invariants
//! - A step holds the log's files and memory only as long as it takes to hand bytes to the kernel or to read them from
//!   the disk: never while a peer is waited for. So a peer that does not read keeps neither memory nor files nor
//!   truncations waiting.
//! - A step sends nothing if the log was cut below the range's end since it was located.

use std::rc::Rc;

use super::super::fetch::{self, Fetch, Range, ReadMark};
use super::super::keep::Glance;
use super::super::read::Reader;
use super::super::{Context, open_files};
use super::cold::Key;
use super::{Open, Service};
use crate::buffers::Slice;
use crate::command::sockets::{NetDone, NetOp, ReadPath};
use crate::error::{NetError, ReadError};
use crate::journal::LogId;
use crate::limits::SEND_STEP_BYTES;
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

/// What a step came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    /// Bytes; 0: the socket takes none now.
    pub(super) count: usize,
    /// Whether they were read past the page cache.
    pub(super) cold: bool,
}

/// The count of bytes that went this way.
type Way = fn(&mut ShardStats) -> &mut u64;

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
        fetch::admitted(self.cx, self.range.id).await.map_err(NetError::Log)?;
        let _reader = Reader::new(self.cx, self.range.id);
        let cuts = self.check(part).map_err(NetError::Log)?;
        let (here, sealed) = self.service.engine(|| self.look(part)).map_err(NetError::Log)?;
        let (count, way): (usize, Way) = match here {
            Here::Memory(slices) => {
                (self.send_slices(slices, part).await?, |stats| &mut stats.sent_memory_bytes)
            }
            Here::Pages(len) => match self.send_pages(part, len).await? {
                Some(count) => (count, |stats| &mut stats.sent_pages_bytes),
                None => (self.send_cold(part, (cuts, sealed)).await?, COLD),
            },
            Here::Cold => (self.send_cold(part, (cuts, sealed)).await?, COLD),
        };
        let mut state = self.cx.state.borrow_mut();
        let before = state.stats.sent_cold_bytes;
        *way(&mut state.stats) += count as u64;
        Ok(Sent { count, cold: state.stats.sent_cold_bytes > before })
    }

    /// Whether the range is still the log's. Returns a number that is another one once bytes of its files may be.
    fn check(&self, part: Range) -> Result<u64, ReadError> {
        let now = fetch::current_mark(self.cx, self.range.id)?;
        let mut state = self.cx.state.borrow_mut();
        let Some(log) = state.log(self.range.id) else { return Err(ReadError::Deleted) };
        match self.range.mark.cut_since(now, log) {
            Some(at) if at < self.range.next => Err(ReadError::Truncated { at }),
            // Its bytes are elsewhere by now.
            _ if log.segment(part.base).is_none()
                && log.keep.swaps != self.range.glance.swaps() =>
            {
                Err(ReadError::Compacted { segment: part.base })
            }
            _ => Ok(now.cuts() << u32::BITS | u64::from(log.keep.swaps)),
        }
    }

    fn look(&self, part: Range) -> Result<(Here, bool), ReadError> {
        let mut state = self.cx.state.borrow_mut();
        let direct = state.settings.direct;
        let Some(log) = state.log(self.range.id) else { return Err(ReadError::Deleted) };
        let path = self.service.paths.of(self.open.family);
        let step = part.to.since(part.from).min(SEND_STEP_BYTES as u64);
        let Some(segment) = log.segment(part.base) else {
            let cold = path == ReadPath::Direct;
            return Ok((if cold { Here::Cold } else { Here::Pages(step as u32) }, true));
        };
        let window = &segment.window;
        if part.from >= window.base() {
            let end = part.from.plus(step);
            let mut slices = Vec::with_capacity(4);
            let mut at = part.from;
            while at < end && slices.len() < SLICES_MAX {
                let slice = window.slice(at, end);
                at = at.plus(slice.len() as u64);
                slices.push(slice);
            }
            return Ok((Here::Memory(slices), false));
        }
        // Not sealed: written past the page cache, it must be read so too.
        if direct || path == ReadPath::Direct {
            return Ok((Here::Cold, false));
        }
        Ok((Here::Pages(step.min(window.base().since(part.from)) as u32), false))
    }

    async fn send_slices(&self, slices: Vec<Slice>, part: Range) -> Result<usize, NetError> {
        let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
        let more = self.more || part.from.plus(bytes as u64) < part.to;
        let op = NetOp::SendSlices { socket: self.open.handle, slices, more };
        match self.cx.net.start(op).await {
            Ok(NetDone::Count(count)) => Ok(count),
            Ok(_) => unreachable!("a send gives a count"),
            Err(error) => Err(NetError::io("sending", &error)),
        }
    }

    /// `None` if the bytes are not in the page cache.
    async fn send_pages(&self, part: Range, len: u32) -> Result<Option<usize>, NetError> {
        let path = self.service.paths.of(self.open.family);
        let kind = (part.base, open_files::Kind::Pages);
        let lease = open_files::open_kind(self.cx, self.range.id, kind).await;
        // What is not there is told by the way past the cache.
        let Some(lease) = lease.map_err(NetError::Log)? else { return Ok(None) };
        // A file that was opened behind this is another one.
        self.check(part).map_err(NetError::Log)?;
        let (socket, file, pos) = (self.open.handle, lease.file(), part.from.get());
        let op = NetOp::SendFile { socket, file, pos, len, path };
        match self.cx.net.start(op).await {
            Ok(NetDone::Count(count)) => Ok(Some(count)),
            Ok(NetDone::Cold) => Ok(None),
            Ok(_) => unreachable!("a file's send gives a count"),
            Err(error) => Err(NetError::io("sending", &error)),
        }
    }

    async fn send_cold(&self, part: Range, (cuts, sealed): (u64, bool)) -> Result<usize, NetError> {
        let key = Key::new(self.range.id, part.base, part.from);
        let cold = &self.cx.cold;
        let now_ns = self.cx.state.borrow().time.ns;
        let path = self.service.paths.of(self.open.family);
        let again = cold.is_sent_again(key, part.from, now_ns);
        if again && sealed && path != ReadPath::Direct {
            cold.advise(self.cx, key).await.map_err(NetError::Log)?;
        }
        // Of a tail's file only what memory has given back.
        let written = {
            let mut state = self.cx.state.borrow_mut();
            let segment = state.segment(self.range.id, part.base);
            segment.map_or(part.to, |segment| segment.window.base().min(part.to))
        };
        let to = key.next().start().min(written);
        let block = cold.block(self.cx, key, (to, written, cuts)).await;
        self.check(part).map_err(NetError::Log)?;
        let block = block.map_err(NetError::Log)?;
        cold.read_ahead(self.cx, key.next(), (written, cuts));
        let start = part.from.since(key.start()) as usize;
        let end = to.since(key.start()) as usize;
        let sent = self.send_slices(vec![block.slice(start..end)], part).await?;
        cold.sent(key, part.from.plus(sent as u64));
        Ok(sent)
    }
}

/// The rest of a part after `sent` bytes of it.
pub(super) fn rest(part: Range, sent: usize) -> Range {
    let from: Pos = part.from.plus(sent as u64);
    Range { from, ..part }
}
