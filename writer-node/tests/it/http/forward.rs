//! A standby sends mutations on, one hop.

use http::Method;
use isle_storage::coordination::{ClaimAttempt, Coordination, NodeInfo};
use isle_storage::ids::Incarnation;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use writer_node::Role;

use super::{Node, refused, told};
use crate::world::{World, small, until_role};

/// The leader's answer comes back through the standby, and the key through both as it was sent.
#[tokio::test]
async fn a_standby_forwards_mutations_to_the_leader() {
    let world = World::new();
    let _leader = Node::leading(&world).await;
    let standby = Node::standby(&world).await;
    let answer = standby.send(Method::PUT, "/v1/kv/a%2Fb//..?ttl=1h", "v").await;
    assert_eq!(answer.header("isle-position"), Some("1.1"));
    assert_eq!(told(answer).await.0, 200);
    told(standby.send(Method::DELETE, "/v1/kv/%FF", "").await).await;
    let lines = "{\"op\":\"put\",\"key\":\"k\",\"value\":\"v\"}\n";
    for target in ["/v1/batch", "/v1/ingest"] {
        assert_eq!(
            told(standby.send_as("application/x-ndjson", target, lines).await).await.0,
            200,
            "{target}"
        );
    }
    told(standby.send(Method::POST, "/v1/events/s", "v").await).await;
    told(standby.send(Method::POST, "/v1/flush", "").await).await;
    let log = world.log().await;
    assert_eq!((&*log[0].key, &*log[1].key), (&b"a/b//.."[..], &b"\xff"[..]));
    assert_eq!(log.len(), 5);
    let bad = refused(standby.send(Method::PUT, "/v1/kv/a?colour=red", "v").await).await;
    assert_eq!((bad.0, bad.1.as_str()), (400, "unknown_parameter"), "the leader's refusal comes back");
    let (status, code, error) = refused(standby.send(Method::GET, "/v1/leader", "").await).await;
    assert_eq!((status, code.as_str()), (503, "not_leader"));
    assert_eq!(error["leader"], _leader.base.to_string());
    assert_eq!(standby.send(Method::GET, "/readyz", "").await.status(), 200, "a healthy standby is ready");
}

/// A request that was forwarded once is not forwarded again.
#[tokio::test]
async fn a_forwarded_request_makes_one_hop() {
    let world = World::new();
    let _leader = Node::leading(&world).await;
    let standby = Node::standby(&world).await;
    let forwarded = http::HeaderName::from_static("isle-forwarded");
    let answer = standby.call(Method::PUT, "/v1/kv/k").body("v").header(forwarded, "1").send().await.unwrap();
    assert_eq!(answer.header("isle-leader"), Some(_leader.base.to_string().as_str()));
    let (status, code, _) = refused(answer).await;
    assert_eq!((status, code.as_str()), (503, "not_leader"));
}

/// Makes `address` the leader in everybody's eyes.
async fn false_leader(world: &World, address: &str) -> Node {
    world.database().await;
    let node = NodeInfo { node: "elsewhere".to_owned(), advertise: address.to_owned() };
    let claim = world.coordination.claim_writer(&node, Incarnation(1)).await.unwrap();
    assert!(matches!(claim, ClaimAttempt::Won(_)));
    let standby = Node::start(world, "w2", small()).await;
    until_role(&standby.writer, Role::Standby).await;
    standby
}

/// A leader that refuses the connection: the request was certainly not applied.
#[tokio::test]
async fn a_leader_that_cannot_be_reached_is_503() {
    let world = World::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let standby = false_leader(&world, &format!("http://{free}")).await;
    let (status, code, error) = refused(standby.send(Method::PUT, "/v1/kv/k", "v").await).await;
    assert_eq!((status, code.as_str(), &error["retryable"]), (503, "not_leader", &true.into()));
}

/// A leader that takes the request and breaks the connection: nobody can tell.
#[tokio::test]
async fn a_leader_that_breaks_off_is_504() {
    let world = World::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut taken = [0; 1024];
            let _read = stream.read(&mut taken).await;
            let _closed = stream.shutdown().await;
        }
    });
    let standby = false_leader(&world, &address).await;
    let (status, code, error) = refused(standby.send(Method::PUT, "/v1/kv/k", "v").await).await;
    assert_eq!((status, code.as_str(), &error["retryable"]), (504, "outcome_unknown", &false.into()));
}

/// Without a leader, and without a database that answers, the refusal is definite.
#[tokio::test]
async fn without_a_leader_it_is_503() {
    let world = World::new();
    let node = Node::leading(&world).await;
    world.coordination.set_down(true);
    world.coordination.expire_writer();
    until_role(&node.writer, Role::Starting).await;
    let (status, code, _) = refused(node.send(Method::PUT, "/v1/kv/k", "v").await).await;
    assert_eq!((status, code.as_str()), (503, "not_leader"));
}
