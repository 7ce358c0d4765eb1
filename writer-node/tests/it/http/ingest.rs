//! Streams of mutations.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{Method, header};
use isle_testkit::fault::{Op, Rule};
use serde_json::Value;
use tokio::sync::mpsc;

use super::{Node, eventually, refused, told};
use crate::world::World;

const NDJSON: &str = "application/x-ndjson";

fn lines(range: std::ops::Range<u32>) -> String {
    range
        .map(|i| format!("{{\"op\":\"put\",\"key\":\"k{i:06}\",\"value\":\"{}\"}}\n", "v".repeat(50)))
        .collect()
}

/// Everything arrives, in order, and the summary says so.
#[tokio::test]
async fn a_stream_is_committed_and_summed_up() {
    let world = World::new();
    let node = Node::leading(&world).await;
    let (status, body) = told(node.send_as(NDJSON, "/v1/ingest", lines(0..20_000)).await).await;
    assert_eq!(status, 200);
    assert_eq!((&body["done"], &body["committed_lines"]), (&true.into(), &20_000.into()));
    assert_eq!(body["last_seq"], 20_000);
    assert_eq!(body["position"], "1.20000");
    let log = world.log().await;
    assert_eq!(log.len(), 20_000);
    assert!(log.iter().enumerate().all(|(i, r)| *r.key == *format!("k{i:06}").as_bytes()));
}

/// Line n is wrong: all lines before it are committed, none after, and the answer says which it was.
#[tokio::test]
async fn a_mistake_in_line_n_keeps_what_came_before() {
    let world = World::new();
    let node = Node::leading(&world).await;
    let body = format!("{}{{\"op\":\"put\"}}\n{}", lines(0..5000), lines(5000..6000));
    let (status, code, error) = refused(node.send_as(NDJSON, "/v1/ingest", body).await).await;
    assert_eq!((status, code.as_str()), (400, "invalid_key"));
    assert_eq!((&error["line"], &error["committed_lines"]), (&5001.into(), &5000.into()));
    assert_eq!(world.log().await.len(), 5000);
}

/// With `Accept: application/x-ndjson` the answer flows while the body does.
#[tokio::test]
async fn progress_flows_while_the_body_does() {
    let world = World::new();
    let node = Node::leading(&world).await;
    let (sender, receiver) = mpsc::channel::<Result<Bytes, std::io::Error>>(4);
    let body = Body::from_stream(futures::stream::unfold(receiver, |mut r| async {
        r.recv().await.map(|item| (item, r))
    }));
    let call = node.call(Method::POST, "/v1/ingest").header(header::ACCEPT, NDJSON).body(body);
    sender.send(Ok(lines(0..10).into())).await.unwrap();
    let answer = call.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut progress = answer.lines(Some(Duration::from_secs(10)));
    let mut next = async || -> Value {
        serde_json::from_slice(&progress.next().await.unwrap().expect("the answer ends too early").bytes)
            .unwrap()
    };
    assert_eq!(next().await["committed_lines"], 10, "committed before the body has ended");
    sender.send(Ok(lines(10..25).into())).await.unwrap();
    assert_eq!(next().await, serde_json::json!({"committed_lines": 25, "last_seq": 25}));
    sender.send(Ok("{\"op\":\"nonsense\"}\n".into())).await.unwrap();
    let last = next().await;
    assert_eq!((&last["line"], &last["error"]["code"]), (&26.into(), &"invalid_request".into()), "{last}");
    assert_eq!(last["error"]["committed_lines"], 25);
    assert_eq!(world.log().await.len(), 25);
}

/// A client that goes away in the middle leaves what it had sent committed, and nothing hanging.
#[tokio::test]
async fn a_client_that_goes_away_leaves_what_it_sent() {
    let world = World::new();
    let node = Node::leading(&world).await;
    let (sender, receiver) = mpsc::channel::<Result<Bytes, std::io::Error>>(4);
    let body = Body::from_stream(futures::stream::unfold(receiver, |mut r| async {
        r.recv().await.map(|item| (item, r))
    }));
    let call = node.call(Method::POST, "/v1/ingest").header(header::ACCEPT, NDJSON).body(body);
    sender.send(Ok(lines(0..100).into())).await.unwrap();
    let answer = call.send().await.unwrap();
    sender.send(Err(std::io::Error::other("gone"))).await.unwrap();
    drop(answer);
    eventually("the commit", async || world.head().await.manifest.last_seq.0 == 100).await;
    eventually("quiet", async || node.writer.status().waiters == 0).await;
}

/// A stop in the middle of a stream: what was submitted is committed, and the last line says how much that was.
#[tokio::test]
async fn a_stop_ends_a_stream_with_its_count() {
    let world = World::new();
    let node = Node::leading(&world).await;
    let gate = world.bucket.hold(Rule::on(Op::Put).path("log/*").nth(1));
    let (sender, receiver) = mpsc::channel::<Result<Bytes, std::io::Error>>(4);
    let body = Body::from_stream(futures::stream::unfold(receiver, |mut r| async {
        r.recv().await.map(|item| (item, r))
    }));
    let call = node.call(Method::POST, "/v1/ingest").header(header::ACCEPT, NDJSON).body(body);
    sender.send(Ok(lines(0..7).into())).await.unwrap();
    let answer = call.send().await.unwrap();
    gate.arrived(1).await;
    node.drain.start();
    let closing = tokio::spawn({
        let writer = node.writer.clone();
        async move { writer.close(Duration::from_secs(10)).await }
    });
    gate.open();
    let mut lines = answer.lines(Some(Duration::from_secs(10)));
    let mut last = Value::Null;
    while let Some(line) = lines.next().await.unwrap() {
        last = serde_json::from_slice(&line.bytes).unwrap();
    }
    assert_eq!(
        (&last["error"]["code"], &last["error"]["committed_lines"]),
        (&"shutting_down".into(), &7.into())
    );
    closing.await.unwrap();
    assert_eq!(world.log().await.len(), 7);
}
