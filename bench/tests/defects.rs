//! The table of other tools' defects in `docs/benchmarking.md`: what it says shows their absence is there.

use std::fs;
use std::path::{Path, PathBuf};

/// All sources below a directory, in one text.
fn sources(dir: &Path) -> String {
    let mut text = String::new();
    let mut left: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(
                fs::read_dir(&path).expect("readable").map(|entry| entry.expect("an entry").path()),
            );
        } else if path.extension().is_some_and(|end| end == "rs") {
            text += &fs::read_to_string(&path).expect("UTF-8");
        }
    }
    text
}

#[test]
fn every_defect_has_a_test_or_a_check_that_shows_its_absence() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = fs::read_to_string(root.join("docs/benchmarking.md")).expect("readable");
    let (_, table) = text.split_once("## Defects of other tools").expect("the table");
    let rows: Vec<_> = table.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() >= 17, "as many as were found: {}", rows.len());
    let sources = sources(&root.join("bench/src"));
    for row in rows {
        let shown = row.trim_end_matches(" |").rsplit(" | ").next().expect("a last column");
        let names: Vec<_> = shown.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "nothing shows it: {row}");
        for name in names {
            let check = name.strip_prefix("selftest: ");
            let there = match check {
                Some(check) => sources.contains(&format!("name: \"{check}\"")),
                None => sources.contains(&format!("fn {name}()")),
            };
            assert!(there, "there is no {name}: {row}");
        }
    }
}
