//! The ring of provided buffers (Linux 5.19): the kernel takes a buffer from it when bytes have come, not before.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

use crate::buffers::pool::{POOLED_BYTES, Pool};
use crate::buffers::{Arena, CHUNK_BYTES_MAX, Chunk};

/// The one group of buffers of a ring.
pub(in super::super) const GROUP: u16 = 0;

/// Most buffers of a ring.
pub(super) const BUFFERS_MAX: u16 = 1024;

const _: () = assert!(BUFFERS_MAX as usize * size_of::<BufRingEntry>() <= CHUNK_BYTES_MAX);

/// The ring's memory and our end of it.
#[derive(Debug)]
pub(in super::super) struct Provided {
    memory: Chunk,
    entries: u16,
    tail: u16,
}

impl Provided {
    /// Registers a ring for the buffers of `pool`.
    pub(in super::super) fn register(
        submitter: &Submitter<'_>,
        arena: &Arena,
        pool: &Pool,
    ) -> io::Result<Self> {
        let entries = pool.buffers() as u16;
        let bytes = entries as usize * size_of::<BufRingEntry>();
        let no_memory = || io::Error::from_raw_os_error(libc::ENOMEM);
        let mut memory = arena.chunk(bytes).ok_or_else(no_memory)?;
        memory.append_zeros(bytes);
        let at = memory.fill_ptr().expose_provenance() as u64;
        // SAFETY: a chunk begins on a page and has room for so many entries. It lives in `Provided`, which is dropped
        // after the ring.
        unsafe { submitter.register_buf_ring_with_flags(at, entries, GROUP, 0)? };
        Ok(Self { memory, entries, tail: 0 })
    }

    /// Gives the kernel all buffers on the free list. Returns how many.
    pub(in super::super) fn publish(&mut self, pool: &Pool) -> usize {
        #[expect(clippy::cast_ptr_alignment, reason = "a chunk begins on a page")]
        let ring = self.memory.fill_ptr().cast::<BufRingEntry>();
        let mut count = 0;
        while let Some(buffer) = pool.take() {
            let place = self.tail & (self.entries - 1);
            // SAFETY: the place is inside the ring. The kernel does not look at it before the tail is moved: the ring
            // has as many places as there are buffers, so this one's last buffer has been used up.
            let entry = unsafe { &mut *ring.add(usize::from(place)) };
            entry.set_addr(pool.at(buffer).expose_provenance() as u64);
            entry.set_len(POOLED_BYTES as u32);
            entry.set_bid(buffer);
            self.tail = self.tail.wrapping_add(1);
            count += 1;
        }
        if count > 0 {
            // SAFETY: the ring's first entry is initialised; its tail is aligned, and the kernel only reads it.
            let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(ring).cast_mut()) };
            tail.store(self.tail, Ordering::Release);
        }
        count
    }
}
