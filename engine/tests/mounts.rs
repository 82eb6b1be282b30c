//! Small file systems of a test's own, on loop devices or in memory. They need root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::support::{Dir, is_root};

/// A small file system, mounted until it is dropped, also by a test that fails.
pub(crate) struct Mounted {
    at: PathBuf,
    image: PathBuf,
    /// Last: it is removed once nothing is mounted in it.
    _dir: Dir,
}

/// Tests run side by side: each has a number of its own.
static NUMBER: AtomicU32 = AtomicU32::new(0);

impl Mounted {
    /// One of `bytes`; `None`, with a message, where it can not be made.
    pub(crate) fn new(test: &str, kind: &str, bytes: u64) -> Option<Self> {
        if !is_root() {
            eprintln!("skipped: mounting a {kind} needs root");
            return None;
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = Dir::new(&format!("{test}-{kind}-{number}"));
        let mounted = Self { at: dir.join("mount"), image: dir.join("image"), _dir: dir };
        fs::create_dir(&mounted.at).unwrap();
        let (at, image) = (mounted.at.to_str()?, mounted.image.to_str()?);
        let made = if kind == "tmpfs" {
            let size = format!("size={bytes}");
            run("mount", &["-t", "tmpfs", "-o", &size, "none", at])
        } else {
            fs::File::create(image).unwrap().set_len(bytes).unwrap();
            // The loop device goes with the mount.
            run(&format!("mkfs.{kind}"), &["-q", image]) && run("mount", &["-o", "loop", image, at])
        };
        if made {
            return Some(mounted);
        }
        eprintln!("skipped: no {kind} can be made or mounted here");
        None
    }

    /// Where it is mounted.
    pub(crate) fn at(&self) -> &Path {
        &self.at
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: what a failing test still has open does not keep the mount.
        run("umount", &["-l", self.at.to_str().unwrap_or_default()]);
        drop(fs::remove_file(&self.image));
    }
}

fn run(program: &str, arguments: &[&str]) -> bool {
    let quiet =
        Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok_and(|status| status.success())
}
