//! skeleton
pub mod buffers;
pub mod clock;
pub mod command;
pub mod format;
pub mod limits;
pub mod ring;
mod shard;
pub mod types;
