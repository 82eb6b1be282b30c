use std::time::{Duration, Instant};

use ringmain::types::FlushPolicy;

use super::super::backend::{Backend, Request};
use super::super::backends::backend;
use super::super::ledger::{Entry, Ledger};
use super::super::maker::Maker;
use super::super::values::{BackendName, name_of};
use super::super::workload::Workload;
use crate::oracle::Tally;
use crate::payload::Payload;
use crate::scratch::Scratch;

const PEERS: [BackendName; 4] =
    [BackendName::Floor, BackendName::Pwrite, BackendName::BufferedRing, BackendName::TokioUring];

/// Sends `batches` with as many in flight as there are slots, and gives what was acked.
fn load(backend: &dyn Backend, scratch: &Scratch, workload: &Workload, batches: u64) -> Ledger {
    let payload = Payload::generated(1 << 20);
    let mut maker = Maker::new(workload, &payload, 0).expect("a maker");
    let mut instance = backend.open(scratch.path(), workload).expect("opens");
    let mut ledger = Ledger::new(workload.partitions, workload.producers);
    let slots = workload.slots();
    let mut free: Vec<(u32, Vec<u8>)> = (0..slots).map(|slot| (slot, Vec::new())).collect();
    let mut flights = vec![(0, 0); slots as usize];
    let (mut sent, mut done) = (0, Vec::new());
    let begin = Instant::now();
    while sent < batches || free.len() < slots as usize {
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "{} are not acked",
            slots as usize - free.len()
        );
        while sent < batches
            && let Some((slot, buffer)) = free.pop()
        {
            let made = maker.make(0, buffer, 7).expect("made");
            flights[slot as usize] = (made.partition, made.sequence);
            instance.submit(Request { slot, partition: made.partition, batch: made.batch });
            sent += 1;
        }
        instance.poll(Duration::from_millis(100), &mut done).expect("not broken");
        for completion in done.drain(..) {
            let acked = completion.result.expect("acked");
            let (partition, sequence) = flights[completion.slot as usize];
            let (offset, records) = (acked.base_offset, workload.batch_records);
            ledger.acked(Entry { partition, producer: 0, sequence, offset, records });
            let (written, flushed) = (acked.written, acked.flushed);
            assert!(flushed.is_some() || workload.flush.0 != FlushPolicy::Group);
            assert!(written.is_none_or(|written| flushed.is_none_or(|flushed| written <= flushed)));
            free.push((completion.slot, acked.buffer));
        }
    }
    let counters = instance.counters();
    assert!(counters.written_bytes > Some(0), "{counters:?}");
    instance.close().expect("closes");
    ledger
}

#[test]
fn what_a_peer_has_acked_is_in_its_files_whatever_the_policy_the_preparation_and_the_size() {
    // Files of a few batches, so that each peer rolls many times and runs out of space that is ready.
    let load_of =
        "in-flight = 40\nbatch-records = 9\nsegment-bytes = \"64KiB\"\nrecord-bytes = \"50..900\"";
    let settings = [
        ("group", "fallocate"),
        ("group", "prezero"),
        ("group", "none"),
        ("os", "prezero"),
        ("interval:5ms", "none"),
        ("interval:1s:64KiB", "fallocate"),
    ];
    for (name, (flush, prepare)) in PEERS.into_iter().flat_map(|name| settings.map(|s| (name, s))) {
        let floor = name == BackendName::Floor;
        if floor && flush.starts_with("interval") {
            continue;
        }
        let partitions = if floor { 1 } else { 3 };
        let text = format!(
            "backend = \"{}\"\npartitions = {partitions}\nflush = \"{flush}\"\n\
             prepare = \"{prepare}\"\n{load_of}",
            name_of(name)
        );
        let workload = Workload::from_toml(&text).expect("a workload");
        let scratch = Scratch::new("peer");
        let backend = backend(name);
        let ledger = load(backend.as_ref(), &scratch, &workload, 600);
        let mut reader = backend.reopen(scratch.path(), &workload).expect("opens again");
        let found = ledger.verify(reader.as_mut()).expect("readable");
        let clean = Tally { acked: 5400, ..Tally::default() };
        assert_eq!(found.tally, clean, "{text}\n{:?}", found.examples);
    }
}
