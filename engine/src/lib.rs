//! skeleton
pub mod buffers;
pub mod clock;
pub mod command;
pub mod ring;
mod shard;
pub mod types;
