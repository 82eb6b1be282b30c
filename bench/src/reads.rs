//! Reads by socket: a server inside the engine's shard, a client that asks it, and bare loops over the same file for
//! comparison. All over loopback TCP, the sender on the disk's core, the receiver on the clients'.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ringmain::error::NetError;
use ringmain::serve::{Address, Connection, ListenOptions, Local, LocalLog, ServiceHandle};
use ringmain::types::{FlushPolicy, Isolation, Offset};
use ringmain::{Engine, Fetch, LogHandle};

use crate::batches::Shelf;
use crate::cores::{Cores, Pinned};
use crate::finds::{self, Finds, Key};
use crate::payload::Payload;
use crate::sample::Sample;
use crate::senders::{self, Kind, STEP_BYTES};
use crate::site::Site;

/// Bytes of a sealed log that is read.
pub const SEALED_BYTES: u64 = 96 << 20;

/// Bytes of a tail that is read: the engine keeps it in memory.
const TAIL_BYTES: u64 = 8 << 20;

/// Bytes of a batch.
const BATCH_BYTES: usize = 64 << 10;

/// Bytes asked for at once.
const ASKED_BYTES: u64 = 4 << 20;

/// Requests in flight, so that the sender always has one.
const ASKED_AHEAD: usize = 6;

/// How a slice reads, or looks for what it would read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The engine's tail.
    Tail,
    /// The engine's sealed segments, in the page cache.
    Sealed,
    /// Bare `sendfile` of the same file.
    Sendfile,
    /// Bare `pread` and `send` of the same file.
    Copy,
    /// Lookups in the engine's sealed segments.
    Find(Key),
    /// Bare `pread` of as many bytes as a lookup goes through.
    Pread,
}

/// A log behind a socket, to be read.
pub struct Served {
    log: LogHandle,
    at: SocketAddr,
    shelf: Shelf,
    /// Where requests begin, of what was filled in last; found out by a first pass.
    starts: Vec<i64>,
    _service: ServiceHandle<Result<(), NetError>>,
}

impl Served {
    /// Fills `log`, the `topic` of `engine`, and serves it.
    ///
    /// # Errors
    /// If it can't be filled or served.
    pub fn start(
        engine: &Engine,
        log: LogHandle,
        (bytes, seals): (u64, bool),
        payload: &Payload,
    ) -> Result<Self> {
        log.set_flush_policy_blocking(FlushPolicy::Os)?;
        let shelf = Shelf::new(BATCH_BYTES, &mut payload.cursor(0))?;
        let (ready, started) = channel();
        let topic = log.name().topic().to_owned();
        let service = engine.serve(0, move |local| serve(local, topic, ready))?;
        let at = started.recv().context("the server does not start")?;
        let mut served = Self { log, at, shelf, starts: Vec::new(), _service: service };
        served.fill(bytes, seals)?;
        Ok(served)
    }

    /// Appends so much, which is what is read from then on; seals it, or leaves it in a tail that has a reader.
    fn fill(&mut self, bytes: u64, seals: bool) -> Result<()> {
        let (mut memory, mut first) = (Vec::new(), None);
        for _ in 0..bytes / BATCH_BYTES as u64 {
            let appended = self.log.append_blocking(self.shelf.take(memory))?;
            memory = appended.buffer;
            if first.is_none() {
                // What is written stays in memory for those who read a tail: here is one, from the first batch on.
                self.log.read_blocking(appended.base_offset, BATCH_BYTES, Isolation::Dirty)?;
                first = Some(appended.base_offset);
            }
        }
        if seals {
            self.log.roll_blocking()?;
        }
        self.log.flush_blocking()?;
        self.starts = self.walk(first.context("a batch at least")?.get())?;
        Ok(())
    }

    /// Reads it once, from there on. Returns where its requests begin.
    fn walk(&self, mut offset: i64) -> Result<Vec<i64>> {
        let mut client = Client::connect(self.at)?;
        let mut starts = Vec::new();
        loop {
            client.ask(offset)?;
            let (bytes, next) = client.take()?;
            if bytes == 0 {
                return Ok(starts);
            }
            starts.push(offset);
            offset = next;
        }
    }

    /// Reads it over and over, until `over`. Returns a sample of `measured` after `warm_up`.
    fn read(&self, (warm_up, measured): (Duration, Duration), over: &AtomicBool) -> Result<Sample> {
        let mut client = Client::connect(self.at)?;
        let mut asked = self.starts.iter().cycle();
        let mut since = std::collections::VecDeque::new();
        let mut sample = Sample::empty(measured);
        let begin = Instant::now();
        loop {
            while since.len() < ASKED_AHEAD {
                client.ask(*asked.next().context("the log is not empty")?)?;
                since.push_back(Instant::now());
            }
            let (bytes, _) = client.take()?;
            let now = Instant::now();
            let Some(from) = since.pop_front() else { bail!("an answer without a request") };
            if now - begin >= warm_up + measured {
                return Ok(sample);
            }
            if now - begin >= warm_up {
                sample.latencies.record((now - from).as_nanos() as u64);
                sample.records += 1;
                sample.bytes += bytes;
            }
            // What was on its way counts: in a short slice a paced reader gets no more.
            if over.load(Ordering::Relaxed) {
                return Ok(sample);
            }
        }
    }

    /// Reads it until `over`, from a thread of its own on this core. Returns the bytes read.
    pub fn read_until(&self, core: usize, over: &AtomicBool) -> Result<u64> {
        let _pinned = Pinned::to(core);
        Ok(self.read((Duration::ZERO, Duration::MAX / 2), over)?.bytes)
    }
}

async fn serve(local: Local, topic: String, ready: Sender<SocketAddr>) -> Result<(), NetError> {
    let any = Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
    let mut listener = local.listen(any, ListenOptions::default()).await?;
    if let Address::Tcp(at) = listener.address() {
        // Nobody listens only if the run was stopped.
        let _main_is_gone = ready.send(*at);
    }
    loop {
        match listener.accept().await {
            Ok(connection) => {
                let log = local.log(&topic, 0).expect("made before its server");
                local.spawn(async move { drop(answer(connection, log).await) });
            }
            Err(NetError::Stopping) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Answers offsets: how many bytes, where to go on, the bytes. A client that is gone, or asks for what is not there,
/// ends it.
async fn answer(mut connection: Connection, log: LocalLog) -> Result<()> {
    let mut asked = Vec::new();
    while connection.recv_into(&mut asked).await? > 0 {
        while let Some(request) = asked.first_chunk::<8>() {
            let offset = Offset::new(i64::from_le_bytes(*request));
            asked.drain(..8);
            let fetch = Fetch {
                max_bytes: ASKED_BYTES as usize,
                max_wait: Duration::ZERO,
                isolation: Isolation::Dirty,
                ..Fetch::from(offset)
            };
            let range = log.locate(fetch).await?;
            let mut head = range.bytes().to_le_bytes().to_vec();
            head.extend(range.next().get().to_le_bytes());
            connection.send(head).await?;
            connection.send_log(range).await?;
        }
    }
    Ok(())
}

struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    fn connect(at: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(at).context("cannot connect to the server")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(crate::clients::SILENCE_MAX))?;
        Ok(Self { stream, buffer: vec![0; STEP_BYTES] })
    }

    fn ask(&mut self, offset: i64) -> Result<()> {
        self.stream.write_all(&offset.to_le_bytes()).context("cannot ask the server")
    }

    /// Takes an answer. Returns its bytes, which are thrown away, and where to go on.
    fn take(&mut self) -> Result<(u64, i64)> {
        let mut head = [0; 16];
        self.stream.read_exact(&mut head).context("the server does not answer")?;
        let (bytes, next) = head.split_at(8);
        let bytes = u64::from_le_bytes(bytes.try_into()?);
        let mut left = bytes as usize;
        while left > 0 {
            let want = left.min(self.buffer.len());
            match self.stream.read(&mut self.buffer[..want]) {
                Ok(0) => bail!("the server has closed the connection"),
                Ok(count) => left -= count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("the server does not send"),
            }
        }
        Ok((bytes, i64::from_le_bytes(next.try_into()?)))
    }
}

/// The logs of the read rows, in an engine of their own.
pub struct Reads {
    sealed: Served,
    tail: Served,
    finds: Finds,
    /// The sealed log's file.
    file: PathBuf,
    /// After what is served from it.
    site: Site,
    cores: Cores,
}

impl Reads {
    /// Fills them. Call on a thread that is not pinned.
    ///
    /// # Errors
    /// If something can't be made.
    pub fn prepare(dir: &Path, payload: &Payload) -> Result<Self> {
        let site = Site::open(dir)?;
        let log = |topic: &str| site.logs(topic, 1, 0)?.pop().context("one log");
        let engine = site.engine();
        let sealed = Served::start(engine, log("sealed")?, (SEALED_BYTES, true), payload)?;
        let tail = Served::start(engine, log("tail")?, (TAIL_BYTES, false), payload)?;
        let finds = Finds::prepare(engine, log("found")?, payload)?;
        let file = dir.join(sealed.log.name().to_string()).join(format!("{:020}.log", 0));
        // Written past the page cache: a plain read brings it in.
        io::copy(&mut File::open(&file)?, &mut io::sink())?;
        Ok(Self { sealed, tail, finds, file, site, cores: Cores::near(dir) })
    }

    /// Whether the engine writes past the page cache.
    pub fn is_direct(&self) -> bool {
        self.site.is_direct()
    }

    /// Closes the engine.
    ///
    /// # Errors
    /// If something could not be flushed.
    pub fn close(self) -> Result<()> {
        self.site.close()
    }

    /// Reads one way for `time`, of which the first fifth is not measured.
    ///
    /// # Errors
    /// If something fails.
    pub fn slice(&mut self, way: Way, time: Duration) -> Result<Sample> {
        let _pinned = Pinned::to(self.cores.clients);
        let times = (time / 5, time / 5 * 4);
        let never = AtomicBool::new(false);
        match way {
            Way::Tail => {
                // Anew: of a tail that nobody read for a while memory holds nothing any more.
                self.tail.fill(TAIL_BYTES, false)?;
                self.tail.read(times, &never)
            }
            Way::Sealed => self.sealed.read(times, &never),
            Way::Find(key) => self.finds.slice(self.site.engine(), key, times),
            Way::Pread => {
                let _pinned = Pinned::to(self.cores.disk);
                finds::bare(&self.file, times)
            }
            Way::Sendfile => self.bare(senders::Way::Sendfile, times),
            Way::Copy => self.bare(senders::Way::Read, times),
        }
    }

    fn bare(&self, by: senders::Way, times: (Duration, Duration)) -> Result<Sample> {
        let (ours, theirs) = senders::pair(Kind::Tcp).context("cannot connect")?;
        // As the engine's and its client's: the limit is that of the same sockets.
        senders::unpaced(&theirs);
        let file = File::open(&self.file)?;
        let core = self.cores.disk;
        let sender = thread::spawn(move || {
            let _pinned = Pinned::to(core);
            senders::send_over_and_over(&file, &theirs, by)
        });
        let received = senders::receive(ours, times);
        match sender.join() {
            Ok(ended) => ended.map(drop).context("the bare loop failed").and(received),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}
