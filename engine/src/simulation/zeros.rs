//! Space that is zeroed ahead, in virtual time: at the pace of the bytes, and there before they are.

use super::workload::{put, rig};
use super::world::{Setup, World};
use crate::handle::LogHandle;
use crate::limits::{PREZERO_BYTES_AT_ONCE, PREZERO_BYTES_PER_MS_MIN};
use crate::ring::Wait;
use crate::ring::sim::SimDisk;

/// Bytes that are ready, and whether more are being readied.
fn ready(world: &World<SimDisk>) -> (u64, bool) {
    let cx = world.context(0);
    let state = cx.state.borrow();
    let segment = &state.logs[0].as_ref().expect("it is there").tail[0];
    assert!(segment.end() <= segment.prepared, "no byte goes where no space is ready");
    (segment.prepared.get(), segment.preparing)
}

/// Appends until 8 MiB or more are ready and as many again are being readied. Returns what is ready, and how long the
/// rest takes at the pace while nothing comes.
fn begin(world: &mut World<SimDisk>, log: &LogHandle) -> (u64, u64) {
    while ready(world).0 < 8 << 20 || !ready(world).1 {
        put(world, log, 600_000);
    }
    let bytes = ready(world).0;
    (bytes, (bytes - PREZERO_BYTES_AT_ONCE) / PREZERO_BYTES_PER_MS_MIN)
}

#[test]
fn who_waits_for_zeros_to_end_waits_for_no_pace() {
    type Ask = fn(&mut World<SimDisk>, &LogHandle);
    let asks: [(&str, Ask); 4] = [
        ("a seal", |world, log| world.run(log.roll()).unwrap().unwrap()),
        ("a truncation", |world, log| world.truncate(log, 3)),
        ("a deletion", |world, log| world.delete(log.name())),
        ("more space", |world, log| world.run(log.prepare(24 << 20)).unwrap().unwrap()),
    ];
    for (what, ask) in asks {
        let (disk, _, mut world, log) = rig(&Setup::default());
        let (_, paced_ms) = begin(&mut world, &log);
        let begun = world.clock_ns();
        ask(&mut world, &log);
        world.settle().unwrap();
        while what == "a seal" && !disk.exists("data/topic-0/00000000000000000000.seal") {
            world.turn(Wait::Forever).unwrap();
        }
        let took_ms = (world.clock_ns() - begun) / 1_000_000;
        assert!(took_ms < paced_ms / 2, "{what} took {took_ms} ms of {paced_ms}");
    }
}

#[test]
fn zeros_keep_to_a_pace_while_no_bytes_come_and_to_that_of_the_bytes_otherwise() {
    let (_, _, mut world, log) = rig(&Setup::default());
    let (before, paced_ms) = begin(&mut world, &log);
    // Nothing comes meanwhile.
    let begun = world.clock_ns();
    while ready(&world).0 == before {
        world.turn(Wait::Forever).unwrap();
    }
    let bytes = ready(&world).0 - before;
    let took_ms = (world.clock_ns() - begun) / 1_000_000;
    assert!((paced_ms / 2..paced_ms * 2).contains(&took_ms), "{bytes} bytes took {took_ms} ms");
    // Bytes come as fast as they are acked.
    while ready(&world).0 < before + bytes || !ready(&world).1 {
        put(&mut world, &log, 600_000);
    }
    let (before, begun) = (ready(&world).0, world.clock_ns());
    while ready(&world).0 == before {
        put(&mut world, &log, 600_000);
    }
    let bytes = ready(&world).0 - before;
    let took_ms = (world.clock_ns() - begun) / 1_000_000;
    let paced_ms = (bytes - PREZERO_BYTES_AT_ONCE) / PREZERO_BYTES_PER_MS_MIN;
    assert!(took_ms < paced_ms / 2, "{bytes} bytes took {took_ms} ms, {paced_ms} if nothing came");
    assert_eq!(world.close().unwrap(), Ok(()));
}
