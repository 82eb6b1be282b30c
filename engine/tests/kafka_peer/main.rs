//! The engine's side of `scripts/check-kafka-format`: writes a directory for Kafka to read, and reads and goes on with
//! directories that Kafka wrote. The other side is `scripts/kafka/`.
//!
//! ```text
//! kafka_peer write DATA LINES       a data directory of every kind of batch, closed cleanly, and what is in it
//! kafka_peer read DATA LINES        opens DATA, reads it whole, and compares it with the lines
//! kafka_peer append DATA LINES      opens DATA, appends to every partition, closes it cleanly, adds to the lines
//! kafka_peer dumped LINES           compares what `ringmain-bench dump --records --json` gives with the lines
//! ```

use std::error::Error;
use std::io;
use std::path::Path;

use ringmain::{Config, Engine};

mod dumped;
mod lines;
mod read;
mod write;

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["write", data, lines] => write::write(Path::new(data), Path::new(lines)),
        ["read", data, lines] => read::read(Path::new(data), Path::new(lines)),
        ["append", data, lines] => write::append(Path::new(data), Path::new(lines)),
        ["dumped", lines] => dumped::check(io::stdin().lock(), Path::new(lines)),
        _ => Err("give write, read, append or dumped, and what they need".into()),
    }
}

/// An engine on `data` that rolls often.
fn open(data: &Path) -> Result<Engine, Box<dyn Error>> {
    let engine = Engine::open(Config {
        shards: 2,
        pin: false,
        memory_bytes: 32 << 20,
        journal_bytes: 4 << 20,
        segment_bytes: 128 << 10,
        ..Config::new(data)
    })?;
    let report = engine.recovery();
    if !report.damage.is_empty() || !report.journal_damage.is_empty() || !report.suspects.is_empty()
    {
        return Err(format!("damage: {report:#?}").into());
    }
    Ok(engine)
}
