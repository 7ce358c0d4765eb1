//! Batches and events.

use http::Method;
use isle_service::wire::frame::{Kind, encode};

use super::{Node, refused, told};
use crate::world::{World, value};

const NDJSON: &str = "application/x-ndjson";
const FRAMES: &str = "application/vnd.isle.frames";

/// Lines and frames mean the same: consecutive numbers, all or none.
#[tokio::test]
async fn a_batch_is_applied_whole_in_either_form() {
    let world = World::new();
    let node = Node::leading(&world).await;
    let lines =
        "{\"op\":\"put\",\"key\":\"a\",\"value\":\"1\",\"ttl\":60}\n{\"op\":\"delete\",\"key_b64\":\"_w\"}\n";
    let (status, body) = told(node.send_as(NDJSON, "/v1/batch", lines).await).await;
    assert_eq!(status, 200);
    assert_eq!((&body["first_seq"], &body["last_seq"], &body["count"]), (&1.into(), &2.into(), &2.into()));
    assert_eq!(body["position"], "1.2");
    let mut frames = Vec::new();
    encode(&mut frames, Kind::Put, 0, 0, 60_000_000, b"a", b"1");
    encode(&mut frames, Kind::Delete, 0, 0, 0, b"\xff", b"");
    let (status, body) = told(node.send_as(FRAMES, "/v1/batch", frames).await).await;
    assert_eq!((status.as_u16(), body["last_seq"].as_u64()), (200, Some(4)));
    let log = world.log().await;
    for (a, b) in [(0, 2), (1, 3)] {
        assert_eq!(
            (&log[a].key, &log[a].value, log[a].expires),
            (&log[b].key, &log[b].value, log[b].expires)
        );
    }
}

/// A mistake in line n names n and applies nothing.
#[tokio::test]
async fn a_mistake_in_a_batch_names_its_line_and_applies_nothing() {
    let world = World::new();
    let node = Node::leading(&world).await;
    let good = "{\"op\":\"put\",\"key\":\"a\",\"value\":\"1\"}\n";
    let long_key = format!("{{\"op\":\"delete\",\"key\":\"{}\"}}\n", "k".repeat(65_537));
    let long_value = format!("{{\"op\":\"put\",\"key\":\"k\",\"value\":\"{}\"}}\n", "v".repeat(65_537));
    for (bad, status, code) in [
        ("{\"op\":\"put\",\"key\":\"\",\"value\":\"1\"}\n", 400, "invalid_key"),
        (long_key.as_str(), 400, "invalid_key"),
        (long_value.as_str(), 413, "value_too_large"),
        ("{\"op\":\"put\",\"key\":\n", 400, "invalid_request"),
        ("{\"op\":\"put\",\"key\":\"k\",\"valeu\":\"1\"}\n", 400, "invalid_request"),
    ] {
        let body = format!("{good}\n{bad}{good}");
        let got = refused(node.send_as(NDJSON, "/v1/batch", body).await).await;
        assert_eq!((got.0, got.1.as_str(), &got.2["line"]), (status, code, &3.into()), "{}", got.2);
    }
    let got = refused(node.send_as(NDJSON, "/v1/batch", "").await).await;
    assert_eq!(got.1, "invalid_request");
    let got = refused(node.send_as("text/plain", "/v1/batch", good).await).await;
    assert_eq!((got.0, got.1.as_str()), (415, "unsupported_media_type"));
    let many = format!("{{\"op\":\"put\",\"key\":\"k\",\"value\":\"{}\"}}\n", "v".repeat(60_000)).repeat(3);
    let got = refused(node.send_as(NDJSON, "/v1/batch", many).await).await;
    assert_eq!((got.0, got.1.as_str(), &got.2["limit"]), (413, "batch_too_large", &163_840.into()));
    assert_eq!(node.writer.status().accepted_seq.0, 0, "nothing was applied");
}

/// One value is one event and tells its key; lines are many events in one group.
#[tokio::test]
async fn events_are_appended_under_their_numbers() {
    let world = World::new();
    let node = Node::leading(&world).await;
    let answer = node.send(Method::POST, "/v1/events/orders%2Feu?ttl=1h", "one").await;
    let (status, body) = told(answer).await;
    assert_eq!(status, 200);
    assert_eq!(body["key"], "orders/eu/0000000000000001");
    assert_eq!(body["count"], 1);
    let lines = "{\"value\":\"two\"}\n{\"value_b64\":\"dGhyZWU\",\"ttl\":\"2h\"}\n";
    let (_, body) = told(node.send_as(NDJSON, "/v1/events/orders%2Feu?ttl=1h", lines).await).await;
    assert_eq!(
        (&body["first_seq"], &body["count"], &body["key"]),
        (&2.into(), &2.into(), &serde_json::Value::Null)
    );
    let (_, body) = told(node.send(Method::POST, "/v1/events/%FF", "four").await).await;
    assert!(body["key_b64"].is_string(), "{body}");
    let log = world.log().await;
    assert_eq!(log[2].key, "orders/eu/0000000000000003");
    assert_eq!(value(&log[2]), b"three");
    let hours: Vec<i64> =
        log[..3].iter().map(|r| (r.expires.unwrap().0 - r.time.0) / 3_600_000_000).collect();
    assert_eq!(hours, [1, 1, 2]);
    let got = refused(node.send(Method::POST, "/v1/events/", "v").await).await;
    assert_eq!((got.0, got.1.as_str()), (400, "invalid_key"));
}
