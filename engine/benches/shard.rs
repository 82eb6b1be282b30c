//! The way to a shard and back, and what is looked up there: a call, an append, an offset and a time in the tail and in
//! sealed segments. The first two are inside of the others: what a lookup alone costs is the difference.
//!
//! `cargo bench -p ringmain --bench shard` runs all of it; its 64 MiB of data are in the system's temporary directory
//! and go afterwards.

use std::hint::black_box;
use std::path::PathBuf;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use ringmain::batch::{Batch, BatchBuilder};
use ringmain::types::{FlushPolicy, Isolation, Offset};
use ringmain::{Config, Engine, LogHandle};

const SEGMENT_BYTES: u64 = 1 << 20;

/// Segments of the log that is looked into.
const SEGMENTS: u64 = 64;

/// Bytes of its batches: as far apart as entries of its index.
const BATCH_BYTES: u64 = 4096;

const BATCHES: u64 = SEGMENTS * SEGMENT_BYTES / BATCH_BYTES;

/// An offset a step further on, coprime to their number, so that lookups go all over the log.
const STEP: i64 = 7919;

/// An engine in a directory of its own, gone with it.
struct Place {
    engine: Option<Engine>,
    dir: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("ringmain-bench-shard-{}", std::process::id()));
        let config = Config {
            shards: 1,
            segment_bytes: SEGMENT_BYTES,
            flush: FlushPolicy::Os,
            journal_bytes: 4 << 20,
            ..Config::new(&dir)
        };
        Self { engine: Some(Engine::open(config).expect("opens")), dir }
    }

    fn log(&self, topic: &str) -> LogHandle {
        self.engine.as_ref().expect("open").log(topic, 0).expect("a partition")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.take() {
            engine.abandon();
        }
        // Whatever is left is the system's to clear.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A batch of one record in the memory of one before it.
fn batch(memory: Vec<u8>, timestamp: i64, value: &[u8]) -> Batch {
    let mut batch = BatchBuilder::reuse(memory);
    batch.add(timestamp, None, Some(value)).expect("it fits");
    batch.build().expect("one record")
}

fn hops(c: &mut Criterion) {
    let place = Place::new();
    let log = place.log("hops");
    let mut group = c.benchmark_group("inbox");
    group.bench_function("call", |b| b.iter(|| log.watermarks_blocking().expect("answered")));
    let mut memory = Vec::new();
    group.bench_function("append-os", |b| {
        b.iter(|| {
            let batch = batch(std::mem::take(&mut memory), 1_700_000_000_000, &[7; 100]);
            memory = log.append_blocking(batch).expect("acked").buffer;
        });
    });
    group.finish();
}

fn lookups(c: &mut Criterion) {
    let place = Place::new();
    let log = place.log("lookups");
    let value = vec![7; BATCH_BYTES as usize - 128];
    let mut memory = Vec::new();
    for nth in 0..BATCHES as i64 {
        let batch = batch(std::mem::take(&mut memory), 1000 + nth, &value);
        memory = log.append_blocking(batch).expect("acked").buffer;
    }
    let (all, last) = (BATCHES as i64, (SEGMENT_BYTES / BATCH_BYTES / 2) as i64);
    // In the tail only the last half segment; else anywhere before the last one.
    let places = [("tail", all - last, last), ("sealed", 0, all - 4 * last)];
    let mut group = c.benchmark_group("lookup");
    for (name, from, count) in places {
        let mut nth = 0;
        let mut next = || {
            nth = (nth + STEP) % count;
            from + nth
        };
        group.bench_function(format!("offset-{name}"), |b| {
            b.iter(|| {
                let found = log.find_offset_blocking(Offset::new(next()), Isolation::Dirty);
                black_box(found.expect("looked up").expect("it is there"))
            });
        });
        group.bench_function(format!("time-{name}"), |b| {
            b.iter(|| {
                let found = log.find_time_blocking(1000 + next(), Isolation::Dirty);
                black_box(found.expect("looked up").expect("it is there"))
            });
        });
    }
    group.finish();
}

fn settings() -> Criterion {
    let second = Duration::from_secs(1);
    Criterion::default().warm_up_time(second / 2).measurement_time(second)
}

criterion_group!(name = all; config = settings(); targets = hops, lookups);
criterion_main!(all);
