//! Named snapshots over HTTP.

use http::Method;

use super::{Node, refused, told};
use crate::world::World;

#[tokio::test]
async fn snapshots_are_taken_listed_and_dropped_also_through_a_standby() {
    let world = World::new();
    let leader = Node::leading(&world).await;
    let standby = Node::standby(&world).await;
    told(leader.send(Method::PUT, "/v1/kv/a?ack=memory", "1").await).await;
    let answer = standby.send(Method::POST, "/v1/snapshots", r#"{"name":"s-1","ttl":"1h"}"#).await;
    assert_eq!(answer.header("isle-position"), Some("1.1"));
    let (status, taken) = told(answer).await;
    assert_eq!((status.as_u16(), &taken["name"], &taken["seq"]), (200, &"s-1".into(), &1.into()));
    assert_eq!((&taken["position"], &taken["holds_log"]), (&"1.1".into(), &false.into()));
    assert_eq!(taken["created"], "1970-01-01T00:00:01.000000Z");
    assert_eq!(taken["expires"], "1970-01-01T01:00:01.000000Z");
    let body = r#"{"name":"s-2","ttl":7,"holds_log":true}"#;
    let (_, second) = told(leader.send(Method::POST, "/v1/snapshots", body).await).await;
    assert_eq!(
        (&second["expires"], &second["holds_log"]),
        (&"1970-01-01T00:00:08.000000Z".into(), &true.into())
    );
    for node in [&leader, &standby] {
        let (_, all) = told(node.send(Method::GET, "/v1/snapshots", "").await).await;
        assert_eq!(all["snapshots"], serde_json::json!([taken, second]));
        let (_, one) = told(node.send(Method::GET, "/v1/snapshots/s-1", "").await).await;
        assert_eq!(one, taken);
    }
    let (_, dropped) = told(standby.send(Method::DELETE, "/v1/snapshots/s-1", "").await).await;
    assert_eq!(dropped, taken);
    let gone = refused(leader.send(Method::GET, "/v1/snapshots/s-1", "").await).await;
    assert_eq!((gone.0, gone.1.as_str()), (404, "unknown_snapshot"));
}

#[tokio::test]
async fn bad_requests_are_refused_with_a_code() {
    let world = World::new();
    let node = Node::leading(&world).await;
    told(node.send(Method::POST, "/v1/snapshots", r#"{"name":"there"}"#).await).await;
    let version = world.head().await.manifest.version;
    for (method, target, body, status, code) in [
        (Method::POST, "/v1/snapshots", "", 400, "invalid_request"),
        (Method::POST, "/v1/snapshots", "{}", 400, "invalid_request"),
        (Method::POST, "/v1/snapshots", r#"{"name":"a/b"}"#, 400, "invalid_request"),
        (Method::POST, "/v1/snapshots", r#"{"name":"a","ttl":0}"#, 400, "invalid_request"),
        (Method::POST, "/v1/snapshots", r#"{"name":"a","ttl":"soon"}"#, 400, "invalid_request"),
        (Method::POST, "/v1/snapshots", r#"{"name":"a","colour":"red"}"#, 400, "invalid_request"),
        (Method::POST, "/v1/snapshots?ttl=1h", r#"{"name":"a"}"#, 400, "unknown_parameter"),
        (Method::POST, "/v1/snapshots", r#"{"name":"there"}"#, 409, "snapshot_exists"),
        (Method::DELETE, "/v1/snapshots/absent", "", 404, "unknown_snapshot"),
        (Method::DELETE, "/v1/snapshots/a%2Fb", "", 400, "invalid_request"),
        (Method::GET, "/v1/snapshots/%FF", "", 400, "invalid_request"),
        (Method::PUT, "/v1/snapshots/a", "", 405, "method_not_allowed"),
        (Method::DELETE, "/v1/snapshots", "", 405, "method_not_allowed"),
    ] {
        let got = refused(node.send(method.clone(), target, body).await).await;
        assert_eq!((got.0, got.1.as_str()), (status, code), "{method} {target} {body}: {}", got.2);
        if code == "snapshot_exists" {
            assert_eq!((&got.2["snapshot"]["name"], &got.2["snapshot"]["seq"]), (&"there".into(), &0.into()));
        }
    }
    assert_eq!(world.head().await.manifest.version, version, "nothing was changed");
}
