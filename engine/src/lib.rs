//! skeleton
pub mod buffers;
pub mod command;
pub mod ring;
pub mod types;
