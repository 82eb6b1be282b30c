//! Names of files in a data directory: Kafka's where Kafka has them.

use crate::types::Offset;

/// Format version and block size of the data directory.
pub const META: &str = "ringmain.meta";
/// Which journals there are, and the epoch of the newest opening.
pub const JOURNALS: &str = "ringmain.journals";
/// The calibration of the device.
pub const CALIBRATION: &str = "ringmain.calibration";

/// How fast sealed segments go to sockets, as measured.
pub const READ_PATHS: &str = "ringmain.read-paths";

/// What is sent for that, and removed after.
pub const READ_PATHS_TRIAL: &str = "ringmain.read-paths.tmp";
/// Present after a clean shutdown.
pub const CLEAN: &str = "ringmain.clean";
/// Kafka's own mark of a clean shutdown: with it, Kafka looks at no segment.
pub const KAFKAS_CLEAN: &str = ".kafka_cleanshutdown";
/// Held by the process that has the directory open.
pub const LOCK: &str = ".lock";
/// A partition's incarnation.
pub const PARTITION: &str = "ringmain.partition";
/// Kafka's recovery points.
pub const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
/// Kafka's log start offsets.
pub const LOG_STARTS: &str = "log-start-offset-checkpoint";
/// Kafka's cleaner: up to where logs were compacted.
pub const CLEANED: &str = "cleaner-offset-checkpoint";
/// What is kept of a partition, if that was set for it alone.
pub const RETENTION: &str = "ringmain.retention";
/// Kafka's leader epochs of a partition.
pub const EPOCHS: &str = "leader-epoch-checkpoint";
/// Behind the name of a file that is to be removed.
pub const DELETED: &str = ".deleted";
/// Behind the name of a segment that compaction is writing.
pub const CLEANING: &str = ".cleaned";
/// Behind the name of a file that takes the place of the one without it.
pub const SWAP: &str = ".swap";
/// Behind the name of a segment that recovery set aside: nothing in it was acknowledged.
pub const VOID: &str = ".void";
/// Ending of what a repair cut off.
pub const CUT: &str = ".cut.void";

/// Behind the name of a journal that belongs to another data directory.
pub const FOREIGN: &str = ".foreign";

const JOURNAL: &str = "journal-";

/// Whether a file is the journal of one block's image, which recovery makes.
#[must_use]
pub fn is_image(name: &std::ffi::OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with("journal-image-"))
}

/// A segment's file.
#[must_use]
pub fn segment(base: Offset) -> String {
    format!("{:020}.log", base.get())
}

/// Whether a file holds a segment's batches, whatever stands behind its name.
#[must_use]
pub fn is_of_segment(name: &str) -> bool {
    name.split('.').nth(1) == Some("log")
}

/// A segment's offset index.
#[must_use]
pub fn index(base: Offset) -> String {
    format!("{:020}.index", base.get())
}

/// A segment's time index.
#[must_use]
pub fn time_index(base: Offset) -> String {
    format!("{:020}.timeindex", base.get())
}

/// A sealed segment's seal.
#[must_use]
pub fn seal(base: Offset) -> String {
    format!("{:020}.seal", base.get())
}

/// The base offset in a segment file's name.
#[must_use]
pub fn segment_base(name: &str) -> Option<Offset> {
    base(name.strip_suffix(".log")?)
}

/// The base offset in a seal's name.
#[must_use]
pub fn seal_base(name: &str) -> Option<Offset> {
    base(name.strip_suffix(".seal")?)
}

/// The largest base offset: relative to it every offset of a segment can be counted, and one behind the last.
const BASE_MAX: i64 = i64::MAX - i32::MAX as i64 - 1;

fn base(digits: &str) -> Option<Offset> {
    let legal = digits.len() == 20 && digits.bytes().all(|c| c.is_ascii_digit());
    let base: i64 = legal.then(|| digits.parse().ok()).flatten()?;
    (base <= BASE_MAX).then(|| Offset::new(base))
}

/// A shard's journal.
#[must_use]
pub fn journal(shard: u32) -> String {
    format!("{JOURNAL}{shard}")
}

/// The journal that holds the image of one block while recovery rewrites it.
#[must_use]
pub fn image(incarnation: u64) -> String {
    format!("{JOURNAL}image-{incarnation:016x}")
}

/// Whether a file is a journal of any kind.
#[must_use]
pub fn is_journal(name: &str) -> bool {
    name.starts_with(JOURNAL) && !name.ends_with(".tmp") && !name.ends_with(FOREIGN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_kafka() {
        assert_eq!(segment(Offset::new(42)), "00000000000000000042.log");
        assert_eq!(segment_base("00000000000000000042.log"), Some(Offset::new(42)));
        let aside = segment(Offset::new(42)) + DELETED;
        assert!(is_of_segment(&aside) && !is_of_segment(&index(Offset::new(42))));
        for name in ["42.log", "0000000000000000004x.log", "00000000000000000042.index", "x"] {
            assert_eq!(segment_base(name), None);
        }
        for past in ["99999999999999999999.log", "09223372036854775807.log"] {
            assert_eq!(segment_base(past), None, "its offsets can not be counted");
        }
        assert_eq!(seal_base("00000000000000000042.seal"), Some(Offset::new(42)));
        assert_eq!(seal_base("00000000000000000042.log"), None);
    }
}
