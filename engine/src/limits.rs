//! Every bound of the engine, by name, with the relations between them checked by the compiler.

/// Largest batch that is accepted, in bytes, header included. A configuration may lower it.
pub const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Largest record that is accepted, in bytes as encoded: what is left of the largest batch beside its
/// header.
pub const RECORD_BYTES_MAX: usize = BATCH_BYTES_MAX - 64;

/// Most records in one accepted batch. A compressed batch states its count without showing that many
/// records, and every record takes an offset: this bounds what a few bytes can claim.
pub const BATCH_RECORDS_MAX: u32 = 4 * 1024 * 1024;

/// Most headers on one record.
pub const RECORD_HEADERS_MAX: u32 = 65_536;

/// Most bytes that one batch's records may have once decompressed, unless the caller says otherwise.
pub const DECOMPRESSED_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Largest window a zstd frame may ask for, as a power of two: 128 MiB, which level 22 announces for
/// content of unknown size, as Kafka's clients write it.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 27;

const _: () = {
    assert!(BATCH_BYTES_MAX <= i32::MAX as usize, "a batch's length is a signed 32-bit number");
    assert!(BATCH_RECORDS_MAX <= i32::MAX as u32, "a record count is a signed 32-bit number");
    assert!(RECORD_BYTES_MAX < BATCH_BYTES_MAX);
    assert!(DECOMPRESSED_BYTES_MAX >= BATCH_BYTES_MAX, "whatever is accepted can be read back");
    assert!(1 << ZSTD_WINDOW_LOG_MAX <= DECOMPRESSED_BYTES_MAX);
};
