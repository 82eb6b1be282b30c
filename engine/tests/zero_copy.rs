//! Bytes of a log that go to a socket by any way are the bytes that a read gives, or the connection is closed.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use ringmain::batch::{Batch, BatchBuilder, batches};
use ringmain::error::{NetError, ReadError};
use ringmain::serve::{Connection, ListenOptions, Local, ReadPath};
use ringmain::types::{Compaction, Isolation, Offset, Retention, WriteMode};
use ringmain::{Config, Engine, Fetch};

use crate::sockets::{Peer, close_with_reset, connect, loopback, socket_at, start, stop};
use crate::support::{Dir, batch, everywhere, id_of, small, value};

const BATCH_BYTES: usize = 20_000;

/// Answers an offset and a number of bytes with what follows from there: how many bytes, where to go on, the bytes.
async fn answer(local: Local, mut connection: Connection) {
    let log = local.log("zero", 0).unwrap();
    let mut asked = Vec::new();
    while connection.recv_into(&mut asked).await.is_ok_and(|count| count > 0) {
        while let Some(request) = asked.first_chunk::<16>() {
            let offset = i64::from_le_bytes(request[..8].try_into().unwrap());
            let max_bytes = u64::from_le_bytes(request[8..].try_into().unwrap()) as usize;
            asked.drain(..16);
            let fetch = Fetch {
                max_bytes,
                isolation: Isolation::Dirty,
                max_wait: Duration::ZERO,
                ..Fetch::from(Offset::new(offset))
            };
            let range = log.locate(fetch).await.unwrap();
            let mut head = range.bytes().to_le_bytes().to_vec();
            head.extend(range.next().get().to_le_bytes());
            connection.send(head).await.unwrap();
            connection.send_log(range).await.unwrap();
        }
    }
}

/// Asks for what follows. Returns the bytes and where to go on.
fn fetch(peer: &mut dyn Peer, offset: i64, max_bytes: u64) -> (Vec<u8>, i64) {
    // In one piece: a second small one would wait for the first one's acknowledgement.
    let request = [offset.to_le_bytes(), max_bytes.to_le_bytes()].concat();
    peer.write_all(&request).unwrap();
    let mut head = [0; 16];
    peer.read_exact(&mut head).unwrap();
    let bytes = u64::from_le_bytes(head[..8].try_into().unwrap());
    let mut body = vec![0; bytes as usize];
    peer.read_exact(&mut body).unwrap();
    (body, i64::from_le_bytes(head[8..].try_into().unwrap()))
}

/// Fetches everything from `offset` on; the records' ids.
fn fetch_all(peer: &mut dyn Peer, mut offset: i64, max_bytes: u64) -> Vec<u64> {
    let mut ids = Vec::new();
    loop {
        let (bytes, next) = fetch(peer, offset, max_bytes);
        if bytes.is_empty() {
            return ids;
        }
        for batch in batches(&bytes) {
            for record in batch.unwrap().records().unwrap() {
                let record = record.unwrap();
                if record.offset.get() >= offset {
                    let bytes = record.value.unwrap();
                    let id = id_of(bytes);
                    assert_eq!(bytes, value(id, bytes.len()), "record {id} is intact");
                    ids.push(id);
                }
            }
        }
        offset = next;
    }
}

fn options() -> ListenOptions {
    ListenOptions { slow: Duration::from_secs(60), ..ListenOptions::default() }
}

#[test]
fn every_way_sends_the_bytes_that_a_read_gives_across_segments() {
    for path in ReadPath::ALL {
        everywhere(&format!("ways-{}", path.name()), |config| {
            let dir = config.dir.clone();
            let engine =
                Engine::open(Config { shards: 1, read_path: Some(path), ..config }).unwrap();
            let log = engine.log("zero", 0).unwrap();
            // Four sealed segments of a mebibyte, and a tail.
            for id in 0..220 {
                log.append_blocking(batch([id], BATCH_BYTES)).unwrap();
            }
            let expected: Vec<u64> = (0..220).collect();
            for address in [loopback(), socket_at(&dir)] {
                let (at, handle) = start(&engine, address, options(), answer);
                let mut peer = connect(&at);
                for max_bytes in [1, 70_000, 3 << 20, 64 << 20] {
                    assert_eq!(fetch_all(&mut *peer, 0, max_bytes), expected, "{path:?}");
                }
                for offset in [0, 17, 60, 219] {
                    let read = log.read_blocking(Offset::new(offset), 2 << 20, Isolation::Dirty);
                    let (bytes, _) = fetch(&mut *peer, offset, 2 << 20);
                    assert!(bytes == read.unwrap(), "{path:?} from {offset}");
                }
                drop(peer);
                assert_eq!(stop(handle), Ok(Ok(1)));
            }
            engine.close().unwrap();
        });
    }
}

/// What the one shard sent from the page cache, and past it.
fn sent(engine: &Engine) -> (u64, u64) {
    let stats = engine.stats()[0];
    (stats.sent_pages_bytes, stats.sent_cold_bytes)
}

#[test]
fn what_is_read_again_soon_is_brought_into_the_page_cache() {
    /// Readings until it is there: how soon is the kernel's business.
    const READINGS_MAX: usize = 1000;
    let dir = Dir::new("zero-again");
    let engine = Engine::open(Config { shards: 1, ..small(&dir.join("data")) }).unwrap();
    if engine.facts().write_mode != WriteMode::Direct {
        eprintln!("skipped: all is written through the page cache here");
        return;
    }
    let log = engine.log("zero", 0).unwrap();
    // One sealed segment of a mebibyte, and a tail behind what is asked for.
    for id in 0..60 {
        log.append_blocking(batch([id], BATCH_BYTES)).unwrap();
    }
    log.flush_blocking().unwrap();
    let sealed = 40 * BATCH_BYTES as u64;
    let (at, handle) = start(&engine, loopback(), options(), answer);
    let mut peer = connect(&at);
    // Once it has left the tail, it is read past the page cache, in which it never was.
    let left = (0..READINGS_MAX).find(|_| {
        fetch(&mut *peer, 0, sealed);
        sent(&engine).1 > 0
    });
    assert!(left.is_some() && sent(&engine).0 == 0, "{left:?}: {:?}", sent(&engine));
    let found = (0..READINGS_MAX).find(|_| {
        let before = sent(&engine);
        let (bytes, _) = fetch(&mut *peer, 0, sealed);
        let after = sent(&engine);
        after.0 - before.0 == bytes.len() as u64 && after.1 == before.1
    });
    assert!(found.is_some(), "all of it comes from the page cache in the end");
    drop(peer);
    assert_eq!(stop(handle), Ok(Ok(1)));
    engine.close().unwrap();
}

#[test]
fn readers_by_socket_see_appends_as_they_come() {
    everywhere("zero-live", |config| {
        let engine = Engine::open(Config { shards: 1, ..config }).unwrap();
        let log = engine.log("zero", 0).unwrap();
        let (at, handle) = start(&engine, loopback(), options(), answer);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (over, at) = (&over, &at);
            let readers: Vec<_> = (0..2)
                .map(|nth| {
                    scope.spawn(move || {
                        let mut peer = connect(at);
                        let mut seen = Vec::new();
                        loop {
                            let last = over.load(Ordering::Acquire);
                            let from = seen.len() as i64;
                            seen.extend(fetch_all(&mut *peer, from, 100_000 << (4 * nth)));
                            if last {
                                return seen;
                            }
                        }
                    })
                })
                .collect();
            for id in 0..200 {
                log.append_blocking(batch([id], BATCH_BYTES)).unwrap();
            }
            over.store(true, Ordering::Release);
            for reader in readers {
                assert_eq!(reader.join().unwrap(), (0..200).collect::<Vec<u64>>());
            }
        });
        assert_eq!(stop(handle), Ok(Ok(2)));
        engine.close().unwrap();
    });
}

/// A batch of one record, whose key it shares with many others.
fn keyed(id: u64) -> Batch {
    let mut builder = BatchBuilder::new();
    let key = [b'a' + (id % 8) as u8];
    builder.add(1_700_000_000_000, Some(&key), Some(&value(id, BATCH_BYTES))).unwrap();
    builder.build().unwrap()
}

/// A peer asks for all of a log and reads none of it; meanwhile `change` happens to the log. Returns how the
/// connection's sender was told.
fn while_sending(name: &str, change: impl Fn(&Engine)) -> Vec<NetError> {
    let mut told = Vec::new();
    everywhere(name, |config| {
        let engine = Engine::open(Config { shards: 1, ..config }).unwrap();
        let log = engine.log("zero", 0).unwrap();
        for id in 0..400 {
            log.append_blocking(keyed(id)).unwrap();
        }
        let (tell, failures) = mpsc::channel();
        let serve = move |local: Local, mut connection: Connection| {
            let tell = tell.clone();
            async move {
                let log = local.log("zero", 0).unwrap();
                let fetch = Fetch { max_bytes: 64 << 20, ..Fetch::from(Offset::ZERO) };
                let range = log.locate(fetch).await.unwrap();
                drop(log);
                drop(connection.recv().await.unwrap());
                connection.send(range.bytes().to_le_bytes()).await.unwrap();
                connection.send_log(range).await.unwrap();
                tell.send(connection.sender().flush().await).unwrap();
            }
        };
        let (at, handle) = start(&engine, socket_at(&engine_dir(&log)), options(), serve);
        let mut peer = connect(&at);
        peer.write_all(b"go").unwrap();
        let mut head = [0; 8];
        peer.read_exact(&mut head).unwrap();
        // The first bytes say that it is under way; the socket holds a part of the rest.
        let mut bytes = vec![0; 1000];
        peer.read_exact(&mut bytes).unwrap();
        change(&engine);
        peer.read_to_end(&mut bytes).unwrap();
        assert!((bytes.len() as u64) < u64::from_le_bytes(head), "not all of it came");
        // What came is of the log as it was.
        let whole = batches(&bytes).map_while(Result::ok).inspect(|batch| {
            for record in batch.records().unwrap() {
                let record = record.unwrap();
                assert_eq!(id_of(record.value.unwrap()), record.offset.get() as u64);
            }
        });
        assert!(whole.count() > 0);
        told.push(failures.recv().unwrap().unwrap_err());
        assert_eq!(stop(handle), Ok(Ok(1)));
        engine.close().unwrap();
    });
    told
}

fn engine_dir(log: &ringmain::LogHandle) -> std::path::PathBuf {
    std::path::PathBuf::from(format!("{log:?}-{:?}", std::thread::current().id()))
}

#[test]
fn a_truncation_waits_for_no_peer_and_its_bytes_are_not_sent() {
    let told = while_sending("zero-cut", |engine| {
        let log = engine.log("zero", 0).unwrap();
        log.truncate_to_blocking(Offset::new(300)).unwrap();
        for id in 300..320 {
            log.append_blocking(batch([id], 30_000)).unwrap();
        }
    });
    for error in told {
        assert!(matches!(error, NetError::Log(ReadError::Truncated { .. })), "{error}");
    }
}

#[test]
fn a_deletion_waits_for_no_peer_and_closes_its_connection() {
    let told = while_sending("zero-gone", |engine| engine.delete("zero", 0).unwrap());
    for error in told {
        assert!(matches!(error, NetError::Log(ReadError::Deleted)), "{error}");
    }
}

#[test]
fn a_compaction_waits_for_no_peer_and_mixes_no_bytes() {
    let told = while_sending("zero-compacted", |engine| {
        let log = engine.log("zero", 0).unwrap();
        let compact = Some(Compaction::default());
        log.set_retention_blocking(Some(Retention { compact, ..Retention::default() })).unwrap();
        while log.keeping_blocking().unwrap().compactions == 0 {
            drop(log.compact_blocking());
        }
    });
    for error in told {
        assert!(matches!(error, NetError::Log(ReadError::Compacted { .. })), "{error}");
    }
}

#[test]
fn records_deleted_under_a_range_close_its_connection() {
    let told = while_sending("zero-deleted", |engine| {
        let log = engine.log("zero", 0).unwrap();
        log.delete_records_blocking(Offset::new(390)).unwrap();
    });
    for error in told {
        assert!(matches!(error, NetError::Log(ReadError::OutOfRange { .. })), "{error}");
    }
}

#[test]
fn a_segment_cut_behind_our_back_is_an_error_by_every_way() {
    // In the middle; and in the last page, which the page cache has all the same.
    let cuts = |length: u64| [300_000, length - 10];
    for (path, nth) in ReadPath::ALL.into_iter().flat_map(|path| [(path, 0), (path, 1)]) {
        let dir = Dir::new(&format!("zero-swapped-{}-{nth}", path.name()));
        let config = Config { shards: 1, read_path: Some(path), ..small(&dir.join("data")) };
        let engine =
            Engine::open(Config { write_mode: Some(WriteMode::PageCache), ..config }).unwrap();
        let log = engine.log("zero", 0).unwrap();
        for id in 0..220 {
            log.append_blocking(batch([id], BATCH_BYTES)).unwrap();
        }
        log.checkpoint_blocking().unwrap();
        let (tell, failures) = mpsc::channel();
        let serve = move |local: Local, mut connection: Connection| {
            let tell = tell.clone();
            async move {
                let log = local.log("zero", 0).unwrap();
                let fetch = Fetch { max_bytes: 64 << 20, ..Fetch::from(Offset::ZERO) };
                let range = log.locate(fetch).await.unwrap();
                // Located, and open; now somebody cuts the file.
                connection.send(range.bytes().to_le_bytes()).await.unwrap();
                connection.send_log(range.clone()).await.unwrap();
                drop(connection.recv().await.unwrap());
                connection.send_log(range).await.unwrap();
                tell.send(connection.sender().flush().await).unwrap();
            }
        };
        let (at, handle) = start(&engine, loopback(), options(), serve);
        let mut peer = connect(&at);
        let mut all = [0; 8];
        peer.read_exact(&mut all).unwrap();
        let mut all = vec![0; u64::from_le_bytes(all) as usize];
        peer.read_exact(&mut all).unwrap();
        let first = dir.join("data").join("zero-0").join(format!("{:020}.log", 0));
        let first = std::fs::File::options().write(true).open(first).unwrap();
        let cut = cuts(first.metadata().unwrap().len())[nth];
        first.set_len(cut).unwrap();
        peer.write_all(b"go").unwrap();
        let mut bytes = Vec::new();
        peer.read_to_end(&mut bytes).unwrap();
        assert!(bytes == all[..bytes.len()], "{path:?}: what came is the log's");
        match failures.recv().unwrap() {
            Err(NetError::Log(ReadError::Damaged { .. } | ReadError::Altered { .. })) => {
                assert!(bytes.len() as u64 <= cut, "{path:?}: {} bytes", bytes.len());
            }
            // What was read past the page cache is still in memory.
            Ok(()) => assert_eq!((path, bytes.len()), (ReadPath::Direct, all.len())),
            Err(error) => panic!("{path:?}: {error}"),
        }
        assert_eq!(stop(handle), Ok(Ok(1)));
        drop(engine);
    }
}

#[test]
fn a_reset_in_the_middle_of_a_log_ends_that_connection_and_holds_nothing() {
    for path in ReadPath::ALL {
        everywhere(&format!("zero-reset-{}", path.name()), |config| {
            let engine =
                Engine::open(Config { shards: 1, read_path: Some(path), ..config }).unwrap();
            let log = engine.log("zero", 0).unwrap();
            for id in 0..80 {
                log.append_blocking(batch([id], BATCH_BYTES)).unwrap();
            }
            let (tell, failures) = mpsc::channel();
            let serve = move |local: Local, mut connection: Connection| {
                let tell = tell.clone();
                async move {
                    let log = local.log("zero", 0).unwrap();
                    drop(connection.recv().await.unwrap());
                    let all = Fetch { max_bytes: 64 << 20, ..Fetch::from(Offset::ZERO) };
                    let error = loop {
                        let range = log.locate(all).await.unwrap();
                        if let Err(error) = connection.send_log(range).await {
                            break error;
                        }
                    };
                    tell.send(error).unwrap();
                }
            };
            let (at, handle) = start(&engine, loopback(), options(), serve);
            // Two at once: one breaks off, and the other still gets what it asks for.
            let (mut first, mut other) = (connect(&at), connect(&at));
            for peer in [&mut first, &mut other] {
                peer.write_all(b"go").unwrap();
                peer.read_exact(&mut vec![0; 100_000]).unwrap();
            }
            close_with_reset(first);
            let error = failures.recv_timeout(Duration::from_secs(20)).unwrap();
            let reset = |errno| [libc::ECONNRESET, libc::EPIPE].contains(&errno);
            assert!(
                matches!(&error, NetError::Io(fault) if reset(fault.errno)),
                "{path:?}: {error}"
            );
            let read = log.read_blocking(Offset::ZERO, 64 << 20, Isolation::Durable).unwrap();
            let mut rest = vec![0; read.len() - 100_000];
            other.read_exact(&mut rest).unwrap();
            assert!(rest == read[100_000..], "{path:?}: the other peer's bytes are the log's");
            close_with_reset(other);
            failures.recv_timeout(Duration::from_secs(20)).unwrap();
            // Nothing of either is left that these would have to wait for.
            log.truncate_to_blocking(Offset::new(70)).unwrap();
            log.delete_records_blocking(Offset::new(60)).unwrap();
            log.append_blocking(batch([70], BATCH_BYTES)).unwrap();
            assert_eq!(stop(handle), Ok(Ok(2)));
            engine.close().unwrap();
        });
    }
}
