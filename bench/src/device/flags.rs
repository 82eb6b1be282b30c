//! Flags of `device`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Direction, Job, REQUEST_BYTES_MAX};
use crate::cli::whole_seconds;
use crate::prepared::BLOCK_BYTES;
use crate::run::values::Bytes;
use crate::usage::usage;

/// Most requests in flight.
pub const DEPTH_MAX: usize = 1024;

/// Most bytes in flight: what is read is read into memory.
pub const IN_FLIGHT_BYTES_MAX: usize = 256 << 20;

/// Most combinations of one run.
pub const JOBS_MAX: usize = 256;

/// Longest measurement of one combination.
const SECONDS_MAX: u64 = 3600;

/// Examples of `device`.
pub const EXAMPLES: &str = "\
Examples:
  ringmain-bench device --op write --size 64KiB,1MiB --depth 1,8            each size at each depth
  ringmain-bench device --op write --size 4KiB --depth 1 --durable          what a flush takes
  ringmain-bench device --op read --size 512KiB --depth 8 --dir /mnt/nvme   another disk
  ringmain-bench device --op write --size 64KiB --depth 8 --seconds 10 --json | jq '.results[].mib_per_s'

Requests go one after the other through a file that was written before, past the page cache where the file system
allows that. --seconds counts for each combination: two sizes at two depths for 3 seconds take 12.

Exit codes: 0 ok, 1 the device failed, 2 a wrong flag, value or path, 130 interrupted.";

/// Flags of `device`.
#[derive(Args, Clone, Debug)]
pub struct Device {
    /// What to measure; both with write,read
    #[arg(long, value_enum, value_name = "OP", value_delimiter = ',', required = true)]
    pub op: Vec<Op>,
    /// Bytes of a request, such as 64KiB,1MiB; multiples of 4KiB, up to 16MiB
    #[arg(long, value_name = "SIZE", value_delimiter = ',', required = true, value_parser = size)]
    pub size: Vec<usize>,
    /// Requests in flight, such as 1,8
    #[arg(long, value_name = "N", value_delimiter = ',', required = true, value_parser = depth)]
    pub depth: Vec<usize>,
    /// Each write is on stable storage before it counts (RWF_DSYNC)
    #[arg(long)]
    pub durable: bool,
    /// Measured time of each combination, in seconds
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = seconds)]
    pub seconds: u64,
    /// Directory for the file: new, empty, or left by an earlier run; removed after
    /// [default: ringmain-data-PID in the working directory]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// File or folder whose lines are the bytes [default: generated log lines]
    #[arg(long, value_name = "PATH")]
    pub payload: Option<PathBuf>,
    /// Print one JSON document instead of the table (docs/json.md)
    #[arg(long)]
    pub json: bool,
    /// No progress
    #[arg(long, short)]
    pub quiet: bool,
}

/// `write` or `read`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Op {
    /// Overwrites, in order
    Write,
    /// Reads, in order
    Read,
}

impl Device {
    /// All combinations in the order of the flags, depth after depth.
    ///
    /// # Errors
    /// A usage error if flags contradict each other, or ask for too much.
    pub fn jobs(&self) -> anyhow::Result<Vec<Job>> {
        once(&self.op.iter().map(|op| format!("--op {op:?}").to_lowercase()).collect::<Vec<_>>())?;
        let sizes = self.size.iter().map(|&bytes| format!("--size {}", Bytes(bytes as u64)));
        once(&sizes.collect::<Vec<_>>())?;
        once(&self.depth.iter().map(|depth| format!("--depth {depth}")).collect::<Vec<_>>())?;
        if self.durable && !self.op.contains(&Op::Write) {
            return Err(usage("--durable is about writes: a read has nothing to flush"));
        }
        let mut jobs = Vec::new();
        for op in &self.op {
            for &request_bytes in &self.size {
                jobs.extend(self.depth.iter().map(|&depth| self.job(*op, request_bytes, depth)));
            }
        }
        if jobs.len() > JOBS_MAX {
            let asked = jobs.len();
            return Err(usage(format!("{asked} combinations; at most {JOBS_MAX} in one run")));
        }
        match jobs.iter().find(|job| job.request_bytes * job.depth > IN_FLIGHT_BYTES_MAX) {
            None => Ok(jobs),
            Some(job) => Err(usage(format!(
                "--size {} at --depth {} is more than {} in flight",
                Bytes(job.request_bytes as u64),
                job.depth,
                Bytes(IN_FLIGHT_BYTES_MAX as u64)
            ))),
        }
    }

    fn job(&self, op: Op, request_bytes: usize, depth: usize) -> Job {
        let direction = match op {
            Op::Write => Direction::Write,
            Op::Read => Direction::Read,
        };
        let durable = self.durable && op == Op::Write;
        Job { direction, request_bytes, depth, durable, plot: 0, files: 1 }
    }
}

/// The same combination twice in one run has no name of its own.
fn once(flags: &[String]) -> anyhow::Result<()> {
    let twice = flags.iter().enumerate().find(|(nth, flag)| flags[..*nth].contains(flag));
    twice.map_or(Ok(()), |(_, flag)| Err(usage(format!("{flag} is given twice"))))
}

fn seconds(text: &str) -> Result<u64, String> {
    whole_seconds(text, 1..=SECONDS_MAX)
}

fn size(text: &str) -> Result<usize, String> {
    let Bytes(bytes) = text.parse()?;
    let grain = BLOCK_BYTES as u64;
    if bytes > REQUEST_BYTES_MAX as u64 {
        return Err(format!("from 4KiB to {}", Bytes(REQUEST_BYTES_MAX as u64)));
    }
    if !bytes.is_multiple_of(grain) {
        return Err(format!("not a multiple of {}", Bytes(grain)));
    }
    Ok(bytes as usize)
}

fn depth(text: &str) -> Result<usize, String> {
    let depth = text.parse().map_err(|_| "not a whole number".to_owned())?;
    if (1..=DEPTH_MAX).contains(&depth) { Ok(depth) } else { Err(format!("from 1 to {DEPTH_MAX}")) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        device: Device,
    }

    fn parse(line: &str) -> Result<Device, clap::Error> {
        let words = std::iter::once("device").chain(line.split(' '));
        Line::try_parse_from(words).map(|line| line.device)
    }

    #[test]
    fn lists_multiply() {
        let flags = parse("--op write,read --size 64KiB,1MiB --depth 1,8 --durable --seconds 2");
        let jobs = flags.expect("sound").jobs().expect("sound");
        assert_eq!(jobs.len(), 8);
        let all: Vec<_> = jobs.iter().map(|job| (job.request_bytes, job.depth)).collect();
        assert_eq!(all[..4], [(65_536, 1), (65_536, 8), (1 << 20, 1), (1 << 20, 8)]);
        assert!(jobs.iter().all(|job| job.durable == (job.direction == Direction::Write)));
    }

    #[test]
    fn wrong_values_are_told_by_their_flag() {
        for (line, told) in [
            ("--size 4KiB --depth 1", "--op"),
            ("--op write --depth 1", "--size"),
            ("--op write --size 4KiB", "--depth"),
            ("--op append --size 4KiB --depth 1", "possible values: write, read"),
            ("--op write --size 64K --depth 1", "'64K' is no size; write"),
            ("--op write --size 0 --depth 1", "'0' is no size"),
            ("--op write --size 17MiB --depth 1", "from 4KiB to 16MiB"),
            ("--op write --size 4097 --depth 1", "not a multiple of 4KiB"),
            ("--op write --size 518KiB --depth 1", "not a multiple of 4KiB"),
            ("--op write --size 4KiB --depth 0", "from 1 to 1024"),
            ("--op write --size 4KiB --depth many", "not a whole number"),
            ("--op write --size 4KiB --depth 1 --seconds 0", "from 1 to 3600 seconds"),
            ("--op write --size 4KiB, --depth 1", "--size"),
        ] {
            let error = parse(line).expect_err(line).to_string();
            assert!(error.contains(told), "{line}: {error}");
        }
    }

    #[test]
    fn contradictions_are_usage_errors() {
        for (line, told) in [
            ("--op read --size 4KiB --depth 1 --durable", "a read has nothing to flush"),
            ("--op write --size 4KiB,4096 --depth 1", "--size 4KiB is given twice"),
            ("--op write,write --size 4KiB --depth 1", "--op write is given twice"),
            ("--op write --size 4KiB --depth 2,2", "--depth 2 is given twice"),
            ("--op read --size 16MiB --depth 32", "more than 256MiB in flight"),
        ] {
            let error = parse(line).expect("each alone is sound").jobs().expect_err(line);
            assert!(error.is::<crate::usage::Usage>());
            assert!(error.to_string().contains(told), "{line}: {error}");
        }
    }
}
