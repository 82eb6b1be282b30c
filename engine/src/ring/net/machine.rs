//! What happens next on each socket.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::fd::{OwnedFd, RawFd};

use super::calls::{self, unless_blocked};
use super::pages::Pages;
use super::table::{Armed, Listening, NetKey, Output, Side, Socket, Table};
use crate::buffers::pool::{POOLED_BYTES, Pool};
use crate::buffers::{Arena, CHUNK_BYTES_MAX};
use crate::command::sockets::{Address, NetCompletion, NetDone, NetOp, SocketHandle};
use crate::limits::{ACCEPTED_WAITING_MAX, RECEIVE_MEMORY_SHARE};
use crate::ring::files::Files;

/// What the kernel does to its end when it is given the call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Means {
    /// Accept again and again.
    pub(in super::super) accept: bool,
    /// Receive into a buffer that it takes when bytes are there.
    pub(in super::super) receive: bool,
    /// Send, waiting until the socket takes bytes.
    pub(in super::super) send: bool,
}

/// What is asked of the kernel. The pointer leads into the socket's slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum NetCall {
    Accept {
        fd: RawFd,
    },
    Receive {
        fd: RawFd,
    },
    Send {
        fd: RawFd,
        from: *const u8,
        len: u32,
        more: bool,
    },
    Poll {
        fd: RawFd,
    },
    /// End a call that is under way. Says nothing of its own.
    Cancel,
}

/// The sockets of one ring.
#[derive(Debug)]
pub struct Sockets {
    means: Means,
    table: Table,
    /// Sides whose next call is to be made.
    waiting: VecDeque<NetKey>,
    /// Receives that found no buffer.
    starved: VecDeque<NetKey>,
    cancels: VecDeque<NetKey>,
    ready: VecDeque<NetCompletion>,
    arena: Option<Arena>,
    pool: Option<Pool>,
    /// Buffers that the kernel has to receive into.
    lent: usize,
    pages: Pages,
}

impl Sockets {
    /// No sockets.
    pub(in super::super) fn new(means: Means) -> Self {
        Self {
            means,
            table: Table::default(),
            waiting: VecDeque::new(),
            starved: VecDeque::new(),
            cancels: VecDeque::new(),
            ready: VecDeque::new(),
            arena: None,
            pool: None,
            lent: 0,
            pages: Pages::default(),
        }
    }

    /// Where the memory of buffers comes from, once there is a listener.
    pub(in super::super) fn set_arena(&mut self, arena: &Arena) {
        self.arena = Some(arena.clone());
    }

    /// The buffers, once there is a listener.
    pub(in super::super) fn pool(&self) -> Option<&Pool> {
        self.pool.as_ref()
    }

    /// What the kernel was found not to do.
    pub(in super::super) fn set_means(&mut self, means: Means) {
        self.means = means;
    }

    pub(in super::super) fn means(&self) -> Means {
        self.means
    }

    /// The kernel was given so many more buffers.
    pub(in super::super) fn lend(&mut self, buffers: usize) {
        self.lent += buffers;
    }

    /// Sockets that are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.table.open()
    }

    pub(in super::super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether a call is to be made. Those that starve do not count until there is a buffer.
    pub(in super::super) fn is_waiting(&self) -> bool {
        let fed = !self.starved.is_empty() && self.has_buffer();
        fed || !self.waiting.is_empty() || !self.cancels.is_empty()
    }

    /// Takes one completion, if there is one.
    pub fn pop(&mut self) -> Option<NetCompletion> {
        self.ready.pop_front()
    }

    /// Queues an operation. It starts at the latest with the ring's next `enter`.
    ///
    /// # Panics
    /// If the socket is closed, or has such an operation under way.
    pub fn push(&mut self, token: u64, op: NetOp) {
        match op {
            NetOp::Listen { address, backlog } => {
                let result = self.listen(&address, backlog);
                self.ready.push_back(NetCompletion { token, result });
            }
            NetOp::Accept { listener: socket } | NetOp::Recv { socket } => {
                let key = Table::key(socket, Side::In);
                let socket = self.table.get(key);
                assert!(socket.closing.is_none(), "a socket that is closed is not used");
                assert!(socket.input.replace(token).is_none(), "one at a time");
                self.take_or_wait(key);
            }
            NetOp::Send { socket, bytes, from, more } => {
                self.begin_output(socket, token, Output::Bytes { bytes, from, more });
            }
            NetOp::SendSlices { socket, slices, more } => {
                self.begin_output(socket, token, Output::Slices { slices, more });
            }
            NetOp::SendFile { socket, file, pos, len, path } => {
                self.begin_output(socket, token, Output::File { file, pos, len, path });
            }
            NetOp::Writable { socket } => self.begin_output(socket, token, Output::Writable),
            NetOp::Shutdown { socket, both } => {
                let socket = self.table.get(Table::key(socket, Side::Out));
                let how = if both { libc::SHUT_RDWR } else { libc::SHUT_WR };
                let result = calls::shutdown(socket.raw(), how);
                let result = result.map(|()| NetDone::Unit);
                self.ready.push_back(NetCompletion { token, result });
            }
            NetOp::Close { socket, reset } => self.close(socket, token, reset),
        }
    }

    fn listen(&mut self, address: &Address, backlog: u32) -> io::Result<NetDone> {
        let full = |errno| io::Error::from_raw_os_error(errno);
        if self.pool.is_none() {
            let arena = self.arena.as_ref().ok_or_else(|| full(libc::EOPNOTSUPP))?;
            let share = arena.bytes() / RECEIVE_MEMORY_SHARE;
            let buffers = share.max(CHUNK_BYTES_MAX) / POOLED_BYTES;
            let pool = Pool::new(arena, buffers.min(usize::from(super::provided::BUFFERS_MAX)));
            self.pool = Some(pool.ok_or_else(|| full(libc::ENOMEM))?);
        }
        if !self.table.has_room() {
            return Err(full(libc::EMFILE));
        }
        let (fd, address) = calls::listen(address, backlog)?;
        let path = if let Address::Unix(path) = &address { Some(path.clone()) } else { None };
        let listening = Listening { path, ..Listening::default() };
        let key = self.table.insert(Socket::new(fd, Some(Box::new(listening))));
        Ok(NetDone::Listening(key.handle(), address))
    }

    /// Answers an accept from what the kernel gave already, or has the kernel asked.
    fn take_or_wait(&mut self, key: NetKey) {
        let socket = self.table.get(key);
        let fd = socket.listening.as_mut().and_then(|listening| listening.accepted.pop_front());
        match fd {
            Some(fd) => self.accepted(key, fd),
            None if *socket.armed(Side::In) == Armed::No => self.waiting.push_back(key),
            None => {}
        }
    }

    fn begin_output(&mut self, socket: SocketHandle, token: u64, output: Output) {
        let key = Table::key(socket, Side::Out);
        let socket = self.table.get(key);
        assert!(socket.closing.is_none(), "a socket that is closed is not used");
        assert!(socket.output.replace((token, output)).is_none(), "one at a time");
        self.waiting.push_back(key);
    }

    fn close(&mut self, handle: SocketHandle, token: u64, reset: bool) {
        for side in [Side::In, Side::Out] {
            let key = Table::key(handle, side);
            let socket = self.table.get(key);
            if side == Side::In {
                assert!(socket.closing.replace(token).is_none(), "a socket is closed once");
                if reset {
                    calls::reset_on_close(socket.raw());
                }
            }
            if *socket.armed(side) == Armed::No {
                self.end(key, Err(libc::ECANCELED));
            } else {
                self.cancels.push_back(key);
            }
        }
        self.finish_close(Table::key(handle, Side::In));
    }

    fn finish_close(&mut self, key: NetKey) {
        let socket = self.table.get(key);
        let Some(token) = socket.closing.filter(|_| !socket.is_armed()) else { return };
        let socket = self.table.remove(key);
        assert!(socket.input.is_none() && socket.output.is_none(), "all has ended");
        if let Some(path) = socket.listening.and_then(|listening| listening.path) {
            // A file that is left over is replaced by the next listener.
            drop(fs::remove_file(path));
        }
        self.ready.push_back(NetCompletion { token, result: Ok(NetDone::Unit) });
    }

    /// The next call to be given to the kernel. Makes those that do not block on its way.
    pub(in super::super) fn next_call(&mut self, files: &Files) -> Option<(NetKey, NetCall)> {
        while let Some(key) = self.cancels.pop_front() {
            // It may have ended meanwhile.
            let armed = self.table.find(key).map(|socket| *socket.armed(key.side));
            if armed.is_some_and(|armed| armed != Armed::No) {
                return Some((key, NetCall::Cancel));
            }
        }
        if self.has_buffer() {
            self.waiting.append(&mut self.starved);
        }
        while let Some(key) = self.waiting.pop_front() {
            let call = match key.side {
                Side::In => self.input(key),
                Side::Out => self.output(key, files),
            };
            if let Some(call) = call {
                let armed =
                    if matches!(call, NetCall::Poll { .. }) { Armed::Poll } else { Armed::Call };
                *self.table.get(key).armed(key.side) = armed;
                return Some((key, call));
            }
        }
        None
    }

    /// Whether a receive would find a buffer.
    fn has_buffer(&self) -> bool {
        if self.means.receive {
            self.lent > 0
        } else {
            self.pool.as_ref().is_some_and(|pool| pool.free() > 0)
        }
    }

    /// Goes on with an accept or a receive.
    fn input(&mut self, key: NetKey) -> Option<NetCall> {
        let has_buffer = self.has_buffer();
        let means = self.means;
        let socket = self.table.find(key)?;
        if socket.closing.is_some() || *socket.armed(Side::In) != Armed::No {
            return None;
        }
        let fd = socket.raw();
        if socket.listening.is_some() {
            if means.accept {
                return Some(NetCall::Accept { fd });
            }
            socket.input?;
            return match unless_blocked(calls::accept(fd)) {
                Ok(Some(fd)) => {
                    self.accepted(key, fd);
                    None
                }
                Ok(None) => Some(NetCall::Poll { fd }),
                Err(error) => self.failed(key, &error),
            };
        }
        socket.input?;
        if !has_buffer {
            self.starved.push_back(key);
            return None;
        }
        if means.receive {
            return Some(NetCall::Receive { fd });
        }
        let pool = self.pool.as_ref().expect("a connection comes from a listener");
        let buffer = pool.take().expect("looked at above");
        // SAFETY: the buffer was just taken, so it is ours.
        let received = unsafe { calls::recv(fd, pool.at(buffer), POOLED_BYTES) };
        match unless_blocked(received) {
            Ok(Some(count)) => {
                self.received(key, buffer, count);
                None
            }
            Ok(None) => {
                pool.give(buffer);
                Some(NetCall::Poll { fd })
            }
            Err(error) => {
                pool.give(buffer);
                self.failed(key, &error)
            }
        }
    }

    /// Goes on with a send.
    fn output(&mut self, key: NetKey, files: &Files) -> Option<NetCall> {
        let sends = self.means.send;
        let socket = self.table.find(key)?;
        if socket.closing.is_some() || *socket.armed(Side::Out) != Armed::No {
            return None;
        }
        let fd = socket.raw();
        let (_, output) = socket.output.as_ref()?;
        match output {
            Output::Writable => Some(NetCall::Poll { fd }),
            Output::Bytes { bytes, from, more } => {
                let (rest, more) = (&bytes[*from..], *more);
                if sends {
                    let len = u32::try_from(rest.len()).expect("a send queue is small");
                    return Some(NetCall::Send { fd, from: rest.as_ptr(), len, more });
                }
                match unless_blocked(calls::send(fd, rest, more)) {
                    Ok(Some(count)) => {
                        self.end(key, Ok(count));
                        None
                    }
                    Ok(None) => Some(NetCall::Poll { fd }),
                    Err(error) => self.failed(key, &error),
                }
            }
            Output::Slices { slices, more } => {
                let sent = unless_blocked(calls::send_slices(fd, slices, *more));
                self.counted(key, sent)
            }
            Output::File { file, pos, len, path } => {
                let (file, pos, len, path) = (files.target(*file).fd, *pos, *len as usize, *path);
                match self.pages.send(fd, (file, pos, len), path) {
                    Ok(None) => {
                        self.finish_output(key, Ok(|_| NetDone::Cold));
                        None
                    }
                    sent => self.counted(key, unless_blocked(sent.map(Option::unwrap_or_default))),
                }
            }
        }
    }

    fn counted(&mut self, key: NetKey, sent: io::Result<Option<usize>>) -> Option<NetCall> {
        match sent {
            Ok(count) => {
                self.end(key, Ok(count.unwrap_or(0)));
                None
            }
            Err(error) => self.failed(key, &error),
        }
    }

    fn failed(&mut self, key: NetKey, error: &io::Error) -> Option<NetCall> {
        self.end(key, Err(error.raw_os_error().unwrap_or(libc::EIO)));
        None
    }

    /// Ends what is asked for on a side, if anything is: with a count, or an error's number.
    fn end(&mut self, key: NetKey, outcome: Result<usize, i32>) {
        let outcome = outcome.map_err(io::Error::from_raw_os_error);
        if key.side == Side::Out {
            let done = |count| {
                move |output| match output {
                    Output::Bytes { bytes, .. } => NetDone::Sent(bytes, count),
                    Output::Slices { .. } | Output::File { .. } => NetDone::Count(count),
                    Output::Writable => NetDone::Unit,
                }
            };
            self.finish_output(key, outcome.map(done));
        } else if let Some(token) = self.table.get(key).input.take() {
            let result = outcome.map(|_| NetDone::Received(None));
            self.ready.push_back(NetCompletion { token, result });
        }
    }

    fn finish_output(&mut self, key: NetKey, outcome: io::Result<impl FnOnce(Output) -> NetDone>) {
        let Some((token, output)) = self.table.get(key).output.take() else { return };
        let result = outcome.map(|done| done(output));
        self.ready.push_back(NetCompletion { token, result });
    }

    fn accepted(&mut self, listener: NetKey, fd: OwnedFd) {
        let family = calls::adopt(&fd);
        let room = self.table.has_room();
        let socket = self.table.get(listener);
        let token = socket.input.take().expect("somebody asked");
        let result = if room {
            let key = self.table.insert(Socket::new(fd, None));
            Ok(NetDone::Accepted(key.handle(), family))
        } else {
            // Closed: the peer is told.
            Err(io::Error::from_raw_os_error(libc::EMFILE))
        };
        self.ready.push_back(NetCompletion { token, result });
        self.tend(listener);
    }

    /// Sees to it that the kernel accepts while few connections wait, and does not while many do.
    fn tend(&mut self, key: NetKey) {
        let means = self.means;
        let socket = self.table.get(key);
        let is_armed = *socket.armed(Side::In) != Armed::No;
        let Some(listening) = socket.listening.as_mut() else { return };
        let waiting = listening.accepted.len();
        if is_armed && waiting >= ACCEPTED_WAITING_MAX && !listening.cancelling {
            listening.cancelling = true;
            self.cancels.push_back(key);
        } else if !is_armed && waiting < ACCEPTED_WAITING_MAX / 2 && means.accept {
            self.waiting.push_back(key);
        }
    }

    fn received(&mut self, key: NetKey, buffer: u16, count: usize) {
        let pool = self.pool.as_ref().expect("the buffer is of a pool");
        let socket = self.table.get(key);
        let Some(token) = socket.input.take() else {
            pool.give(buffer);
            return;
        };
        let lease = if count > 0 {
            // SAFETY: the kernel filled so much of this buffer, which was taken for it, and is done with it.
            Some(unsafe { pool.lease(buffer, count) })
        } else {
            pool.give(buffer);
            None
        };
        self.ready.push_back(NetCompletion { token, result: Ok(NetDone::Received(lease)) });
    }

    /// Takes a call's result in: a count or a descriptor, or an error's number negated; which buffer was filled; and
    /// whether the call goes on.
    pub(in super::super) fn complete(
        &mut self,
        key: NetKey,
        result: i32,
        buffer: Option<u16>,
        goes_on: bool,
    ) {
        let socket = self.table.get(key);
        let armed = std::mem::replace(socket.armed(key.side), Armed::No);
        assert_ne!(armed, Armed::No, "no completion without a call");
        if goes_on {
            *socket.armed(key.side) = armed;
        }
        self.lent -= usize::from(buffer.is_some());
        match (armed, socket.listening.is_some(), key.side) {
            (Armed::Poll, _, Side::In) => self.waiting.push_back(key),
            (Armed::Poll, _, Side::Out) => self.polled(key, result),
            (_, true, _) => self.accept_completed(key, result),
            (_, false, Side::In) => self.receive_completed(key, result, buffer),
            (_, false, Side::Out) => match usize::try_from(result) {
                Ok(count) => self.end(key, Ok(count)),
                Err(_) if [-libc::EAGAIN, -libc::EINTR].contains(&result) => {
                    self.waiting.push_back(key);
                }
                Err(_) => self.end(key, Err(-result)),
            },
        }
        let Some(socket) = self.table.find(key) else { return };
        if socket.closing.is_some() {
            for side in [Side::In, Side::Out] {
                let key = NetKey { side, ..key };
                if *self.table.get(key).armed(side) == Armed::No {
                    self.end(key, Err(libc::ECANCELED));
                }
            }
            self.finish_close(key);
        }
    }

    fn polled(&mut self, key: NetKey, result: i32) {
        let socket = self.table.get(key);
        if result >= 0 && matches!(socket.output, Some((_, Output::Writable))) {
            self.end(key, Ok(0));
        } else if result < 0 {
            self.end(key, Err(-result));
        } else {
            self.waiting.push_back(key);
        }
    }

    fn accept_completed(&mut self, key: NetKey, result: i32) {
        let asked = self.table.get(key).input.is_some();
        let closing = self.table.get(key).closing.is_some();
        if result >= 0 {
            // SAFETY: the kernel just made this descriptor for us.
            let fd = unsafe { calls::own(result) };
            if asked && !closing {
                self.accepted(key, fd);
            } else if let Some(listening) = &mut self.table.get(key).listening {
                listening.accepted.push_back(fd);
                self.tend(key);
            }
            return;
        }
        if let Some(listening) = &mut self.table.get(key).listening {
            listening.cancelling = false;
        }
        match -result {
            // Before Linux 5.19 an accept is over after one connection, and one that is not is refused.
            libc::EINVAL if !closing => {
                self.means.accept = false;
                self.waiting.push_back(key);
            }
            libc::ECANCELED | libc::EINTR | libc::EAGAIN if !closing => self.tend(key),
            error => self.end(key, Err(error)),
        }
    }

    fn receive_completed(&mut self, key: NetKey, result: i32, buffer: Option<u16>) {
        match (usize::try_from(result), buffer) {
            (Ok(count), Some(buffer)) => self.received(key, buffer, count),
            (Ok(_), None) => self.end(key, Ok(0)),
            (Err(_), buffer) => {
                if let (Some(buffer), Some(pool)) = (buffer, &self.pool) {
                    pool.give(buffer);
                }
                match -result {
                    libc::ENOBUFS => self.starved.push_back(key),
                    libc::EAGAIN | libc::EINTR => self.waiting.push_back(key),
                    error => self.end(key, Err(error)),
                }
            }
        }
    }

    /// Takes in what a poller saw on a socket that may have been closed since. Returns whether it must be told again
    /// what to wait for.
    pub(in super::super) fn noticed(&mut self, handle: u64, input: bool, output: bool) {
        for (side, seen) in [(Side::In, input), (Side::Out, output)] {
            let key = Table::key(SocketHandle(handle), side);
            let armed = self.table.find(key).map(|socket| *socket.armed(side));
            if seen && armed == Some(Armed::Poll) {
                self.complete(key, 0, None, false);
            }
        }
    }

    /// What a poller is to wait for on a socket: reading, and writing.
    pub(in super::super) fn polls(&mut self, handle: u64) -> Option<(RawFd, bool, bool)> {
        let socket = self.table.find(Table::key(SocketHandle(handle), Side::In))?;
        let [input, output] = socket.armed.map(|armed| armed == Armed::Poll);
        Some((socket.raw(), input, output))
    }

    /// Takes in a result when the ring is given up.
    pub(in super::super) fn abandon(&mut self, key: NetKey, result: i32, goes_on: bool) {
        let Some(socket) = self.table.find(key) else { return };
        if result >= 0 && socket.listening.is_some() && *socket.armed(key.side) == Armed::Call {
            // SAFETY: as in `accept_completed`; it is closed here.
            drop(unsafe { calls::own(result) });
        }
        if !goes_on {
            *socket.armed(key.side) = Armed::No;
        }
    }

    /// Lets go of everything without giving memory back: the kernel may still write to it.
    pub(in super::super) fn leak(&mut self) {
        for socket in self.table.take_all() {
            calls::leak(socket.fd);
            std::mem::forget(socket.output);
        }
        std::mem::forget(self.pool.take());
    }
}
