//! What a kill leaves: a child runs the workload, is ended by SIGKILL in mid-load, and what it had acked until then is
//! looked for by this process, in the files alone.
//!
//! SIGKILL is no power cut: what the kernel had been given survives it. It shows that an ack does not depend on the
//! memory of the process that gave it.

use std::env;
use std::fs::{self, File};
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::backends::backend;
use super::command::payload;
use super::ledger::Told;
use super::live::Live;
use super::machine::Machine;
use super::maker::Maker;
use super::measure::{Times, Tools, measure};
use super::pace::Real;
use super::recorder::Recorder;
use super::repeat::{Setting, room};
use super::workload::Workload;
use crate::cores::{Cores, Pinned};
use crate::oracle::{Findings, run_until};
use crate::random::Random;

mod teller;

pub use teller::Teller;

/// The hidden command of this binary that runs the load.
pub const LOAD: &str = "run-load";

/// Shortest load between the first ack and the kill, and by how much it may be longer.
const LOAD_MIN: Duration = Duration::from_millis(100);
const LOAD_SPREAD_US: u32 = 500_000;

/// Longest until the first ack.
const OPEN_MAX: Duration = Duration::from_secs(120);

/// Longer than any parent waits.
const LONG: Duration = Duration::from_secs(600);

/// Flags of the hidden command.
#[derive(Args, Clone, Debug)]
pub struct Load {
    /// An empty directory
    pub dir: PathBuf,
    /// The resolved workload
    #[arg(long)]
    pub workload: PathBuf,
    /// Which of the kills this is
    #[arg(long)]
    pub nth: u32,
}

/// What one kill left.
#[derive(Clone, Debug)]
pub struct Killed {
    /// From the first ack to the kill.
    pub after: Duration,
    /// What was read back.
    pub findings: Findings,
}

/// Runs the workload in a child that works below `place`, kills it, and reads back what it left.
///
/// # Errors
/// If the child can't be run or ends by itself, or the user stops the run. Damage is a finding.
pub fn kill_and_check(setting: &Setting<'_>, nth: u32, place: &Path) -> Result<Killed> {
    let Setting { workload, backend, .. } = setting;
    let (dir, settings) = (place.join("data"), place.join("workload.toml"));
    fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    fs::write(&settings, workload.to_toml()?).context("cannot write the workload down")?;
    let program = env::current_exe().context("cannot find this program's own file")?;
    let mut child = Command::new(program);
    child.arg(LOAD).arg(&dir).arg("--workload").arg(&settings).arg("--nth").arg(nth.to_string());
    // A group of its own: Ctrl-C is for the parent, who then ends its child.
    child.process_group(0);
    let mut random = Random::new(workload.seed ^ u64::from(nth));
    let after = LOAD_MIN + Duration::from_micros(u64::from(random.below(LOAD_SPREAD_US)));
    let mut first = None;
    let due = |acks: u64| acks > 0 && first.get_or_insert_with(Instant::now).elapsed() >= after;
    let told = run_until(&mut child, OPEN_MAX, due, |from, count| {
        let mut told = Told::default();
        teller::listen(from, |entry| {
            told.acked(entry);
            count.fetch_add(1, Ordering::Relaxed);
        })?;
        Ok(told)
    });
    let (told, ended) = told.context("the load to be killed")?;
    ensure!(ended.is_none(), "the load ended by itself before it was killed: see above");
    let mut reader = backend.reopen(&dir, workload).context("opening after the kill")?;
    let findings = told.verify(workload, reader.as_mut()).context("reading back after the kill")?;
    Ok(Killed { after, findings })
}

/// The child: runs the workload until it is killed, and tells its acks on standard output.
///
/// # Errors
/// If the backend fails, or the parent is gone.
pub fn load(flags: &Load) -> Result<()> {
    let text = fs::read_to_string(&flags.workload).context("cannot read the workload")?;
    let workload = &Workload::from_toml(&text)?;
    let payload = payload(workload)?;
    let mut instance = backend(workload.backend).open(&flags.dir, workload)?;
    // Standard output's own buffer would hold back what the parent must know.
    // SAFETY: descriptor 1 is open as long as the process lives, and is not closed here.
    let out = ManuallyDrop::new(unsafe { File::from_raw_fd(1) });
    let recorder = Recorder::start(None, Live::silent())?;
    let maker = Maker::new(workload, &payload, flags.nth)?;
    let times = Times { until: LONG.as_nanos() as u64, ..Times::of(workload, room(&flags.dir)?) };
    let _pinned = Pinned::to(Cores::near(&flags.dir).clients);
    let tools = Tools {
        workload,
        instance: instance.as_mut(),
        maker,
        recorder: &recorder,
        pace: Real(Instant::now()),
        machine: Machine::of(&flags.dir),
        acks: None,
        teller: Some(Teller::new(&out)),
        profiler: None,
    };
    measure(tools, times)?;
    // All that has room was sent. The kill is still to come.
    thread::sleep(LONG);
    Ok(())
}
