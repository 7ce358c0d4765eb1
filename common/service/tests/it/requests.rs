//! What surrounds every request: ids, measurements, errors for what is not served, panics, health.

use http::{HeaderName, Method};
use isle_service::health::State;
use isle_service::server::{RequestId, Routes};
use isle_service::{ApiError, ErrorCode};
use serde_json::json;

use super::support::{json_of, start, text_of};

const ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACE: HeaderName = HeaderName::from_static("traceparent");

#[tokio::test]
async fn ids_are_accepted_echoed_and_made_up() {
    let told = |axum::Extension(id): axum::Extension<RequestId>| async move { id.as_str().to_owned() };
    let server = start(Routes::new().get("/id", told)).await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let call =
        server.client.request(Method::GET, &server.base, "/id").header(ID, "mine-1").header(TRACE, trace);
    let answer = call.send().await.unwrap();
    assert_eq!((answer.header("x-request-id"), answer.header("traceparent")), (Some("mine-1"), Some(trace)));
    assert_eq!(text_of(answer).await.1, "mine-1");

    let made_up = |answer: &isle_service::client::Answer| answer.header("x-request-id").unwrap().to_owned();
    let first = server.get("/id").await;
    let (id, second) = (made_up(&first), server.get("/nowhere").await);
    assert!(!id.is_empty() && id != made_up(&second), "an id for every answer, errors too");
    assert_eq!(first.header("traceparent"), None);
    assert_eq!(text_of(first).await.1, id);

    // What could break a log line or grow it without bound is not taken over.
    for bad in ["a b", &"x".repeat(129)] {
        let answer =
            server.client.request(Method::GET, &server.base, "/id").header(ID, bad).send().await.unwrap();
        assert_ne!(made_up(&answer), bad);
    }
}

#[tokio::test]
async fn what_is_not_served_is_an_error_of_the_api() {
    let server =
        start(Routes::new().put("/v1/thing", || async {}).reserve("/v1/later/{*x}", "later things")).await;
    let (status, json) = json_of(server.get("/v1/nothing").await).await;
    assert_eq!((status, &json["error"]["code"]), (404, &json!("unknown_endpoint")));
    let answer = server.get("/v1/thing").await;
    assert_eq!(answer.header("allow"), Some("PUT"));
    let (status, json) = json_of(answer).await;
    assert_eq!((status, &json["error"]["code"]), (405, &json!("method_not_allowed")));
    for target in ["/v1/later", "/v1/later/a"] {
        let (status, json) = json_of(server.call(Method::POST, target).await).await;
        assert_eq!((status, &json["error"]["code"]), (400, &json!("unsupported")), "{target}");
    }
}

#[tokio::test]
async fn a_panic_is_one_internal_error() {
    async fn breaks() -> &'static str {
        panic!("a defect of this test")
    }
    let server = start(Routes::new().get("/breaks", breaks).get("/works", || async { "fine" })).await;
    let (status, json) = json_of(server.get("/breaks").await).await;
    assert_eq!((status, &json["error"]["code"]), (500, &json!("internal")));
    assert!(!json.to_string().contains("a defect of this test"), "details stay in the log");
    assert_eq!(server.text("/works").await, (200, "fine".to_owned()));
    assert_eq!(server.counted("/breaks", 500), 1);
}

#[tokio::test]
async fn requests_are_counted_by_pattern_and_status() {
    let refuses = || async { ApiError::new(ErrorCode::Overloaded, "full") };
    let server = start(Routes::new().get("/v1/things/{name}", refuses)).await;
    for name in ["a", "b", "c"] {
        let answer = server.get(&format!("/v1/things/{name}")).await;
        assert_eq!((answer.status().as_u16(), answer.header("retry-after")), (429, Some("1")));
    }
    server.get("/made/up/path").await;
    assert_eq!(server.counted("/v1/things/{name}", 429), 3);
    assert_eq!(server.counted("other", 404), 1);
}

#[tokio::test]
async fn health_says_what_is_wrong() {
    let server = start(Routes::new()).await;
    assert_eq!(server.text("/livez").await, (200, "ok\n".to_owned()));
    assert_eq!(server.text("/readyz").await, (200, "ready\n".to_owned()));
    server.health.set("coordination", State::not_ready("etcd at 127.0.0.1:1 refuses connections"));
    server.health.set("store", State::degraded("slow"));
    server.health.set_details(|| json!({"view_version": 12}));
    let (status, text) = server.text("/readyz").await;
    assert_eq!(status, 503);
    assert_eq!(text, "not ready\ncoordination: etcd at 127.0.0.1:1 refuses connections\nstore: slow\n");
    let (status, json) = json_of(server.get("/readyz?verbose").await).await;
    assert_eq!(status, 503);
    assert_eq!(
        (&json["ready"], &json["role"], &json["view_version"]),
        (&json!(false), &json!("reader"), &json!(12))
    );
    assert_eq!(json["components"]["store"], json!({"state": "degraded", "reason": "slow"}));
    assert_eq!(server.text("/livez").await.0, 200, "not ready is not dead");
    let (status, json) = json_of(server.get("/readyz?verbos").await).await;
    assert_eq!((status, &json["error"]["code"]), (400, &json!("unknown_parameter")));
}

#[tokio::test]
async fn version_and_metrics_are_served() {
    let server = start(Routes::new()).await;
    let (_, json) = json_of(server.get("/version").await).await;
    assert_eq!((&json["program"], &json["role"]), (&json!("reader-node"), &json!("reader")));
    let answer = server.get("/metrics").await;
    assert!(answer.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    assert_eq!(text_of(answer).await, (200, "# EOF\n".to_owned()));
}
