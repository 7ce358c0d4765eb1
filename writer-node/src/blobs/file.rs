//! One blob file, from its first byte to the rows that point at it.

use std::sync::Arc;

use isle_storage::blob::BlobEncoder;
use isle_storage::names;
use isle_storage::object::{StoreError, Upload};
use isle_storage::row::{BlobId, BlobPointer};
use tracing::{debug, warn};

use super::Blobs;
use crate::engine::Engine;
use crate::error::WriteError;
use crate::intake::Patience;
use crate::pipeline::Term;

/// Bytes encoded at a time: a large value in memory is not copied whole.
const STEP: usize = 256 << 10;

/// A blob file on its way into the bucket. Dropped before it is finished, its upload is aborted.
#[derive(Debug)]
pub(crate) struct BlobFile {
    engine: Arc<Engine>,
    term: Arc<Term>,
    name: BlobId,
    upload: Upload,
    encoder: BlobEncoder,
    encoded: Vec<u8>,
}

/// A blob file that is in the bucket and that no row points at yet. Dropped before its rows are accepted, it is deleted.
#[derive(Debug)]
pub(crate) struct Complete {
    engine: Arc<Engine>,
    term: Arc<Term>,
    name: BlobId,
    len: u64,
    accepted: bool,
}

impl BlobFile {
    /// Begins a file that will be about `expected` bytes long, where that is known, as soon as the budget has room.
    pub(crate) async fn begin(
        engine: &Arc<Engine>,
        expected: Option<u64>,
        patience: Patience,
    ) -> Result<Self, WriteError> {
        let term = engine.blobs.term().ok_or_else(|| engine.refusal())?;
        let name = term.next_name();
        let (bucket, path) = (&engine.db.bucket, names::blob(&name));
        // Chunks' checksums, directory and footer come on top.
        let expected = expected.map(|n| n.saturating_add(n / 8192).saturating_add(128));
        let begun = Upload::begin(bucket, path, &engine.blobs.budget, expected);
        let upload = match patience {
            Patience::Wait => begun.await,
            Patience::AtMost(d) => {
                tokio::time::timeout(d, begun).await.map_err(|_elapsed| overloaded(&engine.blobs))?
            }
        };
        let (engine, encoder, encoded) = (Arc::clone(engine), BlobEncoder::new(), Vec::new());
        Ok(Self { engine, term, name, upload, encoder, encoded })
    }

    /// Appends bytes to the value under way.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        for step in bytes.chunks(STEP) {
            self.encoder.write(step, &mut self.encoded);
            self.hand_over().await?;
        }
        Ok(())
    }

    /// Bytes of the value under way so far.
    pub(crate) fn value_len(&self) -> u64 {
        self.encoder.value_len()
    }

    /// Ends the value under way.
    pub(crate) async fn end_value(&mut self) -> Result<BlobPointer, WriteError> {
        let (offset, len, crc) = self.encoder.end_value(&mut self.encoded);
        self.hand_over().await?;
        Ok(BlobPointer { blob: self.name.clone(), offset, len, crc })
    }

    /// On return the file is durable.
    pub(crate) async fn finish(mut self) -> Result<Complete, WriteError> {
        std::mem::take(&mut self.encoder).finish(&mut self.encoded);
        self.hand_over().await?;
        let Self { engine, term, name, upload, .. } = self;
        let path = upload.path().clone();
        let mut complete = Complete { engine, term, name, len: 0, accepted: false };
        // Given up in the middle it may be there all the same: then it is deleted as one that nobody points at.
        complete.len = upload.finish().await.map_err(|e| not_stored(&e))?;
        debug!(blob = %path, bytes = complete.len, "blob file stored");
        Ok(complete)
    }

    async fn hand_over(&mut self) -> Result<(), WriteError> {
        if !self.engine.blobs.is_current(&self.term) {
            return Err(deposed(&self.engine));
        }
        let written = self.upload.write(&self.encoded).await;
        self.encoded.clear();
        written.map_err(|e| not_stored(&e))
    }
}

impl Complete {
    /// Called under the seat's lock, right before rows that point at the file are accepted.
    pub(crate) fn accept(&mut self) -> Result<(), WriteError> {
        if !self.engine.blobs.is_current(&self.term) {
            return Err(deposed(&self.engine));
        }
        self.engine.blobs.accept(&self.name, self.len);
        self.accepted = true;
        Ok(())
    }
}

impl Drop for Complete {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.accepted {
            return;
        }
        let (bucket, path) = (Arc::clone(&self.engine.db.bucket), names::blob(&self.name));
        runtime.spawn(async move {
            if let Err(error) = bucket.delete(&path).await {
                warn!(object = %path, %error, "a blob file that no row points at stays for the orphan sweep");
            }
        });
    }
}

fn not_stored(e: &StoreError) -> WriteError {
    WriteError::NotStored { why: e.to_string() }
}

fn deposed(engine: &Engine) -> WriteError {
    match engine.refusal() {
        WriteError::NotLeader { leader, .. } => {
            let why = "leadership changed while the value was being stored".to_owned();
            WriteError::NotLeader { leader, why }
        }
        other => other,
    }
}

fn overloaded(blobs: &Blobs) -> WriteError {
    let why = format!("{} bytes of large values are on their way into blob files", blobs.budget.taken());
    WriteError::Overloaded { why, retry_after: std::time::Duration::from_secs(1) }
}
