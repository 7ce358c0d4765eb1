//! Values by themselves: small ones are read whole, large ones go on into a blob file as they arrive.
//!
//! Which one it is shows by the announced length, or, where none is announced, once more has arrived than the threshold.

use axum::body::Body;
use bytes::Bytes;
use http_body::Body as _;
use isle_service::ApiError;
use isle_service::wire::body::{ValuePieces, read_value};
use isle_storage::row::MAX_INLINE_VALUE_LEN;
use tokio::sync::SemaphorePermit;

use super::body::Bodies;
use crate::blobs::ValueUpload;
use crate::intake::Options;
use crate::settings::WriterSettings;
use crate::writer::Writer;

/// A value that was read to its end.
#[derive(Debug)]
pub(super) enum Value<'a> {
    /// In memory, with its share of the budget of bodies.
    Whole(Bytes, SemaphorePermit<'a>),
    /// On its way into a blob file: all of it was written.
    Upload(Box<ValueUpload>),
}

/// Longest value that may come among others, in a batch or an ingest.
pub(super) fn bulk_limit(settings: &WriterSettings) -> usize {
    settings.max_value_bytes.min(MAX_INLINE_VALUE_LEN)
}

/// Whether a body may turn out larger than what is read whole: it is forwarded without a limit on the time it takes.
pub(super) fn may_be_large(body: &Body, settings: &WriterSettings) -> bool {
    body.size_hint().upper().is_none_or(|n| n > settings.blob_threshold as u64)
}

/// Reads a value of at most `max_value_bytes`.
pub(super) async fn read<'a>(
    bodies: &'a Bodies,
    writer: &Writer,
    body: Body,
    options: Options,
) -> Result<Value<'a>, ApiError> {
    let settings = writer.settings();
    let (limit, threshold) = (settings.max_value_bytes, settings.blob_threshold);
    let announced = body.size_hint().exact();
    let small = announced.is_some_and(|n| n <= threshold as u64);
    if small || threshold == 0 {
        let (value, held) = bodies.value(body, limit).await?;
        return Ok(Value::Whole(value, held));
    }
    // What cannot be taken anyway is not read: a leader that is gone, a value that is announced as too large.
    writer.refusal().map_or(Ok(()), Err)?;
    if announced.is_some_and(|n| n > limit as u64) {
        // Refuses it, having thrown away what the client has sent already.
        let (value, held) = (read_value(body, limit).await?, bodies.hold(0).await?);
        return Ok(Value::Whole(value, held));
    }
    let mut pieces = ValuePieces::new(body, limit);
    let (mut first, mut held) = (Vec::new(), None);
    if announced.is_none() {
        held = Some(bodies.hold(threshold).await?);
        while first.len() <= threshold {
            match pieces.next().await? {
                Some(piece) => first.extend_from_slice(&piece),
                None => break,
            }
        }
    }
    match held {
        Some(held) if first.len() <= threshold => Ok(Value::Whole(first.into(), held)),
        held => {
            let mut upload = writer.begin_value(announced, options).await?;
            upload.write(&first).await?;
            drop((first, held));
            while let Some(piece) = pieces.next().await? {
                upload.write(&piece).await?;
            }
            Ok(Value::Upload(Box::new(upload)))
        }
    }
}
