use std::cell::Cell;
use std::collections::HashMap;
use std::future::{poll_fn, ready};
use std::sync::mpsc;
use std::task::Waker;

use super::*;

const ONE: Acked = Acked { records: 1, bytes: 100 };

fn load(clients: u32, millis: u64) -> Load {
    Load {
        clients,
        warm_up: Duration::ZERO,
        measured: Duration::from_millis(millis),
        spin: Duration::ZERO,
        bytes_max: u64::MAX,
    }
}

/// A future that is ready when another thread has been told of it and has woken it.
fn served(to: &mpsc::Sender<(u32, Waker)>, client: u32) -> impl Future<Output = ()> + use<> {
    let (to, mut told) = (to.clone(), false);
    poll_fn(move |context| {
        if told {
            return Poll::Ready(());
        }
        told = true;
        to.send((client, context.waker().clone())).expect("the server lives");
        Poll::Pending
    })
}

#[test]
fn every_client_has_one_request_in_flight_and_all_are_served() {
    let (to, from) = mpsc::channel::<(u32, Waker)>();
    let server = std::thread::spawn(move || {
        let mut served = HashMap::new();
        while let Ok((client, waker)) = from.recv() {
            *served.entry(client).or_insert(0_u64) += 1;
            waker.wake();
        }
        served
    });
    let board = Board::leaked(130);
    let in_flight = Cell::new(0_i32);
    let mut acks = 0_u64;
    let sample = {
        let in_flight = &in_flight;
        let mut target = target(
            move |client| {
                in_flight.set(in_flight.get() + 1);
                served(&to, client)
            },
            |_, ()| {
                assert!(in_flight.get() <= 130);
                in_flight.set(in_flight.get() - 1);
                acks += 1;
                Ok(ONE)
            },
        );
        drive(&mut target, &load(130, 50), board).expect("runs")
    };
    let served = server.join().expect("no panic");
    assert_eq!(in_flight.get(), 0, "nothing is left in flight");
    assert_eq!(served.len(), 130, "every client is served");
    assert_eq!(served.values().sum::<u64>(), acks);
    assert!(sample.records > 0 && sample.records <= acks);
    assert_eq!(sample.latencies.count(), sample.records);
}

#[test]
fn the_warm_up_does_not_count() {
    let warm_up = Duration::from_millis(30);
    // Read before the run begins, so that an ack before `warm` is one of the warm-up for certain.
    let warm = Instant::now() + warm_up;
    let (mut acks, mut warm_acks) = (0_u64, 0_u64);
    let sample = {
        let mut target = target(
            |_| ready(()),
            |_, ()| {
                acks += 1;
                warm_acks += u64::from(Instant::now() < warm);
                Ok(ONE)
            },
        );
        drive(&mut target, &Load { warm_up, ..load(1, 30) }, Board::leaked(1)).expect("runs")
    };
    assert!(warm_acks > 0, "the run had a warm-up");
    assert!(sample.records <= acks - warm_acks, "{} of {acks}, {warm_acks} warm", sample.records);
    assert_eq!(sample.latencies.count(), sample.records);
}

#[test]
fn a_failed_request_ends_the_run_and_names_the_client() {
    let mut target =
        target(ready, |_, client| if client == 3 { bail!("disk full") } else { Ok(ONE) });
    // Clients 0 to 2 would go on for ever without letting 3 in, if a ready client hogged the thread.
    let error = drive(&mut target, &load(8, 1), Board::leaked(8)).expect_err("client 3 fails");
    assert_eq!(format!("{error:#}"), "client 3: disk full");
}

#[test]
fn a_wake_between_the_last_look_and_the_sleep_is_not_lost() {
    const SLEEP: Duration = Duration::from_secs(60);
    let board = Board::leaked(70);
    board.enlist();
    // Nobody sleeps yet, so this wake only leaves its bit.
    board.waker(69).wake_by_ref();
    let begin = Instant::now();
    board.wait(Duration::ZERO, SLEEP);
    assert!(begin.elapsed() < SLEEP / 2, "slept over a wake");
    assert_eq!((board.take(0), board.take(1)), (0, 1 << 5));
}

#[test]
fn an_ack_wakes_the_sleeping_thread() {
    // Each request needs one wake from another thread; without it, each would cost a sleep of 100 ms.
    let (to, from) = mpsc::channel::<(u32, Waker)>();
    let server = std::thread::spawn(move || from.iter().for_each(|(_, waker)| waker.wake()));
    let sample = {
        let mut target = target(move |client| served(&to, client), |_, ()| Ok(ONE));
        drive(&mut target, &load(1, 300), Board::leaked(1)).expect("runs")
    };
    server.join().expect("no panic");
    assert!(sample.records > 10, "{}", sample.records);
}

#[test]
fn a_wake_after_the_run_is_harmless() {
    let board = Board::leaked(1);
    let late = board.waker(0).clone();
    let mut target = target(|_| ready(()), |_, ()| Ok(ONE));
    drive(&mut target, &load(1, 1), board).expect("runs");
    late.wake_by_ref();
    drive(&mut target, &load(1, 1), board).expect("runs again");
    late.wake();
}
