//! A server inside a shard: sockets, appends and zero-copy fetches on one ring and one thread, no other on the way.
//!
//! ```text
//! cargo run --release -p ringmain --example ring_server                           # tries itself, then ends
//! cargo run --release -p ringmain --example ring_server -- 127.0.0.1:9100 ./data  # serves until it is killed
//! printf 'append hello\nappend world\n' | nc -q1 127.0.0.1 9100
//! ```
//!
//! One request a line. `append TEXT` answers `OFFSET` once the record is on stable storage. `fetch OFFSET` answers
//! `BYTES NEXT`, then so many bytes as the log holds them: whole record batches of Kafka's, sent from memory, the page
//! cache or the disk without a copy where there is a way. `follow OFFSET` does so for ever, as records come.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;
use std::{env, fs, process};

use ringmain::batch::{BatchBuilder, batches};
use ringmain::error::NetError;
use ringmain::serve::{Address, Connection, ListenOptions, Local, LocalLog};
use ringmain::types::Offset;
use ringmain::{Config, Engine, Fetch};

/// Longest request.
const LINE_BYTES_MAX: usize = 64 * 1024;

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

fn main() -> Result<()> {
    let mut given = env::args().skip(1);
    let (address, dir) = (given.next(), given.next().map(PathBuf::from));
    let own = env::temp_dir().join(format!("ringmain-ring-server-{}", process::id()));
    let engine = Engine::open(Config { shards: 1, ..Config::new(dir.as_ref().unwrap_or(&own)) })?;
    engine.log("lines", 0)?;
    let at: SocketAddr = address.as_deref().unwrap_or("127.0.0.1:0").parse()?;
    let (ready, started) = channel();
    let service = engine.serve(0, move |local| serve(local, at, ready))?;
    if let Ok(Address::Tcp(at)) = started.recv() {
        println!("listening at {at}; segments go by {:?}", engine.read_paths()?.in_force());
        if address.is_none() {
            try_it(at)?;
            service.stop(Duration::from_secs(1));
        }
    }
    service.wait()??;
    engine.close()?;
    if dir.is_none() {
        fs::remove_dir_all(own)?;
    }
    Ok(())
}

async fn serve(local: Local, at: SocketAddr, ready: Sender<Address>) -> Result<(), NetError> {
    let mut listener = local.listen(Address::Tcp(at), ListenOptions::default()).await?;
    let _main_waits = ready.send(listener.address().clone());
    let log = local.log("lines", 0).expect("main has made it, on the only shard");
    loop {
        let connection = match listener.accept().await {
            Err(NetError::Stopping) => return Ok(()),
            accepted => accepted?,
        };
        let log = log.clone();
        local.spawn(async move { drop(converse(connection, log).await) });
    }
}

async fn converse(mut connection: Connection, log: LocalLog) -> Result<()> {
    let mut asked = Vec::new();
    while asked.len() < LINE_BYTES_MAX && connection.recv_into(&mut asked).await? > 0 {
        while let Some(end) = asked.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = asked.drain(..=end).collect();
            let line = String::from_utf8(line)?;
            match line.trim_end().split_once(' ') {
                Some(("append", text)) => {
                    let mut batch = BatchBuilder::new();
                    batch.add(-1, None, Some(text.as_bytes()))?;
                    let appended = log.append(batch.build()?).await?;
                    connection.send(format!("{}\n", appended.base_offset)).await?;
                }
                Some(("fetch", at)) => drop(send(&connection, &log, at, Duration::ZERO).await?),
                Some(("follow", offset)) => {
                    let mut next = offset.to_owned();
                    loop {
                        next = send(&connection, &log, &next, Duration::from_secs(1)).await?;
                    }
                }
                _ => connection.send("append TEXT, fetch OFFSET or follow OFFSET\n").await?,
            }
        }
    }
    Ok(connection.finish(Duration::from_secs(1)).await?)
}

/// Sends what follows `offset`: a header from memory, then the log's own bytes. Returns where to go on.
async fn send(to: &Connection, log: &LocalLog, at: &str, max_wait: Duration) -> Result<String> {
    let range = log.locate(Fetch { max_wait, ..Fetch::from(Offset::new(at.parse()?)) }).await?;
    let next = range.next().to_string();
    to.send(format!("{} {next}\n", range.bytes())).await?;
    to.send_log(range).await?;
    Ok(next)
}

fn try_it(at: SocketAddr) -> Result<()> {
    let mut peer = BufReader::new(TcpStream::connect(at)?);
    let mut lines = String::new();
    peer.get_mut().write_all(b"append hello\nappend world\nfetch 0\n")?;
    for _ in 0..3 {
        peer.read_line(&mut lines)?;
    }
    let bytes = lines.lines().last().and_then(|line| line.split_once(' ')).ok_or("no answer")?.0;
    let mut body = vec![0; bytes.parse()?];
    peer.read_exact(&mut body)?;
    println!("{} batches of {bytes} bytes came back", batches(&body).map_while(Result::ok).count());
    Ok(())
}
