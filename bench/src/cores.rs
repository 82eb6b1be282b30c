//! Which core does what: the disk's thread and the clients' thread never share one, if there are two.

use std::mem;
use std::path::Path;

use ringmain::ring::interrupts::cores_near;

/// The cores of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cores {
    /// Of threads that own a ring: where the engine pins its first shard.
    pub disk: usize,
    /// Of the clients.
    pub clients: usize,
}

impl Cores {
    /// For data in `dir`. Call on a thread that is not pinned.
    pub fn near(dir: &Path) -> Self {
        let cores = cores_near(dir);
        let disk = cores.first().copied().unwrap_or(0);
        Self { disk, clients: cores.get(1).copied().unwrap_or(disk) }
    }
}

/// The calling thread is pinned as long as this lives; then it may run where it could before, so that threads
/// made later do not inherit the pin.
#[derive(Debug)]
pub struct Pinned {
    before: Option<libc::cpu_set_t>,
}

impl Pinned {
    /// Pins the calling thread to this core. Where that is forbidden it stays free: figures get noisier, not wrong.
    pub fn to(core: usize) -> Self {
        let Some(allowed) = affinity() else { return Self { before: None } };
        if core >= libc::CPU_SETSIZE as usize {
            return Self { before: None };
        }
        // SAFETY: all zeros is the empty set.
        let mut one: libc::cpu_set_t = unsafe { mem::zeroed() };
        // SAFETY: the core is below CPU_SETSIZE.
        unsafe { libc::CPU_SET(core, &mut one) };
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
        let pinned = Pinned::to(Cores::near(Path::new(".")).clients);
        assert_eq!(count(affinity().expect("readable")), 1);
        drop(pinned);
        assert_eq!(count(affinity().expect("readable")), before);
    }
}
