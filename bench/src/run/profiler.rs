//! A `perf record` that was attached to this process and waits: it is told when the measured time begins and ends.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::interrupt;

/// The pipe that perf reads commands from.
pub const CONTROL: &str = "control";

/// The pipe that perf answers to.
pub const ACK: &str = "ack";

/// The file with the names of this process's threads: perf, whose events are off while they start, does not see them.
pub const THREADS: &str = "threads";

/// How long perf may take to attach itself.
const ATTACH_MAX: Duration = Duration::from_secs(20);

const LOOK: Duration = Duration::from_millis(10);

/// The way to tell it.
#[derive(Debug)]
pub struct Profiler {
    control: File,
    threads: PathBuf,
}

impl Profiler {
    /// Waits until the perf whose pipes are in `dir` is attached. Call it while this process has one thread: perf finds
    /// those that are there, and what they start later.
    ///
    /// # Errors
    /// If there are no such pipes, perf does not answer, or the user stops the run.
    pub fn attach(dir: &Path) -> Result<Self> {
        let open = |name: &str| {
            let path = dir.join(name);
            // For both directions, so that neither side waits for the other, and neither's end is an error.
            let mut options = OpenOptions::new();
            options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
            options.open(&path).with_context(|| format!("cannot open {}", path.display()))
        };
        let (control, mut ack) = (open(CONTROL)?, open(ACK)?);
        let profiler = Self { control, threads: dir.join(THREADS) };
        profiler.tell("ping");
        let asked = Instant::now();
        let mut answer = [0_u8; 16];
        loop {
            interrupt::check()?;
            match ack.read(&mut answer) {
                Ok(_) => return Ok(profiler),
                Err(e) if e.kind() == ErrorKind::WouldBlock => thread::sleep(LOOK),
                Err(e) => return Err(e).context("cannot read what perf answers"),
            }
            if asked.elapsed() > ATTACH_MAX {
                bail!("perf does not answer; version 5.12 or newer is needed");
            }
        }
    }

    /// The measured time begins.
    ///
    /// # Errors
    /// If the names of the threads can't be written.
    pub fn begin(&self) -> Result<()> {
        self.note_threads()?;
        self.tell("enable");
        Ok(())
    }

    /// It has ended.
    ///
    /// # Errors
    /// As [`Profiler::begin`].
    pub fn end(&self) -> Result<()> {
        self.tell("disable");
        self.note_threads()
    }

    fn note_threads(&self) -> Result<()> {
        let mut lines = String::new();
        for task in fs::read_dir("/proc/self/task").context("cannot list the threads")? {
            let task = task.context("cannot list the threads")?;
            // A thread that has ended meanwhile has no name any more.
            let Ok(name) = fs::read_to_string(task.path().join("comm")) else { continue };
            let number = task.file_name();
            writeln!(lines, "{} {}", number.display(), name.trim_end()).expect("memory takes all");
        }
        let mut options = OpenOptions::new();
        let opened = options.append(true).create(true).open(&self.threads);
        let written = opened.and_then(|mut file| file.write_all(lines.as_bytes()));
        written.with_context(|| format!("cannot write {}", self.threads.display()))
    }

    fn tell(&self, what: &str) {
        let line = format!("{what}\n");
        let told = (&self.control).write_all(line.as_bytes());
        told.expect("a pipe that this process holds open takes three short lines");
    }
}
