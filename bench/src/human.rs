//! Numbers as people read them: three significant digits and a unit.

/// Three significant digits.
pub fn digits(value: f64) -> String {
    let size = value.abs();
    if size >= 99.95 || size == 0.0 {
        format!("{value:.0}")
    } else if size >= 9.995 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

/// A ratio: three significant digits, below a tenth as a fraction, such as `1/240`, since nobody compares zeros.
pub fn ratio(value: f64) -> String {
    let turned = 1.0 / value;
    match value {
        v if !(v > 0.0 && v < 0.0995) => digits(v),
        _ if turned < 9_999.5 => format!("1/{turned:.0}"),
        _ => format!("1/{}", count(turned)),
    }
}

/// A count or a rate, such as `674k`.
pub fn count(value: f64) -> String {
    match value {
        v if v >= 999_500_000.0 => format!("{}G", digits(v / 1e9)),
        v if v >= 999_500.0 => format!("{}M", digits(v / 1e6)),
        v if v >= 9_999.5 => format!("{}k", digits(v / 1e3)),
        v => format!("{v:.0}"),
    }
}

/// A time given in microseconds, such as `1.25 ms`.
pub fn micros(us: f64) -> String {
    match us {
        v if v >= 999_500.0 => format!("{} s", digits(v / 1e6)),
        v if v >= 999.5 => format!("{} ms", digits(v / 1e3)),
        v if v >= 0.9995 || v == 0.0 => format!("{} us", digits(v)),
        v => format!("{} ns", digits(v * 1e3)),
    }
}

/// A round time given in microseconds, as an axis has it, such as `20 ms`.
pub fn tick(us: f64) -> String {
    let (value, unit) = match us {
        v if v >= 999_500.0 => (v / 1e6, "s"),
        v if v >= 999.5 => (v / 1e3, "ms"),
        v if v >= 0.9995 => (v, "us"),
        v => (v * 1e3, "ns"),
    };
    format!("{value:.0} {unit}")
}

/// A round count or rate, as an axis has it, such as `1.5M`.
pub fn tick_count(value: f64) -> String {
    let (value, unit) = match value {
        v if v >= 1e9 => (v / 1e9, "G"),
        v if v >= 1e6 => (v / 1e6, "M"),
        v if v >= 1e4 => (v / 1e3, "k"),
        v => (v, ""),
    };
    let rounded = (value * 1000.0).round() / 1000.0;
    format!("{rounded}{unit}")
}

/// A size in bytes, in binary units.
pub fn bytes(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 30 => format!("{} GiB", digits(b as f64 / f64::from(1 << 30))),
        b if b >= 1 << 20 => format!("{} MiB", digits(b as f64 / f64::from(1 << 20))),
        b if b >= 1 << 10 && b.is_multiple_of(1 << 10) => format!("{} KiB", b >> 10),
        b => format!("{b} B"),
    }
}

/// Percent, whole from ten on.
pub fn percent(value: f64) -> String {
    if value >= 9.95 { format!("{value:.0} %") } else { format!("{value:.1} %") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_a_unit() {
        let counts = [(7.0, "7"), (9_999.0, "9999"), (673_800.0, "674k"), (1_429_884.0, "1.43M")];
        for (value, text) in counts {
            assert_eq!(count(value), text);
        }
        let times =
            [(0.4, "400 ns"), (381.0, "381 us"), (999.6, "1.00 ms"), (1_500_000.0, "1.50 s")];
        for (value, text) in times {
            assert_eq!(micros(value), text);
        }
        assert_eq!(
            (bytes(65_536), bytes(175), bytes(1 << 20)),
            ("64 KiB".into(), "175 B".into(), "1.00 MiB".into())
        );
        let ticks = [(20_000.0, "20 ms"), (500.0, "500 us"), (1e6, "1 s"), (0.1, "100 ns")];
        for (value, text) in ticks {
            assert_eq!(tick(value), text);
        }
        let ticks =
            [(0.0, "0"), (8000.0, "8000"), (1_500_000.0, "1.5M"), (20_000.0, "20k"), (0.2, "0.2")];
        for (value, text) in ticks {
            assert_eq!(tick_count(value), text);
        }
        let ratios =
            [(0.0, "0"), (0.123, "0.12"), (0.0995, "0.10"), (0.04, "1/25"), (0.004_166, "1/240")];
        for (value, text) in ratios {
            assert_eq!(ratio(value), text);
        }
        assert_eq!((ratio(1.234), ratio(2e-5)), ("1.23".into(), "1/50.0k".into()));
        assert_eq!((percent(97.4), percent(3.21)), ("97 %".into(), "3.2 %".into()));
    }

    #[test]
    fn rounding_never_shows_four_digits() {
        for value in [9.996, 99.96, 99.94, 9.994] {
            assert!(digits(value).chars().filter(char::is_ascii_digit).count() <= 3, "{value}");
        }
    }
}
