//! Readers beside appends, truncations and a deletion, seeded: whatever a reader holds is one history of the log.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use super::for_seeds;
use super::oracle::{Fate, Oracle, id_of};
use super::workload::{batch, disk, draw};
use super::world::{Rng, World, name};
use crate::batch::batches;
use crate::defects::{self, Defect};
use crate::error::ReadError;
use crate::handle::LogHandle;
use crate::ring::Wait;
use crate::ring::sim::SimDisk;
use crate::shard::fetch::Fetch;
use crate::types::{Isolation, Offset, PartitionName};

/// Number and records of each batch that the log held, in order, and whether it was acknowledged.
type History = Vec<(u64, i64, bool)>;

/// What the log held up to each cut that was acknowledged.
type Past = Rc<RefCell<Vec<History>>>;

/// What it holds now.
fn now(oracle: &mut Oracle, name: &PartitionName) -> History {
    let sent = oracle.track(name).sent.iter();
    sent.map(|sent| (sent.id, sent.records, sent.fate == Fate::Acked)).collect()
}

/// A reader: what it has is one batch after the other.
struct Reader {
    log: LogHandle,
    rng: Rng,
    oracle: Rc<RefCell<Oracle>>,
    past: Past,
    /// First offset and number of each batch.
    holds: BTreeMap<i64, (u64, i64)>,
    kept: Kept,
    ask: Fetch,
    done: Rc<Cell<bool>>,
    counts: Rc<RefCell<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    fetched: u64,
    truncated: u64,
    diverged: u64,
    dropped: u64,
}

impl Reader {
    async fn run(mut self) {
        while !self.done.get() {
            let since = self.past.borrow().len();
            self.ask.max_bytes = 1 + self.rng.below(60_000) as usize;
            self.ask.min_bytes = self.rng.below(3000) as usize;
            self.ask.max_wait = Duration::from_micros(self.rng.below(3000));
            if self.rng.one_in(6) {
                // A client that gives up, at once or after a while.
                let mut future = self.log.fetch(self.ask);
                let mut polls = self.rng.below(20);
                std::future::poll_fn(|cx| {
                    polls = polls.saturating_sub(1);
                    let ended = std::pin::Pin::new(&mut future).poll(cx).is_ready();
                    if ended || polls == 0 {
                        std::task::Poll::Ready(())
                    } else {
                        std::task::Poll::Pending
                    }
                })
                .await;
                self.counts.borrow_mut().dropped += 1;
                continue;
            }
            match self.log.fetch(self.ask).await {
                Ok(fetched) => {
                    for one in batches(&fetched.bytes) {
                        let one = one.expect("what is fetched is intact");
                        let base = one.base_offset().get();
                        let records = one.last_offset().get() + 1 - base;
                        self.holds.insert(base, (id_of(one.as_bytes()), records));
                    }
                    self.check(since, fetched.next.get());
                    self.ask = self.ask.after(&fetched);
                    match self.kept {
                        Kept::Marks => self.ask.epoch = None,
                        Kept::Epochs => self.ask.mark = None,
                    }
                    self.counts.borrow_mut().fetched += 1;
                }
                Err(ReadError::Truncated { at }) => {
                    self.counts.borrow_mut().truncated += 1;
                    self.drop_from(at);
                }
                Err(ReadError::Diverged { end, .. }) => {
                    self.counts.borrow_mut().diverged += 1;
                    self.drop_from(end.min(self.ask.offset));
                }
                Err(ReadError::Deleted | ReadError::Closed) => return,
                Err(error) => panic!("{:?}: {error}", self.ask),
            }
            if self.rng.one_in(30) {
                // From the beginning once more.
                self.drop_from(Offset::ZERO);
            }
        }
    }

    /// The reader drops what is no longer the log's, and begins anew there.
    fn drop_from(&mut self, at: Offset) {
        self.holds.split_off(&at.get());
        self.ask = Fetch { offset: at, epoch: None, mark: None, ..self.ask };
    }

    /// What the reader holds is the beginning of one history, of those since its fetch was sent.
    fn check(&self, since: usize, next: i64) {
        let past = self.past.borrow();
        let current = now(&mut self.oracle.borrow_mut(), self.log.name());
        // A fetch may have been answered before a cut that its client hears of first.
        let fits = |history: &History| {
            let mut offset = 0;
            let mut entries = history.iter();
            for (base, (id, records)) in &self.holds {
                let found = entries.by_ref().find(|(known, _, acked)| known == id || *acked);
                let Some((known, known_records, _)) = found else { return false };
                if known != id || *base != offset || records != known_records {
                    return false;
                }
                offset += records;
            }
            offset == next
        };
        let fitting = past[since..].iter().chain([&current]).any(fits);
        assert!(
            fitting,
            "bytes of another history, from {} to {next}: {:?}\n{:?}\n{current:?}",
            self.ask.offset,
            self.holds,
            &past[since..]
        );
    }
}

fn cut(world: &mut World<SimDisk>, log: &LogHandle, past: &Past, back: u64) {
    let to = {
        let mut oracle = world.oracle.borrow_mut();
        let track = oracle.track(log.name());
        if track.cutting.is_some() {
            return;
        }
        let acked: Vec<i64> = track
            .sent
            .iter()
            .take_while(|sent| sent.fate == Fate::Acked)
            .scan(0, |end, sent| {
                *end += sent.records;
                Some(*end)
            })
            .collect();
        let Some(at) = acked.len().checked_sub(1 + back as usize) else { return };
        track.cutting = Some(acked[at]);
        acked[at]
    };
    let (oracle, name, past) = (world.oracle.clone(), log.name().clone(), past.clone());
    let future = log.truncate_to(Offset::new(to));
    world.spawn(async move {
        future.await.expect("nothing fails");
        let mut oracle = oracle.borrow_mut();
        past.borrow_mut().push(now(&mut oracle, &name));
        oracle.track(&name).cut(to);
    });
}

/// How the cuts of a run are made, and what its readers keep of what they have read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    /// Marks; the leader's epoch stays.
    Marks,
    /// Epochs alone; each cut is another leader's.
    Epochs,
}

fn simulate(seed: u64, kept: Kept) -> Counts {
    let (mut setup, options) = draw(seed);
    // Often from files: memory is given back soon, and segments are rolled.
    setup.segment_bytes = [64 << 10, 256 << 10][seed as usize % 2];
    setup.memory_bytes = 8 << 20;
    let disk = disk(options);
    let oracle: Rc<RefCell<Oracle>> = Rc::default();
    let mut world = World::open(&disk, &setup, &oracle).unwrap();
    let log = world.log(&name("topic")).unwrap();
    let mut rng = Rng(seed ^ 0xfe7c);
    let past = Past::default();
    let (done, counts) = (Rc::new(Cell::new(false)), Rc::default());
    for number in 0..6 {
        let isolation = [Isolation::Durable, Isolation::Dirty][number % 2];
        let reader = Reader {
            log: log.clone(),
            rng: Rng(seed ^ number as u64),
            oracle: oracle.clone(),
            past: past.clone(),
            holds: BTreeMap::new(),
            kept,
            ask: Fetch { isolation, ..Fetch::from(Offset::ZERO) },
            done: done.clone(),
            counts: Rc::clone(&counts),
        };
        world.spawn(reader.run());
    }
    let mut epoch = 0;
    for _ in 0..400 {
        let cutting = world.oracle.borrow_mut().track(log.name()).cutting.is_some();
        if rng.one_in(25) && !cutting {
            cut(&mut world, &log, &past, rng.below(6));
            epoch += i32::from(kept == Kept::Epochs);
        } else if !cutting || kept == Kept::Marks {
            let id = world.oracle.borrow_mut().id();
            let records = 1 + rng.below(3) as u32;
            let one = batch(id, records, rng.below(9000) as usize);
            if kept == Kept::Marks {
                world.send(&log, id, one);
            } else {
                let next = world.marks(log.name()).dirty.get();
                world.send_at(&log, id, one, Some((next, epoch)));
            }
        }
        for _ in 0..1 + rng.below(4) {
            world.turn(Wait::Forever).unwrap();
        }
        if rng.one_in(40) {
            drop(log.roll());
        }
    }
    if rng.one_in(2) {
        world.delete(log.name());
    }
    done.set(true);
    world.settle().unwrap();
    // The shard hears in its next turn of those that were given up.
    world.turn(Wait::Forever).unwrap();
    world.turn(Wait::Forever).unwrap();
    assert_eq!(world.context(0).state.borrow().fetches.waiting(), 0);
    drop(world);
    Rc::into_inner(counts).expect("the readers are gone").into_inner()
}

#[test]
fn readers_with_marks_hold_one_history_whatever_is_cut() {
    let total = Cell::new((0, 0));
    for_seeds(1..17, |seed| {
        let counts = simulate(seed, Kept::Marks);
        assert!(counts.fetched > 100 && counts.dropped > 0, "{counts:?}");
        total.set((total.get().0 + counts.truncated, total.get().1 + counts.fetched));
    });
    assert!(total.get().0 > 20, "cuts below readers: {total:?}");
}

#[test]
fn readers_with_epochs_hold_one_history_whatever_leader_cuts() {
    let total = Cell::new((0, 0));
    for_seeds(1..17, |seed| {
        let counts = simulate(seed, Kept::Epochs);
        assert!(counts.fetched > 100, "{counts:?}");
        total.set((total.get().0 + counts.diverged, total.get().1 + counts.truncated));
    });
    // A fetch that waits hears of the cut itself, one that comes later of the other epoch.
    let (diverged, truncated) = total.get();
    assert!(diverged > 4 && truncated > 4, "cuts below readers: {total:?}");
}

/// Runs seeds with the engine's mistake on, and says whether any of them shows it.
fn is_found(defect: Defect, kept: Kept) -> bool {
    (1..500).any(|seed| {
        let one = || defects::with(defect, || simulate(seed, kept));
        catch_unwind(AssertUnwindSafe(one)).is_err()
    })
}

#[test]
fn defect_forgetting_cuts_is_found() {
    assert!(is_found(Defect::ForgetCuts, Kept::Marks));
}

#[test]
fn defect_forgetting_epochs_is_found() {
    assert!(is_found(Defect::ForgetEpochs, Kept::Epochs));
}

#[test]
fn defect_cutting_under_readers_is_found() {
    assert!(is_found(Defect::CutUnderReaders, Kept::Marks));
}
