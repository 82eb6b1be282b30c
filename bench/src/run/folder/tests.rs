use std::time::{Duration, SystemTime};

use super::*;
use crate::histogram::Latencies;
use crate::run::result::{Latency, Repeat, RunResult, State, Verify};
use crate::run::workload::Workload;
use crate::scratch::Scratch;

fn document() -> Document {
    let mut latencies = Latencies::new();
    (1..=1000).for_each(|ns| latencies.record(ns * 1000));
    let repeat = Repeat {
        latency_us: Latency::of(&latencies),
        hlog: Some("repeat-1.hlog".to_owned()),
        ..Repeat::default()
    };
    Document {
        schema: SCHEMA,
        kind: KIND.to_owned(),
        state: State::Complete,
        command: "ringmain-bench run".to_owned(),
        started: "20260314-092655".to_owned(),
        host: host(),
        workload: Workload::default(),
        env: Value::Null,
        payload: Value::Null,
        neighbours: None,
        result: RunResult { repeats: vec![repeat], ..RunResult::default() },
        verify: Verify::default(),
        warnings: Vec::new(),
        directory: None,
    }
}

fn folder(scratch: &Scratch, document: &Document) -> Folder {
    let folder = Folder::create(&scratch.path().join("results"), "a-run").expect("made");
    folder.put("summary.json", &document.text()).expect("written");
    let log = folder.path().join("repeat-1.hlog");
    hlog::write(&log, SystemTime::UNIX_EPOCH, |add| {
        let mut latencies = Latencies::new();
        (1..=1000).for_each(|ns| latencies.record(ns * 1000));
        let (start, length) = (Duration::ZERO, Duration::from_secs(1));
        add(&Interval { uncorrected: false, start, length, latencies })
    })
    .expect("written");
    folder
}

#[test]
fn a_run_read_back_is_the_run_that_was_written() {
    let scratch = Scratch::new("folder");
    let document = document();
    let folder = folder(&scratch, &document);
    let run = read(folder.path()).expect("readable");
    assert_eq!(run.document.text(), document.text());
    assert_eq!(hlog::merged(&run.logs[0], false).count(), 1000);
    let second = Folder::create(&scratch.path().join("results"), "a-run").expect("made");
    assert!(second.path().ends_with("a-run-2"), "a second run never overwrites the first");
}

#[test]
fn what_is_not_a_run_of_this_schema_is_said_with_its_path() {
    let scratch = Scratch::new("folder-bad");
    let folder = folder(&scratch, &document());
    let dir = folder.path();
    let told = |text: &str| {
        folder.put("summary.json", text).expect("written");
        read(dir).expect_err("wrong").to_string()
    };
    let whole = document().text();
    let other = told(&whole.replacen("\"schema\": 1", "\"schema\": 7", 1));
    assert!(other.contains("summary.json: schema 7, and this tool reads 1"), "{other}");
    assert!(told(&whole[..whole.len() / 2]).contains("no whole JSON document"));
    assert!(told("{\"schema\": 1, \"kind\": \"quick\"}").contains("not of a run"));
    assert!(told("{\"schema\": 1, \"kind\": \"run\"}").contains("not a summary"));
    assert!(told("[]").contains("schema null"));
    assert!(matches!(read(scratch.path()), Err(FolderError::NoRun(_))));
}

#[test]
fn a_cut_or_foreign_log_is_not_taken_for_the_runs() {
    let scratch = Scratch::new("folder-log");
    let mut document = document();
    let folder = folder(&scratch, &document);
    document.result.repeats[0].latency_us.count = 999;
    folder.put("summary.json", &document.text()).expect("written");
    assert!(matches!(read(folder.path()), Err(FolderError::Count { found: 1000, told: 999, .. })));
    let log = folder.path().join("repeat-1.hlog");
    let text = fs::read(&log).expect("readable");
    fs::write(&log, &text[..text.len() - 30]).expect("written");
    assert!(matches!(read(folder.path()), Err(FolderError::Hlog(HlogError::Truncated { .. }))));
}
