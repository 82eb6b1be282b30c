use std::time::Duration;

use super::*;
use crate::buffers::{CHUNK_BYTES_MAX, Chunk};
use crate::command::{FileHandle, OpenMode};

mod power;

const FILE: &str = "data/a";

/// A disk with a directory `data`, a ring, and the memory to use it with.
struct Rig {
    disk: SimDisk,
    ring: SimRing,
    arena: Arena,
}

impl Rig {
    fn new(options: SimOptions) -> Self {
        let disk = SimDisk::with_options(options);
        disk.create_dir_all("data");
        Self::on(disk)
    }

    fn seeded(seed: u64) -> Self {
        Self::new(SimOptions { seed, ..SimOptions::default() })
    }

    /// Flushes reach their own file alone.
    fn strict() -> Self {
        Self::new(SimOptions { flush_scope: FlushScope::OwnFile, ..SimOptions::default() })
    }

    fn on(disk: SimDisk) -> Self {
        let arena = Arena::new(4 * CHUNK_BYTES_MAX);
        let mut ring = disk.ring(64);
        assert_eq!(ring.register(&arena), arena.bytes() as u64);
        Self { disk, ring, arena }
    }

    /// A new process after the power is back.
    fn crash(&mut self, plan: CrashPlan) {
        self.disk.crash(plan);
        *self = Self::on(self.disk.clone());
    }

    /// Waits until nothing is in flight.
    fn drain(&mut self) -> Vec<Completion> {
        let mut done = Vec::new();
        while self.ring.in_flight() > 0 {
            self.ring.enter(Wait::Forever).unwrap();
            done.extend(std::iter::from_fn(|| self.ring.pop()));
        }
        done
    }

    fn run(&mut self, op: Op) -> io::Result<Done> {
        assert_eq!(self.ring.in_flight(), 0);
        self.ring.push(0, op);
        self.drain().remove(0).result
    }

    fn errno(&mut self, op: Op) -> Option<i32> {
        self.run(op).err().map(|error| error.raw_os_error().expect("an error number"))
    }

    fn open_as(&mut self, path: &str, mode: OpenMode) -> FileHandle {
        match self.run(Op::Open { path: path.into(), mode }) {
            Ok(Done::File(file)) => file,
            other => panic!("{path}: {other:?}"),
        }
    }

    /// Opens a file past the page cache, created if absent.
    fn open(&mut self, path: &str) -> FileHandle {
        self.open_as(path, OpenMode { create: true, direct: true, ..OpenMode::default() })
    }

    fn chunk(&self, bytes: &[u8]) -> Chunk {
        let mut chunk = self.arena.chunk(bytes.len()).expect("room");
        chunk.append(bytes);
        chunk
    }

    fn write_op(&self, file: FileHandle, pos: u64, bytes: &[u8], durable: bool) -> Op {
        Op::Write { file, pos, data: self.chunk(bytes).slice(0..bytes.len()), durable }
    }

    fn write(&mut self, file: FileHandle, pos: u64, bytes: &[u8], durable: bool) {
        let op = self.write_op(file, pos, bytes, durable);
        self.run(op).unwrap();
    }

    fn sync(&mut self, file: FileHandle) {
        self.run(Op::Sync { file, data_only: true }).unwrap();
    }

    fn sync_dir(&mut self, path: &str) {
        let dir = self.open_as(path, OpenMode { directory: true, ..OpenMode::default() });
        self.run(Op::Sync { file: dir, data_only: false }).unwrap();
        self.run(Op::Close { file: dir }).unwrap();
    }

    fn read(&mut self, file: FileHandle, pos: u64, len: usize) -> Vec<u8> {
        let buf = self.arena.chunk(len).expect("room");
        match self.run(Op::Read { file, pos, len, buf }) {
            Ok(Done::Read(buf)) => buf.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    /// A durable file of `blocks` blocks of `byte`.
    fn prepared(&mut self, path: &str, blocks: usize, byte: u8) -> FileHandle {
        self.disk.set_file_bytes(path, &vec![byte; blocks * 4096]);
        self.open(path)
    }
}

fn buffered() -> OpenMode {
    OpenMode { create: true, ..OpenMode::default() }
}

#[test]
fn a_read_sees_completed_writes_zeros_in_holes_and_ends_with_the_file() {
    let mut rig = Rig::seeded(1);
    let file = rig.open(FILE);
    rig.write(file, 8192, &[7; 512], false);
    assert_eq!(rig.read(file, 0, 4096), [0; 4096]);
    assert_eq!(rig.read(file, 8192, 4096), [7; 512]);
    assert_eq!(rig.read(file, 16384, 4096), []);
    let file = rig.open_as("data/b", buffered());
    rig.write(file, 4090, b"across blocks", false);
    assert_eq!(rig.read(file, 4088, 100), b"\0\0across blocks");
}

#[test]
fn the_same_seed_has_the_same_history_and_another_seed_another() {
    let history = |seed| {
        let mut rig = Rig::seeded(seed);
        let file = rig.open(FILE);
        for round in 0..20 {
            for write in 0..8 {
                let op = rig.write_op(file, write * 4096, &[round; 4096], write % 3 == 0);
                rig.ring.push(write, op);
            }
            rig.ring.push(9, Op::Sync { file, data_only: true });
            rig.drain();
        }
        rig.disk.crash(CrashPlan::Torn(seed));
        (rig.disk.history(), rig.disk.clock().monotonic_ns(), rig.disk.file_bytes(FILE))
    };
    assert_eq!(history(1), history(1));
    assert_ne!(history(1), history(2));
}

#[test]
fn completions_come_out_of_order() {
    let mut rig = Rig::seeded(3);
    let file = rig.open(FILE);
    for token in 0..16 {
        let op = rig.write_op(file, token * 4096, &[1; 4096], false);
        rig.ring.push(token, op);
    }
    let order: Vec<u64> = rig.drain().into_iter().map(|done| done.token).collect();
    assert!(!order.is_sorted());
    assert_eq!(order.len(), 16);
}

#[test]
fn a_sleep_ends_with_a_completion_a_wake_or_its_time() {
    let mut rig = Rig::seeded(4);
    let clock = rig.disk.clock();
    rig.ring.enter(Wait::AtMost(Duration::from_millis(5))).unwrap();
    assert!((5_000_000..6_000_000).contains(&clock.monotonic_ns()));
    let before_ns = clock.monotonic_ns();
    rig.ring.waker().wake();
    rig.ring.enter(Wait::Forever).unwrap();
    assert!(clock.monotonic_ns() - before_ns < 1_000, "the wake ended the sleep");
    rig.ring.push(5, Op::List { path: "data".into() });
    rig.ring.enter(Wait::AtMost(Duration::from_secs(1))).unwrap();
    assert_eq!(rig.ring.pop().map(|done| done.token), Some(5));
    assert!(clock.monotonic_ns() - before_ns < 1_000_000, "the completion ended the sleep");
}

#[test]
fn a_ring_that_only_polls_gets_on() {
    let mut rig = Rig::seeded(5);
    rig.ring.push(1, Op::List { path: "data".into() });
    let polls = (0..10_000).take_while(|_| {
        rig.ring.enter(Wait::No).unwrap();
        rig.ring.pop().is_none()
    });
    assert!(polls.count() < 9_999);
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_sleep_that_nothing_ends_is_a_deadlock() {
    let mut rig = Rig::seeded(6);
    rig.ring.enter(Wait::Forever).unwrap();
}

#[test]
#[should_panic(expected = "an unaligned direct write")]
fn an_unaligned_direct_write_panics() {
    let mut rig = Rig::seeded(7);
    let file = rig.open(FILE);
    rig.write(file, 100, &[1; 512], false);
}

#[test]
#[should_panic(expected = "an unaligned direct read")]
fn an_unaligned_direct_read_panics() {
    let mut rig = Rig::seeded(7);
    let file = rig.open(FILE);
    rig.read(file, 0, 100);
}

#[test]
#[should_panic(expected = "share a block")]
fn two_writes_in_flight_in_one_block_panic() {
    let mut rig = Rig::seeded(8);
    let file = rig.open(FILE);
    for pos in [0, 512] {
        let op = rig.write_op(file, pos, &[1; 512], false);
        rig.ring.push(pos, op);
    }
}

#[test]
fn writes_in_neighbouring_blocks_or_one_after_the_other_are_fine() {
    let mut rig = Rig::seeded(8);
    let (file, other) = (rig.open(FILE), rig.open("data/b"));
    for (file, pos) in [(file, 0), (file, 4096), (other, 0)] {
        let op = rig.write_op(file, pos, &[1; 4096], false);
        rig.ring.push(pos, op);
    }
    rig.drain();
    rig.write(file, 0, &[2; 512], false);
    rig.write(file, 512, &[2; 512], false);
    assert_eq!(rig.read(file, 0, 1536)[512..], [[2; 512], [1; 512]].concat());
}

#[test]
fn a_shared_block_is_allowed_when_asked_for() {
    let mut rig = Rig::new(SimOptions { forbid_shared_blocks: false, ..SimOptions::default() });
    let file = rig.open(FILE);
    for pos in [0, 512] {
        let op = rig.write_op(file, pos, &[1; 512], false);
        rig.ring.push(pos, op);
    }
    rig.drain();
    assert_eq!(rig.read(file, 0, 1024), [1; 1024]);
}

#[test]
#[should_panic(expected = "closed with operations in flight")]
fn closing_a_file_in_use_panics() {
    let mut rig = Rig::seeded(9);
    let file = rig.open(FILE);
    rig.ring.push(1, Op::Sync { file, data_only: true });
    rig.ring.push(2, Op::Close { file });
}

#[test]
#[should_panic(expected = "the caller bounds what it starts")]
fn more_operations_than_the_ring_holds_panic() {
    let disk = SimDisk::new(0);
    let mut ring = disk.ring(1);
    for token in 0..2 {
        ring.push(token, Op::List { path: "".into() });
    }
}

#[test]
fn names_follow_the_rules_of_a_file_system() {
    let mut rig = Rig::seeded(10);
    let path = |path: &str| std::path::PathBuf::from(path);
    let exclusive = OpenMode { exclusive: true, ..buffered() };
    let open = |at: &str, mode| Op::Open { path: path(at), mode };
    assert_eq!(rig.errno(open("data/x", OpenMode::default())), Some(libc::ENOENT));
    assert_eq!(rig.errno(open("no/x", buffered())), Some(libc::ENOENT));
    rig.open_as("data/x", exclusive);
    assert_eq!(rig.errno(open("data/x", exclusive)), Some(libc::EEXIST));
    assert_eq!(rig.errno(open("data", buffered())), Some(libc::EISDIR));
    let directory = OpenMode { directory: true, ..OpenMode::default() };
    assert_eq!(rig.errno(open("data/x", directory)), Some(libc::ENOTDIR));
    assert_eq!(rig.errno(Op::MakeDir { path: path("data") }), Some(libc::EEXIST));
    assert_eq!(rig.errno(Op::MakeDir { path: path("data/d") }), None);
    assert_eq!(rig.errno(Op::Unlink { path: path("data/d") }), Some(libc::EISDIR));
    rig.open("data/d/y");
    assert_eq!(rig.errno(Op::RemoveDir { path: path("data") }), Some(libc::ENOTEMPTY));
    let rename = |from, to| Op::Rename { from: path(from), to: path(to) };
    assert_eq!(rig.errno(rename("data/none", "data/z")), Some(libc::ENOENT));
    assert_eq!(rig.errno(rename("data/x", "data/d/y")), None);
    let Ok(Done::Names(names)) = rig.run(Op::List { path: path("/data/d") }) else { panic!() };
    assert_eq!(names, ["y"]);
    assert_eq!(rig.disk.files(), ["data/d/y"]);
    assert_eq!(rig.errno(Op::RemoveDir { path: path("data/d") }), None);
    assert!(!rig.disk.exists("data/d"));
}

#[test]
fn an_unlinked_file_lives_until_it_is_closed() {
    let mut rig = Rig::seeded(11);
    let file = rig.open(FILE);
    rig.write(file, 0, &[5; 4096], false);
    rig.run(Op::Unlink { path: FILE.into() }).unwrap();
    let fresh = rig.open(FILE);
    for number in 0..200 {
        let other = rig.open(&format!("data/{number}"));
        rig.run(Op::Close { file: other }).unwrap();
        rig.run(Op::Unlink { path: format!("data/{number}").into() }).unwrap();
    }
    assert_eq!(rig.read(file, 0, 4096), [5; 4096]);
    assert_eq!(rig.read(fresh, 0, 4096), []);
    assert_eq!(rig.disk.used_bytes(), 4096);
    rig.run(Op::Close { file }).unwrap();
    assert_eq!(rig.disk.used_bytes(), 0);
}

#[test]
fn a_full_disk_refuses_and_recovers_when_space_is_freed() {
    let mut rig = Rig::new(SimOptions { capacity_bytes: 4 * 4096, ..SimOptions::default() });
    let (file, other) = (rig.open(FILE), rig.open("data/b"));
    rig.run(Op::Allocate { file, pos: 0, len: 3 * 4096 }).unwrap();
    assert_eq!(rig.errno(Op::Allocate { file: other, pos: 0, len: 8192 }), Some(libc::ENOSPC));
    assert!(matches!(rig.run(Op::Length { file: other }), Ok(Done::Length(0))));
    let op = rig.write_op(other, 0, &[1; 8192], true);
    assert_eq!(rig.errno(op), Some(libc::ENOSPC));
    assert_eq!(rig.disk.file_bytes("data/b").unwrap(), [1; 4096], "what fits has landed");
    rig.write(file, 8192, &[2; 4096], false);
    rig.run(Op::Truncate { file, len: 4096 }).unwrap();
    rig.write(other, 4096, &[1; 8192], false);
    rig.run(Op::Close { file }).unwrap();
    rig.run(Op::Unlink { path: FILE.into() }).unwrap();
    assert_eq!(rig.disk.used_bytes(), 3 * 4096);
    rig.run(Op::Allocate { file: other, pos: 0, len: 4 * 4096 }).unwrap();
}

#[test]
fn a_fault_hits_the_nth_match_alone_and_leaves_nothing_unless_it_landed() {
    let mut rig = Rig::seeded(12);
    let (file, other) = (rig.open(FILE), rig.open("data/b"));
    rig.disk.inject(Fault::nth(OpKind::Write, "data/a", 2, libc::EIO));
    rig.write(other, 0, &[1; 512], false);
    rig.write(file, 0, &[1; 512], false);
    let op = rig.write_op(file, 0, &[2; 512], false);
    assert_eq!(rig.errno(op), Some(libc::EIO));
    assert_eq!(rig.read(file, 0, 512), [1; 512]);
    rig.disk.inject(Fault::nth(OpKind::Any, "/a", 1, libc::EIO).landed());
    let op = rig.write_op(file, 0, &[3; 512], true);
    assert_eq!(rig.errno(op), Some(libc::EIO));
    assert_eq!(rig.read(file, 0, 512), [3; 512]);
    assert_eq!(rig.disk.faults_hit(), 2);
    rig.crash(CrashPlan::DropAll);
    assert_eq!(rig.disk.file_bytes(FILE), None, "landed is not durable");
}

#[test]
fn random_faults_are_drawn_from_the_seed() {
    let failed = |seed| {
        let mut rig = Rig::seeded(seed);
        let file = rig.open(FILE);
        rig.disk.inject(Fault::nth(OpKind::Write, "", 1, libc::EIO).when(When::OneIn(4)));
        let failed: Vec<bool> = (0..64)
            .map(|_| rig.write_op(file, 0, &[1; 512], false))
            .collect::<Vec<_>>()
            .into_iter()
            .map(|op| rig.run(op).is_err())
            .collect();
        rig.disk.clear_faults();
        rig.write(file, 0, &[1; 512], false);
        failed
    };
    assert_eq!(failed(1), failed(1));
    assert_ne!(failed(1), failed(2));
    let count = failed(1).iter().filter(|failed| **failed).count();
    assert!((6..30).contains(&count));
}

#[test]
fn a_delayed_operation_completes_late() {
    let mut rig = Rig::seeded(13);
    let ns = 1_000_000_000;
    let fault = Fault { effect: Effect::Delay { ns }, ..Fault::nth(OpKind::List, "", 1, 0) };
    rig.disk.inject(fault);
    rig.run(Op::List { path: "data".into() }).unwrap();
    assert!(rig.disk.clock().monotonic_ns() > ns);
}

#[test]
fn rot_is_seen_by_readers_and_survives_power_cuts() {
    let mut rig = Rig::seeded(14);
    let file = rig.prepared(FILE, 1, 0x0f);
    rig.disk.corrupt(FILE, 10, 2);
    assert_eq!(rig.read(file, 0, 512)[9..13], [0x0f, 0xf0, 0xf0, 0x0f]);
    rig.crash(CrashPlan::DropAll);
    assert_eq!(rig.disk.file_bytes(FILE).unwrap()[10], 0xf0);
}

#[test]
fn memory_comes_back_from_operations_that_a_crash_took() {
    let mut rig = Rig::seeded(15);
    let file = rig.open(FILE);
    let free = rig.arena.free_bytes();
    for write in 0..4 {
        let op = rig.write_op(file, write * 4096, &[1; 4096], false);
        rig.ring.push(write, op);
        rig.ring.enter(Wait::No).unwrap();
    }
    assert!(rig.arena.free_bytes() < free);
    rig.disk.crash(CrashPlan::DropAll);
    assert_eq!(rig.arena.free_bytes(), free);
    assert!(is_power_cut(&rig.ring.enter(Wait::Forever).unwrap_err()));
    assert!(rig.ring.pop().is_none());
    assert_eq!(rig.ring.in_flight(), 0);
}
