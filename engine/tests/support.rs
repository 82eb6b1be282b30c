//! Directories, settings and batches for the tests.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use ringmain::batch::{Batch, BatchBuilder, batches};
use ringmain::types::{Isolation, Offset, WriteMode};
use ringmain::{Backend, Config, Engine, LogHandle};

/// A directory of a test's own, removed when it ends well.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new(name: &str) -> Self {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&path));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            drop(std::fs::remove_dir_all(&self.0));
        }
    }
}

/// Settings that are small enough for many engines at once.
pub(crate) fn small(dir: &Path) -> Config {
    Config {
        shards: 2,
        pin: false,
        memory_bytes: 16 << 20,
        journal_bytes: 4 << 20,
        segment_bytes: 1 << 20,
        scrub_bytes_per_s: 0,
        durability: Some(ringmain::types::Durability::Fdatasync),
        read_path: Some(ringmain::serve::ReadPath::Sendfile),
        ..Config::new(dir)
    }
}

/// Runs `test` over both backends and both write modes, each in a directory of its own.
pub(crate) fn everywhere(name: &str, mut test: impl FnMut(Config)) {
    let uring = Engine::open(Config {
        backend: Backend::Uring,
        ..small(Dir::new(&format!("{name}-probe")).path())
    });
    let backends: &[Backend] = match uring {
        Ok(_) => &[Backend::Uring, Backend::Sync],
        Err(error) => {
            eprintln!("skipped on io_uring: {error}");
            &[Backend::Sync]
        }
    };
    for backend in backends {
        for mode in [WriteMode::Direct, WriteMode::PageCache] {
            let dir = Dir::new(&format!("{name}-{backend:?}-{mode:?}"));
            eprintln!("{name}: {backend:?}, {mode:?}");
            let data = dir.join("data");
            test(Config { backend: *backend, write_mode: Some(mode), ..small(&data) });
        }
    }
}

/// The value of record `id`: recognisable, of a length and a content that only it has.
pub(crate) fn value(id: u64, bytes: usize) -> Vec<u8> {
    let mut out = id.to_be_bytes().to_vec();
    let mut state = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while out.len() < bytes.max(8) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        out.push((state >> 56) as u8);
    }
    out
}

pub(crate) fn id_of(value: &[u8]) -> u64 {
    u64::from_be_bytes(value[..8].try_into().unwrap())
}

/// A batch of the records `ids`, `bytes` each.
pub(crate) fn batch(ids: impl IntoIterator<Item = u64>, bytes: usize) -> Batch {
    let mut builder = BatchBuilder::new();
    for id in ids {
        builder.add(1_700_000_000_000 + id as i64, None, Some(&value(id, bytes))).unwrap();
    }
    builder.build().unwrap()
}

/// Every record from `from` to the isolation bound: offset and value. Checks that offsets only grow.
pub(crate) fn read_all(log: &LogHandle, from: Offset, isolation: Isolation) -> Vec<(i64, Vec<u8>)> {
    let mut out: Vec<(i64, Vec<u8>)> = Vec::new();
    let mut next = from;
    loop {
        let bytes = log.read_blocking(next, 256 << 10, isolation).unwrap();
        if bytes.is_empty() {
            return out;
        }
        for batch in batches(&bytes) {
            let batch = batch.unwrap();
            for record in batch.records().unwrap() {
                let record = record.unwrap();
                assert!(out.last().is_none_or(|(last, _)| record.offset.get() > *last));
                out.push((record.offset.get(), record.value.unwrap_or_default().to_vec()));
            }
            assert!(batch.last_offset() >= next, "a read goes forward");
            next = batch.last_offset().plus(1);
        }
    }
}

/// The ids of all records, each of which must have its own content.
pub(crate) fn ids(log: &LogHandle) -> Vec<u64> {
    let records = read_all(log, Offset::ZERO, Isolation::Dirty);
    records
        .into_iter()
        .enumerate()
        .map(|(at, (offset, bytes))| {
            assert_eq!(offset, at as i64, "offsets have no gap");
            let id = id_of(&bytes);
            assert_eq!(bytes, value(id, bytes.len()), "record {id} is intact");
            id
        })
        .collect()
}

pub(crate) fn verified(dir: &Path) -> ringmain::inspect::VerifyReport {
    let report = ringmain::inspect::verify(dir).unwrap();
    assert!(report.is_healthy(), "{}: {:#?}", dir.display(), report.problems);
    report
}

/// An executor that knows nothing of the engine's: a waker, a flag and a condition.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Signal(Mutex<bool>, Condvar);
    impl Wake for Signal {
        fn wake(self: Arc<Self>) {
            *self.0.lock().unwrap() = true;
            self.1.notify_one();
        }
    }
    let signal = Arc::new(Signal(Mutex::new(false), Condvar::new()));
    let waker = Waker::from(signal.clone());
    let mut cx = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        let mut woken = signal.0.lock().unwrap();
        while !*woken {
            woken = signal.1.wait(woken).unwrap();
        }
        *woken = false;
    }
}

/// This binary again, running one test that plays a child's part.
pub(crate) fn child(test: &str, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]);
    command.env("RINGMAIN_CHILD", "1").envs(variables.iter().copied());
    command.stdin(std::process::Stdio::null());
    command
}

/// A variable that the parent set; `None` if this is no child.
pub(crate) fn from_parent(variable: &str) -> Option<String> {
    std::env::var("RINGMAIN_CHILD").ok()?;
    std::env::var(variable).ok()
}

pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}
