//! Equal buffers cut out of an arena, for bytes that come when they like: the kernel, or a call, takes one when there
//! is something to put in it. Ten thousand silent connections hold none.
//!
//! # Invariants
//! - A buffer is in one place: on the free list, with whoever [`Pool::take`] gave it to, or in one [`Lease`].
//! - Its memory lives as long as the pool or any lease.

use std::cell::RefCell;
use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

use super::{Arena, CHUNK_BYTES_MAX, Chunk};

/// Bytes of one buffer.
pub const POOLED_BYTES: usize = 16 * 1024;

/// Buffers in one chunk.
const PER_CHUNK: usize = CHUNK_BYTES_MAX / POOLED_BYTES;

/// Fewest buffers of a pool: one chunk's.
pub const POOLED_MIN: usize = PER_CHUNK;

struct Memory {
    chunks: Box<[Chunk]>,
    free: RefCell<Vec<u16>>,
}

/// A fixed number of buffers. Cheap to clone; stays on its thread.
#[derive(Clone)]
pub struct Pool(Rc<Memory>);

impl Pool {
    /// A pool of about `buffers`, a power of two: half as many as often as the arena has no room. `None` if it has none
    /// for the fewest.
    #[must_use]
    pub fn new(arena: &Arena, buffers: usize) -> Option<Self> {
        let mut wanted = buffers.clamp(POOLED_MIN, 1 << 15).next_power_of_two();
        loop {
            let chunks: Option<Box<[Chunk]>> =
                (0..wanted / PER_CHUNK).map(|_| arena.chunk(CHUNK_BYTES_MAX)).collect();
            if let Some(chunks) = chunks {
                let free = RefCell::new((0..wanted as u16).rev().collect());
                return Some(Self(Rc::new(Memory { chunks, free })));
            }
            if wanted == POOLED_MIN {
                return None;
            }
            wanted /= 2;
        }
    }

    /// All buffers.
    #[must_use]
    pub fn buffers(&self) -> usize {
        self.0.chunks.len() * PER_CHUNK
    }

    /// Buffers on the free list.
    #[must_use]
    pub fn free(&self) -> usize {
        self.0.free.borrow().len()
    }

    /// Takes a buffer off the free list.
    #[must_use]
    pub fn take(&self) -> Option<u16> {
        self.0.free.borrow_mut().pop()
    }

    /// Puts a buffer that [`Pool::take`] gave back on the free list.
    pub(crate) fn give(&self, buffer: u16) {
        let mut free = self.0.free.borrow_mut();
        assert!(free.len() < self.buffers(), "no buffer comes back twice");
        free.push(buffer);
    }

    /// Where a buffer begins.
    pub(crate) fn at(&self, buffer: u16) -> *mut u8 {
        let (chunk, place) = (buffer as usize / PER_CHUNK, buffer as usize % PER_CHUNK);
        let chunk = &self.0.chunks[chunk];
        chunk.memory.at(chunk.page, (place * POOLED_BYTES) as u32).as_ptr()
    }

    /// The first `len` bytes of a buffer, lent out.
    ///
    /// # Safety
    /// [`Pool::take`] gave the buffer, nobody else uses it any more, and its first `len` bytes are initialised.
    pub(crate) unsafe fn lease(&self, buffer: u16, len: usize) -> Lease {
        assert!(len <= POOLED_BYTES, "inside the buffer");
        Lease { pool: self.clone(), buffer, len: len as u32 }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({} of {} free)", self.free(), self.buffers())
    }
}

/// Bytes that came from a socket, in a buffer that goes back when this is dropped.
///
/// There are a few dozen to a few thousand buffers for all connections of a shard: take out what is needed and drop
/// the lease before waiting for anything.
pub struct Lease {
    pool: Pool,
    buffer: u16,
    len: u32,
}

impl Deref for Lease {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the first `len` bytes are initialised, and nobody writes them while this lives.
        unsafe {
            std::slice::from_raw_parts(self.pool.at(self.buffer).cast_const(), self.len as usize)
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.give(self.buffer);
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_in_one_place() {
        let pool = Pool::new(&Arena::new(1 << 20), 64).expect("room");
        let mut taken: Vec<u16> = std::iter::from_fn(|| pool.take()).collect();
        taken.sort_unstable();
        assert_eq!(taken, (0..64).collect::<Vec<u16>>());
        for buffer in &taken {
            // SAFETY: the buffer is ours, and as long as what is written.
            unsafe { pool.at(*buffer).write_bytes(*buffer as u8, POOLED_BYTES) }
        }
        // SAFETY: all were taken and filled above.
        let leases: Vec<Lease> =
            taken.iter().map(|buffer| unsafe { pool.lease(*buffer, 9) }).collect();
        for (lease, buffer) in leases.iter().zip(&taken) {
            assert_eq!(**lease, [*buffer as u8; 9]);
        }
        assert_eq!(pool.free(), 0);
        drop(leases);
        assert_eq!(pool.free(), 64);
    }

    #[test]
    fn a_pool_takes_what_room_there_is() {
        let arena = Arena::new(CHUNK_BYTES_MAX * 3);
        assert_eq!(Pool::new(&arena, 1024).expect("two chunks").buffers(), 64);
        let _all: Vec<Chunk> = std::iter::from_fn(|| arena.chunk(CHUNK_BYTES_MAX)).collect();
        assert!(Pool::new(&arena, 32).is_none());
    }
}
