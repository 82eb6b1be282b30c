//! The scrub finds rot in sealed segments, says where, goes on, and stands in nobody's way.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ringmain::error::Alteration;
use ringmain::inspect::{Rot, Rotten, verify};
use ringmain::types::{Isolation, Offset};
use ringmain::{Config, Engine, ShardStats};

use crate::support::{Dir, batch, everywhere, small};

/// Batches of a segment.
const BATCHES: u64 = 12;

/// Sealed segments.
const SEALED: u64 = 5;

/// As fast as the disk gives.
const FAST: u64 = 1 << 40;

fn config(config: &Config, scrub_bytes_per_s: u64) -> Config {
    Config { shards: 1, scrub_bytes_per_s, ..config.clone() }
}

/// A directory that was closed cleanly, of sealed segments of two partitions.
fn fill(given: &Config) {
    let engine = Engine::open(config(given, 0)).unwrap();
    for partition in 0..2 {
        let log = engine.log("orders", partition).unwrap();
        for segment in 0..SEALED {
            for nth in 0..BATCHES {
                log.append_blocking(batch([segment * BATCHES + nth], 9000)).unwrap();
            }
            log.roll_blocking().unwrap();
        }
        log.append_blocking(batch([1000], 100)).unwrap();
    }
    engine.close().unwrap();
}

fn file(data: &Path, segment: u64, end: &str) -> PathBuf {
    data.join("orders-0").join(format!("{:020}.{end}", segment * BATCHES))
}

fn flip(path: &Path, pos: u64) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, pos).unwrap();
    file.write_all_at(&[byte[0] ^ 1], pos).unwrap();
}

/// What a whole pass found.
fn passed(given: &Config) -> (ShardStats, Vec<Rotten>) {
    let engine = Engine::open(config(given, FAST)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let stats = engine.stats()[0];
        if stats.scrub_passes > 0 {
            let rotten = engine.rotten();
            engine.close().unwrap();
            return (stats, rotten);
        }
        assert!(Instant::now() < deadline, "{stats:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_healthy_log_scrubs_clean_and_whole() {
    everywhere("scrub", |given| {
        fill(&given);
        let (stats, rotten) = passed(&given);
        assert_eq!(rotten, []);
        assert_eq!((stats.scrub_segments, stats.scrub_rotten), (2 * SEALED, 0));
        let bytes: u64 = (0..SEALED)
            .map(|segment| fs::metadata(file(&given.dir, segment, "log")).unwrap().len())
            .sum();
        assert_eq!(stats.scrub_bytes, 2 * bytes, "both partitions, each byte once");
    });
}

#[test]
fn rot_is_reported_with_its_place_and_the_rest_is_read_on() {
    everywhere("scrub-rot", |given| {
        fill(&given);
        let dir = &given.dir;
        let length = fs::metadata(file(dir, 0, "log")).unwrap().len();
        let each = length / BATCHES;
        // In a record; in the leader's epoch, which no batch's checksum covers; in the seal; at the end.
        flip(&file(dir, 0, "log"), 3 * each + 500);
        flip(&file(dir, 1, "log"), 4 * each + 15);
        flip(&file(dir, 2, "seal"), 20);
        fs::File::options()
            .write(true)
            .open(file(dir, 3, "log"))
            .unwrap()
            .set_len(length - each)
            .unwrap();
        let (stats, rotten) = passed(&given);
        assert_eq!((stats.scrub_segments, stats.scrub_rotten), (2 * SEALED, 4));
        let [record, epoch, seal, cut] = &rotten[..] else { panic!("{rotten:#?}") };
        assert!(rotten.iter().all(|it| it.partition.to_string() == "orders-0"), "{rotten:#?}");
        let place = |it: &Rotten| (it.path.clone(), it.pos, it.offset.get() as u64);
        assert_eq!(place(record), (file(dir, 0, "log"), 3 * each, 3));
        assert!(matches!(record.what, Rot::Crc { .. }), "{record:?}");
        assert_eq!(place(epoch), (file(dir, 1, "log"), 0, BATCHES));
        assert!(matches!(epoch.what, Rot::Checksum { .. }), "{epoch:?}");
        assert_eq!(place(seal), (file(dir, 2, "seal"), 0, 2 * BATCHES));
        assert!(matches!(seal.what, Rot::Seal(_)), "{seal:?}");
        let what = Rot::Altered(Alteration::Length { found: length - each, sealed: length });
        assert_eq!((cut.segment.get() as u64, cut.what), (3 * BATCHES, what));

        // With the same eyes: what `verify` says of the seals is the same.
        let report = verify(dir).unwrap();
        for rot in [epoch, cut] {
            let said = rot.what.to_string();
            assert!(
                report.problems.iter().any(|problem| problem.what == said),
                "{said}: {report:#?}"
            );
        }
    });
}

#[test]
fn a_slow_scrub_holds_up_neither_truncation_nor_deletion_nor_closing() {
    let dir = Dir::new("scrub-slow");
    let given = small(&dir.join("data"));
    let engine = Engine::open(config(&given, 0)).unwrap();
    for partition in 0..2 {
        let log = engine.log("orders", partition).unwrap();
        // More than is read at once.
        for nth in 0..40 {
            log.append_blocking(batch([nth], 9000)).unwrap();
        }
        log.roll_blocking().unwrap();
        log.append_blocking(batch([40], 9000)).unwrap();
    }
    engine.close().unwrap();
    // A piece, then nothing for as long as this test may take.
    let engine = Engine::open(config(&given, 1)).unwrap();
    let log = engine.log("orders", 0).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while engine.stats()[0].scrub_bytes == 0 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    let to = Offset::new(6);
    log.truncate_to_blocking(to).unwrap();
    log.append_blocking(batch([7], 100)).unwrap();
    assert!(!log.read_blocking(to, 1, Isolation::Durable).unwrap().is_empty());
    engine.delete("orders", 1).unwrap();
    assert_eq!(engine.rotten(), []);
    engine.close().unwrap();
    assert!(verify(&given.dir).unwrap().is_healthy());
}
