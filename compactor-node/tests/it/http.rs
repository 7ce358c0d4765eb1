//! The daemon's endpoints.

use std::sync::Arc;

use compactor_node::Compactor;
use compactor_node::server::router;
use http::Method;
use isle_service::client::{BaseUrl, Client};
use isle_service::health::Health;
use isle_service::openapi;
use isle_service::server::{Encoder, HttpMetrics, ServerHandle, ServerParts, bind, serve};
use isle_service::slot::Slot;
use isle_testkit::embedded::Embedded;
use isle_testkit::scribe::Scribe;
use serde_json::Value;

use crate::merge::{generation, node, settings};

#[tokio::test]
async fn every_route_is_in_the_document() {
    assert_eq!(openapi::differences("compactor", &router(Slot::new())), Vec::<String>::new());
}

#[tokio::test]
async fn a_person_can_ask_pause_and_resume() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    for n in 0..2 {
        scribe.append(&generation(n, e.db.env.clock.now())).await;
        scribe.flush().await;
    }
    let compactor = Compactor::open(e.process("compactor"), node("c"), settings()).unwrap();
    let (_server, base) = served(&compactor).await;
    let client = Client::default();
    let call = async |method, target: &str| -> (u16, Value) {
        let answer = client.request(method, &base, target).send().await.unwrap();
        (answer.status().as_u16(), answer.ok().await.unwrap().json().await.unwrap())
    };
    assert_eq!(call(Method::POST, "/v1/pause").await.1["paused"], true);
    let (status, asked) = call(Method::POST, "/v1/compact").await;
    assert_eq!(status, 202);
    assert!(asked["job"].is_string());
    assert_eq!(call(Method::GET, "/v1/status").await.1["paused"], true);
    assert_eq!(call(Method::POST, "/v1/resume").await.1["paused"], false);
    compactor.current().wait_for(|c| c.as_ref().is_some_and(|c| c.manifest.runs.len() == 1)).await.unwrap();
    compactor.close().await;
}

async fn served(compactor: &Compactor) -> (ServerHandle, BaseUrl) {
    let parts = ServerParts {
        program: "compactor-node",
        role: "compactor",
        health: Health::new("compactor"),
        metrics: Encoder::none(),
        http: HttpMetrics::new(),
        settings: Default::default(),
    };
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let server = serve(listener, router(Slot::filled(Arc::new(compactor.clone()))), parts);
    let base = format!("http://{}", server.local_addr()).parse().unwrap();
    (server, base)
}

#[tokio::test]
async fn the_mode_is_shown_foreseen_and_set() {
    let e = Embedded::new().await;
    let mut scribe = Scribe::take_over(&e.db).await;
    scribe.append(&generation(1, e.db.env.clock.now())).await;
    scribe.flush().await;
    e.clock.advance(std::time::Duration::from_secs(7200));
    let compactor = Compactor::idle(e.process("compactor"), node("c"), settings()).unwrap();
    let (_server, base) = served(&compactor).await;
    let client = Client::default();
    let put = async |target: &str, body: &str| -> Result<Value, String> {
        let call = client.request(Method::PUT, &base, target).body(body.to_owned());
        let answer = call.send().await.unwrap().ok().await.map_err(|e| e.to_string())?;
        Ok(answer.json().await.unwrap())
    };
    let show = async || -> Value {
        client
            .request(Method::GET, &base, "/v1/mode")
            .send()
            .await
            .unwrap()
            .ok()
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    };
    let shown = show().await;
    assert_eq!((&shown["mode"], &shown["policy"]), (&"merge".into(), &"tiered".into()));
    let fifo = r#"{"mode":"fifo","retention":"1h"}"#;
    let foreseen = put("/v1/mode?dry_run=true", fifo).await.unwrap();
    assert_eq!((&foreseen["changed"], &foreseen["over"]["rows"]), (&false.into(), &200.into()));
    let said = foreseen["statement"].to_string();
    assert!(said.contains("older than 1h") && said.contains("are over"), "{said}");
    assert_eq!(show().await["mode"], "merge");
    let refused = put("/v1/mode", r#"{"mode":"fifo","retention":"0s"}"#).await.unwrap_err();
    assert!(refused.contains("deletes everything"), "{refused}");
    assert_eq!(put("/v1/mode", fifo).await.unwrap()["changed"], true);
    let shown = show().await;
    assert_eq!((&shown["mode"], &shown["retention"]), (&"fifo".into(), &"1h".into()));
    compactor.close().await;
}
