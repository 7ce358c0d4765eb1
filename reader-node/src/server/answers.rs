//! Bulk answers: rows written as NDJSON or frames while they are read, ended by a trailer or an error.
//!
//! A piece of the body is made when the connection asks for it, so a slow client holds up its own scan and nothing
//! else, and no more than a piece of the answer is in memory. An error after the first piece becomes the last line (or
//! frame): what came before it is right, and without a trailer nobody takes it for everything.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderValue, header};
use isle_service::wire::{
    Encoding, Format, Kind, RowJson, frame, headers, write_absent_json, write_row_json,
};
use isle_storage::ids::SeqNo;

use super::failure::api_error;
use crate::error::ReadError;
use crate::mget::Mget;
use crate::reader::Found;
use crate::scan::{Record, Scan};

/// A piece of the body is handed on at about this many bytes.
const PIECE: usize = 64 << 10;

/// What a bulk answer is made of.
#[derive(Debug)]
pub(super) enum Source {
    Scan(Box<Scan>),
    Mget(Box<Mget>),
}

/// How rows are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    pub(super) format: Format,
    pub(super) encoding: Encoding,
    pub(super) keys_only: bool,
}

impl Form {
    fn write_record(self, out: &mut Vec<u8>, record: &Record) {
        let expires = record.expires.map(|t| t.0);
        if self.format == Format::Frames {
            let len = record.elsewhere.unwrap_or_default().to_le_bytes();
            let (kind, value) = match record.elsewhere {
                _ if self.keys_only => (Kind::Key, &[][..]),
                Some(_) => (Kind::Elsewhere, &len[..]),
                None => (Kind::Put, &record.value[..]),
            };
            let expires = expires.unwrap_or_default();
            frame::encode(out, kind, record.seq.0, record.time.0, expires, &record.key, value);
            return;
        }
        let row = RowJson {
            op: None,
            key: &record.key,
            value: (!self.keys_only && record.elsewhere.is_none()).then_some(&record.value),
            value_len: record.elsewhere,
            seq: record.seq.0,
            time: record.time.0,
            expires,
            cursor: None,
        };
        write_row_json(out, &row, self.encoding);
        out.push(b'\n');
    }

    fn write_absent(self, out: &mut Vec<u8>, key: &[u8]) {
        if self.format == Format::Frames {
            frame::encode(out, Kind::Absent, 0, 0, 0, key, b"");
        } else {
            write_absent_json(out, key, self.encoding);
            out.push(b'\n');
        }
    }

    fn write_trailer(self, out: &mut Vec<u8>, trailer: &str) {
        if self.format == Format::Frames {
            frame::encode_json(out, Kind::Trailer, trailer.as_bytes());
        } else {
            out.extend_from_slice(trailer.as_bytes());
            out.push(b'\n');
        }
    }

    fn write_error(self, out: &mut Vec<u8>, e: &ReadError) {
        let error = api_error(e);
        if self.format == Format::Frames {
            out.extend(error.to_frame());
        } else {
            out.extend(error.to_ndjson().into_bytes());
        }
    }
}

impl Source {
    fn view_seq(&self) -> SeqNo {
        match self {
            Self::Scan(scan) => scan.view_seq(),
            Self::Mget(mget) => mget.view_seq(),
        }
    }

    /// Appends the next row; false after the last.
    async fn write_next(&mut self, out: &mut Vec<u8>, form: Form) -> Result<bool, ReadError> {
        match self {
            Self::Scan(scan) => {
                let Some(record) = scan.next().await? else { return Ok(false) };
                form.write_record(out, &record);
            }
            Self::Mget(mget) => match mget.next().await? {
                None => return Ok(false),
                Some((key, None)) => form.write_absent(out, &key),
                Some((key, Some(f))) => {
                    let Found { value, elsewhere, seq, time, expires } = f;
                    let record = Record { key, value, elsewhere, seq, time, expires };
                    form.write_record(out, &record);
                }
            },
        }
        Ok(true)
    }

    /// The trailer, as JSON without a line break.
    fn trailer(&mut self) -> String {
        let view_seq = self.view_seq();
        let Self::Scan(scan) = self else { return format!("{{\"view_seq\":{view_seq}}}") };
        // The token's alphabet needs no escaping.
        let next = scan.next_page().map_or_else(|| "null".to_owned(), |token| format!("\"{token}\""));
        format!("{{\"next_page\":{next},\"view_seq\":{view_seq}}}")
    }
}

/// An answer under way.
#[derive(Debug)]
struct Pieces {
    source: Source,
    form: Form,
    over: bool,
}

impl Pieces {
    /// The next piece of the body; `None` after the last.
    async fn next(&mut self) -> Option<Bytes> {
        if self.over {
            return None;
        }
        let mut out = Vec::with_capacity(PIECE + PIECE / 4);
        while out.len() < PIECE && !self.over {
            match self.source.write_next(&mut out, self.form).await {
                Ok(true) => {}
                Ok(false) => {
                    self.over = true;
                    self.form.write_trailer(&mut out, &self.source.trailer());
                }
                Err(e) => {
                    self.over = true;
                    tracing::warn!(error = %e, "a bulk answer ended in an error");
                    self.form.write_error(&mut out, &e);
                }
            }
        }
        Some(out.into())
    }
}

/// The whole answer. A short one is made at once and carries its length.
pub(super) async fn answer(source: Source, form: Form) -> Response {
    let view_seq = source.view_seq();
    let mut pieces = Pieces { source, form, over: false };
    let first = pieces.next().await.unwrap_or_default();
    let body = if pieces.over {
        Body::from(first)
    } else {
        let rest = futures::stream::unfold(pieces, async |mut pieces| Some((pieces.next().await?, pieces)));
        let first = futures::stream::once(std::future::ready(first));
        Body::from_stream(first.chain(rest).map(Ok::<_, std::convert::Infallible>))
    };
    let mut response = Response::new(body);
    let head = response.headers_mut();
    head.insert(header::CONTENT_TYPE, HeaderValue::from_static(form.format.media_type()));
    head.insert(headers::VIEW_SEQ, HeaderValue::from(view_seq.0));
    response
}
