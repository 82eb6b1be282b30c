//! What a record costs before it reaches a disk: building a batch, checking one, reading one, checksums, and codecs.
//!
//! `cargo bench -p ringmain` runs all of it; `cargo bench -p ringmain -- read` what has that in its name.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ringmain::batch::{Batch, BatchBuilder, Compression, Limits, batches, validate};
use ringmain::format::crc::{combine, crc32c};

const COUNTS: [usize; 2] = [1, 100];

const CODECS: [(&str, Compression); 3] = [
    ("none", Compression::None),
    ("lz4", Compression::Lz4),
    ("zstd", Compression::Zstd { level: 3 }),
];

/// Lines as a service logs them: alike, and none like another.
fn lines(count: usize) -> Vec<String> {
    let line = |nth: usize| {
        let (id, took) = (nth.wrapping_mul(2_654_435_761) % 1_000_003, nth * 7 % 993);
        format!(
            "2026-03-14T09:26:53.{:03}Z INFO orders accepted id={id:07} customer={:05} took={took}us",
            nth % 1000,
            id % 99_991
        )
    };
    (0..count).map(line).collect()
}

/// A batch in the memory of one before it.
fn build(memory: Vec<u8>, lines: &[String], compression: Compression) -> Batch {
    let mut batch = BatchBuilder::reuse(memory).compression(compression);
    for line in lines {
        batch.add(1_700_000_000_000, None, Some(line.as_bytes())).expect("a line fits");
    }
    batch.build().expect("some lines fit")
}

fn bytes_of(lines: &[String]) -> u64 {
    lines.iter().map(|line| line.len() as u64).sum()
}

fn building(c: &mut Criterion) {
    let mut group = c.benchmark_group("build");
    for count in COUNTS {
        let lines = lines(count);
        group.throughput(Throughput::Bytes(bytes_of(&lines)));
        for (name, compression) in CODECS {
            let mut memory = Vec::new();
            group.bench_function(BenchmarkId::new(name, count), |b| {
                b.iter(|| {
                    memory = build(std::mem::take(&mut memory), &lines, compression).into_bytes();
                });
            });
        }
    }
    group.finish();
}

fn validating(c: &mut Criterion) {
    let mut group = c.benchmark_group("validate");
    for count in COUNTS {
        for (name, compression) in CODECS {
            let batch = build(Vec::new(), &lines(count), compression);
            group.throughput(Throughput::Bytes(batch.as_bytes().len() as u64));
            group.bench_function(BenchmarkId::new(name, count), |b| {
                b.iter(|| {
                    validate(black_box(batch.as_bytes()), &Limits::default()).expect("intact")
                });
            });
        }
    }
    group.finish();
}

fn reading(c: &mut Criterion) {
    let mut group = c.benchmark_group("read");
    for count in COUNTS {
        let lines = lines(count);
        group.throughput(Throughput::Bytes(bytes_of(&lines)));
        for (name, compression) in CODECS {
            let batch = build(Vec::new(), &lines, compression);
            group.bench_function(BenchmarkId::new(name, count), |b| {
                b.iter(|| values(black_box(batch.as_bytes())));
            });
        }
    }
    group.finish();
}

/// Goes over all records, as a consumer does; returns how long their values are together.
fn values(bytes: &[u8]) -> usize {
    let mut total = 0;
    for batch in batches(bytes) {
        let batch = batch.expect("intact");
        let records = batch.records().expect("a known codec");
        total += records
            .map(|record| record.expect("whole").value.map_or(0, <[u8]>::len))
            .sum::<usize>();
    }
    total
}

fn checksums(c: &mut Criterion) {
    let mut group = c.benchmark_group("crc32c");
    let bytes = vec![0x5a_u8; 64 << 10];
    for length in [175, 4 << 10, 64 << 10] {
        let bytes = &bytes[..length];
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_function(BenchmarkId::new("sum", length), |b| {
            b.iter(|| crc32c(black_box(bytes)));
        });
    }
    // Joining costs by the length's ones in binary, not by the length.
    for length in [175_u64, 4 << 10, (1 << 31) - 1] {
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("combine", length), |b| {
            b.iter(|| combine(black_box(0x1234_5678), black_box(0x9abc_def0), black_box(length)));
        });
    }
    group.finish();
}

/// The crates that compute CRC-32C, side by side; docs/adr/0008 says which was taken, and why.
fn candidates(c: &mut Criterion) {
    static TABLE: crc::Crc<u32, crc::Table<16>> =
        crc::Crc::<u32, crc::Table<16>>::new(&crc::CRC_32_ISCSI);
    let all: [(&str, fn(&[u8]) -> u32); 3] = [
        ("crc-fast", crc32c),
        ("crc32c", ::crc32c::crc32c),
        ("crc", |bytes| TABLE.checksum(bytes)),
    ];
    let mut group = c.benchmark_group("crc32c-crates");
    let bytes = lines(1000).concat().into_bytes();
    for length in [175, 1024, 64 << 10] {
        let bytes = &bytes[..length];
        group.throughput(Throughput::Bytes(length as u64));
        for (name, sum) in all {
            assert_eq!(sum(bytes), crc32c(bytes), "{name} computes another checksum");
            group.bench_function(BenchmarkId::new(name, length), |b| {
                b.iter(|| sum(black_box(bytes)));
            });
        }
    }
    group.finish();
}

/// The codecs on real lines, `RINGMAIN_PAYLOAD=FILE`, or on generated ones.
fn codecs(c: &mut Criterion) {
    let text = std::env::var_os("RINGMAIN_PAYLOAD").map(|path| {
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let (from, lines) = match &text {
        Some(text) => ("file", text.lines().take(1000).map(str::to_owned).collect()),
        None => ("generated", lines(1000)),
    };
    let mut group = c.benchmark_group("codec");
    group.throughput(Throughput::Bytes(bytes_of(&lines)));
    for (name, compression) in CODECS {
        let mut memory = Vec::new();
        group.bench_function(BenchmarkId::new(format!("{name}-compress"), from), |b| {
            b.iter(|| {
                memory = build(std::mem::take(&mut memory), &lines, compression).into_bytes();
            });
        });
        let batch = build(Vec::new(), &lines, compression);
        group.bench_function(BenchmarkId::new(format!("{name}-decompress"), from), |b| {
            b.iter(|| values(black_box(batch.as_bytes())));
        });
    }
    group.finish();
}

/// A second each: what is measured here takes no milliseconds, and the whole is done in a minute.
fn settings() -> Criterion {
    let second = Duration::from_secs(1);
    Criterion::default().warm_up_time(second / 2).measurement_time(second)
}

criterion_group!(
    name = all;
    config = settings();
    targets = building, validating, reading, checksums, candidates, codecs
);
criterion_main!(all);
