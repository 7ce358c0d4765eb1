//! What the merges of one process share: bytes being uploaded, bytes read ahead, and the rates they keep to.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::settings::CompactorSettings;
use crate::throttle::Throttle;

use super::source::WINDOWS;

/// What all read-ahead windows of one process take together, in bytes: a wider merge, or more of them, read smaller
/// windows.
const READ_BUDGET: u64 = 48 << 20;

/// No window is smaller, however many there are: a request must be worth its latency.
const LEAST_WINDOW: u64 = 64 << 10;

/// Permits of the upload budget are kibibytes, so that a table's length fits a permit count.
const PERMIT_BYTES: u64 = 1024;

/// Shared by every merge of a process. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Resources {
    /// Permits for bytes being uploaded.
    pub(super) uploads: Arc<Semaphore>,
    pub(super) upload_bytes: u64,
    pub(super) reads: Arc<Throttle>,
    pub(super) writes: Arc<Throttle>,
    merges: u64,
    most_window: u64,
}

impl Resources {
    /// As the settings say, for `settings.merge_workers` merges at a time.
    #[must_use]
    pub fn new(settings: &CompactorSettings) -> Self {
        let upload_bytes = settings.upload_bytes_in_flight;
        Self {
            uploads: Arc::new(Semaphore::new(permits(upload_bytes, upload_bytes) as usize)),
            upload_bytes,
            reads: Arc::new(Throttle::new(settings.max_read_bytes_per_second)),
            writes: Arc::new(Throttle::new(settings.max_write_bytes_per_second)),
            merges: settings.merge_workers as u64,
            most_window: settings.read_ahead_bytes,
        }
    }

    /// Bytes of one window of a merge of `sources` runs.
    pub(super) fn window_bytes(&self, sources: usize) -> u64 {
        let windows = WINDOWS * self.merges.max(1) * (sources as u64).max(1);
        (READ_BUDGET / windows).max(LEAST_WINDOW).min(self.most_window)
    }
}

/// Permits for `bytes`, never more than there are for `all` of them: a table larger than the budget goes alone.
pub(super) fn permits(bytes: u64, all: u64) -> u32 {
    let most = (all / PERMIT_BYTES).clamp(1, u64::from(u32::MAX));
    (bytes / PERMIT_BYTES + 1).min(most) as u32
}
