//! The memory of a shard: one arena, cut into aligned power-of-two chunks that the kernel may write from
//! and read into.
//!
//! A [`Chunk`] has one owner, who appends; a [`Slice`] is a counted, immutable view of bytes appended
//! before. A chunk's memory returns to the arena when the chunk and all its slices are gone, so a
//! slice inside an operation keeps the memory alive until the operation's completion. Neither can
//! leave its thread, and neither allocates.
//!
//! # Invariants
//! - Bytes below a chunk's length never change while a slice exists; bytes from its length on are only
//!   written through the one `Chunk`.
//! - Every block given out by the allocator has a reference count above zero, kept at its first page.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::{Deref, Range};
use std::ptr::NonNull;
use std::rc::Rc;

use memmap2::MmapMut;

mod buddy;
pub(crate) mod cache;
pub mod pool;

use buddy::{Buddy, ORDER_MAX, Zone};

/// Order of the largest chunk of an ordinary arena.
const CHUNK_ORDER: u8 = 7;

/// Alignment and smallest size of a chunk, in bytes.
pub const PAGE_BYTES: usize = 4096;

/// Largest chunk, in bytes: the largest single write or read of a shard.
pub const CHUNK_BYTES_MAX: usize = PAGE_BYTES << CHUNK_ORDER;

/// Largest chunk that [`Arena::of_chunks`] can be asked for.
pub const LARGE_CHUNK_BYTES_MAX: usize = PAGE_BYTES << ORDER_MAX;

/// Chunks from this size on prefer memory that is registered with the kernel.
const REGISTERED_FROM_BYTES: usize = 64 * 1024;

/// Alignment of the arena: one huge page.
const HUGE_PAGE_BYTES: usize = 2 * 1024 * 1024;

struct Memory {
    base: NonNull<u8>,
    bytes: usize,
    /// Holds `base` and all behind it. A mapping of its own: what the allocator has in store was touched before, in
    /// small pages, and stays so.
    _map: MmapMut,
    /// Bytes of the largest chunk.
    largest: usize,
    buddy: RefCell<Buddy>,
    /// Handles to the block that begins at a page.
    refs: Box<[Cell<u32>]>,
}

impl Memory {
    fn at(&self, page: u32, start: u32) -> NonNull<u8> {
        let offset = page as usize * PAGE_BYTES + start as usize;
        assert!(offset <= self.bytes, "inside the arena");
        // SAFETY: `offset` is at most the length of the part of the one mapping that `base` begins.
        unsafe { self.base.add(offset) }
    }

    fn retain(&self, page: u32) {
        let refs = &self.refs[page as usize];
        refs.set(refs.get() + 1);
    }

    fn release(&self, page: u32, order: u8) {
        let refs = &self.refs[page as usize];
        refs.set(refs.get() - 1);
        if refs.get() == 0 {
            self.buddy.borrow_mut().give(page, order);
        }
    }
}

/// An empty vector with room for `capacity` bytes, in huge pages where the kernel has them: for what is filled at once,
/// when a fault for each small page would cost more than the bytes.
pub(crate) fn in_huge_pages(capacity: usize) -> Vec<u8> {
    let bytes: Vec<u8> = Vec::with_capacity(capacity);
    #[cfg(not(miri))]
    {
        let from = bytes.as_ptr().addr().next_multiple_of(HUGE_PAGE_BYTES);
        let end = bytes.as_ptr().addr() + bytes.capacity();
        let whole = end.saturating_sub(from) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
        if whole > 0 {
            // SAFETY: whole pages inside the allocation just made; the advice leaves their content alone.
            unsafe {
                libc::madvise(from as *mut libc::c_void, whole, libc::MADV_HUGEPAGE);
            }
        }
    }
    bytes
}

/// A fixed amount of memory, given out as chunks.
#[derive(Clone)]
pub struct Arena(Rc<Memory>);

impl Arena {
    /// Reserves `bytes`, rounded up to a whole largest chunk. Pages are touched only when used.
    ///
    /// # Panics
    /// If the process may have no more address space.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self::of_chunks(bytes, CHUNK_BYTES_MAX)
    }

    /// As [`Arena::new`], with chunks of up to `largest` bytes: for those who measure a device with writes and reads
    /// larger than a shard's.
    ///
    /// # Panics
    /// If `largest` is no power of two from [`CHUNK_BYTES_MAX`] to [`LARGE_CHUNK_BYTES_MAX`], or the process may have
    /// no more address space.
    #[must_use]
    pub fn of_chunks(bytes: usize, largest: usize) -> Self {
        assert!(largest.is_power_of_two(), "blocks double in size");
        assert!((CHUNK_BYTES_MAX..=LARGE_CHUNK_BYTES_MAX).contains(&largest), "a size there is");
        let bytes = bytes.max(1).next_multiple_of(largest);
        let mut map = MmapMut::map_anon(bytes + HUGE_PAGE_BYTES - PAGE_BYTES)
            .unwrap_or_else(|error| panic!("no {bytes} bytes of memory are to be had: {error}"));
        let before = map.as_ptr().align_offset(HUGE_PAGE_BYTES);
        let base = NonNull::from(&mut map[before..before + bytes]).cast::<u8>();
        #[cfg(not(miri))]
        // SAFETY: the range lies inside the mapping just made; the advice leaves its content alone.
        unsafe {
            libc::madvise(base.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE);
        }
        let pages = (bytes / PAGE_BYTES) as u32;
        Self(Rc::new(Memory {
            base,
            bytes,
            _map: map,
            largest,
            buddy: RefCell::new(Buddy::new(pages, 0, order_of(largest))),
            refs: (0..pages).map(|_| Cell::new(0)).collect(),
        }))
    }

    /// Bytes of the largest chunk.
    #[must_use]
    pub fn largest(&self) -> usize {
        self.0.largest
    }

    /// All bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.bytes
    }

    /// Bytes not given out.
    #[must_use]
    pub fn free_bytes(&self) -> usize {
        self.0.buddy.borrow().free_pages() as usize * PAGE_BYTES
    }

    /// Where the arena's memory begins, for registration with the kernel.
    #[must_use]
    pub fn base(&self) -> *mut u8 {
        self.0.base.as_ptr()
    }

    /// Says that the first `bytes` are registered with the kernel: large chunks prefer them, small ones avoid
    /// them.
    ///
    /// # Panics
    /// If a chunk is given out already.
    pub fn set_registered(&self, bytes: usize) {
        assert_eq!(self.free_bytes(), self.bytes(), "before the first chunk");
        let largest = self.0.largest;
        let boundary = bytes / largest * largest / PAGE_BYTES;
        let pages = (self.bytes() / PAGE_BYTES) as u32;
        *self.0.buddy.borrow_mut() = Buddy::new(pages, boundary as u32, order_of(largest));
    }

    /// An empty chunk of at least `bytes`, or `None` if the arena has no such block free.
    ///
    /// # Panics
    /// If `bytes` is above [`CHUNK_BYTES_MAX`], or what [`Arena::of_chunks`] was told.
    #[must_use]
    pub fn chunk(&self, bytes: usize) -> Option<Chunk> {
        assert!(bytes <= self.0.largest, "no chunk is that large");
        let order = order_of(bytes);
        let zone = if bytes >= REGISTERED_FROM_BYTES { Zone::Registered } else { Zone::Plain };
        let page = self.0.buddy.borrow_mut().take(order, zone)?;
        assert_eq!(self.0.refs[page as usize].get(), 0, "a free block has no handle");
        self.0.retain(page);
        Some(Chunk { memory: self.0.clone(), page, order, len: 0 })
    }
}

/// The order of the smallest block that holds `bytes`.
fn order_of(bytes: usize) -> u8 {
    bytes.div_ceil(PAGE_BYTES).max(1).next_power_of_two().trailing_zeros() as u8
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Arena({} of {} bytes free)", self.free_bytes(), self.bytes())
    }
}

/// A block of the arena with one owner, filled from its beginning.
pub struct Chunk {
    memory: Rc<Memory>,
    page: u32,
    order: u8,
    len: u32,
}

impl Chunk {
    /// The most bytes it holds.
    #[must_use]
    pub fn capacity(&self) -> usize {
        PAGE_BYTES << self.order
    }

    /// Bytes that can still be appended.
    #[must_use]
    pub fn spare(&self) -> usize {
        self.capacity() - self.len as usize
    }

    /// Appends `bytes`.
    ///
    /// # Panics
    /// If they are more than [`Chunk::spare`].
    pub fn append(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.spare(), "the caller asked for room");
        let to = self.memory.at(self.page, self.len);
        // SAFETY: the room lies inside this chunk's block, from its length on, which no slice covers and
        // no one else writes; `bytes` is other memory, since all views of the arena are below lengths.
        unsafe { to.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
        self.len += bytes.len() as u32;
    }

    /// Appends `count` zeros.
    ///
    /// # Panics
    /// If they are more than [`Chunk::spare`].
    pub fn append_zeros(&mut self, count: usize) {
        assert!(count <= self.spare(), "the caller asked for room");
        let to = self.memory.at(self.page, self.len);
        // SAFETY: as in `append`.
        unsafe { to.as_ptr().write_bytes(0, count) }
        self.len += count as u32;
    }

    /// Appends a copy of the chunk's own bytes in `range`.
    ///
    /// # Panics
    /// If the range reaches past the chunk's length, or there is no room.
    pub fn append_within(&mut self, range: Range<usize>) {
        assert!(range.start <= range.end, "a range runs forward");
        assert!(range.end <= self.len as usize, "only what was appended");
        assert!(range.len() <= self.spare(), "the caller asked for room");
        let from = self.memory.at(self.page, range.start as u32);
        let to = self.memory.at(self.page, self.len);
        // SAFETY: both lie in this chunk's block; the source ends at the length at the latest, where the
        // room, which nobody else sees, begins.
        unsafe { to.as_ptr().copy_from_nonoverlapping(from.as_ptr(), range.len()) }
        self.len += range.len() as u32;
    }

    /// A view of `range`, which keeps the block alive.
    ///
    /// # Panics
    /// If the range reaches past the chunk's length.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Slice {
        assert!(range.start <= range.end, "a range runs forward");
        assert!(range.end <= self.len as usize, "only what was appended");
        self.memory.retain(self.page);
        Slice {
            memory: self.memory.clone(),
            page: self.page,
            order: self.order,
            start: range.start as u32,
            len: (range.end - range.start) as u32,
        }
    }

    /// Changes bytes in place, from `at` on.
    ///
    /// # Panics
    /// If a slice exists, or the range reaches past the chunk's length.
    pub fn overwrite(&mut self, at: usize, bytes: &[u8]) {
        assert_eq!(self.refs(), 1, "no slice sees bytes change");
        assert!(at + bytes.len() <= self.len as usize, "only what was appended");
        let to = self.memory.at(self.page, at as u32);
        // SAFETY: inside this chunk's initialised bytes, which nobody else sees (asserted above).
        unsafe { to.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
    }

    /// Empties the chunk.
    ///
    /// # Panics
    /// If a slice exists.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// Takes back the bytes from `len` on.
    ///
    /// # Panics
    /// If a slice exists, or the chunk is shorter.
    pub fn truncate(&mut self, len: usize) {
        assert_eq!(self.refs(), 1, "no slice sees bytes change");
        assert!(len <= self.len as usize, "only what was appended");
        self.len = len as u32;
    }

    /// Where a ring reads to: the whole block.
    pub(crate) fn fill_ptr(&mut self) -> *mut u8 {
        assert_eq!(self.refs(), 1, "no slice sees bytes change");
        self.memory.at(self.page, 0).as_ptr()
    }

    /// Says that a ring has read `len` bytes to [`Chunk::fill_ptr`].
    ///
    /// # Safety
    /// The first `len` bytes of the block are initialised.
    pub(crate) unsafe fn filled(&mut self, len: usize) {
        assert!(len <= self.capacity(), "inside the block");
        self.len = len as u32;
    }

    fn refs(&self) -> u32 {
        self.memory.refs[self.page as usize].get()
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the first `len` bytes are initialised and change only through `&mut self`.
        unsafe {
            std::slice::from_raw_parts(
                self.memory.at(self.page, 0).as_ptr().cast_const(),
                self.len as usize,
            )
        }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.memory.release(self.page, self.order);
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk({} of {} bytes)", self.len, self.capacity())
    }
}

/// A counted view of bytes in a chunk. The bytes never change while it lives.
pub struct Slice {
    memory: Rc<Memory>,
    page: u32,
    order: u8,
    start: u32,
    len: u32,
}

impl Slice {
    /// A view of a part of this view.
    ///
    /// # Panics
    /// If the range reaches past the view's length.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Slice {
        assert!(range.start <= range.end, "a range runs forward");
        assert!(range.end <= self.len as usize, "inside this view");
        let mut slice = self.clone();
        slice.start += range.start as u32;
        slice.len = (range.end - range.start) as u32;
        slice
    }
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: a slice covers initialised bytes below its chunk's length; they do not change while a
        // slice exists (`overwrite`, `clear` and `fill_ptr` assert that there is none).
        unsafe {
            std::slice::from_raw_parts(
                self.memory.at(self.page, self.start).as_ptr().cast_const(),
                self.len as usize,
            )
        }
    }
}

impl Clone for Slice {
    fn clone(&self) -> Self {
        self.memory.retain(self.page);
        Self { memory: self.memory.clone(), ..*self }
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        self.memory.release(self.page, self.order);
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slice({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_keeps_its_block_alive_and_unchanged() {
        let arena = Arena::new(CHUNK_BYTES_MAX);
        let free = arena.free_bytes();
        let mut chunk = arena.chunk(8000).expect("room");
        assert_eq!(chunk.capacity(), 8192);
        chunk.append(b"abcdef");
        let view = chunk.slice(1..4);
        let part = view.slice(1..3);
        chunk.append(b"gh");
        drop(chunk);
        drop(view.clone());
        assert_eq!(&*view, b"bcd");
        drop(view);
        assert_eq!(&*part, b"cd");
        assert!(arena.free_bytes() < free);
        drop(part);
        assert_eq!(arena.free_bytes(), free);
    }

    #[test]
    #[should_panic(expected = "no slice sees bytes change")]
    fn bytes_under_a_slice_cannot_be_changed() {
        let arena = Arena::new(CHUNK_BYTES_MAX);
        let mut chunk = arena.chunk(1).expect("room");
        chunk.append(b"abc");
        let _view = chunk.slice(0..1);
        chunk.overwrite(0, b"x");
    }

    #[test]
    fn an_arena_of_large_chunks_gives_them_out_whole_and_small_ones_too() {
        let large = 2 * CHUNK_BYTES_MAX;
        let arena = Arena::of_chunks(large + 1, large);
        assert_eq!((arena.bytes(), arena.largest()), (2 * large, large));
        arena.set_registered(large + CHUNK_BYTES_MAX);
        let mut chunk = arena.chunk(large).expect("room");
        chunk.append_zeros(large);
        assert_eq!(chunk.slice(0..large).len(), large);
        let small: Vec<_> = std::iter::from_fn(|| arena.chunk(CHUNK_BYTES_MAX)).collect();
        assert_eq!(small.len(), 2);
        drop(small);
        assert!(arena.chunk(large).is_some(), "they join again");
    }

    #[test]
    fn an_exhausted_arena_says_so() {
        let arena = Arena::new(2 * CHUNK_BYTES_MAX);
        let chunks: Vec<_> = (0..2).map(|_| arena.chunk(CHUNK_BYTES_MAX).expect("room")).collect();
        assert!(arena.chunk(1).is_none());
        drop(chunks);
        assert!(arena.chunk(CHUNK_BYTES_MAX).is_some());
    }
}
