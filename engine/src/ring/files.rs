//! The open files of a ring. A [`FileHandle`] is an index and a generation, so a handle used after its
//! close is found out.

use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use super::call::Target;
use crate::command::FileHandle;

/// Bits of a handle that hold the index; the rest hold the generation.
const INDEX_BITS: u32 = 20;

/// The most files a ring has open at once; the process's limit of descriptors is lower as a rule.
const FILES_MAX: usize = 1 << INDEX_BITS;

#[derive(Debug)]
struct Open {
    fd: OwnedFd,
    direct: bool,
    fixed: bool,
    /// Operations in flight on it.
    users: u32,
    closing: bool,
}

#[derive(Debug, Default)]
struct Entry {
    generation: u32,
    open: Option<Open>,
}

/// The table. Files still in it are closed when it is dropped.
#[derive(Debug, Default)]
pub(super) struct Files {
    entries: Vec<Entry>,
    free: Vec<u32>,
}

impl Files {
    /// Takes over a descriptor just opened. `None`, and closed, if the table is full.
    pub(super) fn insert(&mut self, fd: RawFd, direct: bool) -> Option<FileHandle> {
        // SAFETY: an open call just returned this descriptor, and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.entries.len() == FILES_MAX => return None,
            None => {
                self.entries.push(Entry::default());
                self.entries.len() as u32 - 1
            }
        };
        let entry = &mut self.entries[index as usize];
        assert!(entry.open.is_none(), "a free entry");
        entry.open = Some(Open { fd, direct, fixed: false, users: 0, closing: false });
        Some(FileHandle(entry.generation << INDEX_BITS | index))
    }

    /// How calls name the file.
    pub(super) fn target(&self, file: FileHandle) -> Target {
        let (index, generation) = parts(file);
        let entry = &self.entries[index as usize];
        assert_eq!(entry.generation, generation, "{file:?} is closed");
        let Some(open) = &entry.open else { panic!("{file:?} is closed") };
        let fixed = open.fixed.then_some(index);
        Target { fd: open.fd.as_raw_fd(), fixed, direct: open.direct }
    }

    /// Where the file sits, for the kernel's table of registered files.
    pub(super) fn index(file: FileHandle) -> u32 {
        parts(file).0
    }

    /// Says that the kernel's table holds the file at its index.
    pub(super) fn set_fixed(&mut self, file: FileHandle) {
        self.open(file).fixed = true;
    }

    /// An operation on the file begins. One that closes it must be the only one.
    pub(super) fn retain(&mut self, file: FileHandle, closes: bool) {
        let open = self.open(file);
        assert!(!open.closing, "{file:?} is being closed");
        assert!(!closes || open.users == 0, "{file:?} is closed while operations are in flight");
        open.users += 1;
        open.closing = closes;
    }

    /// An operation on the file has ended.
    pub(super) fn release(&mut self, file: FileHandle) {
        self.open(file).users -= 1;
    }

    /// Forgets a file whose descriptor is closed already.
    pub(super) fn forget(&mut self, file: FileHandle) {
        let (index, _) = parts(file);
        let users = self.open(file).users;
        assert_eq!(users, 0, "{file:?} is closed while operations are in flight");
        let entry = &mut self.entries[index as usize];
        entry.generation = (entry.generation + 1) & (u32::MAX >> INDEX_BITS);
        let open = entry.open.take();
        let _closed_already = open.map(|open| open.fd.into_raw_fd());
        self.free.push(index);
    }

    fn open(&mut self, file: FileHandle) -> &mut Open {
        let (index, generation) = parts(file);
        let entry = &mut self.entries[index as usize];
        assert_eq!(entry.generation, generation, "{file:?} is closed");
        let Some(open) = &mut entry.open else { panic!("{file:?} is closed") };
        open
    }
}

/// Index and generation of a handle.
fn parts(file: FileHandle) -> (u32, u32) {
    (file.0 & (FILES_MAX as u32 - 1), file.0 >> INDEX_BITS)
}
