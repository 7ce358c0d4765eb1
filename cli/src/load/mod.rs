//! `isle load`: mutations from a file into the writer.
//!
//! The input goes out in pieces of whole lines, one request each, one after the other (two at once could commit out of
//! order). While a piece is being committed the writer says how far it is; where a piece breaks off, only what it had
//! not yet said is sent again, to whichever writer leads by then. Lines are therefore applied at least once and in order,
//! and never skipped.

mod input;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, header};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use isle_service::client::{BaseUrl, CallError};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use self::input::{Input, Piece};
use crate::args::LoadArgs;
use crate::nodes::{Api, Request, To};
use crate::output::{self, Failure};

/// Lines in one request at most.
const PIECE_LINES: u64 = 1 << 20;

/// Pieces read ahead of the one being sent.
const PIECES_AHEAD: usize = 2;

/// Pauses between attempts, first and longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// A writer that says nothing for this long while a piece is under way has gone.
const SILENCE: Duration = Duration::from_secs(60);

pub(crate) async fn load(args: LoadArgs) -> Result<(), Failure> {
    let mut input = Input::open(&args.file).map_err(Failure::usage)?;
    let bar = progress_bar(&args, &input);
    let consumed = input.consumed.clone();
    let (tx, mut pieces) = mpsc::channel(PIECES_AHEAD);
    let (skip, piece_bytes) = (args.skip, args.piece_bytes.max(1));
    // Reading and decompressing block; they run beside the sending.
    let reader = tokio::task::spawn_blocking(move || -> Result<(), String> {
        input.skip(skip)?;
        while let Some(piece) = input.next_piece(piece_bytes, PIECE_LINES)? {
            if tx.blocking_send(piece).is_err() {
                break;
            }
        }
        Ok(())
    });
    let started = Instant::now();
    let mut load = Load::new(&args)?;
    while let Some(piece) = pieces.recv().await {
        let sent = load.send(piece, &bar).await;
        bar.set_position(consumed.load(Ordering::Relaxed));
        if let Err(failure) = sent {
            bar.abandon();
            drop(pieces);
            return Err(failure);
        }
    }
    let read = reader.await.map_err(|e| Failure::new(e.to_string()))?;
    bar.finish_and_clear();
    read.map_err(|e| {
        Failure::new(format!("{}: {e}; {} lines before it are committed", args.file, load.committed))
    })?;
    load.summary(started.elapsed(), args.nodes.json)
}

fn progress_bar(args: &LoadArgs, input: &Input) -> ProgressBar {
    if args.nodes.json {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let (bar, template) = match input.total {
        Some(total) => (ProgressBar::new(total), "{bar:40} {percent:>3} %  {msg}"),
        None => (ProgressBar::new_spinner(), "{spinner} {msg}"),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

struct Load {
    api: Api,
    bases: Vec<BaseUrl>,
    patience: Duration,
    /// Lines of the input that are committed, skipped ones included.
    committed: u64,
    skipped: u64,
    last_seq: u64,
    retries: u64,
    started: Instant,
}

/// Why a piece was not committed whole.
enum Broken {
    /// Sending the rest again may help.
    Passing(String),
    /// It will not: the line within what was sent, from 1, where there is one.
    Refused(Option<u64>, String),
}

impl Load {
    fn new(args: &LoadArgs) -> Result<Self, Failure> {
        let api = Api::new(&args.nodes);
        Ok(Self {
            bases: api.bases(To::Writer)?,
            api,
            patience: Duration::from_secs(args.patience),
            committed: args.skip,
            skipped: args.skip,
            last_seq: 0,
            retries: 0,
            started: Instant::now(),
        })
    }

    async fn send(&mut self, piece: Piece, bar: &ProgressBar) -> Result<(), Failure> {
        let mut rest = Some(piece);
        let (mut pause, mut progress) = (PAUSES.0, Instant::now());
        while let Some(piece) = rest {
            let base = self.bases[(self.retries as usize) % self.bases.len()].clone();
            let mut done = 0;
            let result = self.attempt(&base, &piece, &mut done, bar).await;
            if done > 0 {
                (pause, progress) = (PAUSES.0, Instant::now());
            }
            let why = match result {
                Ok(()) => return Ok(()),
                Err(Broken::Refused(line, why)) => return Err(self.refused(&piece, line, &why)),
                Err(Broken::Passing(why)) => why,
            };
            rest = input::rest_after(&piece, done);
            if rest.is_none() {
                return Ok(());
            }
            if progress.elapsed() > self.patience {
                return Err(Failure::new(format!(
                    "{why}; no progress for {} s. {} lines are committed: go on with --skip {}",
                    self.patience.as_secs(),
                    self.committed,
                    self.committed
                )));
            }
            bar.set_message(format!("{} lines, waiting: {why}", self.committed));
            self.retries += 1;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
        Ok(())
    }

    fn refused(&self, piece: &Piece, line: Option<u64>, why: &str) -> Failure {
        let place = line.map_or_else(String::new, |n| format!("line {}: ", piece.first_line + n - 1));
        Failure::new(format!(
            "{place}{why}. {} lines are committed, none after: mend the line and go on with --skip {}",
            self.committed, self.committed
        ))
    }

    /// Sends a piece once; `done` is how many of its lines the writer has said to be committed.
    async fn attempt(
        &mut self,
        base: &BaseUrl,
        piece: &Piece,
        done: &mut u64,
        bar: &ProgressBar,
    ) -> Result<(), Broken> {
        let mut request = Request::new(Method::POST, "/v1/ingest");
        request.body = Bytes::from(piece.bytes.clone());
        let ndjson = "application/x-ndjson".to_owned();
        request.headers = vec![(header::CONTENT_TYPE, ndjson.clone()), (header::ACCEPT, ndjson)];
        let answer = self.api.send(base, &request).await.map_err(|e| broken(&e))?;
        let mut lines = answer.lines(Some(SILENCE));
        let before = self.committed;
        loop {
            let line = lines.next().await.map_err(|e| Broken::Passing(e.to_string()))?;
            let line = line.ok_or_else(|| Broken::Passing("the answer broke off".to_owned()))?;
            let said: Value =
                serde_json::from_slice(&line.bytes).map_err(|e| Broken::Refused(None, e.to_string()))?;
            let (error, figures) = match said.get("error") {
                Some(error) => (Some(error), error),
                None => (None, &said),
            };
            if let Some(n) = figures["committed_lines"].as_u64() {
                *done = n.min(piece.lines);
                self.committed = before + *done;
            }
            if let Some(seq) = figures["last_seq"].as_u64() {
                self.last_seq = self.last_seq.max(seq);
            }
            let rate =
                (self.committed - self.skipped) as f64 / self.started.elapsed().as_secs_f64().max(1e-3);
            bar.set_message(format!("{} lines, {rate:.0}/s", self.committed));
            if let Some(error) = error {
                let text = format!(
                    "{}: {}",
                    error["code"].as_str().unwrap_or("error"),
                    error["message"].as_str().unwrap_or("?")
                );
                let passing = error["retryable"] == true
                    || error["code"] == "outcome_unknown"
                    || error["code"] == "shutting_down";
                return Err(if passing {
                    Broken::Passing(text)
                } else {
                    Broken::Refused(error["line"].as_u64(), text)
                });
            }
            if said["done"] == true {
                *done = piece.lines;
                self.committed = before + piece.lines;
                return Ok(());
            }
        }
    }

    fn summary(&self, took: Duration, as_json: bool) -> Result<(), Failure> {
        let lines = self.committed - self.skipped;
        let rate = lines as f64 / took.as_secs_f64().max(1e-6);
        if as_json {
            let summary = json!({
                "lines": lines,
                "skipped": self.skipped,
                "last_seq": self.last_seq,
                "seconds": took.as_secs_f64(),
                "lines_per_second": rate,
                "retries": self.retries,
            });
            return output::line(&summary.to_string());
        }
        output::line(&format!(
            "{lines} lines in {:.2} s ({rate:.0}/s), last sequence number {}, {} retries",
            took.as_secs_f64(),
            self.last_seq,
            self.retries
        ))
    }
}

/// A call that gave no stream: definite where the writer refused the request itself.
fn broken(error: &CallError) -> Broken {
    match error {
        CallError::Remote(e) if e.status.is_client_error() && e.status.as_u16() != 429 => {
            Broken::Refused(e.fields.get("line").and_then(Value::as_u64), e.to_string())
        }
        other => Broken::Passing(other.to_string()),
    }
}
