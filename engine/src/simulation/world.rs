//! The real engine on one thread: recovery, shards and handles over any ring, turned by the test.

use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use super::oracle::{End, Fate, Oracle, Sent};
use crate::batch::Batch;
use crate::buffers::Arena;
use crate::clock::{Clock, SimClock};
use crate::command::OpenMode;
use crate::error::{AppendError, ControlError, OpenError, Outcome};
use crate::files::{open, sync_directory};
use crate::format::names;
use crate::handle::{LogHandle, Remote};
use crate::journal::{Journal, LogId};
use crate::limits::{RECOVERY_MEMORY_BYTES, RING_ENTRIES};
use crate::log::Shape;
use crate::log::plan::Bounds;
use crate::recovery::{OpenedDirectory, Plan, RecoveryReport, recover};
use crate::ring::sim::{SimDisk, SimRing};
use crate::ring::{Ring, Wait};
use crate::shard::disk::ShardDisk;
use crate::shard::executor::Executor;
use crate::shard::inbox::Inbox;
use crate::shard::points::Points;
use crate::shard::state::{Parts, Settings};
use crate::shard::{Context, Shard, attach, delete, driver};
use crate::types::{
    Durability, FlushPolicy, Incarnation, Isolation, Offset, PartitionName, Prepare, Retention,
    Watermarks,
};

/// Turns after which a wait is taken for a hang.
const TURNS_MAX: u64 = 400_000;

/// The longest sleep of a turn.
const SLEEP_MAX: Duration = Duration::from_micros(500);

/// Where a data directory is, and the way to it.
pub(super) trait Place: Clone + 'static {
    type Ring: Ring;
    type Clock: Clock;
    fn ring(&self) -> Self::Ring;
    fn clock(&self) -> Self::Clock;
    fn dir(&self) -> PathBuf;
}

impl Place for SimDisk {
    type Ring = SimRing;
    type Clock = SimClock;

    fn ring(&self) -> SimRing {
        SimDisk::ring(self, 4 * RING_ENTRIES as usize)
    }

    fn clock(&self) -> SimClock {
        SimDisk::clock(self)
    }

    fn dir(&self) -> PathBuf {
        "data".into()
    }
}

/// How an engine is set up.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) shards: u32,
    pub(super) policy: FlushPolicy,
    pub(super) retention: Retention,
    pub(super) direct: bool,
    pub(super) durability: Durability,
    pub(super) prepare: Prepare,
    pub(super) global_flush: bool,
    pub(super) direct_bytes: u64,
    pub(super) segment_bytes: u64,
    pub(super) journal_bytes: u64,
    pub(super) memory_bytes: usize,
    pub(super) kept_for_readers_ns: u64,
    /// Draws incarnations and epochs.
    pub(super) seed: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            shards: 1,
            policy: FlushPolicy::Group,
            retention: Retention::default(),
            direct: true,
            durability: Durability::Dsync,
            prepare: Prepare::Prezero,
            global_flush: false,
            direct_bytes: 64 * 1024,
            segment_bytes: 1 << 30,
            journal_bytes: 4 << 20,
            memory_bytes: 16 << 20,
            kept_for_readers_ns: 1_000_000,
            seed: 1,
        }
    }
}

struct Node<P: Place> {
    shard: Shard<P::Ring, P::Clock>,
    remote: Remote,
}

/// A client's wait, polled every turn.
type Task = Pin<Box<dyn Future<Output = ()>>>;

/// An opened directory.
pub(super) struct World<P: Place> {
    place: P,
    nodes: Vec<Node<P>>,
    logs: Vec<(PartitionName, usize, LogId)>,
    pub(super) report: RecoveryReport,
    pub(super) oracle: Rc<RefCell<Oracle>>,
    tasks: Vec<Task>,
    setup: Setup,
}

/// Numbers from a seed.
#[derive(Clone, Debug)]
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

pub(super) fn name(topic: &str) -> PartitionName {
    PartitionName::new(topic, 0).expect("a legal name")
}

/// Recovery as the engine runs it. `Err` of the outer result: the ring is broken, as by a power cut.
pub(super) fn recover_on<P: Place>(
    place: &P,
    setup: &Setup,
) -> io::Result<Result<OpenedDirectory, OpenError>> {
    let mut ring = place.ring();
    let arena = Arena::new(RECOVERY_MEMORY_BYTES);
    ring.register(&arena);
    let plan = Plan {
        dir: place.dir(),
        shape: Shape {
            block: 4096,
            segment_bytes: setup.segment_bytes,
            roll_ms: 7 * 24 * 3600 * 1000,
            index_interval: 4096,
        },
        direct: setup.direct,
        shards: setup.shards,
        journal_bytes: setup.journal_bytes,
        flush: setup.policy,
    };
    let mut rng = Rng(setup.seed ^ place.clock().monotonic_ns());
    driver::drive(&mut ring, &place.clock(), move |disk| async move {
        recover(&disk, &arena, plan, &mut || rng.next()).await
    })
}

impl<P: Place> World<P> {
    /// Opens the directory and attaches every partition found.
    pub(super) fn open(place: &P, setup: &Setup, oracle: &Rc<RefCell<Oracle>>) -> io::Result<Self> {
        let opened = recover_on(place, setup)?;
        Self::start(place, setup, oracle, opened.expect("the directory opens"))
    }

    /// Starts shards over an opened directory.
    pub(super) fn start(
        place: &P,
        setup: &Setup,
        oracle: &Rc<RefCell<Oracle>>,
        opened: OpenedDirectory,
    ) -> io::Result<Self> {
        let points = Arc::new(Points::default());
        for recovered in &opened.partitions {
            points.set(recovered.identity.name.clone(), recovered.recovery_point);
            if let Some(start) = recovered.stated_start() {
                points.restore_start(recovered.identity.name.clone(), start);
            }
            if let Some(cleaned) = recovered.cleaned {
                points.restore_cleaned(recovered.identity.name.clone(), cleaned);
            }
        }
        let mut nodes = Vec::new();
        for shard in 0..setup.shards {
            nodes.push(node(place, setup, &opened, (shard, points.clone()))?);
        }
        let mut world = Self {
            place: place.clone(),
            nodes,
            logs: Vec::new(),
            report: opened.report,
            oracle: oracle.clone(),
            tasks: Vec::new(),
            setup: setup.clone(),
        };
        for recovered in opened.partitions {
            let name = recovered.identity.name.clone();
            let shard = world.shard_of(&name);
            let policy = setup.policy;
            let call = world.nodes[shard]
                .remote
                .call(move |cx| async move { attach::attach(&cx, recovered, policy).await });
            let id = world.run(call)?.expect("the shard is open").expect("attached");
            world.logs.push((name, shard, id));
        }
        Ok(world)
    }

    fn shard_of(&self, name: &PartitionName) -> usize {
        name.topic().bytes().map(usize::from).sum::<usize>() % self.nodes.len()
    }

    /// The partition's log; made if it is not there.
    pub(super) fn log(&mut self, name: &PartitionName) -> io::Result<LogHandle> {
        if let Some((_, shard, id)) = self.logs.iter().find(|(known, ..)| known == name) {
            return Ok(LogHandle::new(self.nodes[*shard].remote.clone(), *id, name.clone()));
        }
        let shard = self.shard_of(name);
        let incarnation = Incarnation(Rng(self.setup.seed ^ self.clock_ns() ^ 77).next());
        let (policy, made) = (self.setup.policy, name.clone());
        let call = self.nodes[shard].remote.call(move |cx| async move {
            let id = attach::create(&cx, &made, incarnation, policy).await?;
            let dir = cx.state.borrow().dir.clone();
            let synced = sync_directory(&cx.disk, dir.clone()).await;
            synced.map_err(|e| OpenError::io(&dir, "flushing the directory", e)).map(|()| id)
        });
        let id = self.run(call)?.expect("the shard is open").expect("the partition is made");
        self.oracle.borrow_mut().track(name).made = true;
        self.logs.push((name.clone(), shard, id));
        Ok(LogHandle::new(self.nodes[shard].remote.clone(), id, name.clone()))
    }

    /// Whether the partition is there.
    pub(super) fn has(&self, name: &PartitionName) -> bool {
        self.logs.iter().any(|(known, ..)| known == name)
    }

    /// Deletes a partition in the background.
    pub(super) fn delete(&mut self, name: &PartitionName) {
        let at = self.logs.iter().position(|(known, ..)| known == name).expect("open");
        let (name, shard, id) = self.logs.remove(at);
        let call = self.nodes[shard].remote.call(move |cx| delete::delete(cx, id));
        let oracle = self.oracle.clone();
        self.spawn(async move {
            if matches!(call.await, Some(Ok(()))) {
                oracle.borrow_mut().track(&name).deleted();
            }
        });
    }

    pub(super) fn clock_ns(&self) -> u64 {
        self.place.clock().monotonic_ns()
    }

    /// A shard's innards.
    pub(super) fn context(&self, shard: usize) -> Context {
        self.nodes[shard].shard.context()
    }

    /// What a log says of itself now.
    pub(super) fn marks(&self, name: &PartitionName) -> Watermarks {
        let (_, shard, id) = self.logs.iter().find(|(known, ..)| known == name).expect("open");
        let cx = self.context(*shard);
        let mut state = cx.state.borrow_mut();
        state.log(*id).expect("open").watermarks()
    }

    /// One turn of every shard, then of every client.
    pub(super) fn turn(&mut self, wait: Wait) -> io::Result<()> {
        let (last, rest) = self.nodes.split_last_mut().expect("a shard");
        for node in rest.iter_mut() {
            node.shard.turn(Wait::No)?;
        }
        // A reply may be given inside the turn: nobody but the test would end an endless sleep then.
        let wait = match wait {
            Wait::Forever => Wait::AtMost(SLEEP_MAX),
            wait => wait,
        };
        last.shard.turn(wait)?;
        self.poll_tasks();
        let mut oracle = self.oracle.borrow_mut();
        for (name, shard, id) in &self.logs {
            let cx = self.nodes[*shard].shard.context();
            let mut state = cx.state.borrow_mut();
            if let Some(log) = state.log(*id) {
                oracle.track(name).observe(log.watermarks());
            }
        }
        Ok(())
    }

    /// All that bears on a hang.
    pub(super) fn describe(&self) -> String {
        let cx = self.context(0);
        let state = cx.state.borrow();
        let mut out = format!(
            "checkpointing {} memory {} journal {:?}\n",
            state.checkpointing,
            state.arena.free_bytes(),
            state.journal
        );
        out.truncate(1500);
        for log in state.logs.iter().flatten() {
            out += &format!(
                "\n{} {:?} {:?} {:?} readers {} flushing {} pointing {} gathering {} writes {} waiting {}",
                log.identity.name,
                log.watermarks(),
                log.policy,
                log.access,
                log.readers,
                log.flushing,
                log.pointing,
                log.gathering,
                log.writes_in_flight,
                log.waiting()
            );
            for s in &log.tail {
                out += &format!(
                    "\n  {} end {} written {} durable {} flushed {} claimed {} issued {} \
                     prepared {} goal {} preparing {} rolled {} sealed {} entry {} may_pad {}",
                    s.base(),
                    s.end(),
                    s.written.done(),
                    s.durable.done(),
                    s.flushed(),
                    s.claimed(),
                    s.write_issued(),
                    s.prepared,
                    s.journal_goal,
                    s.preparing,
                    s.rolled,
                    s.sealed,
                    s.entry_durable,
                    s.may_pad()
                );
            }
        }
        out
    }

    fn poll_tasks(&mut self) {
        let mut cx = TaskContext::from_waker(Waker::noop());
        self.tasks.retain_mut(|task| task.as_mut().poll(&mut cx).is_pending());
    }

    /// Clients that wait.
    pub(super) fn waiting(&self) -> usize {
        self.tasks.len()
    }

    /// Turns until `future` is ready.
    pub(super) fn run<F: Future>(&mut self, future: F) -> io::Result<F::Output> {
        let mut future = pin!(future);
        let mut cx = TaskContext::from_waker(Waker::noop());
        for _ in 0..TURNS_MAX {
            if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
                return Ok(output);
            }
            self.turn(Wait::Forever)?;
        }
        panic!("a hang: nothing came of {TURNS_MAX} turns");
    }

    /// Turns until every client has been told.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        for _ in 0..TURNS_MAX {
            if self.tasks.is_empty() {
                return Ok(());
            }
            self.turn(Wait::Forever)?;
        }
        panic!("a hang: {} clients wait\n{}", self.tasks.len(), self.describe());
    }

    /// Sends a batch; the oracle hears how it ends. `false` if there is no memory for it.
    pub(super) fn send(&mut self, log: &LogHandle, id: u64, batch: Batch) -> bool {
        self.send_at(log, id, batch, None)
    }

    /// The same at an offset and leader epoch.
    pub(super) fn send_at(
        &mut self,
        log: &LogHandle,
        id: u64,
        batch: Batch,
        at: Option<(i64, i32)>,
    ) -> bool {
        let sent = Sent {
            id,
            records: batch.record_count().into(),
            bytes: batch.as_bytes().into(),
            fate: Fate::Pending,
        };
        let future = match at {
            None => log.try_append(batch),
            Some((offset, epoch)) => {
                let mut future = log.append_at(Offset::new(offset), epoch, batch);
                match future.try_send(None) {
                    Ok(()) => Ok(future),
                    Err((error, batch)) => Err(crate::handle::Rejected { batch, error }),
                }
            }
        };
        let name = log.name().clone();
        let Ok(future) = future else {
            self.oracle.borrow_mut().track(&name).gone.insert(id);
            return false;
        };
        self.oracle.borrow_mut().track(&name).sent.push(sent);
        let oracle = self.oracle.clone();
        self.tasks.push(Box::pin(async move {
            let result = future.await;
            let mut oracle = oracle.borrow_mut();
            let track = oracle.track(&name);
            match result {
                // Whether the ack meant "durable" shows in the watermark, which is observed by itself.
                Ok(appended) => track.acked(id, appended.base_offset.get(), false),
                Err(error) => match error.outcome() {
                    Outcome::NotAppended => track.refused(id),
                    Outcome::Unknown => track.unknown(id),
                },
            }
        }));
        true
    }

    /// Sends a batch, waits for its end and returns it. An ack under `group` counts as durable.
    pub(super) fn append(
        &mut self,
        log: &LogHandle,
        id: u64,
        batch: Batch,
    ) -> io::Result<Result<Offset, AppendError>> {
        let name = log.name().clone();
        let sent = Sent {
            id,
            records: batch.record_count().into(),
            bytes: batch.as_bytes().into(),
            fate: Fate::Pending,
        };
        self.oracle.borrow_mut().track(&name).sent.push(sent);
        let result = self.run(log.append(batch))?;
        let group = self.setup.policy == FlushPolicy::Group;
        let mut oracle = self.oracle.borrow_mut();
        let track = oracle.track(&name);
        match &result {
            Ok(appended) => track.acked(id, appended.base_offset.get(), group),
            Err(error) if error.outcome() == Outcome::NotAppended => track.refused(id),
            Err(_) => track.unknown(id),
        }
        Ok(result.map(|appended| appended.base_offset))
    }

    /// Adds a client.
    pub(super) fn spawn(&mut self, task: impl Future<Output = ()> + 'static) {
        self.tasks.push(Box::pin(task));
    }

    /// Truncates in the background.
    pub(super) fn truncate(&mut self, log: &LogHandle, to: i64) {
        let (oracle, name) = (self.oracle.clone(), log.name().clone());
        let future = log.truncate_to(Offset::new(to));
        self.oracle.borrow_mut().track(&name).cutting = Some(to);
        self.spawn(async move {
            let result = future.await;
            let mut oracle = oracle.borrow_mut();
            let track = oracle.track(&name);
            match result {
                Ok(()) => track.cut(to),
                // Whether it was cut can not be known.
                Err(ControlError::Disk(_)) => {}
                Err(_) => track.cutting = None,
            }
        });
    }

    /// All of a partition, as it can be read.
    pub(super) fn read_all(&mut self, log: &LogHandle) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        let marks = self.run(log.watermarks())?.expect("open");
        let mut next = marks.log_start;
        while next < marks.dirty {
            let read = self.run(log.read(next, 8 << 20, Isolation::Dirty))?;
            let read = read.unwrap_or_else(|e| panic!("{}: reading {next}: {e}", log.name()));
            let last = crate::batch::batches(&read).last().expect("a batch").expect("whole");
            next = last.last_offset().plus(1);
            out.extend_from_slice(&read);
        }
        Ok(out)
    }

    /// Checks everything against the oracle, as after the `end` that this opening came after.
    pub(super) fn verify(&mut self, end: End) -> io::Result<()> {
        let names: Vec<PartitionName> = self.oracle.borrow().partitions.keys().cloned().collect();
        for name in names {
            if !self.logs.iter().any(|(known, ..)| *known == name) {
                let mut oracle = self.oracle.borrow_mut();
                let track = oracle.track(&name);
                assert!(!track.made, "{name} is gone");
                assert_eq!(track.durable, 0, "{name} is gone");
                track.verify(&name, &[], end);
                continue;
            }
            let log = self.log(&name)?;
            let marks = self.marks(&name);
            assert_eq!(marks.durable, marks.dirty, "{name}: what was accepted is flushed");
            let read = self.read_all(&log)?;
            self.oracle.borrow_mut().track(&name).verify(&name, &read, end);
            let end = self.oracle.borrow_mut().track(&name).durable;
            assert_eq!(marks.dirty.get(), end, "{name}: all there is can be read");
        }
        Ok(())
    }

    /// Closes cleanly.
    pub(super) fn close(mut self) -> io::Result<Result<(), ControlError>> {
        let mut result = Ok(());
        for at in 0..self.nodes.len() {
            let call = self.nodes[at].remote.call(attach::close_all);
            result = result.and(self.run(call)?.expect("open"));
        }
        if result.is_ok() {
            let call = self.nodes[0].remote.call(attach::mark_clean);
            result = self.run(call)?.expect("open");
        }
        Ok(result)
    }
}

fn node<P: Place>(
    place: &P,
    setup: &Setup,
    opened: &OpenedDirectory,
    (shard, points): (u32, Arc<Points>),
) -> io::Result<Node<P>> {
    let mut ring = place.ring();
    let inbox = Arc::new(Inbox::new(setup.memory_bytes / 4));
    let arena = Arena::new(setup.memory_bytes / 4 * 3);
    ring.register(&arena);
    let path = place.dir().join(names::journal(shard));
    let mode = OpenMode { direct: setup.direct, ..OpenMode::default() };
    let journal_file = driver::drive(&mut ring, &place.clock(), move |disk| async move {
        open(&disk, &path, mode).await
    })??;
    inbox.set_wake(ring.waker());
    let executor = Executor::with_waker(ring.waker());
    let settings = Settings {
        files_max: 16,
        retention: setup.retention,
        scrub_bytes_per_s: 0,
        shape: opened.shape,
        prepare: setup.prepare,
        direct: setup.direct,
        durability: setup.durability,
        bounds: Bounds { direct_bytes: setup.direct_bytes, force_direct: false },
        global_flush: setup.global_flush,
        kept_for_readers_ns: setup.kept_for_readers_ns,
    };
    let parts = Parts {
        dir: place.dir(),
        settings,
        arena,
        journal: Journal::new(opened.journal_bytes, opened.shape.block, opened.epoch),
        journal_file,
        inbox: inbox.clone(),
    };
    let shard = Shard::new(ring, place.clock(), (executor, ShardDisk::default()), parts, points);
    Ok(Node { shard, remote: Remote::new(inbox) })
}
