//! NDJSON bodies, cut into numbered lines.
//!
//! A line that lies within one chunk is handed out as a slice of that chunk; only a line across a chunk's end is copied.
//! A slice keeps its whole chunk alive, so whoever keeps a line for long copies it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;

use super::body::{Chunks, ReadError};

/// One line without its line break, never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its number in the body, from 1; empty lines count.
    pub number: u64,
    /// Its bytes.
    pub bytes: Bytes,
}

/// Reads a body line by line; a last line needs no line break, and CR LF counts as one.
#[derive(Debug)]
pub struct LineReader<B> {
    chunks: Chunks<B>,
    limit: usize,
    /// Lines given out or skipped so far.
    number: u64,
    /// What is left of the present chunk.
    rest: Bytes,
    /// The beginning of a line whose end is in a later chunk; at most `limit` bytes and a carriage return.
    begun: BytesMut,
    ended: bool,
}

impl<B> LineReader<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    /// Reads lines of at most `limit` bytes; waits for the next chunk without end.
    pub fn new(body: B, limit: usize) -> Self {
        Self::with_idle(body, limit, None)
    }

    /// The same, and a body that stands still for `idle` is an error.
    pub fn with_idle(body: B, limit: usize, idle: Option<Duration>) -> Self {
        let chunks = Chunks::new(body, idle);
        Self { chunks, limit, number: 0, rest: Bytes::new(), begun: BytesMut::new(), ended: false }
    }

    /// The next line, or `None` after the last. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Option<Line>, ReadError> {
        loop {
            if let Some(line) = self.buffered()? {
                return Ok(Some(line));
            }
            if self.ended {
                return Ok(None);
            }
            match self.chunks.next().await? {
                Some(chunk) => self.rest = chunk,
                None => self.ended = true,
            }
        }
    }

    /// The next line if all of it has arrived already; `None` says nothing about the body's end.
    pub fn buffered(&mut self) -> Result<Option<Line>, ReadError> {
        loop {
            let Some(raw) = self.cut()? else { return Ok(None) };
            self.number += 1;
            let bytes = match raw.last() {
                Some(b'\r') => raw.slice(..raw.len() - 1),
                _ => raw,
            };
            if bytes.len() > self.limit {
                return Err(ReadError::LineTooLong { line: self.number, limit: self.limit });
            }
            if !bytes.is_empty() {
                return Ok(Some(Line { number: self.number, bytes }));
            }
        }
    }

    /// Number of the line that was read last.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Takes the next line, without its line feed, out of what has arrived.
    fn cut(&mut self) -> Result<Option<Bytes>, ReadError> {
        match memchr::memchr(b'\n', &self.rest) {
            Some(at) => {
                let mut line = self.rest.split_to(at + 1);
                line.truncate(at);
                if self.begun.is_empty() {
                    return Ok(Some(line));
                }
                self.begin(line)?;
                Ok(Some(self.begun.split().freeze()))
            }
            None => {
                let rest = std::mem::take(&mut self.rest);
                self.begin(rest)?;
                let last = self.ended && !self.begun.is_empty();
                Ok(last.then(|| self.begun.split().freeze()))
            }
        }
    }

    fn begin(&mut self, part: Bytes) -> Result<(), ReadError> {
        if self.begun.len() + part.len() > self.limit + 1 {
            return Err(ReadError::LineTooLong { line: self.number + 1, limit: self.limit });
        }
        self.begun.extend_from_slice(&part);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::body::tests::Given;
    use super::*;

    async fn lines(chunks: Vec<Vec<u8>>, limit: usize) -> Result<Vec<(u64, Vec<u8>)>, ReadError> {
        let mut reader = LineReader::new(Given::new(chunks), limit);
        let mut out = Vec::new();
        while let Some(line) = reader.next().await? {
            out.push((line.number, line.bytes.to_vec()));
        }
        Ok(out)
    }

    fn chunked(bytes: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
        let mut rest = bytes;
        let mut chunks = Vec::new();
        for cut in cuts {
            let (head, tail) = rest.split_at((*cut).min(rest.len()));
            chunks.push(head.to_vec());
            rest = tail;
        }
        chunks.push(rest.to_vec());
        chunks
    }

    #[tokio::test]
    async fn lines_are_numbered_and_empty_ones_skipped() {
        let chunks = vec![b"a\r\n\n\r\nb".to_vec(), b"c\n".to_vec(), b"d".to_vec()];
        let expected = vec![(1, b"a".to_vec()), (4, b"bc".to_vec()), (5, b"d".to_vec())];
        assert_eq!(lines(chunks, 10).await.unwrap(), expected);
        assert_eq!(lines(vec![], 10).await.unwrap(), vec![]);
        assert_eq!(lines(vec![b"\n\n".to_vec()], 10).await.unwrap(), vec![]);
    }

    /// Whatever the cuts, a line of exactly the limit passes and a longer one is named before it is gathered whole.
    #[tokio::test]
    async fn a_line_above_the_limit_is_named() {
        for cuts in [vec![], vec![1], vec![5, 1, 1], vec![1; 12]] {
            let fits = chunked(b"12345\r\n12345\n12345", &cuts);
            assert_eq!(lines(fits, 5).await.unwrap().len(), 3, "{cuts:?}");
            let long = chunked(b"12345\n123456\nx", &cuts);
            assert_eq!(lines(long, 5).await, Err(ReadError::LineTooLong { line: 2, limit: 5 }), "{cuts:?}");
            let long = chunked(b"1\n123456", &cuts);
            assert_eq!(lines(long, 5).await, Err(ReadError::LineTooLong { line: 2, limit: 5 }), "{cuts:?}");
        }
    }

    #[tokio::test]
    async fn a_line_within_a_chunk_is_not_copied() {
        let chunk = Bytes::from_static(b"first\nsecond\n");
        let mut reader = LineReader::new(http_body_util::Full::new(chunk.clone()), 100);
        let line = reader.next().await.unwrap().unwrap();
        assert_eq!(line.bytes.as_ptr(), chunk.as_ptr());
        assert_eq!(reader.buffered().unwrap().unwrap().bytes, "second");
        assert_eq!(reader.buffered().unwrap(), None);
    }

    proptest! {
        #[test]
        fn cuts_change_nothing(
            text in "[ab\r\n]{0,60}",
            cuts in proptest::collection::vec(0usize..12, 0..12),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let expected: Vec<_> = text
                .split('\n')
                .zip(1u64..)
                .map(|(line, n)| (n, line.strip_suffix('\r').unwrap_or(line).as_bytes().to_vec()))
                .filter(|(_, line)| !line.is_empty())
                .collect();
            let read = runtime.block_on(lines(chunked(text.as_bytes(), &cuts), 1000)).unwrap();
            prop_assert_eq!(read, expected);
        }
    }
}
