//! What a power cut, or the death of a process, may leave and what it must.

use super::*;

/// What each plan may leave; seeds enough that every case of the model occurs.
fn plans() -> impl Iterator<Item = CrashPlan> {
    let seeded = (0..200).flat_map(|seed| [CrashPlan::Random(seed), CrashPlan::Torn(seed)]);
    seeded.chain([CrashPlan::DropAll, CrashPlan::KeepAll])
}

/// The file's bytes after each plan.
fn outcomes(rig: &Rig, path: &str) -> Vec<Option<Vec<u8>>> {
    plans()
        .map(|plan| {
            let fork = rig.disk.fork();
            fork.crash(plan);
            fork.file_bytes(path)
        })
        .collect()
}

/// Whether the file is the same after each plan.
fn certain(rig: &Rig, path: &str) -> Option<Vec<u8>> {
    let mut outcomes = outcomes(rig, path);
    outcomes.dedup();
    assert_eq!(outcomes.len(), 1, "one outcome whatever is lost");
    outcomes.remove(0)
}

#[test]
fn a_durable_write_survives_with_its_length() {
    let mut rig = Rig::strict();
    let file = rig.open(FILE);
    rig.sync_dir("data");
    rig.write(file, 4096, &[3; 4096], true);
    assert_eq!(certain(&rig, FILE).unwrap(), [[0; 4096], [3; 4096]].concat());
}

#[test]
fn an_unflushed_write_may_be_kept_lost_or_torn() {
    let mut rig = Rig::strict();
    let file = rig.prepared(FILE, 2, 1);
    rig.write(file, 0, &[2; 8192], false);
    let outcomes = outcomes(&rig, FILE);
    let (old, new) = (vec![1; 8192], vec![2; 8192]);
    assert!(outcomes.contains(&Some(old)));
    assert!(outcomes.contains(&Some(new)));
    let torn = |bytes: &Vec<u8>| bytes.contains(&1) && bytes.contains(&2);
    assert!(outcomes.iter().flatten().any(torn));
    for sector in outcomes.iter().flatten().flat_map(|bytes| bytes.chunks(512)) {
        assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is never torn");
    }
}

#[test]
fn random_plans_tear_nothing() {
    let mut rig = Rig::strict();
    let file = rig.prepared(FILE, 2, 1);
    rig.write(file, 0, &[2; 8192], false);
    for seed in 0..100 {
        let fork = rig.disk.fork();
        fork.crash(CrashPlan::Random(seed));
        let bytes = fork.file_bytes(FILE).unwrap();
        assert!(bytes == [1; 8192] || bytes == [2; 8192]);
    }
}

#[test]
fn a_later_write_may_survive_an_earlier_one() {
    let mut rig = Rig::strict();
    let file = rig.prepared(FILE, 2, 1);
    rig.write(file, 0, &[2; 4096], false);
    rig.write(file, 4096, &[2; 4096], false);
    let reordered = [[1; 4096], [2; 4096]].concat();
    assert!(outcomes(&rig, FILE).contains(&Some(reordered)));
}

#[test]
fn every_version_of_a_sector_that_was_overwritten_unflushed_may_be_left() {
    let mut rig = Rig::strict();
    let file = rig.prepared(FILE, 1, 1);
    rig.write(file, 0, &[2; 4096], false);
    rig.write(file, 0, &[3; 4096], false);
    for left in 1..=3 {
        assert!(outcomes(&rig, FILE).contains(&Some(vec![left; 4096])));
    }
}

#[test]
fn a_sync_makes_completed_writes_durable() {
    for mode in [buffered(), OpenMode { direct: true, ..buffered() }] {
        let mut rig = Rig::strict();
        let file = rig.open_as(FILE, mode);
        rig.sync_dir("data");
        rig.write(file, 0, &[1; 8192], false);
        rig.write(file, 512, &[2; 512], false);
        rig.sync(file);
        let expected = rig.disk.file_bytes(FILE);
        assert_eq!(certain(&rig, FILE), expected);
        assert_eq!(rig.disk.durable_bytes(FILE), expected);
    }
}

#[test]
fn a_sync_does_not_cover_a_write_that_completed_after_it_started() {
    let mut covered = 0;
    for seed in 0..50 {
        let mut rig = Rig::seeded(seed);
        let file = rig.prepared(FILE, 1, 1);
        let op = rig.write_op(file, 0, &[2; 4096], false);
        rig.ring.push(1, op);
        rig.ring.push(2, Op::Sync { file, data_only: true });
        rig.drain();
        rig.disk.crash(CrashPlan::DropAll);
        covered += usize::from(rig.disk.file_bytes(FILE).unwrap() == [2; 4096]);
    }
    assert_eq!(covered, 0);
}

#[test]
fn a_durable_write_does_not_flush_its_neighbours_beside_the_device_flush() {
    let mut rig = Rig::strict();
    let file = rig.prepared(FILE, 2, 1);
    rig.write(file, 0, &[2; 4096], false);
    rig.write(file, 4096, &[2; 4096], true);
    rig.crash(CrashPlan::DropAll);
    assert_eq!(rig.disk.file_bytes(FILE).unwrap(), [[1; 4096], [2; 4096]].concat());
}

#[test]
fn a_durable_write_wins_over_an_older_unflushed_one() {
    let mut rig = Rig::strict();
    let file = rig.prepared(FILE, 1, 1);
    rig.write(file, 0, &[2; 4096], false);
    rig.write(file, 512, &[3; 512], true);
    for bytes in outcomes(&rig, FILE).into_iter().flatten() {
        assert_eq!(bytes[512..1024], [3; 512]);
    }
}

/// Overwrites file `a`, then flushes file `b`; returns what is left of `a`.
fn after_a_flush_elsewhere(scope: FlushScope, durable_write: bool, mode: OpenMode) -> u8 {
    let mut rig = Rig::new(SimOptions { flush_scope: scope, ..SimOptions::default() });
    rig.prepared(FILE, 1, 1);
    let file = rig.open_as(FILE, mode);
    let other = rig.prepared("data/b", 1, 1);
    rig.write(file, 0, &[2; 4096], false);
    rig.write(other, 0, &[2; 4096], durable_write);
    if !durable_write {
        rig.sync(other);
    }
    rig.crash(CrashPlan::DropAll);
    rig.disk.file_bytes(FILE).unwrap()[0]
}

#[test]
fn a_device_flush_reaches_direct_overwrites_as_far_as_its_scope_says() {
    let direct = OpenMode { direct: true, ..OpenMode::default() };
    for (scope, by_write, by_sync) in
        [(FlushScope::OwnFile, 1, 1), (FlushScope::Syncs, 1, 2), (FlushScope::EveryFlush, 2, 2)]
    {
        assert_eq!(after_a_flush_elsewhere(scope, true, direct), by_write, "{scope:?}");
        assert_eq!(after_a_flush_elsewhere(scope, false, direct), by_sync, "{scope:?}");
    }
    let scope = FlushScope::EveryFlush;
    assert_eq!(after_a_flush_elsewhere(scope, false, buffered()), 1, "not the page cache");
}

#[test]
fn a_device_flush_does_not_reach_bytes_that_need_new_metadata() {
    let mut rig = Rig::seeded(1);
    let file = rig.open(FILE);
    rig.sync_dir("data");
    rig.run(Op::Allocate { file, pos: 0, len: 8192 }).unwrap();
    rig.sync(file);
    let other = rig.prepared("data/b", 1, 1);
    rig.write(file, 0, &[2; 4096], false);
    rig.write(file, 8192, &[2; 4096], false);
    rig.write(other, 0, &[2; 4096], true);
    rig.crash(CrashPlan::DropAll);
    assert_eq!(rig.disk.file_bytes(FILE).unwrap(), [0; 8192]);
}

#[test]
fn lengths_are_durable_after_a_sync_and_a_prefix_of_them_before() {
    let mut rig = Rig::strict();
    let file = rig.open(FILE);
    rig.sync_dir("data");
    rig.write(file, 0, &[1; 512], false);
    rig.sync(file);
    rig.write(file, 512, &[1; 512], false);
    rig.run(Op::Allocate { file, pos: 0, len: 4096 }).unwrap();
    rig.run(Op::Truncate { file, len: 256 }).unwrap();
    let mut lengths: Vec<usize> =
        outcomes(&rig, FILE).into_iter().flatten().map(|b| b.len()).collect();
    lengths.sort_unstable();
    lengths.dedup();
    assert_eq!(lengths, [256, 512, 1024, 4096]);
    rig.sync(file);
    assert_eq!(certain(&rig, FILE).unwrap(), [1; 256]);
}

#[test]
fn a_length_may_be_kept_without_its_bytes() {
    let mut rig = Rig::strict();
    let file = rig.open(FILE);
    rig.sync_dir("data");
    rig.write(file, 0, &[1; 4096], false);
    assert!(outcomes(&rig, FILE).contains(&Some(vec![0; 4096])));
    assert!(outcomes(&rig, FILE).contains(&Some(vec![])));
}

#[test]
fn an_unsynced_cut_may_be_undone_and_a_synced_one_may_not() {
    let mut rig = Rig::strict();
    let file = rig.prepared(FILE, 2, 1);
    rig.run(Op::Truncate { file, len: 1000 }).unwrap();
    rig.run(Op::Truncate { file, len: 8192 }).unwrap();
    assert_eq!(rig.disk.file_bytes(FILE).unwrap()[1000..], [0; 7192]);
    let outcomes = outcomes(&rig, FILE);
    assert!(outcomes.contains(&Some(vec![1; 8192])), "undone");
    assert!(outcomes.contains(&Some(vec![1; 1000])), "the first half of it");
    rig.sync(file);
    let bytes = certain(&rig, FILE).unwrap();
    assert_eq!((bytes.len(), &bytes[1000..]), (8192, &[0; 7192][..]));
}

#[test]
fn bytes_older_than_a_durable_cut_do_not_come_back() {
    let mut rig = Rig::strict();
    let file = rig.prepared(FILE, 2, 1);
    rig.write(file, 0, &[2; 8192], false);
    rig.run(Op::Truncate { file, len: 4096 }).unwrap();
    rig.write(file, 4096, &[3; 4096], true);
    for bytes in outcomes(&rig, FILE).into_iter().flatten() {
        assert_eq!(bytes[4096..], [3; 4096]);
    }
    rig.run(Op::Truncate { file, len: 4096 }).unwrap();
    rig.sync(file);
    rig.run(Op::Truncate { file, len: 8192 }).unwrap();
    for bytes in outcomes(&rig, FILE).into_iter().flatten() {
        assert!(bytes[4096..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_new_name_needs_a_sync_of_its_directory() {
    let mut rig = Rig::strict();
    let file = rig.open(FILE);
    rig.write(file, 0, &[1; 4096], true);
    rig.sync(file);
    assert!(outcomes(&rig, FILE).contains(&None), "a sync of the file is not enough");
    rig.sync_dir("data");
    assert_eq!(certain(&rig, FILE).unwrap(), [1; 4096]);
}

#[test]
fn a_new_directory_needs_a_sync_of_its_parent() {
    let mut rig = Rig::strict();
    rig.run(Op::MakeDir { path: "data/d".into() }).unwrap();
    let file = rig.open("data/d/x");
    rig.write(file, 0, &[1; 512], true);
    rig.sync_dir("data/d");
    assert!(outcomes(&rig, "data/d/x").contains(&None));
    rig.sync_dir("data");
    assert_eq!(certain(&rig, "data/d/x").unwrap(), [1; 512]);
}

#[test]
fn a_rename_is_atomic_and_durable_after_a_sync_of_the_directory() {
    let mut rig = Rig::strict();
    rig.prepared(FILE, 1, 1);
    rig.prepared("data/new", 1, 2);
    rig.run(Op::Rename { from: "data/new".into(), to: FILE.into() }).unwrap();
    let mut seen = [false; 2];
    for plan in plans() {
        let fork = rig.disk.fork();
        fork.crash(plan);
        let renamed = !fork.exists("data/new");
        seen[usize::from(renamed)] = true;
        let expected = if renamed { [2; 4096] } else { [1; 4096] };
        assert_eq!(fork.file_bytes(FILE).unwrap(), expected);
    }
    assert_eq!(seen, [true; 2]);
    rig.sync_dir("data");
    assert_eq!(certain(&rig, FILE).unwrap(), [2; 4096]);
    assert_eq!(certain(&rig, "data/new"), None);
}

#[test]
fn an_unlink_may_be_undone_until_its_directory_is_synced() {
    let mut rig = Rig::strict();
    let file = rig.prepared(FILE, 1, 1);
    rig.run(Op::Close { file }).unwrap();
    rig.run(Op::Unlink { path: FILE.into() }).unwrap();
    assert!(outcomes(&rig, FILE).contains(&Some(vec![1; 4096])));
    assert!(outcomes(&rig, FILE).contains(&None));
    rig.sync_dir("data");
    assert_eq!(certain(&rig, FILE), None);
}

#[test]
fn of_the_names_of_one_directory_a_prefix_is_kept() {
    let mut rig = Rig::strict();
    for name in ["1", "2", "3"] {
        rig.open(&format!("data/{name}"));
    }
    let mut kept: Vec<Vec<String>> = plans()
        .map(|plan| {
            let fork = rig.disk.fork();
            fork.crash(plan);
            fork.files()
        })
        .collect();
    kept.sort();
    kept.dedup();
    let all = ["data/1", "data/2", "data/3"];
    assert_eq!(kept, [&all[..0], &all[..1], &all[..2], &all[..]]);
}

#[test]
fn operations_in_flight_are_lost_or_took_effect() {
    let mut rig = Rig::strict();
    let file = rig.prepared(FILE, 2, 1);
    let op = rig.write_op(file, 0, &[2; 4096], true);
    rig.ring.push(1, op);
    rig.ring.push(2, Op::Truncate { file, len: 4096 });
    rig.ring.push(3, Op::MakeDir { path: "data/d".into() });
    rig.ring.enter(Wait::No).unwrap();
    let outcomes = outcomes(&rig, FILE);
    let torn = |bytes: &Vec<u8>| bytes[..4096].contains(&1) && bytes.contains(&2);
    assert!(outcomes.iter().flatten().any(torn));
    assert!(outcomes.contains(&Some(vec![1; 8192])));
    assert!(outcomes.contains(&Some(vec![2; 4096])));
    let made = plans().filter(|plan| {
        let fork = rig.disk.fork();
        fork.crash(*plan);
        fork.exists("data/d")
    });
    assert!((20..380).contains(&made.count()));
}

#[test]
fn bytes_of_a_failed_sync_are_not_flushed_by_the_next() {
    let mut rig = Rig::seeded(1);
    let file = rig.prepared(FILE, 2, 1);
    rig.write(file, 0, &[2; 4096], false);
    rig.disk.inject(Fault::nth(OpKind::Sync, "a", 1, libc::EIO));
    assert_eq!(rig.errno(Op::Sync { file, data_only: true }), Some(libc::EIO));
    rig.write(file, 4096, &[2; 4096], false);
    rig.sync(file);
    assert_eq!(rig.read(file, 0, 4096), [2; 4096], "readers do not notice");
    rig.crash(CrashPlan::DropAll);
    assert_eq!(rig.disk.file_bytes(FILE).unwrap(), [[1; 4096], [2; 4096]].concat());
}

#[test]
fn a_failed_sync_that_landed_made_its_bytes_durable() {
    let mut rig = Rig::strict();
    let file = rig.prepared(FILE, 1, 1);
    rig.write(file, 0, &[2; 4096], false);
    rig.disk.inject(Fault::nth(OpKind::Sync, "a", 1, libc::EIO).landed());
    assert_eq!(rig.errno(Op::Sync { file, data_only: true }), Some(libc::EIO));
    assert_eq!(certain(&rig, FILE).unwrap(), [2; 4096]);
}

#[test]
fn a_killed_process_leaves_what_was_written_and_some_of_what_was_in_flight() {
    let mut rig = Rig::strict();
    let file = rig.prepared(FILE, 4, 1);
    rig.write(file, 0, &[2; 4096], false);
    let op = rig.write_op(file, 4096, &[3; 8192], true);
    rig.ring.push(1, op);
    let mut left: Vec<Option<usize>> = (0..50)
        .map(|seed| {
            let fork = rig.disk.fork();
            fork.kill(seed);
            let bytes = fork.file_bytes(FILE).unwrap();
            assert_eq!(bytes[..4096], [2; 4096]);
            fork.crash(CrashPlan::DropAll);
            assert_eq!(fork.file_bytes(FILE).unwrap(), [1; 16384], "none of it was durable");
            bytes[4096..].iter().position(|byte| *byte != 3)
        })
        .collect();
    left.sort_unstable();
    left.dedup();
    assert_eq!(left, [Some(0), Some(4096), Some(8192)]);
}

#[test]
fn a_snapshot_brings_back_the_disk_and_its_future() {
    let mut rig = Rig::seeded(2);
    let file = rig.prepared(FILE, 1, 1);
    rig.write(file, 0, &[2; 4096], false);
    let snapshot = rig.disk.snapshot();
    let go_on = |disk: &SimDisk| {
        disk.restore(&snapshot);
        let mut rig = Rig::on(disk.clone());
        let file = rig.open(FILE);
        rig.write(file, 0, &[3; 4096], true);
        (disk.history(), disk.clock().monotonic_ns(), disk.steps())
    };
    assert_eq!(go_on(&rig.disk), go_on(&rig.disk));
    rig.disk.restore(&snapshot);
    assert_eq!(rig.disk.file_bytes(FILE).unwrap(), [2; 4096]);
    rig.disk.crash(CrashPlan::DropAll);
    assert_eq!(rig.disk.file_bytes(FILE).unwrap(), [1; 4096]);
}

/// Appends blocks durably through a cold procedure; returns how many were acknowledged.
fn append_blocks(disk: &SimDisk, acked: &std::cell::Cell<u8>) -> Option<()> {
    let (serial, arena) = (disk.serial(), Arena::new(CHUNK_BYTES_MAX));
    poll_once(async {
        let mode = OpenMode { create: true, direct: true, ..OpenMode::default() };
        let Ok(Done::File(file)) = serial.run(Op::Open { path: FILE.into(), mode }).await else {
            panic!("a file");
        };
        let dir = OpenMode { directory: true, ..OpenMode::default() };
        let Ok(Done::File(dir)) = serial.run(Op::Open { path: "data".into(), mode: dir }).await
        else {
            panic!("a directory");
        };
        serial.run(Op::Sync { file: dir, data_only: false }).await.unwrap();
        for number in 1..=5 {
            let mut chunk = arena.chunk(4096).expect("room");
            chunk.append(&[number; 4096]);
            let pos = u64::from(number - 1) * 4096;
            let data = chunk.slice(0..4096);
            serial.run(Op::Write { file, pos, data, durable: true }).await.unwrap();
            acked.set(number);
        }
    })
}

#[test]
fn a_run_can_be_cut_at_every_step() {
    let mut cuts = 0;
    for step in 0.. {
        let disk = SimDisk::new(9);
        disk.create_dir_all("data");
        disk.crash_at_step(step);
        let acked = std::cell::Cell::new(0);
        let finished = append_blocks(&disk, &acked).is_some();
        assert_eq!(disk.is_cut(), !finished || disk.steps() == step);
        disk.crash(CrashPlan::Torn(step));
        let bytes = disk.file_bytes(FILE).unwrap_or_default();
        for number in 1..=acked.get() {
            let from = usize::from(number - 1) * 4096;
            assert_eq!(bytes[from..from + 4096], [number; 4096], "step {step}");
        }
        if finished {
            break;
        }
        cuts += 1;
    }
    assert_eq!(cuts, 8, "one cut before and one after each operation but the last");
}

#[test]
fn a_run_can_be_forked_at_every_step_and_goes_on_unharmed() {
    let options = SimOptions { completions_per_enter: 1, ..SimOptions::default() };
    let mut rig = Rig::new(options);
    let file = rig.prepared(FILE, 16, 0);
    let mut acked = Vec::new();
    for token in 0..16 {
        let op = rig.write_op(file, token * 4096, &[token as u8 + 1; 4096], true);
        rig.ring.push(token, op);
    }
    while rig.ring.in_flight() > 0 {
        let before = rig.disk.steps();
        rig.ring.enter(Wait::Forever).unwrap();
        assert_eq!(rig.disk.steps(), before + 1);
        acked.extend(std::iter::from_fn(|| rig.ring.pop()).map(|done| done.token));
        for seed in 0..4 {
            let fork = rig.disk.fork();
            fork.crash(CrashPlan::Torn(seed));
            let bytes = fork.file_bytes(FILE).unwrap();
            for token in &acked {
                let from = *token as usize * 4096;
                assert_eq!(bytes[from..from + 4096], [*token as u8 + 1; 4096]);
            }
        }
    }
    assert_eq!((acked.len(), rig.disk.flush_count()), (16, 16));
}
