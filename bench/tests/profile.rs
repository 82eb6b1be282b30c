//! `profile` as the one at the terminal sees it: where perf is missing, where it may record, and when it is stopped.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::{env, fs, process};

const OK: i32 = 0;
const FAILED: i32 = 1;
const WRONG_USE: i32 = 2;
const INTERRUPTED: i32 = 130;

/// A working directory, and one for what is temporary.
struct Place(PathBuf);

impl Place {
    fn new(test: &str) -> Self {
        let path = env::temp_dir().join(format!("ringmain-bench-profile-{test}-{}", process::id()));
        fs::create_dir_all(path.join("temporary")).expect("made");
        Self(path)
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringmain-bench"));
        command.args(arguments.split(' ')).current_dir(&self.0);
        command.env("TMPDIR", self.0.join("temporary"));
        command
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.0.join(folder)).expect("readable");
        let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("readable").file_name();
        let mut names: Vec<_> =
            entries.map(|entry| name(entry).into_string().expect("UTF-8")).collect();
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

/// Whether perf may record here.
fn may() -> bool {
    let asked = Command::new("perf").args(["stat", "-e", "cpu-clock:u", "--", "true"]).output();
    let may = asked.is_ok_and(|output| output.status.success());
    if !may {
        eprintln!("skipped: perf may record nothing here");
    }
    may
}

#[test]
fn without_perf_it_says_what_to_install_and_leaves_nothing() {
    let place = Place::new("missing");
    let output = place.command("profile").env("PATH", "/nowhere").output().expect("starts");
    assert_eq!(output.status.code(), Some(FAILED), "{}", stderr(&output));
    assert!(stderr(&output).contains("apt install linux-perf"), "{}", stderr(&output));
    let output = place.command("profile -- --batch-records 0").output().expect("starts");
    assert_eq!(output.status.code(), Some(WRONG_USE), "{}", stderr(&output));
    assert_eq!(place.names("."), ["temporary"]);
}

#[test]
fn where_perf_may_not_record_it_says_what_to_set_and_leaves_nothing() {
    let place = Place::new("forbidden");
    let fake = place.0.join("temporary/perf");
    fs::write(&fake, "#!/bin/sh\n[ $1 = --version ] && echo perf version 6.1 || exit 255\n")
        .expect("written");
    fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).expect("ours");
    let path = format!("{}:/usr/bin:/bin", place.0.join("temporary").display());
    let output = place.command("profile").env("PATH", path).output().expect("starts");
    assert_eq!(output.status.code(), Some(FAILED), "{}", stderr(&output));
    let told = stderr(&output);
    assert!(told.contains("sudo sysctl kernel.perf_event_paranoid=1"), "{told}");
    assert_eq!(
        (place.names("."), place.names("temporary")),
        (vec!["temporary".to_owned()], vec!["perf".to_owned()])
    );
}

#[test]
fn shares_add_up_and_the_pictures_are_there() {
    if !may() {
        return;
    }
    let place = Place::new("whole");
    let line = "profile --seconds 1 --json --quiet -- --warmup 0.1 --segment-bytes 64MiB";
    let output = place.command(line).output().expect("starts");
    assert_eq!(output.status.code(), Some(OK), "{}", stderr(&output));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let rows = |name: &str| document[name].as_array().expect("a list").clone();
    let sum = |name: &str| rows(name).iter().filter_map(|row| row["share"].as_f64()).sum::<f64>();
    assert!((sum("areas") - 1.0).abs() < 1e-6 && (sum("threads") - 1.0).abs() < 1e-6, "{document}");
    let threads = rows("threads");
    assert!(threads.iter().any(|thread| thread["name"] == "ringmain-0"), "{document}");
    let picture = document["flamegraphs"]["on"].as_str().expect("a path");
    let svg = fs::read_to_string(place.0.join(picture)).expect("there");
    assert!(svg.contains("ringmain::shard"), "{picture} shows no shard");
    assert_eq!(place.names("."), ["flamegraphs", "results", "temporary"]);
    assert_eq!(place.names("temporary"), Vec::<String>::new());
}

#[test]
fn ctrl_c_ends_run_and_perf_and_leaves_nothing() {
    if !may() {
        return;
    }
    let place = Place::new("interrupt");
    let mut command = place.command("profile --seconds 600 -- --warmup 0");
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    let mut from = child.stderr.take().expect("piped");
    let (mut told, mut byte) = (String::new(), [0_u8]);
    // The second line comes when it has been measuring for a while.
    while told.matches("repeat 1 of 1").count() < 2 {
        assert_eq!(from.read(&mut byte).expect("readable"), 1, "it ended early: {told}");
        told.push(char::from(byte[0]));
    }
    // SAFETY: sends a signal to a process this test started and has not waited for.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) };
    from.read_to_string(&mut told).expect("readable");
    assert_eq!(child.wait().expect("ends").code(), Some(INTERRUPTED), "{told}");
    assert!(told.ends_with("ringmain-bench: interrupted\n"), "{told}");
    assert_eq!(place.names("temporary"), Vec::<String>::new());
    // What the run had measured until then is kept, and marked, as it always is.
    assert_eq!(place.names("."), ["results", "temporary"]);
}
