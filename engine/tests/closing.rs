//! Closing: clean, immediate to reopen, and by a drop as well.

use ringmain::error::OpenError;
use ringmain::{Engine, inspect};

use crate::support::{batch, everywhere, ids, verified};

#[test]
fn a_clean_close_leaves_nothing_to_be_recovered() {
    everywhere("clean", |config| {
        for round in 0..3_u64 {
            let engine = Engine::open(config.clone()).unwrap();
            let report = engine.recovery();
            assert_eq!(report.clean, round > 0);
            assert_eq!((report.journal_groups, report.cuts.len(), report.damage.len()), (0, 0, 0));
            assert!(
                report.scanned_bytes <= 64 << 10,
                "the tail's neighbourhood is all that is read"
            );
            let log = engine.log("clean", 0).unwrap();
            for n in 0..200 {
                log.append_blocking(batch([round * 200 + n], 2000)).unwrap();
            }
            if round == 1 {
                drop(engine);
            } else {
                engine.close().unwrap();
            }
            assert!(config.dir.join("ringmain.clean").exists());
            let report = verified(&config.dir);
            assert_eq!(report.records, (round + 1) * 200);
            assert!(report.notes.is_empty(), "{:?}", report.notes);
        }
        let engine = Engine::open(config).unwrap();
        assert_eq!(ids(&engine.log("clean", 0).unwrap()), (0..600).collect::<Vec<_>>());
    });
}

#[test]
fn a_second_engine_is_kept_out_until_the_first_is_closed() {
    everywhere("locked", |config| {
        let engine = Engine::open(config.clone()).unwrap();
        let second = Engine::open(config.clone());
        assert!(matches!(second, Err(OpenError::Locked(_))));
        engine.close().unwrap();
        Engine::open(config).unwrap().close().unwrap();
    });
}

#[test]
fn a_running_engines_directory_can_be_looked_at() {
    everywhere("looked-at", |config| {
        let engine = Engine::open(config.clone()).unwrap();
        let log = engine.log("seen", 0).unwrap();
        for n in 0..50 {
            log.append_blocking(batch([n], 100)).unwrap();
        }
        // Nothing is under way: what is acked is in the journal, which is laid over.
        let report = inspect::verify(&config.dir).unwrap();
        assert!(report.is_healthy(), "{:?}", report.problems);
        assert_eq!(report.records, 50);
        assert!(report.journal_groups > 0);
        log.append_blocking(batch([50], 100)).unwrap();
        assert_eq!(ids(&log).len(), 51);
    });
}
