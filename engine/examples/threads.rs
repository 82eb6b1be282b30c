//! Plain threads append to a partition and read it back.
//!
//! ```text
//! cargo run --release -p ringmain --example threads            # in a directory of its own, removed after
//! cargo run --release -p ringmain --example threads -- ./data  # in this one, kept
//! ```
//!
//! Each thread waits for each of its acks, and yet they are not slow: what several of them append while a flush is
//! under way shares the next one.

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;
use std::{env, fs, process, thread};

use ringmain::batch::{BatchBuilder, batches};
use ringmain::error::AppendError;
use ringmain::types::{Isolation, Offset};
use ringmain::{Config, Engine, LogHandle};

const THREADS: u32 = 8;
const RECORDS: u32 = 500;
const READ_BYTES: usize = 1 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let given = env::args().nth(1).map(PathBuf::from);
    let dir = given
        .clone()
        .unwrap_or_else(|| env::temp_dir().join(format!("ringmain-threads-{}", process::id())));
    let engine = Engine::open(Config::new(&dir))?;
    let log = engine.log("events", 0)?;
    let begin = Instant::now();
    thread::scope(|scope| {
        let writers: Vec<_> = (0..THREADS)
            .map(|nth| {
                scope.spawn({
                    let log = log.clone();
                    move || write(&log, nth)
                })
            })
            .collect();
        writers.into_iter().try_for_each(|writer| writer.join().expect("a writer does not panic"))
    })?;
    let (took, appended) = (begin.elapsed(), THREADS * RECORDS);
    println!("{appended} records on stable storage after {took:.2?}, each acked by itself");
    let stats = engine.stats();
    let flushes: u64 = stats.iter().map(|shard| shard.groups + shard.direct_writes).sum();
    println!("{flushes} flushes, {:.1} records each", f64::from(appended) / flushes.max(1) as f64);
    println!("{} records read back", read(&log)?);
    engine.close()?;
    if given.is_none() {
        fs::remove_dir_all(dir)?;
    }
    Ok(())
}

fn write(log: &LogHandle, thread: u32) -> Result<(), AppendError> {
    let mut memory = Vec::new();
    for nth in 0..RECORDS {
        let mut batch = BatchBuilder::reuse(memory);
        let (key, value) = (format!("thread {thread}"), format!("event {nth}"));
        batch.add(-1, Some(key.as_bytes()), Some(value.as_bytes())).expect("a small record fits");
        let batch = batch.build().expect("one record is a batch");
        // On stable storage once this returns. The batch's memory comes back with the ack.
        memory = log.append_blocking(batch)?.buffer;
    }
    Ok(())
}

/// Reads the log from its beginning and counts its records.
fn read(log: &LogHandle) -> Result<usize, Box<dyn Error>> {
    let (mut next, mut count) = (Offset::ZERO, 0);
    loop {
        let bytes = log.read_blocking(next, READ_BYTES, Isolation::Durable)?;
        if bytes.is_empty() {
            return Ok(count);
        }
        for batch in batches(&bytes) {
            let batch = batch?;
            for record in batch.records()? {
                assert_eq!(record?.offset.get(), count as i64, "offsets count records");
                count += 1;
            }
            next = batch.last_offset().plus(1);
        }
    }
}
