//! The signal that a stop has begun.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::error::{ApiError, ErrorCode};

/// Shared handle to "we are stopping": streams wait for it to send their closing event, handlers ask it before they take
/// new work.
#[derive(Debug, Clone, Default)]
pub struct Drain(CancellationToken);

impl Drain {
    /// Nothing is stopping yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the stop.
    pub fn start(&self) {
        self.0.cancel();
    }

    /// Whether it has begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until it begins.
    pub async fn draining(&self) {
        self.0.cancelled().await;
    }

    /// 503 `shutting_down` once it has begun.
    pub fn check(&self) -> Result<(), ApiError> {
        if !self.is_draining() {
            return Ok(());
        }
        let error = ApiError::new(ErrorCode::ShuttingDown, "this program is stopping and takes no new work");
        Err(error.retry_after(Duration::from_secs(1)))
    }
}
