//! Large values over HTTP: streamed, refused as early as can be, forwarded as they flow.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::Method;
use isle_testkit::fault::{Op, Rule};
use tokio::sync::mpsc;

use super::{Node, eventually, refused, told};
use crate::blobs::{PART, bytes, pointer, stored, with_blobs};
use crate::world::{World, value};

/// A body whose length nobody knows, sent piece by piece.
fn flowing() -> (mpsc::Sender<Result<Bytes, std::io::Error>>, Body) {
    let (pieces, unread) = mpsc::channel(1);
    let body = futures::stream::unfold(unread, |mut r| async move { r.recv().await.map(|piece| (piece, r)) });
    (pieces, Body::from_stream(body))
}

#[tokio::test]
async fn a_body_of_known_or_unknown_length_becomes_the_value() {
    let world = World::new();
    let node = Node::leading_with(&world, with_blobs()).await;
    let long = bytes(100_000, 3);
    assert_eq!(told(node.send(Method::PUT, "/v1/kv/known?ttl=1h", long.clone()).await).await.0, 200);
    let (pieces, body) = flowing();
    let sending = tokio::spawn({
        let long = long.clone();
        async move {
            for piece in long.chunks(7777) {
                pieces.send(Ok(Bytes::copy_from_slice(piece))).await.unwrap();
            }
        }
    });
    let (status, answer) = told(node.send(Method::PUT, "/v1/kv/unknown", body).await).await;
    assert_eq!((status.as_u16(), answer["seq"].as_u64()), (200, Some(2)));
    sending.await.unwrap();
    let (pieces, body) = flowing();
    pieces.send(Ok(Bytes::from_static(b"short"))).await.unwrap();
    drop(pieces);
    assert_eq!(told(node.send(Method::PUT, "/v1/kv/short", body).await).await.0, 200);
    let (_, event) = told(node.send(Method::POST, "/v1/events/s", long.clone()).await).await;
    assert_eq!(event["key"], "s/0000000000000004");
    let log = world.log().await;
    assert_eq!(stored(&world, &log[0]).await, long);
    assert_eq!(stored(&world, &log[1]).await, long);
    assert_eq!(value(&log[2]), b"short");
    assert_eq!(stored(&world, &log[3]).await, long);
    assert!(world.bucket.count(Op::Part, "blob/*") > 3 * 100_000 / PART);
}

#[tokio::test]
async fn a_value_too_large_is_refused_by_its_length_or_as_it_grows() {
    let world = World::new();
    let node = Node::leading_with(&world, with_blobs()).await;
    let (status, code, error) = refused(node.send(Method::PUT, "/v1/kv/k", bytes(500_000, 0)).await).await;
    assert_eq!((status, code.as_str()), (413, "value_too_large"));
    assert_eq!((error["limit"].as_u64(), error["size"].as_u64()), (Some(409_600), Some(500_000)));
    assert_eq!(world.bucket.count(Op::Begin, "*"), 0, "it was not even begun");
    let (pieces, body) = flowing();
    tokio::spawn(async move {
        for _ in 0..60 {
            pieces.send(Ok(Bytes::from(bytes(10_000, 0)))).await.unwrap();
        }
    });
    let (status, code, _) = refused(node.send(Method::PUT, "/v1/kv/k", body).await).await;
    assert_eq!((status, code.as_str()), (413, "value_too_large"));
    eventually("the abort", async || world.bucket.count(Op::Abort, "blob/*") == 1).await;
    assert!(world.log().await.is_empty());
}

/// A client that goes away in the middle leaves nothing.
#[tokio::test]
async fn a_body_that_breaks_off_is_not_applied() {
    let world = World::new();
    let node = Node::leading_with(&world, with_blobs()).await;
    let (pieces, body) = flowing();
    let call = node.call(Method::PUT, "/v1/kv/k").body(body);
    let sending = tokio::spawn(async move { call.send().await.map(drop) });
    for _ in 0..6 {
        pieces.send(Ok(Bytes::from(bytes(PART, 0)))).await.unwrap();
    }
    eventually("a part", async || world.bucket.count(Op::Part, "blob/*") > 0).await;
    pieces.send(Err(std::io::Error::other("gone"))).await.unwrap();
    assert!(sending.await.unwrap().is_err());
    eventually("the abort", async || world.bucket.count(Op::Abort, "blob/*") == 1).await;
    assert!(world.log().await.is_empty());
    assert_eq!(told(node.send(Method::PUT, "/v1/kv/k", bytes(9_000, 0)).await).await.0, 200);
}

/// A standby passes a large value on as it flows: the leader has its first parts before the client has sent the last.
#[tokio::test]
async fn a_standby_forwards_a_large_value_as_it_flows() {
    let world = World::new();
    let _leader = Node::leading_with(&world, with_blobs()).await;
    let standby = Node::start(&world, "w2", with_blobs()).await;
    crate::world::until_role(&standby.writer, writer_node::Role::Standby).await;
    let (pieces, body) = flowing();
    let call = standby.call(Method::PUT, "/v1/kv/k").body(body);
    let sending = tokio::spawn(async move { call.send().await.unwrap() });
    for n in 0..6 {
        pieces.send(Ok(Bytes::from(bytes(PART, n)))).await.unwrap();
    }
    eventually("a part", async || world.bucket.count(Op::Part, "blob/*") > 0).await;
    pieces.send(Ok(Bytes::from_static(b"end"))).await.unwrap();
    drop(pieces);
    assert_eq!(told(sending.await.unwrap()).await.0, 200);
    let row = &world.log().await[0];
    assert_eq!(pointer(row).len, 6 * PART as u64 + 3);
    assert!(stored(&world, row).await.ends_with(b"end"));
}

/// A bulk load of large values makes one object for many of them, in order, and says how far it is committed.
#[tokio::test]
async fn an_ingest_gathers_large_values() {
    let world = World::new();
    let node = Node::leading_with(&world, with_blobs()).await;
    let (pieces, body) = flowing();
    tokio::spawn(async move {
        for n in 0..60 {
            let line =
                format!("{{\"op\":\"put\",\"key\":\"k{n:02}\",\"value\":\"{}\"}}\n", "v".repeat(1000 + n));
            pieces.send(Ok(line.into())).await.unwrap();
        }
    });
    let (status, done) = told(node.send_as("application/x-ndjson", "/v1/ingest", body).await).await;
    assert_eq!((status.as_u16(), done["committed_lines"].as_u64()), (200, Some(60)));
    let log = world.log().await;
    for (n, row) in log.iter().enumerate() {
        assert_eq!(stored(&world, row).await, vec![b'v'; 1000 + n]);
    }
    let files = world.head().await.manifest.blobs.len();
    assert!(files < 30, "{files} files for 60 values");
}

/// While nobody leads, a large value is refused before it is read.
#[tokio::test]
async fn without_a_leader_nothing_is_uploaded() {
    let world = World::new();
    let _gate = world.bucket.hold(Rule::on(Op::Create).path("manifest/epoch-*"));
    let node = Node::start(&world, "w1", with_blobs()).await;
    let answer = node.send(Method::PUT, "/v1/kv/k", bytes(50_000, 0)).await;
    assert_eq!(refused(answer).await.1, "not_leader");
    assert_eq!(world.bucket.count(Op::Begin, "*"), 0);
    node.writer.close(Duration::from_millis(10)).await;
}
