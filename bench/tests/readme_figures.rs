//! `scripts/check-readme-figures` writes README's tables as the tool would print them, and says which figure differs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ringmain_bench::human;
use serde_json::json;

/// The exit code of a check that has no python3.
const SKIPPED: i32 = 75;

/// A README and results of a test's own.
struct Place(PathBuf);

impl Place {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ringmain-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("made");
        Self(path)
    }

    fn put(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("inside")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn readme(&self) -> String {
        fs::read_to_string(self.0.join("README.md")).expect("there")
    }

    fn check(&self, flags: &[&str]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/check-readme-figures");
        let mut command = Command::new(script);
        command.arg("--readme").arg(self.0.join("README.md"));
        command.arg("--results").arg(self.0.join("results")).args(flags);
        command.output().expect("bash")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn row(name: &str, value: f64) -> serde_json::Value {
    let latency = json!({"p50": value, "p99": value * 2.0, "p999": value * 30.0});
    json!({"name": name, "records_per_s": value, "mib_per_s": value / 100.0, "percent_of_device": value / 50.0,
           "floor_records_per_s": value * 1.7, "latency_us": latency, "count": 1000})
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

#[test]
fn a_figure_in_readme_that_is_not_the_results_is_named() {
    let place = Place::new("readme-figures");
    let sections = ["quick", "picture", "claims"]
        .map(|name| format!("<!-- figures: {name} -->\n<!-- end of figures: {name} -->\n"));
    place.put("README.md", &sections.concat());
    // Where three digits round up to four, and where units change.
    let values = [0.4, 9.994, 9.996, 99.94, 99.96, 995.4, 999.6, 9999.6, 673_800.0, 999_600.0];
    let rows: Vec<_> =
        values.iter().enumerate().map(|(nth, value)| row(&format!("row_{nth}"), *value)).collect();
    let env = json!({"cores": 2, "cpu": null, "memory_bytes": null, "kernel": null, "volume":
        {"file_system": "ext4", "model": null, "write_cache": null, "fua": null}});
    let document = json!({"command": "ringmain-bench quick --json", "env": env, "results": rows,
        "payload": {"source": "generated", "line_bytes_mean": 150.0}});
    place.put("results/20260314-092655-host-quick/summary.json", &document.to_string());

    let unchecked = place.check(&[]);
    if unchecked.status.code() == Some(SKIPPED) {
        eprintln!("skipped: no python3 here");
        return;
    }
    assert!(unchecked.status.success() && told(&unchecked).contains("no reference set"));

    let ratios = [2e-5, 0.0042, 0.0994, 0.0996, 0.5, 12.3];
    let claim = |ratio: &f64| {
        json!({"name": format!("claim_{ratio}"), "sentence": "", "verdict": "holds", "ratio": ratio,
               "interval": [ratio, ratio]})
    };
    let claims: Vec<_> = ratios.iter().map(claim).collect();
    let document = json!({"command": "ringmain-bench claims", "claims": claims});
    place.put("results/20260314-092655-host-claims/summary.json", &document.to_string());

    let named = "quick 20260314-092655-host-quick\nclaims 20260314-092655-host-claims\n";
    place.put("results/reference", named);
    let lacking = place.check(&[]);
    assert_eq!(lacking.status.code(), Some(1), "{}", told(&lacking));
    assert!(told(&lacking).contains("README lacks: row_3"), "{}", told(&lacking));
    assert!(place.check(&["--write"]).status.success());
    let right = place.check(&[]);
    assert!(right.status.success(), "{}", told(&right));

    let readme = place.readme();
    for (nth, value) in values.into_iter().enumerate() {
        let line = readme.lines().find(|line| line.starts_with(&format!("row_{nth} ")));
        let found: Vec<&str> = line.expect("a row").split_whitespace().collect();
        let latency = |share: f64| human::micros(value * share).replace(' ', "");
        let wanted = [
            format!("row_{nth}"),
            human::count(value),
            human::digits(value / 100.0),
            human::percent(value / 50.0).replace(' ', ""),
            human::digits(1.0 / 1.7),
            latency(1.0),
            latency(2.0),
            latency(30.0),
        ];
        assert_eq!(found, wanted, "{readme}");
    }

    for ratio in ratios.map(human::ratio) {
        assert!(readme.contains(&format!("| holds | {ratio} ({ratio} to {ratio}) |")), "{readme}");
    }

    place.put("README.md", &readme.replacen("674k", "690k", 1));
    let wrong = place.check(&[]);
    assert_eq!(wrong.status.code(), Some(1));
    let what = "quick: row_8, rec/s: README says 690k, the results 674k";
    assert!(told(&wrong).contains(what), "{}", told(&wrong));
}
