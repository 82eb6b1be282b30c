//! Sealed segments that are harmed behind a running engine's back: by every way of reading comes what was appended, or
//! an error that names the segment. All the rest stays readable, and nothing waits for ever.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{RwLock, mpsc};
use std::time::{Duration, Instant};

use ringmain::batch::batches;
use ringmain::error::{NetError, ReadError};
use ringmain::serve::{Address, Connection, ListenOptions, Local};
use ringmain::types::{Isolation, Offset};
use ringmain::{AfterDamage, Config, Engine, Fetch, LogHandle, StreamError, StreamOptions};

use crate::sockets::{Peer, connect, loopback, start, stop};
use crate::support::{batch, everywhere, value};

/// Batches of a segment.
const BATCHES: u64 = 12;

/// Offsets of a batch.
const RECORDS: u64 = 3;

/// Offsets of a segment.
const SEGMENT: i64 = (BATCHES * RECORDS) as i64;

/// What ids of the second partition begin with.
const OTHER: u64 = 1_000_000;

/// What becomes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    CutInABatch,
    CutBetweenBatches,
    CutInTheLastPage,
    Emptied,
    Grown,
    Overwritten,
    Flipped,
    ZeroedFromTheMiddle,
    WrittenOverByTheNext,
    ReplacedByTheOneBefore,
    ReplacedByAnotherPartitions,
    ReplacedByAnEarlierImage,
    Unlinked,
    UnlinkedWithAllItHas,
}

const HARMS: [Harm; 14] = [
    Harm::CutInABatch,
    Harm::CutBetweenBatches,
    Harm::CutInTheLastPage,
    Harm::Emptied,
    Harm::Grown,
    Harm::Overwritten,
    Harm::Flipped,
    Harm::ZeroedFromTheMiddle,
    Harm::WrittenOverByTheNext,
    Harm::ReplacedByTheOneBefore,
    Harm::ReplacedByAnotherPartitions,
    Harm::ReplacedByAnEarlierImage,
    Harm::Unlinked,
    Harm::UnlinkedWithAllItHas,
];

/// Sealed segments: each harm has a healthy one on both sides.
const SEALED: i64 = 2 * HARMS.len() as i64 + 1;

/// One past the last offset: the tail has a batch.
const END: i64 = SEALED * SEGMENT + RECORDS as i64;

fn segment_of(offset: i64) -> i64 {
    (offset / SEGMENT).min(SEALED) * SEGMENT
}

/// Where a harm strikes.
fn struck(nth: usize) -> i64 {
    (2 * nth as i64 + 1) * SEGMENT
}

fn file(data: &Path, partition: u32, base: i64, end: &str) -> PathBuf {
    data.join(format!("orders-{partition}")).join(format!("{base:020}.{end}"))
}

fn fill(config: &Config) -> Engine {
    let engine = Engine::open(config.clone()).unwrap();
    for partition in 0..2 {
        let log = engine.log("orders", partition).unwrap();
        let first = u64::from(partition) * OTHER;
        for nth in 0..=SEALED as u64 * BATCHES {
            if nth > 0 && nth % BATCHES == 0 {
                log.roll_blocking().unwrap();
            }
            let ids = first + nth * RECORDS..first + (nth + 1) * RECORDS;
            log.append_blocking(batch(ids, 1500)).unwrap();
        }
        let last = file(&config.dir, partition, (SEALED - 1) * SEGMENT, "seal");
        let deadline = Instant::now() + Duration::from_secs(20);
        while !last.exists() {
            assert!(Instant::now() < deadline, "it is sealed");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    engine
}

impl Harm {
    fn strike(self, data: &Path, base: i64) {
        let path = file(data, 0, base, "log");
        let was = fs::read(&path).unwrap();
        let (length, batch) = (was.len() as u64, was.len() as u64 / BATCHES);
        let of = |base: i64| fs::read(file(data, 0, base, "log")).unwrap();
        let open = || File::options().write(true).open(&path).unwrap();
        let replace = |path: &Path, bytes: &[u8]| {
            let other = path.with_extension("other");
            fs::write(&other, bytes).unwrap();
            fs::rename(&other, path).unwrap();
        };
        match self {
            Self::CutInABatch => open().set_len(length / 2 + 7).unwrap(),
            Self::CutBetweenBatches => open().set_len(batch * 5).unwrap(),
            Self::CutInTheLastPage => open().set_len(length - 10).unwrap(),
            Self::Emptied => open().set_len(0).unwrap(),
            Self::Grown => open().write_all_at(&was, length).unwrap(),
            Self::Overwritten => open().write_all_at(&[0xaa; 6000], length / 2).unwrap(),
            Self::Flipped => {
                let at = length / 3;
                open().write_all_at(&[was[at as usize] ^ 1], at).unwrap();
            }
            Self::ZeroedFromTheMiddle => {
                let zeros = vec![0; (length - batch * 6) as usize];
                open().write_all_at(&zeros, batch * 6).unwrap();
            }
            Self::WrittenOverByTheNext => open().write_all_at(&of(base + SEGMENT), 0).unwrap(),
            Self::ReplacedByTheOneBefore => replace(&path, &of(base - SEGMENT)),
            Self::ReplacedByAnotherPartitions => {
                for end in ["log", "index", "timeindex", "seal"] {
                    replace(
                        &file(data, 0, base, end),
                        &fs::read(file(data, 1, base, end)).unwrap(),
                    );
                }
            }
            Self::ReplacedByAnEarlierImage => replace(&path, &was[..(batch * 7) as usize]),
            Self::Unlinked => fs::remove_file(&path).unwrap(),
            Self::UnlinkedWithAllItHas => {
                for end in ["log", "index", "timeindex", "seal"] {
                    fs::remove_file(file(data, 0, base, end)).unwrap();
                }
            }
        }
    }

    /// Whether who has the file open sees all of its bytes as they were, and so no harm.
    fn leaves_open_files_whole(self) -> bool {
        matches!(
            self,
            Self::Grown
                | Self::ReplacedByTheOneBefore
                | Self::ReplacedByAnotherPartitions
                | Self::ReplacedByAnEarlierImage
                | Self::Unlinked
                | Self::UnlinkedWithAllItHas
        )
    }
}

/// What readers of the first partition may meet.
struct Watch<'a> {
    log: &'a LogHandle,
    at: &'a Address,
    /// Segments that were harmed, or are about to be.
    harmed: &'a RwLock<HashSet<i64>>,
}

/// Checks that bytes are whole batches, in order and without a gap, of the first partition. Returns what comes next,
/// and where the first byte is that is not so.
fn followed(bytes: &[u8], from: i64) -> (i64, Option<String>) {
    let mut next = from;
    for batch in batches(bytes) {
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => return (next, Some(error.to_string())),
        };
        let (first, last) = (batch.base_offset().get(), batch.last_offset().get());
        if !(first <= next && next <= last) || first < next && next > from {
            return (next, Some(format!("{first} to {last} in place of {next}")));
        }
        for record in batch.records().unwrap() {
            let record = record.unwrap();
            assert!(record.value == Some(&value(record.offset.get() as u64, 1500)[..]), "{next}");
        }
        next = last + 1;
    }
    (next, None)
}

impl Watch<'_> {
    fn is_harmed(&self, segment: i64) -> bool {
        self.harmed.read().unwrap().contains(&segment)
    }

    /// An error names a segment that was harmed: the one that was asked for.
    fn excused(&self, error: &ReadError, offset: i64) {
        let (ReadError::Damaged { segment, .. } | ReadError::Altered { segment, .. }) = error
        else {
            panic!("at {offset}: {error}");
        };
        assert_eq!(segment.get(), segment_of(offset), "at {offset}: {error}");
        assert!(self.is_harmed(segment.get()), "at {offset}: {error}");
        if let ReadError::Damaged { asked, .. } = error {
            assert_eq!(asked.get(), offset, "{error}");
        }
    }

    /// Takes an answer of whole batches. Returns where to go on.
    fn take(&self, answer: Result<Vec<u8>, ReadError>, offset: i64) -> Option<i64> {
        match answer {
            Ok(bytes) => {
                let (next, wrong) = followed(&bytes, offset);
                assert!(wrong.is_none() && next > offset, "at {offset}: {wrong:?}");
                Some(next)
            }
            Err(error) => {
                self.excused(&error, offset);
                None
            }
        }
    }

    /// Reads at an offset by both calls, for a batch and for several segments.
    fn read(&self, offset: i64) {
        for max_bytes in [1, 200_000] {
            let from = Offset::new(offset);
            let read = self.log.read_blocking(from, max_bytes, Isolation::Durable);
            self.take(read, offset);
            let fetched = self.log.fetch_blocking(Fetch { max_bytes, ..Fetch::from(from) });
            let next = fetched.as_ref().ok().map(|fetched| fetched.next.get());
            let taken = self.take(fetched.map(|fetched| fetched.bytes), offset);
            assert_eq!(taken, next, "at {offset}");
        }
    }

    fn find(&self, offset: i64) {
        match self.log.find_offset_blocking(Offset::new(offset), Isolation::Durable) {
            Ok(found) => {
                let found = found.unwrap();
                let first = offset / RECORDS as i64 * RECORDS as i64;
                assert_eq!((found.first.get(), found.last.get()), (first, first + 2));
                assert_eq!(found.segment.get(), segment_of(offset));
            }
            Err(error) => self.excused(&error, offset),
        }
        let timestamp = 1_700_000_000_000 + offset;
        match self.log.find_time_blocking(timestamp, Isolation::Durable) {
            Ok(found) => {
                let found = found.unwrap();
                assert_eq!((found.offset.get(), found.timestamp), (offset, timestamp));
            }
            // One before it, of which nothing can be known, may have held what is looked for.
            Err(ReadError::Damaged { segment, .. } | ReadError::Altered { segment, .. }) => {
                assert!(segment.get() <= offset && self.is_harmed(segment.get()), "at {offset}");
            }
            Err(error) => panic!("at {offset}: {error}"),
        }
    }

    /// Goes over all of the log as a stream that passes over damage.
    fn stream(&self) {
        let after_damage = AfterDamage::PassOver;
        let options = StreamOptions { after_damage, fetch_bytes: 200_000, ..Default::default() };
        let mut next = 0;
        let mut errors = 0;
        for item in self.log.records_blocking(Offset::ZERO, options) {
            match item {
                Ok(record) => {
                    let offset = record.offset().get();
                    assert!(offset >= next, "{offset} comes again");
                    let skipped =
                        (next..offset).find(|skipped| !self.is_harmed(segment_of(*skipped)));
                    assert_eq!(skipped, None, "not harmed");
                    assert!(record.value() == Some(&value(offset as u64, 1500)[..]), "{offset}");
                    next = offset + 1;
                }
                Err(StreamError::Read(error)) => {
                    let (ReadError::Damaged { segment, .. } | ReadError::Altered { segment, .. }) =
                        error
                    else {
                        panic!("behind {next}: {error}")
                    };
                    assert!(self.is_harmed(segment.get()), "behind {next}: {error}");
                    errors += 1;
                    assert!(errors <= END, "there is an end to it");
                }
                Err(error) => panic!("behind {next}: {error}"),
            }
        }
        assert_eq!(next, END, "it ends where the log ends");
    }

    /// Asks for bytes through a socket. Those of a harmed segment are not checked on their way: the peer does that.
    fn receive(&self, peer: &mut Box<dyn Peer>, offset: i64, max_bytes: u64) {
        let request = [offset.to_le_bytes(), max_bytes.to_le_bytes()].concat();
        peer.write_all(&request).unwrap();
        let mut head = [0; 8];
        peer.read_exact(&mut head).unwrap();
        let length = i64::from_le_bytes(head);
        if length < 0 {
            assert!(self.is_harmed(segment_of(offset)), "at {offset}");
            return;
        }
        let mut bytes = Vec::new();
        let whole = Read::take(&mut *peer, length as u64).read_to_end(&mut bytes).unwrap();
        let (next, wrong) = followed(&bytes, offset);
        let broken_off = whole < length as usize;
        if broken_off || wrong.is_some() {
            // The last batch that came was whole, or the next one is harmed.
            assert!(self.is_harmed(segment_of(next)), "at {next}, from {offset}: {wrong:?}");
        }
        if broken_off {
            *peer = connect(self.at);
        }
    }

    /// Every way of reading, at every offset that is `step` from another, and all of it as a stream.
    fn look(&self, step: usize, peer: &mut Box<dyn Peer>) {
        for offset in (0..END).step_by(step) {
            self.read(offset);
            self.find(offset);
            self.receive(peer, offset, 1);
            self.receive(peer, offset, 200_000);
        }
        self.stream();
    }
}

/// Answers an offset and a number of bytes with how many there are, and those; -1 for an error.
async fn answer(local: Local, mut connection: Connection, tell: mpsc::Sender<NetError>) {
    let log = local.log("orders", 0).unwrap();
    let mut asked = Vec::new();
    while connection.recv_into(&mut asked).await.is_ok_and(|count| count > 0) {
        while let Some(request) = asked.first_chunk::<16>() {
            let offset = i64::from_le_bytes(request[..8].try_into().unwrap());
            let max_bytes = u64::from_le_bytes(request[8..].try_into().unwrap()) as usize;
            asked.drain(..16);
            let fetch = Fetch { max_bytes, ..Fetch::from(Offset::new(offset)) };
            match log.locate(fetch).await {
                Ok(range) => {
                    connection.send((range.bytes() as i64).to_le_bytes()).await.unwrap();
                    let sent = match connection.send_log(range).await {
                        Ok(()) => connection.sender().flush().await,
                        Err(error) => Err(error),
                    };
                    if let Err(error) = sent {
                        tell.send(error).unwrap();
                        return;
                    }
                }
                Err(error) => {
                    tell.send(NetError::Log(error)).unwrap();
                    connection.send((-1_i64).to_le_bytes()).await.unwrap();
                }
            }
        }
    }
}

/// Harms a log. With `known` all of it was read before, its files are open, and readers are in the middle of it.
fn harm(config: &Config, known: bool) {
    let mut engine = fill(config);
    if !known {
        engine.close().unwrap();
        engine = Engine::open(config.clone()).unwrap();
    }
    let (log, other) = (engine.log("orders", 0).unwrap(), engine.log("orders", 1).unwrap());
    let (tell, told) = mpsc::channel();
    let serve = move |local, connection| answer(local, connection, tell.clone());
    let (at, handle) = start(&engine, loopback(), ListenOptions::default(), serve);
    let harmed = RwLock::default();
    let watch = Watch { log: &log, at: &at, harmed: &harmed };
    let mut peer = connect(&at);
    if known {
        watch.look(13, &mut peer);
    }
    let over = AtomicBool::new(!known);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut peer = connect(watch.at);
            while !over.load(Ordering::Acquire) {
                watch.look(67, &mut peer);
            }
        });
        for (nth, harm) in HARMS.into_iter().enumerate() {
            harmed.write().unwrap().insert(struck(nth));
            harm.strike(&config.dir, struck(nth));
        }
        watch.look(7, &mut peer);
        over.store(true, Ordering::Release);
    });
    for (nth, harm) in HARMS.into_iter().enumerate() {
        let met = (struck(nth)..struck(nth) + SEGMENT)
            .find_map(|offset| log.read_blocking(Offset::new(offset), 1, Isolation::Durable).err());
        assert!(
            met.is_some() || known && harm.leaves_open_files_whole(),
            "{harm:?}: nobody is told"
        );
    }
    // Another partition, and what is appended, know nothing of it.
    let all = crate::support::read_all(&other, Offset::ZERO, Isolation::Durable);
    assert_eq!(all.len() as i64, END);
    log.append_blocking(batch([END as u64], 1500)).unwrap();
    watch.read(END);
    drop(peer);
    stop(handle).unwrap().unwrap();
    for error in told {
        let of_the_log =
            matches!(error, NetError::Log(ReadError::Damaged { .. } | ReadError::Altered { .. }));
        assert!(of_the_log, "{error}");
    }
    engine.close().unwrap();
}

#[test]
fn a_harmed_segment_gives_its_bytes_or_an_error_and_the_rest_is_readable() {
    everywhere("harmed", |config| harm(&Config { shards: 1, ..config }, true));
}

#[test]
fn a_segment_that_was_harmed_before_its_first_use_gives_its_bytes_or_an_error() {
    everywhere("harmed-unknown", |config| harm(&Config { shards: 1, ..config }, false));
}
