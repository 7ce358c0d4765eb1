//! `isle put`, `get`, `delete`, `scan`.

use bytes::Bytes;
use http::Method;
use isle_service::ErrorCode;
use isle_service::client::{CallError, MAX_ANSWER_BYTES};
use isle_service::wire::body::ValuePieces;
use isle_service::wire::{escape_key, key_target};
use serde_json::{Value, json};

use crate::args::{DeleteArgs, GetArgs, PutArgs, ScanArgs};
use crate::nodes::{Api, Request, To};
use crate::output::{self, EXIT_ABSENT, Failure};
use crate::stdin::{Beginning, Input};

/// Rows asked for in one page of a scan.
const PAGE_ROWS: u64 = 1000;

/// A value from standard input that is longer than this is sent as it is read, and only once.
const HELD_BYTES: usize = 1 << 20;

pub(crate) async fn put(args: PutArgs) -> Result<(), Failure> {
    let mut query = vec![format!("ack={}", args.ack)];
    query.extend(args.ttl.map(|t| format!("ttl={}", escape_key(t.as_bytes()))));
    let mut request = Request::new(Method::PUT, target(&args.key, &query)?);
    let api = Api::new(&args.nodes);
    let answer = if args.value == "-" {
        let mut input = Input::standard();
        match input.begin(HELD_BYTES).await.map_err(|e| Failure::new(format!("standard input: {e}")))? {
            Beginning::Whole(value) => {
                request.body = value;
                api.call(To::Writer, &request).await?
            }
            Beginning::More(first) => api.put_once(&request, input.into_body(first)).await?,
        }
    } else {
        request.body = args.value.into_bytes().into();
        api.call(To::Writer, &request).await?
    };
    position(&answer.json().await?, args.nodes.json)
}

pub(crate) async fn delete(args: DeleteArgs) -> Result<(), Failure> {
    let request = Request::new(Method::DELETE, target(&args.key, &[])?);
    let answer: Value = Api::new(&args.nodes).call(To::Writer, &request).await?.json().await?;
    position(&answer, args.nodes.json)
}

/// Where a write stands: for people its position alone, which `--min-seq` takes.
fn position(answer: &Value, json: bool) -> Result<(), Failure> {
    if json {
        return output::line(&answer.to_string());
    }
    output::line(answer["position"].as_str().unwrap_or_default())
}

pub(crate) async fn get(args: GetArgs) -> Result<(), Failure> {
    let asked = [("min_seq", &args.min_seq), ("snapshot", &args.snapshot)];
    let query: Vec<String> = asked
        .iter()
        .filter_map(|(name, value)| {
            let value = value.as_ref()?;
            Some(format!("{name}={}", escape_key(value.as_bytes())))
        })
        .collect();
    let request = Request::new(Method::GET, target(&args.key, &query)?);
    let api = Api::new(&args.nodes);
    let answer = match api.try_call(To::Reader, &request).await? {
        Ok(answer) => answer,
        Err(CallError::Remote(e)) if e.code == Some(ErrorCode::NotFound) => {
            return Err(Failure::with_exit(EXIT_ABSENT, format!("{}: there is no such key", args.key)));
        }
        Err(e) => return Err(api.failure(To::Reader, e)),
    };
    let seq = answer.header("isle-seq").unwrap_or_default().parse::<u64>().unwrap_or_default();
    if !args.nodes.json {
        // As it comes: it may be large. One that breaks off is a failure, whatever has been written by then.
        let whole = answer.header("content-length").map(str::to_owned);
        let mut pieces = ValuePieces::new(answer.into_body(), MAX_ANSWER_BYTES);
        let mut written = 0;
        loop {
            match pieces.next().await {
                Ok(None) => return Ok(()),
                Ok(Some(piece)) => {
                    written += piece.len();
                    output::write(&piece)?;
                }
                Err(e) => {
                    let (key, of) = (&args.key, whole.map_or_else(String::new, |len| format!(" of {len}")));
                    return Err(Failure::new(format!(
                        "the value of {key:?} broke off after {written}{of} bytes: {}. What was written so far is not \
                         all of it; the reader's log says what it could not read",
                        e.message
                    )));
                }
            }
        }
    }
    let value = answer.bytes(MAX_ANSWER_BYTES).await.map_err(|e| Failure::new(e.to_string()))?;
    let mut row = json!({"key": args.key, "seq": seq});
    match std::str::from_utf8(&value) {
        Ok(text) => row["value"] = text.into(),
        Err(_) => row["value_b64"] = isle_service::wire::base64::encode_url(&value).into(),
    }
    output::line(&row.to_string())
}

fn target(key: &str, query: &[String]) -> Result<String, Failure> {
    let target = key_target("/v1/kv", key.as_bytes())
        .ok_or_else(|| Failure::usage("the key is too long for a URL: use `isle load` with one line"))?;
    if query.is_empty() {
        return Ok(target);
    }
    let separator = if target.contains('?') { '&' } else { '?' };
    Ok(format!("{target}{separator}{}", query.join("&")))
}

pub(crate) async fn scan(args: ScanArgs) -> Result<(), Failure> {
    let api = Api::new(&args.nodes);
    let mut body = json!({"reverse": args.reverse, "keys_only": args.keys_only});
    for (name, value) in [("prefix", &args.prefix), ("start", &args.start), ("end", &args.end)] {
        if let Some(value) = value {
            body[name] = value.as_str().into();
        }
    }
    for (name, value) in [("min_seq", &args.min_seq), ("snapshot", &args.snapshot)] {
        if let Some(value) = value {
            body[name] = value.as_str().into();
        }
    }
    let mut left = args.limit.unwrap_or(u64::MAX);
    while left > 0 {
        body["limit"] = left.min(PAGE_ROWS).into();
        let mut request = Request::new(Method::POST, "/v1/scan");
        request.body = Bytes::from(body.to_string());
        let mut lines = api.call(To::Reader, &request).await?.lines(None);
        let mut page = None;
        while let Some(line) = lines.next().await? {
            if let Some(trailer) = trailer(&line.bytes)? {
                page = Some(trailer);
                continue;
            }
            left = left.saturating_sub(1);
            output::write(&[&line.bytes[..], b"\n"].concat())?;
        }
        match page {
            None => return Err(Failure::new("the answer broke off before its trailer: it is incomplete")),
            Some(Value::Null) => return Ok(()),
            Some(token) => body["page"] = token,
        }
    }
    Ok(())
}

/// The next page's token where the line is the trailer, an error where it is one.
fn trailer(line: &[u8]) -> Result<Option<Value>, Failure> {
    if line.starts_with(b"{\"error\"") {
        let error: Value = serde_json::from_slice(line)?;
        return Err(Failure::new(format!("{}: {}", error["error"]["code"], error["error"]["message"])));
    }
    if !line.starts_with(b"{\"next_page\"") {
        return Ok(None);
    }
    let mut trailer: Value = serde_json::from_slice(line)?;
    Ok(Some(trailer["next_page"].take()))
}
