use std::fs;
use std::process::Command;
use std::time::Duration;

use super::*;
use crate::scratch::Scratch;

/// A history of one partition: which records of which producers lie there, in order.
fn value(producer: u32, sequence: u64) -> Vec<u8> {
    let mut value = vec![b'x'; 40];
    value[STAMP_BYTES..STAMP_BYTES + 8].copy_from_slice(&sequence.to_le_bytes());
    Stamp { producer, sequence }.put(&mut value);
    value
}

fn ack(producer: u32, sequence: u64, offset: i64) -> Ack {
    Ack { partition: 0, stamp: Stamp { producer, sequence }, offset }
}

fn verify(acks: &[Ack], records: &[(u32, u64)]) -> Tally {
    let values: Vec<_> = records.iter().map(|&(p, s)| value(p, s)).collect();
    let read = values.iter().enumerate().map(|(offset, v)| (0, offset as i64, v.as_slice()));
    check(acks.iter().copied(), read).tally
}

/// Producers 1 and 2 take turns: offsets 0 to 3.
fn sound() -> (Vec<Ack>, Vec<(u32, u64)>) {
    let acks = vec![ack(1, 0, 0), ack(2, 0, 1), ack(1, 1, 2), ack(2, 1, 3)];
    (acks, vec![(1, 0), (2, 0), (1, 1), (2, 1)])
}

#[test]
fn a_sound_history_is_clean() {
    let (acks, records) = sound();
    let tally = verify(&acks, &records);
    assert_eq!(tally, Tally { acked: 4, ..Tally::default() });
    assert!(tally.is_clean());
}

#[test]
fn what_was_written_and_never_acked_may_be_there() {
    let (acks, mut records) = sound();
    records.extend([(1, 2), (3, 0)]);
    assert!(verify(&acks, &records).is_clean());
}

#[test]
fn a_lost_tail_is_found() {
    let (acks, mut records) = sound();
    records.pop();
    assert_eq!(verify(&acks, &records), Tally { acked: 4, lost: 1, ..Tally::default() });
}

#[test]
fn an_ack_covers_what_its_producer_sent_before() {
    let (mut acks, mut records) = sound();
    acks.remove(0);
    records.remove(0);
    let tally = verify(&acks, &records);
    assert_eq!(tally.lost, 1, "record 0 of producer 1, whose ack was not reported");
}

#[test]
fn a_record_lost_in_the_middle_shifts_all_behind_it() {
    let (acks, mut records) = sound();
    records.remove(1);
    let tally = verify(&acks, &records);
    assert_eq!((tally.lost, tally.reordered), (1, 2), "the two behind it lie at other offsets");
}

#[test]
fn a_duplicate_is_found() {
    let (acks, mut records) = sound();
    records.push((1, 1));
    assert_eq!(verify(&acks, &records), Tally { acked: 4, duplicated: 1, ..Tally::default() });
}

#[test]
fn a_swap_is_found() {
    let (acks, mut records) = sound();
    records.swap(0, 2);
    let tally = verify(&acks, &records);
    assert_eq!((tally.lost, tally.duplicated, tally.corrupt), (0, 0, 0));
    assert!(tally.reordered >= 1);
}

#[test]
fn unacked_records_out_of_order_are_found() {
    assert_eq!(verify(&[], &[(1, 1), (1, 0)]).reordered, 1);
}

#[test]
fn every_flipped_bit_of_a_value_is_found() {
    let sound = value(7, 5);
    for bit in 0..sound.len() * 8 {
        let mut damaged = sound.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let tally = check([], [(0, 0, damaged.as_slice())]).tally;
        assert_eq!(tally.corrupt, 1, "bit {bit}");
    }
}

#[test]
fn a_corrupt_acked_record_is_corrupt_and_lost() {
    let mut damaged = value(1, 0);
    damaged[30] ^= 1;
    let tally = check([ack(1, 0, 0)], [(0, 0, damaged.as_slice())]).tally;
    assert_eq!((tally.corrupt, tally.lost), (1, 1));
}

#[test]
fn a_value_shorter_than_a_stamp_is_corrupt() {
    for len in 0..STAMP_BYTES {
        let value = vec![0; len];
        assert_eq!(check([], [(0, 0, value.as_slice())]).tally.corrupt, 1);
    }
}

#[test]
fn a_gap_between_offsets_is_found() {
    let (a, b) = (value(1, 0), value(1, 1));
    let tally = check([], [(0, 10, a.as_slice()), (0, 12, b.as_slice())]).tally;
    assert_eq!(tally.corrupt, 1);
}

#[test]
fn a_record_in_the_wrong_partition_is_lost_from_its_own() {
    let value = value(1, 0);
    let tally = check([ack(1, 0, 0)], [(9, 0, value.as_slice())]).tally;
    assert_eq!(tally.lost, 1);
}

#[test]
fn damages_are_named_and_bounded() {
    let acks = (0..1000).map(|sequence| ack(1, sequence, sequence as i64));
    let findings = check(acks, []);
    assert_eq!(findings.tally.lost, 1000);
    assert_eq!(findings.examples.len(), EXAMPLES_MAX);
    assert_eq!(findings.examples[0].to_string(), "partition 0: record 0 of producer 1 is lost");
}

fn report(acks: &[Ack]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut reporter = Reporter::new(&mut bytes);
    for &ack in acks {
        reporter.ack(ack).expect("memory takes all");
    }
    reporter.flush().expect("memory takes all");
    bytes
}

#[test]
fn a_report_cut_anywhere_yields_whole_frames_only() {
    let acks: Vec<_> = (0..400).map(|n| ack(n as u32 % 3, n, n as i64)).collect();
    let bytes = report(&acks);
    let frames: Vec<usize> = vec![170, 340];
    for cut in (0..bytes.len()).step_by(7).chain([bytes.len()]) {
        let mut got = Vec::new();
        collect(&bytes[..cut], |ack| got.push(ack)).expect("a torn end is no error");
        assert!(got.is_empty() || got.len() == 400 || frames.contains(&got.len()));
        assert_eq!(got, acks[..got.len()]);
    }
}

#[test]
fn a_foreign_report_is_refused() {
    assert!(collect(&b"hello, parent"[..], |_| ()).is_err());
}

#[test]
fn a_killed_child_leaves_what_it_reported() {
    let scratch = Scratch::new("oracle-killed");
    let file = scratch.path().join("report");
    let acks: Vec<_> = (0..1000).map(|n| ack(0, n, n as i64)).collect();
    fs::write(&file, report(&acks)).expect("written");
    // Reports, then goes on for ever: only SIGKILL ends it.
    let mut child = Command::new("sh");
    child.arg("-c").arg("cat \"$0\"; trap '' TERM; exec tail -f /dev/null").arg(&file);
    let got = run_until_killed(&mut child, Duration::ZERO, 1000).expect("killed");
    assert_eq!(got, acks);
}

#[test]
fn a_child_that_ends_by_itself_is_an_error() {
    let mut child = Command::new("sh");
    child.arg("-c").arg("exit 3");
    let error = run_until_killed(&mut child, Duration::from_secs(20), 1).expect_err("it ended");
    assert!(error.to_string().contains("by itself"), "{error}");
}
