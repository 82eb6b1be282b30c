//! What rings do under limits of the process, which only a child process may change.

use std::env;
use std::process::Command;

use super::*;

/// Runs this test alone in a child process, whose limits it may change. `true` in the child.
fn in_child(test: &str) -> bool {
    const MARK: &str = "RINGMAIN_TEST_CHILD";
    if env::var_os(MARK).is_some() {
        return true;
    }
    let output = Command::new(env::current_exe().expect("a path"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(MARK, "1")
        .output()
        .expect("a child process");
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{error}");
    false
}

#[test]
fn a_small_limit_of_locked_memory_registers_less() {
    if !in_child("ring::tests::limits::a_small_limit_of_locked_memory_registers_less") {
        return;
    }
    for (limit, least) in [(6 << 20, 1 << 20), (64 << 10, 0)] {
        let (soft, hard) = (limit as libc::rlim_t, (6 << 20) as libc::rlim_t);
        let limits = libc::rlimit { rlim_cur: soft, rlim_max: hard };
        // SAFETY: `limits` is alive.
        let is_set = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limits) };
        assert_eq!(is_set, 0);
        // Root is above the limit. A raw call: this thread alone becomes nobody.
        // SAFETY: no memory is involved.
        unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
        let mut ring = Uring::new(ENTRIES).expect("io_uring");
        let arena = Arena::new(32 << 20);
        let bytes = ring.register(&arena);
        assert!((least..=limit as u64).contains(&bytes), "{bytes} of {limit}");
        assert_eq!(ring.facts().registered_bytes, bytes);
        // Unregistered memory works all the same.
        let buf = arena.chunk(CHUNK_BYTES_MAX).expect("room");
        ring.push(
            1,
            Op::Open { path: "/dev/zero".into(), mode: OpenMode { create: false, ..CACHED } },
        );
        ring.enter(Wait::Forever).expect("entered");
        let Done::File(file) = ring.pop().expect("one").result.expect("opened") else { panic!() };
        ring.push(2, Op::Read { file, pos: 0, len: CHUNK_BYTES_MAX, buf });
        ring.enter(Wait::Forever).expect("entered");
        let Done::Read(buf) = ring.pop().expect("one").result.expect("read") else { panic!() };
        assert_eq!(buf.len(), CHUNK_BYTES_MAX);
    }
}

/// A write that the kernel cuts short (here at the limit of a file's size) is continued, and its end is told.
#[test]
fn a_short_write_is_continued_until_it_fails() {
    if !in_child("ring::tests::limits::a_short_write_is_continued_until_it_fails") {
        return;
    }
    let bytes = (10 * BLOCK) as libc::rlim_t;
    let limits = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: the handler is the one that ignores.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    // SAFETY: `limits` is alive.
    let is_set = unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limits) };
    assert_eq!(is_set, 0);
    on_every_ring(|mut world| {
        for (name, mode) in [("direct", DIRECT), ("cached", CACHED)] {
            let file = world.open(name, mode);
            let data = world.bytes(16 * BLOCK, 5);
            let write = Op::Write { file, pos: 0, data: data.clone(), durable: true };
            assert_eq!(world.code(write), libc::EFBIG, "{} {name}", world.name);
            assert_eq!(world.ring.stats().continued, if mode.direct { 1 } else { 2 });
            let back = world.read(file, 0, 16 * BLOCK);
            assert_eq!(*back, data[..10 * BLOCK], "{} {name}", world.name);
        }
    });
}
