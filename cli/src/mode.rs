//! `isle mode`: the compaction mode of the database, shown and changed: by a compactor, or with `--store` without one.
//!
//! A change may delete data: it is done only with `--yes`, and without it the answer says what it would mean.

use compactor_node::server::mode::{read, shown};
use compactor_node::{CompactorSettings, mode as compactor};
use http::{Method, header};
use serde_json::{Value, json};

use crate::args::{Direct, ModeArgs, ModeCommand, Nodes};
use crate::nodes::{Api, Request, To};
use crate::output::{self, Failure};
use crate::place::Place;

pub(crate) async fn mode(args: ModeArgs) -> Result<(), Failure> {
    match args.what {
        ModeCommand::Show { direct, nodes } => {
            let answer = match Place::direct(&direct)? {
                Some(place) => show_directly(&place).await?,
                None => {
                    let request = Request::new(Method::GET, "/v1/mode");
                    Api::new(&nodes).call(To::Compactor, &request).await?.json().await?
                }
            };
            print(&answer, nodes.json)
        }
        ModeCommand::Set { mode, policy, retention, segment, keep, dry_run, yes, direct, nodes } => {
            let wanted = json!({
                "mode": mode, "policy": policy, "retention": retention, "segment": segment,
                "retention_count": keep,
            });
            let only_say = dry_run || !yes;
            print(&set(wanted, only_say, &direct, &nodes).await?, nodes.json)?;
            if only_say && !dry_run {
                return Err(Failure::usage("nothing was changed; repeat with --yes to set this mode"));
            }
            Ok(())
        }
    }
}

async fn set(wanted: Value, only_say: bool, direct: &Direct, nodes: &Nodes) -> Result<Value, Failure> {
    if let Some(place) = Place::direct(direct)? {
        return set_directly(&place, wanted, only_say).await;
    }
    let target = if only_say { "/v1/mode?dry_run=true" } else { "/v1/mode" };
    let request = Request {
        body: wanted.to_string().into(),
        headers: vec![(header::CONTENT_TYPE, "application/json".to_owned())],
        ..Request::new(Method::PUT, target)
    };
    Ok(Api::new(nodes).call(To::Compactor, &request).await?.json().await?)
}

async fn show_directly(place: &Place) -> Result<Value, Failure> {
    let db = place.database().await?;
    let manifest = db.load().await?.manifest;
    let settings = CompactorSettings::default();
    let forecast = compactor::foresee(&manifest, &manifest.compaction, &settings, db.env.clock.now());
    Ok(shown(&forecast, false))
}

async fn set_directly(place: &Place, wanted: Value, only_say: bool) -> Result<Value, Failure> {
    let mode = read(wanted).map_err(Failure::usage)?;
    let (db, settings) = (place.database().await?, CompactorSettings::default());
    if only_say {
        let manifest = db.load().await?.manifest;
        return Ok(shown(&compactor::foresee(&manifest, &mode, &settings, db.env.clock.now()), false));
    }
    let done = compactor::set(&db, &place.node(), &settings, &mode).await?;
    Ok(shown(&done.forecast, done.changed))
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
