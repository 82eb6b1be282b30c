//! Times the operations that acks wait for. The clock is read once for all that go to the ring in a turn and once for
//! all that come back in one, never for a record or a batch.

use crate::journal::GROUPS_IN_FLIGHT_MAX;
use crate::log::plan::Purpose;
use crate::stats::{DiskTimes, Durations};
use crate::types::{Durability, FlushPolicy};

use super::state::State;
use super::writes::{SLOTS, Token};

/// When operations in flight began, and how long those took that have ended.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    /// In nanoseconds: segment writes by slot, behind them journal groups by sequence. A flush begins in the place of
    /// its write, which has ended.
    begun: Box<[u64]>,
    pub(crate) times: DiskTimes,
}

impl Stopwatch {
    pub(super) fn new() -> Self {
        Self { begun: vec![0; SLOTS + GROUPS_IN_FLIGHT_MAX].into(), times: DiskTimes::default() }
    }

    /// An operation goes to the ring.
    pub(super) fn begin(&mut self, token: Token, now_ns: u64) {
        if let Some(place) = place(token) {
            self.begun[place] = now_ns;
        }
    }
}

impl State {
    /// An operation has ended well: counts how long it took, if acks may have waited for it.
    pub(super) fn time(&mut self, token: Token, now_ns: u64) {
        let Some(place) = place(token) else { return };
        let began = self.watch.begun[place];
        if let Some(durations) = self.durations_of(token) {
            durations.record(now_ns.saturating_sub(began));
        }
    }

    fn durations_of(&mut self, token: Token) -> Option<&mut Durations> {
        let durable = match token {
            Token::Segment(slot) => {
                let write = self.writes.get(slot);
                let durable = write.purpose == Purpose::Durable;
                // Under `group` what is not durable at once is written back from the journal, acked long before.
                if !durable && self.log(write.log)?.policy == FlushPolicy::Group {
                    return None;
                }
                durable
            }
            Token::Group(_) => true,
            Token::SegmentFlush(_) | Token::GroupFlush(_) => {
                return Some(&mut self.watch.times.flushes);
            }
            Token::Procedure(_) => return None,
        };
        let times = &mut self.watch.times;
        let one = durable && self.settings.durability == Durability::Dsync;
        Some(if one { &mut times.durable_writes } else { &mut times.writes })
    }
}

fn place(token: Token) -> Option<usize> {
    match token {
        Token::Segment(slot) | Token::SegmentFlush(slot) => Some(slot as usize),
        // Groups in flight have sequences that follow on each other.
        Token::Group(sequence) | Token::GroupFlush(sequence) => {
            Some(SLOTS + sequence as usize % GROUPS_IN_FLIGHT_MAX)
        }
        Token::Procedure(_) => None,
    }
}
