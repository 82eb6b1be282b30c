//! Files of segments that are open to be read: one table for a shard, bounded, the least recently used goes first.
//!
//! A [`Lease`] keeps a file open while it is used. Several leases share one file, and what two ask for at once is
//! opened once. A file that is forgotten ([`OpenFiles::forget`]) is closed as soon as nobody has a lease of it; who has
//! one goes on reading what it was, even if it is unlinked meanwhile.
//!
//! Whoever holds a lease opens no other: a table full of leases of those who wait for one more would stand still.
//! Nor is a lease held while anything but the file is waited for, such as a socket.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use crate::command::{Disk, FileHandle, Op, OpenMode};
use crate::error::{Alteration, Fault, ReadError};
use crate::files::open as open_file;
use crate::format::names;
use crate::journal::LogId;
use crate::local::Notify;
use crate::types::{Offset, Pos};

use super::Context;
use super::disk::ShardDisk;
use super::lookup_cache::LookupCache;

/// Which of a segment's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// The log itself, past the page cache if the engine writes so.
    Log,
    /// The log itself, through the page cache: for a sealed one, which nobody writes past it.
    Pages,
    /// The sparse index by offset.
    Index,
    /// The sparse index by time.
    TimeIndex,
}

const KINDS: [Kind; 4] = [Kind::Log, Kind::Pages, Kind::Index, Kind::TimeIndex];

/// A file of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    log: LogId,
    base: Offset,
    kind: Kind,
}

/// A file that is open, and who uses it.
#[derive(Debug)]
struct Opened {
    key: Key,
    file: FileHandle,
    length: u64,
    leases: Cell<u32>,
    /// When it was let go of last, if nobody uses it.
    idle: Cell<Option<u64>>,
    forgotten: Cell<bool>,
}

#[derive(Debug)]
enum Slot {
    /// Somebody is opening it: the number says who.
    Opening(u64),
    Open(Rc<Opened>),
}

#[derive(Default)]
struct Table {
    slots: HashMap<Key, Slot>,
    /// Files that nobody uses, in the order in which they were let go of.
    idle: BTreeMap<u64, Key>,
    /// Files that were forgotten while somebody used them.
    lent: Vec<Key>,
    /// Files that are open or being opened, forgotten ones included.
    open: usize,
    ticks: u64,
}

impl Table {
    /// One use of a forgotten file has ended.
    fn give_back(&mut self, key: Key) {
        let at = self.lent.iter().position(|lent| *lent == key).expect("it was lent");
        self.lent.swap_remove(at);
    }

    fn tick(&mut self) -> u64 {
        self.ticks += 1;
        self.ticks
    }
}

struct Inner {
    disk: ShardDisk,
    files_max: usize,
    table: RefCell<Table>,
    lookups: RefCell<LookupCache>,
    /// Rung when a file was opened, let go of or closed.
    changed: Notify,
}

/// The files of a shard's segments that are open to be read. Cheap to clone.
#[derive(Clone)]
pub(crate) struct OpenFiles(Rc<Inner>);

impl OpenFiles {
    /// A table that keeps at most so many files open, and at most so many bytes of what lookups found in them.
    pub(crate) fn new(disk: ShardDisk, files_max: usize, lookup_bytes_max: usize) -> Self {
        assert!(files_max > 0, "some file may be open");
        let table = RefCell::default();
        let lookups = RefCell::new(LookupCache::new(lookup_bytes_max));
        Self(Rc::new(Inner { disk, files_max, table, lookups, changed: Notify::new() }))
    }

    /// What lookups found in the files. Not to be held across an `await`.
    pub(crate) fn lookups(&self) -> RefMut<'_, LookupCache> {
        self.0.lookups.borrow_mut()
    }

    /// Closes a segment's files, as soon as nobody uses them, and forgets what was found in them. To be called before
    /// its files are cut or replaced, and when they are unlinked.
    pub(crate) fn forget(&self, log: LogId, base: Offset) {
        self.lookups().forget((log, base));
        let mut table = self.0.table.borrow_mut();
        for kind in KINDS {
            self.forget_key(&mut table, Key { log, base, kind });
        }
    }

    /// Waits until nobody uses a file of the segment that was forgotten: its content may go then.
    pub(crate) async fn released(&self, log: LogId, base: Offset) {
        loop {
            let changed = self.0.changed.notified();
            let of = |key: &Key| (key.log, key.base) == (log, base);
            if !self.0.table.borrow().lent.iter().any(of) {
                return;
            }
            changed.await;
        }
    }

    /// Closes all files of a log, as soon as nobody uses them.
    pub(crate) fn forget_log(&self, log: LogId) {
        self.lookups().forget_log(log);
        let mut table = self.0.table.borrow_mut();
        let keys: Vec<Key> = table.slots.keys().filter(|key| key.log == log).copied().collect();
        for key in keys {
            self.forget_key(&mut table, key);
        }
    }

    /// Files that are open, or being opened.
    #[cfg(test)]
    pub(crate) fn open_count(&self) -> usize {
        self.0.table.borrow().open
    }

    fn forget_key(&self, table: &mut Table, key: Key) {
        let opened = match table.slots.remove(&key) {
            Some(Slot::Open(opened)) => opened,
            // Whoever is opening it finds its slot gone.
            Some(Slot::Opening(_)) => return table.lent.push(key),
            None => return,
        };
        opened.forgotten.set(true);
        if let Some(tick) = opened.idle.take() {
            table.idle.remove(&tick);
            self.close(table, &opened);
        } else {
            table.lent.push(key);
        }
    }

    /// Begins to close a file that nobody uses any more.
    fn close(&self, table: &mut Table, opened: &Opened) {
        assert_eq!(opened.leases.get(), 0, "a file is closed once nobody uses it");
        table.open -= 1;
        // Opened to be read: a failed close loses nothing, and nobody has to wait for it.
        drop(self.0.disk.run(Op::Close { file: opened.file }));
        self.0.changed.notify();
    }

    fn lease(&self, table: &mut Table, opened: Rc<Opened>) -> Lease {
        if let Some(tick) = opened.idle.take() {
            table.idle.remove(&tick);
        }
        opened.leases.set(opened.leases.get() + 1);
        Lease { opened, files: self.clone() }
    }

    /// A lease of the file if it is open, or the number under which the caller is to open it; `None`: wait for the
    /// bell.
    fn begin(&self, key: Key) -> Option<Result<Lease, u64>> {
        let mut table = self.0.table.borrow_mut();
        match table.slots.get(&key) {
            Some(Slot::Open(opened)) => {
                let opened = opened.clone();
                return Some(Ok(self.lease(&mut table, opened)));
            }
            Some(Slot::Opening(_)) => return None,
            None => {}
        }
        if table.open >= self.0.files_max {
            let (_, oldest) = table.idle.pop_first()?;
            let Some(Slot::Open(opened)) = table.slots.remove(&oldest) else {
                unreachable!("an idle file is open");
            };
            self.close(&mut table, &opened);
        }
        table.open += 1;
        let number = table.tick();
        table.slots.insert(key, Slot::Opening(number));
        Some(Err(number))
    }

    async fn open(&self, key: Key, path: PathBuf, mode: OpenMode) -> io::Result<Lease> {
        let opening = loop {
            let changed = self.0.changed.notified();
            match self.begin(key) {
                Some(Ok(lease)) => return Ok(lease),
                Some(Err(number)) => break Opening { files: self, key, number, ended: false },
                None => changed.await,
            }
        };
        let file = open_file(&self.0.disk, &path, mode).await?;
        let length = match self.0.disk.run(Op::Length { file }).await {
            Ok(done) => done.into_length(),
            Err(error) => {
                drop(self.0.disk.run(Op::Close { file }));
                return Err(error);
            }
        };
        Ok(opening.end(file, length))
    }
}

/// The opening of a file under way. Whoever waits for it tries again if it fails.
struct Opening<'a> {
    files: &'a OpenFiles,
    key: Key,
    number: u64,
    ended: bool,
}

impl Opening<'_> {
    fn is_current(&self, table: &Table) -> bool {
        matches!(table.slots.get(&self.key), Some(Slot::Opening(number)) if *number == self.number)
    }

    fn end(mut self, file: FileHandle, length: u64) -> Lease {
        self.ended = true;
        let mut table = self.files.0.table.borrow_mut();
        let current = self.is_current(&table);
        let opened = Rc::new(Opened {
            key: self.key,
            file,
            length,
            leases: Cell::new(0),
            idle: Cell::new(None),
            // Forgotten while it was being opened: for this one use.
            forgotten: Cell::new(!current),
        });
        if current {
            table.slots.insert(self.key, Slot::Open(opened.clone()));
        }
        self.files.0.changed.notify();
        self.files.lease(&mut table, opened)
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let mut table = self.files.0.table.borrow_mut();
        table.open -= 1;
        if self.is_current(&table) {
            table.slots.remove(&self.key);
        } else {
            table.give_back(self.key);
        }
        self.files.0.changed.notify();
    }
}

/// The use of an open file.
pub(crate) struct Lease {
    opened: Rc<Opened>,
    files: OpenFiles,
}

impl Lease {
    /// The file. Not to be used after the lease.
    pub(crate) fn file(&self) -> FileHandle {
        self.opened.file
    }

    /// How long the file was when it was opened, in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.opened.length
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let leases = self.opened.leases.get() - 1;
        self.opened.leases.set(leases);
        if leases > 0 {
            return;
        }
        let mut table = self.files.0.table.borrow_mut();
        if self.opened.forgotten.get() {
            table.give_back(self.opened.key);
            self.files.close(&mut table, &self.opened);
            return;
        }
        let tick = table.tick();
        self.opened.idle.set(Some(tick));
        table.idle.insert(tick, self.opened.key);
        self.files.0.changed.notify();
    }
}

/// Opens a segment's log to be read, or shares it with those who read it already. Waits while as many files are open as
/// may be and all are in use.
///
/// # Errors
/// [`ReadError::Altered`] if there is no such file, [`ReadError::Disk`], [`ReadError::Closed`].
pub(crate) async fn open(cx: &Context, id: LogId, base: Offset) -> Result<Lease, ReadError> {
    let missing = ReadError::Altered { segment: base, what: Alteration::Missing };
    open_kind(cx, id, (base, Kind::Log)).await?.ok_or(missing)
}

/// Opens one of a segment's files to be read; `None` if it is not there. The file of a sealed segment is as long as its
/// seal says, if that has been read.
///
/// # Errors
/// [`ReadError::Altered`], [`ReadError::Disk`], [`ReadError::Closed`].
pub(crate) async fn open_kind(
    cx: &Context,
    id: LogId,
    (base, kind): (Offset, Kind),
) -> Result<Option<Lease>, ReadError> {
    loop {
        let (dir, direct) = {
            let mut state = cx.state.borrow_mut();
            let direct = state.settings.direct;
            let Some(log) = state.log(id) else { return Err(ReadError::Closed) };
            (log.identity.dir.clone(), direct)
        };
        let (name, direct) = match kind {
            Kind::Log => (names::segment(base), direct),
            Kind::Pages => (names::segment(base), false),
            Kind::Index => (names::index(base), false),
            Kind::TimeIndex => (names::time_index(base), false),
        };
        let mode = OpenMode { read_only: true, direct, ..OpenMode::default() };
        let lease = match cx.files.open(Key { log: id, base, kind }, dir.join(name), mode).await {
            Ok(lease) => lease,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ReadError::Disk(Fault::new("opening a segment", &error))),
        };
        let Err(altered) = check_length(cx, id, &lease) else { return Ok(Some(lease)) };
        if !lease.opened.forgotten.get() {
            return Err(altered);
        }
        // It was replaced while it was opened.
    }
}

/// Holds the file of a sealed segment against what is known of it.
fn check_length(cx: &Context, id: LogId, lease: &Lease) -> Result<(), ReadError> {
    let Key { base, kind, .. } = lease.opened.key;
    if !matches!(kind, Kind::Log | Kind::Pages) {
        return Ok(());
    }
    let mut state = cx.state.borrow_mut();
    let Some(log) = state.log(id) else { return Ok(()) };
    // While files are swapped, those who read look again behind it.
    let swapping = !log.keep.swaps.is_multiple_of(2);
    let Some((sealed, _)) = log.sealed_at(base).filter(|_| !swapping) else { return Ok(()) };
    let (Some(end), found) = (sealed.end.map(Pos::get), lease.length()) else { return Ok(()) };
    // Without a seal there may be space behind the data.
    if found < end || sealed.has_seal && found > end {
        let what = Alteration::Length { found, sealed: end };
        return Err(ReadError::Altered { segment: base, what });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
