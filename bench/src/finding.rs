//! `find`: one record of a data directory, and where it is.

use std::path::Path;

use anyhow::Result;
use ringmain::format::batch_header::{Codec, TimestampType};
use ringmain::inspect::{
    FindError, FindReport, FoundRecord, IndexUse, Looked, Missing, Sought, find as look,
};
use ringmain::types::{Offset, PartitionName};
use serde_json::{Value, json};

use crate::clock::rfc3339;
use crate::inspecting::{
    is_empty, notes, nothing_in, problems, refuse_a_runs_directory, remarks, told,
};
use crate::json::command_line;
use crate::output;
use crate::usage::usage;
use crate::verdict::Verdict;
use crate::{cli, human};

/// Characters of a key, a value or a header that are shown.
const SHOWN_CHARS: usize = 160;

/// How alike two names must be for one to be offered for the other, as clap has it.
const ALIKE: f64 = 0.7;

/// Names that are listed at most.
const LISTED: usize = 20;

/// Finds what the flags name and prints it. Reads only.
///
/// # Errors
/// If the directory can't be read, or is none, or has no such partition.
pub fn find(flags: &cli::Find) -> Result<Verdict> {
    let name = &flags.partition;
    refuse_a_runs_directory(&flags.dir)?;
    let sought = sought(flags);
    let report = look(&flags.dir, name, sought).map_err(|error| refused(&flags.dir, error))?;
    let text = if flags.json {
        format!("{:#}\n", document(name, &report))
    } else {
        told_in_words(name, &report)
    };
    output::print(&text)?;
    let sound = report.missing.is_none() && report.problems.is_empty();
    Ok(if sound { Verdict::Passed } else { Verdict::Failed })
}

fn sought(flags: &cli::Find) -> Sought<'_> {
    match (flags.offset, flags.time, &flags.key) {
        (Some(offset), ..) => Sought::Offset(Offset::new(offset)),
        (_, Some(ms), _) => Sought::Time(ms),
        (.., key) => Sought::Key {
            key: key.as_deref().unwrap_or_default().as_bytes(),
            records_max: flags.limit as usize,
        },
    }
}

fn refused(dir: &Path, error: FindError) -> anyhow::Error {
    match error {
        FindError::Open(error) => told(error),
        FindError::NotData(_) => usage(error.to_string()),
        FindError::NoSuchPartition { there, .. } if there.is_empty() && is_empty(dir) => {
            nothing_in(dir)
        }
        FindError::NoSuchPartition { asked, there } => usage(format!(
            "there is no partition {asked} in {}; {}",
            dir.display(),
            instead(&asked, &there)
        )),
    }
}

/// What could have been meant.
fn instead(asked: &PartitionName, there: &[PartitionName]) -> String {
    let numbers: Vec<String> = there
        .iter()
        .filter(|name| name.topic() == asked.topic())
        .map(|name| name.partition().to_string())
        .collect();
    if !numbers.is_empty() {
        return format!("topic {} has {}", asked.topic(), listed(&numbers, "partition"));
    }
    let mut topics: Vec<String> = there.iter().map(|name| name.topic().to_owned()).collect();
    topics.dedup();
    let alike = |topic: &String| strsim::jaro(topic, asked.topic());
    let nearest = topics.iter().max_by(|a, b| alike(a).total_cmp(&alike(b)));
    let nearest = nearest.filter(|topic| alike(topic) > ALIKE);
    let meant = nearest.map_or(String::new(), |topic| format!("did you mean {topic}? "));
    format!("{meant}The directory has {}", listed(&topics, "topic"))
}

fn listed(names: &[String], what: &str) -> String {
    let more = names.len().saturating_sub(LISTED);
    let shown = names[..names.len() - more].join(", ");
    match (names.len(), more) {
        (0, _) => format!("no {what}"),
        (1, _) => format!("{what} {shown}"),
        (_, 0) => format!("{what}s {shown}"),
        _ => format!("{what}s {shown} and {more} more"),
    }
}

fn told_in_words(name: &PartitionName, report: &FindReport) -> String {
    let mut parts = vec![remarks(&report.notes, &report.problems)];
    parts.extend(report.found.iter().map(|record| told_record(name, record)));
    let missing = report.missing.as_ref();
    parts.extend(missing.map(|it| format!("{name}: not found: {}\n", in_words(it))));
    parts.push(format!("  looked at  {}\n", way(&report.looked)));
    parts.concat()
}

/// As the engine says it, with times as people read them.
fn in_words(missing: &Missing) -> String {
    match missing {
        Missing::AfterEnd { newest_ms: Some(ms), .. } => {
            format!("no record is that young: the newest is of {}", when(*ms))
        }
        other => other.to_string(),
    }
}

fn when(ms: i64) -> String {
    rfc3339(ms).unwrap_or_else(|| format!("{ms} ms since 1970"))
}

fn told_record(name: &PartitionName, record: &FoundRecord) -> String {
    let batch = &record.batch;
    let shown = |bytes: &Option<Vec<u8>>| bytes.as_deref().map_or("null".to_owned(), preview);
    let timestamp = if record.timestamp < 0 {
        "none".to_owned()
    } else {
        format!("{} ({})", when(record.timestamp), timestamp_type(record))
    };
    let headers: Vec<String> = record
        .headers
        .iter()
        .map(|(key, value)| format!("  header     {}: {}\n", preview(key), shown(value)))
        .collect();
    let first = batch.base_offset;
    let last = first + i64::from(batch.last_offset_delta);
    let control = if batch.attributes.is_control() { ", control" } else { "" };
    let journal = if record.journaled {
        "\n  journal    holds bytes of it, which the next opening brings into the file"
    } else {
        ""
    };
    format!(
        "{name}: offset {}\n  timestamp  {timestamp}\n  key        {}\n  value      {}\n{}  \
         batch      offsets {first} to {last}, {} records, {}, {} bytes, leader epoch {}{control}\n  \
         at         {} byte {}{journal}\n",
        record.offset,
        shown(&record.key),
        shown(&record.value),
        headers.concat(),
        batch.record_count,
        codec(record),
        batch.batch_bytes(),
        batch.leader_epoch,
        record.path.display(),
        record.pos,
    )
}

/// The beginning of it as text, or as hexadecimal digits if it is none, and how long it is if there is more.
fn preview(bytes: &[u8]) -> String {
    let (shown, whole) = if let Ok(text) = std::str::from_utf8(bytes) {
        let head: String = text.chars().take(SHOWN_CHARS).collect();
        (head.escape_debug().to_string(), head.len() == bytes.len())
    } else {
        let head = &bytes[..bytes.len().min(SHOWN_CHARS / 2)];
        (format!("0x{}", hex(head)), head.len() == bytes.len())
    };
    if whole { shown } else { format!("{shown}… ({} bytes)", bytes.len()) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

fn way(looked: &Looked) -> String {
    let index = match looked.index {
        IndexUse::NotAsked => "no index",
        IndexUse::Used => "the index",
        IndexUse::Missing => "an index that is missing, so more of the segment",
        IndexUse::Wrong => "an index that is wrong, so more of the segment",
    };
    let Looked { index_entries, segments, batches, log_bytes, .. } = looked;
    format!(
        "{index} ({index_entries} entries), {segments} segments, {batches} batches, {}",
        human::bytes(*log_bytes)
    )
}

fn timestamp_type(record: &FoundRecord) -> &'static str {
    match record.batch.attributes.timestamp_type() {
        TimestampType::Create => "create",
        TimestampType::Append => "append",
    }
}

fn codec(record: &FoundRecord) -> &'static str {
    match record.batch.attributes.codec() {
        Some(Codec::None) => "none",
        Some(Codec::Gzip) => "gzip",
        Some(Codec::Snappy) => "snappy",
        Some(Codec::Lz4) => "lz4",
        Some(Codec::Zstd) => "zstd",
        None => "unknown",
    }
}

fn document(name: &PartitionName, report: &FindReport) -> Value {
    let Looked { index, index_entries, segments, batches, log_bytes } = report.looked;
    json!({
        "schema": crate::json::SCHEMA,
        "command": command_line(std::env::args()),
        "topic": name.topic(),
        "partition": name.partition(),
        "start_offset": report.start.get(),
        "end_offset": report.end.get(),
        "found": report.found.iter().map(value).collect::<Vec<_>>(),
        "missing": report.missing.as_ref().map(why),
        "looked": {
            "index": match index {
                IndexUse::NotAsked => "not_asked",
                IndexUse::Used => "used",
                IndexUse::Missing => "missing",
                IndexUse::Wrong => "wrong",
            },
            "index_entries": index_entries,
            "segments": segments,
            "batches": batches,
            "log_bytes": log_bytes,
        },
        "problems": problems(&report.problems),
        "notes": notes(&report.notes),
    })
}

fn why(missing: &Missing) -> Value {
    let kind = match missing {
        Missing::OutOfRange { .. } => "out_of_range",
        Missing::Compacted { .. } => "compacted",
        Missing::AfterEnd { .. } => "after_end",
        Missing::NoSuchKey { .. } => "no_such_key",
        Missing::Damaged => "damaged",
    };
    let next = match missing {
        Missing::Compacted { next, .. } => next.map(Offset::get),
        _ => None,
    };
    let newest = match missing {
        Missing::AfterEnd { newest_ms, .. } => *newest_ms,
        _ => None,
    };
    json!({ "kind": kind, "what": in_words(missing), "next_offset": next, "newest_ms": newest })
}

fn value(record: &FoundRecord) -> Value {
    let batch = &record.batch;
    let headers = record.headers.iter().map(|(key, value)| {
        json!({ "key": String::from_utf8_lossy(key), "value": value.as_deref().map(String::from_utf8_lossy) })
    });
    json!({
        "offset": record.offset.get(),
        "timestamp": record.timestamp,
        "time": rfc3339(record.timestamp),
        "timestamp_type": timestamp_type(record),
        "key": record.key.as_deref().map(String::from_utf8_lossy),
        "key_hex": record.key.as_deref().filter(|key| std::str::from_utf8(key).is_err()).map(hex),
        "value": record.value.as_deref().map(String::from_utf8_lossy),
        "value_hex": record.value.as_deref().filter(|it| std::str::from_utf8(it).is_err()).map(hex),
        "headers": headers.collect::<Vec<_>>(),
        "path": record.path,
        "segment": record.segment.get(),
        "pos": record.pos,
        "journaled": record.journaled,
        "batch": {
            "base_offset": batch.base_offset,
            "last_offset_delta": batch.last_offset_delta,
            "records": batch.record_count,
            "bytes": batch.batch_bytes(),
            "codec": codec(record),
            "leader_epoch": batch.leader_epoch,
            "control": batch.attributes.is_control(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_there_is_answered_with_what_could_be_meant() {
        let names = |all: &[(&str, u32)]| -> Vec<PartitionName> {
            all.iter().map(|(topic, n)| PartitionName::new(topic, *n).expect("a name")).collect()
        };
        let there = names(&[("invoices", 0), ("orders", 0), ("orders", 1)]);
        let said = |topic, n| instead(&PartitionName::new(topic, n).expect("a name"), &there);
        assert_eq!(
            said("order", 0),
            "did you mean orders? The directory has topics invoices, orders"
        );
        assert_eq!(said("zebra", 0), "The directory has topics invoices, orders");
        assert_eq!(said("orders", 7), "topic orders has partitions 0, 1");
        let many: Vec<String> = (0..30).map(|n| n.to_string()).collect();
        assert!(listed(&many, "partition").ends_with("19 and 10 more"));
    }

    #[test]
    fn a_preview_is_short_and_one_line() {
        assert_eq!(preview(b"a\nb"), "a\\nb");
        assert_eq!(preview(&[0xff, 1]), "0xff01");
        let long = preview("ä".repeat(1000).as_bytes());
        assert!(long.ends_with("… (2000 bytes)") && long.chars().count() < 200, "{long}");
    }
}
