//! A server inside a shard: sockets, appends and zero-copy fetches on one ring and one thread, no other on the way.
//!
//! ```text
//! cargo run --release -p ringmain --example ring_server               # port 9100, ./ring-server-data
//! cargo run --release -p ringmain --example ring_server -- 9200 ./data
//! printf 'append hello\nappend world\nfetch 0\n' | nc -q1 127.0.0.1 9100
//! ```
//!
//! One request a line. `append TEXT` answers `OFFSET` once the record is on stable storage. `fetch OFFSET` answers
//! `BYTES NEXT`, then so many bytes as the log holds them: whole record batches of Kafka's, sent from memory, the page
//! cache or the disk without a copy where there is a way. `follow OFFSET` does so as records come, `0 NEXT` after a
//! second without any. What can not be done is answered with `error` and why. Ctrl-C stops it: requests under way are
//! answered, and the log is closed.

use std::env;
use std::error::Error;
use std::net::Ipv4Addr;
use std::time::Duration;

use ringmain::batch::BatchBuilder;
use ringmain::error::NetError;
use ringmain::serve::{Address, Connection, ListenOptions, Local, LocalLog};
use ringmain::{Config, Engine, Fetch};

const LINE_BYTES_MAX: usize = 64 * 1024;

/// Time that requests under way have to end in once the server stops.
const GRACE: Duration = Duration::from_secs(2);

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut given = env::args().skip(1);
    let port = given.next().unwrap_or_else(|| "9100".to_owned());
    let port: u16 = port.parse().map_err(|e| format!("port {port}: {e}"))?;
    let dir = given.next().unwrap_or_else(|| "ring-server-data".to_owned());
    let engine = Engine::open(Config { shards: 1, ..Config::new(dir) })?;
    engine.log("lines", 0)?;
    println!("sealed segments go to sockets by {:?}", engine.read_paths()?.in_force());
    let mut service = engine.serve(0, move |local| serve(local, (Ipv4Addr::LOCALHOST, port)))?;
    // This thread has nothing to do but to wait for Ctrl-C; tokio is only for that.
    tokio::select! {
        ended = service.join() => ended??,
        _ = tokio::signal::ctrl_c() => {
            service.stop(GRACE);
            service.join().await??;
        }
    }
    engine.close()?;
    println!("closed");
    Ok(())
}

/// Runs on the shard's thread: nothing here may block.
async fn serve(local: Local, at: (Ipv4Addr, u16)) -> Result<(), NetError> {
    let mut listener = local.listen(Address::Tcp(at.into()), ListenOptions::default()).await?;
    println!("listening at {}; Ctrl-C ends", listener.address());
    let log = local.log("lines", 0).expect("main has made it, on the only shard");
    loop {
        let connection = match listener.accept().await {
            Err(NetError::Stopping) => return Ok(()),
            accepted => accepted?,
        };
        let (log, service) = (log.clone(), local.clone());
        local.spawn(async move { drop(converse(connection, log, service).await) });
    }
}

/// Answers one request after the other until the peer closes its side, or the server stops.
async fn converse(mut connection: Connection, log: LocalLog, service: Local) -> Result<()> {
    let mut asked = Vec::new();
    while asked.len() < LINE_BYTES_MAX {
        match connection.recv_into(&mut asked).await {
            Ok(0) | Err(NetError::Stopping) => break,
            received => received?,
        };
        while let Some(end) = asked.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = asked.drain(..=end).collect();
            let line = String::from_utf8_lossy(line.trim_ascii_end());
            if let Err(error) = answer(&line, &connection, &log, &service).await {
                connection.send(format!("error: {error}\n")).await?;
            }
        }
    }
    Ok(connection.finish(GRACE).await?)
}

async fn answer(line: &str, to: &Connection, log: &LocalLog, service: &Local) -> Result<()> {
    match line.split_once(' ') {
        Some(("append", text)) => {
            let mut batch = BatchBuilder::new();
            batch.add(-1, None, Some(text.as_bytes()))?;
            let appended = log.append(batch.build()?).await?;
            to.send(format!("{}\n", appended.base_offset)).await?;
        }
        Some((verb @ ("fetch" | "follow"), offset)) => {
            let max_wait = Duration::from_secs(u64::from(verb == "follow"));
            let mut fetch = Fetch { max_wait, ..Fetch::from(offset.parse()?) };
            loop {
                fetch = send(to, log, fetch).await?;
                if verb == "fetch" || service.is_stopping() {
                    break;
                }
            }
        }
        _ => to.send("error: say append TEXT, fetch OFFSET or follow OFFSET\n").await?,
    }
    Ok(())
}

/// Sends a line from memory, then the log's own bytes. Returns the fetch of what comes after them.
async fn send(to: &Connection, log: &LocalLog, fetch: Fetch) -> Result<Fetch> {
    let range = log.locate(fetch).await?;
    to.send(format!("{} {}\n", range.bytes(), range.next())).await?;
    let following = range.following(fetch);
    to.send_log(range).await?;
    Ok(following)
}
