use super::*;
use crate::payload::Payload;
use crate::run::maker::Maker;
use crate::run::workload::Workload;

/// Batches as a backend keeps them, by partition.
struct Kept(Vec<Vec<Vec<u8>>>);

impl Reader for Kept {
    fn fetch(&mut self, partition: u32, offset: i64, _: usize, into: &mut Vec<u8>) -> Result<()> {
        for batch in &self.0[partition as usize] {
            let base = i64::from_be_bytes(batch[..8].try_into().expect("eight"));
            if base >= offset {
                into.extend_from_slice(batch);
            }
        }
        Ok(())
    }
}

fn renumber(batches: &mut [Vec<u8>]) {
    for (nth, batch) in batches.iter_mut().enumerate() {
        batch[..8].copy_from_slice(&(nth as i64 * 5).to_be_bytes());
    }
}

/// Two producers, two partitions, batches of five records.
fn loaded() -> (Vec<Entry>, Kept) {
    let text = "producers = 2\npartitions = 2\nbatch-records = 5\nrecord-bytes = 50";
    let workload = Workload::from_toml(text).expect("a workload");
    let payload = Payload::generated(1 << 20);
    let mut maker = Maker::new(&workload, &payload, 0).expect("a maker");
    let (mut entries, mut kept) = (Vec::new(), Kept(vec![Vec::new(), Vec::new()]));
    for producer in (0..2).cycle().take(40) {
        let made = maker.make(producer, Vec::new(), 7).expect("made");
        let place = &mut kept.0[made.partition as usize];
        let offset = place.len() as i64 * 5;
        let mut bytes = made.batch.into_bytes();
        bytes[..8].copy_from_slice(&offset.to_be_bytes());
        place.push(bytes);
        let (partition, sequence) = (made.partition, made.sequence);
        entries.push(Entry { partition, producer, sequence, offset, records: 5 });
    }
    (entries, kept)
}

fn after(change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Tally {
    let (entries, mut kept) = loaded();
    let mut ledger = Ledger::new(2, 2);
    for entry in entries {
        ledger.acked(entry);
    }
    change(&mut kept.0[1]);
    ledger.verify(&mut kept).expect("readable").tally
}

#[test]
fn all_that_was_acked_and_is_there_is_clean() {
    let tally = after(|_| ());
    assert_eq!(tally, Tally { acked: 200, ..Tally::default() });
}

#[test]
fn each_kind_of_damage_is_counted_as_what_it_is() {
    let lost_at_end = after(|batches| {
        batches.pop();
    });
    assert_eq!((lost_at_end.lost, lost_at_end.duplicated), (5, 0));
    let lost_inside = after(|batches| {
        batches.remove(3);
        renumber(batches);
    });
    assert_eq!((lost_inside.lost, lost_inside.reordered, lost_inside.corrupt), (5, 0, 0));
    let twice = after(|batches| {
        batches.insert(4, batches[2].clone());
        renumber(batches);
    });
    assert_eq!((twice.duplicated, twice.lost), (5, 0));
    let swapped = after(|batches| {
        let same_producer = (3, 5);
        batches.swap(same_producer.0, same_producer.1);
        renumber(batches);
    });
    assert_eq!((swapped.reordered, swapped.lost, swapped.duplicated), (5, 0, 0));
    let flipped = after(|batches| batches[6][80] ^= 1);
    assert!(flipped.corrupt > 0);
    let gap = after(|batches| {
        let far = 1000_i64;
        batches.last_mut().expect("one")[..8].copy_from_slice(&far.to_be_bytes());
    });
    assert!(gap.corrupt > 0);
}

#[test]
fn batches_that_changed_places_across_producers_are_not_where_their_acks_said() {
    let tally = after(|batches| {
        batches.swap(2, 3);
        renumber(batches);
    });
    assert_eq!((tally.reordered, tally.lost, tally.corrupt), (1, 0, 0));
}

/// What a kill leaves, when the last acks of partition 1 were given and not told.
fn after_kill(change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Tally {
    let (mut entries, mut kept) = loaded();
    let last = entries.iter().filter(|entry| entry.partition == 1).map(|entry| entry.offset).max();
    entries.retain(|entry| entry.partition == 0 || Some(entry.offset) != last);
    let mut told = Told::default();
    for entry in entries {
        told.acked(entry);
    }
    change(&mut kept.0[1]);
    let workload = Workload::from_toml("producers = 2\npartitions = 2").expect("a workload");
    told.verify(&workload, &mut kept).expect("readable").tally
}

#[test]
fn after_a_kill_more_may_be_there_and_what_was_told_must_be() {
    let clean = Tally { acked: 195, ..Tally::default() };
    assert_eq!(after_kill(|_| ()), clean, "one more than was told");
    assert_eq!(after_kill(|batches| drop(batches.pop())), clean, "just what was told");
    let lost = after_kill(|batches| batches.truncate(batches.len() - 2));
    assert_eq!(lost, Tally { lost: 5, ..clean });
    let twice = after_kill(|batches| {
        let last = batches[batches.len() - 1].clone();
        batches.push(last);
        renumber(batches);
    });
    assert_eq!(twice, Tally { duplicated: 5, ..clean });
    let swapped = after_kill(|batches| {
        batches.swap(3, 5);
        renumber(batches);
    });
    assert!(swapped.lost > 0 && swapped.reordered > 0, "{swapped:?}");
}
