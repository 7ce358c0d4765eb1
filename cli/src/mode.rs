//! `isle mode`: the compaction mode of the database, shown and changed.
//!
//! A change may delete data: it is done only with `--yes`, and without it the compactor says what it would mean.

use http::{Method, header};
use serde_json::{Value, json};

use crate::args::{ModeArgs, ModeCommand};
use crate::nodes::{Api, Request, To};
use crate::output::{self, Failure};

pub(crate) async fn mode(args: ModeArgs) -> Result<(), Failure> {
    match args.what {
        ModeCommand::Show { nodes } => {
            let answer = Api::new(&nodes).call(To::Compactor, &Request::new(Method::GET, "/v1/mode")).await?;
            print(&answer.json().await?, nodes.json)
        }
        ModeCommand::Set { mode, policy, retention, segment, keep, dry_run, yes, nodes } => {
            let wanted = json!({
                "mode": mode, "policy": policy, "retention": retention, "segment": segment,
                "retention_count": keep,
            });
            let only_say = dry_run || !yes;
            let target = if only_say { "/v1/mode?dry_run=true" } else { "/v1/mode" };
            let request = Request {
                body: wanted.to_string().into(),
                headers: vec![(header::CONTENT_TYPE, "application/json".to_owned())],
                ..Request::new(Method::PUT, target)
            };
            let answer: Value = Api::new(&nodes).call(To::Compactor, &request).await?.json().await?;
            print(&answer, nodes.json)?;
            if only_say && !dry_run {
                return Err(Failure::usage("nothing was changed; repeat with --yes to set this mode"));
            }
            Ok(())
        }
    }
}

fn print(answer: &Value, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return output::line(&answer.to_string());
    }
    for sentence in answer["statement"].as_array().into_iter().flatten() {
        output::line(sentence.as_str().unwrap_or_default())?;
    }
    Ok(())
}
