//! A process is killed under load, and the next one finds every ack. This is no power cut: what the kernel holds
//! survives it. The simulator has those.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ringmain::types::{FlushPolicy, Isolation, Offset, WriteMode};
use ringmain::{Backend, Config, Engine, LogHandle};

use crate::support::{Dir, batch, block_on, child, from_parent, id_of, read_all, small, value};

const PARTITIONS: u32 = 6;
const KILLS: u64 = 20;

/// `mode`: the write mode of all rounds, if they are not to take turns.
fn config(dir: &std::path::Path, round: u64, mode: Option<WriteMode>) -> Config {
    let turns = if round % 4 == 3 { WriteMode::PageCache } else { WriteMode::Direct };
    Config {
        // Every crash is recovered by another shape of engine than it happened in.
        shards: 1 + round as usize % 3,
        backend: if round % 5 == 4 { Backend::Sync } else { Backend::Auto },
        write_mode: Some(mode.unwrap_or(turns)),
        ..small(dir)
    }
}

fn policy(partition: u32) -> FlushPolicy {
    match partition {
        4 => FlushPolicy::Os,
        5 => FlushPolicy::Interval { ms: 3, bytes: 50_000, messages: 100 },
        _ => FlushPolicy::Group,
    }
}

fn names() -> Vec<(String, u32)> {
    (0..PARTITIONS).map(|n| ("killed".to_owned(), n)).collect()
}

/// The child's part: appends until it is killed, and tells each ack.
#[test]
fn append_until_killed() {
    let Some(dir) = from_parent("RINGMAIN_DIR") else { return };
    let round: u64 = from_parent("RINGMAIN_ROUND").unwrap().parse().unwrap();
    let mode = from_parent("RINGMAIN_MODE").and_then(|mode| mode_of(&mode));
    let engine = Engine::open(config(dir.as_ref(), round, mode)).unwrap();
    let acks = Mutex::new(std::io::stderr());
    std::thread::scope(|scope| {
        for (partition, log) in engine.logs(&names()).unwrap().into_iter().enumerate() {
            let acks = &acks;
            scope.spawn(move || append(&log, (round, partition as u64), acks));
        }
    });
}

fn append(log: &LogHandle, (round, partition): (u64, u64), acks: &Mutex<std::io::Stderr>) {
    log.set_flush_policy_blocking(policy(partition as u32)).unwrap();
    let mut waiting = VecDeque::new();
    for n in 0.. {
        let id = round << 40 | partition << 32 | n;
        let bytes = [20, 300, 2000, 90, 40_000, 15][n as usize % 6] + partition as usize * 7;
        waiting.push_back((id, log.try_append(batch([id], bytes))));
        if waiting.len() == 6
            && let Some((id, sent)) = waiting.pop_front()
        {
            let future = match sent {
                Ok(future) => future,
                Err(rejected) => log.append(rejected.batch),
            };
            let offset = block_on(future).unwrap().base_offset;
            // One write, so that a line is there whole or not at all.
            let line = format!("A {partition} {offset} {id}\n");
            acks.lock().unwrap().write_all(line.as_bytes()).unwrap();
        }
    }
}

fn mode_of(name: &str) -> Option<WriteMode> {
    [WriteMode::Direct, WriteMode::PageCache].into_iter().find(|mode| format!("{mode:?}") == name)
}

type Acked = HashMap<(u32, i64), u64>;

/// Runs a child, kills it `after` its first ack, and returns what it told.
fn run_and_kill(
    dir: &std::path::Path,
    (round, mode): (u64, Option<WriteMode>),
    after: Duration,
    acked: &mut Acked,
) {
    let variables = [
        ("RINGMAIN_DIR", dir.to_str().unwrap()),
        ("RINGMAIN_ROUND", &round.to_string()),
        ("RINGMAIN_MODE", &mode.map_or_else(String::new, |mode| format!("{mode:?}"))),
    ];
    let mut command = child("sigkill::append_until_killed", &variables);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut running = command.spawn().unwrap();
    let mut lines = BufReader::new(running.stderr.take().unwrap());
    let (mut line, mut other) = (String::new(), String::new());
    let mut first = None;
    let mut killed = false;
    while lines.read_line(&mut line).unwrap() > 0 {
        match parse(&line) {
            Some((partition, offset, id)) => {
                let twice = acked.insert((partition, offset), id);
                assert_eq!(twice, None, "offset {offset} of {partition} was given out twice");
                let first = *first.get_or_insert_with(Instant::now);
                if !killed && first.elapsed() >= after {
                    running.kill().unwrap();
                    killed = true;
                }
            }
            None => other.push_str(&line),
        }
        line.clear();
    }
    running.wait().unwrap();
    assert!(killed, "round {round}: the child ended by itself:\n{other}");
}

fn parse(line: &str) -> Option<(u32, i64, u64)> {
    let mut fields = line.strip_prefix("A ")?.strip_suffix('\n')?.split(' ');
    let mut number = || fields.next()?.parse::<i64>().ok();
    Some((number()? as u32, number()?, number()? as u64))
}

fn check(engine: &Engine, acked: &Acked) {
    let report = engine.recovery();
    assert!(report.damage.is_empty() && report.journal_damage.is_empty(), "{report:#?}");
    for (partition, log) in engine.logs(&names()).unwrap().into_iter().enumerate() {
        let mut seen = HashSet::new();
        let mut last = None;
        let mut lost: HashMap<i64, u64> = acked
            .iter()
            .filter(|((of, _), _)| *of == partition as u32)
            .map(|((_, offset), id)| (*offset, *id))
            .collect();
        for (at, (offset, bytes)) in
            read_all(&log, Offset::ZERO, Isolation::Durable).into_iter().enumerate()
        {
            assert_eq!(offset, at as i64, "partition {partition} has no gap");
            let id = id_of(&bytes);
            assert_eq!(bytes, value(id, bytes.len()), "record {offset} of {partition} is intact");
            assert!(seen.insert(id), "record {id} of {partition} is there once");
            assert!(last < Some(id), "partition {partition} keeps its order");
            last = Some(id);
            if let Some(told) = lost.remove(&offset) {
                assert_eq!(id, told, "offset {offset} of {partition} holds what was acked");
            }
        }
        assert!(lost.is_empty(), "partition {partition} lost acks: {lost:?}");
    }
}

/// Kills so many writing processes within `longest_ms` of their first acks. Returns how many acks were given and kept.
pub(crate) fn survive(
    data: &std::path::Path,
    kills: u64,
    longest_ms: u64,
    mode: Option<WriteMode>,
) -> usize {
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    eprintln!("seed {seed}");
    let mut acked = Acked::new();
    let mut state = seed | 1;
    for round in 0..kills {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let after = Duration::from_millis((state >> 33) % longest_ms);
        run_and_kill(data, (round, mode), after, &mut acked);
        let report = ringmain::inspect::verify(data).unwrap();
        assert!(report.is_healthy(), "round {round}: {:#?}", report.problems);
        // Every other crash is recovered by the next child, which crashes in its turn.
        if round % 2 == 1 {
            let engine = Engine::open(config(data, round + 1, mode)).unwrap();
            assert!(!engine.recovery().clean);
            check(&engine, &acked);
            engine.close().unwrap();
            crate::support::verified(data);
        }
    }
    eprintln!("{} acks over {kills} kills", acked.len());
    acked.len()
}

#[test]
fn sigkill_under_load_loses_no_ack() {
    let dir = Dir::new("sigkill");
    let acked = survive(&dir.join("data"), KILLS, 250, None);
    assert!(acked > 1000, "there was load");
}
