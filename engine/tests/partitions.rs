//! Many partitions, and which shard each of them lives on.

use ringmain::types::{Offset, PartitionName};
use ringmain::{Config, Engine};

use crate::support::{batch, block_on, everywhere, ids, verified};

#[test]
fn a_thousand_partitions_are_made_filled_and_reopened() {
    everywhere("thousand", |config| {
        let names: Vec<(String, u32)> = (0..1000).map(|n| ("wide".to_owned(), n)).collect();
        for round in 0..2_u64 {
            let engine = Engine::open(config.clone()).unwrap();
            let logs = engine.logs(&names).unwrap();
            assert_eq!(engine.partitions().len(), 1000);
            let futures: Vec<_> = logs
                .iter()
                .enumerate()
                .map(|(n, log)| log.append(batch([round * 1000 + n as u64], 300)))
                .collect();
            for future in futures {
                assert_eq!(block_on(future).unwrap().base_offset, Offset::new(round as i64));
            }
            engine.close().unwrap();
        }
        let report = verified(&config.dir);
        assert_eq!((report.partitions, report.records), (1000, 2000));
        let engine = Engine::open(config).unwrap();
        assert!(engine.recovery().clean);
        for (n, log) in engine.logs(&names).unwrap().iter().enumerate().step_by(37) {
            assert_eq!(ids(log), [n as u64, 1000 + n as u64]);
        }
    });
}

#[test]
fn a_partition_moves_with_the_shard_count_and_its_placement() {
    everywhere("moves", |config| {
        let topics: Vec<(String, u32)> = (0..12).map(|n| ("moving".to_owned(), n)).collect();
        let mut round = 0;
        for shards in [1, 3, 7, 2] {
            for placed in [false, true] {
                let name = |n: u32| PartitionName::new("moving", n).unwrap();
                let placement =
                    if placed { (0..12).map(|n| (name(n), 0)).collect() } else { vec![] };
                let config = Config { shards, placement, ..config.clone() };
                let engine = Engine::open(config).unwrap();
                for (n, log) in engine.logs(&topics).unwrap().iter().enumerate() {
                    let appended = log.append_blocking(batch([round * 100 + n as u64], 500));
                    assert_eq!(appended.unwrap().base_offset.get(), round as i64);
                }
                let batches: Vec<u64> = engine.stats().iter().map(|s| s.batches).collect();
                assert_eq!(batches.len(), shards);
                assert_eq!(batches.iter().sum::<u64>(), 12);
                assert!(!placed || batches[0] == 12, "placed on shard 0: {batches:?}");
                round += 1;
                engine.close().unwrap();
            }
        }
        verified(&config.dir);
        let engine = Engine::open(config).unwrap();
        for (n, log) in engine.logs(&topics).unwrap().iter().enumerate() {
            assert_eq!(ids(log), (0..round).map(|r| r * 100 + n as u64).collect::<Vec<_>>());
        }
    });
}

#[test]
fn names_that_kafka_refuses_are_refused() {
    everywhere("names", |config| {
        let engine = Engine::open(config).unwrap();
        for topic in ["", ".", "..", "a/b", "a b", &"x".repeat(250)] {
            let refused = engine.log(topic, 0).unwrap_err();
            assert!(matches!(refused, ringmain::error::OpenError::Name { .. }), "{topic:?}");
        }
        assert!(engine.partitions().is_empty());
        engine.log("a.b_c-1", 7).unwrap();
        // The same twice in one call is one partition.
        let twice = [("twice".to_owned(), 0), ("twice".to_owned(), 0)];
        assert_eq!(engine.logs(&twice).unwrap().len(), 2);
        assert_eq!(engine.partitions().len(), 2);
    });
}

#[test]
fn statistics_count_what_was_done() {
    everywhere("stats", |config| {
        let engine = Engine::open(Config { shards: 1, ..config }).unwrap();
        let log = engine.log("stats", 0).unwrap();
        for n in 0..10 {
            log.append_blocking(batch(n * 2..n * 2 + 2, 100)).unwrap();
        }
        let stats = engine.stats()[0];
        assert_eq!((stats.batches, stats.records, stats.faults), (10, 20, 0));
        assert!(stats.batch_bytes > 2000 && stats.journaled_bytes >= stats.batch_bytes);
        assert!(stats.groups > 0 && stats.journal_bytes >= stats.journaled_bytes);
        assert!(stats.ring.submitted >= stats.groups && stats.ring.enters > 0);
        assert!(stats.memory_used_bytes > 0 && stats.checkpoint_lag_bytes > 0);
    });
}
