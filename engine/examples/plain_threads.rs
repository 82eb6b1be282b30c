//! Plain threads, no runtime: they append to a log, which is then read back, also from a point in time on.
//!
//! ```text
//! cargo run --release -p ringmain --example plain_threads              # in ./plain-threads-data
//! cargo run --release -p ringmain --example plain_threads -- ./data
//! ```
//!
//! It prints how long 4,000 records took, each acked by itself once it was on stable storage; how few flushes that
//! needed, since what several threads append while one is under way shares the next; and what is read back. A second
//! run finds the records of the first: what was acked stays.

use std::error::Error;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use std::{env, thread};

use ringmain::batch::BatchBuilder;
use ringmain::types::{Isolation, Offset};
use ringmain::{Config, Engine, LogHandle, StreamOptions};

const THREADS: u32 = 8;
const RECORDS: u32 = 500;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

fn main() -> Result<()> {
    let dir = env::args().nth(1).unwrap_or_else(|| "plain-threads-data".to_owned());
    let engine = Engine::open(Config::new(&dir))?;
    let log = engine.log("events", 0)?;
    println!("{} records were there, in {dir}", count(&log, Offset::ZERO)?);

    let (began, began_ms) = (Instant::now(), now_ms());
    thread::scope(|scope| {
        let start = |thread| {
            let log = log.clone();
            scope.spawn(move || write(&log, thread))
        };
        let writers: Vec<_> = (0..THREADS).map(start).collect();
        writers.into_iter().try_for_each(|writer| writer.join().expect("a writer does not panic"))
    })?;
    let (took, appended) = (began.elapsed(), THREADS * RECORDS);
    println!("{appended} records on stable storage after {took:.2?}, each acked by itself");
    let stats = engine.stats();
    let flushes: u64 = stats.iter().map(|shard| shard.groups + shard.direct_writes).sum();
    println!("{flushes} flushes, {:.1} records each", f64::from(appended) / flushes.max(1) as f64);

    println!("{} records read back", count(&log, Offset::ZERO)?);
    let first = log.find_time_blocking(began_ms, Isolation::Durable)?;
    let first = first.ok_or("the records have just been written")?.offset;
    println!("{} of them since this run began, from offset {first} on", count(&log, first)?);

    engine.close()?;
    println!("closed");
    Ok(())
}

/// Appends records one by one, and waits for each.
fn write(log: &LogHandle, thread: u32) -> Result<()> {
    let mut memory = Vec::new();
    for nth in 0..RECORDS {
        let mut batch = BatchBuilder::reuse(memory);
        let (key, value) = (format!("thread {thread}"), format!("event {nth}"));
        batch.add(now_ms(), Some(key.as_bytes()), Some(value.as_bytes()))?;
        // On stable storage once this returns. The batch's memory comes back with the ack.
        memory = log.append_blocking(batch.build()?)?.buffer;
    }
    Ok(())
}

/// Reads the log from `from` to its end, and counts its records.
fn count(log: &LogHandle, from: Offset) -> Result<usize> {
    let mut records = log.records_blocking(from, StreamOptions::default());
    Ok(records.try_fold(0, |count, record| record.map(|_| count + 1))?)
}

/// The time, as Kafka's timestamps have it.
fn now_ms() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    since_1970.map_or(0, |since| since.as_millis() as i64)
}
