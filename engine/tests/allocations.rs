//! What a steady stream of appends costs in heap allocations, over all threads: nothing.

#![expect(clippy::unwrap_used, reason = "in a test, to stop is the right answer to a surprise")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use ringmain::batch::BatchBuilder;
use ringmain::types::Offset;
use ringmain::{AppendFuture, Backend, Config, Engine, Fetch, LogHandle};

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

/// Appends in flight at once.
const IN_FLIGHT: usize = 64;

/// Fetches that wait beside them.
const WAITING: usize = 1000;

/// Stretches of the steady stream that are counted apart, and appends in each.
const WINDOWS: usize = 20;
const WINDOW_APPENDS: usize = 10_000;

/// One batch after the other, [`IN_FLIGHT`] of them under way.
struct Stream<'a> {
    logs: &'a [LogHandle],
    under_way: Vec<Option<AppendFuture>>,
    memory: Vec<Vec<u8>>,
    sent: usize,
    waker: Waker,
}

impl<'a> Stream<'a> {
    fn new(logs: &'a [LogHandle]) -> Self {
        Self {
            logs,
            under_way: (0..IN_FLIGHT).map(|_| None).collect(),
            memory: (0..IN_FLIGHT).map(|_| Vec::with_capacity(1024)).collect(),
            sent: 0,
            waker: Waker::from(Arc::new(Unpark(std::thread::current()))),
        }
    }

    /// Sends `count` one-record batches of 100 bytes, each in the memory of one before, and takes what is acked.
    fn append(&mut self, count: usize) {
        let until = self.sent + count;
        while self.sent < until {
            let mut ended = 0;
            for place in 0..IN_FLIGHT {
                if let Some(future) = &mut self.under_way[place] {
                    let mut cx = Context::from_waker(&self.waker);
                    let Poll::Ready(acked) = Pin::new(future).poll(&mut cx) else { continue };
                    self.memory.push(acked.unwrap().buffer);
                }
                ended += 1;
                self.send(place);
            }
            if ended == 0 {
                std::thread::park();
            }
        }
    }

    fn send(&mut self, place: usize) {
        let mut builder = BatchBuilder::reuse(self.memory.pop().unwrap());
        builder.add(self.sent as i64, None, Some(&[self.sent as u8; 100])).unwrap();
        let log = &self.logs[self.sent % self.logs.len()];
        self.sent += 1;
        let mut future = log.append(builder.build().unwrap());
        let first = Pin::new(&mut future).poll(&mut Context::from_waker(&self.waker));
        assert!(first.is_pending(), "an ack takes a flush");
        self.under_way[place] = Some(future);
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

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
    // Fetches that wait for another log of the shard are none of an append's business.
    let quiet = engine.log("quiet", 0).unwrap();
    let waiting: Vec<_> = (0..WAITING)
        .map(|_| quiet.fetch(Fetch { max_wait: Duration::MAX, ..Fetch::from(Offset::ZERO) }))
        .collect();
    let mut stream = Stream::new(&logs);
    stream.append(2 * WINDOW_APPENDS);
    // Background procedures allocate now and then: they ready space, write the journal back. An append that
    // allocated would show in every window.
    let windows = (0..WINDOWS).map(|_| {
        let before = COUNT.load(Ordering::SeqCst);
        stream.append(WINDOW_APPENDS);
        COUNT.load(Ordering::SeqCst) - before
    });
    let windows: Vec<u64> = windows.collect();
    let all: u64 = windows.iter().sum();
    eprintln!("{partitions} partitions, allocations in {WINDOW_APPENDS} appends each: {windows:?}");
    assert!(all < (WINDOWS * WINDOW_APPENDS) as u64 / 20, "{windows:?}");
    let counted = windows.into_iter().min().unwrap();
    drop((stream, waiting));
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
