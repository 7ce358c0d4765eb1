//! Frames bodies, cut into numbered frames.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body::Body;

use super::body::{Chunks, ReadError};
use super::frame::{self, FIXED_BYTES, Frame, FrameError};

/// Reads a body frame by frame. A frame within one chunk shares that chunk's memory.
#[derive(Debug)]
pub struct FrameReader<B> {
    chunks: Chunks<B>,
    limit: usize,
    number: u64,
    /// What is left of the present chunk, when no frame is begun.
    rest: Bytes,
    /// The beginning of a frame whose end is in a later chunk: never more than one frame and one chunk.
    begun: BytesMut,
    ended: bool,
}

impl<B> FrameReader<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    /// Reads frames whose bodies have at most `limit` bytes; waits for the next chunk without end.
    pub fn new(body: B, limit: usize) -> Self {
        Self::with_idle(body, limit, None)
    }

    /// The same, and a body that stands still for `idle` is an error.
    pub fn with_idle(body: B, limit: usize, idle: Option<Duration>) -> Self {
        let chunks = Chunks::new(body, idle);
        Self { chunks, limit, number: 0, rest: Bytes::new(), begun: BytesMut::new(), ended: false }
    }

    /// The next frame, or `None` when the body ends after the last. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Option<Frame>, ReadError> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(Some(frame));
            }
            if self.ended {
                let nothing_begun = self.rest.is_empty() && self.begun.is_empty();
                return if nothing_begun { Ok(None) } else { Err(ReadError::Cut { frame: self.number + 1 }) };
            }
            match self.chunks.next().await? {
                None => self.ended = true,
                Some(chunk) if self.rest.is_empty() && self.begun.is_empty() => self.rest = chunk,
                Some(chunk) => {
                    let rest = std::mem::take(&mut self.rest);
                    self.begun.extend_from_slice(&rest);
                    self.begun.extend_from_slice(&chunk);
                }
            }
        }
    }

    /// The next frame if all of it has arrived already; `None` says nothing about the body's end.
    pub fn buffered(&mut self) -> Result<Option<Frame>, ReadError> {
        let here: &[u8] = if self.begun.is_empty() { &self.rest } else { &self.begun };
        let Some(length) = here.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        let whole = self.check_length(length)?;
        if here.len() < whole {
            // What is announced is within the limit, and memory grows only with what really arrives.
            return Ok(None);
        }
        let mut bytes = if self.begun.is_empty() {
            self.rest.split_to(whole)
        } else {
            self.begun.split_to(whole).freeze()
        };
        self.number += 1;
        bytes.advance(4);
        let body = bytes.split_to(length);
        frame::decode(body, bytes.get_u32_le())
            .map(Some)
            .map_err(|why| ReadError::Frame { frame: self.number, why })
    }

    /// Number of the frame that was read last.
    pub fn number(&self) -> u64 {
        self.number
    }

    fn check_length(&self, length: usize) -> Result<usize, ReadError> {
        let why = match length {
            short if short < FIXED_BYTES => FrameError::Short(short),
            long if long > self.limit => FrameError::TooLong { size: long, limit: self.limit },
            fits => return Ok(fits + 8),
        };
        Err(ReadError::Frame { frame: self.number + 1, why })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::body::tests::Given;
    use super::super::frame::Kind;
    use super::super::frame::tests::frames;
    use super::*;

    async fn read(chunks: Vec<Vec<u8>>, limit: usize) -> (Vec<Frame>, Result<(), ReadError>) {
        let mut reader = FrameReader::new(Given::new(chunks), limit);
        let mut out = Vec::new();
        loop {
            match reader.next().await {
                Ok(Some(frame)) => out.push(frame),
                Ok(None) => return (out, Ok(())),
                Err(e) => return (out, Err(e)),
            }
        }
    }

    fn one() -> Vec<u8> {
        let mut out = Vec::new();
        frame::encode(&mut out, Kind::Put, 1, 2, 3, b"key", b"value");
        out
    }

    #[tokio::test]
    async fn a_body_cut_inside_a_frame_is_incomplete() {
        let bytes = one();
        for cut in 1..bytes.len() {
            let body = [bytes.clone(), bytes[..cut].to_vec()].concat();
            let (frames, end) = read(vec![body], 100).await;
            assert_eq!((frames.len(), end), (1, Err(ReadError::Cut { frame: 2 })), "{cut}");
        }
    }

    #[tokio::test]
    async fn hostile_lengths_are_refused_before_anything_is_gathered() {
        for (length, why) in [
            (u32::MAX, FrameError::TooLong { size: u32::MAX as usize, limit: 100 }),
            (101, FrameError::TooLong { size: 101, limit: 100 }),
            (0, FrameError::Short(0)),
            (28, FrameError::Short(28)),
        ] {
            let (_, end) = read(vec![length.to_le_bytes().to_vec()], 100).await;
            assert_eq!(end, Err(ReadError::Frame { frame: 1, why }));
        }
        let mut damaged = one();
        damaged[10] ^= 1;
        let (frames, end) = read(vec![one(), damaged], 100).await;
        assert_eq!(frames.len(), 1);
        assert_eq!(end, Err(ReadError::Frame { frame: 2, why: FrameError::Checksum }));
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(
            frames in proptest::collection::vec(frames(), 0..6),
            size in 1usize..700,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let mut bytes = Vec::new();
            frames.iter().for_each(|f| f.encode(&mut bytes));
            let chunks = bytes.chunks(size).map(<[u8]>::to_vec).collect();
            let (back, end) = runtime.block_on(read(chunks, 1000));
            prop_assert_eq!(end, Ok(()));
            prop_assert_eq!(back, frames);
        }
    }
}
