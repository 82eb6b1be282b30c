//! A sweep as the one at the terminal has it: stopped, killed, gone on with, and taken further.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::{env, fs, process};

struct Place(PathBuf);

impl Place {
    fn new(test: &str) -> Self {
        let path = env::temp_dir().join(format!("ringmain-bench-{test}-{}", process::id()));
        fs::create_dir_all(&path).expect("made");
        Self(path)
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringmain-bench"));
        command.args(line.split(' ')).current_dir(&self.0);
        command
    }

    fn run(&self, line: &str) -> Output {
        self.command(line).output().expect("starts")
    }

    /// Starts it and sends `signal` when it tells that its repeat `nth` begins.
    fn stopped(&self, line: &str, nth: usize, signal: libc::c_int) -> Output {
        let mut command = self.command(line);
        let mut child: Child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        let told = BufReader::new(child.stderr.take().expect("piped"));
        let begins = format!(" {nth} of ");
        for line in told.lines() {
            if line.expect("text").contains(&begins) {
                // SAFETY: sends a signal to a process this test started and has not waited for.
                unsafe { libc::kill(child.id() as libc::pid_t, signal) };
            }
        }
        child.wait_with_output().expect("ends")
    }

    /// The interval logs of repeats that are done, by path.
    fn logs(&self, sweep: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut logs = BTreeMap::new();
        for cell in fs::read_dir(self.0.join(sweep)).expect("readable") {
            let cell = cell.expect("readable").path();
            for nth in 1..=2 {
                let (log, kept) = (
                    cell.join(format!("repeat-{nth}.hlog")),
                    cell.join(format!("repeat-{nth}.kept.json")),
                );
                if kept.exists() {
                    logs.insert(log.clone(), fs::read(log).expect("readable"));
                }
            }
        }
        logs
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const LISTS: &str = "sweep --flush os,group --batch-records 10,100 --segment-bytes 16MiB --seconds 0.2 --warmup 0 \
                     --repeats 2 --out out";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_sweep_that_was_stopped_and_killed_goes_on_with_what_is_left() {
    let place = Place::new("sweep");
    // Both raw devices come first, then a cell: the stop comes in the third cell.
    let stopped = place.stopped(LISTS, 5, libc::SIGINT);
    assert_eq!(stopped.status.code(), Some(130), "{}", text(&stopped.stdout));
    assert!(text(&stopped.stdout).contains("sweep --resume "), "{}", text(&stopped.stdout));
    let names = fs::read_dir(place.0.join("out")).expect("readable");
    let names: Vec<_> = names.map(|entry| entry.expect("readable").file_name()).collect();
    assert_eq!(names.len(), 1, "{names:?}");
    let sweep = Path::new("out").join(&names[0]);
    assert_eq!(place.logs(&sweep).len(), 2, "two repeats were done");

    let resume = format!("sweep --resume {}", sweep.display());
    place.stopped(&resume, 2, libc::SIGKILL);
    let before = place.logs(&sweep);
    assert_eq!(before.len(), 3, "one more was done before the kill");

    let done = place.run(&format!("{resume} --json --quiet"));
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let document: serde_json::Value = serde_json::from_slice(&done.stdout).expect("JSON");
    assert_eq!((&document["kind"], &document["state"]), (&"sweep".into(), &"complete".into()));
    for cell in document["cells"].as_array().expect("cells") {
        assert_eq!(cell["repeats"], 2, "{cell}");
        assert!(cell["figures"]["records_per_s"].as_f64().expect("a rate") > 0.0, "{cell}");
        assert_eq!(cell["durable"], cell["ack"] == "durable", "{cell}");
    }
    let acks = document["recommendations"].as_array().expect("some").iter();
    assert_eq!(
        acks.map(|advice| advice["ack"].as_str()).collect::<Vec<_>>(),
        [Some("durable"), Some("written")]
    );
    for (log, bytes) in before {
        assert!(
            fs::read(&log).expect("still there") == bytes,
            "{} was measured again",
            log.display()
        );
    }
    let left: Vec<_> =
        fs::read_dir(&place.0).expect("readable").flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, ["out"], "no data is left, not even by the kill");

    let report = place.run(&format!("report {} --out page.html", sweep.display()));
    assert_eq!(report.status.code(), Some(0), "{}", text(&report.stderr));
    let cells: Vec<_> = document["cells"].as_array().expect("cells").iter().collect();
    let dirs = [0, 1].map(|nth: usize| cells[nth]["directory"].as_str().expect("a path"));
    let compare = place.run(&format!("compare {} {}", dirs[0], dirs[1]));
    assert_eq!(compare.status.code(), Some(0), "{}", text(&compare.stderr));
    let again = place.run(&resume);
    assert_eq!(again.status.code(), Some(0), "{}", text(&again.stderr));
}

#[test]
fn a_plan_is_shown_with_what_it_leaves_out_and_nothing_is_made() {
    let place = Place::new("sweep-dry");
    fs::write(place.0.join("w.toml"), "consumers = [0, 2]\nflush = [\"os\", \"group\"]\n")
        .expect("written");
    let dry = place.run("sweep --workload w.toml --flush group --partitions 1,2 --dry-run");
    let shown = text(&dry.stdout);
    assert_eq!(dry.status.code(), Some(0), "{}", text(&dry.stderr));
    for words in [
        "cell    3  partitions 2, consumers 2",
        "--consumers 2 are more than",
        "3 cells x 3 rounds",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    for (line, words) in [
        ("sweep --resume nowhere", "name a directory that sweep has written"),
        ("sweep --resume out --codec none", "give no settings"),
        ("sweep --repeats 1 --repeats 2", "one for the whole sweep"),
        ("sweep --flush os,never", "'never' is no flush policy"),
        ("sweep --dir /proc/no-such-place", "give a directory you may write to"),
    ] {
        let output = place.run(line);
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert!(text(&output.stderr).contains(words), "{line}: {}", text(&output.stderr));
    }
    let left: Vec<_> =
        fs::read_dir(&place.0).expect("readable").flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, ["w.toml"], "no trace");
}
