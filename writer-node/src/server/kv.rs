//! `PUT` and `DELETE /v1/kv/{key}`.

use axum::extract::{Request, State};
use axum::response::Response;
use isle_service::ApiError;
use isle_service::wire::body::refuse_unsent;
use isle_service::wire::raw_key;

use super::large::{self, Value};
use super::{Face, answer, params};

const PREFIX: &str = "/v1/kv/";

/// `PUT /v1/kv/{key}`: the body is the value.
pub(super) async fn put(State(face): State<Face>, request: Request) -> Result<Response, ApiError> {
    let writer = face.writer()?;
    let request = match face.forwarder().route_value(&writer, request).await {
        Ok(here) => here,
        Err(answered) => return Ok(answered),
    };
    refuse_unsent(request.headers(), request.body(), writer.settings().max_value_bytes)?;
    let uri = request.uri();
    let key = raw_key(uri, PREFIX)?;
    let (query, options) = params::parse(uri, &["key_b64", "ttl", "ack"], writer.settings())?;
    let ttl = query.ttl()?.map(|t| t.duration());
    let position = match large::read(face.bodies(), &writer, request.into_body(), options).await? {
        Value::Whole(value, _held) => writer.put(&key, &value, ttl, options).await?,
        Value::Upload(upload) => upload.put(&key, ttl, options).await?,
    };
    Ok(answer::position(position))
}

/// `DELETE /v1/kv/{key}`: also where the key is absent.
pub(super) async fn delete(State(face): State<Face>, request: Request) -> Result<Response, ApiError> {
    let writer = face.writer()?;
    let request = match face.forwarder().route(&writer, request).await {
        Ok(here) => here,
        Err(answered) => return Ok(answered),
    };
    let uri = request.uri();
    let key = raw_key(uri, PREFIX)?;
    let (_, options) = params::parse(uri, &["key_b64", "ack"], writer.settings())?;
    Ok(answer::position(writer.delete(&key, options).await?))
}
