//! Where a run took place, read from the system, so that nobody can pick the figures apart.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::Instant;

use memmap2::{Advice, MmapOptions};
use ringmain::buffers::PAGE_BYTES;
use serde::{Deserialize, Serialize};

use crate::cores::Cores;
use crate::distance::{FAR_NS, round_trip_ns};
use crate::stats::median;
use crate::workdir::free_bytes;

/// Bytes of a huge page.
pub const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Huge pages that are touched, to see what that takes.
const TOUCHED: usize = 8;

/// A kernel clears 2 MiB in a tenth of this; more is a host that has to find memory for its guest.
const FIRST_TOUCH_US_MAX: f64 = 1000.0;

/// All that is known of the machine. What the system does not say is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Env {
    /// Version of the tool.
    pub version: String,
    /// Git revision it was built from.
    pub revision: Option<String>,
    /// Whether it was built without optimisation, which makes its figures worthless.
    pub debug_build: bool,
    /// Kernel release.
    pub kernel: Option<String>,
    /// CPU model.
    pub cpu: Option<String>,
    /// Cores this process may use.
    pub cores: usize,
    /// Frequency governor of core 0.
    pub governor: Option<String>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// `cpu.max` of the cgroup, if it is a limit.
    pub cgroup_cpu: Option<String>,
    /// `memory.max` of the cgroup, if it is a limit.
    pub cgroup_memory: Option<String>,
    /// Load average over one minute before the run.
    pub load: Option<f64>,
    /// Clock source of the kernel.
    pub clock: Option<String>,
    /// Microseconds until 2 MiB of memory are there when they are touched first, the median of eight.
    pub first_touch_us: Option<f64>,
    /// Nanoseconds of a cache line from the clients' core to the disk's and back; none on one core.
    pub core_round_trip_ns: Option<f64>,
    /// The file system of the data directory.
    pub volume: Volume,
    /// What may spoil the figures, in words.
    pub warnings: Vec<String>,
}

/// The file system of the data directory and the device below it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    /// Type, such as `ext4`.
    pub file_system: Option<String>,
    /// Mount options of the mount and of the file system.
    pub options: Option<String>,
    /// Block device.
    pub device: Option<String>,
    /// Its model.
    pub model: Option<String>,
    /// `write back` or `write through`.
    pub write_cache: Option<String>,
    /// Whether the device takes forced-unit-access writes.
    pub fua: Option<bool>,
    /// Whether it is a spinning disk.
    pub rotational: Option<bool>,
    /// Largest request, in bytes.
    pub request_bytes_max: Option<u64>,
    /// Bytes free.
    pub free_bytes: Option<u64>,
}

impl Env {
    /// Reads the system; `dir` is where the data will be.
    pub fn capture(dir: &Path) -> Self {
        let cores = available_parallelism().map_or(1, std::num::NonZero::get);
        let mut env = Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: option_env!("RINGMAIN_REVISION").map(str::to_owned),
            debug_build: cfg!(debug_assertions),
            kernel: line("/proc/sys/kernel/osrelease"),
            cpu: field("/proc/cpuinfo", "model name"),
            cores,
            governor: line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            memory_bytes: field("/proc/meminfo", "MemTotal").and_then(|text| kib(&text)),
            cgroup_cpu: cgroup("cpu.max"),
            cgroup_memory: cgroup("memory.max"),
            load: line("/proc/loadavg").and_then(|text| text.split(' ').next()?.parse().ok()),
            clock: line("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            first_touch_us: first_touch_us(),
            core_round_trip_ns: round_trip_ns(Cores::near(dir)),
            volume: Volume::of(dir),
            warnings: Vec::new(),
        };
        env.warnings = env.doubts();
        env
    }

    fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        if self.debug_build {
            doubts.push("built without optimisation: use cargo run --release".to_owned());
        }
        if let Some(limit) = &self.cgroup_cpu {
            doubts
                .push(format!("CPU time is limited by the cgroup: {limit} (quota and period, us)"));
        }
        match self.governor.as_deref() {
            Some(governor) if governor != "performance" => {
                doubts.push(format!("the frequency governor is {governor}, not performance"));
            }
            _ => {}
        }
        if self.clock.as_deref().is_some_and(|clock| clock != "tsc" && clock != "arch_sys_counter")
        {
            doubts.push(
                "the kernel's clock is slow to read; short latencies are overstated".to_owned(),
            );
        }
        if let Some(us) = self.first_touch_us.filter(|us| *us > FIRST_TOUCH_US_MAX) {
            doubts.push(format!(
                "2 MiB of memory take {:.1} ms when they are touched first: the host of this machine has to find them, \
                 and percentiles above p99 show it (docs/benchmarking.md)",
                us / 1000.0
            ));
        }
        if let Some(ns) = self.core_round_trip_ns.filter(|ns| *ns >= FAR_NS) {
            doubts.push(format!(
                "the two cores are far apart: {ns:.0} ns for a cache line there and back, where 30 to 150 are \
                 usual; small requests are slower by up to half, and the host of a virtual machine may change \
                 that at any time (docs/benchmarking.md)"
            ));
        }
        if self.volume.in_memory() {
            doubts.push(
                "the directory is in memory: O_DIRECT and flushes mean nothing here".to_owned(),
            );
        }
        doubts
    }

    /// Names and values for people, in reading order.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let volume = &self.volume;
        let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
        let tool = [Some(self.version.clone()), self.revision.as_ref().map(|r| format!("({r})"))];
        let cpu = [Some(format!("{} x", self.cores)), self.cpu.clone(), self.governor.clone()];
        let device = [
            volume.device.clone(),
            volume.model.clone(),
            volume.write_cache.as_ref().map(|cache| format!("{cache} cache")),
            volume.fua.map(|fua| if fua { "FUA".to_owned() } else { "no FUA".to_owned() }),
        ];
        let cgroup = [
            self.cgroup_cpu.as_ref().map(|limit| format!("cpu {limit}")),
            self.cgroup_memory.as_ref().map(|limit| format!("memory {limit}")),
        ];
        let all = [
            ("tool", join(tool)),
            ("kernel", self.kernel.clone().unwrap_or_default()),
            ("cpu", join(cpu)),
            ("memory", self.memory_bytes.map(mib).unwrap_or_default()),
            ("cgroup", join(cgroup)),
            ("file system", join([volume.file_system.clone(), volume.options.clone()])),
            ("device", join(device)),
        ];
        all.into_iter().filter(|(_, value)| !value.is_empty()).collect()
    }
}

impl Volume {
    fn of(dir: &Path) -> Self {
        let mut volume = Self { free_bytes: free_bytes(dir).ok(), ..Self::default() };
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let absolute = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        if let Some(mount) = Mount::holding(&table, &absolute) {
            volume.file_system = Some(mount.file_system);
            volume.options = Some(mount.options);
            volume.device = Some(mount.source);
        }
        let Ok(meta) = fs::metadata(dir) else { return volume };
        let (major, minor) = (libc::major(meta.dev()), libc::minor(meta.dev()));
        let Ok(block) = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")) else {
            return volume;
        };
        // A partition has no queue of its own: its disk is the directory above.
        let disk = if block.join("queue").exists() { block } else { block.join("..") };
        let said = |name: &str| line(disk.join(name));
        volume.model = said("device/model").or_else(|| driver(&disk));
        volume.write_cache = said("queue/write_cache");
        volume.fua = said("queue/fua").map(|text| text == "1");
        volume.rotational = said("queue/rotational").map(|text| text == "1");
        volume.request_bytes_max =
            said("queue/max_sectors_kb").and_then(|text| Some(text.parse::<u64>().ok()? << 10));
        volume
    }

    /// Whether the file system keeps its files in memory only.
    pub fn in_memory(&self) -> bool {
        matches!(self.file_system.as_deref(), Some("tmpfs" | "ramfs"))
    }
}

struct Mount {
    point: PathBuf,
    file_system: String,
    options: String,
    source: String,
}

impl Mount {
    /// The last mount over the longest prefix of `path`; the table's form is in proc(5).
    fn holding(table: &str, path: &Path) -> Option<Self> {
        let mounts = table.lines().filter_map(Self::parse);
        mounts
            .filter(|mount| path.starts_with(&mount.point))
            .max_by_key(|m| m.point.as_os_str().len())
    }

    fn parse(line: &str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let &[file_system, source, .., super_options] = right.as_slice() else { return None };
        Some(Self {
            point: PathBuf::from(left.get(4)?.replace("\\040", " ")),
            file_system: file_system.to_owned(),
            options: format!("{}; {super_options}", left.get(5)?),
            source: source.to_owned(),
        })
    }
}

fn line(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let first = text.lines().next()?.trim();
    (!first.is_empty()).then(|| first.to_owned())
}

/// Memory this process has resident.
pub fn rss_bytes() -> Option<u64> {
    field("/proc/self/status", "VmRSS").and_then(|text| kib(&text))
}

/// Most memory this process has had resident.
pub fn peak_rss_bytes() -> Option<u64> {
    field("/proc/self/status", "VmHWM").and_then(|text| kib(&text))
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let (_, value) =
        text.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| key.trim() == name)?;
    Some(value.trim().to_owned())
}

fn kib(text: &str) -> Option<u64> {
    Some(text.strip_suffix(" kB")?.trim().parse::<u64>().ok()? << 10)
}

/// What the first touch of memory costs, huge page by huge page where the kernel has them.
fn first_touch_us() -> Option<f64> {
    let mut map = MmapOptions::new().len((TOUCHED + 1) * HUGE_PAGE_BYTES).map_anon().ok()?;
    // Where there are none small pages are measured, which is what everybody else gets there.
    map.advise(Advice::HugePage).ok();
    let begin = map.as_ptr().align_offset(HUGE_PAGE_BYTES);
    let touch = |bytes: &mut [u8]| {
        let began = Instant::now();
        bytes.iter_mut().step_by(PAGE_BYTES).for_each(|byte| *byte = 1);
        began.elapsed().as_secs_f64() * 1e6
    };
    let touches =
        map[begin..].chunks_exact_mut(HUGE_PAGE_BYTES).take(TOUCHED).map(touch).collect::<Vec<_>>();
    median(touches)
}

fn driver(disk: &Path) -> Option<String> {
    let driver = fs::canonicalize(disk.join("device/driver")).ok()?;
    Some(driver.file_name()?.to_str()?.to_owned())
}

/// A limit of the cgroup this process is in, or of the nearest one above it that has one.
fn cgroup(file: &str) -> Option<String> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    let group = root.join(group);
    group
        .ancestors()
        .take_while(|path| path.starts_with(root))
        .filter_map(|path| line(path.join(file)))
        .find(|limit| !limit.starts_with("max"))
}

fn join<const N: usize>(parts: [Option<String>; N]) -> String {
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro
30 22 0:25 / /mnt/fast\\040disk rw,noatime - xfs /dev/nvme0n1 rw,attr2
31 22 0:26 / /dev/shm rw,nosuid shared:3 - tmpfs tmpfs rw";

    #[test]
    fn the_longest_mount_point_above_a_path_is_its_mount() {
        let of = |path: &str| Mount::holding(TABLE, Path::new(path)).expect("a mount").file_system;
        assert_eq!(of("/srv/data"), "ext4");
        assert_eq!(of("/mnt/fast disk/data"), "xfs");
        assert_eq!(of("/dev/shm/x"), "tmpfs");
        assert_eq!(of("/dev/shmx"), "ext4");
    }

    #[test]
    fn a_file_system_in_memory_is_said() {
        let mut env = Env::capture(Path::new("."));
        env.volume.file_system = Some("tmpfs".to_owned());
        assert!(env.doubts().iter().any(|doubt| doubt.contains("in memory")));
    }

    #[test]
    fn cores_far_apart_are_said() {
        let mut env = Env::capture(Path::new("."));
        let says = |env: &Env| env.doubts().iter().any(|doubt| doubt.contains("far apart"));
        for (ns, said) in [(None, false), (Some(64.0), false), (Some(325.0), true)] {
            env.core_round_trip_ns = ns;
            assert_eq!(says(&env), said, "{ns:?}");
        }
    }

    #[test]
    fn memory_that_its_host_has_to_find_is_said() {
        let mut env = Env::capture(Path::new("."));
        assert!(env.first_touch_us.expect("18 MiB of memory") > 0.0);
        let says = |env: &Env| env.doubts().iter().any(|doubt| doubt.contains("touched first"));
        env.first_touch_us = Some(5061.0);
        assert!(says(&env));
        env.first_touch_us = Some(148.0);
        assert!(!says(&env), "the kernel clears it");
    }
}
