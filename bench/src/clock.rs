//! Wall time: for records' timestamps, cheap enough to be read for each, and as people write it.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// The time in UTC as `20260314-092655`, for a file's name.
pub fn utc_stamp() -> String {
    Timestamp::now().strftime("%Y%m%d-%H%M%S").to_string()
}

/// Milliseconds since 1970 as RFC 3339 has them, in UTC; `None` for a year that has not four digits, or before 1970.
pub fn rfc3339(ms: i64) -> Option<String> {
    let years_1970_to_9999 = 0..253_402_300_800_000;
    let timestamp = Timestamp::from_millisecond(ms).ok()?;
    years_1970_to_9999.contains(&ms).then(|| format!("{timestamp:.3}"))
}

/// What [`rfc3339`] writes, or the same with another offset or precision, as milliseconds since 1970, rounded up: the
/// first that are not before it.
///
/// # Errors
/// What an example of the right form is.
pub fn from_rfc3339(text: &str) -> Result<i64, String> {
    let timestamp: Timestamp =
        text.parse().map_err(|_| "not a time such as 2026-03-14T09:26:53Z".to_owned())?;
    let ms = timestamp.as_millisecond();
    let whole = timestamp.subsec_nanosecond() % 1_000_000 == 0;
    Ok(if whole || ms < 0 { ms } else { ms + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_written() {
        assert_eq!(rfc3339(0).as_deref(), Some("1970-01-01T00:00:00.000Z"));
        assert_eq!(rfc3339(1_773_480_413_120).as_deref(), Some("2026-03-14T09:26:53.120Z"));
        assert_eq!(rfc3339(-1), None);
        assert_eq!(rfc3339(i64::MAX), None);
        assert_eq!(from_rfc3339("2026-03-14T09:26:53.120Z"), Ok(1_773_480_413_120));
        assert_eq!(from_rfc3339("2026-03-14T10:26:53.1200001+01:00"), Ok(1_773_480_413_121));
        for wrong in ["yesterday", "2026-03-14", "2026-03-14T09:26:53", "1773480413120"] {
            assert!(from_rfc3339(wrong).is_err(), "{wrong}");
        }
    }
}
