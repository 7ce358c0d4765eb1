//! The bridge from the `object_store` crate's stores to [`Bucket`]: paths below a prefix, time limits, and errors
//! that mean the same at every provider.
//!
//! The crate's own retries are switched off (see [`super::retry`] for ours): a retry hidden in a client library
//! turns its own success into "somebody else was first". Its total time limit is off as well, because it would cut
//! large uploads on slow lines; here a request is given up when it stays without progress.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResult, ObjectStore, ObjectStoreExt, PutMode, PutPayload};

use super::cloud::failure;
use super::location::Cloud;
use super::{
    Body, Bucket, Copied, Credentials, ObjectMeta, Origin, PartAt, StoreError, StoreErrorKind, StoreSettings,
    StoredPart, UploadId,
};
use crate::ids::Timestamp;
use crate::names::ObjectPath;

/// Uploads slower than this are given up: their size's time at this rate is added to the request's time limit.
const MIN_UPLOAD_BYTES_PER_SECOND: u64 = 256 << 10;

/// A provider's client, in both of its forms.
pub(super) struct Store {
    whole: Arc<dyn ObjectStore>,
    parts: Arc<dyn MultipartStore>,
}

impl Store {
    /// Both forms of one client.
    #[cfg_attr(
        not(any(feature = "aws", feature = "gcp", feature = "azure")),
        expect(dead_code, reason = "no provider")
    )]
    pub(super) fn new<S: ObjectStore + MultipartStore>(client: S) -> Self {
        let client = Arc::new(client);
        Self { whole: Arc::clone(&client) as Arc<dyn ObjectStore>, parts: client }
    }
}

struct Parts(Arc<dyn MultipartStore>);

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Parts")
    }
}

/// A bucket of a cloud store and how it is reached, apart from the prefix: two prefixes that have this in common are
/// copied between by the store, with rights that are good for both.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reached {
    /// Without its prefix.
    bucket: Cloud,
    credentials: Credentials,
}

/// A prefix in such a bucket, for another prefix that takes objects of it by reference.
#[derive(Debug)]
struct Prefix {
    of: Reached,
    prefix: String,
}

/// A cloud store as a bucket.
#[derive(Debug)]
pub(super) struct Adapter {
    store: Arc<dyn ObjectStore>,
    /// The same store, as it takes objects in parts.
    parts: Parts,
    reached_by: Reached,
    prefix: String,
    url: String,
    timeout: Duration,
    /// Whether the bucket has answered once, so that "not found" surely means the object.
    reached: AtomicBool,
}

impl Adapter {
    /// Objects of `store`, the client of `cloud`, below its prefix.
    pub(super) fn new(store: Store, cloud: &Cloud, settings: &StoreSettings) -> Self {
        let Store { whole, parts } = store;
        let bucket = Cloud { prefix: String::new(), ..cloud.clone() };
        Self {
            store: whole,
            parts: Parts(parts),
            reached_by: Reached { bucket, credentials: settings.credentials.clone() },
            prefix: cloud.prefix.clone(),
            url: cloud.to_string(),
            timeout: Duration::from_secs(settings.request_timeout_seconds),
            reached: AtomicBool::new(false),
        }
    }

    fn locate(&self, op: &'static str, path: &ObjectPath) -> Result<Path, StoreError> {
        located(op, &self.prefix, path)
    }

    /// Runs one request under the time limit and translates its error.
    async fn request<T>(
        &self,
        op: &'static str,
        path: &ObjectPath,
        limit: Duration,
        request: impl Future<Output = object_store::Result<T>> + Send,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(limit, request).await {
            Ok(Ok(answer)) => {
                self.reached.store(true, Ordering::Relaxed);
                Ok(answer)
            }
            Ok(Err(e)) => Err(failure::explain(op, path.as_str(), &e)),
            Err(_) => Err(failure::timed_out(op, path.as_str(), limit)),
        }
    }

    async fn write(
        &self,
        op: &'static str,
        path: &ObjectPath,
        body: Body,
        mode: PutMode,
    ) -> Result<(), StoreError> {
        let location = self.locate(op, path)?;
        let (payload, limit) = (payload(&body), self.limit_of(&body));
        let request = self.store.put_opts(&location, payload, mode.into());
        self.request(op, path, limit, request).await.map(drop)
    }

    fn limit_of(&self, body: &Body) -> Duration {
        self.timeout + Duration::from_secs(body.len() / MIN_UPLOAD_BYTES_PER_SECOND)
    }

    async fn read(&self, path: &ObjectPath, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        let location = self.locate("get", path)?;
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        let answer = self.request("get", path, self.timeout, self.store.get_opts(&location, options)).await?;
        self.collect(path, answer).await
    }

    /// The body of an answer; each piece has the time limit to itself.
    async fn collect(&self, path: &ObjectPath, answer: GetResult) -> Result<Bytes, StoreError> {
        let expected = answer.range.end - answer.range.start;
        let mut pieces = answer.into_stream();
        let first = self.piece(path, &mut pieces).await?.unwrap_or_default();
        if first.len() as u64 == expected {
            return Ok(first);
        }
        let mut whole = BytesMut::with_capacity(expected as usize);
        whole.extend_from_slice(&first);
        while let Some(piece) = self.piece(path, &mut pieces).await? {
            whole.extend_from_slice(&piece);
        }
        if whole.len() as u64 != expected {
            let message = format!("the answer ended after {} of {expected} bytes", whole.len());
            return Err(StoreError::new(StoreErrorKind::Transient, "get", path, message));
        }
        Ok(whole.freeze())
    }

    async fn piece(
        &self,
        path: &ObjectPath,
        pieces: &mut BoxStream<'static, object_store::Result<Bytes>>,
    ) -> Result<Option<Bytes>, StoreError> {
        match tokio::time::timeout(self.timeout, pieces.try_next()).await {
            Ok(piece) => piece.map_err(|e| failure::explain("get", path.as_str(), &e)),
            Err(_) => Err(failure::timed_out("get", path.as_str(), self.timeout)),
        }
    }

    /// A create met a conflict that need not mean "exists": some stores answer so while another request on the same
    /// name is under way, or was. Looking settles it.
    async fn settle(&self, path: &ObjectPath, conflict: StoreError) -> StoreError {
        let kind = match self.head(path).await {
            Ok(_) => StoreErrorKind::AlreadyExists,
            Err(e) if e.kind == StoreErrorKind::NotFound || e.is_transient() => StoreErrorKind::Transient,
            Err(e) => return e,
        };
        StoreError { kind, ..conflict }
    }

    /// A HEAD's "not found" has no body and may mean the bucket. One listing tells, once.
    async fn missing(&self, path: &ObjectPath, not_found: StoreError) -> StoreError {
        if self.reached.load(Ordering::Relaxed) {
            return not_found;
        }
        let first = async { self.store.list(Some(&Path::from(self.prefix.as_str()))).try_next().await };
        match self.request("head", path, self.timeout, first).await {
            Err(e) if e.kind == StoreErrorKind::Permanent => e,
            _ => not_found,
        }
    }
}

fn payload(body: &Body) -> PutPayload {
    body.pieces().iter().cloned().collect()
}

fn located(op: &'static str, prefix: &str, path: &ObjectPath) -> Result<Path, StoreError> {
    let whole = join(prefix, path.as_str());
    Path::parse(whole).map_err(|e| StoreError::new(StoreErrorKind::Permanent, op, path, e.to_string()))
}

fn join(prefix: &str, path: &str) -> String {
    match (prefix, path) {
        ("", path) => path.to_owned(),
        (prefix, "") => prefix.to_owned(),
        (prefix, path) => format!("{prefix}/{path}"),
    }
}

fn described(meta: &object_store::ObjectMeta, path: String) -> ObjectMeta {
    ObjectMeta { path, len: meta.size, last_modified: Timestamp(meta.last_modified.timestamp_micros()) }
}

/// Cuts the prefix off a listed object; `None` for what does not lie below it.
fn listed(meta: &object_store::ObjectMeta, prefix: &str) -> Option<ObjectMeta> {
    let whole = meta.location.as_ref();
    let path = match prefix {
        "" => whole,
        prefix => whole.strip_prefix(prefix)?.strip_prefix('/')?,
    };
    Some(described(meta, path.to_owned()))
}

#[async_trait]
impl Bucket for Adapter {
    async fn put(&self, path: &ObjectPath, body: Body) -> Result<(), StoreError> {
        self.write("put", path, body, PutMode::Overwrite).await
    }

    async fn create(&self, path: &ObjectPath, body: Body) -> Result<(), StoreError> {
        match self.write("create", path, body, PutMode::Create).await {
            Err(e) if failure::is_open_conflict(&e) => Err(self.settle(path, e).await),
            result => result,
        }
    }

    async fn get(&self, path: &ObjectPath) -> Result<Bytes, StoreError> {
        self.read(path, None).await
    }

    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> Result<Bytes, StoreError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let asked = range.end - range.start;
        let bytes = self.read(path, Some(range)).await?;
        if bytes.len() as u64 == asked {
            return Ok(bytes);
        }
        let message = format!("{asked} bytes were asked for and {} answered", bytes.len());
        Err(StoreError::new(StoreErrorKind::Permanent, "get", path, message))
    }

    async fn head(&self, path: &ObjectPath) -> Result<ObjectMeta, StoreError> {
        let location = self.locate("head", path)?;
        match self.request("head", path, self.timeout, self.store.head(&location)).await {
            Ok(meta) => Ok(described(&meta, path.as_str().to_owned())),
            Err(e) if e.is_not_found() => Err(self.missing(path, e).await),
            Err(e) => Err(e),
        }
    }

    fn list(&self, folder: &str) -> BoxStream<'static, Result<ObjectMeta, StoreError>> {
        let whole = join(&self.prefix, folder);
        let prefix = (!whole.is_empty()).then(|| Path::from(whole));
        let source = self.store.list(prefix.as_ref());
        let state = (source, self.prefix.clone(), folder.to_owned(), self.timeout);
        let next = |(mut source, prefix, folder, timeout): (
            BoxStream<'static, _>,
            String,
            String,
            Duration,
        )| async move {
            loop {
                let item = match tokio::time::timeout(timeout, source.next()).await {
                    Err(_) => Err(failure::timed_out("list", &folder, timeout)),
                    Ok(None) => return None,
                    Ok(Some(Err(e))) => Err(failure::explain("list", &folder, &e)),
                    Ok(Some(Ok(meta))) => match listed(&meta, &prefix) {
                        Some(meta) => Ok(meta),
                        None => continue,
                    },
                };
                return Some((item, (source, prefix, folder, timeout)));
            }
        };
        stream::unfold(state, next).boxed()
    }

    async fn delete(&self, path: &ObjectPath) -> Result<(), StoreError> {
        let location = self.locate("delete", path)?;
        match self.request("delete", path, self.timeout, self.store.delete(&location)).await {
            Err(e) if e.is_not_found() => Ok(()),
            result => result,
        }
    }

    fn origin(&self) -> Origin {
        Origin::new(Prefix { of: self.reached_by.clone(), prefix: self.prefix.clone() })
    }

    /// One request, which S3 takes for objects of up to 5 GiB: ours are far smaller, and a larger one is refused. (Azure
    /// may answer before it is done, with an empty object in the meantime: whoever copies compares the length.)
    async fn copy_from(
        &self,
        source: &Origin,
        from: &ObjectPath,
        to: &ObjectPath,
    ) -> Result<Copied, StoreError> {
        let Some(source) = source.of::<Prefix>().filter(|p| p.of == self.reached_by) else {
            return Ok(Copied::Cannot);
        };
        let from = located("copy", &source.prefix, from)?;
        let location = self.locate("copy", to)?;
        // The store moves the bytes before it answers.
        let limit = self.timeout * 2;
        self.request("copy", to, limit, self.store.copy(&from, &location)).await?;
        Ok(Copied::ByReference)
    }

    async fn begin_upload(&self, path: &ObjectPath) -> Result<UploadId, StoreError> {
        let location = self.locate("begin_upload", path)?;
        let request = self.parts.0.create_multipart(&location);
        self.request("begin_upload", path, self.timeout, request).await.map(UploadId)
    }

    async fn upload_part(
        &self,
        path: &ObjectPath,
        upload: &UploadId,
        at: PartAt,
        body: Body,
    ) -> Result<StoredPart, StoreError> {
        let location = self.locate("upload_part", path)?;
        let (len, limit) = (body.len(), self.limit_of(&body));
        let request = self.parts.0.put_part(&location, &upload.0, at.number as usize, payload(&body));
        let part = self.request("upload_part", path, limit, request).await?;
        Ok(StoredPart { len, tag: part.content_id })
    }

    async fn complete_upload(
        &self,
        path: &ObjectPath,
        upload: &UploadId,
        parts: &[StoredPart],
    ) -> Result<(), StoreError> {
        let location = self.locate("complete_upload", path)?;
        let parts = parts.iter().map(|p| PartId { content_id: p.tag.clone() }).collect();
        // The store may take a while to join them.
        let limit = self.timeout * 2;
        let request = self.parts.0.complete_multipart(&location, &upload.0, parts);
        self.request("complete_upload", path, limit, request).await.map(drop)
    }

    async fn abort_upload(&self, path: &ObjectPath, upload: &UploadId) -> Result<(), StoreError> {
        let location = self.locate("abort_upload", path)?;
        let request = self.parts.0.abort_multipart(&location, &upload.0);
        match self.request("abort_upload", path, self.timeout, request).await {
            Err(e) if e.is_not_found() => Ok(()),
            result => result,
        }
    }

    fn url(&self) -> String {
        self.url.clone()
    }
}
