//! What is measured, by name.

use anyhow::Result;

use super::backend::Backend;
use super::values::{BackendName, name_of};
use crate::usage::usage;

pub mod engine;
pub mod null;
pub mod queue;

/// The backend of that name.
///
/// # Errors
/// A usage error if this build has none.
pub fn backend(name: BackendName) -> Result<Box<dyn Backend>> {
    Ok(match name {
        BackendName::Ringmain => Box::new(engine::Engine { sync: false }),
        BackendName::Sync => Box::new(engine::Engine { sync: true }),
        BackendName::Null => Box::new(null::Null),
        BackendName::Floor
        | BackendName::Pwrite
        | BackendName::BufferedRing
        | BackendName::TokioUring => {
            return Err(usage(format!("--backend {} is not in this build", name_of(name))));
        }
    })
}
