//! Where logs begin, in Kafka's `log-start-offset-checkpoint`: read as Kafka or an earlier opening left it, and
//! made true before anything is read or appended.

use std::collections::BTreeMap;
use std::path::Path;

use crate::buffers::Arena;
use crate::command::Disk;
use crate::error::OpenError;
use crate::files::{read_small, write_small};
use crate::format::checkpoint::{decode_offsets, encode_offsets};
use crate::format::names;
use crate::types::{Offset, PartitionName};

use super::Recovered;

impl Recovered {
    /// Where the log begins, if its first segment's name does not say so.
    pub(crate) fn stated_start(&self) -> Option<Offset> {
        let first = self.sealed.first().map_or(self.active.base, |first| first.base);
        (self.log_start > first).then_some(self.log_start)
    }
}

/// Has the checkpoint say where logs begin whose first segment begins before that, and nothing else. A line above a
/// log's end, as a torn tail leaves it, would hide what is appended there; so would a line of a partition that is gone,
/// once there is one of its name again. Lines of damaged partitions stay as they are. The directory's flush is the
/// caller's.
pub(super) async fn settle<D: Disk>(
    disk: &D,
    arena: &Arena,
    dir: &Path,
    partitions: &[Recovered],
) -> Result<(), OpenError> {
    let path = dir.join(names::LOG_STARTS);
    let text = read_small(disk, arena, &path).await;
    let text = text.map_err(|e| OpenError::io(&path, "reading", e))?;
    let was = text.as_deref().map_or(Ok(Vec::new()), decode_offsets);
    let said: BTreeMap<PartitionName, Offset> =
        was.as_ref().map(|lines| lines.iter().cloned().collect()).unwrap_or_default();
    let mut starts = BTreeMap::new();
    for partition in partitions {
        let name = &partition.identity.name;
        let doubtful = partition.damage.is_some() || partition.suspect;
        let kept = said.get(name).copied().filter(|_| doubtful);
        if let Some(start) = kept.or(partition.stated_start()) {
            starts.insert(name.clone(), start);
        }
    }
    if was.is_ok() && starts == said {
        return Ok(());
    }
    let lines: Vec<_> = starts.into_iter().collect();
    let written = write_small(disk, arena, path.clone(), encode_offsets(&lines).as_bytes()).await;
    written.map_err(|e| OpenError::io(&path, "writing", e))
}
