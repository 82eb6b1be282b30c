//! What retention costs appends: their latency at full rate with old segments going all the time, and without,
//! by turns.
//!
//! `cargo bench -p ringmain --bench keep -- DIR` makes its data below `DIR`, and removes it; it needs 4 GiB.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ringmain::batch::BatchBuilder;
use ringmain::types::Retention;
use ringmain::{Config, Engine, LogHandle};

const BATCH_BYTES: usize = 64 << 10;
const IN_FLIGHT: usize = 16;
const SEGMENT_BYTES: u64 = 256 << 20;
const SLICE: Duration = Duration::from_secs(4);
const SLICES: usize = 4;

type Failure = Box<dyn std::error::Error>;

/// Runs a future on this thread.
fn wait<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut cx = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut cx) {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

/// Appends as fast as it goes for one slice. Latencies in nanoseconds, and bytes.
fn slice(log: &LogHandle) -> Result<(Vec<u64>, u64), Failure> {
    let mut builder = BatchBuilder::new();
    builder.add(1_700_000_000_000, Some(b"key"), Some(&vec![7; BATCH_BYTES]))?;
    let batch = builder.build()?;
    let (mut waiting, mut latencies, mut bytes) = (VecDeque::new(), Vec::new(), 0);
    let began = Instant::now();
    while began.elapsed() < SLICE || !waiting.is_empty() {
        if waiting.len() < IN_FLIGHT && began.elapsed() < SLICE {
            let sent = Instant::now();
            bytes += batch.as_bytes().len() as u64;
            let future = log.try_append(batch.copy_in(Vec::new())).map_err(|r| r.error)?;
            waiting.push_back((sent, future));
        } else if let Some((sent, future)) = waiting.pop_front() {
            wait(future)?;
            latencies.push(sent.elapsed().as_nanos() as u64);
        }
    }
    Ok((latencies, bytes))
}

fn percentile(sorted: &[u64], per_mille: usize) -> f64 {
    let at = (sorted.len() * per_mille / 1000).min(sorted.len() - 1);
    sorted[at] as f64 / 1e6
}

struct Arm {
    name: &'static str,
    retention: Retention,
    dir: PathBuf,
    p999: Vec<f64>,
    all: Vec<u64>,
    bytes: u64,
    freed: u64,
}

impl Arm {
    fn new(name: &'static str, retention: Retention, place: &Path) -> Self {
        let dir = place.join(format!("keep-bench-{name}-{}", std::process::id()));
        Self { name, retention, dir, p999: Vec::new(), all: Vec::new(), bytes: 0, freed: 0 }
    }

    /// One slice on a fresh directory: the space of the one before is free by then.
    fn run(&mut self) -> Result<(), Failure> {
        let config = Config {
            shards: 1,
            segment_bytes: SEGMENT_BYTES,
            retention: self.retention,
            ..Config::new(&self.dir)
        };
        let engine = Engine::open(config)?;
        let (mut latencies, bytes) = slice(&engine.log("kept", 0)?)?;
        self.freed += engine.stats().iter().map(|stats| stats.bytes_freed).sum::<u64>();
        engine.abandon();
        std::fs::remove_dir_all(&self.dir)?;
        self.bytes += bytes;
        latencies.sort_unstable();
        self.p999.push(percentile(&latencies, 999));
        self.all.extend(latencies);
        Ok(())
    }

    fn tell(&mut self) -> f64 {
        self.all.sort_unstable();
        let rate = self.bytes as f64 / (SLICE.as_secs_f64() * SLICES as f64) / f64::from(1 << 20);
        let all = |per_mille| percentile(&self.all, per_mille);
        println!(
            "{:8} {rate:7.0} MiB/s  p50 {:.2} ms  p99 {:.2} ms  p99.9 {:.2} ms  {} MiB freed",
            self.name,
            all(500),
            all(990),
            all(999),
            self.freed >> 20
        );
        all(999)
    }
}

fn main() -> Result<(), Failure> {
    let place = std::env::args().skip(1).find(|arg| !arg.starts_with("--"));
    let Some(place) = place.map(PathBuf::from) else {
        println!("name a directory to measure in: cargo bench -p ringmain --bench keep -- DIR");
        return Ok(());
    };
    let all = Retention::default();
    let some = Retention { bytes: Some(SEGMENT_BYTES), ..all };
    let mut arms = [Arm::new("all", all, &place), Arm::new("retained", some, &place)];
    for turn in 0..SLICES {
        // Now the one first, now the other.
        for at in [turn % 2, 1 - turn % 2] {
            arms[at].run()?;
        }
    }
    let [without, with] = arms.each_mut().map(Arm::tell);
    println!("p99.9 with retention / without: {:.2}", with / without);
    let each = arms[0].p999.iter().zip(&arms[1].p999).map(|(without, with)| with / without);
    println!("by slices: {:.2?}", each.collect::<Vec<_>>());
    Ok(())
}
