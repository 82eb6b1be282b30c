//! Which core does what: the disk's thread and the clients' thread never share one, if there are two.

/// The core of threads that own a ring.
pub const DISK: usize = 0;

/// The core of the clients.
pub const CLIENTS: usize = 1;

/// Pins the calling thread to the `nth` core this process may use, counted round. Where that is
/// forbidden the thread stays free: figures get noisier, not wrong.
pub fn pin(nth: usize) -> bool {
    let ids = core_affinity::get_core_ids().unwrap_or_default();
    !ids.is_empty() && core_affinity::set_for_current(ids[nth % ids.len()])
}
