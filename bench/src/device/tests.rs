use std::collections::HashSet;

use super::*;
use ringmain::ring::backend::{Backend, open_ring};

use crate::histogram::Latencies;
use crate::scratch::Scratch;

fn latencies(micros: u64) -> Latencies {
    let mut latencies = Latencies::new();
    latencies.record(micros * 1000);
    latencies
}

#[test]
fn a_flush_faster_than_any_disk_is_flagged() {
    assert_eq!(Flush::judge(latencies(5).p50()), Flush::TooFast);
    assert_eq!(Flush::judge(latencies(60).p50()), Flush::Plausible);
}

#[test]
fn every_split_has_one_mebibyte_in_flight() {
    for (bytes, depth) in SPLITS {
        assert_eq!(bytes * depth, 1 << 20);
        assert!(bytes <= CHUNK_BYTES_MAX, "an operation of the engine");
    }
}

fn job(direction: Direction, request_bytes: usize, depth: usize) -> Job {
    let durable = direction == Direction::Write;
    Job { direction, request_bytes, depth, durable, plot: 0, files: 1 }
}

/// What each request in flight writes. Which of them ends first, and so writes to the next place, is the disk's affair.
fn bytes_in_flight(device: &Device<impl Ring>, job: &Job) -> Vec<Vec<u8>> {
    let sent = (0..job.depth).map(|slot| device.bytes_to_write(slot, job.request_bytes).to_vec());
    let sent: Vec<_> = sent.collect();
    assert_eq!(HashSet::<_>::from_iter(&sent).len(), job.depth, "other bytes in each");
    sent
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
    let job = Job { plot: 1, files: 3, ..job(Direction::Write, 4096, 4) };
    let sample = device.run(&job, Duration::from_millis(200)).expect("writes");
    let sent = bytes_in_flight(&device, &job);
    device.close().expect("closes");
    assert!(sample.records > 3, "{} writes", sample.records);
    assert_eq!(sample.bytes, sample.records * 4096);
    assert_eq!(sample.latencies.count(), sample.records);
    for path in &plots[1].paths {
        let text = std::fs::read(path).expect("readable");
        assert_eq!(text.len(), 256 << 10, "a write never extends a prepared file");
        let first = &text[..4096];
        assert!(sent.iter().any(|sent| sent == first), "written to {}", path.display());
    }
}

#[test]
fn a_request_larger_than_the_engines_is_one_operation_and_lands_whole() {
    let scratch = Scratch::new("device-parts");
    let plots = [Plot::prepare(scratch.path(), 1, 4 << 20).expect("prepared")];
    let payload = Payload::generated(16 << 20);
    let job = job(Direction::Write, 1 << 20, 2);
    let (ring, _) = open_ring(Backend::Auto, 8).expect("a ring");
    let mut device = Device::open(ring, &arena(&[job]), &plots, &payload).expect("opens");
    let sample = device.run(&job, Duration::from_millis(300)).expect("writes");
    let stats = device.ring.stats();
    assert_eq!(stats.flushes, device.turn as u64, "one flush for each request");
    assert_eq!(stats.write_bytes, (device.turn as u64) << 20);
    let sent = bytes_in_flight(&device, &job);
    device.close().expect("closes");
    assert!(sample.records > 3, "{} writes", sample.records);
    assert_eq!(sample.bytes, sample.records << 20);
    let text = std::fs::read(&plots[0].paths[0]).expect("readable");
    assert!(text.chunks(job.request_bytes).all(|mib| sent.iter().any(|sent| sent == mib)));
}

#[test]
fn reads_take_what_was_prepared_and_change_nothing() {
    let scratch = Scratch::new("device-reads");
    let payload = Payload::generated(16 << 20);
    let mut cursor = payload.cursor(3);
    let plot = Plot::prepare_with(scratch.path(), 1, 4 << 20, |bytes| cursor.fill(bytes));
    let plots = [plot.expect("prepared")];
    let before = std::fs::read(&plots[0].paths[0]).expect("readable");
    assert!(before.iter().any(|&byte| byte != 0), "not zeros");
    let jobs = [(4096, 1), (64 << 10, 8), (516 << 10, 3), (1 << 20, 2)];
    let jobs = jobs.map(|(bytes, depth)| job(Direction::Read, bytes, depth));
    let (ring, _) = open_ring(Backend::Auto, 8).expect("a ring");
    let mut device = Device::open(ring, &arena(&jobs), &plots, &payload).expect("opens");
    for job in jobs {
        let sample = device.run(&job, Duration::from_millis(100)).expect("reads");
        assert!(sample.records > 0, "{job:?}");
        assert_eq!(sample.bytes, sample.records * job.request_bytes as u64);
    }
    device.close().expect("closes");
    assert_eq!(std::fs::read(&plots[0].paths[0]).expect("readable"), before);
}
