//! The rows of `quick`, as data: what is measured, against what, and in which order.

use std::ops::Range;

use crate::device::{Direction, Job, SPLITS};
use crate::finds::{self, Key};
use crate::outcome::Kind;
use crate::reads::Way;
use crate::senders;
use crate::{crash, rawread};

/// Slices of each arm. Figures are medians over them: one that a neighbour or the disk spoilt is left out, and so are
/// two.
pub const SLICES: usize = 5;

/// Short rounds of a slice of the arms that send a file's bytes to a socket, which take turns round by round: which
/// pace sender and receiver fall into is decided anew with each connection.
pub const ROUNDS: usize = 5;

/// The row of raw flushes.
pub const RAW_FLUSH: &str = "device_flush_4k_q1";

/// The row of raw reads.
pub const RAW_READ: &str = "device_read_512k_q8";

/// The row of reopening after a kill.
pub const RECOVER: &str = "recover";

/// The row of writers that a reader is measured beside.
pub const WRITERS: &str = "append_group_64k_q16";

/// The row of a reader of cold segments beside those writers: their figures.
pub const BESIDE_WRITERS: &str = "read_cold_beside_writers";

/// The row of sealed reads to a socket.
pub const READ_SEALED: &str = "read_sealed_socket";

/// The rows of bare loops that send a file to a socket.
pub const BARE_SENDFILE: &str = "socket_sendfile";
/// As above.
pub const BARE_COPY: &str = "socket_pread_send";

/// The row of bare reads of as many bytes as a lookup goes through.
pub const BARE_PREAD: &str = "file_pread_4k";

/// The rows of lookups.
pub const FIND_OFFSET: &str = "find_offset";
/// As above.
pub const FIND_TIME: &str = "find_time";

/// Bytes of a batch of the rows that have many partitions: one of 1 KB.
const SMALL_BATCH_BYTES: u64 = 1024;

/// What an arm does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arm {
    /// Raw writes.
    Device(Job),
    /// One-record appends to the floor.
    Floor,
    /// Appends to the engine, through handles.
    Engine,
    /// Raw durable writes, one a batch, to a file a partition: what group commit saves.
    Direct(Job),
    /// Appends to the engine, with a reader beside them that goes through cold segments.
    Beside,
    /// Reads to a socket.
    Read(Way),
    /// The engine's start after a kill.
    Recover,
    /// Raw reads of as many bytes as that start read.
    RawRead,
}

/// What stands beside a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// Nothing: it is itself what others are measured against.
    Nothing,
    /// A row.
    Row(&'static str),
    /// The best of the durable splits of one mebibyte in flight.
    BestSplit,
}

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Stable name.
    pub name: &'static str,
    /// What it does.
    pub arm: Arm,
    /// Flush policy.
    pub policy: Option<&'static str>,
    /// Bytes of a batch or a write.
    pub batch_bytes: u64,
    /// Partitions or files.
    pub partitions: u64,
    /// Requests in flight.
    pub in_flight: u64,
    /// What it is measured against.
    pub beside: Beside,
    /// The floor with as many clients.
    pub floor: Option<&'static str>,
    /// Whether its curve is plotted in the terminal.
    pub plotted: bool,
}

impl Row {
    const fn device(name: &'static str, job: Job) -> Self {
        Self {
            name,
            arm: Arm::Device(job),
            policy: None,
            batch_bytes: job.request_bytes as u64,
            partitions: job.files as u64,
            in_flight: job.depth as u64,
            beside: Beside::Nothing,
            floor: None,
            plotted: false,
        }
    }

    const fn floor(name: &'static str, clients: u64) -> Self {
        Self {
            name,
            arm: Arm::Floor,
            policy: Some("group"),
            batch_bytes: crate::onebatch::BATCH_BYTES as u64,
            partitions: 1,
            in_flight: clients,
            beside: Beside::BestSplit,
            floor: None,
            plotted: true,
        }
    }

    const fn engine(name: &'static str, batch_bytes: u64, partitions: u64, in_flight: u64) -> Self {
        Self {
            name,
            arm: Arm::Engine,
            policy: Some("group"),
            batch_bytes,
            partitions,
            in_flight,
            beside: Beside::BestSplit,
            floor: None,
            plotted: false,
        }
    }

    const fn read(name: &'static str, way: Way, beside: Beside) -> Self {
        let arm = Arm::Read(way);
        let step = senders::STEP_BYTES as u64;
        Self { arm, policy: None, beside, ..Self::engine(name, step, 1, 1) }
    }

    const fn find(name: &'static str, way: Way, beside: Beside) -> Self {
        Self { batch_bytes: finds::INTERVAL_BYTES as u64, ..Self::read(name, way, beside) }
    }

    const fn against_floor(self, floor: &'static str) -> Self {
        Self { floor: Some(floor), plotted: true, ..self }
    }

    /// Whether its slices are rounds, by turns with its neighbours of the same sort.
    pub const fn is_in_rounds(&self) -> bool {
        matches!(self.arm, Arm::Read(Way::Sendfile | Way::Copy | Way::Sealed))
    }

    /// What it measures.
    pub const fn kind(&self) -> Kind {
        match self.arm {
            Arm::Device(_) | Arm::RawRead | Arm::Read(Way::Sendfile | Way::Copy | Way::Pread) => {
                Kind::Device
            }
            Arm::Floor => Kind::Floor,
            Arm::Engine | Arm::Beside | Arm::Read(_) | Arm::Direct(_) | Arm::Recover => {
                Kind::Engine
            }
        }
    }
}

const fn job((request_bytes, depth): (usize, usize), durable: bool) -> Job {
    Job { direction: Direction::Write, request_bytes, depth, durable, plot: 0, files: 1 }
}

const ONE: u64 = crate::onebatch::BATCH_BYTES as u64;

/// All rows, in the order of the table. Rows that are compared stand near each other, so that they
/// also run near each other.
pub static ROWS: [Row; 27] = [
    Row { plotted: true, ..Row::device(RAW_FLUSH, job((4 << 10, 1), true)) },
    Row::device("device_os_512k_q8", job((512 << 10, 8), false)),
    Row {
        policy: Some("os"),
        beside: Beside::Row("device_os_512k_q8"),
        ..Row::engine("append_os_large", 512 << 10, 1, 8)
    },
    Row::device("device_dsync_64k_q16", job(SPLITS[0], true)),
    Row::device("device_dsync_128k_q8", job(SPLITS[1], true)),
    Row::device("device_dsync_256k_q4", job(SPLITS[2], true)),
    Row::device("device_dsync_512k_q2", job(SPLITS[3], true)),
    Row::engine(WRITERS, 64 << 10, 1, 16),
    Row { arm: Arm::Beside, ..Row::engine(BESIDE_WRITERS, 64 << 10, 1, 16) },
    Row::floor("floor_one_record_c256", 256),
    Row::engine("append_group_one_record_c256", ONE, 1, 256).against_floor("floor_one_record_c256"),
    Row::floor("floor_one_record_c1024", 1024),
    Row::engine("append_group_one_record_c1024", ONE, 1, 1024)
        .against_floor("floor_one_record_c1024"),
    Row::engine("append_group_one_record_c1024_p1000", ONE, 1000, 1024)
        .against_floor("floor_one_record_c1024"),
    Row::engine("append_group_partitions_1", SMALL_BATCH_BYTES, 1, 1024),
    Row::engine("append_group_partitions_1000", SMALL_BATCH_BYTES, 1000, 1024),
    Row::engine("append_group_partitions_10000", SMALL_BATCH_BYTES, 10_000, 1024),
    Row {
        // A block is the least that can be written past the page cache.
        arm: Arm::Direct(Job {
            direction: Direction::Write,
            request_bytes: 4 << 10,
            depth: 1024,
            durable: true,
            plot: 1,
            files: 1000,
        }),
        ..Row::engine("append_group_partitions_1000_direct", SMALL_BATCH_BYTES, 1000, 1024)
    },
    Row::read(BARE_SENDFILE, Way::Sendfile, Beside::Nothing),
    Row::read(BARE_COPY, Way::Copy, Beside::Nothing),
    Row::read(READ_SEALED, Way::Sealed, Beside::Row(BARE_SENDFILE)),
    Row::read("read_tail", Way::Tail, Beside::Nothing),
    Row::find(BARE_PREAD, Way::Pread, Beside::Nothing),
    Row::find(FIND_OFFSET, Way::Find(Key::Offset), Beside::Row(BARE_PREAD)),
    Row::find(FIND_TIME, Way::Find(Key::Time), Beside::Nothing),
    Row {
        arm: Arm::RawRead,
        ..Row::device(RAW_READ, job((rawread::READ_BYTES, rawread::DEPTH), false))
    },
    Row {
        arm: Arm::Recover,
        beside: Beside::Row(RAW_READ),
        ..Row::engine(RECOVER, rawread::READ_BYTES as u64, crash::PARTITIONS, rawread::DEPTH as u64)
    },
];

/// What rows that are compared have in common: the first row of each such run of [`ROWS`], and its heading.
pub const CHAPTERS: [(&str, &str); 8] = [
    (RAW_FLUSH, "A raw flush: durable writes of 4 KiB, one at a time"),
    ("device_os_512k_q8", "Large batches, acked when written: the device, then the log under os"),
    (
        "device_dsync_64k_q16",
        "Large batches, acked when durable: the device, then the log under group",
    ),
    ("floor_one_record_c256", "One record a batch, durable: the floor, then the log under group"),
    ("append_group_partitions_1", "Batches of 1 KiB, durable, over more and more partitions"),
    (BARE_SENDFILE, "Reading to a socket on this machine: bare loops, then the log"),
    (
        BARE_PREAD,
        "Finding a record among 100 segments: a bare read of 4 KiB, then the log, in its shard",
    ),
    (RAW_READ, "Reading back after a kill: the bytes raw, then the log reopened (p50: all of it)"),
];

/// The number in [`CHAPTERS`] of the row of that name.
pub fn chapter(name: &str) -> usize {
    let at = |name: &str| ROWS.iter().position(|row| row.name == name);
    CHAPTERS.iter().rposition(|(first, _)| at(first) <= at(name)).unwrap_or(0)
}

/// Arms that take turns within a slice: those in rounds that are neighbours; each other one is alone.
pub fn turns(rows: &[&Row]) -> Vec<Range<usize>> {
    let mut turns: Vec<Range<usize>> = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        match turns.last_mut() {
            Some(last) if row.is_in_rounds() && rows[last.start].is_in_rounds() => {
                last.end = at + 1;
            }
            _ => turns.push(at..at + 1),
        }
    }
    turns
}

/// The order in which turns run: all of them once a slice, to and fro, so that neighbours share the machine's
/// mood and no arm is always first.
pub fn schedule(turns: usize, slices: usize) -> Vec<usize> {
    let turn = |slice: usize| -> Vec<usize> {
        if slice.is_multiple_of(2) { (0..turns).collect() } else { (0..turns).rev().collect() }
    };
    (0..slices).flat_map(turn).collect()
}

/// The row of that name.
pub fn row(name: &str) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_that_others_rely_on_are_there() {
        let fixed = [
            "append_os_large",
            "append_group_64k_q16",
            "append_group_one_record_c256",
            "append_group_one_record_c1024",
            "append_group_one_record_c1024_p1000",
            "append_group_partitions_1",
            "append_group_partitions_1000",
            "append_group_partitions_10000",
            "append_group_partitions_1000_direct",
            "recover",
            "read_tail",
            "read_sealed_socket",
            "read_cold_beside_writers",
            "find_offset",
            "find_time",
        ];
        for name in fixed {
            assert!(row(name).is_some(), "{name}");
        }
        let names: HashSet<_> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), ROWS.len(), "a name names one row");
    }

    #[test]
    fn all_that_a_row_is_measured_against_is_a_row() {
        for each in &ROWS {
            if let Beside::Row(name) = each.beside {
                let device = row(name).expect("a row");
                assert_eq!(device.kind(), Kind::Device, "{}", each.name);
                let shape = |row: &Row| (row.batch_bytes, row.in_flight);
                assert_eq!(shape(device), shape(each), "same size and depth: {}", each.name);
            }
            if let Some(floor) = each.floor.map(|name| row(name).expect("a row")) {
                assert_eq!(floor.kind(), Kind::Floor);
                assert_eq!(floor.in_flight, each.in_flight, "{}", each.name);
            }
        }
    }

    #[test]
    fn every_row_stands_under_its_heading() {
        let title = |name| CHAPTERS[chapter(name)].1;
        assert!(ROWS.iter().all(|row| row.name != RAW_FLUSH || chapter(row.name) == 0));
        assert!(title("append_os_large").contains("under os"));
        assert!(title("append_group_64k_q16").contains("acked when durable"));
        assert!(title("append_group_one_record_c1024_p1000").contains("One record"));
        assert!(title("append_group_partitions_1000_direct").contains("partitions"));
        assert!(title(FIND_TIME).contains("100 segments") && finds::SEGMENTS == 100);
        assert!(title(RECOVER).contains("reopened"));
        assert!(CHAPTERS.iter().all(|(first, _)| row(first).is_some()));
    }

    #[test]
    fn arms_in_rounds_take_turns_and_no_others() {
        let rows: Vec<&Row> = ROWS.iter().collect();
        let turns = turns(&rows);
        let covered: Vec<usize> = turns.iter().cloned().flatten().collect();
        assert_eq!(covered, (0..ROWS.len()).collect::<Vec<_>>(), "each once, in order");
        let several: Vec<_> = turns.iter().filter(|turn| turn.len() > 1).collect();
        let [together] = several[..] else { panic!("{several:?}") };
        let names = rows[together.clone()].iter().map(|row| row.name);
        assert_eq!(names.collect::<Vec<_>>(), [BARE_SENDFILE, BARE_COPY, READ_SEALED]);
    }

    #[test]
    fn every_slice_has_every_arm_and_arms_are_interleaved() {
        let order = schedule(4, 3);
        assert_eq!(order, [0, 1, 2, 3, 3, 2, 1, 0, 0, 1, 2, 3]);
        for slice in order.chunks(4) {
            assert_eq!(slice.iter().collect::<HashSet<_>>().len(), 4);
        }
    }
}
