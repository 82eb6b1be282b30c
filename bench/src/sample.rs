//! What one slice of one arm came to.

use std::time::Duration;

use crate::histogram::Latencies;

/// Figures of one slice.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Latencies of the requests that ended in the measured time.
    pub latencies: Latencies,
    /// Records (for a device: writes) that ended in it.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The measured time.
    pub elapsed: Duration,
}

impl Sample {
    /// Nothing yet, in `elapsed`.
    pub fn empty(elapsed: Duration) -> Self {
        Self { latencies: Latencies::new(), records: 0, bytes: 0, elapsed }
    }

    /// Records a second.
    pub fn records_per_s(&self) -> f64 {
        self.records as f64 / self.elapsed.as_secs_f64()
    }

    /// Mebibytes a second.
    pub fn mib_per_s(&self) -> f64 {
        self.bytes as f64 / self.elapsed.as_secs_f64() / f64::from(1 << 20)
    }
}
