//! Stopping: readiness first, requests in progress finish, streams end with their closing event, the rest is cut.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use futures::{StreamExt as _, stream};
use http::Method;
use isle_service::health::State;
use isle_service::server::{Drain, Routes};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::support::{BOUND, start, text_of};

/// A stream that waits for the drain and then says so.
fn streaming(drain: &Drain) -> Routes {
    let drain = drain.clone();
    let stream = move || {
        let drain = drain.clone();
        let closing = async move {
            drain.draining().await;
            "closing\n"
        };
        let lines = stream::once(async { "first\n" }).chain(stream::once(closing));
        async move { Body::from_stream(lines.map(Ok::<_, std::io::Error>)) }
    };
    Routes::new().get("/stream", stream).get("/fast", || async { "fast" })
}

/// Streams are told, end by themselves, and nothing is cut; meanwhile readiness is false and answers still come.
#[tokio::test]
async fn a_stream_ends_with_its_closing_event() {
    let drain = Drain::new();
    let server = start(streaming(&drain)).await;
    let mut lines = server.get("/stream").await.lines(Some(BOUND));
    assert_eq!(lines.next().await.unwrap().unwrap().bytes, "first");
    server.health.set("shutdown", State::not_ready("stopping"));
    drain.start();
    assert!(drain.check().unwrap_err().to_string().starts_with("shutting_down"));
    assert_eq!(server.text("/readyz").await.0, 503, "the listener still answers");
    let stopped = tokio::spawn(server.handle.stop(Instant::now() + BOUND));
    assert_eq!(lines.next().await.unwrap().unwrap().bytes, "closing");
    assert!(lines.next().await.unwrap().is_none(), "a proper end");
    assert_eq!(stopped.await.unwrap(), 0);
    let refused = server.client.request(Method::GET, &server.base, "/fast").send().await.unwrap_err();
    assert!(refused.surely_not_sent(), "{refused}");
}

/// A request in progress gets its answer although the stop has begun.
#[tokio::test]
async fn a_request_in_progress_is_answered() {
    let drain = Drain::new();
    let entered = Arc::new(Notify::new());
    let (waits, inside) = (drain.clone(), Arc::clone(&entered));
    let slow = move || {
        let (waits, inside) = (waits.clone(), Arc::clone(&inside));
        async move {
            inside.notify_one();
            waits.draining().await;
            "answered"
        }
    };
    let server = start(Routes::new().get("/slow", slow)).await;
    let answer = tokio::spawn(server.client.request(Method::GET, &server.base, "/slow").send());
    entered.notified().await;
    assert_eq!(server.handle.connections(), 1);
    let stopping = server.handle.stop(Instant::now() + BOUND);
    let (cut, ()) = tokio::join!(stopping, async { drain.start() });
    assert_eq!(cut, 0);
    assert_eq!(text_of(answer.await.unwrap().unwrap()).await, (200, "answered".to_owned()));
}

/// What has not ended by the deadline is cut, and the client can tell.
#[tokio::test]
async fn what_is_left_at_the_deadline_is_cut() {
    let never = Drain::new();
    let server = start(streaming(&never)).await;
    let mut lines = server.get("/stream").await.lines(Some(BOUND));
    lines.next().await.unwrap();
    let cut = server.handle.stop(Instant::now() + Duration::from_millis(20)).await;
    assert_eq!(cut, 1);
    assert!(lines.next().await.is_err(), "a cut stream is not a complete one");
}

/// An idle kept-alive connection does not hold up the stop.
#[tokio::test]
async fn idle_connections_close_at_once() {
    let server = start(streaming(&Drain::new())).await;
    assert_eq!(server.text("/fast").await.0, 200);
    let before = std::time::Instant::now();
    assert_eq!(server.stop().await, 0);
    assert!(before.elapsed() < BOUND / 2);
}
