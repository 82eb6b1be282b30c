//! From fetches to records.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::batch::{BatchError, BatchHeader, Limits, Progress, unpack};
use crate::error::ReadError;
use crate::format::batch_header::HEADER_BYTES;
use crate::shard::fetch::{Damage, Fetch, Fetched};
use crate::types::{Isolation, Offset};

use super::{AfterDamage, Record, StreamError, StreamOptions};

/// Where a stream's fetches come from.
pub(super) trait Source {
    type Fetching: Future<Output = Result<Fetched, ReadError>> + Unpin;
    type Passing: Future<Output = Result<Offset, ReadError>> + Unpin;

    /// Begins a fetch.
    fn fetch(&self, fetch: Fetch) -> Self::Fetching;

    /// Begins to look for the next intact batch behind damage.
    fn pass(&self, damage: Damage) -> Self::Passing;
}

/// What a stream waits for next.
enum Ahead<S: Source> {
    Nothing,
    Fetch(S::Fetching),
    /// It came back at once.
    Fetched(Box<Result<Fetched, ReadError>>),
    Pass(S::Passing),
}

/// A batch that is being gone over.
struct Open {
    memory: Arc<Vec<u8>>,
    /// Its records in that memory.
    from: usize,
    to: usize,
    header: BatchHeader,
    /// Its last offset.
    last: Offset,
    progress: Progress,
}

/// A stream's state: polled for one record after the other.
pub(super) struct Machine<S: Source> {
    source: S,
    options: StreamOptions,
    /// The next fetch.
    ask: Fetch,
    ahead: Ahead<S>,
    /// What was fetched last, and the batch in it that comes next.
    fetched: Arc<Vec<u8>>,
    at: usize,
    open: Option<Open>,
    position: Offset,
    /// Where it ends, once that is known. One that follows has no end.
    until: Option<Offset>,
    ended: bool,
}

impl<S: Source> Machine<S> {
    pub(super) fn new(source: S, from: Offset, options: StreamOptions) -> Self {
        let ask = options.fetch(from);
        let ahead = Ahead::Fetch(source.fetch(ask));
        Self {
            source,
            options,
            ask,
            ahead,
            fetched: Arc::default(),
            at: 0,
            open: None,
            position: from,
            until: None,
            ended: false,
        }
    }

    pub(super) fn position(&self) -> Offset {
        self.position
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Record, StreamError>>> {
        while !self.ended {
            if self.open.is_some() {
                if let Some(given) = self.next_record() {
                    return Poll::Ready(Some(given));
                }
            } else if self.at < self.fetched.len() {
                if let Err(error) = self.open_next() {
                    return Poll::Ready(Some(Err(error)));
                }
            } else if let Err(error) = ready!(self.poll_ahead(cx)) {
                return Poll::Ready(Some(Err(error.into())));
            }
        }
        Poll::Ready(None)
    }

    /// The next record of the open batch; `None` once it has no more.
    fn next_record(&mut self) -> Option<Result<Record, StreamError>> {
        let open = self.open.as_mut()?;
        let control = open.header.attributes.is_control();
        loop {
            let records = &open.memory[open.from..open.to];
            match open.progress.next(records, &open.header) {
                // A fetch begins with the whole batch.
                Some(Ok(view)) if view.offset < self.position => {}
                Some(Ok(view)) => {
                    self.position = view.offset.plus(1);
                    return Some(Ok(Record::new(&open.memory, &view, control)));
                }
                Some(Err(source)) => {
                    let (last, base) = (open.last, open.header.base_offset);
                    self.open = None;
                    return Some(Err(self.unreadable((base, last), source)));
                }
                None => {
                    self.position = self.position.max(open.last.plus(1));
                    self.open = None;
                    return None;
                }
            }
        }
    }

    /// Goes on behind a batch whose records are none, or nowhere.
    fn unreadable(&mut self, (base, last): (i64, Offset), source: BatchError) -> StreamError {
        self.position = self.position.max(last.plus(1));
        self.ended = self.options.after_damage == AfterDamage::End;
        StreamError::Batch { base: Offset::new(base), last, source }
    }

    /// Opens the next batch of what was fetched.
    fn open_next(&mut self) -> Result<(), StreamError> {
        let bytes = &self.fetched[self.at..];
        // A fetch gives whole batches that it has checked.
        let header = BatchHeader::decode(bytes).expect("a batch that was checked");
        let (base, last) = header.offsets().expect("a batch that was checked");
        if self.until.is_some_and(|until| base >= until) {
            // It came after the stream began.
            self.ended = true;
            return Ok(());
        }
        let from = self.at;
        let to = from + header.batch_bytes();
        self.at = to;
        if header.attributes.is_control() && !self.options.control {
            self.position = self.position.max(last.plus(1));
            return Ok(());
        }
        let limits =
            Limits { decompressed_bytes: self.options.decompressed_bytes, ..Limits::default() };
        let unpacked = match unpack(&self.fetched[from..to], &limits) {
            Ok(unpacked) => unpacked,
            Err(error) => return Err(self.unreadable((base.get(), last), error)),
        };
        let (memory, from, to) = match unpacked.records {
            Some(records) => {
                let bytes = records.len();
                (Arc::new(records), 0, bytes)
            }
            None => (self.fetched.clone(), from + HEADER_BYTES, to),
        };
        let progress = Progress::new(base, limits.headers);
        self.open = Some(Open { memory, from, to, header: unpacked.header, last, progress });
        Ok(())
    }

    /// Takes what was fetched ahead, and fetches further ahead.
    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ReadError>> {
        // What is pending is put back; an end is an end.
        match std::mem::replace(&mut self.ahead, Ahead::Nothing) {
            Ahead::Nothing => {
                self.ended = true;
                Poll::Ready(Ok(()))
            }
            Ahead::Fetched(fetched) => Poll::Ready(self.take(*fetched, cx)),
            Ahead::Fetch(mut fetching) => match Pin::new(&mut fetching).poll(cx) {
                Poll::Ready(fetched) => Poll::Ready(self.take(fetched, cx)),
                Poll::Pending => {
                    self.ahead = Ahead::Fetch(fetching);
                    Poll::Pending
                }
            },
            Ahead::Pass(mut passing) => match Pin::new(&mut passing).poll(cx) {
                Poll::Ready(next) => Poll::Ready(self.passed(next, cx)),
                Poll::Pending => {
                    self.ahead = Ahead::Pass(passing);
                    Poll::Pending
                }
            },
        }
    }

    fn passed(
        &mut self,
        next: Result<Offset, ReadError>,
        cx: &mut Context<'_>,
    ) -> Result<(), ReadError> {
        let next = next.inspect_err(|_| self.ended = true)?;
        if next <= self.ask.offset {
            // Nothing is behind it.
            self.ended = true;
            return Ok(());
        }
        self.position = self.position.max(next);
        // The epoch of what was passed over is not known.
        self.ask = Fetch { offset: next, epoch: None, ..self.ask };
        self.fetch_ahead(cx);
        Ok(())
    }

    fn take(
        &mut self,
        fetched: Result<Fetched, ReadError>,
        cx: &mut Context<'_>,
    ) -> Result<(), ReadError> {
        match fetched {
            Ok(fetched) => {
                if !self.options.follow && self.until.is_none() {
                    self.until = Some(match self.options.isolation {
                        Isolation::Durable => fetched.marks.durable,
                        Isolation::Dirty => fetched.marks.dirty,
                    });
                }
                let still = fetched.next == self.ask.offset;
                self.ask = self.ask.after(&fetched);
                self.fetched = Arc::new(fetched.bytes);
                self.at = 0;
                if self.options.follow || !still {
                    self.fetch_ahead(cx);
                }
                Ok(())
            }
            Err(error) => {
                let damage = Damage::of(&error, &self.ask);
                match damage.filter(|_| self.options.after_damage == AfterDamage::PassOver) {
                    Some(damage) => self.ahead = Ahead::Pass(self.source.pass(damage)),
                    None => self.ended = true,
                }
                Err(error)
            }
        }
    }

    /// Begins the next fetch, unless the end is reached.
    fn fetch_ahead(&mut self, cx: &mut Context<'_>) {
        if self.until.is_some_and(|until| self.ask.offset >= until) {
            return;
        }
        let mut fetching = self.source.fetch(self.ask);
        // One of the shard's own begins only now.
        self.ahead = match Pin::new(&mut fetching).poll(cx) {
            Poll::Ready(fetched) => Ahead::Fetched(Box::new(fetched)),
            Poll::Pending => Ahead::Fetch(fetching),
        };
    }
}
