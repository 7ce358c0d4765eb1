//! `PUT` and `DELETE /v1/kv/{key}`.

use axum::extract::{Request, State};
use axum::response::Response;
use isle_service::ApiError;
use isle_service::wire::raw_key;

use super::{Face, answer, params};

const PREFIX: &str = "/v1/kv/";

/// `PUT /v1/kv/{key}`: the body is the value.
pub(super) async fn put(State(face): State<Face>, request: Request) -> Result<Response, ApiError> {
    let writer = face.writer()?;
    let request = match face.forwarder().route(&writer, request).await {
        Ok(here) => here,
        Err(answered) => return Ok(answered),
    };
    let uri = request.uri();
    let key = raw_key(uri, PREFIX)?;
    let (query, options) = params::parse(uri, &["key_b64", "ttl", "ack"], writer.settings())?;
    let ttl = query.ttl()?.map(|t| t.duration());
    let limit = writer.settings().max_value_bytes;
    let (value, _held) = face.bodies().value(request.into_body(), limit).await?;
    Ok(answer::position(writer.put(&key, &value, ttl, options).await?))
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
