//! What a server asks of its sockets and what it hears back: plain data, as with files. Every operation completes once;
//! what the kernel repeats by itself (accepting) the ring takes apart.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::FileHandle;
use crate::buffers::Slice;
use crate::buffers::pool::Lease;

/// An open socket, as a ring names it. Valid until its [`NetOp::Close`] is pushed; one used later is found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketHandle(pub u64);

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP, port 0 for any. With `SO_REUSEPORT`: every shard may listen there, and the kernel spreads connections.
    Tcp(SocketAddr),
    /// A Unix socket. A socket file that nobody listens at is replaced; the file is removed when the listener closes.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// What a socket's bytes travel over: which way of sending a log is the fastest differs by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// A Unix socket.
    Unix,
    /// TCP within this machine.
    Loopback,
    /// TCP through a network card.
    Tcp,
}

/// How bytes of a sealed segment come to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReadPath {
    /// `sendfile(2)`: from the page cache, no copy to the program.
    Sendfile,
    /// `splice(2)` through a pipe: the same in two calls.
    Splice,
    /// A mapping of the file, and `send(2)` from it.
    Mmap,
    /// `preadv2(2)` from the page cache into memory that stays in the core's cache, and `send(2)` from there.
    Copy,
    /// Never through the page cache: `O_DIRECT` into memory of the shard, and sent from there.
    Direct,
}

impl ReadPath {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Sendfile, Self::Splice, Self::Mmap, Self::Copy, Self::Direct];

    /// Its name in figures and files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sendfile => "sendfile",
            Self::Splice => "splice",
            Self::Mmap => "mmap",
            Self::Copy => "copy",
            Self::Direct => "direct",
        }
    }
}

/// One operation on a socket. At most one of [`NetOp::Accept`] and [`NetOp::Recv`], and one of those that send, is
/// under way for a socket. Buffers move in, and come back with the completion.
#[derive(Debug)]
pub enum NetOp {
    /// Make a listener. Completes with [`NetDone::Listening`].
    Listen {
        /// Where.
        address: Address,
        /// Connections the kernel keeps that nobody has accepted.
        backlog: u32,
    },
    /// Take a connection. Completes with [`NetDone::Accepted`].
    Accept {
        /// The listener.
        listener: SocketHandle,
    },
    /// Receive what is there, at least a byte. Completes with [`NetDone::Received`], empty once the peer has shut down.
    Recv {
        /// The connection.
        socket: SocketHandle,
    },
    /// Send bytes; waits until the socket takes at least one. Completes with [`NetDone::Sent`].
    Send {
        /// The connection.
        socket: SocketHandle,
        /// The bytes.
        bytes: Vec<u8>,
        /// Where to begin in them.
        from: usize,
        /// More follows at once: small pieces may wait for it.
        more: bool,
    },
    /// Send as much as the socket takes at once, from memory of the log. Completes with [`NetDone::Count`].
    SendSlices {
        /// The connection.
        socket: SocketHandle,
        /// The bytes, in order.
        slices: Vec<Slice>,
        /// More follows at once.
        more: bool,
    },
    /// Send as much of a file as the socket takes at once, if the page cache has all of it, which is asked. Completes
    /// with [`NetDone::Count`], 0 also at the file's end, or with [`NetDone::Cold`].
    SendFile {
        /// The connection.
        socket: SocketHandle,
        /// The file, opened through the page cache.
        file: FileHandle,
        /// First byte sent.
        pos: u64,
        /// Most bytes sent.
        len: u32,
        /// By which calls.
        path: ReadPath,
    },
    /// Wait until the socket takes bytes, or has failed. Completes with [`NetDone::Unit`].
    Writable {
        /// The connection.
        socket: SocketHandle,
    },
    /// Say that nothing more will be sent. Completes with [`NetDone::Unit`].
    Shutdown {
        /// The connection.
        socket: SocketHandle,
        /// Nor received: what is under way in either direction ends.
        both: bool,
    },
    /// Close a socket. What is under way on it ends with `ECANCELED`, or as it would have. Completes with
    /// [`NetDone::Unit`] when the kernel holds nothing of it any more.
    Close {
        /// The socket.
        socket: SocketHandle,
        /// Whether bytes still on their way are thrown away and the peer sees a reset.
        reset: bool,
    },
}

/// What an operation came to when it succeeded.
#[derive(Debug)]
pub enum NetDone {
    /// Nothing more to say.
    Unit,
    /// A listener, and where it listens: the port is known now.
    Listening(SocketHandle, Address),
    /// A connection.
    Accepted(SocketHandle, Family),
    /// Bytes; none if there will not be any more.
    Received(Option<Lease>),
    /// The buffer, and how many bytes of it were sent.
    Sent(Vec<u8>, usize),
    /// How many bytes were sent; 0 if the socket takes none now.
    Count(usize),
    /// Nothing was sent: the bytes are not in the page cache, and to send them would block.
    Cold,
}

/// A finished operation.
#[derive(Debug)]
pub struct NetCompletion {
    /// What the submitter gave with the operation.
    pub token: u64,
    /// How it ended. `raw_os_error()` of the error is always set.
    pub result: io::Result<NetDone>,
}

/// How long a refused accept waits before it is tried again.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(100);
