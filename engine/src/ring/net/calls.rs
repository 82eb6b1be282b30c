//! The system calls on sockets that never block: the descriptors are non-blocking, and the shard's thread makes them
//! itself.

use std::fs;
use std::io;
use std::mem::{self, MaybeUninit};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use crate::buffers::Slice;
use crate::command::sockets::{Address, Family};

/// Most slices of one call: what one step of a log's tail has, and below the system's own limit (`IOV_MAX`).
pub(super) const SLICES_MAX: usize = 64;

/// Flags of every send: a peer that is gone is an error, not a signal.
pub(in super::super) const fn send_flags(more: bool) -> libc::c_int {
    libc::MSG_NOSIGNAL | if more { libc::MSG_MORE } else { 0 }
}

/// Turns the result of a call into a count.
fn counted(result: isize) -> io::Result<usize> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result.cast_unsigned()) }
}

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// `None` in place of an error that says: not now.
pub(super) fn unless_blocked<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) => match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR) => Ok(None),
            _ => Err(error),
        },
    }
}

/// Errors of the standard library's own have no number; completions promise one.
fn numbered(error: io::Error) -> io::Error {
    let number = error.raw_os_error().unwrap_or(libc::EINVAL);
    io::Error::from_raw_os_error(number)
}

/// Makes a listener. Returns it with where it listens.
pub(super) fn listen(address: &Address, backlog: u32) -> io::Result<(OwnedFd, Address)> {
    let made = match address {
        Address::Tcp(address) => listen_tcp(*address, backlog),
        Address::Unix(path) => listen_unix(path),
    };
    made.map_err(numbered)
}

fn listen_tcp(address: SocketAddr, backlog: u32) -> io::Result<(OwnedFd, Address)> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no memory is involved.
    let fd = checked(unsafe { libc::socket(family, kind, 0) })?;
    // SAFETY: the call just made this descriptor, and nobody else knows it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    bind(fd.as_raw_fd(), address)?;
    // SAFETY: no memory is involved.
    checked(unsafe { libc::listen(fd.as_raw_fd(), backlog.cast_signed()) })?;
    let listener = std::net::TcpListener::from(fd);
    let address = listener.local_addr()?;
    Ok((OwnedFd::from(listener), Address::Tcp(address)))
}

fn bind(fd: RawFd, address: SocketAddr) -> io::Result<()> {
    let bound = match address {
        SocketAddr::V4(address) => {
            let name = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
                sin_zero: [0; 8],
            };
            let bytes = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            // SAFETY: `name` is an address of that many bytes, alive across the call.
            unsafe { libc::bind(fd, (&raw const name).cast(), bytes) }
        }
        SocketAddr::V6(address) => {
            let name = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: address.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                sin6_scope_id: address.scope_id(),
            };
            let bytes = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
            // SAFETY: as above.
            unsafe { libc::bind(fd, (&raw const name).cast(), bytes) }
        }
    };
    checked(bound).map(drop)
}

fn listen_unix(path: &Path) -> io::Result<(OwnedFd, Address)> {
    // A socket's file outlives its listener. One that nobody listens at is in the way; all else is somebody's.
    let is_socket = fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    if is_socket
        && UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok((OwnedFd::from(listener), Address::Unix(path.to_path_buf())))
}

/// Takes a connection that waits.
pub(super) fn accept(listener: RawFd) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no address is asked for.
    let fd = unsafe { libc::accept4(listener, std::ptr::null_mut(), std::ptr::null_mut(), flags) };
    let fd = checked(fd)?;
    // SAFETY: the call just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Readies an accepted connection: small answers go at once. Says what it goes over.
pub(super) fn adopt(fd: &OwnedFd) -> Family {
    let mut name = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut bytes = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: `name` is memory of that many bytes.
    let got =
        unsafe { libc::getsockname(fd.as_raw_fd(), name.as_mut_ptr().cast(), &raw mut bytes) };
    // SAFETY: it was zeroed, and zeros are a valid address.
    let name = unsafe { name.assume_init() };
    let of_tcp = [libc::AF_INET, libc::AF_INET6].contains(&i32::from(name.ss_family));
    if got != 0 || !of_tcp {
        return Family::Unix;
    }
    // A connection that keeps its delays still works.
    drop(set_option(fd.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, 1));
    if is_loopback(&name) {
        unpaced(fd);
        return Family::Loopback;
    }
    Family::Tcp
}

/// Whether an address of our own is one that only this machine reaches.
fn is_loopback(name: &libc::sockaddr_storage) -> bool {
    let at = std::ptr::from_ref(name);
    if i32::from(name.ss_family) == libc::AF_INET {
        // SAFETY: the family says that it is such an address, for which there is room.
        let name = unsafe { at.cast::<libc::sockaddr_in>().read() };
        return std::net::Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes()).is_loopback();
    }
    // SAFETY: as above.
    let name = unsafe { at.cast::<libc::sockaddr_in6>().read() };
    let ip = std::net::Ipv6Addr::from(name.sin6_addr.s6_addr);
    ip.to_canonical().is_loopback()
}

/// Takes the plainest congestion control for a connection within this machine, where nothing congests: one that paces,
/// as BBR does, halves what goes over loopback. A kernel that refuses leaves its own.
pub(super) fn unpaced(fd: &OwnedFd) {
    let name = b"reno";
    let bytes = name.len() as libc::socklen_t;
    let (level, option) = (libc::IPPROTO_TCP, libc::TCP_CONGESTION);
    // SAFETY: the name is alive across the call, which copies it.
    let _its_own =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, name.as_ptr().cast(), bytes) };
}

fn set_option(
    fd: RawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let bytes = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the option is an integer, alive across the call.
    let set = unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), bytes) };
    checked(set).map(drop)
}

/// Has a later close throw away what is on its way and tell the peer so.
pub(super) fn reset_on_close(fd: RawFd) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let bytes = size_of::<libc::linger>() as libc::socklen_t;
    // SAFETY: the option is this structure, alive across the call. Without it the close is an ordinary one.
    let _ordinary = unsafe {
        libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), bytes)
    };
}

/// Ends one or both directions.
pub(super) fn shutdown(fd: RawFd, how: libc::c_int) -> io::Result<()> {
    // SAFETY: no memory is involved.
    checked(unsafe { libc::shutdown(fd, how) }).map(drop)
}

/// Receives at most `len` bytes.
///
/// # Safety
/// `to` is memory of `len` bytes, which nobody else uses.
pub(super) unsafe fn recv(fd: RawFd, to: *mut u8, len: usize) -> io::Result<usize> {
    // SAFETY: the caller's.
    counted(unsafe { libc::recv(fd, to.cast(), len, libc::MSG_DONTWAIT) })
}

/// Sends what the socket takes.
pub(super) fn send(fd: RawFd, bytes: &[u8], more: bool) -> io::Result<usize> {
    let flags = send_flags(more) | libc::MSG_DONTWAIT;
    // SAFETY: `bytes` is readable.
    counted(unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) })
}

/// Sends what the socket takes, from several places.
pub(super) fn send_slices(fd: RawFd, slices: &[Slice], more: bool) -> io::Result<usize> {
    assert!(slices.len() <= SLICES_MAX, "the caller bounds its slices");
    let mut places = [const { MaybeUninit::<libc::iovec>::uninit() }; SLICES_MAX];
    for (place, slice) in places.iter_mut().zip(slices) {
        let base = slice.as_ptr().cast_mut().cast();
        place.write(libc::iovec { iov_base: base, iov_len: slice.len() });
    }
    // SAFETY: all zeros is a message of nothing to nobody.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = places.as_mut_ptr().cast();
    message.msg_iovlen = slices.len() as _;
    let flags = send_flags(more) | libc::MSG_DONTWAIT;
    // SAFETY: the first places are filled, and what they name lives across the call.
    counted(unsafe { libc::sendmsg(fd, &raw const message, flags) })
}

/// Sends what the socket takes of a file's pages.
pub(super) fn sendfile(fd: RawFd, file: RawFd, pos: u64, len: usize) -> io::Result<usize> {
    let mut pos = libc::off_t::try_from(pos).expect("positions fit 63 bits");
    // SAFETY: `pos` is a place for a position, alive across the call.
    counted(unsafe { libc::sendfile(fd, file, &raw mut pos, len) })
}

/// Reads what the page cache has of a file, and does not wait for the rest.
pub(super) fn read_now(file: RawFd, to: &mut [u8], pos: u64) -> io::Result<usize> {
    let place = libc::iovec { iov_base: to.as_mut_ptr().cast(), iov_len: to.len() };
    let pos = libc::off_t::try_from(pos).expect("positions fit 63 bits");
    // SAFETY: the place is writable memory, alive across the call.
    counted(unsafe { libc::preadv2(file, &raw const place, 1, pos, libc::RWF_NOWAIT) })
}

/// The pipe that spliced bytes go through.
#[derive(Debug)]
pub(super) struct Pipe {
    into: OwnedFd,
    out_of: OwnedFd,
}

/// What a pipe is asked to hold: what one turn of a connection sends.
const PIPE_BYTES: libc::c_int = 1 << 20;

impl Pipe {
    pub(super) fn new() -> io::Result<Self> {
        let mut ends = [0; 2];
        // SAFETY: two descriptors are written to `ends`.
        checked(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) })?;
        // SAFETY: the call just made these, and nobody else knows them.
        let [out_of, into] = ends.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        // SAFETY: no memory is involved. A refusal leaves the default size, with which more calls are made.
        let _smaller = unsafe { libc::fcntl(into.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE_BYTES) };
        Ok(Self { into, out_of })
    }

    /// Moves bytes of a file to a socket. Returns the pipe if it is empty again: what a socket did not take is thrown
    /// away with it, and read from the file again.
    pub(super) fn splice(
        self,
        fd: RawFd,
        (file, pos): (RawFd, u64),
        len: usize,
    ) -> (io::Result<usize>, Option<Self>) {
        let mut pos = libc::off_t::try_from(pos).expect("positions fit 63 bits");
        let (into, none) = (self.into.as_raw_fd(), std::ptr::null_mut());
        let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
        // SAFETY: `pos` is a place for a position, alive across the call.
        let filled = counted(unsafe { libc::splice(file, &raw mut pos, into, none, len, flags) });
        let filled = match filled {
            Ok(filled) => filled,
            Err(error) => return (Err(error), Some(self)),
        };
        let mut sent = 0;
        while sent < filled {
            // SAFETY: no position is involved: neither end has one.
            let moved = counted(unsafe {
                libc::splice(self.out_of.as_raw_fd(), none, fd, none, filled - sent, flags)
            });
            match moved {
                Ok(0) => break,
                Ok(count) => sent += count,
                Err(error) if sent == 0 => return (Err(error), None),
                Err(_) => break,
            }
        }
        (Ok(sent), (sent == filled).then_some(self))
    }
}

/// Sends what the socket takes of a file, from a mapping of it; none behind its end, where a mapping's last page has
/// zeros. A file that is cut behind our back meanwhile is an error (`EFAULT`): the kernel copies, so that no signal is
/// raised.
pub(super) fn send_mapped(fd: RawFd, file: RawFd, pos: u64, len: usize) -> io::Result<usize> {
    // SAFETY: a descriptor that is open across the call, and not closed by it.
    let file = mem::ManuallyDrop::new(unsafe { fs::File::from_raw_fd(file) });
    let length = file.metadata().map_err(numbered)?.len();
    let len = usize::try_from(length.saturating_sub(pos)).map_or(len, |there| there.min(len));
    if len == 0 {
        return Ok(0);
    }
    let mut options = memmap2::MmapOptions::new();
    options.offset(pos).len(len);
    // SAFETY: the file is sealed and open under a lease: we neither write nor cut it. Should somebody else, the bytes
    // are only handed to the kernel, never looked at here.
    let map = unsafe { options.map(&*file) }.map_err(numbered)?;
    let flags = send_flags(false) | libc::MSG_DONTWAIT;
    // SAFETY: the range is mapped across the call; no reference to it is made.
    counted(unsafe { libc::send(fd, map.as_ptr().cast(), len, flags) })
}

/// Takes a descriptor that a completion brought.
///
/// # Safety
/// The kernel just made it, and nobody else knows it.
pub(super) unsafe fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the caller's.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Gives a descriptor up without closing it: the kernel may still use what belongs to it.
pub(super) fn leak(fd: OwnedFd) {
    let _open_for_ever = fd.into_raw_fd();
}
