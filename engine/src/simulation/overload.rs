//! Memory that is full: whatever was taken is acknowledged all the same, and can be read.

use std::cell::RefCell;
use std::rc::Rc;

use super::for_seeds;
use super::oracle::{End, Fate, Oracle};
use super::workload::{batch, disk, reopen};
use super::world::{Rng, Setup, name};
use crate::ring::Wait;
use crate::ring::sim::SimOptions;
use crate::types::{Durability, FlushPolicy};

const TAKEN: usize = 300;

/// Sends until so many were taken, faster than the disk takes them. Returns how often one was refused.
fn overloaded(seed: u64, partitions: u64, policy: FlushPolicy) -> usize {
    let durability = [Durability::Dsync, Durability::Fdatasync][seed as usize % 2];
    let setup = Setup {
        memory_bytes: 8 << 20,
        segment_bytes: 1 << 20,
        policy,
        durability,
        seed,
        ..Setup::default()
    };
    let disk = disk(SimOptions { seed, ..SimOptions::default() });
    let oracle: Rc<RefCell<Oracle>> = Rc::default();
    let mut world = reopen(&disk, &setup, &oracle, End::Power);
    let logs: Vec<_> =
        (0..partitions).map(|n| world.log(&name(&format!("busy{n}"))).unwrap()).collect();
    let mut rng = Rng(seed);
    let (mut taken, mut refused) = (0, 0);
    while taken < TAKEN {
        let log = &logs[rng.below(partitions) as usize];
        let id = oracle.borrow_mut().id();
        let bytes = [50_000, 300_000, 3000][rng.below(3) as usize];
        if world.send(log, id, batch(id, 1, bytes)) {
            taken += 1;
        } else {
            refused += 1;
            world.turn(Wait::Forever).unwrap();
        }
    }
    world.settle().unwrap();
    let mut oracle = oracle.borrow_mut();
    let acked = logs.iter().map(|log| {
        let sent = &oracle.track(log.name()).sent;
        sent.iter().filter(|sent| sent.fate == Fate::Acked).count()
    });
    assert_eq!(acked.sum::<usize>(), taken, "seed {seed}: what was taken is acknowledged");
    drop(oracle);
    for log in &logs {
        world.read_all(log).unwrap();
    }
    refused
}

#[test]
fn what_a_full_memory_took_is_acknowledged_and_can_be_read() {
    for_seeds(0..4, |seed| {
        for policy in [FlushPolicy::Group, FlushPolicy::Os] {
            for partitions in [1, 3, 40] {
                let refused = overloaded(seed, partitions, policy);
                assert!(refused > 10, "there was an overload");
            }
        }
    });
}
