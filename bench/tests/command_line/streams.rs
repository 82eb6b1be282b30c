//! Readers and terminals that go away.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use super::{INTERRUPTED, OK, Place, closed, stderr, until_measuring};

const RUN: &str = "run --seconds 300ms --warmup 0 --repeats 2 --kills 0 --segment-bytes 8MiB \
                   --prepare fallocate --payload generated:2 --in-flight 8";

fn command(place: &Place, line: &str) -> Command {
    place.command(&line.split_whitespace().collect::<Vec<_>>())
}

/// Starts it with nobody at the other end of either stream, as `2>&1 | head -0` does.
fn unread(mut command: Command) -> Child {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    drop((child.stdout.take(), child.stderr.take()));
    child
}

#[test]
fn a_run_that_nobody_reads_goes_on_and_takes_its_data_away() {
    let place = Place::new("unread");
    let status = unread(command(&place, RUN)).wait().expect("ends");
    assert_eq!(status.code(), Some(OK));
    assert_eq!(place.names(), ["results"], "the data is gone");
}

#[test]
fn what_nobody_reads_is_no_failure_of_those_who_print() {
    let place = Place::new("unread-prints");
    closed(&place);
    for line in ["run --dry-run", "claims --rules", "verify data", "dump data --records", "man run"]
    {
        let status = unread(command(&place, line)).wait().expect("ends");
        assert_eq!(status.code(), Some(OK), "{line}");
        let full = std::fs::File::options().write(true).open("/dev/full").expect("there");
        let output = command(&place, line).stdout(full).output().expect("starts");
        assert_eq!(output.status.code(), Some(1), "{line}");
        let told = stderr(&output);
        assert!(told.contains("No space left") && told.lines().count() == 1, "{line}: {told}");
    }
}

const LONG: &str = "device --op write --size 4KiB --depth 1 --seconds 600";

/// What the child does on SIGHUP: this test may itself run under `nohup`.
fn on_hangup(command: &mut Command, action: libc::sighandler_t) {
    // SAFETY: `signal` is async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            libc::signal(libc::SIGHUP, action);
            Ok(())
        });
    }
}

fn signal(child: &Child, signal: libc::c_int) {
    // SAFETY: sends a signal to a process this test started and has not waited for.
    unsafe { libc::kill(child.id() as libc::pid_t, signal) };
}

#[test]
fn a_terminal_that_goes_stops_the_run_and_nothing_is_left() {
    let place = Place::new("hangup");
    let mut command = command(&place, LONG);
    on_hangup(&mut command, libc::SIG_DFL);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starts");
    until_measuring(&mut child);
    // The shell sends one, and the kernel another.
    signal(&child, libc::SIGHUP);
    signal(&child, libc::SIGHUP);
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(INTERRUPTED), "{}", stderr(&output));
    assert_eq!(place.names(), Vec::<String>::new());
}

#[test]
fn a_run_under_nohup_goes_on_without_its_terminal() {
    let place = Place::new("nohup");
    let mut command = command(&place, LONG);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    on_hangup(&mut command, libc::SIG_IGN);
    let mut child = command.spawn().expect("starts");
    until_measuring(&mut child);
    signal(&child, libc::SIGHUP);
    signal(&child, libc::SIGTERM);
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.code(), Some(INTERRUPTED), "not by SIGHUP: {}", stderr(&output));
    assert_eq!(stderr(&output).matches("stopping").count(), 1, "{}", stderr(&output));
    assert_eq!(place.names(), Vec::<String>::new());
}
