//! What the rows say together: the ratios that matter, each of which anyone can compute again from the table, and
//! a few sentences for those who do not read tables.

use serde::Serialize;

use crate::human;
use crate::json::Entry;
use crate::outcome::Outcome;
use crate::plan::{
    BARE_COPY, BARE_PREAD, BARE_SENDFILE, BESIDE_WRITERS, FIND_OFFSET, FIND_TIME, READ_SEALED,
    WRITERS,
};
use crate::stats::{median, rank_interval};

/// From this share of the other's rate on two rows are as good as equal.
const ALIKE: f64 = 0.9;

/// The share of a bare sendfile loop that sealed reads are to reach.
const SENDFILE_BAR: f64 = 0.9;

/// One row beside another of the same run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// Stable name.
    pub name: &'static str,
    /// The ratio: 1 is as good, or as slow, as what it is measured against.
    pub value: f64,
    /// What holds the value with 95 % confidence, where it is the median of rounds that were taken by turns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<(f64, f64)>,
    /// In words, to stand behind the value.
    pub text: &'static str,
    /// Whether people read it as percent; else as so many times.
    #[serde(skip)]
    percent: bool,
}

impl Ratio {
    /// As people read it.
    pub fn shown(&self) -> String {
        if self.percent {
            human::percent(self.value * 100.0)
        } else {
            format!("{} x", human::digits(self.value))
        }
    }

    /// What it is, with its interval if it has one.
    pub fn about(&self) -> String {
        format!("{}{}", self.text, self.range())
    }

    /// As people read it, with its interval if it has one.
    fn ranged(&self) -> String {
        format!("{}{}", self.shown(), self.range())
    }

    fn range(&self) -> String {
        let Some((low, high)) = self.interval else { return String::new() };
        let percent = |ratio: f64| human::percent(ratio * 100.0);
        format!(" ({} to {})", percent(low), percent(high))
    }

    /// The median of the rounds' ratios.
    fn of_rounds(name: &'static str, ratios: &[f64], text: &'static str) -> Option<Self> {
        let (value, interval) = (median(ratios.iter().copied())?, rank_interval(ratios));
        Some(Self { name, value, interval, text, percent: true })
    }

    /// Whether it reaches a bar; `None` if the rounds do not tell.
    fn reaches(&self, bar: f64) -> Option<bool> {
        let (low, high) = self.interval?;
        if low >= bar { Some(true) } else { (high < bar).then_some(false) }
    }
}

struct Rows<'a>(&'a [Outcome]);

impl Rows<'_> {
    fn entry(&self, name: &str) -> Option<&Entry> {
        self.0.iter().map(|row| &row.entry).find(|entry| entry.name == name)
    }

    /// One row's rate over that of the fastest of others in the same round.
    fn by_rounds(&self, of: &str, to: &[&str]) -> Option<Vec<f64>> {
        let of = &self.entry(of)?.rounds_mib_per_s;
        let to: Vec<_> =
            to.iter().map(|to| Some(&self.entry(to)?.rounds_mib_per_s)).collect::<Option<_>>()?;
        let fastest =
            |nth: usize| to.iter().filter_map(|rates| rates.get(nth)).copied().fold(0.0, f64::max);
        let pairs = of.iter().enumerate().map(|(nth, rate)| (rate, fastest(nth)));
        Some(pairs.filter(|(_, to)| *to > 0.0).map(|(rate, to)| rate / to).collect())
    }

    /// A figure of one row over a figure of another.
    fn over(&self, of: (&str, Figure), to: (&str, Figure)) -> Option<f64> {
        let (above, below) = (of.1(self.entry(of.0)?), to.1(self.entry(to.0)?));
        (below > 0.0).then(|| above / below)
    }
}

type Figure = fn(&Entry) -> f64;

const RATE: Figure = |entry| entry.records_per_s;
const MIB: Figure = |entry| entry.mib_per_s;
const P50: Figure = |entry| entry.latency_us.p50;
const P999: Figure = |entry| entry.latency_us.p999;

const FLUSH: &str = crate::plan::RAW_FLUSH;
const OS_LARGE: &str = "append_os_large";
const GROUP_LARGE: &str = "append_group_64k_q16";
const C256: &str = "append_group_one_record_c256";
const C1024: &str = "append_group_one_record_c1024";
const C1024_MANY: &str = "append_group_one_record_c1024_p1000";
const ONE: &str = "append_group_partitions_1";
const THOUSAND: &str = "append_group_partitions_1000";
const TEN_THOUSAND: &str = "append_group_partitions_10000";
const OF_SENDFILE: &str = "sealed_of_sendfile";
const OF_FASTER: &str = "sealed_of_faster";
const DIRECT: &str = "append_group_partitions_1000_direct";

/// The ratios of the rows that are there.
pub fn ratios(rows: &[Outcome]) -> Vec<Ratio> {
    let rows = Rows(rows);
    let of_device = |name| Some(rows.entry(name)?.percent_of_device? / 100.0);
    let floor = |name, floor| rows.over((name, RATE), (floor, RATE));
    let percent = |name, value: Option<f64>, text| {
        value.map(|value| Ratio { name, value, interval: None, text, percent: true })
    };
    let times = |name, value: Option<f64>, text| {
        value.map(|value| Ratio { name, value, interval: None, text, percent: false })
    };
    let all = [
        percent("os_of_device", of_device(OS_LARGE), "of the device: large batches under os"),
        percent(
            "group_of_device",
            of_device(GROUP_LARGE),
            "of the device: large batches under group",
        ),
        percent(
            "group_of_os",
            rows.over((GROUP_LARGE, MIB), (OS_LARGE, MIB)),
            "of what os reaches: large batches under group, on stable storage before the ack",
        ),
        times(
            "c256_of_floor",
            floor(C256, "floor_one_record_c256"),
            "the floor: one record each, 256 clients",
        ),
        times(
            "c1024_of_floor",
            floor(C1024, "floor_one_record_c1024"),
            "the floor: one record each, 1024 clients",
        ),
        times(
            "c1024_p1000_of_floor",
            floor(C1024_MANY, "floor_one_record_c1024"),
            "the floor, which has one file: the same over 1000 partitions",
        ),
        times(
            "c256_ack_in_flushes",
            rows.over((C256, P50), (FLUSH, P50)),
            "a raw flush: the median ack of 256 clients",
        ),
        percent(
            "partitions_1000_of_1",
            rows.over((THOUSAND, RATE), (ONE, RATE)),
            "of one partition: the same load over 1000 of them",
        ),
        percent(
            "partitions_10000_of_1",
            rows.over((TEN_THOUSAND, RATE), (ONE, RATE)),
            "of one partition: the same load over 10,000 of them",
        ),
        times(
            "partitions_1000_of_direct",
            rows.over((THOUSAND, RATE), (DIRECT, RATE)),
            "a durable write for each partition and batch: 1000 partitions that share flushes",
        ),
        times(
            "recover_of_read",
            rows.over((crate::plan::RECOVER, P50), (crate::plan::RAW_READ, P50)),
            "the time of reading the same bytes raw: opening what a kill left",
        ),
    ];
    all.into_iter().chain(reads(&rows)).flatten().collect()
}

/// The ratios of the rows that read, and of those that look for what is read.
fn reads(rows: &Rows<'_>) -> [Option<Ratio>; 6] {
    let ratio = |name, (above, below): ((_, Figure), (_, Figure)), percent, text| {
        let value = rows.over(above, below)?;
        Some(Ratio { name, value, interval: None, text, percent })
    };
    let by_rounds = |name, bare: &[&str], text| {
        Ratio::of_rounds(name, &rows.by_rounds(READ_SEALED, bare)?, text)
    };
    [
        by_rounds(
            OF_SENDFILE,
            &[BARE_SENDFILE],
            "of a bare sendfile loop: sealed segments in the page cache, to a socket",
        ),
        by_rounds(
            OF_FASTER,
            &[BARE_SENDFILE, BARE_COPY],
            "of the faster one of the bare loops, sendfile and pread with send: the same",
        ),
        ratio(
            "writers_beside_reader",
            ((BESIDE_WRITERS, RATE), (WRITERS, RATE)),
            true,
            "of writers alone: the same writers with a reader of cold segments beside them",
        ),
        ratio(
            "writers_beside_reader_p999",
            ((BESIDE_WRITERS, P999), (WRITERS, P999)),
            false,
            "the 99.9th percentile of writers alone: the same",
        ),
        ratio(
            "find_offset_of_pread",
            ((FIND_OFFSET, P50), (BARE_PREAD, P50)),
            false,
            "a bare read of 4 KiB from the page cache: finding a batch by offset, all of it looked up before",
        ),
        ratio(
            "find_time_of_find_offset",
            ((FIND_TIME, P50), (FIND_OFFSET, P50)),
            false,
            "finding a batch by offset: a record by time, whose batch is read and checked",
        ),
    ]
}

/// What the numbers mean, a sentence or two for each thing that was measured.
pub fn sentences(rows: &[Outcome]) -> Vec<String> {
    let rows = Rows(rows);
    [policy(&rows), small(&rows), many(&rows), sockets(&rows)].into_iter().flatten().collect()
}

fn policy(rows: &Rows<'_>) -> Option<String> {
    let (os, group) = (rows.entry(OS_LARGE)?.mib_per_s, rows.entry(GROUP_LARGE)?.mib_per_s);
    let share = rows.over((GROUP_LARGE, MIB), (OS_LARGE, MIB))?;
    let rates = format!(
        "Large batches: under group, where an ack means on stable storage, {} MiB/s; under os, where a power \
         cut may take back what was acked, {} MiB/s.",
        human::digits(group),
        human::digits(os)
    );
    Some(if share >= ALIKE {
        format!("{rates} Durability costs next to nothing here: stay with group, the default.")
    } else {
        format!(
            "{rates} Durability costs {} of the bandwidth here: take os or interval only for data you can \
             lose or get again.",
            human::percent((1.0 - share) * 100.0)
        )
    })
}

fn small(rows: &Rows<'_>) -> Option<String> {
    let (flush, entry) = (rows.entry(FLUSH)?, rows.entry(C256)?);
    let alone = 1e6 / flush.latency_us.p50.max(f64::MIN_POSITIVE);
    let shared = entry
        .records_per_flush
        .map(|records| format!(", because {} records share a flush", human::count(records)))
        .unwrap_or_default();
    Some(format!(
        "One record each: a flush takes {}, so a client that waits for each ack gets at most {} a second by \
         itself; 256 such clients get {} together{shared}. Their share of the device is small since their \
         records are.",
        human::micros(flush.latency_us.p50),
        human::count(alone),
        human::count(entry.records_per_s)
    ))
}

fn many(rows: &Rows<'_>) -> Option<String> {
    let kept =
        |name| rows.over((name, RATE), (ONE, RATE)).map(|ratio| human::percent(ratio * 100.0));
    let thousand = kept(THOUSAND)?;
    let more = kept(TEN_THOUSAND).map_or(String::new(), |kept| format!(", 10,000 keep {kept}"));
    let direct = rows.over((THOUSAND, RATE), (DIRECT, RATE)).map_or(String::new(), |times| {
        format!("; with a flush for each partition it would be {} times less", human::digits(times))
    });
    Some(format!(
        "Many partitions: 1000 of them share flushes and keep {thousand} of the rate of one{more}{direct}."
    ))
}

fn sockets(rows: &Rows<'_>) -> Option<String> {
    let ratios = reads(rows);
    let of = |name| ratios.iter().flatten().find(|ratio| ratio.name == name);
    let (sendfile, faster) = (of(OF_SENDFILE)?, of(OF_FASTER)?);
    let told = |ratio: &Ratio, bar: f64| {
        let verdict = match ratio.reaches(bar) {
            Some(true) => "reached",
            Some(false) => "missed",
            None => "not decided by these rounds",
        };
        format!("{}; the bar of {} is {verdict}", ratio.ranged(), human::percent(bar * 100.0))
    };
    Some(format!(
        "Reading to a socket: of what a bare sendfile loop sends, sealed segments leave at {}. Of \
         what the faster of the bare loops sends it is {}.",
        told(sendfile, SENDFILE_BAR),
        told(faster, 1.0)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Latency;
    use crate::outcome::Kind;

    fn row(name: &'static str, rate: f64, p50: f64) -> Outcome {
        let latency_us = Latency { p50, ..Latency::default() };
        let entry =
            Entry { name, records_per_s: rate, mib_per_s: rate, latency_us, ..Entry::default() };
        Outcome { kind: Kind::Engine, entry, curve: Vec::new(), plotted: false }
    }

    fn value(ratios: &[Ratio], name: &str) -> f64 {
        ratios.iter().find(|ratio| ratio.name == name).expect("a ratio").value
    }

    #[test]
    fn ratios_can_be_computed_again_from_the_rows() {
        let mut rows = [
            row(FLUSH, 5000.0, 200.0),
            row("floor_one_record_c256", 400_000.0, 500.0),
            row(C256, 600_000.0, 500.0),
            row(ONE, 800.0, 1.0),
            row(THOUSAND, 600.0, 1.0),
            row(DIRECT, 60.0, 1.0),
            row(OS_LARGE, 900.0, 1.0),
        ];
        rows[6].entry.percent_of_device = Some(91.0);
        let ratios = ratios(&rows);
        let near =
            |name, wanted: f64| assert!((value(&ratios, name) - wanted).abs() < 1e-9, "{name}");
        near("c256_of_floor", 1.5);
        near("c256_ack_in_flushes", 2.5);
        near("partitions_1000_of_1", 0.75);
        near("partitions_1000_of_direct", 10.0);
        near("os_of_device", 0.91);
        assert_eq!(ratios.len(), 5, "what was not measured has no ratio: {ratios:?}");
    }

    #[test]
    fn the_sentences_say_what_durability_costs() {
        let dear = sentences(&[row(OS_LARGE, 1000.0, 1.0), row(GROUP_LARGE, 600.0, 1.0)]);
        assert!(dear.len() == 1 && dear[0].contains("costs 40 %"), "{dear:?}");
        let cheap = sentences(&[row(OS_LARGE, 1000.0, 1.0), row(GROUP_LARGE, 950.0, 1.0)]);
        assert!(cheap[0].contains("next to nothing"), "{cheap:?}");
    }

    #[test]
    fn a_bar_is_decided_by_rounds_that_were_taken_by_turns() {
        let with = |sealed: f64, restless: f64| {
            let mut rows = [
                row(BARE_SENDFILE, 1.0, 1.0),
                row(BARE_COPY, 1.0, 1.0),
                row(READ_SEALED, 1.0, 1.0),
            ];
            for nth in 0..15 {
                // The machine's mood, which all share, and what only the engine's rounds have.
                let mood = 1000.0 / f64::from(1 + nth % 4);
                let own = 1.0 + restless * f64::from(nth % 5 - 2);
                for (row, rate) in rows.iter_mut().zip([1.0, 1.2, sealed * own]) {
                    row.entry.rounds_mib_per_s.push(rate * mood);
                }
            }
            rows
        };
        let rows = with(1.1, 0.01);
        let (ratios, meaning) = (ratios(&rows), sentences(&rows));
        assert!((value(&ratios, OF_SENDFILE) - 1.1).abs() < 1e-9, "{ratios:?}");
        assert!((value(&ratios, OF_FASTER) - 1.1 / 1.2).abs() < 1e-9, "{ratios:?}");
        let [sentence] = &meaning[..] else { panic!("{meaning:?}") };
        assert!(sentence.contains("90 % is reached") && sentence.contains("100 % is missed"));
        let unsure = sentences(&with(0.9, 0.2));
        assert!(unsure[0].contains("90 % is not decided"), "{unsure:?}");
    }

    #[test]
    fn nothing_measured_means_nothing() {
        assert!(sentences(&[]).is_empty() && ratios(&[]).is_empty());
        assert!(ratios(&[row(ONE, 0.0, 0.0), row(THOUSAND, 1.0, 1.0)]).is_empty());
    }
}
