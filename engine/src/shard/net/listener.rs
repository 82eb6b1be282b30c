//! Where connections come from.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::super::Context;
use super::super::disk::Running;
use super::connection::Connection;
use super::{Open, Service};
use crate::command::sockets::{ACCEPT_RETRY, Address, Family, NetDone, NetOp};
use crate::error::NetError;
use crate::local::{Permit, Semaphore};

/// How a listener's connections are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// Connections the kernel keeps that nobody has accepted. Default 1024.
    pub backlog: u32,
    /// Connections that are open at once; beyond, peers wait in the kernel's backlog. Default 16,384.
    pub connections_max: usize,
    /// A connection that sends nothing for so long ends with [`NetError::Idle`]. Default 10 minutes; `None`: never.
    pub idle: Option<Duration>,
    /// A connection that takes no bytes for so long while there are some ends with [`NetError::Slow`]. Default 30 s.
    pub slow: Duration,
    /// Bytes of a connection's send queue, beyond which a sender waits. Default 256 KiB.
    pub send_queue_bytes: usize,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self {
            backlog: 1024,
            connections_max: 16 * 1024,
            idle: Some(Duration::from_secs(600)),
            slow: Duration::from_secs(30),
            send_queue_bytes: 256 * 1024,
        }
    }
}

/// A socket that listens. Dropping it closes it; connections stay.
pub struct Listener {
    cx: Context,
    service: Rc<Service>,
    open: Rc<Open>,
    address: Address,
    options: ListenOptions,
    room: Semaphore,
    /// Kept here and not in the future that waits for it: a connection is not lost with that.
    accepting: Option<Running<NetOp, NetDone>>,
    permit: Option<Permit>,
}

impl Listener {
    /// Begins to listen.
    pub(crate) async fn bind(
        (cx, service): (Context, Rc<Service>),
        address: Address,
        options: ListenOptions,
    ) -> Result<Self, NetError> {
        let done = cx.net.start(NetOp::Listen { address, backlog: options.backlog }).await;
        let done = done.map_err(|error| NetError::io("listening", &error))?;
        let NetDone::Listening(handle, address) = done else { unreachable!("a listen gives one") };
        let open = Open::new(&cx, handle, Family::Unix, None);
        let room = Semaphore::new(options.connections_max);
        Ok(Self { cx, service, open, address, options, room, accepting: None, permit: None })
    }

    /// Where it listens: the port is known.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Waits for a connection. While there are as many as the options allow it waits for one to end. An accept that
    /// fails for want of descriptors or memory is tried again.
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`NetError::Stopping`] once the service is asked to stop; [`NetError::Io`] if the listener is broken.
    pub async fn accept(&mut self) -> Result<Connection, NetError> {
        loop {
            if self.permit.is_none() {
                let mut permit = self.room.acquire();
                let service = Rc::clone(&self.service);
                let permit = poll_fn(|cx| {
                    if service.is_stopping() {
                        return Poll::Ready(None);
                    }
                    Pin::new(&mut permit).poll(cx).map(Some)
                });
                self.permit = Some(permit.await.ok_or(NetError::Stopping)?);
            }
            let socket = self.open.handle;
            let start = || self.cx.net.start(NetOp::Accept { listener: socket });
            let running = self.accepting.get_or_insert_with(start);
            let service = Rc::clone(&self.service);
            let done = poll_fn(|cx| {
                if service.is_stopping() {
                    return Poll::Ready(None);
                }
                Pin::new(&mut *running).poll(cx).map(Some)
            });
            let done = done.await.ok_or(NetError::Stopping)?;
            self.accepting = None;
            match done {
                Ok(NetDone::Accepted(handle, family)) => {
                    let open = Open::new(&self.cx, handle, family, self.permit.take());
                    let environment = (self.cx.clone(), Rc::clone(&self.service));
                    return Ok(Connection::new(environment, open, self.options));
                }
                Ok(_) => unreachable!("an accept gives a connection"),
                Err(error) => self.recover(error).await?,
            }
        }
    }

    /// Waits where it makes sense to try again.
    async fn recover(&self, error: io::Error) -> Result<(), NetError> {
        match error.raw_os_error() {
            // The peer was gone before it was accepted.
            Some(libc::ECONNABORTED | libc::EPROTO | libc::ENETDOWN | libc::EHOSTUNREACH) => Ok(()),
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                let now = self.cx.state.borrow().time.ns;
                self.cx.tasks.sleep_until(now + ACCEPT_RETRY.as_nanos() as u64).await;
                Ok(())
            }
            _ => Err(NetError::io("accepting", &error)),
        }
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Listener({:?})", self.address)
    }
}
