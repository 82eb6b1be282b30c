//! The data directory of a run: made, marked, and taken away again. Nothing is ever deleted that this tool
//! did not make, and the marker file is the proof of that.

use std::ffi::{CString, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::{process, thread};

use anyhow::{Context, Result};

use crate::output::tell;
use crate::usage::usage;

/// The file that says what this tool made in a directory.
pub const MARKER: &str = ".ringmain-bench";

const FIRST_LINE: &str = "made by ringmain-bench; the directories named below are its own";
const KEPT_LINE: &str = "kept";

/// Threads that remove.
const REMOVERS: usize = 8;

/// A directory to work in. Dropping it removes what was made, unless it is kept.
#[derive(Debug)]
pub struct WorkDir {
    path: PathBuf,
    /// Held open and locked as long as this process works here.
    marker: File,
    made: Vec<String>,
    made_root: bool,
    keep: bool,
}

impl WorkDir {
    /// Opens or makes `path`, by default `ringmain-data-<pid>` under the working directory.
    ///
    /// # Errors
    /// A usage error if the directory holds something else, is in use, was kept, or can't be made.
    pub fn create(path: Option<&Path>, keep: bool) -> Result<Self> {
        let path = match path {
            Some(path) => path.to_owned(),
            None => PathBuf::from(format!("ringmain-data-{}", process::id())),
        };
        let made_root = make_root(&path)?;
        let path = path.canonicalize().with_context(|| format!("{}", path.display()))?;
        let fresh = !path.join(MARKER).exists();
        if fresh && !made_root && !is_empty(&path)? {
            return Err(usage(format!(
                "--dir {}: it holds files that ringmain-bench did not make; give an empty or a new directory",
                path.display()
            )));
        }
        let marker = open_marker(&path)?;
        let mut dir = Self { path, marker, made: Vec::new(), made_root, keep };
        if !fresh {
            dir.clear_leftovers()?;
        }
        dir.write_marker()?;
        Ok(dir)
    }

    /// Where it is, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a directory in it, to be removed with it.
    ///
    /// # Errors
    /// If it exists, or can't be made.
    pub fn subdir(&mut self, name: &str) -> Result<PathBuf> {
        assert!(!name.contains(['/', '\n']) && name != ".." && name != ".", "one plain name");
        // The marker first: a crash between the two lines leaves a name that is not there.
        self.made.push(name.to_owned());
        self.write_marker()?;
        let path = self.path.join(name);
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// Removes one directory made by [`WorkDir::subdir`], so that its space serves the next arm.
    ///
    /// # Errors
    /// If something in it can't be removed.
    pub fn remove_subdir(&mut self, name: &str) -> Result<()> {
        assert!(self.made.iter().any(|made| made == name), "only what was made here");
        remove_tree(&self.path.join(name))?;
        self.made.retain(|made| made != name);
        self.write_marker()
    }

    /// Checks that `bytes` are free.
    ///
    /// # Errors
    /// A usage error that says what is needed and what is there.
    pub fn need_space(&self, bytes: u64) -> Result<()> {
        let free = free_bytes(&self.path)?;
        if free >= bytes {
            return Ok(());
        }
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        Err(usage(format!(
            "{} MiB are needed in {}, {} MiB are free; give a directory on a larger disk with --dir",
            mib(bytes),
            self.path.display(),
            free >> 20
        )))
    }

    fn clear_leftovers(&mut self) -> Result<()> {
        let mut text = String::new();
        let read = self.marker.read_to_string(&mut text);
        // A run that was killed between making its marker and writing it made nothing else.
        if read.is_ok() && text.is_empty() && is_empty(&self.path)? {
            return Ok(());
        }
        let mut lines = text.lines();
        if read.is_err() || lines.next() != Some(FIRST_LINE) {
            self.keep = true;
            return Err(usage(format!(
                "{} is not a marker of ringmain-bench; give another directory",
                self.path.join(MARKER).display()
            )));
        }
        let rest: Vec<&str> = lines.collect();
        if rest.contains(&KEPT_LINE) {
            self.keep = true;
            return Err(usage(format!(
                "--dir {} holds the data of a run with --keep; remove it, or give another directory",
                self.path.display()
            )));
        }
        for name in rest {
            let plain = !name.is_empty() && !name.contains('/') && name != ".." && name != ".";
            if plain {
                remove_tree(&self.path.join(name))?;
            }
        }
        Ok(())
    }

    fn write_marker(&mut self) -> Result<()> {
        let kept = self.keep.then_some(KEPT_LINE);
        let lines: Vec<&str> = std::iter::once(FIRST_LINE)
            .chain(kept)
            .chain(self.made.iter().map(String::as_str))
            .collect();
        let text = lines.join("\n") + "\n";
        // In one call, so that a kill leaves one list or the other. Of a longer one before, empty lines stay until they
        // are cut off.
        let write = || {
            let before = self.marker.metadata()?.len() as usize;
            let mut bytes = text.clone().into_bytes();
            bytes.resize(bytes.len().max(before), b'\n');
            self.marker.write_all_at(&bytes, 0)?;
            self.marker.set_len(text.len() as u64)
        };
        write().with_context(|| format!("cannot write {}", self.path.join(MARKER).display()))
    }

    fn remove(&self) -> Result<()> {
        for name in &self.made {
            remove_tree(&self.path.join(name))?;
        }
        fs::remove_file(self.path.join(MARKER)).context("cannot remove the marker")?;
        if self.made_root {
            // Fails if someone else has put something here meanwhile: then it is theirs.
            fs::remove_dir(&self.path)
                .with_context(|| format!("{} is left in place", self.path.display()))?;
        }
        Ok(())
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if let Err(error) = self.remove() {
            tell(&format!("ringmain-bench: cleaning up {}: {error:#}", self.path.display()));
        }
    }
}

fn make_root(path: &Path) -> Result<bool> {
    match fs::create_dir(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(false),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            Err(usage(format!("--dir {}: it is not a directory", path.display())))
        }
        Err(e) => Err(usage(format!(
            "--dir {}: it cannot be made ({e}); give a directory you may write to",
            path.display()
        ))),
    }
}

fn is_empty(path: &Path) -> Result<bool> {
    let mut entries = fs::read_dir(path).map_err(|e| {
        usage(format!("--dir {}: {e}; give a directory you may write to", path.display()))
    })?;
    // ext4 puts `lost+found` at the root of a fresh file system.
    let none = |name: OsString| name == "lost+found" || name == MARKER;
    Ok(entries.all(|entry| entry.is_ok_and(|entry| none(entry.file_name()))))
}

fn open_marker(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let marker = options.open(path.join(MARKER)).map_err(|e| {
        usage(format!("--dir {}: {e}; give a directory you may write to", path.display()))
    })?;
    // SAFETY: the descriptor is open; flock touches no memory.
    let locked = unsafe { libc::flock(marker.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
    if locked == 0 {
        return Ok(marker);
    }
    Err(usage(format!("--dir {}: another ringmain-bench works there", path.display())))
}

fn remove_tree(path: &Path) -> Result<()> {
    remove_dirs_in(path);
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Removes what directories there are in `path`, several at once: each waits for the file system's journal, and
/// there may be ten thousand. What fails is tried again, and told, by [`remove_tree`].
fn remove_dirs_in(path: &Path) {
    let Ok(entries) = fs::read_dir(path) else { return };
    let dirs = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let dirs: Vec<PathBuf> = dirs.map(|entry| entry.path()).collect();
    if dirs.is_empty() {
        return;
    }
    thread::scope(|scope| {
        for some in dirs.chunks(dirs.len().div_ceil(REMOVERS)) {
            scope.spawn(move || {
                for dir in some {
                    let _ = fs::remove_dir_all(dir);
                }
            });
        }
    });
}

/// Bytes an ordinary user may still write where `path` is.
///
/// # Errors
/// If the file system does not say.
pub fn free_bytes(path: &Path) -> Result<u64> {
    let name = CString::new(path.as_os_str().as_bytes()).context("a path has no zero byte")?;
    // SAFETY: all zeros is a valid `statvfs`.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `name` ends with a zero byte and `stat` is writable, both for the call's duration.
    if unsafe { libc::statvfs(name.as_ptr(), &raw mut stat) } != 0 {
        let error = std::io::Error::last_os_error();
        return Err(error)
            .with_context(|| format!("cannot ask for free space in {}", path.display()));
    }
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
#[path = "workdir/tests.rs"]
mod tests;
