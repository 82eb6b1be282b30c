//! Acks on their way from a child process, which is about to be killed, to its parent.
//!
//! A frame is at most one pipe buffer's atomic write, so a SIGKILL leaves whole frames and at most one torn at
//! the end, which counts for nothing. Source of the bound: pipe(7), PIPE_BUF.

use std::io::{self, ErrorKind, Read, Write};
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::{Ack, Stamp};
use crate::interrupt;

/// Bytes of an ack: partition, producer, sequence, offset.
const ACK_BYTES: usize = 4 + 4 + 8 + 8;

/// Bytes before the acks: how many there are.
const HEAD_BYTES: usize = 4;

const FRAME_ACKS_MAX: usize = (libc::PIPE_BUF - HEAD_BYTES) / ACK_BYTES;

/// How often the parent looks whether it is time to kill.
const LOOK: Duration = Duration::from_millis(5);

/// The child's end: gathers acks and writes them in frames.
#[derive(Debug)]
pub struct Reporter<W> {
    to: W,
    frame: Vec<u8>,
    acks: usize,
}

impl<W: Write> Reporter<W> {
    /// Reports to `to`, a pipe, without a buffer in between.
    pub fn new(to: W) -> Self {
        Self { to, frame: Vec::with_capacity(libc::PIPE_BUF), acks: 0 }
    }

    /// Adds an ack, and writes the frame if it is full.
    ///
    /// # Errors
    /// If the parent is gone.
    pub fn ack(&mut self, ack: Ack) -> io::Result<()> {
        if self.acks == 0 {
            self.frame.clear();
            self.frame.extend_from_slice(&[0; HEAD_BYTES]);
        }
        self.frame.extend_from_slice(&ack.partition.to_le_bytes());
        self.frame.extend_from_slice(&ack.stamp.producer.to_le_bytes());
        self.frame.extend_from_slice(&ack.stamp.sequence.to_le_bytes());
        self.frame.extend_from_slice(&ack.offset.to_le_bytes());
        self.acks += 1;
        if self.acks == FRAME_ACKS_MAX { self.flush() } else { Ok(()) }
    }

    /// Writes what has gathered: call when there is nothing else to do.
    ///
    /// # Errors
    /// If the parent is gone.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.acks == 0 {
            return Ok(());
        }
        self.frame[..HEAD_BYTES].copy_from_slice(&(self.acks as u32).to_le_bytes());
        self.acks = 0;
        self.to.write_all(&self.frame)
    }
}

/// The parent's end: all whole frames until the pipe is closed.
///
/// # Errors
/// If the pipe can't be read, or a frame is not one of a [`Reporter`].
pub fn collect(mut from: impl Read, mut take: impl FnMut(Ack)) -> Result<()> {
    let mut acks = [0_u8; FRAME_ACKS_MAX * ACK_BYTES];
    loop {
        let mut head = [0_u8; HEAD_BYTES];
        if !whole(&mut from, &mut head)? {
            return Ok(());
        }
        let count = u32::from_le_bytes(head) as usize;
        ensure!((1..=FRAME_ACKS_MAX).contains(&count), "the child reports a frame of {count} acks");
        let acks = &mut acks[..count * ACK_BYTES];
        if !whole(&mut from, acks)? {
            return Ok(());
        }
        acks.as_chunks::<ACK_BYTES>().0.iter().map(decode).for_each(&mut take);
    }
}

fn decode(bytes: &[u8; ACK_BYTES]) -> Ack {
    let four = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[at + i]));
    let eight = |at: usize| u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|i| bytes[at + i]));
    Ack {
        partition: four(0),
        stamp: Stamp { producer: four(4), sequence: eight(8) },
        offset: eight(16) as i64,
    }
}

/// Fills `to`; false if the pipe ended before.
fn whole(from: &mut impl Read, to: &mut [u8]) -> Result<bool> {
    match from.read_exact(to) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e).context("cannot read what the child reports"),
    }
}

/// Starts `child`, whose standard output reports acks; kills it with SIGKILL after `time`, but not before it has
/// reported `acks_min`; returns all it reported.
///
/// # Errors
/// If it can't be started, ends by itself, or reports too little within 30 s more.
pub fn run_until_killed(child: &mut Command, time: Duration, acks_min: u64) -> Result<Vec<Ack>> {
    const GRACE: Duration = Duration::from_secs(30);
    let begin = Instant::now();
    let due = |reported| begin.elapsed() >= time && reported >= acks_min;
    let (acks, ended) = run_until(child, time + GRACE, due, |from, reported| {
        let mut acks = Vec::new();
        collect(from, |ack| {
            acks.push(ack);
            reported.store(acks.len() as u64, Ordering::Relaxed);
        })
        .map(|()| acks)
    })?;
    judge(ended, acks, acks_min)
}

/// Starts `child`, has `read` take what it reports on its standard output and count it, and kills it with SIGKILL
/// once that count is `due`, at latest after `limit`. Returns what was read, and how it ended if it was faster.
///
/// # Errors
/// If it can't be started, what it reports can't be read, or the user stops the run.
pub fn run_until<T: Send>(
    child: &mut Command,
    limit: Duration,
    mut due: impl FnMut(u64) -> bool,
    read: impl FnOnce(ChildStdout, &AtomicU64) -> Result<T> + Send,
) -> Result<(T, Option<ExitStatus>)> {
    let mut child = child
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start a child")?;
    let from = child.stdout.take().context("the child has a standard output")?;
    let reported = AtomicU64::new(0);
    let begin = Instant::now();
    thread::scope(|scope| {
        let reader = scope.spawn(|| read(from, &reported));
        let mut ended = None;
        while ended.is_none() && !interrupt::asked() && begin.elapsed() < limit {
            if due(reported.load(Ordering::Relaxed)) {
                break;
            }
            thread::sleep(LOOK);
            ended = child.try_wait()?;
        }
        child.kill().context("cannot kill the child")?;
        child.wait()?;
        let read = reader.join().ok().context("the reader panicked")??;
        interrupt::check()?;
        Ok((read, ended))
    })
}

fn judge(ended: Option<ExitStatus>, acks: Vec<Ack>, acks_min: u64) -> Result<Vec<Ack>> {
    if let Some(status) = ended {
        bail!("the child ended by itself ({status}) before it was killed");
    }
    ensure!(acks.len() as u64 >= acks_min, "the child reported only {} acks", acks.len());
    Ok(acks)
}
