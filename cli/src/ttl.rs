//! `isle ttl`: how long a put lives that says nothing of it, shown and set.

use http::{Method, header};
use serde_json::{Value, json};

use crate::args::{TtlArgs, TtlCommand};
use crate::nodes::{Api, Request, To};
use crate::output::{self, Failure};

pub(crate) async fn ttl(args: TtlArgs) -> Result<(), Failure> {
    let (request, nodes) = match args.what {
        TtlCommand::Show { nodes } => (Request::new(Method::GET, "/v1/ttl"), nodes),
        TtlCommand::Set { ttl, nodes } => {
            let request = Request {
                body: json!({ "ttl": ttl }).to_string().into(),
                headers: vec![(header::CONTENT_TYPE, "application/json".to_owned())],
                ..Request::new(Method::PUT, "/v1/ttl")
            };
            (request, nodes)
        }
    };
    let answer: Value = Api::new(&nodes).call(To::Writer, &request).await?.json().await?;
    if nodes.json {
        return output::line(&answer.to_string());
    }
    output::line(answer["ttl"].as_str().unwrap_or("none"))
}
