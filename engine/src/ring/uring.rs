//! The uring implementation.
