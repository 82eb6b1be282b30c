//! Journal groups: chosen from the logs that wait and from what procedures force, sent, and landed.

use crate::buffers::CHUNK_BYTES_MAX;
use crate::command::Op;
use crate::error::Fault;
use crate::journal::group::{ENTRY_BYTES, Entry, EntryKind, GroupWriter, HEADER_BYTES};
use crate::journal::{GROUPS_IN_FLIGHT_MAX, LogId, Reference};
use crate::limits::{GATHERED_BYTES_MAX, GROUP_ENTRIES_MAX, RESERVE_BYTES};
use crate::log::ahead;
use crate::log::plan::{Step, may_go_on};
use crate::types::{Durability, FlushPolicy, Incarnation, Offset, Pos};

use super::prepare::is_wanting;
use super::state::{Errand, State, tell};
use super::writes::Token;

/// A group holds at least this much, in bytes, however short memory is: a block that is carried, and more.
const GROUP_LIMIT_MIN: usize = 16 * 1024;

const _: () = assert!(RESERVE_BYTES >= (GROUPS_IN_FLIGHT_MAX + 1) * CHUNK_BYTES_MAX);

/// An entry that a procedure wants in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forced {
    /// Void what older groups hold of this incarnation.
    Ignore(Incarnation),
    /// Hold these bytes anew, so that older groups need not.
    Carry(Reference),
    /// Nothing: a group that says which older ones are needed no more.
    Announce,
}

/// An entry of the group that is being formed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chosen {
    pub(super) entry: Entry,
    pub(super) reference: Reference,
}

impl State {
    /// Puts an entry into the journal as soon as a group can take it. [`State::is_forced`] says when it is
    /// durable.
    pub(crate) fn force(&mut self, what: Forced) -> u64 {
        self.forced_next += 1;
        self.forced.push_back((self.forced_next, what));
        self.forced_next
    }

    /// Whether the forced entry is durable.
    pub(crate) fn is_forced(&self, number: u64) -> bool {
        self.forced_done >= number
    }

    /// Forms journal groups while one may go out.
    pub(super) fn form_groups(&mut self) {
        while !self.gathering.is_empty() || !self.forced.is_empty() {
            let in_flight = self.journal.in_flight();
            let worth_it = in_flight == 0 || self.gathered_bytes >= self.next_group_bytes();
            if in_flight >= GROUPS_IN_FLIGHT_MAX || !worth_it || self.journal.fault().is_some() {
                return;
            }
            if !self.has_room() && self.forced.is_empty() || !self.form_group() {
                return;
            }
        }
    }

    /// Bytes from which a group goes out while another is in flight: half of what clients have under way. They then
    /// fall into two halves, one in flight and one gathering; smaller groups would cost more flushes, larger
    /// ones leave the device idle.
    pub(super) fn next_group_bytes(&self) -> u64 {
        (self.crowd_bytes / 2).min(GATHERED_BYTES_MAX)
    }

    /// Takes note of what is under way as a group of `claimed` bytes goes out; the most of late counts.
    fn note_crowd(&mut self, claimed: u64) {
        let before = if self.journal.in_flight() == 0 { 0 } else { self.group_bytes };
        let under_way = before + claimed + self.gathered_bytes;
        self.crowd_bytes = under_way.max(self.crowd_bytes - self.crowd_bytes / 16);
        self.group_bytes = claimed;
    }

    /// Whether the journal has room for a group of appends. Sees to it that it will have.
    fn has_room(&mut self) -> bool {
        if self.journal.room(CHUNK_BYTES_MAX as u64, false).is_some() {
            return true;
        }
        self.stats.journal_waits += 1;
        if self.journal.has_unannounced() && self.forced.is_empty() {
            self.force(Forced::Announce);
        }
        if !self.checkpointing {
            self.errand(Errand::Checkpoint);
        }
        false
    }

    /// The largest group of appends that there is memory for. While memory is short a small one must do: what
    /// waits holds the memory, and would wait for ever for a larger chunk.
    fn group_limit(&self) -> usize {
        let mut limit = CHUNK_BYTES_MAX;
        while limit > GROUP_LIMIT_MIN && self.chunk(limit).is_none() {
            limit /= 2;
        }
        limit
    }

    /// Fills one group, with what is forced and with the logs that wait. `false` if none went out.
    fn form_group(&mut self) -> bool {
        self.group.clear();
        let mut bytes = 2 * HEADER_BYTES;
        let carries = self.forced.iter().any(|(_, what)| matches!(what, Forced::Carry(_)));
        let cramped = carries && self.journal.room(CHUNK_BYTES_MAX as u64, true).is_none();
        if cramped && self.journal.in_flight() == 0 && self.journal.has_unannounced() {
            // First a group that frees space, by itself: what is forced may be too large for what is left.
            return self.send_group(bytes as u64, Some(self.forced_done));
        }
        let forced = self.choose_forced(&mut bytes);
        // The reserve is for what frees space; appends wait for what it frees.
        let roomy = self.journal.room(CHUNK_BYTES_MAX as u64, false).is_some();
        let limit = self.group_limit();
        while (roomy || forced.is_none())
            && bytes + 2 * ENTRY_BYTES < limit
            && self.group.len() < GROUP_ENTRIES_MAX
        {
            let Some(id) = self.gathering.pop_front() else { break };
            ahead::expect(&self.logs, id, |ahead| self.gathering.get(ahead - 1).copied());
            let bounds = self.settings.bounds;
            let Some(log) = self.log(id) else { continue };
            log.gathering = false;
            let Step::Journal { segment: base, end } = log.step(bounds, false) else {
                self.look_at(id);
                continue;
            };
            let incarnation = log.identity.incarnation;
            let Some(segment) = log.segment(base) else { continue };
            let start = segment.journal_start();
            let room = (limit - bytes - 2 * ENTRY_BYTES) as u64;
            let end = start.plus(end.since(start).min(room));
            if end <= segment.claimed() {
                log.gathering = true;
                self.gathering.push_front(id);
                break;
            }
            bytes += end.since(start) as usize + 2 * ENTRY_BYTES;
            let reference = Reference { log: id, segment: base, start, end, claims: true };
            self.group.push(Chosen { entry: data(incarnation, reference), reference });
        }
        if self.gathering.is_empty() && self.group.is_empty() {
            self.gathered_bytes = 0;
        }
        if self.group.is_empty() && forced.is_none() {
            return false;
        }
        self.send_group(bytes as u64, forced)
    }

    /// Puts forced entries into the group. Returns the number of the last one.
    fn choose_forced(&mut self, bytes: &mut usize) -> Option<u64> {
        let mut last = None;
        while let Some(&(number, what)) = self.forced.front() {
            let more = match what {
                Forced::Carry(reference) => reference.end.since(reference.start) as usize,
                Forced::Ignore(_) | Forced::Announce => 0,
            };
            let full = *bytes + more + 2 * ENTRY_BYTES > CHUNK_BYTES_MAX
                || self.group.len() == GROUP_ENTRIES_MAX;
            if full {
                break;
            }
            self.forced.pop_front();
            last = Some(number);
            match what {
                Forced::Announce => continue,
                Forced::Ignore(incarnation) => {
                    let nothing = Reference {
                        log: LogId(u32::MAX),
                        segment: Offset::ZERO,
                        start: Pos::ZERO,
                        end: Pos::ZERO,
                        claims: false,
                    };
                    let entry = Entry { kind: EntryKind::Ignore, ..data(incarnation, nothing) };
                    self.group.push(Chosen { entry, reference: nothing });
                }
                Forced::Carry(reference) => {
                    let Some(log) = self.log(reference.log) else { continue };
                    let incarnation = log.identity.incarnation;
                    let Some(segment) = log.segment(reference.segment) else { continue };
                    // What was given back from memory is in the file for good: whole blocks, and flushed.
                    let start = reference.start.max(segment.window.base());
                    if start >= reference.end {
                        continue;
                    }
                    let reference = Reference { start, ..reference };
                    let entry = data(incarnation, reference);
                    self.group.push(Chosen { entry, reference });
                }
            }
            *bytes += more + 2 * ENTRY_BYTES;
        }
        last
    }

    /// Sends the group that was chosen, or puts its logs back if there is no memory for it.
    fn send_group(&mut self, bytes: u64, forced: Option<u64>) -> bool {
        let total = bytes.next_multiple_of(self.settings.shape.block);
        let room = self.journal.room(total, forced.is_some());
        let chunk = room.and_then(|_| self.chunk(total as usize));
        let group = std::mem::take(&mut self.group);
        let (Some(at), Some(chunk)) = (room, chunk) else {
            let held = group.iter().any(|chosen| !chosen.reference.claims);
            self.put_back(group, forced);
            if held && room.is_none() && self.journal.in_flight() == 0 {
                // Full of what fenced partitions can not write back, and of which no second copy finds room. It
                // keeps all that until the directory is opened again, and takes no more.
                self.fail_journal(Fault { operation: "freeing the journal", errno: libc::ENOSPC });
            }
            return false;
        };
        let mut writer = GroupWriter::new(chunk, group.iter().map(|chosen| chosen.entry));
        let mut claimed_all = 0;
        let (prepare, shape) = (self.settings.prepare, self.settings.shape);
        for (nth, Chosen { reference, .. }) in group.iter().enumerate() {
            self.expect_copies(&group[nth..]);
            if reference.start == reference.end {
                continue;
            }
            let Some(log) = self.logs[reference.log.0 as usize].as_deref_mut() else {
                unreachable!("chosen in this turn");
            };
            let policy = log.policy;
            let Some(segment) = log.segment(reference.segment) else {
                unreachable!("chosen in this turn");
            };
            segment.window.visit(reference.start, reference.end, |bytes| writer.append(bytes));
            if reference.claims {
                let claimed = reference.end.since(segment.claimed());
                segment.claim_journal(reference.end);
                self.gathered_bytes = self.gathered_bytes.saturating_sub(claimed);
                claimed_all += claimed;
                self.stats.journaled_bytes += claimed;
                if may_go_on(policy, segment) || is_wanting(prepare, shape, segment) {
                    self.look_at(reference.log);
                }
            }
        }
        self.note_crowd(claimed_all);
        if self.gathering.is_empty() {
            // What was counted for logs that went another way.
            self.gathered_bytes = 0;
        }
        let (chunk, header) = writer.finish(self.journal.header(), self.settings.shape.block);
        let references = group.iter().map(|chosen| chosen.reference);
        let pos = self.journal.begin(&header, at, references.filter(|r| r.start < r.end));
        self.group = group;
        self.forced_in_flight.extend(forced.map(|number| (number, header.sequence)));
        let data = chunk.slice(0..chunk.len());
        self.stats.groups += 1;
        self.stats.journal_bytes += data.len() as u64;
        let durable = self.settings.durability == Durability::Dsync;
        let token = Token::Group(header.sequence).encode();
        let file = self.journal_file;
        self.ops.push_back((token, Op::Write { file, pos, data, durable }));
        if self.journal.needed_bytes() > self.journal.ring_bytes() / 2 && !self.checkpointing {
            self.errand(Errand::Checkpoint);
        }
        if !std::mem::replace(&mut self.aging, true) {
            self.errands.push_back(Errand::Age);
        }
        true
    }

    /// Asks for what is copied after the bytes of the first entry.
    fn expect_copies(&self, group: &[Chosen]) {
        let later = |ahead: usize| group.get(ahead).map(|chosen| &chosen.reference);
        let now = group[0].reference.log;
        let log = ahead::expect(&self.logs, now, |ahead| Some(later(ahead)?.log));
        if let (Some(log), Some(at)) = (log, later(ahead::BYTES_AHEAD)) {
            log.expect_bytes(at.segment, at.start);
        }
    }

    fn put_back(&mut self, mut group: Vec<Chosen>, forced: Option<u64>) {
        for chosen in group.drain(..).rev() {
            if chosen.reference.claims {
                if let Some(log) = self.log(chosen.reference.log) {
                    log.gathering = true;
                }
                self.gathering.push_front(chosen.reference.log);
            } else {
                let what = match chosen.entry.kind {
                    EntryKind::Ignore => Forced::Ignore(chosen.entry.incarnation),
                    EntryKind::Data => Forced::Carry(chosen.reference),
                };
                // Only the last number matters: all are durable together or not at all.
                self.forced.push_front((forced.unwrap_or_default(), what));
            }
        }
        if let (Some(number), true) = (forced, self.forced.is_empty()) {
            self.forced.push_front((number, Forced::Announce));
        }
        self.group = group;
        self.errand(Errand::Checkpoint);
    }

    /// The journal takes nothing any more: nor does a log that needs it.
    fn fail_journal(&mut self, fault: Fault) {
        let inbox = &self.inbox;
        self.journal.fence(fault);
        self.stats.faults += 1;
        for log in self.logs.iter_mut().flatten() {
            if log.policy == FlushPolicy::Group || log.waits_for_journal() {
                log.fence(fault, |ended| tell(inbox, ended));
            }
        }
        self.progress.notify();
    }

    /// A group's write, and its flush, have ended.
    pub(crate) fn group_landed(&mut self, sequence: u64, fault: Option<Fault>) {
        if let Some(fault) = fault {
            self.fail_journal(fault);
            return;
        }
        if self.journal.fault().is_some() {
            return;
        }
        let inbox = &self.inbox;
        let logs = &mut self.logs;
        let (work, fetches) = (&mut self.work, &mut self.fetches);
        self.journal.landed(sequence, |reference, later| {
            ahead::expect(logs, reference.log, later);
            let Some(log) = logs[reference.log.0 as usize].as_deref_mut() else { return };
            let policy = log.policy;
            let Some(segment) = log.segment(reference.segment) else { return };
            // An empty one was voided by a truncation while the group was in flight.
            if reference.claims && reference.start < reference.end {
                segment.durable.finish(reference.start, reference.end);
            }
            let may_go_on = may_go_on(policy, segment);
            log.settle(|ended| tell(inbox, ended));
            fetches.note(log);
            if may_go_on && !log.queued {
                log.queued = true;
                work.push_back(reference.log);
            }
        });
        let durable = self.journal.durable_sequence();
        while let Some(&(number, sequence)) = self.forced_in_flight.front() {
            if sequence > durable {
                break;
            }
            self.forced_done = self.forced_done.max(number);
            self.forced_in_flight.pop_front();
        }
        self.progress.notify();
    }
}

fn data(incarnation: Incarnation, reference: Reference) -> Entry {
    Entry {
        incarnation,
        segment: reference.segment,
        pos: reference.start,
        bytes: reference.end.since(reference.start) as u32,
        kind: EntryKind::Data,
    }
}
