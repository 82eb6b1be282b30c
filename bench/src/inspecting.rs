//! `verify` and `dump`: the engine's own read-only checks, told to a person or to a program.

use std::fs;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Result, bail};
use ringmain::batch::RecordView;
use ringmain::error::OpenError;
use ringmain::inspect::{
    DumpOptions, Item, Note, Problem, VerifyReport, dump as walk, verify as check,
};
use ringmain::types::{Offset, PartitionName};
use ringmain::{Config, RepairError};
use serde_json::{Value, json};

use crate::json::command_line;
use crate::output;
use crate::usage::usage;
use crate::verdict::Verdict;
use crate::{cli, workdir};

/// A file that every data directory of an engine has.
const DATA_DIRECTORYS_OWN: &str = "ringmain.meta";

/// Checks a data directory and tells what is wrong with it. Reads only.
///
/// # Errors
/// If it can't be read, or is none.
pub fn verify(flags: &cli::Verify) -> Result<Verdict> {
    refuse_a_runs_directory(&flags.dir)?;
    let report = check(&flags.dir).map_err(told)?;
    if report.partitions == 0 && is_empty(&flags.dir) {
        return Err(nothing_in(&flags.dir));
    }
    let healthy = report.problems.is_empty();
    if flags.json {
        output::print(&format!("{:#}\n", document(&report)))?;
    } else {
        output::print(&told_of(&flags.dir, &report))?;
    }
    Ok(if healthy { Verdict::Passed } else { Verdict::Failed })
}

pub(crate) fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

pub(crate) fn nothing_in(dir: &Path) -> anyhow::Error {
    usage(format!("{} is empty; name a data directory, or one partition's", dir.display()))
}

/// What `quick --keep` left holds several data directories, and files of no log.
pub(crate) fn refuse_a_runs_directory(dir: &Path) -> Result<()> {
    if !dir.join(workdir::MARKER).exists() {
        return Ok(());
    }
    let dirs = fs::read_dir(dir).map(|entries| entries.flatten().map(|entry| entry.path()));
    let mut data: Vec<_> = dirs
        .into_iter()
        .flatten()
        .filter(|path| path.join(DATA_DIRECTORYS_OWN).exists())
        .map(|path| path.display().to_string())
        .collect();
    data.sort();
    let data = if data.is_empty() { "none".to_owned() } else { data.join(" ") };
    Err(usage(format!(
        "{} was made by ringmain-bench; name one data directory in it: {data}",
        dir.display()
    )))
}

/// A path that can't be looked at was the wrong one to name; anything else went wrong on the way.
pub(crate) fn told(error: OpenError) -> anyhow::Error {
    let wrong_path = |kind| matches!(kind, ErrorKind::NotFound | ErrorKind::PermissionDenied);
    match &error {
        OpenError::Foreign { path, found } if path.is_dir() => usage(format!(
            "{} holds {found}, which is no log's; name a data directory, or one partition's",
            path.display()
        )),
        OpenError::Foreign { path, .. } => usage(format!(
            "{} is no file of a log; name a data directory, a partition's, a segment or a journal",
            path.display()
        )),
        OpenError::NotADirectory(path) => usage(format!(
            "{} is a file; name its directory, or look into it with ringmain-bench dump",
            path.display()
        )),
        OpenError::Io { source, .. } if wrong_path(source.kind()) => usage(error.to_string()),
        OpenError::NewerFormat { .. } => usage(error.to_string()),
        _ => error.into(),
    }
}

fn document(report: &VerifyReport) -> Value {
    json!({
        "schema": crate::json::SCHEMA,
        "command": command_line(std::env::args()),
        "healthy": report.problems.is_empty(),
        "partitions": report.partitions,
        "segments": report.segments,
        "batches": report.batches,
        "records": report.records,
        "bytes": report.bytes,
        "journal_groups": report.journal_groups,
        "problems": problems(&report.problems),
        "notes": notes(&report.notes),
    })
}

/// Damage as it stands in a document.
pub(crate) fn problems(problems: &[Problem]) -> Vec<Value> {
    let value = |problem: &Problem| {
        json!({
            "path": problem.path,
            "pos": problem.pos,
            "offset": problem.offset.map(Offset::get),
            "what": problem.what,
        })
    };
    problems.iter().map(value).collect()
}

/// Notes as they stand in a document.
pub(crate) fn notes(notes: &[Note]) -> Vec<Value> {
    let value = |note: &Note| json!({ "path": note.path, "pos": note.pos, "what": note.what });
    notes.iter().map(value).collect()
}

/// Notes and damage, a line each.
pub(crate) fn remarks(notes: &[Note], problems: &[Problem]) -> String {
    let notes = notes.iter().map(|note| {
        format!("note    {} at byte {}: {}\n", note.path.display(), note.pos, note.what)
    });
    let problems = problems.iter().map(|problem| {
        let offset = problem.offset.map_or(String::new(), |o| format!(", near offset {o}"));
        let (path, pos) = (problem.path.display(), problem.pos);
        format!("DAMAGE  {path} at byte {pos}{offset}: {}\n", problem.what)
    });
    notes.chain(problems).collect()
}

fn told_of(dir: &Path, report: &VerifyReport) -> String {
    let verdict = if report.problems.is_empty() { "ok" } else { "DAMAGED" };
    format!(
        "{}{verdict}: {}: {} partitions, {} segments, {} batches, {} records, {} bytes, {} journal groups; {} \
         problems\n",
        remarks(&report.notes, &report.problems),
        dir.display(),
        report.partitions,
        report.segments,
        report.batches,
        report.records,
        report.bytes,
        report.journal_groups,
        report.problems.len(),
    )
}

/// Cuts a partition and tells what was kept.
///
/// # Errors
/// If it was not cut: see [`ringmain::RepairError`].
pub fn repair(flags: &cli::Repair) -> Result<Verdict> {
    let at = Offset::new(flags.cut_at);
    let repaired = ringmain::repair(Config::new(&flags.dir), &flags.partition, at);
    let done = repaired.map_err(|error| match error {
        RepairError::NoPartition(_) => no_partition(&flags.dir, &error),
        error => error.into(),
    })?;
    let (segment, pos) = (done.segment.display(), done.pos);
    let mut text = format!("{} ends at offset {at} now: {segment}, byte {pos}\n", flags.partition);
    text.extend(done.kept.iter().map(|kept| format!("kept    {}\n", kept.display())));
    output::print(&text)?;
    Ok(Verdict::Passed)
}

fn no_partition(dir: &Path, error: &RepairError) -> anyhow::Error {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries.flatten(),
        Err(error) => return usage(format!("{}: {error}; name a data directory", dir.display())),
    };
    let directories = entries.filter(|entry| entry.path().is_dir());
    let names = directories.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut there: Vec<_> =
        names.filter(|name| PartitionName::from_directory(name).is_some()).take(20).collect();
    there.sort();
    let there = if there.is_empty() {
        "none is there: name a data directory".to_owned()
    } else {
        format!("there are {}", there.join(", "))
    };
    usage(format!("{}: {error}; {there}", dir.display()))
}

/// Prints what is in a directory or a file.
///
/// # Errors
/// If it is none of a log's, or can't be read.
pub fn dump(flags: &cli::Dump) -> Result<Verdict> {
    refuse_a_runs_directory(&flags.path)?;
    if is_empty(&flags.path) {
        return Err(nothing_in(&flags.path));
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let (mut failed, mut verdict) = (None, Verdict::Passed);
    let options = DumpOptions { records: flags.records };
    walk(&flags.path, options, |item| {
        if matches!(item, Item::Bad { .. }) {
            verdict = Verdict::Failed;
        }
        let line = if flags.json { value(&item).to_string() } else { text(&item) };
        match writeln!(out, "{line}") {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    })
    .map_err(told)?;
    let failed = failed.or_else(|| out.flush().err());
    match failed {
        // Whoever reads has seen enough, as `head` does.
        Some(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Verdict::Passed),
        Some(error) => bail!("writing the dump: {error}"),
        None => Ok(verdict),
    }
}

/// An item as one line of text: its kind and its fields.
fn text(item: &Item<'_>) -> String {
    let Value::Object(fields) = value(item) else { return String::new() };
    let kind = fields.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    let indent = match item {
        Item::File(_) => "",
        Item::Record(_) | Item::Entry { .. } => "    ",
        _ => "  ",
    };
    let rest = fields.iter().filter(|(name, _)| *name != "kind").map(|(name, value)| match value {
        Value::String(text) => format!(" {name}={text:?}"),
        other => format!(" {name}={other}"),
    });
    format!("{indent}{kind}{}", rest.collect::<String>())
}

fn value(item: &Item<'_>) -> Value {
    match item {
        Item::File(path) => json!({ "kind": "file", "path": path }),
        Item::Batch { pos, header } => json!({
            "kind": "batch",
            "pos": pos,
            "base_offset": header.base_offset,
            "last_offset_delta": header.last_offset_delta,
            "records": header.record_count,
            "bytes": header.batch_bytes(),
            "attributes": header.attributes.bits(),
            "leader_epoch": header.leader_epoch,
            "base_timestamp": header.base_timestamp,
            "max_timestamp": header.max_timestamp,
            "producer_id": header.producer_id,
            "crc": format!("{:08x}", header.crc),
        }),
        Item::Record(record) => json!({
            "kind": "record",
            "offset": record.offset.get(),
            "timestamp": record.timestamp,
            "key": record.key.map(String::from_utf8_lossy),
            "value": record.value.map(String::from_utf8_lossy),
            "headers": headers(record),
        }),
        Item::OffsetEntry { offset, entry } => {
            json!({ "kind": "index", "offset": offset.get(), "pos": entry.pos.get() })
        }
        Item::TimeEntry { offset, entry } => {
            json!({ "kind": "timeindex", "timestamp": entry.timestamp, "offset": offset.get() })
        }
        Item::Seal(seal) => json!({
            "kind": "seal",
            "incarnation": format!("{:?}", seal.incarnation),
            "base_offset": seal.base_offset.get(),
            "next_offset": seal.next_offset.get(),
            "length": seal.length.get(),
            "crc": format!("{:08x}", seal.crc),
            "newest": seal.newest_ms,
            "compacted": seal.compacted,
            "max_timestamp": seal.max_timestamp,
        }),
        other => own_files(other),
    }
}

/// A record's headers as pairs; a value may be missing.
fn headers(record: &RecordView<'_>) -> Vec<(String, Option<String>)> {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    record.headers().map(|header| (text(header.key), header.value.map(text))).collect()
}

fn own_files(item: &Item<'_>) -> Value {
    match item {
        Item::DirectoryMeta(meta) => json!({ "kind": "meta", "block": meta.block_bytes() }),
        Item::JournalsMeta(meta) => json!({
            "kind": "journals",
            "directory": format!("{:016x}", meta.directory),
            "epoch": meta.epoch,
            "journals": meta.journals,
        }),
        Item::PartitionMeta(meta) => json!({
            "kind": "partition",
            "incarnation": format!("{:?}", meta.incarnation),
            "relaxed": meta.relaxed,
            "suspect": meta.suspect,
            "compacted": meta.compacted,
        }),
        Item::Checkpoint(name, offset) => {
            json!({ "kind": "checkpoint", "partition": name.to_string(), "offset": offset.get() })
        }
        Item::Epoch(entry) => json!({
            "kind": "epoch",
            "epoch": entry.epoch,
            "start_offset": entry.start_offset.get(),
        }),
        Item::Journal { epoch, block_bytes, bytes, shard, directory } => json!({
            "kind": "journal",
            "epoch": epoch,
            "block": block_bytes,
            "bytes": bytes,
            "shard": shard,
            "directory": format!("{directory:016x}"),
        }),
        Item::Group { pos, epoch, sequence, oldest_needed, entries, data_bytes } => json!({
            "kind": "group",
            "pos": pos,
            "epoch": epoch,
            "sequence": sequence,
            "oldest_needed": oldest_needed,
            "entries": entries,
            "data_bytes": data_bytes,
        }),
        Item::Entry { incarnation, segment, pos, bytes, ignore } => json!({
            "kind": "entry",
            "incarnation": format!("{incarnation:?}"),
            "segment": segment.get(),
            "pos": pos,
            "bytes": bytes,
            "ignore": ignore,
        }),
        Item::Bad { pos, what } => json!({ "kind": "bad", "pos": pos, "what": what }),
        _ => Value::Null,
    }
}
