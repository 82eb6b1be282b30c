//! What comes behind damage.

use crate::batch::validate_stored;
use crate::error::ReadError;
use crate::journal::LogId;
use crate::shard::Context;
use crate::shard::keep::Glance;
use crate::shard::read::Reader;
use crate::shard::shield::Shield;
use crate::types::{Isolation, Offset, Pos};

use super::Fetch;
use super::locate::admitted;
use super::source::{Seen, Segments};

/// Where a fetch found damage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Damage {
    segment: Offset,
    /// `None`: the segment as a whole is not what was sealed.
    pos: Option<Pos>,
    /// What the fetch began with: what comes behind the damage comes behind that.
    asked: Offset,
    isolation: Isolation,
}

impl Damage {
    /// The place that the error of a fetch names, if it is one of damage.
    pub(crate) fn of(error: &ReadError, ask: &Fetch) -> Option<Self> {
        let (segment, pos) = match *error {
            ReadError::Damaged { segment, pos, .. } => (segment, Some(Pos::new(pos))),
            ReadError::Altered { segment, .. } => (segment, None),
            _ => return None,
        };
        Some(Self { segment, pos, asked: ask.offset, isolation: ask.isolation })
    }
}

/// The offset of the first intact batch behind damage: of the batch right behind it if its length can still be read,
/// else of the next one that the index knows, else of the next segment that is there.
pub(crate) async fn pass_over(
    cx: &Context,
    id: LogId,
    damage: Damage,
) -> Result<Offset, ReadError> {
    let cx2 = cx.clone();
    let passed = async move {
        loop {
            admitted(&cx2, id).await?;
            let glance = Glance::begin(&cx2, id, damage.segment).await;
            let next = next_intact(&cx2, id, damage).await;
            // Else it was looked for in the file of a segment that was compacted meanwhile.
            if glance.holds(&cx2, id) {
                return next;
            }
        }
    };
    Shield::new(cx, passed).await
}

async fn next_intact(cx: &Context, id: LogId, damage: Damage) -> Result<Offset, ReadError> {
    let _reader = Reader::new(cx, id);
    let Damage { segment: base, pos, asked, isolation } = damage;
    let mut segments = Segments::new(cx, id);
    let bound = segments
        .with(|state, id| {
            let marks = state.log(id)?.watermarks();
            Some(match isolation {
                Isolation::Durable => marks.durable,
                Isolation::Dirty => marks.dirty,
            })
        })
        .ok_or(ReadError::Deleted)?;
    let following = segments.following(base);
    let limit = following.unwrap_or(bound).min(bound);
    let Some(pos) = pos else { return Ok(limit) };
    match within(&mut segments, base, (pos, asked, limit)).await {
        Ok(found) => Ok(found.unwrap_or(limit)),
        // All that is left of it is damaged.
        Err(ReadError::Damaged { .. } | ReadError::Altered { .. }) => Ok(limit),
        Err(error) => Err(error),
    }
}

/// The first offset of the next intact batch of the segment behind `pos` that lies behind `asked` and below `limit`.
async fn within(
    segments: &mut Segments<'_>,
    base: Offset,
    (pos, asked, limit): (Pos, Offset, Offset),
) -> Result<Option<Offset>, ReadError> {
    let (end, _) = segments.end(base).await?;
    let mut at = match segments.batch(base, (pos.min(end), end)).await? {
        Some(seen) => seen.end,
        None => pos.plus(1),
    };
    while at < end {
        if let Some(seen) = intact(segments, base, (at, end)).await?
            && asked < seen.base
            && seen.base < limit
        {
            return Ok(Some(seen.base));
        }
        let Some(next) = segments.next_indexed(base, at).await? else { break };
        at = next;
    }
    Ok(None)
}

/// The batch at `pos`, if it is whole and its checksum is right.
async fn intact(
    segments: &mut Segments<'_>,
    base: Offset,
    (pos, end): (Pos, Pos),
) -> Result<Option<Seen>, ReadError> {
    let Some(seen) = segments.batch(base, (pos, end)).await? else { return Ok(None) };
    let mut bytes = Vec::with_capacity(seen.end.since(pos) as usize);
    segments.read(base, (pos, seen.end), &mut bytes).await?;
    Ok(validate_stored(&bytes).is_ok().then_some(seen))
}
