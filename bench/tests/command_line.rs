//! What the one at the terminal sees: exit codes, one clear message, and a directory as it was.

use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::{env, fs, process};

use ringmain::batch::BatchBuilder;
use ringmain::{Config, Engine};

#[path = "command_line/forbidden.rs"]
mod forbidden;
#[path = "command_line/run.rs"]
mod run;
#[path = "command_line/streams.rs"]
mod streams;

const OK: i32 = 0;
const DAMAGED: i32 = 1;
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
fn device_measures_every_combination_and_leaves_nothing() {
    let place = Place::new("device");
    let line =
        "device --op write,read --size 64KiB,1MiB --depth 1,8 --durable --seconds 1 --json --quiet";
    let output = place.run(&line.split(' ').collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(OK), "{}", stderr(&output));
    assert_eq!(stderr(&output), "", "quiet is quiet");
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(document["schema"], 1);
    assert_eq!(document["command"], format!("ringmain-bench {line}"));
    let results = document["results"].as_array().expect("rows");
    let named = |row: &serde_json::Value| {
        let number = |name: &str| row[name].as_u64().expect("a number");
        (row["op"] == "write", row["durable"] == true, number("size_bytes"), number("depth"))
    };
    let mut expected = Vec::new();
    for write in [true, false] {
        for size in [64 << 10, 1 << 20] {
            expected.extend([1, 8].map(|depth| (write, write, size, depth)));
        }
    }
    assert_eq!(results.iter().map(named).collect::<Vec<_>>(), expected);
    for row in results {
        let number = |value: &serde_json::Value| value.as_f64().expect("a number");
        assert!(number(&row["iops"]) > 0.0, "{row}");
        assert!(number(&row["latency_us"]["p50"]) > 0.0, "{row}");
        assert!(number(&row["latency_us"]["p50"]) <= number(&row["latency_us"]["max"]), "{row}");
        let mib_per_s = number(&row["iops"]) * number(&row["size_bytes"]) / f64::from(1 << 20);
        assert!((mib_per_s / number(&row["mib_per_s"]) - 1.0).abs() < 0.01, "{row}");
    }
    assert_eq!(place.names(), Vec::<String>::new());
}

#[test]
fn ctrl_c_ends_device_and_removes_its_file() {
    let place = Place::new("device-interrupt");
    let mut command = place.command(
        &"device --op write --size 4KiB --depth 1 --seconds 600".split(' ').collect::<Vec<_>>(),
    );
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
    fs::write(place.0.join("empty.log"), "").expect("written");
    fs::write(place.0.join("program"), b"\x7fELF\0\0\0").expect("written");
    let before = place.names();
    let device = ["device", "--op", "read", "--size", "4KiB", "--depth", "1"];
    let cases: [(&[&str], &str); 13] = [
        (&[&device[..], &["--dir", "foreign"]].concat(), "did not make"),
        (&[&device[..], &["--durable"]].concat(), "a read has nothing to flush"),
        (&["device", "--op", "read", "--size", "4K", "--depth", "1"], "'4K' is no size"),
        (&["quick", "--dir", "foreign"], "did not make"),
        (&["quick", "--dir", "file"], "not a directory"),
        (&["quick", "--dir", "no/parent"], "cannot be made"),
        (&["quick", "--payload", "absent.log"], "--payload absent.log"),
        (&["quick", "--payload", "empty.log"], "no line in it; give a text file"),
        (&["quick", "--payload", "program"], "it is not text; give a text file"),
        (&["quick", "--dir", "/proc/no-such-place"], "give a directory you may write to"),
        (&["quick", "--seconds", "4"], "from 5 to 3600"),
        (&["quick", "--rows", "append_faster"], "no such row; there are device_flush_4k_q1"),
        (&["quick", "--fast"], "unexpected argument '--fast'"),
    ];
    for (arguments, told) in cases {
        let output = place.run(&[arguments, &["--quiet"]].concat());
        assert_eq!(output.status.code(), Some(WRONG_USE), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(told), "{arguments:?}: {}", stderr(&output));
    }
    assert_eq!(place.names(), before);
    let marks = fs::read_dir(place.0.join("foreign")).expect("readable").count();
    assert_eq!(marks, 1, "nothing was added to it");
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
    assert!(stderr(&output).contains("stopping, and removing"), "{}", stderr(&output));
    assert!(stderr(&output).ends_with("ringmain-bench: interrupted\n"), "{}", stderr(&output));
    assert_eq!(place.names(), Vec::<String>::new());
}

#[test]
fn a_second_run_in_the_same_directory_is_refused_and_the_first_goes_on() {
    let place = Place::new("second");
    let mut command = place.command(&["quick", "--seconds", "60", "--dir", "data"]);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut first = command.spawn().expect("starts");
    until_measuring(&mut first);
    let second = place.run(&["quick", "--seconds", "5", "--dir", "data", "--quiet"]);
    assert_eq!(second.status.code(), Some(WRONG_USE), "{}", stderr(&second));
    assert!(stderr(&second).contains("another ringmain-bench works there"), "{}", stderr(&second));
    assert!(place.0.join("data/device").exists());
    assert!(first.try_wait().expect("waits").is_none(), "the first was ended");
    // SAFETY: sends a signal to a process this test started and has not waited for.
    unsafe { libc::kill(first.id() as libc::pid_t, libc::SIGINT) };
    assert_eq!(first.wait_with_output().expect("ends").status.code(), Some(INTERRUPTED));
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
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("the data is kept in"), "{told}");
    let output = place.run(&["quick", "--seconds", "5", "--dir", "data", "--quiet"]);
    assert_eq!(output.status.code(), Some(WRONG_USE));
    assert!(place.0.join("data/device").exists());
    let output = place.run(&["verify", "data"]);
    assert_eq!(output.status.code(), Some(WRONG_USE), "several directories, and files of no log");
    assert!(stderr(&output).contains("name one data directory in it: data/crash data/engine-1"));
    for name in ["data/engine-1", "data/crash"] {
        let output = place.run(&["verify", name]);
        assert_eq!(output.status.code(), Some(OK), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

/// A data directory in `place`, closed cleanly: a sealed segment of 20 records, and an active one of 10.
fn closed(place: &Place) -> PathBuf {
    let data = place.0.join("data");
    let config = Config { shards: 1, journal_bytes: 4 << 20, ..Config::new(&data) };
    let engine = Engine::open(config).expect("opens");
    let log = engine.log("orders", 0).expect("made");
    for nth in 0..30_u8 {
        let mut batch = BatchBuilder::new();
        batch.add(1_700_000_000_000, Some(b"key"), Some(&[b'a' + nth % 26; 3000])).expect("fits");
        log.append_blocking(batch.build().expect("built")).expect("appended");
        if nth == 19 {
            log.roll_blocking().expect("rolls");
        }
    }
    engine.close().expect("closes");
    data
}

fn flip(path: &Path, pos: u64) {
    let file = fs::File::options().read(true).write(true).open(path).expect("opens");
    let mut byte = [0];
    file.read_exact_at(&mut byte, pos).expect("read");
    file.write_all_at(&[byte[0] ^ 0x10], pos).expect("written");
}

const SEALED: &str = "data/orders-0/00000000000000000000";
const ACTIVE: &str = "data/orders-0/00000000000000000020";

/// Damages a fresh directory and returns exit code and problems of `verify --json`.
fn damaged(test: &str, damage: impl FnOnce(&Path)) -> (Option<i32>, Vec<serde_json::Value>) {
    let place = Place::new(test);
    closed(&place);
    damage(&place.0);
    let output = place.run(&["verify", "data", "--json"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(document["schema"], 1);
    assert_eq!(document["command"], "ringmain-bench verify data --json");
    let problems = document["problems"].as_array().expect("a list").clone();
    assert_eq!(document["healthy"], problems.is_empty());
    let text = String::from_utf8_lossy(&place.run(&["verify", "data"]).stdout).into_owned();
    for problem in &problems {
        let line = format!(
            "DAMAGE  {} at byte {}",
            problem["path"].as_str().expect("a path"),
            problem["pos"]
        );
        assert!(text.contains(&line), "text and document agree: {line}: {text}");
    }
    (output.status.code(), problems)
}

#[test]
fn verify_names_damage_by_file_position_and_offset() {
    let (code, problems) = damaged("sound", |_| {});
    assert_eq!((code, problems.len()), (Some(OK), 0), "{problems:?}");
    let (code, problems) = damaged("bit", |dir| {
        let path = dir.join(format!("{ACTIVE}.log"));
        let bytes = fs::metadata(&path).expect("there").len();
        // Batches are alike in size: this is in the last but one.
        flip(&path, bytes - bytes / 10 - 100);
    });
    assert_eq!((code, problems.len()), (Some(DAMAGED), 1), "{problems:?}");
    assert_eq!(problems[0]["path"], format!("{ACTIVE}.log"));
    assert_eq!(problems[0]["offset"], 28, "{problems:?}");
    assert!(problems[0]["pos"].as_u64().expect("a position") > 0);
    let (code, problems) = damaged("cut", |dir| {
        let file = fs::File::options().write(true).open(dir.join(format!("{ACTIVE}.log")));
        file.expect("opens").set_len(5000).expect("cut");
    });
    assert_eq!(code, Some(DAMAGED));
    assert!(problems.iter().any(|p| p["offset"] == 21), "{problems:?}");
    let (code, problems) = damaged("seal", |dir| {
        fs::write(dir.join(format!("{SEALED}.seal")), [0; 64]).expect("written");
    });
    assert_eq!((code, problems.len()), (Some(DAMAGED), 1), "{problems:?}");
    assert_eq!(problems[0]["path"], format!("{SEALED}.seal"));
}

#[test]
fn verify_tells_a_missing_index_from_damage_and_notices_swapped_segments() {
    let (code, problems) = damaged("index", |dir| {
        fs::remove_file(dir.join(format!("{SEALED}.index"))).expect("removed");
    });
    assert_eq!((code, problems.len()), (Some(OK), 0), "an index is derived: {problems:?}");
    let (code, problems) = damaged("swap", |dir| {
        let [sealed, active, aside] =
            [SEALED, ACTIVE, "aside"].map(|n| dir.join(n).with_extension("log"));
        fs::rename(&sealed, &aside).expect("renamed");
        fs::rename(&active, &sealed).expect("renamed");
        fs::rename(&aside, &active).expect("renamed");
    });
    assert_eq!(code, Some(DAMAGED));
    let named = |name: &str| problems.iter().any(|p| p["path"] == name);
    assert!(named(&format!("{ACTIVE}.log")), "{problems:?}");
}

#[test]
fn dump_shows_what_lies_behind_damage_and_says_that_there_is_some() {
    let place = Place::new("dump");
    closed(&place);
    let log = format!("{ACTIVE}.log");
    let output = place.run(&["dump", &log, "--records"]);
    assert_eq!(output.status.code(), Some(OK), "{}", stderr(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout).matches("  record ").count(), 10);
    flip(&place.0.join(&log), 4000);
    let output = place.run(&["dump", &log, "--json"]);
    assert_eq!(output.status.code(), Some(DAMAGED), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let lines = text.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    let lines: Vec<serde_json::Value> = lines.collect();
    let of = |kind: &str| lines.iter().filter(|line| line["kind"] == kind).collect::<Vec<_>>();
    assert_eq!((of("bad").len(), of("batch").len()), (1, 9), "{text}");
    assert_eq!(of("batch").last().expect("one")["base_offset"], 29);
}

#[test]
fn find_names_a_record_and_its_place_or_what_there_is_instead() {
    let place = Place::new("find");
    closed(&place);
    let find = |more: &str| {
        let line = format!("find data --partition orders-0 {more}");
        place.run(&line.split(' ').collect::<Vec<_>>())
    };
    let said = |output: &Output| String::from_utf8_lossy(&output.stdout).into_owned();
    let output = find("--offset 21");
    assert_eq!(output.status.code(), Some(OK), "{}", stderr(&output));
    let text = said(&output);
    for part in
        ["2023-11-14T22:13:20.000Z", "… (3000 bytes)", "key        key", ACTIVE, "the index"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let output = find("--time 2023-11-14T23:13:20+01:00 --json");
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((output.status.code(), &document["found"][0]["offset"]), (Some(OK), &0.into()));
    let output = find("--key key --limit 3 --json");
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let offsets = document["found"].as_array().expect("records").iter().map(|it| &it["offset"]);
    assert_eq!(offsets.collect::<Vec<_>>(), [29, 28, 27]);

    for (asked, wanted) in [
        ("--offset 30", "out of range: the log has offsets 0 to 29"),
        ("--time 2024-01-01T00:00:00Z", "the newest is of 2023-11-14T22:13:20.000Z"),
        ("--key other", "no record has that key"),
    ] {
        let output = find(asked);
        assert_eq!(output.status.code(), Some(DAMAGED), "{asked}");
        assert!(said(&output).contains(wanted), "{asked}: {}", said(&output));
    }
    for (asked, wanted) in [
        (["data", "order-0"], "did you mean orders?"),
        (["data/orders-0", "orders-0"], "name the one that the partition's directory is in"),
        (["nowhere", "orders-0"], "nowhere"),
    ] {
        let output = place.run(&["find", asked[0], "--partition", asked[1], "--offset", "0"]);
        assert_eq!(output.status.code(), Some(WRONG_USE), "{asked:?}");
        assert!(stderr(&output).contains(wanted), "{asked:?}: {}", stderr(&output));
    }
    flip(&place.0.join(format!("{ACTIVE}.log")), 4000);
    let output = find("--offset 21");
    assert_eq!(output.status.code(), Some(DAMAGED));
    assert!(said(&output).contains("DAMAGE") && said(&output).contains("is damaged"));
}

#[test]
fn what_is_no_log_is_wrong_use_to_look_at() {
    let place = Place::new("look");
    fs::create_dir(place.0.join("empty")).expect("made");
    fs::create_dir(place.0.join("foreign")).expect("made");
    fs::write(place.0.join("foreign/thesis.txt"), "years").expect("written");
    closed(&place);
    let cut = ["--partition", "orders-7", "--cut-at", "3"];
    let repair = |dir: &'static str| [&["repair", dir][..], &cut[..]].concat();
    let (absent, foreign, other) = (repair("absent"), repair("foreign"), repair("data"));
    let cases: [(&[&str], &str); 11] = [
        (&absent, "absent: No such file"),
        (&foreign, "foreign: there is no partition orders-7; none is there"),
        (&other, "data: there is no partition orders-7; there are orders-0"),
        (&["verify", "empty"], "name a data directory"),
        (&["dump", "empty"], "name a data directory"),
        (&["verify", "foreign"], "holds thesis.txt, which is no log's; name a data directory"),
        (&["verify", "absent"], "No such file"),
        (&["verify", "foreign/thesis.txt"], "no file of a log; name a data directory"),
        (&["dump", "foreign/thesis.txt"], "no file of a log; name a data directory"),
        (&["dump", "absent"], "No such file"),
        (&["verify", "data/journal-0"], "ringmain-bench dump"),
    ];
    for (arguments, told) in cases {
        let output = place.run(arguments);
        assert_eq!(output.status.code(), Some(WRONG_USE), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(told), "{arguments:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn what_can_not_be_reported_is_said_and_no_page_is_left() {
    let place = Place::new("report");
    for (name, summary) in [
        ("newer", "{\"schema\": 7}"),
        ("cut", "{\"schema\": 1, \"ki"),
        ("other", "{\"schema\": 1}"),
        ("others/quick", "{\"schema\": 1}"),
    ] {
        fs::create_dir_all(place.0.join(name)).expect("made");
        fs::write(place.0.join(name).join("summary.json"), summary).expect("written");
    }
    fs::create_dir(place.0.join("empty")).expect("made");
    let before = place.names();
    let cases: [(&[&str], i32, &str); 7] = [
        (&["report"], WRONG_USE, "required arguments"),
        (&["report", "absent"], WRONG_USE, "absent: No such file"),
        (
            &["report", "empty"],
            WRONG_USE,
            "no summary.json in it; name a directory that run has written",
        ),
        (&["report", "newer"], WRONG_USE, "schema 7, and this tool reads 1"),
        (&["report", "cut", "newer"], DAMAGED, "cut/summary.json: no whole JSON document"),
        (&["report", "other"], WRONG_USE, "a document of another command, not of a run"),
        (&["report", "others"], WRONG_USE, "others: no summary.json in it"),
    ];
    for (arguments, code, told) in cases {
        let output = place.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(told), "{arguments:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    assert_eq!(place.names(), before);
}

#[test]
fn completions_and_manual_pages_are_printed_or_written() {
    let place = Place::new("manual");
    let output = place.run(&["completions", "bash"]);
    assert_eq!(output.status.code(), Some(OK));
    assert!(String::from_utf8_lossy(&output.stdout).contains("complete -F _ringmain__bench"));
    assert_eq!(place.run(&["completions", "tcsh"]).status.code(), Some(WRONG_USE));
    let output = place.run(&["man", "quick"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains(".TH ringmain-bench-quick 1"));
    let output = place.run(&["man", "brew"]);
    assert_eq!(output.status.code(), Some(WRONG_USE));
    assert!(stderr(&output).contains("no such command; there are quick"), "{}", stderr(&output));
    assert_eq!(place.run(&["man", "--out", "."]).status.code(), Some(OK));
    assert!(place.names().contains(&"ringmain-bench-verify.1".to_owned()), "{:?}", place.names());
    assert_eq!(place.run(&["man", "--out", "absent"]).status.code(), Some(DAMAGED));
}

#[test]
fn claims_are_listed_with_their_rules_and_an_unknown_one_is_named() {
    let place = Place::new("claims");
    let listed = place.run(&["claims", "--list"]);
    assert_eq!(listed.status.code(), Some(OK), "{}", stderr(&listed));
    let text = String::from_utf8(listed.stdout).expect("UTF-8");
    assert!(text.lines().any(|line| line.starts_with("sequential ")), "{text}");
    let rules = place.run(&["claims", "sequential", "--rules"]);
    let text = String::from_utf8(rules.stdout).expect("UTF-8");
    assert!(text.starts_with("## sequential\n") && text.contains(">= 1.10"), "{text}");
    let wrong = place.run(&["claims", "blockchain"]);
    assert_eq!(wrong.status.code(), Some(WRONG_USE));
    assert!(stderr(&wrong).contains("there are sequential"), "{}", stderr(&wrong));
    assert!(place.names().is_empty(), "nothing is left");
}
