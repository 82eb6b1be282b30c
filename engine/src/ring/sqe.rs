//! A call as an io_uring submission entry.

use std::ops::Range;

use io_uring::opcode;
use io_uring::squeue::{Entry, Flags};
use io_uring::types::{Fd, FsyncFlags};

use crate::buffers::pool::POOLED_BYTES;

use super::call::{Call, DIRECTORY_PERMISSIONS, FILE_PERMISSIONS, Target};
use super::net::provided::GROUP;
use super::net::{NetCall, NetKey, Side, send_flags};

/// The arena's front is the one registered buffer.
pub(super) const ARENA_INDEX: u16 = 0;

/// Paths are relative to the working directory.
const HERE: Fd = Fd(libc::AT_FDCWD);

/// What the kernel must know for a ring to be of use, by name. FTRUNCATE (Linux 6.9) is not among them:
/// there is a system call instead.
pub(super) const REQUIRED: [(&str, u8); 12] = [
    ("READ", opcode::Read::CODE),
    ("WRITE", opcode::Write::CODE),
    ("READ_FIXED", opcode::ReadFixed::CODE),
    ("WRITE_FIXED", opcode::WriteFixed::CODE),
    ("FSYNC", opcode::Fsync::CODE),
    ("FALLOCATE", opcode::Fallocate::CODE),
    ("OPENAT", opcode::OpenAt::CODE),
    ("CLOSE", opcode::Close::CODE),
    ("RENAMEAT", opcode::RenameAt::CODE),
    ("UNLINKAT", opcode::UnlinkAt::CODE),
    ("MKDIRAT", opcode::MkDirAt::CODE),
    ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
];

/// Builds the entry. `registered` are the addresses of memory registered with the kernel.
pub(super) fn entry(call: &Call, registered: &Range<usize>) -> Entry {
    match *call {
        Call::Write { file, from, len, pos, durable } => {
            let (fd, flags) = descriptor(file);
            let rw_flags = if durable { libc::RWF_DSYNC } else { 0 };
            let entry = if is_inside(from.addr(), len, registered) {
                let write = opcode::WriteFixed::new(fd, from, len, ARENA_INDEX);
                write.offset(pos).rw_flags(rw_flags).build()
            } else {
                opcode::Write::new(fd, from, len).offset(pos).rw_flags(rw_flags).build()
            };
            entry.flags(flags)
        }
        Call::Read { file, to, len, pos } => {
            let (fd, flags) = descriptor(file);
            let entry = if is_inside(to.addr(), len, registered) {
                opcode::ReadFixed::new(fd, to, len, ARENA_INDEX).offset(pos).build()
            } else {
                opcode::Read::new(fd, to, len).offset(pos).build()
            };
            entry.flags(flags)
        }
        Call::Sync { file, data_only } => {
            let (fd, flags) = descriptor(file);
            let sync = if data_only { FsyncFlags::DATASYNC } else { FsyncFlags::empty() };
            opcode::Fsync::new(fd).flags(sync).build().flags(flags)
        }
        Call::Advise { file, pos, len } => {
            let (fd, flags) = descriptor(file);
            let advise = opcode::Fadvise::new(fd, len.into(), libc::POSIX_FADV_WILLNEED);
            advise.offset(pos).build().flags(flags)
        }
        Call::Allocate { file, pos, len } => {
            let (fd, flags) = descriptor(file);
            opcode::Fallocate::new(fd, len).offset(pos).build().flags(flags)
        }
        Call::Truncate { file, len } => {
            let (fd, flags) = descriptor(file);
            opcode::Ftruncate::new(fd, len).build().flags(flags)
        }
        Call::Open { path, flags } => {
            opcode::OpenAt::new(HERE, path).flags(flags).mode(FILE_PERMISSIONS).build()
        }
        // The table of registered files has given it up before.
        Call::Close { file } => opcode::Close::new(Fd(file.fd)).build(),
        Call::Rename { from, to } => opcode::RenameAt::new(HERE, from, HERE, to).build(),
        Call::Unlink { path } => opcode::UnlinkAt::new(HERE, path).build(),
        Call::MakeDir { path } => {
            opcode::MkDirAt::new(HERE, path).mode(DIRECTORY_PERMISSIONS).build()
        }
    }
}

/// Builds the entry of a call on a socket.
pub(super) fn socket_entry(key: NetKey, call: &NetCall) -> Entry {
    match *call {
        NetCall::Accept { fd } => {
            let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
            opcode::AcceptMulti::new(Fd(fd)).flags(flags).build()
        }
        NetCall::Receive { fd } => {
            let receive = opcode::Recv::new(Fd(fd), std::ptr::null_mut(), POOLED_BYTES as u32);
            receive.buf_group(GROUP).build().flags(Flags::BUFFER_SELECT)
        }
        NetCall::Send { fd, from, len, more } => {
            opcode::Send::new(Fd(fd), from, len).flags(send_flags(more)).build()
        }
        NetCall::Poll { fd } => {
            let events = match key.side {
                Side::In => libc::POLLIN | libc::POLLRDHUP,
                Side::Out => libc::POLLOUT,
            };
            opcode::PollAdd::new(Fd(fd), events.cast_unsigned().into()).build()
        }
        NetCall::Cancel => opcode::AsyncCancel::new(key.to_u64()).build(),
    }
}

/// The number of a file and the flag that says which kind of number it is.
fn descriptor(file: Target) -> (Fd, Flags) {
    match file.fixed {
        Some(index) => (Fd(index.cast_signed()), Flags::FIXED_FILE),
        None => (Fd(file.fd), Flags::empty()),
    }
}

fn is_inside(address: usize, len: u32, registered: &Range<usize>) -> bool {
    address >= registered.start && address + len as usize <= registered.end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_memory_wholly_inside_the_registered_range_is_written_as_such() {
        let memory = [0_u8; 64];
        let base = memory.as_ptr().addr();
        let file = Target { fd: 3, fixed: Some(5), direct: true };
        let code = |registered: Range<usize>| {
            let from = memory.as_ptr();
            let write = Call::Write { file, from, len: 64, pos: 0, durable: true };
            entry(&write, &registered).get_opcode()
        };
        assert_eq!(code(base..base + 64), u32::from(opcode::WriteFixed::CODE));
        assert_eq!(code(base..base + 63), u32::from(opcode::Write::CODE));
        assert_eq!(code(base + 1..base + 65), u32::from(opcode::Write::CODE));
        assert_eq!(code(0..0), u32::from(opcode::Write::CODE));
    }
}
