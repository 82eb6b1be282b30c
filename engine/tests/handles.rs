//! Handles and futures: any thread, any executor, dropped at any time.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use ringmain::error::{AppendError, ControlError, ReadError};
use ringmain::types::{Isolation, Offset};
use ringmain::{Config, Engine, LogHandle};

use crate::support::{batch, block_on, everywhere, id_of, ids, read_all};

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn many_threads_share_a_log_and_each_keeps_its_order() {
    everywhere("threads", |config| {
        let engine = Engine::open(config).unwrap();
        let log = engine.log("shared", 0).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..8_u64 {
                let log = log.clone();
                scope.spawn(move || {
                    for n in 0..100 {
                        let id = thread << 32 | n;
                        let appended = log.append_blocking(batch([id], 200)).unwrap();
                        let bytes = log.read_blocking(appended.base_offset, 1, Isolation::Durable);
                        let bytes = bytes.unwrap();
                        let mut found = ringmain::batch::batches(&bytes);
                        let found = found.next().unwrap().unwrap();
                        let record = found.records().unwrap().next().unwrap().unwrap();
                        assert_eq!(id_of(record.value.unwrap()), id, "an ack can be read");
                    }
                });
            }
        });
        let all = ids(&log);
        assert_eq!(all.len(), 800);
        for thread in 0..8 {
            let own: Vec<u64> = all.iter().filter(|id| *id >> 32 == thread).copied().collect();
            assert!(own.is_sorted() && own.len() == 100);
        }
    });
}

#[test]
fn a_dropped_future_harms_neither_its_append_nor_another() {
    everywhere("dropped", |config| {
        let engine = Engine::open(config).unwrap();
        let log = engine.log("dropped", 0).unwrap();
        let mut kept = Vec::new();
        for id in 0..400 {
            let mut future = Box::pin(log.append(batch([id], 100)));
            match id % 4 {
                // Never polled: never sent.
                0 => drop(future),
                // Sent, then dropped.
                1 => drop(poll_once(future.as_mut())),
                2 => {
                    let _ = poll_once(future.as_mut());
                    kept.push((id, future));
                }
                _ => drop(log.try_append(batch([id], 100)).unwrap()),
            }
            // Reads and control calls, dropped too.
            drop(Box::pin(log.flush()));
            let mut read = Box::pin(log.read(Offset::ZERO, 100, Isolation::Dirty));
            let _ = poll_once(read.as_mut());
        }
        for (id, future) in kept {
            let appended = block_on(future).unwrap();
            let bytes = log.read_blocking(appended.base_offset, 1, Isolation::Durable).unwrap();
            let found = ringmain::batch::batches(&bytes).next().unwrap().unwrap();
            let record = found.records().unwrap().next().unwrap().unwrap();
            assert_eq!(id_of(record.value.unwrap()), id);
        }
        let sent: Vec<u64> = (0..400).filter(|id| id % 4 != 0).collect();
        assert_eq!(ids(&log), sent);
    });
}

#[test]
fn one_buffer_serves_all_small_appends_under_way() {
    everywhere("one-buffer", |config| {
        let engine = Engine::open(config).unwrap();
        let log = engine.log("one-buffer", 0).unwrap();
        let (mut under_way, mut spare) = (Vec::new(), Vec::new());
        for id in 0..100 {
            let small = batch([id], 100).copy_in(spare);
            let at = small.as_bytes().as_ptr();
            let mut future = log.append(small);
            assert_eq!(future.take_buffer(), None, "not sent yet");
            assert!(poll_once(Pin::new(&mut future)).is_pending());
            spare = future.take_buffer().expect("copied as it was sent");
            assert!(spare.is_empty() && spare.as_ptr() == at, "the batch's own memory");
            assert_eq!(future.take_buffer(), None, "taken");
            under_way.push(future);
        }
        for future in under_way {
            assert_eq!(block_on(future).unwrap().buffer.capacity(), 0);
        }
        let mut large = log.append(batch([100], 64 << 10));
        let _ = poll_once(Pin::new(&mut large));
        assert_eq!(large.take_buffer(), None, "its memory went along");
        assert!(block_on(large).unwrap().buffer.capacity() >= 64 << 10);
        assert!(ids(&log).into_iter().eq(0..=100));
    });
}

#[test]
fn every_future_has_a_foreign_executor_and_a_blocking_twin() {
    everywhere("twins", |config| {
        let engine = Engine::open(config).unwrap();
        let log = engine.log("twins", 0).unwrap();
        let policy = ringmain::types::FlushPolicy::Os;
        block_on(async {
            log.append(batch([0], 100)).await.unwrap();
            log.append_at(Offset::new(1), 0, batch([1], 100)).await.unwrap();
            log.set_flush_policy(policy).await.unwrap();
            log.prepare(100_000).await.unwrap();
            log.flush().await.unwrap();
            log.roll().await.unwrap();
            log.checkpoint().await.unwrap();
            assert_eq!(log.watermarks().await.unwrap().durable.get(), 2);
            let read = log.read(Offset::ZERO, 1 << 20, Isolation::Durable).await.unwrap();
            let (into, buffer) =
                log.read_into(Offset::ZERO, Vec::with_capacity(1 << 20), Isolation::Durable).await;
            assert_eq!(into.unwrap(), read.len());
            assert_eq!(buffer, read);
            log.truncate_to(Offset::new(1)).await.unwrap();
        });
        log.append_blocking(batch([1], 100)).unwrap();
        log.append_at_blocking(Offset::new(2), 0, batch([2], 100)).unwrap();
        log.set_flush_policy_blocking(ringmain::types::FlushPolicy::Group).unwrap();
        log.prepare_blocking(1000).unwrap();
        log.flush_blocking().unwrap();
        log.roll_blocking().unwrap();
        log.checkpoint_blocking().unwrap();
        log.truncate_to_blocking(Offset::new(2)).unwrap();
        assert_eq!(ids(&log), [0, 1]);
    });
}

/// Fills the budget of one shard without waiting. Returns what was taken and what was not.
fn overload(log: &LogHandle) -> (Vec<ringmain::AppendFuture>, usize) {
    let mut taken = Vec::new();
    let mut refused = 0;
    // Made before, so that they come faster than any disk takes them.
    let batches: Vec<_> = (0..600).map(|id| batch([id], 50_000)).collect();
    for given in &batches {
        match log.try_append(given.clone()) {
            Ok(future) => taken.push(future),
            Err(rejected) => {
                assert_eq!(rejected.error, AppendError::Overloaded);
                assert_eq!(rejected.batch, *given, "the batch comes back as it was");
                refused += 1;
            }
        }
    }
    (taken, refused)
}

#[test]
fn an_overloaded_shard_gives_the_batch_back_and_recovers() {
    everywhere("overload", |config| {
        let config = Config { memory_bytes: 8 << 20, shards: 1, ..config };
        let engine = Engine::open(config).unwrap();
        let log = engine.log("busy", 0).unwrap();
        let (taken, refused) = overload(&log);
        assert!(refused > 0, "2 MiB of budget do not hold 30 MB at once");
        let count = taken.len();
        for future in taken {
            block_on(future).unwrap();
        }
        // Those that wait instead all get through, however many they are.
        std::thread::scope(|scope| {
            for thread in 0..16 {
                let log = log.clone();
                scope.spawn(move || {
                    for n in 0..20 {
                        log.append_blocking(batch([thread * 100 + n], 300_000)).unwrap();
                    }
                });
            }
        });
        assert_eq!(read_all(&log, Offset::ZERO, Isolation::Durable).len(), count + 320);
    });
}

#[test]
fn a_handle_outlives_its_engine_and_says_closed() {
    everywhere("closed", |config| {
        let engine = Engine::open(config).unwrap();
        let log = engine.log("closed", 0).unwrap();
        log.append_blocking(batch([0], 100)).unwrap();
        engine.close().unwrap();
        assert_eq!(log.append_blocking(batch([1], 100)).unwrap_err(), AppendError::Closed);
        assert!(
            matches!(log.try_append(batch([1], 100)), Err(r) if r.error == AppendError::Closed)
        );
        let read = log.read_blocking(Offset::ZERO, 100, Isolation::Durable);
        assert_eq!(read, Err(ReadError::Closed));
        assert_eq!(log.flush_blocking(), Err(ControlError::Closed));
        assert_eq!(log.watermarks_blocking(), Err(ControlError::Closed));
    });
}

#[test]
fn appends_that_race_with_the_close_all_end() {
    everywhere("race", |config| {
        for round in 0..5 {
            let engine = Engine::open(config.clone()).unwrap();
            let log = engine.log("race", 0).unwrap();
            let before = log.watermarks_blocking().unwrap().dirty.get();
            let acked = std::thread::scope(|scope| {
                let clients: Vec<_> = (0..4)
                    .map(|client| {
                        let log = log.clone();
                        scope.spawn(move || {
                            for n in 0.. {
                                let id = round << 48 | client << 32 | n;
                                match log.append_blocking(batch([id], 100)) {
                                    Ok(_) => {}
                                    Err(AppendError::Closed) => return n,
                                    Err(error) => panic!("{error}"),
                                }
                            }
                            unreachable!("the engine closes")
                        })
                    })
                    .collect();
                while log.watermarks_blocking().is_ok_and(|m| m.dirty.get() < before + 50) {}
                engine.close().unwrap();
                clients.into_iter().map(|client| client.join().unwrap()).sum::<u64>()
            });
            let engine = Engine::open(config.clone()).unwrap();
            assert!(engine.recovery().clean);
            let after = engine.log("race", 0).unwrap().watermarks_blocking().unwrap().dirty;
            assert_eq!(after.get() - before, acked as i64, "acked and nothing else");
        }
    });
}
