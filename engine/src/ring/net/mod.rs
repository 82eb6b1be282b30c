//! The sockets of a ring: what is open, what is under way on each, and what to ask of the kernel next.
//!
//! Both rings run the same machine. Where io_uring can do an operation to its end (a multishot accept, a receive into a
//! provided buffer, a send) the machine asks for it as a [`NetCall`]; everywhere else it tries a call that does not
//! block, and asks to be told when to try again.
//!
//! # Invariants
//! - Memory that the kernel may touch is owned by the socket's slot, or by the pool, until the completion is seen.
//! - A slot has at most one call with the kernel for each [`Side`], and is used again only when it has none, under
//!   another generation: a late completion cannot reach a stranger.
//! - A socket that is closed is cancelled first, and its descriptor goes when nothing is with the kernel any more.

mod calls;
mod machine;
mod pages;
pub(super) mod poller;
pub(super) mod provided;
mod table;
pub(super) mod trial;

pub(super) use calls::send_flags;
pub use machine::Sockets;
pub(super) use machine::{Means, NetCall};
pub(super) use table::{NetKey, Side};
