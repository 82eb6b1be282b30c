//! Follows a log as `tail -f` does a file: its records from an offset or a point in time on, then each new one.
//!
//! ```text
//! journalctl -f | cargo run --release -p ringmain --example tail                  # in ./tail-data, from its beginning
//! cargo run --release -p ringmain --example tail -- ./tail-data 100 < /dev/null   # from offset 100 to the end
//! cargo run --release -p ringmain --example tail -- ./tail-data 10m < /dev/null   # the last ten minutes; also 2h, 30s
//! ```
//!
//! Lines of standard input are appended, compressed with zstd, and every record is printed as `OFFSET MILLISECONDS
//! LINE` once it is on stable storage. One process holds a data directory at a time, so writer and reader are the same
//! one here. It ends when its input has ended and all is printed, or with Ctrl-C.

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, pin, thread};

use ringmain::batch::{BatchBuilder, Compression};
use ringmain::types::{Isolation, Offset};
use ringmain::{Config, Engine, LogHandle, StreamOptions};
use tokio::sync::oneshot;

/// Longer lines become several records.
const LINE_BYTES_MAX: u64 = 1 << 20;

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut given = env::args().skip(1);
    let dir = given.next().unwrap_or_else(|| "tail-data".to_owned());
    let from = given.next();
    let engine = Engine::open(Config::new(&dir))?;
    let log = engine.log("lines", 0)?;
    let from = place(&log, from.as_deref()).await?;
    let (told, fed) = oneshot::channel();
    let writer = log.clone();
    // Not joined: after Ctrl-C it may wait for input that never comes.
    thread::spawn(move || told.send(feed(&writer)));
    let followed = follow(&log, from, fed).await;
    engine.close()?;
    followed
}

/// The offset where to begin: the log's start, the one that is named, or the first record that is not older.
async fn place(log: &LogHandle, from: Option<&str>) -> Result<Offset> {
    let marks = log.watermarks().await?;
    let Some(from) = from else { return Ok(marks.log_start) };
    let seconds = match from.as_bytes().last() {
        Some(b's') => 1,
        Some(b'm') => 60,
        Some(b'h') => 3600,
        _ => return from.parse().map_err(|e| format!("{from}: {e}; or a time such as 10m").into()),
    };
    let number: u32 = from[..from.len() - 1].parse().map_err(|e| format!("{from}: {e}"))?;
    let since = now_ms() - i64::from(number) * seconds * 1000;
    let found = log.find_time(since, Isolation::Durable).await?;
    Ok(found.map_or(marks.durable, |found| found.offset))
}

/// Prints records from `from` on until the input has ended, and with it the log, or Ctrl-C.
async fn follow(
    log: &LogHandle,
    from: Offset,
    mut fed: oneshot::Receiver<Result<Offset>>,
) -> Result<()> {
    // The next fetch is under way while the records of the last one are gone through.
    let options = StreamOptions { follow: true, ..StreamOptions::default() };
    let mut records = log.records(from, options);
    let mut end = None;
    let mut stop = pin::pin!(tokio::signal::ctrl_c());
    let mut out = io::stdout().lock();
    while end.is_none_or(|end| records.position() < end) {
        tokio::select! {
            _ = &mut stop => break,
            ended = &mut fed, if end.is_none() => end = Some(ended??),
            record = records.next() => {
                let Some(record) = record.transpose()? else { break };
                let line = String::from_utf8_lossy(record.value().unwrap_or_default());
                match writeln!(out, "{} {} {line}", record.offset(), record.timestamp()) {
                    // Whoever reads this has seen enough.
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                    written => written?,
                }
            }
        }
    }
    Ok(())
}

/// Appends the lines of standard input, those that come together as one batch. Returns where the log ends.
fn feed(log: &LogHandle) -> Result<Offset> {
    let mut input = BufReader::with_capacity(256 << 10, io::stdin().lock());
    let mut end = log.watermarks_blocking()?.dirty;
    let mut line = Vec::new();
    loop {
        let compression = Compression::Zstd { level: 3 };
        let mut batch = BatchBuilder::new().compression(compression);
        while input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? > 0 {
            batch.add(now_ms(), None, Some(line.trim_ascii_end()))?;
            line.clear();
            if !input.buffer().contains(&b'\n') {
                break;
            }
        }
        if batch.is_empty() {
            return Ok(end);
        }
        end = log.append_blocking(batch.build()?)?.last_offset.plus(1);
    }
}

fn now_ms() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    since_1970.map_or(0, |since| since.as_millis() as i64)
}
