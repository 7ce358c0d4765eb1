//! `isle group list`, `show`, `create`, `commit`, `delete`: consumer groups, through a tailer.

use clap::{Args, Subcommand};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use http::Method;
use isle_service::wire::escape_key;
use serde_json::{Value, json};

use crate::args::Nodes;
use crate::nodes::{Api, Request, To};
use crate::output::{self, Failure};

/// `isle group`.
#[derive(Debug, Args)]
pub(crate) struct GroupArgs {
    /// What to do.
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List every group, with how far behind it is.
    List {
        #[command(flatten)]
        nodes: Nodes,
    },
    /// Show one group.
    Show {
        /// Its name.
        name: String,
        #[command(flatten)]
        nodes: Nodes,
    },
    /// Make sure that there is a group; one that is there stays where it is. Prints its cursor.
    Create {
        /// Its name: letters, digits, `.`, `_` and `-`.
        name: String,
        /// Where a new one begins: `earliest`, `latest`, a cursor, `seq:<n>` or `time:<RFC 3339>`.
        #[arg(long, default_value = "latest")]
        start: String,
        #[command(flatten)]
        max_lag: MaxLagArgs,
        #[command(flatten)]
        nodes: Nodes,
    },
    /// Say that everything up to a cursor is consumed. Prints the cursor that is stored.
    Commit {
        /// The group's name.
        name: String,
        /// The last change consumed.
        cursor: String,
        /// Set the group back, or on, to that cursor, wherever it is.
        #[arg(long)]
        rewind: bool,
        #[command(flatten)]
        nodes: Nodes,
    },
    /// End a group: what only it held of the log goes with the next retention.
    Delete {
        /// Its name.
        name: String,
        #[command(flatten)]
        nodes: Nodes,
    },
}

/// How far behind a group may be and still hold the log; what is not given, the compactor's settings say.
#[derive(Debug, Args)]
struct MaxLagArgs {
    /// So many records.
    #[arg(long, value_name = "N")]
    max_lag_records: Option<u64>,
    /// So many bytes of log.
    #[arg(long, value_name = "N")]
    max_lag_bytes: Option<u64>,
    /// For so long: `7d`.
    #[arg(long, value_name = "TIME")]
    max_lag_time: Option<String>,
}

impl MaxLagArgs {
    /// As the tailer takes it; nothing where nothing is given.
    fn json(&self) -> Option<Value> {
        let given =
            self.max_lag_records.is_some() || self.max_lag_bytes.is_some() || self.max_lag_time.is_some();
        given.then(|| {
            json!({ "records": self.max_lag_records, "bytes": self.max_lag_bytes, "seconds": self.max_lag_time })
        })
    }
}

pub(crate) async fn group(args: GroupArgs) -> Result<(), Failure> {
    match args.what {
        What::List { nodes } => {
            let answer = call(&nodes, &Request::new(Method::GET, "/v1/groups")).await?;
            shown(&nodes, &answer, table(answer["groups"].as_array().into_iter().flatten()))
        }
        What::Show { name, nodes } => {
            let answer = call(&nodes, &Request::new(Method::GET, target(&name, ""))).await?;
            shown(&nodes, &answer, table([&answer]))
        }
        What::Create { name, start, max_lag, nodes } => {
            let mut request = Request::new(Method::PUT, target(&name, ""));
            let mut body = json!({ "start": start });
            if let Some(max_lag) = max_lag.json() {
                body["max_lag"] = max_lag;
            }
            request.body = body.to_string().into();
            let answer = call(&nodes, &request).await?;
            shown(&nodes, &answer, text(&answer, "cursor"))
        }
        What::Commit { name, cursor, rewind, nodes } => {
            let mut request = Request::new(Method::POST, target(&name, "/commit"));
            request.body = json!({ "cursor": cursor, "rewind": rewind }).to_string().into();
            let answer = call(&nodes, &request).await?;
            shown(&nodes, &answer, text(&answer, "cursor"))
        }
        What::Delete { name, nodes } => {
            let answer = call(&nodes, &Request::new(Method::DELETE, target(&name, ""))).await?;
            shown(&nodes, &answer, format!("deleted {name}"))
        }
    }
}

fn target(name: &str, what: &str) -> String {
    format!("/v1/groups/{}{what}", escape_key(name.as_bytes()))
}

async fn call(nodes: &Nodes, request: &Request) -> Result<Value, Failure> {
    Ok(Api::new(nodes).call(To::Tailer, request).await?.json().await?)
}

fn shown(nodes: &Nodes, answer: &Value, text: String) -> Result<(), Failure> {
    output::line(&if nodes.json { answer.to_string() } else { text })
}

fn text(answer: &Value, field: &str) -> String {
    answer[field].as_str().unwrap_or_default().to_owned()
}

fn table<'a>(groups: impl IntoIterator<Item = &'a Value>) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(["GROUP", "CURSOR", "RECORDS", "BYTES", "SECONDS", ""]);
    for g in groups {
        let lag = &g["lag"];
        let seconds = format!("{:.1}", lag["seconds"].as_f64().unwrap_or_default());
        let state = if g["expired"] == true { "expired" } else { "" };
        table.add_row([
            text(g, "group"),
            text(g, "cursor"),
            lag["records"].to_string(),
            lag["bytes"].to_string(),
            seconds,
            state.to_owned(),
        ]);
    }
    table.trim_fmt()
}
