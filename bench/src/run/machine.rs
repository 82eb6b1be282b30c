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
    /// Ticks of `iou-wrk` threads, and how many there are.
    workers: Option<(u64, u32)>,
    backend: Counters,
}

/// Where to look.
#[derive(Clone, Debug)]
pub struct Machine {
    disk: Option<PathBuf>,
    ticks_per_s: f64,
}

impl Machine {
    /// For data in `dir`.
    pub fn of(dir: &Path) -> Self {
        let disk = fs::metadata(dir).ok().map(|meta| {
            let (major, minor) = (libc::major(meta.dev()), libc::minor(meta.dev()));
            PathBuf::from(format!("/sys/dev/block/{major}:{minor}/stat"))
        });
        // SAFETY: takes a number and touches no memory.
        let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
        Self { disk, ticks_per_s: if ticks > 0 { ticks as f64 } else { 100.0 } }
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
        let ticks = after.workers.zip(before.workers);
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
            io_wq_cores: ticks.map(|(after, before)| {
                after.0.saturating_sub(before.0) as f64 / self.ticks_per_s / seconds
            }),
            io_wq_threads: after.workers.map(|workers| workers.1),
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

/// Ticks of this process's io-wq threads, and how many there are.
fn workers() -> Option<(u64, u32)> {
    let (mut ticks, mut count) = (0, 0);
    for entry in fs::read_dir("/proc/self/task").ok()?.flatten() {
        let Ok(text) = fs::read_to_string(entry.path().join("stat")) else { continue };
        if let Some(own) = worker_ticks(&text) {
            ticks += own;
            count += 1;
        }
    }
    Some((ticks, count))
}

/// Source of the form: proc(5), `/proc/<pid>/stat`.
fn worker_ticks(text: &str) -> Option<u64> {
    const UTIME: usize = 11;
    let (head, behind_name) = text.rsplit_once(')')?;
    if !head.contains("(iou-wrk") {
        return None;
    }
    let fields: Vec<&str> = behind_name.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(number(UTIME)? + number(UTIME + 1)?)
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
        let worker = "77 (iou-wrk-70) S 1 2 3 4 5 6 7 8 9 10 30 12 0";
        assert_eq!(worker_ticks(worker), Some(42));
        assert_eq!(worker_ticks(&worker.replace("iou-wrk", "other")), None);
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
