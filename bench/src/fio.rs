//! The raw device by another tool's word: the same job by fio and by `device`, on the same file, by turns.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use ringmain::ring::backend::{AnyRing, Backend, open_ring};
use serde_json::Value;

use crate::cores::{Cores, Pinned};
use crate::device::{Device, Direction, Job, Plot, arena};
use crate::env::HUGE_PAGE_BYTES;
use crate::interrupt;
use crate::output::print;
use crate::payload::Payload;
use crate::run::repeats::interval;
use crate::run::values::Bytes;
use crate::stats::median;
use crate::verdict::Verdict;
use crate::workdir::WorkDir;

/// How far the two may be apart, in bandwidth and in p50.
pub const APART_MAX: f64 = 0.05;

/// Bytes of the file that both overwrite.
const FILE_BYTES: u64 = 256 << 20;

/// Bytes of a generated payload.
const PAYLOAD_BYTES: usize = 32 << 20;

/// A turn's warm-up, as a share of it.
const WARM_UP: f64 = 0.2;

/// Bytes of fio's buffers together, at least: two huge pages, of which one is whole wherever they begin, and no more
/// than an ordinary user may lock.
const BUFFERS_BYTES_MIN: usize = 2 * HUGE_PAGE_BYTES;

/// Requests that leave room behind each buffer, in [`BUFFERS_BYTES_MIN`], at any depth measured.
const SMALL_BYTES: usize = 64 << 10;

/// Flags of the command behind `scripts/device-against-fio`.
#[derive(Args, Clone, Debug)]
pub struct AgainstFio {
    /// Pairs of turns of each job
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(2..=100))]
    pub pairs: u32,
    /// Measured time of a turn
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub seconds: u64,
    /// Directory for the file: new, empty, or left by an earlier run; removed after
    #[arg(long, value_name = "DIR")]
    pub dir: Option<std::path::PathBuf>,
}

/// What one of the two says of a turn.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Said {
    mib_per_s: f64,
    p50_us: f64,
}

/// `device` over fio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    /// The median over the pairs.
    pub median: f64,
    /// Its 95 % interval, by Student's t of the logarithms.
    pub interval: [f64; 2],
}

impl Ratio {
    fn of(pairs: &[(f64, f64)]) -> Option<Self> {
        let ratios: Vec<f64> =
            pairs.iter().filter(|(_, fio)| *fio > 0.0).map(|(own, fio)| own / fio).collect();
        let logs: Vec<f64> = ratios.iter().map(|ratio| ratio.ln()).collect();
        let [low, high] = interval(&logs)?;
        Some(Self { median: median(ratios)?, interval: [low.exp(), high.exp()] })
    }

    /// What it says of the two.
    pub fn judge(&self) -> Agreement {
        let band = 1.0 - APART_MAX..=1.0 + APART_MAX;
        let [low, high] = self.interval;
        if band.contains(&self.median) {
            Agreement::Agree
        } else if high < *band.start() || low > *band.end() {
            Agreement::Differ
        } else {
            Agreement::Undecided
        }
    }
}

/// Whether two tools agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Agreement {
    /// The median is within [`APART_MAX`].
    Agree,
    /// It is not, but the pairs are so far from each other that this may be the machine's doing.
    Undecided,
    /// Nor is any value that the pairs leave possible.
    Differ,
}

/// One job by both.
#[derive(Clone, Debug)]
pub struct Compared {
    /// The job.
    pub job: Job,
    /// In bandwidth.
    pub bandwidth: Ratio,
    /// In the median latency.
    pub p50: Ratio,
}

impl Compared {
    /// What both figures say together.
    pub fn judge(&self) -> Agreement {
        self.bandwidth.judge().max(self.p50.judge())
    }

    /// In words.
    pub fn line(&self) -> String {
        let durable = if self.job.durable { " durable" } else { "" };
        let ratio = |ratio: &Ratio| {
            let [low, high] = ratio.interval;
            format!("{:.3} ({low:.3} to {high:.3})", ratio.median)
        };
        format!(
            "write{durable} {} x {}: bandwidth {}, p50 {} of fio's",
            Bytes(self.job.request_bytes as u64),
            self.job.depth,
            ratio(&self.bandwidth),
            ratio(&self.p50)
        )
    }
}

/// fio's version, if it is installed.
pub fn version() -> Option<String> {
    let output = Command::new("fio").arg("--version").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A job that overwrites.
pub fn job(request_bytes: usize, depth: usize, durable: bool) -> Job {
    Job { direction: Direction::Write, request_bytes, depth, durable, plot: 0, files: 1 }
}

/// Runs each job by both, `pairs` times, now the one first and now the other.
///
/// # Errors
/// If one of them fails, or the user stops it.
pub fn compare(dir: &Path, jobs: &[Job], pairs: u32, time: Duration) -> Result<Vec<Compared>> {
    let payload = Payload::generated(PAYLOAD_BYTES);
    let mut cursor = payload.cursor(0);
    let plots = [Plot::prepare_with(dir, 1, FILE_BYTES, |stride| cursor.fill(stride))?];
    ensure!(plots[0].direct, "the file system does not take O_DIRECT");
    let core = Cores::near(dir).disk;
    let (ring, fallback) = open_ring(Backend::Auto, 64).context("cannot make a ring")?;
    if let Some(why) = fallback {
        bail!("no io_uring: {why}");
    }
    let mut device = Device::open(ring, &arena(jobs), &plots, &payload)?;
    let mut all = vec![Vec::new(); jobs.len()];
    for turn in 0..pairs {
        for (job, said) in jobs.iter().zip(&mut all) {
            interrupt::check()?;
            let mut own = || by_device(&mut device, job, time, core);
            let fio = || by_fio(&plots[0].paths[0], job, time, core);
            let pair = if turn.is_multiple_of(2) {
                let own = own()?;
                (own, fio()?)
            } else {
                let fio = fio()?;
                (own()?, fio)
            };
            said.push(pair);
        }
    }
    device.close()?;
    let compared = jobs.iter().zip(&all).map(|(job, said)| {
        let of = |figure: fn(&Said) -> f64| {
            let pairs: Vec<_> = said.iter().map(|(own, fio)| (figure(own), figure(fio))).collect();
            Ratio::of(&pairs).context("two pairs at least, and bytes in each")
        };
        let (bandwidth, p50) = (of(|said| said.mib_per_s)?, of(|said| said.p50_us)?);
        Ok(Compared { job: *job, bandwidth, p50 })
    });
    compared.collect()
}

fn by_device(device: &mut Device<AnyRing>, job: &Job, time: Duration, core: usize) -> Result<Said> {
    let _pinned = Pinned::to(core);
    device.run(job, time.mul_f64(WARM_UP))?;
    let sample = device.run(job, time)?;
    let p50_us = sample.latencies.quantile(0.5) as f64 / 1000.0;
    Ok(Said { mib_per_s: sample.mib_per_s(), p50_us })
}

fn by_fio(file: &Path, job: &Job, time: Duration, core: usize) -> Result<Said> {
    let mut command = Command::new("fio");
    command.args(["--name=device", "--ioengine=io_uring", "--rw=write", "--direct=1", "--thread"]);
    // As `device` does: buffers and the file known to the kernel, bytes that are as they were made, the file as it is.
    command.args(["--fixedbufs=1", "--registerfiles=1", "--scramble_buffers=0", "--overwrite=1"]);
    command.args(["--time_based=1", "--output-format=json", "--percentile_list=50"]);
    // Latency from the submission on, and not from when the kernel has it.
    command.args(["--clat_percentiles=0", "--lat_percentiles=1"]);
    command.arg(format!("--filename={}", file.display()));
    command.arg(format!("--size={FILE_BYTES}"));
    // Buffers in huge pages, as `device` has them. Of small pages a request is so many pieces that the disk takes
    // longer, and one of 1 MiB is more pieces than many disks take at once: the kernel then cuts it in two. glibc asks
    // for huge pages, which the memory has but for what is left at its two ends: the first buffer begins behind one,
    // and there is room behind the last, because fio makes each as large as a read would be.
    command.env("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1");
    command.arg(format!("--iomem_align={HUGE_PAGE_BYTES}"));
    let room = if job.request_bytes > SMALL_BYTES {
        job.request_bytes + HUGE_PAGE_BYTES
    } else {
        BUFFERS_BYTES_MIN / job.depth
    };
    command.arg(format!("--bs={room},{}", job.request_bytes));
    // What has completed is taken at once, and as much submitted by one call: the kernel then merges neighbours.
    command.arg(format!("--iodepth_batch_submit={}", job.depth));
    command.arg(format!("--iodepth_batch_complete_max={}", job.depth));
    command.arg(format!("--iodepth={}", job.depth));
    command.arg(format!("--runtime={}ms", time.as_millis()));
    command.arg(format!("--ramp_time={}ms", time.mul_f64(WARM_UP).as_millis()));
    command.arg(format!("--cpus_allowed={core}"));
    command.arg(if job.durable { "--sync=dsync" } else { "--sync=none" });
    let output = command.output().context("cannot run fio")?;
    if !output.status.success() {
        bail!("fio failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    // It may say something before its document.
    let text = String::from_utf8_lossy(&output.stdout);
    let json = text.find('{').map_or("", |at| &text[at..]);
    let document: Value = serde_json::from_str(json).context("fio printed no JSON document")?;
    said(&document).context("fio's document has other fields than those of version 3")
}

fn said(document: &Value) -> Option<Said> {
    let write = &document["jobs"][0]["write"];
    let bytes = write["bw_bytes"].as_f64()?;
    let p50_ns = write["lat_ns"]["percentile"]["50.000000"].as_f64()?;
    Some(Said { mib_per_s: bytes / f64::from(1 << 20), p50_us: p50_ns / 1000.0 })
}

/// The whole comparison, a job a line; the verdict is the last one.
///
/// # Errors
/// If fio is not installed, or one of the two fails.
pub fn run(flags: &AgainstFio) -> Result<Verdict> {
    let version = version().context("fio is not installed; install it (apt-get install fio)")?;
    let mut dir = WorkDir::create(flags.dir.as_deref(), false)?;
    let place = dir.subdir("fio")?;
    let mut jobs = Vec::new();
    for durable in [false, true] {
        for size in [64 << 10, 1 << 20] {
            jobs.extend([1, 8].map(|depth| job(size, depth, durable)));
        }
    }
    let all = compare(&place, &jobs, flags.pairs, Duration::from_secs(flags.seconds))?;
    for compared in &all {
        let judged = format!("{:?}", compared.judge()).to_lowercase();
        print(&format!("{judged:<10}{}\n", compared.line()))?;
    }
    let worst = all.iter().map(Compared::judge).max().unwrap_or(Agreement::Agree);
    let percent = APART_MAX * 100.0;
    print(&format!(
        "device and {version} {} within {percent:.0} %, medians of {} pairs\n",
        match worst {
            Agreement::Agree => "agree",
            Agreement::Undecided => "may agree: the machine is too restless to say",
            Agreement::Differ => "do NOT agree",
        },
        flags.pairs
    ))?;
    Ok(if worst == Agreement::Differ { Verdict::Failed } else { Verdict::Passed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_difference_that_the_pairs_leave_no_doubt_of_is_one() {
        let judge = |ratios: [f64; 5]| {
            Ratio::of(&ratios.map(|ratio| (ratio * 7.0, 7.0))).expect("pairs").judge()
        };
        assert_eq!(judge([1.01, 0.99, 1.02, 1.0, 0.98]), Agreement::Agree);
        assert_eq!(judge([0.90, 0.91, 0.89, 0.90, 0.90]), Agreement::Differ);
        assert_eq!(judge([1.10, 1.11, 1.12, 1.10, 1.11]), Agreement::Differ);
        assert_eq!(judge([0.5, 1.5, 0.9, 1.3, 1.2]), Agreement::Undecided);
        assert_eq!(Ratio::of(&[(1.0, 1.0)]), None, "one pair says nothing");
    }

    #[test]
    fn what_fio_says_is_read_or_refused() {
        let document = serde_json::json!({"jobs": [{"write": {
            "bw_bytes": 104_857_600, "lat_ns": {"percentile": {"50.000000": 250_000}}}}]});
        assert_eq!(said(&document), Some(Said { mib_per_s: 100.0, p50_us: 250.0 }));
        assert_eq!(said(&serde_json::json!({"jobs": []})), None);
    }

    #[test]
    fn both_tools_measure_the_same_file_where_fio_is_installed() {
        if version().is_none() {
            eprintln!("skipped: fio is not installed");
            return;
        }
        let scratch = crate::scratch::Scratch::new("fio");
        let jobs = [job(64 << 10, 8, false), job(1 << 20, 1, true)];
        match compare(scratch.path(), &jobs, 2, Duration::from_millis(100)) {
            Ok(all) => assert!(all.iter().all(|one| one.bandwidth.median > 0.0), "{all:?}"),
            // Containers may forbid io_uring to both.
            Err(error) => assert!(error.to_string().contains("io_uring"), "{error:#}"),
        }
    }
}
