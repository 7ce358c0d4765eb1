//! The bucket itself: what was injected, what was asked, and the one under the other.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use isle_storage::names::ObjectPath;
use isle_storage::object::{
    Body, Bucket, Copied, ObjectMeta, Origin, PartAt, StoreError, StoreErrorKind, StoredPart, UploadId,
};
use parking_lot::Mutex;

use super::answer::Answer;
use super::rule::glob;
use super::{Fault, Gate, Op, Rule};

/// Names an injected fault, to remove it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultId(u64);

/// One operation as it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What was asked.
    pub op: Op,
    /// Of which object or folder.
    pub path: String,
    /// Bytes of the body written or read; zero for the others.
    pub len: u64,
    /// What the caller was told; `None` while it waits (or went away waiting).
    pub told: Option<Result<(), StoreErrorKind>>,
}

#[derive(Debug)]
struct Injected {
    id: FaultId,
    rule: Rule,
    fault: Fault,
}

/// A bucket that fails on command and remembers what was asked of it.
#[derive(Debug, Clone)]
pub struct FaultBucket {
    inner: Arc<dyn Bucket>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    next_id: AtomicU64,
    injected: Mutex<Vec<Injected>>,
    /// Numbered, so that an operation finds its entry even after some were taken away.
    history: Mutex<Vec<(u64, Event)>>,
}

impl FaultBucket {
    /// A faultless decorator over `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Bucket>) -> Arc<Self> {
        Arc::new(Self { inner, state: Arc::default() })
    }

    /// Adds a fault. Where several rules match one operation, the oldest with matches left strikes.
    pub fn inject(&self, rule: Rule, fault: Fault) -> FaultId {
        let id = FaultId(self.state.next_id.fetch_add(1, Ordering::Relaxed));
        self.state.injected.lock().push(Injected { id, rule, fault });
        id
    }

    /// Holds what the rule chooses before it is applied.
    pub fn hold(&self, rule: Rule) -> Gate {
        let gate = Gate::new();
        self.inject(rule, Fault::HoldBefore(gate.clone()));
        gate
    }

    /// Removes a fault; one that is used up is fine.
    pub fn remove(&self, id: FaultId) {
        self.state.injected.lock().retain(|i| i.id != id);
    }

    /// Removes every fault.
    pub fn heal(&self) {
        self.state.injected.lock().clear();
    }

    /// Everything asked so far, in the order it began.
    #[must_use]
    pub fn history(&self) -> Vec<Event> {
        self.state.history.lock().iter().map(|(_, event)| event.clone()).collect()
    }

    /// Forgets the history and hands it over.
    #[must_use]
    pub fn take_history(&self) -> Vec<Event> {
        std::mem::take(&mut *self.state.history.lock()).into_iter().map(|(_, event)| event).collect()
    }

    /// How often an operation of that kind was asked on paths of that pattern.
    #[must_use]
    pub fn count(&self, op: Op, pattern: &str) -> usize {
        let history = self.state.history.lock();
        history.iter().filter(|(_, e)| e.op == op && glob(pattern.as_bytes(), e.path.as_bytes())).count()
    }

    fn choose(&self, op: Op, path: &str) -> Option<Fault> {
        let mut injected = self.state.injected.lock();
        let mut struck = None;
        for i in injected.iter_mut().filter(|i| i.rule.matches(op, path)) {
            if i.rule.skip > 0 {
                i.rule.skip -= 1;
            } else if struck.is_none() && i.rule.times > 0 {
                i.rule.times -= 1;
                struck = Some(i.fault.clone());
            }
        }
        injected.retain(|i| i.rule.times > 0);
        struck
    }

    /// Runs one operation under its fault, if any, and notes it.
    async fn run<T: Answer>(
        &self,
        op: Op,
        path: &str,
        len: u64,
        apply: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let id = self.note(op, path, len);
        let result = self.strike(op, path, apply).await;
        self.tell(id, result.as_ref().map(Answer::read).map_err(|e| e.kind));
        result
    }

    async fn strike<T: Answer>(
        &self,
        op: Op,
        path: &str,
        apply: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        match self.choose(op, path) {
            None => apply.await,
            Some(Fault::Fail(kind)) => Err(injected(kind, op, path)),
            Some(Fault::LoseReply) => {
                apply.await.and_then(|_| Err(injected(StoreErrorKind::Transient, op, path)))
            }
            Some(Fault::Swallow) => Ok(T::lie(path)),
            Some(Fault::Delay(time)) => {
                tokio::time::sleep(time).await;
                apply.await
            }
            Some(Fault::Hang) => futures::future::pending().await,
            Some(Fault::HoldBefore(gate)) => {
                gate.pass().await;
                apply.await
            }
            Some(Fault::HoldAfter(gate)) => {
                let result = apply.await;
                gate.pass().await;
                result
            }
            Some(fault @ (Fault::FlipBit(_) | Fault::Truncate(_))) => {
                apply.await.map(|answer| answer.damage(&fault))
            }
        }
    }

    /// A listing under its fault: it strikes when the stream is first polled.
    async fn list_under_fault(self, folder: String) -> BoxStream<'static, Result<ObjectMeta, StoreError>> {
        let broken = |kind, folder: &str| {
            let error = injected(kind, Op::List, folder);
            stream::once(async { Err(error) })
        };
        match self.choose(Op::List, &folder) {
            Some(Fault::Fail(kind)) => return broken(kind, &folder).boxed(),
            Some(Fault::Truncate(n)) => {
                let whole = self.inner.list(&folder).take(n);
                return whole.chain(broken(StoreErrorKind::Transient, &folder)).boxed();
            }
            Some(Fault::LoseReply) => return broken(StoreErrorKind::Transient, &folder).boxed(),
            Some(Fault::Swallow) => return stream::empty().boxed(),
            Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
            Some(Fault::Hang) => futures::future::pending().await,
            Some(Fault::HoldBefore(gate) | Fault::HoldAfter(gate)) => gate.pass().await,
            Some(Fault::FlipBit(_)) | None => {}
        }
        self.inner.list(&folder)
    }

    fn note(&self, op: Op, path: &str, len: u64) -> u64 {
        let id = self.state.next_id.fetch_add(1, Ordering::Relaxed);
        self.state.history.lock().push((id, Event { op, path: path.to_owned(), len, told: None }));
        id
    }

    fn tell(&self, id: u64, told: Result<u64, StoreErrorKind>) {
        if let Some((_, event)) = self.state.history.lock().iter_mut().rev().find(|(i, _)| *i == id) {
            event.len += told.unwrap_or_default();
            event.told = Some(told.map(drop));
        }
    }
}

fn injected(kind: StoreErrorKind, op: Op, path: &str) -> StoreError {
    StoreError { kind, op: op.name(), path: path.to_owned(), message: "an injected fault".to_owned() }
}

#[async_trait]
impl Bucket for FaultBucket {
    async fn put(&self, path: &ObjectPath, body: Body) -> Result<(), StoreError> {
        self.run(Op::Put, path.as_str(), body.len(), self.inner.put(path, body)).await
    }

    async fn create(&self, path: &ObjectPath, body: Body) -> Result<(), StoreError> {
        self.run(Op::Create, path.as_str(), body.len(), self.inner.create(path, body)).await
    }

    async fn get(&self, path: &ObjectPath) -> Result<Bytes, StoreError> {
        self.run(Op::Get, path.as_str(), 0, self.inner.get(path)).await
    }

    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.run(Op::Get, path.as_str(), 0, self.inner.get_range(path, range)).await
    }

    async fn head(&self, path: &ObjectPath) -> Result<ObjectMeta, StoreError> {
        self.run(Op::Head, path.as_str(), 0, self.inner.head(path)).await
    }

    fn list(&self, folder: &str) -> BoxStream<'static, Result<ObjectMeta, StoreError>> {
        let id = self.note(Op::List, folder, 0);
        self.tell(id, Ok(0));
        self.clone().list_under_fault(folder.to_owned()).flatten_stream().boxed()
    }

    async fn begin_upload(&self, path: &ObjectPath) -> Result<UploadId, StoreError> {
        self.run(Op::Begin, path.as_str(), 0, self.inner.begin_upload(path)).await
    }

    async fn upload_part(
        &self,
        path: &ObjectPath,
        upload: &UploadId,
        at: PartAt,
        body: Body,
    ) -> Result<StoredPart, StoreError> {
        let len = body.len();
        self.run(Op::Part, path.as_str(), len, self.inner.upload_part(path, upload, at, body)).await
    }

    async fn complete_upload(
        &self,
        path: &ObjectPath,
        upload: &UploadId,
        parts: &[StoredPart],
    ) -> Result<(), StoreError> {
        self.run(Op::Complete, path.as_str(), 0, self.inner.complete_upload(path, upload, parts)).await
    }

    async fn abort_upload(&self, path: &ObjectPath, upload: &UploadId) -> Result<(), StoreError> {
        self.run(Op::Abort, path.as_str(), 0, self.inner.abort_upload(path, upload)).await
    }

    async fn delete(&self, path: &ObjectPath) -> Result<(), StoreError> {
        self.run(Op::Delete, path.as_str(), 0, self.inner.delete(path)).await
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
        self.run(Op::Copy, to.as_str(), 0, self.inner.copy_from(source, from, to)).await
    }

    fn has_atomic_create(&self) -> bool {
        self.inner.has_atomic_create()
    }

    fn url(&self) -> String {
        self.inner.url()
    }
}
