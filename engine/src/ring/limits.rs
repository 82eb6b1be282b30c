//! What the operating system allows this process.

/// Raises the soft limit of open files to the hard one. Ten thousand partitions are ten thousand open files.
pub fn raise_open_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the answer.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return;
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is a valid limit, read from the system a line above. A refusal leaves what was.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
}
