//! What `perf` may do here, found out by trying, and in words what keeps it from doing more.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Result, anyhow, bail};

/// What is asked of the system before anything is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// What perf says of its version.
    pub version: String,
    /// The event that is sampled on a processor.
    pub event: &'static str,
    /// Whether the kernel's side is seen, and with it why a thread waits.
    pub kernel: bool,
    /// Whether the kernel tells the addresses of its functions.
    pub kernel_symbols: bool,
}

/// Events from best to last: hardware before the software clock, with the kernel's side before without.
const EVENTS: [&str; 4] = ["cycles", "cpu-clock", "cycles:u", "cpu-clock:u"];

/// The same ones such that perf refuses what it would else quietly narrow.
const TRIALS: [&str; 4] = ["cycles:k", "cpu-clock:k", "cycles:u", "cpu-clock:u"];

impl Abilities {
    /// Asks perf and the kernel.
    ///
    /// # Errors
    /// If perf is missing or may record nothing, with what to do.
    pub fn ask() -> Result<Self> {
        let version = version()?;
        let Some(nth) = TRIALS.iter().position(|event| counts(event)) else {
            bail!(forbidden(setting("perf_event_paranoid")));
        };
        let (event, kernel) = (EVENTS[nth], nth < 2);
        Ok(Self { version, event, kernel, kernel_symbols: kernel && kernel_symbols() })
    }

    /// Whether what is sampled is time, and not cycles.
    pub fn is_clock(&self) -> bool {
        self.event.starts_with("cpu-clock")
    }

    /// What a reader must know of the figures, and how to get more.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.is_clock() {
            notes.push(
                "no hardware counters here (a virtual machine?): samples are of time, by a software clock; time with \
                 interrupts off is charged to the line that lets them in again"
                    .to_owned(),
            );
        }
        if !self.kernel {
            let level =
                setting("perf_event_paranoid").map_or(String::new(), |n| format!(" is {n}"));
            notes.push(format!(
                "the kernel's side is not seen, nor why threads wait: perf_event_paranoid{level}; to see it: sudo \
                 sysctl kernel.perf_event_paranoid=1 kernel.kptr_restrict=0"
            ));
        } else if !self.kernel_symbols {
            notes.push(
                "functions of the kernel have no names here: sudo sysctl kernel.kptr_restrict=0 (where you are not \
                 root, kernel.perf_event_paranoid=1 too)"
                    .to_owned(),
            );
        }
        if cfg!(debug_assertions) {
            notes.push(
                "this is a debug build: build with --release before you believe a share".to_owned(),
            );
        }
        notes
    }
}

fn version() -> Result<String> {
    let output = Command::new("perf").arg("--version").stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        }
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(anyhow!("perf does not run here: {said}\n{INSTALL}"))
        }
        Err(e) => Err(anyhow!("perf cannot be run ({e})\n{INSTALL}")),
    }
}

const INSTALL: &str = "Install it; it belongs to the kernel's tools:
  Debian         sudo apt install linux-perf
  Ubuntu         sudo apt install linux-tools-generic linux-tools-$(uname -r)
  Fedora, RHEL   sudo dnf install perf
  Arch           sudo pacman -S perf";

/// What to say if not even this program's own code may be sampled.
fn forbidden(level: Option<i64>) -> String {
    let level = level.map_or("is not to be read".to_owned(), |level| format!("is {level}"));
    format!(
        "perf may record nothing here (kernel.perf_event_paranoid {level}). One of these lets it:
  sudo sysctl kernel.perf_event_paranoid=1 kernel.kptr_restrict=0   until the next boot; the kernel's side is seen
  sudo sysctl kernel.perf_event_paranoid=2                          this program's own code only
  sudo setcap cap_perfmon,cap_sys_ptrace,cap_syslog=ep \"$(command -v perf)\"   for perf alone
  in a container: docker run --cap-add PERFMON --cap-add SYSLOG --security-opt seccomp=unconfined
  or run this command as root"
    )
}

/// Whether perf can count `event` of a process of its own.
fn counts(event: &str) -> bool {
    let output = Command::new("perf").args(["stat", "-x", ",", "-e", event, "--", "true"]).output();
    output.is_ok_and(|output| {
        output.status.success() && !String::from_utf8_lossy(&output.stderr).contains("<not ")
    })
}

fn setting(name: &str) -> Option<i64> {
    fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok()?.trim().parse().ok()
}

fn kernel_symbols() -> bool {
    let Ok(text) = fs::read_to_string("/proc/kallsyms") else { return false };
    let mut addresses = text.lines().filter_map(|line| line.split_ascii_whitespace().next());
    addresses.any(|address| address.bytes().any(|digit| digit != b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_with_what_to_set() {
        let whole = Abilities {
            version: "perf version 6.1".to_owned(),
            event: "cycles",
            kernel: true,
            kernel_symbols: true,
        };
        let told = |abilities: &Abilities| abilities.notes().join("\n");
        assert!(!told(&whole).contains("sysctl"), "{}", told(&whole));
        let nameless = told(&Abilities { kernel_symbols: false, ..whole.clone() });
        assert!(nameless.contains("kernel.kptr_restrict=0"), "{nameless}");
        let own = told(&Abilities { event: "cpu-clock:u", kernel: false, ..whole });
        assert!(own.contains("software clock") && own.contains("perf_event_paranoid=1"), "{own}");
        assert!(forbidden(Some(4)).contains("perf_event_paranoid is 4"), "{}", forbidden(Some(4)));
    }
}
