//! What the operating system allows this process.

/// What is taken for the limit where the system does not say.
const OPEN_FILES_ASSUMED: u64 = 1024;

/// Raises the soft limit of open files to the hard one. Ten thousand partitions are ten thousand open files.
/// Returns what is allowed then.
pub fn raise_open_files() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the answer.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return OPEN_FILES_ASSUMED;
    }
    let before = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is a valid limit, read from the system a line above. A refusal leaves what was.
    let raised = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } == 0;
    if raised { limit.rlim_max } else { before }
}
