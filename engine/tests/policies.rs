//! Flush policies: switched at run time, flushed, checkpointed.

use ringmain::Engine;
use ringmain::types::{FlushPolicy, Isolation, Offset};

use crate::support::{Dir, batch, everywhere, ids, read_all, small, verified};

#[test]
fn a_policy_is_switched_under_load_and_nothing_is_lost() {
    everywhere("switch", |config| {
        let engine = Engine::open(config.clone()).unwrap();
        let log = engine.log("switch", 0).unwrap();
        let interval = FlushPolicy::Interval { ms: 5, bytes: 20_000, messages: 50 };
        let policies = [FlushPolicy::Os, FlushPolicy::Group, interval, FlushPolicy::Group];
        let mut next = 0;
        for round in 0..12 {
            let policy = policies[round % policies.len()];
            log.set_flush_policy_blocking(policy).unwrap();
            if policy == FlushPolicy::Group {
                let marks = log.watermarks_blocking().unwrap();
                assert_eq!(marks.durable, marks.dirty, "what came before is flushed first");
            }
            for bytes in [10, 3000, 200_000, 50] {
                log.append_blocking(batch([next], bytes)).unwrap();
                next += 1;
            }
        }
        assert_eq!(ids(&log), (0..next).collect::<Vec<_>>());
        engine.close().unwrap();
        verified(&config.dir);
        let engine = Engine::open(config).unwrap();
        assert_eq!(ids(&engine.log("switch", 0).unwrap()), (0..next).collect::<Vec<_>>());
    });
}

#[test]
fn an_interval_is_flushed_by_its_bound_without_being_asked() {
    everywhere("interval", |config| {
        let engine = Engine::open(config).unwrap();
        let by_count = engine.log("count", 0).unwrap();
        let bounds = FlushPolicy::Interval { ms: 3_600_000, bytes: u64::MAX, messages: 20 };
        by_count.set_flush_policy_blocking(bounds).unwrap();
        let by_time = engine.log("time", 0).unwrap();
        let bounds = FlushPolicy::Interval { ms: 10, bytes: u64::MAX, messages: u64::MAX };
        by_time.set_flush_policy_blocking(bounds).unwrap();
        by_count.append_blocking(batch(0..20, 100)).unwrap();
        by_time.append_blocking(batch(0..20, 100)).unwrap();
        for log in [by_count, by_time] {
            while log.watermarks_blocking().unwrap().durable.get() < 20 {
                std::thread::yield_now();
            }
        }
    });
}

#[test]
fn after_a_checkpoint_the_partitions_directory_alone_holds_every_ack() {
    everywhere("checkpoint", |config| {
        let engine = Engine::open(config.clone()).unwrap();
        let log = engine.log("backup", 0).unwrap();
        for id in 0..300 {
            log.append_blocking(batch([id], 200 + id as usize * 30)).unwrap();
        }
        log.checkpoint_blocking().unwrap();
        // Copied under a running engine, without its journal.
        let copy = Dir::new("checkpoint-copy");
        let to = copy.join("backup-0");
        std::fs::create_dir(&to).unwrap();
        for entry in std::fs::read_dir(config.dir.join("backup-0")).unwrap() {
            let entry = entry.unwrap();
            // Files under that name are on their way to another.
            if !entry.file_name().to_string_lossy().ends_with(".tmp") {
                std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
        let report = verified(&to);
        assert_eq!(report.records, 300);
        assert!(report.notes.is_empty(), "{:?}", report.notes);
        log.append_blocking(batch([300], 100)).unwrap();
        let restored = Engine::open(small(copy.path())).unwrap();
        let restored = restored.log("backup", 0).unwrap();
        assert_eq!(ids(&restored), (0..300).collect::<Vec<_>>());
        assert_eq!(ids(&log), (0..301).collect::<Vec<_>>());
    });
}

#[test]
fn space_prepared_ahead_is_used() {
    everywhere("prepare", |config| {
        let engine = Engine::open(config).unwrap();
        let log = engine.log("burst", 0).unwrap();
        log.prepare_blocking(512 << 10).unwrap();
        for id in 0..4 {
            log.append_blocking(batch([id], 100_000)).unwrap();
        }
        assert_eq!(read_all(&log, Offset::ZERO, Isolation::Durable).len(), 4);
    });
}
