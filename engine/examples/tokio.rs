//! An HTTP server on tokio and axum: lines are posted, read from an offset or a time on, and followed by server-sent
//! events.
//!
//! ```text
//! cargo run --release -p ringmain --example tokio                          # port 8080, ./tokio-data
//! cargo run --release -p ringmain --example tokio -- 8081 ./data
//! printf 'hello\nworld\n' | curl --data-binary @- localhost:8080/lines     # "0 1": first and last offset
//! curl 'localhost:8080/lines?offset=1'              # OFFSET MILLISECONDS LINE, at most 1,000 of them
//! curl 'localhost:8080/lines?time=1700000000000'    # from the first on that is not older; without either, all
//! curl -N 'localhost:8080/follow?offset=0'          # what is there, then each line as it comes
//! ```
//!
//! A post is answered once its lines are on stable storage. Each event's id is its offset, so that a browser that
//! reconnects goes on where it was. Ctrl-C stops it: requests under way are answered, followers are let go, and the log
//! is closed.

use std::env;
use std::error::Error;
use std::net::Ipv4Addr;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::get;
use futures_util::{Stream, StreamExt, TryStreamExt};
use ringmain::batch::BatchBuilder;
use ringmain::types::{Isolation, Offset};
use ringmain::{Config, Engine, LogHandle, Record, StreamError, StreamOptions};
use tokio::net::TcpListener;
use tokio::signal::ctrl_c;

const LINES_MAX: usize = 1000;

type Answer<T> = Result<T, (StatusCode, String)>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut given = env::args().skip(1);
    let port = given.next().unwrap_or_else(|| "8080".to_owned());
    let port: u16 = port.parse().map_err(|e| format!("port {port}: {e}"))?;
    let engine = Engine::open(Config::new(given.next().as_deref().unwrap_or("tokio-data")))?;
    let log = engine.log("lines", 0)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    println!("listening at {}; Ctrl-C ends", listener.local_addr()?);
    let lines = get(read).post(append);
    let app = Router::new().route("/lines", lines).route("/follow", get(follow)).with_state(log);
    let stop = async { drop(ctrl_c().await) };
    axum::serve(listener, app).with_graceful_shutdown(stop).await?;
    engine.close()?;
    println!("closed");
    Ok(())
}

async fn append(State(log): State<LogHandle>, lines: String) -> Answer<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
    let bad = |error| (StatusCode::BAD_REQUEST, format!("{error}\n"));
    let mut batch = BatchBuilder::new();
    for line in lines.lines() {
        batch.add(now, None, Some(line.as_bytes())).map_err(bad)?;
    }
    let acked = log.append(batch.build().map_err(bad)?).await.map_err(failed)?;
    Ok(format!("{} {}\n", acked.base_offset, acked.last_offset))
}

async fn read(State(log): State<LogHandle>, Query(asked): Query<Asked>) -> Answer<String> {
    let records = log.records(asked.place(&log).await?, StreamOptions::default());
    let line = |r: Record| format!("{} {} {}\n", r.offset(), r.timestamp(), text(&r));
    records.take(LINES_MAX).map_ok(line).try_collect().await.map_err(failed)
}

async fn follow(
    State(log): State<LogHandle>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Answer<Sse<impl Stream<Item = Result<Event, StreamError>>>> {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let offset = last.map_or(asked.offset, |last: i64| last.checked_add(1));
    let from = Asked { offset, ..asked }.place(&log).await?;
    let options = StreamOptions { follow: true, ..StreamOptions::default() };
    let event = |r: Record| Event::default().id(r.offset().to_string()).data(text(&r));
    let events = log.records(from, options).map_ok(event).take_until(Box::pin(ctrl_c()));
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

/// Where a reader wants to begin; without either, where the log does.
#[derive(serde::Deserialize)]
struct Asked {
    offset: Option<i64>,
    time: Option<i64>,
}

impl Asked {
    async fn place(&self, log: &LogHandle) -> Answer<Offset> {
        let marks = log.watermarks().await.map_err(failed)?;
        let found = match (self.offset, self.time) {
            (Some(offset), _) => Offset::try_from(offset).ok().filter(|at| *at >= marks.log_start),
            (None, Some(time)) => {
                let found = log.find_time(time, Isolation::Durable).await.map_err(failed)?;
                Some(found.map_or(marks.durable, |found| found.offset))
            }
            (None, None) => Some(marks.log_start),
        };
        let begins = format!("the log begins with offset {}\n", marks.log_start);
        found.ok_or((StatusCode::RANGE_NOT_SATISFIABLE, begins))
    }
}

fn text(record: &Record) -> String {
    String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned()
}

fn failed(error: impl Error) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))
}
