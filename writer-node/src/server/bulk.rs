//! `POST /v1/batch` and `POST /v1/events/{stream}`: many records, all or none.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http_body::Body as _;
use isle_service::wire::body::BODY_IDLE;
use isle_service::wire::key::raw_key_or;
use isle_service::wire::{Format, Record, Records, Ttl, base64, media};
use isle_service::{ApiError, ErrorCode};
use serde_json::Map;

use super::large::{self, Value, bulk_limit};
use super::{Face, answer, params};
use crate::intake::{EVENT_SUFFIX, Event, Mutation, charge};
use crate::writer::Writer;

const EVENTS: &str = "/v1/events/";

/// How much longer than its content a body may be: escapes, base64 and punctuation.
const WIRE_FACTOR: usize = 4;

/// `POST /v1/batch`: an atomic group.
pub(super) async fn batch(State(face): State<Face>, request: Request) -> Result<Response, ApiError> {
    let writer = face.writer()?;
    let request = match face.forwarder().route(&writer, request).await {
        Ok(here) => here,
        Err(answered) => return Ok(answered),
    };
    let (_, options) = params::parse(request.uri(), &["ack"], writer.settings())?;
    let format = media::bulk_request(request.headers())?;
    let limits = Limits::of(&writer);
    let body = request.into_body();
    let _held = face.bodies().hold(limits.hold_for(&body)).await?;
    let records = collect(body, format, limits, |r| {
        let m = r.mutation()?;
        m.check_value(limits.value).map_err(|e| e.line(r.number()))?;
        Ok(m.size())
    });
    let records = records.await?;
    let parsed: Vec<_> = records.iter().map(Record::mutation).collect::<Result<_, _>>()?;
    let mutations: Vec<Mutation<'_>> = parsed.iter().map(borrowed).collect();
    Ok(answer::accepted(&writer.apply_batch(&mutations, options).await?, Map::new()))
}

/// `POST /v1/events/{stream}`: one value, or an atomic group of them.
pub(super) async fn events(State(face): State<Face>, request: Request) -> Result<Response, ApiError> {
    let writer = face.writer()?;
    let request = match face.forwarder().route_value(&writer, request).await {
        Ok(here) => here,
        Err(answered) => return Ok(answered),
    };
    let stream = raw_key_or(request.uri(), EVENTS, "stream_b64")?;
    let (query, options) = params::parse(request.uri(), &["stream_b64", "ttl", "ack"], writer.settings())?;
    let ttl = query.ttl()?.map(Ttl::duration);
    let limits = Limits::of(&writer);
    let many = media::many_or_one(request.headers());
    let body = request.into_body();
    let Some(format) = many else {
        let accepted = match large::read(face.bodies(), &writer, body, options).await? {
            Value::Whole(value, _held) => {
                writer.append(&stream, &[Event { value: &value, ttl }], options).await?
            }
            Value::Upload(upload) => upload.append(&stream, ttl, options).await?,
        };
        let key = Writer::event_key(&stream, accepted.first_seq());
        return Ok(answer::accepted(&accepted, key_member(&key)));
    };
    let _held = face.bodies().hold(limits.hold_for(&body)).await?;
    let key_len = stream.len() + EVENT_SUFFIX;
    let records = collect(body, format, limits, |r| {
        let value = r.event()?.value.len();
        isle_service::wire::mutation::check_value_len(value, limits.value).map_err(|e| e.line(r.number()))?;
        Ok(key_len + value)
    });
    let records = records.await?;
    let parsed: Vec<_> = records.iter().map(Record::event).collect::<Result<_, _>>()?;
    let events: Vec<Event<'_>> =
        parsed.iter().map(|e| Event { value: &e.value, ttl: e.ttl.map(Ttl::duration).or(ttl) }).collect();
    Ok(answer::accepted(&writer.append(&stream, &events, options).await?, Map::new()))
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    value: usize,
    batch: usize,
}

impl Limits {
    fn of(writer: &Writer) -> Self {
        Self { value: bulk_limit(writer.settings()), batch: writer.settings().max_batch_bytes }
    }

    /// What to hold of the budget for a body: what it announces, or what the largest batch takes.
    fn hold_for(self, body: &Body) -> usize {
        let announced = body.size_hint().exact().map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        announced.unwrap_or(self.batch).min(self.batch * WIRE_FACTOR)
    }
}

/// Reads all records, each judged as it comes by `size`, which says how long its content is. A batch that is too
/// large is refused as soon as that is known.
async fn collect(
    body: Body,
    format: Format,
    limits: Limits,
    size: impl Fn(&Record) -> Result<usize, ApiError>,
) -> Result<Vec<Record>, ApiError> {
    let mut records = Records::new(body, format, Some(BODY_IDLE));
    let (mut all, mut content) = (Vec::new(), 0);
    while let Some(record) = records.next().await? {
        content += charge(size(&record)?, 0);
        if content > limits.batch {
            return Err(too_large(content, limits.batch, record.number()));
        }
        all.push(record);
    }
    Ok(all)
}

fn too_large(size: usize, limit: usize, line: u64) -> ApiError {
    let message = format!(
        "an atomic batch takes at most {limit} bytes, and this one has {size} up to line {line}; use /v1/ingest, or \
         smaller batches"
    );
    ApiError::new(ErrorCode::BatchTooLarge, message).field("size", size).field("limit", limit)
}

/// The engine's mutation, borrowed from a parsed one.
pub(super) fn borrowed<'a>(m: &'a isle_service::wire::Mutation<'_>) -> Mutation<'a> {
    match m {
        isle_service::wire::Mutation::Put { key, value, ttl } => {
            Mutation::Put { key, value, ttl: ttl.map(Ttl::duration) }
        }
        isle_service::wire::Mutation::Delete { key } => Mutation::Delete { key },
    }
}

/// A key as JSON has it: `key` where it is UTF-8, `key_b64` otherwise.
fn key_member(key: &[u8]) -> Map<String, serde_json::Value> {
    let mut member = Map::new();
    match std::str::from_utf8(key) {
        Ok(text) => member.insert("key".into(), text.into()),
        Err(_) => {
            let mut out = Vec::new();
            base64::encode_standard(&mut out, key);
            member.insert("key_b64".into(), String::from_utf8_lossy(&out).into())
        }
    };
    member
}
