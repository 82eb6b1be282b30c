//! `run`: every backend, kills, and what is said of wrong or unlucky use.

use std::fs;
use std::io::Read;
use std::process::{Child, Stdio};

use serde_json::Value;

use super::{INTERRUPTED, OK, Place, WRONG_USE, stderr};

const SHORT: &str = "--quiet --json --seconds 300ms --warmup 100ms --repeats 1 --segment-bytes 8MiB \
                     --prepare fallocate --payload generated:2 --in-flight 8";

fn run(place: &Place, line: &str) -> (Option<i32>, Value, String) {
    let line = format!("run {line}");
    let output = place.run(&line.split_whitespace().collect::<Vec<_>>());
    let document = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code(), document, stderr(&output))
}

#[test]
fn every_backend_is_measured_and_what_it_acked_is_there_after_its_end_and_after_a_kill() {
    let lines = [
        "--backend ringmain --partitions 3",
        "--backend sync --flush os",
        "--backend floor",
        "--backend pwrite --partitions 3",
        "--backend buffered-ring --partitions 3 --codec lz4",
        "--backend tokio-uring --partitions 3 --flush interval:20ms",
    ];
    for line in lines {
        let place = Place::new("run-backends");
        let (code, document, told) = run(&place, &format!("{SHORT} {line}"));
        if told.contains("io_uring is not to be had") {
            continue;
        }
        assert_eq!(code, Some(OK), "{line}: {told}");
        let (result, verify) = (&document["result"], &document["verify"]);
        assert!(result["records_per_s"].as_f64() > Some(0.0), "{line}: {result}");
        assert!(result["raw_flush_us"].as_f64() > Some(0.0), "{line}: {result}");
        assert!(result["server"]["write_amplification"].as_f64() >= Some(1.0), "{line}: {result}");
        assert_eq!(verify["verified"], true, "{line}: {verify}");
        let kills = verify["kills"].as_array().expect("an array");
        assert!(kills.len() == 1 && kills[0]["acked"].as_u64() > Some(0), "{line}: {verify}");
        for what in ["lost", "duplicated", "reordered", "corrupt"] {
            assert_eq!((&verify[what], &kills[0][what]), (&0.into(), &0.into()), "{line}: {what}");
        }
        assert_eq!(place.names(), ["results"], "{line}: the data is gone");
    }
}

#[test]
fn a_run_that_cannot_be_says_why_in_one_line_and_leaves_nothing() {
    let file = "unknown.toml";
    let cases: [(&str, &[&str]); 8] = [
        ("--workload unknown.toml", &["unknown.toml", "'in_flight'", "did you mean 'in-flight'"]),
        ("--workload absent.toml", &["absent.toml", "No such file"]),
        ("--backend floor --partitions 4", &["--backend floor", "--partitions 4"]),
        ("--backend pwrite --write-mode direct", &["--backend pwrite", "--write-mode page_cache"]),
        ("--backend null --kills 2", &["--backend null", "--kills"]),
        ("--dir unknown.toml", &["--dir unknown.toml"]),
        ("--dir /proc/ringmain", &["--dir /proc/ringmain"]),
        ("--out /proc/ringmain", &["--out /proc/ringmain", "may write to"]),
    ];
    for (line, words) in cases {
        let place = Place::new("run-wrong");
        fs::write(place.0.join(file), "in_flight = 4\n").expect("written");
        let (code, _, told) = run(&place, line);
        assert_eq!(code, Some(WRONG_USE), "{line}: {told}");
        assert!(words.iter().all(|word| told.contains(word)), "{line}: {told}");
        assert_eq!(told.lines().count(), 1, "{line}: {told}");
        assert_eq!(place.names(), [file], "{line}");
    }
}

/// Waits until the plain progress on standard error says so.
fn until(child: &mut Child, words: &str) {
    let mut told = String::new();
    let mut from = child.stderr.take().expect("piped");
    let mut byte = [0_u8];
    while !told.contains(words) {
        assert_eq!(from.read(&mut byte).expect("readable"), 1, "it ended early: {told}");
        told.push(char::from(byte[0]));
    }
    child.stderr = Some(from);
}

/// Ends a run by Ctrl-C at that point.
fn stopped_at(place: &Place, words: &str) -> (Option<i32>, Value) {
    let line =
        "run --json --seconds 500ms --warmup 0 --repeats 50 --prepare fallocate --in-flight 4";
    let mut command = place.command(&line.split(' ').collect::<Vec<_>>());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    until(&mut child, words);
    // SAFETY: sends a signal to a process this test started and has not waited for.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) };
    let output = child.wait_with_output().expect("ends");
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default())
}

#[test]
fn ctrl_c_keeps_whole_repeats_marks_the_rest_and_takes_the_data_away() {
    let place = Place::new("run-stopped");
    let (code, document) = stopped_at(&place, "repeat 2 of 50");
    assert_eq!(code, Some(INTERRUPTED));
    assert_eq!(document["state"], "interrupted");
    assert_eq!(place.names(), ["results"], "the data is gone");
    let dir = document["directory"].as_str().expect("kept");
    let kept = fs::read(place.0.join(dir).join("summary.json")).expect("kept");
    let kept: Value = serde_json::from_slice(&kept).expect("a document");
    assert_eq!(kept, document);
    let repeats = kept["result"]["repeats"].as_array().expect("an array");
    assert!((1..50).contains(&repeats.len()) && repeats[0]["records"].as_u64() > Some(0));
    let report = place.run(&["report", dir, "--out", "page.html"]);
    assert_eq!(report.status.code(), Some(OK), "{}", stderr(&report));
}

#[test]
fn ctrl_c_before_anything_was_measured_leaves_nothing() {
    let place = Place::new("run-stopped-early");
    let (code, document) = stopped_at(&place, "repeat 1 of 50");
    // The signal may come after the first batches: then they are kept, and marked.
    assert_eq!(code, Some(INTERRUPTED));
    let kept = document["state"] == "interrupted";
    assert_eq!(place.names().len(), usize::from(kept), "{:?}", place.names());
}
