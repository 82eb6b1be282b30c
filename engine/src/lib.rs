//! skeleton
pub mod batch;
pub mod buffers;
pub mod command;
pub mod format;
pub mod limits;
pub mod ring;
pub mod types;
