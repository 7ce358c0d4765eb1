//! `GET /v1/groups`, `GET`, `PUT`, `DELETE /v1/groups/{group}`, `POST /v1/groups/{group}/commit`: durable cursors.

use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::Uri;
use isle_service::ApiError;
use isle_service::slot::Slot;
use isle_service::wire::{Query, duration, json_body};
use isle_storage::ids::Timestamp;
use isle_storage::manifest::MaxLag;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::start;
use crate::cursor::From;
use crate::groups::Group;
use crate::tailer::Tailer;

const PREFIX: &str = "/v1/groups/";

/// The body of `PUT /v1/groups/{group}`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    #[serde(default)]
    start: Option<String>,
    #[serde(default)]
    max_lag: Option<WantedLag>,
}

/// How far behind it may be: what is not named is for the compactor's settings to say.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedLag {
    #[serde(default)]
    records: Option<u64>,
    #[serde(default)]
    bytes: Option<u64>,
    #[serde(default)]
    seconds: Option<Seconds>,
}

/// `"1h"`, or whole seconds.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(u64),
    Text(String),
}

impl WantedLag {
    fn max_lag(&self) -> Result<MaxLag, ApiError> {
        let age = match &self.seconds {
            None => None,
            Some(Seconds::Number(s)) => Some(Duration::from_secs(*s)),
            Some(Seconds::Text(t)) => {
                Some(duration::parse(t).map_err(|e| ApiError::invalid(format!("max_lag.seconds: {e}")))?)
            }
        };
        let micros = |age: Duration| {
            i64::try_from(age.as_micros())
                .map_err(|_| ApiError::invalid(format!("max_lag.seconds: {age:?} is too long")))
        };
        Ok(MaxLag { records: self.records, bytes: self.bytes, age_us: age.map(micros).transpose()? })
    }
}

/// The body of `POST /v1/groups/{group}/commit`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Consumed {
    cursor: String,
    #[serde(default)]
    rewind: bool,
}

/// `PUT /v1/groups/{group}`: the group is there afterwards, new or as it was.
pub(super) async fn ensure(State(slot): State<Slot<Tailer>>, request: Request) -> Result<Response, ApiError> {
    let tailer = slot.get()?;
    let name = name_in(request.uri(), "")?;
    let wanted: Wanted = json_body(request.into_body()).await?;
    let from = match &wanted.start {
        Some(text) => start::parse("start", text)?,
        None => From::Latest,
    };
    let max_lag = wanted.max_lag.as_ref().map(WantedLag::max_lag).transpose()?;
    let (group, created) = tailer.ensure_group(&name, from, max_lag).await?;
    let mut answer = shown(&tailer, &group);
    answer.insert("created".to_owned(), created.into());
    Ok(Json(Value::Object(answer)).into_response())
}

/// `GET /v1/groups`.
pub(super) async fn list(State(slot): State<Slot<Tailer>>, uri: Uri) -> Result<Response, ApiError> {
    Query::parse(&uri, &[])?;
    let tailer = slot.get()?;
    let all: Vec<Value> = tailer.groups().await?.iter().map(|g| Value::Object(shown(&tailer, g))).collect();
    Ok(Json(json!({ "groups": all, "head": tailer.status().head })).into_response())
}

/// `GET /v1/groups/{group}`.
pub(super) async fn one(State(slot): State<Slot<Tailer>>, uri: Uri) -> Result<Response, ApiError> {
    let tailer = slot.get()?;
    let group = tailer.group(&name_in(&uri, "")?).await?;
    Ok(Json(Value::Object(shown(&tailer, &group))).into_response())
}

/// `POST /v1/groups/{group}/commit`: answered once the cursor, or a later one, is stored.
pub(super) async fn commit(State(slot): State<Slot<Tailer>>, request: Request) -> Result<Response, ApiError> {
    let tailer = slot.get()?;
    let name = name_in(request.uri(), "/commit")?;
    let consumed: Consumed = json_body(request.into_body()).await?;
    let cursor = consumed.cursor.parse();
    let cursor = cursor.map_err(|e: crate::InvalidCursor| ApiError::invalid(format!("cursor: {e}")))?;
    let done = match consumed.rewind {
        false => tailer.commit_group(&name, cursor).await?,
        true => tailer.rewind_group(&name, cursor).await?,
    };
    let answer = json!({ "group": name, "cursor": done.cursor.to_string(), "moved": done.moved });
    Ok(Json(answer).into_response())
}

/// `DELETE /v1/groups/{group}`.
pub(super) async fn delete(State(slot): State<Slot<Tailer>>, uri: Uri) -> Result<Response, ApiError> {
    let tailer = slot.get()?;
    let name = name_in(&uri, "")?;
    tailer.delete_group(&name).await?;
    Ok(Json(json!({ "group": name, "deleted": true })).into_response())
}

/// The group's name in the path. No name needs escapes, so none are read; the engine refuses what is none.
fn name_in(uri: &Uri, suffix: &str) -> Result<String, ApiError> {
    Query::parse(uri, &[])?;
    let name = uri.path().strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(suffix));
    Ok(name.unwrap_or_default().to_owned())
}

fn shown(tailer: &Tailer, group: &Group) -> Map<String, Value> {
    let now = tailer.database().env.clock.now();
    let age = |since: Timestamp| now.0.saturating_sub(since.0).max(0) as f64 / 1e6;
    let seconds = |micros: i64| micros as f64 / 1e6;
    let MaxLag { records, bytes, age_us } = group.max_lag;
    let answer = json!({
        "group": group.name,
        "cursor": group.cursor.to_string(),
        "lag": {
            "records": group.lag.records,
            "bytes": group.lag.bytes,
            "seconds": group.lag.since.map_or(0.0, age),
        },
        "max_lag": { "records": records, "bytes": bytes, "seconds": age_us.map(seconds) },
        "expired": group.expired,
    });
    match answer {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}
