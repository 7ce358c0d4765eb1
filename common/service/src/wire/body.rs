//! Bodies as they arrive: in chunks, possibly for ever, possibly not at all.

use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use serde::de::DeserializeOwned;

use super::frame::FrameError;
use super::mutation::parse_object;
use crate::error::{ApiError, ErrorCode};

/// How long a body that is read whole may stand still before the request is given up.
pub const BODY_IDLE: Duration = Duration::from_secs(30);

/// Longest line of NDJSON, in bytes: a value of 8 MiB of which every byte is escaped by a backslash, and its key. Text
/// with more than that in escapes is sent as base64 or as frames.
pub const MAX_LINE_BYTES: usize = 20 * 1024 * 1024;

/// Longest body of a frame, in bytes: a value of 8 MiB, its key and the fixed part, rounded up.
pub const MAX_FRAME_BYTES: usize = 8 * 1024 * 1024 + 128 * 1024;

/// Longest JSON document that an endpoint reads whole, in bytes: two keys in base64 and some.
pub const MAX_JSON_BYTES: usize = 512 * 1024;

/// Why a body could not be read to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The connection, or the other side, gave up.
    #[error("the body broke off: {0}")]
    Broken(String),
    /// Nothing came for this long.
    #[error("nothing of the body arrived for {} s", .0.as_secs())]
    Idle(Duration),
    /// The body is longer than its endpoint takes.
    #[error("the body is longer than the limit of {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// A line is longer than the limit.
    #[error(
        "line {line} is longer than the limit of {limit} bytes; send large values as base64, as frames or one by one"
    )]
    LineTooLong {
        /// Its number, from 1.
        line: u64,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The body ends inside a frame.
    #[error("the body ends inside frame {frame}")]
    Cut {
        /// Its number, from 1.
        frame: u64,
    },
    /// A frame is not one.
    #[error("frame {frame}: {why}")]
    Frame {
        /// Its number, from 1.
        frame: u64,
        /// What is wrong with it.
        why: FrameError,
    },
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        let message = error.to_string();
        match error {
            ReadError::Broken(_) => Self::invalid(message),
            ReadError::Idle(_) => Self::new(ErrorCode::RequestTimeout, message),
            ReadError::TooLarge { limit } => {
                Self::new(ErrorCode::RequestTooLarge, message).field("limit", limit)
            }
            ReadError::LineTooLong { line, limit } => {
                Self::new(ErrorCode::ValueTooLarge, message).field("limit", limit).line(line)
            }
            ReadError::Frame { frame, why: FrameError::TooLong { size, limit } } => {
                Self::new(ErrorCode::ValueTooLarge, message)
                    .field("size", size)
                    .field("limit", limit)
                    .line(frame)
            }
            ReadError::Cut { frame } | ReadError::Frame { frame, .. } => Self::invalid(message).line(frame),
        }
    }
}

/// The data chunks of a body, one by one; trailers are skipped.
#[derive(Debug)]
pub(super) struct Chunks<B> {
    body: B,
    idle: Option<Duration>,
}

impl<B> Chunks<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    pub(super) fn new(body: B, idle: Option<Duration>) -> Self {
        Self { body, idle }
    }

    /// The next chunk that is not empty.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        loop {
            let frame = std::future::poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx));
            let frame = match self.idle {
                None => frame.await,
                Some(idle) => {
                    tokio::time::timeout(idle, frame).await.map_err(|_elapsed| ReadError::Idle(idle))?
                }
            };
            match frame {
                None => return Ok(None),
                Some(Err(e)) => return Err(ReadError::Broken(e.to_string())),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Ok(Some(data)),
                    _ => {}
                },
            }
        }
    }
}

/// Bytes of a refused body that are read and thrown away at most.
const MAX_DISCARD_BYTES: usize = 64 << 20;

/// How long a refused body is read on at most.
const DISCARD_FOR: Duration = Duration::from_secs(5);

/// Reads a body whole, at most `limit` bytes of it. What is larger is refused; a bounded rest of it is read and thrown
/// away first, because a client that is still sending sees a broken connection and not the answer.
pub async fn read_body<B>(body: B, limit: usize) -> Result<Bytes, ReadError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let announced = body.size_hint();
    let mut chunks = Chunks::new(body, Some(BODY_IDLE));
    if announced.lower() > limit as u64 {
        discard(&mut chunks).await;
        return Err(ReadError::TooLarge { limit });
    }
    let Some(first) = chunks.next().await? else { return Ok(Bytes::new()) };
    if first.len() > limit {
        discard(&mut chunks).await;
        return Err(ReadError::TooLarge { limit });
    }
    let Some(second) = chunks.next().await? else { return Ok(first) };
    let expected = announced.exact().map_or(first.len() + second.len(), |n| n as usize);
    let mut whole = BytesMut::with_capacity(expected.min(limit));
    whole.extend_from_slice(&first);
    let mut next = Some(second);
    while let Some(chunk) = next {
        if whole.len() + chunk.len() > limit {
            discard(&mut chunks).await;
            return Err(ReadError::TooLarge { limit });
        }
        whole.extend_from_slice(&chunk);
        next = chunks.next().await?;
    }
    Ok(whole.freeze())
}

/// Throws away what a refused client is still sending, up to [`MAX_DISCARD_BYTES`] and for [`DISCARD_FOR`] at most: beyond
/// that it finds its connection broken.
async fn discard<B>(chunks: &mut Chunks<B>)
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let all = async {
        let mut left = MAX_DISCARD_BYTES;
        while let Ok(Some(chunk)) = chunks.next().await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                return;
            }
        }
    };
    // Whether it ended or ran out of time, the refusal is what counts.
    let _ended = tokio::time::timeout(DISCARD_FOR, all).await;
}

/// The refusal of a value that is announced as too large by a client that waits to be told before it sends (`Expect:
/// 100-continue`): nothing has to be thrown away, so nothing is asked for.
pub fn refuse_unsent<B: Body>(headers: &http::HeaderMap, body: &B, limit: usize) -> Result<(), ApiError> {
    let waits =
        headers.get(http::header::EXPECT).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    match body.size_hint().exact() {
        Some(announced) if waits && announced > limit as u64 => Err(value_too_large(limit, Some(announced))),
        _ => Ok(()),
    }
}

/// Reads a body whole as one value of at most `limit` bytes: 413 `value_too_large` above.
pub async fn read_value<B>(body: B, limit: usize) -> Result<Bytes, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let announced = body.size_hint().exact();
    read_body(body, limit).await.map_err(|error| match error {
        ReadError::TooLarge { limit } => value_too_large(limit, announced),
        other => other.into(),
    })
}

/// A value read as it arrives, for those that need not have it whole.
#[derive(Debug)]
pub struct ValuePieces<B> {
    chunks: Chunks<B>,
    seen: usize,
    limit: usize,
}

impl<B> ValuePieces<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    /// A value of at most `limit` bytes; one that stands still for [`BODY_IDLE`] is given up.
    pub fn new(body: B, limit: usize) -> Self {
        Self { chunks: Chunks::new(body, Some(BODY_IDLE)), seen: 0, limit }
    }

    /// The next piece, never empty; `None` at the end. 413 `value_too_large` as soon as the limit is passed.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        let Some(piece) = self.chunks.next().await? else { return Ok(None) };
        self.seen = self.seen.saturating_add(piece.len());
        if self.seen > self.limit {
            discard(&mut self.chunks).await;
            return Err(value_too_large(self.limit, None));
        }
        Ok(Some(piece))
    }
}

fn value_too_large(limit: usize, size: Option<u64>) -> ApiError {
    let message = format!("the value is larger than the limit of {limit} bytes");
    let error = ApiError::new(ErrorCode::ValueTooLarge, message).field("limit", limit);
    match size {
        Some(size) => error.field("size", size),
        None => error,
    }
}

/// Reads a body of at most [`MAX_JSON_BYTES`] as one JSON object; unknown members are for `T` to refuse.
pub async fn json_body<T, B>(body: B) -> Result<T, ApiError>
where
    T: DeserializeOwned,
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let bytes = read_body(body, MAX_JSON_BYTES).await?;
    parse_object(&bytes)
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::task::{Context, Poll};

    use http_body::{Frame, SizeHint};

    use super::*;

    #[test]
    fn a_value_that_waits_to_be_asked_for_is_refused_before_it_is_sent() {
        let body = || http_body_util::Full::new(Bytes::from_static(b"12345"));
        let mut waits = http::HeaderMap::new();
        waits.insert(http::header::EXPECT, http::HeaderValue::from_static("100-Continue"));
        let refused = refuse_unsent(&waits, &body(), 4).unwrap_err();
        assert_eq!(refused.code, ErrorCode::ValueTooLarge);
        assert!(refuse_unsent(&waits, &body(), 5).is_ok());
        // Whoever sends already is read on, or would see a broken connection instead of the answer.
        assert!(refuse_unsent(&http::HeaderMap::new(), &body(), 4).is_ok());
    }

    /// A body of given chunks, that ends or then stands still.
    pub(in crate::wire) struct Given {
        chunks: VecDeque<Bytes>,
        stalls: bool,
    }

    impl Given {
        pub(in crate::wire) fn new(chunks: impl IntoIterator<Item = Vec<u8>>) -> Self {
            Self { chunks: chunks.into_iter().map(Bytes::from).collect(), stalls: false }
        }
    }

    impl Body for Given {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            match self.chunks.pop_front() {
                Some(chunk) => Poll::Ready(Some(Ok(Frame::data(chunk)))),
                None if self.stalls => Poll::Pending,
                None => Poll::Ready(None),
            }
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::default()
        }
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit() {
        let chunks = || Given::new([b"ab".to_vec(), vec![], b"cd".to_vec(), b"e".to_vec()]);
        assert_eq!(read_body(chunks(), 5).await.unwrap(), "abcde");
        assert_eq!(read_body(chunks(), 4).await, Err(ReadError::TooLarge { limit: 4 }));
        assert_eq!(read_body(chunks(), 1).await, Err(ReadError::TooLarge { limit: 1 }));
        assert_eq!(read_body(Given::new([]), 0).await.unwrap(), "");
        let error = read_value(http_body_util::Full::new(Bytes::from_static(b"abc")), 2).await.unwrap_err();
        assert_eq!((error.code, &error.fields["size"]), (ErrorCode::ValueTooLarge, &3.into()));
    }

    #[tokio::test]
    async fn a_value_in_pieces_is_refused_as_soon_as_it_is_too_large() {
        let chunks = || Given::new([b"ab".to_vec(), vec![], b"cd".to_vec(), b"e".to_vec()]);
        let mut pieces = ValuePieces::new(chunks(), 5);
        let mut whole = Vec::new();
        while let Some(piece) = pieces.next().await.unwrap() {
            whole.extend_from_slice(&piece);
        }
        assert_eq!(whole, b"abcde");
        let mut pieces = ValuePieces::new(chunks(), 3);
        assert_eq!(pieces.next().await.unwrap().unwrap(), "ab");
        assert_eq!(pieces.next().await.unwrap_err().code, ErrorCode::ValueTooLarge);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stands_still_is_given_up() {
        let body = Given { chunks: VecDeque::from([Bytes::from_static(b"a")]), stalls: true };
        assert_eq!(read_body(body, 10).await, Err(ReadError::Idle(BODY_IDLE)));
    }
}
