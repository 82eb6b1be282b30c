//! Slices of all arms become rows.

use std::time::Duration;

use crate::crash::Found;
use crate::distance::{FAR_NS, Reach, RoundTrips};
use crate::histogram::Latencies;
use crate::human;
use crate::json::{Entry, Latency};
use crate::outcome::{Kind, Outcome};
use crate::plan::{Beside, RAW_FLUSH, RAW_READ, RECOVER, Row, row};
use crate::rawread;
use crate::sample::{Cost, Sample};
use crate::stats::{median, median_ratio, spread};

/// Turns of the journal from which on its write-back is fairly in a figure.
const TURNS_MIN: f64 = 3.0;

/// One arm and its slices, in the order they ran.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The arm.
    pub row: &'static Row,
    /// Whether its file took O_DIRECT.
    pub direct: bool,
    /// Its slices; as many as every other arm has.
    pub slices: Vec<Sample>,
    /// How far the cores were apart at each.
    pub round_trips: Vec<RoundTrips>,
}

impl Measured {
    fn mib(&self) -> Vec<f64> {
        self.slices.iter().map(Sample::mib_per_s).collect()
    }

    fn records(&self) -> Vec<f64> {
        self.slices.iter().map(Sample::records_per_s).collect()
    }

    /// All latencies together: merged, never averaged.
    pub fn latencies(&self) -> Latencies {
        let mut all = Latencies::new();
        self.slices.iter().for_each(|slice| all.merge(&slice.latencies));
        all
    }
}

impl Measured {
    /// What the engine did in all slices together.
    pub fn cost(&self) -> Option<Cost> {
        self.slices.iter().filter_map(|slice| slice.cost).reduce(Cost::plus)
    }
}

/// The arm of that name.
pub fn find<'a>(arms: &'a [Measured], name: &str) -> Option<&'a Measured> {
    arms.iter().find(|arm| arm.row.name == name)
}

/// The arms of a reopening: the raw reads, then the engine's.
pub fn recovered(found: &Found) -> Vec<Measured> {
    let arm = |name, ns: u64, records: u64| {
        let mut sample = Sample::empty(Duration::from_nanos(ns));
        sample.latencies.record(ns);
        (sample.records, sample.bytes) = (records, found.read_bytes);
        let row = row(name).expect("a row of the plan");
        Measured { row, direct: found.direct, slices: vec![sample], round_trips: Vec::new() }
    };
    let reads = found.read_bytes.div_ceil(rawread::READ_BYTES as u64);
    vec![arm(RAW_READ, found.raw_ns, reads), arm(RECOVER, found.open_ns, found.records)]
}

/// The durable split of one mebibyte in flight with the highest median rate.
pub fn best_split(arms: &[Measured]) -> Option<&Measured> {
    let rate = |arm: &Measured| median(arm.mib()).unwrap_or(0.0);
    arms.iter()
        .filter(|arm| arm.row.name.starts_with("device_dsync_"))
        .max_by(|a, b| rate(a).total_cmp(&rate(b)))
}

/// A row for each arm.
pub fn outcomes(arms: &[Measured]) -> Vec<Outcome> {
    arms.iter().map(|arm| outcome(arm, arms)).collect()
}

fn outcome(arm: &Measured, arms: &[Measured]) -> Outcome {
    let row = arm.row;
    let latencies = arm.latencies();
    let beside = match row.beside {
        Beside::Nothing => None,
        Beside::Row(name) => find(arms, name),
        Beside::BestSplit => best_split(arms),
    };
    let floor = row.floor.and_then(|name| find(arms, name));
    let one_at_a_time = find(arms, RAW_FLUSH).filter(|_| row.kind() != Kind::Device);
    let mut entry = Entry {
        name: row.name,
        policy: row.policy,
        write_mode: Some(if arm.direct { "direct" } else { "page_cache" }),
        batch_bytes: row.batch_bytes,
        partitions: row.partitions,
        in_flight: row.in_flight,
        records_per_s: median(arm.records()).unwrap_or(0.0),
        mib_per_s: median(arm.mib()).unwrap_or(0.0),
        device_mib_per_s: beside.and_then(|beside| median(beside.mib())),
        percent_of_device: beside
            .and_then(|beside| median_ratio(&arm.mib(), &beside.mib()))
            .map(|ratio| ratio * 100.0),
        latency_us: Latency::of(&latencies),
        count: latencies.count(),
        rounds_mib_per_s: if row.is_in_rounds() { arm.mib() } else { Vec::new() },
        spread: spread(&arm.records()),
        core_round_trips_ns: arm.round_trips.clone(),
        floor_records_per_s: floor.and_then(|floor| median(floor.records())),
        raw_flush_us: one_at_a_time.map(|arm| Latency::of(&arm.latencies()).p50),
        ..Entry::default()
    };
    if let Some(cost) = arm.cost() {
        add_cost(&mut entry, &cost);
    }
    Outcome { kind: row.kind(), entry, curve: latencies.curve(), plotted: row.plotted }
}

fn add_cost(entry: &mut Entry, cost: &Cost) {
    let ratio = |a: u64, b: u64| (b > 0).then(|| a as f64 / b as f64);
    entry.write_amplification = ratio(cost.device_bytes, cost.batch_bytes);
    entry.groups = Some(cost.groups);
    entry.records_per_flush = ratio(cost.records, cost.durable_writes);
    entry.bytes_per_flush = ratio(cost.batch_bytes, cost.durable_writes);
    entry.checkpoint_lag_bytes = Some(cost.lag_bytes);
    entry.prepared_bytes = Some(cost.prepared_bytes);
    entry.rss_bytes = Some(cost.rss_bytes);
    entry.note = Some(note(cost));
}

/// What to know of an engine's row before its figures are quoted.
fn note(cost: &Cost) -> String {
    let mut notes = vec!["one shard, on another core than the clients".to_owned()];
    if let Some(turns) = too_few_turns(cost) {
        let size = human::bytes(cost.journal_size);
        notes
            .push(format!("too short: {turns:.1} turns of its journal of {size}, not {TURNS_MIN}"));
    }
    if cost.prepared_bytes > 0 {
        let bytes = human::bytes(cost.prepared_bytes);
        notes.push(format!("sustained: {bytes} of space were readied while the clock ran"));
    }
    notes.join("; ")
}

/// The turns of the journal, if it was used and they were fewer than [`TURNS_MIN`].
fn too_few_turns(cost: &Cost) -> Option<f64> {
    let turns = cost.journal_bytes as f64 / cost.journal_size.max(1) as f64;
    (cost.journal_bytes > 0 && turns < TURNS_MIN).then_some(turns)
}

/// What to know of the engine's rows together.
pub fn notes(arms: &[Measured]) -> Vec<String> {
    let of = |wanted: fn(&Cost) -> bool| {
        let arms = arms.iter().filter(|arm| arm.cost().as_ref().is_some_and(wanted));
        arms.map(|arm| arm.row.name).collect::<Vec<_>>().join(", ")
    };
    let told = [
        (
            of(|cost| too_few_turns(cost).is_some()),
            "too short for three turns of the journal, so not all of its write-back is in these figures:",
        ),
        (of(|cost| cost.prepared_bytes > 0), "sustained, with space readied while the clock ran:"),
    ];
    let alike = arms.iter().any(|arm| arm.cost().is_some());
    let alike =
        alike.then(|| "the log runs on one core (one shard), its clients on another".to_owned());
    let told = told.into_iter().filter(|(rows, _)| !rows.is_empty());
    let told = told.map(|(rows, what)| format!("{what} {rows}"));
    alike.into_iter().chain(told).chain(apart(arms)).collect()
}

/// What is said of slices with the cores apart.
fn apart(arms: &[Measured]) -> Option<String> {
    let all: Vec<RoundTrips> = arms.iter().flat_map(|arm| arm.round_trips.clone()).collect();
    let apart = all.iter().filter(|trips| trips.reach() != Reach::Near).count();
    (apart > 0).then(|| {
        format!(
            "in {apart} of {} slices the host had the clients' core and the log's {FAR_NS} ns or more apart (a \
             cache line there and back): rows of small requests are slower by up to half in these, and ratios \
             of two rows tell less (core_round_trips_ns)",
            all.len()
        )
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn measured(name: &str, mib: [u64; 3]) -> Measured {
        let slice = |mib: u64| {
            let mut sample = Sample::empty(Duration::from_secs(1));
            sample.latencies.record(mib * 1000);
            sample.records = mib;
            sample.bytes = mib << 20;
            sample
        };
        let round_trips = Vec::new();
        let row = row(name).expect("a row");
        Measured { row, direct: true, slices: mib.map(slice).into(), round_trips }
    }

    #[test]
    fn a_row_is_measured_against_its_device_slice_by_slice() {
        let arms = [
            measured("device_os_512k_q8", [1000, 500, 1200]),
            measured("append_os_large", [900, 450, 1140]),
        ];
        let entry = &outcomes(&arms)[1].entry;
        assert_eq!(entry.device_mib_per_s, Some(1000.0));
        let percent = entry.percent_of_device.expect("a ratio");
        assert!((percent - 90.0).abs() < 1e-9, "{percent}");
    }

    #[test]
    fn group_rows_are_measured_against_the_best_split() {
        let arms = [
            measured("device_dsync_64k_q16", [800, 2000, 800]),
            measured("device_dsync_512k_q2", [1000, 1000, 1000]),
            measured("append_group_64k_q16", [900, 900, 900]),
        ];
        assert_eq!(outcomes(&arms)[2].entry.percent_of_device, Some(90.0));
    }

    #[test]
    fn the_floor_and_the_raw_flush_stand_beside_one_record_rows() {
        let arms = [
            measured(RAW_FLUSH, [200, 200, 200]),
            measured("floor_one_record_c256", [50, 60, 70]),
            measured("append_group_one_record_c256", [80, 80, 80]),
        ];
        let rows = outcomes(&arms);
        assert_eq!(rows[2].entry.floor_records_per_s, Some(60.0));
        assert!((rows[2].entry.raw_flush_us.expect("there") - 200.0).abs() < 1.0);
        assert_eq!(rows[0].entry.raw_flush_us, None);
    }

    #[test]
    fn a_file_that_went_through_the_page_cache_says_so() {
        let mut arm = measured(RAW_FLUSH, [1, 1, 1]);
        assert_eq!(outcomes(&[arm.clone()])[0].entry.write_mode, Some("direct"));
        arm.direct = false;
        assert_eq!(outcomes(&[arm])[0].entry.write_mode, Some("page_cache"));
    }

    #[test]
    fn a_row_that_was_too_short_or_made_space_meanwhile_says_so() {
        let long = Cost { journal_bytes: 300, journal_size: 100, ..Cost::default() };
        assert!(!note(&long).contains("too short") && !note(&long).contains("sustained"));
        assert!(note(&Cost { journal_bytes: 299, ..long }).contains("too short"));
        assert!(note(&Cost { prepared_bytes: 1 << 20, ..long }).contains("sustained"));
        assert!(note(&Cost::default()).contains("one shard"));
    }

    #[test]
    fn costs_of_slices_add_up() {
        let mut arm = measured("append_group_64k_q16", [1, 1, 1]);
        for slice in &mut arm.slices {
            let cost = Cost { batch_bytes: 100, device_bytes: 150, records: 40, ..Cost::default() };
            slice.cost = Some(Cost { groups: 3, durable_writes: 4, lag_bytes: 7, ..cost });
        }
        let entry = &outcomes(&[arm])[0].entry;
        assert_eq!(entry.write_amplification, Some(1.5));
        assert_eq!((entry.groups, entry.checkpoint_lag_bytes), (Some(9), Some(7)));
        assert_eq!((entry.records_per_flush, entry.bytes_per_flush), (Some(10.0), Some(25.0)));
    }

    #[test]
    fn without_its_device_a_row_has_no_ratio() {
        let rows = outcomes(&[measured("append_os_large", [1, 1, 1])]);
        assert_eq!((rows[0].entry.device_mib_per_s, rows[0].entry.percent_of_device), (None, None));
    }
}
