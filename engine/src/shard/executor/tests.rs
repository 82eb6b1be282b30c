use std::sync::atomic::AtomicUsize;

use super::*;
use crate::local::{Notify, Semaphore, join_bounded};

fn run_all(executor: &Executor) {
    while executor.run_ready(usize::MAX) {}
}

fn output<T: 'static>(executor: &Executor, handle: JoinHandle<T>) -> Option<T> {
    let taken = Rc::new(RefCell::new(None));
    let to = Rc::clone(&taken);
    executor.spawn(async move { *to.borrow_mut() = Some(handle.await) });
    run_all(executor);
    taken.take()
}

/// Counts its drops.
struct Counted(Rc<Cell<usize>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

#[derive(Default)]
struct CountingWake(AtomicUsize);

impl ring::Wake for CountingWake {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_task_runs_and_its_output_arrives() {
    let executor = Executor::new();
    assert!(!executor.has_ready() && !executor.run_ready(1));
    let handle = executor.spawn(async { 7 });
    assert!(executor.has_ready());
    assert_eq!(output(&executor, handle), Some(7));
    assert_eq!(executor.tasks(), 0);
}

#[test]
fn a_task_starts_others_from_within() {
    let executor = Executor::new();
    let spawner = executor.spawner();
    let handle = executor.spawn(async move {
        let inner = spawner.clone();
        1 + spawner.spawn(async move { 1 + inner.spawn(async { 1 }).await }).await
    });
    assert_eq!(output(&executor, handle), Some(3));
}

#[test]
fn a_budget_bounds_the_polls() {
    let executor = Executor::new();
    let ran = Rc::new(Cell::new(0));
    for _ in 0..3 {
        let ran = Rc::clone(&ran);
        drop(executor.spawn(async move { ran.set(ran.get() + 1) }));
    }
    assert!(executor.run_ready(2));
    assert_eq!((ran.get(), executor.has_ready()), (2, true));
    assert!(executor.run_ready(2));
    assert_eq!((ran.get(), executor.has_ready()), (3, false));
}

#[test]
fn many_wakes_are_one_poll_and_a_wake_during_a_poll_counts() {
    let executor = Executor::new();
    let polls = Rc::new(Cell::new(0));
    let counter = Rc::clone(&polls);
    drop(executor.spawn(std::future::poll_fn(move |cx| {
        counter.set(counter.get() + 1);
        if counter.get() < 3 {
            cx.waker().wake_by_ref();
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    })));
    run_all(&executor);
    assert_eq!(polls.get(), 3);
}

#[test]
fn slots_are_reused_and_a_stale_waker_does_not_poll_the_next_task() {
    let executor = Executor::new();
    let kept = Rc::new(RefCell::new(None));
    let to = Rc::clone(&kept);
    drop(executor.spawn(std::future::poll_fn(move |cx| {
        *to.borrow_mut() = Some(cx.waker().clone());
        Poll::Ready(())
    })));
    run_all(&executor);
    let polls = Rc::new(Cell::new(0));
    let counter = Rc::clone(&polls);
    drop(executor.spawn(std::future::poll_fn(move |_| {
        counter.set(counter.get() + 1);
        Poll::<()>::Pending
    })));
    run_all(&executor);
    assert_eq!(executor.inner.tasks.borrow().slots.len(), 1);
    kept.take().expect("a waker").wake();
    run_all(&executor);
    assert_eq!(polls.get(), 1);
}

#[test]
fn a_wake_from_another_thread_ends_the_rings_sleep_and_one_from_its_own_does_not() {
    let ring = Arc::new(CountingWake::default());
    let executor = Executor::with_waker(Arc::clone(&ring) as Arc<dyn ring::Wake>);
    let kept: Rc<RefCell<Option<Waker>>> = Rc::default();
    let to = Rc::clone(&kept);
    let polls = Rc::new(Cell::new(0));
    let counter = Rc::clone(&polls);
    drop(executor.spawn(std::future::poll_fn(move |cx| {
        counter.set(counter.get() + 1);
        to.replace(Some(cx.waker().clone()));
        Poll::<()>::Pending
    })));
    run_all(&executor);
    let waker = kept.take().expect("a waker");
    waker.wake_by_ref();
    assert_eq!((executor.has_ready(), ring.0.load(Ordering::SeqCst)), (true, 0));
    run_all(&executor);
    thread::spawn(move || waker.wake()).join().unwrap();
    assert_eq!((executor.has_ready(), ring.0.load(Ordering::SeqCst)), (true, 1));
    run_all(&executor);
    assert_eq!(polls.get(), 3);
}

#[test]
fn dropping_the_executor_drops_tasks_queued_or_waiting() {
    let drops = Rc::new(Cell::new(0));
    let executor = Executor::new();
    let spawner = executor.spawner();
    let waiting = Counted(Rc::clone(&drops));
    drop(executor.spawn(async move {
        let _waiting = waiting;
        std::future::pending::<()>().await;
    }));
    run_all(&executor);
    let queued = Counted(Rc::clone(&drops));
    drop(executor.spawn(async move { drop(queued) }));
    let ready = Arc::downgrade(&executor.inner.ready);
    drop(executor);
    assert_eq!(drops.get(), 2);
    let late = Counted(Rc::clone(&drops));
    drop(spawner.spawn(async move { drop(late) }));
    assert_eq!(drops.get(), 3, "a task of an executor that is gone is dropped at once");
    drop(spawner);
    assert!(ready.upgrade().is_none(), "the queue is freed");
}

#[test]
fn a_finished_task_is_dropped_although_its_waker_lives() {
    let executor = Executor::new();
    let drops = Rc::new(Cell::new(0));
    let held = Counted(Rc::clone(&drops));
    let kept = Rc::new(RefCell::new(None));
    let to = Rc::clone(&kept);
    drop(executor.spawn(async move {
        let _held = held;
        std::future::poll_fn(|cx| {
            to.replace(Some(cx.waker().clone()));
            Poll::Ready(())
        })
        .await;
    }));
    run_all(&executor);
    assert_eq!(drops.get(), 1);
    assert!(kept.borrow().is_some());
}

#[test]
fn sleepers_wake_in_the_order_of_their_deadlines() {
    let executor = Executor::new();
    let woken = Rc::new(RefCell::new(Vec::new()));
    for deadline_ns in [30, 10, 20, 10] {
        let (woken, sleep) = (Rc::clone(&woken), executor.spawner().sleep_until(deadline_ns));
        drop(executor.spawn(async move {
            sleep.await;
            woken.borrow_mut().push(deadline_ns);
        }));
    }
    run_all(&executor);
    assert_eq!(executor.next_deadline(), Some(10));
    executor.fire_timers(9);
    assert!(!executor.has_ready());
    executor.fire_timers(20);
    run_all(&executor);
    assert_eq!(*woken.borrow(), [10, 10, 20]);
    assert_eq!(executor.next_deadline(), Some(30));
    executor.fire_timers(31);
    run_all(&executor);
    assert_eq!((woken.borrow().len(), executor.next_deadline()), (4, None));
}

#[test]
fn a_sleep_of_the_past_ends_at_once_and_a_dropped_one_leaves_no_deadline() {
    let executor = Executor::new();
    executor.fire_timers(100);
    let handle = executor.spawn(executor.spawner().sleep_until(100));
    assert_eq!(output(&executor, handle), Some(()));
    let mut sleep = Box::pin(executor.spawner().sleep_until(200));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(sleep.as_mut().poll(&mut cx).is_pending());
    assert_eq!(executor.next_deadline(), Some(200));
    drop(sleep);
    assert_eq!(executor.next_deadline(), None);
}

#[test]
fn a_receiver_hears_of_the_value_or_of_the_senders_end() {
    let executor = Executor::new();
    let (sender, receiver) = oneshot();
    let handle = executor.spawn(receiver);
    run_all(&executor);
    sender.send(5);
    assert_eq!(output(&executor, handle), Some(Some(5)));
    let (sender, receiver) = oneshot::<u8>();
    let handle = executor.spawn(receiver);
    run_all(&executor);
    drop(sender);
    assert_eq!(output(&executor, handle), Some(None));
}

#[test]
fn a_semaphore_never_lets_more_in_than_it_has_permits_and_serves_in_order() {
    let executor = Executor::new();
    let semaphore = Semaphore::new(2);
    let inside = Rc::new(Cell::new(0_usize));
    let order = Rc::new(RefCell::new(Vec::new()));
    for number in 0..6 {
        let (semaphore, inside) = (semaphore.clone(), Rc::clone(&inside));
        let (order, spawner) = (Rc::clone(&order), executor.spawner());
        drop(executor.spawn(async move {
            let _permit = semaphore.acquire().await;
            inside.set(inside.get() + 1);
            assert!(inside.get() <= 2);
            order.borrow_mut().push(number);
            spawner.sleep_until(10 * (number + 1)).await;
            inside.set(inside.get() - 1);
        }));
    }
    run_all(&executor);
    assert_eq!(inside.get(), 2);
    while let Some(deadline_ns) = executor.next_deadline() {
        executor.fire_timers(deadline_ns);
        run_all(&executor);
    }
    assert_eq!(*order.borrow(), [0, 1, 2, 3, 4, 5]);
    assert_eq!(executor.tasks(), 0);
}

#[test]
fn a_permit_granted_to_a_dropped_waiter_goes_to_the_next() {
    let semaphore = Semaphore::new(1);
    let mut cx = Context::from_waker(Waker::noop());
    let mut first = Box::pin(semaphore.acquire());
    let Poll::Ready(permit) = first.as_mut().poll(&mut cx) else { panic!("a free permit") };
    let mut waiters: Vec<_> = (0..3).map(|_| Box::pin(semaphore.acquire())).collect();
    assert!(!semaphore.is_awaited(), "nobody waits before it was polled");
    for waiter in &mut waiters {
        assert!(waiter.as_mut().poll(&mut cx).is_pending());
    }
    drop(waiters.remove(1));
    drop(permit);
    assert!(semaphore.is_awaited(), "the last one still waits");
    drop(waiters.remove(0));
    assert!(!semaphore.is_awaited(), "the last one has its permit, taken or not");
    let Poll::Ready(permit) = waiters[0].as_mut().poll(&mut cx) else { panic!("the last waiter") };
    drop(permit);
    let again = Box::pin(semaphore.acquire()).as_mut().poll(&mut cx).is_ready();
    assert!(again, "the permit came back");
}

#[test]
fn a_notification_ends_every_wait_before_it_and_none_after() {
    let executor = Executor::new();
    let notify = Notify::new();
    let before = [executor.spawn(notify.notified()), executor.spawn(notify.notified())];
    let unpolled = notify.notified();
    run_all(&executor);
    notify.notify();
    for handle in before {
        assert_eq!(output(&executor, handle), Some(()));
    }
    assert_eq!(output(&executor, executor.spawn(unpolled)), Some(()));
    assert_eq!(output(&executor, executor.spawn(notify.notified())), None);
}

#[test]
fn joining_keeps_order_and_bound() {
    let executor = Executor::new();
    let (running, most) = (Rc::new(Cell::new(0_usize)), Rc::new(Cell::new(0)));
    let futures = (0..20_u64).map({
        let (running, most, spawner) = (Rc::clone(&running), Rc::clone(&most), executor.spawner());
        move |number| {
            let (running, most) = (Rc::clone(&running), Rc::clone(&most));
            let sleep = spawner.sleep_until(1 + (number * 7) % 20);
            async move {
                running.set(running.get() + 1);
                most.set(most.get().max(running.get()));
                sleep.await;
                running.set(running.get() - 1);
                number
            }
        }
    });
    let handle = executor.spawn(join_bounded(3, futures));
    run_all(&executor);
    while let Some(deadline_ns) = executor.next_deadline() {
        executor.fire_timers(deadline_ns);
        run_all(&executor);
    }
    assert_eq!(output(&executor, handle), Some((0..20).collect()));
    assert_eq!(most.get(), 3);
    let none: [std::future::Ready<u8>; 0] = [];
    assert_eq!(output(&executor, executor.spawn(join_bounded(1, none))), Some(vec![]));
}
