//! What lies in a test's bucket, and things put there that nobody names.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use isle_storage::ids::{Epoch, Incarnation, JobId, SeqNo};
use isle_storage::names::{self, LogId, LogKind, ObjectPath};
use isle_testkit::embedded::Embedded;

/// The names in `folder`, sorted.
pub(crate) async fn objects(e: &Embedded, folder: &str) -> Vec<String> {
    let all: Vec<_> = e.db.bucket.list(folder).try_collect().await.unwrap();
    let mut names: Vec<String> = all.into_iter().map(|m| m.path).collect();
    names.sort();
    names
}

/// Puts something under `path`; gives the name back.
pub(crate) async fn put(e: &Embedded, path: &ObjectPath) -> String {
    e.db.bucket.put(path, bytes::Bytes::from_static(b"left behind").into()).await.unwrap();
    path.to_string()
}

/// A table that the writer of `epoch` never committed.
pub(crate) fn writers_table(epoch: Epoch, incarnation: Incarnation, n: u64) -> ObjectPath {
    names::table(&format!("{}-{n}", names::writer_owner(epoch, incarnation)))
}

/// A table that a job never committed.
pub(crate) fn jobs_table(job: JobId, n: u64) -> ObjectPath {
    names::table(&format!("{job}-{:016x}-{n}", 0x5eed))
}

/// A segment that was never committed.
pub(crate) fn segment(epoch: Epoch, incarnation: Incarnation, first_seq: u64) -> ObjectPath {
    LogId { epoch, incarnation, first_seq: SeqNo(first_seq) }.path(LogKind::Segment)
}

/// Every object outside `manifest/` that the head names, live or retired.
pub(crate) async fn named(e: &Embedded) -> BTreeSet<String> {
    let m = e.db.load().await.unwrap().manifest;
    let log = m.log.iter().map(|l| l.path().to_string());
    let tables = m.named_tables().map(|t| t.path().to_string());
    let blobs = m.blobs.keys().map(|b| names::blob(b).to_string());
    log.chain(tables).chain(blobs).chain(m.retired.iter().map(|r| r.path.to_string())).collect()
}

/// Every object outside `manifest/`.
pub(crate) async fn data(e: &Embedded) -> BTreeSet<String> {
    let all = objects(e, "").await.into_iter();
    all.filter(|p| !p.starts_with("manifest/") && p != "isle.json").collect()
}
