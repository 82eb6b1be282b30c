//! Interval logs: a histogram a second, in HdrHistogram's own format, so that any run can be analysed again, by this
//! tool or by another that reads `.hlog`.
//!
//! Format: HdrHistogram's log, version 1.3, histograms in V2 deflate encoding, times in seconds, values in
//! nanoseconds, the maximum in milliseconds. Untagged lines are latencies from the intended send time; lines with
//! `Tag=uncorrected` are those from the actual send.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{
    IntervalLogIterator, IntervalLogWriter, IntervalLogWriterBuilder, LogEntry, Tag,
};
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializer};
use thiserror::Error;

use crate::histogram::Latencies;

/// The tag of latencies from the actual send.
pub const UNCORRECTED: &str = "uncorrected";

/// The last line of a whole log; other tools take it for a comment.
const END: &str = "#End of log";

/// Longest line that is read: a histogram of every bucket, encoded, is far shorter.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// Nanoseconds in the unit of a line's maximum.
const MAX_DIVISOR: f64 = 1e6;

/// Why a log can't be read or written.
#[derive(Debug, Error)]
pub enum HlogError {
    /// The file can't be read or written.
    #[error("{path}: {error}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It ends before its end: the run was killed, or the file was cut.
    #[error(
        "{path}: the log is cut off after {intervals} whole intervals; the run was killed, or the file was cut"
    )]
    Truncated {
        /// Which file.
        path: PathBuf,
        /// Lines before the cut that can be read.
        intervals: usize,
    },
    /// It is something else.
    #[error("{path}: line {line} is no line of an interval log: {what}")]
    Format {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
}

/// One line of a log.
#[derive(Clone, Debug)]
pub struct Interval {
    /// Whether latencies are from the actual send.
    pub uncorrected: bool,
    /// Its beginning, from the beginning of the measured time.
    pub start: Duration,
    /// How long it took.
    pub length: Duration,
    /// Latencies of what was acked in it.
    pub latencies: Latencies,
}

/// Writes a log: `body` is given the way to add intervals.
///
/// # Errors
/// If the file can't be written.
pub fn write(
    path: &Path,
    began: SystemTime,
    body: impl FnOnce(&mut dyn FnMut(&Interval) -> Result<(), HlogError>) -> Result<(), HlogError>,
) -> Result<(), HlogError> {
    let failed = |error| HlogError::Io { path: path.to_owned(), error };
    let mut to = BufWriter::new(File::create_new(path).map_err(failed)?);
    let mut serializer = V2DeflateSerializer::new();
    {
        let mut builder = IntervalLogWriterBuilder::new();
        builder.with_start_time(began).with_base_time(began).with_max_value_divisor(MAX_DIVISOR);
        builder.add_comment("values in nanoseconds, maxima in milliseconds, by ringmain-bench");
        let mut log = builder.begin_log_with(&mut to, &mut serializer).map_err(failed)?;
        body(&mut |interval| add(&mut log, interval).map_err(failed))?;
    }
    writeln!(to, "{END}").map_err(failed)?;
    to.into_inner().map_err(|e| failed(e.into_error()))?.sync_all().map_err(failed)
}

fn add<W: Write>(
    log: &mut IntervalLogWriter<'_, '_, W, V2DeflateSerializer>,
    interval: &Interval,
) -> std::io::Result<()> {
    let tag = interval.uncorrected.then(|| Tag::new(UNCORRECTED).expect("a plain word"));
    log.write_histogram(interval.latencies.histogram(), interval.start, interval.length, tag)
        .map_err(|error| std::io::Error::other(error.to_string()))
}

/// All intervals of a log.
///
/// # Errors
/// As [`each`].
pub fn read(path: &Path) -> Result<Vec<Interval>, HlogError> {
    let mut intervals = Vec::new();
    each(path, |interval| intervals.push(interval))?;
    Ok(intervals)
}

/// Goes over the intervals of a log, one in memory at a time. Those before a cut are seen before the error is.
///
/// # Errors
/// If the file can't be read, is none, or is cut off.
pub fn each(path: &Path, mut visit: impl FnMut(Interval)) -> Result<(), HlogError> {
    let failed = |error| HlogError::Io { path: path.to_owned(), error };
    let mut from = BufReader::new(File::open(path).map_err(failed)?);
    let mut deserializer = Deserializer::new();
    let (mut line, mut whole, mut intervals) = (Vec::new(), false, 0);
    for nth in 1.. {
        line.clear();
        let length = from.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        if length.map_err(failed)? == 0 {
            break;
        }
        whole = line.trim_ascii() == END.as_bytes();
        match interval(&line, &mut deserializer) {
            Ok(found) => {
                intervals += usize::from(found.is_some());
                found.into_iter().for_each(&mut visit);
            }
            // A cut leaves a part of a line, and nothing behind it.
            Err(_) if !line.ends_with(b"\n") && (line.len() as u64) < LINE_BYTES_MAX => break,
            Err(what) => return Err(HlogError::Format { path: path.to_owned(), line: nth, what }),
        }
    }
    if whole { Ok(()) } else { Err(HlogError::Truncated { path: path.to_owned(), intervals }) }
}

/// What a line holds; nothing for a comment or a header.
fn interval(line: &[u8], deserializer: &mut Deserializer) -> Result<Option<Interval>, String> {
    let is_legend = line.starts_with(b"\"StartTimestamp\"");
    let Some(entry) = IntervalLogIterator::new(line).next().filter(|_| !is_legend) else {
        return Ok(None);
    };
    let LogEntry::Interval(entry) = entry.map_err(|_| "it has another form".to_owned())? else {
        return Ok(None);
    };
    let encoded = base64::decode(entry.encoded_histogram())?;
    let histogram: Histogram<u64> = deserializer
        .deserialize(&mut encoded.as_slice())
        .map_err(|e| format!("its histogram: {e}"))?;
    Ok(Some(Interval {
        uncorrected: entry.tag().is_some_and(|tag| tag.as_str() == UNCORRECTED),
        start: entry.start_timestamp(),
        length: entry.duration(),
        latencies: Latencies::from_histogram(&histogram).ok_or("its histogram has other bounds")?,
    }))
}

/// All intervals of a kind, merged.
pub fn merged(intervals: &[Interval], uncorrected: bool) -> Latencies {
    let mut all = Latencies::new();
    intervals.iter().filter(|i| i.uncorrected == uncorrected).for_each(|i| all.merge(&i.latencies));
    all
}

/// The standard alphabet with padding. Source: RFC 4648, section 4.
mod base64 {
    pub(super) fn decode(text: &str) -> Result<Vec<u8>, String> {
        let told = || "its histogram is no base64".to_owned();
        let digits = text.trim_end_matches('=').as_bytes();
        if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
            return Err(told());
        }
        let mut out = Vec::with_capacity(digits.len() / 4 * 3 + 3);
        for four in digits.chunks(4) {
            let mut bits = 0_u32;
            for &digit in four {
                bits = bits << 6 | u32::from(value(digit).ok_or_else(told)?);
            }
            bits <<= 6 * (4 - four.len());
            let bytes = bits.to_be_bytes();
            out.extend_from_slice(&bytes[1..four.len()]);
        }
        Ok(out)
    }

    fn value(digit: u8) -> Option<u8> {
        match digit {
            b'A'..=b'Z' => Some(digit - b'A'),
            b'a'..=b'z' => Some(digit - b'a' + 26),
            b'0'..=b'9' => Some(digit - b'0' + 52),
            b'+' => Some(62),
            b'/' => Some(63),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::scratch::Scratch;

    fn log(name: &str) -> (Scratch, PathBuf) {
        let scratch = Scratch::new(name);
        let path = scratch.path().join("repeat-1.hlog");
        write(&path, SystemTime::UNIX_EPOCH + Duration::from_secs(1000), |add| {
            for nth in 0..5_u64 {
                for uncorrected in [false, true] {
                    let mut latencies = Latencies::new();
                    (0..100).for_each(|i| {
                        latencies.record((nth * 100 + i) * 10_007 + u64::from(uncorrected));
                    });
                    let (start, length) = (Duration::from_secs(nth), Duration::from_secs(1));
                    add(&Interval { uncorrected, start, length, latencies })?;
                }
            }
            Ok(())
        })
        .expect("written");
        (scratch, path)
    }

    #[test]
    fn a_log_read_back_is_the_histograms_that_were_written() {
        let (_scratch, path) = log("hlog");
        let intervals = read(&path).expect("readable");
        assert_eq!(intervals.len(), 10);
        assert_eq!(intervals[2].start, Duration::from_secs(1));
        let all = merged(&intervals, false);
        let mut raw = Latencies::new();
        (0..500).for_each(|i| raw.record(i * 10_007));
        assert_eq!(all.histogram(), raw.histogram(), "lossless");
        assert_eq!(merged(&intervals, true).count(), 500);
    }

    #[test]
    fn a_cut_log_is_told_from_a_whole_one_wherever_it_is_cut() {
        let (_scratch, path) = log("hlog-cut");
        let text = fs::read(&path).expect("readable");
        for length in (0..text.len() - 1).step_by(7) {
            fs::write(&path, &text[..length]).expect("written");
            match read(&path) {
                Err(HlogError::Truncated { intervals, .. }) => assert!(intervals <= 10),
                other => panic!("cut at {length} of {}: {:?}", text.len(), other.map(|i| i.len())),
            }
        }
    }

    #[test]
    fn what_is_no_log_is_said_with_its_line() {
        let (_scratch, path) = log("hlog-bad");
        let mut text = fs::read_to_string(&path).expect("readable");
        text = text.replacen("Tag=", "Tug=", 1);
        fs::write(&path, text).expect("written");
        let error = read(&path).expect_err("damaged").to_string();
        assert!(error.contains("repeat-1.hlog: line "), "{error}");
    }
}
