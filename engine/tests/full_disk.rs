//! A full disk: what was not appended is said so, others go on, and appends are taken again once there is space.
//! Needs root and a file system of its own; says so and ends where it has neither.

use std::fs;
use std::path::{Path, PathBuf};

use ringmain::error::{AppendError, Outcome};
use ringmain::types::{FlushPolicy, Prepare};
use ringmain::{Backend, Config, Engine};

use crate::mounts::Mounted;
use crate::support::{batch, ids, small, verified};

const DISK_BYTES: u64 = 48 << 20;

/// XFS refuses to be smaller than 300 MB.
const XFS_BYTES: u64 = 320 << 20;

fn mount(kind: &str) -> Option<Mounted> {
    Mounted::new("full", kind, if kind == "xfs" { XFS_BYTES } else { DISK_BYTES })
}

/// Fills the disk but for `left` bytes.
fn fill(disk: &Mounted, left: u64) -> PathBuf {
    let path = disk.at().join("filler");
    let file = fs::File::create(&path).unwrap();
    let step = 64 << 10;
    let mut bytes = 0;
    let chunk = vec![1; step];
    while std::os::unix::fs::FileExt::write_all_at(&file, &chunk, bytes).is_ok() {
        bytes += step as u64;
    }
    file.set_len(bytes.saturating_sub(left)).unwrap();
    file.sync_all().unwrap();
    path
}

fn config(dir: &Path, backend: Backend) -> Config {
    Config { shards: 1, backend, ..small(dir) }
}

/// Appends until the disk is full. Returns what was acked.
fn until_full(log: &ringmain::LogHandle, first: u64) -> Vec<u64> {
    let mut acked = Vec::new();
    for id in first.. {
        match log.append_blocking(batch([id], 60_000)) {
            Ok(_) => acked.push(id),
            Err(error) => {
                assert_eq!(error, AppendError::DiskFull);
                assert_eq!(error.outcome(), Outcome::NotAppended);
                break;
            }
        }
        assert!(acked.len() < 10_000, "the disk fills up");
    }
    acked
}

fn full(kind: &str, backend: Backend, prepare: Prepare) {
    let Some(disk) = mount(kind) else { return };
    eprintln!("{kind}, {backend:?}, {prepare:?}");
    let data = disk.at().join("data");
    let engine = Engine::open(Config { prepare, ..config(&data, backend) }).unwrap();
    let log = engine.log("full", 0).unwrap();
    // It has its space already: a full disk is nothing to it.
    let other = engine.log("other", 0).unwrap();
    other.append_blocking(batch([0], 100)).unwrap();
    other.prepare_blocking(50_000).unwrap();
    let lazy = engine.log("lazy", 0).unwrap();
    lazy.set_flush_policy_blocking(FlushPolicy::Os).unwrap();
    let filler = fill(&disk, 2 << 20);
    let mut acked = until_full(&log, 0);
    for id in 1..50 {
        other.append_blocking(batch([id], 100)).unwrap();
    }
    assert_eq!(ids(&log), acked, "what was acked is there, and nothing else");
    fs::remove_file(filler).unwrap();
    let next = acked.last().map_or(0, |id| id + 1);
    loop {
        match log.append_blocking(batch([next], 60_000)) {
            Ok(_) => break,
            Err(error) => assert_eq!(error, AppendError::DiskFull, "until it is noticed"),
        }
        std::thread::yield_now();
    }
    acked.push(next);
    lazy.append_blocking(batch([7], 100)).unwrap();
    assert_eq!(ids(&log), acked);
    assert_eq!(ids(&other), (0..50).collect::<Vec<_>>());
    log.roll_blocking().unwrap();
    engine.close().unwrap();
    verified(&data);
    let engine = Engine::open(config(&data, backend)).unwrap();
    assert_eq!(ids(&engine.log("full", 0).unwrap()), acked);
    assert_eq!(ids(&engine.log("lazy", 0).unwrap()), [7]);
}

#[test]
fn a_full_ext4_takes_nothing_half_and_recovers_by_itself() {
    for prepare in [Prepare::Prezero, Prepare::Fallocate] {
        full("ext4", Backend::Auto, prepare);
    }
    full("ext4", Backend::Sync, Prepare::Prezero);
}

#[test]
fn a_full_tmpfs_takes_nothing_half_and_recovers_by_itself() {
    full("tmpfs", Backend::Auto, Prepare::Prezero);
}

#[test]
fn a_full_xfs_takes_nothing_half_and_recovers_by_itself() {
    full("xfs", Backend::Auto, Prepare::Prezero);
}

#[test]
fn a_partition_that_a_full_disk_refused_can_be_made_later() {
    let Some(disk) = mount("ext4") else { return };
    let data = disk.at().join("data");
    let engine = Engine::open(config(&data, Backend::Auto)).unwrap();
    let filler = fill(&disk, 0);
    let mut made = 0;
    // Until neither a directory nor its file has room.
    while engine.log("more", made).is_ok() {
        made += 1;
        assert!(made < 100_000, "the disk is full");
    }
    fs::remove_file(filler).unwrap();
    let log = engine.log("more", made).unwrap();
    log.append_blocking(batch([1], 100)).unwrap();
    assert_eq!(ids(&log), [1]);
    assert_eq!(engine.partitions().len() as u32, made + 1);
}
