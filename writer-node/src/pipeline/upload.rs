//! Uploading: encode once, then the same bytes to the same name until they are there.

use std::sync::Arc;
use std::time::Duration;

use isle_storage::ids::SeqNo;
use isle_storage::log::{EncodedLog, LogHeader, SealedBatch, encode_segment};
use isle_storage::manifest::{LogEntry, LogTail};
use isle_storage::names::{LogKind, ObjectPath};
use isle_storage::object::{Body, StoreError};
use prometheus_client::metrics::counter::Counter;
use tracing::{debug, warn};

use super::Term;
use crate::engine::Engine;
use crate::standing::Trouble;

/// Batches up to this size are encoded where they are: handing them to another thread would cost more.
const ENCODE_INLINE_BYTES: u64 = 32 * 1024;

/// A put without an answer for this long, and the time its bytes take over the slowest link worth having, is shown as
/// trouble.
const SLOW: Duration = Duration::from_secs(5);
const SLOWEST_BYTES_PER_SECOND: u64 = 1 << 20;

/// A segment whose object is in the bucket.
#[derive(Debug)]
pub(super) struct Uploaded {
    pub(super) tail: LogTail,
    pub(super) entry: Arc<LogEntry>,
}

impl Term {
    /// The header of the segment made of `batch`.
    pub(super) fn segment_header(
        &self,
        batch: &SealedBatch,
        previous: Option<LogTail>,
        starts_generation: bool,
    ) -> LogHeader {
        LogHeader {
            kind: LogKind::Segment,
            database: self.database,
            lineage: self.lineage,
            epoch: self.epoch,
            incarnation: self.incarnation,
            first_seq: batch.first_seq,
            last_seq: batch.last_seq,
            previous,
            starts_generation,
            blobs: batch.blobs.clone(),
            parts: Vec::new(),
        }
    }
}

/// Encodes and puts a segment. Ends only when it is in the bucket; given up by being dropped.
pub(super) async fn upload(engine: Arc<Engine>, header: LogHeader, batch: SealedBatch) -> Uploaded {
    let tail = LogTail { id: header.id(), last_seq: header.last_seq };
    let EncodedLog { body, entry } = encode(&engine, header, batch).await;
    let path = entry.path();
    put_until_done(&engine, &path, &body, Trouble::Upload, &engine.metrics.upload_failures).await;
    let (first, last): (SeqNo, SeqNo) = (tail.id.first_seq, tail.last_seq);
    debug!(epoch = %tail.id.epoch, first_seq = %first, last_seq = %last, segment = %path, bytes = entry.len, "segment uploaded");
    Uploaded { tail, entry: Arc::new(entry) }
}

async fn encode(engine: &Engine, header: LogHeader, batch: SealedBatch) -> EncodedLog {
    let compression = engine.settings.compression;
    if batch.raw_bytes <= ENCODE_INLINE_BYTES {
        return encode_segment(&header, &batch, compression);
    }
    let work = (header.clone(), batch.clone());
    let threaded = engine.db.env.offload.run(move || encode_segment(&work.0, &work.1, compression)).await;
    // The blocking pool refuses only while the runtime shuts down; the work is then done here, or never.
    threaded.unwrap_or_else(|_| encode_segment(&header, &batch, compression))
}

/// One put. A store that takes its time (or a retry beneath that hides its failures) is shown while it does.
async fn put_or_say_so(
    engine: &Engine,
    path: &ObjectPath,
    body: &Body,
    trouble: Trouble,
) -> Result<(), StoreError> {
    let put = engine.db.bucket.put(path, body.clone());
    tokio::pin!(put);
    let slow = SLOW + Duration::from_secs(body.len() / SLOWEST_BYTES_PER_SECOND);
    match tokio::time::timeout(slow, put.as_mut()).await {
        Ok(done) => done,
        Err(_) => {
            let why = format!("put {path}: no success for {} s, still trying", slow.as_secs());
            warn!(%path, "the store is slow");
            engine.troubles.set(trouble, why);
            put.await
        }
    }
}

/// Puts an object until it is there. Every failure is shown; none is final, since a store that refuses today
/// (credentials, a full disk) may be mended while the data waits.
pub(crate) async fn put_until_done(
    engine: &Engine,
    path: &ObjectPath,
    body: &Body,
    trouble: Trouble,
    failures: &Counter,
) {
    let mut backoff = engine.backoff();
    while let Err(e) = put_or_say_so(engine, path, body, trouble).await {
        failures.inc();
        engine.troubles.set(trouble, e.to_string());
        let pause = backoff.pause();
        warn!(%path, error = %e, retry_in = ?pause, "upload failed");
        tokio::time::sleep(pause).await;
    }
    engine.troubles.clear(trouble);
}
