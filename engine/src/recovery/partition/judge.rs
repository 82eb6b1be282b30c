//! What lies behind the end of a walk: nothing, a torn tail, or damage.

use std::io;

use crate::command::{Disk, Op};
use crate::files::read_small;
use crate::format::names;
use crate::format::seal::Seal;
use crate::limits::TORN_WINDOW_BYTES;
use crate::types::Offset;

use super::super::scan::{Remainder, remainder};
use super::{Recovery, Walked};

/// What a segment's seal says of it, or what else does.
enum Sealing {
    /// It is not known to have been sealed.
    None,
    /// Sealed, and as it was then: what is missing at its end compaction took.
    Whole,
    /// Sealed, and no longer what it was then.
    Broken(String),
}

/// What lies behind a walk's end.
#[derive(Debug)]
pub(super) enum Verdict {
    Fine,
    Torn { last_nonzero: u64, later: Vec<Offset> },
    Corrupt(String),
}

impl<D: Disk> Recovery<'_, D> {
    /// Whether what lies behind the walk's end is nothing, a torn tail or corruption.
    pub(super) async fn judge(
        &self,
        (base, has_seal): (Offset, bool),
        walked: &mut Walked,
        later: &[Offset],
    ) -> io::Result<Verdict> {
        if walked.complete && !later.is_empty() {
            return Ok(Verdict::Fine);
        }
        match self.sealing((base, has_seal), walked, later.first().copied()).await? {
            // Compaction took the offsets away. Without such evidence the bytes behind the end are lost, and
            // what comes after them was never acknowledged.
            Sealing::Whole => return Ok(Verdict::Fine),
            // It was flushed before it was sealed: no crash did this.
            Sealing::Broken(reason) => return Ok(Verdict::Corrupt(reason)),
            Sealing::None if walked.end == walked.length && later.is_empty() => {
                return Ok(Verdict::Fine);
            }
            Sealing::None => {}
        }
        let file = (walked.file, walked.length);
        let block = self.terms.shape.block;
        let rest: Remainder = remainder(self.disk, self.arena, file, walked.end, block).await?;
        walked.read_bytes += rest.read_bytes;
        let mut beyond = rest.last_nonzero.map_or(0, |last| last - walked.end);
        for base in later {
            let (file, length) = self.open(*base).await?;
            let rest = remainder(self.disk, self.arena, (file, length), 0, block).await?;
            self.disk.run(Op::Close { file }).await?;
            walked.read_bytes += rest.read_bytes;
            beyond += rest.last_nonzero.unwrap_or(0);
        }
        let last_nonzero = rest.last_nonzero.unwrap_or(walked.end);
        if beyond == 0 && later.is_empty() {
            return Ok(Verdict::Torn { last_nonzero, later: Vec::new() });
        }
        if self.terms.suspect {
            let reason = "a damaged journal group may have held what is missing here".to_owned();
            return Ok(Verdict::Corrupt(reason));
        }
        if self.terms.clean {
            return Ok(Verdict::Corrupt("the directory was closed cleanly".to_owned()));
        }
        if self.terms.relaxed || beyond <= TORN_WINDOW_BYTES {
            return Ok(Verdict::Torn { last_nonzero, later: later.to_vec() });
        }
        Ok(Verdict::Corrupt(format!(
            "{beyond} bytes lie behind it, more than can have been in flight ({TORN_WINDOW_BYTES})"
        )))
    }

    /// The segment's seal, if it is of this segment.
    async fn seal(&self, base: Offset) -> io::Result<Option<Seal>> {
        let path = self.identity.dir.join(names::seal(base));
        let bytes = read_small(self.disk, self.arena, &path).await?;
        let seal = bytes.and_then(|bytes| Seal::decode(&bytes).ok());
        let incarnation = self.identity.incarnation;
        Ok(seal.filter(|seal| seal.incarnation == incarnation && seal.base_offset == base))
    }

    /// What is known of the sealing of a segment that is the last one, or whose walk did not reach the next.
    async fn sealing(
        &self,
        (base, has_seal): (Offset, bool),
        walked: &Walked,
        following: Option<Offset>,
    ) -> io::Result<Sealing> {
        if self.terms.foreign {
            // Seals that are there are left from another life.
            return Ok(if walked.gap { Sealing::Whole } else { Sealing::None });
        }
        if has_seal && let Some(seal) = self.seal(base).await? {
            let to_the_end = walked.end == walked.length;
            let next = following.filter(|_| walked.gap).unwrap_or(walked.next);
            let (next_offset, length) = (seal.next_offset, seal.length.get());
            if to_the_end && (next_offset, length) == (next, walked.end) {
                return Ok(Sealing::Whole);
            }
            let was = format!("the segment was sealed with {length} bytes, up to {next_offset}");
            return Ok(Sealing::Broken(was));
        }
        let Some(following) = following else { return Ok(Sealing::None) };
        // What compaction has gone over was sealed, whatever became of its seal.
        if !has_seal && self.terms.cleaned.is_none_or(|cleaned| following > cleaned) {
            return Ok(Sealing::None);
        }
        if self.terms.compacted && walked.gap && walked.end == walked.length {
            // Cut to its data, as a sealed one is. It gets another seal.
            return Ok(Sealing::Whole);
        }
        Ok(Sealing::Broken("the segment was sealed, and its seal can not be read".to_owned()))
    }

    /// Whether the last segment is sealed: rolled, and nothing was appended since.
    pub(super) async fn is_last_sealed(
        &self,
        (base, has_seal): (Offset, bool),
        walked: &Walked,
    ) -> io::Result<bool> {
        Ok(matches!(self.sealing((base, has_seal), walked, None).await?, Sealing::Whole))
    }
}
