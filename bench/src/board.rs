//! Who is ready: one bit a client, set by wakers on any thread, taken by the clients' thread.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{RawWaker, RawWakerVTable, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Words on one cache line would be fought over by two cores for nothing.
#[repr(align(64))]
struct Line<T>(T);

/// A board of ready bits. It is never freed: a waker is a plain pointer into it, copied and dropped at no
/// cost, and may outlive the run it was made for.
pub struct Board {
    ready: Box<[AtomicU64]>,
    /// Whether the clients' thread sleeps, or is about to.
    asleep: Line<AtomicBool>,
    thread: Line<std::sync::Mutex<Option<Thread>>>,
    seats: OnceLock<Box<[Seat]>>,
    wakers: OnceLock<Box<[Waker]>>,
}

/// What a waker points to.
struct Seat {
    board: &'static Board,
    client: u32,
}

const VTABLE: RawWakerVTable =
    RawWakerVTable::new(|seat| RawWaker::new(seat, &VTABLE), wake, wake, |_| ());

fn wake(seat: *const ()) {
    // SAFETY: every waker made here points to a `Seat` of a board that is never freed.
    let seat = unsafe { &*seat.cast::<Seat>() };
    seat.board.wake(seat.client);
}

impl Board {
    /// A board for up to `clients` clients, kept until the process ends: make one and use it for all runs.
    pub fn leaked(clients: u32) -> &'static Self {
        let board: &'static Self = Box::leak(Box::new(Self {
            ready: (0..clients.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            asleep: Line(AtomicBool::new(false)),
            thread: Line(std::sync::Mutex::new(None)),
            seats: OnceLock::new(),
            wakers: OnceLock::new(),
        }));
        let seats =
            board.seats.get_or_init(|| (0..clients).map(|client| Seat { board, client }).collect());
        board.wakers.get_or_init(|| {
            let waker = |seat: &'static Seat| {
                let raw = RawWaker::new(std::ptr::from_ref(seat).cast(), &VTABLE);
                // SAFETY: the table's functions take any thread's calls and the pointer is valid for ever.
                unsafe { Waker::from_raw(raw) }
            };
            seats.iter().map(waker).collect()
        });
        board
    }

    /// The most clients.
    pub fn clients(&self) -> u32 {
        self.seats.get().map_or(0, |seats| seats.len() as u32)
    }

    /// Makes the calling thread the one that wakers wake, and forgets wakes of an earlier run.
    pub fn enlist(&self) {
        *self.thread.0.lock().expect("no thread panics with the lock") = Some(thread::current());
        for word in &self.ready {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// The waker of `client`: always the same one.
    pub fn waker(&self, client: u32) -> &Waker {
        &self.wakers.get().expect("made with the board")[client as usize]
    }

    /// Marks `client` ready, from the clients' own thread.
    pub fn set(&self, client: u32) {
        self.ready[client as usize / 64].fetch_or(1 << (client % 64), Ordering::Relaxed);
    }

    /// Takes the ready bits of a word.
    pub fn take(&self, word: usize) -> u64 {
        let bits = &self.ready[word];
        // The load first: an idle word stays shared between the cores' caches.
        if bits.load(Ordering::Relaxed) == 0 { 0 } else { bits.swap(0, Ordering::Acquire) }
    }

    fn wake(&self, client: u32) {
        // SeqCst with `wait`: either this sees `asleep`, or the sleeper sees this bit.
        self.ready[client as usize / 64].fetch_or(1 << (client % 64), Ordering::SeqCst);
        if self.asleep.0.load(Ordering::SeqCst) && self.asleep.0.swap(false, Ordering::SeqCst) {
            let thread = self.thread.0.lock().expect("no thread panics with the lock");
            thread.as_ref().expect("a thread that sleeps has enlisted").unpark();
        }
    }

    /// Returns once a client is ready: looks for `spin`, then sleeps at most `sleep`.
    pub fn wait(&self, spin: Duration, sleep: Duration) {
        if !spin.is_zero() {
            let begin = Instant::now();
            while begin.elapsed() < spin {
                if self.any() {
                    return;
                }
                std::hint::spin_loop();
            }
        }
        self.asleep.0.store(true, Ordering::SeqCst);
        if !self.any() {
            thread::park_timeout(sleep);
        }
        self.asleep.0.store(false, Ordering::SeqCst);
    }

    fn any(&self) -> bool {
        self.ready.iter().any(|word| word.load(Ordering::SeqCst) != 0)
    }
}
