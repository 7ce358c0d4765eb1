//! Deleting a batch of objects that may go.

use futures::StreamExt;
use isle_storage::database::Database;
use isle_storage::names::ObjectPath;

/// Deletes under way at once.
const CONCURRENCY: usize = 16;

/// What became of a batch.
#[derive(Debug, Default)]
pub struct Deleted {
    /// Gone, whoever deleted them.
    pub gone: Vec<ObjectPath>,
    /// Still there; the store said why.
    pub failed: Vec<ObjectPath>,
}

/// Deletes `paths`, in about their order. One that cannot be deleted holds back no other.
pub async fn delete(db: &Database, paths: &[ObjectPath]) -> Deleted {
    let deletes = futures::stream::iter(paths.iter().cloned()).map(|path| async move {
        let result = db.bucket.delete(&path).await;
        (path, result)
    });
    let results: Vec<_> = deletes.buffered(CONCURRENCY).collect().await;
    let mut out = Deleted::default();
    for (path, result) in results {
        match result {
            Ok(()) => out.gone.push(path),
            Err(error) => {
                tracing::warn!(object = %path, %error, "garbage could not be deleted; it will be tried again");
                out.failed.push(path);
            }
        }
    }
    out
}
