//! An idle engine uses no processor time.

use std::fs;
use std::time::Duration;

use ringmain::{Config, Engine};

use crate::support::{batch, everywhere};

/// Clock ticks, a hundredth of a second each, that the engine's threads have used.
pub(crate) fn ticks() -> u64 {
    let mut sum = 0;
    for task in fs::read_dir("/proc/self/task").unwrap() {
        // A thread may end meanwhile.
        let Ok(stat) = fs::read_to_string(task.unwrap().path().join("stat")) else { continue };
        let (name, fields) = stat.split_once('(').and_then(|(_, s)| s.rsplit_once(')')).unwrap();
        if name.starts_with("ringmain-") || name.starts_with("iou-wrk-") {
            let mut fields = fields.split_whitespace().skip(11);
            let mut number = || fields.next().unwrap().parse::<u64>().unwrap();
            sum += number() + number();
        }
    }
    sum
}

/// The child's part: other tests have engines of their own in the parent.
#[test]
fn measure_an_idle_second() {
    if crate::support::from_parent("RINGMAIN_IDLE").is_none() {
        return;
    }
    everywhere("idle", |config| {
        let engine = Engine::open(Config { shards: 3, ..config }).unwrap();
        for n in 0..20 {
            let log = engine.log("idle", n).unwrap();
            log.append_blocking(batch([n.into()], 100)).unwrap();
            // Nothing is left to be written back later.
            log.checkpoint_blocking().unwrap();
        }
        // Near its segment's end no more space can be made ready, however much is wanted ahead.
        let long = engine.log("long", 0).unwrap();
        for n in 0..14 {
            long.append_blocking(batch([n], 60_000)).unwrap();
        }
        long.checkpoint_blocking().unwrap();
        let before = ticks();
        // What is measured is a span of time.
        std::thread::sleep(Duration::from_secs(1));
        let used = ticks() - before;
        assert!(used <= 5, "{used} hundredths of a second in an idle second");
        engine.close().unwrap();
    });
}

/// A spin that only waited would end after an hour.
#[test]
fn a_shard_that_spins_goes_on_with_its_work() {
    everywhere("spin", |config| {
        let engine = Engine::open(Config { spin_us: u32::MAX, ..config }).unwrap();
        let log = engine.log("spin", 0).unwrap();
        for n in 0..3 {
            log.append_blocking(batch([n], 100)).unwrap();
        }
        log.append_blocking(batch([3], 200_000)).unwrap();
        log.checkpoint_blocking().unwrap();
        engine.close().unwrap();
    });
}

#[test]
fn an_idle_engine_uses_no_processor_time() {
    let mut child =
        crate::support::child("idle::measure_an_idle_second", &[("RINGMAIN_IDLE", "1")]);
    let output = child.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("idle: Sync, PageCache"), "all were measured: {told}");
}
