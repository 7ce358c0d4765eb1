//! `isle snapshot create`, `list`, `drop`: named snapshots, through a writer.

use clap::{Args, Subcommand};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use http::Method;
use isle_service::wire::escape_key;
use serde_json::{Value, json};

use crate::args::Nodes;
use crate::nodes::{Api, Request, To};
use crate::output::{self, Failure};

/// `isle snapshot`.
#[derive(Debug, Args)]
pub(crate) struct SnapshotArgs {
    /// What to do.
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Take a snapshot of everything accepted so far; prints the position of what it holds.
    Create {
        /// Its name: letters, digits, `.`, `_` and `-`.
        name: String,
        /// End it after so long: `1h`. Without it, it stays, and holds what it needs, until it is dropped.
        #[arg(long)]
        ttl: Option<String>,
        /// Keep the log after it too, so that a consumer can go on from it.
        #[arg(long)]
        holds_log: bool,
        #[command(flatten)]
        nodes: Nodes,
    },
    /// List every snapshot.
    List {
        #[command(flatten)]
        nodes: Nodes,
    },
    /// Drop a snapshot: what only it holds goes with the next merges.
    Drop {
        /// Its name.
        name: String,
        #[command(flatten)]
        nodes: Nodes,
    },
}

pub(crate) async fn snapshot(args: SnapshotArgs) -> Result<(), Failure> {
    match args.what {
        What::Create { name, ttl, holds_log, nodes } => {
            let mut request = Request::new(Method::POST, "/v1/snapshots");
            let mut body = json!({"name": name, "holds_log": holds_log});
            if let Some(ttl) = ttl {
                body["ttl"] = ttl.into();
            }
            request.body = body.to_string().into();
            let taken = call(&nodes, &request).await?;
            if nodes.json {
                return output::line(&taken.to_string());
            }
            output::line(taken["position"].as_str().unwrap_or_default())
        }
        What::List { nodes } => {
            let answer = call(&nodes, &Request::new(Method::GET, "/v1/snapshots")).await?;
            if nodes.json {
                return output::line(&answer.to_string());
            }
            output::line(&table(&answer))
        }
        What::Drop { name, nodes } => {
            let target = format!("/v1/snapshots/{}", escape_key(name.as_bytes()));
            let dropped = call(&nodes, &Request::new(Method::DELETE, target)).await?;
            if nodes.json {
                return output::line(&dropped.to_string());
            }
            output::line(&format!("dropped {name}, which held everything up to {}", dropped["seq"]))
        }
    }
}

async fn call(nodes: &Nodes, request: &Request) -> Result<Value, Failure> {
    Ok(Api::new(nodes).call(To::Writer, request).await?.json().await?)
}

fn table(answer: &Value) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(["NAME", "SEQ", "CREATED", "EXPIRES", "HOLDS LOG"]);
    for s in answer["snapshots"].as_array().into_iter().flatten() {
        let text = |name: &str| s[name].as_str().unwrap_or("never").to_owned();
        let log = if s["holds_log"] == true { "yes" } else { "no" };
        table.add_row([text("name"), s["seq"].to_string(), text("created"), text("expires"), log.to_owned()]);
    }
    table.trim_fmt()
}
