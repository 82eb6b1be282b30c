//! What a container, an ordinary user or a directory may forbid: `quick` says so, and measures the rest.

use std::os::unix::process::CommandExt;
use std::process::Command;

use serde_json::Value;

use super::{OK, Place, stderr};

const QUICK: &str = "quick --seconds 5 --json --quiet \
                     --rows append_group_one_record_c256,floor_one_record_c256,device_flush_4k_q1";

fn measured(mut command: Command) -> (Vec<String>, String) {
    let output = command.output().expect("starts");
    assert_eq!(output.status.code(), Some(OK), "{}", stderr(&output));
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let rows = document["results"].as_array().expect("rows");
    let name = |row: &Value| row["name"].as_str().expect("a name").to_owned();
    (rows.iter().map(name).collect(), document["notes"].to_string())
}

/// Has the child's `io_uring_setup` fail with EPERM, as the seccomp profiles of containers do.
fn without_uring(command: &mut Command) {
    const YES: libc::c_ulong = 1;
    const NO: libc::c_ulong = 0;
    const FILTER: libc::c_ulong = libc::SECCOMP_MODE_FILTER as libc::c_ulong;
    let step = |code, jf, k| libc::sock_filter { code, jt: 0, jf, k };
    let filter = [
        step(0x20, 0, 0), // load the system call's number
        step(0x15, 1, libc::SYS_io_uring_setup as u32),
        step(0x06, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(0x06, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let install = move || {
        let mut filter = filter;
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: `prctl` is async-signal-safe, and the program outlives the call.
        let set = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, YES, NO, NO, NO) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, FILTER, &raw const program) == 0
        };
        if set { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: it makes two system calls and allocates nothing.
    unsafe { command.pre_exec(install) };
}

#[test]
fn quick_without_io_uring_measures_all_but_the_floor() {
    let place = Place::new("no-uring");
    let mut command = place.command(&QUICK.split_whitespace().collect::<Vec<_>>());
    without_uring(&mut command);
    let (rows, notes) = measured(command);
    assert_eq!(rows, ["device_flush_4k_q1", "append_group_one_record_c256"]);
    assert!(notes.contains("NO io_uring") && notes.contains("floor was not measured"), "{notes}");
    assert_eq!(place.names().len(), 1, "its page: {:?}", place.names());

    let alone = ["quick", "--seconds", "5", "--rows", "floor_one_record_c256", "--quiet"];
    let mut command = place.command(&alone);
    without_uring(&mut command);
    let output = command.output().expect("starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("io_uring is not to be had"), "{}", stderr(&output));
}

#[test]
fn quick_without_locked_memory_measures_all_but_the_floor() {
    let place = Place::new("no-locked");
    let mut command = Command::new("sh");
    // Root is above the limit by a capability.
    let script = "ulimit -l 0; if [ \"$(id -u)\" = 0 ]; then \
                  exec setpriv --bounding-set=-ipc_lock \"$@\"; else exec \"$@\"; fi";
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_ringmain-bench")]);
    command.args(QUICK.split_whitespace()).current_dir(&place.0);
    let (rows, notes) = measured(command);
    assert_eq!(rows, ["device_flush_4k_q1", "append_group_one_record_c256"]);
    assert!(notes.contains("floor was not measured"), "{notes}");
}

#[test]
fn quick_shows_its_figures_where_no_page_can_be_written() {
    let place = Place::new("no-page");
    let line = "quick --seconds 5 --json --quiet --rows device_flush_4k_q1 --dir";
    let data = place.0.join("data");
    let arguments = line.split(' ').chain(data.to_str()).collect::<Vec<_>>();
    let mut command = place.command(&arguments);
    command.current_dir("/proc");
    let (rows, notes) = measured(command);
    assert_eq!(rows, ["device_flush_4k_q1"]);
    assert!(notes.contains("there is no page: cannot write ringmain-report-"), "{notes}");
    assert!(place.names().is_empty());
}

#[test]
fn a_backend_that_needs_io_uring_says_so_at_once() {
    for backend in ["floor", "buffered-ring", "tokio-uring"] {
        let place = Place::new("no-uring-backend");
        let mut command = place.command(&["run", "--backend", backend, "--quiet"]);
        without_uring(&mut command);
        let output = command.output().expect("starts");
        assert_eq!(output.status.code(), Some(1), "{backend}: {}", stderr(&output));
        let told = stderr(&output);
        assert!(told.contains("io_uring is not to be had"), "{backend}: {told}");
        assert_eq!(told.lines().count(), 1, "{backend}: {told}");
        assert!(place.names().is_empty(), "{backend}: {:?}", place.names());
    }
}
