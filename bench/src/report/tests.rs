use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use super::*;
use crate::env::Env;
use crate::histogram::Latencies;
use crate::oracle::Tally;
use crate::random::Random;
use crate::run::compare;
use crate::run::folder::{self, Folder, host};
use crate::run::hlog::{self, Interval};
use crate::run::result::{
    Document, Generator, Interval as Sure, KIND, Latency, Phases, Repeat, RunResult, SCHEMA,
    Server, State, Verify, Warning,
};
use crate::run::workload::Workload;
use crate::scratch::Scratch;

/// Measured seconds of a made-up repeat.
const SECONDS: u64 = 30;

/// A latency of a disk that stalls now and then.
fn latency(random: &mut Random, slow: u64, second: u64) -> u64 {
    let mut below = |bound| u64::from(random.below(bound));
    let base = 80_000 + slow * 60_000 + below(90_000);
    let tail = if below(1000) < 8 { base * (2 + below(30)) } else { base };
    if second == 17 && below(3) == 0 { tail + below(200_000_000) } else { tail }
}

/// Writes a run as `run` would, a log a repeat.
fn write(scratch: &Scratch, nth: u64, change: impl FnOnce(&mut Document)) -> PathBuf {
    let folder =
        Folder::create(scratch.path(), &format!("20260314-09265{}-host-run-{nth}", nth % 10));
    let folder = folder.expect("made");
    let (mut corrected, mut uncorrected) = (Latencies::new(), Latencies::new());
    let mut repeats = Vec::new();
    let mut random = Random::new(nth + 1);
    for repeat in 1..=3 {
        let name = format!("repeat-{repeat}.hlog");
        let mut all = [Latencies::new(), Latencies::new()];
        hlog::write(&folder.path().join(&name), SystemTime::UNIX_EPOCH, |add| {
            for second in 0..SECONDS {
                let mut two = [Latencies::new(), Latencies::new()];
                for _ in 0..400 {
                    let ns = latency(&mut random, nth, second);
                    two[0].record(ns);
                    two[1].record(ns.min(2_000_000));
                }
                for (all, one) in all.iter_mut().zip(&two) {
                    all.merge(one);
                }
                for (uncorrected, latencies) in [false, true].into_iter().zip(two) {
                    let (start, length) = (Duration::from_secs(second), Duration::from_secs(1));
                    add(&Interval { uncorrected, start, length, latencies })?;
                }
            }
            Ok(())
        })
        .expect("written");
        repeats.push(Repeat {
            records: all[0].count() * 100,
            seconds: SECONDS as f64,
            latency_us: Latency::of(&all[0]),
            latency_uncorrected_us: Latency::of(&all[1]),
            hlog: Some(name),
            ..Repeat::default()
        });
        corrected.merge(&all[0]);
        uncorrected.merge(&all[1]);
    }
    let mut document = document(nth, repeats, (&corrected, &uncorrected));
    change(&mut document);
    folder.put("summary.json", &document.text()).expect("written");
    folder.path().to_owned()
}

fn document(nth: u64, repeats: Vec<Repeat>, both: (&Latencies, &Latencies)) -> Document {
    let part = |share: f64| {
        let of = Latency::of(both.0);
        Latency { p50: of.p50 * share, p99: of.p99 * share, max: of.max * share, ..of }
    };
    let result = RunResult {
        records_per_s: 40_000.0 + nth as f64,
        mib_per_s: 6.9,
        percent_of_device: Some(3.1),
        target_records_per_s: Some(50_000.0),
        target_rate_met: Some(false),
        latency_us: Latency::of(both.0),
        latency_uncorrected_us: Latency::of(both.1),
        phases_us: Phases {
            queue: part(0.02),
            write: Some(part(0.3)),
            flush: Some(part(0.6)),
            ack: part(0.08),
            ..Phases::default()
        },
        server: Server {
            cpu_cores: 0.7,
            cpu_by_core: vec![0.61, 0.22],
            rss_mib: 84.0,
            device_bytes: Some(1 << 30),
            flushes: Some(120_000),
            write_amplification: Some(1.31),
            ..Server::default()
        },
        repeats,
        interval: Sure { records_per_s: Some([39_000.0, 41_000.0]), ..Sure::default() },
        generator: Generator { overhead_ns_per_record: 90.0, busy: 0.1, was_bottleneck: false },
        ..RunResult::default()
    };
    Document {
        schema: SCHEMA,
        kind: KIND.to_owned(),
        state: State::Complete,
        command: format!("ringmain-bench run --rate 50000/s --seed {nth} --dir 'a<b'"),
        started: "20260314-092655".to_owned(),
        host: host(),
        workload: Workload { seed: nth, batch_records: 100, ..Workload::default() },
        env: serde_json::to_value(Env::capture(Path::new("."))).expect("serialises"),
        payload: Value::Null,
        neighbours: None,
        result,
        verify: Verify {
            verified: true,
            tally: Tally { acked: 3_600_000, ..Tally::default() },
            ..Verify::default()
        },
        warnings: vec![Warning::new(
            "target_missed",
            "<script>alert(1)</script> & 80 % of what was due",
        )],
        directory: None,
    }
}

fn page(dirs: &[PathBuf]) -> String {
    let runs = dirs.iter().map(|dir| Run::read(dir).expect("readable"));
    Runs::new(runs.collect()).render()
}

#[test]
fn a_page_of_runs_needs_no_network_and_its_pictures_no_script() {
    let scratch = Scratch::new("report-page");
    let page = page(&[write(&scratch, 0, |_| {}), write(&scratch, 1, |_| {})]);
    let markup = page.split("<script").next().expect("a page");
    for what in [
        "Corrected: ",
        "Uncorrected: ",
        "Records acked a second: ",
        "p99 of each moment: ",
        "Heat map of ",
    ] {
        assert!(markup.contains(&format!("aria-label=\"{what}")), "{what}");
    }
    assert!(markup.contains("aria-label=\"Phases: queue, write, flush, ack\""));
    for word in ["http:", "https:", "<link", "@import", "url(", " src="] {
        assert!(!page.contains(word), "{word}");
    }
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    assert_eq!(page.matches("<script").count(), 1, "what others wrote is escaped");
    assert!(
        page.contains("&lt;script&gt;alert(1)&lt;/script&gt; &amp; 80 %")
            && page.contains("a&lt;b")
    );
}

#[test]
fn what_sets_runs_apart_is_what_they_are_called() {
    let scratch = Scratch::new("report-apart");
    let dirs = [3, 4].map(|nth| write(&scratch, nth, |_| {}));
    let page = page(&dirs);
    assert!(page.contains("data-name=\"A seed 3\"") && page.contains("data-name=\"B seed 4\""));
    assert!(page.contains("<th scope=\"col\">seed</th>"), "a table of the settings that differ");
    assert!(!page.contains("<th scope=\"col\">partitions</th>"), "and of no other");
}

#[test]
fn a_picture_of_its_own_shows_each_run_and_joins_what_nothing_with_its_ack_beats() {
    let scratch = Scratch::new("report-picture");
    // Records a second and p99.9: durable ones of which the last is beaten in both, and one that is acked when written.
    let figures =
        [(1, 1000.0, 400.0), (10, 9000.0, 900.0), (20, 800.0, 5000.0), (30, 50_000.0, 90.0)];
    let dirs = [0, 1, 2, 3].map(|nth| {
        write(&scratch, nth, |document| {
            let (batch_records, records_per_s, p999) = figures[nth as usize];
            let flush = if nth == 3 { "os" } else { "group" }.parse().expect("a policy");
            document.workload = Workload { batch_records, flush, ..Workload::default() };
            document.result.target_records_per_s = None;
            document.result.target_rate_met = None;
            document.result.records_per_s = records_per_s;
            document.result.latency_us.p999 = p999;
            document.result.interval.records_per_s = None;
        })
    });
    let runs = |dirs: &[PathBuf]| {
        Runs::new(dirs.iter().map(|dir| Run::read(dir).expect("readable")).collect())
    };
    let picture = runs(&dirs).picture().expect("four runs");
    let front = picture.split("<path class=\"edge k0 d0\" d=\"").nth(1).expect("a front");
    let front = front.split('"').next().expect("its points");
    assert_eq!(front.matches('L').count(), 1, "two of the three durable ones: {front}");
    assert!(!picture.contains("edge k1"), "one alone is joined with nothing");
    for label in ["1", "10", "20", "30"] {
        assert!(picture.contains(&format!(">{label}</text>")), "{label}: {picture}");
    }
    assert!(picture.contains("labels: batch-records)"), "{picture}");
    let links = picture.replace("http://www.w3.org/2000/svg", "");
    for word in ["http", "@import", "url(", "href", "<script"] {
        assert!(!links.contains(word), "{word}");
    }
    assert!(picture.contains("@media (prefers-color-scheme: dark)"));
    assert!(runs(&dirs[..1]).picture().is_none(), "one run is held against nothing");
}

#[test]
fn another_machine_a_loss_a_stop_and_a_thin_percentile_are_said() {
    let scratch = Scratch::new("report-said");
    let lost = write(&scratch, 0, |document| document.verify.tally.lost = 2);
    let moved = write(&scratch, 1, |document| {
        document.host = "elsewhere".to_owned();
        document.state = State::Interrupted;
        document.result.closed_loop = true;
        document.verify =
            Verify { why_not: Some("no time was left".to_owned()), ..Verify::default() };
    });
    let page = page(&[lost, moved]);
    for told in [
        "<li class=\"bad\"><b>A failed</b> of 3.60M acked records 2 are lost",
        "A and B are not of the same machine: host differ",
        "<b>B partial</b>",
        "<b>B note</b> closed loop: ",
        "<b>B not verified</b> no time was left",
        "<small>missed</small>",
        "<td data-head=\"p99.999\">(",
    ] {
        assert!(page.contains(told), "{told}");
    }
}

#[test]
fn curves_end_where_ten_are_beyond_and_a_stall_shows_in_the_corrected_one() {
    let scratch = Scratch::new("report-curves");
    let run = Run::read(&write(&scratch, 0, |_| {})).expect("readable").0;
    let (corrected, uncorrected) =
        (run.corrected.last().expect("one"), run.uncorrected.last().expect("one"));
    let beyond = 36_000.0 * (1.0 - corrected.quantile);
    assert!((10.0..12.0).contains(&beyond), "{beyond}");
    assert!(corrected.ns > 10 * uncorrected.ns, "{corrected:?} {uncorrected:?}");
    assert_eq!(run.moments.len(), 90, "a moment a second and repeat");
    let rates: Vec<f64> = run.moments.iter().filter_map(|moment| moment.records_per_s).collect();
    assert!(
        rates.len() == 90 && rates.iter().all(|rate| (rate - 40_000.0).abs() < 1.0),
        "{rates:?}"
    );
}

#[test]
fn a_cut_log_is_drawn_as_far_as_it_goes_and_said() {
    let scratch = Scratch::new("report-cut");
    let dir = write(&scratch, 0, |_| {});
    let path = dir.join("repeat-2.hlog");
    let text = fs::read(&path).expect("there");
    fs::write(&path, &text[..text.len() / 2]).expect("written");
    let run = Run::read(&dir).expect("readable");
    assert!(run.0.moments.len() < 90 && run.0.moments.len() > 60, "{}", run.0.moments.len());
    let runs = Runs::new(vec![run]);
    assert_eq!(runs.damage().len(), 1);
    assert!(
        runs.damage()[0].contains("repeat-2.hlog: the log is cut off after"),
        "{:?}",
        runs.damage()
    );
    assert!(runs.render().contains("<li class=\"bad\"><b>damaged</b>"));
}

#[test]
fn another_schema_and_another_document_are_refused() {
    let scratch = Scratch::new("report-foreign");
    let newer = write(&scratch, 0, |document| document.schema = 7);
    let told = Run::read(&newer).expect_err("another schema").to_string();
    assert!(told.contains("schema 7, and this tool reads 1"), "{told}");
    let other = write(&scratch, 1, |document| document.kind = "quick".to_owned());
    assert!(Run::read(&other).is_err());
    fs::write(other.join("summary.json"), "{\"schema\": 1, ").expect("written");
    let told = Run::read(&other).expect_err("cut").to_string();
    assert!(told.contains("no whole JSON document"), "{told}");
    fs::remove_file(other.join("summary.json")).expect("removed");
    assert!(Run::read(&other).expect_err("none").to_string().contains("no summary.json in it"));
}

/// Where numbers of a JSON text are.
fn numbers(text: &str) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    let mut begin = None;
    for (at, byte) in text.bytes().enumerate() {
        let inside = byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'e' | b'+');
        match (inside, begin) {
            (true, None) if byte.is_ascii_digit() || byte == b'-' => begin = Some(at),
            (false, Some(from)) => {
                found.push(from..at);
                begin = None;
            }
            _ => {}
        }
    }
    found
}

/// Spoils one file of a run.
fn spoil(dir: &Path, random: &mut Random) {
    const STRANGE: [&str; 10] = [
        "0",
        "1",
        "-1",
        "1e308",
        "-1e308",
        "1e-310",
        "0.1",
        "18446744073709551615",
        "-9223372036854775808",
        "null",
    ];
    let name = ["summary.json", "summary.json", "summary.json", "repeat-1.hlog"];
    let path = dir.join(name[random.below(4) as usize]);
    let mut bytes = fs::read(&path).expect("there");
    if bytes.is_empty() {
        return;
    }
    let at = random.below(bytes.len() as u32) as usize;
    match random.below(9) {
        0 => bytes.truncate(at),
        1 => bytes[at] ^= 1 << random.below(8),
        2 => {
            let line =
                bytes[at..].iter().position(|byte| *byte == b'\n').map_or(at, |n| at + n + 1);
            bytes.drain(at..line);
        }
        _ => {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let numbers = numbers(&text);
            if numbers.is_empty() {
                return;
            }
            let number = numbers[random.below(numbers.len() as u32) as usize].clone();
            let with = STRANGE[random.below(STRANGE.len() as u32) as usize];
            bytes = [&text[..number.start], with, &text[number.end..]].concat().into_bytes();
        }
    }
    fs::write(&path, bytes).expect("written");
}

#[test]
fn times_longer_than_any_have_a_place_on_the_page() {
    let scratch = Scratch::new("report-long");
    let long =
        |latency: &mut Latency| (latency.p99, latency.p999, latency.max) = (1e308, 1e308, 1e308);
    let dir = write(&scratch, 0, |document| {
        long(&mut document.result.latency_us);
        document.result.phases_us.flush.as_mut().map(long);
    });
    let other = write(&scratch, 1, |_| {});
    let runs = Runs::new([dir, other].map(|dir| Run::read(&dir).expect("read")).into());
    for text in [runs.render(), runs.picture().expect("two runs")] {
        assert!(!text.contains("NaN") && !text.contains("\"inf"), "a place that is no number");
    }
}

#[test]
fn a_spoilt_run_gives_a_page_or_a_reason() {
    let (mut pages, mut reasons) = (0, 0);
    let scratch = Scratch::new("report-spoilt");
    let sound = write(&scratch, 0, |_| {});
    let other = write(&scratch, 1, |_| {});
    let kept: Vec<_> = ["summary.json", "repeat-1.hlog"]
        .map(|name| (other.join(name), fs::read(other.join(name)).expect("there")))
        .into();
    for seed in 0..400 {
        let mut random = Random::new(seed);
        (0..=random.below(2)).for_each(|_| spoil(&other, &mut random));
        if let (Ok(a), Ok(b)) = (folder::summary(&sound), folder::summary(&other)) {
            compare::obstacles(&a, &b);
            compare::differences(&a, &b);
        }
        match [&sound, &other].map(|dir| Run::read(dir)) {
            [Ok(a), Ok(b)] => {
                let runs = Runs::new(vec![a, b]);
                let page = runs.render();
                runs.picture();
                assert!(page.ends_with("</html>\n"), "seed {seed}");
                assert!(!page.contains("NaN") && !page.contains("\"inf"), "seed {seed}");
                pages += 1;
            }
            [_, Err(error)] => {
                assert!(!error.to_string().is_empty(), "seed {seed}");
                reasons += 1;
            }
            [Err(error), _] => panic!("seed {seed}: the sound one: {error}"),
        }
        for (path, bytes) in &kept {
            fs::write(path, bytes).expect("written");
        }
    }
    assert!(pages > 50 && reasons > 50, "{pages} pages and {reasons} reasons");
}

/// The page of twenty runs is below 2 MB, and rendering it, once runs are read, takes less than a second even without
/// optimisation; with it, reading included.
#[test]
fn a_page_of_twenty_runs_is_small_and_soon_there() {
    let scratch = Scratch::new("report-twenty");
    let dirs: Vec<_> = (0..20).map(|nth| write(&scratch, nth, |_| {})).collect();
    let mut begin = Instant::now();
    let runs = Runs::new(dirs.iter().map(|dir| Run::read(dir).expect("readable")).collect());
    let reading = begin.elapsed();
    if cfg!(debug_assertions) {
        begin = Instant::now();
    }
    let page = runs.render();
    let counted = begin.elapsed();
    println!("{} bytes, read in {reading:?}, counted {counted:?}", page.len());
    assert!(page.len() < 2_000_000, "{} bytes", page.len());
    assert!(counted < Duration::from_secs(1), "{counted:?}");
}

/// A browser that can be run without a screen.
fn browser() -> Option<&'static str> {
    ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| {
        let asked = Command::new(name).arg("--version").output();
        asked.is_ok_and(|output| output.status.success())
    })
}

/// What a browser makes of the page: its log and its standard output.
fn browse(name: &str, scratch: &Scratch, arguments: &[&str], page: &Path) -> (String, String) {
    let output = Command::new(name)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--enable-logging=stderr",
            "--v=0",
        ])
        .args(["--virtual-time-budget=2000", "--disable-dev-shm-usage"])
        .arg(format!("--user-data-dir={}", scratch.path().join("profile").display()))
        .args(arguments)
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("it ran a moment ago");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stderr), text(&output.stdout))
}

/// Asks the page itself, once it is laid out: the sizes of its drawings, whether it is wider than the window, what the
/// pointer is told, and every error.
const PROBE: &str = r#"<script>
const said = { errors: [], sizes: [], wide: 0, over: 0, tip: "" };
addEventListener("error", (event) => said.errors.push(event.message));
addEventListener("securitypolicyviolation", (event) => said.errors.push(event.blockedURI));
addEventListener("load", () => {
  const shown = Array.from(document.querySelectorAll("svg[role=img]")).filter((svg) => svg.getClientRects().length);
  said.sizes = shown.map((svg) => svg.getBoundingClientRect()).map(({ width, height }) => [width, height]);
  said.wide = document.documentElement.scrollWidth - innerWidth;
  const edge = document.querySelector("main").getBoundingClientRect().right;
  const wide = Array.from(document.querySelectorAll("table, svg"), (e) => e.getBoundingClientRect().right);
  said.over = Math.max(...wide) - edge;
  const svg = shown[0], area = svg.getBoundingClientRect();
  const at = { clientX: area.left + area.width / 2, clientY: area.top + area.height / 2, bubbles: true };
  svg.dispatchEvent(new PointerEvent("pointermove", at));
  said.tip = document.querySelector(".tip").textContent;
  document.documentElement.setAttribute("data-said", JSON.stringify(said));
});
</script>
"#;

#[test]
fn a_browser_shows_it_by_day_by_night_on_a_phone_and_on_paper() {
    let Some(name) = browser() else {
        eprintln!("skipped: no chromium here, so nobody looked at the page");
        return;
    };
    let scratch = Scratch::new("report-browser");
    let dirs: Vec<_> = (0..4).map(|nth| write(&scratch, nth, |_| {})).collect();
    let text = page(&dirs);
    let (page, probed) = (scratch.path().join("page.html"), scratch.path().join("probed.html"));
    fs::write(&page, &text).expect("written");
    fs::write(&probed, text.replacen("<style>", &format!("{PROBE}<style>"), 1)).expect("written");
    for (window, drawings) in [("1280,900", 9), ("390,844", 9)] {
        let size = format!("--window-size={window}");
        let (log, dom) = browse(name, &scratch, &[&size, "--dump-dom"], &probed);
        let said = dom.split("data-said=\"").nth(1).and_then(|rest| rest.split('"').next());
        let said =
            said.unwrap_or_else(|| panic!("the page did not say: {log}")).replace("&quot;", "\"");
        let said: Value = serde_json::from_str(&said).expect("JSON");
        assert_eq!(said["errors"].as_array().expect("a list").len(), 0, "{said}");
        let sizes = said["sizes"].as_array().expect("a list");
        assert_eq!(sizes.len(), drawings, "{said}");
        assert!(
            sizes
                .iter()
                .all(|size| size[0].as_f64() > Some(250.0) && size[1].as_f64() > Some(120.0)),
            "{said}"
        );
        assert!(said["wide"].as_f64() <= Some(0.0), "wider than the window of {window}: {said}");
        assert!(said["over"].as_f64() <= Some(0.0), "something is wider than the text: {said}");
        let tip = said["tip"].as_str().expect("text");
        assert!(tip.starts_with('p') && tip.contains("A seed 0") && tip.contains(" us"), "{tip}");
    }
    let shots: [(&str, &[&str]); 3] = [
        ("light", &["--window-size=1280,4200"]),
        (
            "dark",
            &[
                "--window-size=1280,4200",
                "--force-dark-mode",
                "--blink-settings=preferredColorScheme=0",
            ],
        ),
        ("narrow", &["--window-size=500,8000"]),
    ];
    for (shot, arguments) in shots {
        let path = scratch.path().join(format!("{shot}.png"));
        let to = format!("--screenshot={}", path.display());
        let (log, _) = browse(name, &scratch, &[arguments, &[&to]].concat(), &page);
        let bytes =
            fs::metadata(&path).unwrap_or_else(|_| panic!("no picture of {shot}: {log}")).len();
        // An empty page of this size takes a tenth of it.
        assert!(bytes > 100_000, "{shot}: {bytes} bytes");
    }
    let paper = scratch.path().join("paper.pdf");
    let to = format!("--print-to-pdf={}", paper.display());
    let (log, _) = browse(name, &scratch, &[&to], &page);
    let pdf = fs::read(&paper).unwrap_or_else(|_| panic!("nothing printed: {log}"));
    let pages = String::from_utf8_lossy(&pdf).matches("/Type /Page\n").count();
    assert!(pdf.len() > 50_000 && (2..=12).contains(&pages), "{} bytes, {pages} pages", pdf.len());
    if let Some(keep) = std::env::var_os("RINGMAIN_KEEP_SHOTS") {
        for file in ["page.html", "light.png", "dark.png", "narrow.png", "paper.pdf"] {
            fs::copy(scratch.path().join(file), Path::new(&keep).join(file)).expect("copied");
        }
    }
}
