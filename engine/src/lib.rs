//! skeleton
pub mod buffers;
pub mod clock;
pub mod command;
pub mod ring;
pub mod types;
