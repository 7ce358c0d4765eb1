//! A server of given routes at a free port of loopback, and a client for it.

use std::time::Duration;

use http::Method;
use isle_service::client::{Answer, BaseUrl, Client};
use isle_service::config::ServerSettings;
use isle_service::health::Health;
use isle_service::server::{
    Encoder, HttpMetrics, RequestLabels, Routes, ServerHandle, ServerParts, bind, serve,
};
use tokio::time::Instant;

/// Longest time anything here may take before the test has failed.
pub(crate) const BOUND: Duration = Duration::from_secs(20);

pub(crate) struct TestServer {
    pub(crate) handle: ServerHandle,
    pub(crate) health: Health,
    pub(crate) http: HttpMetrics,
    pub(crate) base: BaseUrl,
    pub(crate) client: Client,
}

pub(crate) async fn start(routes: Routes) -> TestServer {
    start_with(routes, ServerSettings::default()).await
}

pub(crate) async fn start_with(routes: Routes, settings: ServerSettings) -> TestServer {
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let base = format!("http://{}", listener.local_addr()).parse().unwrap();
    let (health, http) = (Health::new("reader"), HttpMetrics::new());
    let metrics = Encoder::new(|| "# EOF\n".to_owned());
    let parts = ServerParts {
        program: "reader-node",
        role: "reader",
        health: health.clone(),
        metrics,
        http: http.clone(),
        settings,
    };
    let handle = serve(listener, routes, parts);
    TestServer { handle, health, http, base, client: Client::default() }
}

impl TestServer {
    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.call(Method::GET, target).await
    }

    pub(crate) async fn call(&self, method: Method, target: &str) -> Answer {
        self.client.request(method, &self.base, target).head_timeout(Some(BOUND)).send().await.unwrap()
    }

    pub(crate) async fn text(&self, target: &str) -> (u16, String) {
        text_of(self.get(target).await).await
    }

    pub(crate) async fn stop(self) -> usize {
        self.handle.stop(Instant::now() + BOUND).await
    }

    pub(crate) fn counted(&self, route: &str, status: u16) -> u64 {
        let labels = RequestLabels { route: route.to_owned(), status };
        self.http.requests.get_or_create(&labels).get()
    }
}

pub(crate) async fn text_of(answer: Answer) -> (u16, String) {
    let status = answer.status().as_u16();
    let body = answer.bytes(1024 * 1024).await.unwrap();
    (status, String::from_utf8_lossy(&body).into_owned())
}

pub(crate) async fn json_of(answer: Answer) -> (u16, serde_json::Value) {
    let (status, text) = text_of(answer).await;
    (status, serde_json::from_str(&text).unwrap_or_else(|e| panic!("{text:?} is not JSON: {e}")))
}
