//! Single keys, status, leader, flush, health.

use std::time::Duration;

use http::Method;
use isle_storage::object::StoreErrorKind;
use isle_storage::row::Value;
use isle_testkit::fault::{Fault, Op, Rule};
use writer_node::WriterSettings;

use super::{Node, eventually, refused, told};
use crate::world::{World, small, value};

/// The key is the raw rest of the path, decoded once, to bytes; the body is the value.
#[tokio::test]
async fn a_put_stores_the_body_under_the_raw_key() {
    let world = World::new();
    let node = Node::leading(&world).await;
    let keys: [(&str, &[u8]); 8] = [
        ("/v1/kv/plain", b"plain"),
        ("/v1/kv/a/b", b"a/b"),
        ("/v1/kv/a%2Fb", b"a/b"),
        ("/v1/kv/a//b/", b"a//b/"),
        ("/v1/kv/..", b".."),
        ("/v1/kv/a+b", b"a+b"),
        ("/v1/kv/%00%FF", b"\x00\xff"),
        ("/v1/kv?key_b64=Li4", b".."),
    ];
    for (i, (target, _)) in keys.iter().enumerate() {
        let answer = node.send(Method::PUT, target, vec![i as u8; 3]).await;
        let position = answer.header("isle-position").unwrap().to_owned();
        let (status, body) = told(answer).await;
        assert_eq!(status, 200);
        assert_eq!(body["seq"], i as u64 + 1);
        assert_eq!((body["epoch"].as_u64(), body["position"].as_str()), (Some(1), Some(position.as_str())));
        assert_eq!(position, format!("1.{}", i + 1));
    }
    let log = world.log().await;
    for (i, (_, key)) in keys.iter().enumerate() {
        assert_eq!((&*log[i].key, value(&log[i])), (*key, &[i as u8; 3][..]));
    }
}

/// A delete answers with its position, also where the key was never there; a ttl becomes an expiry.
#[tokio::test]
async fn deletes_and_expiries() {
    let world = World::new();
    let node = Node::leading(&world).await;
    let (status, body) = told(node.send(Method::DELETE, "/v1/kv/never", "").await).await;
    assert_eq!((status.as_u16(), body["seq"].as_u64()), (200, Some(1)));
    told(node.send(Method::PUT, "/v1/kv/k?ttl=30s", "v").await).await;
    let log = world.log().await;
    assert_eq!(log[0].value, Value::Delete);
    assert_eq!(log[1].expires.unwrap().0 - log[1].time.0, 30_000_000);
}

/// Each mistake has its own clear error, and nothing of it is applied.
#[tokio::test]
async fn mistakes_are_named() {
    let world = World::new();
    let node = Node::leading(&world).await;
    let big = vec![0; 64 * 1024 + 1];
    for (method, target, body, status, code) in [
        (Method::PUT, "/v1/kv/", vec![], 400, "invalid_key"),
        (Method::PUT, "/v1/kv", vec![], 400, "invalid_key"),
        (Method::PUT, "/v1/kv/a%zz", vec![], 400, "invalid_key"),
        (Method::PUT, "/v1/kv/a?colour=red", vec![], 400, "unknown_parameter"),
        (Method::PUT, "/v1/kv/a?ttl=0", vec![], 400, "invalid_request"),
        (Method::PUT, "/v1/kv/a?ack=disk", vec![], 400, "unsupported"),
        (Method::PUT, "/v1/kv/a?ack=paper", vec![], 400, "invalid_request"),
        (Method::PUT, "/v1/kv/a", big.clone(), 413, "value_too_large"),
        (Method::DELETE, "/v1/kv/a?ttl=1s", vec![], 400, "unknown_parameter"),
        (Method::POST, "/v1/kv/a", vec![], 405, "method_not_allowed"),
        (Method::GET, "/v1/scan", vec![], 404, "unknown_endpoint"),
    ] {
        let answer = node.send(method.clone(), target, body).await;
        let got = refused(answer).await;
        assert_eq!((got.0, got.1.as_str()), (status, code), "{method} {target}: {}", got.2);
        if code == "value_too_large" {
            assert_eq!((&got.2["limit"], &got.2["size"]), (&65_536.into(), &65_537.into()));
        }
    }
    assert_eq!(node.writer.status().accepted_seq.0, 0);
}

/// Over the budget a request is answered 429 with a reason and a time, and certainly not applied.
#[tokio::test]
async fn over_the_budget_is_429() {
    let world = World::new();
    let settings = WriterSettings { admission_wait_ms: 20, ..small() };
    let node = Node::leading_with(&world, settings).await;
    let outage = world.bucket.inject(Rule::on(Op::Put).path("log/*"), Fault::Fail(StoreErrorKind::Transient));
    let mut accepted = 0;
    let overloaded = loop {
        let answer = node.send(Method::PUT, "/v1/kv/k?ack=memory", vec![0; 60_000]).await;
        if answer.status() != 200 {
            break answer;
        }
        accepted += 1;
        assert!(accepted < 100, "never refused");
    };
    assert_eq!(overloaded.header("retry-after"), Some("1"));
    let (status, code, error) = refused(overloaded).await;
    assert_eq!((status, code.as_str()), (429, "overloaded"));
    assert_eq!(error["retryable"], true);
    assert!(error["message"].as_str().unwrap().contains("segment upload"), "{error}");
    world.bucket.remove(outage);
    told(node.send(Method::POST, "/v1/flush", "").await).await;
    assert_eq!(world.log().await.len(), accepted);
}

/// Status and leader tell who and how far.
#[tokio::test]
async fn status_leader_and_flush() {
    let world = World::new();
    let node = Node::leading(&world).await;
    told(node.send(Method::PUT, "/v1/kv/k?ack=memory", "v").await).await;
    let (status, body) = told(node.send(Method::POST, "/v1/flush", "").await).await;
    assert_eq!((status.as_u16(), body["seq"].as_u64()), (200, Some(1)));
    let (_, body) = told(node.send(Method::GET, "/v1/status", "").await).await;
    assert_eq!(body["leader"], true);
    assert_eq!((&body["epoch"], &body["accepted_seq"]), (&1.into(), &1.into()));
    assert_eq!(body["committed_seq"], 1);
    for member in ["queue_bytes", "waiters", "flushed_seq", "role", "database", "troubles"] {
        assert!(!body[member].is_null(), "{member} is missing in {body}");
    }
    let (status, body) = told(node.send(Method::GET, "/v1/leader", "").await).await;
    assert_eq!((status.as_u16(), body["leader_info"]["epoch"].as_u64()), (200, Some(1)));
    let metrics = node.send(Method::GET, "/metrics", "").await.bytes(1 << 20).await.unwrap();
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    for name in
        ["isle_commit_seconds_bucket", "isle_commits_total", "isle_mutations_total", "isle_head_version"]
    {
        assert!(metrics.contains(name), "{name} is missing");
    }
}

/// Readiness follows the engine: ready while leading, not while the stop goes on.
#[tokio::test]
async fn readiness_follows_the_engine() {
    let world = World::new();
    let node = Node::leading(&world).await;
    eventually("readiness", async || node.send(Method::GET, "/readyz", "").await.status() == 200).await;
    let (_, verbose) = told(node.send(Method::GET, "/readyz?verbose", "").await).await;
    assert_eq!((&verbose["role"], &verbose["ready"]), (&"leading".into(), &true.into()));
    node.drain.start();
    let (status, code, _) = refused(node.send(Method::PUT, "/v1/kv/k", "v").await).await;
    assert_eq!((status, code.as_str()), (503, "shutting_down"));
    node.writer.close(Duration::from_secs(5)).await;
    eventually("unreadiness", async || node.send(Method::GET, "/readyz", "").await.status() == 503).await;
}
