//! What a journal says after a crash: which groups count, in which order, and what is damaged.
//!
//! The groups of the file's epoch are found wherever they lie and put in order of sequence. The last one
//! counts only if the one before it is whole: two are in flight at most, and a group that landed before
//! its predecessor was never acknowledged. A hole further back is corruption.

use std::collections::{BTreeMap, HashMap};

use super::GROUPS_IN_FLIGHT_MAX;
use super::group::{Entry, EntryKind, Group, remains_at_head, remains_at_tail};
use crate::defects::{self, Defect};
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
    let last = last - u64::from(defects::is(Defect::LoseRingEnd));
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
                && (defects::is(Defect::SkipIgnoreRecords)
                    || ignored.get(&entry.incarnation).is_none_or(|&before| sequence >= before))
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
        if group.header.epoch == epoch || defects::is(Defect::ReplayStaleGroups) {
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
        let before = sequence.checked_sub(1).and_then(|before| found.get(&before));
        sequence == oldest && before.is_none() || sequence == 1 || before.is_some_and(names)
    };
    if follows(newest) || defects::is(Defect::AcceptSuccessor) {
        newest
    } else {
        newest.saturating_sub(GROUPS_IN_FLIGHT_MAX as u64)
    }
}

/// The groups that are needed and not whole, and whose bytes they may have held.
fn damage(
    ring: &[u8],
    block: u64,
    epoch: u64,
    found: &BTreeMap<u64, Found<'_>>,
    needed: std::ops::RangeInclusive<u64>,
) -> Vec<DamagedGroup> {
    // A group has a block at least. A ring that is to hold more of them than it has blocks is cut, or its newest header
    // lies: either way nothing is known of so many, and they are not counted one by one.
    if needed.end() - needed.start() >= (ring.len() as u64).div_ceil(block) {
        let sequence = *needed.start();
        return vec![DamagedGroup { sequence, pos: 0, suspects: Suspects::All }];
    }
    let mut damaged = Vec::new();
    let mut gap: Option<((usize, usize), BTreeMap<u64, Vec<Incarnation>>)> = None;
    for sequence in needed.filter(|sequence| !found.contains_key(sequence)) {
        let from = found.range(..sequence).next_back().map_or(0, |(_, found)| found.end);
        let to = found.range(sequence..).next().map_or(ring.len(), |(_, found)| found.at);
        // Neighbours that are both missing lie in one gap: it is gone through once.
        let (_, left) = match gap.take().filter(|(bounds, _)| *bounds == (from, to)) {
            Some(known) => gap.insert(known),
            None => gap.insert(((from, to), remains(ring, block, epoch, (from, to)))),
        };
        let suspects = left.remove(&sequence).map_or(Suspects::All, Suspects::Named);
        damaged.push(DamagedGroup { sequence, pos: from as u64, suspects });
    }
    damaged
}

/// Whose bytes the groups held of which a header or a trailer is left between two places of the ring, by sequence.
fn remains(
    ring: &[u8],
    block: u64,
    epoch: u64,
    (from, to): (usize, usize),
) -> BTreeMap<u64, Vec<Incarnation>> {
    let runs = if from <= to { [from..to, 0..0] } else { [from..ring.len(), 0..to] };
    let mut left = BTreeMap::new();
    for at in runs.into_iter().flat_map(|run| run.step_by(block as usize)) {
        let end = (at + block as usize).min(ring.len());
        let (head, tail) = (remains_at_head(&ring[at..]), remains_at_tail(&ring[..end]));
        for remains in head.into_iter().chain(tail) {
            if let (true, Some(named)) = (remains.header.epoch == epoch, remains.incarnations) {
                left.insert(remains.header.sequence, named);
            }
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffers::Arena;
    use crate::journal::group::{GroupHeader, GroupWriter};
    use crate::types::{Offset, Pos};

    const BLOCK: u64 = 4096;
    const EPOCH: u64 = 7;

    fn entry(incarnation: u64) -> Entry {
        let (segment, pos, kind) = (Offset::ZERO, Pos::ZERO, EntryKind::Data);
        Entry { incarnation: Incarnation(incarnation), segment, pos, bytes: 5, kind }
    }

    /// A whole group of one block, with five bytes of the partition `sequence`.
    fn group(sequence: u64, oldest_needed: u64, previous_crc: u32) -> (Vec<u8>, u32) {
        let chunk = Arena::new(64 << 10).chunk(BLOCK as usize).expect("room");
        let mut writer = GroupWriter::new(chunk, [entry(sequence)].into_iter());
        writer.append(b"bytes");
        let header =
            GroupHeader { sequence, previous_crc, oldest_needed, ..GroupHeader::first(EPOCH) };
        let (chunk, header) = writer.finish(header, BLOCK);
        (chunk.to_vec(), header.crc())
    }

    /// A ring of `count` groups, each of which needs all before it.
    fn ring(count: u64) -> Vec<u8> {
        let (mut ring, mut previous) = (Vec::new(), 0);
        for sequence in 1..=count {
            let (bytes, crc) = group(sequence, 1, previous);
            ring.extend(bytes);
            previous = crc;
        }
        ring.resize(ring.len() + 4 * BLOCK as usize, 0);
        ring
    }

    #[test]
    fn what_is_missing_is_named_by_what_is_left_of_it() {
        let mut ring = ring(8);
        assert_eq!(replay(&ring, BLOCK, EPOCH).groups, 8);
        let block = |nth: u64| (nth * BLOCK) as usize;
        ring[block(2) + 100] ^= 1; // group 3: its data
        ring[block(3)..block(4)].fill(0); // group 4: all of it
        let said = replay(&ring, BLOCK, EPOCH);
        assert_eq!(said.groups, 6);
        let pos = 2 * BLOCK;
        let named = Suspects::Named(vec![Incarnation(3)]);
        let damaged = [
            DamagedGroup { sequence: 3, pos, suspects: named },
            DamagedGroup { sequence: 4, pos, suspects: Suspects::All },
        ];
        assert_eq!(said.damaged, damaged);
    }

    #[test]
    fn a_header_that_needs_more_groups_than_there_is_room_for_is_damage_and_not_counted_by() {
        for (sequence, oldest) in [(u64::MAX, 1), (1 << 60, 0), (100, 1)] {
            let mut ring = ring(8);
            let (lying, crc) = group(sequence - 1, oldest, 0);
            let (newest, _) = group(sequence, oldest, crc);
            ring[..BLOCK as usize].copy_from_slice(&lying);
            ring[BLOCK as usize..2 * BLOCK as usize].copy_from_slice(&newest);
            let said = replay(&ring, BLOCK, EPOCH);
            let told = DamagedGroup { sequence: oldest, pos: 0, suspects: Suspects::All };
            assert_eq!(said.damaged, [told], "{sequence}");
        }
    }

    #[test]
    fn a_group_of_sequence_zero_is_no_reason_to_fall() {
        let (mut ring, _) = group(0, 0, 0);
        ring.resize(4 * BLOCK as usize, 0);
        assert_eq!(replay(&ring, BLOCK, EPOCH).groups, 1);
    }
}
