//! What an ordinary user may not have: locked memory, and io_uring. The engine says so, and works.

use std::process::{Command, Stdio};

use ringmain::types::Isolation;
use ringmain::{Backend, Config, Engine};

use crate::support::{Dir, batch, from_parent, ids, is_root, small, verified};

/// The child's part, under its limits: appends, crashes, opens again. Tells what the engine says of itself.
#[test]
fn work_under_limits() {
    let Some(dir) = from_parent("RINGMAIN_DIR") else { return };
    let config = Config { shards: 1, memory_bytes: 128 << 20, ..small(dir.as_ref()) };
    let engine = Engine::open(config.clone()).unwrap();
    eprintln!("told: registered {:?}", engine.facts().registered_bytes);
    eprintln!("told: fallback {:?}", engine.facts().fallback);
    let log = engine.log("limited", 0).unwrap();
    let sizes = [100, 300_000, 5000, 700_000, 20];
    for id in 0..40 {
        log.append_blocking(batch([id], sizes[id as usize % sizes.len()])).unwrap();
    }
    assert_eq!(ids(&log), (0..40).collect::<Vec<_>>());
    engine.abandon();
    let engine = Engine::open(config).unwrap();
    let log = engine.log("limited", 0).unwrap();
    assert_eq!(ids(&log), (0..40).collect::<Vec<_>>());
    assert_eq!(log.watermarks_blocking().unwrap().durable.get(), 40);
    let first = log.read_blocking(ringmain::types::Offset::ZERO, 1, Isolation::Durable).unwrap();
    assert!(!first.is_empty());
    engine.close().unwrap();
}

/// Runs the child behind `prefix`, a shell's words that set limits and end in an `exec`. Returns what it told.
fn limited(name: &str, prefix: &str) -> String {
    let dir = Dir::new(name);
    let data = dir.join("data");
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{prefix} \"$0\" \"$@\"")).arg(std::env::current_exe().unwrap());
    command.args(["fallbacks::work_under_limits", "--exact", "--nocapture"]);
    command.env("RINGMAIN_CHILD", "1").env("RINGMAIN_DIR", &data);
    let output = command.stdout(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    verified(&data);
    told
}

/// The bytes that the only shard registered with the kernel.
fn registered(told: &str) -> u64 {
    let line = told.lines().find_map(|line| line.strip_prefix("told: registered [")).unwrap();
    line.trim_end_matches(']').parse().unwrap()
}

#[test]
fn a_limit_of_locked_memory_costs_speed_and_nothing_else() {
    if Engine::open(Config { backend: Backend::Uring, ..small(Dir::new("locked-probe").path()) })
        .is_err()
    {
        eprintln!("skipped: there is no io_uring");
        return;
    }
    // Root is above the limit by a capability, which the child must not have.
    let drop = if is_root() { "setpriv --bounding-set=-ipc_lock" } else { "exec" };
    for (kib, least) in [(8192_u64, 1 << 20), (64, 0), (0, 0)] {
        let prefix = format!("ulimit -l {kib} && {drop}");
        let told = limited(&format!("locked-{kib}"), &prefix);
        let bytes = registered(&told);
        assert!((least..=kib << 10).contains(&bytes), "{bytes} of {kib} KiB: {told}");
        // The ring's own queues count too: below some limit there is none, which is told with what to do.
        let has_ring = told.contains("told: fallback None");
        let is_told = kib < 8192 && told.contains("ulimit -l");
        assert!(has_ring || is_told, "{told}");
    }
}
