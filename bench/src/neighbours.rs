//! Who else used the processors during a run. The load average can't tell: before a run it is that of the build
//! that made this program, and during one it is the run's own.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Cores' worth of other processes' time from which on a run says so: a tenth of one.
const OTHERS_MIN: f64 = 0.1;

/// Share of the processors' time that a hypervisor may give to others before a run says so.
const STEAL_MIN: f64 = 0.01;

/// What the processors did besides the run, over its whole time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Neighbours {
    /// Cores' worth of time that other processes took; threads of the kernel, which work for the run too, apart.
    pub others_cores: f64,
    /// Share of the processors' time that the hypervisor gave to other machines.
    pub steal: f64,
    /// Processors of the machine.
    pub cores: usize,
}

impl Neighbours {
    /// What to know before the run's figures are quoted.
    pub fn notes(&self) -> Vec<String> {
        let Self { others_cores, steal, cores } = *self;
        let others = (others_cores >= OTHERS_MIN).then(|| {
            format!(
                "the machine was busy: other processes used {others_cores:.2} of {cores} cores during the run \
                 (said from {OTHERS_MIN} on); end them and run again before quoting a figure"
            )
        });
        let steal = (steal >= STEAL_MIN).then(|| {
            format!(
                "the hypervisor gave {:.1} % of the processors' time to other machines during the run (said \
                 from {:.0} % on): the slowest requests may be its doing",
                steal * 100.0,
                STEAL_MIN * 100.0
            )
        });
        others.into_iter().chain(steal).collect()
    }
}

/// A run that is being watched.
#[derive(Debug)]
pub struct Watch {
    begin: Instant,
    before: Option<Counters>,
}

impl Watch {
    /// Begins.
    pub fn begin() -> Self {
        Self { begin: Instant::now(), before: Counters::now() }
    }

    /// What happened since the beginning; nothing where the system does not say. Children count as this process
    /// once they were waited for.
    pub fn end(&self) -> Option<Neighbours> {
        let after = Counters::now()?;
        Some(Counters::between(self.before.as_ref()?, &after, self.begin.elapsed()))
    }
}

/// Counters of the system and of this process.
#[derive(Clone, Debug, Default, PartialEq)]
struct Counters {
    machine: Machine,
    /// This process, with the kernel's workers for its rings, and the children it waited for.
    own: Duration,
    /// Threads of the kernel by their number, in ticks: they flush what the run wrote.
    kernel: HashMap<u32, u64>,
    ticks_per_s: u64,
}

/// The processors' time since the machine was started, in ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Machine {
    /// Spent in processes and threads of the kernel; interrupts apart, which belong to nobody.
    busy: u64,
    steal: u64,
    cores: usize,
}

impl Counters {
    fn now() -> Option<Self> {
        let machine = Machine::parse(&fs::read_to_string("/proc/stat").ok()?)?;
        // SAFETY: takes a number and touches no memory.
        let ticks_per_s = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
        let ticks_per_s = u64::try_from(ticks_per_s).ok().filter(|ticks| *ticks > 0)?;
        let own = cpu_time(libc::RUSAGE_SELF)? + cpu_time(libc::RUSAGE_CHILDREN)?;
        Some(Self { machine, own, kernel: kernel_threads(), ticks_per_s })
    }

    fn between(before: &Self, after: &Self, elapsed: Duration) -> Neighbours {
        let seconds = |ticks: u64| ticks as f64 / after.ticks_per_s as f64;
        let kernel = after.kernel.iter().map(|(thread, ticks)| {
            ticks.saturating_sub(before.kernel.get(thread).copied().unwrap_or(0))
        });
        let busy = after.machine.busy.saturating_sub(before.machine.busy);
        let busy = seconds(busy.saturating_sub(kernel.sum()));
        let own = after.own.saturating_sub(before.own).as_secs_f64();
        let steal = seconds(after.machine.steal.saturating_sub(before.machine.steal));
        let (cores, elapsed) = (after.machine.cores, elapsed.as_secs_f64().max(f64::MIN_POSITIVE));
        Neighbours {
            others_cores: (busy - own).max(0.0) / elapsed,
            steal: steal / elapsed / cores.max(1) as f64,
            cores,
        }
    }
}

impl Machine {
    /// Source of the form: proc(5), `/proc/stat`.
    fn parse(text: &str) -> Option<Self> {
        let all = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let ticks: Vec<u64> =
            all.split_whitespace().map_while(|field| field.parse().ok()).collect();
        let &[user, nice, system, _idle, _iowait, _irq, _softirq, steal, ..] = ticks.as_slice()
        else {
            return None;
        };
        let cores = text.lines().filter(|line| {
            line.strip_prefix("cpu")
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        });
        Some(Self { busy: user + nice + system, steal, cores: cores.count() })
    }
}

fn cpu_time(whose: libc::c_int) -> Option<Duration> {
    // SAFETY: all zeros is a valid `rusage`.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is writable.
    let got = unsafe { libc::getrusage(whose, &raw mut usage) };
    let of = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
    };
    (got == 0).then(|| of(usage.ru_utime) + of(usage.ru_stime))
}

/// Ticks of each of the kernel's threads; none where other processes are hidden.
fn kernel_threads() -> HashMap<u32, u64> {
    let Ok(entries) = fs::read_dir("/proc") else { return HashMap::new() };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let thread = |number: u32| {
        let text = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
        Some((number, kernel_thread_ticks(&text)?))
    };
    numbers.filter_map(thread).collect()
}

/// The time of a thread of the kernel, or nothing if it is an ordinary process. Source of the form: proc(5),
/// `/proc/<pid>/stat`.
fn kernel_thread_ticks(text: &str) -> Option<u64> {
    /// The kernel's own mark of its threads.
    const PF_KTHREAD: u64 = 0x0020_0000;
    const FLAGS: usize = 6;
    const UTIME: usize = 11;
    const STIME: usize = 12;
    // A name may hold anything, brackets and spaces too.
    let (_, behind_name) = text.rsplit_once(')')?;
    let fields: Vec<&str> = behind_name.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    (number(FLAGS)? & PF_KTHREAD != 0).then_some(number(UTIME)? + number(STIME)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "\
cpu  1000 20 300 9000 50 7 8 40 0 0
cpu0 500 10 150 4500 25 4 4 20 0 0
cpu1 500 10 150 4500 25 3 4 20 0 0
intr 12345 1 2 3
ctxt 99";

    fn counters(busy: u64, own_s: u64, kernel: u64, steal: u64) -> Counters {
        let machine = Machine { busy, steal, cores: 2 };
        let own = Duration::from_secs(own_s);
        Counters { machine, own, kernel: HashMap::from([(17, kernel)]), ticks_per_s: 100 }
    }

    fn over_10_s(busy: u64, own_s: u64, kernel: u64, steal: u64) -> Neighbours {
        let before = counters(5000, 3, 700, 60);
        let after = counters(5000 + busy, 3 + own_s, 700 + kernel, 60 + steal);
        Counters::between(&before, &after, Duration::from_secs(10))
    }

    #[test]
    fn the_kernels_table_is_read() {
        assert_eq!(Machine::parse(STAT), Some(Machine { busy: 1320, steal: 40, cores: 2 }));
        assert_eq!(Machine::parse("cpu  1 2 3\n"), None, "a kernel without steal time");
        let kthread = "17 (kworker/0:1-ext4 (x)) I 2 0 0 0 -1 69238880 0 0 0 0 3 11 0 0 20 0 1 0";
        assert_eq!(kernel_thread_ticks(kthread), Some(14));
        let process = "99 (sh) S 1 99 99 0 -1 4194304 100 0 0 0 3 11 0 0 20 0 1 0";
        assert_eq!(kernel_thread_ticks(process), None);
    }

    #[test]
    fn the_runs_own_time_and_the_kernels_is_no_neighbours() {
        let quiet = over_10_s(1550, 15, 45, 0);
        assert!(quiet.others_cores < 0.02, "{quiet:?}");
        assert!(quiet.notes().is_empty(), "{quiet:?}");
    }

    #[test]
    fn a_neighbour_that_takes_a_tenth_of_a_core_is_said() {
        let busy = over_10_s(1500 + 430, 15, 0, 0);
        assert!((busy.others_cores - 0.43).abs() < 1e-9, "{busy:?}");
        let notes = busy.notes();
        assert!(notes.len() == 1 && notes[0].contains("used 0.43 of 2 cores"), "{notes:?}");
        assert!(over_10_s(1500 + 90, 15, 0, 0).notes().is_empty());
    }

    #[test]
    fn stolen_time_is_said() {
        let notes = over_10_s(1500, 15, 0, 64).notes();
        assert!(notes.len() == 1 && notes[0].contains("3.2 %"), "{notes:?}");
        assert!(over_10_s(1500, 15, 0, 10).notes().is_empty());
    }

    #[test]
    fn the_system_counts_what_this_process_does() {
        let before = Counters::now().expect("Linux says");
        let mut after = before.clone();
        while after.own.saturating_sub(before.own) < Duration::from_millis(100) {
            after = Counters::now().expect("Linux says");
        }
        assert!(after.machine.busy > before.machine.busy, "{before:?} {after:?}");
        assert!(after.machine.cores >= 1);
    }
}
