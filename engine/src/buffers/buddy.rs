//! A buddy allocator over page numbers: constant time, no allocation after construction.
//!
//! Source of the algorithm: Knuth, The Art of Computer Programming, volume 1, section 2.5. Free blocks of
//! one order hang in a doubly linked list threaded through arrays, so that a freed block finds and
//! unlinks its buddy without a search.

const NONE: u32 = u32::MAX;

/// Largest order there can be: a block of `1 << ORDER_MAX` pages.
pub(super) const ORDER_MAX: u8 = 12;

/// Block sizes, from one page (order 0) to `1 << ORDER_MAX` pages.
const ORDERS: usize = ORDER_MAX as usize + 1;

/// Which part of the memory to prefer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zone {
    /// The front, which is registered with the kernel.
    Registered = 0,
    /// The rest.
    Plain = 1,
}

/// Free pages in two zones.
#[derive(Debug)]
pub(super) struct Buddy {
    next: Box<[u32]>,
    prev: Box<[u32]>,
    /// Order of the free block that begins at a page; `u8::MAX` where none does.
    order: Box<[u8]>,
    heads: [[u32; ORDERS]; 2],
    /// Order of the largest blocks.
    largest: u8,
    boundary: u32,
    free_pages: u32,
}

impl Buddy {
    /// `pages` and `boundary` (the first plain page) are multiples of the largest block, whose order is `order`.
    pub(super) fn new(pages: u32, boundary: u32, order: u8) -> Self {
        assert!(order <= ORDER_MAX, "an order there is");
        let largest = 1u32 << order;
        assert!(pages.is_multiple_of(largest), "whole largest blocks");
        assert!(boundary.is_multiple_of(largest), "no block spans the zones");
        assert!(boundary <= pages, "the boundary is inside");
        let mut buddy = Self {
            next: vec![NONE; pages as usize].into_boxed_slice(),
            prev: vec![NONE; pages as usize].into_boxed_slice(),
            order: vec![u8::MAX; pages as usize].into_boxed_slice(),
            heads: [[NONE; ORDERS]; 2],
            largest: order,
            boundary,
            free_pages: pages,
        };
        for page in (0..pages).step_by(largest as usize).rev() {
            buddy.link(page, order);
        }
        buddy
    }

    pub(super) fn free_pages(&self) -> u32 {
        self.free_pages
    }

    /// Takes a block of `1 << order` pages, from the zone if it can, else from the other.
    pub(super) fn take(&mut self, order: u8, zone: Zone) -> Option<u32> {
        let other = if zone == Zone::Plain { Zone::Registered } else { Zone::Plain };
        let page = self.take_in(order, zone).or_else(|| self.take_in(order, other))?;
        self.free_pages -= 1 << order;
        Some(page)
    }

    fn take_in(&mut self, order: u8, zone: Zone) -> Option<u32> {
        let heads = &self.heads[zone as usize];
        let found = (order..=self.largest).find(|&o| heads[o as usize] != NONE)?;
        let page = heads[found as usize];
        self.unlink(page);
        for split in (order..found).rev() {
            self.link(page + (1 << split), split);
        }
        Some(page)
    }

    /// Gives a block back, and joins it with its free buddies.
    pub(super) fn give(&mut self, page: u32, order: u8) {
        self.free_pages += 1 << order;
        let (mut page, mut order) = (page, order);
        assert_eq!(self.order[page as usize], u8::MAX, "a block is freed once");
        while order < self.largest {
            let buddy = page ^ (1 << order);
            if self.order[buddy as usize] != order {
                break;
            }
            self.unlink(buddy);
            page = page.min(buddy);
            order += 1;
        }
        self.link(page, order);
    }

    fn zone(&self, page: u32) -> usize {
        if page < self.boundary { Zone::Registered as usize } else { Zone::Plain as usize }
    }

    fn link(&mut self, page: u32, order: u8) {
        let zone = self.zone(page);
        let head = std::mem::replace(&mut self.heads[zone][order as usize], page);
        self.next[page as usize] = head;
        self.prev[page as usize] = NONE;
        self.order[page as usize] = order;
        if head != NONE {
            self.prev[head as usize] = page;
        }
    }

    fn unlink(&mut self, page: u32) {
        let order = std::mem::replace(&mut self.order[page as usize], u8::MAX);
        let (next, prev) = (self.next[page as usize], self.prev[page as usize]);
        if next != NONE {
            self.prev[next as usize] = prev;
        }
        if prev == NONE {
            self.heads[self.zone(page)][order as usize] = next;
        } else {
            self.next[prev as usize] = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGEST: u8 = 7;

    #[test]
    fn all_memory_comes_back_as_largest_blocks() {
        let mut buddy = Buddy::new(512, 128, LARGEST);
        let mut taken = Vec::new();
        let mut state = 7u32;
        for _ in 0..20_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let order = (state >> 16) as u8 % (LARGEST + 1);
            if state & 1 == 0 {
                let zone = if state & 2 == 0 { Zone::Plain } else { Zone::Registered };
                taken.extend(buddy.take(order, zone).map(|page| (page, order)));
            } else if !taken.is_empty() {
                let (page, order) = taken.swap_remove((state >> 8) as usize % taken.len());
                buddy.give(page, order);
            }
            let mut pages: Vec<u32> =
                taken.iter().flat_map(|&(page, order)| page..page + (1 << order)).collect();
            let count = pages.len();
            pages.sort_unstable();
            pages.dedup();
            assert_eq!(pages.len(), count, "no page is given out twice");
            assert_eq!(buddy.free_pages() as usize, 512 - count);
        }
        for (page, order) in taken.drain(..) {
            buddy.give(page, order);
        }
        for _ in 0..4 {
            assert!(buddy.take(LARGEST, Zone::Plain).is_some());
        }
        assert_eq!(buddy.take(0, Zone::Plain), None);
    }

    #[test]
    fn a_zone_is_left_only_when_it_is_empty() {
        let mut buddy = Buddy::new(256, 128, LARGEST);
        assert!(buddy.take(0, Zone::Plain).expect("free") >= 128);
        assert!(buddy.take(LARGEST, Zone::Registered).expect("free") < 128);
        assert!(buddy.take(0, Zone::Registered).expect("falls over") >= 128);
    }
}
