//! A run under `perf record`: both children, their pipes, their files, and their end.

use std::env;
use std::ffi::CString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::command::{CallGraph, Profile};
use super::perf::Abilities;
use super::script::{Event, FIELDS, Lines};
use super::tally::{Tally, WAITS};
use crate::interrupt::{self, Interrupted};
use crate::output::tell;
use crate::run::profiler::{ACK, CONTROL, THREADS};
use crate::run::workload::Workload;
use crate::workdir::free_bytes;

/// Most that perf may write before it stops.
const DATA_MIB_MAX: u64 = 2048;

/// Memory for what perf has not yet written, on each processor, where root may have as much as it likes.
const ROOM: &str = "8M";

/// Time between two looks at the run, at perf and at Ctrl-C.
const LOOK: Duration = Duration::from_millis(20);

/// Lines of perf's between two looks whether the user wants to stop.
const LINES_BETWEEN_LOOKS: u32 = 4096;

/// A directory for what lasts as long as the command.
#[derive(Debug)]
pub(super) struct Place(PathBuf);

impl Place {
    /// Makes it where temporary files go.
    pub(super) fn create() -> Result<Self> {
        let path = env::temp_dir().join(format!("ringmain-profile-{}", process::id()));
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.with_context(|| format!("cannot make {}; set TMPDIR", path.display()))?;
        let place = Self(path);
        let free = free_bytes(&place.0)? >> 20;
        if free < DATA_MIB_MAX {
            bail!(
                "perf may write {DATA_MIB_MAX} MiB to {}, where {free} MiB are free; set TMPDIR to a directory on a \
                 larger disk",
                env::temp_dir().display()
            );
        }
        for name in [CONTROL, ACK] {
            let pipe = CString::new(place.0.join(name).as_os_str().as_bytes())
                .context("a path has no zero byte")?;
            // SAFETY: `pipe` ends with a zero byte and lives as long as the call.
            if unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) } != 0 {
                return Err(std::io::Error::last_os_error()).context("cannot make a pipe");
            }
        }
        Ok(place)
    }

    /// Where it is.
    pub(super) fn dir(&self) -> &Path {
        &self.0
    }

    /// A file in it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// What one of its files says; nothing if it is not there.
    pub(super) fn said(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default().trim().to_owned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tell(&format!("ringmain-bench: {} is left in place: {error}", self.0.display()));
        }
    }
}

/// What the run said, and how it ended.
#[derive(Debug)]
pub(super) struct Ran {
    /// Its JSON document.
    pub(super) text: String,
    /// Whether perf stopped before the run did, for want of room.
    pub(super) full: bool,
    /// Bytes that perf wrote.
    pub(super) bytes: u64,
}

/// A child that does not outlive this command.
#[derive(Debug)]
pub(super) struct Ended(pub(super) Child);

impl Ended {
    /// Asks it to end, as Ctrl-C does, and waits until it has.
    pub(super) fn interrupt(&mut self) -> io::Result<process::ExitStatus> {
        // SAFETY: the number is that of a child that was not waited for yet, so nobody else has it.
        unsafe { libc::kill(self.0.id() as libc::pid_t, libc::SIGINT) };
        self.0.wait()
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            // It may end by itself between the two calls, which is as good.
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// Runs `workload` in a process of its own with perf attached to it, which writes to `place`.
pub(super) fn record(
    place: &Place,
    workload: &Workload,
    abilities: &Abilities,
    flags: &Profile,
) -> Result<Ran> {
    let file = place.path("workload.toml");
    fs::write(&file, workload.to_toml()?).context("cannot write the workload")?;
    let mut run = Command::new(env::current_exe().context("cannot find this program's file")?);
    run.args(["run", "--json", "--workload"]).arg(&file).arg("--profiler").arg(&place.0);
    if flags.quiet {
        run.arg("--quiet");
    }
    apart(&mut run).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut run = Ended(run.spawn().context("cannot start the run")?);
    let mut perf = Ended(perf(place, run.0.id(), abilities, flags)?);
    let mut stdout = run.0.stdout.take().context("its standard output is a pipe")?;
    let reader = thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text)
    });
    let status = wait(place, &mut run.0, &mut perf.0)?;
    let full = matches!(perf.0.try_wait(), Ok(Some(_))) && place.said("perf.err").contains("limit");
    perf.0.wait().context("cannot wait for perf")?;
    let text =
        reader.join().expect("it does not panic").context("cannot read what the run says")?;
    interrupt::check()?;
    if status.code() != Some(0) {
        bail!("the run failed ({status}): a profile of it would say nothing");
    }
    let data = place.path("perf.data");
    let bytes = fs::metadata(&data).map(|meta| meta.len());
    let bytes = bytes.with_context(|| format!("perf wrote nothing: {}", place.said("perf.err")))?;
    Ok(Ran { text, full, bytes })
}

fn perf(place: &Place, pid: u32, abilities: &Abilities, flags: &Profile) -> Result<Child> {
    attach(place, pid, abilities, |perf| {
        perf.args(["-F", &flags.frequency.to_string(), "--call-graph", &flags.stacks()]).args([
            "--max-size",
            &format!("{DATA_MIB_MAX}M"),
            "--switch-events",
        ]);
        if abilities.kernel {
            perf.args(["-e", WAITS]);
        }
    })
}

/// Attaches perf to a process: it waits to be told when to begin. `own` gives it what not all recordings have.
pub(super) fn attach(
    place: &Place,
    pid: u32,
    abilities: &Abilities,
    own: impl FnOnce(&mut Command),
) -> Result<Child> {
    let said = File::create(place.path("perf.err")).context("cannot make a file")?;
    let (control, ack) = (place.path(CONTROL), place.path(ACK));
    let mut perf = Command::new("perf");
    perf.args(["record", "-q", "-k", "CLOCK_MONOTONIC", "-D", "-1", "-o"])
        .arg(place.path("perf.data"))
        .args(["-p", &pid.to_string(), "-e", abilities.event])
        .arg("--control")
        .arg(format!("fifo:{},{}", control.display(), ack.display()));
    own(&mut perf);
    // SAFETY: it takes nothing and touches no memory.
    if unsafe { libc::geteuid() } == 0 {
        perf.args(["-m", ROOM]);
    }
    apart(&mut perf).stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
    perf.spawn().context("cannot start perf")
}

/// Waits for the run, and tells it once to stop if the user wants that or perf has failed. Perf ends with it.
fn wait(place: &Place, run: &mut Child, perf: &mut Child) -> Result<process::ExitStatus> {
    let (mut told, mut failed) = (false, None);
    loop {
        if let Some(status) = run.try_wait().context("cannot wait for the run")? {
            return match failed {
                Some(why) => bail!("perf record failed ({why}): {}", place.said("perf.err")),
                None => Ok(status),
            };
        }
        let ended = perf.try_wait().context("cannot wait for perf")?;
        failed = failed.or(ended.filter(|status| !status.success() && !told));
        if (interrupt::asked() || failed.is_some()) && !told {
            told = true;
            // SAFETY: the number is that of a child that was not waited for yet, so nobody else has it.
            unsafe { libc::kill(run.id() as libc::pid_t, libc::SIGINT) };
        }
        // Two children and Ctrl-C at once: there is no waiting for whichever comes first.
        thread::sleep(LOOK);
    }
}

/// A group of its own: Ctrl-C is for this process, who then ends its children one after the other.
fn apart(command: &mut Command) -> &mut Command {
    command.process_group(0)
}

/// Reads back what perf wrote.
pub(super) fn read(place: &Place) -> Result<Tally> {
    let mut tally = Tally::default();
    events(place, |event| tally.add(event))?;
    tally.finish();
    Ok(tally)
}

/// Gives `take` what perf wrote, event by event.
pub(super) fn events(place: &Place, mut take: impl FnMut(Event)) -> Result<()> {
    let mut script = Command::new("perf");
    script.args(["script", "--no-inline", "--ns", "--show-switch-events", "--show-lost-events"]);
    script.args(["-F", FIELDS, "-i"]).arg(place.path("perf.data"));
    let said = File::create(place.path("script.err")).context("cannot make a file")?;
    apart(&mut script).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(said);
    let mut script = Ended(script.spawn().context("cannot start perf script")?);
    let stdout = script.0.stdout.take().context("its standard output is a pipe")?;
    let mut lines = Lines::with_names(&place.said(THREADS));
    let mut reader = BufReader::new(stdout);
    let mut line = Vec::new();
    let mut until_look = 0;
    while reader.read_until(b'\n', &mut line).context("cannot read what perf prints")? > 0 {
        // A thread's name may be no UTF-8.
        if let Some(event) = lines.take(String::from_utf8_lossy(&line).trim_end_matches('\n')) {
            take(event);
        }
        line.clear();
        if until_look == 0 {
            interrupt::check()?;
        }
        until_look = (until_look + 1) % LINES_BETWEEN_LOOKS;
    }
    if let Some(event) = lines.end() {
        take(event);
    }
    let status = script.0.wait().context("cannot wait for perf script")?;
    if !status.success() {
        if interrupt::asked() {
            return Err(Interrupted.into());
        }
        bail!("perf script failed ({status}): {}", place.said("script.err"));
    }
    Ok(())
}

impl Profile {
    /// The call graph as perf's flag has it.
    pub(super) fn stacks(&self) -> String {
        match self.call_graph {
            CallGraph::Dwarf => format!("dwarf,{}", self.stack_bytes),
            CallGraph::Fp => "fp".to_owned(),
        }
    }
}
