//! A bulk request's body, whichever of the two forms it comes in: numbered records that mean the same.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;

use super::body::{MAX_FRAME_BYTES, MAX_LINE_BYTES, ReadError};
use super::frame::Frame;
use super::frames::FrameReader;
use super::lines::{Line, LineReader};
use super::media::Format;
use super::mutation::{self, Event, Mutation};
use crate::error::ApiError;

/// Reads lines or frames, as the request's media type says.
#[derive(Debug)]
pub enum Records<B> {
    /// NDJSON.
    Lines(LineReader<B>),
    /// Frames.
    Frames(FrameReader<B>),
}

/// One line or frame.
#[derive(Debug, Clone)]
pub enum Record {
    /// A line of JSON.
    Line(Line),
    /// A frame and its number, from 1.
    Frame(u64, Frame),
}

impl<B> Records<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    /// Reads `body` as `format` says, with the limits every program has; `idle` bounds the wait for each chunk.
    pub fn new(body: B, format: Format, idle: Option<Duration>) -> Self {
        match format {
            Format::Frames => Self::Frames(FrameReader::with_idle(body, MAX_FRAME_BYTES, idle)),
            _ => Self::Lines(LineReader::with_idle(body, MAX_LINE_BYTES, idle)),
        }
    }

    /// The next record, or `None` after the last. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Option<Record>, ReadError> {
        match self {
            Self::Lines(lines) => Ok(lines.next().await?.map(Record::Line)),
            Self::Frames(frames) => {
                let frame = frames.next().await?;
                Ok(frame.map(|frame| Record::Frame(frames.number(), frame)))
            }
        }
    }

    /// The next record if all of it has arrived already; `None` says nothing about the body's end.
    pub fn buffered(&mut self) -> Result<Option<Record>, ReadError> {
        match self {
            Self::Lines(lines) => Ok(lines.buffered()?.map(Record::Line)),
            Self::Frames(frames) => {
                let frame = frames.buffered()?;
                Ok(frame.map(|frame| Record::Frame(frames.number(), frame)))
            }
        }
    }
}

impl Record {
    /// Its number in the body, from 1.
    #[must_use]
    pub fn number(&self) -> u64 {
        match self {
            Self::Line(line) => line.number,
            Self::Frame(number, _) => *number,
        }
    }

    /// It as a mutation; errors carry its number.
    pub fn mutation(&self) -> Result<Mutation<'_>, ApiError> {
        self.numbered(match self {
            Self::Line(line) => Mutation::from_json(&line.bytes),
            Self::Frame(_, frame) => Mutation::from_frame(frame),
        })
    }

    /// It as an event; errors carry its number.
    pub fn event(&self) -> Result<Event<'_>, ApiError> {
        self.numbered(match self {
            Self::Line(line) => Event::from_json(&line.bytes),
            Self::Frame(_, frame) => Event::from_frame(frame),
        })
    }

    /// It as a key; errors carry its number.
    pub fn key(&self) -> Result<Cow<'_, [u8]>, ApiError> {
        self.numbered(match self {
            Self::Line(line) => mutation::key_from_json(&line.bytes),
            Self::Frame(_, frame) => mutation::key_from_frame(frame),
        })
    }

    fn numbered<T>(&self, result: Result<T, ApiError>) -> Result<T, ApiError> {
        result.map_err(|mut error| {
            let what = if matches!(self, Self::Line(_)) { "line" } else { "frame" };
            error.message = format!("{what} {}: {}", self.number(), error.message);
            error.line(self.number())
        })
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::super::frame::{Kind, encode};
    use super::*;

    #[tokio::test]
    async fn both_forms_give_the_same_mutations() {
        let lines = b"{\"op\":\"put\",\"key\":\"k\",\"value\":\"v\"}\n\n{\"op\":\"delete\",\"key\":\"k\"}\n";
        let mut frames = Vec::new();
        encode(&mut frames, Kind::Put, 0, 0, 0, b"k", b"v");
        encode(&mut frames, Kind::Delete, 0, 0, 0, b"k", b"");
        let mut from_lines = Records::new(Full::new(Bytes::from_static(lines)), Format::Ndjson, None);
        let mut from_frames = Records::new(Full::new(Bytes::from(frames)), Format::Frames, None);
        for numbers in [(1, 1), (3, 2)] {
            let (a, b) =
                (from_lines.next().await.unwrap().unwrap(), from_frames.next().await.unwrap().unwrap());
            assert_eq!((a.number(), b.number()), numbers);
            assert_eq!(a.mutation().unwrap(), b.mutation().unwrap());
        }
        assert!(from_lines.next().await.unwrap().is_none() && from_frames.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn an_error_names_its_line() {
        let body = Full::new(Bytes::from_static(b"{\"key\":\"a\"}\n{\"key\":\"\"}\n"));
        let mut records = Records::new(body, Format::Ndjson, None);
        assert_eq!(&*records.next().await.unwrap().unwrap().key().unwrap(), b"a");
        let error = records.next().await.unwrap().unwrap().key().unwrap_err();
        assert_eq!(error.fields["line"], 2);
        assert!(error.message.starts_with("line 2: the key is empty"), "{error}");
        assert!(error.to_json().ends_with("\"line\":2}"), "{}", error.to_json());
    }
}
