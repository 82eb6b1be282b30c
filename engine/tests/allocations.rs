//! What a steady stream of appends costs in heap allocations, over all threads: nothing.

#![expect(clippy::unwrap_used, reason = "in a test, to stop is the right answer to a surprise")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use ringmain::batch::BatchBuilder;
use ringmain::{Backend, Config, Engine, LogHandle};

static COUNT: AtomicU64 = AtomicU64::new(0);

fn note() {
    COUNT.fetch_add(1, Ordering::Relaxed);
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's promise is the one that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        note();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Appends `count` one-record batches of 100 bytes in turn, each in the memory of one before.
fn append(logs: &[LogHandle], memory: &mut [Vec<u8>], count: usize) {
    for n in 0..count {
        let buffer = &mut memory[n % memory.len()];
        let mut builder = BatchBuilder::reuse(std::mem::take(buffer));
        builder.add(n as i64, None, Some(&[n as u8; 100])).unwrap();
        let log = &logs[n % logs.len()];
        *buffer = log.append_blocking(builder.build().unwrap()).unwrap().buffer;
    }
}

/// Stretches of the steady stream that are counted apart, and appends in each.
const WINDOWS: usize = 20;
const WINDOW_APPENDS: usize = 1_000;

/// Allocations in the stretch that had the fewest, after a warm-up.
fn steady(backend: Backend, partitions: u32) -> u64 {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("allocations-{backend:?}-{partitions}-{}", std::process::id()));
    drop(std::fs::remove_dir_all(&dir));
    let config =
        Config { shards: 1, backend, memory_bytes: 64 << 20, pin: false, ..Config::new(&dir) };
    let engine = Engine::open(config).unwrap();
    let names: Vec<(String, u32)> = (0..partitions).map(|n| ("steady".to_owned(), n)).collect();
    let logs = engine.logs(&names).unwrap();
    let mut memory: Vec<Vec<u8>> = (0..16).map(|_| Vec::with_capacity(1024)).collect();
    append(&logs, &mut memory, 20_000);
    // Background procedures allocate now and then: they ready space, watch the journal's age. An append that
    // allocated would show in every window.
    let windows = (0..WINDOWS).map(|_| {
        let before = COUNT.load(Ordering::SeqCst);
        append(&logs, &mut memory, WINDOW_APPENDS);
        COUNT.load(Ordering::SeqCst) - before
    });
    let windows: Vec<u64> = windows.collect();
    let all: u64 = windows.iter().sum();
    assert!(all < (WINDOWS * WINDOW_APPENDS) as u64 / 100, "{windows:?}");
    let counted = windows.into_iter().min().unwrap();
    engine.close().unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    counted
}

/// One test, because the count is the process's.
#[test]
fn a_steady_stream_of_appends_allocates_nothing() {
    for partitions in [1, 100] {
        assert_eq!(steady(Backend::Auto, partitions), 0, "{partitions} partitions");
    }
}
