//! Streams of records on the simulated disk: what they do at damage, at a cut, and on the shard itself.

use std::cell::RefCell;
use std::rc::Rc;

use super::workload::{batch, disk, put, rig};
use super::world::{Setup, World, name};
use crate::command::sockets::ReadPath;
use crate::error::ReadError;
use crate::format::batch_header::{ATTRIBUTES_AT, CRC_AT, set_base_offset};
use crate::format::crc::crc32c;
use crate::handle::LogHandle;
use crate::ring::Wait;
use crate::ring::sim::{SimDisk, SimOptions};
use crate::serve::LocalLog;
use crate::shard::net::{ReadPaths, Service, Stop};
use crate::stream::{AfterDamage, StreamError, StreamOptions};
use crate::types::{Isolation, Offset};

fn small() -> Setup {
    Setup { segment_bytes: 64 << 10, ..Setup::default() }
}

/// Offsets of all records, and the damage between them.
fn drain(
    world: &mut World<SimDisk>,
    log: &LogHandle,
    (from, options): (i64, StreamOptions),
) -> (Vec<i64>, Vec<ReadError>) {
    let mut records = log.records(Offset::new(from), options);
    let (mut offsets, mut errors) = (Vec::new(), Vec::new());
    while let Some(record) = world.run(Box::pin(records.next())).unwrap() {
        assert!(errors.len() < 10, "it goes on: {errors:?}");
        match record {
            Ok(record) => offsets.push(record.offset().get()),
            Err(StreamError::Read(error)) => errors.push(error),
            Err(error) => panic!("{error}"),
        }
    }
    let position = records.position().get();
    assert!(offsets.last().is_none_or(|last| *last < position));
    (offsets, errors)
}

/// Batches of `each` records in several segments, all sealed but the last.
fn filled(world: &mut World<SimDisk>, log: &LogHandle, batches: u64) {
    for _ in 0..batches {
        let id = world.oracle.borrow_mut().id();
        world.append(log, id, batch(id, 2, 6000)).unwrap().unwrap();
    }
    while world.context(0).state.borrow().logs[0].as_ref().unwrap().tail.len() > 1 {
        world.turn(Wait::Forever).unwrap();
    }
}

#[test]
fn a_stream_gives_every_record_from_its_offset_to_the_end_of_its_start() {
    let (_disk, _, mut world, log) = rig(&small());
    filled(&mut world, &log, 40);
    for from in [0, 1, 17, 40, 79, 80] {
        for fetch_bytes in [1, 20_000, 1 << 20] {
            let options = StreamOptions { fetch_bytes, ..StreamOptions::default() };
            let (offsets, errors) = drain(&mut world, &log, (from, options));
            assert_eq!(offsets, (from..80).collect::<Vec<_>>(), "{fetch_bytes} bytes at once");
            assert_eq!(errors, []);
        }
    }
    // What comes after the beginning is not part of it.
    let options = StreamOptions { fetch_bytes: 1, ..StreamOptions::default() };
    let mut records = log.records(Offset::new(70), options);
    let first = world.run(Box::pin(records.next())).unwrap().unwrap().unwrap();
    assert_eq!(first.offset(), Offset::new(70));
    filled(&mut world, &log, 3);
    let mut rest = 0;
    while let Some(record) = world.run(Box::pin(records.next())).unwrap() {
        record.unwrap();
        rest += 1;
    }
    assert_eq!((rest, records.position()), (9, Offset::new(80)));
}

#[test]
fn a_damaged_batch_is_told_and_can_be_passed_over() {
    let (disk, _, mut world, log) = rig(&small());
    filled(&mut world, &log, 40);
    let segment = "data/topic-0/00000000000000000000.log";
    let bytes = disk.file_bytes(segment).unwrap();
    let one = crate::batch::batches(&bytes).next().unwrap().unwrap().as_bytes().len();
    let pass = StreamOptions { after_damage: AfterDamage::PassOver, ..StreamOptions::default() };
    let at = |number: usize| (number * one) as u64;
    let damaged = |asked: i64, number: usize| ReadError::Damaged {
        asked: Offset::new(asked),
        segment: Offset::ZERO,
        pos: at(number),
    };
    // In the third batch's records: its length tells where the next one begins.
    disk.corrupt(segment, at(2) + 500, 3);
    let (offsets, errors) = drain(&mut world, &log, (0, StreamOptions::default()));
    assert_eq!((offsets, errors), (vec![0, 1, 2, 3], vec![damaged(4, 2)]));
    let (offsets, errors) = drain(&mut world, &log, (0, pass));
    let rest = |gone: &[i64]| (0..80).filter(|o| !gone.contains(o)).collect::<Vec<_>>();
    assert_eq!((offsets, errors), (rest(&[4, 5]), vec![damaged(4, 2)]));
    // Its length: the index knows the next one.
    disk.corrupt(segment, at(2) + 8, 4);
    let (offsets, errors) = drain(&mut world, &log, (0, pass));
    assert_eq!((offsets, errors), (rest(&[4, 5]), vec![damaged(4, 2)]));
    // The last one of the segment: on to the next segment.
    let last = bytes.len() / one - 1;
    disk.corrupt(segment, at(last) + 8, 4);
    let (offsets, errors) = drain(&mut world, &log, (6, pass));
    let gone = [2 * last as i64, 2 * last as i64 + 1];
    let expected: Vec<i64> = (6..80).filter(|offset| !gone.contains(offset)).collect();
    assert_eq!((offsets, errors), (expected, vec![damaged(gone[0], last)]));
}

#[test]
fn a_stream_that_follows_keeps_to_one_history() {
    let (_disk, _, mut world, log) = rig(&small());
    filled(&mut world, &log, 4);
    let follow =
        StreamOptions { follow: true, isolation: Isolation::Dirty, ..StreamOptions::default() };
    let seen: Rc<RefCell<Vec<Result<i64, String>>>> = Rc::default();
    let (mut records, told) = (log.records(Offset::ZERO, follow), seen.clone());
    world.spawn(async move {
        while let Some(record) = records.next().await {
            let offset = record.map(|record| record.offset().get());
            told.borrow_mut().push(offset.map_err(|error| error.to_string()));
        }
    });
    for round in 0..3 {
        while seen.borrow().len() < 8 + 2 * round {
            world.turn(Wait::Forever).unwrap();
        }
        filled(&mut world, &log, 1);
    }
    while seen.borrow().len() < 14 {
        world.turn(Wait::Forever).unwrap();
    }
    world.truncate(&log, 6);
    world.settle().unwrap();
    let seen = seen.take();
    let offsets: Vec<i64> = seen.iter().filter_map(|one| one.clone().ok()).collect();
    assert_eq!(offsets, (0..14).collect::<Vec<_>>());
    let last = seen.last().unwrap().clone();
    assert!(last.clone().is_err_and(|error| error.contains("cut back to 6")), "{last:?}");
}

#[test]
fn the_shard_reads_its_own_logs_as_handles_do() {
    let (_disk, _, mut world, log) = rig(&small());
    filled(&mut world, &log, 20);
    let cx = world.context(0);
    let id = cx.state.borrow().logs[0].as_ref().unwrap().identity.id;
    let service = Service::new(Stop::new(), ReadPaths::all(ReadPath::Copy));
    let local = LocalLog::new(cx.clone(), service, id);
    let task = cx.tasks.spawn(async move {
        let mut records = local.records(Offset::new(3), StreamOptions::default());
        let mut offsets = Vec::new();
        while let Some(record) = records.next().await {
            offsets.push(record.unwrap().offset().get());
        }
        assert_eq!(records.position(), Offset::new(40));
        offsets
    });
    assert_eq!(world.run(task).unwrap(), (3..40).collect::<Vec<_>>());
    let ended = world.run(log.fetch(crate::Fetch::from(Offset::new(41)))).unwrap();
    assert!(matches!(ended, Err(ReadError::OutOfRange { .. })));
    put(&mut world, &log, 10);
    assert!(world.has(&name("topic")));
}

#[test]
fn control_batches_are_given_to_those_who_ask() {
    // No client may append one: it comes with a directory that a broker wrote.
    let mut bytes = Vec::new();
    for number in 0..6_usize {
        let mut one = batch(number as u64, 5, 200).into_bytes();
        set_base_offset(&mut one, Offset::new(5 * number as i64));
        one[ATTRIBUTES_AT + 1] |= u8::from(number % 2 == 1) << 5;
        let crc = crc32c(&one[ATTRIBUTES_AT..]);
        one[CRC_AT..ATTRIBUTES_AT].copy_from_slice(&crc.to_be_bytes());
        bytes.extend_from_slice(&one);
    }
    let disk = disk(SimOptions::default());
    disk.set_file_bytes("data/topic-0/00000000000000000000.log", &bytes);
    let mut world = World::open(&disk, &small(), &Rc::default()).unwrap();
    let log = world.log(&name("topic")).unwrap();
    let mut given = |control| {
        let options = StreamOptions { control, ..StreamOptions::default() };
        let mut records = log.records(Offset::ZERO, options);
        let mut given = Vec::new();
        while let Some(record) = world.run(Box::pin(records.next())).unwrap() {
            let record = record.unwrap();
            given.push((record.offset().get(), record.is_control()));
        }
        assert_eq!(records.position(), Offset::new(30));
        given
    };
    let all: Vec<_> = (0..30).map(|offset| (offset, offset / 5 % 2 == 1)).collect();
    assert_eq!(given(true), all);
    let plain: Vec<_> = all.into_iter().filter(|(_, control)| !control).collect();
    assert_eq!(given(false), plain);
}
