//! Bodies that are written while they are sent: scans, multi-gets, tails, the progress of an ingest.
//!
//! The writing side runs as a task of its own and is held back by the client: between the two lie at most
//! [`CHUNKS_IN_FLIGHT`] chunks. A body must be ended with [`BodyWriter::finish`]; a writer that is dropped before, by a
//! defect or a cancelled task, breaks the connection, so that no client takes half an answer for a whole one.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body::Frame;
use tokio::sync::mpsc;

/// Chunks written ahead of the client; the writer waits beyond it.
pub const CHUNKS_IN_FLIGHT: usize = 4;

/// Bytes gathered before [`BodyWriter::roll`] sends them.
pub const CHUNK_BYTES: usize = 64 * 1024;

/// The client has gone; what is written goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client has closed the connection")]
pub struct ClientGone;

/// The writer ended without finishing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer was given up before its end")]
pub struct Unfinished;

enum Part {
    Data(Bytes),
    End,
}

/// The writing side of a streamed body.
pub struct BodyWriter {
    parts: mpsc::Sender<Part>,
    gathered: Vec<u8>,
}

/// A body and the writer that feeds it.
pub fn body_channel() -> (BodyWriter, Body) {
    let (sender, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
    let writer = BodyWriter { parts: sender, gathered: Vec::new() };
    (writer, Body::new(Streamed { parts: receiver, ended: false }))
}

impl BodyWriter {
    /// Where to append; nothing is sent before [`BodyWriter::roll`] or [`BodyWriter::flush`].
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.gathered
    }

    /// Sends what is gathered once it is a chunk's worth.
    pub async fn roll(&mut self) -> Result<(), ClientGone> {
        if self.gathered.len() < CHUNK_BYTES {
            return Ok(());
        }
        self.flush().await
    }

    /// Sends what is gathered, and waits while the client is behind.
    pub async fn flush(&mut self) -> Result<(), ClientGone> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        // The next chunk is about as long as this one; the memory itself goes to the client.
        let next = Vec::with_capacity(self.gathered.len().min(CHUNK_BYTES));
        let chunk = std::mem::replace(&mut self.gathered, next);
        self.send(chunk.into()).await
    }

    /// Sends a chunk that is there already, after what is gathered.
    pub async fn send_bytes(&mut self, chunk: Bytes) -> Result<(), ClientGone> {
        self.flush().await?;
        if chunk.is_empty() { Ok(()) } else { self.send(chunk).await }
    }

    /// Sends what is gathered and ends the body.
    pub async fn finish(mut self) -> Result<(), ClientGone> {
        self.flush().await?;
        self.parts.send(Part::End).await.map_err(|_| ClientGone)
    }

    /// Waits until the client has gone.
    pub async fn client_gone(&self) {
        self.parts.closed().await;
    }

    async fn send(&self, chunk: Bytes) -> Result<(), ClientGone> {
        self.parts.send(Part::Data(chunk)).await.map_err(|_| ClientGone)
    }
}

impl fmt::Debug for BodyWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyWriter").field("gathered", &self.gathered.len()).finish()
    }
}

struct Streamed {
    parts: mpsc::Receiver<Part>,
    ended: bool,
}

impl http_body::Body for Streamed {
    type Data = Bytes;
    type Error = Unfinished;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Unfinished>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let part = std::task::ready!(self.parts.poll_recv(cx));
        self.ended = !matches!(part, Some(Part::Data(_)));
        Poll::Ready(match part {
            Some(Part::Data(chunk)) => Some(Ok(Frame::data(chunk))),
            Some(Part::End) => None,
            None => Some(Err(Unfinished)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn a_finished_body_arrives_whole() {
        let (mut writer, body) = body_channel();
        let written = tokio::spawn(async move {
            for _ in 0..10 {
                writer.buffer().extend_from_slice(&[b'x'; CHUNK_BYTES]);
                writer.roll().await?;
            }
            writer.buffer().push(b'.');
            writer.send_bytes(Bytes::from_static(b"end")).await?;
            writer.finish().await
        });
        let whole = body.collect().await.unwrap().to_bytes();
        assert_eq!(whole.len(), 10 * CHUNK_BYTES + 4);
        assert!(whole.ends_with(b"x.end"));
        assert_eq!(written.await.unwrap(), Ok(()));
    }

    /// Half an answer is never taken for a whole one.
    #[tokio::test]
    async fn a_body_that_is_given_up_ends_in_an_error() {
        let (mut writer, body) = body_channel();
        writer.buffer().push(b'x');
        writer.flush().await.unwrap();
        drop(writer);
        assert!(body.collect().await.unwrap_err().to_string().contains("given up"));
    }

    #[tokio::test]
    async fn a_slow_client_holds_the_writer_back_and_a_gone_one_ends_it() {
        let (mut writer, body) = body_channel();
        for _ in 0..CHUNKS_IN_FLIGHT {
            writer.buffer().push(b'x');
            writer.flush().await.unwrap();
        }
        writer.buffer().push(b'x');
        assert!(futures::poll!(std::pin::pin!(writer.flush())).is_pending());
        drop(body);
        writer.client_gone().await;
        writer.buffer().push(b'x');
        assert_eq!(writer.flush().await, Err(ClientGone));
    }
}
