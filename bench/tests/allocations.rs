//! The harness allocates nothing per request, so what is counted or felt during a run is the target's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Result;
use ringmain_bench::board::Board;
use ringmain_bench::clients::{Acked, Load, Target, drive};
use ringmain_bench::payload::Payload;
use ringmain_bench::{floor::Floor, sample::Sample};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: passes every call on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(at, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A target whose requests are done at their second look: the least that one can cost.
struct Echo;

/// Ready when looked at again.
struct Once(bool);

impl Future for Once {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.0 {
            return Poll::Ready(());
        }
        self.0 = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Target for Echo {
    type Fut = Once;

    fn append(&mut self, _: u32) -> Once {
        Once(false)
    }

    fn acked(&mut self, _: u32, (): ()) -> Result<Acked> {
        Ok(Acked { records: 1, bytes: 1 })
    }
}

fn load(clients: u32, millis: u64) -> Load {
    let measured = Duration::from_millis(millis);
    Load { clients, warm_up: Duration::ZERO, measured, spin: Duration::ZERO, bytes_max: u64::MAX }
}

/// Allocations of a run beyond those of its beginning, which a run of any length has.
fn beyond_setup(mut run: impl FnMut(u64) -> Sample) -> (u64, Sample) {
    let mut count = |millis| {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        let sample = run(millis);
        (ALLOCATIONS.load(Ordering::Relaxed) - before, sample)
    };
    // The first run fills what is filled once; the second is the price of any run.
    count(200);
    let (setup, _) = count(1);
    let (whole, sample) = count(400);
    (whole.saturating_sub(setup), sample)
}

/// One test, not several at a time: the counter is the process's.
#[test]
fn a_request_costs_no_allocation() {
    let board = Board::leaked(256);
    let (extra, sample) =
        beyond_setup(|millis| drive(&mut Echo, &load(256, millis), board).expect("runs"));
    assert!(sample.records > 10_000, "{} requests", sample.records);
    assert_eq!(extra, 0, "the clients, in {} requests", sample.records);
    let each = sample.elapsed.as_nanos() as u64 / sample.records;
    println!("{each} ns a request");

    let dir = std::env::temp_dir().join(format!("ringmain-bench-floor-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("made");
    let payload = Payload::generated(1 << 20);
    let floor = Floor::start(&dir, 256).expect("starts");
    let mut target = floor.target(&payload);
    let (extra, sample) =
        beyond_setup(|millis| drive(&mut target, &load(256, millis), board).expect("runs"));
    drop(target);
    let counts = floor.stop().expect("stops");
    std::fs::remove_dir_all(&dir).expect("removed");
    assert!(sample.records > 256 && counts.records > sample.records);
    assert_eq!(extra, 0, "the floor, in {} requests", sample.records);
}
