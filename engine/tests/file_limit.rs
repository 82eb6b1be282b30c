//! More partitions than the process may have files open.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use ringmain::error::{AppendError, OpenError};
use ringmain::{Config, Engine};

use crate::support::{Dir, batch, block_on, from_parent, small};

/// The child's part, under a limit of 256 descriptors: a thousand partitions work, or a typed error says why not.
#[test]
fn a_thousand_partitions_and_few_descriptors() {
    let Some(dir) = from_parent("RINGMAIN_DIR") else { return };
    let engine = Engine::open(Config { shards: 1, ..small(dir.as_ref()) }).unwrap();
    let names: Vec<(String, u32)> = (0..1000).map(|n| ("many".to_owned(), n)).collect();
    let logs = match engine.logs(&names) {
        Ok(logs) => logs,
        Err(error @ OpenError::Io { .. }) => {
            eprintln!("told: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let (mut done, mut refused) = (0, None);
    for (n, log) in logs.iter().enumerate() {
        match block_on(log.append(batch([n as u64], 100))) {
            Ok(_) => done += 1,
            Err(error @ (AppendError::Unknown(_) | AppendError::Fenced(_))) => {
                refused = Some(error);
            }
            Err(error) => panic!("{error}"),
        }
    }
    drop(engine);
    eprintln!("told: {done} of 1000, {refused:?}");
    match Engine::open(small(dir.as_ref())) {
        Ok(engine) => eprintln!("told: reopened {}", engine.partitions().len()),
        Err(error) => eprintln!("told: {error}"),
    }
}

/// Segment files below `dir` that this process has open.
fn open_segments(dir: &Path) -> usize {
    let files = fs::read_dir("/proc/self/fd").unwrap();
    let paths = files.filter_map(|file| fs::read_link(file.unwrap().path()).ok());
    let ours =
        |path: &Path| path.starts_with(dir) && path.extension().is_some_and(|it| it == "log");
    paths.filter(|path| ours(path)).count()
}

#[test]
fn no_more_segments_are_open_than_the_embedder_allows() {
    const PARTITIONS: u32 = 200;
    let dir = Dir::new("files-max");
    let engine =
        Engine::open(Config { shards: 1, files_max: 32, ..small(&dir.join("data")) }).unwrap();
    let mut most = 0;
    for round in 0..3 {
        for n in 0..PARTITIONS {
            let log = engine.log("many", n).unwrap();
            log.append_blocking(batch([u64::from(n)], 100)).unwrap();
            if n % 8 == 0 {
                most = most.max(open_segments(&dir.join("data")));
            }
        }
        assert_eq!(engine.partitions().len() as u32, PARTITIONS, "round {round}");
    }
    // Procedures under way have some more.
    assert!((8..=64).contains(&most), "{most} of {PARTITIONS}");
    for n in 0..PARTITIONS {
        let marks = engine.log("many", n).unwrap().watermarks_blocking().unwrap();
        assert_eq!(marks.durable.get(), 3, "{n}");
    }
}

#[test]
fn too_few_descriptors_are_an_error_and_no_panic() {
    let dir = Dir::new("files");
    let mut command = Command::new("sh");
    let test = std::env::current_exe().unwrap();
    command.args(["-c", "ulimit -n 256 && exec \"$0\" \"$@\""]).arg(test);
    command.args([
        "file_limit::a_thousand_partitions_and_few_descriptors",
        "--exact",
        "--nocapture",
    ]);
    command.env("RINGMAIN_CHILD", "1").env("RINGMAIN_DIR", dir.join("data"));
    let output = command.stdout(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    eprintln!("{told}");
    assert!(output.status.success(), "{told}");
    assert!(told.contains("told: ") && !told.contains("panicked"), "{told}");
}
