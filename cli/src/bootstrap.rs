//! `isle bootstrap`: everything that is in the database, and the cursor that goes on from there.

use http::Method;
use isle_service::wire::escape_key;
use serde_json::Value;

use crate::args::BootstrapArgs;
use crate::nodes::{Api, Request, To};
use crate::output::{self, Failure};

/// Rows go to standard output as they come, one JSON object a line, and last the trailer with the cursor: what is printed
/// is complete only with it. For people the cursor is said on standard error once more.
pub(crate) async fn bootstrap(args: BootstrapArgs) -> Result<(), Failure> {
    let mut query = Vec::new();
    for (name, value) in [("prefix", &args.prefix), ("snapshot", &args.snapshot)] {
        if let Some(value) = value {
            query.push(format!("{name}={}", escape_key(value.as_bytes())));
        }
    }
    let target = format!("/v1/bootstrap?format=ndjson&{}", query.join("&"));
    let answer = Api::new(&args.nodes).call(To::Tailer, &Request::new(Method::GET, target)).await?;
    let mut lines = answer.lines(None);
    // A line is held back until the next one has come: only the last is the trailer, or an error.
    let mut held: Option<bytes::Bytes> = None;
    while let Some(line) = lines.next().await? {
        if let Some(row) = held.replace(line.bytes) {
            output::write(&[&row[..], b"\n"].concat())?;
        }
    }
    let last = held.unwrap_or_default();
    let trailer: Value = serde_json::from_slice(&last).unwrap_or_default();
    if let Some(error) = trailer.get("error") {
        return Err(Failure::new(format!("{}: {}", error["code"], error["message"])));
    }
    let Some(cursor) = trailer["cursor"].as_str().filter(|_| trailer.get("key").is_none()) else {
        return Err(Failure::new("the answer broke off before its trailer: it is incomplete"));
    };
    output::write(&[&last[..], b"\n"].concat())?;
    if !args.nodes.json {
        output::note(&format!("{} rows; go on with: isle tail --from {cursor}", trailer["rows"]));
    }
    Ok(())
}
