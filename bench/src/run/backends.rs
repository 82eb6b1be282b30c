//! What is measured, by name.

use super::backend::Backend;
use super::values::BackendName;

pub mod engine;
pub mod null;
pub mod queue;

/// The backend of that name.
pub fn backend(name: BackendName) -> Box<dyn Backend> {
    match name {
        BackendName::Ringmain => Box::new(engine::Engine { sync: false }),
        BackendName::Sync => Box::new(engine::Engine { sync: true }),
        BackendName::Null => Box::new(null::Null),
    }
}
