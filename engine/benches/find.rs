//! What it costs to find a record among 10,000 segments and in one, to open a log of so many, and to keep the indexes.
//!
//! `cargo bench -p ringmain --bench find -- DIR` makes its data below `DIR`, and removes it; it needs 1 GiB. Lookups
//! run inside the shard, as a server's do, one after the other, at random; warm means that each batch was looked up
//! before. A single lookup's time has a look at the clock in it. The two logs are compared by turns of many lookups,
//! with no look at the clock within a turn.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ringmain::batch::BatchBuilder;
use ringmain::error::ReadError;
use ringmain::serve::{Local, LocalLog, ReadPath};
use ringmain::types::{FlushPolicy, Isolation, Offset, Prepare};
use ringmain::{Config, Engine};

const MANY: u64 = 10_000;
const BATCHES: u64 = 4;
const RECORDS: u64 = 8;
const VALUE_BYTES: usize = 500;
const FIRST_MS: i64 = 1_700_000_000_000;
const LOGS: [(&str, u64); 2] = [("one", 1), ("many", MANY)];
/// Lookups measured of each kind.
const LOOKUPS: u64 = 20_000;
/// Turns of the comparison, and lookups of each log in one.
const TURNS: usize = 41;
const TURN_LOOKUPS: usize = 20_000;

type Failure = Box<dyn std::error::Error>;

#[derive(Clone, Copy)]
enum Key {
    Offset,
    Time,
}

fn config(dir: &Path) -> Config {
    Config {
        shards: 1,
        // The segments are far smaller than what would be readied ahead.
        prepare: Prepare::None,
        read_path: Some(ReadPath::Sendfile),
        scrub_bytes_per_s: 0,
        ..Config::new(dir)
    }
}

/// Logs of so many sealed segments and an empty one, closed cleanly. Returns their records.
fn fill(dir: &Path) -> Result<[u64; 2], Failure> {
    let engine = Engine::open(config(dir))?;
    let mut counts = [0; 2];
    for ((topic, segments), count) in LOGS.into_iter().zip(&mut counts) {
        let log = engine.log(topic, 0)?;
        log.set_flush_policy_blocking(FlushPolicy::Os)?;
        let mut memory = Vec::new();
        for _ in 0..segments {
            for _ in 0..BATCHES {
                let mut batch = BatchBuilder::reuse(memory);
                for _ in 0..RECORDS {
                    batch.add(
                        FIRST_MS + *count as i64,
                        None,
                        Some(&[*count as u8; VALUE_BYTES]),
                    )?;
                    *count += 1;
                }
                memory = log.append_blocking(batch.build()?)?.buffer;
            }
            log.roll_blocking()?;
        }
    }
    engine.close()?;
    Ok(counts)
}

async fn look(log: &LocalLog, key: Key, nth: u64) -> Result<(), ReadError> {
    let offset = Offset::new(nth as i64);
    match key {
        Key::Offset => {
            let found = log.find_offset(offset, Isolation::Durable).await?.expect("it is there");
            assert!(found.first <= offset && offset <= found.last);
        }
        Key::Time => {
            let asked = FIRST_MS + nth as i64;
            let found = log.find_time(asked, Isolation::Durable).await?.expect("it is there");
            assert_eq!(found.offset, offset);
        }
    }
    Ok(())
}

/// Each lookup's time in nanoseconds, sorted.
fn lookups(
    engine: &Engine,
    (topic, key): (&'static str, Key),
    numbers: impl Iterator<Item = u64> + Send + 'static,
) -> Result<Vec<u64>, Failure> {
    let server = move |local: Local| async move {
        let log = local.log(topic, 0).expect("it is this shard's");
        timed(&log, key, numbers).await
    };
    Ok(engine.serve(0, server)?.wait()??)
}

async fn timed(
    log: &LocalLog,
    key: Key,
    numbers: impl Iterator<Item = u64>,
) -> Result<Vec<u64>, ReadError> {
    let mut took = Vec::new();
    for nth in numbers {
        let begun = Instant::now();
        look(log, key, nth).await?;
        took.push(begun.elapsed().as_nanos() as u64);
    }
    took.sort_unstable();
    Ok(took)
}

/// Warm lookups by offset in the two logs by turns: of each turn, what one among many takes by one in a log of one
/// segment, sorted.
fn compare(engine: &Engine, counts: [u64; 2]) -> Result<Vec<f64>, Failure> {
    let server = move |local: Local| async move {
        let logs = LOGS.map(|(topic, _)| local.log(topic, 0).expect("it is this shard's"));
        let mut numbers = counts.map(|count| random(count, u64::MAX));
        let mut ratios = Vec::new();
        for _ in 0..TURNS {
            let mut took = [0.0; 2];
            for ((log, numbers), took) in logs.iter().zip(&mut numbers).zip(&mut took) {
                let begun = Instant::now();
                for nth in numbers.by_ref().take(TURN_LOOKUPS) {
                    look(log, Key::Offset, nth).await?;
                }
                *took = begun.elapsed().as_secs_f64();
            }
            ratios.push(took[1] / took[0]);
        }
        ratios.sort_unstable_by(f64::total_cmp);
        Ok::<_, ReadError>(ratios)
    };
    Ok(engine.serve(0, server)?.wait()??)
}

/// So many numbers below `bound`, by a multiplicative congruential generator (Lehmer's, with L'Ecuyer's multiplier).
fn random(bound: u64, count: u64) -> impl Iterator<Item = u64> + Send {
    let mut state: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    (0..count).map(move |_| {
        state = state.wrapping_mul(0xda94_2042_e4dd_58b5);
        ((state >> 64) as u64) % bound
    })
}

fn micros(sorted: &[u64], per_mille: usize) -> f64 {
    sorted[(sorted.len() * per_mille / 1000).min(sorted.len() - 1)] as f64 / 1e3
}

fn tell(what: &str, sorted: &[u64]) {
    let at = |per_mille| micros(sorted, per_mille);
    println!("{what:40} p50 {:8.2} us  p99 {:8.2} us  p99.9 {:8.2} us", at(500), at(990), at(999));
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// Bytes of a topic's files with one of these endings.
fn bytes(dir: &Path, topic: &str, endings: &[&str]) -> Result<u64, Failure> {
    let mut sum = 0;
    for entry in fs::read_dir(dir.join(format!("{topic}-0")))? {
        let path = entry?.path();
        if endings.iter().any(|end| path.extension().is_some_and(|it| it == *end)) {
            sum += path.metadata()?.len();
        }
    }
    Ok(sum)
}

/// Looks for records of a log, for the first time and again.
fn measure(
    engine: &Engine,
    dir: &Path,
    (topic, segments): (&'static str, u64),
    count: u64,
) -> Result<(), Failure> {
    let log_bytes = bytes(dir, topic, &["log"])?;
    let share = bytes(dir, topic, &["index", "timeindex"])? as f64 / log_bytes as f64;
    println!(
        "{segments} segments, {count} records, {} MiB; indexes {:.2} %",
        log_bytes >> 20,
        share * 100.0
    );
    let each = (0..count).step_by(RECORDS as usize);
    tell("  by offset, each batch the first time", &lookups(engine, (topic, Key::Offset), each)?);
    for (what, key) in [
        ("  by offset, warm", Key::Offset),
        ("  by time, the first time", Key::Time),
        ("  by time, warm", Key::Time),
    ] {
        tell(what, &lookups(engine, (topic, key), random(count, LOOKUPS))?);
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    let place = std::env::args().skip(1).find(|arg| !arg.starts_with("--"));
    let Some(place) = place.map(PathBuf::from) else {
        println!("name a directory to measure in: cargo bench -p ringmain --bench find -- DIR");
        return Ok(());
    };
    let dir = place.join(format!("find-bench-{}", std::process::id()));
    let counts = fill(&dir)?;
    let mut opened: Vec<Duration> = Vec::new();
    for _ in 0..3 {
        let begun = Instant::now();
        let engine = Engine::open(config(&dir))?;
        opened.push(begun.elapsed());
        engine.close()?;
    }
    opened.sort_unstable();
    println!("{:40} {:.3} s (median of 3)", "reopening, closed cleanly", opened[1].as_secs_f64());
    let before = descriptors();
    let engine = Engine::open(config(&dir))?;
    for (log, count) in LOGS.into_iter().zip(counts) {
        measure(&engine, &dir, log, count)?;
    }
    println!("{:40} {}", "descriptors of the engine", descriptors() - before);
    let ratios = compare(&engine, counts)?;
    engine.abandon();
    fs::remove_dir_all(&dir)?;
    println!(
        "by offset, warm: {MANY} segments / 1 segment: {:.2} (median of {TURNS} turns, half of them {:.2} to {:.2})",
        ratios[TURNS / 2],
        ratios[TURNS / 4],
        ratios[TURNS * 3 / 4]
    );
    Ok(())
}
