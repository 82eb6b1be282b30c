use std::path::Path;

use super::*;
use crate::env::Env;
use crate::histogram::Latencies;
use crate::json::{Check, Latency, SCHEMA};
use crate::oracle::Tally;
use crate::payload::Payload;
use crate::reading;

fn outcome(kind: Kind, name: &'static str) -> Outcome {
    let mut latencies = Latencies::new();
    (1..=5000_u64).for_each(|nth| latencies.record(100_000 + nth * nth));
    let entry = Entry { name, latency_us: Latency::of(&latencies), ..Entry::default() };
    Outcome { kind, entry, curve: latencies.curve(), plotted: true }
}

fn document() -> Document {
    let check = Check {
        name: "flush_is_plausible",
        state: State::Passed,
        detail: "<script>alert(1)</script>".to_owned(),
    };
    Document {
        schema: SCHEMA,
        command: "ringmain-bench quick --dir 'a<b'".to_owned(),
        env: Env::capture(Path::new(".")),
        payload: Payload::generated(1 << 16).about().clone(),
        seconds: 60.0,
        slices: 3,
        results: Vec::new(),
        verify: Some(Tally { acked: 7, lost: 1, ..Tally::default() }),
        checks: vec![check],
        ratios: Vec::new(),
        meaning: Vec::new(),
        neighbours: None,
        notes: Vec::new(),
        report: None,
    }
}

fn page() -> String {
    let mut alone = outcome(Kind::Engine, "recover");
    alone.curve.truncate(1);
    let rows = [
        outcome(Kind::Device, "device_flush_4k_q1"),
        outcome(Kind::Engine, "append_os_large"),
        alone,
    ];
    render(&document(), &rows)
}

#[test]
fn the_page_needs_no_network_and_its_pictures_no_script() {
    let page = page();
    let without_script = page.split("<script").next().expect("a page");
    assert_eq!(without_script.matches("role=\"img\"").count(), 4, "all drawings are in the markup");
    for word in ["http:", "https:", "<link", "@import", "url(", " src="] {
        assert!(!page.contains(word), "{word}");
    }
}

#[test]
fn what_others_wrote_is_escaped() {
    let page = page();
    assert!(page.contains("&lt;script&gt;"));
    assert!(page.contains("a&lt;b"));
}

#[test]
fn a_lost_record_is_a_failure_on_the_page() {
    assert!(page().contains("<li class=\"bad\"><b>failed</b> 7 acked records"));
}

#[test]
fn every_row_has_its_curve_on_both_sheets() {
    let page = page();
    assert_eq!(page.matches("<title>append_os_large</title>").count(), 2);
    let told = "two sections, each for desk and phone; one request alone has no curve";
    assert_eq!(page.matches("role=\"img\"").count(), 4, "{told}");
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
}

#[test]
fn a_section_without_rows_is_left_out() {
    let page = page();
    assert!(page.contains("under os</h2>") && !page.contains("One record a batch"));
}

#[test]
fn the_meaning_and_its_ratios_are_on_the_page() {
    let rows = ["append_os_large", "append_group_64k_q16"].map(|name| {
        let mut row = outcome(Kind::Engine, name);
        row.entry.mib_per_s = if name == "append_os_large" { 1000.0 } else { 600.0 };
        row
    });
    let (ratios, meaning) = (reading::ratios(&rows), reading::sentences(&rows));
    let page = render(&Document { ratios, meaning, ..document() }, &rows);
    assert!(page.contains("<dt>60&nbsp;%</dt><dd>of what os reaches"), "{page}");
    assert!(page.contains("<p>Large batches: under group"), "{page}");
}
