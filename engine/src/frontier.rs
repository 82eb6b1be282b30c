//! The contiguous finished prefix of a segment's bytes, over operations that finish in any order.
//!
//! The heart of a pipelined log: an ack may be given for a byte only when all bytes before it are done.

use std::collections::VecDeque;

use crate::types::Pos;

#[derive(Clone, Copy, Debug)]
struct Span {
    start: Pos,
    end: Pos,
    finished: bool,
}

/// How far bytes are done without a gap.
#[derive(Debug)]
pub(crate) struct Frontier {
    done: Pos,
    spans: VecDeque<Span>,
}

impl Frontier {
    /// All bytes before `done` are done.
    pub(crate) fn new(done: Pos) -> Self {
        Self { done, spans: VecDeque::new() }
    }

    /// One past the last byte of the finished prefix.
    pub(crate) fn done(&self) -> Pos {
        self.done
    }

    /// Operations issued and not finished.
    pub(crate) fn unfinished(&self) -> usize {
        self.spans.iter().filter(|span| !span.finished).count()
    }

    /// An operation on `start..end` has begun. Spans are issued in order; one may begin inside the one
    /// before it (a block that is carried again), never beyond a byte that nobody has claimed to do.
    pub(crate) fn issue(&mut self, start: Pos, end: Pos) {
        assert!(start < end, "an operation covers bytes");
        let last = self.spans.back().map_or(self.done, |span| span.end);
        assert!(end >= last.min(self.done), "spans are issued in order");
        self.spans.push_back(Span { start, end, finished: false });
    }

    /// The operation on `start..end` is done. Returns whether the prefix grew.
    pub(crate) fn finish(&mut self, start: Pos, end: Pos) -> bool {
        let span = self
            .spans
            .iter_mut()
            .find(|span| !span.finished && span.start == start && span.end == end)
            .expect("only what was issued finishes");
        span.finished = true;
        self.advance()
    }

    /// All bytes before `pos` are done by other means.
    pub(crate) fn advance_to(&mut self, pos: Pos) -> bool {
        let before = self.done;
        self.done = self.done.max(pos);
        self.advance() || self.done > before
    }

    fn advance(&mut self) -> bool {
        let before = self.done;
        while let Some(span) = self.spans.front() {
            if !span.finished || span.start > self.done {
                break;
            }
            self.done = self.done.max(span.end);
            self.spans.pop_front();
        }
        self.done > before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(pos: u64) -> Pos {
        Pos::new(pos)
    }

    #[test]
    fn nothing_counts_behind_a_gap() {
        let mut frontier = Frontier::new(at(0));
        frontier.issue(at(0), at(10));
        frontier.issue(at(10), at(20));
        frontier.issue(at(20), at(30));
        assert!(!frontier.finish(at(20), at(30)));
        assert!(!frontier.finish(at(10), at(20)));
        assert_eq!(frontier.done(), at(0));
        assert!(frontier.finish(at(0), at(10)));
        assert_eq!(frontier.done(), at(30));
        assert_eq!(frontier.unfinished(), 0);
    }

    #[test]
    fn a_gap_filled_by_a_flush_lets_later_spans_count() {
        let mut frontier = Frontier::new(at(0));
        frontier.issue(at(100), at(150));
        assert!(!frontier.finish(at(100), at(150)));
        assert!(frontier.advance_to(at(100)));
        assert_eq!(frontier.done(), at(150));
    }

    #[test]
    fn a_carried_block_overlaps_what_is_done() {
        let mut frontier = Frontier::new(at(5000));
        frontier.issue(at(4096), at(6000));
        assert!(frontier.finish(at(4096), at(6000)));
        assert_eq!(frontier.done(), at(6000));
    }
}
