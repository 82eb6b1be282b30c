//! The shard's [`Disk`], and its way to sockets: procedures put operations on a queue that the shard's loop carries to
//! its ring.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::command::sockets::{NetDone, NetOp};
use crate::command::{Disk, Done, Op};

enum Entry<D> {
    Free,
    Waiting(Option<Waker>),
    Ended(io::Result<D>),
    /// Nobody waits; the operation still owns its buffers until it ends.
    Abandoned,
}

struct State<O, D> {
    queue: VecDeque<(u32, O)>,
    entries: Vec<Entry<D>>,
    free: Vec<u32>,
}

/// Operations of procedures, on their way to the ring and back.
pub(crate) struct Desk<O, D>(Rc<RefCell<State<O, D>>>);

/// Those on files.
pub(crate) type ShardDisk = Desk<Op, Done>;

/// Those on sockets.
pub(crate) type NetDesk = Desk<NetOp, NetDone>;

impl<O, D> Clone for Desk<O, D> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<O, D> Default for Desk<O, D> {
    fn default() -> Self {
        let state = State { queue: VecDeque::new(), entries: Vec::new(), free: Vec::new() };
        Self(Rc::new(RefCell::new(state)))
    }
}

impl<O, D> Desk<O, D> {
    /// The next operation to be pushed, with the number under which it ends.
    pub(crate) fn pop(&self) -> Option<(u32, O)> {
        self.0.borrow_mut().queue.pop_front()
    }

    /// Whether operations wait to be pushed.
    pub(crate) fn has_queued(&self) -> bool {
        !self.0.borrow().queue.is_empty()
    }

    /// The operation has ended. Returns what it came to if nobody waits for that any more.
    pub(crate) fn end(&self, number: u32, result: io::Result<D>) -> Option<D> {
        let mut desk = self.0.borrow_mut();
        let entry = &mut desk.entries[number as usize];
        match std::mem::replace(entry, Entry::Free) {
            Entry::Waiting(waker) => {
                *entry = Entry::Ended(result);
                drop(desk);
                if let Some(waker) = waker {
                    waker.wake();
                }
                None
            }
            Entry::Abandoned => {
                desk.free.push(number);
                result.ok()
            }
            Entry::Free | Entry::Ended(_) => unreachable!("an operation ends once"),
        }
    }

    /// Starts an operation. Dropping the future does not cancel it.
    pub(crate) fn start(&self, op: O) -> Running<O, D> {
        Running { number: Some(self.begin(op)), desk: self.clone() }
    }

    fn begin(&self, op: O) -> u32 {
        let mut desk = self.0.borrow_mut();
        let number = desk.free.pop().unwrap_or_else(|| {
            desk.entries.push(Entry::Free);
            desk.entries.len() as u32 - 1
        });
        desk.entries[number as usize] = Entry::Waiting(None);
        desk.queue.push_back((number, op));
        number
    }
}

impl Disk for ShardDisk {
    fn run(&self, op: Op) -> impl Future<Output = io::Result<Done>> + 'static {
        self.start(op)
    }
}

/// An operation under way.
pub(crate) struct Running<O, D> {
    number: Option<u32>,
    desk: Desk<O, D>,
}

impl<O, D> Future for Running<O, D> {
    type Output = io::Result<D>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let number = self.number.expect("a future is not polled after it was ready");
        let desk = self.desk.clone();
        let mut desk = desk.0.borrow_mut();
        let entry = &mut desk.entries[number as usize];
        if let Entry::Waiting(waker) = entry {
            *waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let Entry::Ended(result) = std::mem::replace(entry, Entry::Free) else {
            unreachable!("an operation of a live future waits or has ended");
        };
        desk.free.push(number);
        self.number = None;
        Poll::Ready(result)
    }
}

impl<O, D> Drop for Running<O, D> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let mut desk = self.desk.0.borrow_mut();
        let entry = &mut desk.entries[number as usize];
        if matches!(entry, Entry::Ended(_)) {
            let ended = std::mem::replace(entry, Entry::Free);
            desk.free.push(number);
            drop(desk);
            // Outside of the borrow: what it came to may use the desk as it goes.
            drop(ended);
        } else {
            *entry = Entry::Abandoned;
        }
    }
}
