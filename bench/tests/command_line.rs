//! What the one at the terminal sees: exit codes, one clear message, and a directory as it was.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::{env, fs, process};

const OK: i32 = 0;
const WRONG_USE: i32 = 2;
const INTERRUPTED: i32 = 130;

struct Place(PathBuf);

impl Place {
    fn new(test: &str) -> Self {
        let path = env::temp_dir().join(format!("ringmain-bench-cli-{test}-{}", process::id()));
        fs::create_dir_all(&path).expect("made");
        Self(path)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringmain-bench"));
        command.args(arguments).current_dir(&self.0);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("starts")
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(&self.0)
            .expect("readable")
            .map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8"))
            .collect();
        names.sort();
        names
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn quick_prints_one_document_and_leaves_only_its_page() {
    let place = Place::new("json");
    let output = place.run(&["quick", "--seconds", "5", "--json", "--quiet"]);
    assert_eq!(output.status.code(), Some(OK), "{}", stderr(&output));
    assert_eq!(stderr(&output), "", "quiet is quiet");
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(document["schema"], 1);
    assert_eq!(document["command"], "ringmain-bench quick --seconds 5 --json --quiet");
    let results = document["results"].as_array().expect("rows");
    assert!(!results.is_empty());
    for row in results {
        assert!(row["records_per_s"].as_f64().expect("a rate") > 0.0, "{row}");
        assert!(row["count"].as_u64().expect("a count") > 0, "{row}");
    }
    let names = place.names();
    assert_eq!(names.len(), 1, "{names:?}");
    assert!(names[0].starts_with("ringmain-report-"));
    let report = Path::new(document["report"].as_str().expect("a path"));
    assert_eq!(report.file_name().expect("a name").to_str(), Some(names[0].as_str()));
}

#[test]
fn what_was_acked_before_a_kill_is_read_back() {
    let place = Place::new("kill");
    let output = place.run(&["quick", "--seconds", "10", "--rows", "recover", "--json", "--quiet"]);
    assert_eq!(output.status.code(), Some(OK), "{}", stderr(&output));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let verify = &document["verify"];
    assert!(verify["acked"].as_u64().expect("a count") >= 1000, "{verify}");
    for wrong in ["lost", "duplicated", "reordered", "corrupt"] {
        assert_eq!(verify[wrong], 0, "{verify}");
    }
    let names: Vec<_> = document["results"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| row["name"].as_str().expect("a name"))
        .collect();
    assert_eq!(names, ["device_read_512k_q8", "recover"]);
    let notes = document["notes"].to_string();
    assert!(notes.contains("no power cut"), "{notes}");
}

#[test]
fn wrong_use_is_told_in_one_line_and_touches_nothing() {
    let place = Place::new("usage");
    fs::create_dir(place.0.join("foreign")).expect("made");
    fs::write(place.0.join("foreign/thesis.txt"), "years").expect("written");
    fs::write(place.0.join("file"), "x").expect("written");
    let before = place.names();
    let cases: [(&[&str], &str); 5] = [
        (&["quick", "--dir", "foreign"], "did not make"),
        (&["quick", "--dir", "file"], "not a directory"),
        (&["quick", "--dir", "no/parent"], "cannot be made"),
        (&["quick", "--payload", "absent.log"], "--payload absent.log"),
        (&["quick", "--seconds", "0"], "from 5 to 3600"),
    ];
    for (arguments, told) in cases {
        let output = place.run(&[arguments, &["--quiet"]].concat());
        assert_eq!(output.status.code(), Some(WRONG_USE), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(told), "{arguments:?}: {}", stderr(&output));
    }
    assert_eq!(place.names(), before);
    assert_eq!(fs::read(place.0.join("foreign/thesis.txt")).expect("there"), b"years");
}

/// Waits until the run is in its slices: the plain progress says so on standard error.
fn until_measuring(child: &mut Child) {
    let mut told = String::new();
    let mut from = child.stderr.take().expect("piped");
    let mut byte = [0_u8];
    while !told.contains("slice 1") {
        assert_eq!(from.read(&mut byte).expect("readable"), 1, "it ended early: {told}");
        told.push(char::from(byte[0]));
    }
    child.stderr = Some(from);
}

#[test]
fn ctrl_c_stops_the_run_and_removes_what_it_made() {
    let place = Place::new("interrupt");
    let mut command = place.command(&["quick", "--seconds", "60"]);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    until_measuring(&mut child);
    assert_eq!(place.names().len(), 1, "the data directory");
    // SAFETY: sends a signal to a process this test started and has not waited for.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) };
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(INTERRUPTED), "{}", stderr(&output));
    assert_eq!(place.names(), Vec::<String>::new());
}

#[test]
fn what_a_killed_run_left_is_cleared_by_the_next() {
    let place = Place::new("killed");
    let mut command = place.command(&["quick", "--seconds", "60", "--dir", "data"]);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    until_measuring(&mut child);
    child.kill().expect("killed");
    child.wait().expect("ends");
    assert!(place.0.join("data/device").exists());
    let output = place.run(&["quick", "--seconds", "5", "--dir", "data", "--quiet"]);
    assert_eq!(output.status.code(), Some(OK), "{}", stderr(&output));
    assert!(!place.0.join("data/device").exists());
}

#[test]
fn keep_keeps_and_the_next_run_does_not_take_it() {
    let place = Place::new("keep");
    let output = place.run(&["quick", "--seconds", "5", "--dir", "data", "--keep", "--quiet"]);
    assert_eq!(output.status.code(), Some(OK), "{}", stderr(&output));
    assert!(place.0.join("data/device").exists());
    let output = place.run(&["quick", "--seconds", "5", "--dir", "data", "--quiet"]);
    assert_eq!(output.status.code(), Some(WRONG_USE));
    assert!(place.0.join("data/device").exists());
}
