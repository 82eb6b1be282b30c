//! `run`: every backend, kills, and what is said of wrong or unlucky use.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::{DAMAGED, INTERRUPTED, OK, Place, WRONG_USE, stderr};

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
        let (phases, written) = (&result["phases_us"], &result["server"]["flushes"]);
        let of = if line.contains("ringmain") || line.contains("sync") {
            "operations"
        } else {
            "batches"
        };
        assert_eq!(phases["of"], of, "{line}");
        if line.contains("--flush") {
            assert!(phases["write"]["p50"].as_f64() > Some(0.0), "{line}: {phases}");
            assert_eq!(
                (&phases["flush"], &phases["flush_has_write"]),
                (&Value::Null, &false.into())
            );
        } else {
            assert!(phases["flush"]["p50"].as_f64() > Some(0.0), "{line}: {phases}");
            assert_eq!(phases["flush_has_write"], phases["write"].is_null(), "{line}: {phases}");
            assert!(written.as_u64() > Some(0), "{line}");
        }
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

#[test]
fn what_is_no_run_or_of_another_schema_is_wrong_use_to_compare() {
    let place = Place::new("compare-wrong");
    for (name, summary) in [("newer", "{\"schema\": 7}"), ("cut", "{\"schema\": 1, \"ki")] {
        fs::create_dir(place.0.join(name)).expect("made");
        fs::write(place.0.join(name).join("summary.json"), summary).expect("written");
    }
    fs::create_dir(place.0.join("empty")).expect("made");
    let cases = [
        ("absent", WRONG_USE, "no summary.json in it; name a directory that run has written"),
        ("empty", WRONG_USE, "no summary.json in it"),
        ("newer", WRONG_USE, "schema 7, and this tool reads 1"),
        ("cut", DAMAGED, "no whole JSON document"),
    ];
    for (name, code, words) in cases {
        let output = place.run(&["compare", name, name, "--fail-on", "5%"]);
        assert_eq!(output.status.code(), Some(code), "{name}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{name}: {}", stderr(&output));
        assert!(output.stdout.is_empty(), "{name}");
    }
}

#[test]
fn a_sweep_that_cannot_be_leaves_nothing() {
    let place = Place::new("sweep-wrong");
    let line = "sweep --flush group,os --seconds 1s --repeats 1 --payload absent.log";
    let output = place.run(&line.split(' ').collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(WRONG_USE), "{}", stderr(&output));
    assert!(stderr(&output).contains("--payload absent.log: No such file"), "{}", stderr(&output));
    assert!(place.names().is_empty(), "{:?}", place.names());
}

#[test]
fn a_long_line_of_a_workload_file_is_told_in_short() {
    let place = Place::new("run-long-line");
    fs::write(place.0.join("long.toml"), format!("keys = {}", "[".repeat(100_000)))
        .expect("written");
    for command in ["run", "sweep"] {
        let output = place.run(&[command, "--workload", "long.toml"]);
        assert_eq!(output.status.code(), Some(WRONG_USE), "{}", stderr(&output));
        let told = stderr(&output);
        assert!(told.contains("long.toml") && told.len() < 2000, "{} bytes", told.len());
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

/// A small file system in memory, mounted until it is dropped. `None`, with a message, where that is forbidden.
struct Small {
    at: PathBuf,
    place: Place,
}

impl Small {
    fn new(test: &str, mib: u32) -> Option<Self> {
        let place = Place::new(test);
        let at = place.0.join("disk");
        fs::create_dir(&at).expect("made");
        let small = Self { at, place };
        let mounted = small.mount(&format!("size={mib}m"));
        if !mounted {
            eprintln!("skipped: no tmpfs can be mounted here");
        }
        mounted.then_some(small)
    }

    fn mount(&self, options: &str) -> bool {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", options, "none"]).arg(&self.at);
        command.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: what a failing test still has open does not keep the mount.
        let _ = Command::new("umount").arg("-l").arg(&self.at).stderr(Stdio::null()).status();
    }
}

#[test]
fn without_space_for_the_raw_device_the_run_is_measured_and_says_so() {
    let Some(disk) = Small::new("run-small", 100) else { return };
    let line = format!("{SHORT} --backend pwrite --rate 5000/s --kills 0 --dir disk/data");
    let (code, document, told) = run(&disk.place, &line);
    assert_eq!(code, Some(OK), "{told}");
    let kinds = document["warnings"].as_array().expect("an array").iter().map(|w| &w["kind"]);
    assert_eq!(kinds.filter(|kind| *kind == "device_not_measured").count(), 1, "{document}");
    let result = &document["result"];
    assert!(result["records_per_s"].as_f64() > Some(0.0), "{result}");
    for absent in ["device_mib_per_s", "percent_of_device", "raw_flush_us"] {
        assert_eq!(result[absent], Value::Null, "{absent}");
    }
    assert_eq!(fs::read_dir(&disk.at).expect("readable").count(), 0, "the data is gone");
}

#[test]
fn a_disk_that_is_full_or_read_only_is_said_before_a_load_and_nothing_is_left() {
    let Some(disk) = Small::new("run-full", 30) else { return };
    let line = format!("{SHORT} --backend pwrite --prepare none --kills 0 --dir disk/data");
    let line = line.replacen("--prepare fallocate", "", 1);
    for backend in ["pwrite", "ringmain"] {
        let (code, _, told) = run(&disk.place, &line.replacen("pwrite", backend, 1));
        assert_eq!(code, Some(WRONG_USE), "{told}");
        assert!(told.contains("too few for a load") && told.lines().count() == 1, "{told}");
        assert_eq!(fs::read_dir(&disk.at).expect("readable").count(), 0, "the data is gone");
    }
    assert!(disk.mount("remount,ro"), "a tmpfs can be made read-only");
    let (code, _, told) = run(&disk.place, &line);
    assert_eq!(code, Some(WRONG_USE), "{told}");
    assert!(told.contains("Read-only") && told.contains("may write to"), "{told}");
    assert!(
        fs::read_dir(disk.place.0.join("results")).map_or(0, Iterator::count) == 0,
        "no result"
    );
}

#[test]
fn what_can_not_be_compared_is_said_and_is_no_success() {
    let place = Place::new("compare");
    let line = format!("{SHORT} --kills 0 --out results");
    for _ in 0..2 {
        let (code, _, told) = run(&place, &line);
        assert_eq!(code, Some(OK), "{told}");
    }
    fs::create_dir(place.0.join("empty")).expect("made");
    let runs: Vec<String> = fs::read_dir(place.0.join("results"))
        .expect("there")
        .map(|entry| format!("results/{}", entry.expect("readable").file_name().display()))
        .collect();
    let [a, b] = [&runs[0], &runs[1]];
    let cases = [
        ([a, a], WRONG_USE, "are the same directory; name two runs"),
        ([a, &"empty".to_owned()], WRONG_USE, "empty: no summary.json in it; name a directory"),
        ([&"absent".to_owned(), b], WRONG_USE, "absent: no summary.json in it; name a directory"),
    ];
    for (dirs, code, words) in cases {
        let output = place.run(&["compare", dirs[0], dirs[1]]);
        assert_eq!(output.status.code(), Some(code), "{dirs:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{dirs:?}: {}", stderr(&output));
    }
    let output = place.run(&["compare", a, b]);
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "one repeat each: {told}");
    assert!(told.contains("not comparable: A has one repeat"), "{told}");
}
