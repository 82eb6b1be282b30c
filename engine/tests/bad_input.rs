//! What can not be opened says why, and harms nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use ringmain::error::OpenError;
use ringmain::types::FlushPolicy;
use ringmain::{Config, Engine};

use crate::support::{Dir, batch, child, from_parent, ids, is_root, small};

fn refused(config: Config) -> OpenError {
    match Engine::open(config) {
        Ok(_) => panic!("this can not be opened"),
        Err(error) => error,
    }
}

#[test]
fn a_path_that_is_a_file_or_has_no_parent_is_refused() {
    let dir = Dir::new("file");
    let file = dir.join("file");
    fs::write(&file, "x").unwrap();
    assert!(matches!(refused(small(&file)), OpenError::NotADirectory(path) if path == file));
    assert!(matches!(refused(small(&dir.join("a/b"))), OpenError::Io { .. }));
    assert_eq!(fs::read(&file).unwrap(), b"x");
}

#[test]
fn settings_out_of_range_are_named() {
    let dir = Dir::new("settings");
    let base = small(dir.path());
    let interval = FlushPolicy::Interval { ms: 0, bytes: 1, messages: 1 };
    for (config, named) in [
        (Config { shards: 0, ..base.clone() }, "shards"),
        (Config { shards: 5000, ..base.clone() }, "shards"),
        (Config { memory_bytes: 1000, ..base.clone() }, "memory_bytes"),
        (Config { journal_bytes: 1000, ..base.clone() }, "journal_bytes"),
        (Config { segment_bytes: 1 << 31, ..base.clone() }, "segment_bytes"),
        (Config { index_interval_bytes: 1, ..base.clone() }, "index_interval_bytes"),
        (Config { roll_ms: 0, ..base.clone() }, "roll_ms"),
        (Config { flush: interval, ..base.clone() }, "flush"),
    ] {
        assert!(matches!(refused(config), OpenError::Config { field, .. } if field == named));
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was written");
}

#[test]
fn damaged_and_newer_files_of_the_engines_own_are_refused_by_name() {
    for name in ["ringmain.meta", "ringmain.journals", "orders-0/ringmain.partition"] {
        let dir = Dir::new("own");
        let data = dir.join("data");
        let engine = Engine::open(small(&data)).unwrap();
        engine.log("orders", 0).unwrap().append_blocking(batch([1], 10)).unwrap();
        engine.close().unwrap();
        let whole = fs::read(data.join(name)).unwrap();
        let mut bytes = whole.clone();
        bytes[13] ^= 1;
        fs::write(data.join(name), &bytes).unwrap();
        let path = data.join(name);
        assert!(
            matches!(refused(small(&data)), OpenError::DamagedFile { path: p, .. } if p == path)
        );
        let mut newer = whole.clone();
        newer[11] = 9;
        let crc = ringmain::format::crc::crc32c(&newer[..28]);
        newer[28..].copy_from_slice(&crc.to_be_bytes());
        fs::write(data.join(name), &newer).unwrap();
        let error = refused(small(&data));
        assert!(matches!(error, OpenError::NewerFormat { found: 9, known: 1, .. }), "{error}");
        fs::write(data.join(name), &whole).unwrap();
        let engine = Engine::open(small(&data)).unwrap();
        assert_eq!(ids(&engine.log("orders", 0).unwrap()), [1], "a refusal changes nothing");
    }
}

#[test]
fn a_file_as_long_as_a_disk_is_told_and_not_read_into_memory() {
    let dir = Dir::new("endless");
    let data = dir.join("data");
    let engine = Engine::open(small(&data)).unwrap();
    engine.log("orders", 0).unwrap().append_blocking(batch([1], 10)).unwrap();
    engine.close().unwrap();
    let path = data.join("ringmain.meta");
    // A hole: more than any memory, and no byte of the disk.
    fs::File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
    let error = refused(small(&data));
    assert!(matches!(&error, OpenError::DamagedFile { path: p, .. } if *p == path), "{error}");
    let report = ringmain::inspect::verify(&data).unwrap();
    assert!(report.problems.iter().any(|problem| problem.path == path), "{report:?}");
}

/// The child's part: tries to open what the parent names and prints the answer.
#[test]
fn open_and_tell() {
    let Some(dir) = from_parent("RINGMAIN_DIR") else { return };
    match Engine::open(small(dir.as_ref())) {
        Ok(_) => eprintln!("told: opened"),
        Err(error) => eprintln!("told: {error}"),
    }
}

fn tell(dir: &std::path::Path, prepare: impl FnOnce(&mut Command)) -> String {
    let mut command = child("bad_input::open_and_tell", &[("RINGMAIN_DIR", dir.to_str().unwrap())]);
    prepare(&mut command);
    let output = command.stdout(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn another_process_is_kept_out() {
    let dir = Dir::new("other-process");
    let data = dir.join("data");
    let engine = Engine::open(small(&data)).unwrap();
    let told = tell(&data, |_| {});
    assert!(told.contains("is in use by another process"), "{told}");
    engine.close().unwrap();
    let told = tell(&data, |_| {});
    assert!(told.contains("told: opened"), "{told}");
}

#[test]
fn an_unwritable_directory_says_so() {
    let temporary =
        std::env::temp_dir().join(format!("ringmain-unwritable-{}", std::process::id()));
    fs::create_dir_all(&temporary).unwrap();
    let data = temporary.join("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o555)).unwrap();
    let told = if is_root() {
        // Root writes anywhere: a child that is nobody does not. The binary must be where nobody can run it.
        let binary = temporary.join("test");
        fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
        let mut command = Command::new(binary);
        command.args(["bad_input::open_and_tell", "--exact", "--nocapture"]);
        command.env("RINGMAIN_CHILD", "1").env("RINGMAIN_DIR", &data).uid(65_534).gid(65_534);
        command.current_dir("/").stdout(Stdio::null()).stderr(Stdio::piped());
        match command.output() {
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => {
                eprintln!("skipped: no child without privilege: {error}");
                return;
            }
        }
    } else {
        tell(&data, |_| {})
    };
    fs::remove_dir_all(&temporary).unwrap();
    assert!(told.contains("Permission denied") && told.contains("data"), "{told}");
}
