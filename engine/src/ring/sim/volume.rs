//! The simulated volume: directories and files, each with a live and a durable side.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::{Component, Path};
use std::rc::Rc;

use super::faults::{CrashPlan, mix};
use super::file::{BLOCK_BYTES, File, Landed};
use crate::command::OpenMode;

/// A file or directory, whatever its name is.
pub(super) type Ino = u64;

const ROOT: Ino = 0;
/// Nodes without any name are looked for when there are twice as many as after the last look, from here on.
const SWEEP_FROM: usize = 64;

pub(super) fn os_error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

/// A change of one directory.
#[derive(Clone)]
enum Entry {
    Link(String, Ino),
    Unlink(String),
    /// Atomic, as it is within one directory.
    Rename(String, String, Ino),
}

impl Entry {
    fn apply(&self, names: &mut BTreeMap<String, Ino>) {
        match self {
            Self::Link(name, ino) => drop(names.insert(name.clone(), *ino)),
            Self::Unlink(name) => drop(names.remove(name)),
            Self::Rename(from, to, ino) => {
                names.remove(from);
                names.insert(to.clone(), *ino);
            }
        }
    }
}

#[derive(Clone, Default)]
struct Dir {
    live: BTreeMap<String, Ino>,
    durable: BTreeMap<String, Ino>,
    pending: VecDeque<(u64, Entry)>,
}

impl Dir {
    fn change(&mut self, seq: u64, entry: Entry) {
        entry.apply(&mut self.live);
        self.pending.push_back((seq, entry));
    }

    fn flush(&mut self, seq: u64) {
        while self.pending.front().is_some_and(|(at, _)| *at <= seq) {
            let Some((_, entry)) = self.pending.pop_front() else { return };
            entry.apply(&mut self.durable);
        }
    }

    fn crash(&mut self, plan: CrashPlan, key: u64) {
        let kept = plan.prefix(key, self.pending.len());
        for (_, entry) in self.pending.drain(..).take(kept) {
            entry.apply(&mut self.durable);
        }
        self.live = self.durable.clone();
    }

    fn all_names(&self) -> impl Iterator<Item = Ino> + '_ {
        let pending = self.pending.iter().filter_map(|(_, entry)| match entry {
            Entry::Link(_, ino) | Entry::Rename(_, _, ino) => Some(*ino),
            Entry::Unlink(_) => None,
        });
        self.live.values().chain(self.durable.values()).copied().chain(pending)
    }
}

#[derive(Clone)]
enum Kind {
    File(Rc<File>),
    Dir(Rc<Dir>),
}

#[derive(Clone)]
struct Node {
    kind: Kind,
    /// Handles open on it.
    opens: u32,
    /// Whether it has a live name.
    linked: bool,
    /// Bytes of the volume's capacity it takes: from its beginning to its last byte written or reserved.
    charged: u64,
}

impl Node {
    fn new(kind: Kind) -> Self {
        Self { kind, opens: 0, linked: true, charged: 0 }
    }
}

/// A finished write, and what it promised.
pub(super) struct Write<'a> {
    pub(super) ino: Ino,
    pub(super) pos: u64,
    pub(super) data: &'a [u8],
    pub(super) direct: bool,
    pub(super) durable: bool,
}

/// All files and directories. A clone shares every block and costs one reference per node.
#[derive(Clone)]
pub(super) struct Volume {
    nodes: BTreeMap<Ino, Node>,
    next_ino: Ino,
    /// Numbers every change in the order in which it took effect.
    seq: u64,
    pub(super) capacity_bytes: u64,
    used_bytes: u64,
    /// Files with bytes that a flush of the device makes durable.
    flushable: BTreeSet<Ino>,
    sweep_at: usize,
}

impl Volume {
    pub(super) fn new(capacity_bytes: u64) -> Self {
        let root = Node::new(Kind::Dir(Rc::default()));
        Self {
            nodes: BTreeMap::from([(ROOT, root)]),
            next_ino: ROOT + 1,
            seq: 0,
            capacity_bytes,
            used_bytes: 0,
            flushable: BTreeSet::new(),
            sweep_at: SWEEP_FROM,
        }
    }

    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    fn node(&mut self, ino: Ino) -> &mut Node {
        self.nodes.get_mut(&ino).expect("a node lives while it has a name or a handle")
    }

    fn kind(&self, ino: Ino) -> &Kind {
        &self.nodes.get(&ino).expect("a node lives while it has a name or a handle").kind
    }

    pub(super) fn file(&self, ino: Ino) -> io::Result<&File> {
        match self.kind(ino) {
            Kind::File(file) => Ok(file),
            Kind::Dir(_) => Err(os_error(libc::EISDIR)),
        }
    }

    pub(super) fn file_mut(&mut self, ino: Ino) -> io::Result<&mut File> {
        match &mut self.node(ino).kind {
            Kind::File(file) => Ok(Rc::make_mut(file)),
            Kind::Dir(_) => Err(os_error(libc::EISDIR)),
        }
    }

    fn dir(&self, ino: Ino) -> io::Result<&Dir> {
        match self.kind(ino) {
            Kind::Dir(dir) => Ok(dir),
            Kind::File(_) => Err(os_error(libc::ENOTDIR)),
        }
    }

    fn dir_mut(&mut self, ino: Ino) -> io::Result<&mut Dir> {
        match &mut self.node(ino).kind {
            Kind::Dir(dir) => Ok(Rc::make_mut(dir)),
            Kind::File(_) => Err(os_error(libc::ENOTDIR)),
        }
    }

    /// The node at `path`, as processes see it or as a power cut would leave it.
    pub(super) fn find(&self, path: &Path, durable: bool) -> io::Result<Ino> {
        let mut at = ROOT;
        for name in names(path) {
            let dir = self.dir(at)?;
            let entries = if durable { &dir.durable } else { &dir.live };
            at = *entries.get(name).ok_or_else(|| os_error(libc::ENOENT))?;
        }
        Ok(at)
    }

    /// The directory that holds `path`'s last name, and that name.
    fn parent<'p>(&self, path: &'p Path) -> io::Result<(Ino, &'p str)> {
        let name = names(path).last().ok_or_else(|| os_error(libc::EBUSY))?;
        let parent = path.parent().unwrap_or(Path::new(""));
        Ok((self.find(parent, false)?, name))
    }

    fn entry(&self, parent: Ino, name: &str) -> io::Result<Option<Ino>> {
        Ok(self.dir(parent)?.live.get(name).copied())
    }

    fn make(&mut self, parent: Ino, name: &str, kind: Kind) -> io::Result<Ino> {
        let (ino, seq) = (self.next_ino, self.next_seq());
        self.dir_mut(parent)?.change(seq, Entry::Link(name.to_owned(), ino));
        self.next_ino += 1;
        self.nodes.insert(ino, Node::new(kind));
        if self.nodes.len() >= self.sweep_at {
            self.sweep();
        }
        Ok(ino)
    }

    pub(super) fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<Ino> {
        let ino = match self.find(path, false) {
            Ok(_) if mode.create && mode.exclusive => return Err(os_error(libc::EEXIST)),
            Ok(ino) => ino,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) && mode.create => {
                let (parent, name) = self.parent(path)?;
                self.make(parent, name, Kind::File(Rc::default()))?
            }
            Err(error) => return Err(error),
        };
        match (self.kind(ino), mode.directory) {
            (Kind::File(_), true) => return Err(os_error(libc::ENOTDIR)),
            (Kind::Dir(_), false) => return Err(os_error(libc::EISDIR)),
            _ => {}
        }
        self.node(ino).opens += 1;
        Ok(ino)
    }

    pub(super) fn close(&mut self, ino: Ino) {
        self.node(ino).opens -= 1;
        self.release(ino);
    }

    /// All handles are gone.
    pub(super) fn close_all(&mut self) {
        let open: Vec<Ino> =
            self.nodes.iter().filter(|(_, node)| node.opens > 0).map(|(ino, _)| *ino).collect();
        for ino in open {
            self.node(ino).opens = 0;
            self.release(ino);
        }
    }

    /// Gives back the space of a file that has neither name nor handle.
    fn release(&mut self, ino: Ino) {
        let node = self.node(ino);
        if !node.linked && node.opens == 0 {
            let charged = std::mem::take(&mut node.charged);
            self.used_bytes -= charged;
        }
    }

    fn unlinked(&mut self, ino: Ino) {
        self.node(ino).linked = false;
        self.release(ino);
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from_dir, from_name) = self.parent(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        let ino = self.entry(from_dir, from_name)?.ok_or_else(|| os_error(libc::ENOENT))?;
        let replaced = self.entry(to_dir, to_name)?;
        if replaced == Some(ino) {
            return Ok(());
        }
        match (self.kind(ino), replaced.map(|ino| self.kind(ino))) {
            (_, None) | (Kind::File(_), Some(Kind::File(_))) => {}
            (Kind::File(_), Some(Kind::Dir(_))) => return Err(os_error(libc::EISDIR)),
            (Kind::Dir(_), Some(Kind::File(_))) => return Err(os_error(libc::ENOTDIR)),
            (Kind::Dir(_), Some(Kind::Dir(_))) => return Err(os_error(libc::ENOTEMPTY)),
        }
        let seq = self.next_seq();
        if from_dir == to_dir {
            let entry = Entry::Rename(from_name.to_owned(), to_name.to_owned(), ino);
            self.dir_mut(from_dir)?.change(seq, entry);
        } else {
            self.dir_mut(to_dir)?.change(seq, Entry::Link(to_name.to_owned(), ino));
            self.dir_mut(from_dir)?.change(seq, Entry::Unlink(from_name.to_owned()));
        }
        if let Some(replaced) = replaced {
            self.unlinked(replaced);
        }
        Ok(())
    }

    pub(super) fn unlink(&mut self, path: &Path) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        let ino = self.entry(parent, name)?.ok_or_else(|| os_error(libc::ENOENT))?;
        self.file(ino)?;
        self.remove_entry(parent, name, ino)
    }

    fn remove_entry(&mut self, parent: Ino, name: &str, ino: Ino) -> io::Result<()> {
        let seq = self.next_seq();
        self.dir_mut(parent)?.change(seq, Entry::Unlink(name.to_owned()));
        self.unlinked(ino);
        Ok(())
    }

    pub(super) fn make_dir(&mut self, path: &Path) -> io::Result<()> {
        if self.find(path, false).is_ok() {
            return Err(os_error(libc::EEXIST));
        }
        let (parent, name) = self.parent(path)?;
        self.make(parent, name, Kind::Dir(Rc::default())).map(drop)
    }

    /// Removes a directory and its files, but stops after `files_max` of them.
    pub(super) fn remove_dir(&mut self, path: &Path, files_max: usize) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        let ino = self.entry(parent, name)?.ok_or_else(|| os_error(libc::ENOENT))?;
        let files = self.dir(ino)?.live.clone();
        if files.values().any(|file| matches!(self.kind(*file), Kind::Dir(_))) {
            return Err(os_error(libc::ENOTEMPTY));
        }
        for (name, file) in files.iter().take(files_max) {
            self.remove_entry(ino, name, *file)?;
        }
        if files.len() <= files_max {
            self.remove_entry(parent, name, ino)?;
        }
        Ok(())
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        Ok(self.dir(self.find(path, false)?)?.live.keys().cloned().collect())
    }

    /// Takes space for a file's first `end` bytes; returns for how many of them there was some.
    fn charge(&mut self, ino: Ino, end: u64) -> u64 {
        let room = self.capacity_bytes.saturating_sub(self.used_bytes);
        let node = self.node(ino);
        let fits = node.charged.saturating_add(room / BLOCK_BYTES * BLOCK_BYTES);
        let charged = end.next_multiple_of(BLOCK_BYTES).min(fits).max(node.charged);
        let more = charged - std::mem::replace(&mut node.charged, charged);
        self.used_bytes += more;
        charged
    }

    /// A write lands. Over capacity only the part that fits does, and it is not durable.
    pub(super) fn write(&mut self, write: &Write<'_>) -> io::Result<()> {
        let end = write.pos + write.data.len() as u64;
        self.file(write.ino)?;
        let room = self.charge(write.ino, end).min(end).saturating_sub(write.pos) as usize;
        let fits = room == write.data.len();
        let (seq, data) = (self.next_seq(), &write.data[..room]);
        let file = self.file_mut(write.ino)?;
        if room > 0 {
            file.write(&Landed { seq, pos: write.pos, data, direct: write.direct });
        }
        if fits && write.durable {
            file.make_durable(seq, write.pos, end);
        } else if file.has_flushable() {
            self.flushable.insert(write.ino);
        }
        if fits { Ok(()) } else { Err(os_error(libc::ENOSPC)) }
    }

    pub(super) fn allocate(&mut self, ino: Ino, end: u64) -> io::Result<()> {
        let len = self.file(ino)?.len();
        let node = self.node(ino);
        let more = end.next_multiple_of(BLOCK_BYTES).saturating_sub(node.charged);
        if more > self.capacity_bytes.saturating_sub(self.used_bytes) {
            return Err(os_error(libc::ENOSPC));
        }
        self.charge(ino, end);
        if end > len { self.set_len(ino, end) } else { Ok(()) }
    }

    /// Truncates: a longer file gets a hole, which takes no space.
    pub(super) fn set_len(&mut self, ino: Ino, len: u64) -> io::Result<()> {
        let seq = self.next_seq();
        let file = self.file_mut(ino)?;
        let shrinks = len < file.len();
        file.set_len(seq, len);
        if shrinks {
            let node = self.node(ino);
            let charged = node.charged.min(len.next_multiple_of(BLOCK_BYTES));
            let less = std::mem::replace(&mut node.charged, charged) - charged;
            self.used_bytes -= less;
        }
        Ok(())
    }

    /// What landed in a file or directory up to `seq` is durable.
    pub(super) fn sync(&mut self, ino: Ino, seq: u64) {
        match &mut self.node(ino).kind {
            Kind::File(file) if file.is_clean() => {}
            Kind::File(file) => Rc::make_mut(file).flush(seq),
            Kind::Dir(dir) => Rc::make_mut(dir).flush(seq),
        }
    }

    /// A sync has failed: it will never be made good.
    pub(super) fn give_up(&mut self, ino: Ino, seq: u64) {
        if let Kind::File(file) = &mut self.node(ino).kind {
            Rc::make_mut(file).give_up(seq);
        }
    }

    /// The cache of the device is flushed: overwrites past the page cache up to `seq` are durable.
    pub(super) fn flush_device(&mut self, seq: u64) {
        for ino in std::mem::take(&mut self.flushable) {
            let Some(Node { kind: Kind::File(file), .. }) = self.nodes.get_mut(&ino) else {
                continue;
            };
            let file = Rc::make_mut(file);
            file.flush_device(seq);
            if file.has_flushable() {
                self.flushable.insert(ino);
            }
        }
    }

    /// Everything there is becomes durable.
    pub(super) fn flush_all(&mut self) {
        let all: Vec<Ino> = self.nodes.keys().copied().collect();
        for ino in all {
            self.sync(ino, self.seq);
        }
    }

    /// Power is cut; what is left is both what processes see and what is durable.
    pub(super) fn crash(&mut self, plan: CrashPlan) {
        for (ino, node) in &mut self.nodes {
            node.opens = 0;
            match &mut node.kind {
                Kind::File(file) if file.is_clean() => {}
                Kind::File(file) => Rc::make_mut(file).crash(plan, mix(6, *ino)),
                Kind::Dir(dir) => Rc::make_mut(dir).crash(plan, mix(7, *ino)),
            }
        }
        self.flushable.clear();
        self.sweep();
        self.used_bytes = 0;
        for node in self.nodes.values_mut() {
            node.linked = true;
            if let Kind::File(file) = &node.kind {
                let reserved = node.charged.min(file.len().next_multiple_of(BLOCK_BYTES));
                node.charged = reserved.max(file.written_end());
                self.used_bytes += node.charged;
            }
        }
    }

    /// Forgets nodes that nothing can reach any more, whatever is lost or kept.
    fn sweep(&mut self) {
        let mut reached = BTreeSet::new();
        let open = self.nodes.iter().filter(|(_, node)| node.opens > 0).map(|(ino, _)| *ino);
        let mut ahead: Vec<Ino> = open.chain([ROOT]).collect();
        while let Some(ino) = ahead.pop() {
            if reached.insert(ino)
                && let Some(Node { kind: Kind::Dir(dir), .. }) = self.nodes.get(&ino)
            {
                ahead.extend(dir.all_names());
            }
        }
        self.nodes.retain(|ino, _| reached.contains(ino));
        self.sweep_at = (2 * self.nodes.len()).max(SWEEP_FROM);
    }

    /// The paths of all files, sorted, as processes see them.
    pub(super) fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut ahead = vec![(String::new(), ROOT)];
        while let Some((path, ino)) = ahead.pop() {
            let Kind::Dir(dir) = self.kind(ino) else {
                found.push(path);
                continue;
            };
            let slash = if path.is_empty() { "" } else { "/" };
            ahead.extend(dir.live.iter().map(|(name, ino)| (format!("{path}{slash}{name}"), *ino)));
        }
        found.sort();
        found
    }
}

/// The names of a path. Absolute and relative paths begin at the same root.
fn names(path: &Path) -> impl Iterator<Item = &str> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_str().expect("the engine's names are text")),
        Component::RootDir | Component::CurDir => None,
        Component::ParentDir | Component::Prefix(_) => panic!("the engine makes no path with `..`"),
    })
}
