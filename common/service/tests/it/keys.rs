//! Keys in paths, from our client over a socket to a handler, byte for byte.

use bytes::Bytes;
use http::{Method, Uri};
use isle_service::ApiError;
use isle_service::server::Routes;
use isle_service::wire::{escape_key, key_target, raw_key};
use proptest::prelude::*;

use super::support::{TestServer, json_of, start};

fn echo() -> Routes {
    // Answers a key with itself.
    async fn key(uri: Uri) -> Result<Bytes, ApiError> {
        raw_key(&uri, "/v1/kv/")
    }
    Routes::new().get("/v1/kv/{*key}", key).put("/v1/kv/{*key}", key)
}

async fn asked(server: &TestServer, target: &str) -> Bytes {
    let answer = server.get(target).await;
    assert_eq!(answer.status(), 200, "{target}");
    answer.bytes(100_000).await.unwrap()
}

/// Every single byte is a key, escaped in a path and as a parameter.
#[tokio::test]
async fn every_byte_is_a_key() {
    let server = start(echo()).await;
    for byte in 0..=255u8 {
        for key in [vec![byte], vec![b'a', byte, b'/', byte]] {
            assert_eq!(asked(&server, &format!("/v1/kv/{}", escape_key(&key))).await, key);
            let all_escaped: String = key.iter().map(|b| format!("%{b:02x}")).collect();
            assert_eq!(asked(&server, &format!("/v1/kv/{all_escaped}")).await, key);
            assert_eq!(asked(&server, &key_target("/v1/kv", &key).unwrap()).await, key);
        }
    }
    assert_eq!(server.stop().await, 0);
}

/// Nothing on the way normalises a path.
#[tokio::test]
async fn dots_slashes_and_plus_signs_mean_themselves() {
    let server = start(echo()).await;
    for (target, key) in [
        ("/v1/kv/.", "."),
        ("/v1/kv/..", ".."),
        ("/v1/kv/../../etc", "../../etc"),
        ("/v1/kv/a/./b/../c", "a/./b/../c"),
        ("/v1/kv//", "/"),
        ("/v1/kv///a//", "//a//"),
        ("/v1/kv/a%2Fb", "a/b"),
        ("/v1/kv/%2F", "/"),
        ("/v1/kv/%2e%2E", ".."),
        ("/v1/kv/a%252Fb", "a%2Fb"),
        ("/v1/kv/a+b", "a+b"),
        ("/v1/kv/a;b=c:d@e!$&'()*,", "a;b=c:d@e!$&'()*,"),
        ("/v1/kv/{key}", "{key}"),
        ("/v1/kv/v1/kv/", "v1/kv/"),
        ("/v1/kv/a?unrelated=1", "a"),
        ("/v1/kv?key_b64=Lw==", "/"),
    ] {
        assert_eq!(asked(&server, target).await, key, "{target}");
    }
    assert_eq!(server.counted("/v1/kv/{key}", 200), 16);
}

#[tokio::test]
async fn a_path_without_a_key_is_an_invalid_key() {
    let server = start(echo()).await;
    for target in ["/v1/kv/", "/v1/kv", "/v1/kv?key_b64=", "/v1/kv/%", "/v1/kv/%f", "/v1/kv/%0g", "/v1/kv/?a"]
    {
        let (status, json) = json_of(server.get(target).await).await;
        assert_eq!((status, json["error"]["code"].as_str()), (400, Some("invalid_key")), "{target}");
    }
    let (status, json) = json_of(server.call(Method::POST, "/v1/kv/a").await).await;
    assert_eq!((status, json["error"]["code"].as_str()), (405, Some("method_not_allowed")));
}

/// The longest key that fits a path arrives; one byte more is refused before it is sent, and by the server.
#[tokio::test]
async fn the_longest_target_arrives() {
    let server = start(echo()).await;
    let longest = "a".repeat(65_534 - "/v1/kv/".len());
    assert_eq!(asked(&server, &format!("/v1/kv/{longest}")).await, longest);
    let target = key_target("/v1/kv", longest.as_bytes()).unwrap();
    assert_eq!(target.len(), 65_534);
    assert_eq!(key_target("/v1/kv", format!("{longest}a").as_bytes()), None);
}

/// The same over HTTP/2, where the limit of header sizes would come first.
#[tokio::test]
async fn the_longest_target_arrives_over_http2() {
    use axum::body::Body;
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;

    let server = start(echo()).await;
    let client: Client<_, Body> = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    // The client's URI is absolute and has the limit too, scheme and host included.
    let longest = "a".repeat(65_534 - "/v1/kv/".len() - server.base.to_string().len());
    let answer = client.get(format!("{}/v1/kv/{longest}", server.base).parse().unwrap()).await.unwrap();
    assert_eq!(answer.version(), http::Version::HTTP_2);
    assert_eq!(http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes(), longest);
}

#[test]
fn any_key_survives_the_journey() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = runtime.block_on(start(echo()));
    let keys = proptest::collection::vec(any::<u8>(), 1..200);
    proptest!(ProptestConfig::with_cases(200), |(key in keys)| {
        runtime.block_on(async {
            assert_eq!(asked(&server, &format!("/v1/kv/{}", escape_key(&key))).await, key);
            assert_eq!(asked(&server, &key_target("/v1/kv", &key).unwrap()).await, key);
        });
    });
}
