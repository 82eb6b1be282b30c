//! What `ringmain-bench dump --records --json` printed, held against the lines.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::Path;

use serde_json::Value;

use crate::Outcome;
use crate::lines::{Line, compare, load};

type Shown = (i64, i64, Option<String>, Option<String>, Vec<(String, Option<String>)>);

/// Compares offsets, times, keys, values and headers of all partitions.
pub(crate) fn check(dump: impl BufRead, lines: &Path) -> Outcome {
    let expected = load(lines)?;
    let mut found: BTreeMap<String, Vec<Shown>> = BTreeMap::new();
    let mut partition = String::new();
    for text in dump.lines() {
        let item: Value = serde_json::from_str(&text?)?;
        match item["kind"].as_str() {
            Some("file") => {
                let path = Path::new(item["path"].as_str().unwrap_or_default());
                let folder = path.parent().and_then(Path::file_name).unwrap_or_default();
                partition = folder.to_string_lossy().into_owned();
            }
            Some("bad") => return Err(format!("in {partition}: {item}").into()),
            Some("record") => {
                let start = expected.get(&partition).map_or(0, |lines| lines[0].offset);
                let shown = shown(&item).ok_or_else(|| format!("in {partition}: {item}"))?;
                // A segment still has the records of its batches before the log's start.
                if shown.0 >= start {
                    found.entry(partition.clone()).or_default().push(shown);
                }
            }
            _ => {}
        }
    }
    for (name, lines) in &expected {
        let lines: Vec<Shown> = lines.iter().map(text_of).collect();
        compare(name, &lines, found.get(name).map_or(&[], Vec::as_slice))?;
    }
    let (partitions, records) = (found.len(), found.values().map(Vec::len).sum::<usize>());
    println!("{records} records of {partitions} partitions dumped as they were written");
    Ok(())
}

fn shown(item: &Value) -> Option<Shown> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let headers = item["headers"].as_array()?.iter().map(|it| Some((text(&it[0])?, text(&it[1]))));
    Some((
        item["offset"].as_i64()?,
        item["timestamp"].as_i64()?,
        text(&item["key"]),
        text(&item["value"]),
        headers.collect::<Option<_>>()?,
    ))
}

/// A line as the dump shows it: bytes as text, where they are none with the sign for that.
fn text_of(line: &Line) -> Shown {
    let text = |hex: &String| {
        let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap_or_default();
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(digits).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let headers = line.headers.iter().map(|(key, value)| (text(key), value.as_ref().map(text)));
    let (key, value) = (line.key.as_ref().map(text), line.value.as_ref().map(text));
    (line.offset, line.timestamp, key, value, headers.collect())
}
