//! The bytes of a segment that are in memory: a run of chunks, appended at one end and released at the
//! other.

use std::collections::VecDeque;

use crate::buffers::{Arena, CHUNK_BYTES_MAX, Chunk, Slice, cache};
use crate::types::Pos;

/// The arena had no room. Nothing was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoMemory;

#[derive(Debug)]
struct Piece {
    base: Pos,
    chunk: Chunk,
}

impl Piece {
    fn end(&self) -> Pos {
        self.base.plus(self.chunk.len() as u64)
    }
}

/// Consecutive bytes of a segment, from a block boundary to the segment's end.
///
/// Every chunk begins on a block boundary, because a chunk is a whole number of blocks and is filled before
/// the next one is begun: a block never spans two chunks.
#[derive(Debug)]
pub(crate) struct Window {
    pieces: VecDeque<Piece>,
    base: Pos,
    end: Pos,
    block: u64,
}

impl Window {
    /// An empty window at `base`, a block boundary.
    pub(crate) fn new(base: Pos, block: u64) -> Self {
        assert_eq!(base, base.floor(block), "a window begins on a block");
        Self { pieces: VecDeque::new(), base, end: base, block }
    }

    /// The first byte in memory.
    pub(crate) fn base(&self) -> Pos {
        self.base
    }

    /// One past the last byte.
    pub(crate) fn end(&self) -> Pos {
        self.end
    }

    /// Makes sure that `bytes` can be appended without asking the arena again.
    pub(crate) fn reserve(&mut self, arena: &Arena, bytes: usize) -> Result<(), NoMemory> {
        let had = self.pieces.len();
        let mut spare: usize = self.spare();
        while spare < bytes {
            let last = self.pieces.back().map_or(0, |piece| piece.chunk.capacity());
            // A partition that fills chunks gets larger ones: fewer, larger writes. Not when memory is short.
            let roomy = arena.free_bytes() > arena.bytes() / 2;
            let grown = if roomy { last * 2 } else { 0 };
            let mut want = grown.max(bytes - spare).clamp(self.block as usize, CHUNK_BYTES_MAX);
            let chunk = loop {
                match arena.chunk(want) {
                    Some(chunk) => break chunk,
                    None if want > self.block as usize => {
                        want = (want / 2).max(self.block as usize);
                    }
                    None => {
                        // Half of what is wanted helps nobody: others may do with it.
                        self.pieces.truncate(had);
                        return Err(NoMemory);
                    }
                }
            };
            spare += chunk.capacity();
            let base = self
                .pieces
                .back()
                .map_or(self.base, |piece| piece.base.plus(piece.chunk.capacity() as u64));
            self.pieces.push_back(Piece { base, chunk });
        }
        Ok(())
    }

    /// Bytes are appended soon: the memory for a small batch comes meanwhile from a farther cache.
    pub(crate) fn expect_append(&self) {
        self.expect_bytes(self.end);
    }

    /// Bytes from `start` on are read soon, if they are the last chunk's.
    pub(crate) fn expect_bytes(&self, start: Pos) {
        if let Some(last) = self.pieces.back().filter(|last| last.base <= start) {
            let at = last.chunk.as_ptr().wrapping_add(start.since(last.base) as usize);
            cache::expect_writes(at, cache::SMALL_BYTES);
        }
    }

    fn spare(&self) -> usize {
        self.pieces.range(self.first_spare()..).map(|piece| piece.chunk.spare()).sum()
    }

    /// The first piece that is not full. Few are not, and they are the last.
    fn first_spare(&self) -> usize {
        let open = self.pieces.iter().rev().take_while(|piece| piece.chunk.spare() > 0).count();
        self.pieces.len() - open
    }

    /// Appends `bytes`, for which room was reserved.
    pub(crate) fn append(&mut self, mut bytes: &[u8]) {
        let first = self.first_spare();
        self.end = self.end.plus(bytes.len() as u64);
        for piece in self.pieces.range_mut(first..) {
            let (now, later) = bytes.split_at(bytes.len().min(piece.chunk.spare()));
            piece.chunk.append(now);
            bytes = later;
            if bytes.is_empty() {
                break;
            }
        }
        assert!(bytes.is_empty(), "room was reserved");
    }

    /// Calls `visit` with each run of bytes of `start..end`, in order.
    pub(crate) fn visit(&self, start: Pos, end: Pos, mut visit: impl FnMut(&[u8])) {
        assert!(start >= self.base, "released bytes are not in memory");
        assert!(end <= self.end, "bytes to come are not in memory");
        let first = self.pieces.partition_point(|piece| piece.end() <= start);
        for piece in self.pieces.range(first..) {
            if piece.base >= end {
                break;
            }
            let from = start.max(piece.base).since(piece.base) as usize;
            let to = end.min(piece.end()).since(piece.base) as usize;
            visit(&piece.chunk[from..to]);
        }
    }

    /// The longest run of bytes from `start`, at most to `end`, that lies in one chunk.
    pub(crate) fn slice(&self, start: Pos, end: Pos) -> Slice {
        assert!(start >= self.base, "released bytes are not in memory");
        assert!(start < end, "a run has bytes");
        assert!(end <= self.end, "bytes to come are not in memory");
        let at = self.pieces.partition_point(|piece| piece.end() <= start);
        let piece = &self.pieces[at];
        let from = start.since(piece.base) as usize;
        let to = end.min(piece.end()).since(piece.base) as usize;
        piece.chunk.slice(from..to)
    }

    /// Gives back chunks that lie wholly before `pos`. Returns how many bytes of the arena that freed, once no
    /// operation holds them.
    pub(crate) fn release_to(&mut self, pos: Pos) -> usize {
        let mut freed = 0;
        while let Some(piece) = self.pieces.front() {
            let full_end = piece.base.plus(piece.chunk.capacity() as u64);
            if full_end > pos {
                break;
            }
            freed += piece.chunk.capacity();
            self.base = full_end;
            self.pieces.pop_front();
        }
        freed
    }

    /// Exchanges what is left in memory for one chunk of a block, if that saves any and all before the last block is
    /// before `releasable`. Does nothing if there is no memory for the exchange.
    pub(crate) fn shrink(&mut self, arena: &Arena, releasable: Pos) {
        let held: usize = self.pieces.iter().map(|piece| piece.chunk.capacity()).sum();
        let start = self.end.floor(self.block);
        if held <= self.block as usize || start > releasable || start < self.base {
            return;
        }
        if start == self.end {
            self.pieces.clear();
        } else {
            let Some(mut chunk) = arena.chunk(self.block as usize) else { return };
            self.visit(start, self.end, |bytes| chunk.append(bytes));
            self.pieces.clear();
            self.pieces.push_back(Piece { base: start, chunk });
        }
        self.base = start;
    }

    /// Takes back what was appended from `pos` on. The bytes must not have been sliced: they were in no write.
    pub(crate) fn truncate(&mut self, pos: Pos) {
        assert!(pos >= self.base, "only bytes in memory are taken back");
        while let Some(piece) = self.pieces.back() {
            if piece.base < pos {
                break;
            }
            self.pieces.pop_back();
        }
        if let Some(piece) = self.pieces.back_mut() {
            let keep = pos.since(piece.base) as usize;
            if keep < piece.chunk.len() {
                piece.chunk.truncate(keep);
            }
        }
        self.end = pos;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(arena: &Arena, bytes: usize) -> (Window, Vec<u8>) {
        let mut window = Window::new(Pos::ZERO, 4096);
        let data: Vec<u8> = (0..bytes).map(|i| (i * 7 % 251) as u8).collect();
        for part in data.chunks(1000) {
            window.reserve(arena, part.len()).expect("room");
            window.append(part);
        }
        (window, data)
    }

    fn read(window: &Window, start: u64, end: u64) -> Vec<u8> {
        let mut out = Vec::new();
        window.visit(Pos::new(start), Pos::new(end), |bytes| out.extend_from_slice(bytes));
        out
    }

    #[test]
    fn bytes_come_back_as_they_went_in() {
        let arena = Arena::new(4 << 20);
        let (mut window, data) = filled(&arena, 300_000);
        assert_eq!(read(&window, 0, 300_000), data);
        assert_eq!(read(&window, 4090, 70_001), &data[4090..70_001]);
        window.release_to(Pos::new(100_000));
        let base = window.base().get() as usize;
        assert!(base <= 100_000 && base > 0);
        assert_eq!(read(&window, base as u64, 300_000), &data[base..]);
        let slice = window.slice(Pos::new(200_000), Pos::new(300_000));
        assert_eq!(&*slice, &data[200_000..200_000 + slice.len()]);
    }

    #[test]
    fn a_full_arena_appends_nothing() {
        let arena = Arena::new(CHUNK_BYTES_MAX);
        let (mut window, data) = filled(&arena, 500_000);
        assert_eq!(window.reserve(&arena, 100_000), Err(NoMemory));
        assert_eq!(window.end(), Pos::new(500_000));
        assert_eq!(read(&window, 0, 500_000), data);
        assert!(window.release_to(Pos::new(500_000)) > 0);
        assert!(window.base() > Pos::ZERO);
    }

    #[test]
    fn a_refused_reservation_holds_no_memory() {
        let arena = Arena::new(CHUNK_BYTES_MAX);
        let (mut window, _) = filled(&arena, 1000);
        let free = arena.free_bytes();
        assert_eq!(window.reserve(&arena, CHUNK_BYTES_MAX), Err(NoMemory));
        assert_eq!(arena.free_bytes(), free);
    }

    #[test]
    fn a_shrunk_tail_keeps_its_last_block() {
        let arena = Arena::new(4 << 20);
        let (mut window, data) = filled(&arena, 300_000);
        let start = 300_000 / 4096 * 4096;
        window.shrink(&arena, Pos::new(start - 1));
        assert_eq!(window.base(), Pos::ZERO, "what is not in the file stays");
        window.shrink(&arena, Pos::new(start));
        assert_eq!((window.base().get(), window.end().get()), (start, 300_000));
        assert_eq!(arena.bytes() - arena.free_bytes(), 4096);
        window.reserve(&arena, 9000).expect("room");
        window.append(&[7; 9000]);
        assert_eq!(read(&window, start, 300_000), &data[start as usize..]);
        assert_eq!(read(&window, 300_000, 309_000), [7; 9000]);
        window.truncate(Pos::new(start));
        window.shrink(&arena, Pos::new(start));
        assert_eq!(arena.free_bytes(), arena.bytes(), "an empty tail needs no memory");
    }

    #[test]
    fn bytes_taken_back_can_be_appended_anew() {
        let arena = Arena::new(4 << 20);
        let (mut window, data) = filled(&arena, 30_000);
        window.truncate(Pos::new(10_001));
        window.reserve(&arena, 3).expect("room");
        window.append(b"xyz");
        assert_eq!(read(&window, 0, 10_001), &data[..10_001]);
        assert_eq!(read(&window, 10_001, 10_004), b"xyz");
    }
}
