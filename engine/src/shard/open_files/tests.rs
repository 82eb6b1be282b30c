//! The table alone: the test plays the disk.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::command::Done;

struct Rig {
    files: OpenFiles,
    disk: ShardDisk,
    opened: Cell<u32>,
    closed: RefCell<Vec<u32>>,
}

type Pending<'a> = Pin<Box<dyn Future<Output = io::Result<Lease>> + 'a>>;

impl Rig {
    fn new(files_max: usize) -> Self {
        let disk = ShardDisk::default();
        let files = OpenFiles::new(disk.clone(), files_max, 4096);
        Self { files, disk, opened: Cell::new(0), closed: RefCell::default() }
    }

    fn key(base: i64) -> Key {
        Key { log: LogId(0), base: Offset::new(base), kind: Kind::Log }
    }

    fn open(&self, base: i64) -> Pending<'_> {
        Box::pin(self.files.open(Self::key(base), PathBuf::new(), OpenMode::default()))
    }

    /// Ends every operation that was begun; opens succeed unless `fails`.
    fn serve(&self, fails: bool) {
        while let Some((number, op)) = self.disk.pop() {
            let result = match op {
                Op::Open { .. } if fails => Err(io::Error::from_raw_os_error(libc::EMFILE)),
                Op::Open { .. } => {
                    self.opened.set(self.opened.get() + 1);
                    Ok(Done::File(FileHandle(self.opened.get())))
                }
                Op::Length { file } => Ok(Done::Length(file.0.into())),
                Op::Close { file } => {
                    self.closed.borrow_mut().push(file.0);
                    Ok(Done::Unit)
                }
                other => unreachable!("{other:?}"),
            };
            self.disk.end(number, result);
        }
    }

    fn lease(&self, base: i64) -> Lease {
        let mut opening = self.open(base);
        loop {
            if let Some(lease) = poll(&mut opening) {
                return lease.unwrap();
            }
            self.serve(false);
        }
    }

    fn closed(&self) -> Vec<u32> {
        self.serve(false);
        self.closed.borrow().clone()
    }
}

fn poll(pending: &mut Pending<'_>) -> Option<io::Result<Lease>> {
    match pending.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}

#[test]
fn a_file_is_opened_once_for_all_who_want_it() {
    let rig = Rig::new(4);
    let (mut first, mut second) = (rig.open(7), rig.open(7));
    assert!(poll(&mut first).is_none() && poll(&mut second).is_none());
    rig.serve(false);
    assert!(poll(&mut first).is_none(), "the length is still to come");
    rig.serve(false);
    let first = poll(&mut first).unwrap().unwrap();
    let second = poll(&mut second).unwrap().unwrap();
    assert_eq!((first.file(), first.length()), (second.file(), 1));
    drop((first, second));
    assert_eq!(rig.lease(7).file(), FileHandle(1), "it stayed open");
    assert_eq!(rig.files.open_count(), 1);
}

#[test]
fn the_least_recently_used_file_makes_room_and_a_leased_one_never_does() {
    let rig = Rig::new(2);
    let first = rig.lease(1);
    drop(rig.lease(2));
    drop(rig.lease(3));
    assert_eq!((rig.closed(), rig.files.open_count()), (vec![2], 2));
    let third = rig.lease(3);
    let mut fourth = rig.open(4);
    rig.serve(false);
    assert!(poll(&mut fourth).is_none(), "both are in use: it waits");
    rig.serve(false);
    assert_eq!(rig.closed(), [2]);
    drop(first);
    let fourth = loop {
        match poll(&mut fourth) {
            Some(lease) => break lease.unwrap(),
            None => rig.serve(false),
        }
    };
    assert_eq!((fourth.file(), rig.closed()), (FileHandle(4), vec![2, 1]));
    drop(third);
}

#[test]
fn a_forgotten_file_is_closed_with_its_last_lease() {
    let rig = Rig::new(4);
    drop(rig.lease(1));
    let (one, two) = (rig.lease(2), rig.lease(2));
    rig.files.forget(LogId(0), Offset::new(1));
    rig.files.forget_log(LogId(0));
    assert_eq!(rig.closed(), [1], "nobody used the first one");
    let again = rig.lease(2);
    assert_ne!(again.file(), one.file(), "what comes later opens it again");
    drop(one);
    assert_eq!(rig.closed(), [1]);
    drop(two);
    assert_eq!(rig.closed(), [1, 2]);
    drop(again);
    assert_eq!((rig.closed(), rig.files.open_count()), (vec![1, 2], 1));
}

#[test]
fn a_file_forgotten_while_it_is_opened_serves_one_use() {
    let rig = Rig::new(4);
    let mut opening = rig.open(1);
    assert!(poll(&mut opening).is_none());
    rig.files.forget(LogId(0), Offset::new(1));
    rig.serve(false);
    assert!(poll(&mut opening).is_none());
    rig.serve(false);
    drop(poll(&mut opening).unwrap().unwrap());
    assert_eq!((rig.closed(), rig.files.open_count()), (vec![1], 0));
}

#[test]
fn a_failed_open_leaves_nothing_and_who_waits_tries_again() {
    let rig = Rig::new(1);
    let (mut first, mut second) = (rig.open(1), rig.open(1));
    assert!(poll(&mut first).is_none() && poll(&mut second).is_none());
    rig.serve(true);
    assert!(poll(&mut first).unwrap().is_err());
    assert_eq!(rig.files.open_count(), 0);
    assert!(poll(&mut second).is_none());
    rig.serve(false);
    assert!(poll(&mut second).is_none());
    rig.serve(false);
    assert!(poll(&mut second).unwrap().is_ok());
}
