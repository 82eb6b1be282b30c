//! What rings do under limits of the process, which only a child process may change.

use std::env;
use std::process::Command;

use super::super::backend::{Backend, open_ring};
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
        // A regular file, larger than a chunk: a device may give less at a time.
        let mode = OpenMode { create: false, read_only: true, ..CACHED };
        ring.push(1, Op::Open { path: "/proc/self/exe".into(), mode });
        ring.enter(Wait::Forever).expect("entered");
        let Done::File(file) = ring.pop().expect("one").result.expect("opened") else { panic!() };
        ring.push(2, Op::Read { file, pos: 0, len: CHUNK_BYTES_MAX, buf });
        ring.enter(Wait::Forever).expect("entered");
        let Done::Read(buf) = ring.pop().expect("one").result.expect("read") else { panic!() };
        assert_eq!(buf.len(), CHUNK_BYTES_MAX);
        assert!(buf.starts_with(b"\x7fELF"));
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

/// Has the kernel refuse `io_uring_setup` to this process and its threads, as a container's filter does.
fn forbid_io_uring(errno: i32) {
    // The number of the call is the first word of what the filter sees (seccomp(2)).
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let refused = libc::SECCOMP_RET_ERRNO | errno as u32;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter { jf: 1, ..statement(equal, libc::SYS_io_uring_setup as u32) },
        statement(libc::BPF_RET | libc::BPF_K, refused),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: no memory is involved.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: the program and its instructions are alive.
    let is_set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) };
    assert_eq!(is_set, 0);
}

#[test]
fn where_io_uring_is_forbidden_threads_do_it_and_it_is_said() {
    if !in_child("ring::tests::limits::where_io_uring_is_forbidden_threads_do_it_and_it_is_said") {
        return;
    }
    forbid_io_uring(libc::EPERM);
    let error = open_ring(Backend::Uring, ENTRIES).expect_err("asked for by name, it is no other");
    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    let (mut ring, reason) = open_ring(Backend::Auto, ENTRIES).expect("threads");
    assert!(matches!(ring, AnyRing::Sync(_)));
    let told = reason.expect("a reason").to_string();
    assert!(told.contains("io_uring is forbidden") || told.contains("switched off"), "{told}");
    let arena = Arena::new(4 << 20);
    assert_eq!(ring.register(&arena), 0);
    let mode = OpenMode { create: false, read_only: true, ..CACHED };
    ring.push(1, Op::Open { path: "/proc/self/exe".into(), mode });
    let Done::File(file) = next(&mut ring) else { panic!("no file") };
    let buf = arena.chunk(CHUNK_BYTES_MAX).expect("room");
    ring.push(2, Op::Read { file, pos: 0, len: CHUNK_BYTES_MAX, buf });
    let Done::Read(buf) = next(&mut ring) else { panic!("no bytes") };
    assert_eq!(buf.len(), CHUNK_BYTES_MAX);
}

/// What the one operation in flight came to.
fn next(ring: &mut impl Ring) -> Done {
    loop {
        if let Some(completion) = ring.pop() {
            return completion.result.expect("done");
        }
        ring.enter(Wait::Forever).expect("entered");
    }
}
