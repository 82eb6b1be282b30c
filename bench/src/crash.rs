//! What a kill leaves: a child appends under load and reports its acks, is ended by SIGKILL in mid-load, and a new
//! process opens the directory, reads all of it back and holds it against the acks.

use std::env;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::interrupt;
use crate::oracle::{Ack, Reporter, Tally, run_until_killed};

mod check;
mod load;

pub use check::check;
pub use load::load;

/// Partitions of the load.
pub const PARTITIONS: u64 = 32;

const TOPIC: &str = "crash";

/// How often the parent looks whether the child is done.
const LOOK: Duration = Duration::from_millis(5);

/// Less than this was no load.
const ACKS_MIN: u64 = 1000;

/// Hidden commands of this binary.
pub const LOAD: &str = "crash-load";
/// The other one.
pub const CHECK: &str = "crash-check";

/// What the new process found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Found {
    /// The oracle's counts.
    pub tally: Tally,
    /// The first things that are wrong, in words.
    pub examples: Vec<String>,
    /// Records read back.
    pub records: u64,
    /// From the call to open until all was readable.
    pub open_ns: u64,
    /// Bytes that recovery read: journals, and the tails of segments.
    pub read_bytes: u64,
    /// How long the raw device took to read as many.
    pub raw_ns: u64,
    /// Largest resident memory of the process that opened and read back.
    pub rss_bytes: Option<u64>,
    /// Whether files were written past the page cache.
    pub direct: bool,
}

/// Runs the load in `dir` for `time`, kills it, and has the rest checked. Both children end with this process:
/// the one is killed, the other reads from a pipe that closes.
///
/// # Errors
/// If a child can't be run, or the user stops the run.
pub fn kill_and_check(dir: &Path, payload: Option<&Path>, time: Duration) -> Result<Found> {
    let mut load = child(LOAD, dir)?;
    if let Some(payload) = payload {
        load.arg("--payload").arg(payload);
    }
    let acks = run_until_killed(&mut load, time, ACKS_MIN).context("the load to be killed")?;
    interrupt::check()?;
    checked(dir, &acks).context("reading back after the kill")
}

fn child(command: &str, dir: &Path) -> Result<Command> {
    let program = env::current_exe().context("cannot find this program's own file")?;
    let mut child = Command::new(program);
    // A group of its own: Ctrl-C is for the parent, who then ends its children.
    child.arg(command).arg(dir).process_group(0);
    Ok(child)
}

fn checked(dir: &Path, acks: &[Ack]) -> Result<Found> {
    let mut child = child(CHECK, dir)?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start a child")?;
    let to = child.stdin.take().context("the child has a standard input")?;
    let told = report(to, acks);
    // What it prints is less than a pipe holds, so that it ends without being read.
    while !interrupt::asked() && child.try_wait().context("cannot wait for the child")?.is_none() {
        thread::sleep(LOOK);
    }
    if interrupt::asked() {
        child.kill().context("cannot end the child")?;
    }
    let output = child.wait_with_output().context("cannot wait for the child")?;
    interrupt::check()?;
    ensure!(output.status.success(), "it failed ({})", output.status);
    told.context("cannot tell it the acks")?;
    serde_json::from_slice(&output.stdout).context("it does not say what it found")
}

/// Tells the acks, unless the user stops the run.
fn report(to: impl Write, acks: &[Ack]) -> std::io::Result<()> {
    let mut reporter = Reporter::new(to);
    acks.iter().take_while(|_| !interrupt::asked()).try_for_each(|ack| reporter.ack(*ack))?;
    reporter.flush()
}
