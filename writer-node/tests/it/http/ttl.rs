//! The default time to live over HTTP.

use http::Method;
use serde_json::Value;

use super::{Node, refused, told};
use crate::world::World;

#[tokio::test]
async fn the_default_is_set_also_through_a_standby_and_shown_everywhere() {
    let world = World::new();
    let leader = Node::leading(&world).await;
    let standby = Node::standby(&world).await;
    let (_, none) = told(leader.send(Method::GET, "/v1/ttl", "").await).await;
    assert_eq!(none["ttl"], Value::Null);
    for (body, shown) in [
        (r#"{"ttl":"30d"}"#, Value::from("30d")),
        (r#"{"ttl":90}"#, "1m 30s".into()),
        (r#"{"ttl":"none"}"#, Value::Null),
        (r#"{"ttl":7}"#, "7s".into()),
        (r#"{"ttl":null}"#, Value::Null),
    ] {
        let (status, set) = told(standby.send(Method::PUT, "/v1/ttl", body).await).await;
        assert_eq!((status.as_u16(), &set["ttl"]), (200, &shown), "{body}");
        for node in [&leader, &standby] {
            let (_, found) = told(node.send(Method::GET, "/v1/ttl", "").await).await;
            assert_eq!(found["ttl"], shown, "{body}");
        }
    }
}

#[tokio::test]
async fn what_is_no_default_is_refused() {
    let world = World::new();
    let leader = Node::leading(&world).await;
    for body in
        [r#"{"ttl":0}"#, r#"{"ttl":"0s"}"#, r#"{"ttl":"soon"}"#, r#"{"ttl":-1}"#, "{}", r#"{"ttl":1,"x":1}"#]
    {
        let (status, ..) = refused(leader.send(Method::PUT, "/v1/ttl", body).await).await;
        assert_eq!(status, 400, "{body}");
    }
    let (_, found) = told(leader.send(Method::GET, "/v1/ttl", "").await).await;
    assert_eq!(found["ttl"], Value::Null);
}
