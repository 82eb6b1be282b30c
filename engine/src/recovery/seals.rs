//! Sealed segments that recovery does not read: what their seals say against what lies there, at the price of two
//! small files each. Whether every byte is right is for a scrub to see.

use std::io;

use crate::buffers::Arena;
use crate::command::{Disk, Op, OpenMode};
use crate::files::{open, read_small};
use crate::format::fixed::FixedError;
use crate::format::names;
use crate::format::seal::Seal;
use crate::log::Identity;
use crate::types::{Offset, Pos};

/// What was found of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// As long as its seal says, in its place.
    Good(Pos),
    /// No seal that says anything: it is to be checked as a whole, and sealed.
    Unsealed,
    /// Not what was sealed.
    Bad {
        /// Where in the file.
        pos: u64,
        /// In words.
        reason: String,
    },
}

/// Looks at one segment, which the one that begins with `following` comes after. Of a `foreign` partition seals say
/// nothing: they are left from another life.
pub(super) async fn check<D: Disk>(
    disk: &D,
    arena: &Arena,
    (identity, foreign): (&Identity, bool),
    (base, following): (Offset, Offset),
) -> io::Result<Found> {
    let path = identity.dir.join(names::seal(base));
    let Some(bytes) = read_small(disk, arena, &path).await? else { return Ok(Found::Unsealed) };
    let bad = |pos, reason: String| Ok(Found::Bad { pos, reason });
    let seal = match Seal::decode(&bytes) {
        Ok(seal) => seal,
        Err(FixedError::NewerVersion { found, .. }) => {
            return bad(0, format!("its seal is of a newer version, {found}"));
        }
        Err(_) => return Ok(Found::Unsealed),
    };
    if seal.incarnation != identity.incarnation {
        if foreign {
            return Ok(Found::Unsealed);
        }
        return bad(
            0,
            "its seal is of another partition, or of another life of this one".to_owned(),
        );
    }
    if seal.base_offset != base {
        return bad(0, format!("its seal is of the segment that begins with {}", seal.base_offset));
    }
    let path = identity.dir.join(names::segment(base));
    let mode = OpenMode { read_only: true, ..OpenMode::default() };
    let file = open(disk, &path, mode).await?;
    let length = disk.run(Op::Length { file }).await?.into_length();
    disk.run(Op::Close { file }).await?;
    if length != seal.length.get() {
        let reason = format!("it has {length} bytes, and was sealed with {}", seal.length.get());
        return bad(length.min(seal.length.get()), reason);
    }
    if seal.next_offset != following {
        let next = seal.next_offset;
        return bad(length, format!("the segment that begins with {next} is missing behind it"));
    }
    Ok(Found::Good(seal.length))
}
