//! A bucket that fails on command: failure as an input, chosen by operation, path and count.
//!
//! ```
//! # use std::sync::Arc;
//! # use isle_storage::object::{Bucket, StoreErrorKind};
//! # use isle_testkit::fault::{Fault, FaultBucket, Op, Rule};
//! # fn example(inner: Arc<dyn Bucket>) {
//! let store = FaultBucket::new(inner);
//! // The second put of a log segment is applied, and its reply lost.
//! store.inject(Rule::on(Op::Put).path("log/*.seg").nth(2), Fault::LoseReply);
//! // Every read fails until further notice.
//! let outage = store.inject(Rule::on(Op::Get), Fault::Fail(StoreErrorKind::Transient));
//! store.remove(outage);
//! // The next create waits until the test lets it go on.
//! let gate = store.hold(Rule::on(Op::Create).nth(1));
//! # }
//! ```

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use isle_storage::names::ObjectPath;
use isle_storage::object::{
    Body, Bucket, ObjectMeta, PartAt, StoreError, StoreErrorKind, StoredPart, UploadId,
};
use parking_lot::Mutex;
use tokio::sync::watch;

/// Operations of a bucket, as rules choose them; a ranged get is a [`Op::Get`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// `put`
    Put,
    /// `create`
    Create,
    /// `get` and `get_range`
    Get,
    /// `head`
    Head,
    /// `list`; its path is the folder
    List,
    /// `delete`
    Delete,
    /// `begin_upload`
    Begin,
    /// `upload_part`
    Part,
    /// `complete_upload`
    Complete,
    /// `abort_upload`
    Abort,
}

impl Op {
    fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Create => "create",
            Self::Get => "get",
            Self::Head => "head",
            Self::List => "list",
            Self::Delete => "delete",
            Self::Begin => "begin_upload",
            Self::Part => "upload_part",
            Self::Complete => "complete_upload",
            Self::Abort => "abort_upload",
        }
    }
}

/// What happens to an operation that a rule chooses.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Fails without being applied.
    Fail(StoreErrorKind),
    /// Is applied; the caller is told [`StoreErrorKind::Transient`].
    LoseReply,
    /// Is not applied; the caller is told Ok. A store that lies.
    Swallow,
    /// Begins later, in tokio's time.
    Delay(Duration),
    /// Never begins and never ends.
    Hang,
    /// Waits at the gate before it is applied.
    HoldBefore(Gate),
    /// Is applied, and waits at the gate before the caller is told.
    HoldAfter(Gate),
    /// A get's answer has a bit flipped at this offset (from its end if negative).
    FlipBit(i64),
    /// A get's answer is cut to this length; a listing breaks with [`StoreErrorKind::Transient`] after so many objects.
    Truncate(usize),
}

/// A place where operations wait until a test lets them go on. Dropping every handle but the store's does not open it.
#[derive(Debug, Clone)]
pub struct Gate(Arc<GateState>);

#[derive(Debug)]
struct GateState {
    open: watch::Sender<bool>,
    waiting: watch::Sender<usize>,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(GateState { open: watch::Sender::new(false), waiting: watch::Sender::new(0) }))
    }

    /// Waits until at least `n` operations have arrived at the gate (those let through count too).
    pub async fn arrived(&self, n: usize) {
        // The sender lives in this very gate, so waiting cannot fail.
        let mut arrivals = self.0.waiting.subscribe();
        let _alive = arrivals.wait_for(|&arrived| arrived >= n).await;
    }

    /// Lets everybody through, now and later.
    pub fn open(&self) {
        self.0.open.send_replace(true);
    }

    async fn pass(&self) {
        self.0.waiting.send_modify(|n| *n += 1);
        let mut opening = self.0.open.subscribe();
        let _alive = opening.wait_for(|&open| open).await;
    }
}

type Predicate = Arc<dyn Fn(Op, &str) -> bool + Send + Sync>;

/// Which operations a fault strikes. Without `nth` it strikes every matching one until it is removed.
#[derive(Clone)]
pub struct Rule {
    op: Option<Op>,
    path: Option<String>,
    predicate: Option<Predicate>,
    skip: u64,
    times: u64,
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}, {} after {}", self.op, self.path, self.times, self.skip)
    }
}

impl Rule {
    /// Every operation of any kind.
    #[must_use]
    pub fn any() -> Self {
        Self { op: None, path: None, predicate: None, skip: 0, times: u64::MAX }
    }

    /// Every operation of one kind.
    #[must_use]
    pub fn on(op: Op) -> Self {
        Self { op: Some(op), ..Self::any() }
    }

    /// Only paths of this pattern, where `*` stands for anything, slashes included.
    #[must_use]
    pub fn path(self, pattern: &str) -> Self {
        Self { path: Some(pattern.to_owned()), ..self }
    }

    /// Only where this says so.
    #[must_use]
    pub fn when(self, predicate: impl Fn(Op, &str) -> bool + Send + Sync + 'static) -> Self {
        Self { predicate: Some(Arc::new(predicate)), ..self }
    }

    /// Only the `n`th match from now on, the first being 1.
    #[must_use]
    pub fn nth(self, n: u64) -> Self {
        self.after(n.saturating_sub(1)).times(1)
    }

    /// Not the first `n` matches.
    #[must_use]
    pub fn after(self, n: u64) -> Self {
        Self { skip: n, ..self }
    }

    /// At most `n` matches.
    #[must_use]
    pub fn times(self, n: u64) -> Self {
        Self { times: n, ..self }
    }

    fn matches(&self, op: Op, path: &str) -> bool {
        self.op.is_none_or(|wanted| wanted == op)
            && self.path.as_deref().is_none_or(|pattern| glob(pattern.as_bytes(), path.as_bytes()))
            && self.predicate.as_ref().is_none_or(|says| says(op, path))
    }
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|at| glob(rest, &text[at..])),
        Some((c, rest)) => text.split_first().is_some_and(|(t, after)| t == c && glob(rest, after)),
    }
}

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

/// What faults can do to an operation's answer.
trait Answer: Sized {
    /// The answer of a store that did nothing.
    fn lie(path: &str) -> Self;

    /// Bytes read.
    fn read(&self) -> u64 {
        0
    }

    /// The answer with its bytes damaged.
    fn damage(self, _: &Fault) -> Self {
        self
    }
}

impl Answer for () {
    fn lie(_: &str) -> Self {}
}

impl Answer for Bytes {
    fn lie(_: &str) -> Self {
        Self::new()
    }

    fn read(&self) -> u64 {
        self.len() as u64
    }

    fn damage(self, fault: &Fault) -> Self {
        match *fault {
            Fault::Truncate(len) => self.slice(..len.min(self.len())),
            Fault::FlipBit(offset) if !self.is_empty() => {
                let mut bytes = self.to_vec();
                let at = offset.rem_euclid(bytes.len() as i64) as usize;
                bytes[at] ^= 1;
                bytes.into()
            }
            _ => self,
        }
    }
}

impl Answer for UploadId {
    fn lie(path: &str) -> Self {
        Self(path.to_owned())
    }
}

impl Answer for StoredPart {
    fn lie(_: &str) -> Self {
        Self { len: 0, tag: String::new() }
    }
}

impl Answer for ObjectMeta {
    fn lie(path: &str) -> Self {
        Self { path: path.to_owned(), len: 0, last_modified: isle_storage::ids::Timestamp::default() }
    }
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

    fn has_atomic_create(&self) -> bool {
        self.inner.has_atomic_create()
    }

    fn url(&self) -> String {
        self.inner.url()
    }
}
