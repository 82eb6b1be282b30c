//! What every ring promises, run on each of them: io_uring as this kernel and as older ones set it up, and
//! threads.

mod limits;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs, io};

use super::backend::AnyRing;
use super::setup;
use super::sync::SyncRing;
use super::uring::Uring;
use super::{Ring, Wait, Wake};
use crate::buffers::{Arena, CHUNK_BYTES_MAX, Chunk, Slice};
use crate::command::{Done, FileHandle, Op, OpenMode};

/// Entries of the rings under test: fewer than most tests have operations in flight.
const ENTRIES: u32 = 64;

const BLOCK: usize = 4096;

const DIRECT: OpenMode =
    OpenMode { create: true, exclusive: false, direct: true, read_only: false, directory: false };

const CACHED: OpenMode = OpenMode { direct: false, ..DIRECT };

/// A directory of a test's own, on the disk that the tests are built on: `/tmp` may be in memory.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let near = env::current_exe().expect("a path").parent().expect("a directory").to_owned();
        let path = near.join(format!("ring-test-{}-{number}", process::id()));
        fs::create_dir_all(&path).expect("a scratch directory");
        Self(path)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _left_behind = fs::remove_dir_all(&self.0);
    }
}

/// A ring with its memory and a directory.
struct World {
    // Before `arena`, as in a shard.
    ring: AnyRing,
    arena: Arena,
    scratch: Scratch,
    name: &'static str,
}

impl World {
    fn new(name: &'static str, ring: AnyRing, registers: bool) -> Self {
        let mut ring = ring;
        let arena = Arena::new(32 * CHUNK_BYTES_MAX);
        if registers {
            let bytes = ring.register(&arena);
            assert!(bytes <= arena.bytes() as u64);
        }
        Self { ring, arena, scratch: Scratch::new(), name }
    }

    /// Runs one operation to its end.
    fn run(&mut self, op: Op) -> io::Result<Done> {
        self.ring.push(7, op);
        loop {
            self.ring.enter(Wait::Forever).expect("a working ring");
            if let Some(completion) = self.ring.pop() {
                assert_eq!(completion.token, 7, "{}: one operation in flight", self.name);
                return completion.result;
            }
        }
    }

    fn code(&mut self, op: Op) -> i32 {
        let error = self.run(op).expect_err("an operation that fails");
        error.raw_os_error().expect("a number")
    }

    fn open(&mut self, name: &str, mode: OpenMode) -> FileHandle {
        let path = self.scratch.join(name);
        match self.run(Op::Open { path, mode }).expect("opened") {
            Done::File(file) => file,
            other => panic!("{other:?}"),
        }
    }

    fn bytes(&self, len: usize, seed: u8) -> Slice {
        let mut chunk = self.arena.chunk(len).expect("room");
        let bytes: Vec<u8> = (0..len).map(|i| (i / 7) as u8 ^ seed).collect();
        chunk.append(&bytes);
        chunk.slice(0..len)
    }

    fn read(&mut self, file: FileHandle, pos: u64, len: usize) -> Chunk {
        let buf = self.arena.chunk(len).expect("room");
        match self.run(Op::Read { file, pos, len, buf }).expect("read") {
            Done::Read(chunk) => chunk,
            other => panic!("{other:?}"),
        }
    }

    /// Takes completions until none is in flight.
    fn drain(&mut self, mut each: impl FnMut(u64, io::Result<Done>)) {
        let end = Instant::now() + Duration::from_secs(60);
        while self.ring.in_flight() > 0 {
            assert!(Instant::now() < end, "{}: {} hang", self.name, self.ring.in_flight());
            self.ring.enter(Wait::AtMost(Duration::from_secs(1))).expect("a working ring");
            while let Some(completion) = self.ring.pop() {
                each(completion.token, completion.result);
            }
        }
    }
}

fn sync(workers: usize) -> AnyRing {
    AnyRing::Sync(Box::new(SyncRing::new(workers).expect("threads")))
}

fn on_every_ring(test: impl Fn(World)) {
    let uring = |rung| {
        AnyRing::Uring(Box::new(Uring::with_rung(ENTRIES, rung).expect("io_uring is allowed here")))
    };
    test(World::new("uring", uring(0), true));
    test(World::new("uring, unregistered", uring(0), false));
    for rung in 1..setup::RUNGS {
        test(World::new("uring of an older kernel", uring(rung), true));
    }
    test(World::new("sync", sync(4), true));
}

#[test]
fn written_bytes_are_read_back() {
    on_every_ring(|mut world| {
        for (name, mode) in [("direct", DIRECT), ("cached", CACHED)] {
            let file = world.open(name, mode);
            let mut pos = 0;
            let mut expected = Vec::new();
            for (seed, len) in [(1, BLOCK), (2, 16 * BLOCK), (3, CHUNK_BYTES_MAX)] {
                for durable in [false, true] {
                    let data = world.bytes(len, seed);
                    expected.extend_from_slice(&data);
                    world.run(Op::Write { file, pos, data, durable }).expect("written");
                    pos += len as u64;
                }
            }
            world.run(Op::Sync { file, data_only: true }).expect("flushed");
            assert_eq!(fs::read(world.scratch.join(name)).expect("the file"), expected);
            let back = world.read(file, 2 * BLOCK as u64, 32 * BLOCK);
            assert_eq!(*back, expected[2 * BLOCK..34 * BLOCK], "{} {name}", world.name);
            let Done::Length(length) = world.run(Op::Length { file }).expect("length") else {
                panic!("a length")
            };
            assert_eq!(length, pos);
            world.run(Op::Close { file }).expect("closed");
        }
        let stats = world.ring.stats();
        assert_eq!(stats.flushes, 2 * (3 + 1));
        assert_eq!(stats.write_bytes, 4 * (17 * BLOCK + CHUNK_BYTES_MAX) as u64);
    });
}

#[test]
fn a_read_past_the_end_comes_back_shorter() {
    on_every_ring(|mut world| {
        fs::write(world.scratch.join("odd"), vec![9; 5000]).expect("a file");
        for mode in [DIRECT, CACHED] {
            let file = world.open("odd", mode);
            assert_eq!(*world.read(file, 0, 4 * BLOCK), [9; 5000], "{}", world.name);
            assert_eq!(*world.read(file, BLOCK as u64, BLOCK), [9; 904]);
            assert!(world.read(file, 2 * BLOCK as u64, BLOCK).is_empty());
            assert!(world.read(file, 0, 0).is_empty());
            world.run(Op::Close { file }).expect("closed");
        }
    });
}

/// Blocks of the file that random operations work on.
const RANDOM_BLOCKS: usize = 4096;

/// Fills the ring with random writes and flushes of blocks from a random one on, each block once; notes
/// in `model` which data each block holds.
fn push_random(
    world: &mut World,
    file: FileHandle,
    data: &[Slice],
    random: &mut u64,
    model: &mut HashMap<usize, usize>,
) -> usize {
    let count = world.ring.capacity().min(RANDOM_BLOCKS);
    let start = *random as usize % RANDOM_BLOCKS;
    for i in 0..count {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        let block = (start + i) % RANDOM_BLOCKS;
        let seed = *random as usize % data.len();
        let kind = *random >> 60;
        let op = if kind == 0 {
            Op::Sync { file, data_only: true }
        } else {
            model.insert(block, seed);
            let (data, pos) = (data[seed].clone(), (block * BLOCK) as u64);
            Op::Write { file, pos, data, durable: kind == 1 }
        };
        world.ring.push(i as u64, op);
    }
    count
}

/// Thousands of random operations, with as many in flight as the ring takes, against a model of the file.
#[test]
fn more_operations_than_queue_places_all_complete() {
    on_every_ring(|mut world| {
        for mode in [DIRECT, CACHED] {
            let file = world.open(if mode.direct { "d" } else { "c" }, mode);
            let len = (RANDOM_BLOCKS * BLOCK) as u64;
            world.run(Op::Allocate { file, pos: 0, len }).expect("allocated");
            let data: Vec<_> = (0..8).map(|seed| world.bytes(BLOCK, seed)).collect();
            let mut random = 0x2545_f491_4f6c_dd1d_u64;
            let mut model = HashMap::new();
            for _round in 0..4 {
                let count = push_random(&mut world, file, &data, &mut random, &mut model);
                assert!(count > ENTRIES as usize);
                assert_eq!(world.ring.in_flight(), count);
                let mut seen = vec![false; count];
                world.drain(|token, result| {
                    result.expect("done");
                    assert!(!std::mem::replace(&mut seen[token as usize], true), "once");
                });
                assert!(seen.iter().all(|seen| *seen));
            }
            for (block, seed) in model {
                let back = world.read(file, (block * BLOCK) as u64, BLOCK);
                assert_eq!(*back, *data[seed], "{} block {block}", world.name);
            }
        }
    });
}

#[test]
fn a_full_ring_of_4096_operations_does_not_hang() {
    let ring = Uring::new(1024).expect("io_uring");
    assert_eq!(ring.capacity(), 4096);
    let mut world = World::new("uring", AnyRing::Uring(Box::new(ring)), true);
    let file = world.open("f", DIRECT);
    let data = world.bytes(BLOCK, 1);
    for i in 0..4096 {
        world
            .ring
            .push(i, Op::Write { file, pos: i * BLOCK as u64, data: data.clone(), durable: false });
    }
    let mut count = 0;
    world.drain(|_, result| {
        result.expect("written");
        count += 1;
    });
    assert_eq!(count, 4096);
}

/// A thread that never sleeps gets its completions too: they are run by calls that do not wait.
#[test]
fn operations_complete_by_polling_alone() {
    on_every_ring(|mut world| {
        let file = world.open("f", DIRECT);
        let end = Instant::now() + Duration::from_secs(20);
        for durable in [true, false] {
            let data = world.bytes(BLOCK, 1);
            world.ring.push(1, Op::Write { file, pos: 0, data, durable });
            while world.ring.pop().is_none() {
                assert!(Instant::now() < end, "{}: nothing completes", world.name);
                world.ring.enter(Wait::No).expect("entered");
            }
        }
    });
}

#[test]
#[should_panic(expected = "the caller bounds what it starts")]
fn a_full_ring_takes_no_more() {
    let mut ring = Uring::new(1).expect("io_uring");
    for token in 0..=ring.capacity() {
        ring.push(token as u64, Op::Unlink { path: PathBuf::from("/nowhere/at/all") });
    }
}

#[test]
fn a_wake_up_ends_the_next_sleep_of_an_awake_ring() {
    on_every_ring(|mut world| {
        let waker = world.ring.waker();
        world.ring.enter(Wait::No).expect("entered");
        let sleeps = world.ring.stats().sleeps;
        waker.wake();
        waker.wake();
        world.ring.enter(Wait::Forever).expect("woken");
        assert_eq!(world.ring.stats().sleeps, sleeps, "{}: no need to sleep", world.name);
        let start = Instant::now();
        world.ring.enter(Wait::AtMost(Duration::from_millis(20))).expect("timed out");
        assert!(start.elapsed() >= Duration::from_millis(20), "{}: both were taken", world.name);
    });
}

/// What two threads that wait for each other share.
#[derive(Default)]
struct PingPong {
    ball: AtomicU64,
    back: AtomicU64,
    is_over: AtomicBool,
}

impl PingPong {
    /// Serves `count` balls, each when the one before has come back.
    fn serve(&self, count: u64, waker: &dyn Wake) {
        for number in 1..=count {
            self.ball.store(number, Ordering::Release);
            waker.wake();
            while self.back.load(Ordering::Acquire) < number
                && !self.is_over.load(Ordering::Relaxed)
            {
                // Now and then the ring gets the processor in time to fall asleep, now and then not.
                if number % 3 == 0 { thread::yield_now() } else { std::hint::spin_loop() }
            }
        }
    }
}

/// Each side waits for the other, so that one lost wake-up stops both.
#[test]
fn no_wake_up_is_lost() {
    const HANDOFFS: u64 = 100_000;
    const LOST: Duration = Duration::from_secs(5);
    on_every_ring(|mut world| {
        let handoffs =
            if world.name == "uring of an older kernel" { HANDOFFS / 10 } else { HANDOFFS };
        let (ours, waker) = (Arc::new(PingPong::default()), world.ring.waker());
        let theirs = ours.clone();
        let other = thread::spawn(move || theirs.serve(handoffs, &*waker));
        let start = Instant::now();
        let mut taken = 0;
        while taken < handoffs {
            let before = Instant::now();
            world.ring.enter(Wait::AtMost(LOST)).expect("entered");
            let is_lost = before.elapsed() >= LOST;
            ours.is_over.store(is_lost, Ordering::Relaxed);
            assert!(!is_lost, "{}: the wake-up after {taken} was lost", world.name);
            taken = ours.ball.load(Ordering::Acquire);
            ours.back.store(taken, Ordering::Release);
        }
        other.join().expect("the other side");
        assert!(start.elapsed() < Duration::from_secs(60), "{}: {:?}", world.name, start.elapsed());
        assert!(world.ring.stats().sleeps > 0, "{}: it slept", world.name);
    });
}

#[test]
fn a_sleep_ends_in_time_and_not_before() {
    on_every_ring(|mut world| {
        for ms in [1, 30] {
            let time = Duration::from_millis(ms);
            let start = Instant::now();
            world.ring.enter(Wait::AtMost(time)).expect("entered");
            let slept = start.elapsed();
            assert!(slept >= time && slept < time + Duration::from_secs(2), "{slept:?}");
        }
        let sleeps = world.ring.stats().sleeps;
        world.ring.enter(Wait::No).expect("entered");
        world.ring.enter(Wait::AtMost(Duration::ZERO)).expect("entered");
        assert_eq!(world.ring.stats().sleeps, sleeps);
    });
}

#[test]
fn an_idle_ring_costs_no_system_call() {
    let mut ring = Uring::new(ENTRIES).expect("io_uring");
    for _ in 0..10 {
        ring.enter(Wait::No).expect("entered");
    }
    assert_eq!(ring.stats().enters, 0);
}

#[test]
fn failures_are_completions_with_their_number() {
    on_every_ring(|mut world| {
        let absent = world.scratch.join("absent/file");
        let open = |path: &Path, mode| Op::Open { path: path.to_owned(), mode };
        assert_eq!(world.code(open(&absent, CACHED)), libc::ENOENT);
        assert_eq!(world.code(Op::Unlink { path: absent.clone() }), libc::ENOENT);
        assert_eq!(world.code(Op::List { path: absent.clone() }), libc::ENOENT);
        assert_eq!(world.code(Op::RemoveDir { path: absent.clone() }), libc::ENOENT);
        assert_eq!(world.code(Op::MakeDir { path: world.scratch.0.clone() }), libc::EEXIST);
        let to = world.scratch.join("b");
        assert_eq!(world.code(Op::Rename { from: absent, to }), libc::ENOENT);
        assert_eq!(world.code(open(Path::new("/a\0b"), CACHED)), libc::EINVAL);

        let exclusive = OpenMode { exclusive: true, ..CACHED };
        world.open("twice", exclusive);
        assert_eq!(world.code(open(&world.scratch.join("twice"), exclusive)), libc::EEXIST);

        for direct in [false, true] {
            let mode = OpenMode { create: false, read_only: true, direct, ..CACHED };
            let file = world.open("twice", mode);
            let data = world.bytes(BLOCK, 1);
            let write = Op::Write { file, pos: 0, data, durable: true };
            assert_eq!(world.code(write), libc::EBADF, "{}", world.name);
            world.run(Op::Close { file }).expect("closed");
        }

        let full = OpenMode { create: false, ..CACHED };
        let Done::File(file) = world.run(open(Path::new("/dev/full"), full)).expect("opened")
        else {
            panic!("a file")
        };
        let data = world.bytes(100, 1);
        assert_eq!(world.code(Op::Write { file, pos: 0, data, durable: false }), libc::ENOSPC);
        world.run(Op::Close { file }).expect("closed");
    });
}

#[test]
#[should_panic(expected = "misaligned")]
fn a_misaligned_direct_write_is_our_own_fault() {
    let ring = AnyRing::Uring(Box::new(Uring::new(ENTRIES).expect("io_uring")));
    let mut world = World::new("uring", ring, true);
    let file = world.open("f", DIRECT);
    for i in 0..8 {
        let data = world.bytes(BLOCK, 1);
        world.ring.push(i, Op::Write { file, pos: 100, data, durable: false });
    }
    world.drain(|_, _| ());
}

#[test]
#[should_panic(expected = "while operations are in flight")]
fn a_file_in_use_cannot_be_closed() {
    let mut world = World::new("sync", sync(1), false);
    let file = world.open("f", CACHED);
    world.ring.push(1, Op::Sync { file, data_only: true });
    world.ring.push(2, Op::Close { file });
}

#[test]
#[should_panic(expected = "is closed")]
fn a_handle_is_dead_after_its_close() {
    let mut world = World::new("sync", sync(1), false);
    let file = world.open("f", CACHED);
    world.run(Op::Close { file }).expect("closed");
    let again = world.open("f", CACHED);
    assert_ne!(file, again, "the entry is used again, its name is not");
    world.ring.push(1, Op::Sync { file, data_only: true });
}

#[test]
fn a_dropped_ring_gives_its_memory_and_files_back() {
    on_every_ring(|mut world| {
        let file = world.open("f", DIRECT);
        let (free, files) = (world.arena.free_bytes(), open_files(&world.scratch));
        assert_eq!(files, 1);
        for i in 0..world.ring.capacity().min(200) as u64 {
            let data = world.bytes(16 * BLOCK, i as u8);
            world
                .ring
                .push(i, Op::Write { file, pos: (i * 16) * BLOCK as u64, data, durable: true });
        }
        world.ring.push(300, Op::Open { path: world.scratch.join("g"), mode: CACHED });
        world.ring.enter(Wait::No).expect("entered");
        let World { ring, arena, scratch, name } = world;
        drop(ring);
        assert_eq!(arena.free_bytes(), free, "{name}");
        assert_eq!(open_files(&scratch), 0, "{name}");
    });
}

/// How many descriptors of this process lead into the directory.
fn open_files(scratch: &Scratch) -> usize {
    let links = fs::read_dir("/proc/self/fd").expect("/proc is mounted");
    let paths = links.filter_map(|link| fs::read_link(link.ok()?.path()).ok());
    paths.filter(|path| path.starts_with(&scratch.0)).count()
}

#[test]
fn a_closed_file_is_let_go_by_the_kernel() {
    on_every_ring(|mut world| {
        let file = world.open("f", DIRECT);
        world.run(Op::Close { file }).expect("closed");
        assert_eq!(open_files(&world.scratch), 0, "{}", world.name);
        // A file that is not held any more can be opened, written and removed, over and over.
        for seed in 0..50 {
            let file = world.open("f", DIRECT);
            let data = world.bytes(BLOCK, seed);
            world
                .run(Op::Write { file, pos: 0, data: data.clone(), durable: false })
                .expect("written");
            assert_eq!(*world.read(file, 0, BLOCK), *data);
            world.run(Op::Close { file }).expect("closed");
            world.run(Op::Unlink { path: world.scratch.join("f") }).expect("removed");
        }
    });
}

#[test]
fn names_are_made_moved_listed_and_removed() {
    on_every_ring(|mut world| {
        let path = world.scratch.join("topic-0");
        world.run(Op::MakeDir { path: path.clone() }).expect("made");
        for name in ["topic-0/b", "topic-0/a"] {
            let file = world.open(name, CACHED);
            world.run(Op::Truncate { file, len: 12_345 }).expect("extended");
            let Done::Length(length) = world.run(Op::Length { file }).expect("length") else {
                panic!("a length")
            };
            assert_eq!(length, 12_345);
            world.run(Op::Close { file }).expect("closed");
        }
        let (from, to) = (path.join("b"), path.join("c"));
        world.run(Op::Rename { from, to: to.clone() }).expect("renamed");
        let mode = OpenMode { directory: true, ..OpenMode::default() };
        let directory = world.open("topic-0", mode);
        world.run(Op::Sync { file: directory, data_only: false }).expect("flushed");
        world.run(Op::Close { file: directory }).expect("closed");
        let Done::Names(names) = world.run(Op::List { path: path.clone() }).expect("listed") else {
            panic!("names")
        };
        assert_eq!(names, ["a", "c"], "{}", world.name);
        world.run(Op::Unlink { path: to }).expect("removed");
        world.run(Op::RemoveDir { path: path.clone() }).expect("removed with what is in it");
        assert!(!path.exists());
    });
}
