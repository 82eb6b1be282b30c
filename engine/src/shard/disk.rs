//! The shard's [`Disk`]: cold procedures put operations on a queue that the shard's loop carries to its ring.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::command::{Disk, Done, Op};

enum Entry {
    Free,
    Waiting(Option<Waker>),
    Ended(io::Result<Done>),
    /// Nobody waits; the operation still owns its buffers until it ends.
    Abandoned,
}

#[derive(Default)]
struct Desk {
    queue: VecDeque<(u32, Op)>,
    entries: Vec<Entry>,
    free: Vec<u32>,
}

/// Operations of procedures, on their way to the ring and back.
#[derive(Clone, Default)]
pub(crate) struct ShardDisk(Rc<RefCell<Desk>>);

impl ShardDisk {
    /// The next operation to be pushed, with the number under which it ends.
    pub(crate) fn pop(&self) -> Option<(u32, Op)> {
        self.0.borrow_mut().queue.pop_front()
    }

    /// Whether operations wait to be pushed.
    pub(crate) fn has_queued(&self) -> bool {
        !self.0.borrow().queue.is_empty()
    }

    /// The operation has ended.
    pub(crate) fn end(&self, number: u32, result: io::Result<Done>) {
        let mut desk = self.0.borrow_mut();
        let entry = &mut desk.entries[number as usize];
        match std::mem::replace(entry, Entry::Free) {
            Entry::Waiting(waker) => {
                *entry = Entry::Ended(result);
                drop(desk);
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            Entry::Abandoned => desk.free.push(number),
            Entry::Free | Entry::Ended(_) => unreachable!("an operation ends once"),
        }
    }

    fn begin(&self, op: Op) -> u32 {
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
        Running { number: Some(self.begin(op)), disk: self.clone() }
    }
}

struct Running {
    number: Option<u32>,
    disk: ShardDisk,
}

impl Future for Running {
    type Output = io::Result<Done>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let number = self.number.expect("a future is not polled after it was ready");
        let disk = self.disk.clone();
        let mut desk = disk.0.borrow_mut();
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

impl Drop for Running {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let mut desk = self.disk.0.borrow_mut();
        let entry = &mut desk.entries[number as usize];
        if matches!(entry, Entry::Ended(_)) {
            *entry = Entry::Free;
            desk.free.push(number);
        } else {
            *entry = Entry::Abandoned;
        }
    }
}
