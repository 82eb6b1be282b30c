//! The new process that opens what the kill left.

use std::fs;
use std::io::stdin;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use ringmain::LogHandle;
use ringmain::RecoveryReport;
use ringmain::batch::batches;
use ringmain::types::{Isolation, Offset};

use super::{Found, PARTITIONS, TOPIC};
use crate::env::peak_rss_bytes;
use crate::oracle::{Checker, collect};
use crate::output::print;
use crate::rawread::read_raw;
use crate::site::Site;

/// Bytes of a read.
const READ_BYTES: usize = 4 << 20;

/// Takes acks from standard input, opens the directory, reads it back, and prints what it found as JSON.
///
/// # Errors
/// If it can't be opened or read.
pub fn check(dir: &Path) -> Result<()> {
    let mut checker = Checker::default();
    collect(stdin().lock(), |ack| checker.acked(ack))?;
    let begin = Instant::now();
    let site = Site::open(dir)?;
    let open_ns = begin.elapsed().as_nanos() as u64;
    let logs = site.logs(TOPIC, PARTITIONS, 0)?;
    let mut records = 0;
    for log in &logs {
        records += read_back(log, &mut checker)?;
    }
    let rss_bytes = peak_rss_bytes();
    let report = site.recovery().clone();
    let direct = site.is_direct();
    site.close()?;
    let (files, journals) = files(dir)?;
    let read_bytes = journals + report.scanned_bytes;
    let raw = read_raw(&files, read_bytes)?;
    let findings = checker.finish();
    let mut examples: Vec<_> = findings.examples.iter().map(ToString::to_string).collect();
    examples.extend(damages(&report));
    let mut tally = findings.tally;
    tally.corrupt += (report.damage.len() + report.journal_damage.len()) as u64;
    let found = Found {
        tally,
        examples,
        records,
        open_ns,
        read_bytes,
        raw_ns: raw.as_nanos() as u64,
        rss_bytes,
        direct,
    };
    print(&(serde_json::to_string(&found)? + "\n"))
}

fn damages(report: &RecoveryReport) -> impl Iterator<Item = String> {
    let partitions = report.damage.iter().map(|damage| format!("{damage:?}"));
    partitions.chain(report.journal_damage.iter().map(|damage| format!("{damage:?}")))
}

fn read_back(log: &LogHandle, checker: &mut Checker) -> Result<u64> {
    let partition = log.name().partition();
    let mut next = Offset::ZERO;
    let mut records = 0;
    loop {
        let bytes = log.read_blocking(next, READ_BYTES, Isolation::Durable);
        let bytes = bytes.with_context(|| format!("cannot read {} from {next}", log.name()))?;
        if bytes.is_empty() {
            return Ok(records);
        }
        for batch in batches(&bytes) {
            let batch = batch.with_context(|| format!("{} from {next}", log.name()))?;
            for record in batch.records()? {
                let record = record?;
                let value = record.value.unwrap_or_default();
                checker.record(partition, record.offset.get(), value);
                records += 1;
            }
            next = batch.last_offset().plus(1);
        }
    }
}

/// The files that recovery reads, journals first, and the journals' bytes.
fn files(dir: &Path) -> Result<(Vec<PathBuf>, u64)> {
    let (mut journals, mut bytes) = (Vec::new(), 0);
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("journal-") {
            bytes += entry.metadata()?.len();
            journals.push(entry.path());
        }
    }
    for nth in 0..PARTITIONS {
        for entry in fs::read_dir(dir.join(format!("{TOPIC}-{nth}")))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                journals.push(path);
            }
        }
    }
    Ok((journals, bytes))
}
