//! What is appended: real lines, or generated ones. Never one buffer again and again, never zeros.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::loglines;
use crate::random::Random;
use crate::usage::usage;

/// Most bytes of payload held in memory; the rest of a larger source is left out.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;

/// Longest line taken as one record; the rest of a longer one is left out.
pub const LINE_BYTES_MAX: usize = 64 << 10;

/// Most files read from a folder.
pub const FILES_MAX: usize = 10_000;

/// Deepest folder read.
const DEPTH_MAX: usize = 16;

/// Bytes of generated lines: enough that the same line comes again only long after.
const GENERATED_BYTES: usize = 32 << 20;

/// Seed of the generated lines.
const SEED: u64 = 0x7269_6e67_6d61_696e;

/// Lines, held in memory once and shared by all clients.
#[derive(Debug)]
pub struct Payload {
    blob: Vec<u8>,
    ends: Vec<u32>,
    about: About,
}

/// Where a payload came from, for the report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// `file`, `folder` or `generated`.
    pub source: String,
    /// Lines held.
    pub lines: usize,
    /// Bytes held.
    pub bytes: usize,
    /// Mean bytes of a line.
    pub line_bytes_mean: f64,
    /// How many times smaller zstd level 3 makes it; known for generated lines only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zstd_ratio: Option<f64>,
    /// How many times smaller LZ4 makes it; known for generated lines only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lz4_ratio: Option<f64>,
    /// Files of a folder that hold no text and were left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub binary_files: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Payload {
    /// The lines of a file, of all files in a folder, or generated ones.
    ///
    /// # Errors
    /// If `path` can't be read, or holds no line.
    pub fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self::generated(GENERATED_BYTES)) };
        let (source, files) = if path.is_dir() {
            let mut files = Vec::new();
            walk(path, 0, &mut files)?;
            ("folder", files)
        } else {
            ("file", vec![path.to_owned()])
        };
        let (mut blob, mut ends, mut binary_files) = (Vec::new(), Vec::new(), 0);
        for file in &files {
            let room = PAYLOAD_BYTES_MAX - blob.len();
            let text = read_bounded(file, room)?;
            if is_binary(&text) {
                binary_files += 1;
                continue;
            }
            split(&text, &mut blob, &mut ends);
            if text.len() == room {
                break;
            }
        }
        if ends.is_empty() {
            let why = if binary_files > 0 { "it is not text" } else { "no line in it" };
            return Err(usage(format!(
                "--payload {}: {why}; give a text file or a folder of them, a record a line",
                path.display()
            )));
        }
        let mut payload = Self::new(source, blob, ends, None);
        payload.about.binary_files = binary_files;
        Ok(payload)
    }

    /// `bytes` of generated lines.
    pub fn generated(bytes: usize) -> Self {
        let (mut blob, mut ends) = (Vec::new(), Vec::new());
        loglines::generate(SEED, bytes, &mut blob, &mut ends);
        Self::new("generated", blob, ends, Some((loglines::ZSTD_RATIO, loglines::LZ4_RATIO)))
    }

    /// `bytes` that compress about `ratio` times: of each stretch so large a share is random that the rest, which is
    /// always the same, costs nearly nothing.
    pub fn compressible(bytes: usize, ratio: f64) -> Self {
        const STRETCH: usize = 256;
        let random_bytes = (STRETCH as f64 / ratio) as usize;
        let mut random = Random::new(SEED);
        let mut blob = Vec::with_capacity(bytes + STRETCH);
        let mut ends = Vec::new();
        while blob.len() < bytes {
            for nth in 0..STRETCH {
                let byte = if nth < random_bytes { random.next() as u8 } else { b'.' };
                blob.push(byte);
            }
            ends.push(blob.len() as u32);
        }
        Self::new("generated", blob, ends, None)
    }

    fn new(
        source: &'static str,
        blob: Vec<u8>,
        ends: Vec<u32>,
        ratios: Option<(f64, f64)>,
    ) -> Self {
        let about = About {
            source: source.to_owned(),
            lines: ends.len(),
            bytes: blob.len(),
            line_bytes_mean: blob.len() as f64 / ends.len() as f64,
            zstd_ratio: ratios.map(|r| r.0),
            lz4_ratio: ratios.map(|r| r.1),
            binary_files: 0,
        };
        Self { blob, ends, about }
    }

    /// Where it came from.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// A reader that starts at a place of its own for each `nth`, so that clients do not send the same bytes.
    pub fn cursor(&self, nth: usize) -> Cursor<'_> {
        // A large odd stride spreads neighbours over the whole payload.
        let line = nth.wrapping_mul(7_368_787) % self.ends.len();
        let pos = if line == 0 { 0 } else { self.ends[line - 1] as usize };
        Cursor { payload: self, line, pos }
    }
}

/// An endless reader of a payload.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    payload: &'a Payload,
    line: usize,
    pos: usize,
}

impl<'a> Cursor<'a> {
    /// The next whole line; after the last one comes the first.
    pub fn line(&mut self) -> &'a [u8] {
        let Payload { blob, ends, .. } = self.payload;
        let start = if self.line == 0 { 0 } else { ends[self.line - 1] as usize };
        let line = &blob[start..ends[self.line] as usize];
        self.line = (self.line + 1) % ends.len();
        line
    }

    /// Fills `out` with the lines' bytes as they come, across their ends: for records of a fixed size.
    pub fn fill(&mut self, mut out: &mut [u8]) {
        let blob = &self.payload.blob;
        while !out.is_empty() {
            let run = (blob.len() - self.pos).min(out.len());
            out[..run].copy_from_slice(&blob[self.pos..self.pos + run]);
            out = &mut out[run..];
            self.pos = (self.pos + run) % blob.len();
        }
    }
}

fn walk(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let read = || -> std::io::Result<Vec<PathBuf>> {
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
    };
    let mut paths = read().map_err(|e| usage(format!("--payload {}: {e}", folder.display())))?;
    paths.sort();
    for path in paths {
        let kind = fs::symlink_metadata(&path)
            .with_context(|| format!("--payload {}", path.display()))?
            .file_type();
        if kind.is_dir() && depth < DEPTH_MAX {
            walk(&path, depth + 1, files)?;
        } else if kind.is_file() && files.len() < FILES_MAX {
            files.push(path);
        }
    }
    Ok(())
}

fn read_bounded(file: &Path, bytes_max: usize) -> anyhow::Result<Vec<u8>> {
    let read = || {
        let mut text = Vec::new();
        File::open(file)?.take(bytes_max as u64).read_to_end(&mut text).map(|_| text)
    };
    read().map_err(|e| {
        usage(format!("--payload {}: {e}; give a file or a folder to read", file.display()))
    })
}

/// As version control tells: text has no zero byte near its beginning.
fn is_binary(text: &[u8]) -> bool {
    const LOOKED_AT: usize = 8 << 10;
    text[..text.len().min(LOOKED_AT)].contains(&0)
}

fn split(text: &[u8], blob: &mut Vec<u8>, ends: &mut Vec<u32>) {
    for line in text.split(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.iter().any(|&byte| byte != 0) {
            blob.extend_from_slice(&line[..line.len().min(LINE_BYTES_MAX)]);
            ends.push(blob.len() as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_line_is_a_record_and_the_lines_come_round() {
        let scratch = Scratch::new("payload-lines");
        let file = scratch.path().join("a.log");
        fs::write(&file, "one\r\n\ntwo\nthree").expect("written");
        let payload = Payload::open(Some(&file)).expect("opens");
        let mut cursor = payload.cursor(0);
        let lines: Vec<_> = (0..4).map(|_| cursor.line()).collect();
        assert_eq!(lines, [&b"one"[..], b"two", b"three", b"one"]);
        assert_eq!((payload.about().lines, payload.about().source.as_str()), (3, "file"));
    }

    #[test]
    fn a_folder_is_read_in_the_order_of_its_names() {
        let scratch = Scratch::new("payload-folder");
        fs::create_dir(scratch.path().join("b")).expect("made");
        fs::write(scratch.path().join("b/x.log"), "second\n").expect("written");
        fs::write(scratch.path().join("a.log"), "first\n").expect("written");
        let payload = Payload::open(Some(scratch.path())).expect("opens");
        let mut cursor = payload.cursor(0);
        assert_eq!([cursor.line(), cursor.line()], [&b"first"[..], b"second"]);
    }

    #[test]
    fn files_that_are_no_text_are_left_out_and_counted() {
        let scratch = Scratch::new("payload-binary");
        fs::write(scratch.path().join("a.bin"), b"\x7fELF\0\0line\n").expect("written");
        fs::write(scratch.path().join("b.log"), "text\n").expect("written");
        let payload = Payload::open(Some(scratch.path())).expect("opens");
        assert_eq!((payload.about().lines, payload.about().binary_files), (1, 1));
        assert_eq!(payload.cursor(0).line(), b"text");
    }

    #[test]
    fn sizes_are_bounded() {
        let (mut blob, mut ends) = (Vec::new(), Vec::new());
        split(&vec![b'x'; 3 * LINE_BYTES_MAX], &mut blob, &mut ends);
        assert_eq!((blob.len(), ends.len()), (LINE_BYTES_MAX, 1));
    }

    #[test]
    fn a_payload_without_lines_is_a_usage_error() {
        let scratch = Scratch::new("payload-empty");
        let file = scratch.path().join("zeros");
        fs::write(&file, [0_u8; 64]).expect("written");
        for path in [file, scratch.path().join("absent")] {
            let error = Payload::open(Some(&path)).expect_err("nothing to send");
            assert!(error.is::<crate::usage::Usage>(), "{error}");
        }
    }

    #[test]
    fn filled_records_differ() {
        let payload = Payload::generated(1 << 20);
        let mut cursor = payload.cursor(3);
        let mut seen = std::collections::HashSet::new();
        let mut record = [0_u8; 100];
        for _ in 0..1000 {
            cursor.fill(&mut record);
            assert!(seen.insert(record), "the same bytes again");
        }
    }
}
