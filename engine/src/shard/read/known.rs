//! What is known of a sealed segment: found out at its first use, by its seal.

use crate::error::{Alteration, ReadError};
use crate::files::read_small;
use crate::format::fixed::FixedError;
use crate::format::names;
use crate::format::seal::Seal;
use crate::journal::LogId;
use crate::log::Derived;
use crate::shard::open_files::open;
use crate::shard::{Context, reseal};
use crate::types::{Offset, Pos};

use super::disk_error;
use super::locate::Place;

/// A sealed segment's facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// Where its data ends; where its file does, if it has no seal.
    pub(crate) end: Pos,
    /// Its largest timestamp in milliseconds, -1 if no record has one; `None` if only reading it as a whole can tell.
    pub(crate) max_timestamp: Option<i64>,
    /// Whether a seal says so.
    pub(crate) sealed: bool,
}

/// Finds out about a sealed segment: nothing is read if it is known already, else its seal. A segment without one is
/// read as a whole in the background, and gets one.
///
/// # Errors
/// [`ReadError::Altered`] if the seal is another segment's, or what it says can not be; [`ReadError::Disk`],
/// [`ReadError::Closed`].
pub(crate) async fn know(cx: &Context, id: LogId, base: Offset) -> Result<Known, ReadError> {
    let altered = |what| ReadError::Altered { segment: base, what };
    let (path, incarnation, following, good) = {
        let mut state = cx.state.borrow_mut();
        let Some(log) = state.log(id) else { return Err(ReadError::Closed) };
        let incarnation = log.identity.incarnation;
        // Deleted, or not sealed any more: who looks for it has to look again.
        let Some((found, following)) = log.sealed_at(base) else {
            return Err(altered(Alteration::Missing));
        };
        let good = found.derived == Derived::Good;
        if let (Some(end), max_timestamp @ Some(_)) = (found.end, found.max_timestamp) {
            return Ok(Known { end, max_timestamp, sealed: found.has_seal });
        }
        (log.identity.dir.join(names::seal(base)), incarnation, following, good)
    };
    if good {
        let bytes = read_small(&cx.disk, &cx.arena(), &path).await.map_err(disk_error)?;
        match bytes.as_deref().map(Seal::decode) {
            Some(Ok(seal)) => {
                seal.check(incarnation, (base, following)).map_err(altered)?;
                let (end, max_timestamp) = (seal.length, seal.max_timestamp);
                let mut state = cx.state.borrow_mut();
                let now_ms = state.time.wall_ms;
                if let Some((found, _)) = state.log(id).and_then(|log| log.sealed_at(base)) {
                    // Compaction may have put another one in its place meanwhile, of which more is known.
                    if found.max_timestamp.is_none() {
                        (found.end, found.max_timestamp) = (Some(end), Some(max_timestamp));
                        let newest_ms = if seal.newest_ms == 0 { now_ms } else { seal.newest_ms };
                        found.newest_ms.get_or_insert(newest_ms);
                        found.has_seal = true;
                    }
                }
                return Ok(Known { end, max_timestamp: Some(max_timestamp), sealed: true });
            }
            Some(Err(FixedError::NewerVersion { found, .. })) => {
                return Err(altered(Alteration::NewerSeal { version: found }));
            }
            Some(Err(_)) | None => reseal::rebuild(&mut cx.state.borrow_mut(), id, base),
        }
    }
    let length = open(cx, id, base).await?.length();
    Ok(Known { end: Pos::new(length.min(i32::MAX as u64)), max_timestamp: None, sealed: false })
}

/// The place with what is known of its sealed segment.
pub(crate) async fn known(cx: &Context, id: LogId, place: Place) -> Result<Place, ReadError> {
    let Known { end, sealed, .. } = know(cx, id, place.base).await?;
    Ok(Place { end: Some(end), sealed, ..place })
}
