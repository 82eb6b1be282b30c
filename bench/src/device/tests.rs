use std::collections::HashSet;

use super::*;
use ringmain::ring::backend::{Backend, open_ring};

use crate::scratch::Scratch;

fn latencies(micros: u64) -> Latencies {
    let mut latencies = Latencies::new();
    latencies.record(micros * 1000);
    latencies
}

#[test]
fn a_flush_faster_than_any_disk_is_flagged() {
    assert_eq!(Flush::judge(&latencies(5)), Flush::TooFast);
    assert_eq!(Flush::judge(&latencies(60)), Flush::Plausible);
}

#[test]
fn every_split_has_one_mebibyte_in_flight() {
    for (bytes, depth) in SPLITS {
        assert_eq!(bytes * depth, 1 << 20);
        assert!(bytes <= WRITE_BYTES_MAX);
    }
}

#[test]
fn bytes_land_in_all_files_and_differ() {
    let scratch = Scratch::new("device-files");
    let big = scratch.path().join("big");
    std::fs::create_dir(&big).expect("made");
    let plot = Plot::prepare(scratch.path(), 3, 256 << 10).expect("prepared");
    let payload = Payload::generated(16 << 20);
    let arena = Arena::new(ARENA_BYTES);
    let (ring, _) = open_ring(Backend::Auto, 8).expect("a ring");
    let plots = [Plot::prepare(&big, 1, 1 << 20).expect("prepared"), plot];
    let mut device = Device::open(ring, &arena, &plots, &payload).expect("opens");
    let job = Job { write_bytes: 4096, depth: 4, durable: true, plot: 1, files: 3 };
    let sample = device.run(&job, Duration::from_millis(200)).expect("writes");
    device.close().expect("closes");
    assert!(sample.records > 3, "{} writes", sample.records);
    assert_eq!(sample.bytes, sample.records * 4096);
    assert_eq!(sample.latencies.count(), sample.records);
    let mut seen = HashSet::new();
    for path in &plots[1].paths {
        let text = std::fs::read(path).expect("readable");
        assert_eq!(text.len(), 256 << 10, "a write never extends a prepared file");
        let first = text[..4096].to_vec();
        assert!(first.iter().any(|&byte| byte != 0), "written to {}", path.display());
        assert!(seen.insert(first), "other bytes in each file");
    }
}
