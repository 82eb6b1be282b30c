use serde_json::json;

use super::*;
use crate::claims::document;
use crate::env::Env;
use crate::scratch::Scratch;

fn sample() -> Document {
    let latency = json!({"p50": 81.0, "p90": 90.0, "p99": 120.0, "p999": 400.0, "p9999": 0.0,
        "p99999": 0.0, "max": 900.0, "count": 5000, "thin": ["p9999", "p99999"]});
    let arm = |name: &str, label: &str, rounds: [f64; 3]| {
        json!({"name": name, "group": "4 KiB, <durable>", "label": label, "about": "writes `x`",
            "rounds": rounds, "told": format!("{} MiB/s", rounds[1]), "records_per_s": 9000.0,
            "mib_per_s": rounds[1], "latency_us": latency, "cpu_cores": 0.4, "device_bytes": 1,
            "spread": 1.1})
    };
    let claim = |name: &str, verdict: &str, outcome: &str| {
        json!({"name": name, "sentence": "Order beats <b>chance</b>.", "verdict": verdict,
            "why": "holds here", "ratio": 1.5, "interval": [1.4, 1.6], "headline": "MiB a second",
            "comparisons": [{"when": "for 4 KiB", "of": "a", "over": "b", "figure": "mib_per_s",
                "bound": ">= 1.10", "ratio": 1.5, "interval": [1.4, 1.6],
                "ratios": [1.4, 1.5, 1.6], "outcome": outcome}],
            "arms": [arm("a", "in order", [60.0, 61.0, 62.0]), arm("b", "at random", [0.5, 0.6, 0.7])],
            "rounds": 3, "seconds": 19.0, "notes": ["a note"]})
    };
    let value = json!({"schema": 1, "kind": "claims", "state": "complete",
        "command": "ringmain-bench claims", "started": "20260314-092655", "host": "host",
        "effort": "quick", "seed": 7, "env": Env::default(),
        "payload": {"source": "generated", "lines": 10, "bytes": 1000, "line_bytes_mean": 100.0},
        "neighbours": null, "seconds": 60.0, "notes": ["the machine was busy"],
        "directory": "results/x",
        "claims": [claim("sequential", "holds", "holds"), claim("partitions", "depends", "does_not_hold")]});
    serde_json::from_value(value).expect("a document")
}

#[test]
fn a_page_of_claims_needs_no_network_and_tells_every_verdict() {
    let page = render(&sample());
    for word in ["http:", "https:", "<link", "@import", "url(", " src=", "<b>chance"] {
        assert!(!page.contains(word), "{word}");
    }
    assert!(page.len() < 2 << 20, "{} bytes", page.len());
    for told in [
        "id=\"sequential\"",
        "href=\"#partitions\"",
        "1 holds, 1 depends",
        "Order beats &lt;b&gt;chance&lt;/b&gt;.",
        "It does not hold for 4 KiB: 1.50&nbsp;×&nbsp;(1.40&nbsp;to&nbsp;1.60).",
        "the machine was busy",
    ] {
        assert!(page.contains(told), "{told}");
    }
    // The arms differ a hundredfold: points on a logarithmic axis, for a desk and for a phone.
    assert_eq!(page.matches("r=\"5\"").count(), 8);
    assert_eq!(page.matches("class=\"sure o-fails\"").count(), 2);
}

#[test]
fn a_claim_that_was_not_measured_says_why_and_draws_nothing() {
    let mut document = sample();
    document.claims.truncate(1);
    let entry = &mut document.claims[0];
    entry.verdict = Finding::NotMeasurable;
    entry.why = "the file system does not take O_DIRECT".to_owned();
    entry.comparisons.clear();
    entry.arms.iter_mut().for_each(|arm| arm.rounds.clear());
    let page = render(&document);
    assert!(page.contains("the file system does not take O_DIRECT") && !page.contains("<figure"));
}

#[test]
fn a_run_of_claims_is_read_back_and_another_schema_is_refused() {
    let scratch = Scratch::new("report-claims");
    let path = scratch.path().join("summary.json");
    assert!(document::read(scratch.path()).expect("no run").is_none());
    let text = sample().text().expect("JSON");
    std::fs::write(&path, &text).expect("written");
    let read = document::read(scratch.path()).expect("readable").expect("a run of claims");
    assert_eq!(render(&read), render(&sample()));
    std::fs::write(&path, text.replacen("\"schema\": 1", "\"schema\": 9", 1)).expect("written");
    let error = document::read(scratch.path()).expect_err("another schema");
    assert!(error.to_string().contains("schema 9"), "{error}");
}
