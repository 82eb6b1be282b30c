use std::sync::atomic::AtomicUsize;

use super::*;
use crate::batch::BatchBuilder;

#[derive(Debug, Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn send(inbox: &Inbox<()>, bytes: usize) -> Ticket {
    inbox.send(LogId(0), batch(bytes), None, None).unwrap().0
}

#[test]
fn a_sleeping_shard_is_roused_once_for_as_much_as_it_waits_for() {
    let inbox = Inbox::new(1 << 20);
    let count = Arc::new(Count::default());
    inbox.set_wake(count.clone());
    let roused = || count.0.load(Ordering::Relaxed);
    assert!(inbox.fall_asleep(1000));
    send(&inbox, 100);
    assert_eq!(roused(), 0, "too little");
    send(&inbox, 1000);
    send(&inbox, 1000);
    assert_eq!(roused(), 1);
    assert!(!inbox.fall_asleep(1000), "what is there is not slept over");
    let mut arrivals = Arrivals::with_room();
    assert!(inbox.take(&mut arrivals).is_empty());
    assert_eq!(arrivals.requests.len(), 3);
    assert!(inbox.fall_asleep(0));
    send(&inbox, 1);
    assert_eq!(roused(), 2, "the first that comes");
    assert!(inbox.fall_asleep(u64::MAX));
    inbox.call(Box::new(|()| Box::pin(async {})));
    assert_eq!(roused(), 3, "a call does not wait");
}

#[test]
fn an_append_that_a_panic_took_along_is_ended_with_its_outcome_unknown() {
    let inbox = Inbox::new(1 << 20);
    let (lost, queued) = (send(&inbox, 100), {
        let mut taken = Arrivals::with_room();
        inbox.take(&mut taken);
        drop(taken);
        send(&inbox, 10_000)
    });
    inbox.close();
    inbox.end_all(Fault { operation: "the shard", errno: libc::EIO });
    let cx = Context::from_waker(Waker::noop());
    let end = |ticket| match inbox.poll_ended(ticket, &cx) {
        Poll::Ready((result, _)) => result,
        Poll::Pending => panic!("it waits for ever"),
    };
    assert!(matches!(end(lost), Err(AppendError::Unknown(_))));
    assert_eq!(end(queued), Err(AppendError::Closed));
}

fn batch(bytes: usize) -> Batch {
    let mut builder = BatchBuilder::new();
    builder.add(0, None, Some(&vec![7; bytes])).unwrap();
    builder.build().unwrap()
}

#[test]
fn a_small_batch_is_copied_while_there_is_room_for_copies() {
    let inbox: Inbox<()> = Inbox::new(1 << 30);
    let mut copied = 0;
    loop {
        let small = batch(4000);
        let bytes = small.as_bytes().len();
        let (_, memory) = inbox.send(LogId(0), small, None, None).unwrap();
        if memory.capacity() == 0 {
            assert!(copied + bytes > COPIED_BYTES_MAX, "{copied} bytes and no more");
            break;
        }
        assert!(memory.is_empty());
        copied += bytes;
        assert!(copied <= COPIED_BYTES_MAX);
    }
    let mut arrivals = Arrivals::with_room();
    inbox.take(&mut arrivals);
    assert_eq!(arrivals.copied.len(), copied);
    assert!(matches!(arrivals.requests.back().unwrap().body, Body::Moved(_)));
}

#[test]
fn an_append_that_waits_for_room_keeps_its_memory() {
    let inbox = Arc::new(Inbox::new(1));
    let mut cx = Context::from_waker(Waker::noop());
    let mut append = || {
        let mut future = AppendFuture::new(inbox.clone(), LogId(0), batch(100), None);
        assert!(Pin::new(&mut future).poll(&mut cx).is_pending());
        future
    };
    let (mut sent, mut waits) = (append(), append());
    assert!(sent.take_buffer().is_some_and(|memory| memory.capacity() > 0));
    assert_eq!(sent.take_buffer(), None, "taken");
    assert_eq!(waits.take_buffer(), None, "its bytes are nowhere else");
}
