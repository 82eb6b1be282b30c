//! Cold operations made in place, with plain system calls.

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::path::Path;

/// An open file's length in bytes.
pub(super) fn length(fd: RawFd) -> io::Result<u64> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `stat` is memory of the right type, written by the call.
    if unsafe { libc::fstat(fd, stat.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it filled `stat`.
    let stat = unsafe { stat.assume_init() };
    Ok(u64::try_from(stat.st_size).expect("no length is negative"))
}

/// The names in a directory, sorted. Names that are not UTF-8 are none of ours and come out altered.
pub(super) fn list(path: &Path) -> io::Result<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir(path)
        .and_then(|entries| {
            entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
        })
        .map_err(with_number)?;
    names.sort();
    Ok(names)
}

/// Removes a directory and the files in it. Directories in it are an error.
pub(super) fn remove_directory(path: &Path) -> io::Result<()> {
    let remove = || {
        for entry in fs::read_dir(path)? {
            fs::remove_file(entry?.path())?;
        }
        fs::remove_dir(path)
    };
    remove().map_err(with_number)
}

/// An error of the standard library's own has no number; completions promise one.
fn with_number(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(_) => error,
        None => io::Error::from_raw_os_error(libc::EINVAL),
    }
}
