//! `isle pause`, `isle resume` and `isle compact`: what a person asks of the compactors. A pause is kept in the database, so
//! with `--store` it needs no compactor that listens, and holds for runs of cron as well.

use compactor_node::JobError;
use compactor_node::pause as compactor;
use compactor_node::server::pause_json;
use http::Method;
use isle_service::wire::duration;
use serde_json::{Value, json};

use crate::args::{CompactArgs, PauseArgs, ResumeArgs};
use crate::nodes::{Api, Request, To};
use crate::output::{self, Failure};
use crate::place::Place;

pub(crate) async fn pause(args: PauseArgs) -> Result<(), Failure> {
    let answer: Value = match Place::direct(&args.direct)? {
        Some(place) => {
            let db = place.database().await?;
            let (pause, _) = compactor::begin(&db, &place.node(), args.lasting).await.map_err(refused)?;
            json!({ "paused": true, "pause": pause_json(&pause) })
        }
        None => {
            let target = match args.lasting {
                Some(lasting) => format!("/v1/pause?for={}", duration::format(lasting).replace(' ', "%20")),
                None => "/v1/pause".to_owned(),
            };
            let request = Request::new(Method::POST, target);
            Api::new(&args.nodes).call(To::Compactor, &request).await?.json().await?
        }
    };
    if args.nodes.json {
        return output::line(&answer.to_string());
    }
    let until = answer["pause"]["until"].as_str().map_or_else(|| "`isle resume`".to_owned(), str::to_owned);
    output::line(&format!("Nobody begins a merge until {until}; what is under way comes to its end."))
}

pub(crate) async fn resume(args: ResumeArgs) -> Result<(), Failure> {
    match Place::direct(&args.direct)? {
        Some(place) => {
            compactor::end(&place.database().await?, &place.node()).await.map_err(refused)?;
        }
        None => {
            let request = Request::new(Method::POST, "/v1/resume");
            let _answer: Value = Api::new(&args.nodes).call(To::Compactor, &request).await?.json().await?;
        }
    }
    output::line(if args.nodes.json { r#"{"paused":false}"# } else { "There is no pause." })
}

pub(crate) async fn compact(args: CompactArgs) -> Result<(), Failure> {
    let request = Request::new(Method::POST, "/v1/compact");
    let answer: Value = Api::new(&args.nodes).call(To::Compactor, &request).await?.json().await?;
    if args.nodes.json {
        return output::line(&answer.to_string());
    }
    output::line("The compactor merges everything into one run; `isle status` shows how far it is.")
}

fn refused(error: JobError) -> Failure {
    match error {
        JobError::Refused(why) => Failure::usage(why),
        e => Failure::new(e.to_string()),
    }
}
