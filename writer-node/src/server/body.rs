//! The budget of request bodies: bytes read from clients and not yet handed to the engine, over all requests.
//!
//! The engine's admission counts what it has accepted; without this one, ten thousand clients in the middle of sending
//! a value each would be bounded by nothing.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::Body as _;
use isle_service::wire::body::{MAX_LINE_BYTES, read_value};
use isle_service::{ApiError, ErrorCode};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::settings::WriterSettings;

/// Bytes of request bodies in memory.
#[derive(Debug)]
pub(super) struct Bodies {
    budget: Semaphore,
    limit: usize,
    wait: Duration,
}

impl Bodies {
    pub(super) fn new(settings: &WriterSettings) -> Self {
        // One longest line must always fit, or nobody could ever send it.
        let limit =
            settings.request_bytes.clamp(MAX_LINE_BYTES, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Self { budget: Semaphore::new(limit), limit, wait: Duration::from_millis(settings.admission_wait_ms) }
    }

    /// Takes the right to hold `bytes` of a body; 429 where they are not free in time.
    pub(super) async fn hold(&self, bytes: usize) -> Result<SemaphorePermit<'_>, ApiError> {
        let wanted = u32::try_from(bytes.min(self.limit)).unwrap_or(u32::MAX);
        let held = tokio::time::timeout(self.wait, self.budget.acquire_many(wanted)).await;
        held.ok().and_then(Result::ok).ok_or_else(|| {
            let free = self.budget.available_permits();
            let message =
                format!("{} of {} bytes of request bodies are in memory", self.limit - free, self.limit);
            ApiError::new(ErrorCode::Overloaded, message)
        })
    }

    /// Reads a value whole, of at most `limit` bytes.
    pub(super) async fn value(
        &self,
        body: Body,
        limit: usize,
    ) -> Result<(Bytes, SemaphorePermit<'_>), ApiError> {
        let announced = body.size_hint().upper().map_or(limit, |n| usize::try_from(n).unwrap_or(limit));
        let held = self.hold(announced.min(limit)).await?;
        Ok((read_value(body, limit).await?, held))
    }
}
