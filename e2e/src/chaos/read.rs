//! Reads over HTTP, recorded: what was asked, and the answer as the checker wants it.

use http::Method;
use isle_history::{Digest, Key, Name, Page, Query, ReadAnswer, Recorder, SeenRow, Span, Want};
use isle_service::client::{CallError, RemoteError};
use isle_service::wire::escape_key;
use isle_service::wire::headers::{SEQ, VIEW_SEQ};
use serde_json::{Value, json};

use crate::client::{Api, Plain, bytes};

/// Longest wait for `min_seq`: shorter than the client's own patience.
const WAIT: &str = "2s";

/// A client that reads from one reader.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) recorder: Recorder,
    pub(super) client: Name,
    /// One client at one reader: its views never go back.
    pub(super) session: Name,
    pub(super) api: Api,
    /// The snapshot it reads at; without one it reads the present.
    pub(super) held: Option<Held>,
}

/// A named snapshot that a client holds.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) name: Name,
    /// The instant at which all its reads judge expiry.
    pub(super) created: i64,
}

/// What a read may ask beside its keys.
#[derive(Debug, Clone, Default)]
pub struct AtLeast {
    /// The number the view must hold.
    pub seq: u64,
    /// The same as it is sent: a number or a position.
    pub text: String,
}

/// The rows of a scan that has been read to its end.
pub(super) type Scanned = Vec<SeenRow>;

impl Session {
    /// What every target says besides its keys.
    fn asked(&self, at_least: Option<&AtLeast>) -> String {
        let snapshot = self.held.as_ref().map(|h| format!("&snapshot={}", h.name));
        let least = at_least.map(|min| format!("&min_seq={}&wait={WAIT}", min.text));
        [snapshot, least].into_iter().flatten().collect()
    }

    fn wanting(&self, query: Query, at_least: Option<&AtLeast>) -> Query {
        let query = Query { snapshot: self.held.as_ref().map(|h| h.name.clone()), ..query };
        match at_least {
            Some(min) => query.at_least(min.seq),
            None => query,
        }
    }

    /// One key; the code of what it was answered instead, if it was not read.
    pub(super) async fn get(&self, key: &Key, at_least: Option<&AtLeast>) -> Option<String> {
        let target =
            format!("/v1/kv/{}?{}", escape_key(key.as_bytes()), self.asked(at_least).trim_start_matches('&'));
        let query = self.wanting(Query::keys([key.clone()]), at_least);
        let answer = self.recorded(query, self.api.whole(Method::GET, &target, Vec::new()), |plain| {
            let view_seq = number(plain, &VIEW_SEQ)?;
            let rows = match plain.status {
                200 => vec![SeenRow {
                    key: key.clone(),
                    seq: Some(number(plain, &SEQ)?),
                    value: Some(Digest::of(&plain.body)),
                }],
                404 if plain.code() == "not_found" => Vec::new(),
                _ => return None,
            };
            Some((rows, view_seq, false, None))
        });
        answer.await.err()
    }

    /// Several keys at once.
    pub(super) async fn mget(&self, keys: &[Key], at_least: Option<&AtLeast>) {
        let lines: Vec<String> = keys.iter().map(|k| json!({"key": k.to_string()}).to_string()).collect();
        let target = format!("/v1/mget?{}", self.asked(at_least).trim_start_matches('&'));
        let call = self.api.whole(Method::POST, &target, lines.join("\n").into_bytes());
        let query = self.wanting(Query::keys(keys.iter().cloned()), at_least);
        let _seen = self.recorded(query, call, rows).await;
    }

    /// A range, page by page; its rows, if it could be read to its end, or the code of what came instead.
    pub(super) async fn scan(&self, scan: Scan) -> Result<Scanned, String> {
        let (mut start, mut end) = (scan.start.clone(), scan.end.clone());
        let mut all = Scanned::new();
        let mut page: Option<String> = None;
        // A scan is one read: its later pages judge expiry at the instant of the first.
        let began = jiff::Timestamp::now().as_microsecond();
        loop {
            let mut target = format!("/v1/scan?limit={}&reverse={}", scan.limit, scan.reverse);
            let bound = |name: &str, key: &Key| format!("&{name}={}", escape_key(key.as_bytes()));
            target.push_str(&bound("start", &scan.start));
            scan.end.iter().for_each(|end| target.push_str(&bound("end", end)));
            target.push_str(&self.asked(scan.at_least.as_ref()));
            page.iter().for_each(|token| target.push_str(&format!("&page={token}")));
            let want = Want::Range {
                start: start.clone(),
                end: end.clone(),
                limit: Some(scan.limit),
                reverse: scan.reverse,
            };
            let mut query = self.wanting(Query::of(want), scan.at_least.as_ref());
            let first = page.is_none();
            query.page = Some(Page { scan: scan.name.clone(), first, consistent: false });
            let call = self.api.whole(Method::GET, &target, Vec::new());
            let (rows, next) = self.recorded_since(began, query, call, self::rows).await?;
            if let Some(last) = rows.last() {
                // The next page begins where this one ended.
                if scan.reverse { end = Some(last.key.clone()) } else { start = last.key.successor() }
            }
            all.extend(rows);
            page = next;
            if page.is_none() {
                return Ok(all);
            }
        }
    }

    /// Records the question before it leaves and the answer after it has come.
    async fn recorded(
        &self,
        query: Query,
        call: impl Future<Output = Result<Plain, CallError>>,
        read: impl FnOnce(&Plain) -> Option<(Vec<SeenRow>, u64, bool, Option<String>)>,
    ) -> Result<(Vec<SeenRow>, Option<String>), String> {
        self.recorded_since(jiff::Timestamp::now().as_microsecond(), query, call, read).await
    }

    /// The same for a read that began before this request.
    async fn recorded_since(
        &self,
        from: i64,
        query: Query,
        call: impl Future<Output = Result<Plain, CallError>>,
        read: impl FnOnce(&Plain) -> Option<(Vec<SeenRow>, u64, bool, Option<String>)>,
    ) -> Result<(Vec<SeenRow>, Option<String>), String> {
        // A snapshot's view is no newer than that of the session before it, and need not be.
        let session = self.held.is_none().then_some(&self.session);
        let op = self.recorder.read_invoked(&self.client, None, session, query);
        let answer = call.await;
        let judged = match &self.held {
            Some(held) => Span { from: held.created, to: held.created },
            None => Span { from, to: jiff::Timestamp::now().as_microsecond() },
        };
        let code = match answer {
            Ok(plain) => match read(&plain) {
                Some((rows, view_seq, more, next)) => {
                    let answer = ReadAnswer { rows: rows.clone(), view_seq, more, judged: Some(judged) };
                    self.recorder.read_answered(op, answer);
                    return Ok((rows, next));
                }
                None => code(&plain),
            },
            Err(e) => code_of(&e),
        };
        self.recorder.read_failed(op, &code);
        Err(code)
    }
}

/// A scan as it is asked for.
#[derive(Debug, Clone)]
pub(super) struct Scan {
    /// A name of its own.
    pub(super) name: Name,
    pub(super) start: Key,
    pub(super) end: Option<Key>,
    /// Rows of a page.
    pub(super) limit: u64,
    pub(super) reverse: bool,
    pub(super) at_least: Option<AtLeast>,
}

fn number(plain: &Plain, name: &http::HeaderName) -> Option<u64> {
    plain.headers.get(name)?.to_str().ok()?.parse().ok()
}

/// Rows and trailer of an NDJSON answer; `None` where it is an error, or ends in one.
fn rows(plain: &Plain) -> Option<(Vec<SeenRow>, u64, bool, Option<String>)> {
    if plain.status != 200 {
        return None;
    }
    let lines = plain.body.split(|b| *b == b'\n').filter(|l| !l.is_empty());
    let mut lines: Vec<Value> = lines.map(serde_json::from_slice).collect::<Result<_, _>>().ok()?;
    let trailer = lines.pop()?;
    let view_seq = trailer["view_seq"].as_u64()?;
    let next = trailer["next_page"].as_str().map(str::to_owned);
    let row = |line: &Value| {
        let value = bytes(line, "value").map(|v| Digest::of(&v));
        Some(SeenRow { key: Key::new(&bytes(line, "key")?), seq: line["seq"].as_u64(), value })
    };
    let found = lines.iter().filter(|l| l["found"] != false);
    let rows = found.map(row).collect::<Option<Vec<_>>>()?;
    Some((rows, view_seq, next.is_some(), next))
}

/// The code of an answer that is none: of the error, or of the error line at its end.
fn code(plain: &Plain) -> String {
    let last = plain.body.split(|b| *b == b'\n').rfind(|l| !l.is_empty()).unwrap_or_default();
    let status = http::StatusCode::from_u16(plain.status).unwrap_or(http::StatusCode::OK);
    let error = RemoteError::parse(status, last);
    match error.code {
        Some(code) => code.as_str().to_owned(),
        None if plain.status == 200 => "no_trailer".to_owned(),
        None => format!("status {}", plain.status),
    }
}

fn code_of(e: &CallError) -> String {
    match e {
        CallError::Remote(e) => e.code.map_or_else(|| e.status.to_string(), |c| c.as_str().to_owned()),
        CallError::Client(_) => "no answer".to_owned(),
        CallError::Read(_) | CallError::Answer(_) => "the answer broke off".to_owned(),
    }
}
