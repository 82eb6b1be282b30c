//! What the processor's caches are told.

use std::ops::Deref;

/// Bytes of a cache line.
const LINE_BYTES: usize = 64;

/// Bytes of a small batch that are asked for ahead: if it is longer, the processor sees where its copy leads.
pub(crate) const SMALL_BYTES: usize = 256;

/// What different cores write at the same time, on cache lines of its own: two, for a core fetches them in pairs.
#[repr(align(128))]
pub(crate) struct Apart<T>(pub(crate) T);

impl<T> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Asks for the lines of `bytes` bytes from `from` on, to be written soon: they come meanwhile from whichever core's
/// cache has them. Only a hint: any address is allowed, and nothing is read or written.
#[inline]
pub(crate) fn expect_writes(from: *const u8, bytes: usize) {
    let lines = (from.addr() % LINE_BYTES + bytes).div_ceil(LINE_BYTES);
    for line in 0..lines {
        expect_write(from.wrapping_add(line * LINE_BYTES));
    }
}

/// Asks for the line of one address, as [`expect_writes`].
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
pub(crate) fn expect_write(at: *const u8) {
    // SAFETY: PREFETCHW has no effect but on caches, and faults on no address. 64-bit processors that lack it, none of
    // them made since 2005, take it for a NOP.
    unsafe {
        std::arch::asm!(
            "prefetchw [{at}]",
            at = in(reg) at,
            options(nostack, preserves_flags, readonly)
        );
    }
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
#[inline]
pub(crate) fn expect_write(_at: *const u8) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_changes_nothing_whatever_the_address() {
        let bytes = [7_u8; 300];
        expect_writes(bytes.as_ptr(), bytes.len());
        expect_writes(bytes.as_ptr(), 0);
        expect_writes(std::ptr::null(), 1000);
        assert_eq!(bytes, [7; 300]);
    }
}
