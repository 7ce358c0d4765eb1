//! `POST /v1/ingest`: an unbounded stream of mutations, committed in pieces as it flows, and answered as they commit.
//!
//! ```text
//! body ─▶ a piece: whatever lines have arrived, up to a bound ─▶ parse ─▶ submit ─▶ pending, in order ─▶ progress
//!                                                     one lock for the piece         (bounded)
//! ```
//! Back-pressure is admission: while there is no room the body is not read, and the client's own sending stops.
//!
//! When line *n* is wrong, everything before it is submitted and committed before the answer's last line says so, and
//! nothing after it is looked at. The same holds for a body that breaks off and for a stop.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header;
use isle_service::wire::{Format, Mutation, Record, Records, media};
use isle_service::{ApiError, ErrorCode};
use isle_storage::ids::Position;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::bulk::borrowed;
use super::large::bulk_limit;
use super::{Face, answer, params};
use crate::intake::{Accepted, Ack, Options, Patience};
use crate::writer::Writer;

/// Lines of one piece at most.
const PIECE_LINES: usize = 2048;

/// Bytes of one piece's lines, about: the line that passes the bound still belongs to it.
const PIECE_BYTES: usize = 1 << 20;

/// Bytes of one piece's lines where one of them is large enough to go into a blob file, about: a file is an object.
const LARGE_PIECE_BYTES: usize = 4 << 20;

/// How long the first lines of such a piece wait for the rest.
const GATHER_FOR: Duration = Duration::from_millis(50);

/// Pieces submitted and not yet committed; at the limit the body is not read.
const PENDING_PIECES: usize = 256;

/// Progress lines that a client has not taken yet; at the limit the body is not read.
const UNREAD_LINES: usize = 64;

/// `POST /v1/ingest`.
pub(super) async fn ingest(State(face): State<Face>, request: Request) -> Result<Response, ApiError> {
    let writer = face.writer()?;
    let request = match face.forwarder().route_stream(&writer, request).await {
        Ok(here) => here,
        Err(answered) => return Ok(answered),
    };
    let (_, options) = params::parse(request.uri(), &["ack"], writer.settings())?;
    let format = media::bulk_request(request.headers())?;
    let streams = media::accepts(request.headers(), Format::Ndjson);
    // Before the first line of the answer there is still a status to say it with.
    writer.refusal().map_or(Ok(()), Err)?;
    let run = Run::new(face, writer, request.into_body(), format, options);
    if streams { Ok(stream(run)) } else { summary(run).await }
}

/// The answer as it commits: the last line says how it ended.
fn stream(run: Run) -> Response {
    let (lines, unread) = mpsc::channel::<Result<Bytes, std::convert::Infallible>>(UNREAD_LINES);
    tokio::spawn(async move {
        let mut run = run;
        let ended = run.finish(Some(&lines)).await;
        let last = match ended {
            Ok(()) => format!("{}\n", run.done()),
            Err(e) => run.said(e).to_ndjson(),
        };
        // Nobody reads any more: nobody is left to tell.
        let _gone = lines.send(Ok(last.into())).await;
    });
    let body = Body::from_stream(tokio_stream_of(unread));
    ([(header::CONTENT_TYPE, Format::Ndjson.media_type())], body).into_response()
}

fn tokio_stream_of<T>(receiver: mpsc::Receiver<T>) -> impl futures::Stream<Item = T> {
    futures::stream::unfold(receiver, |mut r| async move { r.recv().await.map(|item| (item, r)) })
}

/// The answer at the end.
async fn summary(mut run: Run) -> Result<Response, ApiError> {
    match run.finish(None).await {
        Ok(()) => match run.last {
            Some(position) => Ok(answer::with_position(run.done(), position)),
            None => {
                Ok(([(header::CONTENT_TYPE, "application/json")], run.done().to_string()).into_response())
            }
        },
        Err(e) => Err(run.said(e)),
    }
}

/// A piece that the engine has accepted.
struct Pending {
    accepted: Accepted,
    /// Its lines, empty ones not counted.
    lines: u64,
    deadline: Instant,
}

/// One ingest.
struct Run {
    face: Face,
    writer: Arc<Writer>,
    records: Records<Body>,
    gathered: Gathered,
    options: Options,
    pending: VecDeque<Pending>,
    committed_lines: u64,
    last: Option<Position>,
}

/// What a body's next piece is.
struct Piece {
    records: Vec<Record>,
    /// What comes after them: nothing special, the end, or an error.
    then: Then,
}

enum Then {
    More,
    End,
    Fail(ApiError),
}

impl Run {
    fn new(face: Face, writer: Arc<Writer>, body: Body, format: Format, options: Options) -> Self {
        // The client's sending is what waits; refusing would make it send everything again.
        let options = Options { patience: Patience::Wait, ..options };
        let records = Records::new(body, format, None);
        let threshold = writer.settings().blob_threshold;
        let gathered = Gathered::new(if threshold == 0 { usize::MAX } else { threshold });
        Self {
            face,
            writer,
            records,
            gathered,
            options,
            pending: VecDeque::new(),
            committed_lines: 0,
            last: None,
        }
    }

    /// Reads, submits and waits, until everything that will be committed is. Progress goes to `lines`.
    async fn finish(
        &mut self,
        lines: Option<&mpsc::Sender<Result<Bytes, std::convert::Infallible>>>,
    ) -> Result<(), ApiError> {
        let mut end: Option<Result<(), ApiError>> = None;
        loop {
            if self.pending.is_empty()
                && let Some(end) = end
            {
                return end;
            }
            let face = self.face.clone();
            let reads = end.is_none() && self.pending.len() < PENDING_PIECES;
            tokio::select! {
                biased;
                committed = first_committed(&self.pending) => {
                    self.progress(committed, lines).await?;
                }
                () = face.drain().draining(), if end.is_none() => {
                    end = Some(face.drain().check());
                }
                piece = self.gathered.piece(&mut self.records), if reads => {
                    match self.submit(piece).await {
                        Then::More => {}
                        Then::End => end = Some(Ok(())),
                        Then::Fail(e) => end = Some(Err(e)),
                    }
                }
            }
        }
    }

    /// Hands the lines of a piece to the engine, up to the first that is wrong.
    async fn submit(&mut self, piece: Piece) -> Then {
        let Piece { records, mut then } = piece;
        // The bytes of a piece are few beside what the engine itself may hold, but there may be many ingests.
        let held = records.iter().map(len).sum();
        let face = self.face.clone();
        let _held = match face.bodies().hold(held).await {
            Ok(held) => held,
            Err(e) => return Then::Fail(e),
        };
        let limit = bulk_limit(self.writer.settings());
        let mut parsed: Vec<Mutation<'_>> = Vec::with_capacity(records.len());
        for record in &records {
            let checked = record.mutation().and_then(|m| match m.check_value(limit) {
                Ok(()) => Ok(m),
                Err(e) => Err(e.line(record.number())),
            });
            match checked {
                Ok(m) => parsed.push(m),
                Err(e) => {
                    then = Then::Fail(e);
                    break;
                }
            }
        }
        let mutations: Vec<_> = parsed.iter().map(borrowed).collect();
        let mut rest = mutations.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(fitting(rest, self.writer.settings().max_batch_bytes));
            match self.writer.submit(now, self.options).await {
                Ok(accepted) => self.accepted(accepted, now.len() as u64),
                Err(e) => return Then::Fail(e.into()),
            }
            rest = later;
        }
        then
    }

    fn accepted(&mut self, accepted: Accepted, lines: u64) {
        let timeout = Duration::from_millis(self.writer.settings().ack_timeout_ms);
        self.pending.push_back(Pending { accepted, lines, deadline: Instant::now() + timeout });
        if self.options.ack == Ack::Memory {
            self.take_first();
        }
    }

    fn take_first(&mut self) {
        if let Some(p) = self.pending.pop_front() {
            self.committed_lines += p.lines;
            self.last = Some(p.accepted.position());
        }
    }

    /// The first pending piece has ended: counts it and every further one that has too, and says so.
    async fn progress(
        &mut self,
        committed: Result<(), ApiError>,
        lines: Option<&mpsc::Sender<Result<Bytes, std::convert::Infallible>>>,
    ) -> Result<(), ApiError> {
        committed?;
        self.take_first();
        while self
            .pending
            .front()
            .is_some_and(|p| p.accepted.committed_so_far() == Some(p.accepted.last_seq()))
        {
            self.take_first();
        }
        if let (Some(lines), Some(last)) = (lines, self.last) {
            let line = json!({ "committed_lines": self.committed_lines, "last_seq": last.seq });
            if lines.send(Ok(format!("{line}\n").into())).await.is_err() {
                return Err(ApiError::new(ErrorCode::RequestTimeout, "the client has gone"));
            }
        }
        Ok(())
    }

    fn done(&self) -> Value {
        json!({
            "done": true,
            "committed_lines": self.committed_lines,
            "last_seq": self.last.map(|p| p.seq),
            "epoch": self.last.map(|p| p.epoch),
            "position": self.last.map(|p| p.to_string()),
        })
    }

    /// An error with what is committed all the same.
    fn said(&self, e: ApiError) -> ApiError {
        e.field("committed_lines", self.committed_lines).field("last_seq", self.last.map(|p| p.seq.get()))
    }
}

/// Waits for the first pending piece; never, where there is none.
async fn first_committed(pending: &VecDeque<Pending>) -> Result<(), ApiError> {
    match pending.front() {
        Some(p) => {
            let left = p.deadline.saturating_duration_since(Instant::now());
            p.accepted.committed(left).await.map_err(ApiError::from)
        }
        None => std::future::pending().await,
    }
}

/// Lines that will be handed over together. They are kept here, so that a future that is dropped loses nothing.
struct Gathered {
    records: Vec<Record>,
    bytes: usize,
    /// A line longer than this makes the piece a large one.
    threshold: usize,
    /// Until when a large piece waits for more.
    until: Option<Instant>,
}

impl Gathered {
    fn new(threshold: usize) -> Self {
        Self { records: Vec::new(), bytes: 0, threshold, until: None }
    }

    /// The next line, and whatever else has arrived already; with a large one, what arrives soon.
    async fn piece(&mut self, records: &mut Records<Body>) -> Piece {
        loop {
            let next = match (self.records.is_empty(), self.until) {
                (true, _) => records.next().await,
                (false, Some(until)) => match tokio::time::timeout_at(until, records.next()).await {
                    Ok(next) => next,
                    Err(_elapsed) => return self.take(Then::More),
                },
                (false, None) => match records.buffered() {
                    Ok(None) => return self.take(Then::More),
                    next => next,
                },
            };
            match next {
                Ok(Some(record)) => self.add(record),
                Ok(None) => return self.take(Then::End),
                Err(e) => return self.take(Then::Fail(e.into())),
            }
            if self.is_full() {
                return self.take(Then::More);
            }
        }
    }

    fn add(&mut self, record: Record) {
        let len = len(&record);
        self.bytes += len;
        self.records.push(record);
        if len > self.threshold {
            self.until.get_or_insert_with(|| Instant::now() + GATHER_FOR);
        }
    }

    fn is_full(&self) -> bool {
        let most = if self.until.is_some() { LARGE_PIECE_BYTES } else { PIECE_BYTES };
        self.records.len() >= PIECE_LINES || self.bytes >= most
    }

    fn take(&mut self, then: Then) -> Piece {
        (self.bytes, self.until) = (0, None);
        Piece { records: std::mem::take(&mut self.records), then }
    }
}

/// How many of `mutations` one call may hand over; at least one.
fn fitting(mutations: &[crate::intake::Mutation<'_>], limit: usize) -> usize {
    let mut total = 0;
    let over = mutations.iter().position(|m| {
        total += m.charge();
        total > limit
    });
    over.unwrap_or(mutations.len()).max(1)
}

fn len(record: &Record) -> usize {
    match record {
        Record::Line(line) => line.bytes.len(),
        Record::Frame(_, frame) => frame.key.len() + frame.value.len(),
    }
}
