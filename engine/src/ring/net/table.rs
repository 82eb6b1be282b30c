//! A ring's table of sockets.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;

use crate::buffers::Slice;
use crate::command::FileHandle;
use crate::command::sockets::{ReadPath, SocketHandle};
use crate::limits::SOCKETS_MAX;

/// Set in `user_data` of a socket's entries; the index of a file operation's slot is far below.
const OF_SOCKET: u64 = 1 << 31;

/// Where the side stands in `user_data`.
const SIDE_SHIFT: u32 = 28;

const _: () = assert!(SOCKETS_MAX < 1 << SIDE_SHIFT);

/// A direction of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Side {
    /// Accepting and receiving.
    In,
    /// Sending.
    Out,
}

/// Names one side of one life of one socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct NetKey {
    pub(super) index: u32,
    pub(super) generation: u32,
    pub(in super::super) side: Side,
}

impl NetKey {
    /// For `user_data`.
    pub(in super::super) const fn to_u64(self) -> u64 {
        let side = (self.side as u64) << SIDE_SHIFT;
        (self.generation as u64) << 32 | OF_SOCKET | side | self.index as u64
    }

    /// Back from `user_data`; `None` if it is a file operation's.
    pub(in super::super) const fn from_u64(value: u64) -> Option<Self> {
        if value & OF_SOCKET == 0 {
            return None;
        }
        let side = if value >> SIDE_SHIFT & 1 == 0 { Side::In } else { Side::Out };
        let index = value as u32 & ((1 << SIDE_SHIFT) - 1);
        Some(Self { index, generation: (value >> 32) as u32, side })
    }

    /// The socket as the shard names it.
    pub(in super::super) const fn handle(self) -> SocketHandle {
        SocketHandle((self.generation as u64) << 32 | self.index as u64)
    }
}

/// What a side has with the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Armed {
    /// Nothing.
    #[default]
    No,
    /// To be told when a call may succeed.
    Poll,
    /// The operation itself.
    Call,
}

/// What is to be sent.
#[derive(Debug)]
pub(super) enum Output {
    Bytes { bytes: Vec<u8>, from: usize, more: bool },
    Slices { slices: Vec<Slice>, more: bool },
    File { file: FileHandle, pos: u64, len: u32, path: ReadPath },
    Writable,
}

/// What makes a socket a listener.
#[derive(Debug, Default)]
pub(super) struct Listening {
    /// Connections that the kernel gave and nobody has asked for.
    pub(super) accepted: VecDeque<OwnedFd>,
    /// The accept is being cancelled: enough wait.
    pub(super) cancelling: bool,
    /// The file of a Unix socket.
    pub(super) path: Option<PathBuf>,
}

/// An open socket.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) fd: OwnedFd,
    pub(super) listening: Option<Box<Listening>>,
    /// Token of the accept or receive asked for.
    pub(super) input: Option<u64>,
    /// Token and content of the send asked for.
    pub(super) output: Option<(u64, Output)>,
    pub(super) armed: [Armed; 2],
    /// Token of the close.
    pub(super) closing: Option<u64>,
}

impl Socket {
    pub(super) fn new(fd: OwnedFd, listening: Option<Box<Listening>>) -> Self {
        Self { fd, listening, input: None, output: None, armed: [Armed::No; 2], closing: None }
    }

    pub(super) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    pub(super) fn armed(&mut self, side: Side) -> &mut Armed {
        &mut self.armed[side as usize]
    }

    pub(super) fn is_armed(&self) -> bool {
        self.armed != [Armed::No; 2]
    }
}

#[derive(Debug, Default)]
struct Entry {
    generation: u32,
    socket: Option<Socket>,
}

/// The table. Grows to as many sockets as were open at once.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: Vec<Entry>,
    free: Vec<u32>,
    open: usize,
}

impl Table {
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Whether another socket fits.
    pub(super) fn has_room(&self) -> bool {
        self.open < SOCKETS_MAX
    }

    /// Takes a socket in; the caller has looked for room.
    pub(super) fn insert(&mut self, socket: Socket) -> NetKey {
        assert!(self.has_room(), "the caller looks for room");
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry::default());
            self.entries.len() as u32 - 1
        });
        let entry = &mut self.entries[index as usize];
        assert!(entry.socket.is_none(), "a free entry");
        entry.socket = Some(socket);
        self.open += 1;
        NetKey { index, generation: entry.generation, side: Side::In }
    }

    /// The key of a handle's side.
    pub(super) fn key(handle: SocketHandle, side: Side) -> NetKey {
        NetKey { index: handle.0 as u32, generation: (handle.0 >> 32) as u32, side }
    }

    /// The socket, if it is still the same.
    pub(super) fn find(&mut self, key: NetKey) -> Option<&mut Socket> {
        let entry = self.entries.get_mut(key.index as usize)?;
        (entry.generation == key.generation).then_some(entry.socket.as_mut()).flatten()
    }

    /// The socket. Panics if it is gone.
    pub(super) fn get(&mut self, key: NetKey) -> &mut Socket {
        self.find(key).expect("a socket in use is open")
    }

    /// Gives a socket up.
    pub(super) fn remove(&mut self, key: NetKey) -> Socket {
        let entry = &mut self.entries[key.index as usize];
        assert_eq!(entry.generation, key.generation, "socket {} is of another life", key.index);
        let socket = entry.socket.take().expect("an open socket is closed once");
        assert!(!socket.is_armed(), "nothing is with the kernel");
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(key.index);
        self.open -= 1;
        socket
    }

    /// Takes all sockets out, whatever is with the kernel.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Socket> + '_ {
        self.entries.iter_mut().filter_map(|entry| entry.socket.take())
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::slots::Slots;
    use super::*;

    #[test]
    fn keys_of_sockets_and_of_files_are_told_apart() {
        for side in [Side::In, Side::Out] {
            let key = NetKey { index: SOCKETS_MAX as u32 - 1, generation: u32::MAX - 1, side };
            assert_eq!(NetKey::from_u64(key.to_u64()), Some(key));
        }
        let file = Slots::new(1 << 20).insert(()).to_u64();
        assert_eq!(NetKey::from_u64(file), None);
    }

    #[test]
    fn a_handle_does_not_reach_the_socket_that_comes_after() {
        let mut table = Table::default();
        let socket = || {
            let (one, _other) = std::os::unix::net::UnixStream::pair().expect("a pair");
            Socket::new(OwnedFd::from(one), None)
        };
        let key = table.insert(socket());
        assert!(table.find(key).is_some());
        drop(table.remove(key));
        let next = table.insert(socket());
        assert_eq!(next.index, key.index, "the place is used again");
        assert!(table.find(key).is_none());
        assert!(table.find(next).is_some());
    }
}
