//! What batches cost in memory, counted at the allocator.

use allocation_counter::measure;
use ringmain::batch::{BatchBuilder, BatchView, Compression, Limits, batches, validate};

fn build(memory: Vec<u8>, compression: Compression) -> Vec<u8> {
    let mut builder = BatchBuilder::reuse(memory).compression(compression);
    for i in 0..100 {
        builder.add(i, Some(b"a key"), Some(&[7; 100])).unwrap();
    }
    builder.build().unwrap().into_bytes()
}

#[test]
fn building_into_reused_memory_allocates_nothing() {
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd { level: 3 }] {
        let mut memory = build(build(Vec::new(), compression), compression);
        let counted = measure(|| {
            for _ in 0..10 {
                memory = build(std::mem::take(&mut memory), compression);
            }
        });
        assert_eq!(counted.count_total, 0, "{compression:?}");
    }
}

#[test]
fn validating_and_reading_a_plain_batch_allocates_nothing() {
    let bytes = build(Vec::new(), Compression::None);
    let limits = Limits::default();
    let mut records = 0;
    let counted = measure(|| {
        validate(&bytes, &limits).unwrap();
        for batch in batches(&bytes) {
            records += batch.unwrap().records().unwrap().map(Result::unwrap).count();
        }
    });
    assert_eq!((records, counted.count_total), (100, 0));
}

#[test]
fn a_bomb_takes_no_more_memory_than_allowed() {
    let mut builder = BatchBuilder::new().compression(Compression::Lz4);
    builder.add(0, None, Some(&vec![0; 15 << 20])).unwrap();
    let bomb = builder.build().unwrap().into_bytes();
    let limits = Limits { decompressed_bytes: 1 << 20, ..Limits::default() };
    let counted = measure(|| {
        let view = BatchView::new(&bomb).unwrap();
        assert!(view.records_within(&limits).is_err());
    });
    let allowed = limits.decompressed_bytes as u64 * 3 / 2;
    assert!(counted.bytes_max <= allowed, "{} bytes at once", counted.bytes_max);
}
