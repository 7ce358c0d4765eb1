//! Retries: the only place where a request to the store is repeated.
//!
//! Only passing failures are repeated, with exponential back-off and jitter, until a budget of time is spent; then
//! the last error is handed on and says how long was tried. The hard part is a conditional create whose reply is
//! lost:
//!
//! ```text
//!   create x ──▶ store writes x ──✗ reply lost
//!   create x ──▶ store: "x exists"          someone else's x, or ours?
//!   get x    ──▶ same bytes: ours, Ok       other bytes: lost, AlreadyExists
//! ```
//!
//! Reading back is sound because two competitors never write the same bytes: everything that is created carries an
//! incarnation or a commit id. "x exists" on the *first* attempt is another's win and is handed on at once.
//!
//! An upload's completion has the same trouble, since the store forgets the upload with it: an unknown upload at a
//! *repeated* completion is settled by looking whether the object is there, as long as it should be.
//!
//! An attempt with an unknown outcome makes the whole operation unknown: if a later attempt fails for good (say the
//! credentials expired meanwhile), the error still says [`StoreErrorKind::Transient`], because callers take any
//! other kind to mean "did not happen".

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use tokio::time::Instant;

use super::{
    Body, Bucket, Copied, ObjectMeta, Origin, PartAt, StoreError, StoreErrorKind, StoredPart, UploadId,
};
use crate::environment::Entropy;
use crate::names::ObjectPath;

/// Objects a broken listing may have delivered and still be resumed without repeating one. Beyond, the error goes
/// to the caller, who must begin again.
const MAX_LIST_RESUME: usize = 100_000;

/// How long and how often an operation is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Time from the first attempt after which no further one is begun.
    pub budget: Duration,
    /// The first pause; each following one doubles.
    pub first_pause: Duration,
    /// No pause is longer than this.
    pub max_pause: Duration,
}

impl RetryPolicy {
    /// The usual pauses (50 ms doubling to 5 s) within a budget.
    #[must_use]
    pub fn with_budget(budget: Duration) -> Self {
        Self { budget, first_pause: Duration::from_millis(50), max_pause: Duration::from_secs(5) }
    }

    /// The pause before attempt `n + 2`: between half and all of the doubling value.
    fn pause(&self, n: u32, random: u64) -> Duration {
        let whole = self.first_pause.saturating_mul(1 << n.min(20)).min(self.max_pause);
        let half = whole / 2;
        let micros = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).saturating_add(1);
        half + Duration::from_micros(random % micros)
    }
}

/// A bucket whose passing failures are repeated.
#[derive(Debug)]
pub struct RetryBucket {
    inner: Arc<dyn Bucket>,
    policy: RetryPolicy,
    entropy: Arc<dyn Entropy>,
}

impl RetryBucket {
    /// Repeats what fails in passing on `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Bucket>, policy: RetryPolicy, entropy: Arc<dyn Entropy>) -> Self {
        Self { inner, policy, entropy }
    }

    fn attempts(&self) -> Attempts {
        let entropy = Arc::clone(&self.entropy);
        Attempts { policy: self.policy, entropy, started: Instant::now(), failed: 0 }
    }

    /// A create found its name taken after an attempt whose outcome is unknown: whose object is it?
    async fn judge(&self, path: &ObjectPath, body: &Body, taken: StoreError) -> Result<(), StoreError> {
        match self.get(path).await {
            Ok(found) if body.equals(&found) => Ok(()),
            Ok(_) => Err(taken),
            Err(e) => Err(StoreError::new(
                StoreErrorKind::Transient,
                "create",
                path,
                format!("the name is taken, but whether by an earlier attempt of ours cannot be read: {e}"),
            )),
        }
    }
}

impl RetryBucket {
    /// The store knows no such upload after a completion whose outcome is unknown: did that one succeed?
    async fn judge_completion(
        &self,
        path: &ObjectPath,
        parts: &[StoredPart],
        unknown: StoreError,
    ) -> Result<(), StoreError> {
        let len: u64 = parts.iter().map(|p| p.len).sum();
        match self.head(path).await {
            Ok(meta) if meta.len == len => Ok(()),
            Ok(_) => Err(unknown),
            Err(e) if e.is_not_found() => Err(unknown),
            Err(e) => Err(StoreError::new(
                StoreErrorKind::Transient,
                "complete_upload",
                path,
                format!("whether an earlier attempt has completed it cannot be read: {e}"),
            )),
        }
    }
}

/// One operation's attempts so far.
struct Attempts {
    policy: RetryPolicy,
    entropy: Arc<dyn Entropy>,
    started: Instant,
    failed: u32,
}

impl Attempts {
    /// Waits before the next attempt, or hands the error on if there is none.
    async fn again(&mut self, error: StoreError) -> Result<(), StoreError> {
        if !error.is_transient() {
            return Err(error);
        }
        let pause = self.policy.pause(self.failed, self.entropy.next_u64());
        self.failed += 1;
        if self.started.elapsed() + pause > self.policy.budget {
            return Err(self.exhausted(error));
        }
        tracing::debug!(
            op = error.op,
            path = error.path,
            attempt = self.failed,
            pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            error = error.message,
            "a request to the bucket failed in passing and is repeated"
        );
        tokio::time::sleep(pause).await;
        Ok(())
    }

    fn exhausted(&self, error: StoreError) -> StoreError {
        if self.failed < 2 {
            return error;
        }
        let spent = self.started.elapsed().as_secs_f32();
        let message =
            format!("gave up after {} attempts in {spent:.1} s; the last: {}", self.failed, error.message);
        StoreError { message, ..error }
    }

    /// Like [`Attempts::again`] for a write, where an earlier attempt may have happened although this one did not.
    async fn write_again(&mut self, error: StoreError) -> Result<(), StoreError> {
        if self.failed > 0 && !error.is_transient() {
            let message = format!("an earlier attempt may have happened; the last one: {}", error.message);
            return Err(StoreError { kind: StoreErrorKind::Transient, message, ..error });
        }
        self.again(error).await
    }
}

#[async_trait]
impl Bucket for RetryBucket {
    async fn put(&self, path: &ObjectPath, body: Body) -> Result<(), StoreError> {
        let mut attempts = self.attempts();
        loop {
            match self.inner.put(path, body.clone()).await {
                Ok(()) => return Ok(()),
                Err(e) => attempts.write_again(e).await?,
            }
        }
    }

    async fn create(&self, path: &ObjectPath, body: Body) -> Result<(), StoreError> {
        let mut attempts = self.attempts();
        loop {
            match self.inner.create(path, body.clone()).await {
                Ok(()) => return Ok(()),
                Err(e) if e.kind == StoreErrorKind::AlreadyExists => {
                    return if attempts.failed == 0 { Err(e) } else { self.judge(path, &body, e).await };
                }
                Err(e) => attempts.write_again(e).await?,
            }
        }
    }

    async fn get(&self, path: &ObjectPath) -> Result<Bytes, StoreError> {
        let mut attempts = self.attempts();
        loop {
            match self.inner.get(path).await {
                Ok(bytes) => return Ok(bytes),
                Err(e) => attempts.again(e).await?,
            }
        }
    }

    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Bytes, StoreError> {
        let mut attempts = self.attempts();
        loop {
            match self.inner.get_range(path, range.clone()).await {
                Ok(bytes) => return Ok(bytes),
                Err(e) => attempts.again(e).await?,
            }
        }
    }

    async fn head(&self, path: &ObjectPath) -> Result<ObjectMeta, StoreError> {
        let mut attempts = self.attempts();
        loop {
            match self.inner.head(path).await {
                Ok(meta) => return Ok(meta),
                Err(e) => attempts.again(e).await?,
            }
        }
    }

    fn list(&self, folder: &str) -> BoxStream<'static, Result<ObjectMeta, StoreError>> {
        let listing = Listing {
            inner: Arc::clone(&self.inner),
            folder: folder.to_owned(),
            source: self.inner.list(folder),
            seen: HashSet::new(),
            attempts: self.attempts(),
        };
        stream::unfold(Some(listing), next_listed).boxed()
    }

    async fn delete(&self, path: &ObjectPath) -> Result<(), StoreError> {
        let mut attempts = self.attempts();
        loop {
            match self.inner.delete(path).await {
                Ok(()) => return Ok(()),
                Err(e) => attempts.write_again(e).await?,
            }
        }
    }

    async fn begin_upload(&self, path: &ObjectPath) -> Result<UploadId, StoreError> {
        let mut attempts = self.attempts();
        loop {
            match self.inner.begin_upload(path).await {
                Ok(id) => return Ok(id),
                // One that was begun and whose reply was lost holds nothing.
                Err(e) => attempts.again(e).await?,
            }
        }
    }

    async fn upload_part(
        &self,
        path: &ObjectPath,
        upload: &UploadId,
        at: PartAt,
        body: Body,
    ) -> Result<StoredPart, StoreError> {
        let mut attempts = self.attempts();
        loop {
            match self.inner.upload_part(path, upload, at, body.clone()).await {
                Ok(part) => return Ok(part),
                Err(e) => attempts.again(e).await?,
            }
        }
    }

    async fn complete_upload(
        &self,
        path: &ObjectPath,
        upload: &UploadId,
        parts: &[StoredPart],
    ) -> Result<(), StoreError> {
        let mut attempts = self.attempts();
        loop {
            match self.inner.complete_upload(path, upload, parts).await {
                Ok(()) => return Ok(()),
                Err(e) if e.is_not_found() && attempts.failed > 0 => {
                    return self.judge_completion(path, parts, e).await;
                }
                Err(e) => attempts.write_again(e).await?,
            }
        }
    }

    async fn abort_upload(&self, path: &ObjectPath, upload: &UploadId) -> Result<(), StoreError> {
        let mut attempts = self.attempts();
        loop {
            match self.inner.abort_upload(path, upload).await {
                Ok(()) => return Ok(()),
                Err(e) => attempts.again(e).await?,
            }
        }
    }

    fn origin(&self) -> Origin {
        self.inner.origin()
    }

    async fn copy_from(
        &self,
        source: &Origin,
        from: &ObjectPath,
        to: &ObjectPath,
    ) -> Result<Copied, StoreError> {
        let mut attempts = self.attempts();
        loop {
            match self.inner.copy_from(source, from, to).await {
                Ok(copied) => return Ok(copied),
                Err(e) => attempts.write_again(e).await?,
            }
        }
    }

    fn has_atomic_create(&self) -> bool {
        self.inner.has_atomic_create()
    }

    fn url(&self) -> String {
        self.inner.url()
    }
}

/// A listing that begins anew where its source breaks, and leaves out what it has already delivered.
struct Listing {
    inner: Arc<dyn Bucket>,
    folder: String,
    source: BoxStream<'static, Result<ObjectMeta, StoreError>>,
    seen: HashSet<String>,
    attempts: Attempts,
}

async fn next_listed(state: Option<Listing>) -> Option<(Result<ObjectMeta, StoreError>, Option<Listing>)> {
    let mut listing = state?;
    loop {
        match listing.source.next().await? {
            Ok(meta) => {
                if listing.seen.len() > MAX_LIST_RESUME {
                    return Some((Ok(meta), Some(listing)));
                }
                if listing.seen.insert(meta.path.clone()) {
                    // Progress: the next failure has the whole budget again.
                    listing.attempts.started = Instant::now();
                    listing.attempts.failed = 0;
                    return Some((Ok(meta), Some(listing)));
                }
            }
            Err(e) if listing.seen.len() > MAX_LIST_RESUME => return Some((Err(e), None)),
            Err(e) => match listing.attempts.again(e).await {
                Ok(()) => listing.source = listing.inner.list(&listing.folder),
                Err(e) => return Some((Err(e), None)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_limit_and_always_keep_half() {
        let policy = RetryPolicy::with_budget(Duration::from_secs(60));
        for n in 0..64 {
            let whole = policy.first_pause.saturating_mul(1 << n.min(20)).min(policy.max_pause);
            for random in [0, 1, u64::MAX / 3, u64::MAX] {
                let pause = policy.pause(n, random);
                assert!(pause >= whole / 2 && pause <= whole + Duration::from_micros(1), "{n} {pause:?}");
            }
        }
    }
}
