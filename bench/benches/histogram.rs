//! What measuring costs the measured: a latency into a histogram, a merge, a percentile.
//!
//! `cargo bench -p ringmain-bench` runs all of it.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringmain_bench::histogram::Latencies;
use ringmain_bench::random::Random;

/// Latencies as a disk has them: around 100 us, now and then a hundred times that.
fn latencies() -> Vec<u64> {
    let mut random = Random::new(7);
    let one = |_| {
        let near = 80_000 + u64::from(random.below(60_000));
        if random.below(200) == 0 { near * 100 } else { near }
    };
    (0..4096).map(one).collect()
}

fn recording(c: &mut Criterion) {
    let values = latencies();
    let mut group = c.benchmark_group("histogram");
    let mut all = Latencies::new();
    group.throughput(Throughput::Elements(values.len() as u64));
    group.bench_function("record", |b| {
        b.iter(|| values.iter().for_each(|&ns| all.record(black_box(ns))));
    });
    let mut sum = Latencies::new();
    group.throughput(Throughput::Elements(1));
    group.bench_function("merge", |b| b.iter(|| sum.merge(black_box(&all))));
    group.bench_function("p99", |b| b.iter(|| black_box(&all).quantile(0.99)));
    group.finish();
}

fn settings() -> Criterion {
    let second = Duration::from_secs(1);
    Criterion::default().warm_up_time(second / 2).measurement_time(second)
}

criterion_group!(name = all; config = settings(); targets = recording);
criterion_main!(all);
