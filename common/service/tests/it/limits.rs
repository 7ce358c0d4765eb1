//! Limits of the HTTP face, each named by what happens at it.

use std::sync::Arc;

use axum::body::Body;
use futures::StreamExt as _;
use http::{HeaderName, HeaderValue, Method};
use isle_service::ApiError;
use isle_service::config::ServerSettings;
use isle_service::server::{Routes, bind};
use isle_service::wire::body::read_value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::support::{BOUND, json_of, start, start_with};

#[tokio::test]
async fn a_port_in_use_is_named() {
    let held = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let error = bind(held.local_addr()).await.unwrap_err().to_string();
    assert!(error.contains(&held.local_addr().to_string()) && error.contains("--listen"), "{error}");
}

/// Beyond the connection limit health is still answered, everything else is refused with the limit.
#[tokio::test]
async fn a_full_house_still_answers_health() {
    let (entered, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (inside, open) = (Arc::clone(&entered), Arc::clone(&release));
    let waits = move || {
        let (inside, open) = (Arc::clone(&inside), Arc::clone(&open));
        async move {
            inside.notify_one();
            open.notified().await;
            "done"
        }
    };
    let settings = ServerSettings { max_connections: 1, ..ServerSettings::default() };
    let server =
        start_with(Routes::new().get("/waits", waits).get("/fast", || async { "fast" }), settings).await;
    let first = tokio::spawn(server.client.request(Method::GET, &server.base, "/waits").send());
    entered.notified().await;
    assert_eq!(server.text("/livez").await.0, 200);
    let answer = server.get("/fast").await;
    assert_eq!(answer.header("connection"), Some("close"));
    let (status, json) = json_of(answer).await;
    assert_eq!(
        (status, json["error"]["code"].as_str(), json["error"]["limit"].as_u64()),
        (429, Some("overloaded"), Some(1))
    );
    release.notify_one();
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn a_value_above_the_limit_is_refused_unread() {
    async fn takes(body: Body) -> Result<String, ApiError> {
        Ok(read_value(body, 10).await?.len().to_string())
    }
    let server = start(Routes::new().put("/v", takes)).await;
    let put =
        |size: usize| server.client.request(Method::PUT, &server.base, "/v").body(vec![b'x'; size]).send();
    assert_eq!(put(10).await.unwrap().status(), 200);
    let (status, json) = json_of(put(11).await.unwrap()).await;
    assert_eq!((status, &json["error"]["code"]), (413, &"value_too_large".into()));
    assert_eq!((&json["error"]["size"], &json["error"]["limit"]), (&11.into(), &10.into()));
    // Streamed without a length, it is cut off on the way.
    let chunks = futures::stream::repeat_with(|| Ok::<_, std::io::Error>("xxxx")).take(1000);
    let streamed = server.client.request(Method::PUT, &server.base, "/v").body(Body::from_stream(chunks));
    match streamed.send().await {
        Ok(answer) => assert_eq!(answer.status(), 413),
        Err(broken) => assert!(!broken.surely_not_sent(), "{broken}"),
    }
}

/// A request head that does not fit is refused, and the server lives on.
#[tokio::test]
async fn oversized_heads_are_refused() {
    let server = start(Routes::new().get("/x", || async { "x" })).await;
    let address = server.handle.local_addr();
    for (head, status) in [
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(66_000)), "414"),
        (format!("GET /x HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(200)), "431"),
        ("GET /x SPDY/9\r\n\r\n".to_owned(), "400"),
    ] {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(BOUND, socket.read_to_end(&mut answer)).await.unwrap().unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
    assert_eq!(server.text("/x").await.0, 200);
}

/// A client that connects and says nothing, or stops within its head, is let go.
#[tokio::test]
async fn silent_clients_are_let_go() {
    let settings =
        ServerSettings { header_timeout: std::time::Duration::from_millis(50), ..ServerSettings::default() };
    let server = start_with(Routes::new(), settings).await;
    for said in ["", "P", "PRI * HT", "GET /livez HTT"] {
        let mut socket = TcpStream::connect(server.handle.local_addr()).await.unwrap();
        socket.write_all(said.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(BOUND, socket.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "the server closes a connection that has said {said:?}");
    }
}

#[tokio::test]
async fn header_values_of_any_bytes_are_survived() {
    let server = start(Routes::new().get("/x", || async { "x" })).await;
    let mut socket = TcpStream::connect(server.handle.local_addr()).await.unwrap();
    socket
        .write_all(b"GET /x HTTP/1.1\r\nHost: a\r\nX-Request-Id: \xff\xfe\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(BOUND, socket.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    let name = HeaderName::from_static("x-request-id");
    assert!(HeaderValue::from_bytes(b"\xff").is_ok(), "{name} can hold such bytes");
}
