//! Runs one cold procedure on a ring to its end: recovery, before there is a shard.

use std::future::Future;
use std::io;

use crate::clock::Clock;
use crate::ring::{Ring, Wait};

use super::disk::ShardDisk;
use super::executor::Executor;

/// Runs what `procedure` makes of a disk over `ring`.
///
/// # Errors
/// If the ring itself fails; the procedure's own errors are in its output.
pub(crate) fn drive<R: Ring, C: Clock, F: Future<Output = T> + 'static, T: 'static>(
    ring: &mut R,
    clock: &C,
    procedure: impl FnOnce(ShardDisk) -> F,
) -> io::Result<T> {
    let executor = Executor::with_waker(ring.waker());
    let disk = ShardDisk::default();
    let done = std::rc::Rc::new(std::cell::RefCell::new(None));
    let future = procedure(disk.clone());
    let output = done.clone();
    drop(executor.spawn(async move {
        let result = future.await;
        *output.borrow_mut() = Some(result);
    }));
    loop {
        executor.fire_timers(clock.monotonic_ns());
        while executor.run_ready(crate::limits::EXECUTOR_BUDGET) {}
        if let Some(result) = done.borrow_mut().take() {
            return Ok(result);
        }
        while ring.in_flight() < ring.capacity() {
            let Some((number, op)) = disk.pop() else { break };
            ring.push(number.into(), op);
        }
        ring.enter(if executor.has_ready() { Wait::No } else { Wait::Forever })?;
        while let Some(completion) = ring.pop() {
            drop(disk.end(completion.token as u32, completion.result));
        }
    }
}
