use super::*;
use crate::buffers::Arena;
use crate::command::FileHandle;
use crate::error::Fault;
use crate::index::Index;
use crate::journal::LogId;
use crate::log::{Append, Identity, Shape, Ticket, ahead};
use crate::types::{Incarnation, PartitionName};

const BLOCK: u64 = 4096;
const DIRECT: u64 = 128 << 10;
const BOUNDS: Bounds = Bounds { direct_bytes: DIRECT, force_direct: false };
const BASE: Offset = Offset::new(0);

/// A log with an open file of 16 MiB of prepared space, and the memory for it.
fn log(policy: FlushPolicy) -> (Log, Arena) {
    let identity = Identity {
        id: LogId(0),
        name: PartitionName::new("orders", 0).expect("a legal name"),
        incarnation: Incarnation(1),
        dir: "orders-0".into(),
    };
    let shape =
        Shape { block: BLOCK, segment_bytes: 1 << 30, roll_ms: u64::MAX, index_interval: 4096 };
    let mut segment = Segment::new(BASE, BLOCK, Index::new(BASE, 4096));
    segment.file = Some(FileHandle(3));
    segment.prepared = Pos::ZERO.plus(16 << 20);
    segment.entry_durable = true;
    (Log::new(identity, shape, policy, (Vec::new(), segment), (BASE, BASE)), Arena::new(32 << 20))
}

fn append((log, arena): &mut (Log, Arena), bytes: u64) {
    let append = Append {
        bytes: &vec![7; bytes as usize],
        records: 1,
        crc: 0,
        max_timestamp: 0,
        ticket: Ticket(0),
        at: None,
    };
    log.append(arena, &append, 0).expect("there is memory");
}

/// The journal takes all there is, and holds it durably.
fn journal(log: &mut Log) {
    let active = log.active();
    let end = active.end();
    let start = active.claim_journal(end);
    active.durable.finish(start, end);
}

fn at(bytes: u64) -> Pos {
    Pos::ZERO.plus(bytes)
}

fn write(end: u64, purpose: Purpose) -> Step {
    Step::Write { segment: BASE, end: at(end), purpose }
}

fn into_journal(end: u64) -> Step {
    Step::Journal { segment: BASE, end: at(end) }
}

#[test]
fn a_small_group_goes_into_the_journal_and_a_large_one_straight_to_its_segment() {
    let mut it = log(FlushPolicy::Group);
    assert_eq!(it.0.step(BOUNDS, true), Step::Wait);
    append(&mut it, 1000);
    assert_eq!(it.0.step(BOUNDS, true), into_journal(1000));
    append(&mut it, DIRECT);
    // Whole blocks only: the rest waits for more, or for the journal.
    assert_eq!(it.0.step(BOUNDS, true), write(DIRECT, Purpose::Durable));
}

#[test]
fn what_the_journal_holds_is_written_before_a_large_group_behind_it() {
    let mut it = log(FlushPolicy::Group);
    append(&mut it, WRITE_BACK_BYTES);
    journal(&mut it.0);
    append(&mut it, DIRECT);
    let first = write(WRITE_BACK_BYTES, Purpose::Written);
    assert_eq!(it.0.step(BOUNDS, false), first);
    it.0.active().begin_write(at(WRITE_BACK_BYTES), false);
    let behind = write(WRITE_BACK_BYTES + DIRECT, Purpose::Durable);
    assert_eq!(it.0.step(BOUNDS, false), behind);
}

#[test]
fn a_large_group_goes_into_the_journal_while_much_before_it_is_yet_to_be_written() {
    let mut it = log(FlushPolicy::Group);
    let before = WRITE_BACK_BYTES + BLOCK;
    append(&mut it, before);
    journal(&mut it.0);
    append(&mut it, DIRECT);
    let both = into_journal(before + DIRECT);
    assert_eq!(it.0.step(BOUNDS, false), both, "nothing may be written back now");
    assert_eq!(it.0.step(BOUNDS, true), write(before, Purpose::WriteBack), "it comes first");
    // A benchmark that asks for direct writes gets them.
    let forced = Bounds { force_direct: true, ..BOUNDS };
    assert_eq!(it.0.step(forced, false), write(before, Purpose::Written));
}

#[test]
fn what_piles_up_is_written_back_although_more_comes_for_the_journal() {
    let mut it = log(FlushPolicy::Group);
    append(&mut it, WRITE_BACK_BYTES - BLOCK);
    journal(&mut it.0);
    append(&mut it, 100);
    assert_eq!(it.0.step(BOUNDS, true), into_journal(WRITE_BACK_BYTES - BLOCK + 100), "too little");
    append(&mut it, BLOCK);
    journal(&mut it.0);
    assert_eq!(it.0.step(BOUNDS, false), Step::Wait, "others are being written back");
    append(&mut it, 100);
    assert_eq!(it.0.step(BOUNDS, true), write(WRITE_BACK_BYTES, Purpose::WriteBack));
    it.0.active().begin_write(at(WRITE_BACK_BYTES), false);
    assert_eq!(it.0.step(BOUNDS, true), into_journal(WRITE_BACK_BYTES + 200));
}

#[test]
fn a_second_large_group_waits_until_it_has_as_many_bytes_as_the_one_in_flight() {
    let mut it = log(FlushPolicy::Group);
    append(&mut it, 2 * DIRECT);
    it.0.active().begin_write(at(2 * DIRECT), true);
    append(&mut it, DIRECT);
    assert_eq!(it.0.step(BOUNDS, true), Step::Wait);
    append(&mut it, DIRECT);
    assert_eq!(it.0.step(BOUNDS, true), write(4 * DIRECT, Purpose::Durable));
    it.0.active().finish_write(Pos::ZERO, at(2 * DIRECT), true);
}

#[test]
fn under_os_blocks_are_written_at_once_and_gather_while_a_write_is_in_flight() {
    let mut it = log(FlushPolicy::Os);
    append(&mut it, 2 * BLOCK + 1);
    assert_eq!(it.0.step(BOUNDS, true), write(2 * BLOCK, Purpose::Written));
    it.0.active().begin_write(at(2 * BLOCK), false);
    append(&mut it, DIRECT_GATHER_BYTES - BLOCK);
    assert_eq!(it.0.step(BOUNDS, true), Step::Wait);
    append(&mut it, BLOCK);
    assert_eq!(it.0.step(BOUNDS, true), write(2 * BLOCK + DIRECT_GATHER_BYTES, Purpose::Written));
    it.0.active().begin_write(at(2 * BLOCK + DIRECT_GATHER_BYTES), false);
    it.0.active().finish_write(Pos::ZERO, at(2 * BLOCK), false);
    it.0.active().finish_write(at(2 * BLOCK), at(2 * BLOCK + DIRECT_GATHER_BYTES), false);
    assert_eq!(it.0.step(BOUNDS, true), Step::WriteTail { segment: BASE }, "one byte is left");
}

#[test]
fn what_was_written_under_os_is_flushed_before_the_next_durable_claim() {
    let mut it = log(FlushPolicy::Os);
    append(&mut it, 2 * BLOCK);
    it.0.active().begin_write(at(2 * BLOCK), false);
    it.0.active().finish_write(Pos::ZERO, at(2 * BLOCK), false);
    it.0.policy = FlushPolicy::Group;
    append(&mut it, 100);
    assert_eq!(it.0.step(BOUNDS, true), Step::Flush);
    it.0.flushing = true;
    assert_eq!(it.0.step(BOUNDS, true), Step::Wait, "one flush at a time");
    it.0.flushing = false;
    it.0.finish_flush(BASE, at(2 * BLOCK));
    assert_eq!(it.0.step(BOUNDS, true), into_journal(2 * BLOCK + 100));
}

#[test]
fn a_fenced_log_does_nothing_more() {
    let mut it = log(FlushPolicy::Group);
    append(&mut it, 1000);
    let mut lost = 0;
    it.0.fence(Fault { operation: "a write", errno: 5 }, |_| lost += 1);
    assert_eq!((it.0.step(BOUNDS, true), lost), (Step::Wait, 1));
}

#[test]
fn any_log_and_any_place_can_be_fetched_ahead() {
    let mut pair = log(FlushPolicy::Group);
    for _ in 0..4 {
        let (log, arena) = pair;
        let seen = |log: &Log| (log.step(BOUNDS, true), log.watermarks(), log.end());
        let before = seen(&log);
        log.expect_append();
        for start in [0, 1, 4095, 10_000, 1 << 30] {
            log.expect_bytes(BASE, at(start));
            log.expect_bytes(Offset::new(7), at(start));
        }
        let mut logs = [Some(Box::new(log))];
        assert!(ahead::expect(&logs, LogId(1), |_| Some(LogId(0))).is_some());
        assert!(ahead::expect(&logs, LogId(0), |_| Some(LogId(0))).is_none(), "it is at hand");
        assert!(ahead::expect(&logs, LogId(1), |_| Some(LogId(u32::MAX))).is_none(), "no log");
        assert!(ahead::expect(&logs, LogId(1), |_| None).is_none());
        let log = *logs[0].take().expect("just put in");
        assert_eq!(seen(&log), before);
        pair = (log, arena);
        append(&mut pair, 3000);
    }
}
