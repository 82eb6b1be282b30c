//! Bytes on disk, one file per format: encoding and decoding only, no I/O and no state.
//!
//! Logs, indexes and checkpoints are Apache Kafka's own, byte for byte; seals and meta files are
//! Ringmain's. Whatever is decoded here is hostile until proven otherwise: every decoder returns a
//! `Result` or an `Option`, none panics, and none allocates by a number it read.

pub mod batch_header;
pub mod checkpoint;
pub mod crc;
pub mod fixed;
pub mod index;
pub mod meta;
pub mod names;
pub mod record;
pub mod retention;
pub mod seal;
pub mod varint;
