use super::*;

fn flags(change: impl FnOnce(&mut Flags)) -> Flags {
    let mut flags = Flags::default();
    change(&mut flags);
    flags
}

#[test]
fn a_printed_workload_runs_again_as_the_same() {
    let odd = flags(|f| {
        f.dir = Some("/tmp/with space".into());
        f.rate = Some(Rate::PerSecond(12_345.0));
        f.arrival = Some(Arrival::Step { from: 0.5, to: 2.0, steps: 4 });
        f.record_bytes = Some(Sizes::LogNormal { median: 200, sigma: 0.5 });
        f.keys = Some(Keys::Zipf { count: 1000, skew: 1.1 });
        f.write_mode = Some(Mode::PageCache);
        f.backend = Some(BackendName::Sync);
        f.flush = Some("interval:10ms:1MiB".parse().expect("a policy"));
    });
    for flags in [Flags::default(), odd] {
        let workload = flags.resolve().expect("resolves");
        let text = workload.to_toml().expect("prints");
        assert_eq!(Workload::from_toml(&text).expect("parses"), workload, "{text}");
    }
}

#[test]
fn a_file_uses_the_names_of_the_flags() {
    let text = toml::to_string(&Workload {
        dir: Some("d".into()),
        out: Some("o".into()),
        ..Workload::default()
    });
    let table: toml::Table = toml::from_str(&text.expect("prints")).expect("parses");
    let mut keys: Vec<_> = table.keys().cloned().collect();
    let mut names = Flags::names();
    keys.sort();
    names.sort();
    assert_eq!(keys, names);
}

#[test]
fn flags_override_the_file() {
    let file = Flags::parse("partitions = 4\nrate = 500\nseconds = 0.5\nrecord-bytes = 100\n")
        .expect("parses");
    let over = flags(|f| f.partitions = Some(7)).over(file);
    assert_eq!((over.partitions, over.rate), (Some(7), Some(Rate::PerSecond(500.0))));
    assert_eq!(over.seconds, Some(Seconds(Duration::from_millis(500))));
    assert_eq!(over.record_bytes, Some(Sizes::Fixed(100)));
}

#[test]
fn an_unknown_key_is_named_with_the_nearest() {
    for (key, nearest) in
        [("in_flight", "in-flight"), ("partition", "partitions"), ("flsh", "flush")]
    {
        let told = Flags::parse(&format!("{key} = 1")).expect_err("unknown");
        assert!(told.contains(&format!("'{key}'")), "{told}");
        assert!(told.contains(&format!("did you mean '{nearest}'")), "{told}");
    }
}

#[test]
fn a_wrong_value_in_a_file_is_named() {
    for text in [
        "rate = \"fast\"",
        "partitions = \"many\"",
        "backend = \"kafka\"",
        "rate = ",
        "flush = [1]",
    ] {
        assert!(Flags::parse(text).is_err(), "{text}");
    }
    let told = Flags::parse("rate = \"fast\"").expect_err("no rate");
    assert!(told.contains("'fast' is no rate"), "{told}");
}

#[test]
fn a_count_out_of_bounds_in_a_file_is_refused_as_on_the_command_line() {
    for text in [
        "partitions = 0",
        "producers = 0",
        "consumers = 65",
        "in-flight = 0",
        "batch-records = 0",
        "repeats = 0",
        "kills = 101",
        "cores = 0",
        "producers = 4000000000",
    ] {
        let error = Flags::parse(text).expect("of the right kind").resolve().expect_err(text);
        assert!(error.is::<crate::usage::Usage>(), "{error}");
        let (name, value) = text.split_once(" = ").expect("a key and a value");
        assert!(error.to_string().contains(&format!("--{name} {value}: from ")), "{error}");
    }
}

#[test]
fn contradictions_are_refused_by_name() {
    let cases: [(Flags, &[&str]); 12] = [
        (flags(|f| f.arrival = Some(Arrival::Poisson)), &["--arrival poisson", "--rate"]),
        (
            flags(|f| (f.producers, f.in_flight) = (Some(4096), Some(4096))),
            &["--producers 4096", "--in-flight 4096"],
        ),
        (
            flags(|f| (f.producers, f.partitions) = (Some(4096), Some(100_000))),
            &["--producers", "--partitions"],
        ),
        (flags(|f| f.consumers = Some(2)), &["--consumers 2", "--partitions 1"]),
        (
            flags(|f| (f.keys, f.partitions) = (Some(Keys::Uniform(3)), Some(4))),
            &["--keys uniform:3", "--partitions 4"],
        ),
        (
            flags(|f| (f.record_bytes, f.payload) = (Some(Sizes::Lines), Some(Source::Ratio(2.0)))),
            &["--record-bytes lines", "--payload generated:2"],
        ),
        (flags(|f| f.record_bytes = Some(Sizes::Fixed(15))), &["--record-bytes 15", "from 16"]),
        (flags(|f| f.segment_bytes = Some(Bytes(1024))), &["--segment-bytes 1KiB"]),
        (
            flags(|f| (f.backend, f.consumers) = (Some(BackendName::Null), Some(1))),
            &["--backend null", "--consumers"],
        ),
        (
            flags(|f| (f.backend, f.partitions) = (Some(BackendName::Floor), Some(2))),
            &["--backend floor", "--partitions 2"],
        ),
        (
            flags(|f| {
                (f.backend, f.flush) = (Some(BackendName::Floor), "interval:1ms".parse().ok());
            }),
            &["--backend floor", "--flush interval:1ms"],
        ),
        (
            flags(|f| (f.backend, f.write_mode) = (Some(BackendName::Pwrite), Some(Mode::Direct))),
            &["--backend pwrite", "--write-mode page_cache"],
        ),
    ];
    for (flags, words) in cases {
        let error = flags.resolve().expect_err("contradicts itself");
        assert!(error.is::<crate::usage::Usage>(), "{error}");
        let told = error.to_string();
        assert!(words.iter().all(|word| told.contains(word)), "{told}: {words:?}");
    }
}
