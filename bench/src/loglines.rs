//! Generated log lines of a stated compressibility, for those who bring no lines of their own.

use std::io::Write;

use crate::random::Random;

/// How many times smaller zstd level 3 makes 64 KiB of these lines. Measured by a test.
pub const ZSTD_RATIO: f64 = 3.7;

/// How many times smaller LZ4 makes 64 KiB of these lines. Measured by a test.
pub const LZ4_RATIO: f64 = 2.2;

const LEVELS: [&str; 4] = ["INFO", "DEBUG", "WARN", "ERROR"];
const SERVICES: [&str; 8] = [
    "api-gateway",
    "orders",
    "payments",
    "inventory",
    "session-store",
    "mailer",
    "search-index",
    "scheduler",
];
const METHODS: [&str; 4] = ["GET", "POST", "PUT", "DELETE"];
const PATHS: [&str; 6] = [
    "/v1/orders/",
    "/v1/users/",
    "/v1/carts/",
    "/v1/payments/intents/",
    "/v2/search?q=",
    "/internal/healthz?probe=",
];
const STATUSES: [&str; 6] = ["200", "201", "204", "404", "409", "503"];

/// Lines of between about 120 and 220 bytes, without their line feeds, appended to `blob` until it holds
/// at least `bytes`; `ends` takes where each line ends.
pub fn generate(seed: u64, bytes: usize, blob: &mut Vec<u8>, ends: &mut Vec<u32>) {
    let mut random = Random::new(seed);
    let mut micros = 1_700_000_000_000_000_u64;
    while blob.len() < bytes {
        micros += u64::from(random.below(900));
        line(&mut random, micros, blob);
        ends.push(blob.len() as u32);
    }
}

fn line(random: &mut Random, micros: u64, blob: &mut Vec<u8>) {
    let (minutes, seconds) = (micros / 60_000_000 % 60, micros / 1_000_000 % 60);
    let mut text = std::io::Cursor::new([0_u8; 320]);
    let written = write!(
        text,
        "2026-03-14T09:{minutes:02}:{seconds:02}.{:06}Z {} {}[{}] trace={:016x} {} {}{} status={} \
         bytes={} took_us={} client=10.{}.{}.{}",
        micros % 1_000_000,
        random.skewed(&LEVELS),
        random.skewed(&SERVICES),
        100 + random.below(40),
        random.next(),
        random.skewed(&METHODS),
        random.skewed(&PATHS),
        random.below(1_000_000),
        random.skewed(&STATUSES),
        random.below(64_000),
        random.below(900_000),
        random.below(8),
        random.below(256),
        random.below(256),
    );
    assert!(written.is_ok(), "the longest line fits");
    blob.extend_from_slice(&text.get_ref()[..text.position() as usize]);
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK_BYTES: usize = 64 * 1024;

    fn ratio(compress: impl Fn(&[u8]) -> usize) -> f64 {
        let (mut blob, mut ends) = (Vec::new(), Vec::new());
        generate(7, 64 * BLOCK_BYTES, &mut blob, &mut ends);
        let blocks = blob.chunks_exact(BLOCK_BYTES);
        let small: usize = blocks.clone().map(compress).sum();
        (blocks.len() * BLOCK_BYTES) as f64 / small as f64
    }

    #[test]
    fn stated_compressibility_is_measured_with_zstd() {
        let measured = ratio(|block| zstd::bulk::compress(block, 3).expect("compresses").len());
        assert!((measured / ZSTD_RATIO - 1.0).abs() < 0.05, "measured {measured:.2}");
    }

    #[test]
    fn stated_compressibility_is_measured_with_lz4() {
        let measured = ratio(|block| lz4_flex::block::compress(block).len());
        assert!((measured / LZ4_RATIO - 1.0).abs() < 0.05, "measured {measured:.2}");
    }

    #[test]
    fn lines_never_repeat() {
        let (mut blob, mut ends) = (Vec::new(), Vec::new());
        generate(7, 1 << 20, &mut blob, &mut ends);
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let lines: std::collections::HashSet<_> =
            starts.zip(&ends).map(|(start, &end)| &blob[start as usize..end as usize]).collect();
        assert_eq!(lines.len(), ends.len());
        assert!(lines.iter().all(|line| (100..=220).contains(&line.len())));
    }
}
