//! What a journal says after a crash: which groups count, in which order, and what is damaged.
//!
//! The groups of the file's epoch are found wherever they lie and put in order of sequence. The last one
//! counts only if the one before it is whole: two are in flight at most, and a group that landed before
//! its predecessor was never acknowledged. A hole further back is corruption.

use std::collections::{BTreeMap, HashMap};

use super::GROUPS_IN_FLIGHT_MAX;
use super::group::{Entry, EntryKind, Group, remains_at_head, remains_at_tail};
use crate::types::Incarnation;

/// Whose acknowledged bytes a damaged group may have held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Suspects {
    /// These partitions, by the group's table.
    Named(Vec<Incarnation>),
    /// Any: both of the group's tables are damaged.
    All,
}

/// A group that was acknowledged and is not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DamagedGroup {
    /// Its sequence.
    pub(crate) sequence: u64,
    /// Where in the ring it is looked for, in bytes.
    pub(crate) pos: u64,
    /// Whose bytes it may have held.
    pub(crate) suspects: Suspects,
}

/// The journal's content that counts.
#[derive(Debug, Default)]
pub(crate) struct Replay<'a> {
    /// Bytes to lay over segments, oldest group first.
    pub(crate) overlay: Vec<(Entry, &'a [u8])>,
    /// Damage.
    pub(crate) damaged: Vec<DamagedGroup>,
    /// Groups that count.
    pub(crate) groups: u64,
}

struct Found<'a> {
    at: usize,
    end: usize,
    group: Group<'a>,
}

/// Reads the ring area (what lies behind the file header) of a journal in its `epoch`.
pub(crate) fn replay(ring: &[u8], block: u64, epoch: u64) -> Replay<'_> {
    let found = find_groups(ring, block, epoch);
    let Some((&newest, newest_group)) = found.last_key_value() else { return Replay::default() };
    // What the newest group says of older ones was true when it was written, even if it was not acked.
    let oldest = newest_group.group.header.oldest_needed;
    let last = last_that_counts(&found, newest, oldest);
    if last < oldest {
        // The newest does not count, and it says that nothing before its torn neighbour is needed.
        return Replay::default();
    }
    let damaged = damage(ring, block, epoch, &found, oldest..=last);
    let mut out = Replay { damaged, ..Replay::default() };
    let counting = || found.range(oldest..=last);
    let mut ignored: HashMap<Incarnation, u64> = HashMap::new();
    for (&sequence, found) in counting() {
        out.groups += 1;
        for (entry, _) in found.group.entries().filter(|(e, _)| e.kind == EntryKind::Ignore) {
            ignored.insert(entry.incarnation, sequence);
        }
    }
    for (&sequence, found) in counting() {
        let live = found.group.entries().filter(|(entry, _)| {
            entry.kind == EntryKind::Data
                && ignored.get(&entry.incarnation).is_none_or(|&before| sequence >= before)
        });
        out.overlay.extend(live);
    }
    out
}

fn find_groups(ring: &[u8], block: u64, epoch: u64) -> BTreeMap<u64, Found<'_>> {
    let mut found = BTreeMap::new();
    let mut at = 0;
    while at < ring.len() {
        let Some(group) = Group::parse(&ring[at..], block) else {
            at += block as usize;
            continue;
        };
        let end = at + group.header.group_bytes(block) as usize;
        if group.header.epoch == epoch {
            found.insert(group.header.sequence, Found { at, end, group });
        }
        at = end;
    }
    found
}

/// A group counts if its predecessor is whole and is the one it names, or is needed no more.
fn last_that_counts(found: &BTreeMap<u64, Found<'_>>, newest: u64, oldest: u64) -> u64 {
    let follows = |sequence: u64| {
        let header = &found[&sequence].group.header;
        let names = |before: &Found<'_>| before.group.header.crc() == header.previous_crc;
        sequence == oldest && !found.contains_key(&(sequence - 1))
            || sequence == 1
            || found.get(&(sequence - 1)).is_some_and(names)
    };
    if follows(newest) { newest } else { newest.saturating_sub(GROUPS_IN_FLIGHT_MAX as u64) }
}

fn damage(
    ring: &[u8],
    block: u64,
    epoch: u64,
    found: &BTreeMap<u64, Found<'_>>,
    needed: std::ops::RangeInclusive<u64>,
) -> Vec<DamagedGroup> {
    let mut damaged = Vec::new();
    for sequence in needed.filter(|sequence| !found.contains_key(sequence)) {
        let from = found.range(..sequence).next_back().map_or(0, |(_, found)| found.end);
        let to = found.range(sequence..).next().map_or(ring.len(), |(_, found)| found.at);
        let runs = if from <= to { [from..to, 0..0] } else { [from..ring.len(), 0..to] };
        let mut suspects = Suspects::All;
        for at in runs.iter().flat_map(|run| run.clone().step_by(block as usize)) {
            let end = (at + block as usize).min(ring.len());
            let head = remains_at_head(&ring[at..]);
            let tail = remains_at_tail(&ring[..end]);
            for remains in head.into_iter().chain(tail) {
                let it = remains.header.epoch == epoch && remains.header.sequence == sequence;
                if let (true, Some(named)) = (it, remains.incarnations) {
                    suspects = Suspects::Named(named);
                }
            }
        }
        damaged.push(DamagedGroup { sequence, pos: from as u64, suspects });
    }
    damaged
}
