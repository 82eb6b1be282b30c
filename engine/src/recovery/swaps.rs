//! What a compaction left when it was cut off: a swap that was certain is completed, anything before that undone. The
//! protocol stands in `docs/format.md`, 2.5.

use std::io;
use std::path::PathBuf;

use crate::buffers::Arena;
use crate::command::{Disk, Op, OpenMode};
use crate::files::{open, read_small, sync_directory};
use crate::format::names;
use crate::format::seal::Seal;
use crate::log::Identity;
use crate::types::Offset;

use super::scan::{BatchScanner, Scanned};

/// A `.log` with something behind its name.
fn based(name: &str, ending: &str) -> Option<Offset> {
    names::segment_base(name.strip_suffix(ending)?)
}

/// Completes or undoes swaps of the partition.
pub(super) async fn settle<D: Disk>(
    disk: &D,
    arena: &Arena,
    identity: &Identity,
) -> io::Result<()> {
    let listed = disk.run(Op::List { path: identity.dir.clone() }).await?.into_names();
    let of = |ending| listed.iter().filter_map(move |name| based(name, ending));
    let cleaning = of(names::CLEANING).min();
    let swap = Swap { disk, arena, identity };
    for base in of(names::SWAP) {
        // Kafka may write several segments for one: while one of them is not done, those behind it do not count.
        let undone = cleaning.is_some_and(|cleaning| base >= cleaning);
        let old = listed.contains(&names::segment(base));
        match swap.end(base).await? {
            Some(next) if !undone || !old => swap.complete(base, next, &listed).await?,
            // Not whole, and what it was to replace is there. It is gone for good before anything that says so is.
            _ if old => {
                swap.unlink(names::segment(base) + names::SWAP).await?;
                sync_directory(disk, identity.dir.clone()).await?;
            }
            _ => swap.complete(base, base, &listed).await?,
        }
    }
    for name in &listed {
        if name.ends_with(names::CLEANING) || name.ends_with(names::SWAP) {
            swap.unlink(name.clone()).await?;
        }
    }
    Ok(())
}

struct Swap<'a, D: Disk> {
    disk: &'a D,
    arena: &'a Arena,
    identity: &'a Identity,
}

impl<D: Disk> Swap<'_, D> {
    fn path(&self, name: String) -> PathBuf {
        self.identity.dir.join(name)
    }

    /// Where the log goes on behind the new segment, by its seal or, in a partition of Kafka's, by its batches. `None`
    /// if it is not whole.
    async fn end(&self, base: Offset) -> io::Result<Option<Offset>> {
        let path = self.path(names::segment(base) + names::SWAP);
        let mode = OpenMode { read_only: true, ..OpenMode::default() };
        let file = open(self.disk, &path, mode).await?;
        let length = self.disk.run(Op::Length { file }).await?.into_length();
        let mut found = None;
        for ending in [names::SWAP, ""] {
            let path = self.path(names::seal(base) + ending);
            let seal = read_small(self.disk, self.arena, &path).await?;
            let seal = seal.and_then(|bytes| Seal::decode(&bytes).ok());
            let seal = seal.filter(|seal| {
                seal.incarnation == self.identity.incarnation
                    && (seal.base_offset, seal.length.get()) == (base, length)
                    && seal.compacted
            });
            found = found.or(seal.map(|seal| seal.next_offset));
        }
        if found.is_none() {
            let mut scanner = BatchScanner::new(self.disk, self.arena, file, 0, length);
            let (mut end, mut next) = (0, base);
            while let Scanned::Batch(pos, header) = scanner.next().await? {
                let Some((_, last)) = header.offsets() else { break };
                (end, next) = (pos + header.batch_bytes() as u64, last.plus(1));
            }
            scanner.finish().await;
            found = (end == length).then_some(next);
        }
        self.disk.run(Op::Close { file }).await?;
        Ok(found)
    }

    /// Goes on where the swap was cut off: every step may have been done, in part or not at all.
    async fn complete(&self, base: Offset, next: Offset, listed: &[String]) -> io::Result<()> {
        let derived = [names::index(base), names::time_index(base), names::seal(base)];
        for name in derived {
            self.rename(name.clone() + names::SWAP, name).await?;
        }
        let others = listed.iter().filter_map(|name| names::segment_base(name));
        for other in others.filter(|other| *other > base && *other < next) {
            for name in [names::index(other), names::time_index(other), names::seal(other)] {
                self.unlink(name).await?;
            }
            self.unlink(names::segment(other)).await?;
        }
        sync_directory(self.disk, self.identity.dir.clone()).await?;
        self.rename(names::segment(base) + names::SWAP, names::segment(base)).await?;
        sync_directory(self.disk, self.identity.dir.clone()).await
    }

    async fn rename(&self, from: String, to: String) -> io::Result<()> {
        passing(self.disk.run(Op::Rename { from: self.path(from), to: self.path(to) }).await)
    }

    async fn unlink(&self, name: String) -> io::Result<()> {
        passing(self.disk.run(Op::Unlink { path: self.path(name) }).await)
    }
}

/// What is not there needs nothing done.
fn passing<T>(result: io::Result<T>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
