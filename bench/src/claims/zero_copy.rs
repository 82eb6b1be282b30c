//! Ways of a log's bytes from the page cache to a socket.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::claim::{Arm, Claim, Guard, Meter, Ready, Slice, Stage};
use super::rule::{Bound, Figure, Rule, Unit};
use crate::cores::{Cores, Pinned};
use crate::payload::Payload;
use crate::senders::{
    Kind, STEP_BYTES, Sent, Way, pair, receive, send_over_and_over, trial, unpaced,
};

/// Bytes of the file: more than the last cache before memory holds, so that each byte is fetched from memory.
const FILE_BYTES: usize = 96 << 20;

/// A slice's warm-up, as a share of it.
const WARM_UP: f64 = 0.2;

/// Of the thread that sends alone: the receiver's copy is the same for all.
const SENDER: &str = "sender's processor time a MiB";

/// Of the kernel's notices of SEND_ZC.
const COPIED: &str = "share copied after all";

const ARMS: [(&str, Kind, Way); 12] = [
    ("tcp_read", Kind::Tcp, Way::Read),
    ("tcp_mmap", Kind::Tcp, Way::Mmap),
    ("tcp_sendfile", Kind::Tcp, Way::Sendfile),
    ("tcp_splice", Kind::Tcp, Way::Splice),
    ("tcp_ring_send", Kind::Tcp, Way::RingSend),
    ("tcp_ring_send_zc", Kind::Tcp, Way::RingSendZc),
    ("unix_read", Kind::Unix, Way::Read),
    ("unix_mmap", Kind::Unix, Way::Mmap),
    ("unix_sendfile", Kind::Unix, Way::Sendfile),
    ("unix_splice", Kind::Unix, Way::Splice),
    ("unix_ring_send", Kind::Unix, Way::RingSend),
    ("unix_ring_send_zc", Kind::Unix, Way::RingSendZc),
];

const fn tcp(name: &'static str, label: &'static str, about: &'static str) -> Arm {
    Arm::new(name, "TCP over loopback", label, about)
}

const fn unix(name: &'static str, label: &'static str) -> Arm {
    Arm::new(name, "a unix socket", label, "the same")
}

/// Less processor time for the sender.
const fn cheaper(of: &'static str, over: &'static str, when: &'static str) -> Rule {
    let figure = Figure::Named(SENDER, Unit::Micros);
    Rule { of, over, figure, bound: Bound::AtMost(0.8), when }
}

const fn faster(of: &'static str, over: &'static str, when: &'static str) -> Rule {
    Rule { of, over, figure: Figure::MibPerS, bound: Bound::AtLeast(1.1), when }
}

pub(super) static CLAIM: Claim = Claim {
    name: "zero-copy",
    sentence: "sendfile, splice and mmap beat read and write on the way from the page cache to a \
               socket.",
    source: "Kafka's documentation and every text after it: \"zero-copy\" sends a log by `sendfile`, \
             \"avoiding\" the copies into and out of the program.",
    mechanism: "`read` and `write` copy each byte twice, out of the page cache and into the socket's \
                buffers. A mapping saves the first copy, `sendfile` and `splice` hand over the pages \
                themselves, and SEND_ZC pins them. What is saved is memory bandwidth and the sender's \
                cycles; what is paid is the accounting of pages, one by one. The receiver copies in \
                any case. A log that is encrypted on its way has to be read by the program anyhow.",
    ends: "Where the copy is cheap: a buffer that stays in the core's cache costs less to fill and to send \
             than the pages' accounting does. Over loopback the receiver copies in any case, on the same \
             memory bus, so that a sender that is done earlier waits for it, and the rate gains less than \
             the sender saves.",
    headline: Figure::Named(SENDER, Unit::Micros),
    arms: &[
        tcp(
            "tcp_read",
            "read + write",
            "`pread` of 64 KiB, which stay in the core's cache, and `write`",
        ),
        tcp(
            "tcp_mmap",
            "mmap + write",
            "`write` of 512 KiB of the mapped file, pages mapped before",
        ),
        tcp("tcp_sendfile", "sendfile", "`sendfile`, 512 KiB a call"),
        tcp(
            "tcp_splice",
            "splice",
            "`splice` of 512 KiB into a pipe, and out of it into the socket",
        ),
        tcp(
            "tcp_ring_send",
            "ring SEND",
            "io_uring, `SEND` of 512 KiB of the mapped file, one in flight",
        ),
        tcp(
            "tcp_ring_send_zc",
            "ring SEND_ZC",
            "the same with `SEND_ZC`; up to 16 whose pages the kernel still holds",
        ),
        unix("unix_read", "read + write"),
        unix("unix_mmap", "mmap + write"),
        unix("unix_sendfile", "sendfile"),
        unix("unix_splice", "splice"),
        unix("unix_ring_send", "ring SEND"),
        unix("unix_ring_send_zc", "ring SEND_ZC"),
    ],
    rules: &[
        cheaper("tcp_sendfile", "tcp_read", "in the sender's processor time, sendfile over TCP"),
        cheaper("tcp_splice", "tcp_read", "in the sender's processor time, splice over TCP"),
        cheaper("tcp_mmap", "tcp_read", "in the sender's processor time, mmap over TCP"),
        cheaper("tcp_ring_send", "tcp_read", "in the sender's processor time, ring SEND over TCP"),
        cheaper("tcp_ring_send_zc", "tcp_read", "in the sender's processor time, SEND_ZC over TCP"),
        cheaper(
            "unix_sendfile",
            "unix_read",
            "in the sender's processor time, sendfile to a unix socket",
        ),
        cheaper(
            "unix_splice",
            "unix_read",
            "in the sender's processor time, splice to a unix socket",
        ),
        cheaper("unix_mmap", "unix_read", "in the sender's processor time, mmap to a unix socket"),
        cheaper(
            "unix_ring_send",
            "unix_read",
            "in the sender's processor time, ring SEND to a unix socket",
        ),
        cheaper(
            "unix_ring_send_zc",
            "unix_read",
            "in the sender's processor time, SEND_ZC to a unix socket",
        ),
        faster("tcp_sendfile", "tcp_read", "in MiB/s, sendfile over TCP"),
        faster("tcp_splice", "tcp_read", "in MiB/s, splice over TCP"),
        faster("tcp_mmap", "tcp_read", "in MiB/s, mmap over TCP"),
        faster("unix_sendfile", "unix_read", "in MiB/s, sendfile to a unix socket"),
    ],
    guards: &[
        Guard {
            what: "loopback: no card fetches the bytes, and the receiver's copy runs beside the sender",
            how: "the sender's processor time is what the claim is about; the rate stands beside it. A \
                  kernel that has to copy after all says so for SEND_ZC, and the share is a figure",
        },
        Guard {
            what: "a congestion control that paces, as BBR does, is measured in place of the copies",
            how: "the sender takes `reno`, as the engine does within a machine; a kernel without it keeps its own",
        },
        Guard {
            what: "pages come from the disk in one arm, and from the page cache in the next",
            how: "a file of 96 MiB, written through the page cache, flushed, and read once before",
        },
        Guard {
            what: "the core's own cache holds a small file",
            how: "96 MiB, gone through from beginning to end",
        },
        Guard {
            what: "sender and receiver share a core",
            how: "each is pinned to one of its own, if there are two",
        },
        Guard {
            what: "a way is written badly",
            how: "`read` with a buffer that stays in the core's cache, pages mapped ahead, a pipe as \
                  large as the step, a ring made for one thread; a test sends known bytes by each way",
        },
    ],
    slice: Duration::from_millis(100),
    space_bytes: 2 * FILE_BYTES as u64,
    prepare,
};

fn prepare<'a>(stage: &mut Stage<'a>) -> Result<Ready<'a>> {
    let path = stage.dir.join("log");
    write(&path, stage.payload)?;
    let file = File::open(&path)?;
    let mut ready = Ready::new();
    for (name, kind, way) in ARMS {
        if let Err(why) = trial(&file, kind, way) {
            ready.absent(name, format!("the kernel refuses it here: {why}"));
            continue;
        }
        let arm =
            Sending { path: path.clone(), kind, way, meter: stage.meter(), cores: stage.cores };
        ready.arm(name, move |time| arm.slice(time));
    }
    Ok(ready)
}

/// Log lines, flushed, and in the page cache.
fn write(path: &Path, payload: &Payload) -> Result<()> {
    let made = || -> std::io::Result<()> {
        let mut file = File::create_new(path)?;
        let (mut cursor, mut step) = (payload.cursor(0), vec![0; STEP_BYTES]);
        for _ in 0..FILE_BYTES / STEP_BYTES {
            cursor.fill(&mut step);
            file.write_all(&step)?;
        }
        file.sync_all()?;
        std::io::copy(&mut File::open(path)?, &mut std::io::sink()).map(|_| ())
    };
    made().with_context(|| format!("cannot write {}", path.display()))
}

struct Sending {
    path: PathBuf,
    kind: Kind,
    way: Way,
    meter: Meter,
    cores: Cores,
}

impl Sending {
    fn slice(&self, time: Duration) -> Result<Slice> {
        let file = File::open(&self.path)?;
        let (ours, theirs) = pair(self.kind).context("cannot connect")?;
        if self.kind == Kind::Tcp {
            unpaced(&theirs);
        }
        let (way, core) = (self.way, self.cores.disk);
        let sender = thread::Builder::new().name("sender".to_owned()).spawn(move || {
            let _pinned = Pinned::to(core);
            send_over_and_over(&file, &theirs, way)
        })?;
        let slice = {
            let _pinned = Pinned::to(self.cores.clients);
            let warm_up = time.mul_f64(WARM_UP);
            self.meter.around(|| receive(ours, (warm_up, time.saturating_sub(warm_up))))
        };
        let sent = sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))?;
        let Sent { bytes, cpu, copied } = sent.context("cannot send")?;
        let mib = bytes as f64 / f64::from(1 << 20);
        let slice = slice?.with(SENDER, cpu.as_secs_f64() * 1e6 / mib.max(f64::MIN_POSITIVE));
        Ok(match copied {
            (_, 0) => slice,
            (copied, all) => slice.with(COPIED, copied as f64 / all as f64),
        })
    }
}
