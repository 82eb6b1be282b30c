//! Servers that run inside a shard: their sockets are on its ring, their futures on its executor, and the logs they
//! use at hand. Nothing here blocks, and nothing here leaves the thread.

mod cold;
mod connection;
mod listener;
mod outbox;
mod range;
mod service;

pub(crate) use cold::Cold;
pub use connection::Connection;
pub use listener::{ListenOptions, Listener};
pub use outbox::Sender;
pub use range::LogRange;
pub(crate) use range::locate;
pub(crate) use service::{Service, Services, Stop};

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use super::Context;
use super::disk::NetDesk;
use crate::command::sockets::{Family, NetDone, NetOp, ReadPath, SocketHandle};
use crate::local::Permit;
use crate::ring::Ring;

/// Carries operations on sockets to the ring.
pub(super) fn push<R: Ring>(ring: &mut R, desk: &NetDesk) {
    while let Some((number, op)) = desk.pop() {
        match ring.sockets() {
            Some(sockets) => sockets.push(number.into(), op),
            None => drop(desk.end(number, Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)))),
        }
    }
}

/// Takes in what sockets did.
pub(super) fn reap<R: Ring>(ring: &mut R, desk: &NetDesk) -> bool {
    let Some(sockets) = ring.sockets() else { return false };
    let mut is_any = false;
    while let Some(completion) = sockets.pop() {
        is_any = true;
        let unwanted = desk.end(completion.token as u32, completion.result);
        if let Some(NetDone::Accepted(socket, _) | NetDone::Listening(socket, _)) = unwanted {
            drop(desk.start(NetOp::Close { socket, reset: false }));
        }
    }
    is_any
}

/// How sealed segments go to sockets, for each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadPaths {
    /// Over Unix sockets.
    pub unix: ReadPath,
    /// Over TCP within this machine.
    pub loopback: ReadPath,
    /// Over TCP through a network card.
    pub tcp: ReadPath,
}

impl ReadPaths {
    /// The same for all.
    pub(crate) const fn all(path: ReadPath) -> Self {
        Self { unix: path, loopback: path, tcp: path }
    }

    fn of(self, family: Family) -> ReadPath {
        match family {
            Family::Unix => self.unix,
            Family::Loopback => self.loopback,
            Family::Tcp => self.tcp,
        }
    }
}

/// An open socket, closed when the last that uses it is gone.
pub(crate) struct Open {
    desk: NetDesk,
    handle: SocketHandle,
    family: Family,
    reset: Cell<bool>,
    /// A place among a listener's connections.
    _room: Option<Permit>,
}

impl Open {
    fn new(cx: &Context, handle: SocketHandle, family: Family, room: Option<Permit>) -> Rc<Self> {
        let (desk, reset) = (cx.net.clone(), Cell::new(false));
        Rc::new(Self { desk, handle, family, reset, _room: room })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let op = NetOp::Close { socket: self.handle, reset: self.reset.get() };
        drop(self.desk.start(op));
    }
}
