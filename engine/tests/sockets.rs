//! Sockets on a shard's ring: whatever peers do, bytes come whole and in order or not at all, and memory is bounded.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ringmain::error::{NetError, ServeError};
use ringmain::serve::{Address, Connection, ListenOptions, Listener, Local, ServiceHandle};
use ringmain::{Backend, Config, Engine};

use crate::support::{Dir, small, value};

/// A peer, over either family.
pub(crate) trait Peer: Read + Write + AsFd + Send + 'static {
    fn shut_down(&self, how: Shutdown);
    fn set_timeout(&self, time: Duration);
    fn twin(&self) -> Box<dyn Peer>;
}

impl Peer for TcpStream {
    fn shut_down(&self, how: Shutdown) {
        self.shutdown(how).unwrap();
    }
    fn set_timeout(&self, time: Duration) {
        self.set_read_timeout(Some(time)).unwrap();
    }
    fn twin(&self) -> Box<dyn Peer> {
        Box::new(self.try_clone().unwrap())
    }
}

impl Peer for UnixStream {
    fn shut_down(&self, how: Shutdown) {
        self.shutdown(how).unwrap();
    }
    fn set_timeout(&self, time: Duration) {
        self.set_read_timeout(Some(time)).unwrap();
    }
    fn twin(&self) -> Box<dyn Peer> {
        Box::new(self.try_clone().unwrap())
    }
}

pub(crate) fn connect(address: &Address) -> Box<dyn Peer> {
    let peer: Box<dyn Peer> = match address {
        Address::Tcp(address) => Box::new(TcpStream::connect(address).unwrap()),
        Address::Unix(path) => Box::new(UnixStream::connect(path).unwrap()),
    };
    peer.set_timeout(Duration::from_secs(60));
    peer
}

pub(crate) fn loopback() -> Address {
    Address::Tcp("127.0.0.1:0".parse().unwrap())
}

/// Has the peer's close throw away what is on its way, so that we see a reset.
pub(crate) fn close_with_reset(peer: Box<dyn Peer>) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let bytes = size_of::<libc::linger>() as libc::socklen_t;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&peer.as_fd());
    // SAFETY: the option is this structure, alive across the call.
    let set = unsafe {
        libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), bytes)
    };
    assert_eq!(set, 0);
}

/// Runs `test` over both backends and both families, each with an engine of its own.
pub(crate) fn over_sockets(name: &str, mut test: impl FnMut(&Engine, Address)) {
    for backend in [Backend::Uring, Backend::Sync] {
        for family in ["tcp", "unix"] {
            let dir = Dir::new(&format!("{name}-{backend:?}-{family}"));
            let config = Config { backend, ..small(&dir.join("data")) };
            let engine = match Engine::open(config) {
                Ok(engine) => engine,
                Err(error) => {
                    assert_eq!(backend, Backend::Uring, "{error}");
                    eprintln!("skipped on io_uring: {error}");
                    continue;
                }
            };
            eprintln!("{name}: {backend:?}, {family}");
            let address = if family == "tcp" { loopback() } else { socket_at(dir.path()) };
            test(&engine, address);
            engine.close().unwrap();
        }
    }
}

/// A path for a socket: short, whatever the directory's is.
pub(crate) fn socket_at(dir: &Path) -> Address {
    let name = format!("ringmain-{}-{:x}", std::process::id(), hash(dir));
    Address::Unix(std::env::temp_dir().join(name))
}

fn hash(path: &Path) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

/// Serves each connection with `serve` on shard 0. Returns where, and the handle.
pub(crate) fn start<S, F>(
    engine: &Engine,
    address: Address,
    options: ListenOptions,
    serve: S,
) -> (Address, ServiceHandle<Result<u64, NetError>>)
where
    S: Fn(Local, Connection) -> F + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    let (ready, at) = mpsc::channel();
    let server = move |local: Local| async move {
        let mut listener = local.listen(address, options).await?;
        ready.send(listener.address().clone()).unwrap();
        accept_all(&local, &mut listener, serve).await
    };
    let handle = engine.serve(0, server).unwrap();
    (at.recv().unwrap(), handle)
}

async fn accept_all<S, F>(local: &Local, listener: &mut Listener, serve: S) -> Result<u64, NetError>
where
    S: Fn(Local, Connection) -> F,
    F: Future<Output = ()> + 'static,
{
    let mut count = 0;
    loop {
        match listener.accept().await {
            Ok(connection) => {
                count += 1;
                local.spawn(serve(local.clone(), connection));
            }
            Err(NetError::Stopping) => return Ok(count),
            Err(error) => return Err(error),
        }
    }
}

async fn echo(_local: Local, mut connection: Connection) {
    while let Ok(Some(bytes)) = connection.recv().await {
        let copy = bytes.to_vec();
        drop(bytes);
        if connection.send(copy).await.is_err() {
            return;
        }
    }
    drop(connection.finish(Duration::from_secs(10)).await);
}

pub(crate) fn stop<T>(handle: ServiceHandle<T>) -> Result<T, ServeError> {
    handle.stop(Duration::from_secs(20));
    handle.wait()
}

/// Numbers from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[test]
fn what_is_sent_comes_back_whole_and_in_order() {
    over_sockets("echo", |engine, address| {
        let (at, handle) = start(engine, address, ListenOptions::default(), echo);
        let peers: Vec<_> = (0..8_u64)
            .map(|seed| {
                let mut writer = connect(&at);
                let mut reader = writer.twin();
                let sent = value(seed, 700_000);
                let expected = sent.clone();
                let writing = std::thread::spawn(move || {
                    let mut random = Random(seed);
                    let mut rest = &sent[..];
                    while !rest.is_empty() {
                        let most = if random.below(4) == 0 { 200_000 } else { 3000 };
                        let (now, later) =
                            rest.split_at(rest.len().min(1 + random.below(most) as usize));
                        writer.write_all(now).unwrap();
                        rest = later;
                        if random.below(3) == 0 {
                            // A pause of the peer's, not a wait for anything.
                            std::thread::sleep(Duration::from_micros(random.below(500)));
                        }
                    }
                    // Half closed: it goes on reading.
                    writer.shut_down(Shutdown::Write);
                });
                let reading = std::thread::spawn(move || {
                    let mut back = Vec::new();
                    reader.read_to_end(&mut back).unwrap();
                    assert!(back == expected, "seed {seed}: {} bytes came back", back.len());
                });
                (writing, reading)
            })
            .collect();
        for (writing, reading) in peers {
            writing.join().unwrap();
            reading.join().unwrap();
        }
        assert_eq!(stop(handle), Ok(Ok(8)));
    });
}

#[test]
fn a_reset_in_the_middle_of_a_send_ends_that_connection_alone() {
    over_sockets("reset", |engine, address| {
        let (told, errors) = mpsc::channel();
        let serve = move |_, mut connection: Connection| {
            let told = told.clone();
            async move {
                let Ok(Some(_)) = connection.recv().await else { return };
                let error = loop {
                    if let Err(error) = connection.send(vec![7_u8; 100_000]).await {
                        break error;
                    }
                };
                told.send(error).unwrap();
            }
        };
        let (at, handle) = start(engine, address, ListenOptions::default(), serve);
        let mut first = connect(&at);
        let mut other = connect(&at);
        first.write_all(b"go").unwrap();
        first.read_exact(&mut [0; 5000]).unwrap();
        close_with_reset(first);
        let error = errors.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(
            matches!(&error, NetError::Io(fault)
            if [libc::ECONNRESET, libc::EPIPE].contains(&fault.errno)),
            "{error}"
        );
        other.write_all(b"go").unwrap();
        other.read_exact(&mut vec![0; 1 << 20]).unwrap();
        drop(other);
        let _other = errors.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(stop(handle), Ok(Ok(2)));
    });
}

#[test]
fn a_peer_that_never_reads_is_given_up_and_holds_a_bounded_queue() {
    over_sockets("deaf", |engine, address| {
        let (told, seen) = mpsc::channel();
        let options = ListenOptions {
            slow: Duration::from_millis(300),
            send_queue_bytes: 128 << 10,
            ..ListenOptions::default()
        };
        let serve = move |_, mut connection: Connection| {
            let told = told.clone();
            async move {
                let mut most = 0;
                let error = loop {
                    let sent = connection.send(vec![1; 30_000]).await;
                    most = most.max(connection.sender().queued_bytes());
                    if let Err(error) = sent {
                        break error;
                    }
                };
                // The connection is over for receiving too.
                assert_eq!(connection.recv().await.map(|bytes| bytes.is_none()), Ok(true));
                told.send((error, most)).unwrap();
            }
        };
        let (at, handle) = start(engine, address, options, serve);
        let begin = Instant::now();
        let peer = connect(&at);
        let (error, most) = seen.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(error, NetError::Slow { ms: 300 });
        assert!(most <= 128 << 10, "{most} bytes were queued");
        assert!(begin.elapsed() >= Duration::from_millis(300));
        assert_eq!(stop(handle), Ok(Ok(1)));
        drop(peer);
    });
}

#[test]
fn a_silent_peer_is_given_up_and_told_so_by_a_close() {
    over_sockets("silent", |engine, address| {
        let (told, seen) = mpsc::channel();
        let options =
            ListenOptions { idle: Some(Duration::from_millis(100)), ..ListenOptions::default() };
        let serve = move |_, mut connection: Connection| {
            let told = told.clone();
            async move {
                let first = connection.recv().await.map(|bytes| bytes.map(|b| b.to_vec()));
                assert_eq!(first, Ok(Some(b"hello".to_vec())));
                told.send(connection.recv().await.map(|_| ())).unwrap();
            }
        };
        let (at, handle) = start(engine, address, options, serve);
        let mut peer = connect(&at);
        peer.write_all(b"hello").unwrap();
        let told = seen.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(told, Err(NetError::Idle { ms: 100 }));
        assert_eq!(peer.read_to_end(&mut Vec::new()).unwrap(), 0);
        assert_eq!(stop(handle), Ok(Ok(1)));
    });
}

#[test]
fn a_listener_that_is_closed_while_it_accepts_refuses_and_its_connections_stay() {
    over_sockets("unlisten", |engine, address| {
        let (ready, at) = mpsc::channel();
        let (closed, gone) = mpsc::channel();
        let server = move |local: Local| async move {
            let mut listener = local.listen(address, ListenOptions::default()).await.unwrap();
            ready.send(listener.address().clone()).unwrap();
            let connection = listener.accept().await.unwrap();
            // Polled, so that the kernel accepts, and dropped in the middle of that.
            let waited = local.timeout(Duration::from_millis(5), listener.accept()).await;
            assert!(waited.is_err());
            drop(listener);
            local.sleep(Duration::from_millis(5)).await;
            closed.send(()).unwrap();
            echo(local, connection).await;
        };
        let handle = engine.serve(0, server).unwrap();
        let at = at.recv().unwrap();
        let mut peer = connect(&at);
        gone.recv().unwrap();
        let refused = match &at {
            Address::Tcp(at) => TcpStream::connect(at).map(drop),
            Address::Unix(path) => {
                assert!(!path.exists(), "the socket's file goes with it");
                UnixStream::connect(path).map(drop)
            }
        };
        let kind = refused.unwrap_err().kind();
        assert!([ErrorKind::ConnectionRefused, ErrorKind::NotFound].contains(&kind), "{kind}");
        peer.write_all(b"still here").unwrap();
        peer.shut_down(Shutdown::Write);
        let mut back = String::new();
        peer.read_to_string(&mut back).unwrap();
        assert_eq!(back, "still here");
        assert_eq!(handle.wait(), Ok(()));
    });
}

#[test]
fn a_service_that_stops_sends_what_is_queued_and_ends_what_does_not_end() {
    over_sockets("stopping", |engine, address| {
        let serve = |local: Local, mut connection: Connection| async move {
            let Ok(Some(kind)) = connection.recv().await else { return };
            if kind[0] == b'e' {
                connection.send(vec![9; 1]).await.unwrap();
                // For ever, whatever is asked.
                loop {
                    local.sleep(Duration::from_secs(3600)).await;
                }
            }
            connection.send(vec![9; 3 << 20]).await.unwrap();
            // What the peer sends then may overtake the word to stop.
            let told = loop {
                match connection.recv().await {
                    Ok(Some(bytes)) => assert_eq!(&bytes[..], b"too late"),
                    told => break told,
                }
            };
            assert!(matches!(told, Err(NetError::Stopping)));
            // It is given the time to say goodbye: what the peer sent too late resets nothing.
            assert_eq!(connection.finish(Duration::from_secs(10)).await, Ok(()));
        };
        let options = ListenOptions { send_queue_bytes: 4 << 20, ..ListenOptions::default() };
        let (at, handle) = start(engine, address, options, serve);
        let (mut busy, mut endless) = (connect(&at), connect(&at));
        busy.write_all(b"b").unwrap();
        endless.write_all(b"e").unwrap();
        // The first byte says that the send is under way; most of it waits for us.
        busy.read_exact(&mut [0; 1]).unwrap();
        // A service that stops accepts nobody: this one is served by then.
        endless.read_exact(&mut [0; 1]).unwrap();
        handle.stop(Duration::from_millis(1500));
        busy.write_all(b"too late").unwrap();
        let mut rest = Vec::new();
        busy.read_to_end(&mut rest).unwrap();
        assert_eq!(rest.len(), (3 << 20) - 1);
        drop(busy);
        rest.clear();
        assert_eq!(endless.read_to_end(&mut rest).unwrap(), 0);
        assert_eq!(handle.wait(), Ok(Ok(2)));
    });
}

#[test]
fn a_panic_in_a_connections_task_ends_that_connection_and_no_other() {
    over_sockets("panic", |engine, address| {
        let serve = |local: Local, mut connection: Connection| async move {
            while let Ok(Some(bytes)) = connection.recv().await {
                assert_ne!(&bytes[..], b"panic", "a panic on purpose");
                let answer = format!("{} panics", local.panics());
                drop(bytes);
                connection.send(answer).await.unwrap();
            }
        };
        let (at, handle) = start(engine, address, ListenOptions::default(), serve);
        let (mut bad, mut good) = (connect(&at), connect(&at));
        bad.write_all(b"panic").unwrap();
        assert_eq!(bad.read(&mut [0; 1]).unwrap_or(0), 0);
        good.write_all(b"how many?").unwrap();
        let mut answer = [0; 8];
        good.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"1 panics");
        let log = engine.log("after", 0).unwrap();
        log.append_blocking(crate::support::batch([1], 10)).unwrap();
        drop(good);
        assert_eq!(stop(handle), Ok(Ok(2)));
    });
}

#[test]
fn all_shards_listen_at_one_address() {
    let dir = Dir::new("reuseport");
    let engine = Engine::open(small(&dir.join("data"))).unwrap();
    let (ready, at) = mpsc::channel();
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap();
    drop(holder);
    let server = move |local: Local| async move {
        let options = ListenOptions::default();
        let mut listener = local.listen(Address::Tcp(address), options).await?;
        ready.send(()).unwrap();
        let serve = |local: Local, mut connection: Connection| async move {
            if let Ok(Some(_)) = connection.recv().await {
                connection.send(vec![local.shard() as u8]).await.unwrap();
            }
        };
        accept_all(&local, &mut listener, serve).await
    };
    let handles = engine.serve_all(server).unwrap();
    assert_eq!(handles.len(), 2);
    (0..2).for_each(|_| at.recv().unwrap());
    let mut answered = [0_u32; 2];
    for _ in 0..64 {
        let mut peer = TcpStream::connect(address).unwrap();
        peer.write_all(b"?").unwrap();
        let mut shard = [0; 1];
        peer.read_exact(&mut shard).unwrap();
        answered[usize::from(shard[0])] += 1;
    }
    assert!(answered.iter().all(|count| *count > 0), "{answered:?}");
    let counts: u64 = handles.into_iter().map(|handle| stop(handle).unwrap().unwrap()).sum();
    assert_eq!(counts, 64);
    engine.close().unwrap();
}

/// Memory of this process that is in use, in bytes.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// The child's part: the parent's other tests use memory and descriptors of their own.
#[test]
fn hold_ten_thousand_idle_connections() {
    /// What an idle connection may take in this process, the server's future of this test included.
    const BYTES_MAX: u64 = 2048;
    if crate::support::from_parent("RINGMAIN_CONNECTIONS").is_none() {
        return;
    }
    // Both ends are in this process.
    let wanted = ringmain::ring::limits::raise_open_files().saturating_sub(500) / 2;
    let count = wanted.min(10_000) as usize;
    over_sockets("crowd", |engine, address| {
        let serve = |_, mut connection: Connection| async move {
            let mut bytes = Vec::new();
            while connection.recv_into(&mut bytes).await.is_ok_and(|count| count > 0) {
                connection.send(std::mem::take(&mut bytes)).await.unwrap();
            }
        };
        let (at, handle) = start(engine, address, ListenOptions::default(), serve);
        let mut first = connect(&at);
        first.write_all(b"?").unwrap();
        first.read_exact(&mut [0; 1]).unwrap();
        let mut peers = Vec::with_capacity(count);
        let before = resident();
        peers.extend((1..count).map(|_| connect(&at)));
        // All are served once the last one is: connections are accepted in their order.
        let last = peers.last_mut().unwrap();
        last.write_all(b"?").unwrap();
        last.read_exact(&mut [0; 1]).unwrap();
        let each = resident().saturating_sub(before) / count as u64;
        let ticks = crate::idle::ticks();
        // What is measured is a span of time.
        std::thread::sleep(Duration::from_secs(1));
        let used = crate::idle::ticks() - ticks;
        eprintln!("{count} idle connections: {each} bytes each, {used} hundredths of a second");
        assert!(each <= BYTES_MAX, "{each} bytes for an idle connection");
        assert!(used <= 5, "{used} hundredths of a second in an idle second");
        for peer in peers.iter_mut().step_by(97) {
            peer.write_all(b"!").unwrap();
            peer.read_exact(&mut [0; 1]).unwrap();
        }
        drop(peers);
        drop(first);
        assert_eq!(stop(handle), Ok(Ok(count as u64)));
    });
}

#[test]
fn ten_thousand_idle_connections_take_bounded_memory_and_no_processor_time() {
    let mut child = crate::support::child(
        "sockets::hold_ten_thousand_idle_connections",
        &[("RINGMAIN_CONNECTIONS", "1")],
    );
    let output = child.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("crowd: Sync, unix"), "all were measured: {told}");
    eprintln!("{told}");
}
