//! The HTTP face, through a real listener and a client that sends paths as they are.

mod bulk;
mod forward;
mod ingest;
mod kv;
mod large;
mod snapshots;
mod ttl;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Method, StatusCode};
use isle_service::client::{Answer, BaseUrl, Client};
use isle_service::config::ServerSettings;
use isle_service::health::Health;
use isle_service::server::{Drain, Encoder, HttpMetrics, ServerHandle, ServerParts, bind, serve};
use isle_service::slot::Slot;
use isle_storage::coordination::NodeInfo;
use serde_json::Value;
use writer_node::server::{ROLE, routes, show_health};
use writer_node::{Role, Writer, WriterSettings};

use crate::world::{World, small, until_role};

/// A node as the program makes it, less the process.
pub struct Node {
    pub writer: Writer,
    pub base: BaseUrl,
    pub drain: Drain,
    client: Client,
    _server: ServerHandle,
}

impl Node {
    pub async fn start(world: &World, name: &str, settings: WriterSettings) -> Self {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let advertise = format!("http://{}", listener.local_addr());
        let (slot, drain, health) = (Slot::new(), Drain::new(), Health::new(ROLE));
        let db = world.database().await;
        let metrics = db.env.metrics.clone();
        let parts = ServerParts {
            program: "writer-node",
            role: ROLE,
            health: health.clone(),
            metrics: Encoder::new(move || metrics.encode()),
            http: HttpMetrics::new(),
            settings: ServerSettings::default(),
        };
        let server = serve(listener, routes(slot.clone(), drain.clone(), &settings), parts);
        let node = NodeInfo { node: name.to_owned(), advertise: advertise.clone() };
        let writer = Writer::open(db, settings, node).unwrap();
        tokio::spawn(show_health(writer.clone(), health));
        slot.fill(Arc::new(writer.clone()));
        let base = advertise.parse().unwrap();
        Self { writer, base, drain, client: Client::default(), _server: server }
    }

    pub async fn leading(world: &World) -> Self {
        Self::leading_with(world, small()).await
    }

    pub async fn leading_with(world: &World, settings: WriterSettings) -> Self {
        let node = Self::start(world, "w1", settings).await;
        node.writer.leading().await.unwrap();
        node
    }

    pub async fn standby(world: &World) -> Self {
        let node = Self::start(world, "w2", small()).await;
        until_role(&node.writer, Role::Standby).await;
        node
    }

    pub async fn send(&self, method: Method, target: &str, body: impl Into<Body>) -> Answer {
        self.client.request(method, &self.base, target).body(body).send().await.unwrap()
    }

    pub async fn send_as(&self, media: &str, target: &str, body: impl Into<Body>) -> Answer {
        let call = self.client.request(Method::POST, &self.base, target).body(body);
        call.header(http::header::CONTENT_TYPE, media).send().await.unwrap()
    }

    pub fn call(&self, method: Method, target: &str) -> isle_service::client::Call {
        self.client.request(method, &self.base, target)
    }
}

/// Status and JSON of an answer.
pub async fn told(answer: Answer) -> (StatusCode, Value) {
    (answer.status(), answer.json().await.unwrap())
}

/// Status and error code of an answer.
pub async fn refused(answer: Answer) -> (u16, String, Value) {
    let (status, body) = told(answer).await;
    let code = body["error"]["code"].as_str().unwrap_or_else(|| panic!("{body} is no error")).to_owned();
    (status.as_u16(), code, body["error"].clone())
}

/// Waits for a condition in real time, at most ten seconds.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..1000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not come");
}
