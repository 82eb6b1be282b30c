//! Which core does what: the disk's thread and the clients' thread never share one, if there are two.

use std::mem;

/// The core of threads that own a ring.
pub const DISK: usize = 0;

/// The core of the clients.
pub const CLIENTS: usize = 1;

/// The calling thread is pinned as long as this lives; then it may run where it could before, so that threads
/// made later do not inherit the pin.
#[derive(Debug)]
pub struct Pinned {
    before: Option<libc::cpu_set_t>,
}

impl Pinned {
    /// Pins the calling thread to the `nth` core it may use, counted round. Where that is forbidden it
    /// stays free: figures get noisier, not wrong.
    pub fn to(nth: usize) -> Self {
        let Some(allowed) = affinity() else { return Self { before: None } };
        let cores: Vec<usize> = (0..libc::CPU_SETSIZE as usize)
            .filter(|&core| {
                // SAFETY: `core` is below CPU_SETSIZE.
                unsafe { libc::CPU_ISSET(core, &allowed) }
            })
            .collect();
        // SAFETY: all zeros is the empty set.
        let mut one: libc::cpu_set_t = unsafe { mem::zeroed() };
        // SAFETY: the core is below CPU_SETSIZE; a thread always may use at least one.
        unsafe { libc::CPU_SET(cores[nth % cores.len()], &mut one) };
        Self { before: set(&one).then_some(allowed) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            set(before);
        }
    }
}

fn affinity() -> Option<libc::cpu_set_t> {
    // SAFETY: all zeros is the empty set.
    let mut cores: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: 0 means this thread; `cores` is writable and of the size given.
    let got =
        unsafe { libc::sched_getaffinity(0, mem::size_of::<libc::cpu_set_t>(), &raw mut cores) };
    (got == 0).then_some(cores)
}

fn set(cores: &libc::cpu_set_t) -> bool {
    // SAFETY: 0 means this thread; `cores` is readable and of the size given.
    unsafe { libc::sched_setaffinity(0, mem::size_of::<libc::cpu_set_t>(), &raw const *cores) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_ends_with_its_guard() {
        let count = |cores: libc::cpu_set_t| {
            // SAFETY: only reads the set.
            unsafe { libc::CPU_COUNT(&cores) }
        };
        let before = count(affinity().expect("readable"));
        let pinned = Pinned::to(7);
        assert_eq!(count(affinity().expect("readable")), 1);
        drop(pinned);
        assert_eq!(count(affinity().expect("readable")), before);
    }
}
