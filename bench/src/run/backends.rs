//! What is measured, by name.

use super::backend::Backend;
use super::peers::pwrite::Pwrite;
use super::peers::ring::{Rings, Way};
use super::peers::tokio::TokioUring;
use super::values::BackendName;

pub mod engine;
pub mod null;
pub mod queue;

/// The backend of that name.
pub fn backend(name: BackendName) -> Box<dyn Backend> {
    match name {
        BackendName::Ringmain => Box::new(engine::Engine { sync: false }),
        BackendName::Sync => Box::new(engine::Engine { sync: true }),
        BackendName::Floor => Box::new(Rings(Way::Direct)),
        BackendName::Pwrite => Box::new(Pwrite),
        BackendName::BufferedRing => Box::new(Rings(Way::Buffered)),
        BackendName::TokioUring => Box::new(TokioUring),
        BackendName::Null => Box::new(null::Null),
    }
}
