//! What is appended is read back: whole, in order, at the offsets of the ack.

use ringmain::batch::batches;
use ringmain::error::{AppendError, Outcome, ReadError};
use ringmain::types::{Durability, FlushPolicy, Isolation, Offset};
use ringmain::{Config, DiskTimes, Durations, Engine};

use crate::support::{batch, everywhere, id_of, ids, read_all, value};

const POLICIES: [FlushPolicy; 3] = [
    FlushPolicy::Group,
    FlushPolicy::Interval { ms: 20, bytes: 100_000, messages: 1000 },
    FlushPolicy::Os,
];

#[test]
fn what_was_acked_is_read_back_in_order() {
    everywhere("in-order", |config| {
        for (number, policy) in POLICIES.into_iter().enumerate() {
            let engine = Engine::open(config.clone()).unwrap();
            let log = engine.log("orders", number as u32).unwrap();
            log.set_flush_policy_blocking(policy).unwrap();
            let mut sent = Vec::new();
            let mut waiting = Vec::new();
            // Small ones share groups, large ones go straight to the segment, some cross a roll.
            for n in 0..120 {
                let bytes = [30, 700, 5000, 90_000][n as usize % 4];
                let records = 1 + n % 3;
                let made: Vec<u64> = (0..records).map(|r| n * 10 + r).collect();
                let first = sent.len() as i64;
                sent.extend(&made);
                let future = log.append(batch(made, bytes));
                waiting.push((first, records, future));
                if waiting.len() == 8 {
                    for (first, records, future) in waiting.drain(..) {
                        let appended = crate::support::block_on(future).unwrap();
                        assert_eq!(appended.base_offset.get(), first);
                        assert_eq!(appended.last_offset.get(), first + records as i64 - 1);
                    }
                }
            }
            assert_eq!(ids(&log), sent, "{policy:?}");
            engine.close().unwrap();
            let engine = Engine::open(config.clone()).unwrap();
            assert_eq!(ids(&engine.log("orders", number as u32).unwrap()), sent, "{policy:?}");
        }
    });
}

#[test]
fn group_acks_are_durable_and_others_say_what_they_are() {
    everywhere("watermarks", |config| {
        let engine = Engine::open(config).unwrap();
        let group = engine.log("group", 0).unwrap();
        group.append_blocking(batch(0..10, 100)).unwrap();
        let marks = group.watermarks_blocking().unwrap();
        assert_eq!((marks.durable.get(), marks.dirty.get()), (10, 10));
        let os = engine.log("os", 0).unwrap();
        os.set_flush_policy_blocking(FlushPolicy::Os).unwrap();
        os.append_blocking(batch(0..10, 100)).unwrap();
        let marks = os.watermarks_blocking().unwrap();
        assert_eq!((marks.durable.get(), marks.dirty.get()), (0, 10));
        assert!(os.read_blocking(Offset::ZERO, 1 << 20, Isolation::Durable).unwrap().is_empty());
        assert_eq!(read_all(&os, Offset::ZERO, Isolation::Dirty).len(), 10);
        os.flush_blocking().unwrap();
        assert_eq!(os.watermarks_blocking().unwrap().durable.get(), 10);
        assert_eq!(read_all(&os, Offset::ZERO, Isolation::Durable).len(), 10);
    });
}

#[test]
fn a_read_begins_with_the_batch_that_holds_the_offset() {
    everywhere("reads", |config| {
        let engine = Engine::open(config).unwrap();
        let log = engine.log("reads", 0).unwrap();
        for n in 0..50 {
            log.append_blocking(batch(n * 4..n * 4 + 4, 300)).unwrap();
        }
        log.roll_blocking().unwrap();
        log.append_blocking(batch(200..204, 300)).unwrap();
        for offset in [0, 1, 7, 100, 199, 200, 203] {
            let bytes = log.read_blocking(Offset::new(offset), 1, Isolation::Durable).unwrap();
            let found: Vec<_> = batches(&bytes).map(Result::unwrap).collect();
            assert_eq!(found.len(), 1, "at least one batch, whatever it is asked for");
            assert_eq!(found[0].base_offset().get(), offset / 4 * 4);
        }
        let bytes = log.read_blocking(Offset::new(8), 4000, Isolation::Durable).unwrap();
        assert!(bytes.len() <= 4000 && bytes.len() > 2000, "{}", bytes.len());
        assert!(log.read_blocking(Offset::new(204), 1, Isolation::Durable).unwrap().is_empty());
        let beyond = log.read_blocking(Offset::new(205), 1, Isolation::Durable);
        let (asked, end) = (Offset::new(205), Offset::new(204));
        assert_eq!(beyond, Err(ReadError::OutOfRange { asked, start: Offset::ZERO, end }));
    });
}

#[test]
fn read_into_fills_what_it_was_given() {
    everywhere("read-into", |config| {
        let engine = Engine::open(config).unwrap();
        let log = engine.log("into", 0).unwrap();
        for n in 0..20 {
            log.append_blocking(batch([n], 1000)).unwrap();
        }
        let given = Vec::with_capacity(5000);
        let memory = given.as_ptr();
        let (read, buffer) = log.read_into_blocking(Offset::new(3), given, Isolation::Durable);
        assert_eq!(read.unwrap(), buffer.len());
        assert!(buffer.capacity() >= 5000 && buffer.len() <= 5000);
        assert_eq!(buffer.as_ptr(), memory, "the memory that was given");
        let first = batches(&buffer).next().unwrap().unwrap();
        assert_eq!(first.base_offset().get(), 3);
        let given = Vec::with_capacity(100);
        let memory = given.as_ptr();
        let (read, buffer) = log.read_into_blocking(Offset::new(3), given, Isolation::Durable);
        assert!(matches!(read, Err(ReadError::BufferTooSmall { needed, .. }) if needed > 1000));
        assert!(buffer.is_empty() && buffer.capacity() >= 100, "the buffer comes back");
        assert_eq!(buffer.as_ptr(), memory);
    });
}

#[test]
fn an_oversized_batch_is_refused_and_the_next_one_taken() {
    everywhere("oversized", |config| {
        let engine = Engine::open(config).unwrap();
        let log = engine.log("large", 0).unwrap();
        // A segment of these settings holds 1 MiB.
        let refused = log.append_blocking(batch([0], 2 << 20)).unwrap_err();
        assert!(matches!(refused, AppendError::TooLarge { .. }));
        assert_eq!(refused.outcome(), Outcome::NotAppended);
        let appended = log.append_blocking(batch([1], 100)).unwrap();
        assert_eq!(appended.base_offset, Offset::ZERO);
        assert_eq!(ids(&log), [1]);
    });
}

#[test]
fn append_at_takes_the_next_offset_of_the_newest_leader_only() {
    everywhere("append-at", |config| {
        let engine = Engine::open(config.clone()).unwrap();
        let log = engine.log("replica", 0).unwrap();
        let at =
            |offset, epoch, id| log.append_at_blocking(Offset::new(offset), epoch, batch([id], 50));
        assert_eq!(at(0, 3, 0).unwrap().base_offset, Offset::ZERO);
        let wrong = AppendError::WrongOffset { next: Offset::new(1), asked: Offset::new(5) };
        assert_eq!(at(5, 3, 9).unwrap_err(), wrong);
        assert_eq!(at(1, 2, 9).unwrap_err(), AppendError::StaleEpoch { current: 3, asked: 2 });
        at(1, 3, 1).unwrap();
        at(2, 7, 2).unwrap();
        assert_eq!(ids(&log), [0, 1, 2]);
        let bytes = log.read_blocking(Offset::new(2), 1, Isolation::Durable).unwrap();
        assert_eq!(batches(&bytes).next().unwrap().unwrap().header().leader_epoch, 7);
        engine.close().unwrap();
        let text = std::fs::read_to_string(config.dir.join("replica-0/leader-epoch-checkpoint"));
        assert_eq!(text.unwrap(), "0\n2\n3 0\n7 2\n");
        let engine = Engine::open(config).unwrap();
        let log = engine.log("replica", 0).unwrap();
        let stale = log.append_at_blocking(Offset::new(3), 6, batch([3], 50)).unwrap_err();
        assert_eq!(stale, AppendError::StaleEpoch { current: 7, asked: 6 });
    });
}

#[test]
fn an_acks_buffer_is_the_batchs_memory_back() {
    everywhere("buffer", |config| {
        let engine = Engine::open(config).unwrap();
        let log = engine.log("buffer", 0).unwrap();
        let one = batch([1], 5000);
        let (pointer, capacity) = (one.as_bytes().as_ptr(), one.as_bytes().len());
        let appended = log.append_blocking(one).unwrap();
        assert!(appended.buffer.is_empty() && appended.buffer.capacity() >= capacity);
        assert_eq!(appended.buffer.as_ptr(), pointer);
        let records = read_all(&log, Offset::ZERO, Isolation::Durable);
        assert_eq!(records.len(), 1);
        assert_eq!(id_of(&records[0].1), 1);
        assert_eq!(records[0].1, value(1, 5000));
    });
}

#[test]
fn what_acks_wait_for_is_timed_operation_by_operation() {
    everywhere("times", |config| {
        for durability in [Durability::Fdatasync, Durability::Dsync] {
            let dir = config.dir.join(format!("{durability:?}"));
            std::fs::create_dir_all(&config.dir).unwrap();
            let engine =
                Engine::open(Config { dir, durability: Some(durability), ..config.clone() });
            let engine = engine.unwrap();
            let log = engine.log("orders", 0).unwrap();
            // Small ones go by the journal, large ones straight to the segment.
            for n in 0..20 {
                log.append_blocking(batch([n], 100)).unwrap();
            }
            log.append_blocking(batch(0..9, 90_000)).unwrap();
            let times = engine.disk_times();
            let stats = engine.stats();
            let begun: u64 = stats.iter().map(|s| s.groups + s.direct_writes).sum();
            let sum = |of: fn(&DiskTimes) -> &Durations| -> u64 {
                times.iter().map(|times| of(times).count()).sum()
            };
            let counts = (sum(|t| &t.writes), sum(|t| &t.flushes), sum(|t| &t.durable_writes));
            let ended = match durability {
                Durability::Fdatasync => {
                    assert!(counts.2 == 0 && counts.0 >= counts.1, "{counts:?}");
                    counts.1
                }
                Durability::Dsync => {
                    assert_eq!((counts.0, counts.1), (0, 0));
                    counts.2
                }
            };
            assert!((21..=begun).contains(&ended), "{counts:?} of {begun}");
            log.set_flush_policy_blocking(FlushPolicy::Os).unwrap();
            log.append_blocking(batch(0..9, 90_000)).unwrap();
            let written: u64 = engine.disk_times().iter().map(|t| t.writes.count()).sum();
            assert!(written > counts.0, "an ack of `os` waits for its write");
            engine.abandon();
        }
    });
}
