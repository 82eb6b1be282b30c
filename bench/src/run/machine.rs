//! What the machine does while a repeat is measured: counters of the system before and after.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::backend::Counters;
use super::result::Server;
use crate::env::rss_bytes;

/// Bytes of a sector in the kernel's statistics, whatever the device's own is.
const SECTOR_BYTES: u64 = 512;

/// Counters at one moment.
#[derive(Clone, Debug, Default)]
pub struct Moment {
    cpu: Duration,
    switches: Option<u64>,
    /// Busy and all ticks, by core.
    cores: Vec<(u64, u64)>,
    device_bytes: Option<u64>,
    write_bytes: Option<u64>,
    workers: Option<Workers>,
    backend: Counters,
}

/// The kernel's `iou-wrk` threads of this process, to which io_uring gives what it can't begin without blocking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Workers {
    /// Nanoseconds on a processor.
    ns: u64,
    /// How often they were given one.
    runs: u64,
    threads: u32,
}

/// Where to look.
#[derive(Clone, Debug)]
pub struct Machine {
    disk: Option<PathBuf>,
}

impl Machine {
    /// For data in `dir`.
    pub fn of(dir: &Path) -> Self {
        let disk = fs::metadata(dir).ok().map(|meta| {
            let (major, minor) = (libc::major(meta.dev()), libc::minor(meta.dev()));
            PathBuf::from(format!("/sys/dev/block/{major}:{minor}/stat"))
        });
        Self { disk }
    }

    /// Now, with what the backend has counted.
    pub fn now(&self, backend: Counters) -> Moment {
        let usage = usage();
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let io = fs::read_to_string("/proc/self/io").ok();
        let disk = self.disk.as_ref().and_then(|path| fs::read_to_string(path).ok());
        Moment {
            cpu: usage.map_or(Duration::ZERO, |usage| usage.0),
            switches: usage.map(|usage| usage.1),
            cores: stat.lines().filter_map(core).collect(),
            device_bytes: disk.and_then(|text| sectors_written(&text)).map(|n| n * SECTOR_BYTES),
            write_bytes: io.and_then(|text| field(&text, "write_bytes:")),
            workers: workers(),
            backend,
        }
    }

    /// What happened between two moments `elapsed` apart, `batch_bytes` of batches having been acked meanwhile.
    pub fn between(
        &self,
        before: &Moment,
        after: &Moment,
        elapsed: Duration,
        batch_bytes: u64,
    ) -> Server {
        let seconds = elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
        let since = |a: Option<u64>, b: Option<u64>| Some(b?.saturating_sub(a?));
        let busy = |(before, after): (&(u64, u64), &(u64, u64))| {
            let all = after.1.saturating_sub(before.1).max(1);
            after.0.saturating_sub(before.0) as f64 / all as f64
        };
        let written = since(before.backend.written_bytes, after.backend.written_bytes);
        let of = |figure: fn(&Workers) -> u64| {
            since(before.workers.as_ref().map(figure), after.workers.as_ref().map(figure))
        };
        Server {
            cpu_cores: after.cpu.saturating_sub(before.cpu).as_secs_f64() / seconds,
            cpu_by_core: before.cores.iter().zip(&after.cores).map(busy).collect(),
            rss_mib: rss_bytes().unwrap_or(0) as f64 / f64::from(1 << 20),
            context_switches_per_s: since(before.switches, after.switches)
                .map(|n| n as f64 / seconds),
            device_bytes: since(before.device_bytes, after.device_bytes),
            process_write_bytes: since(before.write_bytes, after.write_bytes),
            flushes: since(before.backend.flushes, after.backend.flushes),
            write_amplification: written
                .filter(|_| batch_bytes > 0)
                .map(|written| written as f64 / batch_bytes as f64),
            prepared_bytes: since(before.backend.prepared_bytes, after.backend.prepared_bytes),
            io_wq_cores: of(|workers| workers.ns).map(|ns| ns as f64 / 1e9 / seconds),
            io_wq_runs: of(|workers| workers.runs),
            io_wq_threads: after.workers.map(|workers| workers.threads),
        }
    }
}

fn usage() -> Option<(Duration, u64)> {
    // SAFETY: all zeros is a valid `rusage`.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is writable.
    let got = unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    let of = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
    };
    let switches = (usage.ru_nvcsw + usage.ru_nivcsw) as u64;
    (got == 0).then(|| (of(usage.ru_utime) + of(usage.ru_stime), switches))
}

/// Busy and all ticks of one core. Source of the form: proc(5), `/proc/stat`.
fn core(line: &str) -> Option<(u64, u64)> {
    let rest = line.strip_prefix("cpu")?.strip_prefix(|c: char| c.is_ascii_digit())?;
    let (_, ticks) = rest.split_once(' ')?;
    let ticks: Vec<u64> =
        ticks.split_whitespace().map_while(|tick| tick.parse().ok()).take(8).collect();
    let idle = ticks.get(3)? + ticks.get(4)?;
    let all = ticks.iter().sum::<u64>();
    Some((all - idle, all))
}

/// Source of the form: the kernel's Documentation/block/stat.rst, the seventh field.
fn sectors_written(text: &str) -> Option<u64> {
    text.split_whitespace().nth(6)?.parse().ok()
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}

/// All workers there are. Those that end lose what they counted, but none does that was busy in the last seconds.
fn workers() -> Option<Workers> {
    let mut all = Workers::default();
    for entry in fs::read_dir("/proc/self/task").ok()?.flatten() {
        let of = |name: &str| fs::read_to_string(entry.path().join(name));
        // One that has ended meanwhile is passed over.
        let Ok(name) = of("comm") else { continue };
        if !name.starts_with("iou-wrk") {
            continue;
        }
        let Ok(text) = of("schedstat") else { continue };
        let (ns, runs) = schedule(&text)?;
        all = Workers { ns: all.ns + ns, runs: all.runs + runs, threads: all.threads + 1 };
    }
    Some(all)
}

/// Nanoseconds on a processor, and how often it was given one. Source of the form: the kernel's
/// Documentation/scheduler/sched-stats.rst, `/proc/<pid>/schedstat`.
fn schedule(text: &str) -> Option<(u64, u64)> {
    let mut numbers = text.split_whitespace().map(str::parse);
    Some((numbers.next()?.ok()?, numbers.nth(1)?.ok()?))
}

/// All repeats together: sums of what adds up, means of what does not.
pub fn together(servers: &[Server]) -> Server {
    let count = servers.len().max(1) as f64;
    let mean = |of: fn(&Server) -> f64| servers.iter().map(of).sum::<f64>() / count;
    let mean_some = |of: fn(&Server) -> Option<f64>| {
        let values: Option<Vec<f64>> = servers.iter().map(of).collect();
        values.filter(|values| !values.is_empty()).map(|values| values.iter().sum::<f64>() / count)
    };
    let sum = |of: fn(&Server) -> Option<u64>| {
        let values: Option<Vec<u64>> = servers.iter().map(of).collect();
        values.filter(|values| !values.is_empty()).map(|values| values.iter().sum())
    };
    let cores = servers.iter().map(|server| server.cpu_by_core.len()).min().unwrap_or(0);
    let core = |nth: usize| servers.iter().map(|s| s.cpu_by_core[nth]).sum::<f64>() / count;
    Server {
        cpu_cores: mean(|s| s.cpu_cores),
        cpu_by_core: (0..cores).map(core).collect(),
        rss_mib: servers.iter().map(|s| s.rss_mib).fold(0.0, f64::max),
        context_switches_per_s: mean_some(|s| s.context_switches_per_s),
        device_bytes: sum(|s| s.device_bytes),
        process_write_bytes: sum(|s| s.process_write_bytes),
        flushes: sum(|s| s.flushes),
        write_amplification: mean_some(|s| s.write_amplification),
        prepared_bytes: sum(|s| s.prepared_bytes),
        io_wq_cores: mean_some(|s| s.io_wq_cores),
        io_wq_runs: sum(|s| s.io_wq_runs),
        io_wq_threads: servers.iter().filter_map(|s| s.io_wq_threads).max(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_the_kernel_are_read() {
        assert_eq!(core("cpu1 500 10 150 4500 25 3 4 20 0 0"), Some((687, 5212)));
        assert_eq!(core("cpu  500 10 150 4500 25 3 4 20 0 0"), None, "all cores together");
        let disk = " 100 2 3000 40 500 6 7000 80 0 90 100 0 0 0 0";
        assert_eq!(sectors_written(disk), Some(7000));
        assert_eq!(field("rchar: 1\nwrite_bytes: 4096\n", "write_bytes:"), Some(4096));
        assert_eq!(schedule("123456789 4021 57\n"), Some((123_456_789, 57)));
        assert_eq!(schedule("123456789"), None);
    }

    #[test]
    fn what_this_process_writes_is_counted() {
        let machine = Machine::of(Path::new("."));
        let before = machine.now(Counters { written_bytes: Some(100), ..Counters::default() });
        let after = machine.now(Counters { written_bytes: Some(400), ..Counters::default() });
        let server = machine.between(&before, &after, Duration::from_secs(1), 200);
        assert_eq!(server.write_amplification, Some(1.5));
        assert_eq!(server.flushes, None, "what is not known is not zero");
        assert!(server.rss_mib > 1.0 && !server.cpu_by_core.is_empty());
    }
}
