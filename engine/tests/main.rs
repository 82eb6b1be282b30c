//! The engine on real directories, through its public interface: one module a guarantee.

#![expect(clippy::unwrap_used, reason = "in a test, to stop is the right answer to a surprise")]

mod appends;
mod bad_input;
mod batch_memory;
mod closing;
mod damage;
mod fallbacks;
mod fetches;
mod file_limit;
mod file_systems;
mod find;
mod full_disk;
mod handles;
mod harmed_segments;
mod idle;
mod kafka_cross_check;
mod kafka_directory;
mod keep;
mod mounts;
mod partitions;
mod policies;
mod repairs;
mod rolls;
mod scrub;
mod sigkill;
mod sockets;
mod streams;
mod support;
mod truncation;
mod zero_copy;
