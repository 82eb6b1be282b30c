//! A server on tokio-uring with the engine inside: it takes records over TCP, and answers each with its offset
//! once it is on stable storage.
//!
//! ```text
//! cargo run --release -p ringmain --example server -- 127.0.0.1:7878 ./server-data
//! printf '\0\0\0\5hello\0\0\0\5world' | nc -q 1 127.0.0.1 7878 | xxd     # offsets 0 and 1, 8 bytes each
//! ```
//!
//! A record is its length in 4 bytes, big-endian, and its bytes; an answer is an offset in 8 bytes, big-endian.
//! Answers come in the order of records. Records that arrive together become one batch, and what all connections
//! send while a flush is under way shares the next one. Ctrl-C stops it: no connection is taken any more, those
//! that are open get the answers they wait for, and the log is closed.
//!
//! The engine has rings of its own, on its own threads; tokio-uring's serves the sockets. An append is a future like
//! any other, woken from the engine's thread.

use std::error::Error;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;

use ringmain::batch::BatchBuilder;
use ringmain::{Config, Engine, LogHandle};
use tokio::sync::{Semaphore, watch};
use tokio_uring::net::{TcpListener, TcpStream};

/// Connections at a time; more wait in the kernel's queue until one ends.
const CONNECTIONS_MAX: u32 = 64;

const RECORD_BYTES_MAX: usize = 1 << 20;

/// Bytes taken from a socket at once.
const READ_BYTES: usize = 64 << 10;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:7878".to_owned());
    let address: SocketAddr =
        address.parse().map_err(|e| format!("{address}: {e}; give IP:PORT"))?;
    let dir = arguments.next().map_or_else(|| PathBuf::from("server-data"), PathBuf::from);
    let engine = Engine::open(Config::new(&dir))?;
    let log = engine.log("records", 0)?;
    tokio_uring::start(async {
        let listener = TcpListener::bind(address)?;
        println!("records to {}, data in {}; Ctrl-C ends", listener.local_addr()?, dir.display());
        serve(listener, log, async { tokio::signal::ctrl_c().await.unwrap_or(()) }).await
    })?;
    engine.close()?;
    println!("closed");
    Ok(())
}

/// Serves until `stop` is ready and every connection has ended.
async fn serve(
    listener: TcpListener,
    log: LogHandle,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX as usize));
    let (stopping, stopped) = watch::channel(false);
    let mut stop = pin!(stop);
    loop {
        let permit = tokio::select! {
            () = &mut stop => break,
            permit = room.clone().acquire_owned() => permit.map_err(io::Error::other)?,
        };
        let stream = tokio::select! {
            () = &mut stop => break,
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

/// Takes records and answers them until the client closes its side, or the server stops.
async fn connection(
    stream: &TcpStream,
    log: &LogHandle,
    mut stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    let (mut pending, mut input) = (Vec::new(), vec![0; READ_BYTES]);
    let mut memory = Vec::new();
    loop {
        let (read, buffer) = tokio::select! {
            // Bytes that were on their way are not answered: to the client their outcome is unknown.
            _ = stopped.wait_for(|stop| *stop) => return Ok(()),
            read = stream.read(input) => read,
        };
        let bytes = read?;
        if bytes == 0 {
            return Ok(());
        }
        pending.extend_from_slice(&buffer[..bytes]);
        input = buffer;
        let (batch, taken) = gather(&pending, std::mem::take(&mut memory))?;
        pending.drain(..taken);
        if batch.is_empty() {
            continue;
        }
        let batch = batch.build().map_err(io::Error::other)?;
        let acked = log.append(batch).await.map_err(io::Error::other)?;
        let offsets = acked.base_offset.get()..=acked.last_offset.get();
        let answer: Vec<u8> = offsets.flat_map(i64::to_be_bytes).collect();
        stream.write_all(answer).await.0?;
        memory = acked.buffer;
    }
}

/// All whole records at the beginning of `pending` as a batch, and how many bytes they take.
fn gather(pending: &[u8], memory: Vec<u8>) -> io::Result<(BatchBuilder, usize)> {
    let (mut batch, mut taken) = (BatchBuilder::reuse(memory), 0);
    while let Some((length, rest)) = pending[taken..].split_first_chunk() {
        let length = u32::from_be_bytes(*length) as usize;
        if length > RECORD_BYTES_MAX {
            let what = format!("a record of {length} bytes; the most is {RECORD_BYTES_MAX}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let Some(value) = rest.get(..length) else { break };
        batch.add(-1, None, Some(value)).map_err(io::Error::other)?;
        taken += size_of::<u32>() + length;
    }
    Ok((batch, taken))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpStream as Client};
    use std::{env, fs, process, thread};

    use ringmain::batch::batches;
    use ringmain::types::{Isolation, Offset};
    use tokio::sync::oneshot;

    use super::*;

    fn frame(record: &[u8]) -> Vec<u8> {
        [&(record.len() as u32).to_be_bytes(), record].concat()
    }

    fn answer(client: &mut Client) -> u64 {
        let mut offset = [0; 8];
        client.read_exact(&mut offset).expect("answered");
        u64::from_be_bytes(offset)
    }

    #[test]
    fn every_record_is_answered_with_its_offset_and_is_there() {
        let dir = env::temp_dir().join(format!("ringmain-example-server-{}", process::id()));
        let engine = Engine::open(Config { shards: 1, ..Config::new(&dir) }).expect("opens");
        let log = engine.log("records", 0).expect("made");
        let (stop, stopped) = oneshot::channel::<()>();
        let (told, address) = std::sync::mpsc::channel();
        let served = log.clone();
        let server = thread::spawn(move || {
            tokio_uring::start(async {
                let listener = TcpListener::bind("127.0.0.1:0".parse().expect("an address"))?;
                told.send(listener.local_addr()?).expect("awaited");
                serve(listener, served, async { stopped.await.unwrap_or(()) }).await
            })
        });
        let address = address.recv().expect("it listens");
        let mut client = Client::connect(address).expect("connects");
        client.write_all(&[frame(b"one"), frame(b"two"), frame(b"")].concat()).expect("sent");
        assert_eq!([answer(&mut client), answer(&mut client), answer(&mut client)], [0, 1, 2]);
        let (head, tail) = (&frame(b"in two parts")[..7], &frame(b"in two parts")[7..]);
        client.write_all(head).expect("sent");
        client.write_all(tail).expect("sent");
        assert_eq!(answer(&mut client), 3);
        let mut other = Client::connect(address).expect("connects");
        other.write_all(&u32::MAX.to_be_bytes()).expect("sent");
        assert_eq!(other.read(&mut [0; 8]).unwrap_or(0), 0, "too long: closed without an answer");
        client.shutdown(Shutdown::Write).expect("open");
        let _idle = Client::connect(address).expect("connects");
        stop.send(()).expect("awaited");
        server.join().expect("no panic").expect("it stops in good order");
        let bytes = log.read_blocking(Offset::ZERO, 1 << 20, Isolation::Durable).expect("readable");
        let records = batches(&bytes).map(|batch| batch.expect("intact").header().record_count);
        assert_eq!(records.sum::<i32>(), 4);
        engine.close().expect("closes");
        fs::remove_dir_all(dir).expect("removed");
    }
}
