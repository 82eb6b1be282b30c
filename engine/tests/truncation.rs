//! Truncation: exact at a batch boundary, refused elsewhere, and final.

use ringmain::Engine;
use ringmain::error::ControlError;
use ringmain::types::{FlushPolicy, Offset};

use crate::support::{batch, everywhere, ids, verified};

#[test]
fn a_cut_at_a_boundary_is_exact_and_appends_go_on_there() {
    everywhere("cut", |config| {
        for (number, policy) in [FlushPolicy::Group, FlushPolicy::Os].into_iter().enumerate() {
            let engine = Engine::open(config.clone()).unwrap();
            let log = engine.log("cut", number as u32).unwrap();
            log.set_flush_policy_blocking(policy).unwrap();
            for n in 0..40 {
                log.append_blocking(batch(n * 3..n * 3 + 3, 20_000)).unwrap();
            }
            // Within the active segment, in a sealed one, at a segment's beginning, to nothing.
            for keep in [117, 60, 30, 0] {
                log.truncate_to_blocking(Offset::new(keep)).unwrap();
                assert_eq!(ids(&log), (0..keep as u64).collect::<Vec<_>>(), "{policy:?}");
                let again = keep as u64..keep as u64 + 3;
                log.append_blocking(batch(again.clone(), 500)).unwrap();
                assert_eq!(ids(&log), (0..again.end).collect::<Vec<_>>(), "{policy:?}");
            }
            engine.close().unwrap();
            verified(&config.dir);
            let engine = Engine::open(config.clone()).unwrap();
            assert_eq!(ids(&engine.log("cut", number as u32).unwrap()), [0, 1, 2]);
        }
    });
}

#[test]
fn a_cut_inside_a_batch_or_out_of_range_changes_nothing() {
    everywhere("no-cut", |config| {
        let engine = Engine::open(config).unwrap();
        let log = engine.log("cut", 0).unwrap();
        for n in 0..5 {
            log.append_blocking(batch(n * 3..n * 3 + 3, 100)).unwrap();
        }
        for asked in [1, 5, 16, 1000] {
            let refused = log.truncate_to_blocking(Offset::new(asked)).unwrap_err();
            let (start, end) = (Offset::ZERO, Offset::new(15));
            let asked = Offset::new(asked);
            assert_eq!(refused, ControlError::OutOfRange { asked, start, end });
        }
        log.truncate_to_blocking(Offset::new(15)).unwrap();
        log.append_blocking(batch(15..18, 100)).unwrap();
        assert_eq!(ids(&log), (0..18).collect::<Vec<_>>());
    });
}

#[test]
fn reads_beside_a_cut_see_the_log_before_or_after_it() {
    everywhere("cut-reads", |config| {
        let engine = Engine::open(config).unwrap();
        let log = engine.log("cut", 0).unwrap();
        for n in 0..30 {
            log.append_blocking(batch(n * 2..n * 2 + 2, 30_000)).unwrap();
        }
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let log = log.clone();
                scope.spawn(move || {
                    for _ in 0..40 {
                        // Only what every cut leaves: nothing is out of range, nothing is damaged.
                        let bytes = log
                            .read_blocking(Offset::ZERO, 200_000, ringmain::types::Isolation::Dirty)
                            .unwrap();
                        let first = ringmain::batch::batches(&bytes).next().unwrap().unwrap();
                        assert_eq!(first.base_offset(), Offset::ZERO);
                    }
                });
            }
            for keep in (2..58).rev().step_by(4) {
                let keep = keep / 2 * 2;
                log.truncate_to_blocking(Offset::new(keep)).unwrap();
            }
        });
    });
}
