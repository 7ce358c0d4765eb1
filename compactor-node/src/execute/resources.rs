//! What the merges of one process share: bytes of tables, bytes read ahead, and the rates they keep to.

use std::sync::Arc;

use isle_storage::object::PartBudget;

use crate::settings::CompactorSettings;
use crate::throttle::Throttle;

use super::source::WINDOWS;

/// What all read-ahead windows of one process take together, in bytes: a wider merge, or more of them, read smaller
/// windows.
const READ_BUDGET: u64 = 48 << 20;

/// No window is smaller, however many there are: a request must be worth its latency.
const LEAST_WINDOW: u64 = 64 << 10;

/// Shared by every merge of a process. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Resources {
    /// For parts of tables, being built or uploaded.
    pub(super) uploads: PartBudget,
    /// For parts of blob files that values move into.
    pub(super) values: PartBudget,
    pub(super) reads: Arc<Throttle>,
    pub(super) writes: Arc<Throttle>,
    merges: u64,
    most_window: u64,
}

impl Resources {
    /// As the settings say, for `settings.merge_workers` merges at a time.
    #[must_use]
    pub fn new(settings: &CompactorSettings) -> Self {
        let part = usize::try_from(settings.upload_part_bytes).unwrap_or(usize::MAX);
        // A part for each merge, or one's values could wait for another's, whose rows wait for the tables of the first.
        let values = (settings.upload_bytes_in_flight / 2)
            .max(settings.upload_part_bytes.saturating_mul(settings.merge_workers as u64));
        Self {
            uploads: PartBudget::new(settings.upload_bytes_in_flight, part),
            values: PartBudget::new(values, part),
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
