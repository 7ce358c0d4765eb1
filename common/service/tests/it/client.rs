//! The client: what it refuses to send, and what it can say about a request that failed.

use std::time::Duration;

use http::Method;
use isle_service::client::{BaseUrl, CallError, Client, ClientError};
use isle_service::server::{Routes, bind};
use isle_service::{ApiError, ErrorCode};
use tokio::io::AsyncReadExt as _;

use super::support::{BOUND, start};

#[test]
fn base_urls_are_scheme_host_and_port() {
    for good in ["http://127.0.0.1:7301", "http://host/", "http://[::1]:7301"] {
        assert!(good.parse::<BaseUrl>().is_ok(), "{good}");
    }
    for bad in
        ["", "host:7301", "ftp://host", "http://host/path", "http://host?x", "http://me@host", "https://host"]
    {
        let error = bad.parse::<BaseUrl>().unwrap_err();
        assert!(error.surely_not_sent(), "{bad}");
    }
    assert!("https://host".parse::<BaseUrl>().unwrap_err().to_string().contains("http://"));
}

#[tokio::test]
async fn errors_of_the_api_come_as_such() {
    let fails = || async { ApiError::new(ErrorCode::NotLeader, "no leader").field("leader", "http://b") };
    let server = start(Routes::new().get("/fails", fails)).await;
    let CallError::Remote(error) = server.get("/fails").await.ok().await.unwrap_err() else {
        panic!("an error of the API");
    };
    assert_eq!(
        (error.status.as_u16(), error.code, error.retryable()),
        (503, Some(ErrorCode::NotLeader), true)
    );
    assert_eq!((error.message.as_str(), &error.fields["leader"]), ("no leader", &"http://b".into()));
    assert_eq!(error.to_string(), "not_leader: no leader");
}

/// A refused connection is certainly not applied; a broken or silent one may have been.
#[tokio::test]
async fn the_three_ways_to_get_no_answer_are_told_apart() {
    let client = Client::default();
    let free = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let base: BaseUrl = format!("http://{}", free.local_addr()).parse().unwrap();
    drop(free);
    let refused = client.request(Method::PUT, &base, "/x").send().await.unwrap_err();
    assert!(matches!(refused, ClientError::Unreachable { .. }) && refused.surely_not_sent(), "{refused}");

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base: BaseUrl = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let peer = tokio::spawn(async move {
        let (mut first, _) = listener.accept().await.unwrap();
        first.read_exact(&mut [0; 10]).await.unwrap();
        drop(first);
        let (silent, _) = listener.accept().await.unwrap();
        silent
    });
    let broken = client.request(Method::PUT, &base, "/x").body("value").send().await.unwrap_err();
    assert!(matches!(broken, ClientError::Broken { .. }) && !broken.surely_not_sent(), "{broken}");
    let waiting = client.request(Method::PUT, &base, "/x").head_timeout(Some(Duration::from_millis(20)));
    let silent = waiting.send().await.unwrap_err();
    assert!(matches!(silent, ClientError::Timeout { .. }) && !silent.surely_not_sent(), "{silent}");
    drop(tokio::time::timeout(BOUND, peer).await.unwrap().unwrap());
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_before() {
    let client = Client::default();
    let base: BaseUrl = "http://127.0.0.1:1".parse().unwrap();
    for target in ["x", "", "/a b", &format!("/{}", "a".repeat(70_000))] {
        let error = client.request(Method::GET, &base, target).send().await.unwrap_err();
        assert!(matches!(error, ClientError::Url(_)), "{error}");
        assert!(error.to_string().len() < 500, "a long target is not repeated whole");
    }
}
