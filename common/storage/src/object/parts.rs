//! The words of uploads in parts, and the memory that parts share. [`super::Upload`] is what makes use of them.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Length of every part but the last where nothing else is said. Stores want at least 5 MiB, some want equal parts.
pub const PART_BYTES: usize = 8 << 20;

/// Bytes a permit stands for.
const PERMIT_BYTES: usize = 1 << 10;

/// The store's name for an upload under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UploadId(pub String);

/// Which part of an upload: its number from zero, and where its bytes lie in the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartAt {
    /// Its number, from zero.
    pub number: u32,
    /// Its first byte's place in the object.
    pub offset: u64,
}

/// A part that the store has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPart {
    /// Its length in bytes.
    pub len: u64,
    /// The store's word for it.
    pub tag: String,
}

/// Bytes of parts in memory, over all uploads that share it.
#[derive(Debug, Clone)]
pub struct PartBudget {
    permits: Arc<Semaphore>,
    limit: usize,
    part_bytes: usize,
}

impl PartBudget {
    /// At most `bytes` at once, in parts of `part_bytes`; one part always fits.
    #[must_use]
    pub fn new(bytes: u64, part_bytes: usize) -> Self {
        let wanted = usize::try_from(bytes).unwrap_or(usize::MAX).max(part_bytes);
        let limit = wanted.div_ceil(PERMIT_BYTES).min(Semaphore::MAX_PERMITS);
        Self { permits: Arc::new(Semaphore::new(limit)), limit, part_bytes: part_bytes.max(1) }
    }

    /// Bytes in memory at present, by what was taken for them.
    #[must_use]
    pub fn taken(&self) -> u64 {
        ((self.limit - self.permits.available_permits().min(self.limit)) * PERMIT_BYTES) as u64
    }

    /// Length of a part.
    #[must_use]
    pub fn part_bytes(&self) -> usize {
        self.part_bytes
    }

    /// Waits until `bytes` may be held.
    pub(super) async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let wanted = u32::try_from(bytes.div_ceil(PERMIT_BYTES).min(self.limit)).unwrap_or(u32::MAX);
        // Never closed.
        Arc::clone(&self.permits).acquire_many_owned(wanted).await.ok()
    }
}
