//! Backend `tokio-uring`: a log as it is written with that crate. A task for each partition takes what its channel has,
//! writes it with one `write_all_at`, syncs the file's data once for all of it, and acks.
//!
//! The crate (0.5) has no registered files, no linked operations and no way to write several owned buffers at once
//! but one slice for each, so batches are copied into one buffer, as its users do.

use std::collections::VecDeque;
use std::fs::File as Std;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow};
use io_uring::IoUring;
use ringmain::ring::interrupts::cores_near;
use ringmain::types::FlushPolicy;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_uring::fs::File;

use super::group::{BATCHES_MAX, Group, Head};
use super::interval::Interval;
use super::preparer::{Asker, Preparer};
use super::store::{Store, reopen};
use crate::cores::Pinned;
use crate::run::backend::{
    Backend, Completion, Counters, Facts, Instance, Reader, Request, Verifiable,
};
use crate::run::workload::Workload;

/// Operations that a runtime's ring holds before it must be entered.
const ENTRIES: u32 = 256;

/// Tasks on tokio-uring.
#[derive(Clone, Copy, Debug)]
pub struct TokioUring;

struct Open {
    store: Arc<Store>,
    channels: Vec<UnboundedSender<Request>>,
    readied: Arc<[Notify]>,
    preparer: Option<Preparer>,
    interval: Option<Interval>,
    threads: Vec<JoinHandle<()>>,
}

/// A partition's task, before it runs.
struct Task {
    partition: u32,
    store: Arc<Store>,
    head: Head,
    from: UnboundedReceiver<Request>,
    /// Told when there is more space in a partition.
    space: Arc<[Notify]>,
    asker: Asker,
}

impl Backend for TokioUring {
    fn open(&self, dir: &Path, workload: &Workload) -> Result<Box<dyn Instance>> {
        // The crate panics on a thread of its own where there is none.
        IoUring::new(2)
            .context("io_uring is not to be had; --backend pwrite and --backend sync need none")?;
        let store = Arc::new(Store::make(dir, workload, false)?);
        let readied: Arc<[Notify]> = (0..workload.partitions).map(|_| Notify::new()).collect();
        let theirs = Arc::clone(&readied);
        let preparer =
            Preparer::start(&store, move |partition| theirs[partition as usize].notify_one())?;
        let interval = Interval::start(&store)?;
        let (mut channels, mut tasks) = (Vec::new(), Vec::new());
        for partition in 0..workload.partitions {
            let (to, from) = unbounded_channel();
            channels.push(to);
            let (store, head) = (Arc::clone(&store), store.head(partition));
            let (space, asker) = (Arc::clone(&readied), preparer.asker());
            tasks.push(Task { partition, store, head, from, space, asker });
        }
        let preparer = Some(preparer);
        let mut open = Open { store, channels, readied, preparer, interval, threads: Vec::new() };
        let cores = cores_near(dir);
        let runtimes = workload.cores.min(workload.partitions) as usize;
        let mut dealt: Vec<Vec<Task>> = (0..runtimes).map(|_| Vec::new()).collect();
        for (nth, task) in tasks.into_iter().enumerate() {
            dealt[nth % runtimes].push(task);
        }
        for (nth, tasks) in dealt.into_iter().enumerate() {
            let core = cores.get(nth % cores.len().max(1)).copied();
            let run = move || {
                let _pinned = core.map(Pinned::to);
                serve(tasks);
            };
            let thread = thread::Builder::new().name(format!("tokio-uring-{nth}")).spawn(run);
            open.threads.push(thread.context("cannot start a thread")?);
        }
        Ok(Box::new(open))
    }

    fn reopen(&self, dir: &Path, workload: &Workload) -> Result<Box<dyn Reader>> {
        Ok(reopen(dir, workload))
    }
}

/// A runtime's life.
fn serve(tasks: Vec<Task>) {
    tokio_uring::builder().entries(ENTRIES).start(async {
        let spawned: Vec<_> = tasks.into_iter().map(|task| tokio_uring::spawn(run(task))).collect();
        for task in spawned {
            // What it panicked of is on standard error, and nothing of it will be acked.
            let _ = task.await;
        }
    });
}

async fn run(task: Task) {
    let (partition, store) = (task.partition, Arc::clone(&task.store));
    if let Err(error) = partition_of(task).await {
        let what = format!("partition {partition}: cannot write or flush");
        store.desk.fail(Error::from(error).context(what));
    }
}

async fn partition_of(task: Task) -> io::Result<()> {
    let Task { partition, store, mut head, mut from, space, asker } = task;
    let track = store.track(partition);
    let (mut waiting, mut taken) = (VecDeque::new(), Vec::with_capacity(BATCHES_MAX));
    let (mut group, mut buffer, mut ended) = (Group::default(), Vec::new(), Vec::new());
    let mut open: Option<(Arc<Std>, File)> = None;
    loop {
        if waiting.is_empty() && from.recv_many(&mut taken, BATCHES_MAX).await == 0 {
            return Ok(());
        }
        waiting.extend(taken.drain(..));
        while let Ok(request) = from.try_recv() {
            waiting.push_back(request);
        }
        head.gather(track, &mut waiting, &mut group, || asker.ask(partition));
        let Some(wanted) = group.file.clone() else {
            if from.is_closed() {
                return Ok(());
            }
            space[partition as usize].notified().await;
            continue;
        };
        let file = match &mut open {
            Some((of, file)) if Arc::ptr_eq(of, &wanted) => file,
            place => {
                &mut place.insert((Arc::clone(&wanted), File::from_std(wanted.try_clone()?))).1
            }
        };
        buffer.clear();
        group.batches.iter().for_each(|placed| buffer.extend_from_slice(&placed.bytes));
        let (written, back) = file.write_all_at(buffer, group.place % track.file_bytes()).await;
        written?;
        buffer = back;
        group.written = Some(Instant::now());
        store.note_written(partition, &group, group.bytes);
        let mut flushed = None;
        if store.policy == FlushPolicy::Group {
            file.sync_data().await?;
            store.count_flushes(1);
            flushed = Some(Instant::now());
        }
        store.ack(partition, &mut group, flushed, &mut ended);
        store.desk.put(&mut ended);
    }
}

impl Open {
    fn end(&mut self) -> Result<()> {
        self.channels.clear();
        // A task may wait for space that is not to be had.
        self.readied.iter().for_each(Notify::notify_one);
        let panicked = self.threads.drain(..).filter_map(|thread| thread.join().err()).count();
        drop((self.preparer.take(), self.interval.take()));
        if panicked > 0 {
            return Err(anyhow!("{panicked} threads panicked"));
        }
        self.store.desk.take(Duration::ZERO, &mut Vec::new())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // Why it ended early has been told; here all that counts is that no thread goes on.
        let _ = self.end();
    }
}

impl Instance for Open {
    fn facts(&self) -> Facts {
        let ack = match self.store.policy {
            FlushPolicy::Group => "write_all_at, and one sync_data for all that came meanwhile",
            FlushPolicy::Os => "write_all_at into the page cache",
            FlushPolicy::Interval { .. } => {
                "write_all_at into the page cache; fdatasync by the interval"
            }
        };
        Facts { direct: false, ack: ack.to_owned(), notes: Vec::new() }
    }

    fn verifiable(&self) -> Verifiable {
        Verifiable::Yes
    }

    fn submit(&mut self, request: Request) {
        // A task that has ended has said why.
        let _ = self.channels[request.partition as usize].send(request);
    }

    fn poll(&mut self, wait: Duration, done: &mut Vec<Completion>) -> Result<()> {
        self.store.desk.take(wait, done)
    }

    fn counters(&self) -> Counters {
        self.store.counters()
    }

    fn reader(&self) -> Result<Box<dyn Reader>> {
        Ok(self.store.reader())
    }

    fn close(mut self: Box<Self>) -> Result<()> {
        self.end()
    }
}
