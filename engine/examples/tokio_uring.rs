//! A TCP server on tokio-uring: each line it is sent becomes a record, answered with its offset once that is on stable
//! storage.
//!
//! ```text
//! cargo run --release -p ringmain --example tokio_uring               # port 7878, ./tokio-uring-data
//! cargo run --release -p ringmain --example tokio_uring -- 7979 ./data
//! printf 'hello\nworld\n' | nc -q1 127.0.0.1 7878                     # answers 0 and 1, a line each
//! ```
//!
//! Answers come in the order of lines. Lines that arrive together become one batch, and what all connections send while
//! a flush is under way shares the next one. Ctrl-C stops it: no connection is taken any more, those that are open get
//! the answers they wait for, and the log is closed.
//!
//! The engine has rings of its own, on its own threads; tokio-uring's serves the sockets. An append is a future like
//! any other, woken from the engine's thread.

use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;

use ringmain::batch::BatchBuilder;
use ringmain::{Config, Engine, LogHandle};
use tokio::sync::{Semaphore, watch};
use tokio_uring::net::{TcpListener, TcpStream};

/// Connections at a time; more wait in the kernel's queue until one ends.
const CONNECTIONS_MAX: u32 = 64;

const LINE_BYTES_MAX: usize = 1 << 20;

/// Bytes taken from a socket at once.
const READ_BYTES: usize = 64 << 10;

fn main() -> Result<(), Box<dyn Error>> {
    let mut given = std::env::args().skip(1);
    let port = given.next().unwrap_or_else(|| "7878".to_owned());
    let port: u16 = port.parse().map_err(|e| format!("port {port}: {e}"))?;
    let dir = given.next().unwrap_or_else(|| "tokio-uring-data".to_owned());
    let engine = Engine::open(Config::new(&dir))?;
    let log = engine.log("lines", 0)?;
    tokio_uring::start(serve(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), log))?;
    engine.close()?;
    println!("closed");
    Ok(())
}

/// Serves until Ctrl-C, and until every connection has ended.
async fn serve(at: SocketAddr, log: LogHandle) -> io::Result<()> {
    let listener = TcpListener::bind(at)?;
    println!("listening at {}; Ctrl-C ends", listener.local_addr()?);
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX as usize));
    let (stopping, stopped) = watch::channel(false);
    let mut stop = pin!(tokio::signal::ctrl_c());
    loop {
        let permit = tokio::select! {
            _ = &mut stop => break,
            permit = room.clone().acquire_owned() => permit.map_err(io::Error::other)?,
        };
        let stream = tokio::select! {
            _ = &mut stop => break,
            accepted = listener.accept() => accepted?.0,
        };
        let (log, stopped) = (log.clone(), stopped.clone());
        tokio_uring::spawn(async move {
            if let Err(error) = connection(&stream, &log, stopped).await {
                eprintln!("a connection ended: {error}");
            }
            drop(permit);
        });
    }
    stopping.send_replace(true);
    // Every connection has ended once all permits are back.
    let _all = room.acquire_many(CONNECTIONS_MAX).await.map_err(io::Error::other)?;
    Ok(())
}

/// Takes lines and answers them until the client closes its side, or the server stops.
async fn connection(
    stream: &TcpStream,
    log: &LogHandle,
    mut stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    let (mut pending, mut input, mut memory) = (Vec::new(), vec![0; READ_BYTES], Vec::new());
    while pending.len() < LINE_BYTES_MAX {
        let (read, buffer) = tokio::select! {
            // Lines that were on their way are not answered: to the client their outcome is unknown.
            _ = stopped.wait_for(|stop| *stop) => return Ok(()),
            read = stream.read(input) => read,
        };
        let bytes = read?;
        if bytes == 0 {
            return Ok(());
        }
        pending.extend_from_slice(&buffer[..bytes]);
        input = buffer;
        let Some(last) = pending.iter().rposition(|byte| *byte == b'\n') else { continue };
        let mut batch = BatchBuilder::reuse(memory);
        for line in pending[..last].split(|byte| *byte == b'\n') {
            batch.add(-1, None, Some(line)).map_err(io::Error::other)?;
        }
        pending.drain(..=last);
        let batch = batch.build().map_err(io::Error::other)?;
        let acked = log.append(batch).await.map_err(io::Error::other)?;
        let offsets = acked.base_offset.get()..=acked.last_offset.get();
        let answer: Vec<u8> = offsets.flat_map(|at| format!("{at}\n").into_bytes()).collect();
        stream.write_all(answer).await.0?;
        memory = acked.buffer;
    }
    Err(io::Error::other(format!("a line is longer than {LINE_BYTES_MAX} bytes")))
}
