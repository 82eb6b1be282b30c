//! Damaged partitions are cut back on demand, and nothing is thrown away.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use ringmain::inspect::verify;
use ringmain::types::{Offset, PartitionName};
use ringmain::{Engine, RepairError, repair};

use crate::support::{Dir, batch, small};

fn orders() -> PartitionName {
    PartitionName::new("orders", 0).unwrap()
}

fn segment(dir: &Path, base: i64) -> PathBuf {
    dir.join(format!("orders-0/{base:020}.log"))
}

/// Three segments of ten batches of two records, the last one active; closed cleanly.
fn closed(dir: &Path) {
    let engine = Engine::open(small(dir)).unwrap();
    let log = engine.log("orders", 0).unwrap();
    for n in 0..30_u64 {
        if n == 10 || n == 20 {
            log.roll_blocking().unwrap();
        }
        log.append_blocking(batch([2 * n, 2 * n + 1], 3000)).unwrap();
    }
    engine.close().unwrap();
}

fn flip(path: &Path, pos: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, pos).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], pos).unwrap();
}

/// The next offset after an opening and an append.
fn goes_on(dir: &Path) -> Offset {
    let engine = Engine::open(small(dir)).unwrap();
    assert!(engine.recovery().damage.is_empty(), "{:?}", engine.recovery());
    let log = engine.log("orders", 0).unwrap();
    let base = log.append_blocking(batch([500], 100)).unwrap().base_offset;
    engine.close().unwrap();
    let report = verify(dir).unwrap();
    assert!(report.is_healthy(), "{:#?}", report.problems);
    base
}

#[test]
fn a_damaged_partition_is_cut_on_demand_and_nothing_is_thrown_away() {
    let dir = Dir::new("repair-cut");
    let data = dir.join("data");
    closed(&data);
    let (first, second, third) = (segment(&data, 0), segment(&data, 20), segment(&data, 40));
    flip(&second, 30_000);
    let was = [&first, &second, &third].map(|path| fs::read(path).unwrap());
    let found = verify(&data).unwrap();
    let problem = found.problems.iter().find(|problem| problem.path == second).unwrap();
    let (end, pos) = (problem.offset.unwrap(), problem.pos);
    assert!(end > Offset::new(20) && end < Offset::new(40), "{problem:?}");

    let behind = repair(small(&data), &orders(), Offset::new(39));
    assert!(
        matches!(behind, Err(RepairError::Unreachable { end: e, .. }) if e == end),
        "{behind:?}"
    );
    let inside = repair(small(&data), &orders(), Offset::new(end.get() - 1));
    assert!(matches!(inside, Err(RepairError::InsideBatch { .. })), "{inside:?}");
    let nobody = repair(small(&data), &PartitionName::new("orders", 7).unwrap(), end);
    assert!(matches!(nobody, Err(RepairError::NoPartition(_))), "{nobody:?}");
    assert_eq!(fs::read(&second).unwrap()[..was[1].len()], was[1], "nothing was changed");

    let done = repair(small(&data), &orders(), end).unwrap();
    assert_eq!((&done.segment, done.pos), (&second, pos));
    assert_eq!(done.kept.len(), 2, "{:?}", done.kept);
    let kept = fs::read(&done.kept[0]).unwrap();
    assert!(was[1][pos as usize..].starts_with(&kept), "the bytes behind the cut");
    assert!(was[1][pos as usize + kept.len()..].iter().all(|byte| *byte == 0));
    assert!(fs::read(&done.kept[1]).unwrap().starts_with(&was[2]), "the segment behind it");
    assert!(!third.exists());
    assert_eq!(fs::read(&first).unwrap(), was[0]);
    assert_eq!(fs::read(&second).unwrap(), was[1][..pos as usize]);
    assert_eq!(goes_on(&data), end);
}

#[test]
fn a_repair_can_cut_at_the_end_and_at_a_segments_beginning() {
    let dir = Dir::new("repair-ends");
    let data = dir.join("data");
    closed(&data);
    let done = repair(small(&data), &orders(), Offset::new(60)).unwrap();
    assert_eq!(done.kept, [] as [PathBuf; 0]);
    let done = repair(small(&data), &orders(), Offset::new(40)).unwrap();
    assert_eq!((done.segment, done.pos), (segment(&data, 40), 0));
    assert_eq!(goes_on(&data), Offset::new(40));
    let engine = Engine::open(small(&data)).unwrap();
    let held = repair(small(&data), &orders(), Offset::new(20));
    assert!(matches!(held, Err(RepairError::Open(_))), "{held:?}");
    drop(engine);
}

#[test]
fn what_an_earlier_repair_kept_is_not_written_over() {
    let dir = Dir::new("repair-twice");
    let data = dir.join("data");
    closed(&data);
    let end = Offset::new(30);
    let first = repair(small(&data), &orders(), end).unwrap();
    let was: Vec<_> = first.kept.iter().map(|path| fs::read(path).unwrap()).collect();
    // As far again, with other bytes.
    let engine = Engine::open(small(&data)).unwrap();
    let log = engine.log("orders", 0).unwrap();
    for n in 0..10_u64 {
        log.append_blocking(batch([900 + n, 950 + n], 3000)).unwrap();
        if n == 4 {
            log.roll_blocking().unwrap();
        }
    }
    engine.close().unwrap();
    let second = repair(small(&data), &orders(), end).unwrap();
    assert_eq!(second.kept.len(), 2, "{second:?}");
    assert_ne!(fs::read(&second.kept[0]).unwrap(), was[0], "it is something else");
    for (path, was) in first.kept.iter().zip(was) {
        assert!(fs::read(path).unwrap() == was, "{}", path.display());
        assert!(!second.kept.contains(path));
    }
    assert_eq!(goes_on(&data), end);
}
